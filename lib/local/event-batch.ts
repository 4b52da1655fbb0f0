/**
 * The records of one invocation: gathered under Lambda's bounds, written as the event's exact JSON, and read back from
 * the function's answer. Used by the poller (poller.ts).
 */
import { nameOf, toEventRecord, toMskEvent } from '../adapters/msk-event.ts'
import type { EventOrigin } from '../adapters/msk-event.ts'
import type { SourceRecord } from '../ports.ts'

/** Lambda's bound of an invocation's payload: bytes of the event's JSON. */
export const MAX_EVENT_BYTES: number = 6 * 1024 * 1024

/** A record and its JSON, written once whatever the number of invocations. */
export interface Item {
  readonly record: SourceRecord
  /** `topic-partition`. */
  readonly name: string
  readonly json: string
  /** Of `json`. */
  readonly bytes: number
}

export function itemOf(record: SourceRecord): Item {
  const json = JSON.stringify(toEventRecord(record))
  return { record, name: nameOf(record), json, bytes: Buffer.byteLength(json) }
}

/** The event's JSON: byte for byte `JSON.stringify(toMskEvent(records, origin))`, without writing any record again. */
export function eventJson(items: readonly Item[], origin: EventOrigin): string {
  const lists = [...Map.groupBy(items, ({ name }) => name)].map(
    ([name, group]) => `"${name}":[${group.map(({ json }) => json).join(',')}]`,
  )
  return `${shellOf(origin)}${lists.join(',')}}}`
}

/** Takes records while the event stays within its bounds. */
export class Gathering {
  readonly items: Item[] = []
  readonly #maxItems: number
  readonly #names = new Set<string>()
  /** Of the event, with one comma too many. */
  #bytes: number

  constructor(maxItems: number, origin: EventOrigin) {
    this.#maxItems = maxItems
    this.#bytes = Buffer.byteLength(shellOf(origin)) + '}}'.length
  }

  /** How many records more the batch size allows. */
  get room(): number {
    return this.#maxItems - this.items.length
  }

  /** Takes records from the front of a list, as many as fit. */
  takeFrom(waiting: Item[]): void {
    const unfit = waiting.findIndex((item) => !this.#take(item))
    waiting.splice(0, unfit === -1 ? waiting.length : unfit)
  }

  #take(item: Item): boolean {
    const list = this.#names.has(item.name) ? 0 : Buffer.byteLength(item.name) + '"":[]'.length
    const bytes = this.#bytes + list + item.bytes + ','.length
    if (this.room === 0 || bytes - ','.length > MAX_EVENT_BYTES) return false
    this.#bytes = bytes
    this.#names.add(item.name)
    this.items.push(item)
    return true
  }
}

/**
 * Which records a function's answer says have failed, with `ReportBatchItemFailures` in force. As AWS documents for Kafka: null, `{}` and
 * an empty or null list are success; a partition or offset that was not in the event fails the whole batch (`malformed`);
 * else exactly the items named failed. Anything AWS does not describe is taken as malformed too.
 */
export function failedItems(answer: unknown, items: readonly Item[]): readonly Item[] | 'malformed' {
  if (answer === null || answer === undefined) return []
  if (!isObject(answer)) return 'malformed'
  const failures = answer['batchItemFailures']
  if (failures === null || (failures === undefined && Object.keys(answer).length === 0)) return []
  if (!Array.isArray(failures)) return 'malformed'
  const sent = new Map(items.map((item) => [placeOf(item.name, Number(item.record.offset)), item]))
  const failed = new Set<Item>()
  for (const failure of failures) {
    const identifier: unknown = isObject(failure) ? failure['itemIdentifier'] : undefined
    if (!isObject(identifier)) return 'malformed'
    const { partition, offset } = identifier
    if (typeof partition !== 'string' || typeof offset !== 'number') return 'malformed'
    const item = sent.get(placeOf(partition, offset))
    if (item === undefined) return 'malformed'
    failed.add(item)
  }
  return items.filter((item) => failed.has(item))
}

/** Why records are given up. `RecordAgeExceeded` is AWS's word for streams; its Kafka pages name only the other two. */
export type FailureCondition = 'RetryAttemptsExhausted' | 'RecordAgeExceeded' | 'MaximumPayloadSizeExceeded'

/** What an on-failure destination receives, in the form of AWS's S3 destinations: metadata, and the event as JSON text. */
export interface FailureRecord {
  readonly requestContext: {
    readonly requestId: string
    readonly functionArn: string
    readonly condition: FailureCondition
    readonly approximateInvokeCount: number
  }
  /** Null where the function was not invoked; `functionError` is absent where it answered. */
  readonly responseContext: {
    readonly statusCode: 200
    readonly executedVersion: '$LATEST'
    readonly functionError?: 'Unhandled'
  } | null
  readonly version: '1.0'
  readonly timestamp: string
  readonly KafkaBatchInfo: {
    readonly batchSize: number
    readonly eventSourceArn?: string
    readonly bootstrapServers: string
    /** Bytes of `payload`. */
    readonly payloadSize: number
    /** By `topic-partition`. */
    readonly recordsInfo: Readonly<Record<string, RecordsInfo>>
  }
  readonly payload: string
}

export interface RecordsInfo {
  readonly firstRecordOffset: string
  readonly lastRecordOffset: string
  readonly firstRecordTimestamp: string
  readonly lastRecordTimestamp: string
}

export function failureRecord(
  items: readonly Item[],
  origin: EventOrigin,
  contexts: Pick<FailureRecord, 'requestContext' | 'responseContext'>,
): FailureRecord {
  const payload = eventJson(items, origin)
  const { eventSourceArn, bootstrapServers } = origin
  return {
    ...contexts,
    version: '1.0',
    timestamp: new Date().toISOString(),
    KafkaBatchInfo: {
      batchSize: items.length,
      ...(origin.selfManaged !== true && { eventSourceArn }),
      bootstrapServers,
      payloadSize: Buffer.byteLength(payload),
      recordsInfo: Object.fromEntries(
        [...Map.groupBy(items, ({ name }) => name)].map(([name, group]) => [name, recordsInfoOf(group)]),
      ),
    },
    payload,
  }
}

function recordsInfoOf(items: readonly Item[]): RecordsInfo {
  const first = items[0]?.record
  const last = items.at(-1)?.record
  if (first === undefined || last === undefined) throw new RangeError('No records to describe.')
  return {
    firstRecordOffset: String(first.offset),
    lastRecordOffset: String(last.offset),
    firstRecordTimestamp: isoTime(first.timestamp),
    lastRecordTimestamp: isoTime(last.timestamp),
  }
}

/** A producer may set any 64-bit timestamp, a Date holds fewer (ECMA-262, time values). */
function isoTime(timestamp: number): string {
  const LATEST = 8.64e15
  return new Date(Math.min(LATEST, Math.max(-LATEST, timestamp))).toISOString()
}

/** The event's JSON up to its first list. */
function shellOf(origin: EventOrigin): string {
  return JSON.stringify(toMskEvent([], origin)).slice(0, -'}}'.length)
}

function placeOf(name: string, offset: number): string {
  return `${name}@${offset}`
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
