import { describe, expect, test } from 'vitest'
import { Chain, type ChainBreak } from '../../lib/audit/chain.ts'
import { closeSegment, FIRST_HEAD, parseSegment, type Segment } from '../../lib/audit/segment.ts'
import { verifyAudit } from '../../lib/audit/verification.ts'
import { leafHash } from '../../lib/envelope/merkle.ts'
import { newSigner, policy, type Rec, sourceOf, there } from './fixtures.ts'

const gate = newSigner()

/** A chain of `count` segments of one source offset each, without entries. */
async function emptySegments(count: number, fork = 0): Promise<{ value: Uint8Array; segment: Segment }[]> {
  const made = []
  let head = FIRST_HEAD
  for (let index = 0; index < count; index++) {
    const closed = await closeSegment(
      {
        head,
        entries: [],
        deployment: 'test',
        topic: 'orders',
        partition: 0,
        from: BigInt(index),
        next: BigInt(index + 1),
        time: 1_795_000_000 + index,
        ...policy,
        software: 'sealgate/0.1.0',
        epoch: 1,
        unseen: fork,
      },
      gate,
      0,
    )
    head = closed.head
    made.push({ value: closed.value, segment: there(parseSegment(closed.value)) })
  }
  return made
}

/** A record of the audit: a segment, or an entry of a source offset. */
type Step = Segment | bigint

const LEAF = leafHash(Buffer.from('{}'))

interface Work {
  /** How often the offsets of a segment were looked at: comparing it with each open entry shows here. */
  readonly looks: number
  /** Breaks found: naming the same entries again and again shows here. */
  readonly breaks: number
}

/** What a chain does with these records. */
function workOf(steps: readonly Step[]): Work {
  let looks = 0
  let breaks = 0
  const counted = (segment: Segment): Segment => ({
    ...segment,
    get from() {
      looks++
      return segment.from
    },
    get next() {
      looks++
      return segment.next
    },
  })
  const records = steps.map((step) => (typeof step === 'bigint' ? step : counted(step)))
  const chain = new Chain(undefined, { settled: () => undefined, broken: () => breaks++ })
  for (const [index, record] of records.entries()) {
    const at = { auditPartition: 0, auditOffset: BigInt(index) }
    if (typeof record === 'bigint') chain.entry(record, LEAF, at, false)
    else chain.segment(record, at)
  }
  chain.end()
  return { looks, breaks }
}

const repeat = <T>(count: number, of: (index: number) => T): T[] =>
  Array.from({ length: count }, (_, index) => of(index))

/** Offsets that no segment here decides. */
const FAR = 1_000_000n

const MOST = 4_096
const chain = (await emptySegments(MOST)).map(({ segment }) => segment)
const first = there(chain[0])
const fork = there((await emptySegments(1, 1))[0]).segment

describe('whoever holds the disk cannot make the work grow faster than the records', () => {
  const attacks: [string, (size: number) => Step[]][] = [
    [
      'copies of a segment beside open entries',
      (size) => [first, ...repeat(size, (index) => FAR + BigInt(index)), ...repeat(size, () => first)],
    ],
    [
      'forks beside open entries',
      (size) => [first, ...repeat(size, (index) => FAR + BigInt(index)), ...repeat(size, () => fork)],
    ],
    [
      'segments behind entries that come too early',
      (size) => [...repeat(size, (index) => FAR + BigInt(index)), ...chain.slice(0, size)],
    ],
    [
      'every other segment, behind entries that come too early',
      (size) => [
        ...repeat(size, (index) => FAR + BigInt(index)),
        ...chain.slice(0, size).filter((_, index) => index % 2 === 1),
      ],
    ],
    [
      'the same entry again and again, and segments before and after it',
      (size) => [first, ...repeat(size, () => FAR), ...chain.slice(1, size), ...repeat(size, () => first)],
    ],
    [
      'entries from the last to the first, each before a copy of a segment',
      (size) => [first, ...repeat(size, (index) => [FAR - BigInt(index), first]).flat()],
    ],
  ]

  test.each(attacks)('%s', (_, attack) => {
    const small = attack(MOST / 8)
    const large = attack(MOST)
    const before = workOf(small)
    const after = workOf(large)
    // Eight times the records: about 8 where the work is linear, 64 where each segment goes through all entries.
    const ratios = {
      looks: after.looks / before.looks,
      breaks: after.breaks / before.breaks,
    }
    expect(ratios.looks).toBeLessThan(10)
    expect(ratios.breaks).toBeLessThan(10)
  })
})

test('an entry that stands too early by many segments is reported once', () => {
  const found: ChainBreak[] = []
  const subject = new Chain(undefined, { settled: () => undefined, broken: (one) => found.push(one) })
  subject.entry(FAR, LEAF, { auditPartition: 0, auditOffset: 0n }, false)
  for (const [index, segment] of chain.slice(0, 20).entries())
    subject.segment(segment, { auditPartition: 0, auditOffset: BigInt(index + 1) })
  subject.end()
  expect(found.map(({ kind, from }) => `${kind} ${from}`)).toEqual([
    `reordered ${FAR}`,
    `cut at the end ${FAR}`,
  ])
})

test('copies of an old segment beside open entries are each reported as a copy, with the entries that stay open', async () => {
  const [one] = await emptySegments(1)
  const copy: Rec = { offset: 0n, key: Buffer.from('orders/0'), value: there(one).value }
  const entries = repeat(3, (index): Rec => {
    const record = `orders/0/${index + 5}`
    return { offset: 0n, key: Buffer.from(record), value: Buffer.from(JSON.stringify({ record })) }
  })
  const report = await verifyAudit(sourceOf([[copy, ...entries, copy, copy]]), {
    keyOf: () => gate.publicKey,
  })
  expect(report.breaks.map(({ kind, from, next }) => `${kind} ${from} ${next}`)).toEqual([
    'altered 0 1',
    'altered 0 1',
    'cut at the end 5 8',
  ])
})
