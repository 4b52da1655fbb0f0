/**
 * One source partition's chain of slices, followed record by record (audit.md §2, §4). As long as everything stands as
 * the gateway wrote it, a segment is settled when it comes, and only the open slice's entries are kept. Where something
 * does not fit, a few segments more are waited for, so that what was moved can be told from what is gone.
 */
import { compareBytes } from '../cbor.ts'
import { treeRoot } from '../envelope/merkle.ts'
import { OpenEntries, type OpenEntry } from './open-entries.ts'
import { type AuditHead, FIRST_HEAD, type Segment } from './segment.ts'

export type BreakKind =
  'altered' | 'missing' | 'reordered' | 'cut at the end' | 'forked' | 'signed by an unknown key'

/** A place on the audit topic. */
export interface AuditPlace {
  readonly auditPartition: number
  readonly auditOffset: bigint
}

/** Something that is not as the gateway wrote it. Times in seconds since 1970: it lies between two good segments. */
export interface ChainBreak {
  readonly kind: BreakKind
  /** Where it shows on the audit topic; null where nothing is there to show it. */
  readonly at: AuditPlace | null
  /** The source offsets concerned, [from, next); null where that is not known. */
  readonly from: bigint | null
  readonly next: bigint | null
  readonly detail: string
  /** Of the last good segment before it; −∞ where there is none. */
  readonly since: number
  /** Of the first good segment after it; ∞ where there is none. */
  readonly until: number
}

/** What a chain tells as it goes. */
export interface ChainObserver {
  /** A segment is in its place in the chain, and so is every entry that it covers. */
  settled(segment: Segment): void
  broken(found: ChainBreak): void
}

interface HeldSegment {
  readonly segment: Segment
  readonly at: AuditPlace
  readonly arrival: number
}

interface Head extends AuditHead {
  /** Where the next segment's offsets begin; undefined before the first. */
  readonly next: bigint | undefined
  readonly epoch: number
  readonly time: number
  readonly deployment: string | undefined
  readonly auditPartition: number | undefined
  readonly arrival: number
}

/** How many segments are waited for before something counts as missing. */
const MAX_HELD = 8
/** Entries kept that no segment covers yet; a slice has some thousands at most (900,000 bytes). */
const MAX_OPEN = 65_536
/** Segments remembered, to tell a copy from a fork. */
const MAX_RECENT = 1_024
/** Breaks kept until the time of the next good segment is known. */
const MAX_PENDING = 256

export class Chain {
  readonly #expected: AuditHead | undefined
  readonly #observer: ChainObserver
  readonly #recent = new Map<number, Uint8Array>()
  #head: Head
  #open = new OpenEntries()
  #held: HeldSegment[] = []
  #pending: Omit<ChainBreak, 'until'>[] = []
  #arrivals = 0
  /** When records came that are bad by themselves, since the last good segment: each explains one that is lacking there. */
  #suspects: number[] = []

  /** `expected` is the head in the partition's position, where it is known: it shows a cut at the end. */
  constructor(expected: AuditHead | undefined, observer: ChainObserver) {
    this.#expected = expected
    this.#observer = observer
    this.#head = {
      ...FIRST_HEAD,
      next: undefined,
      epoch: 0,
      time: -Infinity,
      deployment: undefined,
      auditPartition: undefined,
      arrival: -1,
    }
  }

  /** An entry's record; `suspect` where something about it was reported already. */
  entry(offset: bigint, leaf: Uint8Array, at: AuditPlace, suspect: boolean): void {
    this.#open.add({ offset, leaf, at, arrival: this.#arrivals++, suspect })
    if (this.#open.size <= MAX_OPEN) return
    if (this.#held.length > 0) {
      this.#settle()
      // As after any settling: those that stay would be gone through again by the next.
      this.#suspects = []
    }
    if (this.#open.size > MAX_OPEN) this.#dropOpen('missing', 'no segment closes them')
  }

  /** A record of this chain that is bad by itself. */
  suspect(kind: BreakKind, at: AuditPlace, detail: string, from: bigint | null, next: bigint | null): void {
    this.excuse()
    this.#report(kind, at, detail, from, next)
  }

  /** A record that is bad by itself, reported with another chain, may be what is missing here. */
  excuse(): void {
    this.#suspects.push(this.#arrivals++)
    if (this.#suspects.length > MAX_OPEN) this.#suspects.splice(0, MAX_OPEN / 2)
  }

  /** A segment whose signature by a trusted key holds. */
  segment(segment: Segment, at: AuditPlace): void {
    const held = { segment, at, arrival: this.#arrivals++ }
    if (this.#head.deployment !== undefined && segment.deployment !== this.#head.deployment) {
      this.excuse()
      this.#breakAt(
        'forked',
        held,
        `segment ${segment.sequence} is of another deployment, ${segment.deployment}`,
      )
    } else if (segment.sequence <= this.#head.sequence) {
      this.#old(held)
    } else if (this.#held.length === 0 && this.#fits(held)) {
      this.#open = new OpenEntries()
      this.#advance(held, true)
      this.#suspects = []
    } else {
      this.#held.push(held)
      if (this.#held.length < MAX_HELD && !this.#isComplete()) return
      this.#settle()
      this.#suspects = []
      this.#flush(this.#head.time)
    }
  }

  /** Whether the position names a segment that has not come, or not in its place. */
  isShort(): boolean {
    return (this.#expected?.sequence ?? 0) > this.#head.sequence
  }

  /** Nothing more comes. */
  end(): void {
    this.#settle()
    const suspects = this.#suspects.length
    const expected = this.#expected?.sequence ?? 0
    const lacking = expected - this.#head.sequence
    if (lacking > 0 && this.#unexplained(lacking, this.#head.arrival, Infinity) > 0) {
      const detail = `the position names segment ${expected}; the chain ends at ${this.#head.sequence}`
      this.#report('cut at the end', null, detail, this.#head.next ?? null, null)
    } else if (suspects === 0 && this.#open.size > 0) {
      if (lacking === 0 && expected > 0) this.#dropOpen('altered', 'added after the last segment')
      else this.#dropOpen('cut at the end', 'the segment that closes them is not there')
    }
    this.#flush(Infinity)
  }

  /** Whether everything is in its place: link, offsets, entries and their order. */
  #fits(held: HeldSegment): boolean {
    const { segment, at } = held
    if (segment.sequence !== this.#head.sequence + 1 || !this.#links(segment) || !this.#tiles(segment))
      return false
    if (at.auditPartition !== (this.#head.auditPartition ?? at.auditPartition)) return false
    if (this.#open.size !== segment.count) return false
    const own = this.#open.list()
    let before = { offset: segment.from - 1n, arrival: -1 }
    for (const entry of own) {
      if (entry.offset <= before.offset || entry.offset >= segment.next) return false
      if (entry.arrival < before.arrival || entry.at.auditPartition !== at.auditPartition) return false
      before = entry
    }
    return isCovered(segment, own)
  }

  #links(segment: Segment): boolean {
    return compareBytes(segment.previous, this.#head.hash) === 0
  }

  /** A higher epoch is a reprocessing on purpose: it begins at any offset, in the same chain. */
  #tiles({ from, epoch }: Segment): boolean {
    const { next, epoch: before } = this.#head
    return next === undefined || (epoch === before && from === next) || epoch > before
  }

  /** Whether waiting would not tell more: no segment is lacking before those held, and none of them lacks entries. */
  #isComplete(): boolean {
    let sequence = this.#head.sequence
    for (const { segment } of this.#held.toSorted(bySequence)) {
      if (segment.sequence > sequence + 1) return false
      sequence = segment.sequence
      if (this.#open.count(segment.from, segment.next) < segment.count) return false
    }
    return true
  }

  /** Links the segments held, in the order of their sequence, and says of everything that does not fit what it is. */
  #settle(): void {
    const held = this.#held.sort(bySequence)
    // What was reported while these waited lies anywhere among them.
    const waiting = this.#pending
    this.#held = []
    this.#pending = []
    let latest = -1
    for (const one of held) {
      if (one.segment.sequence <= this.#head.sequence) {
        this.#old(one)
        continue
      }
      this.#link(one)
      const moved = one.arrival < latest
      if (moved)
        this.#breakAt('reordered', one, `segment ${one.segment.sequence} stands before an earlier one`)
      const good = this.#closes(one, moved)
      latest = Math.max(latest, one.arrival)
      this.#advance({ ...one, arrival: latest }, good)
    }
    if (held.length > 0) this.#sweep()
    this.#pending.push(...waiting)
  }

  #link(held: HeldSegment): void {
    const { segment, at } = held
    const { sequence, from, epoch } = segment
    const before = this.#head
    const next = before.next ?? 0n
    const skipped = sequence - before.sequence - 1
    if (skipped > 0) {
      const lacking = this.#unexplained(skipped, before.arrival, held.arrival)
      const detail = `${lacking} of the segments ${before.sequence + 1} to ${sequence - 1}, and what they decided`
      if (lacking > 0) this.#report('missing', at, detail, before.next ?? null, from)
      this.#open.take(next, from)
    } else if (!this.#links(segment)) {
      this.#breakAt(
        'forked',
        held,
        `segment ${sequence} does not follow the segment ${before.sequence} that is here`,
      )
    } else if (!this.#tiles(segment)) {
      if (from > next && epoch === before.epoch)
        this.#report('missing', at, 'no segment decided these', next, from)
      else this.#breakAt('forked', held, `segment ${sequence} decides again what was decided`)
    }
    if (at.auditPartition !== (before.auditPartition ?? at.auditPartition))
      this.#breakAt('reordered', held, `segment ${sequence} stands on another audit partition than its chain`)
  }

  /** Whether the segment's entries are all there and as they were signed; takes them from those open. */
  #closes(held: HeldSegment, moved: boolean): boolean {
    const { segment, at } = held
    const own = this.#open.take(segment.from, segment.next)
    if (isCovered(segment, own)) {
      const inOrder = own.every(
        (entry, index) =>
          entry.arrival < held.arrival &&
          entry.arrival > (own[index - 1]?.arrival ?? -1) &&
          entry.at.auditPartition === at.auditPartition,
      )
      if (!inOrder && !moved) this.#breakAt('reordered', held, `entries of segment ${segment.sequence}`)
      return true
    }
    const unsuspected = own.filter(({ suspect }) => !suspect)
    if (isCovered(segment, unsuspected)) return true
    const lacking = segment.count - own.length
    if (lacking > 0) {
      const unexplained = this.#unexplained(lacking, this.#head.arrival, held.arrival)
      const detail = `${unexplained} of the ${segment.count} entries of segment ${segment.sequence}`
      if (unexplained > 0) this.#breakAt('missing', held, detail)
    } else if (unsuspected.length === own.length) {
      const added = this.#withoutSecond(segment, own)
      const detail =
        added === undefined
          ? `the ${own.length} entries are not the ${segment.count} that segment ${segment.sequence} covers`
          : `an entry was added beside the one of record offset ${added.offset}`
      this.#report('altered', added?.at ?? at, detail, segment.from, segment.next)
      return added !== undefined
    }
    return false
  }

  /** Where entries stand twice: the first that is too much, if without those the segment holds. */
  #withoutSecond(segment: Segment, own: readonly OpenEntry[]): OpenEntry | undefined {
    const second = own.filter((entry, index) => own[index - 1]?.offset === entry.offset)
    const first = own.filter((entry, index) => own[index + 1]?.offset === entry.offset)
    const tooMany = [second, first].find((some) => {
      const gone = new Set(some)
      return isCovered(
        segment,
        own.filter((entry) => !gone.has(entry)),
      )
    })
    return tooMany?.[0]
  }

  /** Entries left over after the segments have taken theirs. */
  #sweep(): void {
    const { next = 0n, arrival } = this.#head
    for (const { offset, suspect, at } of this.#open.take(0n, next))
      if (!suspect) this.#report('altered', at, 'an entry that no segment covers', offset, offset + 1n)
    for (const { offset, suspect, at } of this.#open.nameEarly(arrival))
      if (!suspect) this.#report('reordered', at, 'an entry stands too early', offset, offset + 1n)
  }

  /** A segment that the chain is past: a copy, a fork, or one that was moved. Its entries go with it. */
  #old(held: HeldSegment): void {
    const { segment } = held
    const known = this.#recent.get(segment.sequence)
    if (known === undefined)
      this.#breakAt('reordered', held, `segment ${segment.sequence} stands after later ones`)
    else if (compareBytes(known, segment.hash) === 0)
      this.#breakAt('altered', held, `a copy of segment ${segment.sequence} was added`)
    else this.#breakAt('forked', held, `a second segment ${segment.sequence}`)
    const { next = 0n } = this.#head
    this.#open.take(segment.from, segment.next < next ? segment.next : next)
  }

  #advance(held: HeldSegment, good: boolean): void {
    const { sequence, hash, next, epoch, time, deployment } = held.segment
    const { auditPartition } = held.at
    this.#head = { sequence, hash, next, epoch, time, deployment, auditPartition, arrival: held.arrival }
    this.#recent.set(sequence, hash)
    // The head only rises, so the first that was remembered is the lowest.
    const lowest = this.#recent.keys().next()
    if (this.#recent.size > MAX_RECENT && lowest.done !== true) this.#recent.delete(lowest.value)
    if (sequence === this.#expected?.sequence && compareBytes(hash, this.#expected.hash) !== 0)
      this.#breakAt('forked', held, `segment ${sequence} is not the one that the position names`)
    if (good) this.#observer.settled(held.segment)
    this.#flush(time)
  }

  #dropOpen(kind: BreakKind, why: string): void {
    const all = this.#open.list()
    const first = all.reduce((earliest, entry) => (entry.arrival < earliest.arrival ? entry : earliest))
    const from = all[0]?.offset ?? null
    const last = all.at(-1)?.offset ?? null
    this.#report(kind, first.at, `${all.length} entries: ${why}`, from, last === null ? null : last + 1n)
    this.#open = new OpenEntries()
  }

  /** How many of so many lacking records are not explained by bad ones that came between these two arrivals. */
  #unexplained(lacking: number, after: number, before: number): number {
    let left = lacking
    this.#suspects = this.#suspects.filter((arrival) => {
      const explains = left > 0 && arrival > after && arrival < before
      if (explains) left -= 1
      return !explains
    })
    return left
  }

  #breakAt(kind: BreakKind, { segment, at }: HeldSegment, detail: string): void {
    this.#report(kind, at, detail, segment.from, segment.next)
  }

  #report(
    kind: BreakKind,
    at: AuditPlace | null,
    detail: string,
    from: bigint | null,
    next: bigint | null,
  ): void {
    this.#pending.push({ kind, at, detail, from, next, since: this.#head.time })
    if (this.#pending.length > MAX_PENDING) this.#flush(Infinity)
  }

  #flush(until: number): void {
    for (const found of this.#pending) this.#observer.broken({ ...found, until })
    this.#pending = []
  }
}

/** Whether the segment's root is that of these entries, in this order. */
function isCovered(segment: Segment, entries: readonly OpenEntry[]): boolean {
  if (entries.length !== segment.count) return false
  return compareBytes(treeRoot(entries.map(({ leaf }) => leaf)), segment.root) === 0
}

const bySequence = (a: HeldSegment, b: HeldSegment): number =>
  a.segment.sequence - b.segment.sequence || a.arrival - b.arrival
