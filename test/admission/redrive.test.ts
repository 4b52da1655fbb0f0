import { afterEach, describe, expect, it } from 'vitest'
import { encodeEntry, parseEntry } from '../../lib/audit/entry.ts'
import { closeSegment } from '../../lib/audit/segment.ts'
import { firstPosition, parseState } from '../../lib/admission/position.ts'
import { digest } from '../../lib/envelope/crypto.ts'
import { createLocalPositions, createLocalSink } from '../../lib/local/log-sink.ts'
import { AUDIT_TOPIC, QUARANTINE_TOPIC } from '../../lib/local/stack.ts'
import type { IngestParts } from '../../lib/admission/slice.ts'
import { type SigningKeyRow, snapshotFrom } from '../../lib/keys/directory.ts'
import type { Header, SourceRecord } from '../../lib/ports.ts'
import { ORDER_CONTRACT, ORDER_TYPE, openShop, type Shop } from '../shop.ts'
import { handle, redriven, refund, REFUND_CONTRACT, send, totals, verified } from './redrive-shop.ts'

let shop: Shop
afterEach(() => shop.close())

const upTo = (count: number): number[] => Array.from({ length: count }, (_, index) => index)

/** A shop whose gate has refused refunds as of an unknown type, and now knows them. */
async function refused(count: number, lifeSeconds?: number): Promise<void> {
  shop = await openShop()
  const { folder } = shop
  await send(shop, upTo(count).map(refund), lifeSeconds)
  await handle(shop)
  expect(await shop.codes()).toEqual(Array(count).fill('type-unknown'))
  await shop.stack.close()
  shop = await openShop([ORDER_CONTRACT, REFUND_CONTRACT], folder)
}

const order = (id: number) => ({ ...refund(id), type: ORDER_TYPE })

const entries = async () =>
  (await shop.records(AUDIT_TOPIC)).flatMap(({ value }) => parseEntry(value ?? new Uint8Array()) ?? [])

const text = (value: string): Uint8Array => new Uint8Array(Buffer.from(value))

const forged = (record: SourceRecord, code: string, offset: bigint, partition = record.partition): Header[] =>
  Object.entries({ code, topic: 'orders', partition, offset, timestamp: 1 }).map(([name, value]) => ({
    name: `sealgate-${name}`,
    value: text(String(value)),
  }))

describe('a redrive', () => {
  it('brings refused records to their consumers once, with an entry for each that the audit accounts for', async () => {
    await refused(20)
    const first = await redriven(shop, { by: 'ann', reason: 'the contract came late' })
    expect([first.counts, first.stops]).toEqual([{ admitted: 20 }, []])
    expect(await totals(shop)).toEqual(upTo(20))
    expect(await shop.records('refunds.fulfilment')).toHaveLength(20)
    const again = await redriven(shop)
    expect(again.counts).toEqual({ 'skipped let-in': 20 })
    expect(await totals(shop)).toEqual(upTo(20))
    expect(await shop.records(QUARANTINE_TOPIC)).toHaveLength(20)
    const report = await verified(shop)
    expect(report).toMatchObject({ verified: true, headsKnown: true, entries: 40 })
    expect(report.ranges.map(({ topic }) => topic).sort()).toContain('_control.orders')
    const [entry] = (await entries()).filter(({ kind }) => kind === 'event.admitted')
    expect(entry).toMatchObject({
      topic: '_control.orders',
      redriven: { source: { topic: 'orders' }, by: 'ann', reason: 'the contract came late', expired: false },
    })
  })

  it('leaves no way in for a copy of what it has let in', async () => {
    await refused(3)
    const records = await shop.records('orders')
    expect((await redriven(shop)).counts).toEqual({ admitted: 3 })
    await shop.log.append(records)
    await handle(shop)
    expect((await shop.codes()).slice(3)).toEqual(['replayed', 'replayed', 'replayed'])
    expect(await totals(shop)).toEqual(upTo(3))
    expect((await redriven(shop)).counts).toEqual({ 'skipped let-in': 3, 'skipped replayed': 3 })
  })

  it('lets nothing in that was let in when all was decided anew, under a higher epoch', async () => {
    await refused(6)
    await send(shop, [order(7), order(8), order(9), order(10)])
    await handle(shop)
    await send(shop, [order(11), order(12), order(13), order(14)])
    await handle(shop)
    const second = { deployment: 'second' }
    const change = (parts: IngestParts): IngestParts => ({
      ...parts,
      settings: { ...parts.settings, epoch: 2 },
      sink: createLocalSink(shop.log, second),
    })
    const positions = createLocalPositions(shop.log, second)
    for (const partition of [0, 1])
      await positions.init({ topic: 'orders', partition }, firstPosition(0n), Date.now() + 5000)
    await handle(shop, undefined, change)
    expect(await totals(shop)).toEqual(upTo(6))
    const { counts } = await redriven(shop, {}, { change, positions, page: 1 })
    expect(counts).toEqual({ 'skipped let-in': 6 })
    expect(await totals(shop)).toEqual(upTo(6))
  })

  it('lets in one of several copies that were all refused', async () => {
    shop = await openShop()
    const { folder } = shop
    const records = await send(shop, [refund(1)])
    await shop.log.append([...records, ...records])
    await handle(shop)
    await shop.stack.close()
    shop = await openShop([ORDER_CONTRACT, REFUND_CONTRACT], folder)
    expect((await redriven(shop)).counts).toEqual({ admitted: 1, 'skipped let-in': 2 })
    expect(await totals(shop)).toEqual([1])
  })

  it('believes nothing that somebody else has written into quarantine', async () => {
    shop = await openShop([ORDER_CONTRACT, REFUND_CONTRACT])
    const records = await send(shop, upTo(4).map(refund))
    await handle(shop)
    const [record] = records
    if (record === undefined) throw new Error('no record')
    const place = { topic: QUARANTINE_TOPIC, partition: 0 }
    const { key, value, offset } = record
    const never = await send(shop, [refund(99)])
    const fresh = never.find(
      (one) => !records.some(({ partition, offset }) => partition === one.partition && offset === one.offset),
    )
    if (fresh === undefined) throw new Error('no record')
    await shop.log.append([
      // Let in before; never decided at all; of no such place; of the gate's own topics; of no shape.
      { ...place, key, value, headers: forged(record, 'schema-invalid', offset) },
      { ...place, key: fresh.key, value: fresh.value, headers: forged(fresh, 'type-unknown', fresh.offset) },
      { ...place, key, value, headers: forged(record, 'type-unknown', 10_000n) },
      { ...place, key, value, headers: forged(record, 'type-unknown', offset, 7) },
      { ...place, key, value, headers: [] },
    ])
    const { counts, stops } = await redriven(shop)
    expect([counts, stops]).toEqual([{ 'skipped unproven': 5 }, []])
    expect(await totals(shop)).toEqual(upTo(4))
  })

  it('takes a quarantined record once, however often it was copied, and never with other bytes or another key', async () => {
    await refused(2)
    const [first, second] = await shop.records(QUARANTINE_TOPIC)
    if (first === undefined || second === undefined) throw new Error('no records')
    const altered = Buffer.from(second.value ?? [])
    altered[altered.length - 1] = (altered.at(-1) ?? 0) ^ 1
    const undecided = (await send(shop, upTo(8).map(refund))).find(
      ({ partition, offset }) => partition === first.partition && offset > 1n,
    )
    if (undecided === undefined) throw new Error('no record')
    await shop.log.append([
      { ...first, partition: 1 - first.partition },
      { ...first, partition: first.partition },
      { ...first, key: text('another') },
      { ...second, value: altered },
      { ...first, headers: second.headers },
      // Good by itself, and never rejected: it borrows the place, and the time, of one that was.
      { ...undecided, topic: QUARANTINE_TOPIC, headers: [...undecided.headers, ...first.headers.slice(-5)] },
    ])
    const { counts } = await redriven(shop)
    expect([counts['admitted'], counts['skipped unproven']]).toEqual([2, 3])
    expect(await totals(shop)).toEqual([0, 1])
  })

  it('asks that a key was good when the gate first decided, as the audit has it', async () => {
    await refused(4)
    const decided = (await entries()).map(({ timeMs }) => Math.floor(timeMs / 1000))
    const [first, last] = [Math.min(...decided), Math.max(...decided)]
    const keyIs = (row: Partial<SigningKeyRow>) => (parts: IngestParts) => ({
      ...parts,
      directory: {
        snapshot: async (deadline: number) => {
          const { snapshot, fresh } = await parts.directory.snapshot(deadline)
          const signingKeys = snapshot.signingKeys.map((key) =>
            key.iss === 'shop-web' ? { ...key, ...row } : key,
          )
          return { snapshot: snapshotFrom({ ...snapshot, signingKeys }), fresh }
        },
        onKeksChanged: () => undefined,
      },
    })
    await new Promise((resolve) => setTimeout(resolve, (last + 2) * 1000 - Date.now()))
    for (const bad of [
      { state: 'compromised', compromisedAt: first },
      { state: 'deactivated', notAfter: first - 1 },
      { state: 'suspended' },
    ] as const)
      expect((await redriven(shop, { dryRun: true }, { change: keyIs(bad) })).counts).toEqual({
        'rejected key-not-valid': 4,
      })
    const rotated = keyIs({ state: 'compromised', notAfter: last, compromisedAt: last + 1 })
    expect((await redriven(shop, {}, { change: rotated })).counts).toEqual({ admitted: 4 })
  })

  it('lets in nothing again where somebody has taken from the audit that it was let in', async () => {
    await refused(6)
    expect((await redriven(shop)).counts).toEqual({ admitted: 6 })
    const isControl = ({ topic, key }: SourceRecord): boolean =>
      topic === AUDIT_TOPIC &&
      Buffer.from(key ?? [])
        .toString()
        .startsWith('_control')
    const isEntry = ({ value }: SourceRecord): boolean => value?.[0] === 0x7b
    const noEntries = await redriven(shop, {}, { seen: (record) => !(isControl(record) && isEntry(record)) })
    expect(noEntries.counts).toEqual({ 'skipped unproven': 6 })
    // So that it does not wait for what is never to come.
    let leapMs = 0
    const hasty = (parts: IngestParts): IngestParts => ({
      ...parts,
      clock: { now: () => Date.now() + (leapMs += 500) },
    })
    const cut = await redriven(shop, {}, { seen: (record) => !isControl(record), change: hasty })
    expect(cut.stops.map(({ outage }) => outage.code)).toEqual(['position-damaged', 'position-damaged'])
    expect(await totals(shop)).toEqual(upTo(6))
  })

  it('lets nothing in that may have been let in before what retention has left of the audit', async () => {
    shop = await openShop([ORDER_CONTRACT, REFUND_CONTRACT])
    const sent = await send(shop, [refund(1)], 1)
    await handle(shop)
    const kept = (await shop.records(AUDIT_TOPIC)).map(({ partition, offset }) => `${partition}/${offset}`)
    await new Promise((resolve) => setTimeout(resolve, 2100))
    const copies = await shop.log.append(sent)
    await handle(shop)
    expect(await shop.codes()).toEqual(['time-invalid'])
    const acceptExpired = new Set(copies.map(({ partition, offset }) => `orders/${partition}/${offset}`))
    const order = { acceptExpired, by: 'ann', reason: 'a producer that came late' }
    const seen = ({ topic, partition, offset }: SourceRecord): boolean =>
      topic !== AUDIT_TOPIC || !kept.includes(`${partition}/${offset}`)
    expect((await redriven(shop, order, { seen })).counts).toEqual({ 'skipped unproven': 1 })
    expect((await redriven(shop, order)).counts).toEqual({ 'skipped let-in': 1 })
    expect(await totals(shop)).toEqual([1])
  })

  it('proves nothing by an audit that was altered, or that another key has signed', async () => {
    await refused(3)
    const hides = (record: SourceRecord): boolean =>
      record.topic !== AUDIT_TOPIC || record.value?.[0] !== 0x7b
    expect((await redriven(shop, {}, { seen: hides })).counts).toEqual({ 'skipped unproven': 3 })
    const other = (parts: IngestParts): IngestParts => ({
      ...parts,
      settings: { ...parts.settings, deployment: 'other' },
    })
    let leapMs = 0
    const hasty = (parts: IngestParts): IngestParts => ({
      ...other(parts),
      clock: { now: () => Date.now() + (leapMs += 500) },
    })
    expect((await redriven(shop, {}, { change: hasty })).counts).toEqual({})
    expect(await totals(shop)).toEqual([])
  })

  it('proves nothing by what others have written into the audit, whatever key they have', async () => {
    shop = await openShop([ORDER_CONTRACT, REFUND_CONTRACT])
    await send(shop, upTo(6).map(refund))
    await handle(shop)
    const before = await shop.records('orders')
    const isNew = (record: SourceRecord): boolean =>
      !before.some(({ partition, offset }) => partition === record.partition && offset === record.offset)
    const [record] = (await send(shop, [refund(99)])).filter(isNew)
    if (record === undefined) throw new Error('no record')
    const { partition, offset, key, value } = record
    const positions = createLocalPositions(shop.log, { deployment: 'local' })
    const position = await positions.show({ topic: 'orders', partition }, Date.now() + 5000)
    const limits = { maxSessions: Infinity, newDataKeysPerMinute: Infinity }
    const { head, homes } = parseState(position?.state ?? new Uint8Array(), limits, Infinity)
    const place = { topic: 'orders', partition, offset }
    const policy = { bundle: new Uint8Array(32), directory: 1 }
    const rejection = encodeEntry({
      ...{ kind: 'event.rejected', ...place, timeMs: Date.now(), policy, trace: null },
      ...{ code: 'type-unknown', digest: digest(value ?? new Uint8Array()), event: null },
    })
    const own = shop.stack.producer('shop-web').signer
    const gate = shop.stack.gateParts().signer
    const range = { from: position?.next ?? 0n, next: offset + 1n }
    const audit = { topic: AUDIT_TOPIC, partition: homes?.audit ?? 0, headers: [] }
    await shop.log.append([{ ...audit, key: text(`orders/${partition}/${offset}`), value: rejection }])
    for (const signer of [own, { ...own, kid: gate.kid, sign: own.sign.bind(own) }]) {
      const segment = await closeSegment(
        {
          ...{ deployment: 'local', topic: 'orders', partition, ...range, head, entries: [rejection] },
          ...{ time: 1, bundle: new Uint8Array(32), directory: 1, software: 'x', epoch: 1, unseen: 0 },
        },
        signer,
        Date.now() + 5000,
      )
      await shop.log.append([{ ...audit, key: text(`orders/${partition}`), value: segment.value }])
    }
    const headers = [...record.headers, ...forged(record, 'type-unknown', offset)]
    await shop.log.append([{ topic: QUARANTINE_TOPIC, partition: 0, key, value, headers }])
    expect((await redriven(shop)).counts).toEqual({ 'skipped unproven': 1 })
  })

  it('asks for nothing but what the order names, and keeps the rest for another day', async () => {
    await refused(4)
    const now = Date.now()
    expect((await redriven(shop, { code: 'schema-invalid' })).counts).toEqual({})
    expect((await redriven(shop, { sinceMs: now + 60_000 })).counts).toEqual({})
    expect((await redriven(shop, { code: 'type-unknown', sinceMs: now - 60_000 })).counts).toEqual({
      admitted: 4,
    })
  })

  it('leaves what is refused again where it is, with an entry and no second copy', async () => {
    shop = await openShop()
    await send(shop, [refund(1)])
    await handle(shop)
    const { counts } = await redriven(shop)
    expect(counts).toEqual({ 'rejected type-unknown': 1 })
    expect(await shop.codes()).toEqual(['type-unknown'])
    expect((await entries()).map(({ topic, kind }) => [topic, kind])).toEqual([
      ['orders', 'event.rejected'],
      ['_control.orders', 'event.rejected'],
    ])
    expect((await verified(shop)).breaks).toEqual([])
    const { folder } = shop
    await shop.stack.close()
    shop = await openShop([ORDER_CONTRACT, REFUND_CONTRACT], folder)
    expect((await redriven(shop)).counts).toEqual({ admitted: 1 })
  })

  it('only says what it would do when it runs dry', async () => {
    await refused(5)
    const before = await shop.records(AUDIT_TOPIC)
    const [one] = await shop.records(QUARANTINE_TOPIC)
    if (one === undefined) throw new Error('no record')
    await shop.log.append([one])
    expect((await redriven(shop, { dryRun: true })).counts).toEqual({ admitted: 5, 'skipped let-in': 1 })
    expect(await shop.records(AUDIT_TOPIC)).toEqual(before)
    expect(await totals(shop)).toEqual([])
    expect((await redriven(shop)).counts).toEqual({ admitted: 5, 'skipped let-in': 1 })
  })

  it('lets in what has expired by name alone, and says who did it and why', async () => {
    await refused(2, 1)
    await new Promise((resolve) => setTimeout(resolve, 2100))
    expect((await redriven(shop)).counts).toEqual({ 'rejected time-invalid': 2 })
    const named = (await shop.records('orders'))[0]
    const acceptExpired = new Set([`orders/${named?.partition}/${named?.offset}`])
    await expect(redriven(shop, { acceptExpired })).rejects.toThrow('--by')
    const { counts } = await redriven(shop, { acceptExpired, by: 'ann', reason: 'outage of 21 November' })
    expect(counts).toEqual({ admitted: 1, 'rejected time-invalid': 1 })
    const expired = (await entries()).filter((entry) => 'redriven' in entry && entry.redriven.expired)
    expect(expired).toMatchObject([{ kind: 'event.admitted', redriven: { by: 'ann' } }])
    const claims = (await entries()).find(
      (entry) => entry.kind === 'event.rejected' && entry.code === 'time-invalid',
    )
    const id = claims !== undefined && 'event' in claims ? (claims.event?.id ?? '') : ''
    const byId = await redriven(shop, { acceptExpired: new Set([id]), by: 'ann', reason: 'again' })
    expect(await totals(shop)).toHaveLength(byId.counts['admitted'] === 1 ? 2 : 1)
    expect((await verified(shop)).breaks).toEqual([])
  })

  it('takes no event for the record whose place its producer has chosen for an id', async () => {
    shop = await openShop()
    const { folder } = shop
    const [record] = await send(shop, [refund(1)], 1)
    const place = `orders/${record?.partition}/${record?.offset}`
    await send(shop, [{ ...refund(2), id: place }], 1)
    await handle(shop)
    await shop.stack.close()
    shop = await openShop([ORDER_CONTRACT, REFUND_CONTRACT], folder)
    await new Promise((resolve) => setTimeout(resolve, 2100))
    const order = { acceptExpired: new Set([place]), by: 'ann', reason: 'it came late' }
    expect((await redriven(shop, order)).counts).toEqual({ admitted: 1, 'rejected time-invalid': 1 })
    expect(await totals(shop)).toEqual([1])
  })

  it('ends with the batch at hand when it is told to, and goes on from there the next time', async () => {
    await refused(30)
    const stop = new AbortController()
    stop.abort()
    const none = await redriven(shop, {}, { signal: stop.signal })
    expect([none.counts, none.interrupted]).toEqual([{}, true])
    expect((await redriven(shop)).counts).toEqual({ admitted: 30 })
  })

  it('does all of it once when several operators do it at once, beside a gate at work', async () => {
    await refused(40)
    await send(
      shop,
      upTo(40).map((id) => refund(100 + id)),
    )
    // Fenced twice in one invocation, the gate leaves the rest to Lambda's next.
    const atWork = async (): Promise<void> => {
      for (let tries = 1; ; tries++) {
        try {
          await handle(shop)
          return
        } catch (error) {
          if (tries === 20 || !String(error).includes('fenced')) throw error
        }
      }
    }
    const [results] = await Promise.all([
      Promise.all([redriven(shop), redriven(shop), redriven(shop)]),
      atWork(),
    ])
    expect(results.flatMap(({ stops }) => stops)).toEqual([])
    const admitted = results.map(({ counts }) => counts['admitted'] ?? 0)
    expect(admitted.reduce((sum, count) => sum + count, 0)).toBe(40)
    expect(await totals(shop)).toEqual([...upTo(40), ...upTo(40).map((id) => 100 + id)])
    expect((await verified(shop)).breaks).toEqual([])
  })
})
