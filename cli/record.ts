/** Kafka records as people name them or hand them over: `topic/partition/offset`, JSON, hexadecimal, base64, bytes. */
import { readFile } from 'node:fs/promises'
import { isObject, type JsonObject, type JsonValue, member } from '../lib/contract/json.ts'
import { codeOf, ConfigError } from '../lib/errors.ts'
import type { Header, SourceRecord, TopicPartition } from '../lib/ports.ts'
import type { Terminal } from './terminal.ts'
import type { Topics } from './world.ts'

/** A record as far as it is known: of a bare value neither place nor headers are. */
export interface GivenRecord {
  readonly value: Uint8Array | null
  readonly record:
    (TopicPartition & { readonly key: Uint8Array | null; readonly headers: readonly Header[] }) | undefined
  /** Where it stands in a log, and what its broker set. */
  readonly stored: Pick<SourceRecord, 'offset' | 'timestamp' | 'timestampType'> | undefined
}

export interface RecordPlace extends TopicPartition {
  readonly offset: bigint
}

/** `topic/partition/offset`; undefined for any other text. */
export function parsePlace(text: string): RecordPlace | undefined {
  const [, topic, partition, offset] = /^([\w.-]{1,249})\/(\d{1,9})\/(\d{1,15})$/.exec(text) ?? []
  if (topic === undefined || partition === undefined || offset === undefined) return undefined
  return { topic, partition: Number(partition), offset: BigInt(offset) }
}

/** The record at a place. `ConfigError` where there is none. */
export async function recordAt(
  { records: source }: Topics,
  { topic, partition, offset }: RecordPlace,
): Promise<SourceRecord> {
  const where = `${topic}/${partition}/${offset}`
  const partitions = await source.partitions(topic)
  if (partition >= partitions)
    throw bad(where, `The topic has ${partitions} partitions.`, 'They are counted from 0.')
  const { first, end } = await source.offsets({ topic, partition })
  if (end === 0n) throw bad(where, 'The partition is empty.', 'Name a place in another.')
  if (offset >= end) throw bad(where, `The partition ends before ${end}.`, 'Name an offset below that.')
  if (offset < first) throw bad(where, `The partition begins at ${first}.`, 'What was before is deleted.')
  const { records } = await source.fetch({ topic, partition }, offset, ONE)
  const [record] = records
  if (record?.offset === offset) return record
  const next = record === undefined ? 'No record follows.' : `The next record is at ${record.offset}.`
  throw bad(where, 'No record stands there: offsets have gaps where transactions end.', next)
}

const ONE = { maxBytes: 1_048_576, maxRecords: 1 }

export function givenRecord(record: SourceRecord): GivenRecord {
  return { value: record.value, record, stored: record }
}

/** Longer input is no record: 16 MiB in base64, with room for the rest. */
export const MAX_INPUT_BYTES: number = 32 * 1024 * 1024

/** All of a file, or with `-` of standard input. */
export async function readInput(terminal: Terminal, file: string): Promise<Uint8Array> {
  if (file !== '-') {
    const bytes = await readFile(file).catch((error: unknown) => {
      throw bad(file, `It cannot be read (${codeOf(error)}).`, 'Name a file, or - for standard input.')
    })
    if (bytes.length > MAX_INPUT_BYTES) throw tooLong(file)
    return bytes
  }
  const parts: Uint8Array[] = []
  let length = 0
  for await (const part of terminal.input()) {
    length += part.length
    if (length > MAX_INPUT_BYTES) throw tooLong('standard input')
    parts.push(part)
  }
  return Buffer.concat(parts)
}

export type RecordForm = 'hex' | 'base64'

const MAGIC = Buffer.from('da53455631', 'hex')

/** A record from bytes in any of the forms, told from one another by what they look like unless `form` says. */
export function parseRecordInput(where: string, bytes: Uint8Array, form?: RecordForm): GivenRecord {
  const valueOnly = (value: Uint8Array): GivenRecord => ({ value, record: undefined, stored: undefined })
  const buffer = Buffer.from(bytes)
  if (form === undefined && buffer.subarray(0, MAGIC.length).equals(MAGIC)) return valueOnly(buffer)
  const text = buffer.toString('latin1').trim()
  if (form === undefined && text.startsWith('{')) return parseRecordJson(where, buffer.toString())
  const packed = text.replaceAll(/\s+/g, '')
  if (form !== 'base64' && /^([0-9a-f]{2})+$/i.test(packed)) return valueOnly(Buffer.from(packed, 'hex'))
  if (form !== 'hex' && /^[A-Za-z0-9+/_-]+={0,2}$/.test(packed))
    return valueOnly(Buffer.from(packed, 'base64'))
  if (form === undefined) return valueOnly(buffer)
  throw bad(
    where,
    `It is no ${form === 'hex' ? 'hexadecimal' : 'base64'}.`,
    `Leave --${form} out to have it guessed.`,
  )
}

/** A record as `sealgate seal` prints it, or as it stands in a Lambda event. */
export function parseRecordJson(where: string, text: string): GivenRecord {
  let json: JsonValue
  try {
    json = JSON.parse(text) as JsonValue
  } catch {
    throw bad(where, 'It is no JSON.', 'Give one record, as sealgate seal prints it.')
  }
  if (!isObject(json)) throw bad(where, 'It is no JSON object.', 'Give one record.')
  const partition = member(json, 'partition')
  const topic = member(json, 'topic')
  if (
    typeof topic !== 'string' ||
    typeof partition !== 'number' ||
    !Number.isSafeInteger(partition) ||
    partition < 0
  )
    throw bad(
      where,
      'It has no topic, or no partition from 0.',
      'Give one record, as sealgate seal prints it.',
    )
  return {
    value: bytesAt(where, json, 'value'),
    record: { topic, partition, key: bytesAt(where, json, 'key'), headers: headersAt(where, json) },
    stored: storedAt(json),
  }
}

/** The JSON that `parseRecordJson` reads: bytes in base64, headers as text. */
export function recordJson(record: {
  readonly topic: string
  readonly partition: number
  readonly key: Uint8Array | null
  readonly headers: Readonly<Record<string, string>>
  readonly value: Uint8Array
}): string {
  const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64')
  const { topic, partition, key, headers, value } = record
  return JSON.stringify({ topic, partition, key: key && base64(key), headers, value: base64(value) })
}

function bytesAt(where: string, json: JsonObject, name: string): Uint8Array | null {
  const value = member(json, name) ?? null
  if (value === null) return null
  const bytes = typeof value === 'string' ? Buffer.from(value, 'base64') : undefined
  if (bytes?.toString('base64') === value) return bytes
  throw bad(where, `Its ${name} is no base64.`, 'RFC 4648 §4, padded, or null.')
}

/** `{name: text}`, or Lambda's list of `{name: [bytes]}`. */
function headersAt(where: string, json: JsonObject): Header[] {
  const headers = member(json, 'headers') ?? {}
  const rows = Array.isArray(headers) ? headers : [headers]
  return rows
    .filter((row: JsonValue) => isObject(row))
    .flatMap((row: JsonObject) =>
      Object.entries(row).map(([name, value]) => {
        if (value === null) return { name, value }
        if (typeof value === 'string') return { name, value: Buffer.from(value) }
        if (Array.isArray(value)) return { name, value: Uint8Array.from(value, Number) }
        throw bad(where, 'Its headers are neither texts nor lists of bytes.', 'Give {"name":"text"}.')
      }),
    )
}

function storedAt(json: JsonObject): GivenRecord['stored'] {
  const [offset, timestamp] = [member(json, 'offset'), member(json, 'timestamp')]
  if (typeof offset !== 'number' || !Number.isSafeInteger(offset) || typeof timestamp !== 'number')
    return undefined
  const timestampType = member(json, 'timestampType') === 'LOG_APPEND_TIME' ? 'LogAppendTime' : 'CreateTime'
  return { offset: BigInt(offset), timestamp, timestampType }
}

function bad(where: string, what: string, fix: string): ConfigError {
  return new ConfigError([{ where, what, fix }])
}

const tooLong = (where: string): ConfigError =>
  bad(where, `It is longer than ${MAX_INPUT_BYTES} bytes.`, 'No record is so long.')
