/** `quarantine redrive` on a real cluster: once, whoever else is at work, and whenever it is killed. */
import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import { createKafkaSource, type KafkaSource } from '../../lib/adapters/kafka-source.ts'
import { toMskEvent } from '../../lib/adapters/msk-event.ts'
import { redrive, type RedriveOrder, type RedriveReport } from '../../lib/admission/redrive.ts'
import { buildBundle, loadBundle } from '../../lib/contract/bundle.ts'
import { checkContracts } from '../../lib/contract/load.ts'
import type { SourceRecord } from '../../lib/ports.ts'
import { ORDER_CONTRACT } from '../shop.ts'
import { letGateRead, openOperator } from './operator.ts'
import type { OperatorSettings } from './redrive-process.ts'
import { orders, PARTITIONS, RealShop, totals, upTo } from './shop.ts'
import { DEPLOYMENT } from './stack/stack.ts'
import { rawSettings, settings } from './world.ts'

let real: RealShop
let reader: KafkaSource
afterEach(async () => {
  await reader.close()
  await real.end()
})

const ROUNDS = 8

/** Contracts by which the producer may not publish: what it sends is refused at step 7, and leaves no mark. */
const STRICT = loadBundle(
  buildBundle(
    checkContracts([{ file: 'strict.yaml', text: ORDER_CONTRACT.replace('shop-web:', 'shop-other:') }]).files,
  ),
)

async function handle(records: readonly SourceRecord[], contracts?: typeof STRICT): Promise<void> {
  const gate = real.gate((parts) =>
    contracts === undefined ? parts : { ...parts, contracts: () => Promise.resolve(contracts) },
  )
  const event = toMskEvent(records, { eventSourceArn: 'arn', bootstrapServers: 'b' })
  for (let tries = 1; ; tries++) {
    try {
      await gate.handle(JSON.parse(JSON.stringify(event)), Date.now() + 20_000)
      await gate.close()
      return
    } catch (error) {
      // Fenced twice in one invocation, the gate leaves the rest to Lambda's next.
      if (tries === 10 || !String(error).includes('fenced')) throw error
    }
  }
}

/** All that stands in the source, as Lambda's poller has it. */
async function source(): Promise<SourceRecord[]> {
  const records: SourceRecord[] = []
  for (let partition = 0; partition < PARTITIONS; partition++) {
    const place = { topic: real.source, partition }
    const { end } = await reader.offsets(place)
    for (let from = 0n; from < end;) {
      const page = await reader.fetch(place, from, { maxBytes: 1_048_576, maxRecords: 10_000 })
      records.push(...page.records)
      from = page.next
    }
  }
  return records
}

/** A shop whose gate has refused so many orders. The operator has the gate's rights, and may read what it writes. */
async function refused(count: number): Promise<void> {
  real = await RealShop.open()
  reader = createKafkaSource(settings())
  await letGateRead(real)
  const sealer = await real.sealer()
  await sealer.send('orders', orders(0, count))
  await handle(await source(), STRICT)
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
    const copies = await source()
    await real.cluster.produce(copies)
    await handle(await source())
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
    const [results] = await Promise.all([Promise.all([redriven(), redriven()]), handle(await source())])
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

/** True where it ended by itself; killed after so many signs of life and milliseconds otherwise. */
function runOperator(killAfter?: { signs: number; ms: number }): Promise<boolean> {
  const operator: OperatorSettings = {
    folder: real.shop.folder,
    kafka: rawSettings(),
    deployment: DEPLOYMENT,
    source: real.source,
    audit: real.audit,
    quarantine: real.quarantine,
    outputs: Object.fromEntries(real.shop.stack.outputs.map((channel) => [channel, real.topicOf(channel)])),
  }
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [join(import.meta.dirname, 'redrive-process.ts')], {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: { ...process.env, OPERATOR: JSON.stringify(operator) },
    })
    const bound = setTimeout(() => {
      child.kill('SIGKILL')
      reject(new Error('the operator did not end in time'))
    }, 60_000)
    let signs = 0
    child.stdout.on('data', (chunk: Buffer) => {
      signs += chunk.length
      if (killAfter !== undefined && signs >= killAfter.signs)
        setTimeout(() => child.kill('SIGKILL'), killAfter.ms)
    })
    child.on('error', reject)
    child.on('exit', (code) => {
      clearTimeout(bound)
      if (code === 0 || code === null) resolve(code === 0)
      else reject(new Error(`the operator ended with ${code}`))
    })
  })
}
