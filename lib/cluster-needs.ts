/**
 * What a deployment needs of its Kafka cluster: topics with their settings, and who may do what (docs/kafka.md). The one
 * list that `sealgate setup print` prints, `sealgate doctor` looks for, and the tests' clusters are made from.
 */
import type { Contracts } from './contract/contract.ts'

/** A topic, group or id by its name, or all whose names begin with it. */
export interface Pattern {
  readonly name: string
  readonly prefixed: boolean
}

export const named = (name: string): Pattern => ({ name, prefixed: false })
export const prefixed = (name: string): Pattern => ({ name, prefixed: true })

/** By Kafka's own names. */
export type Operation = 'Read' | 'Write' | 'Describe' | 'DescribeConfigs'

/** One right; of the cluster itself the name is `kafka-cluster`. */
export interface Right extends Pattern {
  readonly resource: 'topic' | 'group' | 'transactional-id' | 'cluster'
  readonly operation: Operation
}

/** The topics that the gate has to do with. */
export interface GateTopics {
  readonly deployment: string
  readonly sources: readonly Pattern[]
  /** Outputs, audit and quarantine. */
  readonly outputs: readonly Pattern[]
}

const right = (resource: Right['resource'], pattern: Pattern, operation: Operation): Right => ({
  resource,
  operation,
  ...pattern,
})
const rights = (topics: readonly Pattern[], operation: Operation): Right[] =>
  topics.map((topic) => right('topic', topic, operation))

/** Its positions are offsets of groups whose names begin so; whoever makes or shows them needs it too. */
const positions = (deployment: string): Right => right('group', prefixed(`${deployment}.shadow.`), 'Read')

export const gateRights = ({ deployment, sources, outputs }: GateTopics): readonly Right[] => [
  right('transactional-id', prefixed(`${deployment}.`), 'Write'),
  positions(deployment),
  ...rights(sources, 'Read'),
  ...rights(outputs, 'Write'),
]

export const producerRights = (topics: readonly Pattern[]): readonly Right[] => rights(topics, 'Write')

/** Reads topics as a member of groups whose names begin with `group`. */
export const readerRights = (group: string, topics: readonly Pattern[]): readonly Right[] => [
  right('group', prefixed(group), 'Read'),
  ...rights(topics, 'Read'),
]

/** What whoever changes keys needs to write the control chain (docs/audit.md), which lies on partition 0 of the audit topic. */
export const controlRights = (deployment: string, auditTopic: Pattern): readonly Right[] => {
  const { name, prefixed: isPrefix } = auditTopic
  const transaction = isPrefix ? prefixed(`${deployment}.${name}`) : named(`${deployment}.${name}.0`)
  return [
    right('transactional-id', transaction, 'Write'),
    positions(deployment),
    ...rights([auditTopic], 'Write'),
    // Its position is an offset on it.
    ...rights([auditTopic], 'Read'),
  ]
}

/** What the command line needs (docs/cli.md): to send, to read all that the gate writes, and to see the positions. */
export const operatorRights = ({ deployment, sources, outputs }: GateTopics): readonly Right[] => [
  positions(deployment),
  right('group', prefixed('operator.'), 'Read'),
  ...rights(sources, 'Write'),
  ...rights([...sources, ...outputs], 'Read'),
]

/** What `sealgate doctor --observer` needs: to see settings, and to change nothing. */
export const observerRights = (topics: readonly Pattern[]): readonly Right[] => [
  right('cluster', named('kafka-cluster'), 'Describe'),
  right('cluster', named('kafka-cluster'), 'DescribeConfigs'),
  ...rights(topics, 'Describe'),
  ...rights(topics, 'DescribeConfigs'),
]

/** What a topic is for: its settings follow from that. */
export type TopicUse = 'source' | 'output' | 'quarantine' | 'audit'

export interface NeededTopic {
  readonly name: string
  readonly use: TopicUse
  /** Settings of a topic by Kafka's own names. */
  readonly settings: Readonly<Record<string, string>>
}

/** Replicas of every topic, and how many of them must have a record before it counts. */
export const REPLICAS = 3
export const MIN_IN_SYNC = 2

const DAY_MS = 86_400_000
/** A year, and a day for the leap years among them. */
export const AUDIT_RETENTION_MS: number = 366 * DAY_MS
/** The least that passes for a year. */
export const YEAR_MS: number = 365 * DAY_MS
/** Kafka's own default for a topic. */
export const SOURCE_MAX_BYTES = 1_048_588
/** What is sealed again, or quarantined with its headers, is a little longer than what came in. */
export const OUTPUT_MAX_BYTES: number = SOURCE_MAX_BYTES + 65_536

const EVERY = { 'cleanup.policy': 'delete', 'min.insync.replicas': String(MIN_IN_SYNC) }
const BROKERS_TIME = { 'message.timestamp.type': 'LogAppendTime' }
const SETTINGS: Readonly<Record<TopicUse, Readonly<Record<string, string>>>> = {
  source: { ...EVERY, ...BROKERS_TIME, 'max.message.bytes': String(SOURCE_MAX_BYTES) },
  output: { ...EVERY, ...BROKERS_TIME, 'max.message.bytes': String(OUTPUT_MAX_BYTES) },
  quarantine: { ...EVERY, ...BROKERS_TIME, 'max.message.bytes': String(OUTPUT_MAX_BYTES) },
  audit: {
    ...EVERY,
    'retention.ms': String(AUDIT_RETENTION_MS),
    'retention.bytes': '-1',
    'max.message.bytes': String(SOURCE_MAX_BYTES),
  },
}

/** A deployment as its settings and contracts have it. */
export interface Deployment {
  readonly deployment: string
  /** Source topics, and the channel of each. */
  readonly channels: ReadonlyMap<string, string>
  /** Output channels whose topic is named otherwise. */
  readonly topics: ReadonlyMap<string, string>
  readonly auditTopic: string
  readonly quarantineTopic: string
  readonly contracts: Contracts
}

/** All that a deployment needs: its topics, and by each one's name what it may do. */
export interface ClusterNeeds {
  readonly topics: readonly NeededTopic[]
  readonly gate: readonly Right[]
  /** Whoever hands source records to the gate: Lambda's poller. */
  readonly poller: readonly Right[]
  readonly operator: readonly Right[]
  /** The function that rotates, and writes of it (docs/audit.md). */
  readonly rotator: readonly Right[]
  readonly observer: readonly Right[]
  /** By the issuers of the contracts. */
  readonly producers: ReadonlyMap<string, readonly Right[]>
  /** By the consumers of the contracts. */
  readonly consumers: ReadonlyMap<string, readonly Right[]>
}

export function clusterNeeds(of: Deployment): ClusterNeeds {
  const { deployment, channels, auditTopic, quarantineTopic, contracts } = of
  const sourceOf = new Map(Array.from(channels, ([topic, channel]) => [channel, topic]))
  const topicOf = (channel: string): string => of.topics.get(channel) ?? channel
  const producers = new Map<string, Set<string>>()
  const consumers = new Map<string, Set<string>>()
  for (const { channel, publish, routes } of contracts.all) {
    const source = sourceOf.get(channel)
    for (const issuer of publish.keys()) if (source !== undefined) into(producers, issuer, source)
    for (const route of routes) into(consumers, route.consumer, topicOf(route.channel))
  }
  const outputs = [...new Set([...consumers.values()].flatMap((topics) => [...topics]))].sort()
  const sources = [...channels.keys()]
  const written = [...outputs, quarantineTopic, auditTopic].map(named)
  const gateTopics = { deployment, sources: sources.map(named), outputs: written }
  const topic = (use: TopicUse, name: string): NeededTopic => ({ name, use, settings: SETTINGS[use] })
  return {
    topics: [
      ...sources.map((name) => topic('source', name)),
      ...outputs.map((name) => topic('output', name)),
      topic('quarantine', quarantineTopic),
      topic('audit', auditTopic),
    ],
    gate: gateRights(gateTopics),
    poller: readerRights(`${deployment}.lambda.`, gateTopics.sources),
    operator: distinct([...operatorRights(gateTopics), ...controlRights(deployment, named(auditTopic))]),
    rotator: controlRights(deployment, named(auditTopic)),
    observer: observerRights([...gateTopics.sources, ...written]),
    producers: new Map(
      Array.from(producers, ([name, topics]) => [name, producerRights([...topics].map(named))]),
    ),
    consumers: new Map(
      Array.from(consumers, ([name, topics]) => [name, readerRights(`${name}.`, [...topics].map(named))]),
    ),
  }
}

/** Each once. */
const distinct = (all: readonly Right[]): readonly Right[] => [
  ...new Map(
    all.map((one) => [[one.resource, one.name, one.prefixed, one.operation].join('\n'), one]),
  ).values(),
]

function into(map: Map<string, Set<string>>, name: string, value: string): void {
  const values = map.get(name) ?? new Set()
  map.set(name, values.add(value))
}
