/**
 * Brings slices of source partitions to an end (architecture.md §3): decides their records in order and commits verdicts,
 * audit and position together. A slice ends before the first record that could not be decided; nothing passes it.
 */
import type { AuditHead } from '../audit/segment.ts'
import { auditPartitionOf } from '../audit/segment.ts'
import type { Contracts, PseudonymKeys } from '../contract/contract.ts'
import { Outage } from '../errors.ts'
import { random } from '../envelope/crypto.ts'
import { ProvenBatches } from '../envelope/verify.ts'
import { type DataKeyCounts, type DataKeys, sumCounts } from '../keys/data-keys.ts'
import type { Directory } from '../keys/directory.ts'
import type { SealingKeys } from '../keys/sealing-keys.ts'
import type { Clock, Signer, Sink, SinkSession, SourceRecord, TopicPartition } from '../ports.ts'
import { type Channel, decide, type Examined, examine, type Gate, wantedKeys } from './admit.ts'
import type { Observer } from './observer.ts'
import { type ControlChain, parseState } from './position.ts'
import type { IssuerLimits, ReplayState } from './replay.ts'
import { draftOf, NumberedSession, type Outlet, type OutletNames } from './route.ts'
import { Transaction } from './transaction.ts'

/** The records of one source partition in an invocation: by rising offset, none twice. */
export interface SourceSlice extends TopicPartition {
  readonly records: readonly SourceRecord[]
}

/** Where a slice ended before its end, and why: `offset` is its first undecided record. */
export interface Stop extends TopicPartition {
  readonly offset: bigint
  readonly outage: Outage
}

/** What the gate is, for as long as the process lives. */
export interface IngestSettings {
  /** This gateway's name: the `aud` of what it takes in, the `iss` of what it gives out. */
  readonly name: string
  readonly deployment: string
  /** Raised by each reprocessing on purpose. */
  readonly epoch: number
  /** Name and version of this software, for the audit. */
  readonly software: string
  readonly maxValueBytes: number
  readonly limits: IssuerLimits
  readonly outlet: OutletNames
  /** Time kept in hand before the deadline for the last commit, milliseconds. */
  readonly reserveMs: number
  channelOf(topic: string): Channel | undefined
}

/** What the gate works with. */
export interface IngestParts {
  readonly settings: IngestSettings
  readonly clock: Clock
  readonly sink: Sink
  readonly directory: Directory
  readonly dataKeys: DataKeys
  readonly signer: Signer
  /** Undefined: nobody looks on. */
  readonly observer?: Observer
  contracts(deadline: number): Promise<Contracts>
  pseudonyms(deadline: number): Promise<PseudonymKeys>
  /** A sealing side for one session: one per source partition and process. */
  newSealingKeys(): SealingKeys
}

export interface Ingest {
  /** Brings slices to an end side by side. Never rejects: what could not be decided stands in the stops. */
  ingest(slices: readonly SourceSlice[], deadline: number): Promise<readonly Stop[]>
  /** How data keys fare, for metrics: those of the records that come in, and those of the outputs. */
  keyCounts(): GateKeyCounts
  /** Lets go of all partitions; what was not committed is as if it had not been. */
  close(): Promise<void>
}

export interface GateKeyCounts {
  readonly opening: DataKeyCounts
  readonly sealing: DataKeyCounts
}

/** Takes slices for as long as the process lives; the partitions it holds stay open between invocations. */
export function createIngest(parts: IngestParts): Ingest {
  const { dataKeys, directory } = parts
  const lanes = new Lanes(parts)
  directory.onKeksChanged((snapshot) => dataKeys.retain(snapshot))
  return {
    ingest: async (slices, deadline) => {
      const stops = await Promise.all(
        slices.map((slice) => {
          const work = (): Promise<Stop | undefined> => ingestSlice(slice, lanes, parts, deadline)
          return lanes.alone(slice, () => parts.observer?.slice(slice, work) ?? work())
        }),
      )
      return stops.filter((stop) => stop !== undefined)
    },
    keyCounts: () => ({ opening: dataKeys.counts(), sealing: lanes.keyCounts() }),
    close: () => lanes.close(),
  }
}

/** One slice to its end or to its first undecided record. */
async function ingestSlice(
  slice: SourceSlice,
  lanes: Lanes,
  parts: IngestParts,
  deadline: number,
): Promise<Stop | undefined> {
  const [first] = slice.records
  if (first === undefined) return undefined
  // Not the slice: a lane that stays open would keep its records.
  const source = { topic: slice.topic, partition: slice.partition }
  let undecided = first.offset
  for (let fencedOnce = false; ; fencedOnce = true) {
    let lane: Lane | undefined
    try {
      lane = await lanes.open(source, first.offset, deadline)
      const outage = await decideAll(lane, slice, parts, deadline)
      if (outage === undefined) return undefined
      return { ...source, offset: firstFrom(slice, lane.next), outage }
    } catch (error) {
      const outage = outageOf(error)
      if (lane !== undefined && lane.next > undecided) undecided = firstFrom(slice, lane.next)
      lanes.discard(source)
      // Fenced at the commit is normal where partitions wander between processes: take over, and see what is left.
      if (outage.code === 'fenced' && !fencedOnce) continue
      return { ...source, offset: undecided, outage }
    }
  }
}

/**
 * Anything that is not known to be ours is treated as if it were: fail closed, keep order. Its kind is named, its own words
 * are not: they might hold what no log may. They stand in the cause.
 */
export function outageOf(error: unknown): Outage {
  if (error instanceof Outage) return error
  const kind = error instanceof Error && KIND.test(error.name) ? error.name : typeof error
  return new Outage('unexpected', `an error that nobody expected (${kind}): see its cause, and report it`, {
    cause: error,
  })
}

/** What a class may be called: a name that somebody has set may be anything. */
const KIND = /^[A-Za-z][A-Za-z0-9_]{0,63}$/

/** The first record at or after an offset; the offset itself where there is none. */
function firstFrom(slice: SourceSlice, next: bigint): bigint {
  return slice.records.find(({ offset }) => offset >= next)?.offset ?? next
}

/**
 * Decides what is left of a slice, in one transaction or several. Resolves to the outage that it stopped at, with all
 * before it committed; rejects where a commit failed, with the lane of no more use.
 */
async function decideAll(
  lane: Lane,
  slice: SourceSlice,
  parts: IngestParts,
  deadline: number,
): Promise<Outage | undefined> {
  const records = slice.records.filter(({ offset }) => offset >= lane.next)
  if (records.length === 0) return undefined
  const { clock } = parts
  // Whoever we wait for leaves time to commit what was decided without them.
  const until = deadline - parts.settings.reserveMs
  if (clock.now() >= until) return lateOutage()
  const gate = await gateFor(lane, parts, until)
  const { examined, stop } = examineAll(records, gate, lane.replay)
  const asked = wantedKeys(examined, gate, lane.replay)
  // Half of that time, so that a key that does not come leaves the other half for those that have.
  const now = clock.now()
  const keys = await parts.dataKeys.prepare(asked.requests, now + (until - now) / 2)
  let transaction = new Transaction(lane, gate, parts)
  let outage = stop
  try {
    for (const one of examined) {
      let decision, draft
      try {
        if (clock.now() >= until) throw lateOutage()
        decision = decide(one, asked.asking, gate, lane.replay, keys)
        draft = await draftOf(one, decision.verdict, gate, lane.outlet, until)
      } catch (error) {
        outage = outageOf(error)
        break
      }
      if (!transaction.hasRoomFor(draft)) {
        await transaction.commit(deadline)
        transaction = new Transaction(lane, gate, parts)
      }
      decision.apply()
      transaction.add(one.record, draft)
    }
    await transaction.commit(deadline)
    return outage
  } finally {
    keys.release()
    lane.batches.endSlice()
  }
}

const lateOutage = (): Outage =>
  new Outage('deadline', 'no time left for this slice: the rest comes with the next invocation')

/** Looks at each record by itself, up to the first that cannot be judged at all. */
function examineAll(
  records: readonly SourceRecord[],
  gate: Gate,
  replay: ReplayState,
): { examined: readonly Examined[]; stop: Outage | undefined } {
  const examined: Examined[] = []
  let time = replay.time
  for (const record of records) {
    try {
      const one = examine(record, gate, time)
      time = one.time
      examined.push(one)
    } catch (error) {
      return { examined, stop: outageOf(error) }
    }
  }
  return { examined, stop: undefined }
}

/** What records are decided by from now on. */
export async function gateFor(
  lane: Pick<Lane, 'batches'>,
  parts: IngestParts,
  deadline: number,
): Promise<Gate> {
  const { settings, clock, dataKeys } = parts
  const [directory, contracts, pseudonyms] = await Promise.all([
    parts.directory.snapshot(deadline),
    parts.contracts(deadline),
    parts.pseudonyms(deadline),
  ])
  return {
    audience: settings.name,
    maxValueBytes: settings.maxValueBytes,
    directory,
    contracts,
    dataKeys,
    pseudonyms,
    batches: lane.batches,
    channelOf: (topic) => settings.channelOf(topic),
    now: () => clock.now(),
  }
}

/** A source partition that this process holds. */
export interface Lane {
  readonly source: TopicPartition
  readonly session: SinkSession
  readonly outlet: Outlet
  readonly batches: ProvenBatches
  readonly replay: ReplayState
  /** As of the last commit. */
  head: AuditHead
  next: bigint
  control: ControlChain
}

/** The source partitions that this process holds, each used by one slice at a time. */
export class Lanes {
  readonly #parts: IngestParts
  readonly #open = new Map<string, Lane>()
  readonly #busy = new Map<string, Promise<unknown>>()
  /** One session per source partition and process, however often it is taken over: numbers are never given twice. */
  readonly #senders = new Map<string, Pick<Outlet, 'numbers' | 'sealingKeys'>>()
  readonly #partitions = new Map<string, { readonly count: number; readonly at: number }>()

  constructor(parts: IngestParts) {
    this.#parts = parts
  }

  /** Runs `work` when no other slice of this partition is under way. */
  async alone<T>(source: TopicPartition, work: () => Promise<T>): Promise<T> {
    const name = laneName(source)
    const before = this.#busy.get(name) ?? Promise.resolve()
    const mine = before.then(work, work)
    const settled = mine.catch(() => undefined)
    this.#busy.set(name, settled)
    try {
      return await mine
    } finally {
      if (this.#busy.get(name) === settled) this.#busy.delete(name)
    }
  }

  /**
   * The lane of a source partition: the one at hand, unless the records begin before what it has decided, which may mean
   * that somebody moved the partition back. Beyond it there may be a gap, as control records leave them, or another's
   * work: then that other has fenced this lane, and its commit fails with `fenced`.
   */
  async open(source: TopicPartition, first: bigint, deadline: number): Promise<Lane> {
    const name = laneName(source)
    const held = this.#open.get(name)
    if (held !== undefined && held.next <= first) return held
    this.discard(source)
    const session = await this.#parts.sink.open(source, deadline)
    try {
      const lane = await this.#laneOf(source, session, deadline)
      this.#open.set(name, lane)
      return lane
    } catch (error) {
      closeQuietly(session)
      throw error
    }
  }

  discard(source: TopicPartition): void {
    const name = laneName(source)
    const lane = this.#open.get(name)
    this.#open.delete(name)
    if (lane === undefined) return
    closeQuietly(lane.session)
  }

  keyCounts(): DataKeyCounts {
    return sumCounts([...this.#senders.values()].map(({ sealingKeys }) => sealingKeys.counts()))
  }

  async close(): Promise<void> {
    await Promise.all(this.#busy.values())
    const lanes = [...this.#open.values()]
    this.#open.clear()
    for (const sender of this.#senders.values()) sender.sealingKeys.close()
    this.#senders.clear()
    await Promise.allSettled(lanes.map(({ session }) => session.close()))
  }

  async #laneOf(source: TopicPartition, session: SinkSession, deadline: number): Promise<Lane> {
    const { settings } = this.#parts
    const { next, state } = session.position
    const { head, homes, control, replay } = parseState(state, settings.limits, session.maxStateBytes)
    const { auditTopic, quarantineTopic } = settings.outlet
    const auditPartition =
      homes?.audit ?? auditPartitionOf(source, await this.#partitionsOf(auditTopic, deadline))
    const quarantinePartition =
      homes?.quarantine ?? auditPartitionOf(source, await this.#partitionsOf(quarantineTopic, deadline))
    const outlet: Outlet = {
      names: settings.outlet,
      ...this.#senderOf(source),
      auditPartition,
      quarantinePartition,
      maxBatchBytes: session.maxBatchBytes,
      kidBytes: this.#parts.signer.kid.length,
      partitionsOf: (topic, until) => this.#partitionsOf(topic, until),
    }
    return { source, session, outlet, batches: new ProvenBatches(), replay, head, next, control }
  }

  #senderOf(source: TopicPartition): Pick<Outlet, 'numbers' | 'sealingKeys'> {
    const name = laneName(source)
    const known = this.#senders.get(name)
    if (known !== undefined) return known
    const sender = { numbers: new NumberedSession(random(16)), sealingKeys: this.#parts.newSealingKeys() }
    this.#senders.set(name, sender)
    return sender
  }

  /** Partitions may be added to a topic while we run. */
  async #partitionsOf(topic: string, deadline: number): Promise<number> {
    const now = this.#parts.clock.now()
    const known = this.#partitions.get(topic)
    if (known !== undefined && now >= known.at && now - known.at < PARTITIONS_MAX_AGE_MS) return known.count
    const count = await this.#parts.sink.partitionsOf(topic, deadline)
    this.#partitions.set(topic, { count, at: now })
    return count
  }
}

const PARTITIONS_MAX_AGE_MS = 300_000

const laneName = ({ topic, partition }: TopicPartition): string => `${topic}/${partition}`

/** Nothing is owed to a session that is given up: the next holder fences it. */
function closeQuietly(session: SinkSession): void {
  session.close().catch(() => undefined)
}
