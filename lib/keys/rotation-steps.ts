/**
 * Looks at the world for a rotation and carries its steps out (keys.md §3). Every step may be done twice, by two, or by
 * one who died at it: what another has done meanwhile is left as it is.
 */
import { digest, equal, publicKeyOf, random, sign, thumbprint, verify } from '../envelope/crypto.ts'
import { ConfigError, type Fault, Outage } from '../errors.ts'
import type { Clock, SecretVersion, StagedSecrets } from '../ports.ts'
import { parseDirectory, type SigningKeyEntry } from './directory-document.ts'
import { publishChange, type PublisherOptions } from './directory-publisher.ts'
import {
  type HeldPassword,
  planRotation,
  type Rotation,
  type RotationPlan,
  type RotationPolicy,
  type RotationState,
  type RotationStep,
  type ScramRotation,
  type ScramState,
  type ScramUser,
  type SigningKeyRotation,
  type SigningKeyState,
} from './rotation.ts'
import { kidOf, newSigningSecret, readSigningSecret } from './signing-secret.ts'

/** A user and a password, as they are kept in a secret. */
export interface ScramLogin {
  readonly username: string
  readonly password: string
}

/** Kafka's users. Rejects with `Outage`. */
export interface ScramUsers {
  /** Makes this the user's password at the brokers, whatever it was. */
  setPassword(login: ScramLogin, deadline: number): Promise<void>
  /** Has an MSK cluster take its users from these secrets; one that it did not take is an `Outage`. */
  associate(cluster: string, secrets: readonly string[], deadline: number): Promise<void>
  /** Logs in to every broker, and tries again until the deadline. */
  logIn(login: ScramLogin, deadline: number): Promise<void>
}

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

export interface RotationPorts {
  readonly clock: Clock
  readonly secrets: StagedSecrets
  /** Publishes the key directory. */
  readonly directory: PublisherOptions
  /** Undefined where no rotation needs it, as with the next. */
  readonly users?: ScramUsers
  readonly keyMaterial?: KeyMaterial
  /** Since when something that is only watched is as it is, and when it ends; milliseconds since 1970. */
  readonly watch?: (
    rotation: Rotation,
    deadline: number,
  ) => Promise<{ readonly rotatedAt: number | null; readonly dueAt: number | null }>
}

/** What the world shows of a rotation. Rejects with `ConfigError`, all faults at once, where a secret is of another shape; else `Outage`. */
export async function readRotation(
  rotation: Rotation,
  ports: RotationPorts,
  deadline: number,
): Promise<RotationState> {
  switch (rotation.kind) {
    case 'signing-key':
      return readSigningKey(rotation, ports, deadline)
    case 'scram':
      return readScram(rotation, ports, deadline)
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
      const { rotatedAt, dueAt } = await needed(ports.watch)(rotation, deadline)
      return { kind: rotation.kind, rotatedAt: seconds(rotatedAt), dueAt: seconds(dueAt) }
    }
  }
}

const seconds = (ms: number | null): number | null => (ms === null ? null : Math.floor(ms / 1000))

function needed<T>(port: T | undefined): T {
  if (port === undefined) throw new TypeError('a rotation of this kind needs a port that is not there')
  return port
}

const readDocument = async ({ directory }: RotationPorts, deadline: number) => {
  const found = await directory.store.find(deadline)
  if (found !== undefined) return parseDirectory(found.bytes, directory.roots).document
  const fix = 'Make the first version with sealgate directory init.'
  throw new ConfigError([{ where: 'key directory', what: 'There is none.', fix }])
}

/** The versions of a secret, by `read`; gathers what is wrong with each. */
class Shelf<T> {
  readonly faults: Fault[] = []
  readonly #ports: RotationPorts
  readonly #read: (version: SecretVersion, where: string) => T
  readonly #deadline: number

  constructor(ports: RotationPorts, read: (version: SecretVersion, where: string) => T, deadline: number) {
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
  ports: RotationPorts,
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

async function readScram(
  { pointer, users }: ScramRotation,
  ports: RotationPorts,
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

function readLogin(value: Uint8Array, where: string): ScramLogin {
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
  const fix = 'Make it {"username":"…","password":"…"}.'
  throw new ConfigError([{ where, what: 'It holds no user name and password.', fix }])
}

const isFilled = (text: unknown): text is string => typeof text === 'string' && text !== ''

/** Carries out one step. Resolves where it is done or another has done it; a wait is no step to carry out. */
export async function applyRotation(
  step: RotationStep,
  rotation: Rotation,
  ports: RotationPorts,
  deadline: number,
): Promise<void> {
  const { secrets, clock } = ports
  switch (step.do) {
    case 'wait':
      throw new TypeError('a wait is not carried out')
    case 'stage-key': {
      const { secret } = of(rotation, 'signing-key')
      const current = await secrets.find(secret, 'AWSCURRENT', deadline)
      if (current === undefined) return
      const { suite } = readSigningSecret(current.value, secret)
      await secrets.stage(secret, newSigningSecret(suite), 'AWSPENDING', successorOf(step.after), deadline)
      return
    }
    case 'enrol-key':
      return enrol(step, of(rotation, 'signing-key'), ports, deadline)
    case 'promote':
      await secrets.promote(step.secret, step.version, step.from, deadline)
      return
    case 'retire-key':
      return change(ports, deadline, step.kid, (row, draft) => {
        if (row.state === 'active') draft.retire(step.kid, step.at)
      })
    case 'destroy-key':
      return change(ports, deadline, step.kid, (row, draft) => {
        if (row.state === 'deactivated') draft.destroy(step.kid)
      })
    case 'stage-password': {
      const password = random(PASSWORD_BYTES).toString('base64url')
      const value = Buffer.from(JSON.stringify({ username: step.username, password }))
      await secrets.stage(step.secret, value, 'AWSPENDING', successorOf(step.after), deadline)
      return
    }
    case 'set-password': {
      const login = await loginOf(step, secrets, deadline)
      // Another has gone on already: what is pending no longer must not become the password again.
      if (login !== undefined) await needed(ports.users).setPassword(login, deadline)
      return
    }
    case 'associate':
      return needed(ports.users).associate(of(rotation, 'scram').msk ?? '', step.secrets, deadline)
    case 'log-in': {
      const login = await loginOf(step, secrets, deadline)
      if (login !== undefined) await needed(ports.users).logIn(login, deadline)
      return
    }
    case 'move-pointer': {
      const { pointer } = of(rotation, 'scram')
      const [told, user] = [
        await secrets.find(pointer, 'AWSCURRENT', deadline),
        await secrets.find(step.secret, 'AWSCURRENT', deadline),
      ]
      if (told?.version !== step.from || user?.version !== step.version) return
      await secrets.stage(pointer, user.value, 'AWSCURRENT', successorOf(step.from), deadline)
      return
    }
    case 'enable-rotation':
      return needed(ports.keyMaterial).enableRotation(of(rotation, 'kms-key').key, step.days, deadline)
    case 'rotate-on-demand':
      return needed(ports.keyMaterial).rotateOnDemand(of(rotation, 'kms-key').key, deadline)
    case 'renew-directory':
      if ((await readDocument(ports, deadline)).version === step.version)
        await publishChange({ ...ports.directory, clock }, () => undefined, deadline)
      return
  }
}

/** 192 bits. */
const PASSWORD_BYTES = 24

/** The rotation that a step is of. */
function of<K extends Rotation['kind']>(rotation: Rotation, kind: K): Extract<Rotation, { kind: K }> {
  if (isOf(rotation, kind)) return rotation
  throw new TypeError(`no step of a ${rotation.kind}`)
}

const isOf = <K extends Rotation['kind']>(
  rotation: Rotation,
  kind: K,
): rotation is Extract<Rotation, { kind: K }> => rotation.kind === kind

/** The id of what follows versions: whoever makes it makes the same, and one succeeds. 64 characters. */
const successorOf = (versions: string): string =>
  digest(Buffer.from(`sealgate rotation\0${versions}`)).toString('hex')

async function enrol(
  { version, kid, life }: Extract<RotationStep, { do: 'enrol-key' }>,
  { iss, secret }: SigningKeyRotation,
  ports: RotationPorts,
  deadline: number,
): Promise<void> {
  const pending = await ports.secrets.find(secret, 'AWSPENDING', deadline)
  if (pending?.version !== version) return
  const privateKey = readSigningSecret(pending.value, secret)
  const key = publicKeyOf(privateKey)
  const challenge = random(32)
  if (
    !verify(key, challenge, sign(privateKey, challenge)) ||
    !equal(thumbprint(key), Buffer.from(kid, 'base64url'))
  )
    throw new Outage('unexpected', `${secret}: its pending key does not sign`)
  await publishChange(
    ports.directory,
    (draft, before) => {
      const known = before.signingKeys.find((row) => row.kid === kid)
      if (known !== undefined && known.state !== 'pre-activation') return
      // With its time, from which all wait: a copy that shows it as not yet active would have it refused for good.
      if (known !== undefined) draft.destroy(kid)
      const notBefore = Math.floor(ports.clock.now() / 1000)
      draft.enrol({ iss, key, state: 'active', notBefore, notAfter: notBefore + life })
    },
    deadline,
  )
}

/** Publishes a change of one row, where it is there. */
async function change(
  ports: RotationPorts,
  deadline: number,
  kid: string,
  draw: (row: SigningKeyEntry, draft: Parameters<Parameters<typeof publishChange>[1]>[0]) => void,
): Promise<void> {
  await publishChange(
    ports.directory,
    (draft, before) => {
      const row = before.signingKeys.find((one) => one.kid === kid)
      if (row !== undefined) draw(row, draft)
    },
    deadline,
  )
}

/** The login of a version that is pending or current; undefined where it is neither any more. */
async function loginOf(
  { secret, version }: { readonly secret: string; readonly version: string },
  secrets: StagedSecrets,
  deadline: number,
): Promise<ScramLogin | undefined> {
  for (const stage of ['AWSPENDING', 'AWSCURRENT'] as const) {
    const found = await secrets.find(secret, stage, deadline)
    if (found?.version === version) return readLogin(found.value, secret)
  }
  return undefined
}

/** What has been done of a rotation, and what is left. */
export interface Turn {
  readonly done: readonly RotationStep[]
  readonly plan: RotationPlan
}

/** A rotation takes fewer steps; more would be two who undo each other. */
const MAX_STEPS = 32

/**
 * Carries out what can be done now, and plans anew after each step. `onStep` is told of each that is done. Rejects where
 * a step fails; those before it stand, and the next run goes on from there.
 */
export async function runRotation(
  policy: RotationPolicy,
  ports: RotationPorts,
  deadline: number,
  onStep: (step: RotationStep) => void = () => undefined,
): Promise<Turn> {
  const done: RotationStep[] = []
  let { now: isAsked = false } = policy
  for (;;) {
    const state = await readRotation(policy.rotation, ports, deadline)
    const at = Math.floor(ports.clock.now() / 1000)
    const plan = planRotation(state, { ...policy, now: isAsked }, at)
    const todo = plan.steps.filter((step) => step.do !== 'wait')
    if (todo.length === 0) return { done, plan }
    for (const step of todo) {
      if (done.length >= MAX_STEPS || ports.clock.now() >= deadline)
        throw new Outage(
          'deadline',
          `${policy.rotation.name}: no time left after ${done.length} steps; run it again`,
        )
      await applyRotation(step, policy.rotation, ports, deadline)
      done.push(step)
      onStep(step)
      if (BEGINNINGS.has(step.do)) isAsked = false
    }
  }
}

/** Steps after which what was asked for is under way: asked again, another would begin. */
const BEGINNINGS: ReadonlySet<RotationStep['do']> = new Set([
  'enrol-key',
  'promote',
  'stage-password',
  'move-pointer',
  'rotate-on-demand',
  'renew-directory',
])
