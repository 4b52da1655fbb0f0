/** The function as its environment describes it: Kafka, KMS by the AWS SDK, documents in files. */
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { afterEach, expect, it, vi } from 'vitest'
import { ingestHandler } from '../../functions/ingest-handler.ts'
import { createKafkaSource } from '../../lib/adapters/kafka-source.ts'
import { exportPublicJwk } from '../../lib/envelope/crypto.ts'
import { openLocalKeyService } from '../../lib/local/key-service.ts'
import { startPoller } from '../../lib/local/poller.ts'
import { openLocalSecrets } from '../../lib/local/secrets.ts'
import { LOCAL_GATEWAY } from '../../lib/local/stack.ts'
import { type Gate, openGate } from '../../lib/runtime.ts'
import { readSettings } from '../../lib/settings.ts'
import { startSecretsEndpoint } from '../secrets-endpoint.ts'
import { startKmsEndpoint } from '../../lib/local/kms-endpoint.ts'
import { orders, RealShop, totals, upTo } from './shop.ts'
import { DEPLOYMENT } from './stack/stack.ts'
import { connection, settings, soon, unique } from './world.ts'

const ending: (() => Promise<unknown>)[] = []
afterEach(async () => {
  vi.unstubAllEnvs()
  for (const end of ending.splice(0).reverse()) await end()
})

it('decides what a poller brings it, on Kafka and KMS, as its environment says', async () => {
  const real = await RealShop.open()
  ending.push(() => real.end())
  const { folder, stack } = real.shop
  const clock = { now: () => Date.now() }
  const kms = await startKmsEndpoint(await openLocalKeyService(join(folder, 'keys'), clock), LOCAL_GATEWAY)
  ending.push(() => kms.end())
  const endpoint = await startSecretsEndpoint()
  ending.push(() => endpoint.end())
  const secret = (name: string, value: string): string => {
    const arn = `arn:aws:secretsmanager:eu-west-1:111122223333:secret:${name}`
    endpoint.set(arn, { value })
    return arn
  }
  const file = async (name: string, content: string | Uint8Array): Promise<string> => {
    await writeFile(join(folder, name), content, { mode: 0o600 })
    return join(folder, name)
  }
  const { principals } = JSON.parse(await readFile(join(folder, 'keys', 'principals.json'), 'utf8'))
  const { jwk } = principals.find(({ iss }: { iss: string }) => iss === LOCAL_GATEWAY)
  const secrets = await openLocalSecrets(join(folder, 'secrets'), clock)
  const pseudonyms = await secrets.read('pseudonyms', soon())
  const environment = {
    SEALGATE_NAME: LOCAL_GATEWAY,
    SEALGATE_DEPLOYMENT: DEPLOYMENT,
    SEALGATE_CHANNELS: `${real.source}=orders`,
    SEALGATE_TOPICS: stack.outputs.map((channel) => `${channel}=${real.topicOf(channel)}`).join(),
    SEALGATE_AUDIT_TOPIC: real.audit,
    SEALGATE_QUARANTINE_TOPIC: real.quarantine,
    SEALGATE_CONTRACTS: join(folder, 'contracts.bundle.json'),
    SEALGATE_DIRECTORY: join(folder, 'keys', 'directory.jws'),
    SEALGATE_ROOTS: await file('roots.json', JSON.stringify(stack.directory.roots.map(exportPublicJwk))),
    SEALGATE_KEK_ID: stack.gateParts().settings.outlet.kekId,
    SEALGATE_SIGNING_KEY: `file:${await file('gate.jwk', JSON.stringify(jwk))}`,
    SEALGATE_PSEUDONYMS: secret('pseudonyms', Buffer.from(pseudonyms.value).toString()),
    SEALGATE_KAFKA_BROKERS: connection.brokers.join(),
    SEALGATE_KAFKA_SSL_CA: await file('ca.pem', connection.ca),
    SEALGATE_KAFKA_SASL_MECHANISM: 'scram-sha-512',
    SEALGATE_KAFKA_SASL_SECRET: secret(
      'AmazonMSK_gate',
      JSON.stringify({ username: 'gate', password: connection.passwords.gate }),
    ),
    AWS_ENDPOINT_URL_KMS: kms.url,
    AWS_ACCESS_KEY_ID: 'test',
    AWS_SECRET_ACCESS_KEY: 'test',
  }
  for (const [name, value] of Object.entries(environment)) vi.stubEnv(name, value)
  const source = createKafkaSource(settings({}, 'poller'))
  ending.push(() => source.close())
  let gate: Gate | undefined
  const poller = await startPoller({
    source,
    group: `poller.${unique()}`,
    topics: [real.source],
    // As the function's own handler, but that its gate can be closed.
    handler: ingestHandler(async () => (gate = await openGate(readSettings(process.env)))),
    options: { batchSize: 50, batchingWindowMs: 10 },
  })
  ending.push(
    () => gate?.close() ?? Promise.resolve(),
    () => poller.stop(),
  )
  const sealer = await real.sealer()
  await sealer.send('orders', orders(0, 80))
  const isDrained = await poller.drained(30_000)
  expect(poller.stats().lastError).toBeUndefined()
  expect(isDrained).toBe(true)
  const plain = await real.cluster.readCommitted(real.topicOf('orders.analytics'), 'consumer')
  expect(totals(plain)).toEqual(upTo(80))
  expect(await real.cluster.readCommitted(real.topicOf('orders.fulfilment'), 'consumer')).toHaveLength(80)
  expect(await real.cluster.readCommitted(real.quarantine)).toEqual([])
  expect(await real.verify()).toMatchObject({ verified: true, entries: 80 })
  expect(new Set(endpoint.read).size).toBe(2)
  expect(new Set(kms.asked)).toEqual(new Set(['Decrypt', 'GenerateDataKey']))
})
