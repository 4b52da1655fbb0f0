/**
 * Verification of an audit topic or a copy of it (audit.md §4). It trusts the pinned keys and, where they are known, the
 * heads in the positions; nothing else. It reads once, in linear time, and keeps the open slice of each source partition.
 */
import type { PublicKey } from '../envelope/crypto.ts'
import { leafHash } from '../envelope/merkle.ts'
import { type AuditPlace, type BreakKind, Chain, type ChainBreak } from './chain.ts'
import { placeOf, recordOf } from './entry.ts'
import { type AuditHead, isSegment, parseSegment, segmentKey, verifySegment } from './segment.ts'

/** A record of the audit topic. */
export interface AuditRecord {
  readonly offset: bigint
  readonly key: Uint8Array | null
  readonly value: Uint8Array | null
}

/** Where audit records come from: the topic, or an archive of it. Errors: `Outage`. */
export interface AuditSource {
  partitions(): Promise<number>
  /** Committed records only, in offset order, to the end as it is when reading begins. */
  read(partition: number): AsyncIterable<AuditRecord>
  /**
   * From an offset on, to the end with what open transactions hide. A transaction ends in each partition on its own: the
   * heads may know of segments that `read` does not see yet. `Outage` where one does not end in time.
   */
  readOn?(partition: number, from: bigint): AsyncIterable<AuditRecord>
  /** The heads in the positions, by `topic/partition`; absent or undefined where the source does not know them. */
  heads?(): Promise<ReadonlyMap<string, AuditHead> | undefined>
}

export interface VerificationOptions {
  /** The pinned key of a kid; undefined where it is not pinned. */
  readonly keyOf: (kid: Uint8Array) => PublicKey | undefined
  /** Seconds since 1970, [from, to), by the segments' times. All is read; what lies wholly outside is not reported. */
  readonly from?: number
  readonly to?: number
  /** Called now and then with the records read so far. */
  readonly onProgress?: (records: number) => void
}

/** A break, with the source partition it belongs to; null where the record does not tell. */
export interface AuditBreak extends Omit<ChainBreak, 'since' | 'until'> {
  readonly topic: string | null
  readonly partition: number | null
}

/** What was verified of one source partition: from its first good segment to its last, but for the breaks. */
export interface VerifiedRange {
  readonly topic: string
  readonly partition: number
  /** Source offsets, [from, next); both 0 where no segment was good. */
  readonly from: bigint
  readonly next: bigint
  readonly segments: number
  readonly entries: number
  /** Producers' numbers that never came, so far as segments say. */
  readonly unseen: number
  readonly breaks: number
}

export interface VerificationReport {
  /** No break was found. */
  readonly verified: boolean
  /** Whether every chain's head was known: without it nobody can see a cut at the end. */
  readonly headsKnown: boolean
  /** Chains that were found and whose heads were not, at most `MAX_BREAKS`. */
  readonly headless: readonly string[]
  /** Entries and segments that hold. */
  readonly entries: number
  readonly segments: number
  readonly ranges: readonly VerifiedRange[]
  /** At most `MAX_BREAKS`. */
  readonly breaks: readonly AuditBreak[]
  readonly breaksOmitted: number
}

export const MAX_BREAKS = 1_000

const PROGRESS_EVERY = 10_000

/** Reads all of it and reports. Rejects only with what the source rejects with. */
export async function verifyAudit(
  source: AuditSource,
  options: VerificationOptions,
): Promise<VerificationReport> {
  // The heads first: what is committed while we read may be beyond them, never behind.
  const heads = await source.heads?.()
  const verification = new Verification(options, heads)
  const nexts = Array.from({ length: await source.partitions() }, () => 0n)
  let records = 0
  const take = async (partition: number, read: AsyncIterable<AuditRecord>): Promise<void> => {
    for await (const record of read) {
      verification.add(partition, record)
      nexts[partition] = record.offset + 1n
      if (++records % PROGRESS_EVERY === 0) options.onProgress?.(records)
    }
  }
  for (const partition of nexts.keys()) await take(partition, source.read(partition))
  // Only where it matters: what is written now stands before the heads were read, or it is not there.
  if (source.readOn !== undefined && verification.isShort())
    for (const [partition, next] of nexts.entries()) await take(partition, source.readOn(partition, next))
  options.onProgress?.(records)
  return verification.report()
}

interface Tracked {
  readonly chain: Chain
  readonly range: { -readonly [Field in keyof VerifiedRange]: VerifiedRange[Field] }
}

class Verification {
  readonly #options: VerificationOptions
  readonly #heads: ReadonlyMap<string, AuditHead> | undefined
  readonly #chains = new Map<string, Tracked>()
  readonly #breaks: AuditBreak[] = []
  #breakCount = 0

  constructor(options: VerificationOptions, heads: ReadonlyMap<string, AuditHead> | undefined) {
    this.#options = options
    this.#heads = heads
    for (const name of heads?.keys() ?? []) this.#chainOf(name)
  }

  /** The next record of an audit partition. */
  add(auditPartition: number, record: AuditRecord): void {
    const at = { auditPartition, auditOffset: record.offset }
    const key = record.key === null ? undefined : Buffer.from(record.key).toString()
    const { value } = record
    if (value !== null && isSegment(value)) this.#segment(key, value, at)
    else this.#entry(key, value, at)
  }

  /** Whether a head names a segment that has not come. */
  isShort(): boolean {
    return [...this.#chains.values()].some(({ chain }) => chain.isShort())
  }

  report(): VerificationReport {
    for (const { chain } of this.#chains.values()) chain.end()
    const ranges = Array.from(this.#chains.values(), ({ range }) => range)
    const headless = [...this.#chains.keys()].filter((name) => this.#heads?.has(name) !== true)
    return {
      verified: this.#breakCount === 0,
      headsKnown: this.#heads !== undefined && headless.length === 0,
      headless: headless.slice(0, MAX_BREAKS),
      entries: ranges.reduce((sum, { entries }) => sum + entries, 0),
      segments: ranges.reduce((sum, { segments }) => sum + segments, 0),
      ranges: ranges.filter(({ segments, breaks }) => segments + breaks > 0),
      breaks: this.#breaks,
      breaksOmitted: this.#breakCount - this.#breaks.length,
    }
  }

  #segment(key: string | undefined, value: Uint8Array, at: AuditPlace): void {
    const segment = parseSegment(value)
    if (segment === undefined) {
      this.#suspect([key], 'altered', at, 'a segment that does not parse')
      return
    }
    const name = segmentKey(segment)
    const trusted = this.#options.keyOf(segment.kid)
    if (trusted === undefined) {
      const kid = Buffer.from(segment.kid).toString('base64url')
      this.#suspect([key, name], 'signed by an unknown key', at, `segment ${segment.sequence}, kid ${kid}`)
    } else if (!verifySegment(segment, trusted)) {
      this.#suspect([key, name], 'altered', at, `the signature of segment ${segment.sequence} does not hold`)
    } else {
      // Signed: its own name counts, whatever the record's key says.
      if (key !== name) this.#suspect([name], 'altered', at, `the key of segment ${segment.sequence}`)
      this.#chainOf(name)?.segment(segment, at)
    }
  }

  #entry(key: string | undefined, value: Uint8Array | null, at: AuditPlace): void {
    const record = value === null ? undefined : recordOf(value)
    const place = record === undefined ? undefined : placeOf(record)
    if (value === null || record === undefined || place === undefined) {
      this.#suspect([key], 'altered', at, 'neither an entry nor a segment')
      return
    }
    const chain = this.#chainOf(segmentKey(place))
    if (key !== record) {
      const reported = this.#suspect([key, record], 'altered', at, `the entry of ${record}, or its key`)
      if (reported !== chain) chain?.excuse()
    }
    chain?.entry(place.offset, leafHash(value), at, key !== record)
  }

  /** Reports a bad record with the first chain that one of these keys names, or with none. */
  #suspect(
    keys: readonly (string | undefined)[],
    kind: BreakKind,
    at: AuditPlace,
    detail: string,
  ): Chain | undefined {
    for (const key of keys) {
      const place = key === undefined ? null : RECORD_KEY.exec(key)
      const chain = this.#chainOf(place?.[1] ?? '')
      if (chain === undefined) continue
      const offset = place?.[2] === undefined ? null : BigInt(place[2])
      chain.suspect(kind, at, detail, offset, offset === null ? null : offset + 1n)
      return chain
    }
    const unplaced = { kind, at, detail, from: null, next: null, topic: null, partition: null }
    this.#broken(unplaced, -Infinity, Infinity)
    return undefined
  }

  /** The chain of `topic/partition`; undefined where that is no such name. */
  #chainOf(name: string): Chain | undefined {
    const known = this.#chains.get(name)
    if (known !== undefined) return known.chain
    const place = placeOf(`${name}/0`)
    if (place === undefined) return undefined
    const { topic, partition } = place
    const range = { topic, partition, from: 0n, next: 0n, segments: 0, entries: 0, unseen: 0, breaks: 0 }
    const chain = new Chain(this.#heads?.get(name), {
      settled: (segment) => {
        if (!this.#isWithin(segment.time, segment.time)) return
        if (range.segments === 0 || segment.from < range.from) range.from = segment.from
        if (segment.next > range.next) range.next = segment.next
        range.segments += 1
        range.entries += segment.count
        range.unseen += segment.unseen
      },
      broken: ({ since, until, ...found }) => {
        if (this.#broken({ ...found, topic, partition }, since, until)) range.breaks += 1
      },
    })
    this.#chains.set(name, { chain, range })
    return chain
  }

  /** Takes a break down unless it lies outside the times asked for. */
  #broken(found: AuditBreak, since: number, until: number): boolean {
    if (!this.#isWithin(since, until)) return false
    this.#breakCount += 1
    if (this.#breaks.length < MAX_BREAKS) this.#breaks.push(found)
    return true
  }

  #isWithin(since: number, until: number): boolean {
    const { from = -Infinity, to = Infinity } = this.#options
    return until >= from && since < to
  }
}

/** A record's key, of a segment or with an offset of an entry. */
const RECORD_KEY = /^([^/]+\/[0-9]+)(?:\/([0-9]{1,19}))?$/
