/** functions/ingest as it is deployed: its bundle on AWS's own runtime client, behind a Runtime API of ours, on real Kafka. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { toMskEvent } from '../../lib/adapters/msk-event.ts'
import type { SourceRecord } from '../../lib/ports.ts'
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
import { connection } from './world.ts'

let folder: string
let real: RealShop
let place: FunctionPlace
const running: RunningFunction[] = []

beforeAll(async () => {
  await installRuntimeClient()
  folder = await mkdtemp(join(tmpdir(), 'sealgate-lambda-'))
  real = await RealShop.open()
  const { stack, folder: stackFolder } = real.shop
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
