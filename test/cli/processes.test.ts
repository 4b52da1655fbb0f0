/** The command as processes: signals, races, deaths, closed pipes. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, it, type TestContext } from 'vitest'

const MAIN = join(import.meta.dirname, '..', '..', 'cli', 'main.ts')
const TYPE = 'com.example.order.fulfilled.v1'
const START = ['local', 'start', '--partitions', '1']
const READY = 'Ctrl-C stops it.'

interface Run {
  readonly child: ChildProcess
  readonly out: () => string
  readonly err: () => string
  /** Exit code, or the signal's name. */
  readonly ended: Promise<number | string>
  /** Once standard output holds the text. */
  shows(text: string): Promise<void>
}

interface World {
  readonly folder: string
  sealgate(...args: string[]): Run
  /** Sends so many orders; resolves to what was printed. */
  send(count: number): Promise<string>
  /** How many audit entries hold. */
  entries(): Promise<number>
}

/** A folder of its own for one test. All it started ends with it. */
function newWorld({ onTestFinished }: TestContext): World {
  const folder = mkdtempSync(join(tmpdir(), 'sealgate-processes-'))
  const children: ChildProcess[] = []
  onTestFinished(() => {
    for (const child of children) child.kill('SIGKILL')
    rmSync(folder, { recursive: true, force: true })
  })
  const sealgate = (...args: string[]): Run => {
    const child = spawn(process.execPath, [MAIN, ...args], {
      env: { PATH: process.env['PATH'], SEALGATE_LOCAL: join(folder, 'stack') },
      cwd: folder,
    })
    children.push(child)
    let [out, err] = ['', '']
    child.stdout.on('data', (data: Buffer) => (out += data.toString()))
    child.stderr.on('data', (data: Buffer) => (err += data.toString()))
    const ended = new Promise<number | string>((resolve) => {
      child.once('close', (code, signal) => resolve(code ?? signal ?? 'unknown'))
    })
    const shows = async (text: string): Promise<void> => {
      const late = AbortSignal.timeout(60_000)
      while (!out.includes(text)) {
        const more = once(child.stdout, 'data', { signal: late }).then(() => true)
        if (await Promise.race([more, ended.then(() => false)])) continue
        throw new Error(`it has ended: ${err}`)
      }
    }
    return { child, out: () => out, err: () => err, ended, shows }
  }
  const send = async (count: number): Promise<string> => {
    const file = join(folder, `${count}.ndjson`)
    const line = (id: number): string =>
      `{"specversion":"1.0","type":"${TYPE}","source":"/fulfilment","data":{"orderId":"A-${id}","fulfilledAt":"2026-11-22T05:00:00Z","items":1}}\n`
    writeFileSync(file, Array.from({ length: count }, (_, id) => line(id)).join(''))
    const { ended, out } = sealgate('send', file)
    await ended
    return out()
  }
  const entries = async (): Promise<number> => {
    const { ended, out } = sealgate('audit', 'verify', '--json')
    if ((await ended) !== 0) throw new Error(out())
    return (JSON.parse(out()) as { entries: number }).entries
  }
  return { folder, sealgate, send, entries }
}

describe.concurrent('sealgate, as processes', { timeout: 120_000 }, () => {
  it('runs a stack until Ctrl-C, which stops it cleanly', async (test) => {
    const { expect } = test
    const { folder, sealgate, send } = newWorld(test)
    const stack = sealgate(...START)
    await stack.shows(READY)
    expect(await send(5)).toContain('5 events sent.')
    stack.child.kill('SIGINT')
    expect(await stack.ended).toBe(0)
    expect(stack.out()).toMatch(/\nStopped\. \d+ records were decided\.\n$/)
    expect(stack.err()).toBe('')
    expect(readdirSync(join(folder, 'stack', 'log', 'run'))).toEqual([])
    const nobody = sealgate('send', '-')
    nobody.child.stdin?.end()
    expect(await nobody.ended).toBe(3)
    expect(nobody.err()).toMatch(/^unreachable No process runs .*start it \(sealgate local start\).*\n$/)
  })

  it('has one owner, of two that start at once; the other says whose it is', async (test) => {
    const { expect } = test
    const { sealgate } = newWorld(test)
    const both = [sealgate(...START), sealgate(...START)]
    const first = await Promise.race(both.map((each) => each.ended.then(() => each)))
    const winner = both.find((each) => each !== first)
    expect(await first.ended).toBe(2)
    expect(first.err()).toMatch(/^fault .*: Process \d+ runs the embedded log in this folder\. .*\n$/)
    await winner?.shows(READY)
    winner?.child.kill('SIGTERM')
    expect(await winner?.ended).toBe(0)
  })

  it('starts again after its owner was killed, and loses and doubles nothing', async (test) => {
    const { expect } = test
    const { sealgate, send, entries } = newWorld(test)
    const killed = sealgate(...START)
    await killed.shows(READY)
    expect(await send(300)).toContain('300 events sent.')
    killed.child.kill('SIGKILL')
    expect(await killed.ended).toBe('SIGKILL')
    const again = sealgate(...START)
    await again.shows(READY)
    for (let tries = 0; (await entries()) < 300; tries++) expect(tries).toBeLessThan(30)
    again.child.kill('SIGINT')
    expect(await again.ended).toBe(0)
    expect(await entries()).toBe(300)
    const { ended, out } = sealgate('tail', 'notifications.orders', '--json')
    expect(await ended).toBe(0)
    const ids = out().match(/(?<="orderId":")[^"]*/g) ?? []
    expect(ids).toHaveLength(300)
    expect(new Set(ids).size).toBe(300)
  })

  it('decides by hand what no gate has: the event that Lambda would send, by its handler', async (test) => {
    const { expect } = test
    const { folder, sealgate, send } = newWorld(test)
    const stack = sealgate(...START, '--no-gate')
    await stack.shows(READY)
    await send(3)
    const event = sealgate('local', 'event')
    expect(await event.ended).toBe(0)
    const file = join(folder, 'event.json')
    writeFileSync(file, event.out())
    const invoked = sealgate('invoke', 'ingest', '-e', file)
    expect(await invoked.ended).toBe(0)
    expect(invoked.out()).toBe('null\n')
    expect(invoked.err().match(/ {2}admitted\n/g)).toHaveLength(3)
    const again = sealgate('invoke', 'ingest', '-e', file)
    expect(await again.ended).toBe(0)
    expect(again.err()).toBe('Nothing new was decided.\n')
    expect(await sealgate('local', 'event').ended).toBe(1)
  })

  it('ends quietly where nobody reads on', async (test) => {
    const { expect } = test
    const { sealgate, send } = newWorld(test)
    const stack = sealgate(...START)
    await stack.shows(READY)
    await send(1)
    const tail = sealgate('tail', 'notifications.orders', '--follow')
    await tail.shows('orderId')
    tail.child.stdout?.destroy()
    await send(2)
    expect(await tail.ended).toBe(0)
    expect(tail.err()).toBe('')
  })
})
