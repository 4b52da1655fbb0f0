/** What differs between deployments: the parameters of one (docs/deploy.md). `stage-file.ts` reads them. */
import { type RotationEntry, secretsOf } from '../lib/keys/rotation-policy.ts'
import type { Path } from './parameters.ts'

export const CREATE = 'create'

/** What the stack makes (`create`), or what is there already, by its ARN. */
export type Given = string

export type Authentication = 'scram' | 'iam' | 'mtls'
export type FailureMode = 'throw' | 'partial'

/** What a function and, on demand, a poller asks of AWS; MSK's own API where users of MSK are rotated. */
export const ENDPOINT_SERVICES = ['kms', 'lambda', 'secretsmanager', 'sts', 'kafka', 's3'] as const
export type EndpointService = (typeof ENDPOINT_SERVICES)[number]

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
    /** Of MSK's; undefined: a cluster of one's own, self-managed. */
    readonly arn: string | undefined
    readonly brokers: readonly string[]
    readonly authentication: Authentication
    /** Undefined for IAM. */
    readonly secret: Given | undefined
    /** As whom `rotate` logs in, whose rights are others. */
    readonly rotateSecret: Given | undefined
    readonly ca: string | undefined
    /** With the same authority, for Lambda's pollers, which read no file. */
    readonly caSecret: string | undefined
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
    /** Of which services the VPC has endpoints already: private names and routes are taken but once. */
    readonly given: readonly EndpointService[]
    /** Of those for interfaces; undefined: all are made, with a group of their own. */
    readonly endpointsSecurityGroup: string | undefined
    readonly routeTables: readonly string[]
    readonly s3PrefixList: string | undefined
    /** Whether the stack lets MSK's pollers, which have the brokers' security group, reach the brokers. */
    readonly pollerRules: 'create' | 'given'
  }
  /** A layer with OpenTelemetry's provider (ADOT), by the ARN of a version; undefined: no traces. */
  readonly tracing: { readonly layer: string } | undefined
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

/** Of all brokers. */
export const portOf = ({ cluster }: Stage): number =>
  cluster.arn === undefined
    ? Number(cluster.brokers[0]?.split(':').at(-1) ?? 0)
    : PORTS[cluster.authentication]

/** Whether MSK is asked, by its own API, to take users over. */
export const hasMskUsers = ({ rotations }: Stage): boolean =>
  rotations.some(({ rotation }) => rotation.kind === 'scram' && rotation.msk !== undefined)

/** Of the bucket that a stack makes for the key directory; S3 takes no more than 63 characters. */
export const directoryBucket = ({ name, account, region }: Stage): string =>
  `sealgate-${name}-directory-${account}-${region}`

/** The consumer group of a topic's poller: its offsets say what Lambda has handed over, and decide nothing. */
export const pollerGroup = ({ deployment }: Stage, topic: string): string => `${deployment}.lambda.${topic}`

/** Keys, secrets and topics that are there already, by the parameter that names each. */
export function givenArns(stage: Stage): readonly (readonly [Path, string])[] {
  const rotated = stage.rotations.flatMap(({ rotation: one }) => [
    ...secretsOf(one),
    ...(one.kind === 'kms-key' ? [one.key] : one.kind === 'client-certificate' ? [one.authorityKey] : []),
  ])
  const named: readonly (readonly [Path, string | undefined])[] = [
    ['cluster.secret', stage.cluster.secret],
    ['cluster.rotateSecret', stage.cluster.rotateSecret],
    ['cluster.caSecret', stage.cluster.caSecret],
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
