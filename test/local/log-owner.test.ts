import type { ChildProcess } from 'node:child_process'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmod, mkdir, mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { ConfigError } from '../../lib/errors.ts'
import { connectLog } from '../../lib/local/log-client.ts'
import { lockFolder, ownerOf } from '../../lib/local/log-lock.ts'
import { openLog } from '../../lib/local/log-open.ts'
import type { Log, NewMessage } from '../../lib/local/log.ts'

const WRITER = join(import.meta.dirname, 'log-writer.ts')

let folder = ''
let logs: Log[] = []
let children: ChildProcess[] = []

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'sg-own-'))
})
afterEach(async () => {
  for (const log of logs.reverse()) await log.close()
  for (const child of children) child.kill('SIGKILL')
  logs = []
  children = []
  await rm(folder, { recursive: true, force: true })
})

const owned = async (at = folder): Promise<Log> => {
  const log = await openLog(at)
  logs.push(log)
  return log
}
const connected = async (at = folder, timeoutMs?: number): Promise<Log> => {
  const log = await connectLog(at, timeoutMs === undefined ? {} : { timeoutMs })
  logs.push(log)
  return log
}

const start = (...args: string[]): ChildProcess & { output: () => string } => {
  const child = spawn(process.execPath, [WRITER, ...args], { stdio: ['ignore', 'pipe', 'inherit'] })
  children.push(child)
  let output = ''
  child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()))
  return Object.assign(child, { output: () => output })
}
const holding = async (): Promise<ChildProcess> => {
  const child = start('hold', folder)
  await once(child.stdout ?? child, 'data')
  return child
}

const outage = (code: string): unknown => expect.objectContaining({ name: 'Outage', code })
const message = (value: string | number): NewMessage => ({
  topic: 'orders',
  partition: 0,
  key: null,
  value: typeof value === 'number' ? new Uint8Array(value) : new Uint8Array(Buffer.from(value)),
  headers: [],
})
const valuesOf = async (log: Log): Promise<string[]> =>
  (await log.read('orders', 0, 0n)).records.map(({ value }) => Buffer.from(value ?? []).toString())

describe('the owner of a log folder', () => {
  it.runIf(process.platform === 'linux')(
    'is told where no folder can be made, instead of trying for ever',
    async () => {
      await expect(openLog('/proc/no/such/folder')).rejects.toThrow('ENOENT')
    },
  )

  it('is one: a second is refused and told the process, and succeeds once the first has closed', async () => {
    const first = await owned()
    await first.createTopic('orders', 1)
    await expect(openLog(folder)).rejects.toThrow(`Process ${process.pid} runs the embedded log`)
    await first.close()
    expect(ownerOf(folder)).toBeUndefined()
    expect(await readdir(join(folder, 'run'))).toEqual([])
    expect(await (await owned()).endOffsets('orders')).toEqual([0n])
  })

  it('when killed, is replaced', async () => {
    const child = await holding()
    await expect(openLog(folder)).rejects.toThrow(`Process ${child.pid ?? 0} runs`)
    child.kill('SIGKILL')
    await once(child, 'close')
    await (await owned()).createTopic('orders', 1)
    expect(await (await connected()).endOffsets('orders')).toEqual([0n])
  })

  it('is not taken for alive while it only waits for its parent to notice its end', async () => {
    // The shell becomes a sleep, which never asks after its child.
    const script = '"$0" "$1" hold "$2" & exec sleep 20'
    const parent = spawn('sh', ['-c', script, process.execPath, WRITER, folder], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    children.push(parent)
    await once(parent.stdout, 'data')
    process.kill(ownerOf(folder)?.pid ?? 0, 'SIGKILL')
    await expect.poll(() => ownerOf(folder), { timeout: 5000 }).toBeUndefined()
    await owned()
  })

  it('is not taken for alive where another process has its pid now', async () => {
    const lock = {
      pid: process.pid,
      started: 'another boot 1',
      socket: join(folder, 'run', 'socket'),
      released: false,
    }
    await writeFile(join(folder, 'lock.7'), JSON.stringify(lock))
    await owned()
    expect((await readdir(folder)).filter((name) => name.startsWith('lock.'))).toEqual(['lock.8'])
  })

  it('is assumed where the lock cannot be read', async () => {
    await writeFile(join(folder, 'lock.1'), '{"pid":')
    await expect(openLog(folder)).rejects.toThrow(/lock\.1: This lock cannot be read/)
  })

  it('is exactly one of many that start at once, again and again, some of them dying as owners', async () => {
    lockFolder(folder)
    const dead = { pid: 2 ** 22 + 1, started: 'x 1', socket: join(folder, 'run', 'socket'), released: false }
    await writeFile(join(folder, 'lock.9'), JSON.stringify(dead))
    const racers = [1, 2, 3, 4, 5].map(() => start('lock', folder, '500'))
    await Promise.all(racers.map((racer) => once(racer, 'close')))
    const lines = racers.map((racer) => racer.output())
    expect(lines.join('')).not.toContain('broken')
    const wins = lines.map((line) => Number(/wins (\d+)/.exec(line)?.[1] ?? 0))
    expect(wins.reduce((sum, count) => sum + count, 0)).toBeGreaterThan(10)
  })

  it('refuses a folder that others may write to, or whose socket folder others may enter', async () => {
    await chmod(folder, 0o777)
    await expect(openLog(folder)).rejects.toThrow(/mode 777.*chmod go-w/)
    await chmod(folder, 0o700)
    await mkdir(join(folder, 'run'))
    await chmod(join(folder, 'run'), 0o755)
    await expect(openLog(folder)).rejects.toThrow(/mode 755.*chmod 700/)
    await chmod(join(folder, 'run'), 0o700)
    const log = await owned()
    await log.createTopic('orders', 1)
    await chmod(join(folder, 'run'), 0o755)
    await expect(connectLog(folder)).rejects.toBeInstanceOf(ConfigError)
  })

  it('lets only its user reach folder, journal and socket', async () => {
    const inner = join(folder, 'deep', 'log')
    await owned(inner)
    const modeOf = async (path: string): Promise<number> => (await stat(path)).mode & 0o777
    expect(await modeOf(inner)).toBe(0o700)
    expect(await modeOf(join(inner, 'journal'))).toBe(0o600)
    expect(await modeOf(join(inner, 'run'))).toBe(0o700)
    expect(await modeOf(join(inner, 'run', 'socket'))).toBe(0o600)
  })

  it('finds a short place for the socket of a long folder, and removes it at the end', async () => {
    const long = join(folder, 'x'.repeat(60), 'y'.repeat(60))
    const log = await owned(long)
    await log.createTopic('orders', 1)
    const socket = ownerOf(long)?.socket ?? ''
    expect(socket.length).toBeLessThan(104)
    expect((await stat(dirname(socket))).mode & 0o777).toBe(0o700)
    expect(await (await connected(long)).endOffsets('orders')).toEqual([0n])
    await log.close()
    await expect(stat(dirname(socket))).rejects.toThrow('ENOENT')
  })
})

describe('a log reached by its socket', () => {
  it('is the same log as its owner has', async () => {
    const owner = await owned()
    const client = await connected()
    expect(await client.createTopic('orders', 2, { timestampType: 'CreateTime' })).toBe(true)
    expect(await client.createTopic('orders', 2, { timestampType: 'CreateTime' })).toBe(false)
    const full: NewMessage = {
      ...message('a'),
      key: Uint8Array.of(0, 255),
      timestamp: 77,
      headers: [
        { name: 'é', value: null },
        { name: '', value: Uint8Array.of(1) },
      ],
    }
    expect(await client.append([full, message('b')])).toEqual(await placesFrom(0n))
    const producer = await client.begin('id')
    await producer.append([message('c')])
    const offset = { group: 'g', topic: 'orders', partition: 1, next: 9n, metadata: Uint8Array.of(1, 2, 3) }
    await producer.commit([offset])
    await client.commitGroup([{ ...offset, group: 'h' }])
    for (const log of [owner, client]) {
      expect(await log.topics()).toEqual(await owner.topics())
      expect(await log.endOffsets('orders')).toEqual([4n, 0n])
      expect(await log.read('orders', 0, 1n, { maxRecords: 1 })).toEqual(
        await owner.read('orders', 0, 1n, { maxRecords: 1 }),
      )
      expect((await log.read('orders', 0, 0n)).records[0]).toEqual({
        ...full,
        offset: 0n,
        timestampType: 'CreateTime',
      })
      expect(await log.groupOffset('g', 'orders', 1)).toEqual(offset)
      expect(await log.groupOffset('h', 'orders', 1)).toEqual({ ...offset, group: 'h' })
      expect(await log.groupOffset('i', 'orders', 1)).toBeUndefined()
    }
  })

  const placesFrom = (first: bigint): Promise<unknown> =>
    Promise.resolve([first, first + 1n].map((offset) => ({ topic: 'orders', partition: 0, offset })))

  it('fails with the same errors', async () => {
    await owned()
    const client = await connected()
    await client.createTopic('orders', 1)
    await expect(client.read('other', 0, 0n)).rejects.toEqual(outage('sink-denied'))
    await expect(client.createTopic('a b', 0)).rejects.toHaveProperty('faults.length', 2)
    await expect(client.append([message(1_500_000)])).rejects.toEqual(outage('sink-unavailable'))
    const producer = await client.begin('id')
    await client.begin('id')
    await expect(producer.commit([])).rejects.toEqual(outage('fenced'))
    const huge = Array.from({ length: 50 }, () => message(1_000_000))
    await expect(client.append(huge)).rejects.toEqual(outage('sink-unavailable'))
    expect(await client.endOffsets('orders')).toEqual([0n])
  })

  it('fences across connections and the owner', async () => {
    const owner = await owned()
    await owner.createTopic('orders', 1)
    const [one, two] = [await connected(), await connected()]
    const first = await one.begin('id')
    const second = await two.begin('id')
    await expect(first.append([message('first')])).rejects.toEqual(outage('fenced'))
    await second.append([message('second')])
    const third = await owner.begin('id')
    await expect(second.commit([])).rejects.toEqual(outage('fenced'))
    await third.append([message('third')])
    await third.commit([])
    expect(await valuesOf(one)).toEqual(['third'])
  })

  it('wakes who waits, in other processes too', async () => {
    const owner = await owned()
    await owner.createTopic('orders', 1)
    const client = await connected()
    const places = [{ topic: 'orders', partition: 0, offset: 0n }]
    expect(await client.waitForData(places, Date.now() + 20)).toBe(false)
    const waiting = client.waitForData(places, Date.now() + 20_000)
    await (await connected()).append([message('a')])
    expect(await waiting).toBe(true)
  })

  it('stops waiting when either end closes', async () => {
    const owner = await owned()
    await owner.createTopic('orders', 1)
    const places = [{ topic: 'orders', partition: 0, offset: 0n }]
    const client = await connected()
    const waiting = client.waitForData(places, Date.now() + 20_000)
    await client.close()
    expect(await waiting).toBe(false)
    const other = await connected()
    const still = other.waitForData(places, Date.now() + 20_000)
    await other.endOffsets('orders')
    const ended = expect(still).rejects.toEqual(outage('sink-unavailable'))
    await owner.close()
    await ended
    await expect(other.topics()).rejects.toEqual(outage('sink-unavailable'))
  })

  it('answers what was under way before the owner ends', async () => {
    const owner = await owned()
    await owner.createTopic('orders', 1)
    const client = await connected()
    const under = Array.from({ length: 20 }, (_, index) => client.append([message(`${index}`)]))
    await client.topics()
    await owner.close()
    const done = (await Promise.allSettled(under)).filter(({ status }) => status === 'fulfilled').length
    expect((await valuesOf(await owned())).length).toBe(done)
  })

  it('aborts the open transactions of a connection that is lost', async () => {
    const owner = await owned()
    await owner.createTopic('orders', 1)
    const client = await connected()
    const producer = await client.begin('id')
    await producer.append([message('open')])
    await client.close()
    await expect(producer.commit([])).rejects.toEqual(outage('sink-unavailable'))
    const next = await owner.begin('id')
    await next.commit([])
    expect(await valuesOf(owner)).toEqual([])
  })

  it('is an outage where no process runs it, or its owner is killed', async () => {
    await expect(connectLog(folder)).rejects.toEqual(outage('sink-unavailable'))
    await expect(connectLog(join(folder, 'nowhere'))).rejects.toThrow('sealgate local start')
    const child = await holding()
    const client = await connected()
    await client.createTopic('orders', 1)
    const waiting = client.waitForData([{ topic: 'orders', partition: 0, offset: 0n }], Date.now() + 20_000)
    child.kill('SIGKILL')
    await expect(waiting).rejects.toEqual(outage('sink-unavailable'))
    await expect(connectLog(folder, { timeoutMs: 500 })).rejects.toEqual(outage('sink-unavailable'))
  })

  it('is an outage within its time where the owner hangs', async () => {
    const child = await holding()
    const client = await connected(folder, 2000)
    child.kill('SIGSTOP')
    const begun = Date.now()
    await expect(client.topics()).rejects.toEqual(outage('deadline'))
    // It would be 10 s where none is given.
    expect(Date.now() - begun).toBeLessThan(8000)
    await expect(connectLog(folder, { timeoutMs: 150 })).rejects.toEqual(outage('deadline'))
  })

  it('does nothing for who has not said which version it speaks', async () => {
    const owner = await owned()
    await owner.createTopic('orders', 1)
    const socket = connect(ownerOf(folder)?.socket ?? '')
    const answered = once(socket, 'data')
    // Call 1 asks for the topics, call 2 greets as some other version.
    socket.write(Buffer.from([0, 0, 0, 7, 0, 0, 0, 0, 0, 1, 2]))
    socket.write(Buffer.from([0, 0, 0, 12, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 1, 0x3f]))
    expect(String(await answered)).toContain('of another version')
    expect(String(await answered)).not.toContain('orders')
    socket.destroy()
  })

  it('outlives what is no message of ours', async () => {
    const owner = await owned()
    await owner.createTopic('orders', 1)
    const path = ownerOf(folder)?.socket ?? ''
    const frame = (payload: number[]): Buffer => Buffer.from([0, 0, 0, payload.length, ...payload])
    const attacks = [
      Buffer.from('GET / HTTP/1.1\r\n\r\n'),
      Buffer.alloc(64, 0xff),
      frame([]),
      frame([0, 0, 0, 0, 0, 1]),
      frame([0, 0, 0, 0, 0, 1, 99]),
      frame([0, 0, 0, 0, 0, 1, 2]),
      // Greeted properly, then a list that says it is four thousand million long.
      Buffer.concat([
        frame([0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 15, ...Buffer.from('sealgate log v1')]),
        frame([0, 0, 0, 0, 0, 2, 3, 255, 255, 255, 255]),
      ]),
    ]
    for (const attack of attacks) {
      const socket = connect(path)
      socket.on('error', () => undefined)
      socket.resume()
      socket.end(attack)
      await once(socket, 'close')
    }
    const client = await connected()
    await client.append([message('fine')])
    expect(await valuesOf(client)).toEqual(['fine'])
  })
})
