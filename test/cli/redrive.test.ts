import { mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { handle, refund, REFUND_CONTRACT, send, totals } from '../admission/redrive-shop.ts'
import { ORDER_CONTRACT, openShop, type Shop } from '../shop.ts'
import { type Around, type Ran, sealgate } from './terminal.ts'

let shop: Shop
let folder: string
beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'sealgate-redrive-'))
  shop = await openShop()
  await send(shop, [1, 2, 3].map(refund))
  await handle(shop)
  await shop.stack.close()
  shop = await openShop([ORDER_CONTRACT, REFUND_CONTRACT], shop.folder)
})
afterEach(async () => {
  await shop.close()
  rmSync(folder, { recursive: true })
})

const run = (args: readonly string[], around?: Around): Promise<Ran> =>
  sealgate(['quarantine', 'redrive', ...args, '--folder', shop.folder], around)

describe('sealgate quarantine redrive', () => {
  it('says what it would do, does it once, and the audit holds', async () => {
    const dry = await run(['--dry-run'])
    expect([dry.status, dry.out.split('\n').slice(-2)]).toEqual([
      0,
      ['3 would be let in, 0 would be refused again, 0 not tried.', 'Nothing was changed.'],
    ])
    expect(await totals(shop)).toEqual([])
    const done = await run(['--code', 'type-unknown', '--by', 'ann', '--reason', 'late contract', '--json'])
    const lines = done.out.split('\n').map((line): unknown => JSON.parse(line))
    expect(lines[0]).toEqual({
      record: expect.stringMatching(/^orders\/[01]\/\d+$/),
      quarantine: expect.stringMatching(/^local\.quarantine\/[01]\/\d+$/),
      ...{ result: 'admitted', code: null, reason: null },
    })
    expect([done.status, lines.at(-1)]).toEqual([
      0,
      { totals: { admitted: 3, rejected: {}, skipped: {} }, stops: [], interrupted: false, dryRun: false },
    ])
    expect(await totals(shop)).toEqual([1, 2, 3])
    expect((await run([])).out).toBe('0 let in, 0 refused again, 3 not tried (3 let-in).')
    const verified = await sealgate(['audit', 'verify', '--folder', shop.folder])
    expect([verified.status, verified.out]).toEqual([0, expect.stringContaining('_control.orders/')])
    const { record } = lines[0] as { record: string }
    const search = await sealgate([
      'audit',
      'search',
      '--type',
      'event.admitted',
      '--json',
      '--folder',
      shop.folder,
    ])
    expect(search.out).toContain(`"redriven":{"record":"${record}"`)
  })

  it('writes the original records to files that inspect reads, once, and changes nothing', async () => {
    const to = join(folder, 'out')
    expect((await run(['--to', to])).out).toBe(`3 records written to ${to}, 0 were there already.`)
    expect((await run(['--to', to])).out).toBe(`0 records written to ${to}, 3 were there already.`)
    const [file = ''] = readdirSync(to)
    expect(statSync(join(to, file)).mode & 0o777).toBe(0o600)
    const original = (await shop.records('orders')).map(({ value }) =>
      Buffer.from(value ?? []).toString('base64'),
    )
    const { value, code } = JSON.parse(readFileSync(join(to, file), 'utf8')) as {
      value: string
      code: string
    }
    expect(original).toContain(value)
    expect(code).toBe('type-unknown')
    const inspected = await sealgate(['inspect', join(to, file)])
    expect([inspected.status, inspected.out]).toEqual([0, expect.stringContaining('refunded')])
    expect(await totals(shop)).toEqual([])
    expect((await run(['--to', to, '--dry-run', '--by', 'x'])).err.split('\n')).toHaveLength(2)
  })

  it('ends with 1 where something stays, 130 where it was interrupted, 2 for what it does not take', async () => {
    const { folder: place } = shop
    await shop.stack.close()
    shop = await openShop([ORDER_CONTRACT], place)
    const refused = await run([])
    expect([refused.status, refused.out]).toEqual([
      1,
      expect.stringContaining('0 let in, 3 refused again (3 type-unknown), 0 not tried.'),
    ])
    const stopped = await run([], { stop: AbortSignal.abort() })
    expect([stopped.status, stopped.err]).toEqual([130, expect.stringContaining('goes on from here')])
    expect((await run(['--code', 'nonsense'])).status).toBe(2)
    expect((await run(['--since', 'yesterday'])).err).toContain('2026-11-22')
    const faults = await run(['--accept-expired', 'x'])
    expect([faults.status, faults.err]).toEqual([2, expect.stringMatching(/--by.*\n.*--reason/)])
  })
})
