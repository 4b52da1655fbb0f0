/** The audit topic of the embedded log, and the heads in its positions, for verification and search. */
import { parseState } from '../admission/position.ts'
import { type AuditHead, segmentKey } from '../audit/segment.ts'
import type { AuditRecord, AuditSource } from '../audit/verification.ts'
import type { PositionAdmin, TopicPartition } from '../ports.ts'
import type { Log } from './log.ts'

/** Where the heads come from: without them no one can see that the tail was cut. */
export interface HeadsFrom {
  readonly positions: PositionAdmin
  /** Every source partition that the deployment has. */
  readonly sources: readonly TopicPartition[]
  /** Milliseconds since 1970. */
  readonly deadline: number
}

export function localAuditSource(log: Log, topic: string, heads?: HeadsFrom): AuditSource {
  const source: AuditSource = {
    partitions: async () => (await log.endOffsets(topic)).length,
    read: (partition) => readToEnd(log, topic, partition),
  }
  return heads === undefined ? source : { ...source, heads: () => readHeads(heads) }
}

async function* readToEnd(log: Log, topic: string, partition: number): AsyncGenerator<AuditRecord> {
  const end = (await log.endOffsets(topic))[partition] ?? 0n
  for (let from = 0n; from < end;) {
    const { records, next } = await log.read(topic, partition, from)
    for (const record of records) if (record.offset < end) yield record
    if (next <= from) return
    from = next
  }
}

async function readHeads({
  positions,
  sources,
  deadline,
}: HeadsFrom): Promise<ReadonlyMap<string, AuditHead>> {
  const heads = new Map<string, AuditHead>()
  for (const source of sources) {
    const position = await positions.show(source, deadline)
    if (position === undefined) continue
    // Nothing is decided by this copy: the issuers' limits do not matter to it.
    const limits = { maxSessions: Infinity, newDataKeysPerMinute: Infinity }
    heads.set(segmentKey(source), parseState(position.state, limits, Infinity).head)
  }
  return heads
}
