/** A stage's file in deploy/stages (docs/deploy.md), read strictly. */
import { dirname, resolve } from 'node:path'
import { KMS_KEY_ARN } from '../lib/adapters/kms-rotation.ts'
import { readKafkaSettings } from '../lib/adapters/kafka-settings.ts'
import { MSK_CLUSTER_ARN } from '../lib/adapters/msk-users.ts'
import { SECRET_ARN } from '../lib/adapters/secrets-manager.ts'
import { ConfigError } from '../lib/errors.ts'
import { readRotationPolicy } from '../lib/keys/rotation-policy.ts'
import { ParameterReader, type Path } from './parameters.ts'
import { stageFaults } from './stage-faults.ts'
import { ENDPOINT_SERVICES, type Given, type Stage } from './stage.ts'

const IAM_ROLE = /^arn:aws[a-z-]*:iam::[0-9]{12}:role\/[\w+=,.@/-]{1,512}$/
const SNS_TOPIC = /^arn:aws[a-z-]*:sns:[a-z0-9-]+:[0-9]{12}:[\w-]{1,256}$/
const LAYER_VERSION = /^arn:aws[a-z-]*:lambda:[a-z0-9-]+:[0-9]{12}:layer:[\w-]{1,140}:[0-9]{1,9}$/
const S3_PLACE = /^s3:\/\/[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]\/[^?#\s]{1,1000}$/
const SIGNING_KEY = new RegExp(`${KMS_KEY_ARN.source}|${SECRET_ARN.source}`)
/** Of an issuer. Policies compare it: nothing in it may be a policy variable or a wildcard. */
const ISSUER = /^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}$/
const NAME = /^[a-z0-9][a-z0-9._-]{0,62}$/i
const TOPIC = /^[A-Za-z0-9._-]{1,249}$/
const SETTING = /^(SEALGATE|POWERTOOLS|OTEL)_[A-Z0-9_]{1,60}$/
const SECURITY_GROUP = /^sg-[0-9a-f]{8,17}$/
/** Lambda's limit for functions of Kafka event source mappings. */
const MAX_TIMEOUT_SECONDS = 840

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
    ...['concurrency', 'keysUrl', 'network', 'tracing', 'logDays', 'alarms'],
  ])
  read.known('cluster', [
    ...['kind', 'arn', 'brokers', 'authentication', 'secret', 'rotateSecret', 'ca', 'caSecret'],
    'transactionTimeoutMs',
  ])
  read.known('kek', ['id', 'key'])
  read.known('concurrency', ['ingest', 'keys'])
  read.known('network', [
    ...['vpc', 'subnets', 'brokersSecurityGroup', 'ways', 'given', 'endpointsSecurityGroup'],
    ...['routeTables', 's3PrefixList', 'pollerRules'],
  ])
  read.known('tracing', ['layer'])
  read.known('alarms', ['topic', 'lagRecords', 'rejectedPerMinute', 'silenceMinutes'])
  const deployment = read.text('deployment', NAME, 'Set what begins transactional ids, e.g. shop.')
  const isMsk = read.choice('cluster.kind', ['msk', 'self-managed'], 'msk') === 'msk'
  const logins = isMsk ? (['scram', 'iam', 'mtls'] as const) : (['scram', 'mtls'] as const)
  const authentication = read.choice('cluster.authentication', logins)
  const ca = read.optional('cluster.ca', /./, 'Name a PEM file.')
  const rotation = file(read.text('rotation', /./, 'Name a rotation policy (docs/rotation.md).'))
  const arn = (at: Path, pattern: RegExp, what: string): string =>
    read.text(at, pattern, `Set the whole ARN of ${what}.`)
  const given = (at: Path, pattern: RegExp, what: string): Given =>
    read.text(at, new RegExp(`^create$|${pattern.source}`), `Set create, or the whole ARN of ${what}.`)
  const login = (at: Path): Given | undefined =>
    authentication === 'iam'
      ? read.none(at, 'With IAM the role is who we are: leave it out.')
      : authentication === 'scram'
        ? given(at, SECRET_ARN, 'a secret with user name and password')
        : arn(at, SECRET_ARN, 'a secret with certificate and private key')
  const secret = login('cluster.secret')
  const authoritySecret = (): string | undefined =>
    isMsk
      ? read.none('cluster.caSecret', "Lambda trusts MSK's own authority: leave it out.")
      : ca === undefined
        ? read.none(
            'cluster.caSecret',
            'Name the same authority in cluster.ca, by which the functions trust it.',
          )
        : arn('cluster.caSecret', SECRET_ARN, 'a secret {"certificate": PEM} with that authority')
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
      arn: isMsk
        ? arn('cluster.arn', MSK_CLUSTER_ARN, 'the MSK cluster')
        : read.none('cluster.arn', 'A cluster of your own has none: leave it out.'),
      brokers: read.list('cluster.brokers', /^[a-z0-9.-]{1,253}:[0-9]{1,5}$/i, 'List host:port.', 1),
      authentication,
      secret,
      rotateSecret: read.has('cluster.rotateSecret') ? login('cluster.rotateSecret') : secret,
      ca: ca === undefined ? undefined : file(ca),
      caSecret: authoritySecret(),
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
        SECURITY_GROUP,
        "Set the id of the brokers' security group.",
      ),
      ways: read.choice('network.ways', ['endpoints', 'nat']),
      given: read.choices('network.given', ENDPOINT_SERVICES),
      endpointsSecurityGroup: read.optional(
        'network.endpointsSecurityGroup',
        SECURITY_GROUP,
        'Set the id of the security group that the given endpoints have.',
      ),
      routeTables: read.has('network.routeTables')
        ? read.list('network.routeTables', /^rtb-[0-9a-f]{8,17}$/, "List the subnets' route tables.", 1)
        : [],
      s3PrefixList: read.optional('network.s3PrefixList', /^pl-[0-9a-f]{8,17}$/, 'Set pl-….'),
      pollerRules: read.choice('network.pollerRules', ['create', 'given'], 'create'),
    },
    tracing: read.has('tracing')
      ? { layer: arn('tracing.layer', LAYER_VERSION, 'a version of the ADOT layer, in your region') }
      : undefined,
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
  stageFaults(stage, read, defaults.openTimeoutMs + defaults.requestTimeoutMs)
  if (read.faults.length > 0) throw new ConfigError(read.faults)
  return stage
}
