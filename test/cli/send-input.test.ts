/** What people may send, beyond the examples of event-lines.test.ts. */
import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { BadLine, readEvent, readLines } from '../../cli/event-lines.ts'
import { createPublishers } from '../../cli/publishers.ts'
import { loadContracts } from '../../lib/contract/load.ts'
import { ORDER_CONTRACT, ORDER_TYPE } from '../shop.ts'

const NONE = { type: undefined, source: undefined, key: undefined }

async function linesOf(chunks: readonly Uint8Array[]): Promise<[number, string | undefined][]> {
  async function* input(): AsyncGenerator<Uint8Array> {
    for (const chunk of chunks) yield await Promise.resolve(chunk)
  }
  const lines: [number, string | undefined][] = []
  for await (const some of readLines(input()))
    for (const { number, bytes } of some) lines.push([number, bytes && Buffer.from(bytes).toString()])
  return lines
}

describe('lines', () => {
  it('come out the same however the stream is cut', async () => {
    const text = fc.array(fc.constantFrom('a', 'bc', '\n', 'é', ' ')).map((parts) => parts.join(''))
    await fc.assert(
      fc.asyncProperty(text, fc.nat(20), async (whole, cut) => {
        const bytes = Buffer.from(whole)
        expect(await linesOf([bytes.subarray(0, cut), bytes.subarray(cut)])).toEqual(await linesOf([bytes]))
      }),
    )
  })

  it('are refused with BadLine and nothing else, whatever they hold', () => {
    const anything = fc.oneof(fc.json(), fc.string(), fc.constant('{"specversion":"1.0",'))
    fc.assert(
      fc.property(anything, fc.boolean(), (text, typed) => {
        try {
          readEvent(Buffer.from(text), typed ? { ...NONE, type: 't', key: ['a', ''] } : NONE)
        } catch (error) {
          expect(error).toBeInstanceOf(BadLine)
        }
      }),
      { numRuns: 2000 },
    )
  })

  it('give the record key at a pointer: a text, or the source text of a number, else none', () => {
    const line = Buffer.from('{"a":{"b":1.10,"c":"x\\u0041","d":null,"e":{}}}')
    const key = (...pointer: string[]): unknown => readEvent(line, { ...NONE, type: 't', key: pointer }).key
    const keys = [key('a', 'b'), key('a', 'c'), key('a', 'd'), key('a', 'e'), key('nope')]
    expect(keys).toEqual(['1.10', 'xA', null, null, null])
  })

  it('keep attributes apart that are called like what objects have anyway', () => {
    const line = '{"specversion":"1.0","type":"t","data":1,"__proto__":"x","constructor":"y"}'
    const { extensions } = readEvent(Buffer.from(line), NONE)
    expect(Object.entries(extensions ?? {})).toEqual([
      ['__proto__', 'x'],
      ['constructor', 'y'],
    ])
  })
})

describe('the publisher of an event', () => {
  const other = ORDER_CONTRACT.replace(
    'shop-web: { sources: [/shop/web] }',
    'pos: { sources: [/pos, /kiosk] }',
  )
    .replace(ORDER_TYPE, 'com.example.sale.v1')
    .replaceAll('orders', 'sales')
  const contracts = loadContracts(
    [ORDER_CONTRACT, other].map((text, index) => ({ file: `${index}.yaml`, text })),
  )
  const address = createPublishers(contracts, undefined)

  it('is the first whose sources fit, and its first source where the event has none', () => {
    expect(address('com.example.sale.v1', '/kiosk')).toMatchObject({
      channel: 'sales',
      iss: 'pos',
      isKnown: true,
    })
    expect(address(ORDER_TYPE, undefined)).toMatchObject({ iss: 'shop-web', source: '/shop/web' })
  })

  it('is the first of all where no source fits: the gate will refuse it', () => {
    expect(address('com.example.sale.v1', '/x')).toMatchObject({ channel: 'sales', iss: 'pos', source: '/x' })
  })

  it('of an unknown type is whoever has the source, on the first channel of the contracts', () => {
    const first = contracts.all[0]?.channel
    expect(address('unheard.of', '/kiosk')).toEqual({
      channel: first,
      iss: 'pos',
      source: '/kiosk',
      isKnown: false,
    })
    expect(address('constructor', undefined)).toMatchObject({ channel: first, isKnown: false })
  })

  it('is the one given, whatever the sources; one that no contract names is refused', () => {
    expect(createPublishers(contracts, 'pos')(ORDER_TYPE, '/shop/web')).toMatchObject({
      channel: 'orders',
      iss: 'pos',
      source: '/shop/web',
    })
    expect(() => createPublishers(contracts, 'nobody')).toThrow(
      'No contract names nobody. There are: pos, shop-web.',
    )
  })
})
