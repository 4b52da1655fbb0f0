import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { costFault, isSmall, MAX_EVALUATIONS } from '../../lib/contract/cost.ts'
import { checkSchema } from '../../lib/contract/check-schema.ts'
import { deriveSchema } from '../../lib/contract/derive.ts'
import { readJson, type JsonObject } from '../../lib/contract/json.ts'
import { checkContracts } from '../../lib/contract/load.ts'
import { CompiledSchema } from '../../lib/contract/schema.ts'
import { pointerOf, tokensOf, type Schema } from '../../lib/contract/shape.ts'
import { planOf, type Treatment } from '../../lib/contract/treatments.ts'
import { describeFault, Rejection } from '../../lib/errors.ts'

const node: Schema = { $ref: '#/$defs/node' }
/** A schema whose part `node` is this. */
const whole = (part: Schema, more: JsonObject = {}): Schema => ({ ...node, $defs: { node: part, ...more } })
const holds = (properties: JsonObject, more: JsonObject = {}): JsonObject => ({
  type: 'object',
  properties,
  ...more,
})
const child = holds({ of: node })
/** An alternative that its first property tells from others. */
const marked = (value: string, properties: JsonObject): JsonObject =>
  holds({ op: { const: value }, ...properties }, { required: ['op'], additionalProperties: false })

/** Milliseconds that one payload takes, whether it fits or not. */
const millisecondsOf = (schema: CompiledSchema, text: string): number => {
  const json = readJson(Buffer.from(text))
  const start = performance.now()
  try {
    schema.checkJson(json)
  } catch (error) {
    if (!(error instanceof Rejection)) throw error
  }
  return performance.now() - start
}
/** Deeper and deeper, so that what doubles fails here before it hangs. */
const staysQuick = (
  schema: Schema,
  wrap: (inner: string, level: number) => string,
  leaf: string,
): boolean => {
  const compiled = new CompiledSchema(schema, false)
  let [text, level] = [leaf, 0]
  // Compiled at its first use.
  millisecondsOf(compiled, leaf)
  for (const depth of [4, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 40, 80, 127]) {
    for (; level < depth; level++) text = wrap(text, level)
    const isSlow = (): boolean => millisecondsOf(compiled, text) > 1000
    // Twice: a busy machine is slow once.
    if (isSlow() && isSlow()) return false
  }
  return true
}

describe('a schema by which one value would be judged ever more often, the deeper it lies, is a fault', () => {
  test.each<[string, Schema]>([
    ['oneOf', whole({ oneOf: [child, holds({ of: node, x: true }), { type: 'string' }] })],
    ['anyOf', whole({ anyOf: [child, holds({ of: node, x: true })] })],
    ['the same alternative twice', whole({ anyOf: [child, child] })],
    ['allOf', whole({ allOf: [child, holds({ of: node, x: true })] })],
    ['anyOf inside anyOf', whole({ anyOf: [{ anyOf: [child, { type: 'string' }] }, { oneOf: [child] }] })],
    ['properties beside anyOf', whole({ ...child, anyOf: [child, true] })],
    ['$ref beside properties', whole({ ...child, $ref: '#/$defs/more' }, { more: child })],
    ['if and then', whole({ if: child, then: child })],
    ['not', whole({ ...child, not: child })],
    ['dependentSchemas', whole({ ...child, dependentSchemas: { of: child } })],
    [
      'two that lead to each other',
      whole({ anyOf: [holds({ of: { $ref: '#/$defs/b' } }), child] }, { b: child }),
    ],
    [
      'two that take turns',
      whole(holds({ of: { $ref: '#/$defs/b' } }), { b: { anyOf: [child, holds({ of: node, x: true })] } }),
    ],
    ['properties and patternProperties', whole(holds({ of: node }, { patternProperties: { '^o': node } }))],
    ['two patterns', whole({ type: 'object', patternProperties: { '^o': node, f$: node } })],
    [
      'properties and additionalProperties of another',
      whole({ ...child, allOf: [{ additionalProperties: node }] }),
    ],
    ['unevaluatedProperties', whole({ anyOf: [child], unevaluatedProperties: node })],
    ['items and contains', whole({ type: 'array', items: node, contains: node })],
    ['prefixItems and items of another', whole({ prefixItems: [node], allOf: [{ items: node }] })],
    ['unevaluatedItems and contains', whole({ unevaluatedItems: node, contains: node })],
    [
      'alternatives of one mark',
      whole({ oneOf: [marked('a', { of: node }), marked('a', { of: node, x: true })] }),
    ],
    [
      'a mark that may be left out',
      whole({ oneOf: ['a', 'b'].map((value) => holds({ op: { const: value }, of: node })) }),
    ],
    [
      'a mark that comes after',
      whole({
        oneOf: ['a', 'b'].map((value) =>
          holds({ of: node, op: { const: value } }, { required: ['op', 'of'] }),
        ),
      }),
    ],
    ['through a mark', whole({ oneOf: ['a', 'b'].map((op) => ({ ...marked(op, {}), allOf: [child] })) })],
    [
      'a chain of definitions, each twice in the next',
      {
        $ref: '#/$defs/d0',
        $defs: Object.fromEntries(
          Array.from({ length: 60 }, (_, index) => [
            `d${index}`,
            index === 59
              ? true
              : { allOf: Array.from({ length: 2 }, () => ({ $ref: `#/$defs/d${index + 1}` })) },
          ]),
        ),
      },
    ],
    [
      'many that hold themselves and one another, which grows by a high power',
      whole(
        { allOf: [child, { $ref: '#/$defs/d0' }] },
        Object.fromEntries(
          Array.from({ length: 6 }, (_, index) => [
            `d${index}`,
            holds(
              { of: { $ref: `#/$defs/d${index}` } },
              index === 5 ? {} : { $ref: `#/$defs/d${index + 1}` },
            ),
          ]),
        ),
      ),
    ],
  ])('%s', (_, schema) => {
    const start = performance.now()
    expect(costFault(schema)).toMatchObject({
      what: expect.stringContaining('judged over 1000 times') as unknown,
    })
    expect(performance.now() - start).toBeLessThan(5000)
  })
})

describe('a schema that holds itself is sound', () => {
  test.each<[string, Schema]>([
    ['where one alternative does', whole({ oneOf: [{ type: 'string' }, child] })],
    [
      'in several places of one value',
      whole({ oneOf: [{ type: 'string' }, holds({ of: node, l: node, r: node })] }),
    ],
    ['as object or array', whole({ anyOf: [child, { type: 'array', items: node }, { type: 'null' }] })],
    ['where a name or any other leads back', whole(holds({ of: node }, { additionalProperties: node }))],
    [
      'where a pattern or any other leads back',
      whole({ patternProperties: { '^o': node }, additionalProperties: node }),
    ],
    [
      'where a more special one adds to it',
      whole({ allOf: [{ $ref: '#/$defs/b' }], ...child }, { b: holds({ of: { $ref: '#/$defs/b' } }) }),
    ],
    [
      'where a first, required constant tells the alternatives apart',
      whole(
        {
          oneOf: [
            { type: 'string' },
            marked('not', { of: node }),
            marked('and', { of: { type: 'array', items: node, minItems: 2 } }),
            marked('or', { of: { type: 'array', items: node } }),
            { $ref: '#/$defs/any' },
          ],
        },
        { any: marked('any', { of: node }) },
      ),
    ],
    [
      'where if chooses between then and else',
      whole({
        if: { properties: { op: { const: 'x' } } },
        then: child,
        else: holds({ of: { type: 'object', ...holds({ of: node }) } }),
      }),
    ],
  ])('%s, and quick', (_, schema) => {
    expect(costFault(schema)).toBeUndefined()
    for (const op of ['not', 'and', 'or', 'any', 'x']) {
      for (const leaf of ['"x"', '5', '{}']) {
        expect(staysQuick(schema, (inner) => `{"of":${inner},"op":"${op}"}`, leaf)).toBe(true)
        expect(
          staysQuick(
            schema,
            (inner, level) => (level % 2 === 0 ? `[${inner}]` : `{"op":"${op}","of":${inner}}`),
            leaf,
          ),
        ).toBe(true)
      }
    }
  })

  test('or merely large: hundreds of alternatives', () => {
    const alternatives = Array.from({ length: 400 }, (_, index) =>
      marked(`t${index}`, {
        [`a${index}`]: { type: 'string' },
        [`b${index}`]: { type: 'array', items: { type: 'string' } },
      }),
    )
    const start = performance.now()
    expect(costFault({ oneOf: alternatives })).toBeUndefined()
    expect(performance.now() - start).toBeLessThan(3000)
  })
})

test('the fault says where, what and what to do; also of what a treatment makes', () => {
  const contract = (alternatives: string, treatments: string): string =>
    `contract: sealgate/1
type: t
owner: o
channel: c
publish: { p: { sources: [/s] } }
schema:
  type: object
  properties: { filter: { $ref: '#/$defs/expr' } }
  $defs:
    expr:
      oneOf: [${alternatives}, { type: string }]
consume: { reader: { purpose: read, to: out, treatments: { ${treatments} } } }
`
  const faults = (text: string): string =>
    checkContracts([{ file: 'a.yaml', text }])
      .faults.map(describeFault)
      .join('\n')
  const of = "of: { $ref: '#/$defs/expr' }"
  const unmarked = `{ type: object, properties: { ${of}, op: { const: not } } }, { type: object, properties: { ${of}, op: { const: exists } } }`
  expect(faults(contract(unmarked, '/filter: pass'))).toMatch(
    /^a\.yaml:(10|11): What leads to this schema multiplies: .* let only one alternative lead back/,
  )
  const apart = ['not', 'exists']
    .map((op) => `{ type: object, required: [op], properties: { op: { const: ${op} }, ${of} } }`)
    .join(', ')
  expect(faults(contract(apart, '/filter: pass'))).toBe('')
  expect(faults(contract(apart, '/filter: { keep: 3 }'))).toMatch(/^a\.yaml:12: .*not told apart any more/)
})

const NAMES = ['a', 'b', 'op']
const refs = fc.constantFrom<Schema>(
  { $ref: '#/$defs/one' },
  { $ref: '#/$defs/one' },
  { $ref: '#/$defs/two' },
)
const leaves = fc.constantFrom<Schema>({ type: 'string' }, { const: 'a' }, true, false)
const schemas = fc.letrec<{ part: Schema; object: Schema }>((tie) => {
  const inside = fc.oneof({ weight: 9, arbitrary: refs }, { weight: 2, arbitrary: leaves }, tie('part'))
  const some = fc.array(tie('part'), { minLength: 1, maxLength: 3 })
  const properties = fc.dictionary(fc.constantFrom(...NAMES), inside, { maxKeys: 2 })
  return {
    object: fc.oneof(
      fc.record({ properties }),
      fc.tuple(fc.constantFrom('a', 'b'), properties).map(([value, rest]): Schema => marked(value, rest)),
      fc.record({ type: fc.constant('object'), additionalProperties: inside, properties }),
      fc.record({ patternProperties: inside.map((schema) => ({ '^[ab]': schema })), properties }),
      fc.record({ items: inside }),
      fc.record({ contains: inside, items: inside }),
      fc.record({ prefixItems: fc.array(inside, { minLength: 1, maxLength: 1 }), unevaluatedItems: inside }),
      fc.record({ properties, unevaluatedProperties: inside }),
    ),
    part: fc.oneof(
      { depthSize: 'small', withCrossShrink: true },
      leaves,
      tie('object'),
      fc.record({ oneOf: some }),
      fc.record({ anyOf: some }),
      fc.record({ allOf: some }),
      fc.record({ if: tie('part'), then: tie('part'), else: tie('part') }),
      fc.record({ not: tie('part') }),
      fc
        .tuple(tie('object'), some)
        .map(([object, parts]): Schema => ({ ...(typeof object === 'boolean' ? {} : object), anyOf: parts })),
    ),
  }
})
const WRAPS: readonly ((inner: string) => string)[] = [
  (inner) => `{"a":${inner}}`,
  (inner) => `{"a":${inner},"op":"b"}`,
  (inner) => `{"op":"a","b":${inner}}`,
  (inner) => `{"op":${inner}}`,
  (inner) => `{"x":${inner},"op":"a"}`,
  (inner) => `[${inner}]`,
  (inner) => `["x",${inner}]`,
]

test('whatever schema has no fault judges the deepest payload in bounded time', () => {
  let recursive = 0
  fc.assert(
    fc.property(
      fc.oneof(
        schemas.part,
        fc.array(schemas.object, { minLength: 2, maxLength: 3 }).map((anyOf) => ({ anyOf })),
      ),
      schemas.part,
      fc.array(fc.array(fc.constantFrom(...WRAPS), { minLength: 1, maxLength: 3 }), {
        minLength: 4,
        maxLength: 4,
      }),
      (one, two, words) => {
        const schema: Schema = { $ref: '#/$defs/one', $defs: { one, two } }
        fc.pre(costFault(schema) === undefined && checkSchema(schema, false).length === 0)
        if (JSON.stringify(one).includes('#/$defs/one')) recursive++
        for (const word of words)
          for (const leaf of ['"x"', '{"op":"a"}'])
            expect(
              staysQuick(schema, (inner, level) => word[level % word.length]?.(inner) ?? inner, leaf),
            ).toBe(true)
      },
    ),
    { numRuns: 100 },
  )
  expect(recursive).toBeGreaterThan(10)
})

test('what a treatment makes of a small schema is never too dear', () => {
  let large = 0
  const pointer = fc.array(fc.constantFrom(...NAMES, '*', 'x'), { maxLength: 3 }).map(pointerOf)
  fc.assert(
    fc.property(
      schemas.object,
      fc.constantFrom<Schema>(true, { type: 'string' }, { items: true }),
      fc.dictionary(pointer, fc.constantFrom<Treatment>({ kind: 'pass' }, { kind: 'keep', characters: 3 })),
      (one, two, treatments) => {
        const schema: Schema = { $ref: '#/$defs/one', $defs: { one, two } }
        fc.pre(isSmall(schema, MAX_EVALUATIONS / 8))
        const plan = planOf(
          Object.entries(treatments).map(([text, treatment]) => [tokensOf(text) ?? [], treatment]),
        )
        const derived = deriveSchema(schema, plan)
        if (!isSmall(derived, MAX_EVALUATIONS / 8)) large++
        expect(costFault(derived)).toBeUndefined()
      },
    ),
    { numRuns: 300 },
  )
  // Many hold themselves all the same: what is open may hold anything.
  expect(large).toBeGreaterThan(10)
})
