/** What differs between deployments: the parameters of one, in a file of deploy/stages (docs/deploy.md). */
import { dirname, resolve } from 'node:path'
import { KMS_KEY_ARN } from '../lib/adapters/kms-rotation.ts'
import { readKafkaSettings } from '../lib/adapters/kafka-settings.ts'
import { MSK_CLUSTER_ARN, MSK_SECRET_ARN } from '../lib/adapters/msk-users.ts'
import { SECRET_ARN } from '../lib/adapters/secrets-manager.ts'
import { ConfigError } from '../lib/errors.ts'
import { readRotationPolicy, type RotationEntry, secretsOf } from '../lib/keys/rotation-policy.ts'
import { ParameterReader, type Path } from './parameters.ts'
import { idPart } from './template.ts'

export const CREATE = 'create'

/** What the stack makes (`create`), or what is there already, by its ARN. */
export type Given = string

export type Authentication = 'scram' | 'iam' | 'mtls'
export type FailureMode = 'throw' | 'partial'

export interface Stage {
  /** The file's name. */
  readonly name: string
  readonly account: string
  readonly region: string
  /** The gateway's name, and the settings of docs/settings.md. */
  readonly gateway: string
  readonly deployment: string
  readonly epoch: number
  readonly channels: Readonly<Record<string, string>>
  readonly topics: Readonly<Record<string, string>>
  readonly auditTopic: string
  readonly quarantineTopic: string
  readonly cluster: {
    readonly arn: string
    readonly brokers: readonly string[]
    readonly authentication: Authentication
    /** Undefined for IAM. */
    readonly secret: Given | undefined
    readonly ca: string | undefined
    readonly transactionTimeoutMs: number
  }
  /** Paths. */
  readonly contracts: string
  readonly roots: string
  readonly rotation: string
  /** `create`: an object in a bucket of the stack; else as `SEALGATE_DIRECTORY`. */
  readonly directory: Given
  readonly signingKey: Given
  readonly rootKey: string
  /** Under which the secrets lie. */
  readonly secretsKey: Given
  readonly kek: { readonly id: string; readonly key: Given }
  readonly pseudonyms: string | undefined
  readonly producers: Readonly<Record<string, { readonly role: string; readonly kek: Given }>>
  readonly consumers: Readonly<Record<string, { readonly role: string }>>
  /** Who may sign with a created signing key once, to prove it at its enrolment. */
  readonly enroller: string | undefined
  readonly lifecycleAudit: 'kafka' | 'none'
  /** More of what `ingest` is told, by the names of its environment. */
  readonly settings: Readonly<Record<string, string>>
  readonly failureMode: FailureMode
  /** Provisioned event pollers; undefined: on demand. */
  readonly pollers: { readonly minimum: number; readonly maximum: number } | undefined
  readonly isEnabled: boolean
  readonly batchSize: number
  readonly batchWindowSeconds: number
  readonly timeoutSeconds: number
  readonly memoryMb: number
  readonly concurrency: { readonly ingest: number; readonly keys: number }
  readonly keysUrl: 'public' | 'iam'
  readonly network: {
    readonly vpc: string
    readonly subnets: readonly string[]
    readonly brokersSecurityGroup: string
    readonly ways: 'endpoints' | 'nat'
    readonly routeTables: readonly string[]
    readonly s3PrefixList: string | undefined
    /** Whether the stack lets Lambda's pollers, which have the brokers' security group, reach the brokers. */
    readonly pollerRules: 'create' | 'given'
  }
  readonly logDays: number
  readonly alarms: {
    readonly topic: Given
    readonly lagRecords: number
    readonly rejectedPerMinute: number
    readonly silenceMinutes: number
  }
  /** Of the rotation policy. */
  readonly rotations: readonly RotationEntry[]
}

/** MSK's ports within the VPC; all are TLS. */
export const PORTS: Readonly<Record<Authentication, number>> = { mtls: 9094, scram: 9096, iam: 9098 }
const IAM_ROLE = /^arn:aws[a-z-]*:iam::[0-9]{12}:role\/[\w+=,.@/-]{1,512}$/
const SNS_TOPIC = /^arn:aws[a-z-]*:sns:[a-z0-9-]+:[0-9]{12}:[\w-]{1,256}$/
/** Their ARNs begin with another word than `arn:aws:`, which templates and policies have. */
const OTHER_PARTITIONS = /^(cn|us-gov|(us|eu)-iso[a-z]*)-/
const S3_PLACE = /^s3:\/\/[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]\/[^?#\s]{1,1000}$/
const SIGNING_KEY = new RegExp(`${KMS_KEY_ARN.source}|${SECRET_ARN.source}`)
/** Of an issuer. Policies compare it: nothing in it may be a policy variable or a wildcard. */
const ISSUER = /^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}$/
const NAME = /^[a-z0-9][a-z0-9._-]{0,62}$/i
const TOPIC = /^[A-Za-z0-9._-]{1,249}$/
const SETTING = /^(SEALGATE|POWERTOOLS|OTEL)_[A-Z0-9_]{1,60}$/
const LOG_DAYS = [1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 3653]
/** Lambda's limit for functions of Kafka event source mappings. */
const MAX_TIMEOUT_SECONDS = 840

/** Of the bucket that a stack makes for the key directory; S3 takes no more than 63 characters. */
export const directoryBucket = ({ name, account, region }: Stage): string =>
  `sealgate-${name}-directory-${account}-${region}`
const MAX_BUCKET_CHARACTERS = 63

/** The consumer group of a topic's poller: its offsets say what Lambda has handed over, and decide nothing. */
export const pollerGroup = ({ deployment }: Stage, topic: string): string => `${deployment}.lambda.${topic}`
/** Of the group's id, by Lambda. */
const MAX_GROUP_CHARACTERS = 200

/** Reads a stage's text; `path` is its file, beside which the files lie that it names. Throws `ConfigError` with every fault. */
export function readStage(text: string, path: string): Stage {
  const read = new ParameterReader(text, path)
  const file = (name: string): string => resolve(dirname(path), name)
  const name = /([^/\\]+)\.ya?ml$/.exec(path)?.[1] ?? ''
  if (!/^[a-z][a-z0-9-]{0,19}$/.test(name))
    read.fault('', 'A stage has no such name.', 'Name the file by 1 to 20 of a–z 0–9 and -, and .yml.')
  read.known('', [
    ...['account', 'region', 'gateway', 'deployment', 'epoch', 'channels', 'topics', 'auditTopic'],
    ...['quarantineTopic', 'cluster', 'contracts', 'roots', 'rotation', 'directory', 'signingKey', 'rootKey'],
    ...[
      'secretsKey',
      'kek',
      'pseudonyms',
      'settings',
      'producers',
      'consumers',
      'enroller',
      'lifecycleAudit',
    ],
    ...['failureMode', 'pollers', 'enabled', 'batchSize', 'batchWindowSeconds', 'timeoutSeconds', 'memoryMb'],
    ...['concurrency', 'keysUrl', 'network', 'logDays', 'alarms'],
  ])
  read.known('cluster', ['arn', 'brokers', 'authentication', 'secret', 'ca', 'transactionTimeoutMs'])
  read.known('kek', ['id', 'key'])
  read.known('concurrency', ['ingest', 'keys'])
  read.known('network', [
    ...['vpc', 'subnets', 'brokersSecurityGroup', 'ways', 'routeTables', 's3PrefixList', 'pollerRules'],
  ])
  read.known('alarms', ['topic', 'lagRecords', 'rejectedPerMinute', 'silenceMinutes'])
  const deployment = read.text('deployment', NAME, 'Set what begins transactional ids, e.g. shop.')
  const authentication = read.choice('cluster.authentication', ['scram', 'iam', 'mtls'])
  const ca = read.optional('cluster.ca', /./, 'Name a PEM file.')
  const rotation = file(read.text('rotation', /./, 'Name a rotation policy (docs/rotation.md).'))
  const arn = (at: Path, pattern: RegExp, what: string): string =>
    read.text(at, pattern, `Set the whole ARN of ${what}.`)
  const given = (at: Path, pattern: RegExp, what: string): Given =>
    read.text(at, new RegExp(`^create$|${pattern.source}`), `Set create, or the whole ARN of ${what}.`)
  const defaults = readKafkaSettings({ brokers: ['none.invalid:1'], deployment: 'none' })
  const stage: Stage = {
    name,
    account: read.text('account', /^[0-9]{12}$/, 'Set the 12 digits of your AWS account, in quotes.'),
    region: read.text('region', /^[a-z]{2}(-[a-z]+)+-[0-9]$/, 'Set e.g. eu-west-1.'),
    gateway: read.text('gateway', ISSUER, "Set the gateway's name, which producers name as audience."),
    deployment,
    epoch: read.integer('epoch', 1, 1, 1_000_000),
    channels: read.map('channels', TOPIC, TOPIC, 'Set topic: channel.', 'needed'),
    topics: read.map('topics', TOPIC, TOPIC, 'Set channel: topic.'),
    auditTopic: read.optional('auditTopic', TOPIC, 'Name a topic.') ?? `${deployment}.audit`,
    quarantineTopic: read.optional('quarantineTopic', TOPIC, 'Name a topic.') ?? `${deployment}.quarantine`,
    cluster: {
      arn: arn('cluster.arn', MSK_CLUSTER_ARN, 'the MSK cluster'),
      brokers: read.list('cluster.brokers', /^[a-z0-9.-]{1,253}:[0-9]{1,5}$/i, 'List host:port.', 1),
      authentication,
      secret:
        authentication === 'iam'
          ? read.none('cluster.secret', 'With IAM the role is who we are: leave it out.')
          : authentication === 'scram'
            ? given('cluster.secret', SECRET_ARN, 'a secret with user name and password')
            : arn('cluster.secret', SECRET_ARN, 'a secret with certificate and private key'),
      ca: ca === undefined ? undefined : file(ca),
      transactionTimeoutMs: read.integer(
        'cluster.transactionTimeoutMs',
        defaults.transactionTimeoutMs,
        1000,
        900_000,
      ),
    },
    contracts: file(read.text('contracts', /./, 'Name a folder of contracts.')),
    roots: file(read.text('roots', /./, 'Name a file with the public JWK of the root, or a list of two.')),
    rotation,
    directory: read.text(
      'directory',
      new RegExp(`^create$|${S3_PLACE.source}|${SECRET_ARN.source}`),
      'Set create, s3://bucket/key, or the whole ARN of a secret.',
    ),
    signingKey: given('signingKey', SIGNING_KEY, 'a KMS key, or of a secret with a private JWK'),
    rootKey: arn('rootKey', KMS_KEY_ARN, 'the KMS key that signs the directory (ECC_NIST_P256)'),
    secretsKey: given('secretsKey', KMS_KEY_ARN, 'the KMS key under which the secrets lie'),
    kek: {
      id: read.text('kek.id', NAME, "Set the name of the gateway's KEK in the key directory."),
      key: given('kek.key', KMS_KEY_ARN, 'a symmetric KMS key'),
    },
    pseudonyms: read.optional('pseudonyms', SECRET_ARN, 'Set the whole ARN of a secret.'),
    producers: Object.fromEntries(
      read.names('producers', ISSUER, ['role', 'kek']).map((one) => [
        one,
        {
          role: arn(['producers', one, 'role'], IAM_ROLE, 'its IAM role'),
          kek: given(['producers', one, 'kek'], KMS_KEY_ARN, 'its KEK, a symmetric KMS key'),
        },
      ]),
    ),
    consumers: Object.fromEntries(
      read
        .names('consumers', ISSUER, ['role'])
        .map((one) => [one, { role: arn(['consumers', one, 'role'], IAM_ROLE, 'its IAM role') }]),
    ),
    enroller: read.optional('enroller', IAM_ROLE, 'Set the whole ARN of an IAM role.'),
    lifecycleAudit: read.choice('lifecycleAudit', ['kafka', 'none'], 'kafka'),
    settings: read.map(
      'settings',
      SETTING,
      /^[^\n]{1,1000}$/,
      "Set NAME: 'text', e.g. SEALGATE_MAX_LIFE_SECONDS.",
    ),
    failureMode: read.choice('failureMode', ['throw', 'partial']),
    pollers: read.has('pollers')
      ? {
          minimum: read.integer('pollers.minimum', 1, 1, 200),
          maximum: read.integer('pollers.maximum', 4, 1, 2000),
        }
      : undefined,
    isEnabled: read.choice('enabled', ['true', 'false'], 'true') === 'true',
    batchSize: read.integer('batchSize', 500, 1, 10_000),
    batchWindowSeconds: read.integer('batchWindowSeconds', 1, 0, 300),
    timeoutSeconds: read.integer('timeoutSeconds', 60, 1, MAX_TIMEOUT_SECONDS),
    memoryMb: read.integer('memoryMb', 1769, 256, 10_240),
    concurrency: {
      ingest: read.integer('concurrency.ingest', 10, 1, 1000),
      keys: read.integer('concurrency.keys', 5, 1, 1000),
    },
    keysUrl: read.choice('keysUrl', ['public', 'iam']),
    network: {
      vpc: read.text('network.vpc', /^vpc-[0-9a-f]{8,17}$/, "Set the id of the cluster's VPC."),
      subnets: read.list('network.subnets', /^subnet-[0-9a-f]{8,17}$/, 'List ids of private subnets.', 2),
      brokersSecurityGroup: read.text(
        'network.brokersSecurityGroup',
        /^sg-[0-9a-f]{8,17}$/,
        "Set the id of the brokers' security group.",
      ),
      ways: read.choice('network.ways', ['endpoints', 'nat']),
      routeTables: read.has('network.routeTables')
        ? read.list('network.routeTables', /^rtb-[0-9a-f]{8,17}$/, "List the subnets' route tables.", 1)
        : [],
      s3PrefixList: read.optional('network.s3PrefixList', /^pl-[0-9a-f]{8,17}$/, 'Set pl-….'),
      pollerRules: read.choice('network.pollerRules', ['create', 'given'], 'create'),
    },
    logDays: read.integer('logDays', 90, 1, 3653),
    alarms: {
      topic: given('alarms.topic', SNS_TOPIC, 'an SNS topic'),
      lagRecords: read.integer('alarms.lagRecords', 10_000, 1, 1_000_000_000),
      rejectedPerMinute: read.integer('alarms.rejectedPerMinute', 100, 1, 1_000_000_000),
      silenceMinutes: read.integer('alarms.silenceMinutes', 60, 5, 1440),
    },
    rotations:
      (read.has('rotation')
        ? read.file('rotation', rotation, (one) => readRotationPolicy(one, rotation).entries)
        : undefined) ?? [],
  }
  read.known('pollers', ['minimum', 'maximum'])
  placeFaults(stage, read)
  contradictions(stage, read, defaults.openTimeoutMs + defaults.requestTimeoutMs)
  if (read.faults.length > 0) throw new ConfigError(read.faults)
  return stage
}

/** Keys, secrets and topics that are there already, by the parameter that names each. */
export function givenArns(stage: Stage): readonly (readonly [Path, string])[] {
  const rotated = stage.rotations.flatMap(({ rotation: one }) => [
    ...secretsOf(one),
    ...(one.kind === 'kms-key' ? [one.key] : one.kind === 'client-certificate' ? [one.authorityKey] : []),
  ])
  const named: readonly (readonly [Path, string | undefined])[] = [
    ['cluster.secret', stage.cluster.secret],
    ['directory', stage.directory],
    ['signingKey', stage.signingKey],
    ['rootKey', stage.rootKey],
    ['secretsKey', stage.secretsKey],
    ['kek.key', stage.kek.key],
    ['pseudonyms', stage.pseudonyms],
    ['alarms.topic', stage.alarms.topic],
    ...Object.entries(stage.producers).map(([one, { kek }]) => [['producers', one, 'kek'], kek] as const),
    ...rotated.map((arn) => ['rotation', arn] as const),
  ]
  return named.flatMap(([at, arn]) => (arn?.startsWith('arn:') === true ? [[at, arn] as const] : []))
}

/** The account may be another's, who must let us; a region is not left, nor a partition. */
function placeFaults(stage: Stage, read: ParameterReader): void {
  if (OTHER_PARTITIONS.test(stage.region)) {
    read.fault('region', 'It is of another partition than aws.', 'There is no deployment to it yet.')
    return
  }
  for (const [at, arn] of givenArns(stage))
    if (stage.region !== '' && !(arn.startsWith('arn:aws:') && arn.split(':')[3] === stage.region))
      read.fault(at, `${arn} is not of ${stage.region}.`, 'Name one of the region that is deployed to.')
}

/** What is well formed and does not go together. */
function contradictions(stage: Stage, read: ParameterReader, takeOverMs: number): void {
  const { cluster, network, pollers, failureMode } = stage
  // MSK takes users from secrets of such names; who rotates two of them logs in by a third, which points at one.
  const pointers = stage.rotations.flatMap(({ rotation: one }) => (one.kind === 'scram' ? [one.pointer] : []))
  const { authentication, secret = CREATE } = cluster
  if (
    authentication === 'scram' &&
    ![CREATE, '', ...pointers].includes(secret) &&
    !MSK_SECRET_ARN.test(secret)
  )
    read.fault(
      'cluster.secret',
      'MSK takes no user from a secret of such a name, and no rotation points by it.',
      'Name one that begins with AmazonMSK_, or the pointer of a scram rotation.',
    )
  if (failureMode === 'partial' && pollers === undefined)
    read.fault(
      'failureMode',
      'Lambda takes answers for each partition from provisioned pollers alone.',
      'Set pollers, or throw.',
    )
  if (pollers !== undefined && pollers.minimum > pollers.maximum)
    read.fault('pollers', 'There are fewer at most than at least.', 'Exchange them.')
  const [, , , region, account] = cluster.arn.split(':')
  if (region !== undefined && (region !== stage.region || account !== stage.account))
    read.fault('cluster.arn', 'It is of another account or region.', 'Deploy where the cluster is.')
  const port = PORTS[cluster.authentication]
  if (!cluster.brokers.every((broker) => broker.endsWith(`:${port}`))) {
    const what = `MSK's port for ${cluster.authentication} is ${port}.`
    read.fault('cluster.brokers', what, 'Take the list from aws kafka get-bootstrap-brokers.')
  }
  const byEndpoints = read.has('network.ways') && network.ways === 'endpoints'
  if (byEndpoints && network.routeTables.length === 0)
    read.fault('network.routeTables', 'S3 is reached by none.', 'List them, or set network.ways: nat.')
  if (byEndpoints && network.s3PrefixList === undefined) {
    const fix = 'Set what aws ec2 describe-managed-prefix-lists names com.amazonaws.REGION.s3.'
    read.fault('network.s3PrefixList', 'Which addresses S3 has is not known.', fix)
  }
  // Who takes a partition over waits until the broker has ended what a dead holder left open.
  const least = Math.ceil((cluster.transactionTimeoutMs + takeOverMs) / 1000)
  if (stage.timeoutSeconds < least)
    read.fault(
      'timeoutSeconds',
      `Taking a partition over may last ${least} s: the transaction's time-out, an opening and a request.`,
      `Set ${least} or more, or a lower cluster.transactionTimeoutMs.`,
    )
  const names = [stage.gateway, ...Object.keys(stage.producers)]
  if (new Set(names).size < names.length)
    read.fault('producers', "One has the gateway's own name.", 'Give every issuer a name of its own.')
  for (const [list, people] of Object.entries({ producers: stage.producers, consumers: stage.consumers })) {
    const roles = Object.values(people).map(({ role }) => role)
    if (new Set(roles).size < roles.length)
      read.fault(list, 'Two have one role: each could pass for the other.', 'Give each a role of its own.')
  }
  for (const list of ['producers', 'channels'] as const) {
    const ids = Object.keys(stage[list]).map(idPart)
    if (new Set(ids).size < ids.length)
      read.fault(list, 'Two names differ in nothing but punctuation.', 'Rename one.')
  }
  for (const { rotation } of stage.rotations)
    if (rotation.kind === 'client-certificate' && rotation.authorityKey.startsWith('file:'))
      read.fault(
        'rotation',
        `${rotation.name}: its authority's key would lie in the package.`,
        'Put it into KMS.',
      )
  if (stage.directory === CREATE && directoryBucket(stage).length > MAX_BUCKET_CHARACTERS)
    read.fault(
      'directory',
      `Its bucket would be ${directoryBucket(stage)}, and S3 takes ${MAX_BUCKET_CHARACTERS} characters.`,
      'Give the stage a shorter name, or a bucket of your own.',
    )
  for (const topic of Object.keys(stage.channels))
    if (pollerGroup(stage, topic).length > MAX_GROUP_CHARACTERS) {
      const what = `Lambda takes names of groups of ${MAX_GROUP_CHARACTERS} characters: ${pollerGroup(stage, topic)}.`
      read.fault('channels', what, 'Name the deployment or the topic shorter.')
    }
  if (!LOG_DAYS.includes(stage.logDays))
    read.fault('logDays', 'CloudWatch keeps logs for no such time.', `Set one of ${LOG_DAYS.join(', ')}.`)
  if (stage.rotations.length > 0 && !stage.rotations.some(({ rotation }) => rotation.kind === 'directory')) {
    const fix = 'Add directory: { kind: directory } to it.'
    read.fault('rotation', 'Nobody would renew the key directory, and gates would stop.', fix)
  }
}
