import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { copyFile, mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { ConfigError } from '../../lib/errors.ts'
import type { Engine } from '../../lib/local/log-engine.ts'
import { openEngine } from '../../lib/local/log-engine.ts'
import { openLog } from '../../lib/local/log-open.ts'
import type { Log } from '../../lib/local/log.ts'

const WRITER = join(import.meta.dirname, 'log-writer.ts')

let folder = ''
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'sg-crash-'))
})
afterEach(async () => {
  await rm(folder, { recursive: true, force: true })
})

const allOf = async (log: Log, topic: string, partition: number): Promise<string[]> => {
  const values: string[] = []
  for (let at = 0n; ;) {
    const { records, next, end } = await log.read(topic, partition, at, { maxRecords: 1000 })
    values.push(...records.map(({ value }) => Buffer.from(value ?? []).toString()))
    at = next
    if (at === end) return values
  }
}

describe('a killed owner of the embedded log', () => {
  /** Lets a writer open the log and acknowledge some commits, kills it a little later, and returns the last number for each id. */
  const writeUntilKilled = async (
    home: string,
    commits: number,
    ms: number,
  ): Promise<Map<string, bigint>> => {
    const child = spawn(process.execPath, [WRITER, 'write', home], { stdio: ['ignore', 'pipe', 'inherit'] })
    let output = ''
    child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()))
    while (output.split('\n').length < 2 + commits) await once(child.stdout, 'data')
    await delay(ms)
    child.kill('SIGKILL')
    await once(child, 'close')
    const acknowledged = new Map<string, bigint>()
    for (const [, id = '', number = ''] of output.matchAll(/^([abc]) (\d+)\n/gm))
      acknowledged.set(id, BigInt(number))
    return acknowledged
  }

  const writers = [
    { id: 'a', partitions: [0, 1] },
    { id: 'b', partitions: [1, 2] },
    { id: 'c', partitions: [3, 0] },
  ]

  const oneLife = async (home: string, rounds: number): Promise<number> => {
    let commits = 0
    for (let round = 0; round < rounds; round++) {
      const acknowledged = await writeUntilKilled(home, (round * 11) % 24, (round * 5) % 9)
      const log = await openLog(home)
      commits = 0
      for (const { id, partitions } of writers) {
        const position = await log.groupOffset(id, 'events', partitions[0] ?? 0).catch(() => undefined)
        const count = Number(position?.next ?? 0n)
        const last = acknowledged.get(id)
        if (last !== undefined) expect(count).toBeGreaterThan(Number(last))
        if (position !== undefined)
          expect(Buffer.from(position.metadata).toString()).toBe(`${id} ${count - 1}`)
        const wanted = Array.from({ length: count }, (_, number) => `${id} ${number}`)
        for (const partition of count === 0 ? [] : partitions) {
          const own = (await allOf(log, 'events', partition)).filter((value) => value.startsWith(id))
          expect(own).toEqual(wanted)
        }
        commits += count
      }
      await log.close()
    }
    return commits
  }

  it('loses no acknowledged commit and leaves no half one, in 36 kills', async () => {
    const lives = await Promise.all(
      [1, 2, 3, 4, 5, 6].map((life) => oneLife(join(folder, `life-${life}`), 6)),
    )
    for (const commits of lives) expect(commits).toBeGreaterThanOrEqual(0 + 11 + 22 + 9 + 20 + 7)
  })
})

describe('the journal of the embedded log', () => {
  const system = { now: (): number => Date.now() }
  let path = ''
  beforeEach(() => {
    path = join(folder, 'journal')
  })

  const commitOne = async (log: Log, number: number): Promise<void> => {
    const producer = await log.begin('writer')
    const value = new Uint8Array(Buffer.from(`value ${number}`))
    await producer.append(
      [0, 1].map((partition) => ({ topic: 'events', partition, key: null, value, headers: [] })),
    )
    const next = BigInt(number + 1)
    await producer.commit([{ group: 'group', topic: 'events', partition: 0, next, metadata: value }])
  }

  /** Three transactions; sizes of the file after each; and the file as a kill would leave it. */
  const killedAfterThree = async (): Promise<{ sizes: number[]; whole: Buffer }> => {
    const log = await openEngine(path, system)
    await log.createTopic('events', 2)
    const sizes = []
    for (let number = 0; number < 3; number++) {
      await commitOne(log, number)
      sizes.push((await stat(path)).size)
    }
    const whole = await readFile(path)
    await log.close()
    return { sizes, whole }
  }

  const openCopy = async (bytes: Buffer): Promise<Engine> => {
    await writeFile(path, bytes)
    return openEngine(path, system)
  }

  const expectTransactions = async (log: Log, count: number): Promise<void> => {
    const wanted = Array.from({ length: count }, (_, number) => `value ${number}`)
    expect(await allOf(log, 'events', 0)).toEqual(wanted)
    expect(await allOf(log, 'events', 1)).toEqual(wanted)
    expect((await log.groupOffset('group', 'events', 0))?.next).toBe(BigInt(count))
  }

  it('drops a last transaction cut at any byte, keeps all before it, and goes on', async () => {
    const { sizes, whole } = await killedAfterThree()
    const [, second = 0, third = 0] = sizes
    for (let cut = second; cut < third; cut++) {
      const log = await openCopy(whole.subarray(0, cut))
      expect(log.droppedBytes).toBe(cut - second)
      await expectTransactions(log, 2)
      await commitOne(log, 2)
      await expectTransactions(log, 3)
      await log.close()
    }
    const log = await openCopy(whole)
    expect(log.droppedBytes).toBe(0)
    await expectTransactions(log, 3)
    await log.close()
  })

  it('drops garbage, zeros and a half-written last transaction behind whole ones', async () => {
    const { sizes, whole } = await killedAfterThree()
    const [, second = 0] = sizes
    const holed = Buffer.from(whole)
    holed.fill(0, second + 40, second + 60)
    const tails = [
      [Buffer.concat([whole, Buffer.alloc(5000)]), 3],
      [Buffer.concat([whole, Buffer.from('garbage'.repeat(900))]), 3],
      [holed, 2],
    ] as const
    for (const [bytes, count] of tails) {
      const log = await openCopy(bytes)
      await expectTransactions(log, count)
      expect(log.droppedBytes).toBe(bytes.length - (sizes[count - 1] ?? 0))
      await log.close()
    }
  })

  it('refuses a change of a byte anywhere before the last transaction, and leaves the file as it is', async () => {
    const { sizes, whole } = await killedAfterThree()
    const [, second = 0] = sizes
    for (let at = 0; at < second; at += 3) {
      const bytes = Buffer.from(whole)
      bytes[at] = (bytes[at] ?? 0) ^ 0x10
      await expect(openCopy(bytes)).rejects.toThrow(/damaged at byte \d+/)
      expect(await readFile(path)).toEqual(bytes)
    }
  })

  it('refuses a change in the last transaction too once the log was closed cleanly', async () => {
    const { sizes } = await killedAfterThree()
    const [, second = 0, third = 0] = sizes
    const closed = await readFile(path)
    for (let at = second; at < third; at++) {
      const bytes = Buffer.from(closed)
      bytes[at] = (bytes[at] ?? 0) ^ 0x01
      await expect(openCopy(bytes)).rejects.toBeInstanceOf(ConfigError)
    }
  })

  it('refuses a journal with a frame taken out or put in twice, and another file', async () => {
    const { sizes, whole } = await killedAfterThree()
    const [first = 0, second = 0] = sizes
    const without = Buffer.concat([whole.subarray(0, first), whole.subarray(second)])
    await expect(openCopy(without)).rejects.toBeInstanceOf(ConfigError)
    const twice = Buffer.concat([whole, whole.subarray(second)])
    await expect(openCopy(twice)).rejects.toBeInstanceOf(ConfigError)
    await expect(
      openCopy(Buffer.from('something else, and long enough to be a journal')),
    ).rejects.toBeInstanceOf(ConfigError)
    await expect(openCopy(Buffer.alloc(0))).rejects.toBeInstanceOf(ConfigError)
  })

  it('opens what a clean close left with nothing dropped', async () => {
    await killedAfterThree()
    await copyFile(path, `${path}.copy`)
    const log = await openEngine(`${path}.copy`, system)
    expect(log.droppedBytes).toBe(0)
    await expectTransactions(log, 3)
    await log.close()
  })
})
