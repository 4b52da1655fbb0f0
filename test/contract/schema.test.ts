import { describe, expect, test } from 'vitest'
import contractSchema from '../../contracts/contract.schema.json' with { type: 'json' }
import { CompiledSchema, keywordErrors } from '../../lib/contract/schema.ts'
import type { Schema } from '../../lib/contract/shape.ts'
import { Rejection } from '../../lib/errors.ts'

const verdict = (
  schema: Schema,
  payload: string,
  assertFormats = false,
  contentType = 'application/json',
): string => {
  try {
    new CompiledSchema(schema, assertFormats).check(contentType, Buffer.from(payload, 'utf8'))
    return 'fits'
  } catch (error) {
    if (!(error instanceof Rejection)) throw error
    expect(error.code).toBe('schema-invalid')
    return error.message
  }
}
const fits = (schema: Schema, payload: string, assertFormats = false): boolean =>
  verdict(schema, payload, assertFormats) === 'fits'

describe('a payload', () => {
  test('is judged by its schema, and the reason names the rule and nothing of the payload', () => {
    const schema = {
      type: 'object',
      properties: { cents: { type: 'integer', minimum: 0 } },
      additionalProperties: false,
    }
    expect(verdict(schema, '{"cents":5}')).toBe('fits')
    expect(verdict(schema, '{"cents":-41}')).toBe(
      'The payload does not fit the schema at #/properties/cents/minimum.',
    )
    expect(verdict(schema, '{"ann@example.com":1}')).not.toContain('ann')
  })

  test.each(['application/JSON', 'application/json; charset=utf-8', 'text/json', ''])(
    'of content type "%s" is refused',
    (contentType) => {
      expect(verdict(true, '{}', false, contentType)).toContain('content type')
    },
  )

  test('is any JSON for the schema true, and never good for the schema false', () => {
    expect(fits(true, '1e999')).toBe(true)
    expect(fits(false, '{}')).toBe(false)
  })

  test('has only the names that its text has', () => {
    for (const name of ['toString', 'constructor', '__proto__', 'hasOwnProperty']) {
      expect(fits({ required: [name] }, '{}')).toBe(false)
      expect(fits({ required: [name] }, `{"${name}":1}`)).toBe(true)
      expect(fits({ type: 'object', additionalProperties: false }, `{"${name}":1}`)).toBe(false)
      expect(fits({ type: 'object', additionalProperties: { type: 'string' } }, `{"${name}":1}`)).toBe(false)
      expect(fits({ minProperties: 1 }, `{"${name}":{"polluted":1}}`)).toBe(true)
    }
    expect(Object.prototype).not.toHaveProperty('polluted')
  })

  test('is matched by RE2: what backtracks elsewhere answers at once', () => {
    const start = performance.now()
    expect(fits({ pattern: '^(a+)+$' }, `"${'a'.repeat(20_000)}b"`)).toBe(false)
    expect(fits({ pattern: '^(a|aa)+$' }, `"${'a'.repeat(20_000)}"`)).toBe(true)
    expect(performance.now() - start).toBeLessThan(2000)
  })

  test('is matched anywhere unless the pattern is anchored, to the very end if it is', () => {
    expect(fits({ pattern: 'b' }, '"abc"')).toBe(true)
    expect(fits({ pattern: '^b$' }, '"b\\n"')).toBe(false)
    expect(fits({ patternProperties: { '^x-': { type: 'integer' } } }, '{"x-a":"1"}')).toBe(false)
  })

  test('may recurse as deep as a payload may nest', () => {
    const tree: Schema = { type: 'object', properties: { child: { $ref: '#' } }, additionalProperties: false }
    expect(fits(tree, `${'{"child":'.repeat(127)}{}${'}'.repeat(127)}`)).toBe(true)
    expect(fits(tree, `${'{"child":'.repeat(128)}{}${'}'.repeat(128)}`)).toBe(false)
  })

  test('is judged by its own contract where several have parts of one name, in whatever order', () => {
    const schema = (type: string): Schema => ({
      properties: { again: { $ref: '#' }, part: { $ref: '#/$defs/part' }, here: { type } },
      $defs: { part: { type: 'array', items: { $ref: '#/$defs/item' } }, item: { type } },
    })
    const [strings, numbers] = [
      new CompiledSchema(schema('string'), false),
      new CompiledSchema(schema('number'), false),
    ]
    const check = (compiled: CompiledSchema, text: string) => () => {
      compiled.check('application/json', Buffer.from(text))
    }
    for (let round = 0; round < 2; round++) {
      check(strings, '{"part":["x"],"again":{"here":"x"}}')()
      check(numbers, '{"part":[1],"again":{"here":1,"part":[1e999]}}')()
      expect(check(strings, '{"part":[1]}')).toThrow(Rejection)
      expect(check(strings, '{"again":{"here":1}}')).toThrow(Rejection)
      expect(check(numbers, '{"part":["x"]}')).toThrow(Rejection)
      expect(check(numbers, '{"again":{"here":"x"},"here":1e999}')).toThrow(Rejection)
    }
  })

  test('is compared item by item in linear time, as values', () => {
    const unique: Schema = { uniqueItems: true }
    expect(fits(unique, '[1,1.0]')).toBe(false)
    expect(fits(unique, '[{"a":1,"b":[2]},{"b":[2],"a":1}]')).toBe(false)
    expect(fits(unique, '["__proto__","__proto__"]')).toBe(false)
    expect(fits(unique, '[1,"1",[1],{"1":1},true,"true",null,"null"]')).toBe(true)
    const start = performance.now()
    expect(fits(unique, `[${Array.from({ length: 50_000 }, (_, index) => `{"n":${index}}`).join()}]`)).toBe(
      true,
    )
    expect(performance.now() - start).toBeLessThan(2000)
  })

  test('has formats noted only, unless the contract asserts them', () => {
    const email: Schema = { type: 'string', format: 'email' }
    expect(fits(email, '"no address"')).toBe(true)
    expect(fits(email, '"no address"', true)).toBe(false)
    expect(fits(email, '"ann@example.com"', true)).toBe(true)
    expect(fits({ format: 'date' }, '"2026-02-29"', true)).toBe(false)
    expect(fits({ format: 'date' }, '"2028-02-29"', true)).toBe(true)
    expect(fits({ format: 'uri' }, `"https://example.com/${'a'.repeat(2000)}"`, true)).toBe(false)
  })
})

describe('numbers that a double does not hold', () => {
  test.each<[Schema, string, boolean]>([
    [{ type: 'integer', minimum: 0 }, '12345678901234567890', true],
    [{ type: 'integer' }, '1e999', true],
    [{ type: 'number' }, '-1e999', true],
    [{ type: 'integer' }, '9007199254740993.5', false],
    [{ type: 'integer' }, '0.99999999999999999999', false],
    [{ type: 'integer' }, '1.00000000000000000000', true],
    [{ maximum: 100 }, '1e999', false],
    [{ maximum: 100 }, '100.00000000000000000001', false],
    [{ maximum: 100 }, '99.99999999999999999999', true],
    [{ minimum: 0 }, '-1e-999', false],
    [{ exclusiveMinimum: 0 }, '1e-999', true],
    [{ exclusiveMaximum: 9223372036854775808 }, '9223372036854775807', true],
    [{ exclusiveMaximum: 9223372036854775808 }, '9223372036854775808', false],
    [{ maximum: 9007199254740991 }, '9007199254740992', false],
    [{ multipleOf: 2 }, '9007199254740993', false],
    [{ multipleOf: 2 }, '90071992547409930', true],
    [{ multipleOf: 0.01 }, '100000000000000000000.01', true],
    [{ multipleOf: 2 }, '1e999', false],
    [{ const: 5 }, '5.00000000000000000001', false],
    [{ const: 9223372036854775808 }, '9223372036854775808', true],
    [{ const: 9223372036854775808 }, '9223372036854775809', false],
    [{ enum: [9007199254740992] }, '9007199254740993', false],
    [{ not: { const: 9007199254740992 } }, '9007199254740993', true],
    [{ uniqueItems: true }, '[9007199254740993,9007199254740992]', true],
    [{ uniqueItems: true }, '[10000000000000000000001,10000000000000000000001.0]', false],
    [{ uniqueItems: true }, '[1e999,1e998,10e998]', false],
    [{ type: 'string' }, '12345678901234567890', false],
    [{ properties: { a: { minimum: 1 } } }, '{"b":1e-999,"a":0.99999999999999999}', false],
  ])('%j judges %s by its text: %s', (schema, payload, expected) => {
    expect(fits(schema, payload)).toBe(expected)
  })

  test('shorter decimals are multiples as people reckon', () => {
    expect(fits({ multipleOf: 0.01 }, '19.99')).toBe(true)
    expect(fits({ multipleOf: 0.01 }, '19.999')).toBe(false)
    expect(fits({ multipleOf: 0.1 }, '0.3')).toBe(true)
  })

  test('an exponent of over a thousand digits is refused', () => {
    expect(fits(true, `1e${'1'.repeat(2000)}`)).toBe(false)
  })

  test('many of them cost no more than their length', () => {
    const start = performance.now()
    const numbers = Array.from({ length: 40_000 }, (_, index) => `${index}.000000000000000000001`)
    expect(fits({ items: { minimum: 0, multipleOf: 2 } }, `[${numbers.join()}]`)).toBe(false)
    expect(fits({ items: { minimum: 0 } }, `[${numbers.join()}]`)).toBe(true)
    expect(fits({ minimum: 0, multipleOf: 3 }, '3'.repeat(900_000))).toBe(false)
    expect(performance.now() - start).toBeLessThan(3000)
  })
})

test('the schema of contract files is one, which nothing looks at when it is compiled', () => {
  expect(keywordErrors(contractSchema)).toEqual([])
  expect(keywordErrors({ ...contractSchema, required: 'type' })).not.toEqual([])
})
