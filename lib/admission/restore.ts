/**
 * Restores a source partition's position that was lost or is damaged (exactly-once.md §2): offsets and heads from the last
 * segments of its chains, and the replay windows by going once more through the records that may still be alive. Where
 * that cannot be done completely it is refused, with the time from which on it is safe: a window that is not there would
 * let a copy in.
 */
import { controlTopicOf, encodeEntry, type Entry, recordKey } from '../audit/entry.ts'
import { AuditFollower, type AuditTrust } from '../audit/follower.ts'
import { auditPartitionOf, closeSegment, FIRST_HEAD, type Segment, segmentKey } from '../audit/segment.ts'
import { compareBytes } from '../cbor.ts'
import { ConfigError, Outage, Rejection, type RejectionCode } from '../errors.ts'
import { digest } from '../envelope/crypto.ts'
import type { Claims } from '../envelope/format.ts'
import { MAX_CLOCK_LEAD_SECONDS } from '../envelope/verify.ts'
import { parseRecord } from '../keys/authenticate.ts'
import { currentSigner } from '../keys/signer.ts'
import type {
  Message,
  Position,
  PositionAdmin,
  RecordReader,
  RepairSession,
  SourceRecord,
  TopicPartition,
} from '../ports.ts'
import { AuditReader, auditTrustOf } from './audit-reader.ts'
import { type ControlChain, encodeState, parseState } from './position.ts'
import { ReplayState } from './replay.ts'
import type { IngestParts } from './slice.ts'

export interface RestoreParts {
  readonly ingest: IngestParts
  readonly reader: RecordReader
  readonly positions: PositionAdmin
}

export interface Restored {
  /** The first offset not yet decided. */
  readonly next: bigint
  /** Undecided records that the topic has not kept: they are lost. */
  readonly lost: bigint
  /** False where the position was good, and nothing was done. */
  readonly isNew: boolean
}

const CALL_MS = 30_000
const PAGE = { maxBytes: 1_048_576, maxRecords: 1_000 }
/**
 * Rejections after step 8 mark their numbers. With `over-limit` those of a session too many do not: so of what was refused
 * with it, nothing makes a session beyond the limit, or an issuer could fill the position. What is not marked then was let
 * in by nobody.
 */
const MARKING: ReadonlySet<RejectionCode> = new Set(['over-limit', 'undecryptable', 'schema-invalid'])

/**
 * @param by who does it, for the audit
 * Rejects with `ConfigError` where it would be unsafe or there is nothing to restore from, with `Outage` where something
 * does not answer. Until the commit at its end nothing is changed, but for the fence.
 */
export async function restorePosition(
  source: TopicPartition,
  by: string | null,
  parts: RestoreParts,
  onProgress: (records: number) => void,
): Promise<Restored> {
  const { positions, ingest } = parts
  const channel = ingest.settings.channelOf(source.topic)
  if (channel === undefined)
    throw new Outage('channel-unknown', `topic ${source.topic} has no channel: name it in the settings`)
  const seen = await look(source, parts)
  if (isGood(seen, parts)) return { next: seen.next, lost: 0n, isNew: false }
  const trust = await auditTrustOf(ingest, ingest.clock.now() + CALL_MS)
  const readSince = async (since: number): Promise<Restoring> => {
    const reading = new Restoring(source, channel.maxLifeSeconds, trust, parts, onProgress, since)
    await reading.read()
    return reading
  }
  // What takes long before the partition is taken over; behind the fence only what has come since.
  let restoring = await readSince(ingest.clock.now())
  const since = await restoring.firstUndecided()
  if (restoring.hasPassedOver(since)) restoring = await readSince(since)
  const session = await positions.repair(source, ingest.clock.now() + CALL_MS)
  try {
    const { found } = session
    // Read beside a holder at work, it may have been between two of its commits.
    if (isGood(found, parts)) return { next: found.next, lost: 0n, isNew: false }
    await restoring.read()
    return await restoring.commit(by, session)
  } finally {
    await session.close()
  }
}

/** Whether what lives until `until` (seconds) is dead for all that is judged from `since` (milliseconds) on, by any broker's clock. */
const isDead = (until: number, since: number): boolean => (until + MAX_CLOCK_LEAD_SECONDS) * 1000 < since

type Found = RepairSession['found']

async function look(source: TopicPartition, { positions, ingest }: RestoreParts): Promise<Found> {
  try {
    return await positions.show(source, ingest.clock.now() + CALL_MS)
  } catch (error) {
    if (error instanceof Outage && error.code === 'position-damaged') return 'damaged'
    throw error
  }
}

/** Whether it is a position that the gate can go on from. */
function isGood(found: Found, { ingest }: RestoreParts): found is Position {
  if (found === undefined || found === 'damaged') return false
  try {
    parseState(found.state, ingest.settings.limits, Infinity)
    return true
  } catch (error) {
    if (error instanceof Outage) return false
    throw error
  }
}

/** A record that may have left a mark: where it came in, and when it was decided. */
interface Marking {
  readonly offset: bigint
  readonly digest: Uint8Array | null
  readonly timeMs: number
  readonly isOverLimit: boolean
}

class Restoring {
  readonly #source: TopicPartition
  readonly #control: TopicPartition
  readonly #maxLife: number
  readonly #parts: RestoreParts
  readonly #audit: AuditReader
  readonly #follower: AuditFollower
  #replay: ReplayState
  /** Of slices that were followed and not yet gone through. */
  #markings: Marking[] = []
  /** That of the chains, as far as they were followed. */
  #epoch = 0
  /** The audit partition that the chains stand in. */
  #home: number | undefined
  /** Whether a chain lacks something after its last whole slice. */
  #isBroken = false
  /** After that nothing that may be missing can be alive any more, seconds since 1970. */
  #safeFrom = -Infinity
  /** What the first undecided record is judged by, or the clock where there is none, milliseconds since 1970. */
  readonly #since: number
  /** Until then something may be alive that was not gone through, since it is dead by `since`. */
  #passedOver = -Infinity

  constructor(
    source: TopicPartition,
    maxLife: number,
    trust: AuditTrust,
    parts: RestoreParts,
    onProgress: (records: number) => void,
    since: number,
  ) {
    this.#source = source
    this.#since = since
    this.#control = { topic: controlTopicOf(source.topic), partition: source.partition }
    this.#maxLife = maxLife
    this.#parts = parts
    this.#replay = new ReplayState(parts.ingest.settings.limits, Infinity)
    this.#follower = new AuditFollower(trust, {
      closed: (_, segment, entries) => this.#closed(segment, entries),
      broken: () => (this.#isBroken = true),
    })
    this.#follower.follow(segmentKey(source))
    this.#follower.follow(segmentKey(this.#control))
    this.#audit = new AuditReader(parts.ingest, parts.reader, (page) => this.#take(page), onProgress)
  }

  /** All of the audit, as far as it is written now, and what is needed of the source. */
  async read(): Promise<void> {
    await this.#audit.readAll(this.#source)
  }

  /** What the first undecided record will be judged by, milliseconds since 1970: its broker's time may be long ago. */
  async firstUndecided(): Promise<number> {
    const { reader, ingest } = this.#parts
    const now = ingest.clock.now()
    const last = this.#follower.last(segmentKey(this.#source))
    const { end } = await reader.offsets(this.#source)
    if (last === undefined || end <= last.next) return now
    const { records } = await reader.fetch(this.#source, last.next, { ...PAGE, maxRecords: 1 })
    const [first] = records
    return first?.timestampType === 'LogAppendTime' ? Math.min(now, first.timestamp) : now
  }

  /** Whether what was passed over may be alive at `since` (milliseconds). */
  hasPassedOver(since: number): boolean {
    return !isDead(this.#passedOver, since)
  }

  async commit(by: string | null, session: RepairSession): Promise<Restored> {
    const { ingest, reader } = this.#parts
    const { clock, settings } = ingest
    const deadline = clock.now() + CALL_MS
    const last = this.#follower.last(segmentKey(this.#source))
    if (last === undefined || this.#home === undefined) throw this.#refusal(...NOTHING_TO_RESTORE)
    if (last.epoch !== settings.epoch) {
      const begin = 'begin this one by name: sealgate position init'
      const fix = last.epoch > settings.epoch ? 'Set that epoch.' : `Set that epoch, or ${begin}.`
      throw this.#refusal(`Its last segment is of epoch ${last.epoch}, not ${settings.epoch}.`, fix)
    }
    const { first, end } = await reader.offsets(this.#source)
    if (end < last.next) {
      const what = `Offsets below ${last.next} were decided, and the topic ends at ${end}: it is not the same.`
      throw this.#refusal(what, 'Raise the epoch, and begin it by name: sealgate position init.')
    }
    this.#refuseUnsafe(last)
    // A segment has its gate's time, which is later than its records' own where those had waited, as what is left may have.
    this.#replay.decide(Math.max(Math.min(last.time, Math.floor(this.#since / 1000)), this.#safeFrom + 1))
    const quarantines = await ingest.sink.partitionsOf(settings.outlet.quarantineTopic, deadline)
    const homes = { audit: this.#home, quarantine: auditPartitionOf(this.#source, quarantines) }
    const { messages, control } = await this.#account(by, homes.audit, deadline)
    const head = { sequence: last.sequence, hash: last.hash }
    const state = encodeState({ head, homes, control, replay: this.#replay })
    await session.commit(messages, { next: last.next, state }, deadline)
    return { next: last.next, lost: first > last.next ? first - last.next : 0n, isNew: true }
  }

  async #take(page: readonly SourceRecord[]): Promise<void> {
    for (const record of page) {
      const before = this.#follower.last(segmentKey(this.#source))
      this.#follower.add(record)
      if (this.#follower.last(segmentKey(this.#source)) !== before) this.#home = record.partition
    }
    const markings = this.#markings
    this.#markings = []
    await this.#mark(markings)
  }

  #closed({ time, epoch }: Segment, entries: readonly Entry[]): void {
    if (epoch > this.#epoch) this.#forget(epoch)
    if (this.#isBroken) this.#safeFrom = Math.max(this.#safeFrom, this.#deadAfter(time))
    this.#isBroken = false
    if (isDead(this.#deadAfter(time), this.#since)) {
      this.#passedOver = Math.max(this.#passedOver, this.#deadAfter(time))
      return
    }
    this.#markings.push(...entries.flatMap((entry) => markingOf(entry) ?? []))
  }

  /** A raised epoch began with no memory. What lacks just before its first segment may be its own. */
  #forget(epoch: number): void {
    this.#epoch = epoch
    this.#markings = []
    this.#replay = new ReplayState(this.#parts.ingest.settings.limits, Infinity)
    this.#safeFrom = -Infinity
  }

  /** When nothing that was let in until then is alive any more: clocks of producers and brokers may both be ahead. */
  #deadAfter(time: number): number {
    return time + this.#maxLife + 2 * MAX_CLOCK_LEAD_SECONDS
  }

  #isPast(time: number): boolean {
    return time * 1000 < this.#parts.ingest.clock.now()
  }

  /** Marks the numbers of these records, as they stand in the source. */
  async #mark(markings: readonly Marking[]): Promise<void> {
    const { reader, ingest } = this.#parts
    const memory = this.#replay.redriving()
    let page = new Map<bigint, SourceRecord>()
    let [from, next] = [0n, 0n]
    for (const { offset, digest: expected, timeMs, isOverLimit } of markings) {
      if (offset < from || offset >= next) {
        const fetched = await reader.fetch(this.#source, offset, PAGE)
        page = new Map(fetched.records.map((record) => [record.offset, record]))
        from = offset
        next = fetched.next
      }
      const claims = claimsOf(page.get(offset), expected, ingest.settings.maxValueBytes)
      if (claims === undefined) {
        this.#safeFrom = Math.max(this.#safeFrom, this.#deadAfter(Math.ceil(timeMs / 1000)))
        continue
      }
      const claimant = { claims, ...ANY_TYPE }
      memory.decide(0, claimant, isOverLimit ? memory.judge(claimant, 0) : ALWAYS)
    }
  }

  /** Where something is missing, the position tells that nothing is judged by a time at which it may be alive. */
  #refuseUnsafe({ time }: Segment): void {
    if (this.#isBroken) this.#safeFrom = Math.max(this.#safeFrom, this.#deadAfter(time))
    if (this.#isPast(this.#safeFrom)) return
    const until = new Date(this.#safeFrom * 1000).toISOString()
    const what = `Records or entries of its last ${this.#maxLife} s are missing: copies of what they let in could come in again.`
    throw this.#refusal(what, `From ${until} on they have all expired: then it is safe.`)
  }

  /** The entry of the restoration, and the segment that closes it, on the control chain. */
  async #account(
    by: string | null,
    partition: number,
    deadline: number,
  ): Promise<{ readonly messages: readonly Message[]; readonly control: ControlChain }> {
    const { ingest } = this.#parts
    const { settings, clock } = ingest
    const [directory, { digest: bundle }] = await Promise.all([
      ingest.directory.snapshot(deadline),
      ingest.contracts(deadline),
    ])
    const last = this.#follower.last(segmentKey(this.#control))
    const from = last?.next ?? 0n
    const policy = { bundle, directory: directory.snapshot.version }
    const entry = encodeEntry({
      ...{ kind: 'position.restored', timeMs: clock.now(), ...this.#control, offset: from, policy },
      principal: by === null ? null : `User:${by}`,
      resource: `position:${segmentKey(this.#source)}`,
      success: true,
    })
    const time = Math.floor(clock.now() / 1000)
    const { deployment, software, epoch } = settings
    const closed = await closeSegment(
      {
        ...{ ...this.#control, from, next: from + 1n, head: last ?? FIRST_HEAD, entries: [entry] },
        ...{ deployment, software, epoch, time, unseen: 0, bundle, directory: policy.directory },
      },
      await currentSigner(ingest.signer, deadline),
      deadline,
    )
    const message = (key: string, value: Uint8Array): Message => {
      return { topic: settings.outlet.auditTopic, partition, key: Buffer.from(key), value, headers: [] }
    }
    const place = recordKey(this.#control.topic, this.#control.partition, from)
    const messages = [message(place, entry), message(segmentKey(this.#control), closed.value)]
    return { messages, control: { head: closed.head, count: from + 1n, time } }
  }

  #refusal(what: string, fix: string): ConfigError {
    return new ConfigError([{ where: `${this.#source.topic}-${this.#source.partition}`, what, fix }])
  }
}

const NOTHING_TO_RESTORE = [
  'The audit holds no segment of it.',
  'Where nothing was ever decided, make a first position: sealgate position init; under a higher epoch where a damaged one stands.',
] as const

/** What counts in a mark is the session and its number. */
const ANY_TYPE = { type: '', perSecond: undefined, fits: true, askedKey: undefined }
const ALWAYS = { rejection: undefined, marks: true }

function markingOf(entry: Entry): Marking | undefined {
  if (entry.kind === 'event.admitted') {
    const { redriven, offset, digest: hash, timeMs } = entry
    // What had expired left no mark.
    if (redriven?.expired === true) return undefined
    return { offset: redriven?.source.offset ?? offset, digest: hash, timeMs, isOverLimit: false }
  }
  if (entry.kind !== 'event.rejected' || entry.redriven !== undefined || !MARKING.has(entry.code))
    return undefined
  const { offset, digest: hash, timeMs, code } = entry
  return { offset, digest: hash, timeMs, isOverLimit: code === 'over-limit' }
}

/** What a record says of itself; undefined where it is not the one that the audit names. */
function claimsOf(
  record: SourceRecord | undefined,
  expected: Uint8Array | null,
  maxValueBytes: number,
): Claims | undefined {
  if (record?.value === undefined || record.value === null || expected === null) return undefined
  if (compareBytes(digest(record.value), expected) !== 0) return undefined
  try {
    return parseRecord(record, maxValueBytes).body.claims
  } catch (error) {
    if (!(error instanceof Rejection)) throw error
    return undefined
  }
}
