import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { MAX_DEPTH, readJson } from '../../lib/contract/json.ts'
import { Rejection } from '../../lib/errors.ts'

const read = (text: string): ReturnType<typeof readJson> => readJson(Buffer.from(text, 'utf8'))
const reasonOf = (payload: string | Uint8Array): string => {
  try {
    readJson(typeof payload === 'string' ? Buffer.from(payload, 'utf8') : payload)
    return 'accepted'
  } catch (error) {
    if (!(error instanceof Rejection)) throw error
    expect(error.code).toBe('schema-invalid')
    return error.message
  }
}

describe('I-JSON', () => {
  test.each([
    ['{"a":1,"a":1}'],
    ['{"a":1,"\\u0061":2}'],
    ['{"x":[{"y":{"é":1,"\\u00e9":1}}]}'],
    ['{"__proto__":1,"__proto__":2}'],
    ['{"a\\/b":1,"a/b":2}'],
    ['{"":1,"":2}'],
  ])('a name twice in an object is refused: %s', (text) => {
    expect(reasonOf(text)).toContain('name twice')
  })

  test('one name in two objects is no repetition, nor is a colon or quote within a string', () => {
    expect(reasonOf('{"a":{"a":":\\":{\\"a\\":"},"b":[{"a":1},{"a":2}]}')).toBe('accepted')
  })

  test.each([
    ['"\\ud800"', 'surrogate'],
    ['"\\udc00"', 'surrogate'],
    ['"\\ud800x"', 'surrogate'],
    ['"\\ud800\\u0041"', 'surrogate'],
    ['"\\ud83d😀"', 'surrogate'],
    ['{"\\udfff":1}', 'surrogate'],
    ['"\\ufffe"', 'noncharacter'],
    ['"\\uFFFF"', 'noncharacter'],
    ['"\\ufdd0"', 'noncharacter'],
    ['"\\uFDEF"', 'noncharacter'],
    ['"\\ud83f\\udffe"', 'noncharacter'],
    ['"\\udbff\\udfff"', 'noncharacter'],
    ['"\uffff"', 'noncharacter'],
    ['"\ufdd5"', 'noncharacter'],
    ['["\u{10fffe}"]', 'noncharacter'],
    ['{"\u{1ffff}":1}', 'noncharacter'],
  ])('what is no character is refused, escaped or not: %j', (text, reason) => {
    expect(reasonOf(text)).toContain(reason)
  })

  test.each([
    '"\\ud83d\\ude00"',
    '"😀"',
    '"\\ufffd\\ufdcf\\ufdf0"',
    '"\ufdcf\ufdf0\ufffd"',
    '"\\\\ud800"',
    '"\ufeff"',
  ])('what is one is accepted: %j', (text) => {
    expect(reasonOf(text)).toBe('accepted')
  })

  test.each([
    [Uint8Array.of(0x22, 0xff, 0x22), 'UTF-8'],
    [Uint8Array.of(0x22, 0xed, 0xa0, 0x80, 0x22), 'UTF-8'],
    [Uint8Array.of(0x22, 0xc0, 0x80, 0x22), 'UTF-8'],
    [Uint8Array.of(0xef, 0xbb, 0xbf, 0x31), 'byte order mark'],
    [Uint8Array.of(), 'not JSON'],
  ])('bytes that are no text are refused: %j', (bytes, reason) => {
    expect(reasonOf(bytes)).toContain(reason)
  })

  test.each([
    '1 2',
    '{} x',
    '{"a":1,}',
    "{'a':1}",
    '[1,]',
    '01',
    '+1',
    '1.',
    '.5',
    'NaN',
    '"\t"',
    '// x\n1',
    '{"a":1}\u0000',
  ])('what is not JSON is refused: %j', (text) => {
    expect(reasonOf(text)).toContain('not JSON')
  })

  test(`nesting is accepted to a depth of ${MAX_DEPTH}, and refused from there on however deep`, () => {
    const nested = (depth: number): string => '['.repeat(depth) + ']'.repeat(depth)
    expect(reasonOf(nested(MAX_DEPTH))).toBe('accepted')
    expect(reasonOf(nested(MAX_DEPTH + 1))).toContain('nested')
    expect(reasonOf(nested(500_000))).toContain('nested')
    expect(reasonOf('{"a":'.repeat(100_000) + '1' + '}'.repeat(100_000))).toContain('nested')
  })

  test('the reason never holds what the payload says', () => {
    for (const text of ['{"secret":1,"secret":2}', '{"secret" 1}', '"secret\\ud800"', 'secret'])
      expect(reasonOf(text)).not.toContain('secret')
  })

  test.each([
    ['1', 0],
    ['-0.0', 0],
    ['9007199254740991', 0],
    ['123456789012345', 0],
    ['0.1234567890123456', 1],
    ['9007199254740993', 1],
    ['12345678901234567890', 1],
    ['1e999', 1],
    ['1e-999', 1],
    ['0e999', 0],
    ['1.10', 0],
    ['1.0000000000000000000', 0],
    ['[1e3, -1E+3, 0.1e-3]', 0],
    ['{"a":12345678901234567890,"b":[1.00000000000000000001]}', 2],
  ])('of %s it finds the numbers that a double does not hold: %i', (text, count) => {
    expect(read(text).longNumbers).toHaveLength(count)
  })

  test('time grows with the length alone, whatever the text is made of', () => {
    const hostile = [
      `"${'\\\\'.repeat(250_000)}"`,
      `"${'\\ud83d\\ude00'.repeat(40_000)}"`,
      `[${'0'.repeat(0)}${Array.from({ length: 50_000 }, () => '1e-999').join()}]`,
      `1${'0'.repeat(500_000)}`,
      `0.${'0'.repeat(250_000)}1${'0'.repeat(250_000)}`,
      `{${Array.from({ length: 60_000 }, (_, index) => `"${index}":1`).join()}}`,
    ]
    const start = performance.now()
    for (const text of hostile) expect(reasonOf(text)).toBe('accepted')
    expect(performance.now() - start).toBeLessThan(3000)
  })
})

/** A second opinion, slow and plain: is it I-JSON within the depth? `JSON.parse` reads the scalars only. */
function isIJson(text: string): boolean {
  let at = 0
  const blank = (): void => {
    while (/[ \t\n\r]/.test(text[at] ?? '')) at++
  }
  const take = (expected: string): void => {
    if (text[at++] !== expected) throw new SyntaxError()
  }
  const scalar = (pattern: RegExp): unknown => {
    pattern.lastIndex = at
    const literal = pattern.exec(text)?.[0]
    if (literal === undefined) throw new SyntaxError()
    at += literal.length
    return JSON.parse(literal)
  }
  const string = (): string => {
    const value = String(scalar(/"(?:[^"\\]|\\.)*"/sy))
    if (!value.isWellFormed()) throw new SyntaxError()
    for (const character of value) {
      const point = character.codePointAt(0) ?? 0
      if (point % 0x10000 >= 0xfffe || (point >= 0xfdd0 && point <= 0xfdef)) throw new SyntaxError()
    }
    return value
  }
  const value = (depth: number): void => {
    if (depth > MAX_DEPTH) throw new SyntaxError()
    blank()
    if (text[at] === '"') string()
    else if (text[at] === '{' || text[at] === '[') {
      const isObject = text[at++] === '{'
      const names = new Set<string>()
      blank()
      for (let first = true; text[at] !== (isObject ? '}' : ']'); first = false) {
        if (!first) take(',')
        blank()
        if (isObject) {
          const name = string()
          if (names.has(name)) throw new SyntaxError()
          names.add(name)
          blank()
          take(':')
        }
        value(depth + 1)
        blank()
      }
      at++
      if (depth + 1 > MAX_DEPTH) throw new SyntaxError()
    } else scalar(/true|false|null|-?\d[\d.eE+-]*/y)
    blank()
  }
  try {
    value(0)
    return at === text.length
  } catch (error) {
    if (error instanceof SyntaxError) return false
    throw error
  }
}

describe('as a property', () => {
  const fragments = fc.constantFrom(
    '{',
    '}',
    '[',
    ']',
    ':',
    ',',
    '"a"',
    '"b"',
    '"\\u0061"',
    '"\\ud83d"',
    '"\\ude00"',
    '"\\ud83d\\ude00"',
    '"\ufffe"',
    '"é"',
    '""',
    '1',
    '-1.5e3',
    '1e999',
    'true',
    'null',
    ' ',
    '\\',
    '"',
    'x',
  )

  test('it agrees with JSON.parse and a plain reading of RFC 7493 on arbitrary JSON', () => {
    fc.assert(
      fc.property(fc.json({ stringUnit: 'binary', maxDepth: 4 }), (text) => {
        expect(reasonOf(text) === 'accepted').toBe(isIJson(text))
      }),
      { numRuns: 2000 },
    )
  })

  test('and on pieces of JSON thrown together', () => {
    const object = fc
      .array(
        fc.tuple(
          fc.constantFrom('"a"', '"b"', '"\\u0061"', '"\\u0062"', '"c"'),
          fc.constantFrom('1', '{}', '[{"a":1}]', '{"a":1,"a":2}'),
        ),
        { maxLength: 4 },
      )
      .map((members) => `{${members.map(([name, value]) => `${name}:${value}`).join()}}`)
    fc.assert(
      fc.property(
        fc.oneof(
          fc.array(fragments, { maxLength: 8 }).map((parts) => parts.join('')),
          object,
        ),
        (text) => {
          expect(reasonOf(text) === 'accepted').toBe(isIJson(text))
        },
      ),
      { numRuns: 5000 },
    )
  })

  test('what it reads is what JSON.parse reads', () => {
    fc.assert(
      fc.property(fc.json({ stringUnit: 'grapheme' }), (text) => {
        if (isIJson(text)) expect(read(text).value).toEqual(JSON.parse(text))
      }),
    )
  })

  test('arbitrary bytes are read or refused, and never anything else', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 40 }), (bytes) => {
        reasonOf(bytes)
      }),
      { numRuns: 2000 },
    )
  })
})
