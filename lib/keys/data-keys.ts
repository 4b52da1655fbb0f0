/**
 * Data keys on the opening side (keys.md §2): unwrapped once, kept for a while, lent to a synchronous function, wiped.
 */
import type { DataKey } from '../envelope/crypto.ts'
import type { Kek } from '../ports.ts'
import type { DirectorySnapshot } from './directory.ts'

/** Names one data key. Two requests that differ in any part never share a key (threats.md 11). */
export interface KeyRequest {
  readonly iss: string
  readonly aud: string
  /** The event type, `ce.type`. */
  readonly type: string
  /** As on the wire. */
  readonly kekId: Uint8Array
  readonly wrapped: Uint8Array
  /** What `DirectorySnapshot.kek(kekId, iss)` gave: without it there is no request. */
  readonly kek: Kek
}

/** The keys of one slice: what was prepared stays at hand, whatever others do, until `release`. */
export interface PreparedKeys {
  /**
   * Lends the key to `use`, which must be done with it when it returns. Throws `Rejection('undecryptable')` where the
   * key service said a definite no, `Outage` where it could not say or the KEK has been withdrawn since, `TypeError`
   * for a request that was not prepared.
   */
  lend<T>(request: KeyRequest, use: (key: DataKey) => T): T
  /** The slice is over: the keys may be wiped. To be called in a `finally`; a second call does nothing. */
  release(): void
}

/** Since the start; `alive` and `oldestAgeMs` are of this moment. */
export interface DataKeyCounts {
  /** Calls of the key service. */
  readonly calls: number
  /** Distinct keys of a slice that were there already (known refusals too). */
  readonly hits: number
  /** Distinct keys of a slice that another slice was just fetching. */
  readonly waits: number
  /** Calls that ended in an outage. */
  readonly failures: number
  readonly alive: number
  readonly oldestAgeMs: number
}

export interface DataKeys {
  /** Whether `prepare` would answer this request without a call: known, as a key or as a definite no. */
  holds(request: KeyRequest): boolean
  /**
   * Unwraps a slice's distinct missing keys side by side, at most 16 at a time, each in one call however many slices
   * ask. Never rejects: what went wrong is thrown by `lend`, for the requests that it concerns.
   */
  prepare(requests: Iterable<KeyRequest>, deadline: number): Promise<PreparedKeys>
  /** Drops and wipes at once every key whose KEK is no longer this snapshot's for its issuer. */
  retain(snapshot: DirectorySnapshot): void
  counts(): DataKeyCounts
  /** Drops and wipes everything. */
  close(): void
}
