/**
 * The write barrier of exactly-once.md §1: a group coordinator that has just taken over serves what it knows to be on
 * all replicas, which may be one commit behind. The moment is brought about by a replica that is asleep.
 */
import kafkajs, { type Admin, type Kafka, type KafkaConfig } from 'kafkajs'
import Cluster from 'kafkajs/src/cluster/index.js'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createKafkaSink, type KafkaSink } from '../../lib/adapters/kafka.ts'
import { readKafkaSettings } from '../../lib/adapters/kafka-settings.ts'
import type { TopicPartition } from '../../lib/ports.ts'
import { bytes, RealCluster, soon, text, unique } from './cluster.ts'
import { assign, controllerOf, homeOf, OFFSETS, partitionsOf, TRANSACTIONS } from './faults/leaders.ts'
import { type Connection, clientConfig, DEPLOYMENT, type RealStack, startStack } from './stack/stack.ts'

const ROUNDS = 2
const GROUP = `${DEPLOYMENT}.shadow.v1`

let stack: RealStack
beforeAll(async () => {
  stack = await startStack({
    brokers: 3,
    properties: [
      // How long a quiet follower may not know that all others have what it has: 500 ms by default, which is the moment.
      'replica.fetch.wait.max.ms=2000',
      // Who sleeps is not given up while we look.
      'broker.session.timeout.ms=18000',
      'controller.quorum.fetch.timeout.ms=10000',
    ],
  })
}, 120_000)
afterAll(() => stack.stop())

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

/** What a step must come to; everything here is short. */
async function until(what: string, isSo: () => Promise<boolean>): Promise<void> {
  const end = Date.now() + 20_000
  while (!(await isSo().catch(() => false))) {
    if (Date.now() > end) throw new Error(`it did not come to this: ${what}`)
    await sleep(50)
  }
}

/** Three brokers by what they are in a round. */
interface Roles {
  /** Coordinates the group until it is taken from it. */
  readonly old: number
  /** Coordinates it afterwards. */
  readonly young: number
  /** Sleeps meanwhile. */
  readonly sleeper: number
}

/** The transactions' home is on the other two, led by the young one: it does not wake it with news from the old one. */
async function arrange(admin: Admin, transactionalId: string): Promise<Roles> {
  const { partitionId: group, leader: old } = await homeOf(admin, OFFSETS, GROUP)
  const { partitionId: transactions } = await homeOf(admin, TRANSACTIONS, transactionalId)
  const controller = await controllerOf(stack.connection)
  const others = [1, 2, 3].filter((id) => id !== old)
  const sleeper = others.find((id) => id !== controller) ?? 0
  const young = others.find((id) => id !== sleeper) ?? 0
  const settle = async (
    topic: string,
    partition: number,
    replicas: number[],
    leaders: number[],
  ): Promise<void> => {
    await assign(admin, topic, partition, replicas)
    await until(`${topic}-${partition} on ${replicas.join()}`, async () => {
      const found = (await partitionsOf(admin, topic)).find(({ partitionId }) => partitionId === partition)
      const isr = found?.isr ?? []
      return (
        isr.length === replicas.length &&
        replicas.every((id) => isr.includes(id)) &&
        leaders.includes(found?.leader ?? 0)
      )
    })
  }
  await settle(OFFSETS, group, [old, young, sleeper], [old])
  await settle(TRANSACTIONS, transactions, [young, sleeper], [young, sleeper])
  await settle(TRANSACTIONS, transactions, [young, old], [young])
  return { old, young, sleeper }
}

const storedOffset = async (admin: Admin, { topic, partition }: TopicPartition): Promise<bigint> => {
  const [found] = await admin.fetchOffsets({ groupId: GROUP, topics: [topic] })
  return BigInt(found?.partitions.find((one) => one.partition === partition)?.offset ?? -1)
}

/** Whoever is asked by mistake while it sleeps is given up soon. */
const impatient = (to: Connection, principal: 'admin' | 'gate'): Kafka => {
  const config: KafkaConfig = { ...clientConfig(to, principal), connectionTimeout: 500, requestTimeout: 1000 }
  return new kafkajs.Kafka({ ...config, retry: { retries: 0 } })
}

/** As our own sink opens, but for the barrier: fence, then read. */
async function readWithoutBarrier(to: Connection, source: TopicPartition, id: string): Promise<bigint> {
  const kafka = impatient(to, 'gate')
  const producer = kafka.producer({ transactionalId: id, maxInFlightRequests: 1 })
  const admin = kafka.admin()
  try {
    await until('they are connected', async () => {
      await Promise.all([producer.connect(), admin.connect()])
      return true
    })
    await until('it is fenced', async () => {
      await producer.transaction()
      return true
    })
    let found = -1n
    await until('the new coordinator answers', async () => {
      found = await storedOffset(admin, source)
      return true
    })
    return found
  } finally {
    await Promise.all([producer.disconnect(), admin.disconnect()])
  }
}

/** Any broker passes a change on to the controller. Which one is named as that is chance, and may be the one that sleeps. */
async function takeOver(awake: Connection, roles: Roles, partition: number): Promise<void> {
  const { old, young, sleeper } = roles
  const usual: unknown = Reflect.get(Cluster.prototype, 'findControllerBroker')
  Reflect.set(Cluster.prototype, 'findControllerBroker', function (this: Cluster) {
    return this.findBroker({ nodeId: old })
  })
  const admin = impatient(awake, 'admin').admin()
  try {
    await until('the change is passed on', async () => {
      await admin.connect()
      await assign(admin, OFFSETS, partition, [young, sleeper])
      return true
    })
    await until('the other leads it', async () => {
      const found = (await partitionsOf(admin, OFFSETS)).find(({ partitionId }) => partitionId === partition)
      return found?.leader === young
    })
  } finally {
    Reflect.set(Cluster.prototype, 'findControllerBroker', usual)
    await admin.disconnect()
  }
}

const sinkOn = (connection: Connection): KafkaSink => {
  const { brokers, ca, passwords } = connection
  const sasl = { mechanism: 'scram-sha-512', username: 'gate', password: passwords.gate }
  const settings = readKafkaSettings({
    brokers,
    ssl: { ca },
    sasl,
    deployment: DEPLOYMENT,
    connectionTimeoutMs: 500,
  })
  return createKafkaSink(settings, { now: () => Date.now() })
}

describe('a group coordinator that has just taken over', () => {
  it('gives an opening without the write barrier an old position, and one with it the last that was committed', async () => {
    const { connection } = stack
    const cluster = new RealCluster(connection)
    const source = { topic: `source.${unique()}`, partition: 0 }
    await cluster.createTopic(source.topic, 1)
    const transactionalId = `${DEPLOYMENT}.${source.topic}.${source.partition}`
    const first = sinkOn(connection)
    await first.init(source, { next: 0n, state: bytes('0') }, soon())
    await first.close()
    let stale = 0
    for (let round = 1; stale < ROUNDS && round <= 3 * ROUNDS; round++) {
      const last = BigInt(2 * round)
      const roles = await arrange(await cluster.admin(), transactionalId)
      const awake: Connection = {
        ...connection,
        brokers: [roles.old, roles.young].map((id) => connection.brokers[id - 1] ?? ''),
      }
      const sink = sinkOn(awake)
      const session = await sink.open(source, soon())
      await session.commit([], { next: last - 1n, state: bytes('before') }, soon())
      await sleep(300)
      await session.commit([], { next: last, state: bytes(`${last}`) }, soon())
      const admin = await cluster.admin()
      await until('the commit is there', async () => (await storedOffset(admin, source)) === last)
      await sleep(300)
      const { partitionId } = await homeOf(admin, OFFSETS, GROUP)
      const pid = stack.brokers.get(roles.sleeper)?.pid ?? 0
      process.kill(pid, 'SIGSTOP')
      try {
        await takeOver(awake, roles, partitionId)
        const read = await readWithoutBarrier(awake, source, transactionalId)
        const opening = sink.open(source, soon())
        opening.catch(() => undefined)
        await sleep(500)
        process.kill(pid, 'SIGCONT')
        const { position } = await opening
        expect([position.next, text(position.state)]).toEqual([last, `${last}`])
        // Otherwise the moment had passed before the new coordinator was asked.
        if (read !== last) {
          expect(read).toBe(last - 1n)
          stale++
        }
      } finally {
        process.kill(pid, 'SIGCONT')
      }
      await session.close()
      await sink.close()
    }
    await cluster.end()
    expect(stale).toBe(ROUNDS)
  }, 400_000)
})
