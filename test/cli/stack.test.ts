/** The commands on a running embedded stack, in this process. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { connectStack } from '../../lib/local/stack.ts'
import type { Header } from '../../lib/ports.ts'
import { type Around, type Ran, sealgate } from './terminal.ts'

const CONTRACTS = fileURLToPath(new URL('../../contracts', import.meta.url))
const TYPE = 'com.example.order.placed.v1'
const order = (id: string, total: string): string =>
  `{"orderId":"${id}","placedAt":"2026-11-22T05:00:00Z","customer":{"id":"c7","email":"a@example.com"},` +
  `"items":[{"article":"x","quantity":1,"price":1.10}],"total":${total},"currency":"EUR"}`

let folder: string
let started: Promise<Ran>
const stop = new AbortController()
const at = (args: string[], around: Around = {}): Promise<Ran> =>
  sealgate([...args, '--folder', join(folder, 'stack')], around)

/** Until a channel has so many events: the gate decides meanwhile. */
async function tailed(channel: string, count: number, ...flags: string[]): Promise<Ran> {
  for (let tries = 0; tries < 100; tries++) {
    const ran = await at(['tail', channel, ...flags])
    if (ran.out.split('\n').filter(Boolean).length >= count) return ran
    await sleep(100)
  }
  throw new Error(`${channel} has not got ${count} events`)
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'sealgate-cli-'))
  const ready = Promise.withResolvers<string>()
  started = at(['local', 'start', '--contracts', CONTRACTS, '--partitions', '2', '--json'], {
    stop: stop.signal,
    onLine: ready.resolve,
  })
  const first = await Promise.race([ready.promise, started.then(({ err }) => err)])
  expect(JSON.parse(first)).toMatchObject({ started: true, pid: process.pid })
})

afterAll(async () => {
  stop.abort()
  const { status, out } = await started
  await rm(folder, { recursive: true, force: true })
  expect(status).toBe(0)
  expect(out.split('\n').at(-1)).toMatch(/^\{"stopped":true,"records":\d+\}$/)
})

it.each([
  [{ npm_command: 'exec' }, '\n  npx sealgate tail '],
  [{}, '\n  sealgate tail '],
])('with %j a stack names commands as they are called there', async (env, line) => {
  const another = await mkdtemp(join(tmpdir(), 'sealgate of ann-'))
  const start = ['local', 'start', '--contracts', CONTRACTS, '--no-gate', '--folder', another]
  const { out, status } = await sealgate(start, { env, stop: AbortSignal.abort() })
  await rm(another, { recursive: true })
  expect([out, status]).toEqual([expect.stringContaining(line), 0])
  // To be copied as it stands.
  expect(out).toContain(` audit verify --folder '${another}'\n`)
})

describe('on a running stack', () => {
  it('sends lines of all three kinds, names the bad ones, skips them and exits 1', async () => {
    const file = join(folder, 'events.ndjson')
    const lines = [
      `{"specversion":"1.0","id":"e1","type":"${TYPE}","source":"/shop/checkout","data":${order('A-1', '1.10')}}`,
      `{"eventType":"${TYPE}","timestamp":"2026-11-22T05:00:00Z","payload":${order('A-2', '12345678901234567890')}}`,
      'not json',
      `{"specversion":"1.0","id":"","type":"${TYPE}","source":"/shop/checkout","data":1}`,
      order('A-3', '3'),
      '{"specversion":"1.0","id":"u","type":"unheard.of","source":"/x","data":{}}',
    ]
    await writeFile(file, lines.join('\n'))
    const { out, err, status } = await at(['send', file, '--type', TYPE, '--key', '/orderId'])
    expect(out).toContain('4 events sent, 2 lines skipped.\n1 event of unknown type')
    expect(err.split('\n')).toEqual([
      `fault ${file}:3: It is not JSON. Give one JSON object a line.`,
      expect.stringContaining(`fault ${file}:4: id is no text, empty`),
      'warning type: No contract is for "unheard.of". It went to carts, where the gate rejects it as type-unknown.',
    ])
    expect(status).toBe(1)
  })

  it('prints what the consumer may see, in the source text of its numbers', async () => {
    const { out, err, status } = await tailed('notifications.orders', 3, '--json')
    const events = out.split('\n').filter((line) => line.includes('A-'))
    expect(events).toHaveLength(3)
    expect(out).toContain('"data":{"orderId":"A-1","customer":{"email":"a@example.com"},"total":1.10,')
    expect(out).toContain('"total":12345678901234567890,')
    expect(events.map((line) => (JSON.parse(line) as { key: unknown }).key).sort()).toEqual([
      'A-1',
      'A-2',
      'A-3',
    ])
    expect({ err, status }).toEqual({ err: '', status: 0 })
    const plain = await tailed(`analytics.${TYPE}`, 3)
    expect(plain.out).toMatch(
      new RegExp(`analytics.${TYPE}/\\d/\\d+  ${TYPE}  key=p1:\\S+  \\{"placedAt":"2026-11"`),
    )
    // A pseudonym may have these two letters in it by chance.
    expect(plain.out).not.toMatch(/"c7"|key=c7\b/)
  })

  it('follows a channel until it is told to stop, and ends at --max', async () => {
    const end = new AbortController()
    const lines: string[] = []
    const following = at(['tail', 'notifications.orders', '--follow', '--from', 'end', '--json'], {
      stop: end.signal,
      onLine: (line) => {
        lines.push(line)
        end.abort()
      },
    })
    // It shows nothing of what is sent before it has looked where the end is.
    for (let tries = 0; tries < 100 && !end.signal.aborted; tries++) {
      await at(['send', '-', '--type', TYPE], { input: order('F-1', '1') })
      await sleep(200)
    }
    end.abort()
    expect((await following).status).toBe(0)
    expect(lines.join()).toContain('"orderId":"F-1"')
    expect((await at(['tail', 'notifications.orders', '--max', '2'])).out.split('\n')).toHaveLength(2)
  })

  it('names what a consumer cannot open, and exits 1', async () => {
    const { out, status } = await at([
      'tail',
      'notifications.orders',
      '--consumer',
      'warehouse',
      '--max',
      '1',
    ])
    expect(out).toContain('audience-mismatch')
    expect(status).toBe(1)
  })

  it.each([
    [['tail', 'orders'], 'only the gate reads it'],
    [['tail', 'nothing'], 'No contract writes to this channel. Outputs are: '],
    [['tail', 'notifications.orders', '--consumer', 'x'], 'No contract names x. There are: accounting, '],
    [['send', '-', '--as', 'x'], 'fault --as: No contract names x. There are: accounts, '],
    [['send', '-', '--key', 'x'], 'fault --key: x is no JSON Pointer.'],
    [['send', '/no/such/file'], 'fault /no/such/file: It cannot be read (ENOENT).'],
    [['seal', '/no/such/file'], 'fault /no/such/file: It cannot be read (ENOENT).'],
    [['seal', '-'], 'fault standard input: It is not JSON.'],
    [['inspect', 'orders/7/0'], 'fault orders/7/0: The topic has 2 partitions.'],
    [['inspect', 'orders/0/99'], 'The partition ends before '],
    [['inspect', 'carts/0/0'], 'The partition is empty.'],
    [['quarantine', 'show', '0'], 'fault 0: It is no place.'],
    [['quarantine', 'list', '--code', 'x', '--since', 'y'], 'fault --since: It is no time.'],
    [['tail', 'orders', '--folder', ''], 'It is empty: name one, or leave it out.'],
    [['audit', 'search', '--topic', 'x'], 'fault x: There is no such topic. There are: '],
    [['local', 'start', '--contracts', '/no/such'], 'fault /no/such: The folder cannot be read (ENOENT).'],
    [['local', 'start', '--contracts', CONTRACTS], 'runs the embedded log in this folder.'],
  ])('refuses %j with what to do, and exits 2', async (args, message) => {
    const { out, err, status } = await at(args)
    expect(err).toContain(message)
    expect(err).not.toMatch(/\n\s+at /)
    expect({ out, status }).toEqual({ out: '', status: 2 })
  })

  it('checks by the contracts before it sends, where that is asked for', async () => {
    const { out, err, status } = await at(['send', '-', '--type', TYPE, '--check', '--json'], {
      input: '{"a":1}',
    })
    expect(JSON.parse(out)).toMatchObject({ sent: 0, skipped: 1, faults: [{ line: 1 }] })
    expect(err).toContain('fault standard input:1: ')
    expect(status).toBe(1)
  })

  it('seals one event and opens it again as the gateway, in the source text of its numbers', async () => {
    const sealed = await at(['seal', '--type', TYPE, '--key', '/orderId'], { input: order('S-1', '1.10') })
    expect(sealed.status).toBe(0)
    expect(JSON.parse(sealed.out)).toMatchObject({
      topic: 'orders',
      key: Buffer.from('S-1').toString('base64'),
    })
    const opened = await at(['open'], { input: sealed.out })
    expect(opened.out).toContain(`"data":${order('S-1', '1.10')}`)
    expect(opened.status).toBe(0)
    const moved = await at(['open', '--json'], {
      input: sealed.out.replace('"topic":"orders"', '"topic":"payments"'),
    })
    expect(JSON.parse(moved.out)).toMatchObject({ opened: false, code: 'signature-invalid' })
    expect(moved.status).toBe(1)
    const other = await at(['open', '--as', 'analytics'], { input: sealed.out })
    expect(other.err).toContain('audience-mismatch')
  })

  it('lists and shows what was refused', async () => {
    const list = await at(['quarantine', 'list', '--code', 'type-unknown'])
    expect(list.out).toMatch(/^[01]\/\d+ +\S+Z {2}type-unknown +carts\/[01]\/0\n\n1 refused: 1 type-unknown$/)
    const [place = ''] = list.out.split(' ')
    const shown = await at(['quarantine', 'show', place])
    expect(shown.out).toContain('Refused: type-unknown. It was carts/')
    expect(shown.out).toContain('type          unheard.of')
    expect(shown.out).toContain('header        sealgate-code: type-unknown')
    const source = /carts\/\d\/\d+/.exec(list.out)?.[0] ?? ''
    expect((await at(['quarantine', 'show', source])).out.split('\n')[0]).toBe(shown.out.split('\n')[0])
    const json = await at(['quarantine', 'list', '--json', '--since', '2999-01-01'])
    expect(JSON.parse(json.out)).toEqual({ totals: { found: 0, byCode: {} } })
  })

  it("believes the gate's headers of a refused record, not those that its producer wrote", async () => {
    const stack = await connectStack(join(folder, 'stack'), 'test')
    const header = (name: string, text: string): Header => ({ name, value: Buffer.from(text) })
    const headers = [header('sealgate-code', 'replayed'), header('sealgate-topic', 'payments')]
    await stack.log.append([{ topic: 'flights', partition: 0, key: null, value: Buffer.from('x'), headers }])
    await stack.close()
    let out = ''
    for (let tries = 0; tries < 100 && !out.includes('malformed'); tries++) {
      await sleep(100)
      out = (await at(['quarantine', 'list', '--code', 'malformed', '--json'])).out
    }
    expect(out).toContain('"code":"malformed"')
    expect(out).toContain('"source":"flights/0/0"')
  })

  it('verifies and searches the audit, with the heads of its positions', async () => {
    const verified = await at(['audit', 'verify', '--json'])
    expect(JSON.parse(verified.out)).toMatchObject({ verified: true, headsKnown: true })
    expect(verified.status).toBe(0)
    expect((await at(['audit', 'search', '--code', 'type-unknown'])).out).toContain('unheard.of u')
  })

  it('shows topics and positions', async () => {
    const { out } = await at(['local', 'status', '--json'])
    const { topics } = JSON.parse(out) as { topics: { topic: string; partitions: unknown[] }[] }
    expect(topics.find(({ topic }) => topic === 'orders')?.partitions).toHaveLength(2)
    expect((await at(['local', 'status'])).out).toMatch(/^TOPIC +ENDS +DECIDED\n/)
  })

  it('refuses a Lambda event whose offsets the log does not have, since it would skip what comes there', async () => {
    const event = await readFile(new URL('../../events/msk-single.json', import.meta.url), 'utf8')
    const file = join(folder, 'event.json')
    await writeFile(
      file,
      event
        .replaceAll('shop.orders-3', 'orders-1')
        .replace('"shop.orders"', '"orders"')
        .replace('"partition": 3', '"partition": 1'),
    )
    const { err, status } = await at(['invoke', 'ingest', '-e', file])
    expect(err).toContain('deciding it would skip what comes there')
    expect(status).toBe(2)
  })
})
