/** How the embedded log writes numbers, text and records as bytes: the same in its journal and on its socket. Big-endian. */
import type { Header, Message } from '../ports.ts'

/** In place of a length: the bytes are null, as Kafka's −1. */
const NULL_LENGTH = 0xffff_ffff
/** Timestamps, offsets and file positions are 48 bits wide: beyond any laptop's. */
export const MAX_U48: number = 2 ** 48 - 1

/** What a record holds besides its place. */
export interface RecordFields {
  readonly timestamp: number
  readonly key: Uint8Array | null
  readonly value: Uint8Array | null
  readonly headers: readonly Header[]
}

/** A buffer that grows. */
export class ByteWriter {
  #buffer: Buffer
  #length: number

  /** `reserved` bytes at the start are left to the caller. */
  constructor(capacity: number, reserved = 0) {
    this.#buffer = Buffer.allocUnsafe(capacity + reserved)
    this.#length = reserved
  }

  get length(): number {
    return this.#length
  }

  #take(bytes: number): number {
    const at = this.#length
    this.#length += bytes
    if (this.#length > this.#buffer.length) {
      const larger = Buffer.allocUnsafe(this.#length * 2)
      larger.set(this.#buffer.subarray(0, at))
      this.#buffer = larger
    }
    return at
  }

  u8(value: number): void {
    const at = this.#take(1)
    this.#buffer.writeUInt8(value, at)
  }

  u32(value: number): void {
    const at = this.#take(4)
    this.#buffer.writeUInt32BE(value, at)
  }

  u48(value: number): void {
    const at = this.#take(6)
    this.#buffer.writeUIntBE(value, at, 6)
  }

  text(value: string): void {
    const length = Buffer.byteLength(value)
    this.u32(length)
    const at = this.#take(length)
    this.#buffer.write(value, at)
  }

  bytes(value: Uint8Array | null): void {
    this.u32(value === null ? NULL_LENGTH : value.length)
    if (value === null) return
    const at = this.#take(value.length)
    this.#buffer.set(value, at)
  }

  /** The record's length comes first, so that a reader can pass over it. */
  record(message: Omit<Message, 'topic' | 'partition'>, timestamp: number): void {
    const start = this.#length
    this.u32(0)
    this.u48(timestamp)
    this.bytes(message.key)
    this.bytes(message.value)
    this.u32(message.headers.length)
    for (const header of message.headers) {
      this.text(header.name)
      this.bytes(header.value)
    }
    this.putU32(start, this.#length - start - 4)
  }

  /** Writes over what stands at `at`. */
  putU8(at: number, value: number): void {
    this.#buffer.writeUInt8(value, at)
  }

  /** Writes over what stands at `at`. */
  putU32(at: number, value: number): void {
    this.#buffer.writeUInt32BE(value, at)
  }

  /** All that was written, reserved bytes included; not a copy. */
  finish(): Buffer {
    return this.#buffer.subarray(0, this.#length)
  }
}

/** Reads what `ByteWriter` wrote. Reading beyond the end throws a `RangeError`. */
export class ByteReader {
  readonly #buffer: Buffer
  #at: number

  constructor(bytes: Uint8Array, at = 0) {
    this.#buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
    this.#at = at
  }

  get at(): number {
    return this.#at
  }

  get ended(): boolean {
    return this.#at >= this.#buffer.length
  }

  skip(bytes: number): number {
    const at = this.#at
    if (bytes > this.#buffer.length - at) throw new RangeError(`${bytes} bytes at ${at} end beyond the data`)
    this.#at += bytes
    return at
  }

  u8(): number {
    return this.#buffer.readUInt8(this.skip(1))
  }

  u32(): number {
    return this.#buffer.readUInt32BE(this.skip(4))
  }

  u48(): number {
    return this.#buffer.readUIntBE(this.skip(6), 6)
  }

  text(): string {
    const length = this.u32()
    const at = this.skip(length)
    return this.#buffer.toString('utf8', at, at + length)
  }

  /** A view of the data, not a copy. */
  bytes(): Uint8Array | null {
    const length = this.u32()
    if (length === NULL_LENGTH) return null
    const at = this.skip(length)
    return new Uint8Array(this.#buffer.buffer, this.#buffer.byteOffset + at, length)
  }

  record(): RecordFields {
    this.u32()
    const timestamp = this.u48()
    const key = this.bytes()
    const value = this.bytes()
    const headers: Header[] = []
    for (let left = this.u32(); left > 0; left--) headers.push({ name: this.text(), value: this.bytes() })
    return { timestamp, key, value, headers }
  }

  skipRecord(): void {
    this.skip(this.u32())
  }
}
