/** What a gate that stays warm owes between slices: to time, to the sink's limits, to its keys and to memory. */
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { afterEach, describe, expect, it } from 'vitest'
import { createIngest, type Ingest, type IngestParts, type Stop } from '../../lib/admission/slice.ts'
import { Outage } from '../../lib/errors.ts'
import { createDataKeys } from '../../lib/keys/data-keys.ts'
import { createSealingKeys } from '../../lib/keys/sealing-keys.ts'
import { AUDIT_TOPIC, LOCAL_GATEWAY } from '../../lib/local/stack.ts'
import {
  batchBytes,
  type KeyService,
  type Message,
  type SinkSession,
  type SourceRecord,
} from '../../lib/ports.ts'
import { ORDER_CONTRACT, ORDER_TYPE, openShop, type Shop } from '../shop.ts'

let shop: Shop
afterEach(() => shop.close())

/** Sealed orders of one source partition, with the log's own time. */
async function sent(count: number, lifeSeconds = 3600): Promise<SourceRecord[]> {
  const sealer = shop.sealer('shop-web', { lifeSeconds })
  const data = { orderId: 'A', total: 1, customer: { id: 'c' } }
  const events = Array.from({ length: count }, () => ({
    type: ORDER_TYPE,
    source: '/shop/web',
    key: 'k',
    data,
  }))
  await sealer.send('orders', events)
  await sealer.close()
  return (await shop.records('orders')).slice(-count)
}

const ingestOf = (change: (parts: IngestParts) => IngestParts = (parts) => parts): Ingest =>
  createIngest(change(shop.stack.gateParts()))

function ingestAll(ingest: Ingest, records: readonly SourceRecord[]): Promise<readonly Stop[]> {
  const { topic = '', partition = 0 } = records[0] ?? {}
  return ingest.ingest([{ topic, partition, records }], Date.now() + 20_000)
}

/** A sink whose sessions are changed as they are opened. */
const withSessions = (parts: IngestParts, change: (session: SinkSession) => SinkSession): IngestParts => ({
  ...parts,
  sink: {
    partitionsOf: (topic, deadline) => parts.sink.partitionsOf(topic, deadline),
    open: async (source, deadline) => change(await parts.sink.open(source, deadline)),
  },
})

const wrapped = (
  session: SinkSession,
  change: { readonly limit?: () => number; readonly commit?: SinkSession['commit'] },
): SinkSession => ({
  get position() {
    return session.position
  },
  get maxBatchBytes() {
    return change.limit?.() ?? session.maxBatchBytes
  },
  maxStateBytes: session.maxStateBytes,
  commit: change.commit ?? ((messages, position, deadline) => session.commit(messages, position, deadline)),
  close: () => session.close(),
})

describe('a gate between slices', () => {
  it('counts calls, keys at hand and uses of them, of what comes in and of what goes out', async () => {
    shop = await openShop()
    const records = await sent(3)
    const ingest = ingestOf()
    for (const record of records) expect(await ingestAll(ingest, [record])).toEqual([])
    const { opening, sealing } = ingest.keyCounts()
    expect(opening).toMatchObject({ calls: 1, hits: 2, waits: 0, failures: 0, alive: 1 })
    expect(sealing).toMatchObject({ calls: 1, hits: 2, waits: 1, failures: 0, alive: 1 })
    expect(opening.oldestAgeMs).toBeLessThan(60_000)
    await ingest.close()
  })

  it('judges a record no earlier than those before it, in its slice and in the slices before', async () => {
    shop = await openShop()
    const records = [...(await sent(1)), ...(await sent(2, 100))]
    const ingest = ingestOf()
    const at = (index: number, seconds: number): SourceRecord[] =>
      records
        .slice(index, index + 1)
        .map((record) => ({ ...record, timestamp: record.timestamp + seconds * 1000 }))
    // The second, by its own time, is still good; by that of the one before it has expired. So has the third.
    expect(await ingestAll(ingest, [...at(0, 200), ...at(1, 0)])).toEqual([])
    expect(await ingestAll(ingest, at(2, 0))).toEqual([])
    await ingest.close()
    expect(await shop.codes()).toEqual(['time-invalid', 'time-invalid'])
  })

  it('gives no topic-partition more in one transaction than the sink takes, the segment among it', async () => {
    // Nothing sealed goes out: the audit fills first.
    shop = await openShop([ORDER_CONTRACT.replace(/ {2}fulfilment:[^]*(?= {2}analytics:)/, '')])
    const records = await sent(100)
    let maxBatchBytes = 5000
    const room: number[] = []
    const ingest = ingestOf((parts) =>
      withSessions(parts, (session) =>
        wrapped(session, {
          limit: () => maxBatchBytes,
          commit: async (messages, position, deadline) => {
            room.push(...bytesByPlace(messages).map((bytes) => maxBatchBytes - bytes))
            await session.commit(messages, position, deadline)
            // Another limit each time, so that whole entries fill one of them nearly.
            maxBatchBytes += 70
          },
        }),
      ),
    )
    expect(await ingestAll(ingest, records)).toEqual([])
    await ingest.close()
    expect(room.length).toBeGreaterThan(8)
    expect(Math.min(...room)).toBeGreaterThanOrEqual(0)
    expect(await shop.records('orders.analytics')).toHaveLength(100)
  })

  it('takes a partition over once more where it was fenced, and then lets Lambda try again', async () => {
    shop = await openShop()
    const records = await sent(3)
    let opens = 0
    const ingest = ingestOf((parts) =>
      withSessions(parts, (session) => {
        opens += 1
        if (opens > 5) throw new Outage('sink-unavailable', 'opened again and again')
        const fenced = new Outage('fenced', 'another has it')
        return wrapped(session, { commit: () => Promise.reject(fenced) })
      }),
    )
    const [stop, ...more] = await ingestAll(ingest, records)
    await ingest.close()
    expect(more).toEqual([])
    expect([stop?.outage.code, stop?.offset]).toEqual(['fenced', records[0]?.offset])
    expect(opens).toBe(2)
    expect(await shop.records(AUDIT_TOPIC)).toEqual([])
  })

  it.each(['unwraps', 'makes'])(
    'commits what it could decide before a key service that never %s a key',
    async (how) => {
      shop = await openShop()
      // Two data keys, as from two runs of a producer.
      const records = [...(await sent(2)), ...(await sent(2))]
      const real = shop.stack.consumer(LOCAL_GATEWAY).keyService
      const never = new Promise<never>(() => undefined)
      let unwraps = 0
      const keyService: KeyService = {
        generate: (...args) => (how === 'makes' ? never : real.generate(...args)),
        unwrap: (...args) => (how === 'unwraps' && ++unwraps > 1 ? never : real.unwrap(...args)),
      }
      const { clock } = shop.stack
      const ingest = ingestOf((parts) => ({
        ...parts,
        settings: { ...parts.settings, reserveMs: 1500 },
        dataKeys: createDataKeys({ keyService, clock, maxParallel: 1 }),
        newSealingKeys: () => createSealingKeys({ keyService, clock }),
      }))
      const { topic = '', partition = 0 } = records[0] ?? {}
      const start = Date.now()
      const [stop] = await ingest.ingest([{ topic, partition, records }], start + 3000)
      expect(Date.now() - start).toBeLessThan(2900)
      await ingest.close()
      const decided = how === 'makes' ? 0 : 2
      expect([stop?.outage.code, stop?.offset]).toEqual(['deadline', records[decided]?.offset])
      expect(await shop.records('orders.fulfilment')).toHaveLength(decided)
    },
  )

  it.each(['is decided', 'stops at an outage', 'is not taken by the sink'])(
    'gives its data keys back when a slice %s',
    async (how) => {
      shop = await openShop()
      const records = await sent(3)
      let [taken, given] = [0, 0]
      const ingest = ingestOf((parts) => {
        const { dataKeys } = parts
        const sink = withSessions(parts, (session) =>
          how !== 'is not taken by the sink'
            ? session
            : wrapped(session, { commit: () => Promise.reject(new Outage('sink-unavailable', 'no answer')) }),
        )
        return {
          ...sink,
          dataKeys: {
            ...dataKeys,
            prepare: async (requests, deadline) => {
              taken += 1
              const keys = await dataKeys.prepare(requests, deadline)
              return {
                lend: (request, use) => {
                  if (how === 'stops at an outage') throw new Outage('key-service-unavailable', 'no answer')
                  return keys.lend(request, use)
                },
                release: () => {
                  given += 1
                  keys.release()
                },
              }
            },
          },
        }
      })
      const stops = await ingestAll(ingest, records)
      await ingest.close()
      expect(stops).toHaveLength(how === 'is decided' ? 0 : 1)
      expect([taken, given]).toEqual([1, 1])
    },
  )

  it('keeps nothing of the records that it has decided, while it stays warm', async () => {
    shop = await openShop()
    const ingest = ingestOf()
    const values = await ingestOwn(ingest, await sent(20))
    await collect()
    expect(values.filter((value) => value.deref() !== undefined)).toHaveLength(0)
    await ingest.close()
  })
})

/** What a transaction gives to each topic-partition that gets several messages. */
function bytesByPlace(messages: readonly Message[]): number[] {
  const places = new Map<string, Message[]>()
  for (const message of messages) {
    const place = `${message.topic}/${message.partition}`
    places.set(place, [...(places.get(place) ?? []), message])
  }
  return [...places.values()]
    .filter((list) => list.length > 1)
    .map((list) => list.reduce((sum, message) => sum + batchBytes(message), 0))
}

/** Ingests copies of records that nobody else holds, and gives weak references to their bytes. */
async function ingestOwn(
  ingest: Ingest,
  records: readonly SourceRecord[],
): Promise<WeakRef<ArrayBufferLike>[]> {
  const own = records.map((record) => ({ ...record, value: new Uint8Array(record.value ?? []) }))
  expect(await ingestAll(ingest, own)).toEqual([])
  return own.map(({ value }) => new WeakRef(value.buffer))
}

/** Collects garbage until weak references say what is still held. */
async function collect(): Promise<void> {
  setFlagsFromString('--expose-gc')
  const gc: unknown = runInNewContext('gc')
  if (typeof gc !== 'function') throw new Error('no garbage collector to call')
  for (let round = 0; round < 3; round++) {
    await new Promise((resolve) => setTimeout(resolve, 10))
    gc()
  }
}
