/** Who may do what on the test cluster: nobody anything, but for this. The rights are those of lib/cluster-needs.ts. */
import kafkajs, { type AclEntry, type AclOperationTypes, type AclResourceTypes } from 'kafkajs'
import * as needs from '../../../lib/cluster-needs.ts'
import type { GateTopics, Pattern, Right } from '../../../lib/cluster-needs.ts'

export { named, type Pattern, prefixed } from '../../../lib/cluster-needs.ts'

// Node finds only some of kafkajs's names by themselves.
const {
  AclResourceTypes: RESOURCE,
  AclOperationTypes: OPERATION,
  AclPermissionTypes,
  ResourcePatternTypes,
} = kafkajs

export const PRINCIPALS = ['admin', 'gate', 'producer', 'consumer', 'poller', 'operator'] as const
export type Principal = (typeof PRINCIPALS)[number]

/** Kafka's own numbers. */
const RESOURCES: Readonly<Record<Right['resource'], AclResourceTypes>> = {
  topic: RESOURCE.TOPIC,
  group: RESOURCE.GROUP,
  'transactional-id': RESOURCE.TRANSACTIONAL_ID,
  cluster: RESOURCE.CLUSTER,
}
const OPERATIONS: Readonly<Record<Right['operation'], AclOperationTypes>> = {
  Read: OPERATION.READ,
  Write: OPERATION.WRITE,
  Describe: OPERATION.DESCRIBE,
  DescribeConfigs: OPERATION.DESCRIBE_CONFIGS,
}

const granted = (who: Principal, rights: readonly Right[]): AclEntry[] =>
  rights.map((one) => right(who, RESOURCES[one.resource], one, OPERATIONS[one.operation]))

export const gateRights = (topics: GateTopics): AclEntry[] => granted('gate', needs.gateRights(topics))

export const producerRights = (topics: readonly Pattern[]): AclEntry[] =>
  granted('producer', needs.producerRights(topics))

/** `who` reads topics as a member of groups whose names begin with `group`, by default its own. */
export const readerRights = (
  who: 'consumer' | 'poller',
  topics: readonly Pattern[],
  group = `${who}.`,
): AclEntry[] => granted(who, needs.readerRights(group, topics))

/** The operator's, with those of the control chain. */
export const operatorRights = (topics: GateTopics, auditTopic: Pattern): AclEntry[] => [
  ...granted('operator', needs.operatorRights(topics)),
  ...granted('operator', needs.controlRights(topics.deployment, auditTopic)),
]

export function right(
  principal: Principal,
  resourceType: AclResourceTypes,
  { name, prefixed: isPrefix }: Pattern,
  operation: AclOperationTypes,
): AclEntry {
  return {
    resourceType,
    resourceName: name,
    resourcePatternType: isPrefix ? ResourcePatternTypes.PREFIXED : ResourcePatternTypes.LITERAL,
    principal: `User:${principal}`,
    host: '*',
    operation,
    permissionType: AclPermissionTypes.ALLOW,
  }
}
