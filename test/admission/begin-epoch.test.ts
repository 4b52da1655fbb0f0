import { afterEach, describe, expect, it } from 'vitest'
import { beginEpoch } from '../../lib/admission/begin-epoch.ts'
import { restorePosition } from '../../lib/admission/restore.ts'
import type { IngestParts } from '../../lib/admission/slice.ts'
import { createLocalPositions, createLocalSink } from '../../lib/local/log-sink.ts'
import { polledLog } from '../../lib/local/poller.ts'
import { ORDER_TYPE, openShop, type Shop } from '../shop.ts'
import { handle, refund, send, totals, verified } from './redrive-shop.ts'

let shop: Shop
afterEach(() => shop.close())

const order = (id: number) => ({ ...refund(id), type: ORDER_TYPE })
const upTo = (count: number): number[] => Array.from({ length: count }, (_, index) => index)
const sources = [0, 1].map((partition) => ({ topic: 'orders', partition }))

/** The embedded stack has one epoch: another is kept here under another name. */
const second = { deployment: 'second' }
const positions = () => createLocalPositions(shop.log, second)
const raised = (parts: IngestParts): IngestParts => ({
  ...parts,
  settings: { ...parts.settings, epoch: 2 },
  sink: createLocalSink(shop.log, second),
})
const parts = () => ({
  ingest: raised(shop.stack.gateParts()),
  reader: polledLog(shop.log),
  positions: positions(),
})
const begin = async (next: bigint): Promise<void> => {
  for (const source of sources) await beginEpoch(source, next, parts(), () => undefined)
}
const nothing = () => undefined

describe('a raised epoch', () => {
  it('decides all anew, on in the chain that stands', async () => {
    shop = await openShop()
    await send(shop, upTo(12).map(order))
    await handle(shop)
    await begin(0n)
    await handle(shop, undefined, raised)
    expect(await totals(shop, 'orders.analytics')).toEqual(upTo(12).flatMap((id) => [id, id]))
    const report = await verified(shop)
    expect([report.breaks, report.entries, report.segments]).toEqual([[], 24, 4])
  })

  it('is begun once, and by no epoch that the audit knows', async () => {
    shop = await openShop()
    await send(shop, upTo(12).map(order))
    await handle(shop)
    await begin(0n)
    await expect(begin(0n)).rejects.toThrow('has a position of this epoch already')
    const [source = { topic: '', partition: 0 }] = sources
    const same = { ...parts(), positions: createLocalPositions(shop.log, { deployment: 'third' }) }
    const first = { ...same, ingest: shop.stack.gateParts() }
    await expect(beginEpoch(source, 0n, first, nothing)).rejects.toThrow('decisions of epoch 1 already')
  })

  it('remembers nothing of the one before when its position is restored', async () => {
    shop = await openShop()
    const records = await send(shop, upTo(12).map(order))
    await handle(shop)
    await begin(0n)
    const some = records.filter(({ offset }) => offset < 2n)
    await handle(shop, some, raised)
    await shop.log.commitGroup(
      sources.map((source) => ({
        ...{ group: 'second.shadow.v1', ...source, next: 0n, metadata: new Uint8Array() },
      })),
    )
    for (const source of sources)
      expect(await restorePosition(source, 'ann', parts(), nothing)).toMatchObject({ next: 2n, isNew: true })
    await handle(shop, undefined, raised)
    expect(await totals(shop, 'orders.analytics')).toEqual(upTo(12).flatMap((id) => [id, id]))
    await shop.log.append(records)
    await handle(shop, undefined, raised)
    expect(await shop.codes()).toEqual(Array(12).fill('replayed'))
    expect((await verified(shop)).breaks).toEqual([])
  })
})
