/**
 * Produce requests of our own making (Kafka protocol, Produce v3 to v7; record batches of magic 2). kafkajs makes a buffer
 * for every header, record, batch, topic and request, and can write neither a header's null nor names in any order (K13,
 * K15); here it is one buffer, measured first. What other code of the process sends is left to kafkajs.
 */
import protocol, {
  type Encoded,
  type Produce,
  type ProduceOptions,
} from 'kafkajs/src/protocol/requests/index.js'
import type { Header, Message } from '../ports.ts'
import { isWireMessage } from './kafka-wire.ts'

/** From now on `topicMessages` can be sent. */
export function repairProduce(): void {
  const { Produce: original } = protocol.requests
  protocol.requests.Produce = {
    versions: original.versions,
    protocol: (query): Produce => {
      const produce = original.protocol(query)
      return (options) => {
        const { request, response } = produce(options)
        const topics = topicsOf(options)
        if (topics === undefined) return { request, response }
        const encode = (): Promise<Encoded> =>
          Promise.resolve(encoded(encodeProduce({ ...options, topics }, Date.now())))
        return { request: { ...request, encode }, response }
      }
    },
  }
}

interface Batch {
  readonly partition: number
  readonly firstSequence: number
  readonly messages: readonly Message[]
}

interface Topic {
  readonly topic: string
  readonly batches: readonly Batch[]
}

/** Undefined where it is not `topicMessages` that are sent. */
function topicsOf({ topicData }: ProduceOptions): readonly Topic[] | undefined {
  const isOurs = topicData.every(({ partitions }) =>
    partitions.every(({ messages }) => messages.every(isWireMessage)),
  )
  if (!isOurs) return undefined
  return topicData.map(({ topic, partitions }) => ({
    topic,
    batches: partitions.map(({ partition, firstSequence = 0, messages }) => ({
      partition: Number(partition),
      firstSequence,
      messages: messages.filter(isWireMessage).map(({ message }) => message),
    })),
  }))
}

/** What kafkajs takes for one of its encoders. */
const encoded = (bytes: Buffer): Encoded => ({
  buf: bytes,
  buffer: bytes,
  size: () => bytes.length,
})

/** A request's fields, its batches' records in their order. */
export interface ProduceRequest extends Pick<
  ProduceOptions,
  'acks' | 'timeout' | 'transactionalId' | 'producerId' | 'producerEpoch'
> {
  readonly topics: readonly Topic[]
}

/** @param now the records' time, milliseconds since 1970 */
export function encodeProduce(request: ProduceRequest, now: number): Buffer {
  const { transactionalId, acks, timeout, topics } = request
  const sized = topics.map(({ topic, batches }) => ({ topic, batches: batches.map(measured) }))
  const writer = new Writer(
    stringBytes(transactionalId) +
      10 +
      sum(sized, ({ topic, batches }) => stringBytes(topic) + 4 + sum(batches, (batch) => 8 + batch.bytes)),
  )
  writer.string(transactionalId)
  writer.int16(acks)
  writer.int32(timeout)
  writer.int32(sized.length)
  for (const { topic, batches } of sized) {
    writer.string(topic)
    writer.int32(batches.length)
    for (const batch of batches) {
      writer.int32(batch.partition)
      writer.int32(batch.bytes)
      writeBatch(writer, batch, request, now)
    }
  }
  return writer.bytes
}

interface MeasuredBatch extends Batch {
  /** Of each record, its own length not counted. */
  readonly records: readonly number[]
  readonly bytes: number
}

const BATCH_HEADER_BYTES = 61
/** What `batchLength` does not count: base offset and itself. */
const BEFORE_LENGTH_BYTES = 12
const BEFORE_CRC_BYTES = 17
const IN_TRANSACTION = 0x10
const MAGIC = 2

function measured(batch: Batch): MeasuredBatch {
  const records = batch.messages.map(recordBytes)
  return {
    ...batch,
    records,
    bytes: BATCH_HEADER_BYTES + sum(records, (bytes) => varintBytes(bytes) + bytes),
  }
}

function writeBatch(writer: Writer, batch: MeasuredBatch, request: ProduceRequest, now: number): void {
  const { messages, records } = batch
  const start = writer.at
  writer.int64(0n)
  writer.int32(batch.bytes - BEFORE_LENGTH_BYTES)
  writer.int32(0)
  writer.int8(MAGIC)
  const crc = writer.at
  writer.int32(0)
  writer.int16(request.transactionalId === undefined ? 0 : IN_TRANSACTION)
  writer.int32(messages.length - 1)
  writer.int64(BigInt(now))
  writer.int64(BigInt(now))
  writer.int64(BigInt(String(request.producerId)))
  writer.int16(request.producerEpoch)
  writer.int32(batch.firstSequence)
  writer.int32(messages.length)
  for (const [index, message] of messages.entries()) writeRecord(writer, message, index, records[index] ?? 0)
  const checked = writer.bytes.subarray(start + BEFORE_CRC_BYTES + 4, writer.at)
  writer.bytes.writeInt32BE(crc32c(checked), crc)
}

/** Attributes and the time's difference to the batch's, both 0, then offset, key, value and headers. */
function recordBytes({ key, value, headers }: Message, offset: number): number {
  let bytes =
    2 + varintBytes(offset) + nullableBytes(key) + nullableBytes(value) + varintBytes(headers.length)
  for (const header of headers) bytes += headerBytes(header)
  return bytes
}

function headerBytes({ name, value }: Header): number {
  const length = Buffer.byteLength(name)
  return varintBytes(length) + length + nullableBytes(value)
}

const nullableBytes = (value: Uint8Array | null): number =>
  value === null ? 1 : varintBytes(value.length) + value.length

const stringBytes = (text: string | undefined): number =>
  2 + (text === undefined ? 0 : Buffer.byteLength(text))

/** Of a number from 0, in zigzag. */
const varintBytes = (value: number): number =>
  value < 0x40 ? 1 : value < 0x2000 ? 2 : value < 0x100000 ? 3 : value < 0x8000000 ? 4 : 5

const sum = <T>(items: readonly T[], of: (item: T) => number): number =>
  items.reduce((total, item) => total + of(item), 0)

function writeRecord(writer: Writer, message: Message, offset: number, bytes: number): void {
  const { key, value, headers } = message
  writer.varint(bytes)
  writer.int8(0)
  writer.int8(0)
  writer.varint(offset)
  writer.nullable(key)
  writer.nullable(value)
  writer.varint(headers.length)
  for (const header of headers) {
    writer.varint(Buffer.byteLength(header.name))
    writer.text(header.name)
    writer.nullable(header.value)
  }
}

class Writer {
  readonly bytes: Buffer
  at = 0

  constructor(length: number) {
    this.bytes = Buffer.allocUnsafe(length)
  }

  int8(value: number): void {
    this.at = this.bytes.writeInt8(value, this.at)
  }

  int16(value: number): void {
    this.at = this.bytes.writeInt16BE(value, this.at)
  }

  int32(value: number): void {
    this.at = this.bytes.writeInt32BE(value, this.at)
  }

  int64(value: bigint): void {
    this.at = this.bytes.writeBigInt64BE(value, this.at)
  }

  /** A number from 0, in zigzag; −1 is written as 1 by `nullable`. */
  varint(value: number): void {
    this.#unsigned(value * 2)
  }

  text(value: string): void {
    this.at += this.bytes.write(value, this.at)
  }

  string(value: string | undefined): void {
    this.int16(value === undefined ? -1 : Buffer.byteLength(value))
    if (value !== undefined) this.text(value)
  }

  nullable(value: Uint8Array | null): void {
    if (value === null) {
      this.#unsigned(1)
      return
    }
    this.varint(value.length)
    this.bytes.set(value, this.at)
    this.at += value.length
  }

  #unsigned(value: number): void {
    let left = value
    for (; left > 0x7f; left = Math.floor(left / 0x80)) this.bytes[this.at++] = (left & 0x7f) | 0x80
    this.bytes[this.at++] = left
  }
}

/** CRC-32C (RFC 3720, appendix B.4), eight bytes at a time: table `n` is for a byte with `n` more behind it. */
const CASTAGNOLI = 0x82f63b78
const TABLES = crcTables()

function crcTables(): Int32Array {
  const tables = new Int32Array(8 * 256)
  for (let byte = 0; byte < 256; byte++) {
    let crc = byte
    for (let bit = 0; bit < 8; bit++) crc = (crc & 1) === 1 ? (crc >>> 1) ^ CASTAGNOLI : crc >>> 1
    tables[byte] = crc
  }
  for (let index = 256; index < tables.length; index++) {
    const before = tables[index - 256] ?? 0
    tables[index] = (before >>> 8) ^ (tables[before & 0xff] ?? 0)
  }
  return tables
}

function crc32c(bytes: Uint8Array): number {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
  const look = (table: number, word: number, shift: number): number =>
    TABLES[table * 256 + ((word >>> shift) & 0xff)] ?? 0
  let crc = -1
  let at = 0
  for (; at + 8 <= bytes.length; at += 8) {
    const low = view.getInt32(at, true) ^ crc
    const high = view.getInt32(at + 4, true)
    crc =
      look(7, low, 0) ^
      look(6, low, 8) ^
      look(5, low, 16) ^
      look(4, low, 24) ^
      (look(3, high, 0) ^ look(2, high, 8) ^ look(1, high, 16) ^ look(0, high, 24))
  }
  for (; at < bytes.length; at++) crc = (crc >>> 8) ^ look(0, crc ^ view.getUint8(at), 0)
  return ~crc
}
