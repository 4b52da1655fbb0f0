import { copyFile, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { ConfigError, Outage } from '../../lib/errors.ts'
import type { Engine } from '../../lib/local/log-engine.ts'
import { openEngine } from '../../lib/local/log-engine.ts'
import type { NewMessage, TransactionalProducer } from '../../lib/local/log.ts'

let folder = ''
let log: Engine
let now = 1_700_000_000_000
const clock = { now: (): number => now }

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'sg-log-'))
  log = await openEngine(join(folder, 'journal'), clock)
  now = 1_700_000_000_000
})
afterEach(async () => {
  await log.close()
  await rm(folder, { recursive: true, force: true })
})

const bytes = (value: string): Uint8Array => new Uint8Array(Buffer.from(value))
const text = (value: Uint8Array | null): string => Buffer.from(value ?? []).toString()

const message = (
  topic: string,
  partition: number,
  value: string | number,
  timestamp?: number,
): NewMessage => ({
  topic,
  partition,
  key: null,
  value: typeof value === 'number' ? new Uint8Array(value) : bytes(value),
  headers: [],
  ...(timestamp === undefined ? {} : { timestamp }),
})

const outage = (code: string): unknown => expect.objectContaining({ name: 'Outage', code })

describe('topics', () => {
  it('are made once; again with the same settings changes nothing, with others is refused', async () => {
    const settings = { timestampType: 'CreateTime' } as const
    const both = await Promise.all([
      log.createTopic('orders', 3, settings),
      log.createTopic('orders', 3, settings),
    ])
    expect(both).toEqual([true, false])
    await expect(log.createTopic('orders', 4)).rejects.toThrow(
      /partitions 3, not 4[^]*timestampType CreateTime/,
    )
    await log.createTopic('audit', 1, { maxMessageBytes: 2_000_000 })
    expect(await log.topics()).toEqual([
      { name: 'audit', partitions: 1, timestampType: 'LogAppendTime', maxMessageBytes: 2_000_000 },
      { name: 'orders', partitions: 3, timestampType: 'CreateTime', maxMessageBytes: 1_179_648 },
    ])
  })

  it('refuse bad names and settings with every fault at once', async () => {
    const bad = log.createTopic('or/ders', 0, { maxMessageBytes: 1 })
    await expect(bad).rejects.toBeInstanceOf(ConfigError)
    await expect(bad).rejects.toHaveProperty('faults.length', 3)
    for (const name of ['', '.', '..', 'a b', 'é', 'x'.repeat(250)]) {
      await expect(log.createTopic(name, 1)).rejects.toBeInstanceOf(ConfigError)
    }
    expect(await log.topics()).toEqual([])
  })

  it('named like properties of every object are topics like others', async () => {
    await expect(log.endOffsets('__proto__')).rejects.toEqual(outage('sink-denied'))
    await log.createTopic('__proto__', 1)
    expect(await log.endOffsets('__proto__')).toEqual([0n])
    await expect(log.endOffsets('constructor')).rejects.toEqual(outage('sink-denied'))
  })
})

describe('plain appends', () => {
  it('give each message its place, in order within its partition, and its headers and nulls back', async () => {
    await log.createTopic('orders', 2)
    const full: NewMessage = {
      ...message('orders', 1, ''),
      key: bytes('key'),
      value: null,
      headers: [
        { name: 'é', value: null },
        { name: 'é', value: bytes('') },
        { name: '__proto__', value: bytes('x') },
      ],
    }
    const places = await log.append([message('orders', 0, 'a'), full, message('orders', 0, 'b')])
    expect(places).toEqual([
      { topic: 'orders', partition: 0, offset: 0n },
      { topic: 'orders', partition: 1, offset: 0n },
      { topic: 'orders', partition: 0, offset: 1n },
    ])
    const { records } = await log.read('orders', 1, 0n)
    expect(records).toEqual([{ ...full, offset: 0n, timestamp: now, timestampType: 'LogAppendTime' }])
  })

  it('take their time from the log, or from the producer where the topic says so', async () => {
    await log.createTopic('appended', 1)
    await log.createTopic('created', 1, { timestampType: 'CreateTime' })
    await log.append([
      message('appended', 0, 'a', 5),
      message('created', 0, 'a', 5),
      message('created', 0, 'b'),
    ])
    const timesOf = async (topic: string): Promise<unknown> =>
      (await log.read(topic, 0, 0n)).records.map(({ timestamp, timestampType }) => [timestamp, timestampType])
    expect(await timesOf('appended')).toEqual([[now, 'LogAppendTime']])
    expect(await timesOf('created')).toEqual([
      [5, 'CreateTime'],
      [now, 'CreateTime'],
    ])
  })

  it('are all refused where one cannot be taken', async () => {
    await log.createTopic('orders', 1)
    const bad = [message('orders', 1, 'x'), message('other', 0, 'x'), message('orders', 0, 1_200_000)]
    for (const one of bad)
      await expect(log.append([message('orders', 0, 'good'), one])).rejects.toBeInstanceOf(Outage)
    await expect(log.append([message('orders', 0, 'x', -1)])).rejects.toBeInstanceOf(TypeError)
    expect(await log.endOffsets('orders')).toEqual([0n])
  })
})

describe('reading', () => {
  it('keeps to its limits, gives at least one record, and goes on where it stopped', async () => {
    await log.createTopic('orders', 1)
    const sizes = Array.from({ length: 300 }, (_, index) => (index * 977) % 5000)
    await log.append(sizes.map((size) => message('orders', 0, size)))
    for (const limits of [{ maxBytes: 1 }, { maxBytes: 20_000 }, { maxRecords: 7 }, {}]) {
      const seen: number[] = []
      for (let at = 0n; ;) {
        const { records, next, end } = await log.read('orders', 0, at, limits)
        expect(records.length).toBeGreaterThan(0)
        expect(records.length).toBeLessThanOrEqual(limits.maxRecords ?? 300)
        if ('maxBytes' in limits && records.length > 1) {
          expect(records.reduce((sum, { value }) => sum + 30 + (value?.length ?? 0), 0)).toBeLessThanOrEqual(
            limits.maxBytes,
          )
        }
        records.forEach((record, index) => expect(record.offset).toBe(at + BigInt(index)))
        seen.push(...records.map(({ value }) => value?.length ?? -1))
        at = next
        if (at === end) break
      }
      expect(seen).toEqual(sizes)
    }
  })

  it('gives nothing at the end and fails beyond it', async () => {
    await log.createTopic('orders', 1)
    await log.append([message('orders', 0, 'a')])
    expect(await log.read('orders', 0, 1n)).toEqual({ records: [], next: 1n, end: 1n })
    await expect(log.read('orders', 0, 2n)).rejects.toEqual(outage('sink-unavailable'))
    await expect(log.read('orders', 0, -1n)).rejects.toEqual(outage('sink-unavailable'))
    await expect(log.read('orders', 1, 0n)).rejects.toEqual(outage('sink-denied'))
  })

  it('waits for data until it comes, the deadline passes, or the log closes', async () => {
    await log.createTopic('orders', 2)
    const places = [0, 1].map((partition) => ({ topic: 'orders', partition, offset: 0n }))
    expect(await log.waitForData(places, now - 1)).toBe(false)
    expect(await log.waitForData(places, now + 10)).toBe(false)
    const waiting = log.waitForData(places, now + 20_000)
    await log.append([message('orders', 1, 'a')])
    expect(await waiting).toBe(true)
    expect(await log.waitForData(places, now)).toBe(true)
    const last = log.waitForData([{ topic: 'orders', partition: 0, offset: 0n }], now + 20_000)
    await log.close()
    expect(await last).toBe(false)
  })
})

describe('transactions', () => {
  beforeEach(async () => {
    await log.createTopic('orders', 2)
  })

  it('are invisible until their commit, which takes an offset in each of their partitions', async () => {
    const producer = await log.begin('id')
    await producer.append([message('orders', 0, 'a')])
    await log.append([message('orders', 0, 'plain')])
    await producer.append([message('orders', 1, 'b')])
    expect(await log.endOffsets('orders')).toEqual([1n, 0n])
    await producer.commit([])
    expect(await log.endOffsets('orders')).toEqual([3n, 2n])
    await producer.append([message('orders', 0, 'c')])
    await producer.commit([])
    const { records, next } = await log.read('orders', 0, 0n)
    expect(records.map(({ offset, value }) => `${offset} ${text(value)}`)).toEqual(['0 plain', '1 a', '3 c'])
    expect(next).toBe(5n)
  })

  it('leave nothing when aborted, and their holder begins the next one', async () => {
    const producer = await log.begin('id')
    await producer.append([message('orders', 0, 'a')])
    await producer.abort()
    await producer.append([message('orders', 0, 'b')])
    await producer.commit([])
    expect((await log.read('orders', 0, 0n)).records.map(({ value }) => text(value))).toEqual(['b'])
  })

  it('that lack a refused message cannot be committed', async () => {
    const producer = await log.begin('id')
    await expect(producer.append([message('orders', 0, 'a'), message('orders', 9, 'b')])).rejects.toEqual(
      outage('sink-denied'),
    )
    const offset = { group: 'g', topic: 'orders', partition: 0, next: 1n, metadata: bytes('') }
    await expect(producer.commit([offset])).rejects.toEqual(outage('sink-denied'))
    expect(await log.endOffsets('orders')).toEqual([0n, 0n])
    expect(await log.groupOffset('g', 'orders', 0)).toBeUndefined()
  })

  it('hold at most a batch for one partition, over all their appends', async () => {
    const producer = await log.begin('id')
    const half = message('orders', 0, 440_000)
    await producer.append([half, half, { ...half, partition: 1 }])
    await expect(producer.append([half])).rejects.toEqual(outage('sink-unavailable'))
    await producer.abort()
    await producer.append([half, half])
    await producer.commit([])
    expect(await log.endOffsets('orders')).toEqual([3n, 0n])
  })

  it('commit group offsets with bytes beside them, and refuse what is too long', async () => {
    const producer = await log.begin('id')
    const offset = { group: 'g', topic: 'orders', partition: 1, next: 7n, metadata: bytes('state') }
    await producer.commit([offset])
    expect(await log.groupOffset('g', 'orders', 1)).toEqual(offset)
    expect(await log.groupOffset('g', 'orders', 0)).toBeUndefined()
    expect(await log.groupOffset('other', 'orders', 1)).toBeUndefined()
    await log.commitGroup([{ ...offset, next: 3n, metadata: bytes('') }])
    expect((await log.groupOffset('g', 'orders', 1))?.next).toBe(3n)
    const tooLong = { ...offset, metadata: new Uint8Array(32_769) }
    await expect(log.commitGroup([{ ...offset, next: 9n }, tooLong])).rejects.toEqual(
      outage('sink-unavailable'),
    )
    await expect(log.commitGroup([{ ...offset, next: -1n }])).rejects.toBeInstanceOf(TypeError)
    expect((await log.groupOffset('g', 'orders', 1))?.next).toBe(3n)
  })

  it('let their fence wait for the commit under way', async () => {
    const producer = await log.begin('id')
    await producer.append([message('orders', 0, 'a')])
    const commit = producer.commit([
      { group: 'g', topic: 'orders', partition: 0, next: 1n, metadata: bytes('') },
    ])
    await log.begin('id')
    expect((await log.groupOffset('g', 'orders', 0))?.next).toBe(1n)
    await commit
    await expect(producer.append([])).rejects.toEqual(outage('fenced'))
    await expect(producer.commit([])).rejects.toEqual(outage('fenced'))
  })
})

it('a closed log refuses everything', async () => {
  await log.createTopic('orders', 1)
  const producer = await log.begin('id')
  const under = log.append([message('orders', 0, 'a')])
  await log.close()
  await under
  const calls = [
    log.append([message('orders', 0, 'b')]),
    log.begin('id'),
    producer.append([]),
    producer.commit([]),
    log.read('orders', 0, 0n),
    log.createTopic('x', 1),
    log.endOffsets('orders'),
    log.groupOffset('g', 'orders', 0),
    log.commitGroup([]),
    log.waitForData([], 0),
  ]
  for (const call of calls) await expect(call).rejects.toEqual(outage('sink-unavailable'))
})

describe('a model of the log', () => {
  const IDS = ['one', 'two']
  const PARTITIONS = 2

  type Step =
    | { do: 'begin'; id: number }
    | { do: 'add' | 'commit' | 'abort'; holder: number; partitions: number[] }
    | { do: 'plain'; partitions: number[] }
    | { do: 'crash' }
    | { do: 'close' }

  const partitions = fc.array(fc.nat(PARTITIONS - 1), { maxLength: 4 })
  const step: fc.Arbitrary<Step> = fc.oneof(
    { weight: 3, arbitrary: fc.record({ do: fc.constant('begin' as const), id: fc.nat(IDS.length - 1) }) },
    {
      weight: 12,
      arbitrary: fc.record({
        do: fc.constantFrom('add' as const, 'commit' as const, 'abort' as const),
        holder: fc.nat(5),
        partitions,
      }),
    },
    { weight: 3, arbitrary: fc.record({ do: fc.constant('plain' as const), partitions }) },
    { weight: 1, arbitrary: fc.constantFrom<Step>({ do: 'crash' }, { do: 'close' }) },
  )

  interface Holder {
    readonly id: number
    readonly producer: TransactionalProducer
    readonly open: { partition: number; value: string }[]
  }

  it('agrees with it after any run of begins, appends, commits, aborts, fences, crashes and clean ends', async () => {
    let run = 0
    const property = fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
      let path = join(folder, `model.${++run}`)
      let real = await openEngine(path, clock)
      await real.createTopic('events', PARTITIONS)
      const records = Array.from({ length: PARTITIONS }, () => new Array<string>())
      const ends = Array.from({ length: PARTITIONS }, () => 0)
      const positions = IDS.map(() => 0)
      let holders: Holder[] = []
      const newest = new Map<number, Holder>()
      let serial = 0

      const take = (partition: number, value: string): void => {
        records[partition]?.push(`${ends[partition] ?? 0} ${value}`)
        ends[partition] = (ends[partition] ?? 0) + 1
      }
      const expectAgreement = async (): Promise<void> => {
        expect(await real.endOffsets('events')).toEqual(ends.map(BigInt))
        for (const [partition, wanted] of records.entries()) {
          const { records: found } = await real.read('events', partition, 0n)
          expect(found.map(({ offset, value }) => `${offset} ${text(value)}`)).toEqual(wanted)
        }
        for (const [id, wanted] of positions.entries()) {
          expect((await real.groupOffset(`group ${id}`, 'events', 0))?.next ?? 0n).toBe(BigInt(wanted))
        }
      }

      for (const next of steps) {
        if (next.do === 'begin') {
          const holder = { id: next.id, producer: await real.begin(IDS[next.id] ?? ''), open: [] }
          holders.push(holder)
          newest.set(next.id, holder)
        } else if (next.do === 'plain') {
          const own = next.partitions.map((partition) => ({ partition, value: `plain ${++serial}` }))
          await real.append(own.map(({ partition, value }) => message('events', partition, value)))
          for (const { partition, value } of own) take(partition, value)
        } else if (next.do === 'crash' || next.do === 'close') {
          // A crash leaves the file as it is; its owner's memory and holders are gone.
          if (next.do === 'close') await real.close()
          await copyFile(path, join(folder, `model.${++run}`))
          if (next.do === 'crash') await real.close()
          path = join(folder, `model.${run}`)
          real = await openEngine(path, clock)
          holders = []
        } else {
          const holder = holders[next.holder % Math.max(holders.length, 1)]
          if (holder === undefined) continue
          const fenced = newest.get(holder.id) !== holder
          if (next.do === 'add') {
            const own = next.partitions.map((partition) => ({
              partition,
              value: `${IDS[holder.id] ?? ''} ${++serial}`,
            }))
            const adding = holder.producer.append(
              own.map(({ partition, value }) => message('events', partition, value)),
            )
            if (fenced) await expect(adding).rejects.toEqual(outage('fenced'))
            else {
              await adding
              holder.open.push(...own)
            }
          } else if (next.do === 'abort') {
            await holder.producer.abort()
            holder.open.length = 0
          } else {
            const position = ++serial
            const offset = {
              group: `group ${holder.id}`,
              topic: 'events',
              partition: 0,
              next: BigInt(position),
              metadata: bytes(''),
            }
            const committing = holder.producer.commit([offset])
            if (fenced) {
              await expect(committing).rejects.toEqual(outage('fenced'))
              continue
            }
            await committing
            positions[holder.id] = position
            for (const { partition, value } of holder.open) take(partition, value)
            for (const partition of new Set(holder.open.map((one) => one.partition)))
              ends[partition] = (ends[partition] ?? 0) + 1
            holder.open.length = 0
          }
        }
        await expectAgreement()
      }
      await real.close()
    })
    await fc.assert(property, { numRuns: 100 })
  })
})
