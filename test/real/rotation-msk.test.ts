/**
 * Users of MSK: its control plane is MiniStack's, its brokers are Kafka's own, and what it does by itself, taking over what
 * stands in its users' secrets, is done here.
 */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { CreateClusterCommand, KafkaClient, ListScramSecretsCommand } from '@aws-sdk/client-kafka'
import { CreateSecretCommand, SecretsManagerClient } from '@aws-sdk/client-secrets-manager'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { kafkaUsers } from '../../lib/adapters/kafka-users.ts'
import { mskUsers } from '../../lib/adapters/msk-users.ts'
import { generateKeyPair } from '../../lib/envelope/crypto.ts'
import { ED25519 } from '../../lib/envelope/suite.ts'
import { readLogin, type ScramLogin } from '../../lib/keys/rotation-state.ts'
import { runRotation } from '../../lib/keys/rotation-steps.ts'
import { openRotations, type Rotations } from '../../lib/rotation-runtime.ts'
import type { Emulator } from './emulators/emulator.ts'
import { MINISTACK_MS, startMinistack } from './emulators/ministack.ts'
import { settings, soon, unique } from './world.ts'

const clock = { now: () => Date.now() }
/** How long MSK takes: minutes at AWS. */
const LATE_MS = 1500

let folder = ''
let ministack: Emulator
let msk: KafkaClient
let secretsManager: SecretsManagerClient
let cluster = ''
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'sealgate-msk-'))
  ministack = await startMinistack()
  msk = new KafkaClient({})
  secretsManager = new SecretsManagerClient({})
  const { ClusterArn: arn = '' } = await msk.send(
    new CreateClusterCommand({
      ...{ ClusterName: 'shop', KafkaVersion: '3.9.x', NumberOfBrokerNodes: 1 },
      BrokerNodeGroupInfo: { ClientSubnets: ['subnet-1'], InstanceType: 'kafka.m7g.large' },
    }),
  )
  cluster = arn
}, MINISTACK_MS)
afterAll(async () => {
  msk.destroy()
  secretsManager.destroy()
  await ministack.end()
  await rm(folder, { recursive: true })
})

const keep = async (name: string, login: ScramLogin): Promise<string> => {
  const command = new CreateSecretCommand({ Name: name, SecretString: JSON.stringify(login) })
  return (await secretsManager.send(command)).ARN ?? ''
}
const associated = async (): Promise<readonly string[]> =>
  (await msk.send(new ListScramSecretsCommand({ ClusterArn: cluster }))).SecretArnList ?? []

/** Two users in secrets, of whom MSK knows nothing yet, and a policy. */
async function open(): Promise<{
  readonly rotations: Rotations
  readonly users: readonly string[]
  pointer: string
}> {
  const suffix = unique()
  const logins = ['a', 'b'].map((half) => ({ username: `msk-${half}.${suffix}`, password: unique() }))
  const users: string[] = []
  for (const login of logins) users.push(await keep(`AmazonMSK_${login.username}`, login))
  const pointer = await keep(`pointer.${suffix}`, logins[0] ?? { username: '', password: '' })
  const policy = join(folder, 'rotation.yaml')
  await writeFile(
    policy,
    `rotations:
  gate: { kind: scram, pointer: '${pointer}', users: ['${users.join("', '")}'], msk: '${cluster}' }
waits: { secretHold: 1s, margin: 1s }
`,
  )
  const root = generateKeyPair(ED25519)
  const trust = {
    directory: { kind: 'file', path: join(folder, 'directory.jws') } as const,
    ...{ roots: [root.publicKey], rootKey: { key: root.privateKey } },
    // Nobody in particular: the rotator has no user of its own there.
    kafka: () => ({ ...settings(), sasl: undefined }),
  }
  return { rotations: openRotations(trust, policy, clock), users, pointer }
}

it('are associated, rotated, and taken into use when MSK has taken the password over', async () => {
  const { rotations, users, pointer } = await open()
  const [policy] = rotations.policies
  if (policy === undefined) throw new Error('no policy')
  const ports = await rotations.ports(soon())
  const login = async (arn: string): Promise<ScramLogin> =>
    readLogin((await ports.secrets.read(arn, soon())).value, arn)
  const brokers = kafkaUsers(settings({}, 'admin'), clock)
  const over = new AbortController()
  let taken = 0
  const sync = async (): Promise<void> => {
    while (await sleep(LATE_MS, true, { signal: over.signal }).catch(() => false))
      for (const arn of await associated()) {
        await brokers.setPassword(await login(arn), soon())
        taken++
      }
  }
  const syncing = sync()
  try {
    const before = await login(pointer)
    for (let turn = 0; turn < 2; turn++) {
      const steps: string[] = []
      while (steps.at(-1) !== 'move-pointer') {
        const { plan } = await runRotation({ ...policy, now: steps.length === 0 }, ports, soon(), (step) => {
          steps.push(step.do)
        })
        const wait = plan.steps.find((step) => step.do === 'wait')
        if (wait !== undefined) await sleep(Math.max(0, wait.until * 1000 - Date.now()))
      }
      expect(steps).toEqual(['stage-password', 'promote', 'associate', 'log-in', 'move-pointer'])
      expect(await login(pointer)).toEqual(await login(users[turn === 0 ? 1 : 0] ?? ''))
    }
    const after = await login(pointer)
    expect([after.username, after.password === before.password]).toEqual([before.username, false])
    expect(await associated()).toEqual(users)
    expect(taken).toBeGreaterThan(2)
  } finally {
    over.abort()
    await syncing
  }
})

it('are not taken into use where the cluster is not there', async () => {
  const users = mskUsers(clock)
  const other = cluster.replace('shop', 'other')
  await expect(users.associate(other, ['arn:x'], soon())).rejects.toMatchObject({
    code: 'sink-denied',
    message: expect.stringMatching(/MSK has no such cluster \(NotFoundException\)/),
  })
})
