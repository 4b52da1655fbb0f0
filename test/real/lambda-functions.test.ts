/**
 * functions/keys and functions/rotate as they are deployed: their bundles on AWS's own runtime client, with the key
 * directory in S3, its root in KMS and signing keys in secrets, all of an emulator of AWS, and the audit on real Kafka.
 */
import { randomUUID } from 'node:crypto'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { CreateKeyCommand, KMSClient } from '@aws-sdk/client-kms'
import { CreateBucketCommand, S3Client } from '@aws-sdk/client-s3'
import { CreateSecretCommand, SecretsManagerClient } from '@aws-sdk/client-secrets-manager'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { documentPlace, openDocumentStore } from '../../lib/adapters/document-place.ts'
import { createKafkaSink } from '../../lib/adapters/kafka.ts'
import { kmsPublicKey, kmsSigner } from '../../lib/adapters/kms.ts'
import { stagedSecretsManager } from '../../lib/adapters/secrets-manager.ts'
import { controlPlaceOf, firstControlPosition } from '../../lib/audit/control-chain.ts'
import { searchAudit } from '../../lib/audit/search.ts'
import { verifyAudit } from '../../lib/audit/verification.ts'
import { exportPublicJwk, publicKeyOf, thumbprint } from '../../lib/envelope/crypto.ts'
import { ED25519 } from '../../lib/envelope/suite.ts'
import { publishChange, publishFirst, type PublisherOptions } from '../../lib/keys/directory-publisher.ts'
import { createDirectory } from '../../lib/keys/directory-reader.ts'
import type { Jwks } from '../../lib/keys/jwks.ts'
import { kidOf, newSigningSecret, readSigningSecret } from '../../lib/keys/signing-secret.ts'
import { readHeads } from '../../lib/local/audit-source.ts'
import type { SecretStage } from '../../lib/ports.ts'
import { bundleFunction } from '../../scripts/bundle.ts'
import type { Emulator } from './emulators/emulator.ts'
import { MINISTACK_MS, startMinistack } from './emulators/ministack.ts'
import { fileIn, kafkaEnvironment } from './function-place.ts'
import {
  InitError,
  installRuntimeClient,
  type RunningFunction,
  RUNTIME_MS,
  startFunction,
} from './runtime-api.ts'
import { DEPLOYMENT } from './stack/stack.ts'
import { Cluster, connection, settings, soon, unique } from './world.ts'

type Name = 'keys' | 'rotate'
const clock = { now: () => Date.now() }
const GATEWAY = 'gateway-eu'
const PRODUCER = 'shop-web'
const SCHEDULED = { version: '0', source: 'aws.scheduler', 'detail-type': 'Scheduled Event', detail: {} }
const audit = `${DEPLOYMENT}.audit.${unique()}`
const cluster = new Cluster()
const running: RunningFunction[] = []
let folder = ''
let ministack: Emulator
let directory: PublisherOptions
/** ARNs of secrets with signing keys, by issuer. */
const secrets = new Map<string, string>()
const environments = new Map<Name, Readonly<Record<string, string>>>()

beforeAll(
  async () => {
    await installRuntimeClient()
    folder = await mkdtemp(join(tmpdir(), 'sealgate-functions-'))
    ministack = await startMinistack()
    const location = await newDirectory()
    for (const iss of [GATEWAY, PRODUCER]) await newIssuer(iss)
    await cluster.createTopic(audit, 2)
    const sink = createKafkaSink(settings({}, 'operator'), clock)
    await sink.init(controlPlaceOf(audit), firstControlPosition(), soon()).finally(() => sink.close())
    for (const name of ['keys', 'rotate'] as const) await bundleFunction(name, join(folder, name))
    const roots = JSON.stringify(directory.roots.map(exportPublicJwk))
    const trust = async (name: Name): Promise<Record<string, string>> => ({
      ...{ AWS_ENDPOINT_URL: ministack.url, AWS_REGION: 'eu-central-1' },
      ...{ AWS_ACCESS_KEY_ID: 'AKIDEXAMPLE', AWS_SECRET_ACCESS_KEY: 'planted-aws-secret' },
      ...{
        SEALGATE_DIRECTORY: location,
        SEALGATE_ROOTS: await fileIn(join(folder, name))('roots.json', roots),
      },
    })
    environments.set('keys', await trust('keys'))
    environments.set('rotate', {
      ...(await trust('rotate')),
      ...(await kafkaEnvironment(join(folder, 'rotate'), connection)),
      SEALGATE_ROOT_KEY: rootKey,
      SEALGATE_ROTATION: 'rotation.yaml',
      SEALGATE_NAME: GATEWAY,
      SEALGATE_SIGNING_KEY: secrets.get(GATEWAY) ?? '',
      SEALGATE_AUDIT_TOPIC: audit,
      SEALGATE_KAFKA_SASL_SECRET: await newSecret(
        Buffer.from(JSON.stringify({ username: 'operator', password: connection.passwords.operator })),
      ),
    })
  },
  Math.max(RUNTIME_MS, MINISTACK_MS),
)
afterAll(async () => {
  await Promise.all(running.map((one) => one.end()))
  await cluster.end()
  await ministack.end()
  await rm(folder, { recursive: true })
})

let rootKey = ''

/** A first version, signed by a key of KMS. Gives its place in S3. */
async function newDirectory(): Promise<string> {
  const asked = new CreateKeyCommand({ KeySpec: 'ECC_NIST_P256', KeyUsage: 'SIGN_VERIFY' })
  rootKey = (await new KMSClient().send(asked)).KeyMetadata?.Arn ?? ''
  const root = await kmsPublicKey(rootKey, { clock }, soon())
  const Bucket = `sealgate-${randomUUID()}`
  await new S3Client().send(new CreateBucketCommand({ Bucket }))
  const location = `s3://${Bucket}/directory.jws`
  directory = {
    ...{ clock, roots: [root] },
    store: openDocumentStore(documentPlace(location), { outage: 'directory-unavailable', clock }),
    root: kmsSigner({ keyId: rootKey, kid: thumbprint(root), alg: root.suite.cose }, { clock }),
  }
  await publishFirst(directory, soon())
  return location
}

async function newSecret(value: Uint8Array): Promise<string> {
  const asked = new CreateSecretCommand({ Name: unique(), SecretString: Buffer.from(value).toString() })
  return (await new SecretsManagerClient().send(asked)).ARN ?? ''
}

/** One that has signed for a while, by a key in a secret. */
async function newIssuer(iss: string): Promise<void> {
  const value = newSigningSecret(ED25519)
  secrets.set(iss, await newSecret(value))
  const key = publicKeyOf(readSigningSecret(value, iss))
  const notBefore = Math.floor(clock.now() / 1000) - 200
  const row = { iss, key, state: 'active', notBefore, notAfter: notBefore + 100_000 } as const
  await publishChange(directory, (draft) => draft.enrol(row), soon())
}

/** The function's policy: what is older than `period` is due. */
const setPolicy = (period: string): Promise<void> =>
  writeFile(
    join(folder, 'rotate/rotation.yaml'),
    `rotations:
  gateway: { kind: signing-key, iss: ${GATEWAY}, secret: '${secrets.get(GATEWAY) ?? ''}', period: ${period} }
  producer: { kind: signing-key, iss: ${PRODUCER}, secret: '${secrets.get(PRODUCER) ?? ''}', period: 90d }
  directory: { kind: directory }
waits: { directoryGrace: 1s, secretHold: 1s, eventLife: 1s, margin: 1s, retention: 365d }
`,
  )

const kidAt = async (iss: string, stage: SecretStage): Promise<string | undefined> => {
  const found = await stagedSecretsManager(clock).find(secrets.get(iss) ?? '', stage, soon())
  return found && kidOf(readSigningSecret(found.value, iss))
}

const nameOf = (name: Name): string => `sealgate-test-${name}`

const start = async (name: Name, change: Readonly<Record<string, string>> = {}): Promise<RunningFunction> => {
  const environment = { ...environments.get(name), ...change }
  const one = await startFunction({ folder: join(folder, name), environment, name: nameOf(name) })
  running.push(one)
  return one
}

interface Response {
  readonly statusCode: number
  readonly headers: Readonly<Record<string, string>>
  readonly body?: string
}
const isResponse = (value: unknown): value is Response =>
  typeof value === 'object' && value !== null && 'statusCode' in value && 'headers' in value

/** A request as a function URL hands it over. */
async function ask(
  keys: RunningFunction,
  path: string,
  { method = 'GET', headers = {} }: { readonly method?: string; readonly headers?: object } = {},
): Promise<Response> {
  const told = await keys.invoke(
    JSON.stringify({
      ...{ version: '2.0', routeKey: '$default', rawPath: path, rawQueryString: '', isBase64Encoded: false },
      headers: { host: 'abc.lambda-url.eu-central-1.on.aws', accept: '*/*', ...headers },
      requestContext: {
        ...{ accountId: 'anonymous', apiId: 'abc', stage: '$default', requestId: randomUUID() },
        http: { method, path, protocol: 'HTTP/1.1', sourceIp: '192.0.2.1', userAgent: 'curl' },
      },
    }),
  )
  if (!('answer' in told) || !isResponse(told.answer)) throw new Error(`no answer: ${JSON.stringify(told)}`)
  return told.answer
}

const listed = async (keys: RunningFunction): Promise<Map<string, string>> => {
  const { keys: all }: Jwks = JSON.parse((await ask(keys, '/.well-known/jwks.json')).body ?? '')
  return new Map(all.map(({ kid, iss, state }) => [kid, `${iss} ${state}`]))
}

describe('the bundle of functions/keys on the real runtime client', () => {
  it('answers requests of a function URL with the keys of a directory in S3', async () => {
    const keys = await start('keys')
    const kid = (await kidAt(GATEWAY, 'AWSCURRENT')) ?? ''
    expect(await listed(keys)).toEqual(
      new Map([
        [kid, `${GATEWAY} active`],
        [await kidAt(PRODUCER, 'AWSCURRENT'), `${PRODUCER} active`],
      ]),
    )
    const one = await ask(keys, `/keys/${kid}`)
    expect(one).toMatchObject({ statusCode: 200, headers: { 'Cache-Control': 'public, max-age=60' } })
    expect(JSON.parse(one.body ?? '')).toMatchObject({ kid, iss: GATEWAY, alg: 'Ed25519', state: 'active' })
    const { ETag: etag } = one.headers
    const head = await ask(keys, `/keys/${kid}`, { method: 'HEAD' })
    expect(head).toMatchObject({ statusCode: 200, headers: { ETag: etag }, body: '' })
    const again = await ask(keys, `/keys/${kid}`, { headers: { 'if-none-match': etag } })
    expect([again.statusCode, again.body]).toEqual([304, undefined])
    for (const path of ['/keys/AAAA', '/', '/keys/..', '/__proto__'])
      expect((await ask(keys, path)).statusCode).toBe(404)
    expect(await ask(keys, '/jwks.json', { method: 'POST' })).toMatchObject({ statusCode: 405 })
  })

  it('answers 503 where S3 does not, and tells nobody but its log why', async () => {
    const keys = await start('keys', { AWS_ENDPOINT_URL_S3: 'http://127.0.0.1:1' })
    const { statusCode, headers, body } = await ask(keys, '/jwks.json')
    expect([statusCode, headers['Cache-Control']]).toEqual([503, 'no-store'])
    expect(body).toBe('{"error":"the key directory cannot be read now"}')
    expect(keys.log()).toContain('directory-unavailable')
    expect(keys.log()).not.toContain('planted-aws-secret')
  })
})

describe('the bundle of functions/rotate on the real runtime client', () => {
  it('takes scheduled events: a key that is due is replaced, published and audited', async () => {
    await setPolicy('90d')
    const rotate = await start('rotate')
    const fire = () => rotate.invoke(JSON.stringify(SCHEDULED))
    const before = await kidAt(GATEWAY, 'AWSCURRENT')
    const rows = (gateway: string) => [
      { name: 'gateway', state: gateway },
      { name: 'producer', state: 'current' },
      { name: 'directory', state: 'current' },
    ]
    expect(await fire()).toMatchObject({ answer: { done: [], rows: rows('current') } })
    await setPolicy('100s')
    const steps = (...names: string[]) => names.map((step) => ({ name: 'gateway', step }))
    expect(await fire()).toMatchObject({
      answer: { done: steps('stage-key', 'enrol-key'), rows: rows('under-way') },
    })
    expect(await kidAt(GATEWAY, 'AWSCURRENT')).toBe(before)
    const next = await kidAt(GATEWAY, 'AWSPENDING')
    await sleep(2200)
    expect(await fire()).toMatchObject({
      answer: { done: steps('promote', 'retire-key'), rows: rows('current') },
    })
    expect(await kidAt(GATEWAY, 'AWSCURRENT')).toBe(next)

    const published = await listed(await start('keys'))
    expect([published.get(next ?? ''), published.get(before ?? '')]).toEqual([
      `${GATEWAY} active`,
      `${GATEWAY} deactivated`,
    ])
    expect(await told()).toEqual({ verified: true, headsKnown: true, keys: turnOf(GATEWAY, next, before) })
  })

  it('takes the four steps of Secrets Manager', async () => {
    await setPolicy('90d')
    const rotate = await start('rotate')
    const before = await kidAt(PRODUCER, 'AWSCURRENT')
    const ClientRequestToken = randomUUID()
    for (const Step of ['createSecret', 'setSecret', 'testSecret', 'finishSecret']) {
      const event = { Step, SecretId: secrets.get(PRODUCER), ClientRequestToken }
      expect(await rotate.invoke(JSON.stringify(event))).toMatchObject({ answer: null })
    }
    const current = await stagedSecretsManager(clock).find(secrets.get(PRODUCER) ?? '', 'AWSCURRENT', soon())
    expect(current?.version).toBe(ClientRequestToken)
    expect(await kidAt(PRODUCER, 'AWSPREVIOUS')).toBe(before)
    const [{ verified, keys }, next] = [await told(), await kidAt(PRODUCER, 'AWSCURRENT')]
    expect([verified, keys.slice(-4)]).toEqual([true, turnOf(PRODUCER, next, before)])
  })

  it('fails with what to do where its policy has faults, and takes the next event', async () => {
    await setPolicy('1s')
    const rotate = await start('rotate')
    expect(await rotate.invoke(JSON.stringify(SCHEDULED))).toMatchObject({
      error: {
        errorType: 'ConfigError',
        errorMessage: expect.stringContaining('rotation.yaml: rotations.gateway.period: '),
      },
    })
    await setPolicy('90d')
    expect(await rotate.invoke(JSON.stringify(SCHEDULED))).toMatchObject({ answer: { done: [] } })
  })
})

/** What is told of one rotation. */
const turnOf = (iss: string, next = '', before = ''): readonly string[] => [
  `key.staged secret:${secrets.get(iss) ?? ''}`,
  `key.enrolled key:${next}`,
  `key.promoted secret:${secrets.get(iss) ?? ''}`,
  `key.retired key:${before}`,
]

/** What an auditor finds of the control chain: whether it holds, and what the function did to keys. */
async function told() {
  const [records, sink] = [await cluster.readCommitted(audit, 'consumer'), createKafkaSink(settings(), clock)]
  try {
    const source = {
      partitions: () => Promise.resolve(2),
      async *read(partition: number) {
        await Promise.resolve()
        yield* records.filter((record) => record.partition === partition)
      },
      heads: () => readHeads({ positions: sink, sources: [], auditTopic: audit, deadline: soon() }),
    }
    const { store, roots } = directory
    const { snapshot } = await createDirectory({ source: store, roots, clock }).snapshot(soon())
    const report = await verifyAudit(source, { keyOf: (kid) => snapshot.signingKey(kid)?.key })
    const { verified, headsKnown } = report
    const keys: string[] = []
    await searchAudit(source, { principal: `Function:${nameOf('rotate')}`, type: 'key.*' }, ({ entry }) => {
      if ('resource' in entry) keys.push(`${entry.kind} ${entry.resource}`)
    })
    return { verified, headsKnown, keys }
  } finally {
    await sink.close()
  }
}

describe('a function with faults in its environment', () => {
  it.each([
    ['keys', { SEALGATE_ROOTS: 'none.json', SEALGATE_NAME: 'gate' }, ['NAME', 'ROOTS']],
    [
      'rotate',
      { SEALGATE_ROOTS: 'none.json', SEALGATE_ROOT_KEY: 'alias/root', SEALGATE_SIGNING_KEY: 'file:x' },
      ['ROOTS', 'ROOT_KEY', 'SIGNING_KEY', 'LIFECYCLE_AUDIT'],
    ],
  ] as const)('fails as %s in the init phase, with all of them named', async (name, change, faults) => {
    const failure: unknown = await start(name, change).catch((error: unknown) => error)
    if (!(failure instanceof InitError)) throw new Error('it has started')
    expect(failure.error.errorType).toBe('ConfigError')
    for (const fault of faults) expect(failure.error.errorMessage).toContain(`SEALGATE_${fault}: `)
  })
})
