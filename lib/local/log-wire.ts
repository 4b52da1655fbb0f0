/**
 * What passes over the embedded log's socket. A frame is its length (32 bits), the number of the call (48 bits), then for a
 * call its operation and arguments, for an answer 0 and its result or another number and an error.
 */
import { ConfigError, OUTAGE_CODES, Outage } from '../errors.ts'
import type { Fault } from '../errors.ts'
import type { Message } from '../ports.ts'
import { ByteReader, ByteWriter } from './log-bytes.ts'
import type { GroupOffset, NewMessage, Place, ReadResult, TimestampType, Topic } from './log.ts'

/** Both sides must say the same first. */
export const PROTOCOL = 'sealgate log v1'
/** Above what the log takes at once, with its framing. */
export const MAX_WIRE_BYTES: number = 40 * 1024 * 1024

/** A wait is answered after this at the latest; the client asks again. */
export const MAX_WAIT_MS = 20_000

/** An operation goes over the wire as its index. */
export const OPERATIONS = [
  'hello',
  'createTopic',
  'topics',
  'append',
  'begin',
  'addToTransaction',
  'commit',
  'abort',
  'read',
  'waitForData',
  'endOffsets',
  'commitGroup',
  'groupOffset',
] as const

export type Operation = (typeof OPERATIONS)[number]

const FRAME_START = 4

export function newFrame(call: number, capacity = 256): ByteWriter {
  const writer = new ByteWriter(capacity, FRAME_START)
  writer.u48(call)
  return writer
}

/** A frame ready to send. Throws what the sender gets where it is too large. */
export function finishFrame(writer: ByteWriter): Buffer {
  const length = writer.length - FRAME_START
  if (length > MAX_WIRE_BYTES)
    throw new Outage('sink-unavailable', `${length} bytes at once are too many for the embedded log.`)
  writer.putU32(0, length)
  return writer.finish()
}

/** Cuts what arrives into frames. */
export class FrameCutter {
  #chunks: Buffer[] = []
  #length = 0
  #wanted = FRAME_START

  /** The frames that `chunk` completes. One beyond `MAX_WIRE_BYTES` throws a `RangeError`: the connection is of no more use. */
  push(chunk: Buffer): ByteReader[] {
    this.#chunks.push(chunk)
    this.#length += chunk.length
    if (this.#length < this.#wanted) return []
    const frames: ByteReader[] = []
    const all = Buffer.concat(this.#chunks)
    let at = 0
    this.#wanted = FRAME_START
    while (all.length - at >= FRAME_START) {
      const end = at + FRAME_START + all.readUInt32BE(at)
      if (end - at > FRAME_START + MAX_WIRE_BYTES) throw new RangeError('a frame beyond the limit')
      this.#wanted = end - at
      if (end > all.length) break
      frames.push(new ByteReader(all.subarray(at + FRAME_START, end)))
      at = end
      this.#wanted = FRAME_START
    }
    this.#chunks = [all.subarray(at)]
    this.#length = all.length - at
    return frames
  }
}

/** A list: its count, then its items. */
export function writeList<T>(writer: ByteWriter, items: readonly T[], write: (item: T) => void): void {
  writer.u32(items.length)
  items.forEach(write)
}

export function readList<T>(reader: ByteReader, read: () => T): T[] {
  const items: T[] = []
  for (let left = reader.u32(); left > 0; left--) items.push(read())
  return items
}

export function writeOptional<T>(writer: ByteWriter, value: T | undefined, write: (value: T) => void): void {
  writer.u8(value === undefined ? 0 : 1)
  if (value !== undefined) write(value)
}

export function readOptional<T>(reader: ByteReader, read: () => T): T | undefined {
  return reader.u8() === 0 ? undefined : read()
}

export function writeMessages(writer: ByteWriter, messages: readonly NewMessage[]): void {
  writeList(writer, messages, (message) => {
    writer.text(message.topic)
    writer.u32(message.partition)
    writer.u8(message.timestamp === undefined ? 0 : 1)
    writer.record(message, message.timestamp ?? 0)
  })
}

export function readMessages(reader: ByteReader): NewMessage[] {
  return readList(reader, () => {
    const [topic, partition, timed] = [reader.text(), reader.u32(), reader.u8()]
    const { timestamp, ...fields } = reader.record()
    const message: Message = { topic, partition, ...fields }
    return timed === 0 ? message : { ...message, timestamp }
  })
}

export function writePlaces(writer: ByteWriter, places: readonly Place[]): void {
  writeList(writer, places, (place) => {
    writer.text(place.topic)
    writer.u32(place.partition)
    writer.u48(Number(place.offset))
  })
}

export function readPlaces(reader: ByteReader): Place[] {
  return readList(reader, () => ({
    topic: reader.text(),
    partition: reader.u32(),
    offset: BigInt(reader.u48()),
  }))
}

export function writeGroupOffset(writer: ByteWriter, offset: GroupOffset): void {
  writer.text(offset.group)
  writer.text(offset.topic)
  writer.u32(offset.partition)
  writer.u48(Number(offset.next))
  writer.bytes(offset.metadata)
}

export function readGroupOffset(reader: ByteReader): GroupOffset {
  const [group, topic, partition, next] = [reader.text(), reader.text(), reader.u32(), BigInt(reader.u48())]
  return { group, topic, partition, next, metadata: reader.bytes() ?? new Uint8Array() }
}

const TIMESTAMP_TYPES: readonly TimestampType[] = ['LogAppendTime', 'CreateTime']

export function writeTimestampType(writer: ByteWriter, type: TimestampType): void {
  writer.u8(TIMESTAMP_TYPES.indexOf(type))
}

export function readTimestampType(reader: ByteReader): TimestampType {
  const type = TIMESTAMP_TYPES[reader.u8()]
  if (type === undefined) throw new RangeError('an unknown type of timestamp')
  return type
}

export function writeTopic(writer: ByteWriter, topic: Topic): void {
  writer.text(topic.name)
  writer.u32(topic.partitions)
  writeTimestampType(writer, topic.timestampType)
  writer.u32(topic.maxMessageBytes)
}

export function readTopic(reader: ByteReader): Topic {
  const [name, partitions, timestampType] = [reader.text(), reader.u32(), readTimestampType(reader)]
  return { name, partitions, timestampType, maxMessageBytes: reader.u32() }
}

export function writeReadResult(writer: ByteWriter, { records, next, end }: ReadResult): void {
  writer.u48(Number(next))
  writer.u48(Number(end))
  writeTimestampType(writer, records[0]?.timestampType ?? 'LogAppendTime')
  writeList(writer, records, (record) => {
    writer.u48(Number(record.offset))
    writer.record(record, record.timestamp)
  })
}

export function readReadResult(reader: ByteReader, topic: string, partition: number): ReadResult {
  const [next, end] = [BigInt(reader.u48()), BigInt(reader.u48())]
  const timestampType = readTimestampType(reader)
  const records = readList(reader, () => {
    const offset = BigInt(reader.u48())
    return { topic, partition, offset, timestampType, ...reader.record() }
  })
  return { records, next, end }
}

const OK = 0
const OUTAGE = 1
const CONFIG_ERROR = 2
const TYPE_ERROR = 3

export function writeOk(writer: ByteWriter): void {
  writer.u8(OK)
}

/** Errors cross as their kind and code; a cause stays where it arose. */
export function writeError(writer: ByteWriter, error: unknown): void {
  if (error instanceof ConfigError) {
    writer.u8(CONFIG_ERROR)
    writeList(writer, error.faults, (fault) =>
      [fault.where, fault.what, fault.fix].forEach((text) => writer.text(text)),
    )
  } else if (error instanceof TypeError || error instanceof RangeError) {
    writer.u8(TYPE_ERROR)
    writer.text(error.message)
  } else {
    writer.u8(OUTAGE)
    writer.text(error instanceof Outage ? error.code : 'unexpected')
    writer.text(error instanceof Error ? error.message : 'The embedded log failed.')
  }
}

/** The error in an answer; undefined where it holds a result, which follows. */
export function readError(reader: ByteReader): Error | undefined {
  const status = reader.u8()
  if (status === OK) return undefined
  if (status === CONFIG_ERROR) {
    const fault = (): Fault => ({ where: reader.text(), what: reader.text(), fix: reader.text() })
    return new ConfigError(readList(reader, fault))
  }
  if (status === TYPE_ERROR) return new TypeError(reader.text())
  const code = reader.text()
  return new Outage(OUTAGE_CODES.find((known) => known === code) ?? 'unexpected', reader.text())
}
