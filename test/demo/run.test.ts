import { describe, expect, it } from 'vitest'
import { leavesOf } from '../../demo/leaves.ts'
import { type Outcome, problemsOf } from '../../demo/run.ts'
import { shopEvents } from '../../demo/shop.ts'
import { summaryText } from '../../demo/summary.ts'
import type { EventInput } from '../../lib/client/event.ts'
import type { RejectionCode } from '../../lib/errors.ts'

/** One event admitted for one consumer, one attack refused. */
const GOOD: Omit<Outcome, 'problems'> = {
  contracts: { digest: new Uint8Array(), all: [], find: () => undefined },
  sealing: { sealed: 1, skipped: 0, faults: [], producers: 1, waitedMs: 0, samples: [] },
  sent: 2,
  ledger: {
    entries: 2,
    segments: 1,
    admitted: 1,
    rejected: new Map<RejectionCode, number>([['replayed', 1]]),
    outputs: new Map([['out', new Map([['reader', 1]])]]),
    asked: new Map(),
    refusal: undefined,
    neighbours: undefined,
    tails: [],
    unreadable: 0,
  },
  events: { admitted: 1, rejected: new Map() },
  attacks: [{ name: 'again', tries: '', expected: 'replayed', sent: 1, ended: new Map([['replayed', 1]]) }],
  deliveries: { channels: [{ channel: 'out', records: 1, sealed: 1, opened: 1 }], specimens: [] },
  audit: {
    verified: true,
    headsKnown: true,
    headless: [],
    entries: 2,
    segments: 1,
    ranges: [],
    breaks: [],
    breaksOmitted: 0,
  },
  tamperings: [{ name: 'cut', did: '', found: [], isNamed: true }],
  eventsPerSecond: 1,
  invocations: 1,
}

describe('what the demo counts', () => {
  it('agrees where all is as it should be', () => {
    expect(problemsOf(GOOD, 1, true)).toEqual([])
  })

  it.each<[string, Partial<Outcome>, number, RegExp]>([
    ['a record that nobody sent', { sent: 3 }, 1, /1 \+ 1 records were sent, and 3 are there/],
    ['an event lost', { ledger: { ...GOOD.ledger, admitted: 0 } }, 1, /0 were admitted and 1 rejected/],
    ['a rejected record that is not in quarantine', {}, 0, /1 were rejected, and 0 are in quarantine/],
    [
      'an attack that came through',
      {
        attacks: [
          { name: 'again', tries: '', expected: 'replayed', sent: 1, ended: new Map([['admitted', 1]]) },
        ],
      },
      1,
      /attack "again": 1 were to end as replayed: 1 admitted/,
    ],
    [
      'an event of the demo that was refused',
      { events: { admitted: 0, rejected: new Map<RejectionCode, number>([['schema-invalid', 1]]) } },
      1,
      /every event was to be admitted, and some are schema-invalid/,
    ],
    [
      'an output that is not there',
      { deliveries: { channels: [{ channel: 'out', records: 0, sealed: 0, opened: 0 }], specimens: [] } },
      1,
      /out holds 0 records, and the audit speaks of 1/,
    ],
    [
      'an output that its consumer cannot open',
      { deliveries: { channels: [{ channel: 'out', records: 1, sealed: 1, opened: 0 }], specimens: [] } },
      1,
      /could open 0 of 1/,
    ],
    ['an audit with a break', { audit: { ...GOOD.audit, verified: false } }, 1, /does not verify/],
    [
      'tampering that nobody saw',
      { tamperings: [{ name: 'cut', did: '', found: [], isNamed: false }] },
      1,
      /"cut" was not found/,
    ],
  ])('does not agree: %s', (_, change, quarantined, problem) => {
    expect(problemsOf({ ...GOOD, ...change }, quarantined, true).join('\n')).toMatch(problem)
  })
})

describe('the shop', () => {
  const first = (count: number): EventInput[] => {
    const events = shopEvents()
    return Array.from({ length: count }, () => events.next().value)
  }
  const dataOf = ({ dataBytes }: EventInput): string => Buffer.from(dataBytes ?? []).toString()

  it('is the same each time', () => {
    expect(first(300).map(dataOf)).toEqual(first(300).map(dataOf))
  })

  it('agrees with itself: what is paid was ordered, what is shipped was paid, nothing of it before its time', () => {
    const totals = new Map<string, string | undefined>()
    const paid = new Set<string>()
    let last = ''
    for (const event of first(2_000)) {
      const { orderId }: { orderId: string } = JSON.parse(dataOf(event))
      expect((event.time ?? '') >= last).toBe(true)
      last = event.time ?? ''
      if (event.type.includes('order.placed'))
        totals.set(orderId, /"total":([0-9.]+)/.exec(dataOf(event))?.[1])
      if (event.type.includes('payment')) {
        expect(dataOf(event)).toContain(`"amount":${totals.get(orderId) ?? 'none'},`)
        paid.add(orderId)
      }
      if (event.type.includes('shipped')) expect(paid).toContain(orderId)
      expect(Buffer.from(event.key ?? '').toString()).not.toMatch(/@|^C-/)
    }
    expect(paid.size).toBeGreaterThan(100)
  })
})

describe("a payload's leaves", () => {
  it('have their source text and their place', () => {
    const text = ' {"a": 1.10, "b/c" : [ {"d":12345678901234567890} , [], "x,]}\\""], "e":{} , "f~":null} '
    expect(leavesOf(text, 99)).toEqual([
      ['/a', '1.10'],
      ['/b~1c/0/d', '12345678901234567890'],
      ['/b~1c/1', '[]'],
      ['/b~1c/2', '"x,]}\\""'],
      ['/e', '{}'],
      ['/f~0', 'null'],
    ])
    expect(leavesOf('7', 99)).toEqual([['', '7']])
    expect(leavesOf(text, 2)).toHaveLength(2)
  })
})

describe('what a person reads at the end', () => {
  it('counts one as one, and names what is kept by the flag that leads there', () => {
    const audit = { ...GOOD.audit, entries: 1, segments: 1 }
    const style = { colours: false, width: 100, kept: '--settings x.yaml', isDemo: true }
    const text = summaryText({ ...GOOD, audit, problems: [] }, style)
    expect(text).toContain('1 entry in 1 signed segment: complete and unaltered')
    expect(text).toContain('npx sealgate audit verify --settings x.yaml')
  })
})
