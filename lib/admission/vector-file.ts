/**
 * A file of conformance vectors, read (test/vectors/README.md). It gives its whole world: gateway, directory, contracts
 * and a key service that is a table.
 */
import { bundleFrom, loadBundle } from '../contract/bundle.ts'
import type { Contracts } from '../contract/contract.ts'
import { ConfigError, type Fault } from '../errors.ts'
import { importPublicKey } from '../envelope/crypto.ts'
import { suiteOf } from '../envelope/suite.ts'
import { KEY_STATES, snapshotFrom } from '../keys/directory.ts'
import type { Header, SourceRecord } from '../ports.ts'

/** One vector's record, ready to be admitted. */
export interface Vector {
  readonly name: string
  readonly record: SourceRecord
  /** The gateway's clock, milliseconds since 1970. */
  readonly nowMs: number
  /** `admitted`, `outage` or a rejection code. */
  readonly expect: string
  /** The expected claims and plaintext as one text; undefined where none are expected. */
  readonly content: string | undefined
}

/** A vector file, read. */
export interface VectorGroup {
  readonly group: string
  readonly vectors: readonly Vector[]
  readonly world: World
}

/** What a file's vectors are judged by. */
export interface World {
  readonly audience: string
  readonly maxValueBytes: number
  readonly maxSessions: number
  /** Whether one state of admission serves all vectors, in order; otherwise each begins anew. */
  readonly sequence: boolean
  readonly channels: ReadonlyMap<string, { readonly name: string; readonly maxLifeSeconds: number }>
  readonly snapshot: ReturnType<typeof snapshotFrom>
  readonly contracts: Contracts
  /** The same as a bundle. */
  readonly bundle: Uint8Array
  /** For `tableService` (conformance.ts). */
  readonly table: readonly Unwrap[]
}

/** One row of the key service's table. */
export interface Unwrap {
  readonly wrapped: string
  readonly kekId: string
  readonly context: Readonly<Record<string, string>>
  /** Hex; undefined where the service does not answer. */
  readonly dek: string | undefined
}

/** Reads a vector file's text; throws `ConfigError` where it is none. */
export function parseVectorFile(file: string, text: string): VectorGroup {
  const reading = new Reading(file)
  const root = reading.object(parseExact(file, text), file)
  const plain = reading.object(JSON.parse(text), file)
  const gateway = reading.object(root['gateway'], 'gateway')
  const directory = reading.object(root['directory'], 'directory')
  const group = reading.text(root['group'], 'group')
  const vectors = reading
    .array(root['vectors'], 'vectors')
    .map((item, index) => vectorOf(reading, item, `vectors[${index}]`))
  const channels = new Map(
    Object.entries(reading.object(gateway['channels'], 'gateway.channels')).map(([topic, name]) => [
      topic,
      {
        name: reading.text(name, `gateway.channels.${topic}`),
        maxLifeSeconds: reading.integer(gateway['maxLifeSeconds'], 'gateway.maxLifeSeconds'),
      },
    ]),
  )
  const bundle = bundleFrom(reading.array(plain['contracts'], 'contracts'))
  const world: World = {
    audience: reading.text(gateway['audience'], 'gateway.audience'),
    maxValueBytes: reading.integer(gateway['maxValueBytes'], 'gateway.maxValueBytes'),
    maxSessions: reading.integer(gateway['maxSessions'], 'gateway.maxSessions'),
    sequence: root['sequence'] === true,
    channels,
    snapshot: snapshotFrom({
      version: 1,
      issuedAt: 0,
      expiresAt: Number.MAX_SAFE_INTEGER,
      signingKeys: reading
        .array(directory['signingKeys'], 'directory.signingKeys')
        .map((row, index) => signingKeyOf(reading, row, `directory.signingKeys[${index}]`)),
      keks: reading
        .array(directory['keks'], 'directory.keks')
        .map((row, index) => kekOf(reading, row, `directory.keks[${index}]`)),
    }),
    contracts: loadBundle(bundle),
    bundle,
    table: reading
      .array(root['unwraps'], 'unwraps')
      .map((row, index) => unwrapOf(reading, row, `unwraps[${index}]`)),
  }
  reading.end()
  return { group, vectors, world }
}

/** What is compared of an admitted event. */
export interface Content {
  readonly plaintext: string
  readonly iss: string
  readonly aud: string
  readonly iat: bigint
  readonly exp: bigint
  readonly session: string
  readonly number: bigint
  readonly ce: readonly (readonly [string, string])[]
}

/** One text for equal contents. */
export function contentText(content: Content): string {
  const ce = [...content.ce].sort(([a], [b]) => (a < b ? -1 : 1))
  return JSON.stringify({
    ...content,
    iat: String(content.iat),
    exp: String(content.exp),
    number: String(content.number),
    ce,
  })
}

/** JSON with integers beyond 2^53 as bigints. */
function parseExact(file: string, text: string): unknown {
  try {
    return JSON.parse(text, (_name, value: unknown, context?: { source?: string }) => {
      const source = context?.source
      return typeof value === 'number' &&
        !Number.isSafeInteger(value) &&
        source !== undefined &&
        /^-?\d+$/.test(source)
        ? BigInt(source)
        : value
    })
  } catch (error) {
    throw new ConfigError([
      {
        where: file,
        what: `not JSON: ${error instanceof Error ? error.message : ''}.`,
        fix: 'Give a file in the format of test/vectors/README.md.',
      },
    ])
  }
}

/** Reads untyped JSON, and names every fault in it at once. */
class Reading {
  readonly #file: string
  readonly #faults: Fault[] = []

  constructor(file: string) {
    this.#file = file
  }

  end(): void {
    if (this.#faults.length > 0) throw new ConfigError(this.#faults)
  }

  object(value: unknown, where: string): Record<string, unknown> {
    if (typeof value === 'object' && value !== null && !Array.isArray(value))
      return Object.fromEntries(Object.entries(value))
    this.fault(where, 'is no object')
    return {}
  }

  array(value: unknown, where: string): readonly unknown[] {
    if (Array.isArray(value)) return value
    this.fault(where, 'is no array')
    return []
  }

  text(value: unknown, where: string): string {
    if (typeof value === 'string') return value
    this.fault(where, 'is no text')
    return ''
  }

  integer(value: unknown, where: string): number {
    if (typeof value === 'number' && Number.isSafeInteger(value)) return value
    this.fault(where, 'is no integer within 53 bits')
    return 0
  }

  wide(value: unknown, where: string): bigint {
    if (typeof value === 'bigint') return value
    if (typeof value === 'string' && /^\d+$/.test(value)) return BigInt(value)
    return BigInt(this.integer(value, where))
  }

  bytes(value: unknown, where: string): Buffer {
    const hex = this.text(value, where)
    if (/^([0-9a-f]{2})*$/.test(hex)) return Buffer.from(hex, 'hex')
    this.fault(where, 'is no lower-case hex')
    return Buffer.alloc(0)
  }

  bytesOrNull(value: unknown, where: string): Buffer | null {
    return value === null ? null : this.bytes(value, where)
  }

  fault(where: string, what: string): void {
    this.#faults.push({
      where: `${this.#file} ${where}`,
      what: `${what}.`,
      fix: 'See test/vectors/README.md.',
    })
  }
}

function vectorOf(reading: Reading, item: unknown, where: string): Vector {
  const row = reading.object(item, where)
  const stamp = reading.text(row['timestampType'], `${where}.timestampType`)
  const headers = reading
    .array(row['headers'], `${where}.headers`)
    .map((pair, index) => headerOf(reading, pair, `${where}.headers[${index}]`))
  return {
    name: reading.text(row['name'], `${where}.name`),
    nowMs: reading.integer(row['now'], `${where}.now`) * 1000,
    expect: reading.text(row['expect'], `${where}.expect`),
    content: row['claims'] === undefined ? undefined : expectedContent(reading, row, where),
    record: {
      topic: reading.text(row['topic'], `${where}.topic`),
      partition: reading.integer(row['partition'], `${where}.partition`),
      offset: reading.wide(row['offset'], `${where}.offset`),
      timestamp: reading.integer(row['timestamp'], `${where}.timestamp`) * 1000,
      timestampType: stamp === 'LOG_APPEND_TIME' ? 'LogAppendTime' : 'CreateTime',
      key: reading.bytesOrNull(row['key'], `${where}.key`),
      headers,
      value: reading.bytesOrNull(row['value'], `${where}.value`),
    },
  }
}

/** A header is `[name, hex]` or `{ name, value }`. */
function headerOf(reading: Reading, item: unknown, where: string): Header {
  if (Array.isArray(item)) {
    const [name, value] = reading.array(item, where)
    return { name: reading.text(name, where), value: reading.bytesOrNull(value, where) }
  }
  const pair = reading.object(item, where)
  return { name: reading.text(pair['name'], where), value: reading.bytesOrNull(pair['value'], where) }
}

function expectedContent(reading: Reading, row: Record<string, unknown>, where: string): string {
  const claims = reading.object(row['claims'], `${where}.claims`)
  const ce = reading.object(claims['ce'], `${where}.claims.ce`)
  return contentText({
    plaintext: reading.text(row['plaintext'], `${where}.plaintext`),
    iss: reading.text(claims['iss'], `${where}.claims.iss`),
    aud: reading.text(claims['aud'], `${where}.claims.aud`),
    iat: reading.wide(claims['iat'], `${where}.claims.iat`),
    exp: reading.wide(claims['exp'], `${where}.claims.exp`),
    session: reading.text(claims['session'], `${where}.claims.session`),
    number: reading.wide(claims['number'], `${where}.claims.number`),
    ce: Object.entries(ce).map(([name, value]) => [name, reading.text(value, `${where}.claims.ce.${name}`)]),
  })
}

function signingKeyOf(
  reading: Reading,
  item: unknown,
  where: string,
): Parameters<typeof snapshotFrom>[0]['signingKeys'][number] {
  const row = reading.object(item, where)
  const jwk = reading.object(row['jwk'], `${where}.jwk`)
  const kid = reading.bytes(row['kid'], `${where}.kid`)
  const suite = suiteOf(reading.integer(row['alg'], `${where}.alg`))
  const state = KEY_STATES.find((known) => known === row['state'])
  if (suite === undefined || state === undefined) {
    reading.fault(where, 'has an alg or state that is not known')
    reading.end()
    throw new TypeError('unreachable: the fault above ends the reading')
  }
  const y = jwk['y'] === undefined ? {} : { y: reading.text(jwk['y'], `${where}.jwk.y`) }
  return {
    kid,
    kidText: kid.toString('base64url'),
    iss: reading.text(row['iss'], `${where}.iss`),
    key: importPublicKey(suite, {
      kty: reading.text(jwk['kty'], where),
      crv: reading.text(jwk['crv'], where),
      x: reading.text(jwk['x'], where),
      ...y,
    }),
    state,
    notBefore: reading.integer(row['notBefore'], `${where}.notBefore`),
    notAfter: reading.integer(row['notAfter'], `${where}.notAfter`),
    compromisedAt:
      row['compromisedAt'] === null ? null : reading.integer(row['compromisedAt'], `${where}.compromisedAt`),
  }
}

function kekOf(
  reading: Reading,
  item: unknown,
  where: string,
): Parameters<typeof snapshotFrom>[0]['keks'][number] {
  const row = reading.object(item, where)
  const kekIdBytes = reading.bytes(row['kekId'], `${where}.kekId`)
  const iss = reading.array(row['iss'], `${where}.iss`).map((name) => reading.text(name, `${where}.iss`))
  return { kekIdBytes, kekId: kekIdBytes.toString('latin1'), provider: 'table', key: 'table', iss }
}

function unwrapOf(reading: Reading, item: unknown, where: string): Unwrap {
  const row = reading.object(item, where)
  const wrapped = reading.text(row['wrapped'], `${where}.wrapped`)
  if (row['outage'] === true) return { wrapped, kekId: '', context: {}, dek: undefined }
  const context = reading.object(row['context'], `${where}.context`)
  return {
    wrapped,
    kekId: reading.text(row['kekId'], `${where}.kekId`),
    context: Object.fromEntries(
      Object.entries(context).map(([name, value]) => [name, reading.text(value, `${where}.context.${name}`)]),
    ),
    dek: reading.text(row['dek'], `${where}.dek`),
  }
}
