import fc from 'fast-check'
import { afterEach, describe, expect, it } from 'vitest'
import { slicesOf, toMskEvent } from '../../lib/adapters/msk-event.ts'
import { ConfigError } from '../../lib/errors.ts'
import { MAX_EVENT_BYTES, Gathering, eventJson, failedItems, itemOf } from '../../lib/local/event-batch.ts'
import type { FailureRecord } from '../../lib/local/event-batch.ts'
import { FunctionTimeout } from '../../lib/local/invocation.ts'
import type { LambdaHandler } from '../../lib/local/invocation.ts'
import { startPoller } from '../../lib/local/poller.ts'
import type { Poller, PollerOptions } from '../../lib/local/poller.ts'
import type { SourceRecord } from '../../lib/ports.ts'
import { MemorySource } from './memory-source.ts'

const ORIGIN = { eventSourceArn: 'arn:aws:kafka:eu-west-1:1:cluster/test/1', bootstrapServers: 'kafka:9092' }
const QUICK = { batchingWindowMs: 0, backoffMs: { initial: 1, max: 5 }, origin: ORIGIN } as const
const WAIT_MS = 5_000

const running: Poller[] = []
afterEach(async () => {
  await Promise.all(running.splice(0).map((poller) => poller.stop()))
})

const start = async (
  source: MemorySource,
  handler: LambdaHandler,
  options: PollerOptions = {},
  topics: readonly string[] = ['orders'],
): Promise<Poller> => {
  const poller = await startPoller({
    source,
    group: 'gate',
    topics,
    handler,
    options: { ...QUICK, ...options },
  })
  running.push(poller)
  return poller
}

const withTopic = (partitions: number, ...counts: number[]): MemorySource => {
  const source = new MemorySource()
  source.create('orders', partitions)
  for (const [partition, count] of counts.entries()) {
    source.append('orders', partition, ...Array.from({ length: count }, () => ({})))
  }
  return source
}

/** What a handler saw: `topic-partition@offset`, invocation by invocation. */
const placesOf = (event: unknown): string[] =>
  slicesOf(event).flatMap(({ records }) =>
    records.map((record) => `${record.topic}-${record.partition}@${record.offset}`),
  )

/** A handler that keeps what it saw and then does what `decide` says, by the number of the invocation from 1. */
const recording = (decide: (places: string[], invocation: number) => unknown = () => undefined) => {
  const seen: string[][] = []
  const handler: LambdaHandler = async (event) => {
    const places = placesOf(event)
    seen.push(places)
    return Promise.resolve(decide(places, seen.length))
  }
  return { seen, handler }
}

const failing =
  (...bad: string[]) =>
  (places: string[]) => {
    if (places.some((place) => bad.includes(place))) throw new Error('bad record')
  }

const partial = (...places: string[]) => ({
  batchItemFailures: places.map((place) => {
    const [partition, offset] = place.split('@')
    return { itemIdentifier: { partition, offset: Number(offset) } }
  }),
})

const orders = (partition: number, from: number, to: number): string[] =>
  Array.from({ length: to - from }, (_, index) => `orders-${partition}@${from + index}`)

const until = async (condition: () => boolean): Promise<void> => {
  const end = performance.now() + WAIT_MS
  while (!condition()) {
    if (performance.now() > end) throw new Error('it did not come about in time')
    await new Promise((resolve) => setTimeout(resolve, 2))
  }
}

describe('gathering', () => {
  it('delivers every record of every topic and partition once, in order, and commits behind them', async () => {
    const source = withTopic(3, 250, 5, 0)
    source.create('payments', 2)
    source.append('payments', 1, {}, {}, { offset: 7n }, {})
    const { seen, handler } = recording()
    const poller = await start(source, handler, {}, ['orders', 'payments'])
    expect(await poller.drained(WAIT_MS)).toBe(true)
    expect(seen.flat().toSorted()).toEqual(
      [
        ...orders(0, 0, 250),
        ...orders(1, 0, 5),
        ...[0, 1, 7, 8].map((offset) => `payments-1@${offset}`),
      ].toSorted(),
    )
    expect(seen.flat().filter((place) => place.startsWith('orders-0@'))).toEqual(orders(0, 0, 250))
    expect(Math.max(...seen.map((places) => places.length))).toBe(100)
    expect(Object.fromEntries(source.offsets)).toEqual({
      'gate/orders-0': 250n,
      'gate/orders-1': 5n,
      'gate/orders-2': 0n,
      'gate/payments-0': 0n,
      'gate/payments-1': 9n,
    })
    expect(poller.stats()).toMatchObject({
      records: 259,
      failures: 0,
      retries: 0,
      discarded: 0,
      lastError: undefined,
    })
  })

  it('puts several partitions and topics into one event', async () => {
    const source = withTopic(2, 2, 1)
    source.create('payments', 1)
    source.append('payments', 0, {})
    const { seen, handler } = recording()
    const poller = await start(source, handler, {}, ['orders', 'payments'])
    await poller.drained(WAIT_MS)
    expect(seen.map((places) => places.toSorted())).toEqual([
      [...orders(0, 0, 2), 'orders-1@0', 'payments-0@0'],
    ])
  })

  it('does not let one full partition keep the others waiting', async () => {
    const { seen, handler } = recording()
    const poller = await start(withTopic(2, 50, 1), handler, { batchSize: 10 })
    await poller.drained(WAIT_MS)
    expect(seen.findIndex((places) => places.includes('orders-1@0'))).toBeLessThan(2)
  })

  it('waits for the batching window, and not longer once the batch is full', async () => {
    const source = withTopic(1, 1)
    const { seen, handler } = recording()
    await start(source, handler, { batchingWindowMs: 2000, batchSize: 3 })
    await new Promise((resolve) => setTimeout(resolve, 40))
    source.append('orders', 0, {})
    expect(seen).toEqual([])
    await until(() => seen.length === 1)
    expect(seen).toEqual([orders(0, 0, 2)])
    const from = performance.now()
    source.append('orders', 0, {}, {}, {})
    await until(() => seen.length === 2)
    expect(performance.now() - from).toBeLessThan(1800)
  })

  it('keeps the event within 6 MiB of JSON, and fills it', async () => {
    const source = withTopic(1)
    source.append('orders', 0, ...Array.from({ length: 12 }, () => ({ value: new Uint8Array(900_000) })))
    const sizes: number[] = []
    const poller = await start(source, (event) => void sizes.push(Buffer.byteLength(JSON.stringify(event))))
    expect(await poller.drained(WAIT_MS)).toBe(true)
    expect(sizes).toHaveLength(3)
    expect(Math.max(...sizes)).toBeLessThanOrEqual(MAX_EVENT_BYTES)
    expect(poller.stats().records).toBe(12)
  })

  it('fills an event to the byte', () => {
    const gathering = new Gathering(100, ORIGIN)
    const record: SourceRecord = {
      topic: 'orders',
      partition: 0,
      offset: 0n,
      timestamp: 0,
      timestampType: 'CreateTime',
      key: null,
      value: new Uint8Array(3_000_000),
      headers: [],
    }
    const withHeader = (name: string): SourceRecord => ({
      ...record,
      offset: 1n,
      value: null,
      headers: [{ name, value: null }],
    })
    const missing =
      MAX_EVENT_BYTES - Buffer.byteLength(eventJson([itemOf(record), itemOf(withHeader(''))], ORIGIN))
    const tooMuch = [itemOf(record), itemOf(withHeader('x'.repeat(missing + 1)))]
    gathering.takeFrom(tooMuch)
    expect(gathering.items).toHaveLength(1)
    const justRight = [itemOf(withHeader('x'.repeat(missing)))]
    gathering.takeFrom(justRight)
    expect(gathering.items).toHaveLength(2)
    expect(Buffer.byteLength(eventJson(gathering.items, ORIGIN))).toBe(MAX_EVENT_BYTES)
  })

  it('writes the event byte for byte as one JSON.stringify of it would', () => {
    const anyRecord: fc.Arbitrary<SourceRecord> = fc.record({
      topic: fc.constantFrom('orders', 'a-1'),
      partition: fc.nat(3),
      offset: fc.maxSafeNat().map(BigInt),
      timestamp: fc.maxSafeInteger(),
      timestampType: fc.constantFrom('CreateTime', 'LogAppendTime'),
      key: fc.option(fc.uint8Array()),
      value: fc.option(fc.uint8Array()),
      headers: fc.array(
        fc.record({ name: fc.string({ unit: 'binary' }), value: fc.option(fc.uint8Array()) }),
      ),
    })
    fc.assert(
      fc.property(fc.array(anyRecord, { maxLength: 12 }), fc.boolean(), (records, selfManaged) => {
        const origin = { ...ORIGIN, selfManaged }
        expect(eventJson(records.map(itemOf), origin)).toBe(JSON.stringify(toMskEvent(records, origin)))
      }),
    )
  })

  it('begins at the latest record where it is told to, and there again after a restart', async () => {
    const source = withTopic(1, 3)
    const { seen, handler } = recording()
    const poller = await start(source, handler, { startingPosition: 'latest' })
    await poller.stop()
    source.append('orders', 0, {})
    const again = await start(source, handler, { startingPosition: 'latest' })
    await again.drained(WAIT_MS)
    expect(seen).toEqual([['orders-0@3']])
  })

  it("goes on from the group's offset", async () => {
    const source = withTopic(1, 5)
    source.offsets.set('gate/orders-0', 3n)
    const { seen, handler } = recording()
    await (await start(source, handler)).drained(WAIT_MS)
    expect(seen).toEqual([orders(0, 3, 5)])
  })

  it('gives each invocation a copy that nothing else sees', async () => {
    const source = withTopic(1, 1)
    const { seen, handler } = recording((_, invocation) => {
      if (invocation === 1) throw new Error('once more')
    })
    const poller = await start(source, (event, context) => {
      const answer = handler(event, context)
      if (typeof event === 'object' && event !== null) Object.assign(event, { records: {} })
      return answer
    })
    await poller.drained(WAIT_MS)
    expect(seen).toEqual([['orders-0@0'], ['orders-0@0']])
  })

  it('runs as many sequences side by side as it is told, one for a partition', async () => {
    const source = withTopic(4, 5, 5, 5, 5)
    let [now, most] = [0, 0]
    const partitions = new Map<string, number>()
    const poller = await start(
      source,
      async (event) => {
        most = Math.max(most, ++now)
        for (const place of placesOf(event)) {
          const [partition = '', offset] = place.split('@')
          expect(Number(offset)).toBe((partitions.get(partition) ?? -1) + 1)
          partitions.set(partition, Number(offset))
        }
        await new Promise((resolve) => setTimeout(resolve, 5))
        now--
      },
      { concurrency: 3, batchSize: 2 },
    )
    expect(await poller.drained(WAIT_MS)).toBe(true)
    expect(most).toBe(3)
    expect(poller.stats()).toMatchObject({ records: 20, failures: 0 })
  })

  it('names every bad setting at once and does not start', async () => {
    const source = withTopic(1)
    const options = {
      batchSize: 10_001,
      batchingWindowMs: -1,
      maximumRecordAgeInSeconds: 59,
      maximumRetryAttempts: -2,
      concurrency: 0,
    }
    const fault = await start(source, () => undefined, options, []).catch((error: unknown) => error)
    expect(fault).toBeInstanceOf(ConfigError)
    for (const name of [...Object.keys(options), 'topics']) expect(String(fault)).toContain(name)
  })

  it('fails at the start where a topic is not there', async () => {
    await expect(start(withTopic(1), () => undefined, {}, ['none'])).rejects.toThrow('no topic none')
  })
})

describe('a failing function', () => {
  it('is given the same batch again without end, and nothing is committed before it succeeds', async () => {
    const source = withTopic(1, 3)
    const { seen, handler } = recording((_, invocation) => {
      expect(source.offsets.get('gate/orders-0')).toBe(0n)
      if (invocation < 30) throw new Error('not yet')
    })
    const poller = await start(source, handler)
    expect(await poller.drained(WAIT_MS)).toBe(true)
    expect(seen).toEqual(Array.from({ length: 30 }, () => orders(0, 0, 3)))
    expect(source.offsets.get('gate/orders-0')).toBe(3n)
    expect(poller.stats()).toMatchObject({
      invocations: 30,
      failures: 29,
      retries: 29,
      records: 3,
      discarded: 0,
    })
  })

  it('waits longer from retry to retry', async () => {
    const at: number[] = []
    const poller = await start(
      withTopic(1, 1),
      () => {
        at.push(performance.now())
        if (at.length < 10) throw new Error('not yet')
      },
      { backoffMs: { initial: 10, max: 20 } },
    )
    await poller.drained(WAIT_MS)
    const gaps = at.slice(1).map((time, index) => time - at[index]!)
    for (const [index, least] of [10, 20, 20, 20, 20].entries())
      expect(gaps[index]).toBeGreaterThan(least - 2)
    // Without the longest wait the fifth would be 160 ms, and each one after it twice as long.
    expect(Math.min(...gaps.slice(4))).toBeLessThan(140)
  })

  it('loses the batch after the last retry where there is no destination', async () => {
    const { seen, handler } = recording(failing('orders-0@1'))
    const source = withTopic(1, 5)
    const poller = await start(source, handler, { maximumRetryAttempts: 2, batchSize: 3 })
    await poller.drained(WAIT_MS)
    expect(seen).toEqual([orders(0, 0, 3), orders(0, 0, 3), orders(0, 0, 3), orders(0, 3, 5)])
    expect(poller.stats()).toMatchObject({ records: 2, discarded: 3 })
    expect(source.offsets.get('gate/orders-0')).toBe(5n)
  })

  it('is retried ten times, not without end, where there is a destination: AWS documents so', async () => {
    const given: FailureRecord[] = []
    const source = withTopic(2, 2, 1)
    source.append('orders', 1, { timestamp: 2 ** 62, value: Uint8Array.of(1) })
    const poller = await start(
      source,
      () => {
        throw new Error('never')
      },
      { onFailure: (record) => void given.push(record), functionName: 'gate' },
    )
    await poller.drained(WAIT_MS)
    expect(poller.stats()).toMatchObject({ invocations: 11, discarded: 4, records: 0 })
    expect(given).toHaveLength(1)
    const [record] = given
    expect(record).toMatchObject({
      requestContext: {
        condition: 'RetryAttemptsExhausted',
        approximateInvokeCount: 11,
      },
      responseContext: { statusCode: 200, executedVersion: '$LATEST', functionError: 'Unhandled' },
      version: '1.0',
      KafkaBatchInfo: {
        batchSize: 4,
        ...ORIGIN,
        payloadSize: Buffer.byteLength(record!.payload),
        recordsInfo: {
          'orders-0': { firstRecordOffset: '0', lastRecordOffset: '1' },
          'orders-1': {
            firstRecordOffset: '0',
            lastRecordOffset: '1',
            lastRecordTimestamp: '+275760-09-13T00:00:00.000Z',
          },
        },
      },
    })
    expect(record!.requestContext.functionArn).toMatch(/^arn:aws:lambda:.*:function:gate$/)
    expect(placesOf(JSON.parse(record!.payload)).toSorted()).toEqual([...orders(0, 0, 2), ...orders(1, 0, 2)])
    expect(Object.fromEntries(source.offsets)).toEqual({ 'gate/orders-0': 2n, 'gate/orders-1': 2n })
  })

  it('commits nothing that the destination has not taken', async () => {
    const source = withTopic(1, 1)
    let tries = 0
    const poller = await start(
      source,
      () => {
        throw new Error('never')
      },
      {
        maximumRetryAttempts: 0,
        onFailure: async () => {
          expect(source.offsets.get('gate/orders-0')).toBe(0n)
          if (++tries < 4) await Promise.reject(new Error('destination away'))
        },
      },
    )
    await poller.drained(WAIT_MS)
    expect(tries).toBe(4)
    expect(source.offsets.get('gate/orders-0')).toBe(1n)
  })

  it('is given halves with bisect, until only the bad record is left, and halving costs no retry', async () => {
    const given: FailureRecord[] = []
    const { seen, handler } = recording(failing('orders-0@5'))
    const source = withTopic(1, 8)
    const poller = await start(source, handler, {
      bisectBatchOnFunctionError: true,
      maximumRetryAttempts: 1,
      onFailure: (record) => void given.push(record),
    })
    await poller.drained(WAIT_MS)
    expect(seen).toEqual([
      orders(0, 0, 8),
      orders(0, 0, 4),
      orders(0, 4, 8),
      orders(0, 4, 6),
      orders(0, 4, 5),
      orders(0, 5, 6),
      orders(0, 5, 6),
      orders(0, 6, 8),
    ])
    expect(given.map(({ payload }) => placesOf(JSON.parse(payload)))).toEqual([['orders-0@5']])
    expect(source.commits.at(-1)).toBe('orders-0@8')
    expect(source.commits).toContain('orders-0@5')
    expect(poller.stats()).toMatchObject({ records: 7, discarded: 1 })
  })

  it('discards records past their age before invoking, and tells the destination that there was no invocation', async () => {
    const given: FailureRecord[] = []
    const source = withTopic(1)
    source.append(
      'orders',
      0,
      { timestamp: Date.now() - 120_000 },
      {},
      { timestamp: Date.now() - 61_000 },
      {},
    )
    const { seen, handler } = recording()
    const poller = await start(source, handler, {
      maximumRecordAgeInSeconds: 60,
      onFailure: (record) => void given.push(record),
    })
    await poller.drained(WAIT_MS)
    expect(seen).toEqual([['orders-0@1', 'orders-0@3']])
    expect(given).toMatchObject([
      {
        requestContext: { condition: 'RecordAgeExceeded', approximateInvokeCount: 0 },
        responseContext: null,
        KafkaBatchInfo: { batchSize: 2 },
      },
    ])
    expect(source.offsets.get('gate/orders-0')).toBe(4n)
  })

  it('is cut off at its time-out and retried', async () => {
    const remaining: number[] = []
    let calls = 0
    const poller = await start(
      withTopic(1, 1),
      async (_, context) => {
        remaining.push(context.getRemainingTimeInMillis())
        if (++calls === 1) await new Promise((resolve) => setTimeout(resolve, 3_000).unref())
      },
      { functionTimeoutMs: 100 },
    )
    const from = performance.now()
    expect(await poller.drained(WAIT_MS)).toBe(true)
    expect(performance.now() - from).toBeLessThan(2_000)
    expect(poller.stats()).toMatchObject({ invocations: 2, failures: 1, retries: 1, records: 1 })
    expect(poller.stats().lastError).toBeInstanceOf(FunctionTimeout)
    for (const left of remaining) expect(left).toBeGreaterThan(20)
    expect(Math.max(...remaining)).toBeLessThanOrEqual(100)
  })
})

describe('a partial answer', () => {
  const REPORT = { reportBatchItemFailures: true } as const

  it('makes exactly the named records come again, and commits up to the first of them', async () => {
    const source = withTopic(2, 5, 3)
    const offsetsAtRetry: unknown[] = []
    const { seen, handler } = recording((_, invocation) => {
      if (invocation === 1) return partial('orders-0@2', 'orders-0@4', 'orders-1@0')
      offsetsAtRetry.push(Object.fromEntries(source.offsets))
      return partial()
    })
    const poller = await start(source, handler, REPORT)
    await poller.drained(WAIT_MS)
    expect(seen.slice(1).map((places) => places.toSorted())).toEqual([
      ['orders-0@2', 'orders-0@4', 'orders-1@0'],
    ])
    expect(offsetsAtRetry).toEqual([{ 'gate/orders-0': 2n, 'gate/orders-1': 0n }])
    expect(Object.fromEntries(source.offsets)).toEqual({ 'gate/orders-0': 5n, 'gate/orders-1': 3n })
    expect(poller.stats()).toMatchObject({ records: 8, failures: 1, retries: 1 })
  })

  it("reads as success without the mapping's consent, and so loses the records", async () => {
    const source = withTopic(1, 3)
    const { seen, handler } = recording(() => partial('orders-0@1'))
    const poller = await start(source, handler)
    await poller.drained(WAIT_MS)
    expect(seen).toHaveLength(1)
    expect(source.offsets.get('gate/orders-0')).toBe(3n)
  })

  it('gives named records up after the last retry, with the ones that came through done', async () => {
    const given: FailureRecord[] = []
    const { seen, handler } = recording((places) => partial(...places.filter((place) => place.endsWith('1'))))
    const poller = await start(withTopic(1, 3), handler, {
      ...REPORT,
      bisectBatchOnFunctionError: true,
      maximumRetryAttempts: 2,
      onFailure: (record) => void given.push(record),
    })
    await poller.drained(WAIT_MS)
    expect(seen).toEqual([orders(0, 0, 3), ['orders-0@1'], ['orders-0@1']])
    expect(given).toHaveLength(1)
    expect(given[0]!.responseContext).toEqual({ statusCode: 200, executedVersion: '$LATEST' })
    expect(poller.stats()).toMatchObject({ records: 2, discarded: 1 })
  })

  const items = ['a-0', 'a-0-1'].flatMap((name) =>
    [5n, 6n].map((offset) => {
      const at = name.lastIndexOf('-')
      return itemOf({
        topic: name.slice(0, at),
        partition: Number(name.slice(at + 1)),
        offset,
        timestamp: 0,
        timestampType: 'CreateTime',
        key: null,
        value: null,
        headers: [],
      })
    }),
  )

  it.each([
    ['null', null],
    ['{}', {}],
    ['an empty list', { batchItemFailures: [] }],
    ['a null list', { batchItemFailures: null }],
  ])('of %s is success', (_, answer) => {
    expect(failedItems(answer, items)).toEqual([])
  })

  it.each([
    ['text', 'ok'],
    ['a list', []],
    ['another object', { statusCode: 200 }],
    ['a list that is none', { batchItemFailures: {} }],
    ['an item without identifier', { batchItemFailures: [{}] }],
    ['a null item', { batchItemFailures: [null] }],
    ['an identifier as text', { batchItemFailures: [{ itemIdentifier: 'a-0-5' }] }],
    ['an offset as text', { batchItemFailures: [{ itemIdentifier: { partition: 'a-0', offset: '5' } }] }],
    ['a partition as number', { batchItemFailures: [{ itemIdentifier: { partition: 0, offset: 5 } }] }],
    [
      'an offset that was not sent',
      { batchItemFailures: [...partial('a-0@5').batchItemFailures, ...partial('a-0@7').batchItemFailures] },
    ],
    ['a partition that was not sent', partial('a-1@5')],
  ])('of %s is malformed', (_, answer) => {
    expect(failedItems(answer, items)).toBe('malformed')
  })

  it("tells topics apart that look like other topics' partitions", () => {
    expect(failedItems(partial('a-0-1@5', 'a-0@6', 'a-0@6'), items)).toEqual([items[1], items[2]])
  })

  it('that is malformed makes the whole batch come again, not in halves', async () => {
    const { seen, handler } = recording((_, invocation) =>
      invocation === 1 ? partial('orders-0@9') : undefined,
    )
    const poller = await start(withTopic(1, 4), handler, { ...REPORT, bisectBatchOnFunctionError: true })
    await poller.drained(WAIT_MS)
    expect(seen).toEqual([orders(0, 0, 4), orders(0, 0, 4)])
  })
})

describe('trouble around it', () => {
  it('of the source is tried again and loses nothing', async () => {
    const source = withTopic(2, 120, 30)
    let calls = 0
    source.trouble = () => {
      if (++calls % 3 === 0) throw new Error('broker away')
    }
    const { seen, handler } = recording()
    const poller = await start(source, handler)
    expect(await poller.drained(WAIT_MS)).toBe(true)
    expect(seen.flat().toSorted()).toEqual([...orders(0, 0, 120), ...orders(1, 0, 30)].toSorted())
    expect(Object.fromEntries(source.offsets)).toEqual({ 'gate/orders-0': 120n, 'gate/orders-1': 30n })
    expect(String(poller.stats().lastError)).toContain('broker away')
  })

  it('of an oversize record holds its partition without a destination, and no other', async () => {
    const source = withTopic(2, 1, 2)
    source.append('orders', 0, { value: new Uint8Array(5_000_000) }, {})
    const { seen, handler } = recording()
    const poller = await start(source, handler)
    await until(() => seen.flat().length === 3 && source.offsets.get('gate/orders-0') === 1n)
    expect(await poller.drained(200)).toBe(false)
    expect(seen.flat().toSorted()).toEqual(['orders-0@0', ...orders(1, 0, 2)])
    expect(source.offsets.get('gate/orders-0')).toBe(1n)
    expect(source.fetches).toBeLessThan(50)
    expect(String(poller.stats().lastError)).toContain('orders-0 at offset 1')
  })

  it('of an oversize record sends it to the destination and goes on', async () => {
    const given: FailureRecord[] = []
    const source = withTopic(1, 1)
    source.append('orders', 0, { value: new Uint8Array(5_000_000) }, {})
    const { seen, handler } = recording()
    const poller = await start(source, handler, { onFailure: (record) => void given.push(record) })
    expect(await poller.drained(WAIT_MS)).toBe(true)
    expect(seen.flat()).toEqual(['orders-0@0', 'orders-0@2'])
    expect(given).toMatchObject([
      {
        requestContext: { condition: 'MaximumPayloadSizeExceeded' },
        responseContext: null,
        KafkaBatchInfo: { batchSize: 1 },
      },
    ])
    expect(source.offsets.get('gate/orders-0')).toBe(3n)
  })

  it('does not keep it busy while there is nothing to do', async () => {
    const source = withTopic(1, 1)
    const poller = await start(source, () => undefined)
    await poller.drained(WAIT_MS)
    const before = source.fetches
    await new Promise((resolve) => setTimeout(resolve, 200))
    expect(source.fetches - before).toBeLessThan(3)
  })
})

describe('stopping', () => {
  it('waits for the invocation at hand, commits it, and begins no other', async () => {
    const source = withTopic(1, 10)
    const gate = Promise.withResolvers<undefined>()
    const { seen, handler } = recording(() => gate.promise)
    const poller = await start(source, handler, { batchSize: 2 })
    await until(() => seen.length === 1)
    const stopped = poller.stop()
    gate.resolve(undefined)
    await stopped
    expect(seen).toHaveLength(1)
    expect(source.offsets.get('gate/orders-0')).toBe(2n)
    expect(await poller.drained(WAIT_MS)).toBe(false)
  })

  it("ends within the function's time-out though the function hangs, and commits nothing of it", async () => {
    const source = withTopic(1, 1)
    const { seen, handler } = recording(() => new Promise(() => undefined))
    const poller = await start(source, handler, { functionTimeoutMs: 80 })
    await until(() => seen.length === 1)
    const from = performance.now()
    await poller.stop()
    expect(performance.now() - from).toBeLessThan(10_000)
    expect(source.offsets.get('gate/orders-0')).toBe(0n)
  })

  it('ends at once in a long wait: idle, before a retry, and with the destination away', async () => {
    const never = (): never => {
      throw new Error('never')
    }
    const backoffMs = { initial: 60_000, max: 60_000 }
    const pollers = await Promise.all([
      start(withTopic(1), () => undefined),
      start(withTopic(1, 1), never, { backoffMs }),
      start(withTopic(1, 1), never, { backoffMs, maximumRetryAttempts: 0, onFailure: never }),
      start(withTopic(1, 1), () => undefined, { batchingWindowMs: 60_000 }),
    ])
    await until(() => pollers[1].stats().failures === 1 && pollers[2].stats().failures === 1)
    const drained = pollers.map((poller) => poller.drained(60_000))
    const from = performance.now()
    await Promise.all(pollers.map((poller) => poller.stop()))
    expect(performance.now() - from).toBeLessThan(10_000)
    expect(await Promise.all(drained.slice(1))).toEqual([false, false, false])
  })

  it('and starting again delivers at least once what was not committed', async () => {
    const source = withTopic(2, 40, 40)
    const all = new Set<string>()
    for (let round = 0; round < 6; round++) {
      const { handler } = recording((places, invocation) => {
        if (invocation % 2 === round % 2) throw new Error('crash')
        for (const place of places) all.add(place)
      })
      const poller = await start(source, handler, { batchSize: 7, backoffMs: { initial: 1, max: 1 } })
      await new Promise((resolve) => setTimeout(resolve, 3 * round))
      await poller.stop()
    }
    const poller = await start(
      source,
      recording((places) => places.forEach((place) => all.add(place))).handler,
    )
    expect(await poller.drained(WAIT_MS)).toBe(true)
    expect(all.size).toBe(80)
  })
})
