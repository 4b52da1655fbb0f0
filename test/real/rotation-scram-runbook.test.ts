/** The runbook of a leaked SCRAM password (docs/rotation.md), by copy and paste with Kafka's own tools, beside a thief. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Producer } from 'kafkajs'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { createKafkaAppender, type KafkaAppender } from '../../lib/adapters/kafka-appender.ts'
import { exportPrivateJwk, exportPublicJwk, generateKeyPair } from '../../lib/envelope/crypto.ts'
import { ED25519 } from '../../lib/envelope/suite.ts'
import { blocksOf, runBlock } from '../runbook.ts'
import type { Emulator } from './emulators/emulator.ts'
import { MOTO_MS, startMoto } from './emulators/moto.ts'
import { clientAs, isTaken, newPrincipal, type Principal } from './scram-users.ts'
import { classPathOf } from './stack/broker.ts'
import { prefixed, producerRights } from './stack/rights.ts'
import { Cluster, connection, settings, unique } from './world.ts'

const USERS = ['gate-a', 'gate-b'] as const
const MAX_AGE_MS = 300
const cluster = new Cluster()
const topic = `source.leaked.${unique()}`

let folder = ''
let moto: Emulator
let principal: Principal
let ours: KafkaAppender
let thief: Producer
let tools: Readonly<Record<string, string>>
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'sealgate-leaked-'))
  moto = await startMoto()
  await cluster.createTopic(topic, 1)
  principal = await newPrincipal(cluster, USERS, producerRights([prefixed('source.')]))
  const sasl = { mechanism: 'scram-sha-512', secret: principal.pointer }
  ours = createKafkaAppender(settings({ sasl, secretMaxAgeMs: MAX_AGE_MS }), { now: () => Date.now() })
  thief = clientAs(principal.logins[0]).producer({ retry: { retries: 0 } })
  await thief.connect()
  tools = await kafkaTools()
  await writeSettings(principal)
}, MOTO_MS + 60_000)
afterAll(async () => {
  await Promise.all([ours.close(), thief.disconnect()])
  await cluster.end()
  await moto.end()
  await rm(folder, { recursive: true })
})

/** Kafka's tools as programs. Those of 3.9, whose jars are here: of 4.3 the tests have the broker alone. */
async function kafkaTools(): Promise<Readonly<Record<string, string>>> {
  const jars = await classPathOf('3.9.1', () => undefined)
  for (const [name, main] of [
    ['kafka-acls', 'AclCommand'],
    ['kafka-configs', 'ConfigCommand'],
  ] as const)
    await writeFile(join(folder, name), `#!/bin/sh\nexec java -cp '${jars}' kafka.admin.${main} "$@"\n`, {
      mode: 0o700,
    })
  await writeFile(join(folder, 'broker-ca.pem'), connection.ca)
  const login = `username="admin" password="${connection.passwords.admin}"`
  await writeFile(
    join(folder, 'admin.properties'),
    `security.protocol=SASL_SSL
ssl.truststore.type=PEM
ssl.truststore.location=${join(folder, 'broker-ca.pem')}
sasl.mechanism=SCRAM-SHA-512
sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required ${login};
`,
    { mode: 0o600 },
  )
  const { AWS_ENDPOINT_URL = '', AWS_ACCESS_KEY_ID = '', AWS_SECRET_ACCESS_KEY = '' } = process.env
  return {
    PATH: `${folder}:${process.env['PATH'] ?? ''}`,
    BROKERS: connection.brokers.join(),
    ...{ AWS_ENDPOINT_URL, AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY },
  }
}

async function writeSettings({ pointer, secrets }: Principal): Promise<void> {
  const root = generateKeyPair(ED25519)
  const file = (name: string, content: unknown): Promise<void> =>
    writeFile(join(folder, name), typeof content === 'string' ? content : JSON.stringify(content), {
      mode: 0o600,
    })
  await file('roots.json', exportPublicJwk(root.publicKey))
  await file('root.jwk', exportPrivateJwk(root.privateKey))
  await file('admin.password', connection.passwords.admin)
  await file(
    'sealgate.yaml',
    `directory: directory.jws
roots: roots.json
rootKey: file:root.jwk
lifecycleAudit: none
kafka:
  brokers: [${connection.brokers.join(', ')}]
  ssl: { ca: broker-ca.pem }
  sasl: { mechanism: scram-sha-512, username: admin, passwordFile: admin.password }
`,
  )
  await file(
    'rotation.yaml',
    `rotations:
  gate-kafka: { kind: scram, pointer: '${pointer}', users: ['${secrets.join("', '")}'] }
waits: { secretHold: 3s, margin: 1s }
`,
  )
}

const ok = async (block: string): Promise<string> => {
  const { status, out, err } = await runBlock(folder, block, tools)
  expect([status, err.replace(/^.*(SLF4J|log4j).*\n?/gim, '')]).toEqual([0, ''])
  return out
}
const send = (): Promise<unknown> =>
  ours.append([{ topic, partition: 0, key: null, value: Buffer.from('ours'), headers: [] }])
/** What becomes of a record by the connection that the thief has open; another is not made. */
const steal = (): Promise<string> =>
  thief.send({ topic, messages: [{ partition: 0, value: 'stolen' }] }).then(
    () => 'taken',
    (error: unknown) => String(error),
  )

it('shuts the thief out, at once and for good, and nothing of ours fails', { timeout: 240_000 }, async () => {
  const [leaked] = principal.logins
  const [rotate = '', deny = '', take = '', giveBack = ''] = await blocksOf(
    'docs/rotation.md',
    '### A leaked SCRAM password',
  )
  await send()
  expect([await steal(), await isTaken(leaked)]).toEqual(['taken', true])
  const before: unknown = JSON.parse(await ok('npx sealgate rotate status --json'))
  expect(before).toMatchObject({
    rows: [{ name: 'gate-kafka', kind: 'scram', state: 'current', overdue: false }],
  })
  expect(await ok('npx sealgate rotate gate-kafka --now --dry-run')).toMatch(
    /^gate-kafka: (make a new|waits)/,
  )

  await sleep(4000)
  expect((await ok(rotate)).split('\n').map((line) => line.replace(/ (of|[0-9a-f]{64}|arn:).*/, ''))).toEqual(
    [
      'gate-kafka: make a new password for gate-b, pending',
      'gate-kafka: tell the brokers the password in',
      'gate-kafka: log-in',
      'gate-kafka: make version',
      'gate-kafka: log-in',
      'gate-kafka: clients are told to be the user',
      expect.stringMatching(/^gate-kafka: nothing to do; due /),
      '',
    ],
  )
  await send()
  expect(await isTaken(leaked)).toBe(true)
  await sleep(MAX_AGE_MS)
  await send()

  await ok(deny)
  await send()
  expect(await steal()).toMatch(/Not authorized/)
  await ok(take)
  await send()
  expect(await isTaken(leaked)).toBe(false)
  await ok(giveBack)

  // His turn again: at once where the hour is over, and here in a second.
  expect(await ok('npx sealgate rotate gate-kafka --now --wait')).toContain('make a new password for gate-a')
  // And once more, for which the last one is waited for.
  expect(await ok('npx sealgate rotate gate-kafka --now --wait')).toContain('make a new password for gate-b')
  await sleep(MAX_AGE_MS)
  await send()
  await send()
  expect(await isTaken(leaked)).toBe(false)
  const after: unknown = JSON.parse(await ok('npx sealgate rotate status --json'))
  expect(after).toMatchObject({ rows: [{ state: 'current', overdue: false }] })
})
