/**
 * AWS KMS as `KeyService` and as `Signer`. Put `shieldKeyService` before it: the SDK itself never tries again here.
 */
import type { DecryptCommandOutput, KMSClient, KMSClientConfig } from '@aws-sdk/client-kms'
import { digest, importPublicKey, type PublicKey, wipe } from '../envelope/crypto.ts'
import { UNDECRYPTABLE } from '../envelope/seal.ts'
import { A256GCM, ED25519, ESP256, suiteOf } from '../envelope/suite.ts'
import { Outage, type OutageCode, Rejection } from '../errors.ts'
import type { Clock, Kek, KeyService, Signer } from '../ports.ts'
import { clientsByRegion } from './aws-clients.ts'
import { signalUntil } from './aws-signal.ts'

export interface KmsOptions {
  readonly clock: Clock
  /** For key names that hold none; an ARN's own region counts more. */
  readonly region?: string
  /** Another address than AWS's own, for emulators. */
  readonly endpoint?: string
  /** By default the SDK's own chain (environment, role, …). */
  readonly credentials?: NonNullable<KMSClientConfig['credentials']>
}

/** The definite answers: these bytes, under this context, are not a data key of this KEK. */
const DEFINITE_NO = new Set(['InvalidCiphertextException', 'IncorrectKeyException'])

/** The service refuses us, and will again until somebody changes something there. */
const DENIED = new Set([
  'AccessDeniedException',
  'DisabledException',
  'ExpiredTokenException',
  'IncompleteSignature',
  'InvalidArnException',
  'InvalidGrantTokenException',
  'InvalidKeyUsageException',
  'InvalidSignatureException',
  'KMSInvalidStateException',
  'MissingAuthenticationTokenException',
  'NotFoundException',
  'UnrecognizedClientException',
  'UnsupportedOperationException',
  'ValidationException',
])

const nameOf = (error: unknown): string => (error instanceof Error ? error.name : 'unknown error')

/** An error of KMS (or of what has its error names) as an outage. Throttling, time-outs, 5xx and all unknown: unavailable. */
export function kmsOutage(error: unknown, kek: Kek): Outage {
  if (error instanceof Outage) return error
  const name = nameOf(error)
  return DENIED.has(name)
    ? new Outage('key-service-denied', `the key service refuses KEK ${kek.kekId} (${name})`, { cause: error })
    : new Outage('key-service-unavailable', `no answer of the key service for KEK ${kek.kekId} (${name})`, {
        cause: error,
      })
}

/** The same for unwrapping, where the definite answers are the record's fault. */
export function kmsUnwrapError(error: unknown, kek: Kek): Outage | Rejection {
  if (error instanceof Rejection) return error
  if (DEFINITE_NO.has(nameOf(error))) return new Rejection('undecryptable', UNDECRYPTABLE, { cause: error })
  return kmsOutage(error, kek)
}

/** What was unwrapped must be a data key: a producer may have wrapped anything under its KEK. */
export function checkUnwrapped(plaintext: Uint8Array): Uint8Array {
  if (plaintext.length === A256GCM.keyBytes) return plaintext
  wipe(plaintext)
  throw new Rejection('undecryptable', UNDECRYPTABLE)
}

export function kmsKeyService(options: KmsOptions): KeyService {
  const clients = new Clients(options)
  return {
    async generate(kek, context, deadline) {
      try {
        const { GenerateDataKeyCommand } = await sdk()
        const answer = await (
          await clients.of(kek.key)
        ).send(
          new GenerateDataKeyCommand({ KeyId: kek.key, KeySpec: 'AES_256', EncryptionContext: context }),
          { abortSignal: clients.until(deadline) },
        )
        const { Plaintext: dataKey, CiphertextBlob: wrapped } = answer
        if (dataKey?.length !== A256GCM.keyBytes || wrapped === undefined || !isNamed(answer.KeyId, kek.key))
          throw new Outage('unexpected', `KMS's answer is no data key of KEK ${kek.kekId}`)
        return { dataKey, wrapped }
      } catch (error) {
        throw kmsOutage(error, kek)
      }
    },
    async unwrap(kek, wrapped, context, deadline) {
      let answer: DecryptCommandOutput
      try {
        const { DecryptCommand } = await sdk()
        // The key is always named: KMS must never choose by what stands in the blob.
        answer = await (
          await clients.of(kek.key)
        ).send(new DecryptCommand({ KeyId: kek.key, CiphertextBlob: wrapped, EncryptionContext: context }), {
          abortSignal: clients.until(deadline),
        })
      } catch (error) {
        throw kmsUnwrapError(error, kek)
      }
      if (answer.Plaintext === undefined || !isNamed(answer.KeyId, kek.key))
        throw new Outage('unexpected', `KMS's answer is not by KEK ${kek.kekId}`)
      return checkUnwrapped(answer.Plaintext)
    },
  }
}

/** KMS signs at most this many bytes of a message itself. */
const MAX_RAW_BYTES = 4096

/**
 * A signing key in KMS: ECC_NIST_EDWARDS25519 or ECC_NIST_P256.
 * @param key.keyId its ARN
 * @param key.kid 1 to 64 bytes, as in the key directory
 * @param key.alg COSE: −19 or −9. Ed25519 in KMS takes no digest, so a single event with a record key of several KiB
 * cannot be signed with it: send it in a batch, or use −9.
 */
export function kmsSigner(
  key: { readonly keyId: string; readonly kid: Uint8Array; readonly alg: number },
  options: KmsOptions,
): Signer {
  const clients = new Clients(options)
  const suite = suiteOf(key.alg)
  if (suite === undefined) throw new TypeError(`no signature algorithm ${key.alg}`)
  return {
    kid: key.kid,
    alg: key.alg,
    async sign(bytes, deadline) {
      const raw = bytes.length <= MAX_RAW_BYTES
      if (!raw && suite === ED25519)
        throw signerOutage('KMS signs at most 4,096 bytes with Ed25519: send a batch')
      try {
        const { SignCommand } = await sdk()
        const answer = await (
          await clients.of(key.keyId)
        ).send(
          new SignCommand({
            KeyId: key.keyId,
            Message: raw ? bytes : digest(bytes),
            MessageType: raw ? 'RAW' : 'DIGEST',
            SigningAlgorithm: suite === ED25519 ? 'ED25519_SHA_512' : 'ECDSA_SHA_256',
          }),
          { abortSignal: clients.until(deadline) },
        )
        const given = answer.Signature
        const signature = given !== undefined && suite === ESP256 ? rawEcdsa(given) : given
        if (signature?.length !== suite.signatureBytes) throw new TypeError('no signature of the right form')
        return signature
      } catch (error) {
        throw signerOutage(`KMS does not sign with ${key.keyId} (${nameOf(error)})`, error)
      }
    },
  }
}

/** DER of a SubjectPublicKeyInfo (RFC 5480, RFC 8410) up to the key itself. */
const SPKI = [
  { suite: ED25519, head: Buffer.from('302a300506032b6570032100', 'hex') },
  { suite: ESP256, head: Buffer.from('3059301306072a8648ce3d020106082a8648ce3d03010703420004', 'hex') },
] as const

/**
 * The public half of a signing key in KMS, by its ARN. Rejects with `Outage('signer-unavailable')`, also where the key is
 * neither ECC_NIST_EDWARDS25519 nor ECC_NIST_P256.
 */
export async function kmsPublicKey(keyId: string, options: KmsOptions, deadline: number): Promise<PublicKey> {
  const clients = new Clients(options)
  try {
    const { GetPublicKeyCommand } = await sdk()
    const client = await clients.of(keyId)
    const asked = new GetPublicKeyCommand({ KeyId: keyId })
    const { PublicKey: der } = await client.send(asked, { abortSignal: clients.until(deadline) })
    if (der === undefined) throw new TypeError('no key')
    const known = SPKI.find(({ head }) => head.equals(der.subarray(0, head.length)))
    if (known === undefined) throw new TypeError('no key of ours')
    const { suite, head } = known
    const point = Buffer.from(der).subarray(head.length)
    const part = (from: number): string => point.subarray(from, from + 32).toString('base64url')
    if (point.length !== (suite === ESP256 ? 64 : 32)) throw new TypeError('no point of this curve')
    const jwk = { kty: suite.kty, crv: suite.crv, x: part(0) }
    return importPublicKey(suite, suite === ESP256 ? { ...jwk, y: part(32) } : jwk)
  } catch (error) {
    throw signerOutage(`KMS gives no public key of ${keyId} that signs here (${nameOf(error)})`, error)
  }
}

const signerOutage = (reason: string, cause?: unknown): Outage => {
  const code: OutageCode = 'signer-unavailable'
  return new Outage(code, reason, cause === undefined ? undefined : { cause })
}

/** DER `SEQUENCE { r INTEGER, s INTEGER }` → r‖s, 32 bytes each; undefined where it is anything else. */
export function rawEcdsa(der: Uint8Array): Uint8Array | undefined {
  if (der[0] !== 0x30 || der[1] !== der.length - 2) return undefined
  const raw = new Uint8Array(64)
  let at = 2
  for (const end of [32, 64]) {
    const length = der[at + 1] ?? 0
    const whole = der.subarray(at + 2, at + 2 + length)
    if (der[at] !== 0x02 || length === 0 || whole.length !== length) return undefined
    const digits = whole[0] === 0 ? whole.subarray(1) : whole
    if (digits.length > 32) return undefined
    raw.set(digits, end - digits.length)
    at += 2 + length
  }
  return at === der.length ? raw : undefined
}

/** Whether KMS answered with the key that we named; an alias names none. */
function isNamed(answered: string | undefined, asked: string): boolean {
  if (asked.includes('alias/')) return true
  return answered !== undefined && (answered === asked || answered.endsWith(`/${asked}`))
}

/** Loaded at the first call: who seals with another key service need not wait for the SDK. */
const sdk = () => import('@aws-sdk/client-kms')

class Clients {
  readonly #clock: Clock
  readonly of: (key: string) => Promise<KMSClient>

  constructor({ clock, region, endpoint, credentials }: KmsOptions) {
    this.#clock = clock
    this.of = clientsByRegion(async (settings) => {
      const { KMSClient } = await sdk()
      return new KMSClient({
        ...settings,
        ...(endpoint !== undefined && { endpoint }),
        ...(credentials !== undefined && { credentials }),
      })
    }, region)
  }

  until(deadline: number): AbortSignal {
    return signalUntil(deadline, this.#clock)
  }
}
