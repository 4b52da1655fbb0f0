/**
 * The embedded secret store: AWS Secrets Manager's versions and stages in miniature, one private file a secret.
 */
import { randomUUID } from 'node:crypto'
import { join } from 'node:path'
import { equal, random } from '../envelope/crypto.ts'
import { Outage } from '../errors.ts'
import type { Clock, SecretStage, SecretStore, SecretVersion, StagedSecrets } from '../ports.ts'
import { damaged, isObject, makePrivateFolder, readPrivateJson, writePrivateFile } from './private-file.ts'

export class SecretError extends Error {
  override readonly name:
    'InvalidParameterException' | 'ResourceExistsException' | 'ResourceNotFoundException'

  constructor(name: SecretError['name'], message: string) {
    super(message)
    this.name = name
  }
}

/** `read` is the port's: the current version, every failure an `Outage`. The rest throws `SecretError`. */
export interface LocalSecretStore extends SecretStore {
  /** The version of a stage. */
  readStage(name: string, stage: SecretStage): Promise<SecretVersion>
  /**
   * Adds a version. The same token, of 32 to 64 characters, again changes nothing if the value is the same, and is
   * `ResourceExistsException` if it is not. A secret's first version becomes current whatever the stage.
   * @returns the version: the token
   */
  put(name: string, value: Uint8Array, stage?: SecretStage, token?: string): Promise<string>
  /**
   * Makes a version current; the one before becomes `AWSPREVIOUS`. Again: no change. With `from`, only where that is
   * current, and else `InvalidParameterException`.
   */
  promote(name: string, version: string, from?: string): Promise<void>
}

/** Secrets Manager's own bounds. */
const MAX_BYTES = 65_536
const MIN_TOKEN = 32
const MAX_TOKEN = 64
const NAME = /^[A-Za-z0-9/_+=.@-]{1,200}$/

interface Secret {
  /** By version: base64url of the value. */
  readonly versions: ReadonlyMap<string, string>
  readonly stages: ReadonlyMap<SecretStage, string>
  /** By version, milliseconds since 1970; an older file has none. */
  readonly created: ReadonlyMap<string, number>
}

const STAGES: readonly SecretStage[] = ['AWSCURRENT', 'AWSPENDING', 'AWSPREVIOUS']

/** Opens the store in `folder`. One process at a time. */
export async function openLocalSecrets(folder: string, clock: Clock): Promise<LocalSecretStore> {
  await makePrivateFolder(folder)
  return new FileSecrets(folder, clock)
}

class FileSecrets implements LocalSecretStore {
  readonly #folder: string
  readonly #clock: Clock
  #writing: Promise<void> = Promise.resolve()

  constructor(folder: string, clock: Clock) {
    this.#folder = folder
    this.#clock = clock
  }

  async read(name: string, deadline: number): Promise<{ value: Uint8Array; version: string }> {
    try {
      if (this.#clock.now() >= deadline) throw new Error('no time left')
      return await this.readStage(name, 'AWSCURRENT')
    } catch (cause) {
      throw new Outage('secret-unavailable', `the secret ${name} cannot be read`, { cause })
    }
  }

  async readStage(name: string, stage: SecretStage): Promise<SecretVersion> {
    const secret = await this.#load(name)
    const version = secret?.stages.get(stage)
    const value = version === undefined ? undefined : secret?.versions.get(version)
    if (version === undefined || value === undefined)
      throw new SecretError('ResourceNotFoundException', `no ${stage} version of the secret ${name}`)
    const createdAt = secret?.created.get(version) ?? 0
    return { value: Buffer.from(value, 'base64url'), version, createdAt }
  }

  async put(
    name: string,
    value: Uint8Array,
    stage: SecretStage = 'AWSCURRENT',
    token: string = randomUUID(),
  ): Promise<string> {
    if (value.length === 0 || value.length > MAX_BYTES)
      throw new SecretError('InvalidParameterException', `a secret has 1 to ${MAX_BYTES} bytes`)
    if (token.length < MIN_TOKEN || token.length > MAX_TOKEN)
      throw new SecretError(
        'InvalidParameterException',
        `a token has ${MIN_TOKEN} to ${MAX_TOKEN} characters`,
      )
    await this.#change(name, (secret) => {
      const known = secret?.versions.get(token)
      if (known !== undefined) {
        if (equal(Buffer.from(known, 'base64url'), value)) return undefined
        throw new SecretError(
          'ResourceExistsException',
          `the secret ${name} has another value under this token`,
        )
      }
      const versions = new Map(secret?.versions).set(token, Buffer.from(value).toString('base64url'))
      const first: SecretStage = secret === undefined ? 'AWSCURRENT' : stage
      const created = new Map(secret?.created).set(token, this.#clock.now())
      return { versions, created, stages: moved(secret?.stages ?? new Map(), first, token) }
    })
    return token
  }

  async promote(name: string, version: string, from?: string): Promise<void> {
    await this.#change(name, (secret) => {
      if (secret?.versions.has(version) !== true)
        throw new SecretError('ResourceNotFoundException', `the secret ${name} has no version ${version}`)
      if (secret.stages.get('AWSCURRENT') === version) return undefined
      if (from !== undefined && secret.stages.get('AWSCURRENT') !== from)
        throw new SecretError('InvalidParameterException', `${from} is not current in the secret ${name}`)
      return { ...secret, stages: moved(secret.stages, 'AWSCURRENT', version) }
    })
  }

  #path(name: string): string {
    if (!NAME.test(name))
      throw new SecretError('InvalidParameterException', `no name of a secret: ${name.slice(0, 200)}`)
    return join(this.#folder, `${encodeURIComponent(name)}.json`)
  }

  async #load(name: string): Promise<Secret | undefined> {
    const path = this.#path(name)
    const stored = await readPrivateJson(path)
    if (stored === undefined) return undefined
    const { versions, stages, created = {} } = stored
    if (!isObject(versions) || !isObject(stages) || !isObject(created)) throw damaged(path)
    const text = (value: unknown): string => {
      if (typeof value !== 'string') throw damaged(path)
      return value
    }
    return {
      versions: new Map(Object.entries(versions).map(([version, value]) => [version, text(value)])),
      created: new Map(
        Object.entries(created).flatMap(([version, at]) => (typeof at === 'number' ? [[version, at]] : [])),
      ),
      stages: new Map(
        STAGES.flatMap((stage) =>
          Object.hasOwn(stages, stage) ? [[stage, text(stages[stage])] as const] : [],
        ),
      ),
    }
  }

  /** One change after the other. Versions without a stage are forgotten, as Secrets Manager may. */
  async #change(name: string, change: (secret: Secret | undefined) => Secret | undefined): Promise<void> {
    const turn = this.#writing.then(async () => {
      const changed = change(await this.#load(name))
      if (changed === undefined) return
      const staged = new Set(changed.stages.values())
      const versions = [...changed.versions].filter(([version]) => staged.has(version))
      const stored = {
        versions: Object.fromEntries(versions),
        stages: Object.fromEntries(changed.stages),
        created: Object.fromEntries([...changed.created].filter(([version]) => staged.has(version))),
      }
      await writePrivateFile(this.#path(name), `${JSON.stringify(stored, null, 1)}\n`)
    })
    this.#writing = turn.catch(() => undefined)
    await turn
  }
}

/** Stages after one has moved to `version`: whoever loses AWSCURRENT becomes AWSPREVIOUS. */
function moved(
  stages: ReadonlyMap<SecretStage, string>,
  stage: SecretStage,
  version: string,
): ReadonlyMap<SecretStage, string> {
  const next = new Map(stages).set(stage, version)
  if (stage !== 'AWSCURRENT') return next
  const before = stages.get('AWSCURRENT')
  if (before !== undefined) next.set('AWSPREVIOUS', before)
  if (next.get('AWSPENDING') === version) next.delete('AWSPENDING')
  return next
}

/** The store as the port that rotation asks. */
export function localStagedSecrets(store: LocalSecretStore, clock: Clock): StagedSecrets {
  const tried = async <T>(name: string, deadline: number, ask: () => Promise<T>): Promise<T> => {
    if (clock.now() >= deadline) throw new Outage('secret-unavailable', `no time left for the secret ${name}`)
    try {
      return await ask()
    } catch (cause) {
      throw new Outage('secret-unavailable', `the secret ${name} cannot be used`, { cause })
    }
  }
  return {
    read: (name, deadline) => store.read(name, deadline),
    find: (name, stage, deadline) =>
      tried(name, deadline, () =>
        orElse(store.readStage(name, stage), 'ResourceNotFoundException', undefined),
      ),
    stage: (name, value, stage, token, deadline) =>
      tried(name, deadline, () =>
        orElse(
          store.put(name, value, stage, token).then(() => 'staged' as const),
          'ResourceExistsException',
          'taken' as const,
        ),
      ),
    promote: (name, version, from, deadline) =>
      tried(name, deadline, () =>
        orElse(
          store.promote(name, version, from).then(() => 'promoted' as const),
          'InvalidParameterException',
          'changed' as const,
        ),
      ),
  }
}

/** What it resolves to, or `instead` where it is refused by this name. */
async function orElse<T, U>(asked: Promise<T>, name: SecretError['name'], instead: U): Promise<T | U> {
  try {
    return await asked
  } catch (error) {
    if (error instanceof SecretError && error.name === name) return instead
    throw error
  }
}

/** Makes a secret that is not there yet. */
export async function ensureSecret(store: LocalSecretStore, name: string, make: () => string): Promise<void> {
  const found = await orElse(store.readStage(name, 'AWSCURRENT'), 'ResourceNotFoundException', undefined)
  if (found === undefined) await store.put(name, Buffer.from(make()))
}

/** Gives each domain a pseudonym key that has none yet (keys/pseudonyms.ts reads them). */
export async function ensurePseudonymKeys(
  store: LocalSecretStore,
  name: string,
  domains: readonly string[],
): Promise<void> {
  let known: Record<string, unknown> = {}
  try {
    const value: unknown = JSON.parse(
      Buffer.from((await store.readStage(name, 'AWSCURRENT')).value).toString(),
    )
    if (isObject(value)) known = value
  } catch (error) {
    if (!(error instanceof SecretError && error.name === 'ResourceNotFoundException')) throw error
  }
  const missing = domains.filter((domain) => !Object.hasOwn(known, domain))
  if (missing.length === 0) return
  const made = missing.map((domain) => [domain, { '1': random(32).toString('base64url') }])
  const all: unknown = Object.fromEntries([...Object.entries(known), ...made])
  await store.put(name, Buffer.from(JSON.stringify(all)))
}
