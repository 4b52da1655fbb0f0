/**
 * `npm run soak -- [--minutes N] [--seed S] [--json]`: random faults against a live load on three brokers, lap by lap.
 * After each lap what a read_committed reader sees is compared with what was sent. Ends with 1 at any violation. The seed
 * chooses faults, their order and their lengths; how they fall upon the load is never twice the same.
 */
import { parseArgs } from 'node:util'
import { startStack } from '../stack/stack.ts'
import { Arena, type Judgement } from './arena.ts'
import { whole } from './at-work.ts'
import { Disk } from './disk.ts'
import type { Handler } from './handler.ts'
import { QUICK_REBALANCE } from './leaders.ts'
import { Load } from './load.ts'
import { Network } from './network.ts'
import { type Fault, faultsOn, type Random, type Site } from './soak-faults.ts'

const LAP_MS = 120_000
/** Its disk is one that can be full. */
const POOR = 3

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))
const megabytes = (bytes: number): number => Math.round(bytes / 2 ** 20)

/** Mulberry32: a number from 0 to below 1, the same for the same seed. */
function randomBy(seed: number): Random {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

/** Faults in an order of its own: each comes once before any comes again, so that a short soak has all of them, too. */
interface Chance {
  readonly random: Random
  readonly next: () => readonly [string, Fault]
}

function chanceOf(faults: Readonly<Record<string, Fault>>, random: Random): Chance {
  let due: (readonly [string, Fault])[] = []
  const next = (): readonly [string, Fault] => {
    if (due.length === 0) due = Object.entries(faults)
    const [drawn] = due.splice(Math.floor(random() * due.length), 1)
    if (drawn === undefined) throw new Error('there are no faults')
    return drawn
  }
  return { random, next }
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

async function lap(site: Site, chance: Chance, report: Report, forMs: number, say: Say): Promise<void> {
  const { stack, network } = site
  const arena = await Arena.open(stack.connection, 0)
  const count = (name: string, times = 1): void => {
    report.faults[name] = (report.faults[name] ?? 0) + times
  }
  try {
    const load = await Load.on(arena, network.brokers)
    const until = Date.now() + forMs
    const broken = new AbortController()
    const running = load.run().catch((error: unknown) => {
      broken.abort()
      throw error
    })
    running.catch(() => undefined)
    while (Date.now() < until && !broken.signal.aborted) {
      await sleep(500 + chance.random() * 2500)
      const [name, fault] = chance.next()
      say(name)
      count(name)
      await fault(load, chance.random)
      watchMemory(report, load.handler)
    }
    load.end()
    await running
    await whole(stack)
    add(report, await arena.judge())
    report.failedAttempts += arena.failures.length
    for (const [leadMs, times] of load.producers)
      count(leadMs > 0 ? "producers' clock ahead" : "producers' clock behind", times)
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

const USAGE = 'npm run soak -- [--minutes 20] [--seed N] [--json]'

interface Asked {
  readonly minutes: number
  readonly seed: number
  readonly json: boolean
  readonly help: boolean
}

function readArguments(): Asked | undefined {
  try {
    const { values } = parseArgs({
      options: {
        minutes: { type: 'string', default: '20' },
        seed: { type: 'string', default: String(Date.now() % 2 ** 32) },
        json: { type: 'boolean', default: false },
        help: { type: 'boolean', short: 'h', default: false },
      },
    })
    const minutes = Number(values.minutes)
    const seed = Number(values.seed)
    if (!(minutes > 0 && minutes <= 10_080)) throw new TypeError('--minutes is a number above 0')
    if (!Number.isSafeInteger(seed) || seed < 0) throw new TypeError('--seed is a whole number')
    return { minutes, seed, json: values.json, help: values.help }
  } catch (error) {
    console.error(`${error instanceof Error ? error.message : String(error)}\n${USAGE}`)
    return undefined
  }
}

async function openSite(say: Say): Promise<Site> {
  const stack = await startStack({
    brokers: 3,
    properties: [...QUICK_REBALANCE, 'transaction.abort.timed.out.transaction.cleanup.interval.ms=500'],
    say,
  })
  await stack.brokers.get(POOR)?.stop()
  const disk = await Disk.under(stack, POOR)
  await stack.brokers.get(POOR)?.start()
  await whole(stack)
  say('a proxy before each broker')
  return { stack, network: await Network.before(stack), disk, diskOf: POOR }
}

async function closeSite({ stack, network, disk }: Site): Promise<void> {
  await network.close()
  await stack.brokers.get(POOR)?.stop()
  await disk.end()
  await stack.stop()
}

async function main(): Promise<number> {
  const asked = readArguments()
  if (asked === undefined) return 2
  const { minutes, seed, json, help } = asked
  if (help) {
    console.log(USAGE)
    return 0
  }
  const startedAt = Date.now()
  const say: Say = (line) =>
    console.error(`${((Date.now() - startedAt) / 1000).toFixed(0).padStart(5)} s  ${line}`)
  const site = await openSite(say)
  process.once('SIGINT', () => void closeSite(site).finally(() => process.exit(130)))
  const chance = chanceOf(faultsOn(site), randomBy(seed))
  const memory = { handlerFirstMb: 0, handlerLastMb: 0, handlerMostMb: 0, soakMb: 0 }
  const kafka = site.stack.connection.version
  const report: Report = {
    ...{ minutes, seed, kafka, laps: 0, faults: {}, records: 0, failedAttempts: 0 },
    ...{ lost: 0, twice: 0, outOfOrder: 0, auditBreaks: 0, violations: [], memory },
  }
  try {
    const until = Date.now() + minutes * 60_000
    while (Date.now() < until && report.violations.length === 0) {
      await lap(site, chance, report, Math.min(LAP_MS, until - Date.now()), say)
      say(`lap ${report.laps}: ${report.records} records, ${report.lost} lost, ${report.twice} twice`)
    }
  } catch (error) {
    report.violations.push(error instanceof Error ? error.message : String(error))
  } finally {
    await closeSite(site)
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
