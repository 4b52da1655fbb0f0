/** What a function is told by its environment: read strictly, with every fault named at once (docs/settings.md). */
import { type DocumentPlace, documentPlace } from './adapters/document-place.ts'
import type { AnswerMode } from './adapters/msk-event.ts'
import { type KafkaSinkSettings, readKafkaSettings } from './adapters/kafka-settings.ts'
import { SECRET_ARN } from './adapters/secrets-manager.ts'
import type { IssuerLimits } from './admission/replay.ts'
import type { Deployment } from './cluster-needs.ts'
import { loadBundle } from './contract/bundle.ts'
import type { Contracts } from './contract/contract.ts'
import { topicFaults } from './contract/topics.ts'
import { importPrivateKey, importPublicKey, type PrivateKey, type PublicKey } from './envelope/crypto.ts'
import { suiteOf } from './envelope/suite.ts'
import { type Environment, PREFIX, Reader } from './environment.ts'
import { ConfigError } from './errors.ts'
import { KAFKA_NAMES, readKafka } from './kafka-environment.ts'

export type Settings = LocalSettings | ClusterSettings

export interface LocalSettings {
  readonly answerMode: AnswerMode
  /** The folder of the embedded stack to run on, which another process owns (`sealgate local start`). */
  readonly localFolder: string
}

/** A gate between topics of a cluster. */
export interface ClusterSettings extends TrustSettings, Omit<Deployment, 'deployment'> {
  readonly answerMode: AnswerMode
  readonly localFolder: undefined
  /** The gateway's name: the `aud` of what it takes in, the `iss` of what it gives out. */
  readonly name: string
  readonly kekId: string
  readonly signing: GateSigning
  /** A file of pseudonym keys, or the ARN of a secret with them; undefined where no contract needs any. */
  readonly pseudonyms: string | undefined
  readonly limits: IssuerLimits
  readonly maxLifeSeconds: number
  readonly kafka: KafkaSinkSettings
}

/** Where lifecycle steps of keys are told of, and what signs that (docs/audit.md). */
export interface ControlSettings {
  /** The gateway's name. */
  readonly name: string
  readonly kafka: KafkaSinkSettings
  readonly auditTopic: string
  readonly signing: GateSigning
}

/** Whose keys count. */
export interface TrustSettings {
  /** Where the key directory is kept. */
  readonly directory: DocumentPlace
  readonly roots: readonly PublicKey[]
}

/** A key in KMS by its ARN, and `kid` where the directory has several keys of ours; or a private key at hand, for tests. */
export type SigningSettings =
  { readonly arn: string; readonly kid: string | undefined } | { readonly key: PrivateKey }

/** The same for a gate, or the ARN of a secret with a private key, which `sealgate rotate` replaces (docs/rotation.md). */
export type GateSigning = SigningSettings | { readonly secret: string }

const MODES: readonly AnswerMode[] = ['throw', 'partial']
const ALWAYS = ['SEALGATE_FAILURE_MODE', 'SEALGATE_MAPPING_ANSWERS']
const LOCAL = ['SEALGATE_LOCAL', ...ALWAYS]
const TRUST = ['SEALGATE_DIRECTORY', 'SEALGATE_DIRECTORY_CA', 'SEALGATE_ROOTS']
const CLUSTER = [
  ...TRUST,
  ...[
    'NAME',
    'DEPLOYMENT',
    'EPOCH',
    'CHANNELS',
    'TOPICS',
    'AUDIT_TOPIC',
    'QUARANTINE_TOPIC',
    'CONTRACTS',
    'KEK_ID',
    'SIGNING_KEY',
    'SIGNING_KID',
    'PSEUDONYMS',
    'MAX_SESSIONS',
    'NEW_DATA_KEYS_PER_MINUTE',
    'MAX_LIFE_SECONDS',
  ].map((name) => PREFIX + name),
  ...KAFKA_NAMES,
  ...ALWAYS,
]
/** What a function that ingests may be told. */
export const GATE_NAMES: readonly string[] = [...LOCAL, ...CLUSTER]
const LIFECYCLE = 'SEALGATE_LIFECYCLE_AUDIT'
/** What `readControl` reads. */
export const CONTROL_NAMES: readonly string[] = [
  LIFECYCLE,
  ...['NAME', 'DEPLOYMENT', 'EPOCH', 'AUDIT_TOPIC', 'SIGNING_KEY', 'SIGNING_KID'].map(
    (name) => PREFIX + name,
  ),
  ...KAFKA_NAMES,
]

/** The settings of an environment. Throws `ConfigError` with every fault: a name that is not known among them, since an option that is silently dropped protects nobody. */
export function readSettings(environment: Environment): Settings {
  const reader = new Reader(environment)
  const { faults } = reader
  reader.refuseUnverified()
  // An empty variable is as none, as everywhere.
  const isLocal = reader.optional('SEALGATE_LOCAL') !== undefined
  const isCluster = CLUSTER.some((name) => !ALWAYS.includes(name) && reader.optional(name) !== undefined)
  reader.refuseUnknown(isLocal && !isCluster ? LOCAL : GATE_NAMES)
  const settings = isCluster
    ? readCluster(reader, environment)
    : {
        localFolder: reader.text(
          'SEALGATE_LOCAL',
          'Name the folder of an embedded stack (sealgate local start), or set what a cluster needs (docs/settings.md).',
        ),
      }
  if (isLocal && isCluster)
    reader.fault('SEALGATE_LOCAL', 'It is set beside settings of a cluster.', 'Leave out one or the others.')
  const mode = reader.optional('SEALGATE_FAILURE_MODE') ?? 'throw'
  const answerMode = MODES.find((known) => known === mode)
  if (answerMode === undefined)
    reader.fault(
      'SEALGATE_FAILURE_MODE',
      `"${mode}" is no failure mode.`,
      'Set throw (the default) or partial, and the event source mapping alike.',
    )
  checkMapping(answerMode, reader, environment)
  if (faults.length > 0 || answerMode === undefined) throw new ConfigError(faults)
  return { ...settings, answerMode }
}

/**
 * The mapping's FunctionResponseTypes as the deployment tells them, by the switch that sets both: an answer for each
 * partition reads as success where the mapping expects none, and what was not decided would be lost.
 */
function checkMapping(mode: AnswerMode | undefined, reader: Reader, environment: Environment): void {
  const name = 'SEALGATE_MAPPING_ANSWERS'
  const answers = reader.optional(name)
  const needed = mode === 'partial' ? 'ReportBatchItemFailures' : 'none'
  const isOnLambda = (environment['AWS_LAMBDA_FUNCTION_NAME'] ?? '') !== ''
  if (mode === undefined || answers === needed) return
  if (answers === undefined && (mode === 'throw' || !isOnLambda)) return
  const what = `The failure mode is ${mode}, and the event source mapping is not said to be for it.`
  reader.fault(name, what, `Deploy both by failureMode (docs/deploy.md): ${needed} belongs to ${mode}.`)
}

/** How to reach a cluster and whose positions they are, of the same environment. Throws `ConfigError` with every fault. */
export function readKafkaEnvironment(environment: Environment): KafkaSinkSettings {
  const reader = new Reader(environment)
  reader.refuseUnverified()
  reader.refuseUnknown(GATE_NAMES)
  const kafka = readKafka(reader)
  if (reader.faults.length > 0 || kafka === undefined) throw new ConfigError(reader.faults)
  return kafka
}

/** What the function that gives out public keys is told. Throws `ConfigError` with every fault. */
export function readKeysSettings(environment: Environment): TrustSettings {
  const reader = new Reader(environment)
  reader.refuseUnverified()
  reader.refuseUnknown(TRUST)
  const trust = readTrust(reader)
  if (reader.faults.length > 0) throw new ConfigError(reader.faults)
  return trust
}

/** Undefined where the settings say by name that lifecycle steps are not audited; faults are left to the reader. */
export function readControl(reader: Reader, environment: Environment): ControlSettings | undefined {
  const mode = reader.optional(LIFECYCLE) ?? 'kafka'
  if (mode === 'none') return undefined
  if (mode !== 'kafka') reader.fault(LIFECYCLE, 'It is no such way.', 'Set kafka (the default), or none.')
  const before = reader.faults.length
  const kafka = readKafka(reader)
  const settings = {
    name: reader.text('SEALGATE_NAME', "Set the gateway's name."),
    kafka: kafka ?? NO_KAFKA,
    auditTopic: reader.optional('SEALGATE_AUDIT_TOPIC') ?? `${kafka?.deployment ?? ''}.audit`,
    signing: readSigning(reader, environment),
  }
  if (reader.faults.length > before) {
    const what = 'What is done to keys is audited, and the settings for that are not whole.'
    reader.fault(LIFECYCLE, what, 'Set them, or none here: then it is not.')
  }
  return settings
}

/** The same of an environment that has other settings too; faults are left to the reader. */
export function readTrust(reader: Reader): TrustSettings {
  const fix = 'Name a file with the public JWK of the root, or a list of two.'
  return { directory: readPlace(reader), roots: reader.file('SEALGATE_ROOTS', fix, rootsOf) ?? [] }
}

function readPlace(reader: Reader): DocumentPlace {
  const name = 'SEALGATE_DIRECTORY'
  const fix =
    'Name the key directory: a file, s3://bucket/key, an https address, or an ARN of Secrets Manager.'
  const text = reader.text(name, fix)
  try {
    if (text !== '') return documentPlace(text, reader.optional('SEALGATE_DIRECTORY_CA'))
  } catch (error) {
    if (!(error instanceof TypeError)) throw error
    reader.fault(name, error.message, fix)
  }
  return { kind: 'file', path: '' }
}

function readCluster(reader: Reader, environment: Environment): Omit<ClusterSettings, 'answerMode'> {
  const kafka = readKafka(reader)
  const deployment = kafka?.deployment ?? ''
  const contracts = reader.file('SEALGATE_CONTRACTS', 'Name a bundle (sealgate contracts build).', loadBundle)
  const pseudonyms = reader.optional('SEALGATE_PSEUDONYMS')
  if (pseudonyms?.startsWith('arn:') === true && !SECRET_ARN.test(pseudonyms))
    reader.fault('SEALGATE_PSEUDONYMS', 'It is no ARN of a secret.', 'Set it whole, or name a file.')
  const channels = reader.pairs('SEALGATE_CHANNELS', 'topic=channel')
  if (channels.size === 0)
    reader.fault('SEALGATE_CHANNELS', 'It names no source topic.', 'Set topic=channel,topic=channel.')
  const topics = reader.pairs('SEALGATE_TOPICS', 'channel=topic')
  const auditTopic = reader.optional('SEALGATE_AUDIT_TOPIC') ?? `${deployment}.audit`
  const quarantineTopic = reader.optional('SEALGATE_QUARANTINE_TOPIC') ?? `${deployment}.quarantine`
  const topicOf = (channel: string): string => topics.get(channel) ?? channel
  reader.faults.push(
    ...topicFaults(contracts ?? NO_CONTRACTS, { sources: channels, auditTopic, quarantineTopic, topicOf }),
  )
  if (contracts !== undefined) checkAgainst(contracts, channels, pseudonyms, reader)
  return {
    localFolder: undefined,
    name: reader.text('SEALGATE_NAME', "Set this gateway's name, as producers name it as audience."),
    channels,
    topics,
    auditTopic,
    quarantineTopic,
    contracts: contracts ?? NO_CONTRACTS,
    ...readTrust(reader),
    kekId: reader.text('SEALGATE_KEK_ID', "Set the name of this gateway's KEK in the key directory."),
    signing: readSigning(reader, environment),
    pseudonyms,
    limits: {
      maxSessions: reader.integer('SEALGATE_MAX_SESSIONS', 64, 1, 1024),
      newDataKeysPerMinute: reader.integer('SEALGATE_NEW_DATA_KEYS_PER_MINUTE', 60, 1, 100_000),
    },
    maxLifeSeconds: reader.integer('SEALGATE_MAX_LIFE_SECONDS', 86_400, 1, 604_800),
    kafka: kafka ?? NO_KAFKA,
  }
}

/** Stand where there were faults, and go no further. */
const NO_CONTRACTS: Contracts = { digest: new Uint8Array(), all: [], find: () => undefined }
const NO_KAFKA = readKafkaSettings({ brokers: ['none.invalid:1'], deployment: 'none' })

function checkAgainst(
  contracts: Contracts,
  channels: ReadonlyMap<string, string>,
  pseudonyms: string | undefined,
  reader: Reader,
): void {
  const known = new Set(contracts.all.map(({ channel }) => channel))
  for (const channel of new Set(channels.values()))
    if (!known.has(channel))
      reader.fault(
        'SEALGATE_CHANNELS',
        `No contract has the channel ${channel}.`,
        'Correct it, or add a contract.',
      )
  const needed = contracts.all.some(({ routes }) => routes.some(({ domains }) => domains.length > 0))
  if (needed && pseudonyms === undefined)
    reader.fault(
      'SEALGATE_PSEUDONYMS',
      'It is not set, and contracts make pseudonyms.',
      'Name a file of their keys, or a secret.',
    )
}

const ARN = /^arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key\/[A-Za-z0-9-]{1,100}$/

function readSigning(reader: Reader, environment: Environment): GateSigning {
  const name = 'SEALGATE_SIGNING_KEY'
  const value = reader.text(name, 'Set the ARN of a KMS key, or of a secret.')
  const kid = reader.optional('SEALGATE_SIGNING_KID')
  if (SECRET_ARN.test(value)) {
    if (kid !== undefined)
      reader.fault('SEALGATE_SIGNING_KID', 'It is set beside a secret.', 'Leave it out: the key has its kid.')
    return { secret: value }
  }
  if (!value.startsWith('file:')) {
    if (value !== '' && !ARN.test(value))
      reader.fault(
        name,
        'It is no ARN of a KMS key, nor of a secret.',
        'Set arn:aws:kms:REGION:ACCOUNT:key/ID, not an alias.',
      )
    return { arn: value, kid }
  }
  // A private key in a file is for tests: on Lambda it would lie in the deployment package.
  if ((environment['AWS_LAMBDA_FUNCTION_NAME'] ?? '') !== '')
    reader.fault(name, 'On Lambda the key may not lie in a file.', 'Set the ARN of a KMS key.')
  const key = reader.read(name, value.slice('file:'.length), 'Name a file with a private JWK.', privateKeyOf)
  return key === undefined ? { arn: '', kid } : { key }
}

/** The pinned roots of a file: a public JWK, or a list of one or two. Throws `TypeError` for anything else. */
export function rootsOf(bytes: Uint8Array): PublicKey[] {
  const parsed: unknown = JSON.parse(Buffer.from(bytes).toString())
  const list: readonly unknown[] = Array.isArray(parsed) ? parsed : [parsed]
  if (list.length < 1 || list.length > 2) throw new TypeError('one or two roots are pinned')
  return list.map((jwk) => {
    if (isObject(jwk) && 'd' in jwk) throw new TypeError('a private key stands where a public one belongs')
    const { kty, crv, x, y, suite } = jwkOf(jwk)
    return importPublicKey(suite, y === undefined ? { kty, crv, x } : { kty, crv, x, y })
  })
}

/** The private key of a file that holds one JWK. Throws `TypeError` for anything else, and quotes nothing of it. */
export function privateKeyOf(bytes: Uint8Array): PrivateKey {
  const jwk: unknown = JSON.parse(Buffer.from(bytes).toString())
  const { kty, crv, x, y, suite } = jwkOf(jwk)
  const d = isObject(jwk) ? jwk['d'] : undefined
  if (typeof d !== 'string') throw new TypeError('no private key')
  return importPrivateKey(suite, y === undefined ? { kty, crv, x, d } : { kty, crv, x, y, d })
}

function jwkOf(jwk: unknown) {
  const { kty, crv, x, y } = isObject(jwk) ? jwk : {}
  const suite = suiteOf(crv === 'P-256' ? 'ESP256' : crv === 'Ed25519' ? 'Ed25519' : '')
  if (suite === undefined || typeof kty !== 'string' || typeof crv !== 'string' || typeof x !== 'string')
    throw new TypeError('no JWK of Ed25519 or P-256')
  return { kty, crv, x, y: typeof y === 'string' ? y : undefined, suite }
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
