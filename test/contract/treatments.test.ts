import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { contractsFrom } from '../../lib/contract/bundle.ts'
import { parseTreatment } from '../../lib/contract/contract-file.ts'
import type { PseudonymKeys, Route } from '../../lib/contract/contract.ts'
import type { JsonValue } from '../../lib/contract/json.ts'
import { tokensOf } from '../../lib/contract/shape.ts'
import { applyPlan, literalAt, planOf, type Plan } from '../../lib/contract/treatments.ts'
import { Rejection } from '../../lib/errors.ts'

const KEYS: PseudonymKeys = {
  pseudonym: (domain, value) => `p1:${domain}:${Buffer.from(value).toString('base64url')}`,
}

const planFrom = (treatments: Readonly<Record<string, JsonValue>>): Plan =>
  planOf(
    Object.entries(treatments).map(([pointer, value]) => {
      const treatment = parseTreatment(value)
      if (!('kind' in treatment)) throw new TypeError(treatment.what)
      return [tokensOf(pointer) ?? [], treatment] as const
    }),
  )
const treated = (text: string, treatments: Readonly<Record<string, JsonValue>>): string =>
  applyPlan(planFrom(treatments), text, KEYS) ?? text
const one = (literal: string, treatment: JsonValue): string =>
  treated(`{"a":${literal}}`, { '/a': treatment })

describe('a field', () => {
  test('that nobody named is absent', () => {
    expect(treated('{"a":1,"b":{"c":2}}', {})).toBe('{}')
    expect(treated('{"a":1,"b":{"c":2}}', { '/a': 'pass' })).toBe('{"a":1}')
  })

  test('that passes keeps its source text', () => {
    const text =
      '{"n":12345678901234567890,"m":1.10,"e":1E+2,"z":-0.0,"s":"Jos\\u00e9 \\/ \\ud83d\\ude00","o":{ "x" : [ 1.0 , 2 ] }}'
    const names = ['n', 'm', 'e', 'z', 's', 'o']
    expect(
      treated(`{"gone":1,${text.slice(1)}`, Object.fromEntries(names.map((name) => [`/${name}`, 'pass']))),
    ).toBe(text)
  })

  test('is covered by the pointer to what it is in, unless a longer one says otherwise', () => {
    const text = '{"c":{"id":"7","at":{"x":1,"y":2},"z":[{"k":1,"l":2}]}}'
    expect(treated(text, { '/c': 'pass', '/c/at': 'drop', '/c/z/*/k': 'drop' })).toBe(
      '{"c":{"id":"7","z":[{"l":2}]}}',
    )
    expect(treated(text, { '/c': 'drop', '/c/at/y': 'pass' })).toBe('{"c":{"at":{"y":2}}}')
    expect(treated(text, { '': 'pass', '/c/at/x': 'drop' })).toBe(
      '{"c":{"id":"7","at":{"y":2},"z":[{"k":1,"l":2}]}}',
    )
  })

  test('of every item of an array is reached by *, in arrays of arrays too', () => {
    expect(treated('{"i":[{"p":1.0,"q":2},{"q":3}]}', { '/i/*/p': 'pass' })).toBe('{"i":[{"p":1.0},{}]}')
    expect(treated('{"i":[["abc","de"],[]]}', { '/i/*/*': { keep: 1 } })).toBe('{"i":[["a","d"],[]]}')
  })

  test('whose name is escaped, or holds / and ~, is the one that is meant', () => {
    expect(treated('{"\\u0061":1,"b":2}', { '/a': 'pass' })).toBe('{"\\u0061":1}')
    expect(treated('{"a/b":1,"m~n":2,"":3,"*":4}', { '/a~1b': 'pass', '/m~0n': 'pass' })).toBe(
      '{"a/b":1,"m~n":2}',
    )
    expect(treated('{"a":1,"":3}', { '/': 'pass' })).toBe('{"":3}')
  })

  test('called __proto__ or constructor is a field like others', () => {
    expect(treated('{"__proto__":{"x":1},"constructor":2,"a":3}', { '/a': 'pass' })).toBe('{"a":3}')
    expect(treated('{"__proto__":{"x":1},"a":3}', { '': 'pass', '/a': 'drop' })).toBe('{"__proto__":{"x":1}}')
  })
})

describe('treatments', () => {
  test.each<[JsonValue, string, string]>([
    [{ mask: { show: 4 } }, '"4111111111111234"', '"••••1234"'],
    [{ mask: { show: 2 } }, '"12"', '"••••"'],
    [{ mask: { show: 4 } }, '"1"', '"••••"'],
    [{ mask: { show: 0 } }, '"12"', '"••••"'],
    [{ mask: { show: 1 } }, '"ab😀"', '"••••😀"'],
    [{ mask: { show: 2 } }, '"😀😀"', '"••••"'],
    [{ mask: { show: 1 } }, '"a\\ud83d\\ude00"', '"••••😀"'],
    [{ keep: 3 }, '"79100"', '"791"'],
    [{ keep: 3 }, '"79"', '"79"'],
    [{ keep: 1 }, '"😀b"', '"😀"'],
    [{ keep: 2 }, '"\\u00e9\\"x"', '"é\\""'],
    [{ keep: 9 }, '"\\u00e9"', '"\\u00e9"'],
    [{ round: 10 }, '-15', '-20'],
    [{ round: 0.05 }, '19.975', '20'],
    [{ round: 5 }, '12345678901234567893', '12345678901234567895'],
    [{ date: 'year' }, '"2026-03-05T10:00:00Z"', '"2026"'],
    [{ date: 'month' }, '"2026-03-05"', '"2026-03"'],
    [{ date: 'day' }, '"2001/01/01 00:47"', '"2001/01/01"'],
    [{ pseudonym: 'd' }, '"c7"', '"p1:d:Yzc"'],
    [{ pseudonym: 'd' }, '12345678901234567890', JSON.stringify(KEYS.pseudonym('d', '12345678901234567890'))],
    [{ pseudonym: 'd' }, '1.2e1', JSON.stringify(KEYS.pseudonym('d', '12'))],
    [{ pseudonym: 'd' }, 'null', 'null'],
  ])('%j of %s is %s', (treatment, literal, expected) => {
    expect(one(literal, treatment)).toBe(`{"a":${expected}}`)
  })

  test.each<[JsonValue, string]>([
    [{ mask: { show: 1 } }, '12345'],
    [{ mask: { show: 1 } }, 'true'],
    [{ keep: 1 }, '12345'],
    [{ round: 5 }, '"12"'],
    [{ round: 5 }, 'false'],
    [{ round: 5 }, '1e999'],
    [{ date: 'year' }, '"last year"'],
    [{ date: 'year' }, '"2026-13-01"'],
    [{ date: 'year' }, '"20260301"'],
    [{ date: 'year' }, '"2026-03-01xyz"'],
    [{ date: 'year' }, '2026'],
    [{ pseudonym: 'd' }, '1.5'],
    [{ pseudonym: 'd' }, 'true'],
    [{ pseudonym: 'd' }, '1e999'],
  ])('%j does not fit %s, which is dropped and never passes', (treatment, literal) => {
    expect(one(literal, treatment)).toBe('{}')
    expect(treated(`{"a":[${literal}]}`, { '/a/*': treatment })).toBe('{"a":[]}')
  })

  test('a treatment of an object is one of each of its values', () => {
    expect(treated('{"a":{"b":"secret","c":["word",{"d":"xyz"}],"n":5}}', { '/a': { keep: 1 } })).toBe(
      '{"a":{"b":"s","c":["w",{"d":"x"}]}}',
    )
  })

  test('a text of which everything passes is not made anew', () => {
    expect(
      applyPlan(planFrom({ '/a': 'pass', '/b': { keep: 9 } }), ' {"b" : "x",  "a":1 } ', KEYS),
    ).toBeUndefined()
  })

  test('the value of a member is found by its pointer, as it is written', () => {
    const text = '{ "x" : {"y~":[1],"k" : 1.10 } , "s":"a\\u0062"}'
    expect(literalAt(text, ['x', 'k'])).toBe('1.10')
    expect(literalAt(text, ['s'])).toBe('"a\\u0062"')
    for (const tokens of [['x'], ['x', 'y~'], ['z'], ['s', 't'], ['toString']])
      expect(literalAt(text, tokens)).toBeUndefined()
  })
})

/** Values whose every string is a word that occurs nowhere else. */
const marked = fc.letrec<{ value: unknown }>((tie) => ({
  value: fc.oneof(
    { depthSize: 'small', withCrossShrink: true },
    fc.uuid().map((id) => `w${id}`),
    fc.constant(null),
    fc.dictionary(fc.constantFrom('a', 'b', 'c'), tie('value'), { maxKeys: 3 }),
    fc.array(tie('value'), { maxLength: 3 }),
  ),
})).value
const pointers = fc
  .array(fc.constantFrom('a', 'b', 'c', '*'), { maxLength: 3 })
  .map((tokens) => tokens.map((token) => `/${token}`).join(''))
const choices = fc.dictionary(
  pointers,
  fc.constantFrom<JsonValue>('pass', 'drop', { keep: 2 }, { mask: { show: 3 } }),
  { maxKeys: 6 },
)

const wordsIn = (value: unknown): string[] =>
  typeof value === 'string'
    ? [value]
    : typeof value === 'object' && value !== null
      ? Object.values(value).flatMap(wordsIn)
      : []

/** The words that a plain reading of contracts.md lets pass: the longest pointer that leads to or above them says so. */
function passing(
  value: unknown,
  treatments: Readonly<Record<string, JsonValue>>,
  path: readonly string[] = [],
): string[] {
  if (typeof value === 'object' && value !== null)
    return Object.entries(value).flatMap(([name, item]) =>
      passing(item, treatments, [...path, Array.isArray(value) ? '*' : name]),
    )
  for (let length = path.length; length >= 0; length--) {
    const treatment =
      treatments[
        path
          .slice(0, length)
          .map((token) => `/${token}`)
          .join('')
      ]
    if (treatment !== undefined) return treatment === 'pass' && typeof value === 'string' ? [value] : []
  }
  return []
}

describe('as a property', () => {
  test('exactly the words that pass are in what comes out, which is JSON', () => {
    fc.assert(
      fc.property(
        fc.dictionary(fc.constantFrom('a', 'b', 'c'), marked, { maxKeys: 3 }),
        choices,
        (value, treatments) => {
          const text = JSON.stringify(value)
          const result = treated(text, treatments)
          JSON.parse(result)
          const allowed = new Set(passing(value, treatments))
          for (const word of wordsIn(value)) expect(result.includes(word)).toBe(allowed.has(word))
        },
      ),
      { numRuns: 3000 },
    )
  })

  const space = fc.constantFrom('', ' ', '\n', ' \t')
  const literal = fc.oneof(
    fc.constantFrom('12345678901234567890', '1.10', '-0.0', '1E+2', '"\\u0041\\/"', '"é"', 'true', 'null'),
    fc.json({ stringUnit: 'grapheme' }),
  )

  test('untreated values keep their source text among treated ones', () => {
    fc.assert(
      fc.property(fc.array(fc.tuple(literal, space, space, fc.boolean()), { maxLength: 5 }), (members) => {
        const text = `{${members.map(([value, before, after], index) => `"f${index}"${before}:${after}${value}`).join()}}`
        const treatments = Object.fromEntries(
          members.map(([, , , pass], index) => [`/f${index}`, pass ? 'pass' : 'drop']),
        )
        const kept = members.flatMap(([value, , , pass], index) => (pass ? [`"f${index}":${value}`] : []))
        const expected = kept.length === members.length ? text : `{${kept.join()}}`
        expect(treated(text, treatments)).toBe(expected)
      }),
    )
  })
})

describe('a route', () => {
  const routeOf = (schema: JsonValue, treatments: JsonValue, more: object = {}): Route => {
    const contracts = contractsFrom([
      {
        contract: 'sealgate/1',
        type: 't',
        owner: 'o',
        channel: 'c',
        publish: { p: { sources: ['/s'] } },
        schema,
        consume: { reader: { purpose: 'read', to: 'out', treatments, ...more } },
      },
    ])
    const route = contracts.find('c', 't')?.routes[0]
    if (route === undefined) throw new TypeError('no route')
    return route
  }
  const bytes = (text: string): Buffer => Buffer.from(text, 'utf8')

  test('passes the very bytes on where every field passes', () => {
    const payload = bytes(' { "a" : 1.10 }\n')
    expect(routeOf({ type: 'object', properties: { a: true } }, { '': 'pass' }).treat(payload, KEYS)).toBe(
      payload,
    )
    expect(routeOf({ type: 'object', properties: { a: true } }, { '/a': 'pass' }).treat(payload, KEYS)).toBe(
      payload,
    )
  })

  test('refuses an event of which a required field could not be treated', () => {
    const schema = { type: 'object', required: ['on'], properties: { on: { type: 'string' } } }
    const route = routeOf(schema, { '/on': { date: 'year' } })
    expect(Buffer.from(route.treat(bytes('{"on":"2026-01-01"}'), KEYS)).toString()).toBe('{"on":"2026"}')
    expect(() => route.treat(bytes('{"on":"soon"}'), KEYS)).toThrow(Rejection)
    expect(() => route.treat(bytes('{"on":"soon"}'), KEYS)).toThrow(/^(?!.*soon)/)
  })

  test('refuses what is no object, and what is no I-JSON', () => {
    const route = routeOf({ properties: { a: true } }, { '': 'pass' })
    for (const text of ['[]', '1', 'null', '{"a":1,"a":2}', '{', ''])
      expect(() => route.treat(bytes(text), KEYS)).toThrow(Rejection)
    const partial = routeOf({ properties: { a: true, b: true } }, { '/a': 'pass' })
    for (const text of ['{"a" 1}', '{"a":1', '{"a":1,"a":2}', '{x}', '{"b"'])
      expect(() => partial.treat(bytes(text), KEYS)).toThrow(Rejection)
  })

  test('takes its key from the treated payload: the text of a string, the source text of a number, else none', () => {
    const schema = { type: 'object', properties: { k: { type: ['string', 'number', 'null'] } } }
    const route = routeOf(schema, { '/k': 'pass' }, { partitionBy: '/k' })
    expect(route.keyOf(bytes('{"k":"\\u00e9"}'))).toEqual(bytes('é'))
    expect(route.keyOf(bytes('{"k":1.10}'))).toEqual(bytes('1.10'))
    expect(route.keyOf(bytes('{"k":null}'))).toBeNull()
    expect(route.keyOf(bytes('{}'))).toBeNull()
    expect(routeOf(schema, { '/k': 'pass' }).keyOf(bytes('{"k":"x"}'))).toBeNull()
  })

  test('lets an outage of the keys through as it is', () => {
    const broken: PseudonymKeys = {
      pseudonym: () => {
        throw new TypeError('no key')
      },
    }
    const route = routeOf(
      { type: 'object', properties: { a: { type: 'string' } } },
      { '/a': { pseudonym: 'd' } },
    )
    expect(route.domains).toEqual(['d'])
    expect(() => route.treat(bytes('{"a":"x"}'), broken)).toThrow(TypeError)
  })
})
