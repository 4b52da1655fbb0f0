/** functions/ingest as it is deployed: its bundle on AWS's own runtime client, behind a Runtime API of ours, on real Kafka. */
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { CreateKeyCommand, KMSClient } from '@aws-sdk/client-kms'
import { CreateBucketCommand, PutObjectCommand, S3Client } from '@aws-sdk/client-s3'
import { CreateSecretCommand, SecretsManagerClient } from '@aws-sdk/client-secrets-manager'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { kmsKeyService } from '../../lib/adapters/kms.ts'
import { toMskEvent } from '../../lib/adapters/msk-event.ts'
import { parseDirectory, sealDirectory } from '../../lib/keys/directory-document.ts'
import { localSigner } from '../../lib/keys/signer.ts'
import { readLocalRoot } from '../../lib/local/root.ts'
import type { Kek, SourceRecord } from '../../lib/ports.ts'
import { EMULATOR_MS } from './emulators/emulator.ts'
import { startMinistack } from './emulators/ministack.ts'
import { type FunctionPlace, placeIngest } from './function-place.ts'
import {
  type FunctionOptions,
  InitError,
  installRuntimeClient,
  type RunningFunction,
  RUNTIME_MS,
  startFunction,
} from './runtime-api.ts'
import { orders, RealShop, totals, upTo } from './shop.ts'
import { connection, soon, unique } from './world.ts'

let folder: string
let real: RealShop
let place: FunctionPlace
let stackKeys: string
const running: RunningFunction[] = []

beforeAll(async () => {
  await installRuntimeClient()
  folder = await mkdtemp(join(tmpdir(), 'sealgate-lambda-'))
  real = await RealShop.open()
  const { stack, folder: stackFolder } = real.shop
  stackKeys = join(stackFolder, 'keys')
  place = await placeIngest(join(folder, 'ingest'), {
    ...{ connection, stack, stackFolder },
    sources: new Map([['orders', real.source]]),
    outputs: new Map(stack.outputs.map((channel) => [channel, real.topicOf(channel)])),
    auditTopic: real.audit,
    quarantineTopic: real.quarantine,
  })
}, RUNTIME_MS)
afterAll(async () => {
  await Promise.all(running.splice(0).map((one) => one.end()))
  await place.end()
  await real.end()
  await rm(folder, { recursive: true })
})

const start = async (change: Partial<FunctionOptions> = {}): Promise<RunningFunction> => {
  const one = await startFunction({ folder: place.folder, environment: place.environment, ...change })
  running.push(one)
  return one
}

const eventOf = (records: readonly SourceRecord[]): string =>
  JSON.stringify(toMskEvent(records, { eventSourceArn: 'arn', bootstrapServers: 'b' }))

describe('the bundle of functions/ingest on the real runtime client', () => {
  it('takes an MSK event over HTTP and writes to Kafka, and a second one warm', async () => {
    const sealer = await real.sealer()
    await sealer.send('orders', orders(0, 30))
    const first = await real.records()
    const ingest = await start()
    expect(await ingest.invoke(eventOf(first))).toMatchObject({ answer: null })
    const analytics = real.topicOf('orders.analytics')
    expect(totals(await real.cluster.readCommitted(analytics, 'consumer'))).toEqual(upTo(30))
    const asked = place.asked().length
    expect(new Set(place.asked())).toEqual(new Set(['GetSecretValue', 'Decrypt', 'GenerateDataKey']))

    await sealer.send('orders', orders(30, 60))
    // As Lambda does after a failure elsewhere: what it has had comes again with what is new.
    expect(await ingest.invoke(eventOf(await real.records()))).toMatchObject({ answer: null })
    expect(totals(await real.cluster.readCommitted(analytics, 'consumer'))).toEqual(upTo(60))
    expect(await real.cluster.readCommitted(real.topicOf('orders.fulfilment'), 'consumer')).toHaveLength(60)
    expect(await real.cluster.readCommitted(real.quarantine)).toEqual([])
    expect(await real.verify()).toMatchObject({ verified: true, entries: 60 })
    // Connections, data keys and credentials are those of the first.
    expect(place.asked()).toHaveLength(asked)
    expect(ingest.log().match(/"records.admitted":30/g)).toHaveLength(2)
  })

  it('answers what it cannot decide with an error, so that Lambda sends the batch again', async () => {
    const ingest = await start()
    const [record] = await real.records()
    const stranger = eventOf(record === undefined ? [] : [{ ...record, topic: 'source.unknown' }])
    expect(await ingest.invoke(stranger)).toMatchObject({
      error: { errorMessage: expect.stringContaining('source.unknown-0 at offset') },
    })
    // The process goes on: the next event is taken.
    expect(await ingest.invoke(eventOf(await real.records()))).toMatchObject({ answer: null })
  })

  it('fails in the init phase with every fault of its configuration named, and takes no event', async () => {
    const environment = {
      ...place.environment,
      SEALGATE_ROOTS: 'none.json',
      SEALGATE_FAILURE_MODE: 'partial',
      SEALGATE_CHANNEL: 'a misspelt name',
      SEALGATE_SIGNING_KEY: 'file:gate.jwk',
    }
    const failure: unknown = await startFunction({ folder: place.folder, environment }).catch(
      (error: unknown) => error,
    )
    if (!(failure instanceof InitError)) throw new Error('it has started')
    expect(failure.error.errorType).toBe('ConfigError')
    for (const name of ['ROOTS', 'MAPPING_ANSWERS', 'CHANNEL', 'SIGNING_KEY'])
      expect(failure.error.errorMessage).toMatch(new RegExp(`SEALGATE_${name}: `))
  })
})

/** The directory with keys of KMS in place of the embedded ones, in S3; and the KEKs by their names. */
async function publishInAws(): Promise<{ readonly directory: string; readonly keks: readonly Kek[] }> {
  const { directoryPath, root } = await readLocalRoot(stackKeys)
  const { document } = parseDirectory(await readFile(directoryPath), real.shop.stack.directory.roots)
  const kms = new KMSClient({})
  const keks = await Promise.all(
    document.keks.map(async (kek) => {
      const { KeyMetadata: made } = await kms.send(new CreateKeyCommand({}))
      return { ...kek, provider: 'aws-kms', key: made?.Arn ?? '' }
    }),
  )
  const Body = await sealDirectory({ ...document, keks }, localSigner(root), soon())
  const Bucket = `sealgate-${unique()}`
  const s3 = new S3Client({})
  await s3.send(new CreateBucketCommand({ Bucket }))
  await s3.send(new PutObjectCommand({ Bucket, Key: 'directory.jws', Body }))
  return { directory: `s3://${Bucket}/directory.jws`, keks }
}

it(
  'works with an emulator of AWS: keys in KMS, the directory in S3, secrets, all by AWS_ENDPOINT_URL',
  async () => {
    const emulator = await startMinistack()
    try {
      const { directory, keks } = await publishInAws()
      const secrets = new SecretsManagerClient({})
      const environment: Record<string, string> = {
        ...Object.fromEntries(
          Object.entries(place.environment).filter(([name]) => !name.startsWith('AWS_ENDPOINT_URL')),
        ),
        AWS_ENDPOINT_URL: emulator.url,
        AWS_REGION: process.env['AWS_REGION'] ?? '',
        SEALGATE_DIRECTORY: directory,
      }
      for (const [name, SecretString] of Object.entries(place.secrets)) {
        const made = await secrets.send(
          new CreateSecretCommand({ Name: `${name}-${unique()}`, SecretString }),
        )
        environment[name] = made.ARN ?? ''
      }
      const { kek: local } = real.shop.stack.producer('shop-web')
      const kek = keks.find(({ kekId }) => kekId === local.kekId) ?? local
      const sealer = await real.sealer({ kek, keyService: kmsKeyService({ clock: real.shop.stack.clock }) })
      const before = (await real.records()).length
      await sealer.send('orders', orders(before, before + 20))
      const asked = place.asked().length
      const ingest = await start({ environment })
      expect(await ingest.invoke(eventOf(await real.records()))).toMatchObject({ answer: null })
      const plain = await real.cluster.readCommitted(real.topicOf('orders.analytics'), 'consumer')
      expect(totals(plain)).toEqual(upTo(before + 20))
      expect(await real.cluster.readCommitted(real.quarantine)).toEqual([])
      expect(place.asked()).toHaveLength(asked)
    } finally {
      await emulator.end()
    }
  },
  EMULATOR_MS + 60_000,
)
