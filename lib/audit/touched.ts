/**
 * What a signing key touched (keys.md §3), from the audit: where its records came in, what became of them, and where it went.
 * What it is proven to have signed is kept apart from what merely names it, which anyone can write. It finds; it does not verify.
 */
import type { RejectionCode } from '../errors.ts'
import { type AdmittedEntry, parseEntry, provenEvent, type RecordPlace, type RejectedEntry } from './entry.ts'
import { segmentKey } from './segment.ts'
import type { AuditSource } from './verification.ts'

export interface TouchedQuery {
  /** base64url, as in the key directory. */
  readonly kid: string
  /** When it was decided, milliseconds since 1970, [since, until). */
  readonly sinceMs?: number
  readonly untilMs?: number
}

/** Offsets [from, next). */
export interface OffsetRange {
  readonly from: bigint
  readonly next: bigint
}

export interface Tally {
  readonly admitted: number
  readonly rejected: ReadonlyMap<RejectionCode, number>
  /** Source offsets, rising. */
  readonly ranges: readonly OffsetRange[]
  /** Whether records of others lie within the ranges, since there would have been too many to tell apart. */
  readonly isCoarse: boolean
  /** When they were decided, milliseconds since 1970. */
  readonly firstMs: number
  readonly lastMs: number
}

export interface TouchedPlace {
  readonly topic: string
  readonly partition: number
  /** Records whose signature by this key held. */
  readonly proven: Tally | undefined
  /** Records that named this key and were refused before their signature was looked at, or because it did not hold. */
  readonly claimed: Tally | undefined
}

export interface Touched {
  /** By source topic and partition. */
  readonly places: readonly TouchedPlace[]
  /** Entries of further partitions than are kept. */
  readonly omitted: number
  /** Where admitted records went, and how many; beyond `MAX_CHANNELS` under `(others)`. */
  readonly channels: ReadonlyMap<string, number>
  /** Entries that were looked at. */
  readonly searched: number
}

export const MAX_RANGES = 1000
const MAX_PLACES = 10_000
const MAX_CHANNELS = 1000
const PROGRESS_EVERY = 10_000

/** Reads all of the audit, in memory that does not grow with it. Rejects with what the source rejects with. */
export async function touchedBy(
  source: AuditSource,
  { kid, sinceMs = -Infinity, untilMs = Infinity }: TouchedQuery,
  onProgress?: (records: number) => void,
): Promise<Touched> {
  const places = new Map<string, { place: RecordPlace; proven?: Tallying; claimed?: Tallying }>()
  const channels = new Map<string, number>()
  const counts = { searched: 0, omitted: 0 }
  const wanted = Buffer.from(kid, 'base64url')
  const add = (entry: AdmittedEntry | RejectedEntry): void => {
    const place = entry.redriven?.source ?? entry
    const name = segmentKey(place)
    const known = places.get(name) ?? { place }
    if (!places.has(name) && places.size >= MAX_PLACES) {
      counts.omitted += 1
      return
    }
    places.set(name, known)
    const tally =
      provenEvent(entry) === null ? (known.claimed ??= new Tallying()) : (known.proven ??= new Tallying())
    tally.add(entry, place.offset)
    if (entry.kind === 'event.rejected') return
    for (const { channel } of entry.outputs) {
      const key = channels.has(channel) || channels.size < MAX_CHANNELS ? channel : '(others)'
      channels.set(key, (channels.get(key) ?? 0) + 1)
    }
  }
  let records = 0
  const partitions = await source.partitions()
  for (let partition = 0; partition < partitions; partition++) {
    for await (const { value } of source.read(partition)) {
      if (++records % PROGRESS_EVERY === 0) onProgress?.(records)
      const entry = value === null ? undefined : parseEntry(value)
      if (entry === undefined) continue
      counts.searched += 1
      if (entry.timeMs < sinceMs || entry.timeMs >= untilMs) continue
      if (entry.kind !== 'event.admitted' && entry.kind !== 'event.rejected') continue
      if (entry.event !== null && wanted.equals(entry.event.kid)) add(entry)
    }
  }
  onProgress?.(records)
  const found = Array.from(places.values(), ({ place: { topic, partition }, proven, claimed }) => {
    return { topic, partition, proven: proven?.tally(), claimed: claimed?.tally() }
  })
  found.sort((a, b) => (a.topic === b.topic ? a.partition - b.partition : a.topic < b.topic ? -1 : 1))
  return { places: found, channels, ...counts }
}

class Tallying {
  readonly #ranges = new OffsetRanges()
  readonly #rejected = new Map<RejectionCode, number>()
  #admitted = 0
  #firstMs = Infinity
  #lastMs = -Infinity

  add(entry: AdmittedEntry | RejectedEntry, offset: bigint): void {
    this.#ranges.add(offset)
    this.#firstMs = Math.min(this.#firstMs, entry.timeMs)
    this.#lastMs = Math.max(this.#lastMs, entry.timeMs)
    if (entry.kind === 'event.admitted') this.#admitted += 1
    else this.#rejected.set(entry.code, (this.#rejected.get(entry.code) ?? 0) + 1)
  }

  tally(): Tally {
    return {
      ...{ admitted: this.#admitted, rejected: this.#rejected, firstMs: this.#firstMs, lastMs: this.#lastMs },
      ranges: this.#ranges.list(),
      isCoarse: this.#ranges.isCoarse,
    }
  }
}

/** Offsets as ranges; where there are more than `MAX_RANGES`, those that lie closest are taken for one. */
export class OffsetRanges {
  #ranges: { from: bigint; next: bigint }[] = []
  /** Others between two ranges that are taken for one, at most. */
  #slack = 0n

  get isCoarse(): boolean {
    return this.#slack > 0n
  }

  /** They mostly come rising. */
  add(offset: bigint): void {
    const at = this.#indexFrom(offset)
    const [before, after] = [this.#ranges[at - 1], this.#ranges[at]]
    if (before !== undefined && offset < before.next) return
    const joinsBefore = before !== undefined && offset - before.next <= this.#slack
    const joinsAfter = after !== undefined && after.from - offset - 1n <= this.#slack
    if (joinsBefore && joinsAfter) {
      before.next = after.next
      this.#ranges.splice(at, 1)
    } else if (joinsBefore) before.next = offset + 1n
    else if (joinsAfter) after.from = offset
    else this.#ranges.splice(at, 0, { from: offset, next: offset + 1n })
    if (this.#ranges.length > MAX_RANGES) this.#coarsen()
  }

  list(): readonly OffsetRange[] {
    return this.#ranges
  }

  /** The first range that begins beyond an offset. */
  #indexFrom(offset: bigint): number {
    let [low, high] = [0, this.#ranges.length]
    while (low < high) {
      const middle = (low + high) >> 1
      if ((this.#ranges[middle]?.from ?? 0n) > offset) high = middle
      else low = middle + 1
    }
    return low
  }

  /** Down to half of them, so that it is seldom done. */
  #coarsen(): void {
    while (this.#ranges.length > MAX_RANGES / 2) {
      this.#slack = this.#slack === 0n ? 1n : this.#slack * 2n
      const joined: { from: bigint; next: bigint }[] = []
      for (const range of this.#ranges) {
        const last = joined.at(-1)
        if (last !== undefined && range.from - last.next <= this.#slack) last.next = range.next
        else joined.push(range)
      }
      this.#ranges = joined
    }
  }
}
