/**
 * The keys of a local run (keys.md §1): a directory root made at the first start, a signing key and a KEK for each
 * principal, and the signed directory itself. All in one folder, protected by its permissions and by nothing else.
 *
 * A new row is usable at once: its `notBefore` lies back an hour, and the wait of 3 minutes between publishing a key and
 * using it is left out, because principals are enrolled before the local gate starts, when it has no copy yet. Who
 * enrols one under a running gate waits until the gate's copy is new (60 s), as anywhere.
 */
import { join } from 'node:path'
import { documentFile } from '../adapters/document-file.ts'
import {
  exportPrivateJwk,
  exportPublicJwk,
  generateKeyPair,
  importPrivateKey,
  type PrivateJwk,
  type PrivateKey,
  type PublicKey,
  publicKeyOf,
  thumbprint,
} from '../envelope/crypto.ts'
import { ED25519 } from '../envelope/suite.ts'
import { encryptionContext } from '../keys/data-keys.ts'
import { type DirectoryDocument, parseDirectory, sealDirectory } from '../keys/directory-document.ts'
import { localSigner } from '../keys/signer.ts'
import { ConfigError } from '../errors.ts'
import type { Clock, DocumentStore, Kek, Signer } from '../ports.ts'
import type { LocalKeyService, PolicyStatement } from './key-service.ts'
import { damaged, isObject, makePrivateFolder, readPrivateJson, writePrivateFile } from './private-file.ts'

/** Who is to have keys, and who may open what it seals: `aud` and principal of the key service in one. */
export interface LocalEnrolment {
  readonly iss: string
  readonly readers: readonly string[]
}

export interface LocalKeys {
  /** The pinned root. */
  readonly roots: readonly PublicKey[]
  /** For `documentFile`. */
  readonly directoryPath: string
  /** Gives keys to those that have none, sets who may open, and publishes a new version where that changed anything. */
  enrol(principals: readonly LocalEnrolment[]): Promise<void>
  /** Throws `TypeError` for an issuer that was not enrolled. */
  signer(iss: string): Signer
  /**
   * The same for one who sends. Throws `ConfigError` where the directory, as it was when this was opened, lets that key sign
   * no more: the gate would refuse all of it.
   */
  producerSigner(iss: string): Signer
  /** The private key that it was enrolled with. */
  privateJwk(iss: string): PrivateJwk
  /** The same for the KEK that it seals under. */
  kek(iss: string): Kek
}

interface Principal {
  readonly iss: string
  readonly privateKey: PrivateKey
  readonly kek: Kek
}

const DAY_SECONDS = 86_400
/** A local directory lives long, since nobody renews it between two runs; a real one lives a day. */
const DIRECTORY_LIFE_SECONDS = 30 * DAY_SECONDS
const KEY_LIFE_SECONDS = 365 * DAY_SECONDS
const BACKDATED_SECONDS = 3600
const PUBLISH_MS = 10_000
const PROVIDER = 'local'

const ROOT_FILE = 'root.json'
const DIRECTORY_FILE = 'directory.jws'

/** What signs the directory of a folder, and where that is. `ConfigError` where there is no root. */
export async function readLocalRoot(
  folder: string,
): Promise<{ readonly directoryPath: string; readonly root: PrivateKey }> {
  const path = join(folder, ROOT_FILE)
  const stored = await readPrivateJson(path)
  if (stored !== undefined)
    return { directoryPath: join(folder, DIRECTORY_FILE), root: privateKey(stored, path) }
  const fix = 'Make a stack with sealgate local start, name another with --folder, or set SEALGATE_DIRECTORY.'
  throw new ConfigError([{ where: folder, what: 'There are no keys of an embedded stack here.', fix }])
}

/** Opens the folder, and makes the root at the first start. One process at a time. Throws `ConfigError` where a file is damaged. */
export async function openLocalKeys(
  folder: string,
  keyService: LocalKeyService,
  clock: Clock,
): Promise<LocalKeys> {
  await makePrivateFolder(folder)
  const rootPath = join(folder, ROOT_FILE)
  const stored = await readPrivateJson(rootPath)
  const root = stored === undefined ? generateKeyPair(ED25519).privateKey : privateKey(stored, rootPath)
  if (stored === undefined) await writePrivateFile(rootPath, JSON.stringify(exportPrivateJwk(root)))
  const principalsPath = join(folder, 'principals.json')
  const principals = readPrincipals(await readPrivateJson(principalsPath), principalsPath)
  const keys = new FolderKeys({ folder, principalsPath, keyService, clock, root, principals })
  await keys.enrol([])
  return keys
}

interface Parts {
  readonly folder: string
  readonly principalsPath: string
  readonly keyService: LocalKeyService
  readonly clock: Clock
  readonly root: PrivateKey
  readonly principals: Map<string, Principal>
}

class FolderKeys implements LocalKeys {
  readonly roots: readonly PublicKey[]
  readonly directoryPath: string
  readonly #parts: Parts
  readonly #store: DocumentStore
  /** As it was read, or published here. */
  #document: DirectoryDocument | undefined

  constructor(parts: Parts) {
    this.#parts = parts
    this.roots = [publicKeyOf(parts.root)]
    this.directoryPath = join(parts.folder, DIRECTORY_FILE)
    const { clock } = parts
    this.#store = documentFile({ path: this.directoryPath, outage: 'directory-unavailable', clock })
  }

  async enrol(enrolments: readonly LocalEnrolment[]): Promise<void> {
    const { keyService, principals, principalsPath, clock } = this.#parts
    const made: Principal[] = []
    for (const { iss, readers } of enrolments) {
      const policy = policyFor(iss, readers)
      const known = principals.get(iss)
      if (known !== undefined) {
        await keyService.putKeyPolicy(known.kek.key, policy)
        continue
      }
      const { keyId, arn } = await keyService.createKey({ policy })
      const kek = { kekId: `local-${keyId}`, provider: PROVIDER, key: arn }
      made.push({ iss, privateKey: generateKeyPair(ED25519).privateKey, kek })
    }
    const deadline = clock.now() + PUBLISH_MS
    // Somebody may change it by `sealgate keys` meanwhile: then all of it again.
    while ((await this.#publish(made, deadline)) === 'changed');
    if (made.length === 0) return
    // Published first: a crash here leaves rows whose keys nobody has, never keys without their rows.
    for (const principal of made) principals.set(principal.iss, principal)
    await writePrivateFile(principalsPath, JSON.stringify(storedPrincipals(principals.values())))
  }

  signer(iss: string): Signer {
    return localSigner(this.#principal(iss).privateKey)
  }

  producerSigner(iss: string): Signer {
    const signer = this.signer(iss)
    const kid = Buffer.from(signer.kid).toString('base64url')
    const row = this.#document?.signingKeys.find((entry) => entry.kid === kid)
    const now = this.#parts.clock.now() / 1000
    if (row?.state === 'active' && now >= row.notBefore && now <= row.notAfter) return signer
    const why =
      row === undefined ? 'gone from' : row.state === 'active' ? 'out of its time in' : `${row.state} in`
    const what = `The key that this stack made for it is ${why} the key directory: the gate refuses what it signs.`
    const resume = row?.state === 'suspended' ? 'Let it sign again (sealgate keys resume), or begin' : 'Begin'
    const fix = `${resume} another stack: this one sends with its own keys alone.`
    throw new ConfigError([{ where: iss, what, fix }])
  }

  privateJwk(iss: string): PrivateJwk {
    return exportPrivateJwk(this.#principal(iss).privateKey)
  }

  kek(iss: string): Kek {
    return this.#principal(iss).kek
  }

  #principal(iss: string): Principal {
    const found = this.#parts.principals.get(iss)
    if (found === undefined) throw new TypeError(`${iss} has no keys in this folder: enrol it first`)
    return found
  }

  /** Adds rows for those who were made, in a version that lasts. Nothing is written where nothing would change. */
  async #publish(made: readonly Principal[], deadline: number): Promise<'written' | 'changed'> {
    const found = await this.#store.find(deadline)
    // Without it the next version could not be told, and what was revoked would come back.
    if (found === undefined && this.#parts.principals.size > 0) throw damaged(this.directoryPath)
    const before = found && parseDirectory(found.bytes, this.roots).document
    const now = Math.floor(this.#parts.clock.now() / 1000)
    const lasts = before !== undefined && before.expiresAt - now > DIRECTORY_LIFE_SECONDS / 2
    this.#document = before
    if (made.length === 0 && lasts) return 'written'
    const document: DirectoryDocument = {
      directory: 'sealgate/1',
      version: (before?.version ?? 0) + 1,
      issuedAt: now,
      expiresAt: now + DIRECTORY_LIFE_SECONDS,
      signingKeys: [
        ...(before?.signingKeys ?? []),
        ...made.map(({ iss, privateKey }) => {
          const key = publicKeyOf(privateKey)
          return {
            kid: thumbprint(key).toString('base64url'),
            iss,
            alg: key.suite.name,
            jwk: exportPublicJwk(key),
            state: 'active' as const,
            notBefore: now - BACKDATED_SECONDS,
            notAfter: now + KEY_LIFE_SECONDS,
            compromisedAt: null,
          }
        }),
      ],
      keks: [...(before?.keks ?? []), ...made.map(({ iss, kek }) => ({ ...kek, iss: [iss] }))],
    }
    const bytes = await sealDirectory(document, localSigner(this.#parts.root), deadline)
    this.#document = document
    return this.#store.write(bytes, found?.etag, deadline)
  }
}

/** The issuer makes data keys in its own name only; a reader opens what is meant for it. In no context but of our names. */
function policyFor(iss: string, readers: readonly string[]): PolicyStatement[] {
  const contextNames = Object.keys(encryptionContext({ iss, aud: '', type: '' }))
  return [
    { principal: iss, actions: ['GenerateDataKey'], context: { 'sealgate:iss': [iss] }, contextNames },
    ...readers.map((reader): PolicyStatement => ({
      principal: reader,
      actions: ['Decrypt'],
      context: { 'sealgate:iss': [iss], 'sealgate:aud': [reader] },
      contextNames,
    })),
  ]
}

function privateKey(value: unknown, path: string): PrivateKey {
  if (!isObject(value)) throw damaged(path)
  const { kty, crv, x, d } = value
  if (typeof kty !== 'string' || typeof crv !== 'string' || typeof x !== 'string' || typeof d !== 'string')
    throw damaged(path)
  try {
    return importPrivateKey(ED25519, { kty, crv, x, d })
  } catch {
    throw damaged(path)
  }
}

const storedPrincipals = (principals: Iterable<Principal>) => ({
  principals: [...principals].map(({ iss, privateKey: key, kek }) => ({
    iss,
    jwk: exportPrivateJwk(key),
    kek,
  })),
})

function readPrincipals(stored: Record<string, unknown> | undefined, path: string): Map<string, Principal> {
  const principals = new Map<string, Principal>()
  const rows: unknown = stored === undefined ? [] : stored['principals']
  if (!Array.isArray(rows)) throw damaged(path)
  const list: readonly unknown[] = rows
  for (const row of list) {
    const { iss, jwk, kek } = isObject(row) ? row : {}
    const { kekId, key } = isObject(kek) ? kek : {}
    if (typeof iss !== 'string' || typeof kekId !== 'string' || typeof key !== 'string') throw damaged(path)
    principals.set(iss, { iss, privateKey: privateKey(jwk, path), kek: { kekId, provider: PROVIDER, key } })
  }
  return principals
}
