/**
 * Handlers that are killed or frozen at every await of their path (exactly-once.md). `FAULT_ROUNDS` says how many rounds;
 * otherwise there are 300 on the usual broker, and some on others.
 */
import { afterEach, describe, expect, it } from 'vitest'
import { connection } from '../world.ts'
import { Arena, type Batch } from './arena.ts'
import type { Handler, Outcome } from './handler.ts'
import type { Trap } from './trap.ts'

const IS_USUAL = connection.version === '4.3.1' && connection.brokers.length === 1
const ROUNDS = Number(process.env['FAULT_ROUNDS'] ?? (IS_USUAL ? 300 : 40))
/** One round, at most on the whole: a start, some slices, an end. */
const ROUND_MS = 5000
/** Every so many rounds the kill comes at a random time instead. */
const RANDOM_EVERY = 5
const MAX_BATCHES = 4
/** So many of the aimed kills must hit: a point is passed less often at times. Of few rounds chance takes a greater share. */
const HITS = ROUNDS < 300 ? 0.6 : 0.8

let arena: Arena | undefined
afterEach(async () => {
  await arena?.end()
  arena = undefined
})

const random = (below: number): number => Math.floor(Math.random() * below)

/** A place to be killed at: on the first event of a process (cold), or on one that comes to open partitions (warm). */
interface Target {
  readonly cold: boolean
  readonly point: string
  readonly times: number
}

/** What an undisturbed handler passes: every point of the path, and how often. */
async function survey(arena: Arena): Promise<Target[]> {
  const handler = arena.handler()
  await handler.ready()
  const nowhere: Trap = { point: 'nowhere', nth: 1, signal: 'SIGKILL', waitMs: 0 }
  const targets: Target[] = []
  for (const cold of [true, false]) {
    handler.arm(nowhere)
    const outcome = await arena.deliver(handler, await arena.next())
    if (outcome.is === 'killed') throw new Error('it was killed by nobody')
    // The handler's own answer comes after what it has counted.
    const passed = { ...outcome.passed, 'handler/answered': 1 }
    // Some transactions for each source partition, or there would be nothing between them to die at.
    expect(passed).toMatchObject({ 'session.commit/sent': expect.toSatisfy((times: number) => times >= 4) })
    for (const [point, times] of Object.entries(passed)) targets.push({ cold, point, times })
  }
  await handler.close()
  return targets
}

/** One round: a new process gets what the last one may have left undone, and then more, until it is killed. */
async function round(
  arena: Arena,
  handler: Handler,
  undone: Batch | undefined,
  target: Target | undefined,
): Promise<Batch | undefined> {
  await handler.ready()
  const arm = (): void => {
    if (target === undefined) {
      setTimeout(() => handler.signal('SIGKILL'), random(250))
      return
    }
    const { point, times } = target
    handler.arm({ point, nth: 1 + random(times), signal: 'SIGKILL', waitMs: random(6) })
  }
  let batch = undone ?? (await arena.next())
  for (let count = 0; count < MAX_BATCHES; count++) {
    if (count === (target?.cold === false ? 1 : 0)) arm()
    const outcome: Outcome = await arena.deliver(handler, batch)
    if (outcome.is === 'killed') return batch
    if (count < MAX_BATCHES - 1) batch = await arena.next()
  }
  await handler.kill()
  return undefined
}

const judgeClean = async (arena: Arena): Promise<number> => {
  const { sent, auditEntries, ...found } = await arena.judge()
  expect(found).toEqual({ lost: [], twice: [], outOfOrder: [], auditBreaks: [], headsKnown: true })
  expect(auditEntries).toBe(sent)
  return sent
}

describe('a handler that is killed', () => {
  it(
    'loses nothing, gives out nothing twice and leaves no hole in the audit, at whichever await it dies',
    async () => {
      arena = await Arena.open(connection)
      const targets = await survey(arena)
      const caught = new Map<string, number>()
      let rounds = 0
      let aimed = 0
      let atRandom = 0
      let undone: Batch | undefined
      let spare = arena.handler()
      while (rounds < ROUNDS) {
        const handler = spare
        spare = arena.handler()
        const target = rounds % RANDOM_EVERY === 0 ? undefined : targets[aimed++ % targets.length]
        undone = await round(arena, handler, undone, target)
        rounds++
        if (target === undefined) atRandom++
        else if (handler.caughtAt !== undefined) {
          const name = `${target.cold ? 'cold' : 'warm'} ${handler.caughtAt}`
          caught.set(name, (caught.get(name) ?? 0) + 1)
        }
      }
      await spare.ready()
      if (undone !== undefined) await arena.deliver(spare, undone)
      await spare.close()
      const sent = await judgeClean(arena)
      const hits = [...caught.values()].reduce((sum, count) => sum + count, 0)
      process.stdout.write(
        `faults: ${rounds} rounds, ${hits} killed at ${caught.size} of ${targets.length} points, ` +
          `${atRandom} at random times; ${sent} records, 0 lost, 0 twice\n`,
      )
      const missed = targets
        .slice(0, aimed)
        .filter(({ cold, point }) => !caught.has(`${cold ? 'cold' : 'warm'} ${point}`))
      process.stdout.write(
        `missed: ${missed.map(({ cold, point }) => `${cold ? 'cold' : 'warm'} ${point}`).join(', ')}\n`,
      )
      expect(hits / aimed).toBeGreaterThan(HITS)
    },
    120_000 + ROUNDS * ROUND_MS,
  )
})

/** In the middle of a transaction, before and after the broker has decided it. */
const ZOMBIE_POINTS = [
  'request.initProducerId/answered',
  'request.txnOffsetCommit/answered',
  'request.produce/before',
  'request.produce/sent',
  'request.produce/answered',
  'request.endTxn.commit/before',
  'request.endTxn.commit/sent',
  'request.endTxn.commit/answered',
]

describe('two live handlers for one partition', () => {
  it('show nothing of the one that was frozen in a transaction when the other took over', async () => {
    arena = await Arena.open(connection)
    for (const point of ZOMBIE_POINTS) {
      const [zombie, heir] = [arena.handler(), arena.handler()]
      await zombie.ready()
      await heir.ready()
      if (!point.includes('initProducerId')) await arena.deliver(zombie, await arena.next())
      const batch = await arena.next()
      zombie.arm({ point, nth: 1, signal: 'SIGSTOP', waitMs: 0 })
      const zombieEnd = arena.deliver(zombie, batch, 1, 40_000).then(
        ({ is }) => is,
        () => 'failed',
      )
      await zombie.caught(10_000)
      await arena.deliver(heir, batch)
      const later = await arena.next()
      await arena.deliver(heir, later)
      zombie.signal('SIGCONT')
      expect(await zombieEnd).toMatch(/done|failed/)
      // Both live on, and take the partitions from each other.
      const last = await arena.next()
      await Promise.all([arena.deliver(heir, last, 20), arena.deliver(zombie, last, 20)])
      await heir.close()
      await zombie.close()
    }
    const sent = await judgeClean(arena)
    process.stdout.write(`faults: ${ZOMBIE_POINTS.length} zombies; ${sent} records, 0 lost, 0 twice\n`)
  }, 400_000)
})
