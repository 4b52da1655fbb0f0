/** Three brokers, replication 3, min.insync.replicas 2: leaders that move, coordinators that die, a disk that is full. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { Arena } from './faults/arena.ts'
import { AT_WORK, judgeClean, restartBroker, whole, workThrough } from './faults/at-work.ts'
import { Disk } from './faults/disk.ts'
import {
  areSettled,
  homeOf,
  OFFSETS,
  QUICK_REBALANCE,
  rotateLeaders,
  TRANSACTIONS,
} from './faults/leaders.ts'
import { DEPLOYMENT, type RealStack, startStack, withAdmin } from './stack/stack.ts'

const LEADER_ROUNDS = Number(process.env['FAULT_LEADER_ROUNDS'] ?? 4)
const COORDINATOR_KILLS = Number(process.env['FAULT_COORDINATOR_KILLS'] ?? 2)
const GROUP = `${DEPLOYMENT}.shadow.v1`
/** Its disk is one that can be full. */
const POOR = 3

let stack: RealStack
let disk: Disk
let arena: Arena | undefined

beforeAll(async () => {
  stack = await startStack({ brokers: 3, properties: QUICK_REBALANCE })
  await stack.brokers.get(POOR)?.stop()
  disk = await Disk.under(stack, POOR)
  await stack.brokers.get(POOR)?.start()
  await whole(stack)
}, 180_000)
afterEach(async () => {
  await arena?.end()
  arena = undefined
})
afterAll(async () => {
  await stack.brokers.get(POOR)?.stop()
  await disk.end()
  await stack.stop()
})

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

/** A handler at work on all three while `fault` goes on. */
async function under(what: string, fault: (arena: Arena) => Promise<void>): Promise<void> {
  const open = await Arena.open(stack.connection, AT_WORK)
  arena = open
  const handler = open.handler()
  await handler.ready()
  await workThrough(open, handler, () => fault(open))
  await whole(stack)
  await handler.close()
  await judgeClean(open, `three brokers, ${what}`)
}

describe('a handler on three brokers', () => {
  it(
    'goes on while the leaders of all its topics are moved, and those of the coordinators',
    async () => {
      let moved = 0
      await under('leaders moved', async ({ topics }) => {
        const all = [...topics, OFFSETS, TRANSACTIONS]
        for (let round = 0; round < LEADER_ROUNDS; round++)
          await withAdmin(stack.connection, async (admin) => {
            moved += await rotateLeaders(admin, all)
            const until = Date.now() + 60_000
            while (!(await areSettled(admin, all))) {
              if (Date.now() > until) throw new Error('the leaders were not moved')
              await sleep(200)
            }
          })
      })
      process.stdout.write(`faults: ${moved} leaders moved\n`)
    },
    120_000 + LEADER_ROUNDS * 60_000,
  )

  it.each([
    ['group', OFFSETS],
    ['transaction', TRANSACTIONS],
  ])(
    'goes on when the broker that coordinates its %s is killed and comes back',
    async (what, internal) => {
      await under(`${COORDINATOR_KILLS} kills of the ${what} coordinator`, async ({ transactionalIds }) => {
        for (let kill = 0; kill < COORDINATOR_KILLS; kill++) {
          const name = internal === OFFSETS ? GROUP : (transactionalIds[kill % transactionalIds.length] ?? '')
          const { leader } = await withAdmin(stack.connection, (admin) => homeOf(admin, internal, name))
          await sleep(500 + Math.random() * 1000)
          await restartBroker(stack, 'SIGKILL', 1000 + Math.random() * 2000, leader)
        }
      })
    },
    120_000 + COORDINATOR_KILLS * 60_000,
  )

  it("goes on when a broker's disk is full, and the broker ends of it", async () => {
    await under(`one with ${disk.kind}, full`, async () => {
      await sleep(1000)
      await disk.fill()
      const until = Date.now() + 30_000
      while (stack.brokers.get(POOR)?.pid !== undefined && Date.now() < until) await sleep(100)
      expect(stack.brokers.get(POOR)?.pid, 'the broker runs on a full disk').toBeUndefined()
      await sleep(3000)
      await disk.free()
      await restartBroker(stack, 'SIGKILL', 0, POOR)
    })
  }, 180_000)
})
