/** What a cluster can refuse in mid-run, and how it is allowed again. */
import kafkajs, { type AclEntry } from 'kafkajs'
import { prefixed, right } from '../stack/rights.ts'
import { type Connection, DEPLOYMENT, withAdmin } from '../stack/stack.ts'

const {
  AclOperationTypes: OPERATION,
  AclResourceTypes: RESOURCE,
  AclPermissionTypes,
  ConfigResourceTypes,
} = kafkajs

/** The gate's rights, by what it needs them for. */
export const RIGHTS: Readonly<Record<'outputs' | 'audit' | 'position' | 'transactions', AclEntry>> = {
  outputs: right('gate', RESOURCE.TOPIC, prefixed('output.'), OPERATION.WRITE),
  audit: right('gate', RESOURCE.TOPIC, prefixed(`${DEPLOYMENT}.audit`), OPERATION.WRITE),
  position: right('gate', RESOURCE.GROUP, prefixed(`${DEPLOYMENT}.shadow.`), OPERATION.READ),
  transactions: right('gate', RESOURCE.TRANSACTIONAL_ID, prefixed(`${DEPLOYMENT}.`), OPERATION.WRITE),
}

/** Takes a right away. Resolves to what gives it back. */
export async function takeAway(connection: Connection, entry: AclEntry): Promise<() => Promise<void>> {
  const filter = { ...entry, permissionType: AclPermissionTypes.ALLOW }
  await withAdmin(connection, (admin) => admin.deleteAcls({ filters: [filter] }))
  return () =>
    withAdmin(connection, async (admin) => {
      await admin.createAcls({ acl: [entry] })
    })
}

/** Lets a topic take hardly anything. Resolves to what lets it take the usual again. */
export async function shrink(connection: Connection, topic: string): Promise<() => Promise<void>> {
  const limit = (value: string): Promise<void> =>
    withAdmin(connection, async (admin) => {
      const configEntries = [{ name: 'max.message.bytes', value }]
      const resource = { type: ConfigResourceTypes.TOPIC, name: topic, configEntries }
      await admin.alterConfigs({ validateOnly: false, resources: [resource] })
    })
  await limit('300')
  return () => limit('1048588')
}
