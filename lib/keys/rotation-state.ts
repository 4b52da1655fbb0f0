/** Looks at the world for a rotation (keys.md §3): stages of secrets, rows of the key directory, keys of a key service. */
import { ConfigError, type Fault } from '../errors.ts'
import type { Clock, SecretVersion, StagedSecrets } from '../ports.ts'
import { type CertificateIssuer, heldCertificate } from './client-certificate.ts'
import { type DirectoryDocument, parseDirectory } from './directory-document.ts'
import type { PublisherOptions } from './directory-publisher.ts'
import type {
  ClientCertificateRotation,
  ClientCertificateState,
  HeldPassword,
  Rotation,
  RotationState,
  ScramRotation,
  ScramState,
  ScramUser,
  SigningKeyRotation,
  SigningKeyState,
} from './rotation.ts'
import { kidOf, readSigningSecret } from './signing-secret.ts'

/** Rotation of symmetric keys in a key service. Rejects with `Outage`. */
export interface KeyMaterial {
  describe(
    key: string,
    deadline: number,
  ): Promise<{
    readonly periodDays: number | undefined
    /** Milliseconds since 1970. */
    readonly rotatedAt: number | null
    readonly dueAt: number | null
    readonly onDemandLeft: number
  }>
  enableRotation(key: string, days: number, deadline: number): Promise<void>
  rotateOnDemand(key: string, deadline: number): Promise<void>
}

/** What looking needs. */
export interface RotationView {
  readonly clock: Clock
  readonly secrets: StagedSecrets
  readonly directory: Pick<PublisherOptions, 'store' | 'roots'>
  /** Undefined where no rotation needs it, as with the next. */
  readonly keyMaterial?: KeyMaterial
  /** Whom a rotation's certificates are from. */
  readonly issuerOf?: (rotation: ClientCertificateRotation) => CertificateIssuer
  /** Since when something that is only watched is as it is, when it is due, and when it ends; milliseconds since 1970. */
  readonly watch?: (
    rotation: Rotation,
    deadline: number,
  ) => Promise<{
    readonly rotatedAt: number | null
    readonly dueAt: number | null
    readonly endsAt?: number
  }>
}

/** A user and a password, as they are kept in a secret. */
export interface ScramLogin {
  readonly username: string
  readonly password: string
}

/** What the world shows of a rotation. Rejects with `ConfigError`, all faults at once, where a secret is of another shape; else `Outage`. */
export async function readRotation(
  rotation: Rotation,
  ports: RotationView,
  deadline: number,
): Promise<RotationState> {
  switch (rotation.kind) {
    case 'signing-key':
      return readSigningKey(rotation, ports, deadline)
    case 'scram':
      return readScram(rotation, ports, deadline)
    case 'client-certificate':
      return readClientCertificates(rotation, ports, deadline)
    case 'kms-key': {
      const { rotatedAt, dueAt, ...found } = await needed(ports.keyMaterial).describe(rotation.key, deadline)
      return { kind: rotation.kind, ...found, rotatedAt: seconds(rotatedAt), dueAt: seconds(dueAt) }
    }
    case 'directory': {
      const { version, issuedAt, expiresAt } = await readDocument(ports, deadline)
      return { kind: rotation.kind, version, issuedAt, expiresAt }
    }
    case 'pseudonym-keys':
    case 'certificate':
    case 'directory-root': {
      const { rotatedAt, dueAt, endsAt } = await needed(ports.watch)(rotation, deadline)
      const times = { rotatedAt: seconds(rotatedAt), dueAt: seconds(dueAt) }
      return { kind: rotation.kind, ...times, ...(endsAt !== undefined && { endsAt: endsAt / 1000 }) }
    }
  }
}

const seconds = (ms: number | null): number | null => (ms === null ? null : Math.floor(ms / 1000))

/** A port that this kind of rotation cannot do without. */
export function needed<T>(port: T | undefined): T {
  if (port === undefined) throw new TypeError('a rotation of this kind needs a port that is not there')
  return port
}

/** The key directory as it stands. */
export const readDocument = async (
  { directory }: RotationView,
  deadline: number,
): Promise<DirectoryDocument> => {
  const found = await directory.store.find(deadline)
  if (found !== undefined) return parseDirectory(found.bytes, directory.roots).document
  const fix = 'Make the first version with sealgate directory init.'
  throw new ConfigError([{ where: 'key directory', what: 'There is none.', fix }])
}

/** The versions of a secret, by `read`; gathers what is wrong with each. */
class Shelf<T> {
  readonly faults: Fault[] = []
  readonly #ports: RotationView
  readonly #read: (version: SecretVersion, where: string) => T
  readonly #deadline: number

  constructor(ports: RotationView, read: (version: SecretVersion, where: string) => T, deadline: number) {
    this.#ports = ports
    this.#read = read
    this.#deadline = deadline
  }

  async take(secret: string, stage: 'AWSCURRENT' | 'AWSPENDING' | 'AWSPREVIOUS'): Promise<T | undefined> {
    const found = await this.#ports.secrets.find(secret, stage, this.#deadline)
    if (found === undefined) return undefined
    try {
      return this.#read(found, `${secret} (${stage})`)
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error
      this.faults.push(...error.faults)
      return undefined
    }
  }

  async current(secret: string, fix: string): Promise<T | undefined> {
    const before = this.faults.length
    const found = await this.take(secret, 'AWSCURRENT')
    if (found === undefined && this.faults.length === before)
      this.faults.push({ where: secret, what: 'It has no current value.', fix })
    return found
  }
}

async function readSigningKey(
  { iss, secret }: SigningKeyRotation,
  ports: RotationView,
  deadline: number,
): Promise<SigningKeyState> {
  const held = ({ value, version }: SecretVersion, where: string) => {
    return { version, kid: kidOf(readSigningSecret(value, where)) }
  }
  const shelf = new Shelf(ports, held, deadline)
  // In this order: a key that moves from pending to current meanwhile is seen at least once.
  const pending = await shelf.take(secret, 'AWSPENDING')
  const current = await shelf.current(
    secret,
    `Put a private JWK there whose public half ${iss} has enrolled.`,
  )
  const previous = await shelf.take(secret, 'AWSPREVIOUS')
  if (current === undefined || shelf.faults.length > 0) throw new ConfigError(shelf.faults)
  const { signingKeys } = await readDocument(ports, deadline)
  const rows = signingKeys.filter((row) => row.iss === iss)
  const taken = signingKeys.find((row) => row.kid === current.kid && row.iss !== iss)
  if (taken !== undefined) {
    const fix = `Correct iss, or keep a key of ${iss} there.`
    throw new ConfigError([{ where: secret, what: `Its key is enrolled for ${taken.iss}, not ${iss}.`, fix }])
  }
  const isMoved = pending?.version === current.version
  return { kind: 'signing-key', current, pending: isMoved ? undefined : pending, previous, rows }
}

async function readClientCertificates(
  rotation: ClientCertificateRotation,
  ports: RotationView,
  deadline: number,
): Promise<ClientCertificateState> {
  const issuer = needed(ports.issuerOf)(rotation)
  const shelf = new Shelf(
    ports,
    (version, where) => heldCertificate(version, rotation, issuer, where),
    deadline,
  )
  const { secret, subject } = rotation
  const pending = await shelf.take(secret, 'AWSPENDING')
  const current = await shelf.current(secret, `Put the certificate of ${subject} there, with its key.`)
  if (current === undefined || shelf.faults.length > 0) throw new ConfigError(shelf.faults)
  const isMoved = pending?.version === current.version
  return { kind: 'client-certificate', current, pending: isMoved ? undefined : pending }
}

async function readScram(
  { pointer, users }: ScramRotation,
  ports: RotationView,
  deadline: number,
): Promise<ScramState> {
  const held = ({ value, version, createdAt }: SecretVersion, where: string) => {
    return { version, createdAt: Math.floor(createdAt / 1000), ...readLogin(value, where) }
  }
  const shelf = new Shelf(ports, held, deadline)
  const fix = 'Put {"username","password"} there (docs/rotation.md).'
  const told = await shelf.current(pointer, fix)
  const read = async (secret: string): Promise<ScramUser | undefined> => {
    const pending = await shelf.take(secret, 'AWSPENDING')
    const current = await shelf.current(secret, fix)
    if (current === undefined) return undefined
    const { username } = current
    const isMoved = pending === undefined || pending.version === current.version
    if (!isMoved && pending.username !== username)
      shelf.faults.push({ where: secret, what: 'Its pending version is of another user.', fix })
    return { secret, username, current: heldOnly(current), pending: isMoved ? undefined : heldOnly(pending) }
  }
  const first = await read(users[0])
  const second = await read(users[1])
  if (first !== undefined && first.username === second?.username)
    shelf.faults.push({ where: users[1], what: `Both users are ${first.username}.`, fix: 'Take two.' })
  if (told !== undefined && first !== undefined && second !== undefined)
    if (![first.username, second.username].includes(told.username))
      shelf.faults.push({ where: pointer, what: `${told.username} is neither of the two users.`, fix })
  if (told === undefined || first === undefined || second === undefined || shelf.faults.length > 0)
    throw new ConfigError(shelf.faults)
  return { kind: 'scram', pointer: { ...heldOnly(told), username: told.username }, users: [first, second] }
}

const heldOnly = ({ version, createdAt }: HeldPassword): HeldPassword => ({ version, createdAt })

/** Throws `ConfigError` that quotes nothing of it. */
export function readLogin(value: Uint8Array, where: string): ScramLogin {
  const fields = new Map<string, unknown>()
  try {
    const parsed: unknown = JSON.parse(Buffer.from(value).toString())
    if (typeof parsed === 'object' && parsed !== null)
      for (const [name, field] of Object.entries(parsed)) fields.set(name, field)
  } catch {
    // A parser's message quotes what it read.
  }
  const [username, password] = [fields.get('username'), fields.get('password')]
  if (isFilled(username) && isFilled(password)) return { username, password }
  const fix = 'Make it {"username":"…","password":"…"}, in ASCII.'
  throw new ConfigError([{ where, what: 'It holds no user name and password.', fix }])
}

/** Printable ASCII, of which every broker and client makes the same bytes (RFC 5802 asks for SASLprep, and few do it). */
const isFilled = (text: unknown): text is string =>
  typeof text === 'string' && /^[\x20-\x7e]{1,255}$/.test(text)
