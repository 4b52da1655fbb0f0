/**
 * The only importer of node:crypto in the core. Small, synchronous, with no policy: what may be signed, opened or
 * trusted is decided elsewhere.
 */
import { Buffer } from 'node:buffer'
import {
  createCipheriv,
  createDecipheriv,
  createHmac,
  createPrivateKey,
  createPublicKey,
  createSecretKey,
  generateKeyPairSync,
  hash,
  type KeyObject,
  pbkdf2,
  randomFillSync,
  sign as signBytes,
  timingSafeEqual,
  verify as verifyBytes,
  X509Certificate,
} from 'node:crypto'
import { promisify } from 'node:util'
import { A256GCM, ED25519, ESP256, type SignatureSuite } from './suite.ts'

/** A public key as in RFC 8037 (OKP) or RFC 7518 §6.2 (EC). */
export interface PublicJwk {
  readonly kty: string
  readonly crv: string
  readonly x: string
  readonly y?: string
}

/** The same with its private part. Never logged, never in a directory. */
export interface PrivateJwk extends PublicJwk {
  readonly d: string
}

/** A verification key of one algorithm; opaque. */
export interface PublicKey {
  readonly suite: SignatureSuite
  readonly handle: KeyObject
}

/** A signing key of one algorithm; opaque: its bytes leave only through `exportPrivateJwk` and `exportPkcs8`. */
export interface PrivateKey {
  readonly suite: SignatureSuite
  readonly handle: KeyObject
}

/** SHA-256, 32 bytes. By way of a text, since a buffer that is made by node:crypto costs as much as the hash. */
export function digest(bytes: Uint8Array): Buffer {
  return Buffer.from(hash('sha256', bytes, 'binary'), 'binary')
}

/** HMAC-SHA-256, 32 bytes. */
export function hmac(key: Uint8Array, bytes: Uint8Array): Buffer {
  return createHmac('sha256', key).update(bytes).digest()
}

/** From the operating system's generator. */
export function random(length: number): Buffer {
  return randomFillSync(Buffer.allocUnsafeSlow(length))
}

/** What a broker keeps of a password for SCRAM-SHA-512: `Hi()` of RFC 5802 §2.2, 64 bytes. The password must be ASCII. */
export function scramSaltedPassword(password: string, salt: Uint8Array, iterations: number): Promise<Buffer> {
  return promisify(pbkdf2)(password, salt, iterations, 64, 'sha512')
}

/** Compares in a time that tells nothing about the content, only about the length. */
export function equal(a: Uint8Array, b: Uint8Array): boolean {
  return a.length === b.length && timingSafeEqual(a, b)
}

/** Best effort: JavaScript may have copied the bytes elsewhere. */
export function wipe(bytes: Uint8Array): void {
  bytes.fill(0)
}

/*
 * y coordinates of the points of small order (8·P is the identity), the sign bit cleared, with their encodings at or
 * above p. A signature under such a key verifies for messages that nobody signed.
 */
const LOW_ORDER: readonly string[] = [
  '0000000000000000000000000000000000000000000000000000000000000000',
  '0100000000000000000000000000000000000000000000000000000000000000',
  '26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05',
  'c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a',
  'ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f',
]

/** Whether 32 bytes encode y ≥ p = 2²⁵⁵ − 19, which RFC 8032 §5.1.3 refuses and OpenSSL does not. */
function isNonCanonicalEd25519(encoded: Uint8Array): boolean {
  if (((encoded[31] ?? 0) & 0x7f) !== 0x7f || (encoded[0] ?? 0) < 0xed) return false
  return encoded.subarray(1, 31).every((byte) => byte === 0xff)
}

const base64urlBytes = (text: string): Buffer | undefined => {
  const bytes = Buffer.from(text, 'base64url')
  return bytes.toString('base64url') === text ? bytes : undefined
}

/**
 * A key that carries r‖s as its encoding of signatures. `{ key, dsaEncoding }`, the other spelling, costs 20 µs a call
 * (Node 24: two exceptions while it looks at what it was given). Were it ever overlooked, every ESP256 signature would
 * be refused.
 */
const withEncoding = (key: KeyObject): KeyObject => Object.assign(key, { dsaEncoding: 'ieee-p1363' })

/** Imports a public key for one algorithm; throws `TypeError` on another kind of key, a bad point or a point of low order. */
export function importPublicKey(suite: SignatureSuite, jwk: PublicJwk): PublicKey {
  if ('d' in jwk) throw new TypeError('a private key stands where a public one belongs')
  const { kty, crv, x, y } = jwk
  if (kty !== suite.kty || crv !== suite.crv)
    throw new TypeError(`not a ${suite.name} key: kty ${kty}, crv ${crv}`)
  const point = base64urlBytes(x)
  if (point?.length !== 32) throw new TypeError('x is not 32 bytes of base64url')
  if (suite === ED25519) {
    if (y !== undefined) throw new TypeError('an OKP key has no y')
    if (isNonCanonicalEd25519(point)) throw new TypeError('x is no canonical point (RFC 8032 §5.1.3)')
    const folded = Buffer.from(point)
    folded[31] = (folded[31] ?? 0) & 0x7f
    if (LOW_ORDER.includes(folded.toString('hex'))) throw new TypeError('x is a point of low order')
  } else if (y === undefined || base64urlBytes(y)?.length !== 32) {
    throw new TypeError('y is not 32 bytes of base64url')
  }
  try {
    const key = y === undefined ? { kty, crv, x } : { kty, crv, x, y }
    return { suite, handle: withEncoding(createPublicKey({ key, format: 'jwk' })) }
  } catch (cause) {
    throw new TypeError(`not a point of ${suite.crv}`, { cause })
  }
}

/** Imports a private key; throws `TypeError` on anything else. */
export function importPrivateKey(suite: SignatureSuite, jwk: PrivateJwk): PrivateKey {
  const { kty, crv, x, y, d } = jwk
  if (kty !== suite.kty || crv !== suite.crv)
    throw new TypeError(`not a ${suite.name} key: kty ${kty}, crv ${crv}`)
  try {
    const key = y === undefined ? { kty, crv, x, d } : { kty, crv, x, y, d }
    return { suite, handle: withEncoding(createPrivateKey({ key, format: 'jwk' })) }
  } catch {
    // The cause is dropped on purpose: a parser's message may quote what it read.
    throw new TypeError(`not a private ${suite.crv} key`)
  }
}

/** A new key pair. */
export function generateKeyPair(suite: SignatureSuite): { publicKey: PublicKey; privateKey: PrivateKey } {
  const pair =
    suite === ED25519 ? generateKeyPairSync('ed25519') : generateKeyPairSync('ec', { namedCurve: suite.crv })
  return {
    publicKey: { suite, handle: withEncoding(pair.publicKey) },
    privateKey: { suite, handle: withEncoding(pair.privateKey) },
  }
}

/** The public half. */
export function publicKeyOf(privateKey: PrivateKey): PublicKey {
  return { suite: privateKey.suite, handle: withEncoding(createPublicKey(privateKey.handle)) }
}

const jwkPart = (value: unknown): string => {
  if (typeof value !== 'string') throw new TypeError('a key without the parts of a JWK')
  return value
}

export function exportPublicJwk(key: PublicKey): PublicJwk {
  const { x, y } = key.handle.export({ format: 'jwk' })
  const base = { kty: key.suite.kty, crv: key.suite.crv, x: jwkPart(x) }
  return y === undefined ? base : { ...base, y: jwkPart(y) }
}

/** For storing a key pair made here. */
export function exportPrivateJwk(key: PrivateKey): PrivateJwk {
  const { d } = key.handle.export({ format: 'jwk' })
  return { ...exportPublicJwk(publicKeyOf(key)), d: jwkPart(d) }
}

/** RFC 7638 thumbprint, SHA-256: the default `kid`. */
export function thumbprint(key: PublicKey): Buffer {
  const { kty, crv, x, y } = exportPublicJwk(key)
  const members = y === undefined ? { crv, kty, x } : { crv, kty, x, y }
  return digest(Buffer.from(JSON.stringify(members)))
}

/** Between which times a PEM certificate is valid, milliseconds since 1970; the first of a chain. Throws where it is none. */
export function certificateLife(pem: Uint8Array): { readonly from: number; readonly until: number } {
  const { validFromDate, validToDate } = new X509Certificate(pem)
  return { from: validFromDate.getTime(), until: validToDate.getTime() }
}

/** An X.509 certificate (RFC 5280). Times are milliseconds since 1970. */
export interface ReadCertificate {
  readonly der: Uint8Array
  /** Its attributes in the order of the certificate, `CN=gate`, a line each. */
  readonly subject: string
  readonly from: number
  readonly until: number
  /** Whether it may sign others. */
  readonly isAuthority: boolean
  /** Undefined where the key is of another kind than those that sign here. */
  readonly key: PublicKey | undefined
  /** Whether this private key, as PKCS #8 in PEM, is its own. */
  fits(privateKey: string): boolean
  /** Whether that one's key has signed it, and its issuer is that one. */
  isIssuedBy(issuer: ReadCertificate): boolean
}

/** The first certificate of a PEM text. Throws `TypeError` where there is none. */
export function readCertificate(pem: string): ReadCertificate {
  let read: X509Certificate
  try {
    read = new X509Certificate(pem)
  } catch {
    throw new TypeError('no certificate in PEM')
  }
  const { raw, subject, validFromDate, validToDate, ca } = read
  return {
    ...{ der: raw, subject, from: validFromDate.getTime(), until: validToDate.getTime(), isAuthority: ca },
    key: suiteKey(read.publicKey),
    fits: (privateKey) => {
      try {
        return read.checkPrivateKey(createPrivateKey(privateKey))
      } catch {
        return false
      }
    },
    isIssuedBy: ({ der }) => {
      const issuer = new X509Certificate(der)
      return issuer.ca && read.checkIssued(issuer) && read.verify(issuer.publicKey)
    },
  }
}

const suiteKey = (handle: KeyObject): PublicKey | undefined => {
  const { asymmetricKeyType: type, asymmetricKeyDetails: details } = handle
  if (type === 'ed25519') return { suite: ED25519, handle: withEncoding(handle) }
  const isP256 = type === 'ec' && details?.namedCurve === 'prime256v1'
  return isP256 ? { suite: ESP256, handle: withEncoding(handle) } : undefined
}

/** A private key as PKCS #8 in PEM, as TLS takes it; or as OpenSSL writes one. Throws `TypeError` that quotes nothing of it. */
export function importPkcs8(pem: string): PrivateKey {
  try {
    const handle = createPrivateKey(pem)
    const suite = suiteKey(createPublicKey(handle))?.suite
    if (suite !== undefined) return { suite, handle: withEncoding(handle) }
  } catch {
    // A parser's message may quote what it read.
  }
  throw new TypeError('not a private key of P-256 or Ed25519 in PEM')
}

/** The private key as PKCS #8 in PEM, for TLS. */
export const exportPkcs8 = (key: PrivateKey): string =>
  key.handle.export({ format: 'pem', type: 'pkcs8' }).toString()

/** The public key as DER of a SubjectPublicKeyInfo. */
export const exportSpki = (key: PublicKey): Buffer => key.handle.export({ format: 'der', type: 'spki' })

/** 64 bytes: Ed25519 (RFC 8032) or r‖s over SHA-256 (ESP256). */
export function sign(key: PrivateKey, bytes: Uint8Array): Buffer {
  return signBytes(key.suite.hash, bytes, key.handle)
}

/**
 * Whether `signature` is this key's over `bytes`. OpenSSL does RFC 8032 §5.1.7 without the cofactor and with S < L, and
 * asks 1 ≤ r, s < n of ESP256; a signature of any length but the algorithm's is refused here.
 */
export function verify(key: PublicKey, bytes: Uint8Array, signature: Uint8Array): boolean {
  if (signature.length !== key.suite.signatureBytes) return false
  return verifyBytes(key.suite.hash, bytes, key.handle, signature)
}

const COMMITMENT_LABEL = Buffer.from('sealgate/1 key commitment')

/**
 * A 256-bit data key, held so that its bytes are used but not read: it seals, opens, says its commitment, and can be
 * wiped. Takes over the bytes it is given: the caller must not keep them.
 */
export class DataKey {
  readonly #bytes: Uint8Array
  /**
   * What the ciphers take: three times as fast as the bytes. Its copy lies outside the JavaScript heap; OpenSSL wipes it
   * when it is collected.
   */
  #handle: KeyObject | undefined
  /** HMAC-SHA-256(data key, "sealgate/1 key commitment"): sealed-event.md §4. */
  readonly commitment: Uint8Array

  constructor(bytes: Uint8Array) {
    if (bytes.length !== A256GCM.keyBytes) throw new TypeError('a data key has 32 bytes')
    this.#bytes = bytes
    this.#handle = createSecretKey(bytes)
    this.commitment = hmac(bytes, COMMITMENT_LABEL)
  }

  get wiped(): boolean {
    return this.#handle === undefined
  }

  /** Wipes the bytes, as far as JavaScript lets us; the key is of no more use. */
  wipe(): void {
    wipe(this.#bytes)
    this.#handle = undefined
  }

  /** AES-256-GCM: ciphertext ‖ 16-byte tag. The nonce must be random, 12 bytes, and used once. */
  seal(nonce: Uint8Array, aad: Uint8Array, plaintext: Uint8Array): Buffer {
    const cipher = createCipheriv('aes-256-gcm', this.#use(), nonce)
    cipher.setAAD(aad)
    const sealed = Buffer.allocUnsafeSlow(plaintext.length + A256GCM.tagBytes)
    const body = cipher.update(plaintext)
    const rest = cipher.final()
    body.copy(sealed)
    rest.copy(sealed, body.length)
    cipher.getAuthTag().copy(sealed, plaintext.length)
    return sealed
  }

  /** The plaintext of `ciphertext ‖ tag`, or undefined where it does not authenticate. */
  open(nonce: Uint8Array, aad: Uint8Array, ciphertext: Uint8Array): Buffer | undefined {
    const end = ciphertext.length - A256GCM.tagBytes
    if (end < 0) return undefined
    const decipher = createDecipheriv('aes-256-gcm', this.#use(), nonce, { authTagLength: A256GCM.tagBytes })
    decipher.setAAD(aad)
    decipher.setAuthTag(ciphertext.subarray(end))
    const plaintext = decipher.update(ciphertext.subarray(0, end))
    try {
      decipher.final()
    } catch {
      wipe(plaintext)
      return undefined
    }
    return plaintext
  }

  /** Keys print as nothing. */
  toJSON(): string {
    return '[data key]'
  }

  #use(): KeyObject {
    if (this.#handle === undefined) throw new TypeError('a data key was used after it had been wiped')
    return this.#handle
  }
}
