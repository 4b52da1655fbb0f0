import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { rotateHandler } from '../../functions/rotate-handler.ts'
import type { OpenedLifecycleLog } from '../../lib/adapters/control-cluster.ts'
import { documentFile } from '../../lib/adapters/document-file.ts'
import { generateKeyPair, publicKeyOf } from '../../lib/envelope/crypto.ts'
import { ED25519 } from '../../lib/envelope/suite.ts'
import { ConfigError, Outage } from '../../lib/errors.ts'
import { publishChange, publishFirst, type PublisherOptions } from '../../lib/keys/directory-publisher.ts'
import type { DirectoryDraft } from '../../lib/keys/directory-draft.ts'
import { kidOf, newSigningSecret, readSigningSecret } from '../../lib/keys/signing-secret.ts'
import { localSigner } from '../../lib/keys/signer.ts'
import { localStagedSecrets, openLocalSecrets } from '../../lib/local/secrets.ts'
import { invokeOnce } from '../../lib/local/invocation.ts'
import type { SecretStage, StagedSecrets } from '../../lib/ports.ts'
import { readRotationSettings, type Rotations } from '../../lib/rotation-runtime.ts'

const clock = { now: () => Date.now() }
const soon = (): number => Date.now() + 10_000
const SECRET = 'signing/shop'
const TOKEN = '0123456789abcdef0123456789abcdef'
const waits = { directoryGrace: 1, secretHold: 1, eventLife: 1, margin: 1, retention: 1 }
const root = generateKeyPair(ED25519)
let folder = ''
let secrets: StagedSecrets
let directory: PublisherOptions
let rotations: Rotations
/** Whether Kafka answers, and all that was told to it: kinds and who. */
let isDown = false
let told: string[] = []
const audit = (): OpenedLifecycleLog => ({
  log: (steps, principal) => {
    if (isDown) return Promise.reject(new Outage('sink-unavailable', 'No broker answers.'))
    const names = steps.map((step) => ('taken' in step ? step.taken.do : step.published.document.version))
    told.push(...names.map((name) => `${name} ${principal ?? ''}`))
    return Promise.resolve()
  },
  close: () => Promise.resolve(),
})

beforeEach(async () => {
  isDown = false
  told = []
  folder = await mkdtemp(join(tmpdir(), 'rotate-'))
  secrets = localStagedSecrets(await openLocalSecrets(join(folder, 'secrets'), clock), clock)
  const store = documentFile({ path: join(folder, 'directory.jws'), outage: 'directory-unavailable', clock })
  directory = { store, roots: [root.publicKey], root: localSigner(root.privateKey), clock }
  await publishFirst(directory, soon())
  const value = newSigningSecret(ED25519)
  await secrets.stage(SECRET, value, 'AWSCURRENT', 'first'.padEnd(32, '-'), soon())
  const key = publicKeyOf(readSigningSecret(value, SECRET))
  const notBefore = Math.floor(Date.now() / 1000) - 200
  const times = { notBefore, notAfter: notBefore + 10_000 }
  await change((draft) => draft.enrol({ iss: 'shop', key, state: 'active', ...times }))
  rotations = {
    policies: [
      { rotation: { kind: 'signing-key', name: 'shop', iss: 'shop', secret: SECRET, period: 1000 }, waits },
      { rotation: { kind: 'directory', name: 'directory' }, waits },
    ],
    view: { clock, secrets, directory },
    ports: () => Promise.resolve({ clock, secrets, directory }),
  }
})
afterEach(() => rm(folder, { recursive: true }))

const change = async (work: (draft: DirectoryDraft) => void): Promise<void> => {
  await publishChange({ ...directory, leaving: new Set(['shop']) }, work, soon())
}
const invoke = (event: unknown, timeoutMs = 20_000): Promise<unknown> =>
  invokeOnce(
    rotateHandler(() => rotations, audit),
    event,
    { timeoutMs, functionName: 'rotate' },
  )
const step = (Step: string, ClientRequestToken = TOKEN, SecretId = SECRET): Promise<unknown> =>
  invoke({ Step, SecretId, ClientRequestToken })
const kidAt = async (stage: SecretStage): Promise<string | undefined> => {
  const found = await secrets.find(SECRET, stage, soon())
  return found && kidOf(readSigningSecret(found.value, SECRET))
}
const withPeriod = (period: number): void => {
  const [policy, ...others] = rotations.policies
  if (policy?.rotation.kind !== 'signing-key') throw new Error('no signing key')
  rotations = { ...rotations, policies: [{ ...policy, rotation: { ...policy.rotation, period } }, ...others] }
}

describe('the function on a schedule', () => {
  it('does what is due, and goes on at the next firing; twice at once does no harm', async () => {
    const event = { source: 'aws.events', 'detail-type': 'Scheduled Event', detail: {} }
    expect(await invoke(event)).toMatchObject({
      done: [],
      rows: [{ state: 'current' }, { name: 'directory' }],
    })
    const before = await kidAt('AWSCURRENT')
    withPeriod(100)
    const [one, two] = await Promise.all([invoke(event), invoke(event)])
    for (const report of [one, two])
      expect(report).toMatchObject({ rows: [{ state: 'under-way', overdue: true }, {}] })
    const pending = await kidAt('AWSPENDING')
    await new Promise((resolve) => setTimeout(resolve, 2200))
    withPeriod(1000)
    await Promise.all([invoke(event), invoke(event)])
    expect(await kidAt('AWSCURRENT')).toBe(pending)
    expect(await kidAt('AWSPREVIOUS')).toBe(before)
    expect(await invoke(event)).toMatchObject({ done: [], rows: [{ state: 'current', overdue: false }, {}] })
  })

  it('does what it can where one fails, and fails at the end with what to do', async () => {
    await secrets.stage(SECRET, Buffer.from('planted-secret'), 'AWSCURRENT', 'second'.padEnd(32, '-'), soon())
    const half = { ...directory, life: 100 }
    await publishChange({ ...half, clock: { now: () => Date.now() - 60_000 } }, () => undefined, soon())
    const version = async (): Promise<string> => (await directory.store.find(soon()))?.etag ?? ''
    const before = await version()
    const failure: unknown = await invoke({}).catch((error: unknown) => error)
    if (!(failure instanceof Error)) throw new Error('no failure')
    expect(failure.message).toMatch(
      /^1 of 2 rotations failed: signing\/shop \(AWSCURRENT\): It is no private signing key/,
    )
    expect(failure.message).not.toContain('planted')
    expect(await version()).not.toBe(before)
  })

  it('fails in its own words alone where somebody else’s error may quote anything', async () => {
    const find = () => Promise.reject(new SyntaxError('Unexpected token in planted-secret'))
    const ports = { clock, directory, secrets: { ...secrets, find } }
    rotations = { ...rotations, ports: () => Promise.resolve(ports) }
    const failure: unknown = await invoke({}).catch((error: unknown) => error)
    if (!(failure instanceof Outage)) throw new Error('no outage')
    expect(failure.message).toMatch(/^1 of 2 rotations failed: an error that nobody expected \(SyntaxError\)/)
    expect(failure.message).not.toContain('planted')
  })

  it('renews the directory though one before it waits for brokers as long as it may, and still tells of all', async () => {
    const half = { ...directory, life: 100 }
    await publishChange({ ...half, clock: { now: () => Date.now() - 60_000 } }, () => undefined, soon())
    const version = async (): Promise<string> => (await directory.store.find(soon()))?.etag ?? ''
    const before = await version()
    const value = (username: string): Buffer => Buffer.from(JSON.stringify({ username, password: 'x' }))
    for (const [name, user] of [
      ['pointer', 'a'],
      ['user-a', 'a'],
      ['user-b', 'b'],
    ] as const)
      await secrets.stage(name, value(user), 'AWSCURRENT', name.padEnd(32, '-'), soon())
    const scram = (name: string) => {
      const rotation = { kind: 'scram', name, pointer: 'pointer', users: ['user-a', 'user-b'] } as const
      return {
        rotation: { ...rotation, period: 1 },
        waits: { ...waits, secretHold: 0, margin: 0 },
        now: true,
      }
    }
    const tried: string[] = []
    // As the brokers of MSK for minutes, and those that are not there for ever.
    const logIn = async ({ username }: { username: string }, _: unknown, deadline: number): Promise<void> => {
      tried.push(username)
      await new Promise((resolve) => setTimeout(resolve, Math.max(0, deadline - Date.now())))
      throw new Outage('sink-denied', `log-in of ${username}`)
    }
    const users = { logIn, setPassword: () => Promise.resolve(), associate: () => Promise.resolve() }
    rotations = {
      ...rotations,
      policies: [scram('one'), scram('two'), ...rotations.policies],
      ports: () => Promise.resolve({ clock, secrets, directory, users }),
    }
    let rows: readonly { readonly state: string }[] = []
    const handler = rotateHandler(() => rotations, audit, {
      invocation: (_, work) => work(),
      rotations: (all) => void (rows = all),
    })
    const failing = invokeOnce(handler, {}, { timeoutMs: 10_000, functionName: 'rotate' })
    await expect(failing).rejects.toThrow(/^2 of 4 rotations failed: log-in of b; log-in of b$/)
    expect(tried).toHaveLength(2)
    expect(await version()).not.toBe(before)
    expect(rows.map(({ state }) => state)).not.toContain('unknown')
  })
})

describe('what the function tells the audit', () => {
  it('is every version that it publishes and every step beside it, by its name', async () => {
    withPeriod(100)
    await invoke({})
    expect(told).toEqual(['stage-key Function:rotate', '3 Function:rotate'])
    await new Promise((resolve) => setTimeout(resolve, 2200))
    await invoke({})
    expect(told.slice(2)).toEqual(['promote Function:rotate', '4 Function:rotate'])
  })

  it('is so for the four steps too', async () => {
    for (const name of ['createSecret', 'setSecret', 'testSecret', 'finishSecret']) await step(name)
    const names = ['stage-key', '3', 'promote', '4'].map((name) => `${name} Function:rotate`)
    expect(told).toEqual(names)
  })

  it('fails the invocation where Kafka is down, and what was done stands', async () => {
    withPeriod(100)
    isDown = true
    await expect(invoke({})).rejects.toThrow('what was done stands, and is not audited: No broker answers.')
    expect(await kidAt('AWSPENDING')).toBeDefined()
  })
})

describe('the function as Secrets Manager calls it', () => {
  it('takes the four steps, each twice, and ends with the new version current', async () => {
    const before = await kidAt('AWSCURRENT')
    for (const name of ['createSecret', 'setSecret', 'testSecret', 'finishSecret']) {
      await step(name)
      await step(name)
    }
    expect(await secrets.find(SECRET, 'AWSCURRENT', soon())).toMatchObject({ version: TOKEN })
    expect(await kidAt('AWSCURRENT')).not.toBe(before)
    expect(await kidAt('AWSPREVIOUS')).toBe(before)
  })

  it('never makes a key current that the gates do not know yet', async () => {
    const before = await kidAt('AWSCURRENT')
    await step('createSecret')
    await expect(step('finishSecret')).rejects.toThrow('is not current yet')
    await step('setSecret')
    await expect(step('finishSecret')).rejects.toThrow('is not current yet')
    const hurried = invoke({ Step: 'testSecret', SecretId: SECRET, ClientRequestToken: TOKEN }, 2500)
    await expect(hurried).rejects.toThrow('not every gate knows the new key before 20')
    expect(await kidAt('AWSCURRENT')).toBe(before)
  })

  it('leaves a rotation of another version alone, and a suspended issuer without a new key', async () => {
    await step('createSecret')
    await expect(step('createSecret', 'f'.repeat(32))).rejects.toThrow(`version ${TOKEN} is pending already`)
    const kid = (await kidAt('AWSCURRENT'))!
    await change((draft) => draft.suspend(kid))
    await step('setSecret')
    await expect(step('testSecret')).rejects.toThrow('its key is not active in the directory')
    await expect(step('finishSecret')).rejects.toThrow(Outage)
    expect(await kidAt('AWSCURRENT')).toBe(kid)
  })

  it('fails in its own words alone, at every step and before', async () => {
    const planted = () => Promise.reject(new SyntaxError('Unexpected token in planted-secret'))
    const fail = async (name: string): Promise<void> => {
      const failure: unknown = await step(name).catch((error: unknown) => error)
      if (!(failure instanceof Outage)) throw new Error('no outage')
      expect(failure.message).toMatch(/^an error that nobody expected \(SyntaxError\)/)
    }
    const broken: StagedSecrets = { ...secrets, find: planted }
    rotations = { ...rotations, ports: () => Promise.resolve({ clock, directory, secrets: broken }) }
    for (const name of ['createSecret', 'setSecret', 'testSecret', 'finishSecret']) await fail(name)
    rotations = { ...rotations, ports: planted }
    await fail('createSecret')
  })

  it.each([
    [{ Step: 'deleteSecret', SecretId: SECRET, ClientRequestToken: TOKEN }, 'It is no rotation event'],
    [{ Step: 'createSecret', SecretId: SECRET, ClientRequestToken: '../x' }, 'It is no rotation event'],
    [{ Step: 'createSecret', SecretId: SECRET }, 'It is no rotation event'],
    [{ SecretId: SECRET }, 'It is no rotation event'],
    [{ Step: 'createSecret', SecretId: 'other', ClientRequestToken: TOKEN }, 'no signing key in this secret'],
  ])('refuses %j', async (event, message) => {
    const refused = invoke(event)
    await expect(refused).rejects.toThrow(message)
    await expect(refused).rejects.toThrow(ConfigError)
    expect(await kidAt('AWSPENDING')).toBeUndefined()
  })
})

it('names all that is wrong with its settings', () => {
  const read = (): unknown =>
    readRotationSettings({
      SEALGATE_DIRECTORY: '/d.jws',
      SEALGATE_ROOT_KEY: 'alias/root',
      SEALGATE_ROTATE: 'x',
      SEALGATE_KAFKA_SASL_MECHANISM: 'scram-sha-512',
    })
  expect(read).toThrow(ConfigError)
  expect(read).toThrow('SEALGATE_ROTATE: No setting has this name.')
  expect(read).toThrow('SEALGATE_ROOTS: It is not set.')
  expect(read).toThrow('SEALGATE_ROOT_KEY: It is no ARN of a KMS key.')
  expect(read).toThrow('SEALGATE_ROTATION: It is not set.')
  expect(read).toThrow('SEALGATE_KAFKA_BROKERS: It is not a list of brokers.')
  expect(read).toThrow('SEALGATE_KAFKA_SASL: There are no credentials.')
})
