/**
 * Lambda's Kafka events, both ways: events of Amazon MSK (`aws:kafka`) and of self-managed Kafka, and the answers
 * Lambda takes (design: architecture.md §3; components.md, "Facts about Lambda's Kafka event sources").
 */
import { isDeepStrictEqual } from 'node:util'
import type { SourceSlice, Stop } from '../admission/slice.ts'
import { Outage } from '../errors.ts'
import type { Header, SourceRecord, TopicPartition } from '../ports.ts'

/** `throw` needs no consent of the event source mapping; `partial` loses records without `ReportBatchItemFailures`. */
export type AnswerMode = 'throw' | 'partial'

/** What Lambda takes for a partly failed batch, as an object: the offset is a number, the partition `topic-number`. */
export interface PartialAnswer {
  readonly batchItemFailures: readonly {
    readonly itemIdentifier: { readonly partition: string; readonly offset: number }
  }[]
}

/** A record as Lambda sends it. Bytes are base64, header bytes signed numbers; an absent key or value is null in Kafka. */
export interface KafkaEventRecord {
  readonly topic: string
  readonly partition: number
  readonly offset: number
  readonly timestamp: number
  readonly timestampType: 'CREATE_TIME' | 'LOG_APPEND_TIME'
  readonly key?: string
  readonly value?: string
  readonly headers: readonly Readonly<Record<string, readonly number[] | null>>[]
}

/** An event as Lambda sends it; `records` by `topic-partition`. */
export interface KafkaEvent {
  readonly eventSource: 'aws:kafka' | 'SelfManagedKafka'
  readonly eventSourceArn?: string
  readonly bootstrapServers: string
  readonly records: Readonly<Record<string, readonly KafkaEventRecord[]>>
}

/** What an event says of the cluster. Self-managed clusters have no ARN. */
export interface EventOrigin {
  readonly eventSourceArn: string
  /** `host:port`, comma-separated. */
  readonly bootstrapServers: string
  readonly selfManaged?: boolean
}

/**
 * The records of a Lambda Kafka event, one slice per topic-partition. Anything that is not as Lambda documents it
 * is `Outage('unexpected')`, so that the whole batch is tried again: no record is ever skipped for its shape. Records
 * out of offset order are sorted and an identical redelivery within the event is kept once, since positions compare offsets.
 */
export function slicesOf(event: unknown): SourceSlice[] {
  if (!isObject(event)) throw unexpected('the event', 'is not an object')
  const source = event['eventSource']
  if (source !== 'aws:kafka' && source !== 'SelfManagedKafka') {
    throw unexpected('eventSource', 'is neither "aws:kafka" nor "SelfManagedKafka"')
  }
  const records = event['records']
  if (!isObject(records)) throw unexpected('records', 'is not an object of lists by topic-partition')
  const slices: SourceSlice[] = []
  for (const [name, list] of Object.entries(records)) {
    const place = `records[${JSON.stringify(name.slice(0, 270))}]`
    if (!Array.isArray(list)) throw unexpected(place, 'is not a list')
    if (list.length > 0) slices.push(sliceOf(name, list, place))
  }
  return slices
}

/**
 * Tells Lambda which records to send again. Nothing stopped: `undefined`, in `partial` an empty list. Else `throw`
 * throws an `AggregateError` of the outages, for Lambda to retry the whole batch; `partial` names every undecided record:
 * Lambda's documentation says that it retries "just those specific items", so naming a partition's first one
 * alone would lose those behind it.
 */
export function answer(
  stops: readonly Stop[],
  mode: AnswerMode,
  slices: readonly SourceSlice[],
): PartialAnswer | undefined {
  if (mode === 'throw') {
    if (stops.length > 0) throw stopped(stops)
    return undefined
  }
  const batchItemFailures = stops.flatMap((stop) => {
    const slice = slices.find(({ topic, partition }) => topic === stop.topic && partition === stop.partition)
    const undecided = slice?.records.filter(({ offset }) => offset >= stop.offset) ?? []
    // Lambda takes an offset that it did not send for a malformed answer; a stop without records must not read as success.
    if (undecided.length === 0) throw stopped(stops)
    return undecided.map(({ offset }) => ({
      itemIdentifier: { partition: nameOf(stop), offset: Number(offset) },
    }))
  })
  return { batchItemFailures }
}

/** The event that Lambda would send for `records`, in AWS's documented order of fields; `JSON.stringify` gives its bytes. */
export function toMskEvent(records: readonly SourceRecord[], origin: EventOrigin): KafkaEvent {
  const byPartition: Record<string, KafkaEventRecord[]> = {}
  for (const record of records) (byPartition[nameOf(record)] ??= []).push(toEventRecord(record))
  const { eventSourceArn, bootstrapServers } = origin
  return origin.selfManaged === true
    ? { eventSource: 'SelfManagedKafka', bootstrapServers, records: byPartition }
    : { eventSource: 'aws:kafka', eventSourceArn, bootstrapServers, records: byPartition }
}

/** One record as `toMskEvent` writes it. */
export function toEventRecord(record: SourceRecord): KafkaEventRecord {
  const { topic, partition, timestamp } = record
  const offset = Number(record.offset)
  if (!Number.isSafeInteger(offset)) {
    throw new RangeError(`offset ${record.offset} of ${nameOf(record)} is beyond JSON's exact integers`)
  }
  return {
    topic,
    partition,
    offset,
    timestamp,
    timestampType: record.timestampType === 'LogAppendTime' ? 'LOG_APPEND_TIME' : 'CREATE_TIME',
    ...(record.key && { key: base64(record.key) }),
    ...(record.value && { value: base64(record.value) }),
    headers: record.headers.map(({ name, value }) => ({ [name]: value && Array.from(new Int8Array(value)) })),
  }
}

/** How Lambda names a topic-partition: `orders-0`. */
export function nameOf({ topic, partition }: TopicPartition): string {
  return `${topic}-${partition}`
}

function sliceOf(name: string, list: readonly unknown[], place: string): SourceSlice {
  const records: SourceRecord[] = []
  let ordered = true
  for (const [index, raw] of list.entries()) {
    const record = recordOf(raw, `${place}[${index}]`)
    // The topic may itself end in "-1": the name is compared, never taken apart.
    if (nameOf(record) !== name) {
      throw unexpected(`${place}[${index}]`, 'names another topic and partition than the list it stands in')
    }
    const last = records.at(-1)
    if (last !== undefined && record.offset <= last.offset) ordered = false
    records.push(record)
  }
  const first = records[0]
  if (first === undefined) throw unexpected(place, 'is empty')
  const { topic, partition } = first
  return { topic, partition, records: ordered ? records : inOrder(records, place) }
}

function inOrder(records: SourceRecord[], place: string): SourceRecord[] {
  records.sort((one, other) => (one.offset < other.offset ? -1 : one.offset > other.offset ? 1 : 0))
  return records.filter((record, index) => {
    const before = records[index - 1]
    if (before?.offset !== record.offset) return true
    if (isDeepStrictEqual(before, record)) return false
    throw unexpected(place, `holds two different records at offset ${record.offset}`)
  })
}

function recordOf(raw: unknown, place: string): SourceRecord {
  if (!isObject(raw)) throw unexpected(place, 'is not an object')
  const { topic, partition, offset, timestamp } = raw
  if (typeof topic !== 'string' || !/^[a-zA-Z0-9._-]{1,249}$/.test(topic)) {
    throw unexpected(`${place}.topic`, 'is not a Kafka topic name')
  }
  if (!isCount(partition)) throw unexpected(`${place}.partition`, 'is not a whole number from 0')
  if (!isCount(offset)) {
    throw unexpected(`${place}.offset`, 'is not a whole number from 0 that JSON carries exactly')
  }
  // Any producer may set any 64-bit timestamp: refusing one here would let it hold a partition up.
  if (!Number.isInteger(timestamp) || typeof timestamp !== 'number') {
    throw unexpected(`${place}.timestamp`, 'is not a whole number')
  }
  for (const field of ['keySchemaMetadata', 'valueSchemaMetadata']) {
    if (raw[field] === undefined || raw[field] === null) continue
    const fix = 'Remove the schema registry from the event source mapping: it changes the signed bytes.'
    throw unexpected(`${place}.${field}`, 'is set, so Lambda has decoded this record', fix)
  }
  return {
    topic,
    partition,
    offset: BigInt(offset),
    timestamp,
    timestampType: timestampTypeOf(raw['timestampType'], `${place}.timestampType`),
    key: bytesOf(raw['key'], `${place}.key`),
    value: bytesOf(raw['value'], `${place}.value`),
    headers: headersOf(raw['headers'], `${place}.headers`),
  }
}

function timestampTypeOf(raw: unknown, place: string): SourceRecord['timestampType'] {
  if (raw === 'CREATE_TIME') return 'CreateTime'
  if (raw === 'LOG_APPEND_TIME') return 'LogAppendTime'
  throw unexpected(place, 'is neither "CREATE_TIME" nor "LOG_APPEND_TIME"')
}

function bytesOf(raw: unknown, place: string): Uint8Array | null {
  if (raw === undefined || raw === null) return null
  if (typeof raw !== 'string') throw unexpected(place, 'is not a base64 string')
  const bytes = Buffer.from(raw, 'base64')
  // Buffer skips what is not base64, so only what it would itself write is taken.
  if (bytes.toString('base64') !== raw) throw unexpected(place, 'is not base64 (RFC 4648 §4, padded)')
  return new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.length)
}

function headersOf(raw: unknown, place: string): Header[] {
  if (raw === undefined || raw === null) return []
  if (!Array.isArray(raw)) throw unexpected(place, 'is not a list')
  return raw.map((header: unknown, index) => {
    const at = `${place}[${index}]`
    const [entry, ...others] = isObject(header) ? Object.entries(header) : []
    if (entry === undefined || others.length > 0) throw unexpected(at, 'is not an object with one name')
    const [name, value] = entry
    return { name, value: value === null ? null : headerBytesOf(value, at) }
  })
}

/** Java's bytes are signed; unsigned ones, as in AWS's own older examples, mean the same. */
function headerBytesOf(raw: unknown, place: string): Uint8Array {
  if (!Array.isArray(raw)) throw unexpected(place, 'has a value that is not a list of bytes')
  const list: readonly unknown[] = raw
  const bytes = new Uint8Array(list.length)
  // Uint8Array.from takes some twenty times as long.
  for (let index = 0; index < list.length; index++) {
    const byte = list[index]
    if (typeof byte !== 'number' || !Number.isInteger(byte) || byte < -128 || byte > 255)
      throw unexpected(place, 'has a value with a byte that is not a whole number from -128 to 255')
    bytes[index] = byte
  }
  return bytes
}

function stopped(stops: readonly Stop[]): AggregateError {
  const outages = stops.map(({ outage }) => outage)
  const each = stops.map(
    (stop) => `${nameOf(stop)} at offset ${stop.offset}: ${stop.outage.code}: ${stop.outage.message}`,
  )
  const message = `Undecided records, to be tried again, in ${stops.length} partition(s). ${each.join('; ')}`
  return new AggregateError(outages, message, { cause: outages[0] })
}

function unexpected(
  place: string,
  what: string,
  fix = "Only an event of Lambda's Kafka triggers can be read.",
): Outage {
  return new Outage('unexpected', `Lambda event: ${place} ${what}. ${fix}`)
}

function base64(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString('base64')
}

function isCount(value: unknown): value is number {
  return Number.isSafeInteger(value) && Number(value) >= 0
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
