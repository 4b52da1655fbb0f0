/** What makes a cluster ready for a deployment, as text to copy and paste: Kafka's own commands, or IAM policies for MSK. */
import { type ClusterNeeds, prefixed, REPLICAS, type Right, type TopicUse } from './cluster-needs.ts'
import type { Fault } from './errors.ts'

/** By the name of a part (`gate`, an issuer, …): who it is to the cluster, `User:…` or the name of an IAM role. */
export type Principals = (name: string) => string

export interface SetupOptions {
  /** `host:port,host:port` */
  readonly brokers: string
  /** A file for Kafka's `--command-config`, of whoever may do all this. */
  readonly commandConfig: string
  readonly partitions: number
  readonly principals: Principals
  /** MSK Serverless, which has replicas and most settings of its own, and refuses to be told. */
  readonly serverless?: boolean
}

/** Those of whom a deployment has one; issuers and consumers must not be named so. */
export const PARTS = ['gate', 'poller', 'operator', 'rotator', 'observer'] as const

/** Who needs what, by name; whoever publishes and consumes needs both. */
export function rightsByName(needs: ClusterNeeds): ReadonlyMap<string, readonly Right[]> {
  const all = new Map<string, readonly Right[]>(PARTS.map((name) => [name, needs[name]]))
  for (const [name, rights] of [...needs.producers, ...needs.consumers])
    all.set(name, [...(all.get(name) ?? []), ...rights])
  return all
}

/**
 * Why no commands are to be printed for a deployment: every reason.
 * @param isIam for policies of MSK, instead of ACLs
 */
export function setupFaults(needs: ClusterNeeds, principals: Principals, isIam: boolean): readonly Fault[] {
  const faults: Fault[] = []
  for (const { name, use } of needs.topics)
    if (!TOPIC.test(name))
      faults.push({
        where: NAMED_IN[use],
        what: `${JSON.stringify(name)} is no name of a topic.`,
        fix: 'Use 1 to 249 letters, digits, points, _ and -, no - first.',
      })
  for (const name of rightsByName(needs).keys())
    if (principals(name) === EVERYBODY)
      faults.push({
        where: '--principal',
        what: `${name} would be ${EVERYBODY}, which is everybody.`,
        fix: 'Give it a user of its own.',
      })
  const ours = groupsOf([...needs.gate, ...needs.poller])
  for (const [consumer, rights] of needs.consumers) {
    const where = `contracts: consume.${consumer}`
    const shared = ours.filter((own) =>
      groupsOf(rights).some((group) => own.startsWith(group) || group.startsWith(own)),
    )
    if (shared.length > 0)
      faults.push({
        where,
        what: `Its consumer groups would be those of ${shared.join(', ')} too: it could move the gate's positions.`,
        fix: 'Give the consumer or the deployment another name.',
      })
    if (isIam && WILD.test(consumer))
      faults.push({
        where,
        what: 'In a policy its name would stand for others too.',
        fix: 'Give it a name without *, ? and $.',
      })
  }
  return faults
}

/** As Kafka takes one, and its tools do not take for a flag. */
const TOPIC = /^(?!\.\.?$)[A-Za-z0-9._][A-Za-z0-9._-]{0,248}$/
const NAMED_IN: Readonly<Record<TopicUse, string>> = {
  source: 'SEALGATE_CHANNELS',
  output: 'SEALGATE_TOPICS',
  quarantine: 'SEALGATE_QUARANTINE_TOPIC',
  audit: 'SEALGATE_AUDIT_TOPIC',
}
/** To Kafka's authoriser. */
const EVERYBODY = 'User:*'
/** What a policy of IAM takes for more than itself. */
const WILD = /[*?$]/

const groupsOf = (rights: readonly Right[]): readonly string[] =>
  rights.flatMap(({ resource, name }) => (resource === 'group' ? [name] : []))

/**
 * Groups of other consumers that a consumer would be let into by the rule for its own, because its name begins theirs: they
 * are denied it. But not where its user is theirs too, or has groups among them.
 */
function foreignGroups(
  name: string,
  { consumers }: ClusterNeeds,
  { principals }: SetupOptions,
): readonly string[] {
  const own = groupsOf(consumers.get(name) ?? [])
  const [users, others] = [new Set<string>(), new Set<string>()]
  for (const [consumer, rights] of consumers)
    for (const group of groupsOf(rights))
      (principals(consumer) === principals(name) ? users : others).add(group)
  return [...others].filter(
    (group) =>
      own.some((prefix) => group.startsWith(prefix)) && ![...users].some((used) => used.startsWith(group)),
  )
}

/** A shell script. To run it again changes nothing but what somebody else has changed since. */
export function setupCommands(needs: ClusterNeeds, options: SetupOptions): string {
  return [
    '# Topics, rights and settings that sealgate needs (docs/setup.md). To be run with the tools of Kafka 3.9 or later.',
    'set -eu',
    `ADMIN="--bootstrap-server ${options.brokers} --command-config ${options.commandConfig}"`,
    ...topicCommands(needs, options),
    ...Array.from(rightsByName(needs), ([name, rights]) => [
      ...aclCommands(name, rights, options),
      ...foreignGroups(name, needs, options).map(
        (group) =>
          `kafka-acls.sh $ADMIN --add --deny-principal ${quoted(options.principals(name))} --operation All --group ${quoted(group)} --resource-pattern-type prefixed`,
      ),
    ]).flat(),
    ...nextSteps(needs),
  ].join('\n')
}

/** On MSK with IAM: the topics, and a policy for each role. */
export function mskSetupCommands(needs: ClusterNeeds, cluster: string, options: SetupOptions): string {
  return [
    '# Topics and IAM policies that sealgate needs on MSK (docs/setup.md).',
    'set -eu',
    `ADMIN="--bootstrap-server ${options.brokers} --command-config ${options.commandConfig}"`,
    ...topicCommands(needs, options),
    ...Array.from(rightsByName(needs), ([name, rights]) => [
      `# ${oneLine(name)}`,
      // A role may have several parts: a policy for each.
      [
        `aws iam put-role-policy --role-name ${quoted(options.principals(name))} --policy-name ${quoted(policyName(name))}`,
        `--policy-document ${quoted(JSON.stringify(iamPolicy([...rights, ...onMsk(name)], cluster, foreignGroups(name, needs, options))))}`,
      ].join(' '),
    ]).flat(),
    ...nextSteps(needs),
  ].join('\n')
}

/** IAM takes letters, digits and +,.@_-= in one: all else stands there by its number, and so does what begins such a number. */
const policyName = (name: string): string =>
  `sealgate-kafka-${name.replaceAll(/[^\w+,.@-]/gu, (letter) => `=${letter.codePointAt(0)?.toString(16) ?? ''}=`)}`

/** Lambda's poller looks at the cluster's settings too, where it comes by IAM. */
export const MSK_POLLER_RIGHTS: readonly Right[] = [
  { resource: 'cluster', name: 'kafka-cluster', prefixed: false, operation: 'DescribeConfigs' },
]
const onMsk = (name: string): readonly Right[] => (name === 'poller' ? MSK_POLLER_RIGHTS : [])

/** For a shell: itself alone, whatever it is. */
const quoted = (text: string): string =>
  /^[A-Za-z0-9._:-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`

/** For a comment, which ends with its line. */
const oneLine = (text: string): string => text.replaceAll(/\p{Cc}/gu, ' ')

/** What Kafka's tools cannot do. */
const nextSteps = ({ topics }: ClusterNeeds): readonly string[] => [
  "# Then, with the gate's settings; the audit topic's with those of whoever changes keys:",
  ...topics
    .filter(({ use }) => use === 'source' || use === 'audit')
    .map(({ name }) => `#   sealgate position init ${oneLine(name)}`),
  '#   sealgate doctor',
]

/** What MSK Serverless lets be changed of a topic; how it is cleaned up, only as it is made. */
const SERVERLESS_SETTINGS = ['max.message.bytes', 'message.timestamp.type', 'retention.ms', 'retention.bytes']

/** Settings apart from the creation: a topic that is there already gets them too. */
const topicCommands = (
  { topics }: ClusterNeeds,
  { partitions, serverless = false }: SetupOptions,
): readonly string[] =>
  topics.flatMap(({ name, use, settings }) => {
    const config = Object.entries(settings)
      .filter(([setting]) => !serverless || SERVERLESS_SETTINGS.includes(setting))
      .map(([setting, value]) => `${setting}=${value}`)
      .join(',')
    const made = serverless
      ? `--config cleanup.policy=${settings['cleanup.policy'] ?? ''}`
      : `--replication-factor ${REPLICAS} --config min.insync.replicas=${settings['min.insync.replicas'] ?? ''}`
    return [
      `# ${use}`,
      `kafka-topics.sh $ADMIN --create --if-not-exists --topic ${quoted(name)} --partitions ${partitions} ${made}`,
      `kafka-configs.sh $ADMIN --alter --entity-type topics --entity-name ${quoted(name)} --add-config ${config}`,
    ]
  })

const FLAGS: Readonly<Record<Right['resource'], string>> = {
  topic: '--topic',
  group: '--group',
  'transactional-id': '--transactional-id',
  cluster: '--cluster',
}

/** One for each operation, kind of resource and pattern: the tool takes several names at a time. */
function aclCommands(
  name: string,
  rights: readonly Right[],
  { principals }: SetupOptions,
): readonly string[] {
  const alike = Map.groupBy(rights, ({ resource, operation, prefixed }) =>
    [resource, operation, prefixed].join(' '),
  )
  return [
    `# ${oneLine(name)}`,
    ...[...alike.values()].flatMap((group) => {
      const [first] = group
      if (first === undefined) return []
      const { resource, operation, prefixed } = first
      const names = group.map((each) =>
        resource === 'cluster' ? FLAGS.cluster : `${FLAGS[resource]} ${quoted(each.name)}`,
      )
      const pattern = prefixed ? ' --resource-pattern-type prefixed' : ''
      return [
        `kafka-acls.sh $ADMIN --add --allow-principal ${quoted(principals(name))} --operation ${operation} ${names.join(' ')}${pattern}`,
      ]
    }),
  ]
}

/** An IAM policy document. */
export interface IamPolicy {
  readonly Version: '2012-10-17'
  readonly Statement: readonly {
    readonly Effect: 'Allow' | 'Deny'
    readonly Action: readonly string[]
    readonly Resource: readonly string[]
  }[]
}

/** By MSK's own names of actions, each with those that it needs beside it. */
const ACTIONS: Readonly<Record<Right['resource'], Partial<Record<Right['operation'], readonly string[]>>>> = {
  topic: {
    Read: ['DescribeTopic', 'ReadData'],
    Write: ['DescribeTopic', 'WriteData'],
    Describe: ['DescribeTopic'],
    DescribeConfigs: ['DescribeTopic', 'DescribeTopicDynamicConfiguration'],
  },
  group: { Read: ['AlterGroup', 'DescribeGroup'] },
  'transactional-id': { Write: ['AlterTransactionalId', 'DescribeTransactionalId'] },
  cluster: { Describe: ['DescribeCluster'], DescribeConfigs: ['DescribeClusterDynamicConfiguration'] },
}

/**
 * The same rights on MSK with IAM.
 * @param cluster its ARN, whole
 * @param denied what groups that are denied begin with
 */
export function iamPolicy(
  rights: readonly Right[],
  cluster: string,
  denied: readonly string[] = [],
): IamPolicy {
  const resourceOf = ({ resource, name, prefixed }: Right): string =>
    resource === 'cluster'
      ? cluster
      : `${cluster.replace(':cluster/', `:${resource}/`)}/${name}${prefixed ? '*' : ''}`
  // Whoever writes, with a transaction or without, is an idempotent producer.
  const writes = rights.some(({ operation }) => operation === 'Write')
  const statements = Array.from(
    Map.groupBy(rights, ({ resource, operation }) => ACTIONS[resource][operation]?.join(' ') ?? ''),
    ([actions, group]) => statement(actions.split(' '), [...new Set(group.map(resourceOf))]),
  )
  return {
    Version: '2012-10-17',
    Statement: [
      statement(['Connect', ...(writes ? ['WriteDataIdempotently'] : [])], [cluster]),
      ...statements,
      ...(denied.length === 0
        ? []
        : [
            {
              ...statement(
                ACTIONS.group.Read ?? [],
                denied.map((name) => resourceOf({ ...prefixed(name), resource: 'group', operation: 'Read' })),
              ),
              Effect: 'Deny' as const,
            },
          ]),
    ],
  }
}

const statement = (
  actions: readonly string[],
  resources: readonly string[],
): IamPolicy['Statement'][number] => ({
  Effect: 'Allow',
  Action: actions.map((action) => `kafka-cluster:${action}`),
  Resource: resources,
})
