import { beforeEach, describe, expect, it } from 'vitest'
import { exportPublicJwk, generateKeyPair, publicKeyOf } from '../../lib/envelope/crypto.ts'
import { ED25519, ESP256 } from '../../lib/envelope/suite.ts'
import { ConfigError } from '../../lib/errors.ts'
import type { SigningKeyEntry } from '../../lib/keys/directory-document.ts'
import { parseDirectory } from '../../lib/keys/directory-document.ts'
import { publishChange, publishFirst, type PublisherOptions } from '../../lib/keys/directory-publisher.ts'
import {
  planRotation,
  type KmsKeyState,
  type RotationPolicy,
  type RotationState,
  type ScramRotation,
  type ScramState,
  type SigningKeyRotation,
  type SigningKeyState,
} from '../../lib/keys/rotation.ts'
import { readRotation } from '../../lib/keys/rotation-state.ts'
import { applyRotation, type RotationPorts, runRotation } from '../../lib/keys/rotation-steps.ts'
import { localSigner } from '../../lib/keys/signer.ts'
import { kidOf, newSigningSecret, readSigningSecret, secretSigners } from '../../lib/keys/signing-secret.ts'
import { manualClock, type ManualClock, START_MS } from './fixtures.ts'
import { memoryDocument, memorySecrets } from './rotation-world.ts'

const DAY = 86_400
const NOW = START_MS / 1000
const WAITS = { directoryGrace: 300, secretHold: 3600, eventLife: DAY, margin: 60, retention: 365 * DAY }
const rotation: SigningKeyRotation = {
  kind: 'signing-key',
  name: 'gateway',
  iss: 'gateway-eu',
  secret: 'signing/gateway',
  period: 90 * DAY,
}
const policy: RotationPolicy = { rotation, waits: WAITS }
const asked: RotationPolicy = { ...policy, now: true }
const { publicKey } = generateKeyPair(ED25519)

const row = (kid: string, changes: Partial<SigningKeyEntry> = {}): SigningKeyEntry => ({
  ...{ kid, iss: 'gateway-eu', alg: 'Ed25519', jwk: exportPublicJwk(publicKey), state: 'active' },
  ...{ notBefore: NOW - 91 * DAY, notAfter: NOW + 89 * DAY, compromisedAt: null },
  ...changes,
})
const held = (kid: string) => ({ version: `v-${kid}`, kid })
const stateOf = (changes: Partial<SigningKeyState> = {}): SigningKeyState => ({
  ...{
    kind: 'signing-key',
    current: held('old'),
    pending: undefined,
    previous: undefined,
    rows: [row('old')],
  },
  ...changes,
})
const stepsOf = (state: RotationState, by: RotationPolicy = policy, now: number = NOW) =>
  planRotation(state, by, now).steps

describe('the plan for a signing key', () => {
  it('does nothing before it is due, and begins then, or when it is asked to', () => {
    const young = stateOf({ rows: [row('old', { notBefore: NOW - 89 * DAY })] })
    expect(planRotation(young, policy, NOW)).toEqual({
      ...{ phase: 'current', rotatedAt: NOW - 89 * DAY, dueAt: NOW + DAY, steps: [] },
    })
    const begin = [{ do: 'stage-key', after: 'v-old,' }]
    expect(stepsOf(young, asked)).toEqual(begin)
    expect(stepsOf(stateOf())).toEqual(begin)
  })

  it('begins early where the key ends before its period does', () => {
    const short = stateOf({ rows: [row('old', { notBefore: NOW - DAY, notAfter: NOW + 2 * DAY })] })
    expect(stepsOf(short)).toEqual([{ do: 'stage-key', after: 'v-old,' }])
  })

  it('enrols the pending key, waits until every gate must know it, and promotes it', () => {
    const staged = stateOf({ pending: held('new') })
    const enrol = { do: 'enrol-key', version: 'v-new', kid: 'new', life: 180 * DAY }
    expect(stepsOf(staged)).toEqual([enrol])
    const known = (notBefore: number): SigningKeyState =>
      stateOf({ pending: held('new'), rows: [row('old'), row('new', { notBefore })] })
    expect(stepsOf(known(NOW - 359))).toMatchObject([{ do: 'wait', until: NOW + 1 }])
    expect(stepsOf(known(NOW - 360))).toEqual([
      { do: 'promote', secret: 'signing/gateway', version: 'v-new', from: 'v-old' },
    ])
  })

  it('enrols a key anew that somebody has enrolled before its activation', () => {
    const rows = [row('old'), row('new', { state: 'pre-activation', notBefore: NOW - DAY })]
    expect(stepsOf(stateOf({ pending: held('new'), rows }))).toMatchObject([{ do: 'enrol-key', kid: 'new' }])
  })

  it('makes another where the pending one has been refused meanwhile, or is almost over', () => {
    const spoiled: Partial<SigningKeyEntry>[] = [
      { state: 'suspended' },
      { state: 'compromised' },
      { notAfter: NOW + DAY },
    ]
    for (const changes of spoiled) {
      const state = stateOf({ pending: held('new'), rows: [row('old'), row('new', changes)] })
      expect(stepsOf(state)).toEqual([{ do: 'stage-key', after: 'v-old,v-new' }])
    }
  })

  it('ends the key before once all signers have read the new one and all events have arrived', () => {
    const rows = [row('older', { notBefore: NOW - 95 * DAY }), row('old', { notBefore: NOW - DAY })]
    const moved = stateOf({ previous: held('older'), rows })
    expect(stepsOf(moved)).toEqual([{ do: 'retire-key', kid: 'older', at: NOW + 3600 + DAY + 60 }])
  })

  it('never ends a key while the current one cannot sign, nor one that is kept elsewhere', () => {
    const rows = [row('older'), row('old', { state: 'suspended' })]
    expect(stepsOf(stateOf({ previous: held('older'), rows }))).toEqual([])
    const elsewhere = [row('kms'), row('old', { notBefore: NOW })]
    expect(stepsOf(stateOf({ rows: elsewhere }))).toEqual([])
  })

  it('deactivates rows that have ended, and takes them out when nobody keeps what they signed', () => {
    const rows = [
      row('old', { notBefore: NOW }),
      row('lost', { notAfter: NOW - 1 }),
      row('kept', { state: 'deactivated', notAfter: NOW - 365 * DAY - 60 }),
      row('gone', { state: 'deactivated', notAfter: NOW - 365 * DAY - 61 }),
      row('stolen', { state: 'compromised', notAfter: NOW - 999 * DAY }),
    ]
    expect(stepsOf(stateOf({ rows }))).toEqual([
      { do: 'retire-key', kid: 'lost', at: NOW - 1 },
      { do: 'destroy-key', kid: 'gone' },
    ])
  })

  it('gives an issuer whose key was suspended, revoked, retired or never enrolled no new one by itself', () => {
    for (const state of ['suspended', 'compromised', 'deactivated'] as const) {
      const blocked = stateOf({ rows: [row('old', { state })] })
      expect(planRotation(blocked, policy, NOW)).toMatchObject({ phase: 'blocked', steps: [] })
      expect(planRotation({ ...blocked, pending: held('new') }, policy, NOW)).toMatchObject({
        phase: 'blocked',
      })
      expect(stepsOf(blocked, asked)).toEqual([{ do: 'stage-key', after: 'v-old,' }])
    }
    expect(planRotation(stateOf({ rows: [] }), policy, NOW)).toMatchObject({ phase: 'blocked', dueAt: null })
  })
})

const scram: ScramRotation = {
  ...{ kind: 'scram', name: 'kafka', pointer: 'kafka/gate', users: ['kafka/a', 'kafka/b'], period: 30 * DAY },
}
const user = (name: string, createdAt: number, pending?: number) => ({
  ...{ secret: `kafka/${name}`, username: name, current: { version: `v-${name}`, createdAt } },
  pending: pending === undefined ? undefined : { version: `p-${name}`, createdAt: pending },
})
const scramState = (told: number, b: ReturnType<typeof user>): ScramState => ({
  ...{ kind: 'scram', pointer: { version: 'p1', createdAt: told, username: 'a' }, users: [user('a', 0), b] },
})
const scramPolicy: RotationPolicy = { rotation: scram, waits: WAITS }

describe('the plan for a SCRAM user', () => {
  it('rotates the one whom nobody is, and tells the clients when he can log in', () => {
    const told = NOW - 31 * DAY
    const due = scramState(told, user('b', 0))
    expect(stepsOf(due, scramPolicy)).toEqual([
      { do: 'stage-password', secret: 'kafka/b', username: 'b', after: 'v-b' },
    ])
    expect(stepsOf(scramState(told, user('b', 0, NOW)), scramPolicy)).toEqual([
      { do: 'set-password', secret: 'kafka/b', version: 'p-b' },
      { do: 'log-in', secret: 'kafka/b', version: 'p-b' },
      { do: 'promote', secret: 'kafka/b', version: 'p-b', from: 'v-b' },
    ])
    expect(stepsOf(scramState(told, user('b', NOW)), scramPolicy)).toEqual([
      { do: 'log-in', secret: 'kafka/b', version: 'v-b' },
      { do: 'move-pointer', secret: 'kafka/b', version: 'v-b', from: 'p1' },
    ])
    expect(planRotation(scramState(NOW, user('b', NOW - 1)), scramPolicy, NOW)).toMatchObject({
      ...{ phase: 'current', dueAt: NOW + 30 * DAY, steps: [] },
    })
  })

  it('lets an MSK cluster read the new password before it is tried', () => {
    const msk = {
      rotation: { ...scram, msk: 'arn:aws:kafka:eu-west-1:111122223333:cluster/c/1' },
      waits: WAITS,
    }
    const told = NOW - 31 * DAY
    expect(stepsOf(scramState(told, user('b', 0, NOW)), msk).map((step) => step.do)).toEqual(['promote'])
    expect(stepsOf(scramState(told, user('b', NOW)), msk).map((step) => step.do)).toEqual([
      ...['associate', 'log-in', 'move-pointer'],
    ])
  })

  it('waits until nobody is the idle user any more, though it is asked to hurry', () => {
    const hasty = { ...scramPolicy, now: true }
    expect(stepsOf(scramState(NOW - 3659, user('b', 0)), hasty)).toMatchObject([
      { do: 'wait', until: NOW + 1 },
    ])
    expect(stepsOf(scramState(NOW - 3660, user('b', 0)), hasty)).toMatchObject([{ do: 'stage-password' }])
  })
})

describe('the plan for what is not ours to make', () => {
  const kms = {
    rotation: { kind: 'kms-key', name: 'kek', key: 'k', period: 365 * DAY },
    waits: WAITS,
  } as const
  const key: KmsKeyState = { kind: 'kms-key', periodDays: 365, rotatedAt: null, dueAt: NOW, onDemandLeft: 3 }

  it('has a KMS key rotate itself, and rotates it on demand as often as that is allowed', () => {
    expect(stepsOf(key, kms)).toEqual([])
    expect(stepsOf({ ...key, periodDays: undefined }, kms)).toEqual([{ do: 'enable-rotation', days: 365 }])
    expect(stepsOf(key, { ...kms, now: true })).toEqual([{ do: 'rotate-on-demand' }])
    const spent = planRotation({ ...key, onDemandLeft: 0 }, { ...kms, now: true }, NOW)
    expect(spent).toMatchObject({ phase: 'blocked', steps: [] })
  })

  it('publishes the directory again halfway through its life', () => {
    const directory = { rotation: { kind: 'directory', name: 'directory' }, waits: WAITS } as const
    const state: RotationState = { kind: 'directory', version: 4, issuedAt: NOW - 99, expiresAt: NOW + 101 }
    expect(stepsOf(state, directory)).toEqual([])
    expect(stepsOf(state, directory, NOW + 1)).toEqual([{ do: 'renew-directory', version: 4 }])
  })

  it('only says when somebody must', () => {
    const root = { rotation: { kind: 'directory-root', name: 'root' }, waits: WAITS } as const
    const state: RotationState = { kind: 'directory-root', rotatedAt: 1, dueAt: NOW }
    expect(planRotation(state, { ...root, now: true }, NOW)).toEqual({
      ...{ phase: 'due', rotatedAt: 1, dueAt: NOW, steps: [] },
    })
    expect(() => planRotation(state, { ...policy, rotation: scram }, NOW)).not.toThrow()
    expect(() => planRotation(stateOf(), root, NOW)).toThrow(TypeError)
  })
})

describe('carrying it out', () => {
  let clock: ManualClock
  let secrets: ReturnType<typeof memorySecrets>
  let ports: RotationPorts
  const root = generateKeyPair(ED25519)
  const soon = (): number => clock.ms + 10_000
  const kidIn = async (stage: 'AWSCURRENT' | 'AWSPENDING'): Promise<string> => {
    const found = await secrets.find(rotation.secret, stage, soon())
    return kidOf(readSigningSecret(found!.value, ''))
  }
  const rows = async () => {
    const found = await ports.directory.store.find(soon())
    return parseDirectory(found!.bytes, [root.publicKey]).document.signingKeys
  }

  beforeEach(async () => {
    clock = manualClock()
    secrets = memorySecrets(clock)
    const directory: PublisherOptions = {
      ...{ store: memoryDocument(), roots: [root.publicKey], root: localSigner(root.privateKey), clock },
      life: 10 ** 9,
    }
    ports = { clock, secrets, directory }
    await publishFirst(directory, soon())
    const value = newSigningSecret(ESP256)
    await secrets.stage(rotation.secret, value, 'AWSCURRENT', 'first', soon())
    const key = publicKeyOf(readSigningSecret(value, ''))
    const enrolment = {
      iss: 'gateway-eu',
      key,
      state: 'active',
      notBefore: NOW,
      notAfter: NOW + 180 * DAY,
    } as const
    await publishChange(directory, (draft) => draft.enrol(enrolment), soon())
  })

  it('goes all the way, with the algorithm that it had, and each step twice does no harm', async () => {
    const signers = secretSigners({ secrets, secret: rotation.secret, clock })
    const before = await signers(soon())
    clock.ms += 90 * DAY * 1000
    const first = await runRotation(policy, ports, soon())
    expect(first.done.map((step) => step.do)).toEqual(['stage-key', 'enrol-key'])
    for (const step of first.done) await applyRotation(step, rotation, ports, soon())
    expect(await rows()).toMatchObject([{ state: 'active' }, { state: 'active', alg: 'ESP256' }])
    expect((await runRotation(policy, ports, soon())).done).toEqual([])
    expect(await kidIn('AWSCURRENT')).toBe(Buffer.from(before.kid).toString('base64url'))
    const pending = await kidIn('AWSPENDING')
    clock.ms += 360_000
    const second = await runRotation(policy, ports, soon())
    expect(second.done.map((step) => step.do)).toEqual(['promote', 'retire-key'])
    for (const step of second.done) await applyRotation(step, rotation, ports, soon())
    expect(await kidIn('AWSCURRENT')).toBe(pending)
    expect(await rows()).toMatchObject([{ state: 'deactivated', notAfter: clock.ms / 1000 + 90_060 }, {}])
    expect(Buffer.from((await signers(soon())).kid).toString('base64url')).toBe(pending)
    clock.ms += 400 * DAY * 1000
    expect((await runRotation(policy, ports, soon())).done).toContainEqual({
      ...{ do: 'destroy-key', kid: Buffer.from(before.kid).toString('base64url') },
    })
  })

  it('tells clients again to be a user whom somebody has moved the pointer back from', async () => {
    const scram = { kind: 'scram', name: 'kafka', pointer: 'p', users: ['a', 'b'], period: DAY } as const
    const login = (username: string): Buffer => Buffer.from(JSON.stringify({ username, password: 'old' }))
    for (const [name, user] of [...scram.users.map((one) => [one, one] as const), ['p', 'a'] as const])
      await secrets.stage(name, login(user), 'AWSCURRENT', 'first', soon())
    const done = (): Promise<void> => Promise.resolve()
    const on = { ...ports, users: { setPassword: done, logIn: done, associate: done } }
    const due = { rotation: scram, waits: WAITS }
    clock.ms += DAY * 1000
    const told = () => secrets.find('p', 'AWSCURRENT', soon())
    await runRotation(due, on, soon())
    const moved = await told()
    await secrets.promote('p', 'first', moved?.version ?? '', soon())
    clock.ms += 3_660_000
    const { done: steps } = await runRotation(due, on, soon())
    expect(steps.map((step) => step.do)).toEqual(['log-in', 'move-pointer'])
    expect(await told()).toMatchObject({ value: moved?.value, createdAt: clock.ms })
  })

  it('is begun once by being asked for once, blocked or not', async () => {
    const kid = await kidIn('AWSCURRENT')
    const leaving = { ...ports.directory, leaving: new Set(['gateway-eu']) }
    await publishChange(leaving, (draft) => draft.suspend(kid), soon())
    expect((await runRotation(policy, ports, soon())).plan.phase).toBe('blocked')
    const { done, plan } = await runRotation(asked, ports, soon())
    expect(done.map((step) => step.do)).toEqual(['stage-key', 'enrol-key'])
    expect(plan.phase).toBe('under-way')
    clock.ms += 360_000
    expect((await runRotation(asked, ports, soon())).done.map((step) => step.do)).toEqual(['promote'])
  })

  it('makes, enrols and promotes nothing where a secret is of another shape', async () => {
    clock.ms += 90 * DAY * 1000
    const before = await rows()
    await secrets.stage(rotation.secret, Buffer.from('{}'), 'AWSCURRENT', 'broken', soon())
    await expect(runRotation(policy, ports, soon())).rejects.toThrow(ConfigError)
    expect(await secrets.find(rotation.secret, 'AWSPENDING', soon())).toBeUndefined()
    expect(await rows()).toEqual(before)
    expect((await secrets.read(rotation.secret, soon())).version).toBe('broken')
  })

  it('says all that is wrong with secrets of another shape, and nothing of what is in them', async () => {
    const planted = Buffer.from('{"username":"planted-secret"}')
    await secrets.stage(rotation.secret, planted, 'AWSPENDING', 'p', soon())
    await secrets.stage('other', planted, 'AWSCURRENT', 'c', soon())
    const faults = async (one: SigningKeyRotation | ScramRotation): Promise<string> => {
      const error: unknown = await readRotation(one, ports, soon()).catch((reason: unknown) => reason)
      if (!(error instanceof ConfigError)) throw new Error('no faults', { cause: error })
      expect(error.message).not.toContain('planted')
      return error.message
    }
    expect(await faults(rotation)).toContain('signing/gateway (AWSPENDING): It is no private signing key')
    const all = await faults({ ...scram, pointer: 'other', users: ['other', 'none'] })
    expect(all.split('\n')).toHaveLength(3)
    expect(all).toContain('none: It has no current value.')
    // Of other characters clients and brokers may make different bytes.
    const accented = Buffer.from('{"username":"a","password":"planted-\u00e9"}')
    await secrets.stage('other', accented, 'AWSCURRENT', 'd', soon())
    expect(await faults({ ...scram, pointer: 'other' })).toContain(
      'other (AWSCURRENT): It holds no user name',
    )
  })
})
