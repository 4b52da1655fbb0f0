/** An operator's repairs on three brokers, while the leaders of all that they touch are moved. */
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, describe, expect, it } from 'vitest'
import { moveLeaders, OFFSETS, TRANSACTIONS } from './faults/leaders.ts'
import { openOperator, type Operator } from './operator.ts'
import { orders, RealShop, STRICT, totals, upTo } from './shop.ts'
import { DEPLOYMENT } from './stack/stack.ts'

let real: RealShop
let operator: Operator
afterEach(async () => {
  await operator.end()
  await real.end()
})

const COUNT = 60
/** As an operator would: what an outage has left undone is there the next time. */
const TRIES = 5

async function open(): Promise<void> {
  real = await RealShop.open()
  operator = await openOperator(real)
  const sealer = await real.sealer()
  await sealer.send('orders', orders(0, COUNT))
}

/** All leaders: of the shop's topics, and those that coordinate. */
async function moveAll(): Promise<number> {
  const outputs = real.shop.stack.outputs.map(real.topicOf)
  const all = [real.source, real.audit, real.quarantine, ...outputs, OFFSETS, TRANSACTIONS]
  return moveLeaders(await real.cluster.admin(), all)
}

/** Status 1 says that the marks of our own reader stay in quarantine, which no audit proves. */
async function untilDone(args: readonly string[]): Promise<number> {
  for (let tries = 1; ; tries++) {
    // It has as long as it takes.
    const { status, err } = await operator.run(args, { stop: new AbortController().signal })
    if (status === 0 || status === 1) return tries
    expect(status, err).toBe(3)
    if (tries === TRIES) throw new Error(`${args.join(' ')} was not done in ${tries} tries: ${err}`)
    await sleep(500 * tries)
  }
}

const analytics = async (): Promise<number[]> =>
  totals(await real.cluster.readCommitted(real.topicOf('orders.analytics'), 'consumer'))

describe('on three brokers, while all leaders are moved', () => {
  it('a redrive lets in once what was refused', async () => {
    await open()
    await real.handle({ contracts: STRICT })
    expect(await real.cluster.readCommitted(real.quarantine, 'consumer')).toHaveLength(COUNT)
    const [moved, tries] = await Promise.all([moveAll(), untilDone(['quarantine', 'redrive', '--by', 'ann'])])
    expect(moved).toBeGreaterThan(12)
    await untilDone(['quarantine', 'redrive', '--by', 'ann'])
    expect(await analytics()).toEqual(upTo(COUNT))
    expect(await real.verify()).toMatchObject({ verified: true, headsKnown: true, entries: 2 * COUNT })
    process.stdout.write(
      `faults: ${moved} leaders moved, a redrive done in ${tries} tries; 0 lost, 0 twice\n`,
    )
  }, 180_000)

  it('a lost position is restored, and no copy comes in after it', async () => {
    await open()
    await real.handle()
    const admin = await real.cluster.admin()
    await admin.deleteGroups([`${DEPLOYMENT}.shadow.v1`])
    await expect(real.handle()).rejects.toThrow('position-missing')
    const [moved, tries] = await Promise.all([
      moveAll(),
      untilDone(['position', 'restore', real.source, '--by', 'ann']),
    ])
    await real.cluster.produce(await real.records())
    await real.handle()
    expect(await analytics()).toEqual(upTo(COUNT))
    expect(await real.verify()).toMatchObject({ verified: true, headsKnown: true, entries: 2 * COUNT + 2 })
    process.stdout.write(
      `faults: ${moved} leaders moved, a restore done in ${tries} tries; 0 lost, 0 twice\n`,
    )
  }, 180_000)
})
