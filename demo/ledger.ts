/** What the log says came of it all: counted from the audit topic, the quarantine and the outputs, never assumed. */
import type { Topics } from '../cli/world.ts'
import { parseEntry, placeOf, recordOf } from '../lib/audit/entry.ts'
import { parseSegment, segmentKey } from '../lib/audit/segment.ts'
import type { RejectionCode } from '../lib/errors.ts'
import type { ReadableSource } from '../lib/local/poller-lane.ts'
import type { SourceRecord } from '../lib/ports.ts'

/** An entry of the audit topic, and where it stands there. */
export interface EntryPlace {
  readonly auditPartition: number
  readonly auditOffset: bigint
  /** `topic/partition/offset` of the record that was decided. */
  readonly record: string
}

/** A source partition's last segment: what somebody who cuts the end would cut. */
export interface Tail {
  readonly source: string
  readonly auditPartition: number
  readonly auditOffset: bigint
  /** The first source offset that it covers. */
  readonly from: bigint
  readonly entries: number
}

export interface Ledger {
  readonly entries: number
  readonly segments: number
  readonly admitted: number
  readonly rejected: ReadonlyMap<RejectionCode, number>
  /** By `channel`, by `consumer`: what the entries of admitted events say was written. */
  readonly outputs: ReadonlyMap<string, ReadonlyMap<string, number>>
  /** What became of the records asked for: `admitted`, or the code. */
  readonly asked: ReadonlyMap<string, string>
  /** For the tampering: a refusal, and two entries of one source partition that follow each other. */
  readonly refusal: EntryPlace | undefined
  readonly neighbours: readonly [EntryPlace, EntryPlace] | undefined
  readonly tails: readonly Tail[]
  /** Records that are neither entry nor segment. */
  readonly unreadable: number
}

/** Every committed record of a topic, partition after partition, a list for each read. */
export async function* recordsOf(
  source: ReadableSource,
  topic: string,
): AsyncGenerator<readonly SourceRecord[]> {
  const partitions = await source.partitions(topic)
  for (let partition = 0; partition < partitions; partition++) {
    const { first, end } = await source.offsets({ topic, partition })
    for (let from = first; from < end;) {
      const { records, next } = await source.fetch({ topic, partition }, from, PAGE)
      if (records.length > 0) yield records
      if (next <= from) break
      from = next
    }
  }
}

const PAGE = { maxBytes: 1_048_576, maxRecords: 10_000 }

export async function countRecords(source: ReadableSource, topic: string): Promise<number> {
  let count = 0
  for await (const records of recordsOf(source, topic)) count += records.length
  return count
}

/** Reads the audit topic once. `places` are the records (`topic/partition/offset`) whose end is to be known by itself. */
export async function readLedger(
  { records: source, auditTopic }: Topics,
  places: ReadonlySet<string>,
): Promise<Ledger> {
  const rejected = new Map<RejectionCode, number>()
  const outputs = new Map<string, Map<string, number>>()
  const asked = new Map<string, string>()
  const tails = new Map<string, Tail>()
  let [entries, segments, admitted, unreadable] = [0, 0, 0, 0]
  let refusal: EntryPlace | undefined
  let neighbours: readonly [EntryPlace, EntryPlace] | undefined
  let before: EntryPlace | undefined
  for await (const records of recordsOf(source, auditTopic)) {
    for (const { value, partition, offset } of records) {
      const place = { auditPartition: partition, auditOffset: offset }
      const segment = value === null || value[0] === JSON_OBJECT ? undefined : parseSegment(value)
      if (segment !== undefined) {
        segments++
        before = undefined
        const source = segmentKey(segment)
        tails.set(source, { source, ...place, from: segment.from, entries: segment.count })
        continue
      }
      const entry = value === null ? undefined : parseEntry(value)
      const record = value === null ? undefined : recordOf(value)
      if (entry === undefined || record === undefined || placeOf(record) === undefined) {
        unreadable++
        continue
      }
      entries++
      const here = { ...place, record }
      if (before !== undefined && sourceOf(before.record) === sourceOf(record)) neighbours ??= [before, here]
      before = here
      if (entry.kind === 'event.admitted') {
        admitted++
        for (const { channel, consumer } of entry.outputs) {
          const consumers = outputs.get(channel) ?? new Map<string, number>()
          consumers.set(consumer, (consumers.get(consumer) ?? 0) + 1)
          outputs.set(channel, consumers)
        }
        if (places.has(record)) asked.set(record, 'admitted')
      } else if (entry.kind === 'event.rejected') {
        rejected.set(entry.code, (rejected.get(entry.code) ?? 0) + 1)
        refusal ??= here
        if (places.has(record)) asked.set(record, entry.code)
      }
    }
  }
  return {
    ...{ entries, segments, admitted, rejected, outputs, asked, unreadable },
    ...{ refusal, neighbours, tails: [...tails.values()] },
  }
}

const JSON_OBJECT = 0x7b

const sourceOf = (record: string): string => record.slice(0, record.lastIndexOf('/'))
