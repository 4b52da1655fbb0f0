/** `quarantine redrive` on a real cluster: once, whoever else is at work, and whenever it is killed. */
import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import { createKafkaSource, type KafkaSource } from '../../lib/adapters/kafka-source.ts'
import { redrive, type RedriveOrder, type RedriveReport } from '../../lib/admission/redrive.ts'
import { type KillAfter, runMortal } from '../mortal-process.ts'
import { letGateRead, openOperator } from './operator.ts'
import type { OperatorSettings } from './redrive-process.ts'
import { orders, RealShop, STRICT, totals, upTo } from './shop.ts'
import { DEPLOYMENT } from './stack/stack.ts'
import { rawSettings, settings } from './world.ts'

let real: RealShop
let reader: KafkaSource
afterEach(async () => {
  await reader.close()
  await real.end()
})

const ROUNDS = 8

/** A shop whose gate has refused so many orders. The operator has the gate's rights, and may read what it writes. */
async function refused(count: number): Promise<void> {
  real = await RealShop.open()
  reader = createKafkaSource(settings())
  await letGateRead(real)
  const sealer = await real.sealer()
  await sealer.send('orders', orders(0, count))
  await real.handle({ contracts: STRICT })
  // A transaction's end is not always seen when its commit resolves: this waits for it.
  expect(await real.cluster.readCommitted(real.quarantine, 'consumer')).toHaveLength(count)
}

async function redriven(order: Partial<RedriveOrder> = {}): Promise<RedriveReport & { admitted: number }> {
  let admitted = 0
  const report = await redrive(
    { dryRun: false, acceptExpired: new Set(), by: 'ann', reason: 'a test', ...order },
    { ingest: real.parts(), reader, positions: real.sink() },
    { outcome: ({ result }) => void (admitted += result === 'admitted' ? 1 : 0) },
    new AbortController().signal,
  )
  return { ...report, admitted }
}

const analytics = async (): Promise<number[]> =>
  totals(await real.cluster.readCommitted(real.topicOf('orders.analytics'), 'consumer'))

describe('a redrive on a cluster', () => {
  it('lets in once what was refused, and no copy after it', async () => {
    await refused(20)
    expect(await redriven({ dryRun: true })).toMatchObject({ admitted: 20, stops: [] })
    expect(await analytics()).toEqual([])
    expect(await redriven()).toMatchObject({ admitted: 20, stops: [] })
    expect(await redriven()).toMatchObject({ admitted: 0, stops: [] })
    await real.cluster.produce(await real.records())
    await real.handle()
    expect(await analytics()).toEqual(upTo(20))
    expect(await redriven()).toMatchObject({ admitted: 0, stops: [] })
    expect(await real.verify()).toMatchObject({ verified: true, headsKnown: true, entries: 60 })
  })

  it('is one command, by the gate’s settings in sealgate.yaml', async () => {
    await refused(6)
    const operator = await openOperator(real)
    try {
      const dry = await operator.run(['quarantine', 'redrive', '--code', 'not-authorised', '--dry-run'])
      expect([dry.err, dry.status, dry.out]).toEqual(['', 0, expect.stringContaining('6 would be let in')])
      const done = await operator.run(['quarantine', 'redrive', '--code', 'not-authorised', '--by', 'ann'])
      expect([done.status, done.out]).toEqual([0, expect.stringContaining('6 let in, 0 refused again')])
      expect(await analytics()).toEqual(upTo(6))
      const verified = await operator.run(['audit', 'verify'])
      expect([verified.status, verified.out]).toEqual([
        0,
        expect.stringContaining(`_control.${real.source}/`),
      ])
    } finally {
      await operator.end()
    }
  })

  it('is done once by several operators at once, beside a gate at work', async () => {
    await refused(40)
    const sealer = await real.sealer()
    await sealer.send('orders', orders(40, 80))
    const [results] = await Promise.all([Promise.all([redriven(), redriven()]), real.handle()])
    expect(results.flatMap(({ stops }) => stops)).toEqual([])
    expect(results.reduce((sum, { admitted }) => sum + admitted, 0)).toBe(40)
    expect(await analytics()).toEqual(upTo(80))
    expect(await real.verify()).toMatchObject({ verified: true, entries: 120 })
  })

  it('loses nothing and lets nothing in twice, whenever it is killed', async () => {
    await refused(100)
    let killed = 0
    for (let round = 0; round < ROUNDS; round++)
      if (!(await runOperator({ signs: 1 + (round % 5), ms: (round * 7) % 19 }))) killed++
    expect(killed).toBeGreaterThan(ROUNDS / 2)
    expect(await runOperator()).toBe(true)
    expect(await analytics()).toEqual(upTo(100))
    expect(await real.verify()).toMatchObject({ verified: true, headsKnown: true, entries: 200 })
    process.stdout.write(`redrive: ${killed} of ${ROUNDS} killed; 100 records, 0 lost, 0 twice\n`)
  }, 180_000)
})

/** True where it ended by itself. */
function runOperator(killAfter?: KillAfter): Promise<boolean> {
  const operator: OperatorSettings = {
    folder: real.shop.folder,
    kafka: rawSettings(),
    deployment: DEPLOYMENT,
    source: real.source,
    audit: real.audit,
    quarantine: real.quarantine,
    outputs: Object.fromEntries(real.shop.stack.outputs.map((channel) => [channel, real.topicOf(channel)])),
  }
  const env = { OPERATOR: JSON.stringify(operator) }
  return runMortal(join(import.meta.dirname, 'redrive-process.ts'), { env, boundMs: 60_000 }, killAfter)
}
