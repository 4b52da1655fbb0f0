/**
 * Whose keys count (keys.md §1). A snapshot answers look-ups without waiting; a directory keeps one young enough to
 * judge by.
 */
import { Buffer } from 'node:buffer'
import { compareBytes } from '../cbor.ts'
import type { PublicKey } from '../envelope/crypto.ts'
import type { Kek } from '../ports.ts'

/** NIST SP 800-57 states; a destroyed key is no row at all. */
export const KEY_STATES = ['pre-activation', 'active', 'suspended', 'deactivated', 'compromised'] as const

export type KeyState = (typeof KEY_STATES)[number]

/** One signing key of the directory. Times are seconds since 1970. */
export interface SigningKeyRow {
  /** 1 to 64 bytes, as on the wire. */
  readonly kid: Uint8Array
  /** The same in base64url. */
  readonly kidText: string
  readonly iss: string
  readonly key: PublicKey
  readonly state: KeyState
  /** The first second in which it may sign. */
  readonly notBefore: number
  /** The last second in which it may sign. */
  readonly notAfter: number
  /** From this second on nothing signed with it counts, whatever the state. */
  readonly compromisedAt: number | null
}

/** One key-encryption key, and who may seal under it. Withdrawal is absence. */
export interface KekRow extends Kek {
  /** 1 to 64 bytes, as on the wire; `kekId` is its UTF-8 text. */
  readonly kekIdBytes: Uint8Array
  readonly iss: readonly string[]
}

/** One version of the directory, already trusted. Look-ups cost a map access each. */
export interface DirectorySnapshot {
  readonly version: number
  /** Seconds since 1970. */
  readonly issuedAt: number
  /** Seconds since 1970. */
  readonly expiresAt: number
  readonly signingKeys: readonly SigningKeyRow[]
  readonly keks: readonly KekRow[]
  /** The row of a kid; undefined is a definite answer only under a fresh copy (`DirectoryCopy.fresh`). */
  signingKey(kid: Uint8Array): SigningKeyRow | undefined
  /** The KEK, where there is one of that name and `iss` may use it; else undefined: `undecryptable`, without a call. */
  kek(kekId: Uint8Array | string, iss: string): Kek | undefined
}

/** What a slice judges by. */
export interface DirectoryCopy {
  readonly snapshot: DirectorySnapshot
  /** Whether the copy was at most 60 s old when the slice began: under an older one an unknown kid is an outage. */
  readonly fresh: boolean
}

/** Keeps a copy of the directory young. */
export interface Directory {
  /**
   * To be asked once when a slice begins. Reads anew where the copy is over 60 s old, and serves the old copy until it
   * is 5 minutes old if that fails; after that rejects with `Outage('directory-unavailable')`. Nothing else causes a read.
   */
  snapshot(deadline: number): Promise<DirectoryCopy>
  /** Calls `listener` with each new snapshot whose KEKs differ from those before; for `DataKeys.retain`. */
  onKeksChanged(listener: (snapshot: DirectorySnapshot) => void): void
}

/** Step 4 of sealed-event.md §5: whether this key may sign at `t`, the judging time in seconds. */
export function maySign(row: SigningKeyRow, t: number): boolean {
  if (t < row.notBefore || t > row.notAfter) return false
  if (row.compromisedAt !== null && t >= row.compromisedAt) return false
  switch (row.state) {
    case 'active':
    case 'deactivated':
      return true
    case 'compromised':
      return row.compromisedAt !== null
    case 'pre-activation':
    case 'suspended':
      return false
  }
}

/** A map key for bytes: one char a byte, so that no hash need be made. */
export function bytesKey(bytes: Uint8Array): string {
  const buffer = Buffer.isBuffer(bytes)
    ? bytes
    : Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  return buffer.toString('latin1')
}

/** A snapshot of rows that are already trusted: parsed and verified, or a test's. */
export function snapshotFrom(rows: {
  readonly version: number
  readonly issuedAt: number
  readonly expiresAt: number
  readonly signingKeys: readonly SigningKeyRow[]
  readonly keks: readonly KekRow[]
}): DirectorySnapshot {
  const signingKeys = new Map(rows.signingKeys.map((row) => [bytesKey(row.kid), row]))
  const keks = new Map(rows.keks.map((row) => [bytesKey(row.kekIdBytes), { row, issuers: new Set(row.iss) }]))
  // What was found last: mostly the next event's too, and a map's key costs more than the comparison.
  let signer: SigningKeyRow | undefined
  let wrapper: { readonly row: KekRow; readonly issuers: ReadonlySet<string> } | undefined
  return {
    ...rows,
    signingKey: (kid) => {
      if (signer === undefined || compareBytes(signer.kid, kid) !== 0) signer = signingKeys.get(bytesKey(kid))
      return signer
    },
    kek: (kekId, iss) => {
      const bytes = typeof kekId === 'string' ? Buffer.from(kekId) : kekId
      if (wrapper === undefined || compareBytes(wrapper.row.kekIdBytes, bytes) !== 0)
        wrapper = keks.get(bytesKey(bytes))
      return wrapper?.issuers.has(iss) === true ? wrapper.row : undefined
    },
  }
}
