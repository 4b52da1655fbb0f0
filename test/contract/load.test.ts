import { describe, expect, test } from 'vitest'
import { checkContracts, loadContracts, type Checked } from '../../lib/contract/load.ts'
import { ConfigError, describeFault } from '../../lib/errors.ts'

/** The example of contracts.md, word for word. */
const EXAMPLE = `contract: sealgate/1
type: com.example.order.shipped.v1       # exact match; the unit of policy
description: An order has left the warehouse.
owner: team-shipping
channel: orders                          # logical topic it arrives on; one channel may carry many types
publish:
  shipping-service: { sources: [/shipping] }          # iss → the CloudEvents sources it may speak for
classification: restricted               # public < internal < confidential < restricted
regulation: [GDPR]
subject: /customer/id                    # JSON Pointer to the person it is about, if any
limits: { maxBytes: 65536, perSecond: 500 }
retention: { channel: 7d, outputs: 30d }
schema:                                  # JSON Schema 2020-12; x-classification marks personal fields, inherited downward
  type: object
  required: [orderId, customer, total]
  additionalProperties: false
  properties:
    orderId:  { type: string }
    total:    { type: number }
    customer: { type: object, x-classification: personal, required: [id],
                properties: { id: { type: string }, email: { type: string, format: email }, postcode: { type: string } } }
consume:
  notifications: { purpose: notify-customer, to: orders.notifications, form: sealed,
                   treatments: { /orderId: pass, /customer/email: pass } }
  analytics:     { purpose: reporting, to: orders.analytics, form: plain, partitionBy: /customer/id,
                   treatments: { /total: pass, /customer/id: { pseudonym: analytics }, /customer/postcode: { keep: 3 } } }
`
const KEYS = { pseudonym: (): string => 'p1:Jx' }

const check = (...texts: string[]): Checked =>
  checkContracts(texts.map((text, index) => ({ file: `${'abcdefgh'[index] ?? 'x'}.yaml`, text })))
const faultsIn = (...texts: string[]): string[] => check(...texts).faults.map(describeFault)
const warningsIn = (...texts: string[]): string[] => check(...texts).warnings.map(describeFault)
/** The example with something in it replaced, which must be there. */
const changed = (from: string, to: string, text: string = EXAMPLE): string => {
  expect(text).toContain(from)
  return text.replace(from, to)
}
/** A small contract with this schema and these treatments, as YAML in flow style. */
const contract = (schema: string, consume = '', more = ''): string =>
  `contract: sealgate/1\ntype: t\nowner: o\nchannel: c\npublish: { p: { sources: [/s] } }\n${more}schema: ${schema}\n${consume === '' ? '' : `consume: ${consume}\n`}`
const reader = (treatments: string, more = ''): string =>
  `{ reader: { purpose: read, to: out, ${more} treatments: ${treatments} } }`

describe('a sound contract', () => {
  test('has no fault and no warning, and does what the worked example says', () => {
    expect(check(EXAMPLE)).toMatchObject({ faults: [], warnings: [] })
    const found = loadContracts([{ file: 'shipped.yaml', text: EXAMPLE }]).find(
      'orders',
      'com.example.order.shipped.v1',
    )
    expect(found).toMatchObject({
      owner: 'team-shipping',
      classification: 'restricted',
      maxBytes: 65536,
      perSecond: 500,
    })
    expect(found?.publish).toEqual(new Map([['shipping-service', new Set(['/shipping'])]]))
    const payload = Buffer.from(
      '{"orderId":"A-1","total":19.90,"customer":{"id":"c7","email":"a@b.c","postcode":"79100"}}',
    )
    found?.payload.check('application/json', payload)
    const [notifications, analytics] = found?.routes ?? []
    expect(notifications).toMatchObject({
      consumer: 'notifications',
      channel: 'orders.notifications',
      form: 'sealed',
      lifeSeconds: 86_400,
    })
    expect(analytics).toMatchObject({
      consumer: 'analytics',
      purpose: 'reporting',
      form: 'plain',
      domains: ['analytics'],
    })
    const treated = analytics?.treat(payload, KEYS) ?? new Uint8Array()
    expect(Buffer.from(treated).toString()).toBe('{"total":19.90,"customer":{"id":"p1:Jx","postcode":"791"}}')
    expect(Buffer.from(analytics?.keyOf(treated) ?? []).toString()).toBe('p1:Jx')
  })

  test('may leave out what has a safe answer', () => {
    const [found] = loadContracts([{ file: 'a.yaml', text: contract('true') }]).all
    expect(found).toMatchObject({
      classification: 'restricted',
      maxBytes: 1_048_576,
      perSecond: undefined,
      routes: [],
    })
  })

  test('may send each type to a channel of its own', () => {
    const to = (prefix: string): string | undefined => {
      const text = contract(
        '{ type: object, properties: { a: true } }',
        reader('{ /a: pass }').replace('to: out', `to: { type: ${prefix} }`),
      )
      return loadContracts([{ file: 'a.yaml', text }]).all[0]?.routes[0]?.channel
    }
    expect(to('reader.')).toBe('reader.t')
    expect(to('null')).toBe('t')
  })

  test('may say how long its sealed outputs are good, up to a day', () => {
    const life = (text: string): string =>
      contract('{ type: object, properties: { a: true } }', reader('{ /a: pass }', `life: ${text},`))
    expect(loadContracts([{ file: 'a.yaml', text: life('90m') }]).all[0]?.routes[0]?.lifeSeconds).toBe(5400)
    expect(faultsIn(life('2d'))).toEqual([expect.stringMatching(/^a\.yaml:7: .*a day at most/)])
  })
})

describe('every fault is named at once, with file, line and what to do', () => {
  test('faults of a schema among them: misspelt keywords, wrong values and patterns', () => {
    const text = changed('format: email', "formatt: email, minimum: a, pattern: '(?=a)'")
    const found = faultsIn(text.replace('type: number', 'typ: number'))
    expect(found.filter((fault) => /"formatt"|"typ"|must be number|RE2 cannot/.test(fault))).toHaveLength(4)
  })

  test('in one file and over several', () => {
    const bad = changed('owner: team-shipping', 'ownr: team-shipping')
      .replace('maxBytes: 65536', 'maxBytes: 0')
      .replace('/total: pass', '/totl: pass')
    expect(
      faultsIn(
        bad,
        EXAMPLE,
        changed('type: com.example.order.shipped.v1', 'type: other').replace('form: plain', 'form: open'),
      ),
    ).toEqual([
      expect.stringMatching(/^a\.yaml:4: Unknown field "ownr"\. Known here: .*owner/),
      expect.stringMatching(/^a\.yaml:11: .*from 1 to 1048576/),
      expect.stringMatching(
        /^a\.yaml:26: The schema has no field \/totl\. There: \/orderId, \/total, \/customer\.$/,
      ),
      expect.stringMatching(/^c\.yaml:25: .*sealed,plain/),
    ])
    expect(() => loadContracts([{ file: 'a.yaml', text: bad }])).toThrow(ConfigError)
  })

  test.each<[string, string, RegExp]>([
    ['contract: sealgate/1', 'contract: sealgate/2', /:1: .*sealgate\/1/],
    ['channel: orders ', 'chanel: orders ', /"channel" is missing/],
    ['sources: [/shipping]', 'sources: []', /:7: .*sources/],
    ['classification: restricted', 'classification: secret', /:8: .*public,internal,confidential,restricted/],
    ['subject: /customer/id', 'subject: /customer/name', /:10: The schema has no field \/customer\/name/],
    ['subject: /customer/id', 'subject: customer.id', /:10: .*JSON Pointer/],
    ['retention: { channel: 7d', 'retention: { channel: week', /:12: /],
    ['type: number', 'type: nummer', /:19: .*one of the allowed values: array, boolean/],
    ['format: email', 'formatt: email', /:21: .*formatt/],
    ['format: email', "pattern: '(?<=a)b'", /:21: RE2 cannot do this pattern/],
    ['format: email', "pattern: '(a)\\1'", /:21: RE2 cannot do this pattern/],
    [
      'type: number',
      '$ref: https://example.com/total.json',
      /:19: A \$ref may only point into the same schema/,
    ],
    ['type: number', "$ref: '#/$defs/total'", /:19: There is no schema at #\/\$defs\/total/],
    ['type: number', '$dynamicRef: "#x"', /:19: \$dynamicRef is not supported/],
    [
      'type: object\n',
      'type: object\n  $schema: http://json-schema.org/draft-07/schema#\n',
      /:15: .*2020-12/,
    ],
    ['type: object\n', "type: object\n  allOf: [{ $ref: '#' }]\n", /refers to itself/],
    ['x-classification: personal', 'x-classification: none', /:20: .*personal or sensitive/],
    ['to: orders.analytics', 'to: orders/analytics', /:25: .*channel/],
    ['/total: pass', '/total: { mask: { show: 2 } }', /:26: mask does not fit \/total/],
    ['/total: pass', '/total: { round: 0 }', /:26: round needs/],
    ['/total: pass', '/total: { round: 1, keep: 2 }', /:26: /],
    ['/total: pass', '/total: [pass]', /:26: This is no treatment/],
    ['/total: pass', '/total: { keep: 1, round: 5 }', /:26: A field has one treatment, and this names 2/],
    ['/total: pass', 'total: pass', /:26: .*JSON Pointer/],
    ['/total: pass', '/total: tokenise', /:26: The treatment "tokenise" is not supported yet/],
    ['/total: pass', '/total: { encrypt: subject }', /:26: The treatment "encrypt" is not supported yet/],
    ['/total: pass', '/total: { range: [18, 25] }', /:26: The treatment "range" is not supported yet/],
    ['/total: pass', '/total: { reversible: d }', /:26: The treatment "reversible" is not supported yet/],
    ['limits:', 'kafka: { partitions: 6 }\nlimits:', /:11: "kafka" is not supported yet/],
    [
      'limits:',
      'acceptUnsealedUntil: 2027-01-01\nlimits:',
      /:11: "acceptUnsealedUntil" is not supported yet/,
    ],
    ['form: plain', 'form: plain, consent: news', /:25: "consent" is not supported yet/],
    ['{ keep: 3 }', 'pass', /:26: \/customer\/postcode is classified \(personal\) and would pass in clear/],
    ['/customer/postcode: { keep: 3 }', '/customer: pass', /:26: \/customer is classified/],
    [
      'partitionBy: /customer/id',
      'partitionBy: /customer/email',
      /:25: \/customer\/email is not part of what this consumer gets/,
    ],
    ['partitionBy: /customer/id', 'partitionBy: /customer', /:25: \/customer /],
    ['/customer/postcode: ', '/customer/*/postcode: ', /:26: The schema has no field \/customer\/\*/],
  ])('%j → %j', (from, to, expected) => {
    expect(faultsIn(changed(from, to)).join('\n')).toMatch(expected)
  })

  test('two contracts for one type on one channel; on two channels they are two', () => {
    expect(faultsIn(EXAMPLE, EXAMPLE)).toEqual([
      expect.stringMatching(
        /^b\.yaml:2: a\.yaml is a contract for com\.example\.order\.shipped\.v1 on orders/,
      ),
    ])
    expect(faultsIn(EXAMPLE, changed('channel: orders ', 'channel: returns '))).toEqual([])
  })

  test('two consumers writing one output with different forms', () => {
    const other = changed('type: com', 'type: other.com').replace(
      'to: orders.notifications',
      'to: orders.analytics',
    )
    expect(faultsIn(EXAMPLE, other)).toEqual([
      expect.stringMatching(
        /^b\.yaml:23: orders\.analytics would carry sealed events beside the plain ones of analytics \(a\.yaml\)/,
      ),
    ])
    const shared = changed('to: orders.notifications', 'to: orders.analytics')
      .replace('form: sealed', 'form: plain')
      .replace('/customer/email: pass', '')
    expect(warningsIn(shared).join('\n')).toContain('Give each consumer a channel of its own')
  })

  test('an output channel that producers write to, of its own contract or another', () => {
    const other = changed('channel: orders ', 'channel: orders.analytics ').replace(
      'order.shipped.v1',
      'x.v1',
    )
    expect(faultsIn(changed('to: orders.notifications', 'to: orders'))).toEqual([
      expect.stringMatching(
        /^a\.yaml:23: orders is a channel that producers write to: what goes out there would/,
      ),
    ])
    expect(faultsIn(EXAMPLE, other).filter((line) => line.includes('producers write to'))).toHaveLength(2)
  })

  test('a pseudonym domain that serves two purposes', () => {
    const other = changed('type: com', 'type: other.com').replace(
      'purpose: reporting',
      'purpose: advertising',
    )
    expect(faultsIn(EXAMPLE, other)).toEqual([
      expect.stringMatching(
        /^b\.yaml:26: The pseudonym domain analytics serves the purpose reporting already \(a\.yaml\)/,
      ),
    ])
    expect(faultsIn(EXAMPLE, changed('type: com', 'type: other.com'))).toEqual([])
  })
})

describe('YAML that is not what it seems', () => {
  test.each<[string, string, RegExp]>([
    ['a name twice', `${EXAMPLE}owner: another\n`, /:27: The YAML is not sound: Map keys must be unique/],
    ['a broken text', 'contract: [sealgate/1\n', /The YAML is not sound/],
    ['two documents', `${EXAMPLE}---\n${EXAMPLE}`, /The YAML is not sound/],
    ['nothing', '', /:1: .*object/],
    ['a list', '- contract: sealgate/1', /:1: .*object/],
    ['__proto__', `${EXAMPLE}__proto__: { owner: x }\n`, /:27: Nothing may be called __proto__/],
    ['__proto__ as a field', changed('orderId:  {', '__proto__: {'), /Nothing may be called __proto__/],
    ['an unknown tag', `${EXAMPLE}x: !!js/function 'x'\n`, /The YAML is not sound/],
    ['a name that is no text', `${EXAMPLE}? [a, b]\n: x\n`, /:27: The YAML is not sound/],
    ['infinity', changed('perSecond: 500', 'perSecond: .inf'), /:11: \.inf is not a number of JSON/],
    [
      'a number that a double does not hold',
      changed('type: number', 'maximum: 9223372036854775807'),
      /:19: 9223372036854775807 has more digits than can be held/,
    ],
    ['a circle of aliases', 'a: &a { b: *a }\n', /aliases|YAML|Unknown/],
    ['too much of it', `# ${'x'.repeat(2_000_000)}`, /longer than a mebibyte/],
    ['depth', `a: ${'['.repeat(20_000)}`, /YAML|nested/],
  ])('%s is a fault', (_, text, expected) => {
    expect(faultsIn(text).join('\n')).toMatch(expected)
    expect(Object.prototype).not.toHaveProperty('owner')
  })

  test('a bomb of aliases is a fault at once', () => {
    const bomb = Array.from(
      { length: 30 },
      (_, index) => `a${index}: &a${index} [${index === 0 ? 'x' : `*a${index - 1}, *a${index - 1}`}]`,
    ).join('\n')
    const start = performance.now()
    expect(faultsIn(bomb).join('\n')).toContain('aliases')
    expect(performance.now() - start).toBeLessThan(5000)
  })

  test('an alias is a copy, and a number with an exact double is that number', () => {
    const text = contract(
      '{ type: object, properties: { a: &text { type: string }, b: *text, c: { maximum: 9007199254740991 } } }',
      reader('{ /a: pass }'),
    )
    expect(faultsIn(text)).toEqual([])
  })
})

describe('what may pass where', () => {
  const plain = (schema: string, treatments: string): string[] =>
    faultsIn(contract(schema, reader(treatments, 'form: plain,')))

  test('a classified field is found wherever it hides', () => {
    const secret = '{ type: string, x-classification: personal }'
    for (const [schema, treatments] of [
      [`{ type: object, properties: { a: { type: object, properties: { b: ${secret} } } } }`, '{ /a: pass }'],
      [`{ type: object, properties: { a: { type: array, items: ${secret} } } }`, '{ /a: pass }'],
      [`{ type: object, properties: { a: { type: array, contains: ${secret} } } }`, '{ /a: pass }'],
      [`{ type: object, properties: { a: { type: array, unevaluatedItems: ${secret} } } }`, '{ /a: pass }'],
      [
        `{ type: object, properties: { a: { type: array, contains: { properties: { b: ${secret} } } } } }`,
        '{ /a: pass }',
      ],
      [
        `{ type: object, properties: { a: true }, dependentSchemas: { a: { properties: { a: ${secret} } } } }`,
        '{ /a: pass }',
      ],
      [
        `{ type: object, properties: { a: true }, $ref: '#/$defs/s', $defs: { s: { properties: { a: ${secret} } } } }`,
        '{ /a: pass }',
      ],
      [
        `{ type: object, anyOf: [{ required: [b], properties: { a: true } }, true], unevaluatedProperties: ${secret} }`,
        '{ /a: pass }',
      ],
      [`{ type: object, properties: { a: { type: array, prefixItems: [${secret}] } } }`, '{ /a: pass }'],
      [
        `{ type: object, properties: { a: { type: object, additionalProperties: ${secret} } } }`,
        '{ /a: pass }',
      ],
      [
        `{ type: object, properties: { a: { type: object, patternProperties: { '^x': ${secret} } } } }`,
        '{ /a: pass }',
      ],
      [
        `{ type: object, properties: { a: { type: object, unevaluatedProperties: ${secret} } } }`,
        '{ /a: pass }',
      ],
      [`{ type: object, properties: { a: { anyOf: [{ type: integer }, ${secret}] } } }`, '{ /a: pass }'],
      [
        `{ type: object, properties: { a: true }, if: { required: [a] }, then: { properties: { a: ${secret} } } }`,
        '{ /a: pass }',
      ],
      [`{ type: object, properties: { a: { $ref: '#/$defs/s' } }, $defs: { s: ${secret} } }`, '{ /a: pass }'],
      [`{ type: object, properties: { a: { type: object, x-classification: personal } } }`, '{ /a: pass }'],
      [
        `{ type: object, properties: { n: ${secret}, kids: { type: array, items: { $ref: '#' } } } }`,
        '{ /kids: pass }',
      ],
      [
        `{ type: object, properties: { n: ${secret}, kids: { type: array, items: { $ref: '#' } } } }`,
        '{ /kids: pass, /kids/*/n: drop, /kids/*/kids/*/n: drop }',
      ],
    ])
      expect(plain(schema ?? '', treatments ?? '').join('\n')).toContain('would pass in clear')
  })

  test('an unclassified one may pass, and a classified one may be generalised', () => {
    const schema =
      '{ type: object, properties: { a: { type: string, x-classification: personal }, b: { type: string } } }'
    expect(plain(schema, '{ /a: { keep: 2 }, /b: pass }')).toEqual([])
    expect(faultsIn(contract(schema, reader('{ /a: pass, /b: pass }', 'form: sealed,')))).toEqual([])
  })

  test('a mark where it would classify no field is a fault: in not and in propertyNames, also behind a $ref', () => {
    const secret = '{ type: string, x-classification: personal }'
    for (const where of [
      `not: { properties: { a: ${secret} } }`,
      `not: { not: { properties: { a: ${secret} } } }`,
      `propertyNames: ${secret}`,
      "propertyNames: { $ref: '#/$defs/s' }",
    ]) {
      const schema = `{ type: object, properties: { a: { type: string } }, ${where}, $defs: { s: ${secret} } }`
      expect(plain(schema, '{ /a: pass }').join('\n')).toMatch(/An x-classification in (not|propertyNames)/)
    }
  })

  test.each(['dependencies: { a: { required: [b] } }', 'contentSchema: { type: string }'])(
    '%s, which nothing would look into, is a fault',
    (keyword) => {
      const schema = `{ type: object, properties: { a: true, b: true }, ${keyword} }`
      expect(faultsIn(contract(schema)).join('\n')).toMatch(/(dependencies|contentSchema) is not supported/)
    },
  )

  test('a mark cannot be lowered on the way down', () => {
    const schema =
      '{ type: object, properties: { a: { type: object, x-classification: sensitive, properties: { b: { type: string, x-classification: personal } } } } }'
    expect(faultsIn(contract(schema)).join('\n')).toContain(
      '/a/b is in something sensitive, and marked personal',
    )
  })

  test('a classified field of which no consumer speaks drops with a warning', () => {
    const schema =
      '{ type: object, properties: { a: { type: string, x-classification: personal }, b: { type: string } } }'
    expect(warningsIn(contract(schema, reader('{ /b: pass }'))).join('\n')).toContain(
      "No consumer's treatments speak of /a",
    )
    expect(warningsIn(contract(schema, reader('{ /a: drop, /b: pass }')))).toEqual([])
  })

  test('warns of a field that must be there and may not, which would reject every event', () => {
    const warned = (rest: string): string =>
      warningsIn(
        contract(`{ type: object, properties: { a: { type: string } }, ${rest} }`, reader('{ /a: pass }')),
      ).join('\n')
    const closed = 'additionalProperties: false'
    expect(warned(`required: [a, b], ${closed}`)).toContain('No object fits this: b must be there')
    expect(warned(`required: [a], ${closed}`)).toBe('')
    expect(warned('required: [a, b]')).toBe('')
    expect(warned(`required: [a, b], patternProperties: { ^b: true }, ${closed}`)).toBe('')
  })

  test('a pointer reaches through $ref, and into any branch of anyOf and oneOf', () => {
    const schema = `{ type: object, properties: { a: { $ref: '#/$defs/x' }, m: { oneOf: [{ type: object, properties: { card: { type: string } } }, { type: object, properties: { iban: { type: string } } }] } }, $defs: { x: { type: object, properties: { 'y/z': { type: string } } } } }`
    expect(faultsIn(contract(schema, reader("{ '/a/y~1z': pass, /m/card: pass, /m/iban: pass }")))).toEqual(
      [],
    )
    expect(faultsIn(contract(schema, reader('{ /m/cash: pass }'))).join('\n')).toContain(
      'There: /m/card, /m/iban.',
    )
  })

  test('items are named by *, not by number, and a tuple is treated as a whole', () => {
    const list = '{ type: object, properties: { a: { type: array, items: { type: string } } } }'
    expect(faultsIn(contract(list, reader('{ /a/*: pass }')))).toEqual([])
    expect(faultsIn(contract(list, reader('{ /a/0: pass }'))).join('\n')).toContain('There: /a/*.')
    const tuple =
      '{ type: object, properties: { a: { type: array, prefixItems: [{ type: string }, { type: integer }] } } }'
    expect(faultsIn(contract(tuple, reader('{ /a/*: { keep: 1 } }'))).join('\n')).toContain(
      'Treat the array as a whole',
    )
  })

  test('* is for arrays: over a dictionary, or what may be one, it would treat nothing', () => {
    const note = '{ type: object, properties: { note: { type: string } } }'
    const people = (place: string, treatment = 'drop'): string =>
      faultsIn(
        contract(
          `{ type: object, properties: { people: ${place} } }`,
          reader(`{ /people: pass, /people/*/note: ${treatment} }`, 'form: plain,'),
        ),
      ).join('\n')
    const dictionary = `{ type: object, additionalProperties: ${note} }`
    for (const place of [dictionary, `{ type: object, patternProperties: { '.': ${note} } }`]) {
      expect(people(place)).toMatch(/^a\.yaml:7: The schema has no field \/people\/\*/)
      expect(people(place, '{ mask: { show: 0 } }')).toContain('The schema has no field /people/*')
    }
    const list = `{ type: array, items: ${note} }`
    for (const place of [
      `{ anyOf: [${list}, ${dictionary}] }`,
      `{ anyOf: [${list}, { type: object }] }`,
      `{ items: ${note} }`,
      `{ type: [array, object], items: ${note}, additionalProperties: ${note} }`,
    ])
      expect(people(place)).toContain('/people may be an object, and * stands for the items of an array only')
    expect(people(list)).toBe('')
    expect(people(`{ type: [array, 'null'], items: ${note} }`)).toBe('')
    expect(people(`{ $ref: '#/$defs/l' } }, $defs: { l: ${list}`)).toBe('')
    expect(people(`{ type: object, properties: { '*': ${note} } }`)).toBe('')
  })

  test('what is routed must be able to be an object', () => {
    expect(faultsIn(contract('{ type: array }', reader("{ '': pass }"))).join('\n')).toContain(
      'Only an object can be passed on',
    )
    expect(faultsIn(contract('{ type: array }'))).toEqual([])
  })

  test('unevaluatedProperties beside patternProperties, of which Ajv makes a wrong validator, is a fault', () => {
    const schema = "{ type: object, unevaluatedProperties: false, patternProperties: { '^x': true } }"
    expect(faultsIn(contract(schema)).join('\n')).toContain('not supported together')
  })
})
