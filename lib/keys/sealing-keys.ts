/**
 * Data keys on the sealing side (keys.md §2, sealed-event.md §4): one per KEK, issuer, audience and event type, bounded
 * by count and age, the next one fetched before the old one runs out.
 */
import type { DataKey } from '../envelope/crypto.ts'
import type { Kek } from '../ports.ts'

/** What one data key serves. A session (one producer's run) is one `SealingKeys`. */
export interface SealingScope {
  readonly kek: Kek
  readonly iss: string
  readonly aud: string
  /** The event type, `ce.type`. */
  readonly type: string
}

/** Seals one event; must be done with the key when it returns. `wrapped` is shared: do not change it. */
export type SealingUse<T> = (key: DataKey, wrapped: Uint8Array) => T

export interface SealingKeys {
  /** Lends a valid key at once, or gives undefined where one must be fetched first. Counts as one use of it. */
  tryLend<T>(scope: SealingScope, use: SealingUse<T>): { readonly value: T } | undefined
  /** Lends a valid key, fetched if need be. Rejects with `Outage` where there is none to be had: never an expired key. */
  lend<T>(scope: SealingScope, deadline: number, use: SealingUse<T>): Promise<T>
  /** Drops and wipes everything. */
  close(): void
}
