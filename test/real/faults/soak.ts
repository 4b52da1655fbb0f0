/**
 * `npm run soak -- [--minutes N] [--seed S] [--json]`: random faults against a live load on three brokers, lap by lap.
 * After each lap what a read_committed reader sees is compared with what was sent. Ends with 1 at any violation. The seed
 * chooses faults, their order and their lengths; how they fall upon the load is never twice the same.
 */
import { parseArgs } from 'node:util'
import { type RealStack, startStack, withAdmin } from '../stack/stack.ts'
import { Arena, type Batch, type Judgement } from './arena.ts'
import { restartBroker, whole } from './at-work.ts'
import type { Handler, Outcome } from './handler.ts'
import { areSettled, homeOf, OFFSETS, QUICK_REBALANCE, rotateLeaders, TRANSACTIONS } from './leaders.ts'
import { RIGHTS, shrink, takeAway } from './refusals.ts'

const LAP_MS = 120_000
/** Events made ready at a time. */
const FILL = 200
/** An outage may last so many attempts. */
const ATTEMPTS = 400
const EVENT_MS = 8000
/** A frozen handler loses its transaction. */
const TRANSACTION_MS = 1000

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))
const megabytes = (bytes: number): number => Math.round(bytes / 2 ** 20)

/** Mulberry32: a number from 0 to below 1, the same for the same seed. */
function randomBy(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

interface Report {
  readonly minutes: number
  readonly seed: number
  readonly kafka: string
  laps: number
  readonly faults: Record<string, number>
  records: number
  /** Attempts at an event that a handler did not bring to its end. */
  failedAttempts: number
  lost: number
  twice: number
  outOfOrder: number
  auditBreaks: number
  /** What broke a promise, in words. */
  readonly violations: string[]
  readonly memory: { handlerFirstMb: number; handlerLastMb: number; handlerMostMb: number; soakMb: number }
}

/** A load on one arena: one handler at a time, always another after one that died. */
class Load {
  readonly arena: Arena
  /** The last that was ready. */
  handler: Handler
  #batch: Batch = []
  #over = false

  private constructor(arena: Arena, handler: Handler) {
    this.arena = arena
    this.handler = handler
  }

  static async on(arena: Arena): Promise<Load> {
    return new Load(arena, await start(arena))
  }

  /** Until `end`; rejects where an event cannot be brought to its end. */
  async run(): Promise<void> {
    while (!this.#over) {
      this.#batch = await this.arena.next()
      while ((await this.#deliver(this.handler)) === 'killed') this.handler = await start(this.arena)
    }
    await this.handler.close()
  }

  end(): void {
    this.#over = true
  }

  /** Another that wants the same partitions, and gets what is under way as well. */
  async rival(events: number): Promise<void> {
    const rival = await start(this.arena)
    for (let count = 0; count < events; count++) await this.#deliver(rival)
    await rival.close()
  }

  async #deliver(handler: Handler): Promise<Outcome['is']> {
    return (await this.arena.deliver(handler, this.#batch, ATTEMPTS, EVENT_MS)).is
  }
}

async function start(arena: Arena): Promise<Handler> {
  const handler = arena.handler({ transactionTimeoutMs: TRANSACTION_MS })
  await handler.ready()
  return handler
}

type Fault = (load: Load, random: () => number) => Promise<void>

const faultsOn = (stack: RealStack): Record<string, Fault> => {
  const { connection } = stack
  const killHome = async (internal: string, name: string, random: () => number): Promise<void> => {
    const { leader } = await withAdmin(connection, (admin) => homeOf(admin, internal, name))
    await restartBroker(stack, 'SIGKILL', random() * 3000, leader)
  }
  const refuse = async (refusal: () => Promise<() => Promise<void>>, random: () => number): Promise<void> => {
    const allow = await refusal()
    await sleep(500 + random() * 2500)
    await allow()
  }
  return {
    'handler killed': (load) => {
      load.handler.signal('SIGKILL')
      return Promise.resolve()
    },
    'handler frozen': async (load, random) => {
      const { handler } = load
      handler.signal('SIGSTOP')
      await sleep(500 + random() * 2500)
      handler.signal('SIGCONT')
    },
    'two handlers': (load, random) => load.rival(1 + Math.floor(random() * 5)),
    'leaders moved': async ({ arena: { topics } }) => {
      const all = [...topics, OFFSETS, TRANSACTIONS]
      await withAdmin(connection, async (admin) => {
        await rotateLeaders(admin, all)
        const until = Date.now() + 20_000
        while (!(await areSettled(admin, all)) && Date.now() < until) await sleep(200)
      })
    },
    'group coordinator killed': (_, random) => killHome(OFFSETS, 'test.shadow.v1', random),
    'transaction coordinator killed': ({ arena: { transactionalIds } }, random) =>
      killHome(TRANSACTIONS, transactionalIds[0] ?? '', random),
    'broker restarted': (_, random) => restartBroker(stack, 'SIGTERM', 0, 1 + Math.floor(random() * 3)),
    'broker frozen': async (_, random) => {
      const pid = stack.brokers.get(1 + Math.floor(random() * 3))?.pid
      if (pid === undefined) throw new Error('a broker has ended by itself')
      process.kill(pid, 'SIGSTOP')
      await sleep(500 + random() * 4000)
      process.kill(pid, 'SIGCONT')
      await whole(stack)
    },
    'right taken away': (_, random) => {
      const rights = Object.values(RIGHTS)
      const entry = rights[Math.floor(random() * rights.length)] ?? RIGHTS.outputs
      return refuse(() => takeAway(connection, entry), random)
    },
    'message too large': ({ arena: { topics } }, random) =>
      refuse(() => shrink(connection, topics.find((topic) => topic.includes('fulfilment')) ?? ''), random),
  }
}

async function lap(
  stack: RealStack,
  report: Report,
  random: () => number,
  forMs: number,
  say: Say,
): Promise<void> {
  const arena = await Arena.open(stack.connection, FILL)
  try {
    const load = await Load.on(arena)
    const until = Date.now() + forMs
    const broken = new AbortController()
    const running = load.run().catch((error: unknown) => {
      broken.abort()
      throw error
    })
    running.catch(() => undefined)
    const faults = Object.entries(faultsOn(stack))
    while (Date.now() < until && !broken.signal.aborted) {
      await sleep(500 + random() * 2500)
      const [name, fault] = faults[Math.floor(random() * faults.length)] ?? []
      if (name === undefined || fault === undefined) continue
      say(name)
      report.faults[name] = (report.faults[name] ?? 0) + 1
      await fault(load, random)
      watchMemory(report, load.handler)
    }
    load.end()
    await running
    await whole(stack)
    add(report, await arena.judge())
    report.failedAttempts += arena.failures.length
  } finally {
    await arena.end()
  }
}

function watchMemory({ memory }: Report, handler: Handler): void {
  const now = megabytes(handler.residentBytes)
  if (now === 0) return
  memory.handlerFirstMb ||= now
  memory.handlerLastMb = now
  memory.handlerMostMb = Math.max(memory.handlerMostMb, now)
  memory.soakMb = megabytes(process.memoryUsage().rss)
}

function add(
  report: Report,
  { sent, lost, twice, outOfOrder, auditBreaks, auditEntries, headsKnown }: Judgement,
): void {
  report.laps++
  report.records += sent
  report.lost += lost.length
  report.twice += twice.length
  report.outOfOrder += outOfOrder.length
  report.auditBreaks += auditBreaks.length
  if (auditEntries !== sent) report.violations.push(`${sent} records have ${auditEntries} audit entries`)
  if (!headsKnown) report.violations.push('a position names a head that the audit does not have')
  const bad = [...lost, ...twice, ...outOfOrder]
  if (bad.length > 0) report.violations.push(`lost, twice or out of order: ${bad.slice(0, 10).join(', ')}`)
  if (auditBreaks.length > 0) report.violations.push(`the audit has ${auditBreaks.length} breaks`)
}

type Say = (line: string) => void

function readArguments(): { minutes: number; seed: number; json: boolean } | undefined {
  try {
    const { values } = parseArgs({
      options: {
        minutes: { type: 'string', default: '20' },
        seed: { type: 'string', default: String(Date.now() % 2 ** 32) },
        json: { type: 'boolean', default: false },
      },
    })
    const minutes = Number(values.minutes)
    const seed = Number(values.seed)
    if (!(minutes > 0 && minutes <= 10_080)) throw new TypeError('--minutes is a number above 0')
    if (!Number.isSafeInteger(seed) || seed < 0) throw new TypeError('--seed is a whole number')
    return { minutes, seed, json: values.json }
  } catch (error) {
    console.error(error instanceof Error ? error.message : String(error))
    return undefined
  }
}

async function main(): Promise<number> {
  const asked = readArguments()
  if (asked === undefined) return 2
  const { minutes, seed, json } = asked
  const random = randomBy(seed)
  const startedAt = Date.now()
  const say: Say = (line) =>
    console.error(`${((Date.now() - startedAt) / 1000).toFixed(0).padStart(5)} s  ${line}`)
  const stack = await startStack({
    brokers: 3,
    properties: [...QUICK_REBALANCE, 'transaction.abort.timed.out.transaction.cleanup.interval.ms=500'],
    say,
  })
  const memory = { handlerFirstMb: 0, handlerLastMb: 0, handlerMostMb: 0, soakMb: 0 }
  const report: Report = {
    ...{ minutes, seed, kafka: stack.connection.version, laps: 0, faults: {}, records: 0, failedAttempts: 0 },
    ...{ lost: 0, twice: 0, outOfOrder: 0, auditBreaks: 0, violations: [], memory },
  }
  try {
    const until = Date.now() + minutes * 60_000
    while (Date.now() < until && report.violations.length === 0) {
      await lap(stack, report, random, Math.min(LAP_MS, until - Date.now()), say)
      say(`lap ${report.laps}: ${report.records} records, ${report.lost} lost, ${report.twice} twice`)
    }
  } catch (error) {
    report.violations.push(error instanceof Error ? error.message : String(error))
  } finally {
    await stack.stop()
  }
  console.log(json ? JSON.stringify(report) : textOf(report))
  return report.violations.length > 0 ? 1 : 0
}

function textOf(report: Report): string {
  const { faults, violations, memory } = report
  const total = Object.values(faults).reduce((sum, count) => sum + count, 0)
  return [
    `${report.minutes} minutes on Kafka ${report.kafka}, three brokers, seed ${report.seed}`,
    `${total} faults: ${Object.entries(faults)
      .map(([name, count]) => `${name} ${count}`)
      .join(', ')}`,
    `${report.records} records, ${report.failedAttempts} attempts failed and were made again`,
    `${report.lost} lost, ${report.twice} twice, ${report.outOfOrder} out of order, ${report.auditBreaks} breaks in the audit`,
    `memory: handler ${memory.handlerFirstMb} MB at first, ${memory.handlerMostMb} at most, ${memory.handlerLastMb} at last; soak ${memory.soakMb}`,
    violations.length === 0 ? 'no violation' : `VIOLATIONS\n${violations.join('\n')}`,
  ].join('\n')
}

process.exit(await main())
