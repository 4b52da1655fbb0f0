/**
 * The first position of a source partition under a raised epoch (exactly-once.md §2): it is decided anew from an offset
 * on, with no memory of replays, but goes on in the chains that stand, since one audit tells of all epochs.
 */
import { controlTopicOf } from '../audit/entry.ts'
import { auditPartitionOf, FIRST_HEAD, type Segment, segmentKey } from '../audit/segment.ts'
import { ConfigError } from '../errors.ts'
import type { TopicPartition } from '../ports.ts'
import { openChainEnds } from './chain-ends.ts'
import { encodeState, NO_CONTROL } from './position.ts'
import { ReplayState } from './replay.ts'
import type { RestoreParts } from './restore.ts'

const CALL_MS = 30_000

/**
 * @param next the first offset that is to be decided
 * Rejects with `ConfigError` where there is a position, or the audit knows this epoch or a later one; with `Outage` where
 * something does not answer. Nothing is changed then, but for the fence.
 */
export async function beginEpoch(
  source: TopicPartition,
  next: bigint,
  { ingest, reader, positions }: RestoreParts,
  onProgress: (records: number) => void,
): Promise<void> {
  const { clock, settings, sink } = ingest
  const { quarantineTopic } = settings.outlet
  const chain = segmentKey(source)
  const control = segmentKey({ topic: controlTopicOf(source.topic), partition: source.partition })
  const ends = await openChainEnds([chain, control], { ingest, reader }, onProgress, clock.now() + CALL_MS)
  refuseExisting(source, (await positions.show(source, clock.now() + CALL_MS)) !== undefined)
  // What takes long before the partition is taken over; behind the fence only what has come since.
  await ends.read(source)
  const session = await positions.repair(source, clock.now() + CALL_MS)
  try {
    refuseExisting(source, session.found !== undefined)
    await ends.read(source)
    const last = ends.last(chain)
    if (last !== undefined) refuseKnown(source, last, settings.epoch)
    const deadline = clock.now() + CALL_MS
    const quarantines = await sink.partitionsOf(quarantineTopic, deadline)
    const told = ends.last(control)
    const home = ends.homeOf(chain)
    const state = encodeState({
      head: headOf(last),
      homes:
        home === undefined ? undefined : { audit: home, quarantine: auditPartitionOf(source, quarantines) },
      control: told === undefined ? NO_CONTROL : { head: headOf(told), count: told.next, time: told.time },
      replay: new ReplayState(settings.limits, session.maxStateBytes),
    })
    await session.commit([], { next, state }, deadline)
  } finally {
    await session.close()
  }
}

const headOf = (last: Segment | undefined): typeof FIRST_HEAD =>
  last === undefined ? FIRST_HEAD : { sequence: last.sequence, hash: last.hash }

function refuseExisting(source: TopicPartition, exists: boolean): void {
  if (!exists) return
  const fix = 'Nothing is to be done for a first start; to reprocess, raise the epoch further.'
  throw refusal(source, 'It has a position of this epoch already.', fix)
}

function refuseKnown(source: TopicPartition, last: Segment, epoch: number): void {
  if (last.epoch < epoch) return
  const fix = `Restore its position with sealgate position restore, or set an epoch above ${last.epoch}.`
  throw refusal(source, `The audit has decisions of epoch ${last.epoch} already.`, fix)
}

const refusal = ({ topic, partition }: TopicPartition, what: string, fix: string): ConfigError =>
  new ConfigError([{ where: `${topic}-${partition}`, what, fix }])
