/** Keeps producers to the contracts' `perSecond` (docs/contracts.md): what is sent faster, the gate rejects as `over-limit`. */

/** An event on its way, as far as the limit asks. */
export interface Paced {
  readonly iss: string
  readonly type: string
  readonly channel: string
  readonly partition: number
  /** The contract's limit; undefined where it has none. */
  readonly perSecond: number | undefined
}

/**
 * Counts events a second for each issuer, type, channel and partition, by the log's clock in milliseconds. A round is what
 * is sent together: `begin`, `allows` for each event, and `appended` once all of it is in the log.
 */
export class Pace {
  #second = 0
  #counts = new Map<string, number>()
  #round = new Map<string, number>()

  begin(now: number): void {
    this.#turnTo(Math.floor(now / 1000), new Map())
    this.#round = new Map()
  }

  /** Counts it, where it may go in this second. */
  allows({ iss, type, channel, partition, perSecond }: Paced): boolean {
    if (perSecond === undefined) return true
    const name = JSON.stringify([iss, type, channel, partition])
    const count = this.#counts.get(name) ?? 0
    if (count >= perSecond) return false
    this.#counts.set(name, count + 1)
    this.#round.set(name, (this.#round.get(name) ?? 0) + 1)
    return true
  }

  /** The round has reached the log, at this time at the latest: it counts for the second that it ended in. */
  appended(now: number): void {
    this.#turnTo(Math.floor(now / 1000), this.#round)
  }

  #turnTo(second: number, counts: Map<string, number>): void {
    if (second === this.#second) return
    this.#second = second
    this.#counts = counts
  }
}

/** Milliseconds from `now` until the next second has begun. */
export function untilNextSecond(now: number): number {
  return 1001 - (now % 1000)
}
