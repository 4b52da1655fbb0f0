/** A network that is cut or slow, and a process that sleeps longer than its transaction may last. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { type RealStack, startStack } from '../stack/stack.ts'
import { connection } from '../world.ts'
import { Arena } from './arena.ts'
import { AT_WORK, judgeClean, workThrough } from './at-work.ts'
import { Network } from './network.ts'

const CUT_MS = 10_000

let stack: RealStack
let network: Network
let arena: Arena | undefined

beforeAll(async () => {
  stack = await startStack({
    version: connection.version,
    // A transaction's time-out is looked at twice a second.
    properties: ['transaction.abort.timed.out.transaction.cleanup.interval.ms=500'],
  })
  network = await Network.before(stack)
}, 120_000)
afterEach(async () => {
  await arena?.end()
  arena = undefined
})
afterAll(async () => {
  await network.close()
  await stack.stop()
})

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

describe('a handler whose network is cut for 10 s', () => {
  it('fails by its deadlines, and goes on when the network is back', async () => {
    arena = await Arena.open(stack.connection, AT_WORK)
    const { brokers } = network
    const handler = arena.handler({ brokers, connectionTimeoutMs: 1000, requestTimeoutMs: 3000 })
    await handler.ready()
    await workThrough(arena, handler, async () => {
      await sleep(2000)
      network.cut()
      await sleep(CUT_MS)
      network.mend()
    })
    await handler.close()
    expect(arena.failures.length).toBeGreaterThan(0)
    await judgeClean(arena, `network cut for ${CUT_MS / 1000} s`)
  }, 120_000)
})

describe('a handler whose coordinator is slow', () => {
  it('goes on at its pace, fails by its deadlines where answers come too late, and recovers', async () => {
    arena = await Arena.open(stack.connection, AT_WORK)
    const { brokers } = network
    const handler = arena.handler({ brokers, connectionTimeoutMs: 2000, requestTimeoutMs: 2000 })
    await handler.ready()
    await workThrough(arena, handler, async () => {
      // The last is later by far than a client waits, who looks at his waiting requests now and then.
      for (const delayMs of [20, 200, 2500]) {
        await sleep(500)
        network.slow(delayMs)
        await sleep(3000)
      }
      network.slow(0)
    })
    await handler.close()
    expect(arena.failures.length).toBeGreaterThan(0)
    await judgeClean(arena, 'answers 40 to 5,000 ms late')
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
