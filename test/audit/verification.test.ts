import fc from 'fast-check'
import { beforeAll, describe, expect, test } from 'vitest'
import { encodeEntry } from '../../lib/audit/entry.ts'
import { type AuditHead, parseSegment } from '../../lib/audit/segment.ts'
import { MAX_BREAKS, verifyAudit, type VerificationReport } from '../../lib/audit/verification.ts'
import { compareBytes } from '../../lib/cbor.ts'
import { ESP256 } from '../../lib/envelope/suite.ts'
import { admitted, newSigner, type Rec, sourceOf, Stream, type TestSigner, there } from './fixtures.ts'

const gate = newSigner()
const second = newSigner(ESP256)
const attacker = newSigner()

const keyOf = (...signers: TestSigner[]) => {
  return (kid: Uint8Array) => signers.find((signer) => compareBytes(signer.kid, kid) === 0)?.publicKey
}

interface Asked {
  heads?: ReadonlyMap<string, AuditHead>
  from?: number
  to?: number
}

function verify(records: readonly Rec[], { heads, ...times }: Asked = {}): Promise<VerificationReport> {
  return verifyAudit(sourceOf([records], heads), { keyOf: keyOf(gate, second), ...times })
}

const kinds = (report: VerificationReport): string[] => report.breaks.map(({ kind }) => kind)

/** Offsets on the stream's audit partition: each slice of three is 4 records, of two other partitions 3 and 1. */
let stream: Stream
let good: readonly Rec[]
/** Where the segments of orders/0 stand. */
let segments: number[]

beforeAll(async () => {
  stream = new Stream(gate)
  for (let round = 0; round < 5; round++) {
    await stream.slice(3, { gap: round % 2 })
    await stream.slice(2, { topic: 'payments', partition: 7 })
    await stream.slice(0, { topic: '_control', partition: 0 })
  }
  good = stream.records
  segments = good.flatMap(({ key }, index) => (String(key) === 'orders/0' ? [index] : []))
})

const without = (...indexes: number[]): Rec[] => good.filter((_, index) => !indexes.includes(index))

const swapped = (a: number, b: number): Rec[] =>
  good.map((record, index) => (index === a ? there(good[b]) : index === b ? there(good[a]) : record))

const changed = (at: number, change: (value: Buffer) => void): Rec[] =>
  good.map((record, index) => {
    if (index !== at) return record
    const value = Buffer.from(there(record.value))
    change(value)
    return { ...record, value }
  })

const flip = (value: Buffer, at: number): void => {
  value[at] = (value[at] ?? 0) ^ 1
}

describe('an audit as the gate wrote it', () => {
  test('verifies, with entries, segments and the offsets decided of each source partition', async () => {
    const report = await verify(good, { heads: stream.heads })
    expect(report).toMatchObject({
      verified: true,
      headsKnown: true,
      entries: 25,
      segments: 15,
      breaks: [],
      breaksOmitted: 0,
    })
    expect(report.ranges).toMatchObject([
      { topic: 'orders', partition: 0, from: 0n, next: 21n, segments: 5, entries: 15, breaks: 0 },
      { topic: 'payments', partition: 7, from: 0n, next: 10n, segments: 5, entries: 10 },
      { topic: '_control', partition: 0, from: 0n, next: 0n, segments: 5, entries: 0 },
    ])
  })

  test('verifies without the heads, and says that it did not know them', async () => {
    expect(await verify(good)).toMatchObject({ verified: true, headsKnown: false })
  })

  test('says which chain has no head, of a position that is gone', async () => {
    const heads = new Map([...stream.heads].filter(([name]) => name !== '_control/0'))
    expect(await verify(good, { heads })).toMatchObject({
      verified: true,
      headsKnown: false,
      headless: ['_control/0'],
    })
  })

  test('may change its software, key, algorithm and epoch; a new epoch goes back to any offset', async () => {
    const changing = new Stream(gate)
    await changing.slice(3)
    const rotated = new Stream(second)
    rotated.records.push(...changing.records)
    rotated.heads.set('orders/0', there(changing.heads.get('orders/0')))
    await rotated.slice(1, { epoch: 2, software: 'sealgate/0.2.0' })
    expect(await verify(rotated.records, { heads: rotated.heads })).toMatchObject({
      verified: true,
      segments: 2,
      entries: 4,
    })
  })

  test('may have grown since the heads were read', async () => {
    const grown = new Stream(gate)
    await grown.slice(2)
    const heads = new Map(grown.heads)
    await grown.slice(2)
    expect(await verify(grown.records, { heads })).toMatchObject({ verified: true, segments: 2 })
  })

  test('may begin at any source offset', async () => {
    const late = new Stream(gate)
    await late.slice(0, { from: 1_000n, next: 1_000n })
    await late.slice(2)
    expect((await verify(late.records, { heads: late.heads })).ranges[0]).toMatchObject({
      from: 1_000n,
      next: 1_002n,
    })
  })

  test('adds up the numbers that never came', async () => {
    const gaps = new Stream(gate)
    await gaps.slice(1, { unseen: 2 })
    await gaps.slice(1, { unseen: 3 })
    expect((await verify(gaps.records)).ranges[0]?.unseen).toBe(5)
  })
})

describe('tampering is found, and called what it is', () => {
  const cases: [string, string, () => readonly Rec[]][] = [
    ['an altered entry', 'altered', () => changed(1, (value) => flip(value, 20))],
    [
      'an entry that names another record',
      'altered',
      () => changed(1, (value) => value.write('9', value.indexOf('orders/0/1') + 9)),
    ],
    [
      'an entry that names another partition',
      'altered',
      () => changed(1, (value) => value.write('1', value.indexOf('orders/0/1') + 7)),
    ],
    ['an entry made unreadable', 'altered', () => changed(1, (value) => value.fill(0))],
    [
      'an altered segment',
      'altered',
      () => changed(there(segments[2]), (value) => flip(value, value.length - 1)),
    ],
    ['a segment made unreadable', 'altered', () => changed(there(segments[2]), (value) => flip(value, 3))],
    [
      'the altered last segment',
      'altered',
      () => changed(there(segments[4]), (value) => flip(value, value.length - 1)),
    ],
    [
      'an entry without its value',
      'altered',
      () => good.map((record, index) => (index === 1 ? { ...record, value: null } : record)),
    ],
    [
      'an entry without its key',
      'altered',
      () => good.map((record, index) => (index === 1 ? { ...record, key: null } : record)),
    ],
    [
      "an entry under another's key",
      'altered',
      () => good.map((record, index) => (index === 1 ? { ...record, key: there(good[2]).key } : record)),
    ],
    [
      "a segment under another's key",
      'altered',
      () =>
        good.map((record, index) =>
          index === segments[1] ? { ...record, key: Buffer.from('payments/7') } : record,
        ),
    ],
    [
      'an inserted entry',
      'altered',
      () =>
        good.toSpliced(2, 0, {
          offset: 0n,
          key: Buffer.from('orders/0/1'),
          value: encodeEntry({ ...admitted(1n), timeMs: 5 }),
        }),
    ],
    [
      'an entry added to a closed slice',
      'altered',
      () => good.toSpliced(there(segments[0]) + 1, 0, there(good[1])),
    ],
    [
      'an entry added at the end',
      'altered',
      () => [...good, { offset: 0n, key: Buffer.from('orders/0/21'), value: encodeEntry(admitted(21n)) }],
    ],
    ['an entry twice', 'altered', () => good.toSpliced(1, 0, there(good[1]))],
    [
      'a segment twice',
      'altered',
      () => good.toSpliced(there(segments[1]), 0, there(good[there(segments[1])])),
    ],
    ['a whole slice twice', 'altered', () => [...good, ...good.slice(0, 4)]],
    ['a dropped entry', 'missing', () => without(1)],
    ['a dropped first entry', 'missing', () => without(0)],
    ['a dropped segment', 'missing', () => without(there(segments[2]))],
    ['a dropped slice', 'missing', () => without(...[0, 1, 2, 3].map((back) => there(segments[2]) - back))],
    ['a dropped beginning', 'missing', () => good.slice(there(segments[0]) + 1)],
    ['two entries exchanged', 'reordered', () => swapped(1, 2)],
    [
      'an entry moved behind its segment',
      'reordered',
      () => swapped(there(segments[1]), there(segments[1]) - 1),
    ],
    [
      'an entry moved before the segment of the slice before',
      'reordered',
      () => swapped(there(segments[0]), 8),
    ],
    ['entries of two slices exchanged', 'reordered', () => swapped(1, there(segments[1]) - 1)],
    ['two segments exchanged', 'reordered', () => swapped(there(segments[1]), there(segments[2]))],
    [
      'two slices exchanged',
      'reordered',
      () => [...good.slice(8, 12), ...good.slice(4, 8), ...good.slice(0, 4), ...good.slice(12)],
    ],
  ]

  test.each(cases)('%s is %s, and nothing else', async (_, kind, tampered) => {
    const report = await verify(tampered(), { heads: stream.heads })
    expect(report.verified).toBe(false)
    expect([...new Set(kinds(report))]).toEqual([kind])
  })

  test('each break says where it is', async () => {
    const report = await verify(
      changed(there(segments[2]) - 1, (value) => flip(value, 20)),
      { heads: stream.heads },
    )
    expect(report.breaks).toEqual([
      {
        kind: 'altered',
        topic: 'orders',
        partition: 0,
        at: { auditPartition: 0, auditOffset: BigInt(there(segments[2])) },
        from: 9n,
        next: 12n,
        detail: expect.any(String) as string,
      },
    ])
    expect(report.ranges[0]).toMatchObject({ segments: 4, entries: 12, breaks: 1 })
    expect(report.ranges[1]).toMatchObject({ segments: 5, breaks: 0 })
  })

  test('a tail that was cut is found by the head, wherever the cut is', async () => {
    for (let length = 0; length < good.length; length++) {
      const report = await verify(good.slice(0, length), { heads: stream.heads })
      expect(report.verified).toBe(false)
      expect(new Set(kinds(report))).toEqual(new Set(['cut at the end']))
    }
  })

  test('a tail that was cut in a slice is found without the head; one cut between slices is not', async () => {
    expect(kinds(await verify(good.slice(0, 3)))).toEqual(['cut at the end'])
    expect((await verify(good.slice(0, 4))).verified).toBe(true)
  })

  test('two histories by the same key are a fork, whichever came first', async () => {
    const other = new Stream(gate)
    for (let round = 0; round < 3; round++) await other.slice(3, { gap: round % 2, unseen: 9 })
    const slices = [0, 1, 2].map((index) => other.records.slice(index * 4, index * 4 + 4))
    const beside = good.toSpliced(there(segments[0]) + 1, 0, ...there(slices[0]))
    expect(kinds(await verify(beside, { heads: stream.heads }))).toEqual(['forked'])
    const instead = good.toSpliced(there(segments[1]) - 3, 4, ...there(slices[1]))
    expect(new Set(kinds(await verify(instead, { heads: stream.heads })))).toEqual(new Set(['forked']))
  })

  test('a whole other history by the same key is a fork to who knows the head', async () => {
    const other = new Stream(gate)
    for (let round = 0; round < 5; round++) await other.slice(3, { unseen: 1 })
    const heads = new Map([['orders/0', there(stream.heads.get('orders/0'))]])
    expect(kinds(await verify(other.records, { heads }))).toEqual(['forked'])
  })

  test('a slice that decides again, or leaves offsets out, or belongs to another deployment, is no good though it is signed', async () => {
    const tries: [string, object][] = [
      ['forked', { from: 1n, next: 4n }],
      ['missing', { from: 5n, next: 9n }],
      ['forked', { epoch: 0 }],
      ['forked', { deployment: 'other' }],
    ]
    for (const [kind, change] of tries) {
      const bad = new Stream(gate)
      await bad.slice(3)
      await bad.slice(0, change)
      expect(kinds(await verify(bad.records))).toEqual([kind])
    }
  })

  test('a segment by a key that is not pinned counts for nothing', async () => {
    const forged = new Stream(attacker)
    await forged.slice(3)
    const inserted = good.toSpliced(there(segments[0]) + 1, 0, there(forged.records[3]))
    expect(kinds(await verify(inserted, { heads: stream.heads }))).toEqual(['signed by an unknown key'])
    const replaced = good.toSpliced(there(segments[0]), 1, there(forged.records[3]))
    expect(kinds(await verify(replaced, { heads: stream.heads }))).toEqual(['signed by an unknown key'])
  })

  test('a partition written anew by an attacker has no good segment', async () => {
    const forged = new Stream(attacker)
    for (let round = 0; round < 5; round++) await forged.slice(3)
    const report = await verify(forged.records, {
      heads: new Map([['orders/0', there(stream.heads.get('orders/0'))]]),
    })
    expect(kinds(report)).toEqual(Array(5).fill('signed by an unknown key'))
    expect(report).toMatchObject({ segments: 0, entries: 0, verified: false })
  })

  test("an attacker's key under the gate's kid makes an altered segment", async () => {
    const forged = new Stream({ ...attacker, kid: gate.kid })
    await forged.slice(3)
    expect(kinds(await verify(forged.records))).toEqual(['altered'])
  })

  test('a record moved to another audit partition is out of place', async () => {
    const reports = await Promise.all(
      [
        [good, [there(good[1])]],
        [[there(good[1])], good],
        [without(1), [there(good[1])]],
        [[there(good[1])], without(1)],
        [[there(good[0])], without(0)],
      ].map((partitions) => verifyAudit(sourceOf(partitions, stream.heads), { keyOf: keyOf(gate) })),
    )
    expect(reports.map(({ verified }) => verified)).toEqual([false, false, false, false, false])
    for (const report of reports.slice(3)) expect(kinds(report)).toEqual(['reordered'])
  })

  test('what is missing in one slice is not taken for what was altered in the next', async () => {
    const renamed = changed(there(segments[1]) - 1, (value) =>
      value.write('x', value.indexOf('"orders/0/') + 1),
    )
    const report = await verify(renamed.slice(1), { heads: stream.heads })
    const found = report.breaks.map(({ kind, from, next }) => `${kind} ${from} ${next}`)
    expect(found.sort()).toEqual(['altered 8 9', 'missing 0 3'])
  })

  test('an added entry is the one that is named, whether it stands before or behind the true one', async () => {
    for (const at of [1, 2]) {
      const added = { ...there(good[1]), value: encodeEntry({ ...admitted(1n), timeMs: 5 }) }
      const report = await verify(good.toSpliced(at, 0, added), { heads: stream.heads })
      expect(report).toMatchObject({
        segments: 15,
        breaks: [{ kind: 'altered', at: { auditOffset: BigInt(at) } }],
      })
    }
  })

  test('an entry added under a key that is not its own is one break, and the slice still holds', async () => {
    const added = { ...there(good[1]), key: Buffer.from('x') }
    const report = await verify(good.toSpliced(1, 0, added), { heads: stream.heads })
    expect(report).toMatchObject({
      segments: 15,
      breaks: [{ kind: 'altered', at: { auditOffset: 1n } }],
      breaksOmitted: 0,
    })
    expect(report.breaks).toHaveLength(1)
  })

  test('a segment counts for no entries outside its offsets, though it is signed over them', async () => {
    const bad = new Stream(gate)
    await bad.slice(2, { from: 10n, next: 12n })
    expect(await verify(bad.records)).toMatchObject({ verified: false, segments: 0 })
  })

  test('several attacks on one audit are told apart', async () => {
    const records = [...good]
    records[there(segments[4]) - 1] = there(
      changed(there(segments[4]) - 1, (value) => flip(value, 20))[there(segments[4]) - 1],
    )
    records.splice(1, 1)
    const payments = records.findLastIndex(({ key }) => String(key) === 'payments/7')
    records.splice(payments, 1)
    const report = await verify(records, { heads: stream.heads })
    const found = report.breaks.map(({ kind, topic }) => `${topic} ${kind}`)
    expect(found.sort()).toEqual(['orders altered', 'orders missing', 'payments cut at the end'])
  })

  test('thousands of breaks are counted, and the first of them listed', async () => {
    const junk = Array.from({ length: MAX_BREAKS + 5 }, (): Rec => ({
      offset: 0n,
      key: Buffer.from('x'),
      value: Buffer.from('x'),
    }))
    expect(await verify(junk)).toMatchObject({
      verified: false,
      breaksOmitted: 5,
      breaks: { length: MAX_BREAKS },
    })
  })
})

describe('a span of time', () => {
  const time = (index: number): number =>
    there(parseSegment(there(there(good[there(segments[index])]).value))).time

  test('limits what is counted to the segments in it', async () => {
    expect(await verify(good, { from: time(1), to: time(3) })).toMatchObject({
      verified: true,
      segments: 6,
      entries: 10,
    })
  })

  test('hides breaks that lie wholly outside it, and none that may lie within', async () => {
    const tampered = without(there(segments[2]) - 1) // closed at time(2)
    expect((await verify(tampered, { to: time(1) })).verified).toBe(true)
    expect((await verify(tampered, { from: time(3) })).verified).toBe(true)
    expect((await verify(tampered, { from: time(2) })).verified).toBe(false)
    expect((await verify(tampered, { to: time(2) })).verified).toBe(false)
  })

  test('lets an audit begin later than the chain where the beginning lies before it', async () => {
    const kept = good.slice(there(segments[2]))
    expect((await verify(kept, { heads: stream.heads })).verified).toBe(false)
    expect(await verify(kept, { heads: stream.heads, from: time(3) + 1 })).toMatchObject({
      verified: true,
      segments: 3,
    })
  })

  test('before the end does not ask for the end', async () => {
    const cut = good.slice(0, there(segments[3]) + 1)
    expect((await verify(cut, { heads: stream.heads, to: time(2) })).verified).toBe(true)
    expect((await verify(cut, { heads: stream.heads })).verified).toBe(false)
  })
})

describe('any tampering', () => {
  test('any byte changed, any record removed, repeated or exchanged, in any stream, is found', async () => {
    const slices = fc.array(fc.record({ count: fc.nat(4), gap: fc.nat(2), partition: fc.nat(1) }), {
      minLength: 1,
      maxLength: 14,
    })
    const attack = fc.record({
      how: fc.constantFrom('change', 'change key', 'remove', 'repeat', 'exchange', 'cut'),
      a: fc.nat(),
      b: fc.nat(),
      byte: fc.nat(),
      bits: fc.integer({ min: 1, max: 255 }),
    })
    await fc.assert(
      fc.asyncProperty(slices, fc.array(attack, { minLength: 6, maxLength: 6 }), async (plan, attacks) => {
        const made = new Stream(gate)
        for (const { count, gap, partition } of plan) await made.slice(count, { gap, partition })
        const { records, heads } = made
        expect((await verify(records, { heads })).verified).toBe(true)
        for (const { how, a, b, byte, bits } of attacks) {
          const at = a % records.length
          const to = b % records.length
          const one = there(records[at])
          const flipped = (bytes: Uint8Array | null): Buffer => {
            const copy = Buffer.from(there(bytes))
            copy[byte % copy.length] = (copy[byte % copy.length] ?? 0) ^ bits
            return copy
          }
          const tampered = [...records]
          if (how === 'change') tampered[at] = { ...one, value: flipped(one.value) }
          else if (how === 'change key') tampered[at] = { ...one, key: flipped(one.key) }
          else if (how === 'remove') tampered.splice(at, 1)
          else if (how === 'repeat') tampered.splice(to, 0, one)
          else if (how === 'cut') tampered.length = at
          else {
            // Records of two source partitions have no order among them.
            const pair = (record: Rec): string => String(record.key).split('/').slice(0, 2).join('/')
            const between = tampered.slice(Math.min(at, to), Math.max(at, to) + 1)
            if (
              at === to ||
              !between.slice(1, -1).every((record) => pair(record) === pair(one)) ||
              pair(one) !== pair(there(records[to]))
            )
              continue
            tampered[at] = there(records[to])
            tampered[to] = one
          }
          expect((await verify(tampered, { heads })).verified).toBe(false)
        }
      }),
      { numRuns: 60 },
    )
  })

  test('bytes of any kind are reported, never an exception', async () => {
    const bytes = fc.oneof(
      fc.uint8Array({ maxLength: 40 }),
      fc.string({ maxLength: 40 }).map((text) => Buffer.from(text)),
      fc
        .constantFrom(
          'orders/0',
          'orders/0/1',
          '__proto__/0',
          '{"record":"orders/0/1"}',
          '{"record":{}}',
          '[]',
        )
        .map((text) => Buffer.from(text)),
    )
    const record = fc.record({ offset: fc.constant(0n), key: fc.option(bytes), value: fc.option(bytes) })
    await fc.assert(
      fc.asyncProperty(fc.array(record, { minLength: 1, maxLength: 12 }), async (records) => {
        expect((await verify(records)).verified).toBe(false)
      }),
      { numRuns: 200 },
    )
  })
})
