/** Twenty producers and a gate while the key service is quick, slow, down, and back: who waits, and how often it is asked. */
import { systemClock } from '../lib/client/machine.ts'
import { Outage } from '../lib/errors.ts'
import { type DataKeyWorld, makeDataKeyWorld, shortestRepeatMs, smallOrders } from './data-keys-world.ts'
import type { Result, Setting } from './measure.ts'
import { CHANNEL } from './world.ts'

/** How hard and how long. */
export interface Stress {
  readonly producers: number
  readonly partitions: number
  /** All producers' together. */
  readonly eventsPerSecond: number
  /** Events in one call. */
  readonly perCall: number
  readonly maxAgeMs: number
  readonly cacheMs: number
  /** What the key service takes for an answer where it is slow. */
  readonly slowMs: number
  readonly quickForMs: number
  readonly slowForMs: number
  readonly downForMs: number
  readonly backForMs: number
}

/** What a stretch of sending came to. */
export interface Stretch {
  readonly sent: number
  readonly refused: number
  readonly eventsPerSecond: number
  readonly p99Ms: number
  /** The longest that a call of `send` took that was not refused. */
  readonly largestMs: number
  /** Events that waited for the key service. */
  readonly waits: number
  /** Data keys that were asked for. */
  readonly keys: number
}

/** What came of it all. */
export interface StressResult {
  readonly quick: Stretch
  readonly slow: Stretch
  readonly down: Stretch
  readonly back: Stretch
  /** From the failure of the key service to the last event that was sealed under it. */
  readonly sealedAfterFailureMs: number
  /** From its return until every producer sent again. */
  readonly recoveredMs: number
  /** The greatest age of a data key that sealed. */
  readonly oldestUseMs: number
  readonly dataKeys: number
  readonly unwraps: number
  /** Between two calls that unwrapped the same key, while none failed (one that is tried again begins its life earlier). */
  readonly shortestRepeatMs: number
  readonly admitted: number
  readonly rejected: number
}

const FULL_STRESS: Stress = {
  producers: 20,
  partitions: 4,
  eventsPerSecond: 10_000,
  perCall: 100,
  maxAgeMs: 9000,
  cacheMs: 4000,
  slowMs: 500,
  quickForMs: 10_000,
  slowForMs: 30_000,
  downForMs: 12_000,
  backForMs: 10_000,
}

const QUICK_STRESS: Stress = {
  ...FULL_STRESS,
  eventsPerSecond: 2000,
  perCall: 20,
  maxAgeMs: 900,
  cacheMs: 450,
  slowMs: 50,
  quickForMs: 500,
  slowForMs: 1000,
  downForMs: 1300,
  backForMs: 6000,
}

export async function dataKeys({ quick }: Setting): Promise<Result> {
  const stress = quick ? QUICK_STRESS : FULL_STRESS
  const { producers, partitions, maxAgeMs, cacheMs } = stress
  const world = await makeDataKeyWorld({ producers, partitions, maxAgeMs, cacheMs })
  try {
    const result = await runStress(world, stress)
    const stretches = [
      ['quick', result.quick],
      [`slow (${stress.slowMs} ms)`, result.slow],
      ['down', result.down],
      ['back', result.back],
    ] as const
    const rest = Object.entries(result).filter(([, value]) => typeof value === 'number')
    return {
      table: [
        ['key service', 'events/s', 'refused', 'p99, ms', 'longest, ms', 'waited for it', 'data keys'],
        ...stretches.map(([name, one]) => [
          name,
          String(Math.round(one.eventsPerSecond)),
          String(one.refused),
          String(one.p99Ms),
          String(one.largestMs),
          String(one.waits),
          String(one.keys),
        ]),
        ...rest.map(([name, value]) => [name, String(value)]),
      ],
      data: { ...result, stress },
    }
  } finally {
    await world.close()
  }
}

/** Sends and admits through all four stretches; at the end everything that was sent is decided. */
export async function runStress(world: DataKeyWorld, stress: Stress): Promise<StressResult> {
  const { keyService, sealers } = world
  const over = new AbortController()
  const admitting = admitAll(world, over.signal)
  try {
    // Each producer's first key is one that it waits for.
    await Promise.all(sealers.map((sealer, index) => sendOne(sealer, index, stress)))
    const quick = await stretch(world, stress, stress.quickForMs)
    keyService.delayMs = stress.slowMs
    const slow = await stretch(world, stress, stress.slowForMs)
    keyService.isFailing = true
    const downAt = systemClock.now()
    const down = await stretch(world, stress, stress.downForMs)
    keyService.isFailing = false
    const backAt = systemClock.now()
    const back = await stretch(world, stress, stress.backForMs)
    over.abort()
    await admitting
    const { calls } = keyService
    return {
      quick: quick.stretch,
      slow: slow.stretch,
      down: down.stretch,
      back: back.stretch,
      sealedAfterFailureMs: Math.max(0, ...down.last.map((at) => at - downAt)),
      recoveredMs: Math.max(...back.first.map((at) => at - backAt)),
      oldestUseMs: world.oldestUseMs,
      dataKeys: keyService.born.size,
      unwraps: calls.filter(({ kind, isAnswered }) => kind === 'unwrap' && isAnswered).length,
      shortestRepeatMs: shortestRepeatMs(calls.filter(({ at }) => at < downAt)),
      admitted: world.verdicts.admitted,
      rejected: [...world.verdicts.rejected.values()].reduce((sum, count) => sum + count, 0),
    }
  } finally {
    over.abort()
  }
}

const ADMIT_EVERY_MS = 50
/** After an outage all that waits is looked at again: not at once. */
const AGAIN_MS = 500

/** Until told that no more comes, and all is decided. */
async function admitAll(world: DataKeyWorld, over: AbortSignal): Promise<void> {
  while (!over.aborted || world.waiting > 0) {
    const before = world.verdicts.outages
    await world.admit(10_000)
    await pause(world.verdicts.outages > before ? AGAIN_MS : ADMIT_EVERY_MS)
  }
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, Math.max(0, ms)))

/** A call's events go to one partition, the next call's to the next: every partition meets every producer's keys. */
async function sendOne(
  sealer: DataKeyWorld['sealers'][number],
  call: number,
  { perCall, partitions }: Stress,
): Promise<void> {
  await sealer.send(CHANNEL, smallOrders(perCall, call % partitions))
}

/** All producers send at their pace for a while. */
async function stretch(
  world: DataKeyWorld,
  stress: Stress,
  forMs: number,
): Promise<{
  readonly stretch: Stretch
  /** By producer: when its first and last call ended that was not refused. */
  readonly first: readonly number[]
  readonly last: readonly number[]
}> {
  const { sealers, keyService } = world
  const { perCall, eventsPerSecond, producers } = stress
  const everyMs = (perCall * producers * 1000) / eventsPerSecond
  const start = systemClock.now()
  const took: number[] = []
  let refused = 0
  const waitsBefore = waitsOf(world)
  const keysBefore = keyService.born.size
  const ends = await Promise.all(
    sealers.map(async (sealer, index) => {
      let [first, last] = [Infinity, -Infinity]
      let call = index
      for (let at = start + (index * everyMs) / producers; at < start + forMs; at += everyMs) {
        await pause(at - systemClock.now())
        const began = systemClock.now()
        try {
          await sendOne(sealer, call++, stress)
          last = systemClock.now()
          first = Math.min(first, last)
          took.push(last - began)
        } catch (error) {
          if (!(error instanceof Outage)) throw error
          refused += perCall
        }
      }
      return { first, last }
    }),
  )
  const sorted = took.toSorted((a, b) => a - b)
  return {
    stretch: {
      sent: took.length * perCall,
      refused,
      eventsPerSecond: (took.length * perCall * 1000) / (systemClock.now() - start),
      p99Ms: sorted[Math.floor(sorted.length * 0.99)] ?? 0,
      largestMs: sorted.at(-1) ?? 0,
      waits: waitsOf(world) - waitsBefore,
      keys: keyService.born.size - keysBefore,
    },
    first: ends.map(({ first }) => first),
    last: ends.map(({ last }) => last),
  }
}

const waitsOf = ({ sealers }: DataKeyWorld): number =>
  sealers.reduce((sum, sealer) => sum + sealer.keyCounts().waits, 0)
