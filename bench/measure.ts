/**
 * Arms run interleaved, A B A B …, in one process; what counts is the ratio of two arms within one round. Machines are
 * shared: a number by itself says little, the median of ratios says much.
 */

import { setImmediate } from 'node:timers/promises'

/** One thing that is measured. */
export interface Arm {
  readonly name: string
  /** Events that one `run` deals with. */
  readonly events: number
  readonly run: () => unknown
}

/** What we are measured beside: events of 1 KiB, each awaited before the next, keys imported and caches warm. */
export interface Peer {
  readonly name: string
  /** Verifies, decrypts and parses. */
  readonly opening: Arm
  /** Encrypts and signs. */
  readonly sealing: Arm
}

/** How long to measure. */
export interface Effort {
  readonly rounds: number
  /** Each arm's share of a round, milliseconds. */
  readonly slotMs: number
  readonly warmUpMs: number
}

export const FULL: Effort = { rounds: 15, slotMs: 200, warmUpMs: 2000 }
/** For tests: shows that it runs, not how fast. */
export const QUICK: Effort = { rounds: 3, slotMs: 10, warmUpMs: 20 }

/** What a benchmark is told. */
export interface Setting {
  readonly effort: Effort
  readonly quick: boolean
  /** None where a quick run finds none installed. */
  readonly peers: () => Promise<readonly Peer[]>
}

/** What a benchmark finds: `table` for people, `data` for programs. */
export interface Result {
  readonly table: Table
  readonly data: Readonly<Record<string, unknown>>
}

/** Rows of cells, the first of them the heads. */
export type Table = readonly (readonly string[])[]

export function tableText(table: Table): string {
  const widths = (table[0] ?? []).map((_, column) =>
    Math.max(...table.map((row) => (row[column] ?? '').length)),
  )
  const line = (row: readonly string[]): string =>
    row
      .map((cell, column) =>
        column === 0 ? cell.padEnd(widths[0] ?? 0) : cell.padStart(widths[column] ?? 0),
      )
      .join('  ')
  return table.map(line).join('\n')
}

/** A median with the quartiles around it. */
export interface Spread {
  readonly median: number
  readonly low: number
  readonly high: number
}

/** Microseconds per event of each arm in each round. */
export class Timings {
  readonly #rows: ReadonlyMap<string, readonly number[]>

  constructor(rows: ReadonlyMap<string, readonly number[]>) {
    this.#rows = rows
  }

  microseconds(arm: string): Spread {
    return spreadOf(this.#of(arm))
  }

  eventsPerSecond(arm: string): Spread {
    return spreadOf(this.#of(arm).map((microseconds) => 1e6 / microseconds))
  }

  /** Time of `arm` over time of `other`, in the same round. */
  ratio(arm: string, other: string): Spread {
    const others = this.#of(other)
    return spreadOf(this.#of(arm).map((microseconds, round) => microseconds / (others[round] ?? Number.NaN)))
  }

  #of(arm: string): readonly number[] {
    const row = this.#rows.get(arm)
    if (row === undefined) throw new TypeError(`nothing was measured as ${arm}`)
    return row
  }
}

/** Warms all arms up, then gives each its slot in every round. */
export async function measure(arms: readonly Arm[], effort: Effort): Promise<Timings> {
  for (const arm of arms) await perEvent(arm, effort.warmUpMs)
  const rows = new Map(arms.map((arm) => [arm.name, new Array<number>()]))
  for (let round = 0; round < effort.rounds; round++) {
    for (const arm of arms) rows.get(arm.name)?.push(await perEvent(arm, effort.slotMs))
  }
  return new Timings(rows)
}

/** Runs until the time is over, at least once. */
async function perEvent(arm: Arm, milliseconds: number): Promise<number> {
  const start = performance.now()
  let now = start
  let events = 0
  while (now < start + milliseconds || events === 0) {
    await arm.run()
    // As between two slices: what the event loop has to tidy away is part of the cost.
    await setImmediate()
    events += arm.events
    now = performance.now()
  }
  return ((now - start) * 1000) / events
}

export function spreadOf(values: readonly number[]): Spread {
  const sorted = values.toSorted((a, b) => a - b)
  const at = (share: number): number => sorted[Math.round((sorted.length - 1) * share)] ?? Number.NaN
  return { median: at(0.5), low: at(0.25), high: at(0.75) }
}

/** `1.52 [1.47 – 1.60]` */
export function spreadText({ median, low, high }: Spread, digits = 2): string {
  return `${median.toFixed(digits)} [${low.toFixed(digits)} – ${high.toFixed(digits)}]`
}

export const rounded = (value: number): number => Math.round(value * 1000) / 1000
