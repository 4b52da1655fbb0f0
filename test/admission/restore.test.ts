import { afterEach, describe, expect, it } from 'vitest'
import { restorePosition, type Restored } from '../../lib/admission/restore.ts'
import type { IngestParts } from '../../lib/admission/slice.ts'
import { parseEntry } from '../../lib/audit/entry.ts'
import { createLocalPositions } from '../../lib/local/log-sink.ts'
import { polledLog } from '../../lib/local/poller.ts'
import { AUDIT_TOPIC } from '../../lib/local/stack.ts'
import type { RecordReader, SourceRecord, TopicPartition } from '../../lib/ports.ts'
import { ORDER_CONTRACT, ORDER_TYPE, openShop, type Shop } from '../shop.ts'
import { handle, redriven, refund, REFUND_CONTRACT, send, totals, verified } from './redrive-shop.ts'

let shop: Shop
afterEach(() => shop.close())

const order = (id: number, total: unknown = id) => ({
  ...refund(id),
  type: ORDER_TYPE,
  data: dataOf(id, total),
})
const dataOf = (id: number, total: unknown) => ({ orderId: `A-${id}`, total, customer: { id: 'c' } })
const upTo = (count: number): number[] => Array.from({ length: count }, (_, index) => index)
const both = [0, 1].map((partition) => ({ topic: 'orders', partition }))

/** Six that were let in, and behind them their copies, which wait to be decided. Gives the six. */
async function sixWithCopies(): Promise<readonly SourceRecord[]> {
  shop = await openShop()
  const first = await send(
    shop,
    upTo(6).map((id) => order(id)),
  )
  await handle(shop)
  await shop.log.append(first)
  return first
}

const positions = () => createLocalPositions(shop.log, { deployment: 'local' })
const nexts = async (sources: readonly TopicPartition[] = both): Promise<(bigint | undefined)[]> =>
  Promise.all(sources.map(async (source) => (await positions().show(source, Date.now() + 5000))?.next))

/** What a tool leaves behind that resets a group's offsets. */
async function damage(sources: readonly TopicPartition[] = both): Promise<void> {
  await shop.log.commitGroup(
    sources.map((source) => ({ group: 'local.shadow.v1', ...source, next: 0n, metadata: new Uint8Array() })),
  )
  await expect(nexts(sources)).rejects.toThrow('does not fit together')
}

interface Around {
  /** What the reader finds. */
  readonly seen?: (record: SourceRecord) => boolean
  /** Where the source ends for it. */
  readonly end?: bigint
  readonly change?: (parts: IngestParts) => IngestParts
  /** Whether nothing is seen of a position but behind the fence. */
  readonly hides?: boolean
}

async function restore(
  { seen = () => true, end, change = (parts) => parts, hides = false }: Around = {},
  sources: readonly TopicPartition[] = both,
): Promise<Restored[]> {
  const log = polledLog(shop.log)
  const reader: RecordReader = {
    ...log,
    offsets: async (place) => {
      const known = await log.offsets(place)
      return end === undefined ? known : { ...known, end }
    },
    fetch: async (...call) => {
      const page = await log.fetch(...call)
      return { ...page, records: page.records.filter(seen) }
    },
  }
  const own = positions()
  const show: typeof own.show = hides ? () => Promise.resolve(undefined) : (...call) => own.show(...call)
  const parts = { ingest: change(shop.stack.gateParts()), reader, positions: { ...own, show } }
  const all: Restored[] = []
  for (const source of sources) all.push(await restorePosition(source, 'ann', parts, () => undefined))
  return all
}

/** Two days on: all that is there has expired, as our clock has it. */
const later = (parts: IngestParts): IngestParts => ({
  ...parts,
  clock: { now: () => Date.now() + 2 * 86_400_000 },
  directory: {
    snapshot: (deadline) => parts.directory.snapshot(deadline - 2 * 86_400_000),
    onKeksChanged: () => undefined,
  },
  signer: {
    ...{ kid: parts.signer.kid, alg: parts.signer.alg },
    sign: (bytes, deadline) => parts.signer.sign(bytes, deadline),
  },
})

const isAudit = ({ topic }: SourceRecord): boolean => topic === AUDIT_TOPIC

describe('a position that is restored', () => {
  it('goes on where the last one stood: nothing twice, nothing lost, and no copy comes in', async () => {
    shop = await openShop()
    await send(shop, [...upTo(20).map((id) => order(id)), order(20, 'not a number')])
    await handle(shop)
    const before = await nexts()
    await damage()
    await expect(handle(shop)).rejects.toThrow('position')
    expect((await restore()).map(({ isNew, lost }) => [isNew, lost])).toEqual([
      [true, 0n],
      [true, 0n],
    ])
    expect(await nexts()).toEqual(before)
    const first = await shop.records('orders')
    await handle(shop)
    expect(await shop.codes()).toEqual(['schema-invalid'])
    await shop.log.append(first)
    await send(shop, [order(99)])
    await handle(shop)
    expect(await totals(shop, 'orders.analytics')).toEqual([...upTo(20), 99])
    expect((await shop.codes()).slice(1)).toEqual(Array(21).fill('replayed'))
    expect(await verified(shop)).toMatchObject({ verified: true, headsKnown: true })
    const entries = (await shop.records(AUDIT_TOPIC)).flatMap(
      ({ value }) => parseEntry(value ?? new Uint8Array()) ?? [],
    )
    expect(entries.filter(({ kind }) => kind === 'position.restored')).toMatchObject(
      both.map(({ partition }) => ({
        topic: '_control.orders',
        principal: 'User:ann',
        resource: `position:orders/${partition}`,
      })),
    )
  })

  it('knows what was redriven, and goes on in the chain that tells of it', async () => {
    shop = await openShop()
    const { folder } = shop
    await send(shop, upTo(5).map(refund))
    await handle(shop)
    await shop.stack.close()
    shop = await openShop([ORDER_CONTRACT, REFUND_CONTRACT], folder)
    const copies = await shop.records('orders')
    expect((await redriven(shop)).counts).toEqual({ admitted: 5 })
    await damage()
    await restore()
    await shop.log.append(copies)
    await handle(shop)
    expect((await shop.codes()).slice(5)).toEqual(Array(5).fill('replayed'))
    expect((await redriven(shop)).counts).toEqual({ 'skipped let-in': 5, 'skipped replayed': 5 })
    expect(await totals(shop)).toEqual(upTo(5))
    expect((await verified(shop)).breaks).toEqual([])
  })

  it('is left alone where it is good', async () => {
    shop = await openShop()
    await send(shop, [order(1)])
    await handle(shop)
    const audit = await shop.records(AUDIT_TOPIC)
    expect((await restore()).map(({ isNew }) => isNew)).toEqual([false, false])
    expect((await restore({ hides: true })).map(({ isNew }) => isNew)).toEqual([false, false])
    expect(await shop.records(AUDIT_TOPIC)).toEqual(audit)
  })

  it('is refused while copies of what is missing could come in, and made once they have all expired', async () => {
    shop = await openShop()
    await send(
      shop,
      upTo(12).map((id) => order(id)),
    )
    await handle(shop)
    await send(
      shop,
      upTo(4).map((id) => order(100 + id)),
    )
    await handle(shop)
    await damage()
    const gone = { seen: (record: SourceRecord) => isAudit(record) || record.offset > 2n }
    await expect(restore(gone)).rejects.toThrow(/From 20.* they have all expired/)
    // Of the first partition, so that none is restored before it is seen. Which is decided first is chance.
    const entries = (await shop.records(AUDIT_TOPIC)).filter(
      ({ key, value }) =>
        value?.[0] === 0x7b &&
        Buffer.from(key ?? [])
          .toString()
          .startsWith('orders/0/'),
    )
    const lacking = {
      seen: (record: SourceRecord) => !isAudit(record) || record.offset !== entries[1]?.offset,
    }
    await expect(restore(lacking)).rejects.toThrow('missing')
    await expect(nexts()).rejects.toThrow('does not fit together')
    expect((await restore({ ...gone, change: later })).map(({ isNew }) => isNew)).toEqual([true, true])
  })

  it('lets no copy in that has waited to be decided, however long that was', async () => {
    await sixWithCopies()
    await send(shop, [order(50)])
    await damage()
    expect((await restore({ change: later })).map(({ isNew }) => isNew)).toEqual([true, true])
    await handle(shop)
    expect(await totals(shop, 'orders.analytics')).toEqual([...upTo(6), 50])
    expect(await shop.codes()).toEqual(Array(6).fill('replayed'))
  })

  it('lets no copy in of what is missing, though both have waited until that had expired', async () => {
    const first = await sixWithCopies()
    const gone = new Set(first.map(({ partition, offset }) => `${partition}/${offset}`))
    const seen = (record: SourceRecord): boolean =>
      isAudit(record) || !gone.has(`${record.partition}/${record.offset}`)
    await damage()
    expect((await restore({ change: later, seen })).map(({ isNew }) => isNew)).toEqual([true, true])
    await handle(shop)
    expect(await totals(shop, 'orders.analytics')).toEqual(upTo(6))
  })

  it('keeps no more sessions of an issuer than were let in, however many were refused', async () => {
    shop = await openShop(undefined, undefined, 1)
    const sealers = upTo(200).map(() => shop.sealer('shop-web', { lifeSeconds: 86_400 }))
    for (const [id, sealer] of sealers.entries()) await sealer.send('orders', order(id))
    await Promise.all(sealers.map((sealer) => sealer.close()))
    await handle(shop)
    // Of new data keys 60 a minute, of sessions 64.
    expect(await shop.codes()).toEqual(Array(140).fill('over-limit'))
    const copies = await shop.records('orders')
    const [only] = both
    const stateBytes = async (): Promise<number> =>
      (only === undefined ? undefined : await positions().show(only, Date.now() + 5000))?.state.length ?? 0
    const before = await stateBytes()
    await damage(both.slice(0, 1))
    await restore({}, both.slice(0, 1))
    expect(await stateBytes()).toBeLessThanOrEqual(before)
    await shop.log.append(copies.slice(0, 64))
    await handle(shop)
    expect((await shop.codes()).slice(140)).toEqual(Array(64).fill('replayed'))
  })

  it('is refused where the audit tells nothing of it, or the topic is another one', async () => {
    shop = await openShop()
    await damage()
    await expect(restore()).rejects.toThrow('holds no segment')
    await shop.close()
    shop = await openShop()
    await send(
      shop,
      upTo(4).map((id) => order(id)),
    )
    await handle(shop)
    await damage()
    await expect(restore({ end: 0n })).rejects.toThrow('it is not the same')
  })
})
