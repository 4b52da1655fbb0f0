import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import { ConfigError } from '../../lib/errors.ts'
import { connectLog } from '../../lib/local/log-client.ts'
import { openLog } from '../../lib/local/log-open.ts'
import { createLocalPositions, createLocalSink } from '../../lib/local/log-sink.ts'
import type { Log } from '../../lib/local/log.ts'
import type { SeenRecord, SinkWorld } from '../contract-suites/sink.ts'
import { sinkContract } from '../contract-suites/sink.ts'

const DEPLOYMENT = { deployment: 'test' }
const soon = (): number => Date.now() + 5000

/** `reach` gives each sink its log: the owner's own, or another by the socket. */
const makeWorld = (reach: (owner: Log, folder: string) => Promise<Log>) => async (): Promise<SinkWorld> => {
  const folder = await mkdtemp(join(tmpdir(), 'sg-sink-'))
  const owner = await openLog(folder)
  const reached = new Set<Log>()
  return {
    makeSink: async () => {
      const log = await reach(owner, folder)
      reached.add(log)
      return createLocalSink(log, DEPLOYMENT)
    },
    createTopic: async (topic, partitions) => {
      await owner.createTopic(topic, partitions)
    },
    makePositions: () => Promise.resolve(createLocalPositions(owner, DEPLOYMENT)),
    damagePosition: ({ topic, partition }) =>
      owner.commitGroup([
        { group: 'test.shadow.v1', topic, partition, next: 5n, metadata: new Uint8Array() },
      ]),
    produce: async (message) => {
      await owner.append([message])
    },
    readCommitted: async (topic) => {
      const seen: SeenRecord[] = []
      const ends = await owner.endOffsets(topic)
      for (const [partition, end] of ends.entries()) {
        for (let at = 0n; at < end;) {
          const { records, next } = await owner.read(topic, partition, at)
          seen.push(...records)
          at = next
        }
      }
      return seen
    },
    end: async () => {
      for (const log of reached) await log.close()
      await owner.close()
      await rm(folder, { recursive: true })
    },
  }
}

sinkContract(
  'embedded log, in its owner',
  makeWorld((owner) => Promise.resolve(owner)),
)
sinkContract(
  'embedded log, by its socket',
  makeWorld((_, folder) => connectLog(folder)),
)

describe('positions of the embedded log', () => {
  const folders: string[] = []
  afterEach(async () => {
    for (const folder of folders.splice(0)) await rm(folder, { recursive: true, force: true })
  })

  it('shows a position, and none where there is none; a second init fails and does not disturb the holder', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'sg-pos-'))
    folders.push(folder)
    const log = await openLog(folder)
    await log.createTopic('orders', 2)
    const positions = createLocalPositions(log, DEPLOYMENT)
    const source = { topic: 'orders', partition: 1 }
    expect(await positions.show(source, soon())).toBeUndefined()
    await positions.init(source, { next: 3n, state: Uint8Array.of(1, 2) }, soon())
    expect(await positions.show(source, soon())).toEqual({ next: 3n, state: Uint8Array.of(1, 2) })
    const session = await createLocalSink(log, DEPLOYMENT).open(source, soon())
    await expect(
      positions.init(source, { next: 0n, state: new Uint8Array() }, soon()),
    ).rejects.toBeInstanceOf(ConfigError)
    await session.commit([], { next: 4n, state: Uint8Array.of(3) }, soon())
    expect(await positions.show(source, soon())).toEqual({ next: 4n, state: Uint8Array.of(3) })
    await log.close()
  })

  it('lets only one of two first starts at once succeed', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'sg-pos-'))
    folders.push(folder)
    const log = await openLog(folder)
    await log.createTopic('orders', 1)
    const positions = createLocalPositions(log, DEPLOYMENT)
    const source = { topic: 'orders', partition: 0 }
    const starts = [1n, 2n, 3n].map((next) =>
      positions.init(source, { next, state: new Uint8Array() }, soon()),
    )
    const outcomes = await Promise.allSettled(starts)
    expect(outcomes.filter(({ status }) => status === 'fulfilled')).toHaveLength(1)
    await log.close()
  })
})
