/** What every Sink must keep (exactly-once.md §1, §2), whatever is behind it: the embedded log, or Kafka. */
import { describe, expect, it } from 'vitest'
import { Outage } from '../../lib/errors.ts'
import type { Message, PositionAdmin, Sink, SinkSession, TopicPartition } from '../../lib/ports.ts'
import { batchBytes } from '../../lib/ports.ts'

/** A record as a read_committed reader sees it. */
export interface SeenRecord {
  readonly partition: number
  readonly offset: bigint
  readonly value: Uint8Array | null
}

export interface SinkWorld {
  /** Each call stands for another process: its sessions fence those of the others. */
  makeSink(): Promise<Sink>
  createTopic(topic: string, partitions: number): Promise<void>
  /** As an operator's process has them. */
  makePositions(): Promise<PositionAdmin>
  /** Makes the stored position one that does not parse, or is cut. */
  damagePosition(source: TopicPartition): Promise<void>
  /** All that is committed in a topic, each partition's in order. */
  readCommitted(topic: string): Promise<readonly SeenRecord[]>
  /** A write outside any transaction, as a producer makes it. */
  produce(message: Message): Promise<void>
  /** Ends every sink made. */
  end(): Promise<void>
}

const PATIENCE_MS = 20_000
const soon = (): number => Date.now() + PATIENCE_MS
const text = (value: Uint8Array | null): string => (value === null ? '' : Buffer.from(value).toString())
const bytes = (value: string): Uint8Array => new Uint8Array(Buffer.from(value))

const message = (topic: string, partition: number, value: string | Uint8Array): Message => ({
  topic,
  partition,
  key: null,
  value: typeof value === 'string' ? bytes(value) : value,
  headers: [{ name: 'test', value: bytes('1') }],
})

const codeOf = async (promise: Promise<unknown>): Promise<string> => {
  try {
    await promise
    return 'no error'
  } catch (error) {
    return error instanceof Outage ? error.code : String(error)
  }
}

/** Declares the suite. `makeWorld` is called once for each test. */
export function sinkContract(name: string, makeWorld: () => Promise<SinkWorld>): void {
  describe(`Sink contract: ${name}`, () => {
    let serial = 0

    /** A world with a source and an output topic of their own, three partitions each, and a position at 5 for partition 0. */
    const inWorld =
      (test: (world: SinkWorld, names: { source: TopicPartition; output: string }) => Promise<void>) =>
      async (): Promise<void> => {
        const world = await makeWorld()
        try {
          const suffix = `${Date.now().toString(36)}.${++serial}`
          const source = { topic: `source.${suffix}`, partition: 0 }
          const output = `output.${suffix}`
          await world.createTopic(source.topic, 3)
          await world.createTopic(output, 3)
          const positions = await world.makePositions()
          await positions.init(source, { next: 5n, state: bytes('first') }, soon())
          await test(world, { source, output })
        } finally {
          await world.end()
        }
      }

    const opened = async (world: SinkWorld, source: TopicPartition): Promise<SinkSession> =>
      (await world.makeSink()).open(source, soon())

    const seen = async (world: SinkWorld, topic: string): Promise<string[]> =>
      (await world.readCommitted(topic)).map(({ partition, value }) => `${partition}:${text(value)}`)

    it(
      'tells how many partitions a topic has, and refuses one that is not there',
      inWorld(async (world, { output }) => {
        const sink = await world.makeSink()
        expect(await sink.partitionsOf(output, soon())).toBe(3)
        expect(await codeOf(sink.partitionsOf('not.there', soon()))).toBe('sink-denied')
      }),
    )

    it(
      'opens at the position that was initialised',
      inWorld(async (world, { source }) => {
        const session = await opened(world, source)
        expect(session.position).toEqual({ next: 5n, state: bytes('first') })
        await session.close()
      }),
    )

    it(
      'fails on a partition without a position instead of starting somewhere',
      inWorld(async (world, { source }) => {
        expect(await codeOf(opened(world, { ...source, partition: 1 }))).toBe('position-missing')
      }),
    )

    it(
      'fails on a damaged position instead of starting afresh',
      inWorld(async (world, { source }) => {
        await world.damagePosition(source)
        expect(await codeOf(opened(world, source))).toBe('position-damaged')
      }),
    )

    it(
      'lets a repair take a partition over, tells it what is stored, and takes a new position with messages',
      inWorld(async (world, { source, output }) => {
        const positions = await world.makePositions()
        const holder = await opened(world, source)
        const good = await positions.repair(source, soon())
        expect(good.found).toEqual({ next: 5n, state: bytes('first') })
        expect(await codeOf(holder.commit([], { next: 6n, state: bytes('') }, soon()))).toBe('fenced')
        await good.close()
        const other = { ...source, partition: 1 }
        const missing = await positions.repair(other, soon())
        expect(missing.found).toBeUndefined()
        await missing.close()
        expect(await codeOf(opened(world, other))).toBe('position-missing')
        await world.damagePosition(source)
        const damaged = await positions.repair(source, soon())
        expect(damaged.found).toBe('damaged')
        await damaged.commit([message(output, 0, 'repaired')], { next: 7n, state: bytes('again') }, soon())
        await damaged.close()
        const session = await opened(world, source)
        expect(session.position).toEqual({ next: 7n, state: bytes('again') })
        expect(await seen(world, output)).toEqual(['0:repaired'])
        await session.close()
      }),
    )

    it(
      'renews no position that is young, and none that is not there',
      inWorld(async (world, { source }) => {
        const positions = await world.makePositions()
        expect(await positions.renew(source, soon())).toBe(false)
        expect(await codeOf(positions.renew({ ...source, partition: 1 }, soon()))).toBe('position-missing')
      }),
    )

    it(
      'commits messages of several partitions and the position together, in order',
      inWorld(async (world, { source, output }) => {
        const session = await opened(world, source)
        const messages = [message(output, 0, 'a'), message(output, 2, 'b'), message(output, 0, 'c')]
        await session.commit(messages, { next: 8n, state: bytes('second') }, soon())
        expect(session.position).toEqual({ next: 8n, state: bytes('second') })
        await session.commit([message(output, 0, 'd')], { next: 9n, state: bytes('third') }, soon())
        await session.close()
        expect(await seen(world, output)).toEqual(['0:a', '0:c', '0:d', '2:b'])
        const again = await opened(world, source)
        expect(again.position).toEqual({ next: 9n, state: bytes('third') })
        await again.close()
      }),
    )

    it(
      'commits a position without any message',
      inWorld(async (world, { source, output }) => {
        const session = await opened(world, source)
        await session.commit([], { next: 6n, state: bytes('') }, soon())
        await session.close()
        const again = await opened(world, source)
        expect(again.position).toEqual({ next: 6n, state: bytes('') })
        await again.close()
        expect(await seen(world, output)).toEqual([])
      }),
    )

    it(
      'fences the earlier holder: its commit fails and nothing of it is visible',
      inWorld(async (world, { source, output }) => {
        const zombie = await opened(world, source)
        const holder = await opened(world, source)
        const late = zombie.commit(
          [message(output, 0, 'zombie')],
          { next: 7n, state: bytes('zombie') },
          soon(),
        )
        expect(await codeOf(late)).toBe('fenced')
        await holder.commit([message(output, 0, 'holder')], { next: 6n, state: bytes('holder') }, soon())
        await Promise.all([zombie.close(), holder.close()])
        expect(await seen(world, output)).toEqual(['0:holder'])
        const again = await opened(world, source)
        expect(again.position).toEqual({ next: 6n, state: bytes('holder') })
        await again.close()
      }),
    )

    it(
      'does not fence the holder of another partition',
      inWorld(async (world, { source, output }) => {
        const other = { ...source, partition: 1 }
        const positions = await world.makePositions()
        await positions.init(other, { next: 0n, state: bytes('other') }, soon())
        const [one, two] = [await opened(world, source), await opened(world, other)]
        await one.commit([message(output, 1, 'one')], { next: 6n, state: bytes('') }, soon())
        await two.commit([message(output, 1, 'two')], { next: 1n, state: bytes('') }, soon())
        await Promise.all([one.close(), two.close()])
        expect(await seen(world, output)).toEqual(['1:one', '1:two'])
      }),
    )

    it(
      'reads the position after the fence: a commit under way is either in it or has failed',
      inWorld(async (world, { source, output }) => {
        let next = 5n
        let holder = await opened(world, source)
        const expected: string[] = []
        for (let round = 0; round < 10; round++) {
          const value = `round ${round}`
          const under = codeOf(
            holder.commit([message(output, 0, value)], { next: next + 1n, state: bytes(value) }, soon()),
          )
          const taker = await opened(world, source)
          const outcome = await under
          if (taker.position.next === next + 1n) {
            expected.push(`0:${value}`)
            expect(text(taker.position.state)).toBe(value)
          } else {
            expect(outcome).not.toBe('no error')
            expect(taker.position.next).toBe(next)
          }
          next = taker.position.next
          await holder.close()
          holder = taker
        }
        await holder.close()
        expect(await seen(world, output)).toEqual(expected)
      }),
    )

    it(
      'takes nothing of a commit that names a topic or partition that is not there, and its session is of no more use',
      inWorld(async (world, { source, output }) => {
        for (const bad of [message('not.there', 0, 'x'), message(output, 3, 'x')]) {
          const session = await opened(world, source)
          const position = { next: 6n, state: bytes('moved') }
          expect(await codeOf(session.commit([message(output, 0, 'good'), bad], position, soon()))).not.toBe(
            'no error',
          )
          expect(await codeOf(session.commit([message(output, 0, 'more')], position, soon()))).not.toBe(
            'no error',
          )
          await session.close()
        }
        const again = await opened(world, source)
        expect(again.position).toEqual({ next: 5n, state: bytes('first') })
        await again.close()
        expect(await seen(world, output)).toEqual([])
      }),
    )

    it(
      'keeps a state of the greatest length byte for byte, and refuses a longer one with nothing moved',
      inWorld(async (world, { source, output }) => {
        const session = await opened(world, source)
        const state = Uint8Array.from(
          { length: session.maxStateBytes },
          (_, index) => (index * 31 + (index >> 8)) & 0xff,
        )
        await session.commit([message(output, 0, 'fits')], { next: 6n, state }, soon())
        const longer = { next: 7n, state: new Uint8Array(session.maxStateBytes + 1) }
        expect(await codeOf(session.commit([message(output, 0, 'longer')], longer, soon()))).not.toBe(
          'no error',
        )
        await session.close()
        const again = await opened(world, source)
        expect(again.position.next).toBe(6n)
        expect(Buffer.from(again.position.state).equals(state)).toBe(true)
        // A short one after a long one: nothing of the long one is left.
        await again.commit([], { next: 7n, state: bytes('short') }, soon())
        await again.close()
        const last = await opened(world, source)
        expect(last.position).toEqual({ next: 7n, state: bytes('short') })
        await last.close()
        expect(await seen(world, output)).toEqual(['0:fits'])
      }),
    )

    it(
      'takes a full batch, and one message alone that is larger than a batch',
      inWorld(async (world, { source, output }) => {
        const session = await opened(world, source)
        const one = message(output, 0, new Uint8Array(10_000))
        const full = Array.from({ length: Math.floor(session.maxBatchBytes / batchBytes(one)) }, () => one)
        await session.commit(full, { next: 6n, state: bytes('') }, soon())
        const large = message(output, 1, new Uint8Array(session.maxBatchBytes + 50_000))
        await session.commit([large], { next: 7n, state: bytes('') }, soon())
        await session.close()
        const records = await world.readCommitted(output)
        expect(records.map(({ value }) => value?.length)).toEqual([
          ...full.map(() => 10_000),
          session.maxBatchBytes + 50_000,
        ])
      }),
    )

    it(
      'refuses a message beyond what the topic takes, with nothing moved',
      inWorld(async (world, { source, output }) => {
        const session = await opened(world, source)
        const huge = message(output, 0, new Uint8Array(3 * 1024 * 1024))
        const position = { next: 6n, state: bytes('moved') }
        expect(await codeOf(session.commit([message(output, 1, 'good'), huge], position, soon()))).not.toBe(
          'no error',
        )
        await session.close()
        const again = await opened(world, source)
        expect(again.position).toEqual({ next: 5n, state: bytes('first') })
        await again.close()
        expect(await seen(world, output)).toEqual([])
      }),
    )

    it(
      'leaves gaps in the offsets where transactions end, so that offsets are compared and never counted',
      inWorld(async (world, { source, output }) => {
        const session = await opened(world, source)
        await world.produce(message(output, 0, 'plain'))
        await session.commit(
          [message(output, 0, 'a'), message(output, 0, 'b')],
          { next: 6n, state: bytes('') },
          soon(),
        )
        await session.commit([message(output, 0, 'c')], { next: 7n, state: bytes('') }, soon())
        await session.close()
        const offsets = (await world.readCommitted(output)).map(({ offset }) => offset)
        expect(offsets).toEqual([0n, 1n, 2n, 4n])
      }),
    )

    it(
      'gives up at the deadline, and does nothing where it has passed',
      inWorld(async (world, { source, output }) => {
        const sink = await world.makeSink()
        const past = Date.now() - 1
        expect(await codeOf(sink.partitionsOf(output, past))).toBe('deadline')
        const holder = await sink.open(source, soon())
        expect(await codeOf(sink.open(source, past))).toBe('deadline')
        const position = { next: 6n, state: bytes('late') }
        expect(await codeOf(holder.commit([message(output, 0, 'late')], position, past))).toBe('deadline')
        await holder.close()
        expect(await seen(world, output)).toEqual([])
        const again = await opened(world, source)
        expect(again.position.next).toBe(5n)
        await again.close()
      }),
    )

    it(
      'commits nothing after close, and closing twice is no error',
      inWorld(async (world, { source, output }) => {
        const session = await opened(world, source)
        await session.close()
        await session.close()
        const late = session.commit([message(output, 0, 'late')], { next: 6n, state: bytes('') }, soon())
        expect(await codeOf(late)).not.toBe('no error')
        expect(await seen(world, output)).toEqual([])
      }),
    )

    it(
      'keeps a null value and the bytes of a message as they are',
      inWorld(async (world, { source, output }) => {
        const all = Uint8Array.from({ length: 256 }, (_, index) => index)
        const session = await opened(world, source)
        const nothing: Message = { topic: output, partition: 0, key: bytes('k'), value: null, headers: [] }
        await session.commit([nothing, message(output, 0, all)], { next: 6n, state: bytes('') }, soon())
        await session.close()
        const records = await world.readCommitted(output)
        expect(records.map(({ value }) => value && Buffer.from(value).toString('hex'))).toEqual([
          null,
          Buffer.from(all).toString('hex'),
        ])
      }),
    )
  })
}
