/**
 * The algorithm table: one row holds all that is known of an algorithm (RFC 9864, fully specified). Nothing below
 * this table enumerates algorithms.
 */

export interface SignatureSuite {
  /** COSE algorithm identifier. */
  readonly cose: number
  /** COSE's name (RFC 9864), as in the key directory. */
  readonly name: 'Ed25519' | 'ESP256'
  readonly kty: 'OKP' | 'EC'
  readonly crv: 'Ed25519' | 'P-256'
  /** What node:crypto hashes with; null where the algorithm does it itself. */
  readonly hash: 'sha256' | null
  /** Bytes of a signature; r‖s for ESP256. */
  readonly signatureBytes: number
}

export const ED25519: SignatureSuite = {
  cose: -19,
  name: 'Ed25519',
  kty: 'OKP',
  crv: 'Ed25519',
  hash: null,
  signatureBytes: 64,
}

export const ESP256: SignatureSuite = {
  cose: -9,
  name: 'ESP256',
  kty: 'EC',
  crv: 'P-256',
  hash: 'sha256',
  signatureBytes: 64,
}

const SUITES: readonly SignatureSuite[] = [ED25519, ESP256]

/** The row of a COSE identifier or of a name; undefined where we do not know it. */
export function suiteOf(alg: number | bigint | string): SignatureSuite | undefined {
  return SUITES.find((suite) => suite.cose === alg || suite.name === alg)
}

/** Content encryption: AES-256-GCM (COSE alg 3). */
export const A256GCM = { cose: 3, keyBytes: 32, nonceBytes: 12, tagBytes: 16 } as const

/** The recipient's algorithm: a data key wrapped by a key service under an encryption context. */
export const KEY_SERVICE_WRAP = -70101

/** RFC 9942: the tree algorithm of a batch's receipt, RFC 9162 with SHA-256. */
export const RFC9162_SHA256 = 1
