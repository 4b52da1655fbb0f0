import { rmSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { afterEach, describe, expect, it } from 'vitest'
import { type KillAfter, runMortal } from '../mortal-process.ts'
import { ORDER_CONTRACT, openShop, type Shop } from '../shop.ts'
import { handle, refund, REFUND_CONTRACT, send, totals, verified } from './redrive-shop.ts'

const RECORDS = 100
const ROUNDS = 8

let shop: Shop | undefined
afterEach(async () => {
  await shop?.close()
  shop = undefined
})

const OPERATOR = fileURLToPath(new URL('redrive-process.ts', import.meta.url))

const runOperator = (folder: string, killAfter?: KillAfter): Promise<boolean> =>
  runMortal(OPERATOR, { args: [folder], boundMs: 30_000 }, killAfter)

describe('a redrive that is killed', () => {
  it('loses nothing, lets nothing in twice and leaves no hole in the audit, wherever it was killed', async () => {
    shop = await openShop()
    const { folder } = shop
    await send(
      shop,
      Array.from({ length: RECORDS }, (_, id) => refund(id)),
    )
    await handle(shop)
    await shop.stack.close()
    shop = undefined
    try {
      let killed = 0
      for (let round = 0; round < ROUNDS; round++)
        if (!(await runOperator(folder, { signs: 2 + (round % 4), ms: (round * 5) % 11 }))) killed++
      expect(killed).toBeGreaterThan(0)
      expect(await runOperator(folder)).toBe(true)
      shop = await openShop([ORDER_CONTRACT, REFUND_CONTRACT], folder)
    } finally {
      if (shop === undefined) rmSync(folder, { recursive: true, force: true })
    }
    expect(await totals(shop)).toEqual(Array.from({ length: RECORDS }, (_, id) => id))
    expect(await verified(shop)).toMatchObject({ verified: true, headsKnown: true, entries: 2 * RECORDS })
  }, 90_000)
})
