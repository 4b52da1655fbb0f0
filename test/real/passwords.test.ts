/** A user whom somebody has made with both SCRAM mechanisms, as Kafka's own manual does. */
import { expect, it } from 'vitest'
import { createKafkaSource } from '../../lib/adapters/kafka-source.ts'
import { kafkaUsers } from '../../lib/adapters/kafka-users.ts'
import { Outage } from '../../lib/errors.ts'
import { connection, settings, soon, unique } from './world.ts'

/** What a log-in comes to: undefined where it is taken. */
async function logIn(mechanism: 'scram-sha-256' | 'scram-sha-512', password: string): Promise<unknown> {
  const sasl = { mechanism, username: 'poller', password }
  const source = createKafkaSource(settings({ brokers: [connection.listeners['MANY']], sasl }))
  const error: unknown = await source.partitions(`none.${unique()}`).catch((reason: unknown) => reason)
  await source.close()
  return error instanceof Outage ? error.message : error
}

it('is left with no password by the other mechanism, which would stay good whatever is rotated', async () => {
  const users = kafkaUsers(settings({}, 'admin'), { now: () => Date.now() })
  const password = connection.passwords.poller
  const refused = /refuses our credentials/
  expect(await logIn('scram-sha-256', password)).not.toMatch(refused)
  // Twice: the second time there is none to take away.
  for (let turn = 0; turn < 2; turn++) {
    await users.setPassword({ username: 'poller', password }, soon())
    await users.logIn({ username: 'poller', password }, undefined, soon())
    expect(await logIn('scram-sha-512', password)).not.toMatch(refused)
    // Taken away by the controller; brokers learn of it a moment later.
    await expect.poll(() => logIn('scram-sha-256', password), { timeout: 10_000 }).toMatch(refused)
  }
})
