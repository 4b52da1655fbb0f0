/** `sealgate audit verify` beside gates at work on a real cluster. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Transaction } from 'kafkajs'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { openOperator, type Operator } from './operator.ts'
import { orders, RealShop } from './shop.ts'
import { DEPLOYMENT } from './stack/stack.ts'
import { client, unique } from './world.ts'

let real: RealShop
let operator: Operator
beforeAll(async () => {
  real = await RealShop.open()
  operator = await openOperator(real)
})
afterAll(async () => {
  await operator.end()
  await real.end()
})

/** What a gate of other source partitions has under way in every partition of the audit. */
async function underWay(work: (transaction: Transaction) => Promise<void>): Promise<void> {
  const producer = client('gate').producer({
    transactionalId: `${DEPLOYMENT}.other.${unique()}`,
    maxInFlightRequests: 1,
    retry: { retries: 5 },
  })
  await producer.connect()
  try {
    const transaction = await producer.transaction()
    const count = await (await real.cluster.admin()).fetchTopicMetadata({ topics: [real.audit] })
    for (const { partitionId } of count.topics[0]?.partitions ?? [])
      await transaction.send({ topic: real.audit, messages: [{ partition: partitionId, value: 'aborted' }] })
    await work(transaction)
  } finally {
    await producer.disconnect()
  }
}

it('waits for a transaction that hides what the heads name, and calls nothing cut', async () => {
  const sealer = await real.sealer()
  await sealer.send('orders', orders(0, 10))
  await real.handle()
  await underWay(async (transaction) => {
    await sealer.send('orders', orders(10, 20))
    await real.handle()
    let isOver = false
    const verifying = operator
      .run(['audit', 'verify', '--json'], { stop: new AbortController().signal })
      .finally(() => (isOver = true))
    await sleep(3000)
    expect(isOver).toBe(false)
    await transaction.abort()
    const { out, err, status } = await verifying
    expect([err, status]).toEqual(['', 0])
    expect(JSON.parse(out)).toMatchObject({ verified: true, headsKnown: true, entries: 20 })
  })
})
