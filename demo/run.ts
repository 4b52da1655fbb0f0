/** The whole story, from the first event to the last tampering, as data. What should have been and is not stands in its `problems`. */
import { setTimeout as sleep } from 'node:timers/promises'
import { stackWorld } from '../cli/stack-world.ts'
import { closing, type World } from '../cli/world.ts'
import { ingestHandler } from '../functions/ingest-handler.ts'
import { createIngest, type IngestParts } from '../lib/admission/slice.ts'
import { QUARANTINE_HEADERS } from '../lib/admission/route.ts'
import { recordKey } from '../lib/audit/entry.ts'
import type { VerificationReport } from '../lib/audit/verification.ts'
import type { Contracts } from '../lib/contract/contract.ts'
import { type Fault, Outage, type RejectionCode } from '../lib/errors.ts'
import { type Poller, startPoller } from '../lib/local/poller.ts'
import type { PolledSource } from '../lib/local/poller-lane.ts'
import { openStack } from '../lib/local/stack.ts'
import type { SourceRecord } from '../lib/ports.ts'
import { createGate, SOFTWARE } from '../lib/runtime.ts'
import { type Attack, forge, LIES_RIPEN_MS, type Loot, sealLies } from './attacks.ts'
import { type Deliveries, openOutputs } from './consumers.ts'
import { countRecords, type Ledger, readLedger, recordsOf } from './ledger.ts'
import type { Offered } from './offers.ts'
import { sealAll, type SealedCount } from './producers.ts'
import { openAudit, tamper, type Tampering, verifyWhole } from './tampering.ts'

/** The chapters, in their order. */
export const PHASES = ['seal', 'admit', 'attack', 'open', 'verify', 'tamper'] as const

export type Phase = (typeof PHASES)[number]

/** Told as the story goes on. */
export interface Watch {
  onPhase(phase: Phase): void
  /** How much of the phase is done; `of` where that is known. */
  onProgress(done: number, of: number | undefined): void
  onPhaseEnd(phase: Phase, milliseconds: number): void
  onFault(fault: Fault): void
}

/** Where it is told: topics with nothing in them, and a gate for them. */
export interface Stage {
  readonly world: World
  gateParts(): IngestParts
  /** As the poller reads and keeps its offsets. */
  readonly polled: { readonly source: PolledSource; readonly group: string }
}

export interface Plan {
  /** How many events there will be, where that is known. */
  readonly expected: number | undefined
  /** Whether each of them is to be admitted. */
  readonly isSound: boolean
  offers(contracts: Contracts): AsyncIterable<Offered>
}

export interface AttackOutcome extends Omit<Attack, 'records'> {
  readonly sent: number
  /** How many ended how: by code, or `admitted`, or `undecided`. */
  readonly ended: ReadonlyMap<string, number>
}

export interface Outcome {
  readonly contracts: Contracts
  readonly sealing: SealedCount
  /** Records in the channels' topics: events and attacks. */
  readonly sent: number
  readonly ledger: Ledger
  /** What became of the events alone: all that was decided, less the attacks. */
  readonly events: { readonly admitted: number; readonly rejected: ReadonlyMap<RejectionCode, number> }
  readonly attacks: readonly AttackOutcome[]
  readonly deliveries: Deliveries
  readonly audit: VerificationReport
  readonly tamperings: readonly Tampering[]
  /** Of the events: what poller, handler and gate decided in a second. */
  readonly eventsPerSecond: number
  readonly invocations: number
  readonly problems: readonly string[]
}

/** Of each topic. */
export const PARTITIONS = 4
const ATTACKS_OF_A_KIND = 8
const LANES = 4
const BATCH_SIZE = 1_000
const WINDOW_MS = 50
const LOOK_MS = 100
/** Nothing decided for so long: something does not answer. */
const STALL_MS = 60_000
const MAX_LOOT = 64
const LOOT = { maxBytes: 1_048_576, maxRecords: 64 }

/** On an embedded stack that is made in `folder`, which is empty or not there yet. */
export async function runLocally(
  { folder, bundle }: { readonly folder: string; readonly bundle: Uint8Array },
  plan: Plan,
  watch: Watch,
): Promise<Outcome> {
  const stack = await openStack({ folder, bundle, partitions: PARTITIONS, software: SOFTWARE })
  return closing(stackWorld(stack), (world) => {
    const polled = { source: world.records, group: 'sealgate-ingest' }
    return runOn({ world, gateParts: () => stack.gateParts(), polled }, plan, watch)
  })
}

export function runOn(stage: Stage, plan: Plan, watch: Watch): Promise<Outcome> {
  return new Run(stage, plan, watch).tell()
}

class Run {
  readonly #stage: Stage
  readonly #world: World
  readonly #plan: Plan
  readonly #watch: Watch
  readonly #loot: Loot

  constructor(stage: Stage, plan: Plan, watch: Watch) {
    this.#stage = stage
    this.#world = stage.world
    this.#plan = plan
    this.#watch = watch
    this.#loot = { world: stage.world, partitions: PARTITIONS, count: ATTACKS_OF_A_KIND }
  }

  async tell(): Promise<Outcome> {
    const world = this.#world
    const watch = this.#watch
    const { contracts } = world
    const sealing = await this.#phase('seal', () =>
      sealAll(world, this.#plan.offers(contracts), {
        onSealed: (records) => watch.onProgress(records, this.#plan.expected),
        onFault: (fault) => watch.onFault(fault),
      }),
    )
    const lies = await sealLies(sealing.samples, this.#loot)
    const ripe = performance.now() + LIES_RIPEN_MS
    const gate = createGate(createIngest(this.#stage.gateParts()), 'throw')
    const handler = ingestHandler(() => Promise.resolve(gate))
    const work = new Stopwatch()
    const poller = await startPoller({
      ...this.#stage.polled,
      topics: world.sources,
      handler: (event, context) => work.during(() => handler(event, context)),
      options: { batchSize: BATCH_SIZE, batchingWindowMs: WINDOW_MS, concurrency: LANES },
    })
    let seconds = 0
    let attacked: Attacked
    try {
      await this.#phase('admit', () => this.#drain(poller, sealing.sealed))
      seconds = work.seconds()
      attacked = await this.#phase('attack', async () => {
        const forgeries = forge(await this.#admitted(), this.#loot)
        await sleep(Math.max(0, ripe - performance.now()))
        return this.#attack([...forgeries, ...lies], poller)
      })
    } finally {
      await poller.stop()
      await gate.close()
    }
    const deliveries = await this.#phase('open', () =>
      openOutputs(world, sealing.samples, (records) => watch.onProgress(records, undefined)),
    )
    const ledger = await readLedger(world, new Set(attacked.places.flat()))
    const audit = await openAudit(world)
    const report = await this.#phase('verify', () => verifyWhole(audit))
    const tamperings = await this.#phase('tamper', () => tamper(audit, ledger))
    let sent = 0
    for (const topic of world.sources) sent += await countRecords(world.records, topic)
    const { invocations } = poller.stats()
    const eventsPerSecond = seconds > 0 ? Math.round(sealing.sealed / seconds) : 0
    const attacks = outcomesOf(attacked, ledger)
    const outcome = {
      ...{ contracts, sealing, sent, ledger, attacks, deliveries, audit: report, tamperings },
      events: eventsOf(ledger, attacks),
      ...{ eventsPerSecond, invocations },
    }
    const quarantined = await countRecords(world.records, world.quarantineTopic)
    return { ...outcome, problems: problemsOf(outcome, quarantined, this.#plan.isSound) }
  }

  async #phase<T>(phase: Phase, work: () => Promise<T>): Promise<T> {
    this.#watch.onPhase(phase)
    const begun = performance.now()
    const result = await work()
    this.#watch.onPhaseEnd(phase, performance.now() - begun)
    return result
  }

  /** Waits until the gate has decided all there is. */
  async #drain(poller: Poller, expected: number): Promise<void> {
    const look = setInterval(() => this.#watch.onProgress(poller.stats().records, expected), LOOK_MS)
    try {
      let { records } = poller.stats()
      while (!(await poller.drained(STALL_MS))) {
        const stats = poller.stats()
        if (stats.records === records)
          throw new Outage(
            'unexpected',
            `the gate stands still after ${records} records: ${reasonOf(stats.lastError)}`,
          )
        ;({ records } = stats)
      }
      this.#watch.onProgress(poller.stats().records, expected)
    } finally {
      clearInterval(look)
    }
  }

  /** Some of the records that were admitted, from every partition. */
  async #admitted(): Promise<SourceRecord[]> {
    const { records: source, sources, quarantineTopic } = this.#world
    const refused = new Set<string>()
    for await (const records of recordsOf(source, quarantineTopic))
      for (const record of records) refused.add(originOf(record))
    const byPartition: SourceRecord[][] = []
    for (const topic of sources) {
      for (let partition = 0; partition < PARTITIONS; partition++) {
        const { records } = await source.fetch({ topic, partition }, 0n, LOOT)
        byPartition.push(records.filter((record) => !refused.has(recordKey(topic, partition, record.offset))))
      }
    }
    return roundRobin(byPartition, MAX_LOOT)
  }

  async #attack(attacks: readonly Attack[], poller: Poller): Promise<Attacked> {
    const places: string[][] = []
    const before = poller.stats().records
    for (const { records } of attacks) {
      const appended = await this.#world.append(records)
      places.push(appended.map(({ topic, partition, offset }) => recordKey(topic, partition, offset)))
    }
    await this.#drain(poller, before + places.flat().length)
    return { attacks, places }
  }
}

/** From the first beginning to the last end. */
class Stopwatch {
  #begun = Infinity
  #ended = -Infinity

  async during<T>(work: () => Promise<T>): Promise<T> {
    this.#begun = Math.min(this.#begun, performance.now())
    try {
      return await work()
    } finally {
      this.#ended = performance.now()
    }
  }

  seconds(): number {
    return Math.max(0, (this.#ended - this.#begun) / 1000)
  }
}

const reasonOf = (error: unknown): string => (error instanceof Error ? error.message : 'nobody said why')

/** Attacks, and where each record of each came to lie. */
interface Attacked {
  readonly attacks: readonly Attack[]
  readonly places: readonly (readonly string[])[]
}

/** `topic/partition/offset` that a quarantined record came from. */
function originOf({ headers }: SourceRecord): string {
  const [topic = '', partition, offset] = (['topic', 'partition', 'offset'] as const).map((name) => {
    const header = headers.findLast((one) => one.name === QUARANTINE_HEADERS[name])
    return Buffer.from(header?.value ?? []).toString()
  })
  return recordKey(topic, Number(partition), BigInt(offset ?? 0))
}

/** The first of each list, then the second of each, and so on. */
function roundRobin<T>(lists: readonly (readonly T[])[], count: number): T[] {
  const longest = Math.max(0, ...lists.map(({ length }) => length))
  const taken: T[] = []
  for (let index = 0; index < longest && taken.length < count; index++)
    taken.push(...lists.flatMap((list) => list.slice(index, index + 1)))
  return taken.slice(0, count)
}

function outcomesOf({ attacks, places }: Attacked, ledger: Ledger): AttackOutcome[] {
  return attacks.map(({ name, tries, expected }, index) => {
    const own = places[index] ?? []
    const ended = new Map<string, number>()
    for (const place of own) {
      const end = ledger.asked.get(place) ?? 'undecided'
      ended.set(end, (ended.get(end) ?? 0) + 1)
    }
    return { name, tries, expected, sent: own.length, ended }
  })
}

function eventsOf(ledger: Ledger, attacks: readonly AttackOutcome[]): Outcome['events'] {
  const without = (end: string, count: number): number =>
    attacks.reduce((left, { ended }) => left - (ended.get(end) ?? 0), count)
  const rejected = Array.from(ledger.rejected, ([code, count]) => [code, without(code, count)] as const)
  return {
    admitted: without('admitted', ledger.admitted),
    rejected: new Map(rejected.filter(([, count]) => count > 0)),
  }
}

/** What does not agree; nothing where all does. `isSound`: every event was to be admitted. */
export function problemsOf(
  outcome: Omit<Outcome, 'problems'>,
  quarantined: number,
  isSound: boolean,
): string[] {
  const { sealing, sent, ledger, events, attacks, deliveries, audit, tamperings } = outcome
  const problems: string[] = []
  const expect = (isSo: boolean, otherwise: string): void => {
    if (!isSo) problems.push(otherwise)
  }
  const attacking = attacks.reduce((sum, attack) => sum + attack.sent, 0)
  const rejected = [...ledger.rejected.values()].reduce((sum, count) => sum + count, 0)
  expect(
    sent === sealing.sealed + attacking,
    `${sealing.sealed} + ${attacking} records were sent, and ${sent} are there`,
  )
  expect(ledger.entries === sent, `${sent} records are there, and ${ledger.entries} audit entries`)
  expect(
    ledger.admitted + rejected === sent,
    `${sent} records are there; ${ledger.admitted} were admitted and ${rejected} rejected`,
  )
  expect(rejected === quarantined, `${rejected} were rejected, and ${quarantined} are in quarantine`)
  expect(ledger.unreadable === 0, `${ledger.unreadable} records of the audit topic cannot be read`)
  const refused = [...events.rejected.keys()].join(', ')
  expect(!isSound || refused === '', `every event was to be admitted, and some are ${refused}`)
  for (const { name, expected, sent: tried, ended } of attacks) {
    const ends = Array.from(ended, ([end, count]) => `${count} ${end}`).join(', ')
    expect(ended.get(expected) === tried, `attack "${name}": ${tried} were to end as ${expected}: ${ends}`)
  }
  for (const { channel, records, sealed, opened } of deliveries.channels) {
    const written = [...(ledger.outputs.get(channel)?.values() ?? [])].reduce((sum, count) => sum + count, 0)
    expect(records === written, `${channel} holds ${records} records, and the audit speaks of ${written}`)
    expect(opened === sealed, `${channel}: its consumers could open ${opened} of ${sealed} sealed records`)
  }
  expect(audit.verified, `the audit does not verify: ${audit.breaks.length} breaks`)
  expect(audit.headsKnown, 'the heads of the audit are not known')
  expect(
    audit.entries === ledger.entries,
    `${audit.entries} of ${ledger.entries} audit entries are covered by segments`,
  )
  for (const { name, isNamed } of tamperings)
    expect(isNamed, `tampering "${name}" was not found for what it is`)
  return problems
}
