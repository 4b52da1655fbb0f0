import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { encodeEntry, type Entry, type EventClaims } from '../../lib/audit/entry.ts'
import {
  MAX_RANGES,
  OffsetRanges,
  type Touched,
  touchedBy,
  type TouchedQuery,
} from '../../lib/audit/touched.ts'
import { admitted, policy, type Rec, sourceOf } from './fixtures.ts'

const kid = Buffer.from('k1').toString('base64url')
const T = 1_795_000_000_123
const event: EventClaims = {
  ...{ iss: 'shipping-service', kid: Buffer.from('k1'), id: 'i', source: '/s', type: 't' },
}
const rejected = (offset: bigint, code: 'schema-invalid' | 'key-not-valid', more: object = {}): Entry => ({
  ...{ kind: 'event.rejected', timeMs: T, topic: 'orders', partition: 0, offset, policy, trace: null },
  ...{ code, digest: null, event, ...more },
})
const records = (...entries: Entry[]): Rec[] =>
  entries.map((entry, index) => ({ offset: BigInt(index), key: null, value: encodeEntry(entry) }))
const touched = (query: Partial<TouchedQuery>, ...partitions: Rec[][]): Promise<Touched> =>
  touchedBy(sourceOf(partitions), { kid, ...query })

describe('what a key touched', () => {
  it('is counted by source partition, what is proven apart from what only names it', async () => {
    const report = await touched(
      {},
      records(admitted(0n), admitted(1n), rejected(3n, 'schema-invalid'), rejected(4n, 'key-not-valid')),
      records(admitted(7n, 'orders', 1), { ...admitted(8n, 'orders', 1), timeMs: T + 5 }),
    )
    expect(report).toMatchObject({ searched: 6, omitted: 0 })
    const range = (from: bigint, next: bigint) => ({ from, next })
    expect(report.places).toEqual([
      {
        ...{ topic: 'orders', partition: 0 },
        proven: {
          ...{ admitted: 2, rejected: new Map([['schema-invalid', 1]]), isCoarse: false },
          ...{ ranges: [range(0n, 2n), range(3n, 4n)], firstMs: T, lastMs: T },
        },
        claimed: {
          ...{ admitted: 0, rejected: new Map([['key-not-valid', 1]]), isCoarse: false },
          ...{ ranges: [range(4n, 5n)], firstMs: T, lastMs: T },
        },
      },
      {
        ...{ topic: 'orders', partition: 1, claimed: undefined },
        proven: {
          ...{ admitted: 2, rejected: new Map(), isCoarse: false, ranges: [range(7n, 9n)] },
          ...{ firstMs: T, lastMs: T + 5 },
        },
      },
    ])
    expect(report.channels).toEqual(new Map([['orders.notifications', 4]]))
  })

  it('is none of another key, none outside the times asked for, and no segment or broken record', async () => {
    const other = { ...admitted(0n), event: { ...event, kid: Buffer.from('k2') } }
    const broken = { offset: 0n, key: null, value: Buffer.from('{"record":"orders/0/0"}') }
    const page = [...records(other, admitted(1n)), broken, { ...broken, value: null }]
    expect((await touched({ sinceMs: T + 1 }, page)).places).toEqual([])
    expect((await touched({ untilMs: T }, page)).places).toEqual([])
    const { places, searched } = await touched({ sinceMs: T, untilMs: T + 1 }, page)
    expect([places.length, searched]).toEqual([1, 2])
    expect(places[0]?.proven?.ranges).toEqual([{ from: 1n, next: 2n }])
  })

  it('of a redriven record is told where it first came in', async () => {
    const source = { topic: 'orders', partition: 3, offset: 9n }
    const quarantine = { topic: 'test.quarantine', partition: 0, offset: 0n }
    const redriven = { source, quarantine, by: null, reason: null, expired: false }
    const again = { ...admitted(0n, '_control.orders', 3), redriven } as const
    const { places } = await touched({}, records(again))
    expect(places).toMatchObject([
      { topic: 'orders', partition: 3, proven: { ranges: [{ from: 9n, next: 10n }] } },
    ])
  })
})

describe('offset ranges', () => {
  it('cover what was added and nothing else, in any order', () => {
    fc.assert(
      fc.property(fc.array(fc.bigInt({ min: 0n, max: 200n }), { maxLength: 100 }), (offsets) => {
        const ranges = new OffsetRanges()
        for (const offset of offsets) ranges.add(offset)
        const covered: bigint[] = []
        for (const { from, next } of ranges.list())
          for (let offset = from; offset < next; offset++) covered.push(offset)
        expect(covered).toEqual([...new Set(offsets)].sort((a, b) => Number(a - b)))
        expect(ranges.isCoarse).toBe(false)
        const list = ranges.list()
        for (const [index, { from }] of list.entries())
          expect(from > (list[index - 1]?.next ?? -1n)).toBe(true)
      }),
    )
  })

  it('are bounded however many there are, say so, cover all that was added, and stay quick', () => {
    const ranges = new OffsetRanges()
    const start = performance.now()
    for (let offset = 0n; offset < 600_000n; offset += 3n) ranges.add(offset)
    expect(performance.now() - start).toBeLessThan(5000)
    expect(ranges.list().length).toBeLessThanOrEqual(MAX_RANGES)
    expect(ranges.isCoarse).toBe(true)
    const isCovered = (offset: bigint): boolean =>
      ranges.list().some(({ from, next }) => from <= offset && offset < next)
    for (let offset = 0n; offset < 600_000n; offset += 29_997n) expect(isCovered(offset)).toBe(true)
    expect(isCovered(600_000n)).toBe(false)
  })
})
