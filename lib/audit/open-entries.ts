/**
 * The entries of one source partition that no segment covers yet (audit.md §4), kept by offset. Whoever holds the audit
 * topic's disk chooses how many there are and which segments come beside them, so a segment must cost no more than the
 * entries that it takes away, however many stay.
 */
import type { AuditPlace } from './chain.ts'

export interface OpenEntry {
  /** In the source partition. */
  readonly offset: bigint
  readonly leaf: Uint8Array
  readonly at: AuditPlace
  /** Counts the chain's records: no two entries have the same, and a later one has a higher. */
  readonly arrival: number
  /** It has been reported already. */
  readonly suspect: boolean
}

/** Entries that are kept together at most: what is put between others moves no more than these. */
const MAX_CHUNK = 512

export class OpenEntries {
  /** None is empty; over all of them, by offset, then arrival. */
  readonly #chunks: OpenEntry[][] = []
  /** Those that `nameEarly` has not named, by arrival. */
  readonly #fresh = new Set<OpenEntry>()
  #size = 0

  get size(): number {
    return this.#size
  }

  /** All of them, by offset, then arrival. */
  list(): OpenEntry[] {
    return this.#chunks.flat()
  }

  /** Its arrival is after that of all here. */
  add(entry: OpenEntry): void {
    this.#size += 1
    this.#fresh.add(entry)
    const above = entry.offset + 1n
    const index = Math.min(this.#chunkOf(above), this.#chunks.length - 1)
    const chunk = this.#chunks[index]
    if (chunk === undefined) {
      this.#chunks.push([entry])
      return
    }
    chunk.splice(placeIn(chunk, above), 0, entry)
    if (chunk.length > MAX_CHUNK) this.#chunks.splice(index + 1, 0, chunk.splice(MAX_CHUNK / 2))
  }

  /** How many have source offsets in [from, next). */
  count(from: bigint, next: bigint): number {
    let count = 0
    for (let index = this.#chunkOf(from); index < this.#chunks.length; index++) {
      const chunk = this.#chunks[index]
      if (chunk?.[0] === undefined || chunk[0].offset >= next) break
      count += placeIn(chunk, next) - placeIn(chunk, from)
    }
    return count
  }

  /** Removes those with source offsets in [from, next), and gives them by offset, then arrival. */
  take(from: bigint, next: bigint): OpenEntry[] {
    const taken: OpenEntry[] = []
    let index = this.#chunkOf(from)
    while (index < this.#chunks.length) {
      const chunk = this.#chunks[index]
      if (chunk?.[0] === undefined || chunk[0].offset >= next) break
      const first = placeIn(chunk, from)
      taken.push(...chunk.splice(first, Math.max(0, placeIn(chunk, next) - first)))
      if (chunk.length === 0) this.#chunks.splice(index, 1)
      else index += 1
    }
    for (const entry of taken) this.#fresh.delete(entry)
    this.#size -= taken.length
    return taken
  }

  /** Those that came before this arrival, by arrival; each is named once, and stays. */
  nameEarly(arrival: number): OpenEntry[] {
    const early: OpenEntry[] = []
    for (const entry of this.#fresh) {
      if (entry.arrival >= arrival) break
      early.push(entry)
      this.#fresh.delete(entry)
    }
    return early
  }

  /** The first chunk that does not end below this offset. */
  #chunkOf(offset: bigint): number {
    return firstIndex(this.#chunks, (chunk) => (chunk.at(-1)?.offset ?? 0n) >= offset)
  }
}

/** Where the first of these stands that is not below this offset. */
const placeIn = (chunk: readonly OpenEntry[], offset: bigint): number =>
  firstIndex(chunk, (entry) => entry.offset >= offset)

/** The first index that this holds for, as it does for all behind; the length where it holds for none. */
function firstIndex<Item>(items: readonly Item[], holds: (item: Item) => boolean): number {
  let low = 0
  let high = items.length
  while (low < high) {
    const middle = (low + high) >>> 1
    const item = items[middle]
    if (item !== undefined && !holds(item)) low = middle + 1
    else high = middle
  }
  return low
}
