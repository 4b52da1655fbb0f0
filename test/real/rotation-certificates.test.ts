/** Client certificates renewed again and again on the real broker's mutual-TLS listener, while events go through. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { TLSSocket } from 'node:tls'
import kafkajs, { Kafka, logLevel, type Producer } from 'kafkajs'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { KafkaAccess } from '../../lib/adapters/kafka-access.ts'
import {
  exportPrivateJwk,
  exportPublicJwk,
  generateKeyPair,
  readCertificate,
} from '../../lib/envelope/crypto.ts'
import { ED25519 } from '../../lib/envelope/suite.ts'
import { publishFirst } from '../../lib/keys/directory-publisher.ts'
import { documentFile } from '../../lib/adapters/document-file.ts'
import { rotationRow } from '../../lib/keys/rotation-status.ts'
import { type RotationPorts, runRotation } from '../../lib/keys/rotation-steps.ts'
import { localSigner } from '../../lib/keys/signer.ts'
import { openRotations, type Rotations } from '../../lib/rotation-runtime.ts'
import { type Ran, sealgate } from '../cli/terminal.ts'
import { startStagedSecrets, type StagedSecretsEndpoint } from '../staged-secrets-endpoint.ts'
import { issue, makeAuthority } from './stack/certificates.ts'
import { Cluster, connection, settings, soon, unique } from './world.ts'

const RENEWALS = 10
const ARN = 'arn:aws:secretsmanager:eu-west-1:111122223333:secret:gate-tls-AbCdEf'
const root = generateKeyPair(ED25519)
const cluster = new Cluster()
const topic = `output.certificates.${unique()}`
const mtls = connection.listeners['MTLS'] ?? ''
let folder = ''
let secrets: StagedSecretsEndpoint

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'sealgate-certificates-'))
  secrets = await startStagedSecrets()
  const store = documentFile({ path: join(folder, 'directory.jws'), outage: 'directory-unavailable', clock })
  const roots = [root.publicKey]
  await publishFirst({ store, roots, root: localSigner(root.privateKey), clock }, soon())
  await cluster.createTopic(topic, 1)
})
afterAll(async () => {
  await secrets.end()
  await cluster.end()
  await rm(folder, { recursive: true, force: true })
})

const clock = { now: () => Date.now() }

/** The gate's first certificate, as an operator makes it. */
async function putFirst(days?: number): Promise<void> {
  const own = { name: 'gate', names: ['DNS:gate.example'], ...(days !== undefined && { days }) }
  await issue(connection.certificates, own)
  const part = (suffix: string): Promise<string> =>
    readFile(join(connection.certificates, `gate.${suffix}`), 'utf8')
  secrets.put(ARN, JSON.stringify({ certificate: await part('crt'), privateKey: await part('key') }))
}

async function policyBy(authorityFolder: string): Promise<string> {
  const path = join(folder, 'rotation.yaml')
  await writeFile(
    path,
    `rotations:
  gate:
    kind: client-certificate
    secret: ${ARN}
    subject: CN=gate
    authority: ${join(authorityFolder, 'ca.crt')}
    authorityKey: file:${join(authorityFolder, 'ca.key')}
    brokers: [${mtls}]
    duration: 2d
    renewBefore: 12h
`,
  )
  return path
}

async function opened(authorityFolder = connection.certificates): Promise<[Rotations, RotationPorts]> {
  const directory = { kind: 'file', path: join(folder, 'directory.jws') } as const
  const trust = { directory, roots: [root.publicKey], rootKey: { key: root.privateKey } }
  const kafka = (): ReturnType<typeof settings> => settings({}, 'operator')
  const rotations = openRotations({ ...trust, kafka }, await policyBy(authorityFolder), clock)
  return [rotations, await rotations.ports(soon())]
}

async function renew(authorityFolder?: string): Promise<readonly string[]> {
  const [{ policies }, ports] = await opened(authorityFolder)
  const { done } = await runRotation({ ...policies[0]!, now: true }, ports, soon())
  return done.map((step) => step.do)
}

const serialNow = async (ports: RotationPorts): Promise<string> => {
  const { value } = await ports.secrets.read(ARN, soon())
  const { certificate }: { certificate: string } = JSON.parse(Buffer.from(value).toString())
  return Buffer.from(readCertificate(certificate).der).toString('hex')
}

/** A client that logs in by the secret: what it presented on its connections, and its own time, in which secrets are read anew. */
class Client {
  readonly presented = new Set<string>()
  readonly #access: KafkaAccess
  aheadMs = 0

  constructor() {
    const own = settings({ brokers: [mtls], ssl: { ca: connection.ca, secret: ARN }, sasl: undefined })
    this.#access = new KafkaAccess(own, { now: () => Date.now() + this.aheadMs })
  }

  async connected(): Promise<Producer> {
    await this.#access.refresh()
    const config = this.#access.config([mtls])
    const producer = new Kafka({
      ...config,
      logLevel: logLevel.NOTHING,
      socketFactory: (to) => {
        const socket = config.socketFactory(to)
        socket.once('secureConnect', () => {
          const shown = socket instanceof TLSSocket ? socket.getCertificate() : null
          if (shown !== null && 'raw' in shown && shown.raw instanceof Buffer)
            this.presented.add(shown.raw.toString('hex'))
        })
        return socket
      },
    }).producer({ createPartitioner: kafkajs.Partitioners.DefaultPartitioner })
    await producer.connect()
    return producer
  }
}

it('has no send fail, on connections old and new, and every certificate is used', async () => {
  await putFirst()
  const [{ policies, view }, ports] = await opened()
  const serials = [await serialNow(ports)]
  const ending = new AbortController()
  const failures: unknown[] = []
  let sent = 0
  const send = async (producer: Producer): Promise<void> => {
    await producer.send({ topic, messages: [{ value: String(sent++) }] })
    await sleep(5)
  }
  const long = new Client()
  const short = [new Client(), new Client()]
  const stays = async (): Promise<void> => {
    const producer = await long.connected()
    while (!ending.signal.aborted) await send(producer)
    await producer.disconnect()
  }
  const comesAndGoes = async (client: Client): Promise<void> => {
    while (!ending.signal.aborted) {
      const producer = await client.connected()
      for (let turn = 0; turn < 5; turn++) await send(producer)
      await producer.disconnect()
    }
  }
  const load = [stays(), ...short.map(comesAndGoes)].map((work) =>
    work.catch((error: unknown) => void failures.push(error)),
  )
  try {
    for (let turn = 0; turn < RENEWALS; turn++) {
      expect(await renew()).toEqual(['stage-certificate', 'log-in', 'promote'])
      const serial = await serialNow(ports)
      serials.push(serial)
      for (const client of short) client.aheadMs += 61_000
      for (let tries = 0; tries < 400 && !short.every(({ presented }) => presented.has(serial)); tries++)
        await sleep(20)
    }
  } finally {
    ending.abort()
    await Promise.all(load)
  }
  expect(failures).toEqual([])
  expect(new Set(serials).size).toBe(RENEWALS + 1)
  for (const { presented } of short) expect([...presented]).toEqual(serials)
  const read = await cluster.readCommitted(topic)
  expect(read).toHaveLength(sent)
  const row = await rotationRow(policies[0]!, view, soon())
  expect(row).toMatchObject({ kind: 'client-certificate', state: 'current', overdue: false })
  expect(Date.parse(row.endsAt ?? '') - Date.parse(row.dueAt ?? '')).toBe(12 * 3_600_000)
  process.stdout.write(`certificates: renewed ${RENEWALS} times, ${sent} sends, ${failures.length} failed\n`)
}, 180_000)

it('is not used where a broker does not trust its authority, and another is made when that is corrected', async () => {
  await putFirst()
  const [, ports] = await opened()
  const before = await serialNow(ports)
  const foreign = await mkdtemp(join(folder, 'foreign-'))
  await makeAuthority(foreign, { name: 'broker', names: ['IP:127.0.0.1'] })
  for (let again = 0; again < 2; again++)
    await expect(renew(foreign)).rejects.toMatchObject({
      code: 'sink-denied',
      message: expect.stringMatching(/a broker does not take it\. Nobody is told to use it/),
    })
  expect(await serialNow(ports)).toBe(before)
  expect(await renew()).toEqual(['stage-certificate', 'log-in', 'promote'])
  expect(await serialNow(ports)).not.toBe(before)
})

it('moves to another authority once the brokers trust both, with no connection refused', async () => {
  await putFirst()
  const next = await mkdtemp(join(folder, 'next-'))
  await makeAuthority(next, { name: 'broker', names: ['IP:127.0.0.1'] })
  const both = join(folder, 'both.pem')
  await writeFile(both, connection.ca + (await readFile(join(next, 'ca.crt'), 'utf8')))
  const before = new Client()
  await (await before.connected()).disconnect()
  await expect(renew(next)).rejects.toMatchObject({ code: 'sink-denied' })
  try {
    await trust(both)
    let moved: readonly string[] | undefined
    for (let tries = 0; tries < 20 && moved === undefined; tries++) {
      await sleep(200)
      moved = await renew(next).catch(() => undefined)
    }
    expect(moved).toEqual(['log-in', 'promote'])
    for (const client of [before, new Client()]) await (await client.connected()).disconnect()
    expect(before.presented.size).toBe(1)
    before.aheadMs += 61_000
    await (await before.connected()).disconnect()
    expect(before.presented.size).toBe(2)
  } finally {
    await trust(undefined)
  }
})

/** What the mutual-TLS listener trusts in a moment: a PEM file, or what it began with. */
async function trust(path: string | undefined): Promise<void> {
  const name = 'listener.name.mtls.ssl.truststore.location'
  const configEntries = path === undefined ? [] : [{ name, value: path }]
  const resource = { type: kafkajs.ConfigResourceTypes.BROKER, name: '1', configEntries }
  const admin = await cluster.admin()
  await admin.alterConfigs({ validateOnly: false, resources: [resource] })
}

it('shows one that is about to end as overdue, one that has ended in one line, and renews it by a command', async () => {
  const file = join(folder, 'sealgate.yaml')
  const policy = await policyBy(connection.certificates)
  await writeFile(join(folder, 'roots.json'), JSON.stringify(exportPublicJwk(root.publicKey)))
  await writeFile(join(folder, 'root.jwk'), JSON.stringify(exportPrivateJwk(root.privateKey)), {
    mode: 0o600,
  })
  await writeFile(join(folder, 'ca.pem'), connection.ca)
  await writeFile(
    file,
    `directory: directory.jws
roots: roots.json
rootKey: file:root.jwk
lifecycleAudit: none
kafka:
  brokers: [${connection.brokers.join()}]
  ssl: { ca: ca.pem }
`,
    { mode: 0o600 },
  )
  const at = (nowMs: number, ...args: string[]): Promise<Ran> =>
    sealgate(['rotate', ...args, '--settings', file, '--policy', policy], { nowMs })
  // It counts a day, and is due half a day before its end.
  await putFirst(1)
  const young = await at(Date.now(), 'status')
  expect([young.status, young.out]).toEqual([0, expect.stringMatching(/gate .* current .* ends 20/)])
  const overdue = await at(Date.now() + 13 * 3_600_000, 'status')
  expect([overdue.status, overdue.out]).toEqual([1, expect.stringMatching(/gate .* due .*overdue; ends 20/)])
  await putFirst(-1)
  const ended = await at(Date.now(), 'status')
  expect([ended.status, ended.err]).toEqual([1, ''])
  expect(ended.out).toMatch(/gate .* due .*overdue; ended 20\S+Z: nobody takes it any more/)
  await expect(new Client().connected()).rejects.toThrow()
  const dry = await at(Date.now(), 'gate', '--dry-run')
  expect([dry.status, dry.out]).toEqual([0, 'gate: make a new key and its certificate, pending'])
  const renewed = await at(Date.now(), 'gate')
  expect([renewed.status, renewed.err]).toEqual([0, ''])
  expect(renewed.out.split('\n')).toEqual([
    'gate: make a new key and its certificate, pending',
    `gate: log-in of ${ARN}`,
    expect.stringMatching(/^gate: make version [0-9a-f]{64} of .* current$/),
    expect.stringMatching(/^gate: nothing to do; due 20/),
  ])
  await (await new Client().connected()).disconnect()
  expect((await at(Date.now(), 'status')).status).toBe(0)
})
