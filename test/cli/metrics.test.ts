/** `sealgate local start --metrics-port`: what Prometheus reads there. */
import { mkdtemp, rm } from 'node:fs/promises'
import { request } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { prometheusMetrics } from '../../lib/adapters/prometheus.ts'
import { OUTAGE_CODES, Outage, REJECTION_CODES } from '../../lib/errors.ts'
import { type Around, type Ran, sealgate } from './terminal.ts'

const CONTRACTS = fileURLToPath(new URL('../../contracts', import.meta.url))
const TYPE = 'com.example.order.fulfilled.v1'
const CANARY = 'canary-7f3a'

let folder: string
let url: string
let started: Promise<Ran>
const stop = new AbortController()
const at = (args: string[], around: Around = {}): Promise<Ran> =>
  sealgate([...args, '--folder', join(folder, 'stack')], around)

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'sealgate-metrics-'))
  const ready = Promise.withResolvers<string>()
  started = at(['local', 'start', '--contracts', CONTRACTS, '--metrics-port', '0', '--json'], {
    stop: stop.signal,
    onLine: ready.resolve,
  })
  const first = await Promise.race([ready.promise, started.then(({ err }) => err)])
  url = JSON.parse(first).metrics
})
afterAll(async () => {
  stop.abort()
  const { status } = await started
  await rm(folder, { recursive: true, force: true })
  expect(status).toBe(0)
  await expect(fetch(url)).rejects.toThrow()
})

/** By name with its labels, without the help. */
async function scraped(): Promise<Map<string, number>> {
  const lines = (await (await fetch(url)).text()).split('\n').filter((line) => /^[a-z]/.test(line))
  return new Map(lines.map((line) => [line.slice(0, line.lastIndexOf(' ')), Number(line.split(' ').at(-1))]))
}

/** Until a metric has come so far. */
async function grown(name: string, value: number): Promise<Map<string, number>> {
  for (let tries = 0; tries < 100; tries++) {
    const found = await scraped()
    if ((found.get(name) ?? 0) >= value) return found
    await sleep(50)
  }
  throw new Error(`${name} has not come to ${value}`)
}

describe('the metrics of a running stack', () => {
  it('count what its gate decides, with every code from the start', async () => {
    const before = await scraped()
    for (const code of REJECTION_CODES)
      expect(before.get(`sealgate_records_rejected_total{code="${code}"}`), code).toBe(0)
    for (const code of OUTAGE_CODES)
      expect(before.get(`sealgate_slices_outage_total{code="${code}"}`), code).toBe(0)
    const lines = [1, 2, 3].map(
      (id) => `{"orderId":"${CANARY}-${id}","fulfilledAt":"2026-11-22T10:00:00Z","items":${id}}`,
    )
    lines.push(`{"specversion":"1.0","id":"u","type":"unheard.of","source":"/x","data":{"x":"${CANARY}"}}`)
    await at(['send', '-', '--type', TYPE], { input: lines.join('\n') })
    const after = await grown('sealgate_audit_entries_total', 4)
    expect(after.get('sealgate_records_admitted_total')).toBe(3)
    expect(after.get('sealgate_records_rejected_total{code="type-unknown"}')).toBe(1)
    expect(after.get('sealgate_slice_duration_seconds_count')).toBeGreaterThan(0)
    expect(after.get('sealgate_records_age_seconds_count')).toBeGreaterThan(0)
    expect(after.get('sealgate_data_key_calls_total{side="opening"}')).toBe(1)
    expect(after.get('sealgate_data_keys{side="sealing"}')).toBeGreaterThan(0)
    expect(after.get('sealgate_rotation_overdue')).toBe(0)
    const waiting = [...after].filter(([name]) => name.startsWith('sealgate_source_waiting_records{'))
    expect(waiting.length).toBeGreaterThan(4)
    expect(new Set(waiting.map(([, value]) => value))).toEqual(new Set([0]))
    expect(await (await fetch(url)).text()).not.toContain(CANARY)
  })

  it('are there for whoever asks for /metrics by GET, on this machine', async () => {
    expect(url).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/metrics$/)
    const answer = await fetch(url)
    expect(answer.headers.get('content-type')).toContain('text/plain; version=0.0.4')
    expect((await fetch(url, { method: 'POST', body: 'x' })).status).toBe(405)
    expect((await fetch(url.replace('metrics', ''))).status).toBe(404)
    const long = await new Promise<number | undefined>((resolve, reject) => {
      const asked = request(`${url}?${'x'.repeat(20_000)}`, (response) => {
        response.resume()
        resolve(response.statusCode)
      })
      asked.on('error', reject).end()
    })
    expect(long).toBe(431)
  })

  it('are refused at a port that is taken, and without a gate', async () => {
    const { port } = new URL(url)
    const other = join(folder, 'other')
    const taken = await sealgate(['local', 'start', '--folder', other, '--metrics-port', port])
    expect(taken).toMatchObject({ status: 2, err: expect.stringContaining(`127.0.0.1:${port} cannot be`) })
    const none = await sealgate(['local', 'start', '--folder', other, '--no-gate', '--metrics-port', '0'])
    expect(none).toMatchObject({ status: 2, err: expect.stringContaining('--no-gate runs none') })
  })
})

describe('metrics for Prometheus', () => {
  it('leave out what cannot be said now, and say the rest', async () => {
    const clock = { now: () => 0 }
    const away = () => Promise.reject(new Error(CANARY))
    const metrics = prometheusMetrics({ keyCounts: () => undefined, waiting: away, overdue: away }, clock)
    const outage = new Outage('fenced', 'twice')
    const place = { topic: 'orders', partition: 0 }
    await metrics.observer.slice({ ...place, records: [] }, () =>
      Promise.resolve({ ...place, offset: 0n, outage }),
    )
    const text = await metrics.text()
    expect(text).toContain('sealgate_slices_outage_total{code="fenced"} 1')
    expect(text).not.toMatch(/^sealgate_rotation_overdue /m)
    expect(text).not.toMatch(/^sealgate_source_waiting_records\{/m)
    expect(text).not.toContain(CANARY)
  })
})
