/** An audit topic as it is read, and the heads in the positions, for verification and search. */
import { setTimeout as sleep } from 'node:timers/promises'
import { headsOf, parseState } from '../admission/position.ts'
import { CONTROL_NAME, controlPlaceOf, parseControlState } from '../audit/control-chain.ts'
import type { AuditHead } from '../audit/segment.ts'
import type { AuditSource } from '../audit/verification.ts'
import { Outage } from '../errors.ts'
import type { PositionAdmin, SourceRecord, TopicPartition } from '../ports.ts'
import type { ReadableSource } from './poller-lane.ts'

/** Where the heads come from: without them no one can see that the tail was cut. */
export interface HeadsFrom {
  readonly positions: PositionAdmin
  /** Every source partition that the deployment has. */
  readonly sources: readonly TopicPartition[]
  /** The deployment's own audit topic, where the control chain has its position. */
  readonly auditTopic: string
  /** Milliseconds since 1970. */
  readonly deadline: number
}

/** Reads an audit topic of the embedded log (`polledLog`) or of a cluster, each partition to its end as it is then. */
export function auditSource(records: ReadableSource, topic: string, heads?: HeadsFrom): AuditSource {
  const source: AuditSource = {
    partitions: () => records.partitions(topic),
    read: (partition) => readToEnd(records, { topic, partition }),
    readOn: (partition, from) => readToWritten(records, { topic, partition }, from),
  }
  return heads === undefined ? source : { ...source, heads: () => readHeads(heads) }
}

/** Every committed record of a partition, up to its end as it is when reading begins. */
export async function* readToEnd(
  records: ReadableSource,
  place: TopicPartition,
): AsyncGenerator<SourceRecord> {
  const { first, end } = await records.offsets(place)
  for (let from = first; from < end;) {
    const page = await records.fetch(place, from, PAGE)
    for (const record of page.records) if (record.offset < end) yield record
    if (page.next <= from) return
    from = page.next
  }
}

/** From an offset on to the end with what open transactions hide, once they have ended. */
async function* readToWritten(
  records: ReadableSource,
  place: TopicPartition,
  from: bigint,
): AsyncGenerator<SourceRecord> {
  const end = await records.writtenEnd(place)
  let until: number | undefined
  for (let next = from; next < end;) {
    const page = await records.fetch(place, next, PAGE)
    for (const record of page.records) if (record.offset < end) yield record
    if (page.next > next) {
      next = page.next
      until = undefined
      continue
    }
    until ??= Date.now() + VISIBLE_MS
    if (Date.now() >= until) {
      const what = `A transaction on ${place.topic}/${place.partition} does not end.`
      throw new Outage(
        'sink-unavailable',
        `${what} Whether its end is cut cannot be told until it does: try again.`,
      )
    }
    await sleep(POLL_MS)
  }
}

/** How long a transaction may take to end: longer than a broker leaves one open whose gate has died. */
const VISIBLE_MS = 40_000
const POLL_MS = 20
const PAGE = { maxBytes: 1_048_576, maxRecords: 10_000 }

/** The heads in the positions. A source without a position has none. */
export async function readHeads({
  positions,
  sources,
  auditTopic,
  deadline,
}: HeadsFrom): Promise<ReadonlyMap<string, AuditHead>> {
  const heads = new Map<string, AuditHead>()
  const control = await positions.show(controlPlaceOf(auditTopic), deadline)
  if (control !== undefined) heads.set(CONTROL_NAME, parseControlState(control.state).head)
  for (const source of sources) {
    const position = await positions.show(source, deadline)
    if (position === undefined) continue
    // Nothing is decided by this copy: the issuers' limits do not matter to it.
    const limits = { maxSessions: Infinity, newDataKeysPerMinute: Infinity }
    for (const [name, head] of headsOf(source, parseState(position.state, limits, Infinity)))
      heads.set(name, head)
  }
  return heads
}
