/**
 * The embedded key service: AWS KMS's semantics and error names, with real cryptography, in one file of a folder. For
 * laptops and tests: its keys are protected by the file's permissions and by nothing else.
 */
import { randomUUID } from 'node:crypto'
import { join } from 'node:path'
import { encodeCbor } from '../cbor.ts'
import {
  DataKey,
  exportPrivateJwk,
  exportPublicJwk,
  generateKeyPair,
  importPrivateKey,
  type PrivateJwk,
  type PrivateKey,
  type PublicJwk,
  publicKeyOf,
  random,
  sign,
} from '../envelope/crypto.ts'
import { ED25519, ESP256, type SignatureSuite } from '../envelope/suite.ts'
import type { Clock, EncryptionContext } from '../ports.ts'
import { type StoredKey, storedKeys } from './key-service-file.ts'
import { makePrivateFolder, readPrivateJson, writePrivateFile } from './private-file.ts'

export type KeySpec = 'SYMMETRIC_DEFAULT' | 'ECC_NIST_EDWARDS25519' | 'ECC_NIST_P256'

export type KeyState = 'Enabled' | 'Disabled' | 'PendingDeletion'

/** The names of AWS KMS's errors, as far as this service gives them. */
export type KeyServiceErrorName =
  | 'AccessDeniedException'
  | 'DisabledException'
  | 'IncorrectKeyException'
  | 'InvalidCiphertextException'
  | 'InvalidKeyUsageException'
  | 'KMSInvalidStateException'
  | 'LimitExceededException'
  | 'NotFoundException'
  | 'UnsupportedOperationException'
  | 'ValidationException'

export class KeyServiceError extends Error {
  override readonly name: KeyServiceErrorName

  constructor(name: KeyServiceErrorName, message: string) {
    super(message)
    this.name = name
  }
}

/** Lets a principal do something where the encryption context holds one of the values named (`kms:EncryptionContext:…`). */
export interface PolicyStatement {
  readonly principal: string
  readonly actions: readonly KeyAction[]
  readonly context?: Readonly<Record<string, readonly string[]>>
  /** And only where no other name stands in it (`kms:EncryptionContextKeys`, for all values). */
  readonly contextNames?: readonly string[]
}

export type KeyAction = 'GenerateDataKey' | 'Encrypt' | 'Decrypt' | 'Sign'

export interface KeyDescription {
  readonly keyId: string
  readonly arn: string
  readonly spec: KeySpec
  readonly state: KeyState
  /** Milliseconds since 1970; null unless deletion is pending. */
  readonly deletionAt: number | null
  readonly onDemandRotations: number
}

export interface NewKey {
  readonly spec?: KeySpec
  /** Without one everybody may use the key; with one only whom it names. */
  readonly policy?: readonly PolicyStatement[]
}

/** Every call throws `KeyServiceError`. `key` is an id or an ARN; `principal` is who asks, as the policies name it. */
export interface LocalKeyService {
  createKey(key?: NewKey): Promise<KeyDescription>
  describeKey(key: string): KeyDescription
  /** Replaces the whole policy. */
  putKeyPolicy(key: string, policy: readonly PolicyStatement[]): Promise<void>
  enableKey(key: string): Promise<void>
  disableKey(key: string): Promise<void>
  /** After 7 to 30 days, 30 by default, the key is gone and all that it wrapped with it. */
  scheduleKeyDeletion(key: string, days?: number): Promise<void>
  /** The key is disabled afterwards, as in KMS. */
  cancelKeyDeletion(key: string): Promise<void>
  /** New material for what is wrapped from now on; at most 25 times a key. What was wrapped before still unwraps. */
  rotateKeyOnDemand(key: string): Promise<void>
  generateDataKey(key: string, context: EncryptionContext, principal?: string): WrappedDataKey
  encrypt(key: string, plaintext: Uint8Array, context: EncryptionContext, principal?: string): Uint8Array
  decrypt(key: string, ciphertext: Uint8Array, context: EncryptionContext, principal?: string): Uint8Array
  getPublicKey(key: string): PublicJwk
  /** 64 bytes: Ed25519, or r‖s over SHA-256. */
  sign(key: string, message: Uint8Array, principal?: string): Uint8Array
}

export interface WrappedDataKey {
  readonly plaintext: Uint8Array
  readonly ciphertext: Uint8Array
}

const ARN_PREFIX = 'arn:aws:kms:local:000000000000:key/'
const MAX_ROTATIONS = 25
const MAX_PLAINTEXT_BYTES = 4096
const DAY_MS = 86_400_000

/*
 * What wraps: header ‖ nonce (12) ‖ ciphertext ‖ tag (16), under AES-256-GCM with header and context authenticated.
 * The header (124 bytes: magic, key id, number of the material, zeros) makes a wrapped data key 184 bytes, as AWS's is.
 */
const MAGIC = 'SGK1'
const HEADER_BYTES = 124
const NONCE_BYTES = 12
const OVERHEAD_BYTES = HEADER_BYTES + NONCE_BYTES + 16

/** Opens the key service kept in `folder`, or an empty one. One process at a time. Throws `ConfigError` where its file is damaged. */
export async function openLocalKeyService(folder: string, clock: Clock): Promise<LocalKeyService> {
  await makePrivateFolder(folder)
  const path = join(folder, 'key-service.json')
  const stored = await readPrivateJson(path)
  const keys = stored === undefined ? [] : storedKeys(stored, path)
  return new FileKeyService(path, clock, keys)
}

class FileKeyService implements LocalKeyService {
  readonly #path: string
  readonly #clock: Clock
  readonly #keys: Map<string, StoredKey>
  #writing: Promise<void> = Promise.resolve()

  constructor(path: string, clock: Clock, keys: readonly StoredKey[]) {
    this.#path = path
    this.#clock = clock
    this.#keys = new Map(keys.map((key) => [key.keyId, key]))
  }

  async createKey({ spec = 'SYMMETRIC_DEFAULT', policy }: NewKey = {}): Promise<KeyDescription> {
    const keyId = randomUUID()
    const materials = [newMaterial(spec)]
    await this.#write(() => ({
      keyId,
      spec,
      state: 'Enabled',
      deletionAt: null,
      materials,
      policy: policy ?? null,
    }))
    return this.describeKey(keyId)
  }

  describeKey(key: string): KeyDescription {
    const { keyId, spec, state, deletionAt, materials } = this.#find(key)
    return {
      keyId,
      arn: ARN_PREFIX + keyId,
      spec,
      state,
      deletionAt,
      onDemandRotations: materials.length - 1,
    }
  }

  putKeyPolicy(key: string, policy: readonly PolicyStatement[]): Promise<void> {
    return this.#write(() => ({ ...this.#find(key), policy }))
  }

  enableKey(key: string): Promise<void> {
    return this.#write(() => ({ ...this.#notPending(key), state: 'Enabled' }))
  }

  disableKey(key: string): Promise<void> {
    return this.#write(() => ({ ...this.#notPending(key), state: 'Disabled' }))
  }

  scheduleKeyDeletion(key: string, days = 30): Promise<void> {
    return this.#write(() => {
      const found = this.#notPending(key)
      if (!Number.isInteger(days) || days < 7 || days > 30)
        throw new KeyServiceError('ValidationException', 'a key is deleted after 7 to 30 days')
      return { ...found, state: 'PendingDeletion', deletionAt: this.#clock.now() + days * DAY_MS }
    })
  }

  cancelKeyDeletion(key: string): Promise<void> {
    return this.#write(() => {
      const found = this.#find(key)
      if (found.state !== 'PendingDeletion')
        throw new KeyServiceError('KMSInvalidStateException', `${found.keyId} is not pending deletion`)
      return { ...found, state: 'Disabled', deletionAt: null }
    })
  }

  rotateKeyOnDemand(key: string): Promise<void> {
    return this.#write(() => {
      const found = this.#usable(key)
      if (found.spec !== 'SYMMETRIC_DEFAULT')
        throw new KeyServiceError(
          'UnsupportedOperationException',
          'an asymmetric key is not rotated in place',
        )
      if (found.materials.length > MAX_ROTATIONS)
        throw new KeyServiceError(
          'LimitExceededException',
          `a key is rotated on demand at most ${MAX_ROTATIONS} times`,
        )
      return { ...found, materials: [...found.materials, newMaterial(found.spec)] }
    })
  }

  generateDataKey(key: string, context: EncryptionContext, principal?: string): WrappedDataKey {
    const plaintext = random(32)
    return { plaintext, ciphertext: this.#wrap('GenerateDataKey', key, plaintext, context, principal) }
  }

  encrypt(key: string, plaintext: Uint8Array, context: EncryptionContext, principal?: string): Uint8Array {
    if (plaintext.length < 1 || plaintext.length > MAX_PLAINTEXT_BYTES)
      throw new KeyServiceError('ValidationException', `a plaintext has 1 to ${MAX_PLAINTEXT_BYTES} bytes`)
    return this.#wrap('Encrypt', key, plaintext, context, principal)
  }

  decrypt(key: string, ciphertext: Uint8Array, context: EncryptionContext, principal?: string): Uint8Array {
    const found = this.#allowed('Decrypt', key, context, principal)
    if (found.spec !== 'SYMMETRIC_DEFAULT')
      throw new KeyServiceError('InvalidKeyUsageException', `${found.keyId} does not decrypt`)
    const refused = new KeyServiceError(
      'InvalidCiphertextException',
      'the ciphertext or its context is not what was made here',
    )
    const blob = Buffer.from(ciphertext)
    if (blob.length <= OVERHEAD_BYTES || blob.toString('latin1', 0, 4) !== MAGIC) throw refused
    if (blob.toString('latin1', 4, 40) !== found.keyId)
      throw new KeyServiceError('IncorrectKeyException', `${found.keyId} did not make this ciphertext`)
    const material = found.materials[blob.readUInt32BE(40)]
    if (typeof material !== 'string') throw refused
    const header = blob.subarray(0, HEADER_BYTES)
    const nonce = blob.subarray(HEADER_BYTES, HEADER_BYTES + NONCE_BYTES)
    const wrapping = new DataKey(Buffer.from(material, 'base64url'))
    const plaintext = wrapping.open(
      nonce,
      authenticated(header, context),
      blob.subarray(HEADER_BYTES + NONCE_BYTES),
    )
    wrapping.wipe()
    if (plaintext === undefined) throw refused
    return plaintext
  }

  getPublicKey(key: string): PublicJwk {
    return exportPublicJwk(publicKeyOf(signingKey(this.#usable(key))))
  }

  sign(key: string, message: Uint8Array, principal?: string): Uint8Array {
    return sign(signingKey(this.#allowed('Sign', key, {}, principal)), message)
  }

  #wrap(
    action: KeyAction,
    key: string,
    plaintext: Uint8Array,
    context: EncryptionContext,
    principal: string | undefined,
  ): Uint8Array {
    const found = this.#allowed(action, key, context, principal)
    const material = found.materials.at(-1)
    if (typeof material !== 'string')
      throw new KeyServiceError('InvalidKeyUsageException', `${found.keyId} does not encrypt`)
    const header = Buffer.alloc(HEADER_BYTES)
    header.write(MAGIC + found.keyId, 'latin1')
    header.writeUInt32BE(found.materials.length - 1, 40)
    const nonce = random(NONCE_BYTES)
    const wrapping = new DataKey(Buffer.from(material, 'base64url'))
    const sealed = wrapping.seal(nonce, authenticated(header, context), plaintext)
    wrapping.wipe()
    return Buffer.concat([header, nonce, sealed])
  }

  #find(key: string): StoredKey {
    const keyId = key.startsWith(ARN_PREFIX) ? key.slice(ARN_PREFIX.length) : key
    const found = this.#keys.get(keyId)
    if (found === undefined || isGone(found, this.#clock.now()))
      throw new KeyServiceError('NotFoundException', `no key ${key}`)
    return found
  }

  #notPending(key: string): StoredKey {
    const found = this.#find(key)
    if (found.state === 'PendingDeletion')
      throw new KeyServiceError('KMSInvalidStateException', `${found.keyId} is pending deletion`)
    return found
  }

  #usable(key: string): StoredKey {
    const found = this.#notPending(key)
    if (found.state === 'Disabled')
      throw new KeyServiceError('DisabledException', `${found.keyId} is disabled`)
    return found
  }

  #allowed(
    action: KeyAction,
    key: string,
    context: EncryptionContext,
    principal: string | undefined,
  ): StoredKey {
    const found = this.#find(key)
    if (found.policy?.some((statement) => allows(statement, action, context, principal)) === false)
      throw new KeyServiceError(
        'AccessDeniedException',
        `${principal ?? 'nobody'} may not ${action} with ${found.keyId}`,
      )
    return this.#usable(key)
  }

  /** One change after the other; in memory only once it is on disk, so that what was answered outlives a crash. */
  async #write(change: () => StoredKey): Promise<void> {
    const turn = this.#writing.then(async () => {
      const key = change()
      const now = this.#clock.now()
      for (const [keyId, other] of this.#keys) if (isGone(other, now)) this.#keys.delete(keyId)
      const keys = [...this.#keys.values()].filter((other) => other.keyId !== key.keyId)
      await writePrivateFile(this.#path, `${JSON.stringify({ keys: [...keys, key] }, null, 1)}\n`)
      this.#keys.set(key.keyId, key)
    })
    this.#writing = turn.catch(() => undefined)
    await turn
  }
}

const isGone = (key: StoredKey, now: number): boolean => key.deletionAt !== null && key.deletionAt <= now

/** The algorithm of an asymmetric key. */
export const suiteFor = (spec: KeySpec): SignatureSuite => (spec === 'ECC_NIST_P256' ? ESP256 : ED25519)

function newMaterial(spec: KeySpec): string | PrivateJwk {
  if (spec === 'SYMMETRIC_DEFAULT') return random(32).toString('base64url')
  return exportPrivateJwk(generateKeyPair(suiteFor(spec)).privateKey)
}

function signingKey({ keyId, spec, materials: [material] }: StoredKey): PrivateKey {
  if (material === undefined || typeof material === 'string')
    throw new KeyServiceError('InvalidKeyUsageException', `${keyId} does not sign`)
  return importPrivateKey(suiteFor(spec), material)
}

/** The context in one encoding, whatever the order of its names: a map in deterministic CBOR. */
const authenticated = (header: Uint8Array, context: EncryptionContext): Uint8Array =>
  Buffer.concat([header, encodeCbor(new Map(Object.entries(context)))])

function allows(
  statement: PolicyStatement,
  action: KeyAction,
  context: EncryptionContext,
  principal: string | undefined,
): boolean {
  return (
    statement.principal === principal &&
    statement.actions.includes(action) &&
    Object.keys(context).every((name) => statement.contextNames?.includes(name) !== false) &&
    Object.entries(statement.context ?? {}).every(
      ([name, values]) => Object.hasOwn(context, name) && values.includes(context[name] ?? ''),
    )
  )
}
