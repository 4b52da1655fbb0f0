/** What is refused in mid-run and then allowed again; little time; clocks that are wrong. */
import { afterEach, describe, expect, it } from 'vitest'
import { connection } from '../world.ts'
import { Arena } from './arena.ts'
import { judgeClean, workThrough } from './at-work.ts'
import { RIGHTS, shrink, takeAway } from './refusals.ts'

const TEN_MINUTES_MS = 600_000
/** How long a fault lasts under load. */
const FAULT_MS = 1500

let arena: Arena | undefined
afterEach(async () => {
  await arena?.end()
  arena = undefined
})

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

/** A handler at work while something is refused, and then not any more. Gives back what it said. */
async function refused(
  what: string,
  refuse: (arena: Arena) => Promise<() => Promise<void>>,
): Promise<string> {
  const open = await Arena.open(connection)
  arena = open
  const handler = open.handler()
  await handler.ready()
  await workThrough(open, handler, async () => {
    await sleep(500)
    const allow = await refuse(open)
    await sleep(FAULT_MS)
    await allow()
  })
  await handler.close()
  await judgeClean(open, what)
  return open.failures.join('\n')
}

describe('a handler under load', () => {
  it.each([
    ['outputs', /refuses us a topic/],
    ['audit', /refuses us a topic/],
    ['position', /refuses us the group/],
    ['transactions', /refuses us the transactional id/],
  ] as const)(
    'waits while it has no right to its %s, and goes on where it stood',
    async (what, says) => {
      const said = await refused(`no right to its ${what}`, () => takeAway(connection, RIGHTS[what]))
      expect(said).toMatch(says)
    },
    60_000,
  )

  it('waits while an output takes no message as large as its own, and says which limit to raise', async () => {
    const said = await refused('messages too large', ({ topics }) =>
      shrink(connection, topics.find((topic) => topic.includes('fulfilment')) ?? ''),
    )
    expect(said).toMatch(/bytes for output\.orders\.fulfilment\..*Raise its max\.message\.bytes/)
  }, 60_000)

  it('waits while an output is not there, and names it', async () => {
    const said = await refused('an output deleted', async (open) => {
      const allow = await takeAway(connection, RIGHTS.outputs)
      await sleep(300)
      const make = await open.deletePlain()
      await allow()
      return make
    })
    expect(said).toMatch(/is not there|see that each exists/)
  }, 60_000)
})

describe('a handler with little time', () => {
  it('answers by its deadline however near that is, and what it did not get done comes again', async () => {
    arena = await Arena.open(connection)
    const handler = arena.handler()
    await handler.ready()
    let late = 0
    for (let count = 0; count < 20; count++) {
      const batch = await arena.next()
      const forMs = count * 45
      const started = Date.now()
      await arena.deliver(handler, batch, 1, forMs).catch(() => undefined)
      late = Math.max(late, Date.now() - started - forMs)
      await arena.deliver(handler, batch)
    }
    await handler.close()
    expect(arena.failures.length).toBeGreaterThan(3)
    expect(arena.failures.join()).toContain('no time left')
    expect(late).toBeLessThan(3000)
    await judgeClean(arena, `deadlines of 0 to 855 ms, kept to within ${Math.max(0, late)} ms`)
  }, 60_000)
})

describe('a clock that is ten minutes wrong', () => {
  it('ahead, at a handler, changes nothing: events are judged by the time of the broker', async () => {
    arena = await Arena.open(connection)
    const handler = arena.handler({}, TEN_MINUTES_MS)
    await handler.ready()
    for (let count = 0; count < 10; count++) await arena.deliver(handler, await arena.next())
    await handler.close()
    await judgeClean(arena, "a handler's clock ten minutes ahead")
  }, 60_000)

  it('behind, at a handler, lets it decide nothing until another comes', async () => {
    arena = await Arena.open(connection)
    const behind = arena.handler({}, -TEN_MINUTES_MS)
    await behind.ready()
    const batch = await arena.next()
    await expect(arena.deliver(behind, batch, 2)).rejects.toThrow(/clock/)
    await behind.close()
    const right = arena.handler()
    await right.ready()
    await arena.deliver(right, batch)
    await right.close()
    await judgeClean(arena, "a handler's clock ten minutes behind")
  }, 60_000)

  it('at a producer, puts what is from the future into quarantine, and takes what is old but not too old', async () => {
    arena = await Arena.open(connection, 0)
    await arena.fill(10, TEN_MINUTES_MS)
    await arena.fill(10, -TEN_MINUTES_MS)
    const handler = arena.handler()
    await handler.ready()
    for (let count = 0; count < 20; count++) await arena.deliver(handler, await arena.next())
    await handler.close()
    await judgeClean(arena, "producers' clocks ten minutes wrong")
  }, 60_000)
})
