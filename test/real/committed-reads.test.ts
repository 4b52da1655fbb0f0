/** The readers of these tests see what a read_committed reader should, and no more. */
import type { Producer, Transaction } from 'kafkajs'
import { afterAll, describe, expect, it } from 'vitest'
import { bytes, client, Cluster, text, unique } from './world.ts'
import { DEPLOYMENT } from './stack/stack.ts'

const cluster = new Cluster()
afterAll(() => cluster.end())

/** A broker that has just started may not have its coordinators yet. */
async function begun(producer: Producer): Promise<Transaction> {
  for (let attempt = 1; ; attempt++) {
    try {
      return await producer.transaction()
    } catch (error) {
      if (attempt === 40) throw error
      await new Promise((resolve) => setTimeout(resolve, 250))
    }
  }
}

describe('a read_committed reader', () => {
  it('sees nothing of aborted transactions that overlapped, in whichever order they began and ended', async () => {
    const topic = `output.${unique()}`
    await cluster.createTopic(topic, 1)
    const producers = ['first', 'second'].map((name) =>
      client('gate').producer({
        transactionalId: `${DEPLOYMENT}.${topic}.${name}`,
        maxInFlightRequests: 1,
        retry: { retries: 0 },
      }),
    )
    try {
      const open = await Promise.all(
        producers.map(async (producer) => {
          await producer.connect()
          return begun(producer)
        }),
      )
      for (const transaction of open)
        await transaction.send({ topic, messages: [{ partition: 0, value: 'aborted' }] })
      // The one that began first ends last: so it stands second in the broker's list.
      for (const transaction of open.toReversed()) {
        await transaction.abort()
        // A broker writes the marks of ends a little later, and all that have come by then in an order of its own.
        await new Promise((resolve) => setTimeout(resolve, 500))
      }
    } finally {
      await Promise.all(producers.map((producer) => producer.disconnect()))
    }
    const later = { topic, partition: 0, key: null, value: bytes('committed'), headers: [] }
    await cluster.produce([later])
    const seen = await cluster.readCommitted(topic)
    expect(seen.map(({ value }) => text(value))).toEqual(['committed'])
  })
})
