import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, describe, expect, it } from 'vitest'

const MAIN = fileURLToPath(new URL('../../demo/main.ts', import.meta.url))
const TIMEOUT_MS = 60_000

interface Ended {
  readonly code: number | null
  readonly out: string
  readonly err: string
}

/** What `--json` prints. */
interface Summary {
  readonly sent: number
  readonly admitted: number
  readonly rejected: Readonly<Record<string, number>>
  readonly outputs: Readonly<Record<string, number>>
  readonly audit: unknown
  readonly eventsPerSecond: number
  readonly events: unknown
  readonly attacks: readonly { name: string; sent: number; expected: string; ended: unknown }[]
  readonly tampering: readonly { found: boolean; kinds: readonly string[] }[]
  readonly faults: readonly { line?: number }[]
  readonly problems: unknown
}

const folders: string[] = []
const children: ChildProcess[] = []

function newFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'demo-test-'))
  folders.push(folder)
  return folder
}

/** `npm start -- ARGS`, with a folder of its own for what is temporary. */
function start(args: readonly string[], temporary = newFolder(), input?: string): Promise<Ended> {
  return spawned(args, temporary, input).ended
}

function spawned(
  args: readonly string[],
  temporary: string,
  input?: string,
): { readonly child: ChildProcess; readonly ended: Promise<Ended> } {
  const child = spawn(process.execPath, [MAIN, ...args], {
    env: { ...process.env, TMPDIR: temporary, NO_COLOR: '1' },
    timeout: TIMEOUT_MS,
  })
  children.push(child)
  child.stdin.end(input)
  const texts = { out: '', err: '' }
  child.stdout.on('data', (chunk: Buffer) => (texts.out += chunk.toString()))
  child.stderr.on('data', (chunk: Buffer) => (texts.err += chunk.toString()))
  return {
    child,
    ended: new Promise((resolve) => child.once('close', (code) => resolve({ code, ...texts }))),
  }
}

const sum = (counts: Readonly<Record<string, number>>): number =>
  Object.values(counts).reduce((total, count) => total + count, 0)

afterAll(() => {
  for (const child of children.splice(0)) if (child.exitCode === null) child.kill('SIGKILL')
  for (const folder of folders.splice(0)) rmSync(folder, { recursive: true, force: true })
})

const FULFILLED = 'com.example.order.fulfilled.v1'
const fulfilled = (id: string, more: object = {}): string =>
  JSON.stringify({
    ...{ specversion: '1.0', id, source: '/fulfilment', type: FULFILLED },
    data: { orderId: id, fulfilledAt: '2026-11-22T09:15:00Z', items: 1 },
    ...more,
  })

const PING = `
contract: sealgate/1
type: com.example.ping.v1
description: A ping.
owner: team-net
channel: pings
publish:
  pinger: { sources: [/pinger] }
classification: internal
limits: { maxBytes: 1024, perSecond: 40 }
schema: { type: object, required: [n], additionalProperties: false, properties: { n: { type: integer } } }
consume:
  counter: { purpose: counting, to: pings.counter, treatments: { /n: pass } }
`

describe.concurrent('npm start', { timeout: TIMEOUT_MS }, () => {
  it('admits every event, refuses every attack, and counts all of it from the log', async () => {
    const temporary = newFolder()
    const { code, out, err } = await start(['--events', '600', '--json'], temporary)
    expect(err).toBe('')
    const summary: Summary = JSON.parse(out)
    expect(summary.problems).toEqual([])
    expect(code).toBe(0)
    expect(summary.admitted).toBe(600)
    expect(summary.sent).toBe(summary.admitted + sum(summary.rejected))
    expect(summary.audit).toEqual({ verified: true, entries: summary.sent, segments: expect.any(Number) })
    expect(summary.eventsPerSecond).toBeGreaterThan(0)
    expect(summary.outputs['flight-archive']).toBe(462)
    expect(summary.outputs['delay-board']).toBe(462)
    expect(summary.attacks).toHaveLength(16)
    for (const { sent, expected, ended } of summary.attacks) {
      expect(sent).toBe(8)
      expect(ended).toEqual({ [expected]: 8 })
    }
    expect(summary.events).toMatchObject({ sealed: 600, skipped: 0, admitted: 600, rejected: {} })
    expect(summary.tampering.map(({ found, kinds }) => [found, ...kinds])).toEqual([
      [true, 'altered'],
      [true, 'missing'],
      [true, 'reordered'],
      [true, 'cut at the end'],
      [true, 'signed by an unknown key'],
    ])
    expect(readdirSync(temporary)).toEqual([])
  })

  it("takes a user's events: skips bad lines by name, has unknown types rejected, passes numbers on digit by digit", async () => {
    const folder = newFolder()
    const file = join(folder, 'events.ndjson')
    const parcel = '{"carrier":"marin","trackingNumber":12345678901234567890,"weightKg":1.10}'
    const data = `{"orderId":"A-1","item":1,"shippedAt":"2026-11-22T09:15:00Z","parcel":${parcel}}`
    const shipped = `{"id":"s","source":"/warehouse/berlin","type":"com.example.order.item-shipped.v1","data":${data}}`
    writeFileSync(
      file,
      [
        fulfilled('A-1'),
        '{"type":',
        shipped,
        fulfilled('A-2', { type: 'com.example.no.v1' }),
        fulfilled(''),
      ].join('\n'),
    )
    const keep = join(folder, 'kept')
    const [asText, asJson] = await Promise.all([
      start(['--input', file, '--keep', keep]),
      start(['--input', file, '--json']),
    ])
    expect(asText.code).toBe(1)
    expect(asText.err).toContain(`${file}:2: It is not JSON.`)
    expect(asText.err).toMatch(/events\.ndjson:5: id:? is no text, empty/)
    expect(asText.out).toContain('2 lines skipped')
    expect(asText.out).toContain('rejected, of the events themselves 1 type-unknown')
    expect(asText.out).toMatch(/\/parcel\/trackingNumber +(12345678901234567890 +){3}·/)
    expect(asText.out).toMatch(/\/parcel\/weightKg +(1\.10 +){3}1\.1\b/)
    expect(asText.out).toContain(`npx sealgate audit verify --folder ${keep}`)
    expect(existsSync(join(keep, 'contracts.bundle.json'))).toBe(true)
    const summary: Summary = JSON.parse(asJson.out)
    expect(asJson.code).toBe(1)
    expect(summary.events).toMatchObject({
      sealed: 3,
      skipped: 2,
      admitted: 2,
      rejected: { 'type-unknown': 1 },
    })
    expect(summary.rejected['type-unknown']).toBe(1)
    expect(summary.sent).toBe(summary.admitted + sum(summary.rejected))
    expect(summary.faults.map(({ line }) => line)).toEqual([2, 5])
    expect(summary.problems).toEqual([])
  })

  it('goes by contracts of the user, and keeps to their perSecond instead of being refused', async () => {
    const folder = newFolder()
    writeFileSync(join(folder, 'ping.yaml'), PING)
    const ping = { source: '/pinger', type: 'com.example.ping.v1', partitionkey: 'one' }
    const lines = Array.from({ length: 100 }, (_, n) => fulfilled(String(n), { ...ping, data: { n } }))
    const { code, out, err } = await start(
      ['--input', '-', '--contracts', folder, '--json'],
      folder,
      lines.join('\n'),
    )
    expect(err).toBe('')
    const summary: Summary = JSON.parse(out)
    expect(code).toBe(0)
    expect(summary.events).toMatchObject({ sealed: 100, admitted: 100, rejected: {} })
    expect(summary.outputs).toEqual({ 'pings.counter': 100 })
    // With one channel and one producer, neither another topic nor another producer is there to be tried.
    const names = summary.attacks.map(({ name }) => name)
    expect(names).not.toContain('moved, channel')
    expect(names).not.toContain('wrong producer')
    expect(names).toContain('wrong source')
  })

  it('names every fault of its flags at once, and does nothing', async () => {
    const temporary = newFolder()
    const none = join(temporary, 'none')
    const args = ['--input', none, '--contracts', temporary, '--events', '1e3', '--keep', MAIN]
    const [bad, asJson, unknown, empty] = await Promise.all([
      start(args, temporary),
      start([...args, '--json'], temporary),
      start(['--imput', 'x'], temporary),
      start(['--input', '-', '--json'], temporary),
    ])
    expect([bad, asJson, unknown, empty].map(({ code }) => code)).toEqual([2, 2, 2, 2])
    expect(bad.out).toBe('')
    for (const where of ['--events', '--keep', temporary, none]) expect(bad.err).toContain(`fault ${where}: `)
    const { faults }: Summary = JSON.parse(asJson.out)
    expect(faults).toHaveLength(5)
    expect(unknown.err).toContain('--imput')
    expect(empty.out).toContain('It holds no event.')
    expect(readdirSync(temporary)).toEqual([])
  })

  // The test's own expect: where tests run side by side, the global one does not know which of them polls.
  it('leaves nothing behind when it is ended by Ctrl-C', async ({ expect: expected }) => {
    const temporary = newFolder()
    const { child, ended } = spawned([], temporary)
    await expected
      .poll(() => existsSync(join(temporary, readdirSync(temporary)[0] ?? '', 'log')), { timeout: 30_000 })
      .toBe(true)
    child.kill('SIGINT')
    expect((await ended).code).toBe(130)
    expect(readdirSync(temporary)).toEqual([])
  })
})
