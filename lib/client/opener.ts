/**
 * What consumers call: Kafka records in, opened events out. Steps 1 to 6, 10 and 11 of sealed-event.md §5 in their
 * order, and step 8 where the caller supplies a store. Written for kafkajs' records, without depending on it.
 */
import type { Contracts } from '../contract/contract.ts'
import { type JsonValue, readJson } from '../contract/json.ts'
import { Outage, Rejection, type RejectionCode } from '../errors.ts'
import { open as decrypt, UNDECRYPTABLE } from '../envelope/seal.ts'
import { ProvenBatches, type Verified } from '../envelope/verify.ts'
import { authenticate, judgingTime, parseRecord } from '../keys/authenticate.ts'
import { createDataKeys, type DataKeyCounts, type KeyRequest, type PreparedKeys } from '../keys/data-keys.ts'
import { byDeadline } from '../keys/deadline.ts'
import type { Directory, DirectoryCopy } from '../keys/directory.ts'
import { shieldKeyService } from '../keys/key-service-shield.ts'
import type { Clock, Header, KeyService, SourceRecord } from '../ports.ts'
import { type TraceContext, traceContextOf } from '../trace-context.ts'
import {
  aFunction,
  checkOptions,
  isText,
  objectWith,
  optional,
  type Rule,
  text,
  wholeNumber,
} from './options.ts'
import { randomFraction, systemClock } from './machine.ts'

export interface OpenerOptions {
  /** Who reads: the `aud` of the events meant for this consumer. 1 to 128 bytes. */
  readonly audience: string
  /**
   * Whose events count: the gateway's name, for the topics that a gateway writes. `'any-in-directory'` takes whoever has
   * a signing key there, and so leaves it to Kafka's ACLs who may write; for tools.
   */
  readonly issuers: readonly string[] | 'any-in-directory'
  /** The signed key directory: `createDirectory`. */
  readonly directory: Directory
  /** Unwraps data keys, under KEKs that the directory gives their issuer and no others; shielded here. */
  readonly keyService: KeyService
  /** The channel (the logical name, which is signed) of a topic; undefined: an outage. Default: the same name. */
  readonly channelOf?: (topic: string) => string | undefined
  /** Who set the records' timestamps. With `LogAppendTime` events are judged by them, else by this clock (the default). */
  readonly timestampType?: SourceRecord['timestampType']
  /** The longest life of an event, in seconds. Default and most: 86,400. */
  readonly maxLifeSeconds?: number
  /** A longer value is refused. Default 1 MiB + 64 KiB, as a gateway's outputs may have. */
  readonly maxValueBytes?: number
  /** Finds events that come twice. Without it they are opened twice: a consumer's own redelivery is no attack. */
  readonly replay?: ReplayStore
  /** With contracts, payloads are checked against the schema of (channel, type); for readers of the channels they are about. */
  readonly contracts?: Contracts
  /** How long a call waits for the directory, the data keys and each answer of `replay`, in milliseconds. Default 10,000. */
  readonly timeoutMs?: number
  readonly clock?: Clock
}

/** What kafkajs gives to `eachMessage`. */
export interface KafkaRecord {
  readonly topic: string
  readonly partition: number
  readonly message: KafkaMessage
}

/** What kafkajs gives to `eachBatch`, as `batch`. */
export interface KafkaBatch {
  readonly topic: string
  readonly partition: number
  readonly messages: readonly KafkaMessage[]
}

export interface KafkaMessage {
  readonly key: Uint8Array | null
  readonly value: Uint8Array | null
  /** Milliseconds since 1970, as text. */
  readonly timestamp: string
  readonly offset: string
  readonly headers?: KafkaHeaders | undefined
}

/** An array holds the values of a name that came more than once. */
export interface KafkaHeaders {
  readonly [name: string]: HeaderValue | readonly HeaderValue[] | undefined
}

type HeaderValue = Uint8Array | string | null

/** What came of one record: an event, or why there is none. What could not be decided rejects with `Outage` instead. */
export type Opened =
  | {
      readonly opened: true
      readonly event: OpenedEvent
      /** The plaintext's bytes. */
      readonly payload: Uint8Array
      /** The W3C trace context that the record came with, for `continueTrace`. Nobody vouches for it: it is not signed. */
      readonly trace: TraceContext | undefined
    }
  | { readonly opened: false; readonly code: RejectionCode; readonly reason: string }

/** A verified event: everything here but `data`'s meaning is vouched for by `iss`'s signature. */
export interface OpenedEvent {
  readonly id: string
  readonly source: string
  readonly type: string
  readonly specversion: '1.0'
  readonly time: string | undefined
  readonly subject: string | undefined
  readonly dataschema: string | undefined
  readonly datacontenttype: string
  /** All further attributes; an object without a prototype. */
  readonly extensions: Readonly<Record<string, string>>
  /** The payload as JSON; undefined where `datacontenttype` is not `application/json`. */
  readonly data: JsonValue | undefined
  /** Who sealed it. */
  readonly iss: string
  readonly aud: string
  /** Sealed at, and good until: seconds since 1970. */
  readonly iat: number
  readonly exp: number
  /** With channel and partition they name the event: the issuer's session in hexadecimal, and the number in it. */
  readonly session: string
  readonly number: bigint
}

/** What names an event for good, and where it was met. */
export interface Sighting {
  readonly channel: string
  readonly partition: number
  readonly iss: string
  /** 16 bytes in hexadecimal. */
  readonly session: string
  readonly number: bigint
  /** The record's offset. */
  readonly offset: string
  /** After this second (since 1970) the event is refused anyhow: the sighting may be forgotten. */
  readonly exp: number
}

export interface ReplayStore {
  /**
   * Remembers the sighting. False where the same event was met before at another offset: it is a replay. At the same
   * offset it is Kafka's redelivery, and true. A rejection is taken for an outage.
   */
  remember(sighting: Sighting): Promise<boolean>
}

export interface Opener {
  /** Opens one record: `eachMessage: async (record) => { const opened = await opener.open(record) }`. */
  open(record: KafkaRecord): Promise<Opened>
  /**
   * Opens a batch, one result for each message, in order: `eachBatch: async ({ batch }) => opener.openBatch(batch)`. Many
   * times as fast as one by one. An outage for one record is one for the batch: let it throw, and Kafka gives it again.
   */
  openBatch(batch: KafkaBatch): Promise<Opened[]>
  /** How its data keys fare, for metrics: one call for each key and five minutes at most. */
  keyCounts(): DataKeyCounts
  /** Wipes the keys; calls from now on reject. */
  close(): void
}

/** A record that has passed steps 1 to 6, or why it did not. */
interface Examined {
  readonly result: Verified | Rejection
  readonly request: KeyRequest | undefined
  readonly trace: TraceContext | undefined
}

/** Makes an opener; keep it, as it keeps keys. Throws `TypeError` that names every unknown or wrong option. */
export function createOpener(options: OpenerOptions): Opener {
  checkOptions('createOpener', options, RULES)
  const { audience, directory, replay, contracts, clock = systemClock } = options
  const { maxLifeSeconds = 86_400, maxValueBytes = 1_114_112, timeoutMs = 10_000 } = options
  const { timestampType = 'CreateTime', channelOf = (topic: string) => topic } = options
  const issuers = options.issuers === 'any-in-directory' ? undefined : new Set(options.issuers)
  const batches = new ProvenBatches()
  const keyService = shieldKeyService(options.keyService, { clock, random: randomFraction })
  const dataKeys = createDataKeys({ keyService, clock })
  directory.onKeksChanged((snapshot) => dataKeys.retain(snapshot))
  /** The highest judging time of each topic-partition, seconds: within one it never goes back. */
  const times = new Map<string, number>()
  let closed = false

  const examine = (record: SourceRecord, channel: string, time: number, copy: DirectoryCopy): Examined => {
    const trace = traceContextOf(record.headers)
    try {
      const envelope = parseRecord(record, maxValueBytes)
      const place = { channel, partition: record.partition, key: record.key }
      const result = authenticate(envelope, place, copy, { audience, time, maxLifeSeconds }, batches)
      const { iss, aud, ce } = result.body.claims
      if (issuers?.has(iss) === false)
        throw new Rejection('not-authorised', 'this consumer does not take events of this issuer')
      const { kekId, wrapped } = result.body.recipient
      const kek = copy.snapshot.kek(kekId, iss)
      const request = kek && { iss, aud, type: ce.get('type') ?? '', kekId, wrapped, kek }
      return { result, request, trace }
    } catch (error) {
      if (!(error instanceof Rejection)) throw error
      return { result: error, request: undefined, trace }
    }
  }

  const isReplayed = async ({ result }: Examined, offset: string): Promise<boolean> => {
    if (replay === undefined || result instanceof Rejection) return false
    // Its own for each: a long batch would never come to its end, however often it came again.
    const deadline = clock.now() + timeoutMs
    const { iss, session, number, exp } = result.body.claims
    const { channel, partition } = result.place
    const name = { channel, partition, iss, session: hex(session), number }
    try {
      const remembered = replay.remember({ ...name, offset, exp: Number(exp) })
      return !(await byDeadline(
        remembered,
        deadline,
        clock,
        () => new Outage('deadline', 'no answer in time'),
      ))
    } catch (cause) {
      throw new Outage('unexpected', 'the replay store failed', { cause })
    }
  }

  const finish = ({ result, request, trace }: Examined, replayed: boolean, keys: PreparedKeys): Opened => {
    try {
      if (result instanceof Rejection) throw result
      if (replayed) throw new Rejection('replayed', 'the event was seen before, at another offset')
      if (request === undefined) throw new Rejection('undecryptable', UNDECRYPTABLE)
      const payload = keys.lend(request, (key) => decrypt(result, key))
      return { opened: true, event: eventOf(result, payload, contracts), payload, trace }
    } catch (error) {
      if (!(error instanceof Rejection)) throw error
      return { opened: false, code: error.code, reason: error.message }
    }
  }

  const openBatch = async ({ topic, partition, messages }: KafkaBatch): Promise<Opened[]> => {
    if (closed) throw new TypeError('the opener has been closed')
    const channel = channelOf(topic)
    if (channel === undefined)
      throw new Outage('channel-unknown', `topic ${topic} has no channel: see the option channelOf`)
    const copy = await directory.snapshot(clock.now() + timeoutMs)
    const name = `${topic}/${partition}`
    let time = times.get(name) ?? 0
    const examined = messages.map((message) => {
      const record = sourceRecord(topic, partition, message, timestampType)
      time = judgingTime(record, clock.now(), time)
      return examine(record, channel, time, copy)
    })
    // Only examining asks what is proven, which are views into these records.
    batches.endSlice()
    const replayed: boolean[] = []
    for (const [index, each] of examined.entries())
      replayed.push(await isReplayed(each, messages[index]?.offset ?? ''))
    const wanted = examined.filter((_, index) => replayed[index] === false)
    const requests = wanted.map(({ request }) => request).filter(isThere)
    const keys = await dataKeys.prepare(requests, clock.now() + timeoutMs)
    try {
      const results = examined.map((each, index) => finish(each, replayed[index] === true, keys))
      times.set(name, Math.max(time, times.get(name) ?? 0))
      return results
    } finally {
      keys.release()
    }
  }

  return {
    openBatch,
    async open({ topic, partition, message }) {
      const [opened] = await openBatch({ topic, partition, messages: [message] })
      if (opened === undefined) throw new TypeError('a record without a message')
      return opened
    },
    keyCounts: () => dataKeys.counts(),
    close() {
      closed = true
      dataKeys.close()
    },
  }
}

/** Step 11, and the event as an application reads it. */
function eventOf(verified: Verified, payload: Uint8Array, contracts: Contracts | undefined): OpenedEvent {
  const { iss, aud, iat, exp, session, number, contentType, ce } = verified.body.claims
  const type = ce.get('type') ?? ''
  if (contracts !== undefined) {
    const contract = contracts.find(verified.place.channel, type)
    if (contract === undefined)
      throw new Rejection('type-unknown', 'no contract for this event type on this channel')
    contract.payload.check(contentType, payload)
  }
  const extensions = Object.fromEntries([...ce].filter(([name]) => !ATTRIBUTES.includes(name)))
  Object.setPrototypeOf(extensions, null)
  return {
    id: ce.get('id') ?? '',
    source: ce.get('source') ?? '',
    type,
    specversion: '1.0',
    time: ce.get('time'),
    subject: ce.get('subject'),
    dataschema: ce.get('dataschema'),
    datacontenttype: contentType,
    extensions,
    data: contentType === 'application/json' ? readJson(payload).value : undefined,
    iss,
    aud,
    iat: Number(iat),
    exp: Number(exp),
    session: hex(session),
    number,
  }
}

function sourceRecord(
  topic: string,
  partition: number,
  message: KafkaMessage,
  timestampType: SourceRecord['timestampType'],
): SourceRecord {
  const { key, value, timestamp, offset } = message
  const milliseconds = Number(timestamp)
  if (timestampType === 'LogAppendTime' && !(Number.isSafeInteger(milliseconds) && milliseconds > 0))
    throw new TypeError(`a record of ${topic} without its broker's timestamp`)
  const headers = headersOf(message.headers ?? {})
  return {
    topic,
    partition,
    offset: BigInt(offset),
    timestamp: milliseconds,
    timestampType,
    key,
    value,
    headers,
  }
}

function headersOf(headers: KafkaHeaders): Header[] {
  return Object.entries(headers).flatMap(([name, value]) =>
    (isList(value) ? value : [value ?? null]).map((each) => ({
      name,
      value: typeof each === 'string' ? Buffer.from(each) : each,
    })),
  )
}

const ATTRIBUTES = ['id', 'source', 'type', 'specversion', 'time', 'subject', 'dataschema']

const isList = (value: KafkaHeaders[string]): value is readonly HeaderValue[] => Array.isArray(value)

const isThere = (request: KeyRequest | undefined): request is KeyRequest => request !== undefined

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString('hex')

const issuersRule: Rule = (value) =>
  value === 'any-in-directory' ||
  (Array.isArray(value) && value.length > 0 && value.every((issuer) => isText(issuer, 128)))
    ? undefined
    : "must be a list of issuers, such as the gateway's name, or 'any-in-directory'"

const timestampTypeRule: Rule = (value) =>
  value === 'LogAppendTime' || value === 'CreateTime' ? undefined : 'must be LogAppendTime or CreateTime'

const RULES: Readonly<Record<keyof OpenerOptions, Rule>> = {
  audience: text(128),
  issuers: issuersRule,
  directory: objectWith('snapshot', 'onKeksChanged'),
  keyService: objectWith('generate', 'unwrap'),
  channelOf: optional(aFunction),
  timestampType: optional(timestampTypeRule),
  maxLifeSeconds: optional(wholeNumber(1, 86_400)),
  maxValueBytes: optional(wholeNumber(1, 16_777_216)),
  replay: optional(objectWith('remember')),
  contracts: optional(objectWith('find')),
  timeoutMs: optional(wholeNumber(1, 600_000)),
  clock: optional(objectWith('now')),
}
