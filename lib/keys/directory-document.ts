/**
 * The key directory as it is kept and signed (keys.md §1): a compact JWS (RFC 7515) over one JSON document.
 */
import {
  digest,
  importPublicKey,
  type PublicJwk,
  type PublicKey,
  thumbprint,
  verify,
} from '../envelope/crypto.ts'
import { ED25519, type SignatureSuite, suiteOf } from '../envelope/suite.ts'
import { ConfigError, type Fault } from '../errors.ts'
import type { Signer } from '../ports.ts'
import {
  type DirectorySnapshot,
  KEY_STATES,
  type KekRow,
  type KeyState,
  type SigningKeyRow,
  snapshotFrom,
} from './directory.ts'

/** The payload, as JSON. Times are seconds since 1970. */
export interface DirectoryDocument {
  readonly directory: 'sealgate/1'
  readonly version: number
  readonly issuedAt: number
  readonly expiresAt: number
  readonly signingKeys: readonly SigningKeyEntry[]
  readonly keks: readonly KekEntry[]
}

export interface SigningKeyEntry {
  /** base64url of the wire bytes. */
  readonly kid: string
  readonly iss: string
  /** A name of the suite table: Ed25519 or ESP256. */
  readonly alg: string
  readonly jwk: PublicJwk
  readonly state: KeyState
  readonly notBefore: number
  readonly notAfter: number
  readonly compromisedAt: number | null
  /** Thumbprint of a certificate that stands behind the key; whoever publishes it keeps the row within its validity. */
  readonly 'x5t#S256'?: string
}

export interface KekEntry {
  /** UTF-8 of the wire bytes. */
  readonly kekId: string
  readonly provider: string
  /** The provider's own name, e.g. an ARN. */
  readonly key: string
  /** Who may seal under it. */
  readonly iss: readonly string[]
}

export interface ParsedDirectory {
  readonly document: DirectoryDocument
  readonly snapshot: DirectorySnapshot
  /** SHA-256 of the payload: two documents of one version must have the same. */
  readonly payloadDigest: Uint8Array
}

/** Bounds of a document, whoever signed it. */
export const MAX_DIRECTORY_BYTES: number = 8 * 1024 * 1024
const MAX_ROWS = 10_000
const MAX_ISSUERS = 1000
const MAX_FAULTS = 50

/** RFC 8725 §3.11: says what is signed, so that no other signature of the root passes for a directory. */
const TYP = 'vnd.sealgate.directory+jws'

/** A root's header, whole: what does not equal it is refused unread, so there is no alg to confuse and no `crit` to miss. */
function headerOf(suite: SignatureSuite, kid: Uint8Array): string {
  const alg = suite === ED25519 ? 'Ed25519' : 'ES256' // JOSE's names (RFC 9864, RFC 7518)
  const header = { alg, kid: Buffer.from(kid).toString('base64url'), typ: TYP }
  return Buffer.from(JSON.stringify(header)).toString('base64url')
}

/** A document from JSON's value. Throws `ConfigError` with every fault at once, each at its field. */
export function readDirectoryDocument(value: unknown): DirectoryDocument {
  const checked = new Check().document(value)
  if (checked instanceof ConfigError) throw checked
  return checked.document
}

/** Writes the JWS. The signer's kid must be the root's RFC 7638 thumbprint. Throws `ConfigError` with every fault of the document. */
export async function sealDirectory(
  document: DirectoryDocument,
  root: Signer,
  deadline: number,
): Promise<Uint8Array> {
  const payload = JSON.stringify(document)
  readDirectoryDocument(JSON.parse(payload))
  const suite = suiteOf(root.alg)
  if (suite === undefined) throw new TypeError(`no signature algorithm ${root.alg}`)
  const input = `${headerOf(suite, root.kid)}.${Buffer.from(payload).toString('base64url')}`
  const signature = await root.sign(Buffer.from(input), deadline)
  return Buffer.from(`${input}.${Buffer.from(signature).toString('base64url')}`)
}

/**
 * Verifies and reads a directory. Throws `ConfigError` with every fault at once; nothing of the document is read before
 * its signature holds. Says nothing about its times and version: `createDirectory` does.
 * @param roots the pinned public keys: one, or two while the root itself is being rotated
 */
export function parseDirectory(bytes: Uint8Array, roots: readonly PublicKey[]): ParsedDirectory {
  const refuse = (what: string, fix: string): never => {
    throw new ConfigError([{ where: 'key directory', what, fix }])
  }
  if (bytes.length > MAX_DIRECTORY_BYTES)
    return refuse('It is too large.', 'Remove keys that are no longer needed.')
  const parts = Buffer.from(bytes).toString('latin1').split('.', 4)
  const [header, body, tag] = parts
  if (header === undefined || body === undefined || tag === undefined || parts.length !== 3)
    return refuse(
      'It is no compact JWS.',
      'Put the last published version back, and see to it that only the sealgate tools write there.',
    )
  const root = roots.find((key) => headerOf(key.suite, thumbprint(key)) === header)
  const signature = base64url(tag)
  const payload = base64url(body)
  if (
    root === undefined ||
    signature === undefined ||
    !verify(root, Buffer.from(`${header}.${body}`), signature)
  )
    return refuse(
      'It is not signed by a pinned root.',
      'Sign it with the directory root, or pin the root that signed it.',
    )
  if (payload === undefined)
    return refuse('Its payload is no base64url.', 'Publish it with the sealgate tools.')
  const parsed = parseCanonical(payload)
  if (parsed === undefined)
    return refuse(
      'Its payload is not JSON as JSON.stringify writes it.',
      'Publish it with the sealgate tools.',
    )
  const checked = new Check().document(parsed.value)
  if (checked instanceof ConfigError) throw checked
  return { ...checked, payloadDigest: digest(payload) }
}

/** JSON whose text is what JSON.stringify makes of it: so no name stands twice, and there is one text for one value. */
function parseCanonical(payload: Uint8Array): { readonly value: unknown } | undefined {
  try {
    const text = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(payload)
    const value: unknown = JSON.parse(text)
    return JSON.stringify(value) === text ? { value } : undefined
  } catch {
    return undefined
  }
}

function base64url(text: string): Buffer | undefined {
  const bytes = Buffer.from(text, 'base64url')
  return bytes.toString('base64url') === text ? bytes : undefined
}

const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

/** Reads what is JSON already and collects what is wrong with it. */
class Check {
  readonly #faults: Fault[] = []

  document(value: unknown): Omit<ParsedDirectory, 'payloadDigest'> | ConfigError {
    const names = ['directory', 'version', 'issuedAt', 'expiresAt', 'signingKeys', 'keks']
    const top = this.#object(value, 'key directory', names)
    if (top['directory'] !== 'sealgate/1')
      this.#fault('directory', 'is not "sealgate/1"', 'Use a gate that knows this kind.')
    const version = this.#integer(top['version'], 'version')
    if (top['version'] === 0) this.#fault('version', 'is 0', 'Count from 1.')
    const issuedAt = this.#integer(top['issuedAt'], 'issuedAt')
    const expiresAt = this.#integer(top['expiresAt'], 'expiresAt')
    if (expiresAt <= issuedAt)
      this.#fault('expiresAt', 'is not after issuedAt', 'Give it a life of a day or so.')
    const entries = this.#rows(top['signingKeys'], 'signingKeys', (row, where) =>
      this.#signingKey(row, where),
    )
    const keks = this.#rows(top['keks'], 'keks', (row, where) => this.#kek(row, where))
    this.#unique(
      entries.map(({ entry }) => entry.kid),
      'signingKeys',
      'kid',
    )
    this.#unique(
      keks.map((row) => row.kekId),
      'keks',
      'kekId',
    )
    if (this.#faults.length > 0) return new ConfigError(this.#faults)
    const signingKeys = entries.map(({ entry }) => entry)
    const times = { version, issuedAt, expiresAt }
    return {
      document: { directory: 'sealgate/1', ...times, signingKeys, keks },
      snapshot: snapshotFrom({
        ...times,
        signingKeys: entries.flatMap(({ row }) => row ?? []),
        keks: keks.map((entry): KekRow => ({ ...entry, kekIdBytes: Buffer.from(entry.kekId) })),
      }),
    }
  }

  #signingKey(value: unknown, where: string): { entry: SigningKeyEntry; row: SigningKeyRow | undefined } {
    const names = ['kid', 'iss', 'alg', 'jwk', 'state', 'notBefore', 'notAfter', 'compromisedAt']
    const row = this.#object(value, where, names, ['x5t#S256'])
    const kidText = this.#text(row['kid'], `${where}.kid`, 86)
    const kid = base64url(kidText)
    if (kid === undefined || kid.length > 64)
      this.#fault(`${where}.kid`, 'is not base64url of 1 to 64 bytes', 'Correct it.')
    const iss = this.#text(row['iss'], `${where}.iss`, 128)
    const alg = this.#text(row['alg'], `${where}.alg`, 32)
    const stateText = this.#text(row['state'], `${where}.state`, 32)
    const state = KEY_STATES.find((known) => known === stateText)
    if (state === undefined)
      this.#fault(`${where}.state`, 'is no state', `Use one of ${KEY_STATES.join(', ')}.`)
    const notBefore = this.#integer(row['notBefore'], `${where}.notBefore`)
    const notAfter = this.#integer(row['notAfter'], `${where}.notAfter`)
    if (notAfter < notBefore) this.#fault(`${where}.notAfter`, 'is before notBefore', 'Correct one of them.')
    const at = row['compromisedAt']
    const compromisedAt = at === null ? null : this.#integer(at, `${where}.compromisedAt`)
    const jwk = this.#jwk(row['jwk'], `${where}.jwk`)
    const key = this.#publicKey(alg, jwk, where)
    const thumb = row['x5t#S256']
    const x5t = thumb === undefined ? {} : { 'x5t#S256': this.#text(thumb, `${where}.x5t#S256`, 43) }
    const times = { notBefore, notAfter, compromisedAt }
    const entry = { kid: kidText, iss, alg, jwk, state: state ?? 'suspended', ...times, ...x5t }
    if (kid === undefined || key === undefined) return { entry, row: undefined }
    return { entry, row: { kid, kidText, iss, key, state: entry.state, ...times } }
  }

  #jwk(value: unknown, where: string): PublicJwk {
    if (isObject(value) && Object.hasOwn(value, 'd')) {
      this.#fault(
        where,
        'holds a private key',
        'Publish public keys only, and hold this one for compromised.',
      )
      return { kty: '', crv: '', x: '' }
    }
    const jwk = this.#object(value, where, ['kty', 'crv', 'x'], ['y'])
    const base = {
      kty: this.#text(jwk['kty'], `${where}.kty`, 8),
      crv: this.#text(jwk['crv'], `${where}.crv`, 16),
      x: this.#text(jwk['x'], `${where}.x`, 64),
    }
    return jwk['y'] === undefined ? base : { ...base, y: this.#text(jwk['y'], `${where}.y`, 64) }
  }

  #publicKey(alg: string, jwk: PublicJwk, where: string): PublicKey | undefined {
    const suite = suiteOf(alg)
    if (suite === undefined) {
      this.#fault(`${where}.alg`, 'is no algorithm known here', 'Use Ed25519 or ESP256.')
      return undefined
    }
    if (jwk.kty === '') return undefined
    try {
      return importPublicKey(suite, jwk)
    } catch (error) {
      const why = error instanceof TypeError ? error.message : 'it cannot be imported'
      this.#fault(`${where}.jwk`, `is no public key: ${why}`, 'Enrol the key anew.')
      return undefined
    }
  }

  #kek(value: unknown, where: string): KekEntry {
    const row = this.#object(value, where, ['kekId', 'provider', 'key', 'iss'])
    const issuers = row['iss']
    if (!Array.isArray(issuers) || issuers.length === 0 || issuers.length > MAX_ISSUERS)
      this.#fault(
        `${where}.iss`,
        `is no list of 1 to ${MAX_ISSUERS} issuers`,
        'Name who may seal under this KEK.',
      )
    const list: readonly unknown[] = Array.isArray(issuers) ? issuers.slice(0, MAX_ISSUERS) : []
    return {
      kekId: this.#text(row['kekId'], `${where}.kekId`, 64),
      provider: this.#text(row['provider'], `${where}.provider`, 64),
      key: this.#text(row['key'], `${where}.key`, 2048),
      iss: list.map((iss, index) => this.#text(iss, `${where}.iss[${index}]`, 128)),
    }
  }

  #rows<T>(value: unknown, where: string, read: (row: unknown, where: string) => T): readonly T[] {
    if (Array.isArray(value) && value.length <= MAX_ROWS)
      return value.map((row, index) => read(row, `${where}[${index}]`))
    this.#fault(where, `is no list of at most ${MAX_ROWS} rows`, 'Correct it.')
    return []
  }

  #unique(names: readonly string[], where: string, field: string): void {
    const met = new Set<string>()
    for (const [index, name] of names.entries()) {
      if (met.has(name))
        this.#fault(
          `${where}[${index}].${field}`,
          'stands twice',
          `A ${field} is never used again: remove one.`,
        )
      met.add(name)
    }
  }

  #object(
    value: unknown,
    where: string,
    required: readonly string[],
    optional: readonly string[] = [],
  ): Record<string, unknown> {
    if (!isObject(value)) {
      this.#fault(where, 'is no object', `Give it ${required.join(', ')}.`)
      return {}
    }
    for (const name of Object.keys(value)) {
      if (!required.includes(name) && !optional.includes(name))
        this.#fault(where, `has the unknown field ${JSON.stringify(name.slice(0, 64))}`, 'Remove it.')
    }
    return value
  }

  #text(value: unknown, where: string, maxBytes: number): string {
    if (
      typeof value === 'string' &&
      value !== '' &&
      value.isWellFormed() &&
      Buffer.byteLength(value) <= maxBytes
    )
      return value
    this.#fault(where, `is no text of 1 to ${maxBytes} bytes`, 'Correct it.')
    return ''
  }

  #integer(value: unknown, where: string): number {
    if (typeof value === 'number' && Number.isSafeInteger(value) && value >= 0) return value
    this.#fault(where, 'is no whole number from 0 up', 'Times are whole seconds since 1970.')
    return 0
  }

  #fault(where: string, what: string, fix: string): void {
    if (this.#faults.length < MAX_FAULTS) this.#faults.push({ where, what: `It ${what}.`, fix })
  }
}
