import { readFileSync } from 'node:fs'
import { describe, expect, test } from 'vitest'
import { authorise } from '../../lib/contract/authorise.ts'
import { buildBundle, contractsFrom, loadBundle } from '../../lib/contract/bundle.ts'
import type { ContractFile } from '../../lib/contract/contract-file.ts'
import type { Schema } from '../../lib/contract/shape.ts'
import { ConfigError, type Fault, Rejection } from '../../lib/errors.ts'
import { digest } from '../../lib/envelope/crypto.ts'

const contractFile = (type: string, channel = 'orders'): ContractFile => ({
  contract: 'sealgate/1',
  type,
  description: 'An order has been placed, paid, packed or posted.',
  owner: 'team-orders',
  channel,
  publish: { checkout: { sources: ['/shop/checkout', '/shop/app'] }, billing: { sources: ['/billing'] } },
  classification: 'restricted',
  limits: { maxBytes: 65_536, perSecond: 500 },
  schema: {
    type: 'object',
    required: ['orderId', 'total', 'customer'],
    additionalProperties: false,
    properties: {
      orderId: { type: 'string', maxLength: 40 },
      total: { type: 'number', minimum: 0 },
      customer: {
        type: 'object',
        'x-classification': 'personal',
        properties: {
          id: { type: 'string' },
          email: { type: 'string', format: 'email' },
          postcode: { type: 'string' },
        },
      },
    },
  },
  consume: {
    notifications: {
      purpose: 'notify',
      to: `notifications.${channel}`,
      form: 'sealed',
      treatments: { '/orderId': 'pass' },
    },
    analytics: {
      purpose: 'reporting',
      to: { type: 'analytics.' },
      form: 'plain',
      treatments: {
        '/total': 'pass',
        '/customer/id': { pseudonym: 'analytics' },
        '/customer/postcode': { keep: 3 },
      },
    },
  },
})
const faultsOf = (work: () => unknown): readonly Fault[] => {
  try {
    work()
    return []
  } catch (error) {
    if (error instanceof ConfigError) return error.faults
    throw error
  }
}
const bytes = (text: string): Buffer => Buffer.from(text, 'utf8')

describe('a bundle', () => {
  test('is the same for the same contracts in any order, and its digest is that of its bytes', () => {
    const [a, b, c] = [contractFile('a'), contractFile('b'), contractFile('a', 'returns')]
    const bundle = buildBundle([a, b, c])
    expect(buildBundle([c, a, b])).toEqual(bundle)
    expect(loadBundle(bundle).digest).toEqual(digest(bundle))
    expect(buildBundle([a, b])).not.toEqual(bundle)
  })

  test('gives back what was built', () => {
    const contracts = loadBundle(buildBundle([contractFile('a'), contractFile('b')]))
    expect(contracts.all.map((contract) => contract.type)).toEqual(['a', 'b'])
    const found = contracts.find('orders', 'b')
    expect(found).toMatchObject({
      owner: 'team-orders',
      maxBytes: 65_536,
      perSecond: 500,
      classification: 'restricted',
    })
    expect(found?.routes.map((route) => route.channel)).toEqual(['notifications.orders', 'analytics.b'])
    found?.payload.check('application/json', bytes('{"orderId":"1","total":1.10,"customer":{}}'))
    expect(contracts.find('orders', 'toString')).toBeUndefined()
    expect(contracts.find('__proto__', 'a')).toBeUndefined()
  })

  test.each<[string, Uint8Array]>([
    ['nothing', bytes('')],
    ['no JSON', bytes('{')],
    ['another document', bytes('{"bundle":"sealgate-contracts/2","contracts":[]}')],
    [
      'a contract of another shape',
      bytes('{"bundle":"sealgate-contracts/1","contracts":[{"contract":"sealgate/1"}]}'),
    ],
    ['bytes that are no text', Uint8Array.of(0xff, 0xfe)],
  ])('that is %s is refused', (_, bundle) => {
    expect(() => loadBundle(bundle)).toThrow(ConfigError)
  })

  test('that nobody has checked is refused with all that may cost too much or go together badly', () => {
    const child = { $ref: '#/$defs/node' }
    const multiplies = { anyOf: [{ properties: { of: child } }, { properties: { of: child } }] }
    const apart = ['not', 'any'].map((op) => ({
      type: 'object',
      required: ['op'],
      properties: { op: { const: op }, of: child },
    }))
    const filter = (node: Schema): Pick<ContractFile, 'schema'> => ({
      schema: { type: 'object', properties: { filter: child }, $defs: { node } },
    })
    const reader = (treatment: 'pass' | { keep: number }, to = 'filters') => ({
      reader: { purpose: 'read', to, treatments: { '/filter': treatment } },
    })
    const bundle = (...contracts: Partial<ContractFile>[]): (() => unknown) => {
      const files = contracts.map((contract, index) => ({ ...contractFile(`${index}`), ...contract }))
      return () => loadBundle(bytes(JSON.stringify({ bundle: 'sealgate-contracts/1', contracts: files })))
    }
    const sound = { ...filter({ oneOf: apart }), consume: reader('pass') }
    expect(bundle(sound)).not.toThrow()
    const faults = faultsOf(
      bundle(
        { ...filter(multiplies), consume: reader('pass') },
        { schema: { $ref: '#/$defs/loop', $defs: { loop: { allOf: [{ $ref: '#/$defs/loop' }] } } } },
        { ...sound, consume: reader({ keep: 3 }) },
        { ...sound, type: '0' },
        { ...sound, consume: reader('pass', 'orders') },
      ),
    )
    expect(faults.map(({ where, what }) => `${where}: ${what}`)).toEqual([
      expect.stringMatching(/^bundle\/contracts\/0\/schema\/\$defs\/node.*multiplies/),
      expect.stringMatching(/^bundle\/contracts\/1\/schema.*refers to itself/),
      expect.stringMatching(/^bundle\/contracts\/2\/consume\/reader: .*not told apart any more/),
      expect.stringMatching(/^bundle\/contracts\/3\/type: .*is a contract for 0 on orders already/),
      expect.stringMatching(/^bundle\/contracts\/4\/consume\/reader\/to: .*would come in again/),
    ])
  })

  test('is data: what it holds is never run as code', () => {
    const hostile = {
      ...contractFile('a'),
      schema: {
        properties: { '"]);globalThis.ran=1;//': { const: '${globalThis.ran=1}' } },
        'x-classification': "');globalThis.ran=1;('",
      },
    }
    loadBundle(buildBundle([hostile])).all[0]?.payload.check('application/json', bytes('{}'))
    expect(globalThis).not.toHaveProperty('ran')
  })

  test('of 10,000 contracts loads in well under a second, and a look-up costs no more than in one of ten', () => {
    const files = Array.from({ length: 10_000 }, (_, index) =>
      contractFile(`com.example.thing${index}.happened.v1`, `channel-${index % 100}`),
    )
    const bundle = buildBundle(files)
    const time = (run: () => void): number => {
      const start = performance.now()
      run()
      return performance.now() - start
    }
    const contracts = loadBundle(bundle)
    // Beside the parsing of its JSON, which nobody spares: a bound in milliseconds would ask what else the machine does.
    const parsing = (): number => time(() => JSON.parse(Buffer.from(bundle).toString()))
    const rounds = [1, 2, 3, 4, 5].map(() => time(() => loadBundle(bundle)) / parsing())
    expect(contracts.all).toHaveLength(10_000)
    expect(Math.min(...rounds)).toBeLessThan(8)
    const few = loadBundle(buildBundle(files.slice(0, 10)))
    const lookUps = (table: typeof contracts, name: string, channel: string) => () => {
      for (let round = 0; round < 200_000; round++)
        if (table.find(channel, name) === undefined) throw new TypeError(name)
    }
    const ratios = [1, 2, 3, 4, 5].map(
      () =>
        time(lookUps(contracts, 'com.example.thing9707.happened.v1', 'channel-7')) /
        time(lookUps(few, 'com.example.thing7.happened.v1', 'channel-7')),
    )
    expect(Math.min(...ratios)).toBeLessThan(3)
  })
})

describe('contracts of the vectors', () => {
  const load = (name: string): unknown[] => {
    const world: unknown = JSON.parse(readFileSync(new URL(`../vectors/${name}`, import.meta.url), 'utf8'))
    const contracts =
      typeof world === 'object' && world !== null && 'contracts' in world ? world.contracts : []
    return Array.isArray(contracts) ? contracts : []
  }

  test.each(['single.json', 'contracts.json', 'limits.json'])('of %s are taken as they are', (name) => {
    const contracts = contractsFrom(load(name))
    expect(contracts.all.length).toBeGreaterThan(0)
    const found = contracts.find('orders', 'com.example.order.placed.v1')
    expect(found).toMatchObject({ maxBytes: 1_048_576, routes: [] })
    expect(found?.publish.get('urn:example:svc:billing')).toEqual(new Set(['/shop/checkout']))
    expect(
      contracts.find('refunds', 'com.example.order.placed.v1')?.publish.has('urn:example:svc:billing'),
    ).toBe(false)
  })

  test('that are wrong are refused, each by its number', () => {
    const good = { type: 't', channel: 'c', publish: ['p'], sources: ['/s'], maxBytes: 10, schema: true }
    expect(contractsFrom([good]).find('c', 't')?.maxBytes).toBe(10)
    for (const bad of [
      good,
      { ...good, type: '' },
      { ...good, schema: { type: 'nothing' } },
      { ...good, x: 1 },
      null,
      'text',
    ])
      expect(() => contractsFrom([good, bad])).toThrow(/contract 2/)
  })
})

describe('to authorise', () => {
  const contracts = contractsFrom([contractFile('placed')])
  const codeOf = (channel: string, iss: string, type: string, source: string): string => {
    try {
      return authorise(channel, { iss, type, source }, contracts).type
    } catch (error) {
      if (error instanceof Rejection) return error.code
      throw error
    }
  }

  test.each([
    ['orders', 'checkout', 'placed', '/shop/app', 'placed'],
    ['orders', 'billing', 'placed', '/billing', 'placed'],
    ['orders', 'checkout', 'Placed', '/shop/app', 'type-unknown'],
    ['returns', 'checkout', 'placed', '/shop/app', 'type-unknown'],
    ['orders', 'checkout', '__proto__', '/shop/app', 'type-unknown'],
    ['orders', 'shipping', 'placed', '/shop/app', 'not-authorised'],
    ['orders', 'constructor', 'placed', '/shop/app', 'not-authorised'],
    ['orders', 'checkout', 'placed', '/shop/app/', 'not-authorised'],
    ['orders', 'billing', 'placed', '/shop/app', 'not-authorised'],
  ])('on %s as %s, type %s, source %s: %s', (channel, iss, type, source, expected) => {
    expect(codeOf(channel, iss, type, source)).toBe(expected)
  })
})
