/**
 * One lane for each channel and partition: what is given to it is done one group after the other, in the order in which
 * it came. What comes while a group is under way waits, and is then done together: one signature, one delivery.
 */

/** Something to be done in a lane: how many events, of how many bytes. */
export interface Load {
  readonly bytes: number
  readonly count: number
}

export interface LaneLimits {
  /** Bounds of a group; a larger load goes by itself. */
  readonly groupBytes: number
  readonly groupCount: number
}

/** Does a group and settles each of its loads. Must not reject: the lane would stand still. */
export type Work<L> = (group: readonly L[]) => Promise<void>

export class Lane<L extends Load> {
  readonly #work: Work<L>
  readonly #limits: LaneLimits
  #waiting: L[] = []
  #running: Promise<void> | undefined

  constructor(limits: LaneLimits, work: Work<L>) {
    this.#limits = limits
    this.#work = work
  }

  add(load: L): void {
    this.#waiting.push(load)
    this.#running ??= this.#run()
  }

  /** Resolves once nothing waits or is under way. */
  async idle(): Promise<void> {
    await this.#running
  }

  async #run(): Promise<void> {
    // Not at once: the loads of one turn of the event loop belong together.
    await Promise.resolve()
    let waiting = this.#take()
    while (waiting.length > 0) {
      for (const group of cutIntoGroups(waiting, (load) => load, this.#limits)) await this.#work(group)
      waiting = this.#take()
    }
    this.#running = undefined
  }

  #take(): readonly L[] {
    const taken = this.#waiting
    this.#waiting = []
    return taken
  }
}

/** Cuts a row into groups within the limits; what is larger alone goes alone. */
export function cutIntoGroups<T>(items: Iterable<T>, loadOf: (item: T) => Load, limits: LaneLimits): T[][] {
  const groups: T[][] = []
  let group: T[] = []
  let total = { bytes: 0, count: 0 }
  for (const item of items) {
    const load = loadOf(item)
    total = { bytes: total.bytes + load.bytes, count: total.count + load.count }
    if (group.length === 0 || total.bytes > limits.groupBytes || total.count > limits.groupCount) {
      group = []
      groups.push(group)
      total = load
    }
    group.push(item)
  }
  return groups
}
