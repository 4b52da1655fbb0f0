/** An authentication that comes to no end, on a connection that others wait for. */
import { Kafka, logLevel, type ISocketFactory } from 'kafkajs'
import Cluster from 'kafkajs/src/cluster/index.js'
import { afterEach, describe, expect, it } from 'vitest'
import { KafkaAccess } from '../../lib/adapters/kafka-access.ts'
import { isPassing } from '../../lib/adapters/kafka-outage.ts'
import { repairKafkajs } from '../../lib/adapters/kafka-repairs.ts'
import { Proxy } from './faults/proxy.ts'
import { connection, settings } from './world.ts'

const ending: (() => Promise<unknown>)[] = []
afterEach(async () => {
  for (const end of ending.splice(0).reverse()) await end()
})

const REQUEST_MS = 1000

repairKafkajs()

async function clusterBehind(
  proxy: Proxy,
): Promise<{ cluster: Cluster; sockets: Set<ReturnType<ISocketFactory>> }> {
  const brokers = [`127.0.0.1:${proxy.port}`]
  const access = new KafkaAccess(settings({ brokers, requestTimeoutMs: REQUEST_MS }), {
    now: () => Date.now(),
  })
  await access.refresh()
  const config = access.config(brokers)
  const sockets = new Set<ReturnType<ISocketFactory>>()
  const socketFactory: ISocketFactory = (to) => {
    const socket = config.socketFactory(to)
    sockets.add(socket)
    socket.once('close', () => sockets.delete(socket))
    return socket
  }
  const logger = new Kafka({ brokers, logLevel: logLevel.NOTHING }).logger()
  const cluster = new Cluster({
    ...{
      ...config,
      socketFactory,
      logger,
      metadataMaxAge: 1000,
      allowAutoTopicCreation: false,
      isolationLevel: 1,
    },
  })
  ending.push(() => cluster.disconnect())
  return { cluster, sockets }
}

describe('a connection whose authentication was not answered in time', () => {
  it('is not used again, where a broker would take the next one for an illegal state', async () => {
    const proxy = await Proxy.open(Number(connection.brokers[0]?.split(':')[1]))
    ending.push(() => proxy.close())
    const { cluster, sockets } = await clusterBehind(proxy)
    proxy.slow(REQUEST_MS * 0.7)
    await expect(cluster.connect()).rejects.toThrow(/timed out/)
    proxy.slow(0)
    await cluster.connect()
    await cluster.refreshMetadata()
    expect(sockets.size).toBe(1)
  })
})

describe('a connection that is being ended', () => {
  it('is as one that is not connected to whoever comes late, and not one without SASL', async () => {
    const proxy = await Proxy.open(Number(connection.brokers[0]?.split(':')[1]))
    ending.push(() => proxy.close())
    const { cluster } = await clusterBehind(proxy)
    await cluster.connect()
    const broker = await cluster.brokerPool.findConnectedBroker()
    proxy.slow(REQUEST_MS / 3)
    const asked = broker.findGroupCoordinator({ groupId: 'any' })
    await new Promise((resolve) => setTimeout(resolve, REQUEST_MS / 10))
    // It waits for the answer.
    const ended = cluster.disconnect()
    const late = broker.findGroupCoordinator({ groupId: 'any' })
    const [, , outcome] = await Promise.allSettled([asked, ended, late])
    expect(outcome).toMatchObject({ reason: { name: 'KafkaJSConnectionError' } })
    expect('reason' in outcome && isPassing(outcome.reason)).toBe(true)
  })
})
