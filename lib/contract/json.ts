/**
 * I-JSON (RFC 7493) over bytes. `JSON.parse` says what is JSON and makes the value; one scan beside it finds what it
 * lets through: a name twice in an object, unpaired surrogates and noncharacters, deep nesting, and numbers that a
 * double does not hold.
 */
import { isAscii, isUtf8 } from 'node:buffer'
import { Rejection } from '../errors.ts'

/** A value of JSON, as `JSON.parse` makes it. */
export type JsonValue = null | boolean | number | string | readonly JsonValue[] | JsonObject

export interface JsonObject {
  readonly [name: string]: JsonValue
}

/** Objects and arrays within one another, at most: whatever walks a payload may recurse. */
export const MAX_DEPTH = 128

/** Part of a text, from `start` up to but without `end`, in UTF-16 code units. */
export interface Span {
  readonly start: number
  readonly end: number
}

/** A payload that is I-JSON. */
export interface JsonText {
  readonly text: string
  readonly value: JsonValue
  /** The numbers whose `value` is not what the text says: over 15 significant digits, or out of a double's range. */
  readonly longNumbers: readonly Span[]
}

/**
 * Reads bytes as one I-JSON text.
 * @throws Rejection `schema-invalid`; its text holds nothing of the payload
 */
export function readJson(bytes: Uint8Array): JsonText {
  const text = textOf(bytes)
  const value = parse(text)
  const { names, longNumbers } = scan(text)
  if (countNames(value) !== names) throw refused('An object holds a name twice.')
  return { text, value, longNumbers }
}

/** The text of bytes that are UTF-8 without a byte order mark. */
export function textOf(bytes: Uint8Array): string {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  if (isAscii(buffer)) return buffer.toString('latin1')
  if (!isUtf8(buffer)) throw refused('The payload is not UTF-8.')
  if (buffer[0] === 0xef && buffer[1] === 0xbb && buffer[2] === 0xbf)
    throw refused('The payload begins with a byte order mark.')
  return buffer.toString('utf8')
}

/** Is it an object of JSON, neither null nor an array? */
export function isObject(value: JsonValue | undefined): value is JsonObject {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** `Array.isArray`, keeping the items' type. */
export function isArray(value: JsonValue): value is readonly JsonValue[] {
  return Array.isArray(value)
}

/** The member of that very name; `toString`, `__proto__` and their like are absent unless the text held them. */
export function member(object: JsonObject, name: string): JsonValue | undefined {
  return Object.hasOwn(object, name) ? object[name] : undefined
}

const refused = (reason: string): Rejection => new Rejection('schema-invalid', reason)

function parse(text: string): JsonValue {
  try {
    return JSON.parse(text) as JsonValue
  } catch {
    // Without its cause: V8 quotes the text in its message.
    throw refused('The payload is not JSON.')
  }
}

const QUOTE = 0x22
const COMMA = 0x2c
const COLON = 0x3a
const BACKSLASH = 0x5c

/** Only ever sees what `JSON.parse` has accepted, so every string ends and every escape is whole. */
function scan(text: string): { names: number; longNumbers: readonly Span[] } {
  const longNumbers: Span[] = []
  let names = 0
  let depth = 0
  const end = text.length
  for (let index = 0; index < end; index++) {
    const unit = text.charCodeAt(index)
    if (unit === QUOTE) {
      index = skipString(text, index)
    } else if (unit === COLON) {
      names++
    } else if (unit === 0x7b || unit === 0x5b) {
      if (++depth > MAX_DEPTH) throw refused(`The payload is nested more than ${MAX_DEPTH} deep.`)
    } else if (unit === 0x7d || unit === 0x5d) {
      depth--
    } else if (unit === 0x2d || (unit >= 0x30 && unit <= 0x39)) {
      const start = index
      index = endOfNumber(text, index)
      if (!isFaithful(text, start, index)) longNumbers.push({ start, end: index })
      index--
    }
  }
  return { names, longNumbers }
}

/** From a string's first quote to its last, checking its characters on the way. */
function skipString(text: string, start: number): number {
  let index = start + 1
  for (;;) {
    const unit = text.charCodeAt(index)
    if (unit === QUOTE) return index
    if (unit === BACKSLASH) index = skipEscape(text, index)
    else if (unit < 0xd800) index++
    else index += checkedUnits(text, index)
  }
}

/** How many code units the character here has, once it is known to be one (RFC 7493 §2.1). */
function checkedUnits(text: string, index: number): number {
  const point = text.codePointAt(index) ?? 0
  checkPoint(point)
  return point > 0xffff ? 2 : 1
}

function skipEscape(text: string, index: number): number {
  if (text.charCodeAt(index + 1) !== 0x75) return index + 2
  const unit = hexAt(text, index + 2)
  if (unit < 0xd800 || unit > 0xdbff) {
    checkPoint(unit)
    return index + 6
  }
  // A high surrogate: the low one must follow, escaped too, since UTF-8 cannot hold it alone.
  const escaped = text.charCodeAt(index + 6) === BACKSLASH && text.charCodeAt(index + 7) === 0x75
  const low = escaped ? hexAt(text, index + 8) : 0
  if (low < 0xdc00 || low > 0xdfff) throw refused('A string holds an unpaired surrogate.')
  checkPoint(0x10000 + ((unit - 0xd800) << 10) + (low - 0xdc00))
  return index + 12
}

const hexAt = (text: string, index: number): number => Number.parseInt(text.slice(index, index + 4), 16)

function checkPoint(point: number): void {
  if (point >= 0xd800 && point <= 0xdfff) throw refused('A string holds an unpaired surrogate.')
  if ((point & 0xfffe) === 0xfffe || (point >= 0xfdd0 && point <= 0xfdef))
    throw refused('A string holds a noncharacter.')
}

function endOfNumber(text: string, start: number): number {
  let index = start + 1
  for (;;) {
    const unit = text.charCodeAt(index)
    // Digits, point, e, E, + and −; NaN at the end of the text ends the loop too.
    if (!(
      (unit >= 0x30 && unit <= 0x39) ||
      unit === 0x2e ||
      unit === 0x65 ||
      unit === 0x45 ||
      unit === 0x2b ||
      unit === 0x2d
    ))
      return index
    index++
  }
}

/** Is the double as good as the text: does no other number of at most 15 digits, and no safe integer, share it? */
function isFaithful(text: string, start: number, end: number): boolean {
  let exponent = -1
  for (let index = start; index < end; index++) {
    if ((text.charCodeAt(index) | 0x20) === 0x65) exponent = index
  }
  if (exponent < 0 && end - start <= 15) return true
  const digits = text
    .slice(start, exponent < 0 ? end : exponent)
    .replace(/[-.]/g, '')
    .replace(/^0+/, '')
  if (digits === '') return true
  const value = Number(text.slice(start, end))
  if (exponent < 0 && Number.isSafeInteger(value) && !text.slice(start, end).includes('.')) return true
  const size = Math.abs(value)
  return trailingZerosCut(digits).length <= 15 && size > 1e-290 && size < 1e290
}

/** Without a regular expression: `/0+$/` takes quadratic time on zeros that are not at the end. */
function trailingZerosCut(digits: string): string {
  let end = digits.length
  while (end > 0 && digits.charCodeAt(end - 1) === 0x30) end--
  return digits.slice(0, end)
}

/** Names in all objects of a value: fewer than colons in its text where one came twice, however it was spelt. */
function countNames(value: JsonValue): number {
  let names = 0
  if (isArray(value)) {
    for (const item of value) if (typeof item === 'object') names += countNames(item)
  } else if (typeof value === 'object' && value !== null) {
    // `for in` is five times as fast as `Object.values`; what JSON.parse makes inherits nothing enumerable.
    for (const name in value) {
      names++
      const item = value[name]
      if (typeof item === 'object') names += countNames(item)
    }
  }
  return names
}

// Walking a text that `readJson` or its equal has accepted.

/** The first index at or after `index` that holds no blank. */
export function skipBlank(text: string, index: number): number {
  for (;;) {
    const unit = text.charCodeAt(index)
    if (unit !== 0x20 && unit !== 0x0a && unit !== 0x0d && unit !== 0x09) return index
    index++
  }
}

/** Where the string that starts at `index` ends (after its last quote). */
export function endOfString(text: string, index: number): number {
  for (;;) {
    index = text.indexOf('"', index + 1)
    if (index < 0) throw refused('The payload is not JSON.')
    let before = index
    while (text.charCodeAt(before - 1) === BACKSLASH) before--
    if ((index - before) % 2 === 0) return index + 1
  }
}

/** Where the value that starts at `index` ends. */
export function endOfValue(text: string, index: number): number {
  let depth = 0
  for (; index < text.length; index++) {
    const unit = text.charCodeAt(index)
    if (unit === QUOTE) {
      index = endOfString(text, index) - 1
      if (depth === 0) return index + 1
    } else if (unit === 0x7b || unit === 0x5b) depth++
    else if (unit === 0x7d || unit === 0x5d) {
      if (--depth <= 0) return depth === 0 ? index + 1 : index
    } else if (depth === 0 && (unit === COMMA || unit <= 0x20)) return index
  }
  return index
}
