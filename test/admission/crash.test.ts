import { spawn } from 'node:child_process'
import { rmSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { afterEach, describe, expect, it } from 'vitest'
import { verifyAudit } from '../../lib/audit/verification.ts'
import { auditSource } from '../../lib/local/audit-source.ts'
import { polledLog } from '../../lib/local/poller.ts'
import { createLocalPositions } from '../../lib/local/log-sink.ts'
import { AUDIT_TOPIC } from '../../lib/local/stack.ts'
import { createDirectory } from '../../lib/keys/directory-reader.ts'
import { ORDER_TYPE, openShop, type Shop } from '../shop.ts'

const RECORDS = 120
const ROUNDS = 12

let shop: Shop | undefined
afterEach(async () => {
  await shop?.close()
  shop = undefined
})

/** Runs a gate on the folder; kills it after so many slices and milliseconds, or lets it end. True where it ended by itself. */
function runGate(folder: string, killAfter?: { slices: number; ms: number }): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const child = spawn(
      process.execPath,
      [fileURLToPath(new URL('gate-process.ts', import.meta.url)), folder],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    )
    const bound = setTimeout(() => {
      child.kill('SIGKILL')
      reject(new Error('the gate did not end in time'))
    }, 30_000)
    let slices = 0
    child.stdout.on('data', (chunk: Buffer) => {
      slices += chunk.toString().split('.').length - 1
      if (killAfter !== undefined && slices >= killAfter.slices)
        setTimeout(() => child.kill('SIGKILL'), killAfter.ms)
    })
    child.on('error', reject)
    child.on('exit', (code) => {
      clearTimeout(bound)
      if (code === 0 || code === null) resolve(code === 0)
      else reject(new Error(`the gate ended with ${code}`))
    })
  })
}

describe('a gate that is killed', () => {
  it('loses nothing, gives nothing out twice, and leaves an audit without a hole, wherever it was killed', async () => {
    shop = await openShop()
    const { folder } = shop
    const sealer = shop.sealer('shop-web')
    await sealer.send(
      'orders',
      Array.from({ length: RECORDS }, (_, id) => ({
        type: ORDER_TYPE,
        source: '/shop/web',
        key: `k${id}`,
        data: { orderId: `A-${id}`, total: id, customer: { id: 'c' } },
      })),
    )
    await sealer.close()
    await shop.stack.close()
    shop = undefined
    try {
      for (let round = 0; round < ROUNDS; round++)
        await runGate(folder, { slices: round % 4, ms: (round * 7) % 23 })
      expect(await runGate(folder)).toBe(true)
      shop = await openShop(undefined, folder)
    } finally {
      if (shop === undefined) rmSync(folder, { recursive: true, force: true })
    }
    const totals = (await shop.records('orders.analytics')).map(({ value }) => {
      const { total }: { total: number } = JSON.parse(Buffer.from(value ?? []).toString())
      return total
    })
    expect(totals.sort((a, b) => a - b)).toEqual(Array.from({ length: RECORDS }, (_, id) => id))
    const { snapshot } = await createDirectory({ ...shop.stack.directory, clock: shop.stack.clock }).snapshot(
      Date.now() + 5000,
    )
    const sources = [0, 1].map((partition) => ({ topic: 'orders', partition }))
    const positions = createLocalPositions(shop.log, { deployment: 'local' })
    const report = await verifyAudit(
      auditSource(polledLog(shop.log), AUDIT_TOPIC, {
        positions,
        sources,
        auditTopic: AUDIT_TOPIC,
        deadline: Date.now() + 5000,
      }),
      {
        keyOf: (kid) => snapshot.signingKey(kid)?.key,
      },
    )
    expect(report.breaks).toEqual([])
    expect(report).toMatchObject({ verified: true, headsKnown: true, entries: RECORDS })
  }, 90_000)
})
