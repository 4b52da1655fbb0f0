/** Kafka's users, whose passwords are replaced again and again on a real broker while events go through. */
import { afterAll, expect, it } from 'vitest'
import { kafkaUsers } from '../../lib/adapters/kafka-users.ts'
import { Cluster, settings, soon, unique } from './world.ts'

const clock = { now: () => Date.now() }
const cluster = new Cluster()
afterAll(() => cluster.end())

it('makes a user, gives him another password, and logs in with the last one alone', async () => {
  const username = `user-${unique()}`
  const users = kafkaUsers(settings({}, 'admin'), clock)
  await users.setPassword({ username, password: 'planted-one' }, soon())
  await users.logIn({ username, password: 'planted-one' }, soon())
  await users.setPassword({ username, password: 'planted-two' }, soon())
  await users.logIn({ username, password: 'planted-two' }, soon())
  const begun = Date.now()
  const refused = await users
    .logIn({ username, password: 'planted-one' }, begun + 2000)
    .catch((e: unknown) => e)
  expect(refused).toMatchObject({
    code: 'sink-denied',
    message: expect.stringMatching(/does not take its password/),
  })
  expect(String(refused)).not.toContain('planted')
  expect(Date.now() - begun).toBeLessThan(4000)
})

it('says which right is missing', async () => {
  const users = kafkaUsers(settings({}, 'operator'), clock)
  const login = { username: 'gate', password: 'planted' }
  await expect(users.setPassword(login, soon())).rejects.toMatchObject({
    code: 'sink-denied',
    message: expect.stringMatching(/Allow us Alter on the cluster/),
  })
})
