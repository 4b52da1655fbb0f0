/**
 * The only broker of a cluster, killed in mid-run. Not on Kafka 4.3, which ends transactions without their markers where
 * a partition has no leader just then (docs/kafka.md): there, brokers are killed where others take over.
 */
import { afterAll, afterEach, beforeAll, describe, it } from 'vitest'
import { type RealStack, startStack } from '../stack/stack.ts'
import { Arena } from './arena.ts'
import { AT_WORK, judgeClean, restartBroker, workThrough } from './at-work.ts'

const BROKER_KILLS = Number(process.env['FAULT_BROKER_KILLS'] ?? 4)

let stack: RealStack
let arena: Arena | undefined

beforeAll(async () => {
  stack = await startStack({ version: '3.9.1' })
}, 120_000)
afterEach(async () => {
  await arena?.end()
  arena = undefined
})
afterAll(() => stack.stop())

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

describe('a handler whose broker is killed', () => {
  it(
    'goes on when the broker is back, with nothing lost and nothing twice',
    async () => {
      arena = await Arena.open(stack.connection, AT_WORK)
      const handler = arena.handler()
      await handler.ready()
      await workThrough(arena, handler, async () => {
        for (let kill = 0; kill < BROKER_KILLS; kill++) {
          await sleep(1000 + Math.random() * 3000)
          await restartBroker(stack, 'SIGKILL', Math.random() * 500)
        }
      })
      await handler.close()
      await judgeClean(arena, `${BROKER_KILLS} broker kills`)
    },
    120_000 + BROKER_KILLS * 30_000,
  )
})
