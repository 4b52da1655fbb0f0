/** The event-source poller on real Kafka: what it reads, and the whole chain producer → poller → handler → consumer. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Producer, Transaction } from 'kafkajs'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { ingestHandler } from '../../functions/ingest-handler.ts'
import { createOpener } from '../../lib/client/opener.ts'
import { createKafkaSource, type KafkaSource } from '../../lib/adapters/kafka-source.ts'
import { type Poller, startPoller } from '../../lib/local/poller.ts'
import type { PolledSource } from '../../lib/local/poller-lane.ts'
import type { Message } from '../../lib/ports.ts'
import { createDirectory } from '../../lib/keys/directory-reader.ts'
import { orders, RealShop, totals, upTo } from './shop.ts'
import { bytes, client, Cluster, settings, text, unique } from './world.ts'

const cluster = new Cluster()
let source: KafkaSource
beforeAll(() => {
  source = createKafkaSource(settings({}, 'poller'))
})
afterAll(async () => {
  await source.close()
  await cluster.end()
})

const LIMITS = { maxBytes: 1_000_000, maxRecords: 100 }

const message = (topic: string, value: string, more: Partial<Message> = {}): Message => ({
  ...{ topic, partition: 0, key: null, value: bytes(value), headers: [] },
  ...more,
})

async function topicOf(partitions = 1, config: Record<string, string> = {}): Promise<string> {
  const topic = `source.polled.${unique()}`
  await cluster.createTopic(topic, partitions, config)
  return topic
}

/** All there is, page by page. */
async function readAll(topic: string, limits = LIMITS): Promise<{ values: string[]; pages: number }> {
  const values: string[] = []
  for (let at = 0n, pages = 1; ; pages++) {
    const { records, next, end } = await source.fetch({ topic, partition: 0 }, at, limits)
    values.push(...records.map(({ value }) => text(value)))
    if (next >= end) return { values, pages }
    expect(next).toBeGreaterThan(at)
    at = next
  }
}

describe('a Kafka cluster as the poller reads it', () => {
  it('counts partitions, and names a topic that is not there', async () => {
    expect(await source.partitions(await topicOf(3))).toBe(3)
    await expect(source.partitions(`source.none.${unique()}`)).rejects.toMatchObject({ code: 'sink-denied' })
    const secret = createKafkaSource(settings({}, 'consumer'))
    await expect(secret.partitions(await topicOf())).rejects.toMatchObject({ code: 'sink-denied' })
    await secret.close()
  })

  it('gives records back as they were written: null values, headers in order, double, null and badly named', async () => {
    const topic = await topicOf()
    const headers = [
      { name: 'b', value: bytes('1') },
      { name: '7', value: bytes('2') },
      { name: 'constructor', value: bytes('3') },
      { name: '__proto__', value: null },
      { name: 'b', value: bytes('4') },
      { name: 'a', value: bytes('') },
    ]
    await cluster.produce([
      message(topic, 'first', { key: bytes('k'), headers }),
      message(topic, '', { value: null }),
    ])
    const { records, next, end } = await source.fetch({ topic, partition: 0 }, 0n, LIMITS)
    expect([next, end]).toEqual([2n, 2n])
    const [first, second] = records
    expect(first).toMatchObject({ topic, partition: 0, offset: 0n, timestampType: 'CreateTime' })
    expect(first?.timestamp).toBeGreaterThan(Date.now() - 60_000)
    expect([first && text(first.key), first && text(first.value)]).toEqual(['k', 'first'])
    expect(first?.headers.map(({ name, value }) => [name, value && text(value)])).toEqual(
      headers.map(({ name, value }) => [name, value && text(value)]),
    )
    expect(second).toMatchObject({ offset: 1n, key: null, value: null, headers: [] })
  })

  it('says when the broker set the time', async () => {
    const topic = await topicOf(1, { 'message.timestamp.type': 'LogAppendTime' })
    await cluster.produce([message(topic, 'x')])
    const { records } = await source.fetch({ topic, partition: 0 }, 0n, LIMITS)
    expect(records[0]?.timestampType).toBe('LogAppendTime')
  })

  it('keeps to its limits, and still makes way', async () => {
    const topic = await topicOf()
    const values = Array.from({ length: 10 }, (_, index) => `${index}`.padStart(5000, '-'))
    for (const value of values) await cluster.produce([message(topic, value)])
    expect(await readAll(topic, { maxBytes: 1_000_000, maxRecords: 3 })).toEqual({ values, pages: 4 })
    expect(await readAll(topic, { maxBytes: 1, maxRecords: 100 })).toEqual({ values, pages: 10 })
  })

  it('gives only what is committed, whatever aborted transactions look like', async () => {
    const topic = await topicOf()
    // The transactional ids of the test's gate are its own alone: these are the admin's.
    const producers = ['a', 'b', 'c'].map((id) =>
      client('admin').producer({
        transactionalId: `polled.${id}.${unique()}`,
        idempotent: true,
        maxInFlightRequests: 1,
        createPartitioner: () => () => 0,
      }),
    )
    // The first of all transactions finds the coordinator not ready yet.
    const begun = async (one: Producer): Promise<Transaction> => {
      let transaction: Transaction | undefined
      await until(async () => {
        transaction = await one.connect().then(
          () => one.transaction().catch(() => undefined),
          () => undefined,
        )
        return transaction !== undefined
      })
      if (transaction === undefined) throw new Error('no transaction')
      return transaction
    }
    const [a, b, c] = await Promise.all(producers.map(begun))
    if (a === undefined || b === undefined || c === undefined) throw new Error('no producers')
    const zeros = Buffer.alloc(4)
    await a.send({ topic, messages: [{ value: 'a1' }] })
    await b.send({ topic, messages: [{ value: 'b1' }, { key: zeros, value: 'b2' }] })
    await a.send({ topic, messages: [{ key: zeros, value: 'a2' }, { value: 'a3' }] })
    await cluster.produce([message(topic, 'plain')])
    const open = await source.fetch({ topic, partition: 0 }, 0n, LIMITS)
    expect([open.records, open.end]).toEqual([[], 0n])
    await a.abort()
    await b.abort()
    const place = { topic, partition: 0 }
    await until(async () => (await source.offsets(place)).end === 8n)
    await c.send({ topic, messages: [{ value: 'c1' }] })
    await c.commit()
    await Promise.all(producers.map((producer) => producer.disconnect()))
    await until(async () => (await source.offsets(place)).end === 10n)
    expect((await readAll(topic)).values).toEqual(['plain', 'c1'])
    // From the middle of both: what was aborted before is aborted still.
    const middle = await source.fetch({ topic, partition: 0 }, 2n, LIMITS)
    expect(middle.records.map(({ offset, value }) => [offset, text(value)])).toEqual([
      [5n, 'plain'],
      [8n, 'c1'],
    ])
    expect(middle.next).toBe(10n)
  })

  it('begins with the first record kept, and refuses an offset beyond the end', async () => {
    const topic = await topicOf()
    await cluster.produce(['0', '1', '2', '3'].map((value) => message(topic, value)))
    const admin = await cluster.admin()
    await admin.deleteTopicRecords({ topic, partitions: [{ partition: 0, offset: '2' }] })
    expect((await readAll(topic)).values).toEqual(['2', '3'])
    expect(await source.offsets({ topic, partition: 0 })).toEqual({ first: 2n, end: 4n })
    await expect(source.fetch({ topic, partition: 0 }, 99n, LIMITS)).rejects.toMatchObject({
      code: 'position-damaged',
    })
  })

  it('keeps the offsets of a group that nobody joins, and only of one that it may', async () => {
    const topic = await topicOf()
    const group = `poller.${unique()}`
    const place = { topic, partition: 0 }
    expect(await source.groupOffset(group, place)).toBeUndefined()
    await source.commitGroup(group, place, 7n)
    expect(await source.groupOffset(group, place)).toBe(7n)
    await expect(source.commitGroup(`stranger.${unique()}`, place, 7n)).rejects.toMatchObject({
      code: 'sink-denied',
    })
  })

  it('says what to do where no broker listens or the credentials are wrong', async () => {
    const nowhere = createKafkaSource(settings({ brokers: ['127.0.0.1:1'] }, 'poller'))
    await expect(nowhere.partitions('source.x')).rejects.toMatchObject({
      code: 'sink-unavailable',
      message: expect.stringContaining('no broker can be reached'),
    })
    await nowhere.close()
    const wrong = { mechanism: 'scram-sha-512', username: 'poller', password: 'wrong' }
    const stranger = createKafkaSource(settings({ sasl: wrong }, 'poller'))
    await expect(stranger.partitions('source.x')).rejects.toMatchObject({
      code: 'sink-denied',
      message: expect.stringContaining('credentials'),
    })
    await stranger.close()
  })
})

describe('the whole chain on real Kafka', () => {
  let real: RealShop
  const pollers: Poller[] = []
  beforeEach(async () => {
    real = await RealShop.open()
  })
  afterEach(async () => {
    await Promise.all(pollers.splice(0).map((poller) => poller.stop()))
    await real.end()
  })

  /** A poller and a gate as another process would have them. */
  const start = async (polled: PolledSource, group: string): Promise<Poller> => {
    const gate = real.gate()
    const poller = await startPoller({
      source: polled,
      group,
      topics: [real.source],
      handler: ingestHandler(() => Promise.resolve(gate)),
      options: { batchSize: 20, batchingWindowMs: 10, backoffMs: { initial: 10, max: 50 } },
    })
    pollers.push(poller)
    return poller
  }

  it('brings every event through once, and commits how far it has come', async () => {
    const sealer = await real.sealer()
    const group = `poller.${unique()}`
    const poller = await start(source, group)
    await sealer.send('orders', orders(0, 100))
    await sealer.send('orders', orders(100, 120))
    expect(await poller.drained(30_000)).toBe(true)
    expect(poller.stats()).toMatchObject({ records: 120, failures: 0, lastError: undefined })
    const places = [0, 1].map((partition) => ({ topic: real.source, partition }))
    for (const place of places)
      expect(await source.groupOffset(group, place)).toBe((await source.offsets(place)).end)
    expect(totals(await cluster.readCommitted(real.topicOf('orders.analytics'), 'consumer'))).toEqual(
      upTo(120),
    )
    const sealed = await cluster.readCommitted(real.topicOf('orders.fulfilment'), 'consumer')
    const consumer = real.shop.stack.consumer('fulfilment')
    const opener = createOpener({
      audience: 'fulfilment',
      issuers: 'any-in-directory',
      directory: createDirectory({ ...consumer.directory, clock: real.shop.stack.clock }),
      keyService: consumer.keyService,
      channelOf: () => 'orders.fulfilment',
    })
    const ids = []
    for (const { topic, partition, key, value, offset, timestamp, headers } of sealed) {
      const named = Object.fromEntries(headers.map((one) => [one.name, one.value ?? undefined]))
      const message = { key, value, offset: String(offset), timestamp: String(timestamp), headers: named }
      const one = await opener.open({ topic, partition, message })
      ids.push(one.opened ? JSON.parse(text(one.payload)).orderId : one.code)
    }
    opener.close()
    expect(ids.sort()).toEqual(
      upTo(120)
        .map((id) => `A-${id}`)
        .sort(),
    )
    expect(await real.verify()).toMatchObject({ verified: true, headsKnown: true, entries: 120 })
  })

  it('does nothing twice at the outputs where a poller dies between the work and its commit', async () => {
    const sealer = await real.sealer()
    const group = `poller.${unique()}`
    await sealer.send('orders', orders(0, 100))
    let commits = 0
    const dying: PolledSource = {
      ...source,
      commitGroup: (...commit) => {
        // The two starting places, and two batches.
        if (++commits > 4) return Promise.reject(new Error('it is dead'))
        return source.commitGroup(...commit)
      },
    }
    const first = await start(dying, group)
    await until(() => Promise.resolve(commits > 5))
    await first.stop()
    const done = first.stats().records
    expect(done).toBeGreaterThan(0)
    const second = await start(source, group)
    await sealer.send('orders', orders(100, 120))
    expect(await second.drained(30_000)).toBe(true)
    // Some came a second time, and the gate had decided them already.
    expect(done + second.stats().records).toBeGreaterThan(120)
    expect(totals(await cluster.readCommitted(real.topicOf('orders.analytics'), 'consumer'))).toEqual(
      upTo(120),
    )
    expect(await cluster.readCommitted(real.quarantine)).toEqual([])
    expect(await real.verify()).toMatchObject({ verified: true, entries: 120 })
  })
})

async function until(isTrue: () => Promise<boolean>): Promise<void> {
  for (let tries = 0; tries < 600; tries++) {
    if (await isTrue()) return
    await sleep(50)
  }
  throw new Error('it did not come true')
}
