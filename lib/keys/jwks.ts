/** The public half of the directory for consumers in any language (keys.md §1): RFC 7517, and by kid. */
import { exportPublicJwk, type PublicJwk } from '../envelope/crypto.ts'
import { ED25519 } from '../envelope/suite.ts'
import type { DirectorySnapshot, KeyState, SigningKeyRow } from './directory.ts'

/** A JWK (RFC 7517 §4) with what else its user must know to judge a signature, as step 4 of sealed-event.md §5 does. */
export interface PublishedKey extends PublicJwk {
  /** base64url of the wire bytes. */
  readonly kid: string
  readonly use: 'sig'
  /** JOSE's name for it (RFC 9864, RFC 7518): `ES256` where COSE says ESP256. */
  readonly alg: 'Ed25519' | 'ES256'
  /** Whose key it is: what it signs for any other issuer is refused. */
  readonly iss: string
  readonly state: KeyState
  /** Seconds since 1970, both included. */
  readonly notBefore: number
  readonly notAfter: number
  /** Nothing counts that was signed in this second or later. */
  readonly compromisedAt: number | null
}

export interface Jwks {
  readonly keys: readonly PublishedKey[]
}

/**
 * The keys whose signatures may count. A library that knows only RFC 7517 takes every key in such a set for good, so
 * those that are not yet valid, suspended or compromised are left out: `publishedKey` tells their state.
 */
export function jwksOf({ signingKeys }: DirectorySnapshot): Jwks {
  return {
    keys: signingKeys
      .filter(({ state, compromisedAt }) => compromisedAt === null && LISTED.has(state))
      .map(published),
  }
}

const LISTED: ReadonlySet<KeyState> = new Set<KeyState>(['active', 'deactivated'])

/** One key by its kid in base64url, whatever its state; undefined where the directory has none. */
export function publishedKey(snapshot: DirectorySnapshot, kid: string): PublishedKey | undefined {
  const bytes = Buffer.from(kid, 'base64url')
  const row = bytes.toString('base64url') === kid ? snapshot.signingKey(bytes) : undefined
  return row && published(row)
}

function published(row: SigningKeyRow): PublishedKey {
  const { kidText, iss, key, state, notBefore, notAfter, compromisedAt } = row
  return {
    ...exportPublicJwk(key),
    kid: kidText,
    use: 'sig',
    alg: key.suite === ED25519 ? 'Ed25519' : 'ES256',
    iss,
    state,
    notBefore,
    notAfter,
    compromisedAt,
  }
}
