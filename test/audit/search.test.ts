import { describe, expect, test } from 'vitest'
import { encodeEntry, type Entry, recordKey } from '../../lib/audit/entry.ts'
import {
  type AuditQuery,
  matchesGlob,
  MAX_PRINCIPALS,
  searchAudit,
  type SearchTotals,
} from '../../lib/audit/search.ts'
import type { RejectionCode } from '../../lib/errors.ts'
import { admitted, newSigner, policy, type Rec, sourceOf, Stream, there } from './fixtures.ts'

const rejected = (offset: bigint, code: RejectionCode, iss: string, timeMs = 1_795_000_000_000): Entry => ({
  kind: 'event.rejected',
  timeMs,
  topic: 'orders',
  partition: 1,
  offset,
  policy,
  trace: null,
  code,
  digest: Buffer.alloc(32, 1),
  event: { iss, kid: Buffer.from('k'), id: '1', source: '/s', type: 'com.example.order.placed.v1' },
})

const rotated: Entry = {
  kind: 'key.rotated',
  timeMs: 1_795_000_500_000,
  topic: '_control',
  partition: 0,
  offset: 0n,
  policy,
  principal: 'User:alice',
  resource: 'key:k1',
  success: true,
}

const put = (...entries: Entry[]): Rec[] =>
  entries.map((entry, index) => ({
    offset: BigInt(index),
    key: Buffer.from(recordKey(entry.topic, entry.partition, entry.offset)),
    value: encodeEntry(entry),
  }))

const records = put(
  admitted(1n),
  admitted(11n),
  rejected(1n, 'signature-invalid', 'shipping-service'),
  rejected(2n, 'not-authorised', 'mallory'),
  rejected(3n, 'malformed', 'nobody', 1_795_000_100_000),
  rotated,
)

async function search(
  query: AuditQuery,
  all: readonly Rec[] = records,
): Promise<{ found: string[]; totals: SearchTotals }> {
  const found: string[] = []
  const totals = await searchAudit(sourceOf([all]), query, ({ entry }) =>
    found.push(recordKey(entry.topic, entry.partition, entry.offset)),
  )
  expect(totals.found).toBe(found.length)
  return { found, totals }
}

describe('a search of the audit', () => {
  const cases: [string, AuditQuery, string[]][] = [
    [
      'nothing asked finds all',
      {},
      ['orders/0/1', 'orders/0/11', 'orders/1/1', 'orders/1/2', 'orders/1/3', '_control/0/0'],
    ],
    [
      'a principal is one that is proven, never claimed',
      { principal: 'shipping-service' },
      ['orders/0/1', 'orders/0/11'],
    ],
    ['a principal may be given in full', { principal: 'User:mallory' }, ['orders/1/2']],
    ['a principal may be a pattern', { principal: 'al*' }, ['_control/0/0']],
    ['a type is what happened', { type: 'event.rejected' }, ['orders/1/1', 'orders/1/2', 'orders/1/3']],
    ['a type may be a pattern', { type: 'key.*' }, ['_control/0/0']],
    [
      'a type is that of the event, too',
      { type: 'com.example.order.shipped.*' },
      ['orders/0/1', 'orders/0/11'],
    ],
    ['a code', { code: 'malformed' }, ['orders/1/3']],
    ['from a time on', { sinceMs: 1_795_000_100_000 }, ['orders/1/3', '_control/0/0']],
    ['before a time', { untilMs: 1_795_000_000_123 }, ['orders/1/1', 'orders/1/2']],
    ['a record', { record: 'orders/0/1' }, ['orders/0/1']],
    ['a partition', { record: 'orders/1' }, ['orders/1/1', 'orders/1/2', 'orders/1/3']],
    ['a topic', { record: '_control' }, ['_control/0/0']],
    [
      'all that is asked must fit',
      { record: 'orders', type: 'event.rejected', principal: '*' },
      ['orders/1/2'],
    ],
  ]

  test.each(cases)('%s', async (_, query, expected) => {
    expect((await search(query)).found).toEqual(expected)
  })

  test('totals are by type, code and principal, of what was found', async () => {
    const { totals } = await search({ record: 'orders' })
    expect(totals).toMatchObject({ searched: 6, found: 5, unreadable: 0 })
    expect(Object.fromEntries(totals.byType)).toEqual({ 'event.admitted': 2, 'event.rejected': 3 })
    expect(Object.fromEntries(totals.byCode)).toEqual({
      'signature-invalid': 1,
      'not-authorised': 1,
      malformed: 1,
    })
    expect(Object.fromEntries(totals.byPrincipal)).toEqual({
      'User:shipping-service': 2,
      'User:mallory': 1,
      '(not proven)': 2,
    })
  })

  test('segments are passed over, and what is neither entry nor segment is counted', async () => {
    const stream = new Stream(newSigner())
    await stream.slice(2)
    const junk = [null, Buffer.from('{}'), Buffer.of(0xd2), Buffer.of()].map((value) => ({
      offset: 0n,
      key: null,
      value,
    }))
    expect((await search({}, [...stream.records, ...junk])).totals).toMatchObject({
      searched: 2,
      found: 2,
      unreadable: 4,
    })
  })

  test('a flood of principals does not fill the memory', async () => {
    const many = Array.from({ length: MAX_PRINCIPALS + 10 }, (_, index) =>
      rejected(BigInt(index), 'replayed', `p${index}`),
    )
    const { byPrincipal } = (await search({}, put(...many))).totals
    expect(byPrincipal.size).toBe(MAX_PRINCIPALS + 1)
    expect(there(byPrincipal.get('(others)'))).toBe(10)
  })
})

describe('patterns', () => {
  test('a star stands for any characters, and nothing else is special', () => {
    for (const [text, pattern] of [
      ['abc', 'abc'],
      ['abc', '*'],
      ['', '*'],
      ['abc', 'a*'],
      ['abc', '*c'],
      ['abc', 'a*c'],
      ['abcbc', 'a*bc'],
      ['a.b', 'a.b'],
      ['abc', '**b**'],
    ] as const)
      expect(matchesGlob(text, pattern)).toBe(true)
    for (const [text, pattern] of [
      ['abc', 'ab'],
      ['axb', 'a.b'],
      ['abc', 'b*'],
      ['aba', 'ab*ba'],
      ['', 'a'],
      ['abc', '*x*'],
    ] as const)
      expect(matchesGlob(text, pattern)).toBe(false)
  })

  test('no pattern takes long', () => {
    expect(matchesGlob('a'.repeat(100_000), `${'*a'.repeat(5_000)}*b`)).toBe(false)
  })
})
