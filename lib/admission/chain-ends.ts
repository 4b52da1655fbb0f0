/** How far chains of the audit have come, by the whole of it: for a position that goes on where none is left. */
import { AuditFollower } from '../audit/follower.ts'
import type { Segment } from '../audit/segment.ts'
import type { SourceRecord, TopicPartition } from '../ports.ts'
import { AuditReader, auditTrustOf } from './audit-reader.ts'
import type { RestoreParts } from './restore.ts'

export interface ChainEnds {
  /** Reads all that is written by now and was not read before; `place` is what it is read for. */
  read(place: TopicPartition): Promise<void>
  /** A chain's last segment; undefined where the audit has none. */
  last(chain: string): Segment | undefined
  /** The audit partition in which that stands. */
  homeOf(chain: string): number | undefined
}

/**
 * @param chains their names (`segmentKey`)
 * @param deadline for the directory: whose segments count
 */
export async function openChainEnds(
  chains: readonly string[],
  { ingest, reader }: Pick<RestoreParts, 'ingest' | 'reader'>,
  onProgress: (records: number) => void,
  deadline: number,
): Promise<ChainEnds> {
  const follower = new AuditFollower(await auditTrustOf(ingest, deadline), {
    closed: () => undefined,
    broken: () => undefined,
  })
  for (const chain of chains) follower.follow(chain)
  const homes = new Map<string, number>()
  const take = (page: readonly SourceRecord[]): Promise<void> => {
    for (const record of page) {
      const before = chains.map((chain) => follower.last(chain))
      follower.add(record)
      for (const [index, chain] of chains.entries())
        if (follower.last(chain) !== before[index]) homes.set(chain, record.partition)
    }
    return Promise.resolve()
  }
  const audit = new AuditReader(ingest, reader, take, onProgress)
  return {
    read: (place) => audit.readAll(place),
    last: (chain) => follower.last(chain),
    homeOf: (chain) => homes.get(chain),
  }
}
