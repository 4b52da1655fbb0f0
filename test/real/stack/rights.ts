/** Who may do what on the test cluster: nobody anything, but for this. The gate's rights are those of docs/kafka.md. */
import kafkajs, { type AclEntry, type AclOperationTypes, type AclResourceTypes } from 'kafkajs'

// Node finds only some of kafkajs's names by themselves.
const {
  AclResourceTypes: RESOURCE,
  AclOperationTypes: OPERATION,
  AclPermissionTypes,
  ResourcePatternTypes,
} = kafkajs

export const PRINCIPALS = ['admin', 'gate', 'producer', 'consumer', 'poller', 'operator'] as const
export type Principal = (typeof PRINCIPALS)[number]

/** A topic, group or id by its name, or all whose names begin with it. */
export interface Pattern {
  readonly name: string
  readonly prefixed: boolean
}

export const named = (name: string): Pattern => ({ name, prefixed: false })
export const prefixed = (name: string): Pattern => ({ name, prefixed: true })

export interface GateTopics {
  readonly deployment: string
  readonly sources: readonly Pattern[]
  /** Outputs, audit and quarantine. */
  readonly outputs: readonly Pattern[]
}

export function gateRights({ deployment, sources, outputs }: GateTopics): AclEntry[] {
  const { TRANSACTIONAL_ID, GROUP, TOPIC } = RESOURCE
  const { WRITE, READ } = OPERATION
  return [
    right('gate', TRANSACTIONAL_ID, prefixed(`${deployment}.`), WRITE),
    right('gate', GROUP, prefixed(`${deployment}.shadow.`), READ),
    ...sources.map((source) => right('gate', TOPIC, source, READ)),
    ...outputs.map((output) => right('gate', TOPIC, output, WRITE)),
  ]
}

export const producerRights = (topics: readonly Pattern[]): AclEntry[] =>
  topics.map((topic) => right('producer', RESOURCE.TOPIC, topic, OPERATION.WRITE))

/** `who` reads topics as a member of groups whose names begin with its own. */
export const readerRights = (who: 'consumer' | 'poller', topics: readonly Pattern[]): AclEntry[] => [
  right(who, RESOURCE.GROUP, prefixed(`${who}.`), OPERATION.READ),
  ...topics.map((topic) => right(who, RESOURCE.TOPIC, topic, OPERATION.READ)),
]

/** What whoever changes keys needs to write the control chain (docs/kafka.md), beside Read on the audit topic. */
export const controlRights = (who: Principal, deployment: string, auditTopic: Pattern): AclEntry[] => [
  right(
    who,
    RESOURCE.TRANSACTIONAL_ID,
    { ...auditTopic, name: `${deployment}.${auditTopic.name}` },
    OPERATION.WRITE,
  ),
  right(who, RESOURCE.GROUP, prefixed(`${deployment}.shadow.`), OPERATION.READ),
  right(who, RESOURCE.TOPIC, auditTopic, OPERATION.WRITE),
]

/** What the command line needs (docs/cli.md): to send, to read all that the gate writes, and to see the positions. */
export const operatorRights = ({ deployment, sources, outputs }: GateTopics): AclEntry[] => [
  right('operator', RESOURCE.GROUP, prefixed(`${deployment}.shadow.`), OPERATION.READ),
  right('operator', RESOURCE.GROUP, prefixed('operator.'), OPERATION.READ),
  ...sources.map((source) => right('operator', RESOURCE.TOPIC, source, OPERATION.WRITE)),
  ...[...sources, ...outputs].map((topic) => right('operator', RESOURCE.TOPIC, topic, OPERATION.READ)),
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
