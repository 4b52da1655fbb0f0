import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  compare,
  decimalKey,
  decimalOf,
  isInteger,
  isMultipleOf,
  parseDecimal,
  roundToMultiple,
  type Decimal,
} from '../../lib/contract/decimal.ts'

const decimal = (text: string): Decimal => {
  const parsed = parseDecimal(text)
  if (parsed === undefined) throw new TypeError(text)
  return parsed
}

describe('decimals', () => {
  test.each([
    ['1', '1.000'],
    ['10', '1e1'],
    ['0', '-0.0e5'],
    ['0.001', '1E-3'],
    ['-120', '-1.2e+2'],
  ])('%s and %s are one number with one key', (a, b) => {
    expect(decimalKey(decimal(a))).toBe(decimalKey(decimal(b)))
    expect(compare(decimal(a), decimal(b))).toBe(0)
  })

  test('what is no number of JSON is none, nor one with a thousand digits of exponent', () => {
    for (const text of ['', '-', 'Infinity', 'NaN', '0x10', '1_0', '1.', ` 1`])
      expect(parseDecimal(text)).toBeUndefined()
    expect(parseDecimal(`1e${'9'.repeat(1001)}`)).toBeUndefined()
  })

  test('a double stands for its shortest decimal, or for its exact whole value', () => {
    expect(decimalOf(0.1)).toEqual(decimal('0.1'))
    expect(decimalOf(2 ** 63)).toEqual(decimal('9223372036854775808'))
    expect(decimalOf(1e23)).toEqual(decimal('1e23'))
    expect(decimalOf(Infinity)).toBeUndefined()
  })

  test('order is that of the numbers, for whole numbers of any size', () => {
    fc.assert(
      fc.property(fc.bigInt(), fc.bigInt(), (a, b) => {
        expect(Math.sign(compare(decimal(String(a)), decimal(String(b))))).toBe(a < b ? -1 : a > b ? 1 : 0)
      }),
    )
  })

  test('and for fractions', () => {
    fc.assert(
      fc.property(fc.integer(), fc.integer(), fc.nat(12), (a, b, places) => {
        expect(Math.sign(compare(decimal(`${a}e-${places}`), decimal(`${b}e-${places}`)))).toBe(
          Math.sign(a - b),
        )
      }),
    )
  })

  test('whole or not is told of the number, not of its spelling', () => {
    for (const text of ['1.0', '1e2', '0', '12.5e1', '12345678901234567890.000'])
      expect(isInteger(decimal(text))).toBe(true)
    for (const text of ['0.5', '1e-1', '9007199254740993.5']) expect(isInteger(decimal(text))).toBe(false)
  })

  test.each([
    ['19.99', '0.01', true],
    ['0.3', '0.1', true],
    ['12345678901234567891', '2', false],
    ['12345678901234567892', '2', true],
    ['0', '7', true],
    ['1e500', '2', false],
  ])('%s a multiple of %s: %s', (value, step, expected) => {
    expect(isMultipleOf(decimal(value), decimal(step))).toBe(expected)
  })

  test.each([
    ['19.97', '0.05', '19.95'],
    ['19.975', '0.05', '20'],
    ['1.005', '0.01', '1.01'],
    ['-1.005', '0.01', '-1.01'],
    ['2.5', '1', '3'],
    ['-2.5', '1', '-3'],
    ['-0.4', '1', '0'],
    ['1e3', '300', '900'],
    ['12345678901234567894', '5', '12345678901234567895'],
    ['7', '2.5', '7.5'],
    ['0.1', '0.05', '0.1'],
    ['5e-324', '1', '0'],
  ])('%s to multiples of %s is %s, halves away from zero', (value, step, expected) => {
    expect(roundToMultiple(decimal(value), decimal(step))).toBe(expected)
  })

  test('numbers too long to reckon with are not rounded', () => {
    expect(roundToMultiple(decimal('1e999'), decimal('1'))).toBeUndefined()
    expect(roundToMultiple(decimal('1'.repeat(500)), decimal('1'))).toBeUndefined()
  })

  test('a rounded number is a multiple, half a step away at most', () => {
    fc.assert(
      fc.property(
        fc.integer(),
        fc.nat(6),
        fc.integer({ min: 1, max: 10_000 }),
        fc.nat(4),
        (value, places, step, stepPlaces) => {
          const [number, unit] = [decimal(`${value}e-${places}`), decimal(`${step}e-${stepPlaces}`)]
          const rounded = roundToMultiple(number, unit) ?? ''
          expect(isMultipleOf(decimal(rounded), unit)).toBe(true)
          const scaled = (d: Decimal): bigint => {
            const whole = { ...d, exponent: d.exponent + BigInt(places + stepPlaces) }
            return BigInt(roundToMultiple(whole, decimal('1')) ?? 'not reckonable')
          }
          const distance = scaled(decimal(rounded)) - scaled(number)
          expect(2n * (distance < 0n ? -distance : distance) <= scaled(unit)).toBe(true)
        },
      ),
    )
  })
})
