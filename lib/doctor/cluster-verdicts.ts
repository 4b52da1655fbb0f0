/** What is to be said of a Kafka cluster, given what was seen of it: topics, rights, settings, versions. */
import {
  type ClusterNeeds,
  MIN_IN_SYNC,
  type NeededTopic,
  REPLICAS,
  type Right,
  YEAR_MS,
} from '../cluster-needs.ts'
import type { Outage } from '../errors.ts'
import { fail, orElse, skip, type Verdict, verdictsOf, warn } from './finding.ts'

/** Settings by Kafka's own names; undefined where we may not see them. */
export type Seen = ReadonlyMap<string, string | null> | undefined

/** A topic as a broker tells of it; undefined where it is not there, or not for us to see. */
export interface SeenTopic {
  readonly partitions: readonly { readonly replicas: number; readonly inSync: number }[]
  readonly allowed: ReadonlySet<string>
}

const OBSERVE =
  'Name somebody with DescribeConfigs by --observer FILE (sealgate setup print has the commands).'
const PRINT = 'sealgate setup print has the command.'

/** Whether topics are there, with replicas, and with the settings that they need. One line for all that have the same fault. */
export function topicVerdicts(
  needed: readonly NeededTopic[],
  seen: ReadonlyMap<string, SeenTopic>,
  configs: ReadonlyMap<string, Seen>,
): readonly Verdict[] {
  const faults = needed.flatMap((topic) =>
    topicFaults(topic, seen.get(topic.name), configs.get(topic.name)).map((fault) => ({
      ...fault,
      topic: topic.name,
    })),
  )
  const same = [...Map.groupBy(faults, ({ what, fix }) => `${what} ${fix}`).values()]
  const verdicts = same.flatMap((alike) => {
    const [first] = alike
    return first ? [fail(`${named(alike.map(({ topic }) => topic))}: ${first.what}`, first.fix)] : []
  })
  const hidden = needed.filter(({ name }) => seen.has(name) && configs.get(name) === undefined)
  if (hidden.length === 0)
    return orElse(verdicts, `${needed.length} there, with ${REPLICAS} replicas and the settings they need.`)
  const unseen = `Settings of ${hidden.length} of ${needed.length} topics are not for us to see.`
  return [...verdicts, skip(unseen, OBSERVE)]
}

const NAMED = 3

function named(topics: readonly string[]): string {
  const more = topics.length > NAMED ? ` and ${topics.length - NAMED} more` : ''
  return topics.slice(0, NAMED).join(', ') + more
}

function topicFaults(
  { settings }: NeededTopic,
  seen: SeenTopic | undefined,
  config: Seen,
): { readonly what: string; readonly fix: string }[] {
  if (seen === undefined)
    return [{ what: 'not there, or not for us to see.', fix: `Create it, or allow it: ${PRINT}` }]
  const faults: { what: string; fix: string }[] = []
  const replicas = Math.min(...seen.partitions.map((each) => each.replicas))
  if (replicas < REPLICAS)
    faults.push({
      what: `${replicas} of ${REPLICAS} replicas.`,
      fix: 'Create it with --replication-factor 3, or reassign its partitions.',
    })
  if (seen.partitions.some((each) => each.inSync < Math.min(each.replicas, MIN_IN_SYNC)))
    faults.push({
      what: 'fewer replicas are in sync than a record must have.',
      fix: 'Look at the brokers.',
    })
  if (config === undefined) return faults
  for (const [setting, value] of Object.entries(settings)) {
    const has = config.get(setting) ?? 'nothing'
    if (!isEnough(setting, has, value))
      faults.push({
        what: `${setting}=${has}.`,
        fix: `kafka-configs.sh … --alter --add-config ${setting}=${value}`,
      })
  }
  return faults
}

function isEnough(setting: string, has: string, needed: string): boolean {
  switch (setting) {
    case 'retention.ms':
      return has === '-1' || Number(has) >= YEAR_MS
    case 'max.message.bytes':
    case 'min.insync.replicas':
      return Number(has) >= Number(needed)
    default:
      return has === needed
  }
}

/** What the gate, as whom we are connected, may do: all that it needs, and nothing else. */
export function rightsVerdicts(
  needs: Pick<ClusterNeeds, 'gate' | 'topics'>,
  seen: {
    readonly topics: ReadonlyMap<string, SeenTopic>
    readonly cluster: ReadonlySet<string>
    /** Of the shadow group; undefined where it is not for us to see. */
    readonly group: ReadonlySet<string> | undefined
    readonly mayTransact: boolean
    /** Kinds of resources that it sees under a name that no rule is for. */
    readonly unruled: readonly string[]
  },
): readonly Verdict[] {
  const faults: Verdict[] = []
  const ruling = [...seen.cluster].filter((name) => RULING.includes(name))
  if (ruling.length > 0)
    faults.push(
      fail(
        `The gate may ${ruling.join(', ')} on the cluster: nothing is kept from it, or there is no authoriser.`,
        'Give it a user of its own that is no super user, on brokers with authorizer.class.name set and allow.everyone.if.no.acl.found=false.',
      ),
    )
  else if (seen.unruled.length > 0)
    faults.push(
      fail(
        `What no rule is for is open to the gate (${seen.unruled.join(', ')}): allow.everyone.if.no.acl.found is true, or a rule is for every name.`,
        'Set allow.everyone.if.no.acl.found=false at every broker; take away the rule for * (kafka-acls.sh --remove).',
      ),
    )
  const has = ({ resource, name, operation }: Right): boolean | undefined =>
    resource === 'topic'
      ? seen.topics.get(name)?.allowed.has(operation)
      : resource === 'group'
        ? seen.group?.has(operation)
        : seen.mayTransact
  const lacking = needs.gate.filter((each) => has(each) !== true)
  for (const [what, alike] of Map.groupBy(lacking, ({ resource, operation }) => `${operation} ${resource}`)) {
    const names = alike.map(({ name, prefixed }) => (prefixed ? `${name}*` : name))
    faults.push(fail(`The gate may not ${what} ${named(names)}.`, `Allow it: ${PRINT}`))
  }
  // Where nothing is kept from it, the one line above says so.
  if (ruling.length === 0) {
    const spare = needs.topics.flatMap(({ name }) =>
      [...(seen.topics.get(name)?.allowed ?? [])]
        .filter((each) => each !== 'Describe' && !isNeeded(needs.gate, name, each))
        .map((operation) => ({ name, operation })),
    )
    for (const [operation, alike] of Map.groupBy(spare, (each) => each.operation))
      faults.push(
        warn(
          `The gate may ${operation} topic ${named(alike.map(({ name }) => name))}, which it need not.`,
          'Take it away (kafka-acls.sh --remove).',
        ),
      )
  }
  return orElse(faults, `The gate may do the ${needs.gate.length} things that it needs, and no more.`)
}

const RULING = ['Create', 'Alter', 'AlterConfigs', 'ClusterAction', 'All']

const isNeeded = (rights: readonly Right[], topic: string, operation: string): boolean =>
  rights.some((each) => each.resource === 'topic' && each.name === topic && each.operation === operation)

/**
 * Settings of a broker that the gate's promises hang on. `transactionTimeoutMs` is the gate's own; with `isMsk` a setting
 * that is not told may have MSK's default, which for what no ACL is for is to let everybody.
 */
export function brokerVerdicts(
  config: Seen,
  transactionTimeoutMs: number,
  isMsk: boolean,
): readonly Verdict[] {
  if (config === undefined) return [skip('Settings of the brokers are not for us to see.', OBSERVE)]
  const faults: Verdict[] = []
  const number = (name: string): number => Number(config.get(name) ?? NaN)
  const least = (name: string, value: number): void => {
    if (number(name) < value) faults.push(fail(`${name} is ${number(name)}.`, `Set it to ${value} or more.`))
  }
  if (config.get('authorizer.class.name') === '')
    faults.push(
      fail(
        'authorizer.class.name is not set: everybody may do everything.',
        'Set it to org.apache.kafka.metadata.authorizer.StandardAuthorizer.',
      ),
    )
  // Kafka's own brokers keep this one back, whatever it is: the check of rights tries it.
  if (config.get('allow.everyone.if.no.acl.found') === 'true')
    faults.push(
      fail('allow.everyone.if.no.acl.found is true: what no rule is for is open to all.', 'Set it to false.'),
    )
  else if (isMsk && (config.get('allow.everyone.if.no.acl.found') ?? null) === null)
    faults.push(
      warn(
        'allow.everyone.if.no.acl.found is not told, and true unless the configuration of the MSK cluster has it.',
        'Set it to false there (docs/setup.md).',
      ),
    )
  if ((config.get('unclean.leader.election.enable') ?? 'false') !== 'false')
    faults.push(
      fail('unclean.leader.election.enable is true: committed records may be lost.', 'Set it to false.'),
    )
  if ((config.get('auto.create.topics.enable') ?? 'true') !== 'false')
    faults.push(
      warn(
        'auto.create.topics.enable is not false: a wrong name makes a topic without the settings it needs.',
        'Set it to false.',
      ),
    )
  least('offset.metadata.max.bytes', 4096)
  least('transaction.max.timeout.ms', transactionTimeoutMs)
  least('offsets.topic.replication.factor', REPLICAS)
  least('transaction.state.log.replication.factor', REPLICAS)
  least('transaction.state.log.min.isr', MIN_IN_SYNC)
  const minutes = number('offsets.retention.minutes')
  const untold = NUMBERS.filter((name) => Number.isNaN(number(name)))
  if (minutes < WEEK_MINUTES)
    faults.push(
      warn(
        `offsets.retention.minutes is ${minutes}: a partition that is quiet for longer loses its position.`,
        `Set it to ${WEEK_MINUTES} or more, and run sealgate position renew daily.`,
      ),
    )
  // A managed cluster may set it by itself, and not tell.
  if (untold.length > 0)
    return [...faults, skip(`The brokers do not tell ${untold.join(', ')}.`, 'Ask whoever runs the cluster.')]
  return orElse(faults, `As needed; positions are kept for ${Math.floor(minutes / 1440)} days of quiet.`)
}

const NUMBERS = [
  ...['offset.metadata.max.bytes', 'transaction.max.timeout.ms', 'offsets.topic.replication.factor'],
  ...['transaction.state.log.replication.factor', 'transaction.state.log.min.isr'],
  'offsets.retention.minutes',
]

const WEEK_MINUTES = 10_080

/**
 * `fetchVersion` and `metadataVersion` as a broker tells them: it does not tell its version. `leastReplicas` of any topic's
 * partition; undefined where no topic is to be seen.
 */
export function versionVerdicts(
  brokers: readonly {
    readonly id: number
    readonly fetchVersion: number
    readonly metadataVersion: number | undefined
  }[],
  leastReplicas: number | undefined,
  node: string,
): readonly Verdict[] {
  const faults: Verdict[] = []
  const old = brokers.filter(({ fetchVersion }) => fetchVersion < FETCH_OF_3_9)
  if (old.length > 0)
    faults.push(
      fail(
        `Broker ${old.map(({ id }) => id).join(', ')}: older than Kafka 3.9.`,
        'Upgrade to 3.9.1 or later.',
      ),
    )
  const levels = new Set(brokers.map(({ metadataVersion }) => metadataVersion))
  const highest = Math.max(...brokers.map(({ metadataVersion = 0 }) => metadataVersion))
  if (highest >= LEVEL_OF_4_3 && leastReplicas === undefined)
    faults.push(
      skip(
        'No topic is to be seen: whether they have the replicas without which Kafka 4.3 breaks transactions, is not known.',
        'See the check topics.',
      ),
    )
  if (highest >= LEVEL_OF_4_3 && leastReplicas !== undefined && leastReplicas < MIN_IN_SYNC)
    faults.push(
      fail(
        'Kafka 4.3 without replicas: it breaks transactions while a partition has no leader.',
        'Give every topic 3 replicas, or use 3.9.1 to 4.2.0 (docs/kafka.md).',
      ),
    )
  if (levels.size > 1)
    faults.push(warn('The brokers are of different versions.', 'Bring the upgrade to its end.'))
  const [major = 0, minor = 0] = node.split('.').map(Number)
  if (major < 22 || (major === 22 && minor < 18))
    faults.push(fail(`Node ${node} is too old.`, 'Install Node 24.'))
  const name = LEVELS.find(([level]) => highest >= level)?.[1] ?? '3.9 or later, without KRaft'
  return orElse(faults, `Kafka ${name}, Node ${node}.`)
}

const FETCH_OF_3_9 = 17
const LEVEL_OF_4_3 = 30
/** Of `metadata.version`, by the release that brought it. */
const LEVELS = [
  [31, 'later than 4.3'],
  [30, '4.3'],
  [28, '4.2'],
  [26, '4.1'],
  [22, '4.0'],
  [21, '3.9'],
] as const

/** Of a source partition; the outage is a damaged one's. */
export type FoundPosition = 'there' | 'missing' | Outage

/** By source topic, its partitions in order; undefined where the topic is not there, or not for us to see. */
export function positionVerdicts(
  found: ReadonlyMap<string, readonly FoundPosition[] | undefined>,
): readonly Verdict[] {
  const all = [...found].flatMap(([topic, partitions = []]) =>
    partitions.map((position, partition) => ({ topic, partition, position })),
  )
  const faults = all.flatMap(({ topic, partition, position }) => {
    if (position === 'there') return []
    if (position !== 'missing') return verdictsOf(position)
    return fail(
      `${topic}/${partition} has no position: the gate would not start there.`,
      `sealgate position init ${topic}; restore, where it had one.`,
    )
  })
  const unseen = [...found].flatMap(([topic, partitions]) => (partitions === undefined ? [topic] : []))
  if (unseen.length === 0) return orElse(faults, `${all.length} partitions, each with a position.`)
  const untold = `How many partitions ${named(unseen)} has is not for us to see, nor their positions.`
  return [...faults, skip(untold, 'See the check topics.')]
}
