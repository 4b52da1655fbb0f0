/** Numbers of JSON as what their text says, where a double would round them. */

/** ±0.`digits` × 10^`exponent`: no zeros at either end of `digits`, and none at all for zero. One number, one form. */
export interface Decimal {
  readonly negative: boolean
  readonly digits: string
  readonly exponent: bigint
}

const NUMBER = /^(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d+))?$/

/** More digits in an exponent would cost more than any number is worth. */
const MAX_EXPONENT_DIGITS = 1000

/** Reads a number of JSON; undefined for anything else, or an exponent of over a thousand digits. */
export function parseDecimal(text: string): Decimal | undefined {
  const match = NUMBER.exec(text)
  if (match === null) return undefined
  const [, sign = '', whole = '', fraction = '', power = '0'] = match
  if (power.length > MAX_EXPONENT_DIGITS) return undefined
  const all = whole + fraction
  let start = 0
  while (start < all.length && all.charCodeAt(start) === 0x30) start++
  let end = all.length
  while (end > start && all.charCodeAt(end - 1) === 0x30) end--
  if (start === end) return { negative: false, digits: '', exponent: 0n }
  return {
    negative: sign === '-',
    digits: all.slice(start, end),
    exponent: BigInt(power) + BigInt(whole.length - start),
  }
}

/**
 * What a double stands for: the shortest decimal that reads back as it, or its exact value where it is whole and that
 * decimal has more than 15 digits (9223372036854775808, not …6000). Undefined for an infinity.
 */
export function decimalOf(value: number): Decimal | undefined {
  const shortest = parseDecimal(String(value))
  if (shortest === undefined || shortest.digits.length <= 15 || !Number.isInteger(value)) return shortest
  return parseDecimal(BigInt(value).toString())
}

/** Equal for equal numbers, and only for those. */
export function decimalKey(decimal: Decimal): string {
  return `${decimal.negative ? '-' : ''}${decimal.digits}e${decimal.exponent.toString()}`
}

export function isInteger(decimal: Decimal): boolean {
  return decimal.exponent >= BigInt(decimal.digits.length)
}

/** Negative, 0 or positive as `a` is less than, equal to or more than `b`. */
export function compare(a: Decimal, b: Decimal): number {
  if (a.digits === '' || b.digits === '') return signOf(a) - signOf(b)
  if (a.negative !== b.negative) return a.negative ? -1 : 1
  const sign = a.negative ? -1 : 1
  if (a.exponent !== b.exponent) return a.exponent < b.exponent ? -sign : sign
  // Fractions of one size without zeros at their ends are in the order of their digits.
  return a.digits === b.digits ? 0 : a.digits < b.digits ? -sign : sign
}

const signOf = (decimal: Decimal): number => (decimal.digits === '' ? 0 : decimal.negative ? -1 : 1)

/** Digits and powers beyond this are not reckoned with: no quadratic time on input. */
const MAX_SIZE = 400

const isReckonable = (decimal: Decimal): boolean =>
  decimal.digits.length <= MAX_SIZE && decimal.exponent <= MAX_SIZE && decimal.exponent >= -MAX_SIZE

/** Both as whole multiples of one power of ten, 10^−`scale`. */
function scaled(a: Decimal, b: Decimal): { a: bigint; b: bigint; scale: number } {
  const scaleOf = (decimal: Decimal): number => decimal.digits.length - Number(decimal.exponent)
  const scale = Math.max(scaleOf(a), scaleOf(b), 0)
  const whole = (decimal: Decimal): bigint => {
    const size =
      BigInt(decimal.digits === '' ? '0' : decimal.digits) * 10n ** BigInt(scale - scaleOf(decimal))
    return decimal.negative ? -size : size
  }
  return { a: whole(a), b: whole(b), scale }
}

/** False, too, for numbers that are too long to reckon with (400 digits, or 400 places from the point). */
export function isMultipleOf(value: Decimal, step: Decimal): boolean {
  if (!isReckonable(value) || !isReckonable(step)) return false
  const { a, b } = scaled(value, step)
  return b !== 0n && a % b === 0n
}

/**
 * The multiple of `step` nearest to `value`, halves away from zero, in plain decimals without needless zeros.
 * Undefined for numbers that are too long to reckon with.
 */
export function roundToMultiple(value: Decimal, step: Decimal): string | undefined {
  if (!isReckonable(value) || !isReckonable(step)) return undefined
  const { a, b, scale } = scaled(value, step)
  if (b <= 0n) return undefined
  const size = a < 0n ? -a : a
  const rounded = ((2n * size + b) / (2n * b)) * b
  const digits = rounded.toString().padStart(scale + 1, '0')
  const whole = digits.slice(0, digits.length - scale)
  const fraction = digits.slice(digits.length - scale).replace(/0+$/, '')
  const sign = a < 0n && rounded !== 0n ? '-' : ''
  return fraction === '' ? sign + whole : `${sign}${whole}.${fraction}`
}
