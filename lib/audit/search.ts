/**
 * Search over the entries of an audit topic (audit.md §4). It finds; it does not verify: what it finds is proven only
 * where `verifyAudit` finds no break.
 */
import type { RejectionCode } from '../errors.ts'
import type { AuditPlace } from './chain.ts'
import { type Entry, parseEntry, principalOf, recordKey, resourceOf } from './entry.ts'
import { parseSegment } from './segment.ts'
import type { AuditSource } from './verification.ts'

/** What to look for; all that is given must fit. */
export interface AuditQuery {
  /** A proven principal, `User:name` or `name`, with `*` for any characters. Never what a record merely claims. */
  readonly principal?: string
  /** An entry's `event_type` or its event's CloudEvents type, proven or claimed; with `*` for any characters. */
  readonly type?: string
  readonly code?: RejectionCode
  /** Milliseconds since 1970, [since, until). */
  readonly sinceMs?: number
  readonly untilMs?: number
  /** What it was done to, as in `resource`: `key:…`, `directory:42`, `topic:orders`; with `*` for any characters. */
  readonly resource?: string
  /** `topic`, `topic/partition` or `topic/partition/offset` of the source record. */
  readonly record?: string
}

export interface FoundEntry extends AuditPlace {
  readonly entry: Entry
}

export interface SearchTotals {
  /** Entries that were looked at. */
  readonly searched: number
  readonly found: number
  /** Records that are neither an entry nor a segment of this version. */
  readonly unreadable: number
  /** Of those found, by what they are. */
  readonly byType: ReadonlyMap<string, number>
  readonly byCode: ReadonlyMap<RejectionCode, number>
  /** At most `MAX_PRINCIPALS` names; the rest under `(others)`. Entries without a proven principal under `(not proven)`. */
  readonly byPrincipal: ReadonlyMap<string, number>
}

export const MAX_PRINCIPALS = 1_000

const PROGRESS_EVERY = 10_000

/** Reads all of the audit, calls `onFound` for each entry that fits, and adds up. Rejects with what the source rejects with. */
export async function searchAudit(
  source: AuditSource,
  query: AuditQuery,
  onFound: (found: FoundEntry) => void,
  onProgress?: (records: number) => void,
): Promise<SearchTotals> {
  const counts = { searched: 0, found: 0, unreadable: 0 }
  const byType = new Map<string, number>()
  const byCode = new Map<RejectionCode, number>()
  const byPrincipal = new Map<string, number>()
  let records = 0
  const partitions = await source.partitions()
  for (let auditPartition = 0; auditPartition < partitions; auditPartition++) {
    for await (const { offset, value } of source.read(auditPartition)) {
      if (++records % PROGRESS_EVERY === 0) onProgress?.(records)
      const entry = value === null ? undefined : parseEntry(value)
      if (entry === undefined) {
        if (value === null || parseSegment(value) === undefined) counts.unreadable += 1
        continue
      }
      counts.searched += 1
      if (!fits(entry, query)) continue
      counts.found += 1
      count(byType, entry.kind)
      if (entry.kind === 'event.rejected') count(byCode, entry.code)
      const principal = principalOf(entry) ?? '(not proven)'
      count(
        byPrincipal,
        byPrincipal.has(principal) || byPrincipal.size < MAX_PRINCIPALS ? principal : '(others)',
      )
      onFound({ entry, auditPartition, auditOffset: offset })
    }
  }
  onProgress?.(records)
  return { ...counts, byType, byCode, byPrincipal }
}

function count<Key>(counts: Map<Key, number>, key: Key): void {
  counts.set(key, (counts.get(key) ?? 0) + 1)
}

function fits(entry: Entry, query: AuditQuery): boolean {
  const { principal, type, code, sinceMs = -Infinity, untilMs = Infinity, record, resource } = query
  if (entry.timeMs < sinceMs || entry.timeMs >= untilMs) return false
  if (code !== undefined && (entry.kind !== 'event.rejected' || entry.code !== code)) return false
  if (record !== undefined && !placesOf(entry).some((place) => isPartOf(place, record))) return false
  if (resource !== undefined && !matchesGlob(resourceOf(entry), resource)) return false
  if (principal !== undefined) {
    const name = principalOf(entry)
    if (name === null) return false
    if (!matchesGlob(name, principal) && !matchesGlob(name, `User:${principal}`)) return false
  }
  return type === undefined || matchesGlob(entry.kind, type) || matchesGlob(eventTypeOf(entry) ?? '', type)
}

const eventTypeOf = (entry: Entry): string | undefined =>
  entry.kind === 'event.admitted' || entry.kind === 'event.rejected' ? entry.event?.type : undefined

/** Of a redriven record also where it first came in, and where it stood in quarantine. */
function placesOf(entry: Entry): string[] {
  const places = [recordKey(entry.topic, entry.partition, entry.offset)]
  if ('redriven' in entry)
    for (const { topic, partition, offset } of [entry.redriven.source, entry.redriven.quarantine])
      places.push(recordKey(topic, partition, offset))
  return places
}

const isPartOf = (record: string, place: string): boolean =>
  record === place || record.startsWith(`${place}/`)

/** Whether a pattern fits the whole text: `*` stands for any characters, everything else for itself. Without backtracking into earlier stars. */
export function matchesGlob(text: string, pattern: string): boolean {
  const [first = '', ...rest] = pattern.split('*')
  const last = rest.pop()
  if (last === undefined) return text === pattern
  if (!text.startsWith(first)) return false
  let from = first.length
  for (const part of rest) {
    const at = text.indexOf(part, from)
    if (at < 0) return false
    from = at + part.length
  }
  return text.length - last.length >= from && text.endsWith(last)
}
