/**
 * What a source partition's position carries beside the next offset (exactly-once.md §2), as the sink's opaque bytes in
 * deterministic CBOR: `[version, audit sequence, audit hash, audit partition, quarantine partition, control sequence,
 * control hash, control count, control time, replay state]`.
 */
import { controlTopicOf } from '../audit/entry.ts'
import { type AuditHead, FIRST_HEAD, segmentKey } from '../audit/segment.ts'
import { CborError, CborReader, CborWriter, MAJOR } from '../cbor.ts'
import { Outage } from '../errors.ts'
import type { Position, TopicPartition } from '../ports.ts'
import { type IssuerLimits, ReplayState } from './replay.ts'

/** What the next slice of a source partition starts from. */
export interface LaneState {
  readonly head: AuditHead
  /** Where this source partition's audit and quarantine go: fixed at its first slice, whatever becomes of the topics. */
  readonly homes: { readonly audit: number; readonly quarantine: number } | undefined
  readonly control: ControlChain
  readonly replay: ReplayState
}

/** Where the chain ends that tells what operators did to this partition (audit.md §2). */
export interface ControlChain {
  readonly head: AuditHead
  /** Its entries so far: its offsets are their own count. */
  readonly count: bigint
  /** Of its last segment, seconds since 1970. */
  readonly time: number
}

/** A chain that has not begun. */
export const NO_CONTROL: ControlChain = { head: FIRST_HEAD, count: 0n, time: 0 }

const VERSION = 2
const HASH_BYTES = 32
/** What a position takes beside its replay state, at most. */
const OWN_BYTES = 128

/** The heads of a source partition's chains, by their names. */
export function headsOf(
  { topic, partition }: TopicPartition,
  { head, control }: Pick<LaneState, 'head' | 'control'>,
): ReadonlyMap<string, AuditHead> {
  const heads = new Map([[segmentKey({ topic, partition }), head]])
  const { sequence } = control.head
  if (sequence > 0) heads.set(segmentKey({ topic: controlTopicOf(topic), partition }), control.head)
  return heads
}

/** A first start, made by name: there is no other way to come by a position that knows nothing. */
export function firstPosition(next: bigint): Position {
  const limits = { maxSessions: 0, newDataKeysPerMinute: 0 }
  return {
    next,
    state: encodeState({
      ...{ head: FIRST_HEAD, homes: undefined, control: NO_CONTROL },
      replay: new ReplayState(limits, 0),
    }),
  }
}

export function encodeState(lane: LaneState): Uint8Array {
  const writer = new CborWriter(256)
  writer.head(MAJOR.array, 10)
  writer.integer(VERSION)
  writer.integer(lane.head.sequence)
  writer.byteString(lane.head.hash)
  for (const home of [lane.homes?.audit, lane.homes?.quarantine]) {
    if (home === undefined) writer.nil()
    else writer.integer(home)
  }
  writer.integer(lane.control.head.sequence)
  writer.byteString(lane.control.head.hash)
  writer.integer(lane.control.count)
  writer.integer(lane.control.time)
  writer.byteString(lane.replay.encode())
  return writer.finish()
}

/** Reads what `encodeState` wrote. Anything else, nothing at all among it, is `Outage('position-damaged')`: never a fresh start. */
export function parseState(bytes: Uint8Array, limits: IssuerLimits, maxStateBytes: number): LaneState {
  try {
    const reader = new CborReader(bytes)
    if (reader.array() !== 10 || reader.uint() !== VERSION) throw new CborError('another shape')
    const head = headOf(reader)
    const audit = reader.countOrNil()
    const quarantine = reader.countOrNil()
    const control = { head: headOf(reader), count: BigInt(reader.uint()), time: reader.count() }
    const replay = ReplayState.parse(reader.byteString(), limits, maxStateBytes - OWN_BYTES)
    reader.end()
    const homes = audit === undefined || quarantine === undefined ? undefined : { audit, quarantine }
    return { head, homes, control, replay }
  } catch (cause) {
    if (!(cause instanceof CborError)) throw cause
    throw new Outage('position-damaged', 'the position does not parse: see `sealgate position show`', {
      cause,
    })
  }
}

function headOf(reader: CborReader): AuditHead {
  const sequence = reader.count()
  const hash = reader.byteString()
  if (hash.length !== HASH_BYTES) throw new CborError('a hash of another size')
  return { sequence, hash }
}
