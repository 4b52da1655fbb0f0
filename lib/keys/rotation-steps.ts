/**
 * Carries the steps of a rotation out (keys.md §3). Every step may be done twice, by two, or by one who died at it: what
 * another has done meanwhile is left as it is.
 */
import { digest, equal, publicKeyOf, random, sign, thumbprint, verify } from '../envelope/crypto.ts'
import { Outage } from '../errors.ts'
import type { StagedSecrets } from '../ports.ts'
import { stageCertificate, tryCertificate } from './client-certificate.ts'
import type { SigningKeyEntry } from './directory-document.ts'
import { type DirectoryChange, publishChange, type PublisherOptions } from './directory-publisher.ts'
import {
  planRotation,
  type Rotation,
  type RotationPlan,
  type RotationPolicy,
  type RotationStep,
  type SigningKeyRotation,
} from './rotation.ts'
import {
  needed,
  readDocument,
  readLogin,
  readRotation,
  type RotationView,
  type ScramLogin,
} from './rotation-state.ts'
import { newSigningSecret, readSigningSecret } from './signing-secret.ts'

/** Kafka's users. Rejects with `Outage`. */
export interface ScramUsers {
  /** Makes this the user's password at the brokers, whatever it was. */
  setPassword(login: ScramLogin, deadline: number): Promise<void>
  /** Has an MSK cluster take its users from these secrets; one that it did not take is an `Outage`. */
  associate(cluster: string, secrets: readonly string[], deadline: number): Promise<void>
  /** Logs in to every broker of the cluster that these name, or else the settings, and tries again until the deadline. */
  logIn(login: ScramLogin, brokers: readonly string[] | undefined, deadline: number): Promise<void>
}

export interface RotationPorts extends RotationView {
  /** Publishes the key directory. */
  readonly directory: PublisherOptions
  readonly users?: ScramUsers
}

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
    case 'stage-key':
      return stageSigningKey(of(rotation, 'signing-key'), successorOf(step.after), ports, deadline)
    case 'stage-certificate': {
      const own = of(rotation, 'client-certificate')
      const tools = { secrets, issuer: needed(ports.issuerOf)(own), now: clock.now() }
      return stageCertificate(own, successorOf(step.after), tools, deadline)
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
      if (rotation.kind === 'client-certificate') {
        const issuer = needed(ports.issuerOf)(rotation)
        return tryCertificate(step.secret, step.version, { secrets, issuer }, deadline)
      }
      const login = await loginOf(step, secrets, deadline)
      const { brokers } = of(rotation, 'scram')
      if (login !== undefined) await needed(ports.users).logIn(login, brokers, deadline)
      return
    }
    case 'move-pointer': {
      const { pointer } = of(rotation, 'scram')
      // Where somebody has moved the pointer back, what follows that version is made already: not so what follows both. It is
      // read first, so that whoever sees the pointer unmoved makes the same version as others do.
      const before = await secrets.find(pointer, 'AWSPREVIOUS', deadline)
      const [told, user] = [
        await secrets.find(pointer, 'AWSCURRENT', deadline),
        await secrets.find(step.secret, 'AWSCURRENT', deadline),
      ]
      if (told?.version !== step.from || user?.version !== step.version) return
      const id = successorOf([step.from, before?.version].join())
      await secrets.stage(pointer, user.value, 'AWSCURRENT', id, deadline)
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

/** Makes the pending key of a secret: of the algorithm that the current one has, and with this id. */
export async function stageSigningKey(
  { secret }: SigningKeyRotation,
  token: string,
  { secrets }: RotationPorts,
  deadline: number,
): Promise<void> {
  const current = await secrets.find(secret, 'AWSCURRENT', deadline)
  if (current === undefined) return
  const { suite } = readSigningSecret(current.value, secret)
  await secrets.stage(secret, newSigningSecret(suite), 'AWSPENDING', token, deadline)
}

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
  draw: (row: SigningKeyEntry, draft: Parameters<DirectoryChange>[0]) => void,
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
 * Carries out what can be done now, and plans anew after each step. `onStep` is told of each that is done, and waited for;
 * with `only` no others are done. Rejects where a step fails; those before it stand, and the next run goes on from there.
 */
export async function runRotation(
  policy: RotationPolicy,
  ports: RotationPorts,
  deadline: number,
  onStep: (step: RotationStep) => void | Promise<void> = () => undefined,
  only: (step: RotationStep) => boolean = () => true,
): Promise<Turn> {
  const done: RotationStep[] = []
  let { now: isAsked = false } = policy
  for (;;) {
    const state = await readRotation(policy.rotation, ports, deadline)
    const at = Math.floor(ports.clock.now() / 1000)
    const plan = planRotation(state, { ...policy, now: isAsked }, at)
    const todo = plan.steps.filter((step) => step.do !== 'wait' && only(step))
    if (todo.length === 0) return { done, plan }
    for (const step of todo) {
      if (done.length >= MAX_STEPS || ports.clock.now() >= deadline)
        throw new Outage(
          'deadline',
          `${policy.rotation.name}: no time left after ${done.length} steps; run it again`,
        )
      await applyRotation(step, policy.rotation, ports, deadline)
      done.push(step)
      await onStep(step)
      if (BEGINNINGS.has(step.do)) isAsked = false
    }
  }
}

/** Steps after which what was asked for is under way: asked again, another would begin. */
const BEGINNINGS: ReadonlySet<RotationStep['do']> = new Set([
  'enrol-key',
  'stage-certificate',
  'promote',
  'stage-password',
  'move-pointer',
  'rotate-on-demand',
  'renew-directory',
])
