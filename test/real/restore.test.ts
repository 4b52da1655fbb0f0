/** Positions that are lost, damaged or old, on a real cluster. */
import { afterEach, describe, expect, it } from 'vitest'
import { createKafkaSink } from '../../lib/adapters/kafka.ts'
import { openOperator, type Operator } from './operator.ts'
import { orders, RealShop, totals, upTo } from './shop.ts'
import { DEPLOYMENT } from './stack/stack.ts'
import { settings, soon } from './world.ts'

let real: RealShop
let operator: Operator
const ending: (() => Promise<unknown>)[] = []
afterEach(async () => {
  for (const end of ending.splice(0).reverse()) await end()
  await operator.end()
  await real.end()
})

const GROUP = `${DEPLOYMENT}.shadow.v1`

async function decided(count: number): Promise<void> {
  real = await RealShop.open()
  operator = await openOperator(real)
  const sealer = await real.sealer()
  await sealer.send('orders', orders(0, count))
  await real.handle()
}

const analytics = async (): Promise<number[]> =>
  totals(await real.cluster.readCommitted(real.topicOf('orders.analytics'), 'consumer'))

/** By partition. A commit is shown once its transaction has ended, which is soon after it was answered. */
async function shownNexts(): Promise<number[]> {
  const shown = await operator.run(['position', 'show', real.source, '--json'])
  const { partitions } = JSON.parse(shown.out) as { partitions: { next: string }[] }
  return partitions.map(({ next }) => Number(next))
}

describe('a position on a cluster', () => {
  it('that a tool has damaged, or that has expired, is restored by command, and no copy comes in after it', async () => {
    await decided(30)
    const admin = await real.cluster.admin()
    const copies = await real.records()
    const nexts = [0, 1].map((own) => copies.filter(({ partition }) => partition === own).length)
    for (const lose of [
      () =>
        admin.setOffsets({
          groupId: GROUP,
          topic: real.source,
          partitions: [
            { partition: 0, offset: '5' },
            { partition: 1, offset: '0' },
          ],
        }),
      // What is left when a group's offsets have expired.
      () => admin.deleteGroups([GROUP]),
    ]) {
      await lose()
      await expect(real.handle()).rejects.toThrow(/position-(damaged|missing)/)
      const restored = await operator.run(['position', 'restore', real.source, '--by', 'ann', '--json'])
      expect([restored.err, restored.status]).toEqual(['', 0])
      await expect.poll(shownNexts, { timeout: 20_000 }).toEqual(nexts)
    }
    const again = await operator.run(['position', 'restore', real.source])
    expect([again.status, again.out]).toEqual([0, expect.stringMatching(/good\n.*good$/)])
    await real.cluster.produce(copies)
    await real.handle()
    expect(await analytics()).toEqual(upTo(30))
    const search = await operator.run(['audit', 'search', '--type', 'position.restored', '--json'])
    expect(search.out.match(/"principal":"User:ann"/g)).toHaveLength(4)
    expect(await real.verify()).toMatchObject({ verified: true, headsKnown: true, entries: 60 + 4 })
  })

  it('of a raised epoch begins by command, and all is decided anew, on in the chain that stands', async () => {
    await decided(10)
    const env = { SEALGATE_EPOCH: '2' }
    for (const topic of [real.source, real.audit]) {
      const begun = await operator.run(['position', 'init', topic], { env })
      expect([begun.err, begun.status]).toEqual(['', 0])
    }
    const again = await operator.run(['position', 'init', real.source], { env })
    expect([again.status, again.err]).toEqual([
      2,
      expect.stringContaining('a position of this epoch already'),
    ])
    const sink = createKafkaSink({ ...settings(), epoch: 2 }, { now: () => Date.now() })
    ending.push(() => sink.close())
    const gate = real.gate((parts) => ({ ...parts, sink, settings: { ...parts.settings, epoch: 2 } }))
    ending.push(() => gate.close())
    await real.handle({ gate })
    const verified = await operator.run(['audit', 'verify'], { env })
    expect([verified.err, verified.status]).toEqual(['', 0])
    expect(await analytics()).toEqual(upTo(10).flatMap((id) => [id, id]))
  })

  it('that nobody has written for a day is written again, as it is, beside a gate that goes on', async () => {
    await decided(10)
    const place = { topic: real.source, partition: 0 }
    const gate = real.gate()
    ending.push(() => gate.close())
    const sealer = await real.sealer()
    await sealer.send('orders', orders(10, 20))
    await real.handle({ gate })
    const today = real.sink()
    // As takers read it: shown beside a holder, its newest commit may not be visible yet.
    const session = await today.open(place, soon())
    const before = session.position
    await session.close()
    expect(await today.renew(place, soon())).toBe(false)
    let days = 0
    const later = { now: () => Date.now() + days * 86_400_000 }
    const tomorrow = createKafkaSink(settings(), later)
    ending.push(() => tomorrow.close())
    // More than once: right after a commit, what is shown may still be the one before.
    for (days = 2; days < 42; days += 2) {
      expect(await tomorrow.renew(place, later.now() + 20_000)).toBe(true)
      expect(await tomorrow.renew(place, later.now() + 20_000)).toBe(false)
    }
    expect(await tomorrow.show(place, later.now() + 20_000)).toEqual(before)
    await sealer.send('orders', orders(20, 30))
    await real.handle({ gate })
    expect(await analytics()).toEqual(upTo(30))
    const renewed = await operator.run(['position', 'renew', real.source])
    expect([renewed.status, renewed.out]).toEqual([0, expect.stringMatching(/young\n.*young$/)])
  })
})
