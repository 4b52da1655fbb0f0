/** What rotates on AWS: the policy and its ports, through the real SDK against an endpoint on 127.0.0.1. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { documentFile } from '../lib/adapters/document-file.ts'
import { readKafkaSettings } from '../lib/adapters/kafka-settings.ts'
import { generateKeyPair } from '../lib/envelope/crypto.ts'
import { ED25519 } from '../lib/envelope/suite.ts'
import { ConfigError } from '../lib/errors.ts'
import { publishFirst } from '../lib/keys/directory-publisher.ts'
import { rotationRow } from '../lib/keys/rotation-status.ts'
import { runRotation } from '../lib/keys/rotation-steps.ts'
import { localSigner } from '../lib/keys/signer.ts'
import { openRotations, type Rotations, type RotationTrust } from '../lib/rotation-runtime.ts'
import { type AwsEndpoint, awsError, serveAws } from '../lib/local/aws-endpoint.ts'
import { setEnvironment } from './secrets-endpoint.ts'
import { selfSigned } from './self-signed.ts'
import { startStagedSecrets } from './staged-secrets-endpoint.ts'

const KEY = 'arn:aws:kms:eu-west-1:111122223333:key/12345678-1234-1234-1234-123456789012'
const SECRET = 'arn:aws:secretsmanager:eu-west-1:111122223333:secret:kafka'
const clock = { now: () => Date.now() }
const soon = (): number => Date.now() + 10_000
const root = generateKeyPair(ED25519)
const DAY = 86_400

/** A KMS key that rotates. */
class KmsKey {
  readonly asked: string[] = []
  readonly rotations: { RotationDate: number; RotationType: string }[] = []
  periodDays: number | undefined
  error: string | undefined

  answer(action: string, body: Readonly<Record<string, unknown>>): object {
    this.asked.push(action)
    switch (action) {
      case 'GetKeyRotationStatus': {
        const next = { NextRotationDate: 1_800_000_000, RotationPeriodInDays: this.periodDays }
        return { KeyRotationEnabled: this.periodDays !== undefined, ...(this.periodDays && next) }
      }
      case 'ListKeyRotations': {
        // Two pages, as KMS does from a hundred on.
        const from = Number(body['Marker'] ?? 0)
        const isLast = from + 20 >= this.rotations.length
        const page = this.rotations.slice(from, from + 20)
        return { Rotations: page, Truncated: !isLast, ...(!isLast && { NextMarker: String(from + 20) }) }
      }
      case 'EnableKeyRotation':
        this.periodDays = Number(body['RotationPeriodInDays'])
        return {}
      default:
        this.rotations.push({ RotationDate: Math.floor(Date.now() / 1000), RotationType: 'ON_DEMAND' })
        return {}
    }
  }
}

let folder = ''
let server: AwsEndpoint
let key: KmsKey
let restore: () => void

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'rotation-'))
  key = new KmsKey()
  server = await serveAws((action, asked) =>
    key.error === undefined ? [200, key.answer(action, asked)] : awsError(key.error),
  )
  restore = setEnvironment({
    AWS_ENDPOINT_URL_KMS: server.url,
    AWS_ACCESS_KEY_ID: 'AKIDEXAMPLE',
    AWS_SECRET_ACCESS_KEY: 'planted-aws-secret',
  })
})
afterEach(async () => {
  restore()
  await server.end()
  await rm(folder, { recursive: true })
})

async function opened(rotations: string, more: Partial<RotationTrust> = {}): Promise<Rotations> {
  const path = join(folder, 'directory.jws')
  const policy = join(folder, 'rotation.yaml')
  await writeFile(policy, `rotations:\n${rotations}`)
  const trust = {
    directory: { kind: 'file', path } as const,
    ...{ roots: [root.publicKey], rootKey: { key: root.privateKey }, ...more },
  }
  return openRotations(trust, policy, clock)
}

describe('a KMS key', () => {
  const kek = async (): Promise<Rotations> =>
    opened(`  kek: { kind: kms-key, key: '${KEY}', period: 100d }\n`)

  it('is told to rotate itself once, and then left alone', async () => {
    const rotations = await kek()
    const ports = await rotations.ports(soon())
    const [policy] = rotations.policies
    const { done } = await runRotation(policy!, ports, soon())
    expect(done).toEqual([{ do: 'enable-rotation', days: 100 }])
    expect((await runRotation(policy!, ports, soon())).done).toEqual([])
    expect(key.asked.filter((action) => action === 'EnableKeyRotation')).toHaveLength(1)
  })

  it('is rotated on demand once for once asking, until KMS allows no more, and says how often it may be', async () => {
    key.periodDays = 100
    for (let index = 0; index < 24; index++)
      key.rotations.push({ RotationDate: 1_700_000_000 + index, RotationType: 'ON_DEMAND' })
    key.rotations.push({ RotationDate: 1_700_000_000, RotationType: 'AUTOMATIC' })
    const rotations = await kek()
    const policy = { ...rotations.policies[0]!, now: true }
    const ports = await rotations.ports(soon())
    expect((await runRotation(policy, ports, soon())).done).toEqual([{ do: 'rotate-on-demand' }])
    const again = await runRotation(policy, ports, soon())
    expect(again).toMatchObject({ done: [], plan: { phase: 'blocked' } })
    expect(await rotationRow(rotations.policies[0]!, rotations.view, soon())).toMatchObject({
      ...{ name: 'kek', kind: 'kms-key', state: 'current', onDemandLeft: 0, overdue: false },
      dueAt: '2027-01-15T08:00:00Z',
    })
  })

  it('is overdue with a reason where KMS does not tell, and the service’s words are not repeated', async () => {
    key.error = 'AccessDeniedException'
    const rotations = await kek()
    const row = await rotationRow(rotations.policies[0]!, rotations.view, soon())
    expect(row).toMatchObject({ state: 'unknown', overdue: true })
    expect(row.reason).toMatch(/^the key service refuses KEK arn:.*\(AccessDeniedException\)$/)
  })
})

describe('what else a policy names', () => {
  it('is a certificate that is due 30 days before it ends, from a file beside the policy', async () => {
    await writeFile(join(folder, 'ca.pem'), selfSigned().cert)
    const rotations = await opened(
      '  ca: { kind: certificate, file: ca.pem }\n  gone: { kind: certificate, file: x.pem }\n',
    )
    const rows = await Promise.all(
      rotations.policies.map((policy) => rotationRow(policy, rotations.view, soon())),
    )
    expect(rows[0]).toEqual({
      ...{ name: 'ca', kind: 'certificate', state: 'current', rotatedAt: '2020-01-01T00:00:00Z' },
      ...{ dueAt: '2049-12-01T23:59:59Z', endsAt: '2049-12-31T23:59:59Z', overdue: false },
    })
    expect(rows[1]).toMatchObject({ state: 'unknown', overdue: true })
  })

  it('is a certificate in a secret with its key', async () => {
    const secrets = await startStagedSecrets()
    try {
      const { cert: certificate, key: privateKey } = selfSigned()
      secrets.put(SECRET, JSON.stringify({ certificate, privateKey }))
      const rotations = await opened(`  gate: { kind: certificate, secret: '${SECRET}' }\n`)
      const row = () => rotationRow(rotations.policies[0]!, rotations.view, soon())
      expect(await row()).toMatchObject({ state: 'current', endsAt: '2049-12-31T23:59:59Z', overdue: false })
      secrets.put(SECRET, '{"certificate":"planted-secret"}')
      const { state, overdue, reason } = await row()
      expect([state, overdue, reason]).toEqual([
        ...['unknown', true],
        expect.stringContaining('It holds no certificate with its private key.'),
      ])
      expect(reason).not.toContain('planted')
    } finally {
      await secrets.end()
    }
  })

  it('is the directory, which is published again by the root', async () => {
    const rotations = await opened('  directory: { kind: directory }\n')
    const store = documentFile({
      path: join(folder, 'directory.jws'),
      outage: 'directory-unavailable',
      clock,
    })
    const late = { now: () => Date.now() - 51_000 }
    const publisher = {
      store,
      roots: [root.publicKey],
      root: localSigner(root.privateKey),
      clock: late,
      life: 100,
    }
    await publishFirst(publisher, soon())
    const { done } = await runRotation(rotations.policies[0]!, await rotations.ports(soon()), soon())
    expect(done).toEqual([{ do: 'renew-directory', version: 1 }])
    const row = await rotationRow(rotations.policies[0]!, rotations.view, soon())
    expect(row).toMatchObject({ state: 'current', overdue: false })
    expect(Date.parse(row.dueAt ?? '') / 1000 - Date.now() / 1000).toBeLessThan(DAY)
  })

  it('is refused, all of it, where it cannot be reached on AWS', async () => {
    const opening = opened(
      `  a: { kind: signing-key, iss: x, secret: x }
  b: { kind: kms-key, key: 'alias/x' }
  c: { kind: scram, pointer: '${SECRET}-p', users: ['${SECRET}-a', u], msk: m }
  d: { kind: client-certificate, secret: '${SECRET}', subject: CN=x, authority: ca.pem, authorityKey: ca.key }
`,
    )
    const error: unknown = await opening.catch((reason: unknown) => reason)
    if (!(error instanceof ConfigError)) throw new Error('no faults', { cause: error })
    expect(error.faults.map(({ what }) => what)).toEqual([
      'Its secret is no ARN of Secrets Manager.',
      'Its key is no ARN of a KMS key.',
      'Its secret is no ARN of Secrets Manager.',
      'Its msk is no ARN of an MSK cluster.',
      'MSK takes no users from secrets of such names.',
      'Its authorityKey is no key.',
    ])
    await expect(opened('  - a\n')).rejects.toThrow('rotations: It is no map.')
    await expect(opened('  a: &x { kind: directory }\n  b: *x\n')).rejects.toThrow(ConfigError)
    await expect(opened('  __proto__: { kind: directory }\n')).rejects.toThrow('It is no name.')
  })

  it('is users of Kafka, which are looked at without brokers and not rotated without them, or without TLS', async () => {
    const row = `  kafka: { kind: scram, pointer: '${SECRET}-p', users: ['${SECRET}-a', '${SECRET}-b'] }\n`
    const rotations = await opened(row)
    expect(await rotationRow(rotations.policies[0]!, rotations.view, soon())).toMatchObject({
      ...{ name: 'kafka', kind: 'scram', state: 'unknown', overdue: true },
    })
    await expect(rotations.ports(soon())).rejects.toThrow('Set SEALGATE_KAFKA_BROKERS (kafka.brokers)')
    const raw = { brokers: ['127.0.0.1:1'], deployment: 'x', insecurePlaintext: true }
    const open = await opened(row, { kafka: () => readKafkaSettings(raw) })
    await expect(open.ports(soon())).rejects.toThrow('A password would be shown to the network. Use TLS.')
    const sound = await opened(row, {
      kafka: () => readKafkaSettings({ ...raw, insecurePlaintext: undefined }),
    })
    expect(Object.keys((await sound.ports(soon())).users ?? {})).toEqual([
      'setPassword',
      'logIn',
      'associate',
    ])
  })
})
