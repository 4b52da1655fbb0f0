/**
 * Events as an application gives them, checked and put into bytes before anything is spent on them: every fault of every
 * event of a call at once, nothing sealed where there is one.
 */
import { authorise } from '../contract/authorise.ts'
import type { Contracts } from '../contract/contract.ts'
import { readJson } from '../contract/json.ts'
import { describeFault, type Fault, Rejection, type RejectionCode } from '../errors.ts'
import { random } from '../envelope/crypto.ts'
import { maxProofBytes } from '../envelope/seal.ts'
import type { TraceContext } from '../trace-context.ts'
import { isDateTime, isObject, isText } from './options.ts'

/** A CloudEvent (1.0.2) and where it goes in its topic. Texts hold 1 to 1,024 bytes of UTF-8. */
export interface EventInput {
  /** Unique for its source. Default: a random UUID. */
  readonly id?: string
  /** Who speaks, within the issuer: a URI reference such as `/shipping`. */
  readonly source: string
  /** What happened, e.g. `com.example.order.shipped.v1`: the unit of policy. */
  readonly type: string
  readonly specversion?: '1.0'
  /** When it happened, RFC 3339. */
  readonly time?: string
  readonly subject?: string
  readonly dataschema?: string
  /** Content type of the payload. Default `application/json`; anything else comes with `dataBytes`. */
  readonly datacontenttype?: string
  /** The payload, as `JSON.stringify` writes it. Either this or `dataBytes`. */
  readonly data?: unknown
  /** The payload's bytes, taken as they are. */
  readonly dataBytes?: Uint8Array
  /** The record's key, visible to all: no personal data. Text becomes UTF-8. Default null. */
  readonly key?: string | Uint8Array | null
  /** The record's partition, from 0. Default: by the key, as Kafka does it. */
  readonly partition?: number
  /** More CloudEvents attributes: names of 1 to 20 `a-z0-9`, values text. At most 32 attributes in all. */
  readonly extensions?: Readonly<Record<string, string>>
  /** W3C trace context, passed on as record headers; by default what `SealerOptions.trace` gives. Not signed. */
  readonly traceparent?: string
  readonly tracestate?: string
}

/** One thing wrong with one event of a call. */
export interface Refusal extends Fault {
  /** The event's index in the call, from 0. */
  readonly index: number
  /** As what the gateway would reject the record; undefined where it could not even be made. */
  readonly code: RejectionCode | undefined
}

const MAX_TOLD = 20

/** The caller's events cannot be sealed as they are: none of the call was. `refusals` holds every fault. */
export class RefusedEvents extends Error {
  override readonly name = 'RefusedEvents'
  readonly refusals: readonly Refusal[]

  constructor(refusals: readonly Refusal[]) {
    const told = refusals.slice(0, MAX_TOLD).map((refusal) => {
      const line = describeFault(refusal)
      return refusal.code === undefined ? line : `${line} [${refusal.code}]`
    })
    if (refusals.length > MAX_TOLD) told.push(`and ${refusals.length - MAX_TOLD} more`)
    super(`nothing was sealed:\n${told.join('\n')}`)
    this.refusals = refusals
  }
}

/** An event that is fit to be sealed; holds its own copy of everything. */
export interface PreparedEvent {
  readonly index: number
  readonly type: string
  readonly contentType: string
  readonly ce: ReadonlyMap<string, string>
  readonly payload: Buffer
  readonly key: Buffer | null
  readonly partition: number | undefined
  readonly trace: Readonly<Record<string, string>>
  /** What the record adds to a Kafka batch, in bytes: at most, where its wrapped key is one of KMS. */
  readonly recordBytes: number
}

/** What events are checked against. */
export interface EventRules {
  readonly iss: string
  readonly aud: string
  readonly kidBytes: number
  readonly maxValueBytes: number
  readonly contracts: Contracts | undefined
  /** For events that bring no trace context of their own. */
  readonly trace: TraceContext | undefined
}

const MAX_TEXT_BYTES = 1024
const MAX_KEY_BYTES = 65_536
const MAX_CE_ENTRIES = 32
const JSON_TYPE = 'application/json'
/** CloudEvents attributes with a field of their own, which are therefore no extensions. */
const ATTRIBUTES = ['id', 'source', 'type', 'specversion', 'time', 'subject', 'dataschema'] as const
const RESERVED = new Set<string>([...ATTRIBUTES, 'datacontenttype', 'data'])
const FIELDS = new Set<string>([
  ...RESERVED,
  ...['dataBytes', 'key', 'partition', 'extensions', 'traceparent', 'tracestate'],
])
const EXTENSION_NAME = /^[a-z0-9]{1,20}$/
/** A wrapped key: what the format allows, and what KMS makes (184) with room to spare. */
const WRAPPED_BYTES = { longest: 1024, usual: 256 } as const
/** Of a body besides payload, texts and wrapped key, at most: framing, labels, kc, session, a kek-id of 64. */
const FRAME_BYTES = 320
/** Names of the hints, and what Kafka adds to a record (`batchBytes` in ports.ts). */
const RECORD_BYTES = 256

/** What to do about what a contract refuses. */
const CONTRACT_FIXES: ReadonlyMap<RejectionCode, string> = new Map([
  ['type-unknown', 'Correct the type, or write a contract for it.'],
  ['not-authorised', "Publish as an issuer, and for a source, of the contract's publish."],
  ['over-limit', 'Send less, or a reference to it.'],
  ['schema-invalid', "Give a payload that the contract's schema allows."],
])

/** Checks and encodes the events of a call for a channel. Throws `RefusedEvents` with every fault of all of them. */
export function prepareEvents(
  inputs: readonly unknown[],
  channel: string,
  rules: EventRules,
): PreparedEvent[] {
  const refusals: Refusal[] = []
  const prepared: PreparedEvent[] = []
  // For the ids of events that come without: one call for all of them costs a tenth.
  const entropy = random(16 * inputs.length)
  for (const [index, input] of inputs.entries()) {
    const own = entropy.subarray(16 * index, 16 * index + 16)
    const event = new EventReader(input, index, own, refusals).read(channel, rules)
    if (event !== undefined) prepared.push(event)
  }
  if (refusals.length > 0) throw new RefusedEvents(refusals)
  return prepared
}

/** Reads one event; what is wrong with it goes to `refusals`. */
class EventReader {
  readonly #input: Readonly<Record<string, unknown>>
  readonly #index: number
  readonly #entropy: Buffer
  readonly #refusals: Refusal[]
  readonly #before: number

  constructor(input: unknown, index: number, entropy: Buffer, refusals: Refusal[]) {
    this.#index = index
    this.#entropy = entropy
    this.#refusals = refusals
    this.#before = refusals.length
    this.#input = isObject(input) ? input : {}
    if (!isObject(input)) this.#refuse('', 'malformed', 'is no object.', 'Give a CloudEvent.')
  }

  #isSound(): boolean {
    return this.#refusals.length === this.#before
  }

  read(channel: string, rules: EventRules): PreparedEvent | undefined {
    if (!this.#isSound()) return undefined
    for (const name of Object.keys(this.#input)) {
      if (!FIELDS.has(name))
        this.#refuse(name, undefined, 'is no field of an event.', 'Further attributes go into extensions.')
    }
    const ce = this.#readAttributes()
    const contentType = this.#readText('datacontenttype') ?? JSON_TYPE
    const payload = this.#readPayload(contentType)
    const key = this.#readKey()
    const partition = this.#readPartition()
    const trace = this.#readTrace(rules.trace)
    if (payload === undefined || !this.#isSound()) return undefined
    const bodyBytes =
      FRAME_BYTES + payload.length + textBytes([contentType, rules.iss, rules.aud, ...[...ce].flat()])
    const valueBytes = bodyBytes + WRAPPED_BYTES.longest + maxProofBytes(rules.kidBytes)
    if (valueBytes > rules.maxValueBytes)
      this.#refuse(
        '',
        'oversize',
        `would take up to ${valueBytes} bytes sealed, over the limit of ${rules.maxValueBytes}.`,
        'Send less, or a reference to it.',
      )
    this.#checkContract(channel, ce, contentType, payload, rules)
    if (!this.#isSound()) return undefined
    const type = ce.get('type') ?? ''
    const headerBytes = textBytes([ce.get('id') ?? '', ce.get('source') ?? '', type, ...Object.values(trace)])
    const recordBytes =
      valueBytes -
      WRAPPED_BYTES.longest +
      WRAPPED_BYTES.usual +
      headerBytes +
      (key?.length ?? 0) +
      RECORD_BYTES
    return { index: this.#index, type, contentType, ce, payload, key, partition, trace, recordBytes }
  }

  #readAttributes(): Map<string, string> {
    const ce = new Map<string, string>()
    for (const name of ATTRIBUTES) {
      const value = this.#readText(name)
      if (value !== undefined) ce.set(name, value)
    }
    const time = ce.get('time')
    if (time !== undefined && !isDateTime(time))
      this.#refuse('time', 'malformed', 'is no time of RFC 3339.', 'Give one such as 2026-11-22T09:15:00Z.')
    for (const name of ['source', 'type'])
      if (this.#input[name] === undefined) this.#refuse(name, 'malformed', 'is missing.', '')
    if (!ce.has('id')) ce.set('id', uuidOf(this.#entropy))
    if ((ce.get('specversion') ?? '1.0') !== '1.0')
      this.#refuse('specversion', 'unsupported', 'is not 1.0.', 'Leave it out.')
    ce.set('specversion', '1.0')
    const { extensions } = this.#input
    if (extensions === undefined) return ce
    if (!isObject(extensions)) {
      this.#refuse('extensions', undefined, 'is no object.', 'Give names and texts.')
      return ce
    }
    for (const [name, value] of Object.entries(extensions)) {
      const where = `extensions.${name.slice(0, 40)}`
      if (!EXTENSION_NAME.test(name) || RESERVED.has(name))
        this.#refuse(
          where,
          'malformed',
          'is no name for one.',
          'Take 1 to 20 of a-z and 0-9, no standard name.',
        )
      else if (isText(value, MAX_TEXT_BYTES)) ce.set(name, value)
      else this.#refuseText(where, value)
    }
    if (ce.size > MAX_CE_ENTRIES)
      this.#refuse('extensions', 'oversize', `makes ${ce.size} attributes.`, `At most ${MAX_CE_ENTRIES}.`)
    return ce
  }

  #readText(name: string): string | undefined {
    const value = this.#input[name]
    if (value === undefined) return undefined
    if (isText(value, MAX_TEXT_BYTES)) return value
    this.#refuseText(name, value)
    return undefined
  }

  #refuseText(where: string, value: unknown): void {
    const long = typeof value === 'string' && value.isWellFormed() && value !== ''
    this.#refuse(
      where,
      long ? 'oversize' : 'malformed',
      long ? `is longer than ${MAX_TEXT_BYTES} bytes.` : 'is no text, empty, or holds an unpaired surrogate.',
      `Give 1 to ${MAX_TEXT_BYTES} bytes of UTF-8.`,
    )
  }

  #readPayload(contentType: string): Buffer | undefined {
    const { data, dataBytes } = this.#input
    if ((data === undefined) === (dataBytes === undefined)) {
      this.#refuse('data', undefined, 'and dataBytes: exactly one belongs there.', '')
      return undefined
    }
    if (dataBytes !== undefined) {
      if (dataBytes instanceof Uint8Array) return Buffer.from(dataBytes)
      this.#refuse('dataBytes', undefined, 'is no Uint8Array.', '')
      return undefined
    }
    if (contentType !== JSON_TYPE)
      this.#refuse('datacontenttype', undefined, `is not ${JSON_TYPE}.`, 'Give the payload as dataBytes.')
    const json = jsonOf(data)
    if (json === undefined) this.#refuse('data', 'schema-invalid', 'cannot be written as JSON.', '')
    return json
  }

  #readKey(): Buffer | null {
    const { key } = this.#input
    if (key === undefined || key === null) return null
    const bytes = key instanceof Uint8Array || (typeof key === 'string' && key.isWellFormed())
    const copy = bytes ? Buffer.from(key) : undefined
    if (copy === undefined) this.#refuse('key', undefined, 'is neither text, bytes nor null.', '')
    else if (copy.length > MAX_KEY_BYTES)
      this.#refuse('key', undefined, `is longer than ${MAX_KEY_BYTES} bytes.`, '')
    return copy ?? null
  }

  #readPartition(): number | undefined {
    const { partition } = this.#input
    if (partition === undefined) return undefined
    if (typeof partition === 'number' && Number.isSafeInteger(partition) && partition >= 0) return partition
    this.#refuse('partition', undefined, 'is no partition.', 'Give a whole number from 0, or nothing.')
    return undefined
  }

  #readTrace(callers: TraceContext | undefined): Readonly<Record<string, string>> {
    const own = { traceparent: this.#readText('traceparent'), tracestate: this.#readText('tracestate') }
    const { traceparent, tracestate } =
      own.traceparent === undefined && own.tracestate === undefined ? (callers ?? own) : own
    return {
      ...(traceparent !== undefined && { traceparent }),
      ...(tracestate !== undefined && { tracestate }),
    }
  }

  /** Steps 7, 9 and 11 of admission, as far as they can be told beforehand. */
  #checkContract(
    channel: string,
    ce: ReadonlyMap<string, string>,
    contentType: string,
    payload: Uint8Array,
    { iss, contracts }: EventRules,
  ): void {
    if (contracts === undefined) return
    const claims = { iss, type: ce.get('type') ?? '', source: ce.get('source') ?? '' }
    try {
      const contract = authorise(channel, claims, contracts)
      if (payload.length > contract.maxBytes)
        throw new Rejection(
          'over-limit',
          `The payload is longer than the contract's ${contract.maxBytes} bytes.`,
        )
      contract.payload.check(contentType, payload)
    } catch (error) {
      if (!(error instanceof Rejection)) throw error
      this.#refuse('', error.code, error.message, CONTRACT_FIXES.get(error.code) ?? '')
    }
  }

  #refuse(field: string, code: RejectionCode | undefined, what: string, fix: string): void {
    const where = field === '' ? `events[${this.#index}]` : `events[${this.#index}].${field}`
    this.#refusals.push({ index: this.#index, where, code, what, fix })
  }
}

/** Each text with room for its length, in bytes. */
const textBytes = (texts: readonly string[]): number =>
  texts.reduce((sum, each) => sum + Buffer.byteLength(each) + 5, 0)

/** Undefined where there is no I-JSON for it: undefined, a function, a cycle, a BigInt, an unpaired surrogate. */
function jsonOf(data: unknown): Buffer | undefined {
  try {
    const json: unknown = JSON.stringify(data)
    if (typeof json !== 'string') return undefined
    const bytes = Buffer.from(json)
    // JSON.stringify escapes only unpaired surrogates so; whether it is one or a text about one, the reader knows.
    if (json.includes('\\ud')) readJson(bytes)
    return bytes
  } catch {
    // Without its cause: it may quote the data.
    return undefined
  }
}

/** Version 4 (RFC 9562 §5.4), from 16 random bytes. */
function uuidOf(bytes: Buffer): string {
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x40
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80
  const hex = bytes.toString('hex')
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`
}
