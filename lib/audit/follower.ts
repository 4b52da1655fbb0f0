/**
 * Follows some source partitions' chains through the audit, slice by slice (audit.md §2), for who must know what stands
 * in it: that of which it tells was signed by the gate, link by link. `verifyAudit` is for who must know what is wrong.
 */
import { compareBytes } from '../cbor.ts'
import type { PublicKey } from '../envelope/crypto.ts'
import { leafHash, treeRoot } from '../envelope/merkle.ts'
import { type Entry, parseEntry, placeOf, recordOf } from './entry.ts'
import {
  type AuditHead,
  isSegment,
  parseSegment,
  type Segment,
  segmentKey,
  verifySegment,
} from './segment.ts'
import type { AuditRecord } from './verification.ts'

/** Whose segments count. */
export interface AuditTrust {
  readonly deployment: string
  /** The gateway's key of a kid; undefined where it is not trusted. */
  keyOf(kid: Uint8Array): PublicKey | undefined
}

export interface FollowerObserver {
  /** An entry of a followed chain as it comes, before anything proves it. */
  met?(chain: string, entry: Entry): void
  /** A segment that follows the one before it, with the entries that it covers. Those of a version that is not known are left out. */
  closed(chain: string, segment: Segment, entries: readonly Entry[]): void
  /** Something is lacking, altered or added: what came before is not known to be all that there was. */
  broken(chain: string): void
}

interface Followed {
  /** The last segment that was signed, whether it followed or not. */
  last: Segment | undefined
  open: { readonly offset: bigint; readonly leaf: Uint8Array; readonly entry: Entry | undefined }[]
}

/** Entries kept that no segment covers yet; a slice has some thousands at most. */
const MAX_OPEN = 65_536
export class AuditFollower {
  readonly #trust: AuditTrust
  readonly #observer: FollowerObserver
  readonly #chains = new Map<string, Followed>()

  constructor(trust: AuditTrust, observer: FollowerObserver) {
    this.#trust = trust
    this.#observer = observer
  }

  /** @param chain `topic/partition` as segments name it (`segmentKey`) */
  follow(chain: string): void {
    if (!this.#chains.has(chain)) this.#chains.set(chain, { last: undefined, open: [] })
  }

  /** The next record of an audit partition. A chain stands in one partition; several may be read in any order. */
  add({ value }: AuditRecord): void {
    if (value === null) return
    if (isSegment(value)) this.#segment(value)
    else this.#entry(value)
  }

  /** The last segment of a chain that came. */
  last(chain: string): Segment | undefined {
    return this.#chains.get(chain)?.last
  }

  /** Whether all has come, up to this head at least. */
  reaches(chain: string, head: AuditHead): boolean {
    const last = this.last(chain)
    if (last === undefined || last.sequence < head.sequence) return head.sequence === 0
    return last.sequence > head.sequence || compareBytes(last.hash, head.hash) === 0
  }

  #entry(value: Uint8Array): void {
    const place = placeOf(recordOf(value) ?? '')
    if (place === undefined) return
    const chain = segmentKey(place)
    const followed = this.#chains.get(chain)
    if (followed === undefined) return
    const entry = parseEntry(value)
    if (entry !== undefined) this.#observer.met?.(chain, entry)
    followed.open.push({ offset: place.offset, leaf: leafHash(value), entry })
    if (followed.open.length <= MAX_OPEN) return
    followed.open = []
    this.#observer.broken(chain)
  }

  #segment(value: Uint8Array): void {
    const segment = parseSegment(value)
    if (segment === undefined) return
    const chain = segmentKey(segment)
    const followed = this.#chains.get(chain)
    if (followed === undefined || segment.deployment !== this.#trust.deployment) return
    const { last, open } = followed
    // A copy, which says nothing new; a second history shows where the next segment does not follow.
    if (last !== undefined && segment.sequence <= last.sequence) return
    const key = this.#trust.keyOf(segment.kid)
    if (key === undefined || !verifySegment(segment, key)) return
    followed.last = segment
    // Whatever a later segment covers stands behind this one.
    followed.open = []
    const own = open.filter(({ offset }) => offset >= segment.from && offset < segment.next)
    const covers = compareBytes(treeRoot(own.map(({ leaf }) => leaf)), segment.root) === 0
    if (!follows(segment, last)) this.#observer.broken(chain)
    if (own.length !== segment.count || !covers) this.#observer.broken(chain)
    else
      this.#observer.closed(
        chain,
        segment,
        own.flatMap(({ entry }) => entry ?? []),
      )
  }
}

/** Of the first that is there, one with a higher number follows nothing: retention, or somebody, has taken what was before. */
function follows({ sequence, previous }: Segment, last: Segment | undefined): boolean {
  if (last === undefined) return sequence === 1
  return sequence === last.sequence + 1 && compareBytes(previous, last.hash) === 0
}
