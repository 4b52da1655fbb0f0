/** How to reach a Kafka cluster, and how the sink uses it: read strictly, with every fault named at once. */
import { createSecureContext } from 'node:tls'
import { ConfigError, type Fault } from '../errors.ts'

export interface KafkaConnectionSettings {
  /** `host:port` of some brokers; these name the others. */
  readonly brokers: readonly string[]
  /** As the broker's logs and quotas know us. */
  readonly clientId: string
  /** TLS 1.2 or later with host names verified. Undefined only by `insecurePlaintext`, and then without credentials. */
  readonly tls: KafkaTls | undefined
  readonly sasl: KafkaSasl | undefined
  /** Milliseconds, each. */
  readonly connectionTimeoutMs: number
  readonly authenticationTimeoutMs: number
  readonly requestTimeoutMs: number
}

/** PEM texts. */
export interface KafkaTls {
  /** Instead of the authorities that Node knows. */
  readonly ca?: string
  /** For mutual TLS: both or neither. */
  readonly cert?: string
  readonly key?: string
}

export interface KafkaSasl {
  readonly mechanism: 'plain' | 'scram-sha-256' | 'scram-sha-512'
  readonly username: string
  readonly password: string
}

export interface KafkaSinkSettings extends KafkaConnectionSettings {
  /** Begins every transactional id and the shadow group's name. */
  readonly deployment: string
  /** Raised by each reprocessing on purpose. */
  readonly epoch: number
  /** After so many milliseconds the broker ends an open transaction, whose records hold readers back until then. */
  readonly transactionTimeoutMs: number
  /** Opening a partition is tried again for so long where no broker answers, milliseconds. */
  readonly openTimeoutMs: number
  /** A connection idle for longer is not trusted any more (a frozen Lambda, a NAT that forgot it), milliseconds. */
  readonly maxIdleMs: number
}

/** Milliseconds: default, least, greatest. */
const TIMES = {
  connectionTimeoutMs: [3000, 100, 60_000],
  authenticationTimeoutMs: [5000, 100, 60_000],
  requestTimeoutMs: [10_000, 100, 120_000],
  transactionTimeoutMs: [15_000, 1000, 900_000],
  openTimeoutMs: [10_000, 100, 120_000],
  maxIdleMs: [60_000, 100, 3_600_000],
} as const

const MECHANISMS = ['plain', 'scram-sha-256', 'scram-sha-512'] as const
const TOP = [
  'brokers',
  'clientId',
  'ssl',
  'insecurePlaintext',
  'sasl',
  'deployment',
  'epoch',
  ...Object.keys(TIMES),
]
const BROKER = /^[A-Za-z0-9]([A-Za-z0-9.-]{0,253}[A-Za-z0-9])?:([1-9][0-9]{0,4})$/
/** What Kafka takes for a topic; group and transactional id are built of it. */
const NAME = /^[A-Za-z0-9._-]{1,100}$/

/**
 * Reads settings as a file or an environment gives them: `brokers`, `clientId`, `ssl: { ca, cert, key }` (PEM texts),
 * `sasl: { mechanism, username, password }`, `deployment`, `epoch`, and times in milliseconds.
 * Throws `ConfigError` with all faults; what is not known is one.
 */
export function readKafkaSettings(raw: unknown, where = 'kafka'): KafkaSinkSettings {
  const reader = new Reader(where)
  const top = reader.object(raw, '', TOP)
  const brokers = readBrokers(reader, top['brokers'])
  const sasl = top['sasl'] === undefined ? undefined : readSasl(reader, top['sasl'])
  const tls = readTls(reader, top)
  const time = (name: keyof typeof TIMES): number => {
    const [usual, least, greatest] = TIMES[name]
    return reader.integer(top[name], name, usual, least, greatest)
  }
  const settings = {
    brokers,
    clientId: reader.name(top['clientId'] ?? 'sealgate', 'clientId'),
    tls,
    sasl,
    deployment: reader.name(top['deployment'], 'deployment'),
    epoch: reader.integer(top['epoch'], 'epoch', 1, 1, 1_000_000),
    connectionTimeoutMs: time('connectionTimeoutMs'),
    authenticationTimeoutMs: time('authenticationTimeoutMs'),
    requestTimeoutMs: time('requestTimeoutMs'),
    transactionTimeoutMs: time('transactionTimeoutMs'),
    openTimeoutMs: time('openTimeoutMs'),
    maxIdleMs: time('maxIdleMs'),
  }
  if (reader.faults.length > 0) throw new ConfigError(reader.faults)
  return settings
}

function readBrokers(reader: Reader, raw: unknown): readonly string[] {
  const fix = 'List some brokers as host:port, e.g. ["b-1.example.com:9096", "b-2.example.com:9096"].'
  if (!Array.isArray(raw) || raw.length === 0) {
    reader.fault('brokers', 'It is not a list of brokers.', fix)
    return []
  }
  return raw.map((broker: unknown, index) => {
    const port = typeof broker === 'string' ? Number(BROKER.exec(broker)?.[2]) : NaN
    if (typeof broker === 'string' && port <= 65_535) return broker
    reader.fault(`brokers[${index}]`, 'It is not host:port.', fix)
    return ''
  })
}

function readTls(reader: Reader, top: RawObject): KafkaTls | undefined {
  const { ssl, insecurePlaintext } = top
  if (insecurePlaintext !== undefined) {
    if (insecurePlaintext !== true)
      reader.fault('insecurePlaintext', 'It is not true.', 'Leave it out: TLS is the default.')
    if (ssl !== undefined)
      reader.fault('insecurePlaintext', 'It is set beside ssl.', 'Leave out one of them, best this.')
    if (top['sasl'] !== undefined)
      reader.fault(
        'insecurePlaintext',
        'Credentials would be shown to the network.',
        'Use TLS: leave it out.',
      )
    return undefined
  }
  if (ssl === undefined || ssl === true) return {}
  if (ssl === false) {
    reader.fault('ssl', 'It is false.', 'Leave it out for TLS with the authorities that Node knows.')
    return undefined
  }
  return readPems(reader, ssl)
}

function readPems(reader: Reader, raw: unknown): KafkaTls {
  const fields = reader.object(raw, 'ssl', ['ca', 'cert', 'key'])
  const pem = (name: 'ca' | 'cert' | 'key'): Record<string, string> => {
    const value = fields[name]
    if (value === undefined) return {}
    if (typeof value === 'string' && value.includes('-----BEGIN ')) return { [name]: value }
    reader.fault(
      `ssl.${name}`,
      'It is not a PEM text.',
      'Give the text itself, which begins with -----BEGIN.',
    )
    return {}
  }
  const tls: KafkaTls = { ...pem('ca'), ...pem('cert'), ...pem('key') }
  if ((fields['cert'] === undefined) !== (fields['key'] === undefined))
    reader.fault('ssl', 'Only one of cert and key is set.', 'Mutual TLS needs both.')
  else
    try {
      createSecureContext(tls)
    } catch {
      // OpenSSL's own message may quote what it could not read.
      reader.fault(
        'ssl',
        'TLS cannot use these PEM texts.',
        'See that each is whole, and the key the certificate’s.',
      )
    }
  return tls
}

function readSasl(reader: Reader, raw: unknown): KafkaSasl | undefined {
  const fields = reader.object(raw, 'sasl', ['mechanism', 'username', 'password'])
  const mechanism = MECHANISMS.find((known) => known === fields['mechanism'])
  if (mechanism === undefined)
    reader.fault('sasl.mechanism', 'It is no mechanism known here.', `Set one of ${MECHANISMS.join(', ')}.`)
  const username = reader.text(fields['username'], 'sasl.username')
  const password = reader.text(fields['password'], 'sasl.password')
  return mechanism === undefined ? undefined : { mechanism, username, password }
}

type RawObject = Readonly<Record<string, unknown>>

/** Reads fields and gathers what is wrong. No value is ever quoted: it may be a secret in the wrong place. */
class Reader {
  readonly faults: Fault[] = []
  readonly #where: string

  constructor(where: string) {
    this.#where = where
  }

  fault(field: string, what: string, fix: string): void {
    this.faults.push({ where: field === '' ? this.#where : `${this.#where}.${field}`, what, fix })
  }

  object(raw: unknown, field: string, known: readonly string[]): RawObject {
    if (typeof raw !== 'object' || raw === null || Array.isArray(raw)) {
      this.fault(field, 'It is not an object of settings.', `Known are ${known.join(', ')}.`)
      return {}
    }
    const own = new Map(Object.entries(raw))
    for (const name of own.keys()) {
      if (!known.includes(name))
        this.fault(
          field === '' ? name : `${field}.${name}`,
          'No setting has this name.',
          `Known are ${known.join(', ')}.`,
        )
    }
    return Object.fromEntries(known.map((name) => [name, own.get(name)]))
  }

  text(raw: unknown, field: string): string {
    if (typeof raw === 'string' && raw !== '') return raw
    this.fault(field, 'It is not a text, or empty.', 'Set it.')
    return ''
  }

  name(raw: unknown, field: string): string {
    if (typeof raw === 'string' && NAME.test(raw)) return raw
    this.fault(field, 'It is not a name.', 'Use 1 to 100 of the characters A–Z a–z 0–9 . _ and -.')
    return ''
  }

  integer(raw: unknown, field: string, usual: number, least: number, greatest: number): number {
    if (raw === undefined) return usual
    if (typeof raw === 'number' && Number.isInteger(raw) && raw >= least && raw <= greatest) return raw
    this.fault(field, 'It is not such a number.', `Set a whole number from ${least} to ${greatest}.`)
    return usual
  }
}
