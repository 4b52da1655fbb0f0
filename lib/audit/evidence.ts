/**
 * What the audit proves of quarantined records: that the gate rejected these very bytes at that place, why and when, and
 * whether their event has been let in since. Whoever writes into quarantine can make none of it.
 */
import type { RejectionCode } from '../errors.ts'
import type { TopicPartition } from '../ports.ts'
import { controlTopicOf, type Entry, type EventClaims, recordKey } from './entry.ts'
import { AuditFollower, type AuditTrust } from './follower.ts'
import { type AuditHead, segmentKey } from './segment.ts'
import type { AuditRecord } from './verification.ts'

export interface ProvenRejection {
  readonly code: RejectionCode
  /** When it was decided, milliseconds since 1970: the record's bytes were there then. */
  readonly timeMs: number
  /** SHA-256 of its value; null where it had none. */
  readonly digest: Uint8Array | null
}

/** What tells an event from all others (CloudEvents: `source` and `id`), with who signed it. */
export type EventName = Pick<EventClaims, 'iss' | 'source' | 'id'>

export const eventKey = ({ iss, source, id }: EventName): string => JSON.stringify([iss, source, id])

/** Gathered from the audit partitions that the source partitions' chains stand in, each read from its beginning. */
export class Evidence {
  readonly #follower: AuditFollower
  readonly #wanted = new Set<string>()
  readonly #events = new Set<string>()
  /** By source partition and offset. */
  readonly #rejections = new Map<string, Map<bigint, ProvenRejection>>()
  readonly #admissions = new Map<string, string>()
  /** The source partition of each chain that is followed. */
  readonly #sourceOf = new Map<string, string>()
  /** Of the first segment that is there, seconds since 1970, by source partition; −∞ where nothing was before it. */
  readonly #beginnings = new Map<string, number>()

  constructor(trust: AuditTrust) {
    this.#follower = new AuditFollower(trust, {
      met: (_, entry) => this.#met(entry),
      closed: (chain, segment, entries) => {
        const source = this.#sourceOf.get(chain) ?? ''
        if (chain !== source) return
        if (!this.#beginnings.has(source))
          this.#beginnings.set(source, segment.sequence === 1 ? -Infinity : segment.time)
        for (const entry of entries) this.#prove(source, entry)
      },
      // An entry that is gone may have been the one that let an event in.
      broken: (chain) => this.#rejections.get(this.#sourceOf.get(chain) ?? '')?.clear(),
    })
  }

  /** To be said of every record before the first `add`. `event`: what it claims to be, where it parses. */
  want(source: TopicPartition, offset: bigint, event: EventName | undefined): void {
    const name = segmentKey(source)
    const control = segmentKey({ ...source, topic: controlTopicOf(source.topic) })
    for (const chain of [name, control]) {
      this.#sourceOf.set(chain, name)
      this.#follower.follow(chain)
    }
    this.#wanted.add(recordKey(source.topic, source.partition, offset))
    if (event !== undefined) this.#events.add(eventKey(event))
  }

  /** The next record of an audit partition. */
  add(record: AuditRecord): void {
    this.#follower.add(record)
  }

  /**
   * Whether all has been read that this position stands on: to the heads of its chains. A control chain that is not there
   * at all was removed by retention where the decisions that are left begin after its end; then what they rejected was not
   * redriven.
   */
  reaches(
    source: TopicPartition,
    head: AuditHead,
    control: { readonly head: AuditHead; readonly time: number },
  ): boolean {
    const name = segmentKey(source)
    const chain = segmentKey({ ...source, topic: controlTopicOf(source.topic) })
    if (!this.#follower.reaches(name, head)) return false
    if (this.#follower.reaches(chain, control.head)) return true
    const beginning = this.#beginnings.get(name)
    const isGone = this.#follower.last(chain) === undefined
    return isGone && beginning !== undefined && beginning > control.time + SKEW
  }

  /** Whether all that was decided from then on (seconds since 1970) is still there to be read, by any gate's clock. */
  reachesBackTo(source: TopicPartition, seconds: number): boolean {
    const beginning = this.#beginnings.get(segmentKey(source))
    return beginning !== undefined && beginning + SKEW < seconds
  }

  /** Undefined where the audit does not prove that the gate rejected a record there. */
  rejectionOf(source: TopicPartition, offset: bigint): ProvenRejection | undefined {
    return this.#rejections.get(segmentKey(source))?.get(offset)
  }

  /** Where an event was let in; undefined where it was not. An entry that nothing proves counts too: better one too many. */
  admissionOf(event: EventName): string | undefined {
    return this.#admissions.get(eventKey(event))
  }

  /** An event has been let in just now. */
  letIn(event: EventName, where: string): void {
    this.#admissions.set(eventKey(event), where)
  }

  #met(entry: Entry): void {
    if (entry.kind !== 'event.admitted') return
    const name = eventKey(entry.event)
    if (this.#events.has(name))
      this.#admissions.set(name, recordKey(entry.topic, entry.partition, entry.offset))
  }

  #prove(source: string, entry: Entry): void {
    const { topic, partition, offset } = entry
    if (entry.kind !== 'event.rejected' || !this.#wanted.has(recordKey(topic, partition, offset))) return
    const { code, timeMs, digest } = entry
    const known = this.#rejections.get(source) ?? new Map<bigint, ProvenRejection>()
    this.#rejections.set(source, known.set(offset, { code, timeMs, digest }))
  }
}

/** How far the clocks of two gates may be apart, seconds. */
const SKEW = 300
