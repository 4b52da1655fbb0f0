/**
 * Puts quarantined records through admission again (docs/operations.md), by an operator's order and with the gate's own
 * rights and keys.
 *
 * Nothing that stands in quarantine is believed. A record is taken only where the signed audit proves that the gate
 * rejected these very bytes at that place, and that their event has not been let in since; that takes the place of the
 * replay check. It is decided as the source partition's holder, like any slice: outputs, audit entry, the number's mark
 * and the position commit together. So the audit is the only memory of what was redriven, and the heads in the position,
 * read behind the fence, tell how far it must have been read.
 */
import type { RecordPlace } from '../audit/entry.ts'
import { Evidence } from '../audit/evidence.ts'
import { segmentKey } from '../audit/segment.ts'
import { ConfigError, type Fault, Outage, Rejection, type RejectionCode } from '../errors.ts'
import { parseRecord } from '../keys/authenticate.ts'
import type { PositionAdmin, RecordReader, Sink, TopicPartition } from '../ports.ts'
import { AuditReader, auditTrustOf } from './audit-reader.ts'
import { parseState } from './position.ts'
import { parseQuarantined, type Quarantined } from './quarantined.ts'
import { type ClaimedEvent, redriveBatch } from './redrive-batch.ts'
import { type IngestParts, Lanes, outageOf } from './slice.ts'

/** What an operator asks. */
export interface RedriveOrder {
  /** Only records that were rejected with this code. */
  readonly code?: RejectionCode
  /** Only records that came into quarantine from then on, milliseconds since 1970. */
  readonly sinceMs?: number
  /** Decides, and changes nothing. */
  readonly dryRun: boolean
  /** Records whose time may have run out: ids of events, `topic/partition/offset` in source or quarantine. Needs `by` and `reason`. */
  readonly acceptExpired: ReadonlySet<string>
  /** Who and why, for the audit: at most 128 and 512 characters. */
  readonly by: string | null
  readonly reason: string | null
}

/** Why a record was not judged again. It stays in quarantine. */
export type SkipReason = 'let-in' | 'replayed' | 'unproven' | 'not-whole'

/** What became of one record, once that stands. */
export interface RedriveOutcome {
  readonly quarantine: RecordPlace
  /** Undefined where the record is not of the gate's making. */
  readonly source: RecordPlace | undefined
  readonly result: 'admitted' | 'rejected' | 'skipped'
  /** Null where it was admitted. */
  readonly code: RejectionCode | SkipReason | null
  readonly reason: string
}

export interface RedriveParts {
  readonly ingest: IngestParts
  readonly reader: RecordReader
  readonly positions: Pick<PositionAdmin, 'show'>
}

export interface RedriveObserver {
  outcome(outcome: RedriveOutcome): void
  /** How many records of the audit and of the quarantine were read so far. */
  progress?(audit: number, quarantine: number): void
  /** Awaited between batches: for what must not grow without end. */
  drained?(): Promise<void>
}

export interface RedriveReport {
  /** Source partitions whose records were left for another time, and why. */
  readonly stops: readonly (TopicPartition & { readonly outage: Outage })[]
  /** It was told to end before its end: what is left is there the next time. */
  readonly interrupted: boolean
}

/**
 * Redrives what is in quarantine when it begins. Ends with the batch at hand when `signal` is aborted. Rejects with
 * `ConfigError` for an order that is none, with `Outage` where the quarantine cannot be read.
 */
export async function redrive(
  order: RedriveOrder,
  parts: RedriveParts,
  observer: RedriveObserver,
  signal: AbortSignal,
): Promise<RedriveReport> {
  refuseBadOrder(order)
  const ingest = order.dryRun ? { ...parts.ingest, sink: readOnly(parts) } : parts.ingest
  const run = new Run(order, { ...parts, ingest }, observer, signal)
  try {
    return await run.all()
  } finally {
    await run.close()
  }
}

function refuseBadOrder({ by, reason, acceptExpired }: RedriveOrder): void {
  const faults: Fault[] = []
  const check = (where: string, text: string | null, longest: number): void => {
    if (text !== null && (text.trim() === '' || text.length > longest))
      faults.push({ where, what: 'It is empty or too long.', fix: `Give 1 to ${longest} characters.` })
    if (text === null && acceptExpired.size > 0) {
      const what = 'It is not given, and --accept-expired is.'
      faults.push({ where, what, fix: 'Say who lets expired events in, and why: the audit keeps it.' })
    }
  }
  check('--by', by, 128)
  check('--reason', reason, 512)
  if (faults.length > 0) throw new ConfigError(faults)
}

function sourceOf([first]: readonly Candidate[]): TopicPartition | undefined {
  return first && { topic: first.source.topic, partition: first.source.partition }
}

/** A sink that fences nobody and writes nothing. */
function readOnly({ ingest, positions }: RedriveParts): Sink {
  return {
    partitionsOf: (topic, deadline) => ingest.sink.partitionsOf(topic, deadline),
    open: async (source, deadline) => {
      const position = await positions.show(source, deadline)
      if (position === undefined) throw positionMissing(source)
      const [maxBatchBytes, maxStateBytes] = [Infinity, Infinity]
      const nothing = (): Promise<void> => Promise.resolve()
      return { position, maxBatchBytes, maxStateBytes, commit: nothing, close: nothing }
    },
  }
}

const positionMissing = ({ topic, partition }: TopicPartition): Outage =>
  new Outage('position-missing', `There is no position for ${topic}-${partition}.`)

/** A record that fits the order, by where it stands; its bytes are read again when its turn comes. */
interface Candidate {
  readonly quarantine: RecordPlace
  readonly source: RecordPlace
}

/** Candidates that are looked up in one reading of the audit. */
const MAX_CANDIDATES = 50_000
const PAGE = { maxBytes: 1_048_576, maxRecords: 500 }
/** For a slice and what it needs; where that is not enough the rest is left for another time. */
const CALL_MS = 30_000
/** Times that the gate at work may take the partition back before we give up. */
const MAX_FENCED = 8
const FENCED_MS = 50
/** Above every offset: the lane at hand will do. */
const BEYOND = 2n ** 63n

class Run {
  readonly #order: RedriveOrder
  readonly #parts: RedriveParts
  readonly #observer: RedriveObserver
  readonly #signal: AbortSignal
  readonly #lanes: Lanes
  readonly #stops: (TopicPartition & { outage: Outage })[] = []
  #auditRead = 0
  #quarantineRead = 0

  constructor(order: RedriveOrder, parts: RedriveParts, observer: RedriveObserver, signal: AbortSignal) {
    this.#order = order
    this.#parts = parts
    this.#observer = observer
    this.#signal = signal
    this.#lanes = new Lanes(parts.ingest)
  }

  close(): Promise<void> {
    return this.#lanes.close()
  }

  async all(): Promise<RedriveReport> {
    let some: Candidate[] = []
    let evidence = await this.#newEvidence()
    for await (const found of this.#found()) {
      const { source, quarantine } = found
      some.push({ source, quarantine })
      evidence.want(source, source.offset, this.#claimOf(found))
      if (some.length < MAX_CANDIDATES) continue
      await this.#redriveAll(some, evidence)
      some = []
      evidence = await this.#newEvidence()
    }
    await this.#redriveAll(some, evidence)
    return { stops: this.#stops, interrupted: this.#signal.aborted }
  }

  async #newEvidence(): Promise<Evidence> {
    const { ingest } = this.#parts
    return new Evidence(await auditTrustOf(ingest, ingest.clock.now() + CALL_MS))
  }

  /** Records that fit the order, of all that is in quarantine when we begin. */
  async *#found(): AsyncGenerator<Quarantined> {
    const { reader, ingest } = this.#parts
    const topic = ingest.settings.outlet.quarantineTopic
    const { code, sinceMs = -Infinity } = this.#order
    const count = await reader.partitions(topic)
    const places = Array.from({ length: count }, (_, partition) => ({ topic, partition }))
    const ends = await Promise.all(places.map(async (place) => ({ place, ...(await reader.offsets(place)) })))
    for (const { place, first, end } of ends) {
      for (let from = first; from < end && !this.#signal.aborted;) {
        const page = await reader.fetch(place, from, PAGE)
        this.#quarantineRead += page.records.length
        this.#progress(this.#auditRead)
        for (const record of page.records) {
          if (record.offset >= end || record.timestamp < sinceMs) continue
          const found = parseQuarantined(record)
          if (found !== undefined && (code === undefined || found.code === code)) yield found
          if (found !== undefined || code !== undefined) continue
          const stray = { ...place, offset: record.offset }
          this.#disbelieve(stray, undefined, 'it is not of the gate’s making')
        }
        if (page.next <= from) break
        from = page.next
      }
    }
  }

  /** The event that a record claims to be; undefined where it does not parse. */
  #claimOf({ value, headers }: Quarantined): ClaimedEvent | undefined {
    try {
      const { maxValueBytes } = this.#parts.ingest.settings
      const { iss, iat, ce } = parseRecord({ value, headers }, maxValueBytes).body.claims
      return { iss, source: ce.get('source') ?? '', id: ce.get('id') ?? '', iat: Number(iat) }
    } catch (error) {
      if (!(error instanceof Rejection)) throw error
      return undefined
    }
  }

  /** In the order of the quarantine; a source partition that cannot go on is left for another time. */
  async #redriveAll(candidates: readonly Candidate[], evidence: Evidence): Promise<void> {
    const { ingest, reader } = this.#parts
    const audit = new AuditReader(
      ingest,
      reader,
      (page) => {
        for (const record of page) evidence.add(record)
        return Promise.resolve()
      },
      (records) => this.#progress(records),
    )
    const ready = new Map<string, TopicPartition>()
    const attempt = async (source: TopicPartition, work: () => Promise<boolean>): Promise<void> => {
      if (this.#signal.aborted) return
      const name = segmentKey(source)
      try {
        if (await work()) ready.set(name, source)
      } catch (error) {
        ready.delete(name)
        this.#stops.push({ ...source, outage: outageOf(error) })
      }
    }
    try {
      for (const own of Map.groupBy(candidates, ({ source }) => segmentKey(source)).values()) {
        const source = sourceOf(own)
        if (source !== undefined) await attempt(source, () => this.#survey(source, own, evidence, audit))
      }
      for await (const page of this.#pages(candidates))
        for (const [name, own] of Map.groupBy(page, ({ source }) => segmentKey(source))) {
          const source = ready.get(name)
          if (source === undefined) continue
          await attempt(source, () => this.#redriveBatch(source, own, evidence, audit))
          await this.#observer.drained?.()
        }
    } finally {
      for (const source of ready.values()) this.#lanes.discard(source)
    }
  }

  /**
   * Reads all of the audit that a source partition stands on, before it is taken over: that may take long. What is left
   * of it, or was left out because we are to end, is read behind the fence, where nothing is decided before that is done.
   */
  async #survey(
    source: TopicPartition,
    candidates: readonly Candidate[],
    evidence: Evidence,
    audit: AuditReader,
  ): Promise<boolean> {
    const { positions, ingest } = this.#parts
    if (!(await this.#isOurs(source))) {
      const reason = `the gate reads no partition ${source.partition} of ${source.topic}`
      for (const { quarantine, source: place } of candidates) this.#disbelieve(quarantine, place, reason)
      return false
    }
    const position = await positions.show(source, ingest.clock.now() + CALL_MS)
    if (position === undefined) throw positionMissing(source)
    const { head, control, homes } = parseState(position.state, ingest.settings.limits, Infinity)
    if (homes === undefined) return true
    const reaches = (): boolean => evidence.reaches(source, head, control)
    await this.#readEvidence(source, homes.audit, audit, reaches, () => this.#signal.aborted)
    return true
  }

  /**
   * Reads to where a position says that the audit reaches, and on to its end: a first position that was made anew has a head
   * of its own, and what was let in under it may stand behind every other.
   */
  async #readEvidence(
    source: TopicPartition,
    partition: number,
    audit: AuditReader,
    reaches: () => boolean,
    isAborted: () => boolean = () => false,
  ): Promise<void> {
    const { reader, ingest } = this.#parts
    await audit.read(source, partition, () => isAborted() || reaches())
    const end = await reader.writtenEnd({ topic: ingest.settings.outlet.auditTopic, partition })
    await audit.readTo(source, partition, end, isAborted)
  }

  async #isOurs({ topic, partition }: TopicPartition): Promise<boolean> {
    const { ingest, reader } = this.#parts
    if (ingest.settings.channelOf(topic) === undefined) return false
    return partition < (await reader.partitions(topic))
  }

  #disbelieve(quarantine: RecordPlace, source: RecordPlace | undefined, reason: string): void {
    this.#observer.outcome({ quarantine, source, result: 'skipped', code: 'unproven', reason })
  }

  /** The records of candidates, again, page by page. Those that retention has taken meanwhile are left out. */
  async *#pages(candidates: readonly Candidate[]): AsyncGenerator<Quarantined[]> {
    for (let index = 0; index < candidates.length;) {
      const place = candidates[index]?.quarantine
      if (place === undefined) return
      const { records, next } = await this.#parts.reader.fetch(place, place.offset, PAGE)
      const byOffset = new Map(records.map((record) => [record.offset, record]))
      const batch: Quarantined[] = []
      let taken = 0
      for (const { quarantine } of candidates.slice(index, index + PAGE.maxRecords)) {
        if (quarantine.partition !== place.partition || quarantine.offset >= next) break
        const record = byOffset.get(quarantine.offset)
        const found = record === undefined ? undefined : parseQuarantined(record)
        if (found !== undefined) batch.push(found)
        taken += 1
      }
      index += Math.max(taken, 1)
      if (batch.length > 0) yield batch
    }
  }

  async #redriveBatch(
    source: TopicPartition,
    batch: readonly Quarantined[],
    evidence: Evidence,
    audit: AuditReader,
  ): Promise<true> {
    const { ingest } = this.#parts
    const told = new Set<bigint>()
    const tell = (outcome: RedriveOutcome): void => {
      told.add(outcome.quarantine.offset)
      this.#observer.outcome(outcome)
    }
    for (let fenced = 0; ;) {
      try {
        const deadline = ingest.clock.now() + CALL_MS
        const lane = await this.#lanes.open(source, BEYOND, deadline)
        const { auditPartition } = lane.outlet
        const reaches = (): boolean => evidence.reaches(source, lane.head, lane.control)
        await this.#readEvidence(source, auditPartition, audit, reaches)
        const left = batch
          .filter(({ quarantine }) => !told.has(quarantine.offset))
          .map((found) => ({ found, event: this.#claimOf(found) }))
        await redriveBatch(left, lane, { order: this.#order, ingest, evidence, tell }, deadline)
        // A dry run has written nothing: it begins each time where the position is.
        if (this.#order.dryRun) this.#lanes.discard(source)
        return true
      } catch (error) {
        this.#lanes.discard(source)
        // The gate at work has taken its partition back, as it should.
        if (outageOf(error).code !== 'fenced' || ++fenced > MAX_FENCED) throw error
        await new Promise((resolve) => setTimeout(resolve, FENCED_MS * fenced))
      }
    }
  }

  #progress(audit: number): void {
    this.#auditRead = audit
    this.#observer.progress?.(this.#auditRead, this.#quarantineRead)
  }
}
