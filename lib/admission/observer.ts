/**
 * Told what the gate does, for logs, metrics and traces (docs/monitoring/README.md). It decides nothing, and what it does
 * or fails to do changes no verdict. It is given no payload, no key and no words of a record, but for a slice's own
 * records, of which only place, time and trace context are to be told.
 */
import type { RejectionCode } from '../errors.ts'
import type { TopicPartition } from '../ports.ts'
import type { SourceSlice, Stop } from './slice.ts'

/** A transaction that has been committed, of records of one source partition. */
export interface Committed extends TopicPartition {
  readonly admitted: number
  readonly rejected: ReadonlyMap<RejectionCode, number>
  /** Entries that the audit has gained; its segments are not among them. */
  readonly entries: number
  /** Milliseconds since the broker took the first of the records; undefined where their producer set that time. */
  readonly ageMs: number | undefined
}

export interface Observer {
  /** Does a slice's work, so that its time and what it calls can be told together. Resolves to what stopped it, if anything. */
  slice(slice: SourceSlice, work: () => Promise<Stop | undefined>): Promise<Stop | undefined>
  committed(transaction: Committed): void
}

/** Several as one. What they throw is dropped: a slice's work is done once, whatever becomes of those who look on. */
export function observers(all: readonly Observer[]): Observer {
  return {
    slice: (slice, work) =>
      all.reduceRight<() => Promise<Stop | undefined>>(
        (inner, one) => () => observed(one, slice, inner),
        work,
      )(),
    committed: (transaction) => {
      for (const one of all) {
        try {
          one.committed(transaction)
        } catch {
          // Committed is committed.
        }
      }
    },
  }
}

async function observed(
  observer: Observer,
  slice: SourceSlice,
  work: () => Promise<Stop | undefined>,
): Promise<Stop | undefined> {
  let done: Promise<Stop | undefined> | undefined
  const once = (): Promise<Stop | undefined> => (done ??= work())
  try {
    return await observer.slice(slice, once)
  } catch {
    return once()
  }
}
