/**
 * An entry of the audit topic (audit.md §1): one for every decision, written in its transaction. Only the fields named
 * here can get into one, so that a payload, a key or personal data of one cannot: fields are allowed by list.
 */
import { isObject, type JsonObject, type JsonValue, member } from '../contract/json.ts'
import { REJECTION_CODES, type RejectionCode } from '../errors.ts'
import { CONTROL_TYPES, type ControlType } from './control-type.ts'

/** The chain of entries that belong to no source record; its only partition is 0 and its offsets count its entries. */
export const CONTROL_TOPIC = '_control'

/** The chain of what operators do to a source partition: redriven records, a restored position. */
export const controlTopicOf = (topic: string): string => `${CONTROL_TOPIC}.${topic}`

/** The rules that decisions were made by: one object for all of a slice, never changed. */
export interface Policy {
  /** SHA-256 of the contract bundle. */
  readonly bundle: Uint8Array
  /** Version of the key directory. */
  readonly directory: number
}

/** What a sealed event says of itself, as far as audit names it. */
export interface EventClaims {
  readonly iss: string
  /** 1 to 64 bytes. */
  readonly kid: Uint8Array
  readonly id: string
  readonly source: string
  readonly type: string
}

export interface EntryOutput {
  /** The logical output channel. */
  readonly channel: string
  readonly consumer: string
}

interface EntryFields {
  /** Milliseconds since 1970. */
  readonly timeMs: number
  /** The source record that was decided; of a control entry `_control`, 0 and its number. */
  readonly topic: string
  readonly partition: number
  readonly offset: bigint
  readonly policy: Policy
}

interface DecisionFields extends EntryFields {
  /** A W3C `traceparent`; one that is not valid is left out, since any producer may write anything there. */
  readonly trace: string | null
  /** Only where a quarantined record was decided anew; then it stands on the control chain of its source partition. */
  readonly redriven?: Redriven
}

/** A record's place. */
export interface RecordPlace {
  readonly topic: string
  readonly partition: number
  readonly offset: bigint
}

/** How a quarantined record came back to admission (docs/operations.md). */
export interface Redriven {
  /** Where it first came in. */
  readonly source: RecordPlace
  /** Where it stood in quarantine. */
  readonly quarantine: RecordPlace
  /** Who did it and why, as the operator said. */
  readonly by: string | null
  readonly reason: string | null
  /** Whether it was let in by name although its time had run out. */
  readonly expired: boolean
}

export interface AdmittedEntry extends DecisionFields {
  readonly kind: 'event.admitted'
  /** SHA-256 of the record's value. */
  readonly digest: Uint8Array
  readonly event: EventClaims
  readonly outputs: readonly EntryOutput[]
}

export interface RejectedEntry extends DecisionFields {
  readonly kind: 'event.rejected'
  readonly code: RejectionCode
  /** SHA-256 of the record's value; null where it has none. */
  readonly digest: Uint8Array | null
  /**
   * What the record said, null where it did not parse. The code tells whether its signature held: before that it is only
   * claimed, its texts are cut to `MAX_CLAIMED_LENGTH`, and it names no principal.
   */
  readonly event: EventClaims | null
}

export interface ControlEntry extends EntryFields {
  readonly kind: ControlType
  /** Who did it, as `User:name`; null where the gate itself did. */
  readonly principal: string | null
  /** What it was done to, e.g. `key:…`, `directory:42`. */
  readonly resource: string
  readonly success: boolean
}

export type Entry = AdmittedEntry | RejectedEntry | ControlEntry

/** UTF-16 units of a text that a record merely claims. */
export const MAX_CLAIMED_LENGTH = 128

const VERIFIED_CODES: ReadonlySet<RejectionCode> = new Set(
  REJECTION_CODES.slice(REJECTION_CODES.indexOf('signature-invalid') + 1),
)

/** Whether a record with this code had a good signature: admission looks in the order of sealed-event.md §5. */
export function isVerifiedCode(code: RejectionCode): boolean {
  return VERIFIED_CODES.has(code)
}

/** What the event said of itself, where its signature held; null where that is merely claimed, and for control entries. */
export function provenEvent(entry: Entry): EventClaims | null {
  if (entry.kind === 'event.admitted') return entry.event
  return entry.kind === 'event.rejected' && isVerifiedCode(entry.code) ? entry.event : null
}

/** Who did it, as `User:name`, where that is proven. */
export function principalOf(entry: Entry): string | null {
  const event = provenEvent(entry)
  if (event !== null) return PRINCIPAL + event.iss
  return entry.kind === 'event.admitted' || entry.kind === 'event.rejected' ? null : entry.principal
}

/** What it was done to. */
export const resourceOf = (entry: Entry): string =>
  'resource' in entry ? entry.resource : `topic:${entry.redriven?.source.topic ?? entry.topic}`

/** The key of an entry's record, and what its `record` field says: `topic/partition/offset`. */
export function recordKey(topic: string, partition: number, offset: bigint): string {
  return `${topic}/${partition}/${offset}`
}

/** The value of an entry's record: JSON, its fields always in this order. One for every record: written by hand. */
export function encodeEntry(entry: Entry): Buffer {
  const { kind, topic, partition, offset, policy } = entry
  const subject = kind === 'event.admitted' || kind === 'event.rejected' ? decided(entry) : controlled(entry)
  return Buffer.from(
    `{"timestamp":"${timestampOf(entry.timeMs)}","event_type":"${kind}","principal":${quoteOrNull(subject.principal)}` +
      `,"result":"${subject.success ? 'success' : 'failure'}","source_ip":null,"resource":${quote(subject.resource)}` +
      `,"operation":"${subject.operation}","record":${quote(recordKey(topic, partition, offset))}` +
      `,"code":${quoteOrNull(subject.code)},"event":${subject.event},"claimed":${subject.claimed}` +
      `,"outputs":[${subject.outputs}],"policy":${policyText(policy)},"trace":${quoteOrNull(subject.trace)}${subject.redriven}}`,
  )
}

/** What differs between the kinds; `event`, `claimed` and `outputs` as JSON. */
interface Subject {
  readonly principal: string | null
  readonly success: boolean
  readonly resource: string
  readonly operation: 'Write' | 'Administer'
  readonly code: string | null
  readonly event: string
  readonly claimed: string
  readonly outputs: string
  readonly trace: string | null
  /** The last field with its comma, where there is one. */
  readonly redriven: string
}

const PRINCIPAL = 'User:'
const HASH = 'sha256:'

function decided(entry: AdmittedEntry | RejectedEntry): Subject {
  const admitted = entry.kind === 'event.admitted'
  const code = admitted ? null : entry.code
  const { event } = entry
  const proven = provenEvent(entry)
  const digest = entry.digest === null ? 'null' : `"${hashText(entry.digest)}"`
  return {
    principal: principalOf(entry),
    success: admitted,
    resource: resourceOf(entry),
    operation: 'Write',
    code,
    event:
      proven === null
        ? `{"digest":${digest}}`
        : `{"id":${quote(proven.id)},"source":${quote(proven.source)},"type":${quote(proven.type)}` +
          `,"kid":"${base64url(proven.kid)}","digest":${digest}}`,
    claimed:
      event === null || proven !== null
        ? 'null'
        : `{"iss":${quote(cut(event.iss))},"id":${quote(cut(event.id))},"source":${quote(cut(event.source))}` +
          `,"type":${quote(cut(event.type))},"kid":"${base64url(event.kid)}"}`,
    outputs: admitted ? entry.outputs.map(outputText).join() : '',
    trace: traceOf(entry.trace),
    redriven: entry.redriven === undefined ? '' : `,"redriven":${redrivenText(entry.redriven)}`,
  }
}

function controlled({ principal, success, resource }: ControlEntry): Subject {
  const none = { code: null, event: 'null', claimed: 'null', outputs: '', trace: null, redriven: '' }
  return { principal, success, resource, operation: 'Administer', ...none }
}

/** Printable ASCII without what JSON escapes, which is nearly every text here. */
const PLAIN = /^[ !#-[\]-~]*$/

const quote = (text: string): string => (PLAIN.test(text) ? `"${text}"` : JSON.stringify(text))

const quoteOrNull = (text: string | null): string => (text === null ? 'null' : quote(text))

const outputText = ({ channel, consumer }: EntryOutput): string =>
  `{"channel":${quote(channel)},"consumer":${quote(consumer)}}`

const redrivenText = ({ source, quarantine, by, reason, expired }: Redriven): string =>
  `{"record":${quote(placeText(source))},"quarantine":${quote(placeText(quarantine))}` +
  `,"by":${quoteOrNull(by)},"reason":${quoteOrNull(reason)},"expired":${expired}}`

const placeText = ({ topic, partition, offset }: RecordPlace): string => recordKey(topic, partition, offset)

const bufferOf = (bytes: Uint8Array): Buffer =>
  Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)

const base64url = (bytes: Uint8Array): string => bufferOf(bytes).toString('base64url')

const hashText = (hash: Uint8Array): string => HASH + bufferOf(hash).toString('hex')

/** What was written out last: the entries of a slice mostly share their time and always their policy. */
let lastTime = { timeMs: 0, text: new Date(0).toISOString() }
let lastPolicy: { policy: Policy | undefined; text: string } = { policy: undefined, text: '' }

function timestampOf(timeMs: number): string {
  if (timeMs !== lastTime.timeMs) lastTime = { timeMs, text: new Date(timeMs).toISOString() }
  return lastTime.text
}

function policyText(policy: Policy): string {
  if (policy !== lastPolicy.policy)
    lastPolicy = { policy, text: `{"bundle":"${hashText(policy.bundle)}","directory":${policy.directory}}` }
  return lastPolicy.text
}

/** At most `MAX_CLAIMED_LENGTH` units, with a mark where something is missing, and no half of a surrogate pair. */
function cut(text: string): string {
  if (text.length <= MAX_CLAIMED_LENGTH) return text
  const start = text.slice(0, MAX_CLAIMED_LENGTH - 1)
  return `${start.isWellFormed() ? start : start.slice(0, -1)}…`
}

/** W3C Trace Context §3.2: version, trace-id, parent-id, flags; neither id all zeros, no version ff. */
const TRACEPARENT = /^(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$/

const traceOf = (trace: string | null): string | null =>
  trace?.length === 55 && TRACEPARENT.test(trace) ? trace : null

/**
 * Reads an entry's value. Undefined for whatever `encodeEntry` would not have written, byte for byte: so a field that
 * this version does not know is no entry here, though verification, which only hashes the bytes, still covers it.
 */
export function parseEntry(value: Uint8Array): Entry | undefined {
  const json = jsonObjectOf(value)
  const entry = json === undefined ? undefined : entryOf(json)
  return entry !== undefined && encodeEntry(entry).equals(value) ? entry : undefined
}

/** What an entry says it is about, `topic/partition/offset`, whatever version wrote it; undefined where it does not say. */
export function recordOf(value: Uint8Array): string | undefined {
  const json = jsonObjectOf(value)
  return json === undefined ? undefined : textOf(json, 'record')
}

function jsonObjectOf(value: Uint8Array): JsonObject | undefined {
  try {
    const json = JSON.parse(bufferOf(value).toString()) as JsonValue
    return isObject(json) ? json : undefined
  } catch {
    return undefined
  }
}

/** The parts of `topic/partition/offset`; undefined for any other text. */
export function placeOf(key: string): RecordPlace | undefined {
  const [, topic, partition, offset] = PLACE.exec(key) ?? []
  if (topic === undefined || partition === undefined || offset === undefined) return undefined
  return { topic, partition: Number(partition), offset: BigInt(offset) }
}

/** Kafka's topic names, and the numbers it counts with, as `recordKey` writes them. */
const PLACE = /^([a-zA-Z0-9._-]{1,249})\/(0|[1-9][0-9]{0,9})\/(0|[1-9][0-9]{0,18})$/

/* The rest takes an object apart; what it lets through is judged by writing it again. */

function entryOf(json: JsonObject): Entry | undefined {
  const kind = member(json, 'event_type')
  const place = placeOf(textOf(json, 'record') ?? '')
  const policy = policyOf(member(json, 'policy'))
  const timeMs = Date.parse(textOf(json, 'timestamp') ?? '')
  if (place === undefined || policy === undefined || Number.isNaN(timeMs)) return undefined
  const fields = { timeMs, ...place, policy }
  const trace = textOf(json, 'trace') ?? null
  const redriven = redrivenOf(objectOf(json, 'redriven'))
  const decision = { ...fields, trace, ...(redriven === undefined ? {} : { redriven }) }
  const event = objectOf(json, 'event')
  if (kind === 'event.admitted') {
    const digest = event === undefined ? undefined : hashOf(event, 'digest')
    const claims = event === undefined ? undefined : claimsOf(event, issuerOf(json))
    const outputs = outputsOf(member(json, 'outputs'))
    if (digest === undefined || claims === undefined || outputs === undefined) return undefined
    return { kind, ...decision, digest, event: claims, outputs }
  }
  if (kind === 'event.rejected') {
    const code = REJECTION_CODES.find((known) => known === member(json, 'code'))
    if (code === undefined || event === undefined) return undefined
    const claimed = objectOf(json, 'claimed')
    const claims =
      claimed === undefined ? claimsOf(event, issuerOf(json)) : claimsOf(claimed, textOf(claimed, 'iss'))
    return { kind, ...decision, code, digest: hashOf(event, 'digest') ?? null, event: claims ?? null }
  }
  const control = CONTROL_TYPES.find((known) => known === kind)
  const resource = textOf(json, 'resource')
  if (control === undefined || resource === undefined) return undefined
  const principal = textOf(json, 'principal') ?? null
  return { kind: control, ...fields, principal, resource, success: member(json, 'result') === 'success' }
}

function textOf(json: JsonObject, name: string): string | undefined {
  const value = member(json, name)
  return typeof value === 'string' ? value : undefined
}

function objectOf(json: JsonObject, name: string): JsonObject | undefined {
  const value = member(json, name)
  return isObject(value) ? value : undefined
}

function hashOf(json: JsonObject, name: string): Uint8Array | undefined {
  const text = textOf(json, name)
  if (text?.length !== HASH.length + 64) return undefined
  return Buffer.from(text.slice(HASH.length), 'hex')
}

function redrivenOf(json: JsonObject | undefined): Redriven | undefined {
  if (json === undefined) return undefined
  const source = placeOf(textOf(json, 'record') ?? '')
  const quarantine = placeOf(textOf(json, 'quarantine') ?? '')
  if (source === undefined || quarantine === undefined) return undefined
  const by = textOf(json, 'by') ?? null
  const reason = textOf(json, 'reason') ?? null
  return { source, quarantine, by, reason, expired: member(json, 'expired') === true }
}

function issuerOf(json: JsonObject): string | undefined {
  return textOf(json, 'principal')?.slice(PRINCIPAL.length)
}

function claimsOf(json: JsonObject, iss: string | undefined): EventClaims | undefined {
  const id = textOf(json, 'id')
  const source = textOf(json, 'source')
  const type = textOf(json, 'type')
  const kid = textOf(json, 'kid')
  if (iss === undefined || id === undefined || source === undefined) return undefined
  if (type === undefined || kid === undefined) return undefined
  return { iss, kid: Buffer.from(kid, 'base64url'), id, source, type }
}

function outputsOf(value: JsonValue | undefined): EntryOutput[] | undefined {
  if (!Array.isArray(value)) return undefined
  const items: readonly JsonValue[] = value
  const outputs: EntryOutput[] = []
  for (const item of items) {
    const channel = isObject(item) ? textOf(item, 'channel') : undefined
    const consumer = isObject(item) ? textOf(item, 'consumer') : undefined
    if (channel === undefined || consumer === undefined) return undefined
    outputs.push({ channel, consumer })
  }
  return outputs
}

function policyOf(value: JsonValue | undefined): Policy | undefined {
  if (!isObject(value)) return undefined
  const bundle = hashOf(value, 'bundle')
  const directory = member(value, 'directory')
  return bundle === undefined || typeof directory !== 'number' ? undefined : { bundle, directory }
}
