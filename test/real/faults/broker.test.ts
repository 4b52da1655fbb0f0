/** A network that is cut or slow, and a process that sleeps longer than its transaction may last. */
import { appendFile, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { freePorts } from '../stack/broker.ts'
import { type RealStack, startStack } from '../stack/stack.ts'
import { connection } from '../world.ts'
import { Arena } from './arena.ts'
import { AT_WORK, judgeClean, restartBroker, workThrough } from './at-work.ts'
import { Proxy } from './proxy.ts'

const CUT_MS = 10_000

let stack: RealStack
let proxy: Proxy
let arena: Arena | undefined

beforeAll(async () => {
  stack = await startStack({ version: connection.version })
  const [port = 0] = await freePorts(1)
  proxy = await Proxy.open(port)
  await addListener(port, proxy.port)
}, 120_000)
afterEach(async () => {
  await arena?.end()
  arena = undefined
})
afterAll(async () => {
  await proxy.close()
  await stack.stop()
})

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

/** A second listener that is reached by the proxy alone; and a transaction's time-out is looked at twice a second. */
async function addListener(port: number, advertised: number): Promise<void> {
  const path = join(stack.connection.certificates, '1', 'server.properties')
  const lines = (await readFile(path, 'utf8')).split('\n')
  const valueOf = (name: string): string =>
    lines.find((line) => line.startsWith(`${name}=`))?.slice(name.length + 1) ?? ''
  const login = 'org.apache.kafka.common.security.scram.ScramLoginModule required;'
  const added = [
    `listeners=${valueOf('listeners')},PROXIED://127.0.0.1:${port}`,
    `advertised.listeners=${valueOf('advertised.listeners')},PROXIED://127.0.0.1:${advertised}`,
    `listener.security.protocol.map=${valueOf('listener.security.protocol.map')},PROXIED:SASL_SSL`,
    `listener.name.proxied.scram-sha-512.sasl.jaas.config=${login}`,
    'transaction.abort.timed.out.transaction.cleanup.interval.ms=500',
  ]
  await appendFile(path, `${added.join('\n')}\n`)
  await restartBroker(stack, 'SIGTERM')
}

describe('a handler whose network is cut for 10 s', () => {
  it('fails by its deadlines, and goes on when the network is back', async () => {
    arena = await Arena.open(stack.connection, AT_WORK)
    const brokers = [`127.0.0.1:${proxy.port}`]
    const handler = arena.handler({ brokers, connectionTimeoutMs: 1000, requestTimeoutMs: 3000 })
    await handler.ready()
    await workThrough(arena, handler, async () => {
      await sleep(2000)
      proxy.cut()
      await sleep(CUT_MS)
      proxy.mend()
    })
    await handler.close()
    expect(arena.failures.length).toBeGreaterThan(0)
    await judgeClean(arena, `network cut for ${CUT_MS / 1000} s`)
  }, 120_000)
})

describe('a handler whose coordinator is slow', () => {
  it('goes on at its pace, fails by its deadlines where answers come too late, and recovers', async () => {
    arena = await Arena.open(stack.connection, AT_WORK)
    const brokers = [`127.0.0.1:${proxy.port}`]
    const handler = arena.handler({ brokers, connectionTimeoutMs: 2000, requestTimeoutMs: 2000 })
    await handler.ready()
    await workThrough(arena, handler, async () => {
      for (const delayMs of [20, 200, 1500]) {
        await sleep(500)
        proxy.slow(delayMs)
        await sleep(3000)
      }
      proxy.slow(0)
    })
    await handler.close()
    expect(arena.failures.length).toBeGreaterThan(0)
    await judgeClean(arena, 'answers 40 to 3,000 ms late')
  }, 120_000)
})

describe('a handler that is frozen for longer than its transaction may last', () => {
  it.each([
    ['with its batch written', 'request.produce/answered', 20_000],
    ['before its commit', 'request.endTxn.commit/before', 20_000],
    ['beyond its own deadline', 'request.endTxn.commit/before', 3000],
  ])(
    'holds no reader back, and shows nothing of that transaction: %s',
    async (_, point, forMs) => {
      arena = await Arena.open(stack.connection)
      const handler = arena.handler({ transactionTimeoutMs: 1000 })
      await handler.ready()
      await arena.deliver(handler, await arena.next())
      const batch = await arena.next()
      handler.arm({ point, nth: 1, signal: 'SIGSTOP', waitMs: 0 })
      const end = arena.deliver(handler, batch, 1, forMs).then(
        ({ is }) => is,
        () => 'failed',
      )
      await handler.caught(10_000)
      await sleep(4000)
      await arena.plainCount()
      handler.signal('SIGCONT')
      expect(await end).toBe(forMs < 4000 ? 'failed' : 'done')
      await arena.deliver(handler, batch)
      await arena.deliver(handler, await arena.next())
      await handler.close()
      await judgeClean(arena, `frozen at ${point}`)
    },
    90_000,
  )
})
