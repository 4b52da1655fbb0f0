/** The functions of a deployment: what each is told, how long it may take, and what lies in its package beside its code. */
import { CREATE, directoryBucket, type Given, type Stage } from './stage.ts'
import { attribute, ref, type Value, type Values } from './template.ts'

/**
 * `archive` joins here. It needs: a plan in the VPC with a schedule, here, in `sam.ts` and in `serverless.yml`; a user of
 * Kafka that may read the audit topic, or that right by IAM; and in `stores.ts` a bucket that keeps what is put (Object Lock,
 * RETAINED), with `s3:PutObject` and `s3:PutObjectRetention` on it and no right to delete or to shorten. Role, log group and
 * alarm of errors come by its name.
 */
export const FUNCTIONS = ['ingest', 'rotate', 'keys'] as const
export type FunctionName = (typeof FUNCTIONS)[number]

export interface FunctionPlan {
  readonly name: FunctionName
  /** As AWS knows it. */
  readonly functionName: string
  readonly timeoutSeconds: number
  readonly memoryMb: number
  readonly reservedConcurrency: number
  readonly isInVpc: boolean
  readonly environment: Values
  /** By which its spans are sent; undefined: it makes none. */
  readonly tracingLayer: string | undefined
  /** Logical ids of what must be there before it. */
  readonly dependsOn: readonly string[]
}

/** Names of files in the packages. */
export const CONTRACTS_FILE = 'contracts.json'
export const ROOTS_FILE = 'roots.json'
export const ROTATION_FILE = 'rotation.yaml'
export const CA_FILE = 'ca.pem'

/** Waits until every gate knows a new key are 6 minutes, and Secrets Manager's third step sits them out. */
const ROTATE_SECONDS = 600
const KEYS_SECONDS = 10

export const serviceName = (stage: Stage): string => `sealgate-${stage.name}`
export const functionNameOf = (stage: Stage, name: FunctionName): string => `${serviceName(stage)}-${name}`
export const functionArn = (stage: Stage, name: FunctionName): string =>
  `arn:aws:lambda:${stage.region}:${stage.account}:function:${functionNameOf(stage, name)}`

/** Logical id, in either tool's template. */
export const roleId = (name: FunctionName): string => `${pascal(name)}Role`
export const rightsId = (name: FunctionName): string => `${pascal(name)}Rights`
export const logGroupId = (name: FunctionName): string => `${pascal(name)}LogGroup`
export const pascal = (name: FunctionName): string => name.slice(0, 1).toUpperCase() + name.slice(1)

/** Logical ids of what a stack may make. */
export const IDS = {
  bucket: 'DirectoryBucket',
  gatewayKek: 'GatewayKek',
  signingKey: 'SigningKey',
  secretsKey: 'SecretsKey',
  kafkaSecret: 'KafkaSecret',
  rotateSecret: 'RotateKafkaSecret',
  alarmTopic: 'AlarmTopic',
  functionGroup: 'FunctionSecurityGroup',
  pollerSecurityGroup: 'PollerSecurityGroup',
  endpointGroup: 'EndpointSecurityGroup',
} as const

/** A key or topic's ARN, whichever way it came to be. */
export const arnOf = (given: Given, id: string): Value => (given === CREATE ? attribute(id, 'Arn') : given)
/** Of the secret by which a function logs in to the brokers; undefined: as its role. */
export function loginSecret({ cluster }: Stage, name: 'ingest' | 'rotate'): Value | undefined {
  const [given, id] =
    name === 'ingest' ? [cluster.secret, IDS.kafkaSecret] : [cluster.rotateSecret, IDS.rotateSecret]
  return given === CREATE ? ref(id) : given
}

export const directoryPlace = (stage: Stage): string =>
  stage.directory === CREATE ? `s3://${directoryBucket(stage)}/directory.jws` : stage.directory

export function functionPlans(stage: Stage): readonly FunctionPlan[] {
  const trust = { SEALGATE_DIRECTORY: directoryPlace(stage), SEALGATE_ROOTS: ROOTS_FILE }
  const plan = (
    name: FunctionName,
    rest: Omit<FunctionPlan, 'name' | 'functionName' | 'dependsOn'>,
  ): FunctionPlan => ({
    name,
    functionName: functionNameOf(stage, name),
    ...rest,
    environment: { POWERTOOLS_SERVICE_NAME: serviceName(stage), ...trust, ...rest.environment },
    dependsOn: [rightsId(name)],
  })
  return [
    plan('ingest', {
      timeoutSeconds: stage.timeoutSeconds,
      memoryMb: stage.memoryMb,
      reservedConcurrency: stage.concurrency.ingest,
      isInVpc: true,
      environment: { ...tracingEnvironment(stage), ...ingestEnvironment(stage) },
      tracingLayer: stage.tracing?.layer,
    }),
    plan('rotate', {
      timeoutSeconds: ROTATE_SECONDS,
      memoryMb: 512,
      // Two at once would do no harm, and no good.
      reservedConcurrency: 1,
      isInVpc: true,
      environment: rotateEnvironment(stage),
      tracingLayer: undefined,
    }),
    plan('keys', {
      timeoutSeconds: KEYS_SECONDS,
      memoryMb: 512,
      reservedConcurrency: stage.concurrency.keys,
      // All that it needs is public, or S3's: outside of the VPC nothing inside can be reached through it.
      isInVpc: false,
      environment: {},
      tracingLayer: undefined,
    }),
  ]
}

/**
 * What ADOT's layer for Node.js takes: it sees by the package's .mjs that the handler is an ES module. Application Signals,
 * which it has on by default, writes to a log group of its own: that needs a right beside those of traces.
 */
const tracingEnvironment = ({ tracing }: Stage): Values =>
  tracing === undefined
    ? {}
    : {
        AWS_LAMBDA_EXEC_WRAPPER: '/opt/otel-instrument',
        OTEL_AWS_APPLICATION_SIGNALS_ENABLED: 'false',
      }

function ingestEnvironment(stage: Stage): Values {
  const pairs = (map: Readonly<Record<string, string>>): string =>
    Object.entries(map)
      .map((pair) => pair.join('='))
      .join(',')
  return {
    ...stage.settings,
    ...gateEnvironment(stage, 'ingest'),
    SEALGATE_EPOCH: String(stage.epoch),
    SEALGATE_CHANNELS: pairs(stage.channels),
    ...(Object.keys(stage.topics).length === 0 ? {} : { SEALGATE_TOPICS: pairs(stage.topics) }),
    SEALGATE_QUARANTINE_TOPIC: stage.quarantineTopic,
    SEALGATE_CONTRACTS: CONTRACTS_FILE,
    SEALGATE_KEK_ID: stage.kek.id,
    ...(stage.pseudonyms === undefined ? {} : { SEALGATE_PSEUDONYMS: stage.pseudonyms }),
    ...failureMode(stage).environment,
  }
}

function rotateEnvironment(stage: Stage): Values {
  const own = { SEALGATE_ROOT_KEY: stage.rootKey, SEALGATE_ROTATION: ROTATION_FILE }
  if (stage.lifecycleAudit === 'none')
    return { ...own, SEALGATE_LIFECYCLE_AUDIT: 'none', ...kafkaEnvironment(stage, 'rotate') }
  return { ...own, ...gateEnvironment(stage, 'rotate'), SEALGATE_EPOCH: String(stage.epoch) }
}

const gateEnvironment = (stage: Stage, name: 'ingest' | 'rotate'): Values => ({
  SEALGATE_NAME: stage.gateway,
  SEALGATE_DEPLOYMENT: stage.deployment,
  SEALGATE_AUDIT_TOPIC: stage.auditTopic,
  SEALGATE_SIGNING_KEY: arnOf(stage.signingKey, IDS.signingKey),
  ...kafkaEnvironment(stage, name),
  SEALGATE_KAFKA_TRANSACTION_TIMEOUT_MS: String(stage.cluster.transactionTimeoutMs),
})

function kafkaEnvironment(stage: Stage, name: 'ingest' | 'rotate'): Values {
  const { brokers, authentication, ca } = stage.cluster
  const arn = loginSecret(stage, name)
  const login: Values =
    authentication === 'iam'
      ? { SEALGATE_KAFKA_SASL_MECHANISM: 'aws-msk-iam', SEALGATE_KAFKA_SASL_REGION: stage.region }
      : authentication === 'scram'
        ? { SEALGATE_KAFKA_SASL_MECHANISM: 'scram-sha-512', ...(arn && { SEALGATE_KAFKA_SASL_SECRET: arn }) }
        : { ...(arn && { SEALGATE_KAFKA_SSL_SECRET: arn }) }
  return {
    SEALGATE_KAFKA_BROKERS: brokers.join(','),
    ...login,
    ...(ca === undefined ? {} : { SEALGATE_KAFKA_SSL_CA: CA_FILE }),
  }
}

/**
 * The one switch: what the code answers when something stops it, and what the mapping takes such an answer for. Told to
 * the function by two variables, which it compares; a partial answer to a mapping that expects none would lose records.
 */
export function failureMode({ failureMode: mode }: Stage): {
  readonly environment: Values
  readonly mapping: Values
} {
  const types = mode === 'partial' ? ['ReportBatchItemFailures'] : []
  return {
    environment: {
      SEALGATE_FAILURE_MODE: mode,
      SEALGATE_MAPPING_ANSWERS: types.length === 0 ? 'none' : types.join(','),
    },
    mapping: types.length === 0 ? {} : { FunctionResponseTypes: types },
  }
}
