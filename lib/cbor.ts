/**
 * Deterministic CBOR (RFC 8949 §4.2.1), strict both ways, as far as this project needs it: integers, byte and text
 * strings, arrays, maps, tags, null and booleans. One encoding of a value exists; every other is a `CborError`.
 * No floats, no indefinite lengths, no other simple values.
 */

// Imported, since the global one is an accessor, which costs as much as what it is asked for.
import { Buffer } from 'node:buffer'

/** Bytes that are not the one deterministic encoding of something we know. */
export class CborError extends Error {
  override readonly name = 'CborError'
}

/** An integer is a number where that is exact, else a bigint. */
export type CborInteger = number | bigint

export type CborKey = CborInteger | string

export type CborValue =
  CborInteger | string | boolean | null | Uint8Array | readonly CborValue[] | ReadonlyMap<CborKey, CborValue>

export const MAJOR = { uint: 0, negative: 1, bytes: 2, text: 3, array: 4, map: 5, tag: 6, simple: 7 } as const

/** `CborReader.decode` goes this deep; what we read by name is never so deep. */
const MAX_DEPTH = 16

const utf8 = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/** Reads one encoding from its start to its end; throws `CborError` at the first byte that is out of order. */
export class CborReader {
  readonly bytes: Buffer
  offset = 0

  constructor(bytes: Uint8Array) {
    this.bytes = Buffer.isBuffer(bytes) ? bytes : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)
  }

  /** The major type of what comes next; −1 at the end. */
  get major(): number {
    const initial = this.bytes[this.offset]
    return initial === undefined ? -1 : initial >> 5
  }

  /** Refuses bytes left over. */
  end(): void {
    if (this.offset !== this.bytes.length) throw new CborError('bytes left over')
  }

  uint(): CborInteger {
    return this.#argument(MAJOR.uint)
  }

  /** An unsigned integer that a number holds exactly. */
  count(): number {
    const value = this.uint()
    if (typeof value === 'bigint') throw new CborError('a number beyond 2^53')
    return value
  }

  /** Such a number, or null, as undefined. */
  countOrNil(): number | undefined {
    if (this.major === MAJOR.uint) return this.count()
    this.nil()
    return undefined
  }

  /** Any integer from −2⁶⁴ to 2⁶⁴ − 1. */
  integer(): CborInteger {
    if (this.major === MAJOR.uint) return this.#argument(MAJOR.uint)
    const value = this.#argument(MAJOR.negative)
    if (typeof value === 'bigint') return -1n - value
    return value === Number.MAX_SAFE_INTEGER ? -1n - BigInt(value) : -1 - value
  }

  /** A view, not a copy. */
  byteString(): Uint8Array {
    const length = this.skipByteString()
    return this.bytes.subarray(this.offset - length, this.offset)
  }

  /** Moves past a byte string and gives its length. */
  skipByteString(): number {
    const length = this.#length(MAJOR.bytes)
    this.offset += length
    if (this.offset > this.bytes.length) throw new CborError('a byte string ends too early')
    return length
  }

  text(): string {
    const start = this.#textStart()
    return textOf(this.bytes, start, this.offset)
  }

  /** The same for text that mostly was there in the last message too: then it is compared, not made anew. */
  recurringText(): string {
    const start = this.#textStart()
    return recurringTextOf(this.bytes, start, this.offset)
  }

  /** Moves past a text, and gives its first byte's place. */
  #textStart(): number {
    const length = this.#length(MAJOR.text)
    const start = this.offset
    this.offset = start + length
    if (this.offset > this.bytes.length) throw new CborError('a text string ends too early')
    return start
  }

  array(): number {
    return this.#length(MAJOR.array)
  }

  map(): number {
    return this.#length(MAJOR.map)
  }

  tag(): CborInteger {
    return this.#argument(MAJOR.tag)
  }

  nil(): void {
    if (this.bytes[this.offset++] !== 0xf6) throw new CborError('null expected')
  }

  /** One value of whatever type, for documents of our own; nothing may follow it but what the caller reads next. */
  value(depth = 0): CborValue {
    if (depth > MAX_DEPTH) throw new CborError('nested too deep')
    switch (this.major) {
      case MAJOR.uint:
      case MAJOR.negative:
        return this.integer()
      case MAJOR.bytes:
        return this.byteString()
      case MAJOR.text:
        return this.text()
      case MAJOR.array: {
        const items: CborValue[] = []
        for (let left = this.array(); left > 0; left--) items.push(this.value(depth + 1))
        return items
      }
      case MAJOR.map:
        return this.#map(depth)
      case MAJOR.simple:
        return this.#simple()
      default:
        throw new CborError('a type that is not known here')
    }
  }

  #map(depth: number): ReadonlyMap<CborKey, CborValue> {
    const entries = new Map<CborKey, CborValue>()
    let before: Uint8Array | undefined
    for (let left = this.map(); left > 0; left--) {
      const start = this.offset
      const key = this.major === MAJOR.text ? this.text() : this.integer()
      const encoded = this.bytes.subarray(start, this.offset)
      if (before !== undefined && compareBytes(before, encoded) >= 0)
        throw new CborError('map keys out of order')
      before = encoded
      entries.set(key, this.value(depth + 1))
    }
    return entries
  }

  #simple(): boolean | null {
    const initial = this.bytes[this.offset++]
    if (initial === 0xf6) return null
    if (initial === 0xf4 || initial === 0xf5) return initial === 0xf5
    throw new CborError('a simple value or float')
  }

  /** A length: never more than there are bytes, so that nothing is allocated on a claim. */
  #length(major: number): number {
    const length = this.#argument(major)
    if (typeof length === 'bigint' || length > this.bytes.length - this.offset)
      throw new CborError('a length beyond the end')
    return length
  }

  #argument(major: number): CborInteger {
    const bytes = this.bytes
    const initial = bytes[this.offset]
    if (initial === undefined) throw new CborError('ends too early')
    if (initial >> 5 !== major) throw new CborError('another type expected')
    const info = initial & 0x1f
    if (info < 24) {
      this.offset += 1
      return info
    }
    if (info > 27) throw new CborError('indefinite or reserved length')
    const size = 1 << (info - 24)
    const start = this.offset + 1
    this.offset = start + size
    if (this.offset > bytes.length) throw new CborError('ends too early')
    if (size < 8) {
      let value = 0
      for (let index = start; index < this.offset; index++) value = value * 256 + (bytes[index] ?? 0)
      if (value < (size === 1 ? 24 : size === 2 ? 0x100 : 0x10000))
        throw new CborError('not the shortest encoding')
      return value
    }
    const value = new DataView(bytes.buffer, bytes.byteOffset + start, 8).getBigUint64(0)
    if (value <= 0xffffffffn) throw new CborError('not the shortest encoding')
    return value <= BigInt(Number.MAX_SAFE_INTEGER) ? Number(value) : value
  }
}

/** Reads exactly one value. */
export function decodeCbor(bytes: Uint8Array): CborValue {
  const reader = new CborReader(bytes)
  const value = reader.value()
  reader.end()
  return value
}

/** The deterministic encoding of a value. Text must be well-formed (no unpaired surrogates), integers within 64 bits. */
export function encodeCbor(value: CborValue): Uint8Array {
  const writer = new CborWriter(64)
  writer.value(value)
  return writer.finish()
}

/** How many bytes a head takes whose argument, such as a length, is this. */
export const headBytes = (argument: number): number =>
  argument < 24 ? 1 : argument < 0x100 ? 2 : argument < 0x10000 ? 3 : argument <= 0xffffffff ? 5 : 9

/** Writes deterministic CBOR into a growing buffer; the order of map keys is the caller's affair, but in `value`. */
export class CborWriter {
  #bytes: Buffer
  #length = 0

  constructor(capacity: number) {
    this.#bytes = Buffer.allocUnsafe(capacity)
  }

  finish(): Uint8Array {
    return this.#length === this.#bytes.length ? this.#bytes : this.#bytes.subarray(0, this.#length)
  }

  head(major: number, argument: CborInteger): void {
    this.#reserve(typeof argument === 'bigint' ? 9 : headBytes(argument))
    const initial = major << 5
    if (typeof argument === 'bigint') {
      if (argument < 0n || argument > 0xffffffffffffffffn) throw new CborError('an integer beyond 64 bits')
      if (argument > 0xffffffffn) {
        this.#bytes[this.#length++] = initial | 27
        this.#length = this.#bytes.writeBigUInt64BE(argument, this.#length)
        return
      }
      argument = Number(argument)
    }
    if (!Number.isSafeInteger(argument) || argument < 0) throw new CborError('not an unsigned integer')
    if (argument < 24) {
      this.#bytes[this.#length++] = initial | argument
    } else if (argument < 0x100) {
      this.#bytes[this.#length++] = initial | 24
      this.#bytes[this.#length++] = argument
    } else if (argument < 0x10000) {
      this.#bytes[this.#length++] = initial | 25
      this.#length = this.#bytes.writeUInt16BE(argument, this.#length)
    } else if (argument <= 0xffffffff) {
      this.#bytes[this.#length++] = initial | 26
      this.#length = this.#bytes.writeUInt32BE(argument, this.#length)
    } else {
      this.#bytes[this.#length++] = initial | 27
      this.#length = this.#bytes.writeBigUInt64BE(BigInt(argument), this.#length)
    }
  }

  integer(value: CborInteger): void {
    if (value >= 0) this.head(MAJOR.uint, value)
    else if (typeof value === 'bigint') this.head(MAJOR.negative, -1n - value)
    else this.head(MAJOR.negative, -1 - value)
  }

  byteString(value: Uint8Array): void {
    this.head(MAJOR.bytes, value.length)
    this.raw(value)
  }

  text(value: string): void {
    const length = Buffer.byteLength(value)
    if (length !== value.length && !value.isWellFormed())
      throw new CborError('text with an unpaired surrogate')
    this.head(MAJOR.text, length)
    this.#reserve(length)
    this.#length += this.#bytes.write(value, this.#length)
  }

  nil(): void {
    this.#reserve(1)
    this.#bytes[this.#length++] = 0xf6
  }

  /** Bytes that are CBOR already. */
  raw(value: Uint8Array): void {
    this.#reserve(value.length)
    this.#bytes.set(value, this.#length)
    this.#length += value.length
  }

  value(value: CborValue): void {
    if (typeof value === 'string') this.text(value)
    else if (typeof value === 'number' || typeof value === 'bigint') this.integer(value)
    else if (typeof value === 'boolean') this.raw(Uint8Array.of(value ? 0xf5 : 0xf4))
    else if (value === null) this.nil()
    else if (value instanceof Uint8Array) this.byteString(value)
    else if (isMap(value)) this.#map(value)
    else {
      this.head(MAJOR.array, value.length)
      for (const item of value) this.value(item)
    }
  }

  #map(value: ReadonlyMap<CborKey, CborValue>): void {
    const entries = Array.from(value, ([key, item]) => ({ key: encodeCbor(key), item }))
    entries.sort((a, b) => compareBytes(a.key, b.key))
    this.head(MAJOR.map, entries.length)
    for (const [index, { key, item }] of entries.entries()) {
      const before = entries[index - 1]
      if (before !== undefined && compareBytes(before.key, key) === 0) throw new CborError('a map key twice')
      this.raw(key)
      this.value(item)
    }
  }

  #reserve(more: number): void {
    const needed = this.#length + more
    if (needed <= this.#bytes.length) return
    const grown = Buffer.allocUnsafe(Math.max(needed, this.#bytes.length * 2))
    this.#bytes.copy(grown, 0, 0, this.#length)
    this.#bytes = grown
  }
}

const isMap = (
  value: readonly CborValue[] | ReadonlyMap<CborKey, CborValue>,
): value is ReadonlyMap<CborKey, CborValue> => value instanceof Map

/** Bytewise, as RFC 8949 §4.2.1 orders map keys. */
export function compareBytes(a: Uint8Array, b: Uint8Array): number {
  const shorter = Math.min(a.length, b.length)
  for (let index = 0; index < shorter; index++) {
    const difference = (a[index] ?? 0) - (b[index] ?? 0)
    if (difference !== 0) return difference
  }
  return a.length - b.length
}

/** Text of valid UTF-8; mostly short and ASCII, for which a loop is the fastest check. */
function textOf(bytes: Buffer, start: number, end: number): string {
  return isShortAscii(bytes, start, end)
    ? bytes.toString('latin1', start, end)
    : decodeUtf8(bytes.subarray(start, end))
}

function isShortAscii(bytes: Buffer, start: number, end: number): boolean {
  if (end - start > MAX_SHORT_TEXT) return false
  for (let index = start; index < end; index++) if ((bytes[index] ?? 0) >= 0x80) return false
  return true
}

const MAX_SHORT_TEXT = 64

/** Short ASCII texts, each at a place that its bytes give, where the next one of that place replaces it. */
const recurring = new Array<string>(256).fill('')

function recurringTextOf(bytes: Buffer, start: number, end: number): string {
  const middle = (bytes[(start + end) >> 1] ?? 0) * 7
  const place = ((bytes[start] ?? 0) + middle + (bytes[end - 1] ?? 0) * 31 + (end - start) * 67) & 0xff
  const known = recurring[place] ?? ''
  if (isText(known, bytes, start, end)) return known
  const text = textOf(bytes, start, end)
  if (isShortAscii(bytes, start, end)) recurring[place] = text
  return text
}

/** Whether an ASCII text is these bytes. */
function isText(text: string, bytes: Buffer, start: number, end: number): boolean {
  if (text.length !== end - start) return false
  for (let index = 0; index < text.length; index++)
    if (text.charCodeAt(index) !== bytes[start + index]) return false
  return true
}

function decodeUtf8(bytes: Uint8Array): string {
  try {
    return utf8.decode(bytes)
  } catch {
    throw new CborError('text that is not UTF-8')
  }
}
