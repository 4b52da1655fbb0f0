/**
 * What handlers are measured on: a broker of our own, a producer's sealed events as Lambda hands them over, the gate as a
 * function runs it, and two handlers of plain kafkajs that do its work without any security.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { Kafka, type Message, type Producer } from 'kafkajs'
import { ingestHandler } from '../functions/ingest-handler.ts'
import { createKafkaSink, type KafkaSink } from '../lib/adapters/kafka.ts'
import { type KafkaSinkSettings, readKafkaSettings } from '../lib/adapters/kafka-settings.ts'
import { type KafkaEvent, type KafkaEventRecord, toMskEvent } from '../lib/adapters/msk-event.ts'
import { firstPosition } from '../lib/admission/position.ts'
import { createIngest } from '../lib/admission/slice.ts'
import { createSealer, type Sealer } from '../lib/client/sealer.ts'
import { buildBundle } from '../lib/contract/bundle.ts'
import { partitionOf } from '../lib/envelope/partition.ts'
import { invokeJson } from '../lib/local/invocation.ts'
import { openStack, type Stack } from '../lib/local/stack.ts'
import type { SourceRecord } from '../lib/ports.ts'
import { createGate, SOFTWARE } from '../lib/runtime.ts'
import { RealCluster } from '../test/real/cluster.ts'
import { type FunctionPlace, placeIngest } from '../test/real/function-place.ts'
import { clientConfig, DEPLOYMENT, type RealStack, startStack } from '../test/real/stack/stack.ts'
import { CHANNEL, contractFile, eventOf, ISSUER, TYPE } from './world.ts'

/** Takes an event's JSON as Lambda's runtime does, parses it, calls the handler and waits for its answer. */
export type Invoke = (eventJson: string) => Promise<unknown>

const EVENT_BYTES = 1024
/** What there is to say: with new names it is sealed again and again. */
const EVENTS = Array.from({ length: 500 }, (_, index) => eventOf(index, EVENT_BYTES))
/** A producer's events to one partition under one signature. */
const BATCH = 128
const OUTPUT_BYTES = 2048
const RECORD_BYTES = 700
const INVOCATION_MS = 60_000
const MAX_TRIES = 5
const ORIGIN = {
  eventSourceArn: 'arn:aws:kafka:eu-central-1:111122223333:cluster/bench/1',
  bootstrapServers: '',
}

/** A listener without TLS and login, to see what TLS costs. */
const PLAINTEXT = 'PLAINTEXT'

const BROKER = [
  'super.users=User:admin;User:CN=broker;User:ANONYMOUS',
  // The others write a slice of 1,000 as one batch; ours keeps to the usual limit, in several transactions.
  'message.max.bytes=4194304',
  // It throws away what nobody will read, so that long runs fill no disk.
  'log.segment.bytes=134217728',
  'log.retention.bytes=268435456',
  'log.retention.check.interval.ms=10000',
  'log.segment.delete.delay.ms=1000',
]

export class KafkaWorld {
  readonly #folder: string
  readonly #broker: RealStack
  readonly #keys: Stack
  readonly #cluster: RealCluster
  readonly #ending: (() => Promise<unknown>)[] = []
  #sites = 0

  private constructor(folder: string, broker: RealStack, keys: Stack) {
    this.#folder = folder
    this.#broker = broker
    this.#keys = keys
    this.#cluster = new RealCluster(broker.connection)
  }

  /** @param say told what is being done */
  static async open(say: (line: string) => void): Promise<KafkaWorld> {
    const folder = await mkdtemp(join(tmpdir(), 'sealgate-bench-'))
    const listeners = { [PLAINTEXT]: { protocol: 'PLAINTEXT' as const, properties: [] } }
    const broker = await startStack({
      properties: BROKER,
      listeners: () => Promise.resolve({ listeners, java: [] }),
      say,
    })
    const file = {
      ...contractFile(TYPE),
      consume: {
        fulfilment: {
          purpose: 'fulfil-orders',
          to: OUTPUT_CHANNEL,
          form: 'sealed' as const,
          treatments: Object.fromEntries(FIELDS.map((field) => [`/${field}`, 'pass'])),
        },
      },
    }
    const keys = await openStack({ folder, bundle: buildBundle([file]), software: SOFTWARE })
    return new KafkaWorld(folder, broker, keys)
  }

  /** Topics of so many partitions each, with a producer for the source. */
  async site(partitions: number): Promise<Site> {
    const topics = topicsOf(++this.#sites)
    const names = [topics.source, topics.output, topics.audit, topics.quarantine]
    await Promise.all(names.map((topic) => this.#cluster.createTopic(topic, partitions)))
    const sealer = createSealer({ ...this.#keys.producer(ISSUER), partitions })
    this.#ending.push(() => sealer.close())
    return new Site(topics, partitions, sealer)
  }

  /** The gate, as `functions/ingest-handler.ts` runs it in one process; only its keys are not in KMS. */
  gate(site: Site): Promise<Invoke> {
    return this.#gateOn(this.#settings(), site)
  }

  #settings(): KafkaSinkSettings {
    const { brokers, ca, passwords } = this.#broker.connection
    const sasl = { mechanism: 'scram-sha-512', username: 'gate', password: passwords.gate }
    return readKafkaSettings({ brokers, ssl: { ca }, sasl, deployment: DEPLOYMENT })
  }

  /** Another, which reaches the broker without TLS, and takes the same events beside the first. */
  plaintextGate(site: Site): Promise<Invoke> {
    const brokers = [this.#broker.connection.listeners[PLAINTEXT] ?? '']
    return this.#gateOn(readKafkaSettings({ brokers, insecurePlaintext: true, deployment: PLAINTEXT }), site)
  }

  /** The function itself, its own site's: bundled, and with keys in KMS as far as it can tell. */
  async ingest(site: Site): Promise<FunctionPlace> {
    const { source, output, audit, quarantine } = site.topics
    const sink = createKafkaSink(this.#settings(), this.#keys.clock)
    await this.#initPositions(sink, site).finally(() => sink.close())
    const place = await placeIngest(join(this.#folder, source), {
      ...{ connection: this.#broker.connection, stack: this.#keys, stackFolder: this.#folder },
      sources: new Map([[CHANNEL, source]]),
      outputs: new Map([[OUTPUT_CHANNEL, output]]),
      auditTopic: audit,
      quarantineTopic: quarantine,
    })
    this.#ending.push(() => place.end())
    return place
  }

  async #initPositions(sink: KafkaSink, { topics, partitions }: Site): Promise<void> {
    for (let partition = 0; partition < partitions; partition++)
      await sink.init({ topic: topics.source, partition }, firstPosition(0n), Date.now() + 20_000)
  }

  async #gateOn(settings: KafkaSinkSettings, site: Site): Promise<Invoke> {
    const { topics } = site
    const parts = this.#keys.gateParts()
    const sink = createKafkaSink(settings, parts.clock)
    await this.#initPositions(sink, site)
    const ingest = createIngest({
      ...parts,
      sink,
      settings: {
        ...parts.settings,
        deployment: settings.deployment,
        outlet: {
          ...parts.settings.outlet,
          auditTopic: topics.audit,
          quarantineTopic: topics.quarantine,
          topicOf: () => topics.output,
        },
        channelOf: () => ({ name: CHANNEL, maxLifeSeconds: 86_400 }),
      },
    })
    const gate = createGate(ingest, 'throw')
    this.#ending.push(async () => {
      await gate.close()
      await sink.close()
    })
    const handler = ingestHandler(() => Promise.resolve(gate))
    return async (eventJson) => {
      for (let tries = 1; ; tries++) {
        try {
          return await invokeJson(handler, eventJson, { timeoutMs: INVOCATION_MS })
        } catch (error) {
          // The trigger hands over again what failed: a broker on a busy machine may be late.
          if (tries === MAX_TRIES) throw error
        }
      }
    }
  }

  /** A handler of plain kafkajs: decodes, and writes an output and a record for each event. */
  async plain({ topics }: Site): Promise<Invoke> {
    const producer = await this.#producer()
    return (eventJson) =>
      producer.sendBatch({
        acks: -1,
        topicMessages: slicesOf(eventJson).flatMap((slice) => topicMessages(slice, topics)),
      })
  }

  /** The same, a transaction with its offset for each partition: a producer for each, as the gate has them. */
  async transactional({ topics, partitions }: Site): Promise<Invoke> {
    const producers = await Promise.all(
      Array.from({ length: partitions }, (_, partition) =>
        this.#producer(`${DEPLOYMENT}.plain.${topics.source}.${partition}`),
      ),
    )
    const commit = async (records: readonly KafkaEventRecord[]): Promise<void> => {
      const last = records.at(-1)
      const producer = producers[last?.partition ?? 0]
      if (last === undefined || producer === undefined) return
      const transaction = await producer.transaction()
      const place = { partition: last.partition, offset: String(last.offset + 1) }
      await untilIdle(() =>
        transaction.sendOffsets({
          consumerGroupId: `${DEPLOYMENT}.shadow.plain`,
          topics: [{ topic: topics.source, partitions: [place] }],
        }),
      )
      await transaction.sendBatch({ acks: -1, topicMessages: topicMessages(records, topics) })
      await transaction.commit()
    }
    return (eventJson) => Promise.all(slicesOf(eventJson).map(commit))
  }

  async #producer(transactionalId?: string): Promise<Producer> {
    const kafka = new Kafka(clientConfig(this.#broker.connection, 'gate'))
    const producer = kafka.producer({
      allowAutoTopicCreation: false,
      createPartitioner:
        () =>
        ({ message }) =>
          message.partition ?? 0,
      ...(transactionalId !== undefined && { transactionalId, maxInFlightRequests: 1 }),
    })
    await producer.connect()
    this.#ending.push(() => producer.disconnect())
    return producer
  }

  /** Throws where the gate has quarantined anything: then something else was measured. */
  async checkNothingQuarantined({ topics }: Site): Promise<void> {
    const admin = await this.#cluster.admin()
    const ends = await admin.fetchTopicOffsets(topics.quarantine)
    if (ends.some(({ offset }) => offset !== '0')) throw new TypeError('events were quarantined')
  }

  async close(): Promise<void> {
    await Promise.allSettled(this.#ending.splice(0).map((end) => end()))
    await this.#cluster.end().catch(() => undefined)
    await this.#keys.close()
    await this.#broker.stop()
    await rm(this.#folder, { recursive: true, force: true })
  }
}

const OUTPUT_CHANNEL = 'orders.fulfilment'
const FIELDS = ['orderId', 'placedAt', 'currency', 'total', 'customer', 'items', 'note']

interface Topics {
  readonly source: string
  readonly output: string
  readonly audit: string
  readonly quarantine: string
}

function slicesOf(eventJson: string): (readonly KafkaEventRecord[])[] {
  const event: unknown = JSON.parse(eventJson)
  return isEvent(event) ? Object.values(event.records) : []
}

const isEvent = (event: unknown): event is KafkaEvent =>
  typeof event === 'object' && event !== null && 'records' in event

/** As the stack's rights have them. */
const topicsOf = (site: number): Topics => ({
  source: `source.bench.${site}`,
  output: `output.bench.${site}`,
  audit: `${DEPLOYMENT}.audit.bench.${site}`,
  quarantine: `${DEPLOYMENT}.quarantine.bench.${site}`,
})

/** Topics of as many partitions each, and what a producer has sealed for the source but nobody has taken yet. */
export class Site {
  readonly topics: Topics
  readonly partitions: number
  readonly #sealer: Sealer
  readonly #waiting: SourceRecord[][]
  readonly #offsets: number[]
  readonly #keys: readonly (readonly string[])[]
  #made = 0

  constructor(topics: Topics, partitions: number, sealer: Sealer) {
    this.topics = topics
    this.partitions = partitions
    this.#sealer = sealer
    this.#waiting = Array.from({ length: partitions }, () => [])
    this.#offsets = Array.from({ length: partitions }, () => 0)
    this.#keys = keysOf(partitions)
  }

  /** The next event of the trigger, as JSON: a slice of so many records of each partition. */
  async nextEvent(slice: number): Promise<string> {
    const records: SourceRecord[] = []
    for (const [partition, waiting] of this.#waiting.entries()) {
      while (waiting.length < slice) await this.#seal(partition, waiting)
      records.push(...waiting.splice(0, slice))
    }
    return JSON.stringify(toMskEvent(records, ORIGIN))
  }

  async #seal(partition: number, waiting: SourceRecord[]): Promise<void> {
    const keys = this.#keys[partition] ?? []
    const events = Array.from({ length: BATCH }, () => {
      const index = this.#made++
      const event = EVENTS[index % EVENTS.length] ?? eventOf(index, EVENT_BYTES)
      return { ...event, key: keys[index % keys.length] ?? null }
    })
    const { messages } = await this.#sealer.seal(CHANNEL, events)
    const timestamp = Date.now()
    for (const { key, value, headers } of messages) {
      const offset = this.#offsets[partition] ?? 0
      this.#offsets[partition] = offset + 1
      waiting.push({
        topic: this.topics.source,
        partition,
        offset: BigInt(offset),
        timestamp,
        timestampType: 'LogAppendTime',
        key,
        value,
        headers: Object.entries(headers).map(([name, text]) => ({ name, value: Buffer.from(text) })),
      })
    }
  }
}

/** A broker may still be ending the transaction before; kafkajs itself waits 300 ms then. */
async function untilIdle(work: () => Promise<unknown>): Promise<void> {
  for (let wait = 2; ; wait = Math.min(2 * wait, 50)) {
    try {
      await work()
      return
    } catch (error) {
      if (!(error instanceof Error && 'type' in error && error.type === 'CONCURRENT_TRANSACTIONS'))
        throw error
    }
    await setTimeout(wait)
  }
}

/** Some hundred keys that Kafka gives each partition: outputs then go to the partition of the same number. */
function keysOf(partitions: number): string[][] {
  const keys: string[][] = Array.from({ length: partitions }, () => [])
  for (let key = 0; keys.some(({ length }) => length < KEYS); key++)
    keys[partitionOf(Buffer.from(`c-${key}`), partitions)]?.push(`c-${key}`)
  return keys
}

const KEYS = 250

/** What a handler without security makes of its records: the value, in a message of 2 KB, and a record about it. */
function topicMessages(
  records: readonly KafkaEventRecord[],
  topics: Topics,
): { topic: string; messages: Message[] }[] {
  const outputs = records.map(({ partition, key, value, headers }) => {
    const output = Buffer.alloc(OUTPUT_BYTES)
    Buffer.from(value ?? '', 'base64').copy(output)
    const named = headers.flatMap((header) => Object.entries(header))
    return {
      partition,
      key: key === undefined ? null : Buffer.from(key, 'base64'),
      value: output,
      headers: Object.fromEntries(named.map(([name, bytes]) => [name, Buffer.from(bytes ?? [])])),
    }
  })
  const entries = records.map(({ topic, partition, offset }) => {
    const entry = Buffer.alloc(RECORD_BYTES)
    entry.write(JSON.stringify({ topic, partition, offset }))
    return { partition, key: null, value: entry }
  })
  return [
    { topic: topics.output, messages: outputs },
    { topic: topics.audit, messages: entries },
  ]
}
