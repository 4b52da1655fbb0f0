import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { checkSchema } from '../../lib/contract/check-schema.ts'
import { deriveSchema } from '../../lib/contract/derive.ts'
import { readJson, type JsonObject, type JsonValue } from '../../lib/contract/json.ts'
import { CompiledSchema, compileFault } from '../../lib/contract/schema.ts'
import type { Schema } from '../../lib/contract/shape.ts'
import { tokensOf } from '../../lib/contract/shape.ts'
import { applyPlan, planOf, type Plan, type Treatment } from '../../lib/contract/treatments.ts'
import { Rejection } from '../../lib/errors.ts'

const PASS: Treatment = { kind: 'pass' }
const planFrom = (treatments: Readonly<Record<string, Treatment>>): Plan =>
  planOf(
    Object.entries(treatments).map(([pointer, treatment]) => [tokensOf(pointer) ?? [], treatment] as const),
  )
const derived = (schema: Schema, treatments: Readonly<Record<string, Treatment>>): JsonObject => {
  const { $schema, ...rest } = deriveSchema(schema, planFrom(treatments))
  expect($schema).toBe('https://json-schema.org/draft/2020-12/schema')
  return rest
}
const fits = (schema: Schema, value: JsonValue): boolean => {
  try {
    new CompiledSchema(schema, false).checkJson(readJson(Buffer.from(JSON.stringify(value))))
    return true
  } catch (error) {
    if (error instanceof Rejection) return false
    throw error
  }
}

const ORDER: Schema = {
  type: 'object',
  required: ['orderId', 'total', 'customer'],
  additionalProperties: false,
  properties: {
    orderId: { type: 'string' },
    total: { type: 'number' },
    customer: {
      type: 'object',
      required: ['id'],
      properties: { id: { type: 'string' }, email: { type: 'string' }, postcode: { type: 'string' } },
    },
  },
}

describe('a derived schema', () => {
  test('has what the consumer gets, required where the input requires it, and nothing else (contracts.md, worked example)', () => {
    const treatments: Record<string, Treatment> = {
      '/total': PASS,
      '/customer/id': { kind: 'pseudonym', domain: 'analytics' },
      '/customer/postcode': { kind: 'keep', characters: 3 },
    }
    expect(derived(ORDER, treatments)).toEqual({
      type: 'object',
      required: ['total', 'customer'],
      additionalProperties: false,
      properties: {
        total: { type: 'number' },
        customer: {
          type: 'object',
          required: ['id'],
          additionalProperties: false,
          properties: { id: { type: 'string' }, postcode: { type: 'string' } },
        },
      },
    })
  })

  test('keeps the constraints of what passes and drops those of what is treated', () => {
    const schema: Schema = {
      type: 'object',
      properties: {
        code: { type: 'string', pattern: '^A', maxLength: 9 },
        card: { type: 'string', pattern: '^[0-9]+$' },
        on: { type: ['string', 'null'] },
        weight: { type: 'number', minimum: 1 },
        count: { type: 'integer' },
      },
    }
    const treatments: Record<string, Treatment> = {
      '/code': PASS,
      '/card': { kind: 'mask', show: 4 },
      '/on': { kind: 'date', unit: 'year' },
      '/weight': { kind: 'round', step: { negative: false, digits: '5', exponent: 0n } },
      '/count': { kind: 'round', step: { negative: false, digits: '5', exponent: 1n } },
    }
    expect(derived(schema, treatments)['properties']).toEqual({
      code: { type: 'string', pattern: '^A', maxLength: 9 },
      card: { type: 'string' },
      on: { type: ['null', 'string'] },
      weight: { type: 'number' },
      count: { type: 'integer' },
    })
  })

  test('of a consumer that gets nothing allows an empty object only', () => {
    const schema = deriveSchema(ORDER, planFrom({}))
    expect(fits(schema, {})).toBe(true)
    expect(fits(schema, { orderId: 'x' })).toBe(false)
  })

  test('comes to an end where the schema holds itself', () => {
    const tree: Schema = {
      type: 'object',
      required: ['name'],
      properties: { name: { type: 'string' }, children: { type: 'array', items: { $ref: '#' } } },
      additionalProperties: false,
    }
    const plan = planFrom({ '': { kind: 'keep', characters: 1 } })
    const schema = deriveSchema(tree, plan)
    expect(fits(schema, { name: 'a', children: [{ name: 'b', children: [] }] })).toBe(true)
    expect(fits(schema, { name: 'a', children: [{ name: 5 }] })).toBe(false)
    expect(fits(schema, { name: 'a', children: [{ name: 'b', other: 1 }] })).toBe(false)
  })

  test('comes to an end where what is open is treated', () => {
    for (const tree of [true, { type: 'object' }, { properties: { a: { items: true } } }]) {
      const schema = deriveSchema(tree, planFrom({ '': { kind: 'keep', characters: 1 } }))
      expect(compileFault(schema, false)).toBeUndefined()
      expect(fits(schema, { a: [{ b: 'x', c: { d: null } }] })).toBe(true)
      expect(fits(schema, { a: [{ b: { c: [5] } }] })).toBe(false)
    }
  })

  test('gives a field of one branch in that branch, and stays closed', () => {
    const schema: Schema = {
      type: 'object',
      required: ['method'],
      properties: {
        method: {
          oneOf: [
            {
              type: 'object',
              required: ['card'],
              properties: { card: { type: 'string' } },
              additionalProperties: false,
            },
            {
              type: 'object',
              required: ['iban'],
              properties: { iban: { type: 'string' } },
              additionalProperties: false,
            },
          ],
        },
      },
    }
    const result = deriveSchema(schema, planFrom({ '/method/card': { kind: 'mask', show: 4 } }))
    expect(fits(result, { method: { card: '••••1234' } })).toBe(true)
    expect(fits(result, { method: {} })).toBe(true)
    expect(fits(result, { method: { iban: 'DE00' } })).toBe(false)
    expect(fits(result, {})).toBe(false)
  })
})

describe('a derived schema does not refuse', () => {
  const read = (
    schema: Schema,
    treatments: Readonly<Record<string, Treatment>>,
    payload: JsonValue,
  ): boolean => {
    expect(fits(schema, payload)).toBe(true)
    const plan = planFrom(treatments)
    const text = JSON.stringify(payload)
    const result = applyPlan(plan, text, { pseudonym: () => expect.unreachable() }) ?? text
    return fits(deriveSchema(schema, plan), readJson(Buffer.from(result)).value)
  }

  test('a field that two schemas of one place describe in part', () => {
    const part = (name: string): JsonObject => ({
      properties: { a: { type: 'object', properties: { [name]: { type: 'string' } } } },
    })
    const schema: Schema = { type: 'object', allOf: [part('x')], ...part('y') }
    expect(read(schema, { '/a/x': PASS, '/a/y': PASS }, { a: { x: '1', y: '2', z: '3' } })).toBe(true)
  })

  test('an event whose required field is of a type that its treatment drops', () => {
    const inner: Schema = { type: 'object', properties: { b: { type: 'string' } } }
    const schema: Schema = {
      type: 'object',
      required: ['a'],
      properties: { a: { anyOf: [{ type: 'string' }, inner] } },
    }
    expect(read(schema, { '/a/b': PASS }, { a: 'text' })).toBe(true)
    expect(read(schema, { '/a/b': PASS }, { a: { b: 'text' } })).toBe(true)
  })
})

const NAMES = ['a', 'b', 'c']
const scalar = fc.constantFrom<Schema>(
  { type: 'string' },
  { type: 'integer' },
  { type: ['string', 'null'] },
  true,
  { enum: ['x', 1] },
)
const nodeOf = (depth: number): fc.Arbitrary<Schema> =>
  depth === 0
    ? scalar
    : fc.oneof(
        scalar,
        objectOf(depth - 1),
        nodeOf(depth - 1).map((items): Schema => ({ type: 'array', items })),
        fc.constantFrom<Schema>({ $ref: '#/$defs/one' }, { $ref: '#/$defs/two' }, { $ref: '#' }),
      )
const objectOf = (depth: number): fc.Arbitrary<Schema> => {
  const node = nodeOf(depth)
  const parts = fc.array(depth === 0 ? scalar : fc.oneof(objectOf(depth - 1), objectOf(0)), {
    minLength: 1,
    maxLength: 2,
  })
  const properties = { properties: fc.dictionary(fc.constantFrom(...NAMES), node, { maxKeys: 3 }) }
  const one = fc.oneof(
    fc.constant({}),
    fc.record({ required: fc.uniqueArray(fc.constantFrom(...NAMES), { maxLength: 1 }) }),
    fc.record({ additionalProperties: fc.oneof(fc.boolean(), node) }),
    fc.record({ patternProperties: node.map((schema) => ({ '^[bc]$': schema })) }),
    fc.record({ unevaluatedProperties: fc.oneof(fc.boolean(), node) }),
  )
  const other = fc.oneof(
    fc.constant({}),
    fc.record({ anyOf: parts }),
    fc.record({ oneOf: parts }),
    fc.record({ allOf: parts }),
    fc.record({ if: objectOf0, then: objectOf0, else: objectOf0 }),
    fc.record({ not: objectOf0 }),
    fc.record({ $ref: fc.constantFrom('#/$defs/one', '#/$defs/two') }),
  )
  return fc
    .tuple(fc.record(properties), one, other)
    .map(([first, second, third]): Schema => ({ type: 'object', ...first, ...second, ...third }))
}
const objectOf0 = fc.record({
  type: fc.constant('object'),
  properties: fc.dictionary(fc.constantFrom(...NAMES), scalar, { maxKeys: 2 }),
})
const wholes = fc
  .tuple(objectOf(2), nodeOf(2), nodeOf(1))
  .map(([whole, one, two]): Schema => ({ ...(typeof whole === 'boolean' ? {} : whole), $defs: { one, two } }))
const values = fc.letrec<{ value: JsonValue; object: JsonValue }>((tie) => ({
  value: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    fc.constantFrom<JsonValue>('x', 'long', 1, 2.5, null, true),
    tie('object'),
    fc.array(tie('value'), { maxLength: 2 }),
  ),
  object: fc.dictionary(fc.constantFrom(...NAMES, 'd'), tie('value'), { maxKeys: 4 }),
})).object
const pointers = fc
  .array(fc.constantFrom(...NAMES, '*'), { maxLength: 3 })
  .map((tokens) => tokens.map((token) => `/${token}`).join(''))
const treatments = fc.dictionary(pointers, fc.constantFrom<Treatment>(PASS, { kind: 'drop' }), { maxKeys: 5 })

describe('as a property', () => {
  test('whatever fits the schema fits the derived one, once treated; and the derived one compiles', () => {
    let fitting = 0
    fc.assert(
      fc.property(
        wholes,
        treatments,
        fc.array(values, { minLength: 5, maxLength: 5 }),
        (schema, choice, payloads) => {
          fc.pre(checkSchema(schema, false).length === 0)
          const plan = planFrom(choice)
          const result = deriveSchema(schema, plan)
          expect(compileFault(result, false)).toBeUndefined()
          const [before, after] = [new CompiledSchema(schema, false), new CompiledSchema(result, false)]
          for (const payload of payloads) {
            const text = JSON.stringify(payload)
            try {
              before.checkJson(readJson(Buffer.from(text)))
            } catch (error) {
              if (error instanceof Rejection) continue
              throw error
            }
            fitting++
            const keys = { pseudonym: () => expect.unreachable() }
            after.checkJson(readJson(Buffer.from(applyPlan(plan, text, keys) ?? text)))
          }
        },
      ),
      { numRuns: 150 },
    )
    expect(fitting).toBeGreaterThan(100)
  })
})
