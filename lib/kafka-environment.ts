/** The settings below `SEALGATE_KAFKA_`, and the setting of docs/kafka.md that each is. */
import {
  type KafkaConnectionSettings,
  type KafkaSinkSettings,
  readKafkaSettings,
} from './adapters/kafka-settings.ts'
import { numberOf, PREFIX, type Reader } from './environment.ts'
import { ConfigError } from './errors.ts'

const KAFKA = 'SEALGATE_KAFKA'
const KAFKA_TEXTS = ['CLIENT_ID'] as const
const KAFKA_SSL = ['SSL_CA', 'SSL_CERT', 'SSL_KEY', 'SSL_SECRET'] as const
const KAFKA_SASL = [
  ...['SASL_MECHANISM', 'SASL_USERNAME', 'SASL_PASSWORD', 'SASL_PASSWORD_FILE', 'SASL_SECRET'],
  ...['SASL_TOKEN_ENDPOINT', 'SASL_TOKEN_CA', 'SASL_CLIENT_ID', 'SASL_CLIENT_SECRET'],
  ...['SASL_CLIENT_SECRET_FILE', 'SASL_SCOPE', 'SASL_REGION', 'SASL_SERVICE_NAME'],
] as const
const CONNECTION_TIMES = [
  ...['CONNECTION_TIMEOUT_MS', 'AUTHENTICATION_TIMEOUT_MS', 'REQUEST_TIMEOUT_MS'],
  'SECRET_MAX_AGE_MS',
] as const
const KAFKA_TIMES = [...CONNECTION_TIMES, 'TRANSACTION_TIMEOUT_MS', 'OPEN_TIMEOUT_MS', 'MAX_IDLE_MS'] as const
/** What `readBrokers` reads. */
export const BROKER_SETTINGS: readonly string[] = [
  ...['BROKERS', ...KAFKA_TEXTS, ...KAFKA_SSL, ...KAFKA_SASL, ...CONNECTION_TIMES],
].map((name) => `${KAFKA}_${name}`)
/** What `readKafka` reads, beside the gate's own `SEALGATE_DEPLOYMENT` and `SEALGATE_EPOCH`. */
export const KAFKA_NAMES: readonly string[] = [
  ...['BROKERS', 'INSECURE_PLAINTEXT', ...KAFKA_TEXTS, ...KAFKA_SSL, ...KAFKA_SASL, ...KAFKA_TIMES],
].map((name) => `${KAFKA}_${name}`)

/** How to reach a cluster and whose positions they are; faults are left to the reader, which then has some. */
export function readKafka(
  reader: Reader,
  deployment: string | undefined = reader.optional('SEALGATE_DEPLOYMENT'),
): KafkaSinkSettings | undefined {
  const ssl = gather(KAFKA_SSL, 'SSL_', (name) => reader.optional(name))
  const sasl = gather(KAFKA_SASL, 'SASL_', (name) => reader.optional(name))
  const plaintext = reader.optional(`${KAFKA}_INSECURE_PLAINTEXT`)
  const epoch = reader.optional('SEALGATE_EPOCH')
  const raw = {
    brokers: reader.optional(`${KAFKA}_BROKERS`)?.split(','),
    deployment,
    ...(epoch === undefined ? {} : { epoch: numberOf(epoch) }),
    ...(Object.keys(ssl).length === 0 ? {} : { ssl }),
    ...(Object.keys(sasl).length === 0 ? {} : { sasl }),
    ...(plaintext === undefined ? {} : { insecurePlaintext: plaintext === 'true' }),
    ...gather(KAFKA_TEXTS, '', (name) => reader.optional(name)),
    ...gather(KAFKA_TIMES, '', (name) => {
      const text = reader.optional(name)
      return text === undefined ? undefined : numberOf(text)
    }),
  }
  try {
    return readKafkaSettings(raw, KAFKA)
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    for (const { where, what, fix } of error.faults) reader.fault(environmentName(where), what, fix)
    return undefined
  }
}

/** How to reach a cluster as somebody who has no positions there; faults are left to the reader, which then has some. */
export function readBrokers(reader: Reader): KafkaConnectionSettings | undefined {
  return readKafka(reader, 'none')
}

/** Settings by their own names (`requestTimeoutMs`) from those of the environment (`REQUEST_TIMEOUT_MS`). */
function gather<T>(
  names: readonly string[],
  prefix: string,
  read: (name: string) => T | undefined,
): Record<string, T> {
  return Object.fromEntries(
    names.flatMap((name) => {
      const value = read(`${KAFKA}_${name}`)
      const field = name
        .slice(prefix.length)
        .toLowerCase()
        .replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase())
      return value === undefined ? [] : [[field, value]]
    }),
  )
}

/** `SEALGATE_KAFKA.sasl.username` → `SEALGATE_KAFKA_SASL_USERNAME`; the gate's own two have no KAFKA in their names. */
function environmentName(where: string): string {
  const field = where.slice(KAFKA.length + 1)
  const name = field
    .replace(/\./g, '_')
    .replace(/[A-Z]/g, (letter) => `_${letter}`)
    .toUpperCase()
  return field === 'deployment' || field === 'epoch' ? PREFIX + name : `${KAFKA}_${name}`
}
