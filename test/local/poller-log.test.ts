import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, it } from 'vitest'
import { slicesOf } from '../../lib/adapters/msk-event.ts'
import { openLog } from '../../lib/local/log-open.ts'
import type { Log } from '../../lib/local/log.ts'
import { polledLog, startPoller } from '../../lib/local/poller.ts'
import type { Message, SourceRecord } from '../../lib/ports.ts'

let folder: string
let log: Log

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'sealgate-poller-'))
  log = await openLog(folder)
  await log.createTopic('orders', 2)
})

afterEach(async () => {
  await log.close()
  await rm(folder, { recursive: true })
})

const message = (partition: number, text: string): Message => ({
  topic: 'orders',
  partition,
  key: null,
  value: new TextEncoder().encode(text),
  headers: [{ name: 'h', value: Uint8Array.of(0, 127, 128, 255) }],
})

const collect = async (): Promise<{
  records: SourceRecord[]
  stop: () => Promise<void>
  drained: () => Promise<boolean>
}> => {
  const records: SourceRecord[] = []
  const poller = await startPoller({
    source: polledLog(log),
    group: 'gate',
    topics: ['orders'],
    handler: (event) => void records.push(...slicesOf(event).flatMap((slice) => slice.records)),
    options: { batchingWindowMs: 0 },
  })
  return { records, stop: () => poller.stop(), drained: () => poller.drained(5_000) }
}

it('the embedded log reaches the function byte for byte, and is not read twice after a restart', async () => {
  await log.append([message(0, 'a'), message(1, 'b'), message(0, 'c')])
  const first = await collect()
  expect(await first.drained()).toBe(true)
  await first.stop()
  const stored = await Promise.all(
    [0, 1].map(async (partition) => (await log.read('orders', partition, 0n)).records),
  )
  const byPlace = (one: SourceRecord, other: SourceRecord): number =>
    one.partition - other.partition || Number(one.offset - other.offset)
  expect(first.records.toSorted(byPlace)).toEqual(stored.flat())
  const second = await collect()
  await log.append([message(1, 'd')])
  expect(await second.drained()).toBe(true)
  await second.stop()
  expect(second.records.map(({ partition, offset }) => [partition, offset])).toEqual([[1, 1n]])
})

it('records of a transaction are delivered after its commit, those of an aborted one never, and its end marks do not stop the poller', async () => {
  const poller = await collect()
  const producer = await log.begin('gate.orders.0')
  await producer.append([message(0, 'aborted')])
  await producer.abort()
  await producer.append([message(0, 'open')])
  expect(await poller.drained()).toBe(true)
  expect(poller.records).toEqual([])
  await producer.commit([])
  await log.append([message(0, 'after')])
  expect(await poller.drained()).toBe(true)
  await poller.stop()
  expect(poller.records.map(({ value }) => new TextDecoder().decode(value ?? undefined))).toEqual([
    'open',
    'after',
  ])
})
