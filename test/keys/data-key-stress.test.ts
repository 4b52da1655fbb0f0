/**
 * Data-key care seen from outside (keys.md §2): twenty real sealers and admission on one key service that is slow, down and
 * back. Time is the test's, so that what is counted is exact; `npm run bench -- data-keys` measures the same in real time.
 */
import { afterEach, beforeAll, describe, expect, it, vi } from 'vitest'
import { runStress, type Stress, type StressResult } from '../../bench/data-keys.ts'
import {
  type Call,
  type DataKeyWorld,
  type DataKeyWorldOptions,
  makeDataKeyWorld,
  smallOrders,
} from '../../bench/data-keys-world.ts'
import { CHANNEL } from '../../bench/world.ts'
import { Outage } from '../../lib/errors.ts'

const STRESS: Stress = {
  producers: 20,
  partitions: 4,
  eventsPerSecond: 10_000,
  perCall: 100,
  maxAgeMs: 3600,
  cacheMs: 1500,
  slowMs: 500,
  quickForMs: 0,
  slowForMs: 7200,
  downForMs: 4500,
  backForMs: 5800,
}

const open: DataKeyWorld[] = []
async function closeAll(): Promise<void> {
  vi.useRealTimers()
  for (const world of open.splice(0)) await world.close()
}
afterEach(closeAll)

/** Its files are made in real time, what follows is in the test's. */
async function newWorld(options: Partial<DataKeyWorldOptions> = {}): Promise<DataKeyWorld> {
  const world = await makeDataKeyWorld({ ...STRESS, ...options })
  open.push(world)
  vi.useFakeTimers()
  return world
}

/** Lets time pass, 10 ms after 10 ms, until it is done. */
async function passing<T>(work: Promise<T>): Promise<T> {
  const done = new AbortController()
  const end = (): void => done.abort()
  work.then(end, end)
  for (let step = 0; !done.signal.aborted && step < 10_000; step++) await vi.advanceTimersByTimeAsync(10)
  return work
}

/** The most calls of one kind for one KEK that came within so many milliseconds. */
function mostWithin(calls: readonly Call[], kind: Call['kind'], ms: number): number {
  let most = 0
  const byKek = Map.groupBy(
    calls.filter((call) => call.kind === kind),
    ({ kek }) => kek,
  )
  for (const some of byKek.values())
    for (const first of some)
      most = Math.max(most, some.filter(({ at }) => at >= first.at && at < first.at + ms).length)
  return most
}

describe('20 producers and a gate at 10,000 events a second, with a key service that takes 500 ms, fails, and comes back', () => {
  let result: StressResult
  let calls: readonly Call[]
  let waited = 0

  beforeAll(async () => {
    const world = await newWorld()
    result = await passing(runStress(world, STRESS))
    calls = world.keyService.calls
    waited = world.opening.waits
    await closeAll()
  }, 120_000)

  it('sends on while keys change: no event after a producer’s first waits for the key service', () => {
    const { slow } = result
    expect(slow.keys).toBeGreaterThanOrEqual(40)
    expect(slow).toMatchObject({ waits: 0, refused: 0, sent: 72_000 })
    expect(slow.largestMs).toBeLessThan(STRESS.slowMs / 10)
  })

  it('seals under a failing key service for as long as a key lasts, and not a moment longer', () => {
    expect(result.sealedAfterFailureMs).toBeGreaterThan(STRESS.maxAgeMs / 6)
    expect(result.oldestUseMs).toBeLessThan(STRESS.maxAgeMs)
    expect(result.oldestUseMs).toBeGreaterThan(STRESS.maxAgeMs * 0.9)
    expect(result.down.refused).toBeGreaterThan(0)
  })

  it('spares a failing key service: five calls for a KEK, then one in five seconds', () => {
    const failed = calls.filter(({ isAnswered }) => !isAnswered)
    expect(failed.length).toBeGreaterThan(0)
    expect(mostWithin(failed, 'generate', 5000)).toBeLessThanOrEqual(6)
  })

  it('sends again from every producer within the breaker’s five seconds, a call and its own pace', () => {
    expect(result.recoveredMs).toBeLessThan(5000 + STRESS.slowMs + 250)
  })

  it('opens with one call for each data key and cache life, whatever partitions ask for it at once', () => {
    expect(result.shortestRepeatMs).toBeGreaterThanOrEqual(STRESS.cacheMs)
    expect(result.shortestRepeatMs).toBeLessThan(Infinity)
    expect(waited).toBeGreaterThan(0)
  })

  it('admits all that was sent, whatever the key service did', () => {
    const { slow, down, back, quick } = result
    const first = STRESS.producers * STRESS.perCall
    expect(result.admitted).toBe(first + quick.sent + slow.sent + down.sent + back.sent)
    expect(result.rejected).toBe(0)
  })
})

describe('a gate and its producers', () => {
  it('wait for a key service that hangs no longer than they have time, and decide nothing meanwhile', async () => {
    const world = await newWorld({ producers: 1 })
    const { keyService, verdicts } = world
    const [sealer] = world.sealers
    const start = Date.now()
    await passing(sealer!.send(CHANNEL, smallOrders(1, 0)))
    keyService.delayMs = 3_600_000
    await passing(world.admit(10_000))
    expect(Date.now() - start).toBeLessThan(10_100)
    expect(verdicts).toMatchObject({ admitted: 0, outages: 1 })
    await vi.advanceTimersByTimeAsync(STRESS.maxAgeMs)
    const asked = Date.now()
    await expect(passing(sealer!.send(CHANNEL, smallOrders(1, 0)))).rejects.toThrow(Outage)
    expect(Date.now() - asked).toBeLessThan(10_100)
  })

  it('drop a KEK’s data keys the moment that the directory drops the KEK, and ask for none again', async () => {
    const world = await newWorld({ producers: 2 })
    const { sealers, keyService, issuers, verdicts } = world
    const sendAll = (): Promise<unknown> =>
      Promise.all(sealers.map((sealer) => sealer.send(CHANNEL, smallOrders(10, 0))))
    await passing(sendAll())
    await passing(world.admit(10_000))
    expect(world.opening).toMatchObject({ calls: 2, alive: 2 })
    world.setKek(issuers[0]!, false)
    expect(world.opening.alive).toBe(1)
    const before = keyService.calls.length
    await passing(sendAll())
    await passing(world.admit(10_000))
    expect(keyService.calls).toHaveLength(before)
    expect(verdicts.admitted).toBe(30)
    expect(Object.fromEntries(verdicts.rejected)).toEqual({ undecryptable: 10 })
    world.setKek(issuers[0]!, true)
    await passing(sendAll())
    await passing(world.admit(10_000))
    expect(verdicts.admitted).toBe(50)
    expect(keyService.calls).toHaveLength(before + 1)
  })

  it('keep under the quota of the account: 500 calls at once, then 500 a second', async () => {
    const world = await newWorld({ producers: 1, maxUses: 1 })
    const start = Date.now()
    await passing(world.sealers[0]!.send(CHANNEL, smallOrders(1200, 0)))
    const { calls } = world.keyService
    expect(calls).toHaveLength(1200)
    expect(mostWithin(calls, 'generate', 1000)).toBeLessThanOrEqual(1010)
    expect(Date.now() - start).toBeGreaterThan(1300)
  })
})
