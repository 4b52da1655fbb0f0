/** The whole handler on real Kafka beside handlers of plain kafkajs, and what TLS costs it. */
import { type Invoke, KafkaWorld, type Site } from './kafka-world.ts'
import {
  type Result,
  rounded,
  type Setting,
  type Spread,
  spreadOf,
  spreadText,
  type Table,
} from './measure.ts'

/** Names of the handlers that are measured beside each other. */
const GATE = 'gate'
const TRANSACTION = 'transaction'
const PLAIN = 'plain'
const PLAINTEXT = 'plaintext'

interface Plan {
  readonly slices: readonly number[]
  readonly partitions: readonly number[]
  /** Of each handler in a round, by slice: few, so that rounds are short and what others do to the machine meets all. */
  invocations(slice: number): number
  readonly rounds: number
  /** After so long a row has had enough rounds, unless they are fewer than three. */
  readonly rowMs: number
  /** Where the cost of TLS is asked. */
  readonly tls: { readonly slice: number; readonly partitions: number }
}

const FULL: Plan = {
  slices: [1, 10, 100, 1000],
  partitions: [1, 4],
  invocations: (slice) => (slice < 100 ? 60 : slice < 1000 ? 15 : 3),
  rounds: 15,
  rowMs: 25_000,
  tls: { slice: 100, partitions: 4 },
}

const QUICK: Plan = {
  slices: [1, 10],
  partitions: [1],
  invocations: () => 3,
  rounds: 2,
  rowMs: 1000,
  tls: { slice: 10, partitions: 1 },
}

export interface KafkaRow {
  /** Records of each partition in an event. */
  readonly slice: number
  readonly partitions: number
  readonly eventsPerSecond: number
  /** Of an invocation, milliseconds. */
  readonly p50: number
  readonly p99: number
  readonly cpuMicroseconds: number
  /** Events per second over those of plain kafkajs with a transaction. */
  readonly ratio: number
  readonly ratioSpread: Spread
  /** Events per second of plain kafkajs, and its invocations. */
  readonly transaction: Figures
  readonly plain: Figures
  readonly rounds: number
}

interface Figures {
  readonly eventsPerSecond: number
  readonly p50: number
  readonly p99: number
  /** Processor time of an event in this process, whoever else has the machine meanwhile. */
  readonly cpuMicroseconds: number
}

export async function kafka({ quick }: Setting): Promise<Result> {
  const plan = quick ? QUICK : FULL
  const world = await KafkaWorld.open((line) => console.error(`kafka: ${line}`))
  try {
    const rows: KafkaRow[] = []
    for (const partitions of plan.partitions) {
      const site = await world.site(partitions)
      const handlers = {
        [GATE]: await world.gate(site),
        [TRANSACTION]: await world.transactional(site),
        [PLAIN]: await world.plain(site),
      }
      // Code that has run little is slow, and the first row must not pay for all.
      if (rows.length === 0) await round(site, 10, plan.invocations(10), Object.entries(handlers))
      for (const slice of plan.slices) {
        const timings = await measure(site, slice, plan, handlers)
        rows.push(rowOf(slice, partitions, timings))
      }
      await world.checkNothingQuarantined(site)
    }
    const tls = await tlsCost(world, plan)
    return { table: tableOf(rows, tls), data: { rows, tls } }
  } finally {
    await world.close()
  }
}

interface TlsCost {
  /** Events per second. */
  readonly plaintext: number
  readonly tls: number
  /** Of the events per second without it. */
  readonly costPercent: number
}

async function tlsCost(world: KafkaWorld, plan: Plan): Promise<TlsCost> {
  const { slice, partitions } = plan.tls
  const site = await world.site(partitions)
  const handlers = { [GATE]: await world.gate(site), [PLAINTEXT]: await world.plaintextGate(site) }
  const timings = await measure(site, slice, plan, handlers)
  await world.checkNothingQuarantined(site)
  return {
    plaintext: timings.figures(PLAINTEXT).eventsPerSecond,
    tls: timings.figures(GATE).eventsPerSecond,
    costPercent: rounded((1 - timings.ratio(GATE, PLAINTEXT).median) * 100),
  }
}

/** A handler's part of a round. */
interface Slot {
  /** Milliseconds of each invocation. */
  readonly times: readonly number[]
  /** Processor time of all of them, microseconds. */
  readonly cpu: number
}

/** Rounds, each with its slots by handler. */
class Timings {
  readonly #events: number
  readonly #rounds: ReadonlyMap<string, Slot>[] = []

  /** @param events of an invocation */
  constructor(events: number) {
    this.#events = events
  }

  get rounds(): number {
    return this.#rounds.length
  }

  add(slots: ReadonlyMap<string, Slot>): void {
    this.#rounds.push(slots)
  }

  figures(name: string): Figures {
    const slots = this.#rounds.flatMap((round) => round.get(name) ?? [])
    const all = slots.flatMap(({ times }) => times).sort((a, b) => a - b)
    const at = (share: number): number => all[Math.ceil(all.length * share) - 1] ?? Number.NaN
    const cpu = slots.map((slot) => slot.cpu / (slot.times.length * this.#events))
    return {
      eventsPerSecond: Math.round(spreadOf(slots.map((slot) => this.#speed(slot))).median),
      p50: rounded(at(0.5)),
      p99: rounded(at(0.99)),
      cpuMicroseconds: rounded(spreadOf(cpu).median),
    }
  }

  /** Events per second of one over those of another, in the same round. */
  ratio(name: string, other: string): Spread {
    return spreadOf(this.#rounds.map((round) => this.#speed(round.get(name)) / this.#speed(round.get(other))))
  }

  #speed({ times }: Slot = NO_SLOT): number {
    return (1000 * times.length * this.#events) / times.reduce((sum, time) => sum + time, 0)
  }
}

const NO_SLOT: Slot = { times: [], cpu: 0 }

async function measure(
  site: Site,
  slice: number,
  plan: Plan,
  handlers: Readonly<Record<string, Invoke>>,
): Promise<Timings> {
  const start = performance.now()
  const order = Object.entries(handlers)
  const timings = new Timings(slice * site.partitions)
  // The first opens partitions and connections, and warms up.
  await round(site, slice, plan.invocations(slice), order)
  for (let done = 0; done < plan.rounds; done++) {
    if (done >= 3 && performance.now() - start > plan.rowMs) break
    timings.add(await round(site, slice, plan.invocations(slice), order))
    // A B C, B C A …: what one leaves behind is not always the same other's to clear away.
    order.push(...order.splice(0, 1))
  }
  return timings
}

/** Every handler takes the same events, one after the other, each as soon as it has answered the last. */
async function round(
  site: Site,
  slice: number,
  invocations: number,
  handlers: readonly (readonly [string, Invoke])[],
): Promise<ReadonlyMap<string, Slot>> {
  const events = []
  for (let count = 0; count < invocations; count++) events.push(await site.nextEvent(slice))
  const slots = new Map<string, Slot>()
  for (const [name, invoke] of handlers) {
    const times: number[] = []
    const before = process.cpuUsage()
    for (const event of events) {
      const start = performance.now()
      await invoke(event)
      times.push(performance.now() - start)
    }
    const { user, system } = process.cpuUsage(before)
    slots.set(name, { times, cpu: user + system })
  }
  return slots
}

function rowOf(slice: number, partitions: number, timings: Timings): KafkaRow {
  const ratioSpread = timings.ratio(GATE, TRANSACTION)
  return {
    slice,
    partitions,
    ...timings.figures(GATE),
    ratio: rounded(ratioSpread.median),
    ratioSpread,
    transaction: timings.figures(TRANSACTION),
    plain: timings.figures(PLAIN),
    rounds: timings.rounds,
  }
}

function tableOf(rows: readonly KafkaRow[], tls: TlsCost): Table {
  const times = ({ p50, p99, cpuMicroseconds }: Figures): string[] => [
    `${p50.toFixed(1)} / ${p99.toFixed(1)}`,
    cpuMicroseconds.toFixed(0),
  ]
  return [
    [
      ...['slice', 'partitions', 'events/s', 'p50 / p99, ms', 'CPU, µs', '× with transaction'],
      ...[
        'events/s with transaction',
        'p50 / p99, ms',
        'CPU, µs',
        'events/s without',
        'p50 / p99, ms',
        'CPU, µs',
      ],
    ],
    ...rows.map((row) => [
      ...[String(row.slice), String(row.partitions), String(row.eventsPerSecond), ...times(row)],
      spreadText(row.ratioSpread),
      ...[String(row.transaction.eventsPerSecond), ...times(row.transaction)],
      ...[String(row.plain.eventsPerSecond), ...times(row.plain)],
    ]),
    [`TLS: ${tls.tls} events/s with, ${tls.plaintext} without: ${tls.costPercent.toFixed(1)} %`],
  ]
}
