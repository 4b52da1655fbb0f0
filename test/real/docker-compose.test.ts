/**
 * docker-compose.yml, as far as it goes without Docker (local-world.ts): its broker, and events/ decided in its world by the
 * function as `sam local invoke` would run it, in AWS's own runtime client.
 */
import { execFile } from 'node:child_process'
import { copyFile, mkdir, mkdtemp, readFile, rm, utimes } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { Kafka, logLevel } from 'kafkajs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { parse } from 'yaml'
import { slicesOf } from '../../lib/adapters/msk-event.ts'
import { readKafkaSettings } from '../../lib/adapters/kafka-settings.ts'
import { createKafkaSource } from '../../lib/adapters/kafka-source.ts'
import { parseVectorFile } from '../../lib/admission/vector-file.ts'
import { parseEntry, recordKey } from '../../lib/audit/entry.ts'
import type { SourceRecord } from '../../lib/ports.ts'
import {
  bundleLocalWorld,
  COMPOSE_PASSWORD,
  type ComposeBroker,
  composeServices,
  type LocalWorld,
  makeCertificate,
  type Service,
  samVariables,
  startComposeBroker,
  startLocalWorld,
} from './local-world.ts'
import { installRuntimeClient, type RunningFunction, RUNTIME_MS, startFunction } from './runtime-api.ts'

const run = promisify(execFile)
const EVENTS = join(import.meta.dirname, '../../events')
let folder: string
let services: Readonly<Record<string, Service>>
let broker: ComposeBroker
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'sealgate-compose-'))
  services = await composeServices()
  broker = await startComposeBroker(folder)
}, 90_000)
afterAll(async () => {
  await broker.end()
  await rm(folder, { recursive: true })
})

const connection = (password: string) => ({
  brokers: [broker.address],
  sasl: { mechanism: 'plain' as const, username: 'gate', password },
})

it('names images by version, opens ports to this machine alone, and asks for nothing that is not in it', () => {
  for (const { image, ports = [], depends_on: needed = {} } of Object.values(services)) {
    expect(image).toMatch(/:\d+\.\d+\.\d+$/)
    for (const port of ports) expect(port).toMatch(/^127\.0\.0\.1:\d+:\d+$/)
    for (const name of Object.keys(needed)) expect(Object.keys(services)).toContain(name)
  }
  expect(services['world']?.ports).toBeUndefined()
  const { KAFKA_LISTENER_SECURITY_PROTOCOL_MAP: map, KAFKA_LISTENERS: listeners } =
    services['kafka']?.environment ?? {}
  expect(map?.split(',').filter((one) => !one.endsWith(':SASL_SSL'))).toEqual(['CONTROLLER:PLAINTEXT'])
  expect(listeners).toMatch(/^CONTROLLER:\/\/127\.0\.0\.1:/)
})

it('has a broker that starts, proves itself by that certificate, and wants a password', async () => {
  const ca = await readFile(broker.ca, 'utf8')
  const topicsAs = async (password: string): Promise<string[]> => {
    const admin = new Kafka({
      ...connection(password),
      ssl: { ca },
      logLevel: logLevel.NOTHING,
      retry: { retries: 12, initialRetryTime: 300, maxRetryTime: 2000 },
    }).admin()
    try {
      await admin.connect()
      // kafkajs's own waiting takes a broker that learns of it later for an error.
      await admin.createTopics({ topics: [{ topic: 'orders' }], waitForLeaders: false })
      return await admin.listTopics()
    } finally {
      await admin.disconnect()
    }
  }
  await expect.poll(() => topicsAs(COMPOSE_PASSWORD), { timeout: 20_000 }).toContain('orders')
  await expect(topicsAs('another')).rejects.toThrow(/[Aa]uthentication/)
  expect(await isHealthy('kafka')).toBe(true)
})

it('keeps its certificate for the same password, and makes another when it is old or the password is another', async () => {
  const place = join(folder, 'certificates')
  await mkdir(place)
  for (const name of ['broker.p12', 'ca.pem']) await copyFile(join(folder, name), join(place, name))
  const made = async (password: string): Promise<string> => {
    await makeCertificate(place, password)
    return readFile(join(place, 'ca.pem'), 'utf8')
  }
  const first = await readFile(broker.ca, 'utf8')
  expect(await made(COMPOSE_PASSWORD)).toBe(first)
  await utimes(join(place, 'broker.p12'), 0, 0)
  const second = await made(COMPOSE_PASSWORD)
  expect(second).not.toBe(first)
  expect(await made('another-password')).not.toBe(second)
})

/** By the service's own health check, run here. */
async function isHealthy(name: string): Promise<boolean> {
  const [, program = '', ...args] = services[name]?.healthcheck?.test ?? []
  return run(program, args.map(broker.here)).then(
    () => true,
    () => false,
  )
}

describe('the world of events/', () => {
  let place: string
  let world: LocalWorld
  let ingest: RunningFunction
  beforeAll(async () => {
    await installRuntimeClient()
    place = join(folder, 'local')
    await bundleLocalWorld(place)
    expect(await isHealthy('world')).toBe(false)
    world = await startLocalWorld(broker, place)
    ingest = await startFunction({ folder: join(place, 'function'), environment: await environment() })
  }, RUNTIME_MS)
  afterAll(async () => {
    await ingest.end()
    expect(await world.end()).toBe(0)
  })

  /** With credentials as SAM makes them up where there are none. */
  const environment = async (): Promise<Record<string, string>> => ({
    ...(await samVariables(place)),
    AWS_REGION: 'us-east-1',
    AWS_ACCESS_KEY_ID: 'defaultkey',
    AWS_SECRET_ACCESS_KEY: 'defaultsecret',
  })
  const event = (name: string): Promise<string> => readFile(join(EVENTS, name), 'utf8')
  const placesIn = async (name: string): Promise<string[]> =>
    slicesOf(JSON.parse(await event(name))).flatMap(({ records }) =>
      records.map(({ topic, partition, offset }) => recordKey(topic, partition, offset)),
    )
  const expected = async (): Promise<Map<string, string>> => {
    const { vectors } = parseVectorFile('world.json', await event('world.json'))
    return new Map(
      vectors.map(({ record, expect: verdict }) => [
        recordKey(record.topic, record.partition, record.offset),
        verdict,
      ]),
    )
  }
  const read = async (topic: string) => {
    const raw = { ...connection(COMPOSE_PASSWORD), ssl: { ca: broker.ca } }
    const source = createKafkaSource(readKafkaSettings({ ...raw, deployment: 'reader' }))
    try {
      const limits = { maxBytes: 10_000_000, maxRecords: 10_000 }
      const place = { topic, partition: 0 }
      // A commit has its answer before readers see it: what is written already is waited for.
      const end = await source.writtenEnd(place)
      const until = Date.now() + 20_000
      const records: SourceRecord[] = []
      for (let from = 0n; from < end;) {
        const page = await source.fetch(place, from, limits)
        records.push(...page.records)
        from = page.next
        expect(Date.now(), `${topic} was not read to its end`).toBeLessThan(until)
      }
      return records
    } finally {
      await source.close()
    }
  }
  /** What Kafka's audit topic says of each record. */
  const audited = async (): Promise<Map<string, string>> =>
    new Map(
      (await read('local.audit')).flatMap(({ value }) => {
        const entry = parseEntry(value ?? Buffer.alloc(0))
        if (entry?.kind !== 'event.admitted' && entry?.kind !== 'event.rejected') return []
        const verdict = entry.kind === 'event.rejected' ? entry.code : 'admitted'
        return [[recordKey(entry.topic, entry.partition, entry.offset), verdict] as const]
      }),
    )

  it('is given to SAM as the deployed function is, and answers to the health check', async () => {
    expect(await isHealthy('world')).toBe(true)
    const { Resources: made } = parse(await readFile(join(place, 'template.yaml'), 'utf8'))
    const deployed = parse(await readFile(join(import.meta.dirname, '../../template.yaml'), 'utf8'))
    const { Timeout, MemorySize } = deployed.Resources.IngestFunction.Properties
    const { Runtime, Handler } = deployed.Globals.Function
    expect(Object.keys(made)).toEqual(['IngestFunction'])
    expect(made.IngestFunction.Properties).toMatchObject({ Timeout, MemorySize, Runtime, Handler })
    const given = await readFile(join(place, 'env.json'), 'utf8')
    expect(Object.keys(JSON.parse(given).IngestFunction)).toEqual(Object.keys(await samVariables(place)))
    for (const text of [given, world.output()]) expect(text).not.toContain(COMPOSE_PASSWORD)
  })

  it('decides every event in Kafka as world.json says, and leaves an outage undecided', async () => {
    const single = await placesIn('msk-single.json')
    expect(await ingest.invoke(await event('msk-single.json'))).toMatchObject({ answer: null })
    expect([...(await audited()).keys()]).toEqual(single)

    expect(await ingest.invoke(await event('msk-outage.json'))).toMatchObject({
      error: { errorMessage: expect.stringContaining('key-service-unavailable') },
    })
    expect([...(await audited()).keys()]).toEqual(single)

    for (const name of ['self-managed.json', 'msk-mixed.json']) {
      expect(await ingest.invoke(await event(name))).toMatchObject({ answer: null })
      const { size } = await audited()
      expect(size).toBe(new Set([...single, ...(await placesIn(name))]).size)
    }
    const wanted = new Map([...(await expected())].filter(([, verdict]) => verdict !== 'outage'))
    expect(wanted.size).toBe((await placesIn('msk-mixed.json')).length)
    expect(await audited()).toEqual(wanted)
    await expect.poll(() => world.verdicts(), { timeout: 10_000 }).toEqual(wanted)

    const admitted = [...wanted].filter(([, verdict]) => verdict === 'admitted').length
    const outputs = [...(await read('warehouse.orders')), ...(await read('warehouse.refunds'))]
    expect(outputs).toHaveLength(admitted)
    expect(await read('local.quarantine')).toHaveLength(wanted.size - admitted)
  })

  it('starts again on the same Kafka, where what is decided stays so', async () => {
    const again = await startLocalWorld(broker, place).catch((error: unknown) => String(error))
    expect(again).toContain('EADDRINUSE')
    expect(await world.end()).toBe(0)
    await ingest.end()
    world = await startLocalWorld(broker, place)
    ingest = await startFunction({ folder: join(place, 'function'), environment: await environment() })
    const before = await audited()
    expect(await ingest.invoke(await event('msk-mixed.json'))).toMatchObject({ answer: null })
    expect(await audited()).toEqual(before)
  })
})
