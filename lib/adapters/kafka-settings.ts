/** How to reach a Kafka cluster, and how the sink uses it: read strictly, with every fault named at once. */
import { readFileSync } from 'node:fs'
import { createSecureContext, type SecureContextOptions } from 'node:tls'
import { codeOf, ConfigError, type Fault } from '../errors.ts'
import { loadKerberos } from './kafka-gssapi.ts'
import { SECRET_ARN } from './secrets-manager.ts'

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
  /** So long a copy of a secret with credentials counts: its change is seen then, or when the old ones are refused. */
  readonly secretMaxAgeMs: number
}

/** A text: itself, or in a file, which is read again for each connection. */
export type KafkaText = { readonly text: string } | { readonly file: string }

export interface KafkaTls {
  /** PEM. Instead of the authorities that Node knows. */
  readonly ca?: KafkaText
  /** For mutual TLS, PEM: certificate and private key, or the ARN of a secret with both. */
  readonly client?: { readonly cert: KafkaText; readonly key: KafkaText } | { readonly arn: string }
}

/** A name and its secret, or the ARN of a secret with both. */
export type KafkaLogin = { readonly name: string; readonly secret: KafkaText } | { readonly arn: string }

export type PasswordMechanism = 'plain' | 'scram-sha-256' | 'scram-sha-512'

export type KafkaSasl =
  | { readonly mechanism: PasswordMechanism; readonly login: KafkaLogin }
  | ({ readonly mechanism: 'oauthbearer' } & TokenEndpoint)
  | { readonly mechanism: 'aws-msk-iam'; readonly region: string }
  | { readonly mechanism: 'gssapi'; readonly serviceName: string }

/** Where a client gets its tokens, by its credentials (RFC 6749 §4.4). */
export interface TokenEndpoint {
  /** HTTPS. */
  readonly url: string
  readonly login: KafkaLogin
  readonly scope: string | undefined
  /** PEM. Instead of the authorities that Node knows. */
  readonly ca: KafkaText | undefined
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
  secretMaxAgeMs: [60_000, 100, 3_600_000],
  maxIdleMs: [60_000, 100, 3_600_000],
} as const

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

const REGION = /^[a-z]{2}(-[a-z]{1,10}){1,3}-[0-9]{1,2}$/
const SERVICE = /^[A-Za-z0-9._-]{1,100}$/

/**
 * Reads settings as a file or an environment gives them (docs/kafka.md): `brokers`, `clientId`, `ssl`, `sasl`,
 * `deployment`, `epoch`, and times in milliseconds. Files that they name must be there.
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
    secretMaxAgeMs: time('secretMaxAgeMs'),
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
  const fields = reader.object(raw, 'ssl', ['ca', 'cert', 'key', 'secret'])
  const ca = reader.pem(fields['ca'], 'ssl.ca')
  const cert = reader.pem(fields['cert'], 'ssl.cert')
  const key = reader.pem(fields['key'], 'ssl.key')
  const arn = fields['secret'] === undefined ? undefined : reader.arn(fields['secret'], 'ssl.secret')
  const isSet = (name: string): boolean => fields[name] !== undefined
  if (isSet('secret') && (isSet('cert') || isSet('key')))
    reader.fault('ssl.secret', 'It is set beside cert or key.', 'Leave out the one or the others.')
  else if (isSet('cert') !== isSet('key'))
    reader.fault('ssl', 'Only one of cert and key is set.', 'Mutual TLS needs both.')
  else if (
    !isUsable({ ...(ca && { ca: ca.text }), ...(cert && { cert: cert.text }), ...(key && { key: key.text }) })
  )
    reader.fault(
      'ssl',
      'TLS cannot use these PEM texts.',
      'See that each is whole, and the key the certificate’s.',
    )
  const client =
    arn !== undefined ? { arn } : cert && key ? { cert: cert.source, key: key.source } : undefined
  return { ...(ca && { ca: ca.source }), ...(client && { client }) }
}

/** Where a PEM text is, and the text as of now. */
interface Pem {
  readonly source: KafkaText
  readonly text: string
}

/** Whether TLS can use these; OpenSSL's own message may quote what it could not read. */
export function isUsable(context: SecureContextOptions): boolean {
  try {
    createSecureContext(context)
    // As an authority Node silently leaves out what it cannot read.
    if (context.ca !== undefined) createSecureContext({ cert: context.ca })
    return true
  } catch {
    return false
  }
}

/** The fields of `sasl` besides `mechanism`, by mechanism. */
const PASSWORD_FIELDS = ['username', 'password', 'passwordFile', 'secret']
const SASL_FIELDS = {
  'scram-sha-512': PASSWORD_FIELDS,
  'scram-sha-256': PASSWORD_FIELDS,
  plain: PASSWORD_FIELDS,
  oauthbearer: [
    ...['tokenEndpoint', 'tokenCa', 'clientId', 'clientSecret', 'clientSecretFile'],
    ...['secret', 'scope'],
  ],
  'aws-msk-iam': ['region'],
  gssapi: ['serviceName'],
} as const

type Mechanism = keyof typeof SASL_FIELDS

const isMechanism = (value: unknown): value is Mechanism =>
  typeof value === 'string' && Object.hasOwn(SASL_FIELDS, value)

function readSasl(reader: Reader, raw: unknown): KafkaSasl | undefined {
  const all = [...new Set(Object.values(SASL_FIELDS).flat())]
  const mechanism = isObject(raw) ? new Map<string, unknown>(Object.entries(raw)).get('mechanism') : undefined
  if (!isMechanism(mechanism)) {
    reader.object(raw, 'sasl', ['mechanism', ...all])
    const known = Object.keys(SASL_FIELDS).join(', ')
    reader.fault('sasl.mechanism', 'It is no mechanism known here.', `Set one of ${known}.`)
    return undefined
  }
  const fields = reader.object(raw, 'sasl', ['mechanism', ...SASL_FIELDS[mechanism]])
  switch (mechanism) {
    case 'plain':
    case 'scram-sha-256':
    case 'scram-sha-512': {
      const login = readLogin(reader, fields, 'username', 'password')
      return login && { mechanism, login }
    }
    case 'oauthbearer': {
      const login = readLogin(reader, fields, 'clientId', 'clientSecret')
      const scope = fields['scope'] === undefined ? undefined : reader.text(fields['scope'], 'sasl.scope')
      const ca = reader.pem(fields['tokenCa'], 'sasl.tokenCa')?.source
      const url = reader.https(fields['tokenEndpoint'], 'sasl.tokenEndpoint')
      return login && { mechanism, url, login, scope, ca }
    }
    case 'aws-msk-iam': {
      const fix = 'Set the region of the cluster, e.g. eu-west-1.'
      return { mechanism, region: reader.match(fields['region'], 'sasl.region', REGION, fix) }
    }
    case 'gssapi': {
      if (loadKerberos() === undefined)
        reader.fault('sasl.mechanism', 'The package kerberos cannot be loaded.', 'npm install kerberos@7')
      const fix = 'Set the first part of the brokers’ principal, e.g. kafka.'
      const name = fields['serviceName'] ?? 'kafka'
      return { mechanism, serviceName: reader.match(name, 'sasl.serviceName', SERVICE, fix) }
    }
  }
}

function readLogin(
  reader: Reader,
  fields: RawObject,
  name: 'username' | 'clientId',
  secret: 'password' | 'clientSecret',
): KafkaLogin | undefined {
  const file = `${secret}File`
  const given = [secret, file, 'secret'].filter((field) => fields[field] !== undefined)
  if (given.length !== 1) {
    const what = given.length === 0 ? 'There are no credentials.' : `${given.join(' and ')} are set.`
    reader.fault('sasl', what, `Set one of ${secret}, ${file}, and secret (the ARN of a secret).`)
  }
  for (const field of given.filter((one) => one !== 'secret')) reader.text(fields[field], `sasl.${field}`)
  if (fields['secret'] !== undefined) {
    if (fields[name] !== undefined)
      reader.fault(`sasl.${name}`, 'It is set beside secret, which names one.', 'Leave it out.')
    return { arn: reader.arn(fields['secret'], 'sasl.secret') }
  }
  const path = fields[file]
  return {
    name: reader.text(fields[name], `sasl.${name}`),
    secret:
      typeof path === 'string'
        ? { file: reader.readable(path, `sasl.${file}`) }
        : { text: typeof fields[secret] === 'string' ? fields[secret] : '' },
  }
}

type RawObject = Readonly<Record<string, unknown>>

const isObject = (raw: unknown): raw is object =>
  typeof raw === 'object' && raw !== null && !Array.isArray(raw)

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
    if (!isObject(raw)) {
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

  match(raw: unknown, field: string, pattern: RegExp, fix: string): string {
    if (typeof raw === 'string' && pattern.test(raw)) return raw
    this.fault(field, 'It is not set, or not of the right form.', fix)
    return ''
  }

  name(raw: unknown, field: string): string {
    return this.match(raw, field, NAME, 'Use 1 to 100 of the characters A–Z a–z 0–9 . _ and -.')
  }

  arn(raw: unknown, field: string): string {
    const fix = 'Set arn:aws:secretsmanager:REGION:ACCOUNT:secret:NAME, whole.'
    return this.match(raw, field, SECRET_ARN, fix)
  }

  https(raw: unknown, field: string): string {
    const url = typeof raw === 'string' ? URL.parse(raw) : null
    if (url?.protocol === 'https:' && url.username === '' && url.password === '' && url.hash === '')
      return url.href
    this.fault(field, 'It is not an https address, or has credentials in it.', 'Set https://HOST/PATH.')
    return ''
  }

  /** The path, where the file can be read. */
  readable(path: string, field: string): string {
    try {
      readFileSync(path)
    } catch (error) {
      this.fault(field, `The file cannot be read (${codeOf(error)}).`, 'Name one that can.')
    }
    return path
  }

  /** A PEM text, or the path of a file with one. */
  pem(raw: unknown, field: string): Pem | undefined {
    if (raw === undefined) return undefined
    const fix = 'Give the text itself, which begins with -----BEGIN, or the path of a file with it.'
    if (typeof raw !== 'string' || raw === '') {
      this.fault(field, 'It is not a PEM text.', fix)
      return undefined
    }
    if (raw.includes(PEM)) return { source: { text: raw }, text: raw }
    try {
      const text = readFileSync(raw, 'utf8')
      if (text.includes(PEM)) return { source: { file: raw }, text }
      this.fault(field, 'The file that it names is not a PEM text.', fix)
    } catch (error) {
      this.fault(field, `It is neither a PEM text nor a file that can be read (${codeOf(error)}).`, fix)
    }
    return undefined
  }

  integer(raw: unknown, field: string, usual: number, least: number, greatest: number): number {
    if (raw === undefined) return usual
    if (typeof raw === 'number' && Number.isInteger(raw) && raw >= least && raw <= greatest) return raw
    this.fault(field, 'It is not such a number.', `Set a whole number from ${least} to ${greatest}.`)
    return usual
  }
}

const PEM = '-----BEGIN '
