/** A signing key in a secret, as a private JWK (RFC 8037, RFC 7518 §6.2), and signing with the one that is current. */
import {
  exportPrivateJwk,
  generateKeyPair,
  importPrivateKey,
  type PrivateJwk,
  type PrivateKey,
  publicKeyOf,
  thumbprint,
} from '../envelope/crypto.ts'
import { ED25519, ESP256, type SignatureSuite } from '../envelope/suite.ts'
import { ConfigError, Outage } from '../errors.ts'
import type { Clock, SecretStore, Signer } from '../ports.ts'
import { localSigner } from './signer.ts'

/** A new key of the same algorithm, as it is kept. */
export function newSigningSecret(suite: SignatureSuite): Uint8Array {
  return Buffer.from(JSON.stringify(exportPrivateJwk(generateKeyPair(suite).privateKey)))
}

/** The key of a secret's value. Throws `ConfigError` that quotes nothing of it. */
export function readSigningSecret(value: Uint8Array, where: string): PrivateKey {
  const jwk = value.length <= MAX_BYTES ? privateJwk(value) : undefined
  const suite = [ED25519, ESP256].find(({ crv }) => crv === jwk?.crv)
  try {
    if (jwk !== undefined && suite !== undefined) return importPrivateKey(suite, jwk)
  } catch (error) {
    if (!(error instanceof TypeError)) throw error
  }
  const fix = 'Make its value {"kty","crv","x","d"} of Ed25519, or with "y" of P-256 (sealgate keys new).'
  throw new ConfigError([{ where, what: 'It is no private signing key as a JWK.', fix }])
}

/** The RFC 7638 thumbprint in base64url, as the key directory has it. */
export const kidOf = (key: PrivateKey): string => thumbprint(publicKeyOf(key)).toString('base64url')

const MAX_BYTES = 1024
const FIELDS: ReadonlySet<string> = new Set(['kty', 'crv', 'x', 'y', 'd'])

function privateJwk(value: Uint8Array): PrivateJwk | undefined {
  let parsed: unknown
  try {
    parsed = JSON.parse(Buffer.from(value).toString())
  } catch {
    // A parser's message quotes what it read.
    return undefined
  }
  if (typeof parsed !== 'object' || parsed === null) return undefined
  const texts = new Map<string, string>()
  for (const [name, text] of Object.entries(parsed))
    if (FIELDS.has(name) && typeof text === 'string') texts.set(name, text)
    else return undefined
  const [kty, crv, x, d, y] = ['kty', 'crv', 'x', 'd', 'y'].map((name) => texts.get(name))
  if (kty === undefined || crv === undefined || x === undefined || d === undefined) return undefined
  return { kty, crv, x, d, ...(y !== undefined && { y }) }
}

export interface SecretSignerOptions {
  readonly secrets: SecretStore
  readonly secret: string
  readonly clock: Clock
  /** A signature by an older copy has the secret read anew. */
  readonly maxAgeMs?: number
  /** How old a copy may grow where reading fails: `secretHold` of the rotation must be at least this. */
  readonly holdMs?: number
}

/** Gives a signer of the key that is current; one that was given keeps its key. Rejects with `Outage('signer-unavailable')`. */
export function secretSigners(options: SecretSignerOptions): (deadline: number) => Promise<Signer> {
  const { secrets, secret, clock, maxAgeMs = 60_000, holdMs = 3_600_000 } = options
  let copy: { readonly signer: Signer; readonly version: string; readonly readAt: number } | undefined
  let retryFrom = -Infinity
  const isWithin = (limit: number, now: number): boolean =>
    copy !== undefined && now >= copy.readAt && now - copy.readAt <= limit
  return async (deadline) => {
    const startedAt = clock.now()
    if (copy !== undefined && isWithin(maxAgeMs, startedAt)) return copy.signer
    if (copy !== undefined && isWithin(holdMs, startedAt) && startedAt < retryFrom) return copy.signer
    try {
      const { value, version } = await secrets.read(secret, Math.min(deadline, startedAt + READ_MS))
      const signer = copy?.version === version ? copy.signer : localSigner(readSigningSecret(value, secret))
      // Of two who read at once the later counts, whichever comes first.
      if (copy === undefined || startedAt >= copy.readAt) copy = { signer, version, readAt: startedAt }
      return copy.signer
    } catch (cause) {
      const now = clock.now()
      retryFrom = now + RETRY_MS
      if (copy !== undefined && isWithin(holdMs, now)) return copy.signer
      const reason = cause instanceof ConfigError || cause instanceof Outage ? cause.message : 'unknown'
      throw new Outage('signer-unavailable', `no signing key young enough: ${reason}`, { cause })
    }
  }
}

/** A `Signer` with the key that is current, which follows the secret by its `current`. Reads it once. */
export async function openSecretSigner(options: SecretSignerOptions, deadline: number): Promise<Signer> {
  const current = secretSigners(options)
  return { ...(await current(deadline)), current }
}

const READ_MS = 5000
const RETRY_MS = 5000
