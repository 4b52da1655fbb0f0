/** What tests need of a real cluster: clients by principal, topics, and what a read_committed reader sees. */
import kafkajs, {
  type Admin,
  type ICustomPartitioner,
  Kafka,
  type Producer,
  type RecordMetadata,
  type RetryOptions,
} from 'kafkajs'
import { repairKafkajs } from '../../lib/adapters/kafka-repairs.ts'
import { topicMessages } from '../../lib/adapters/kafka-wire.ts'
import type { Header, Message, SourceRecord } from '../../lib/ports.ts'
import type { Principal } from './stack/rights.ts'
import { clientConfig, type Connection, withAdmin } from './stack/stack.ts'

repairKafkajs()

export const soon = (): number => Date.now() + 20_000
export const text = (value: Uint8Array | null): string => Buffer.from(value ?? []).toString()
export const bytes = (value: string): Uint8Array => new Uint8Array(Buffer.from(value))

let serial = 0
/** A suffix that no other test's names have. */
export const unique = (): string => `${Date.now().toString(36)}.${process.pid}.${++serial}`

export const clientOf = (to: Connection, principal: Principal): Kafka =>
  new Kafka(clientConfig(to, principal))

/** Of a plain producer: leaders that a restart has moved go back within some 20 s. */
const PATIENT: RetryOptions = { retries: 12, maxRetryTime: 2000 }

/** A plain producer, connected, which writes nothing twice when it tries again. */
export async function openProducer(
  to: Connection,
  principal: Principal,
  createPartitioner: ICustomPartitioner,
): Promise<Producer> {
  const producer = clientOf(to, principal).producer({
    allowAutoTopicCreation: false,
    createPartitioner,
    idempotent: true,
    maxInFlightRequests: 1,
    retry: PATIENT,
  })
  const until = soon()
  for (;;) {
    try {
      await producer.connect()
      return producer
    } catch (error) {
      // A broker that has just started may have no producer ids to give yet, for which kafkajs does not wait.
      if (Date.now() < until) await new Promise((resolve) => setTimeout(resolve, 100))
      else {
        await producer.disconnect()
        throw error
      }
    }
  }
}

const MARK = Buffer.from('\0mark')

/** Ends what it has opened, whatever happens. */
export class RealCluster {
  readonly #connection: Connection
  readonly #admin: Admin
  #connected: Promise<void> | undefined

  constructor(to: Connection) {
    this.#connection = to
    this.#admin = clientOf(to, 'admin').admin()
  }

  async admin(): Promise<Admin> {
    await (this.#connected ??= this.#admin.connect())
    return this.#admin
  }

  async createTopic(topic: string, partitions: number, config: Record<string, string> = {}): Promise<void> {
    const admin = await this.admin()
    const configEntries = Object.entries(config).map(([name, value]) => ({ name, value }))
    const until = Date.now() + 10_000
    const topics = [{ topic, numPartitions: partitions, configEntries }]
    for (;;) {
      try {
        await admin.createTopics({ waitForLeaders: false, topics })
        break
      } catch (error) {
        // A broker that has just started may be fenced for a moment, and there are too few others.
        const isEarly = error instanceof kafkajs.KafkaJSAggregateError && error.errors.some(isTooFew)
        if (!isEarly || Date.now() > until) throw error
        await new Promise((resolve) => setTimeout(resolve, 100))
      }
    }
    // Brokers learn of a topic from the controller a moment later; kafkajs's own waiting takes that for an error.
    for (;;) {
      const led = await admin.fetchTopicMetadata({ topics: [topic] }).then(
        (found) => found.topics[0]?.partitions.filter(({ leader }) => leader > 0).length,
        () => 0,
      )
      if (led === partitions) break
      if (Date.now() > until) throw new Error(`${topic} has no leaders`)
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
    const { brokers } = this.#connection
    if (brokers.length > 1) await Promise.all(brokers.map((broker) => this.#untilKnown(topic, broker, until)))
  }

  /** Whoever comes next may ask another broker than the one that answered us. */
  async #untilKnown(topic: string, broker: string, until: number): Promise<void> {
    for (;;) {
      try {
        // A client that has just connected knows no other to ask.
        await withAdmin({ ...this.#connection, brokers: [broker] }, (admin) => admin.fetchTopicOffsets(topic))
        return
      } catch (error) {
        if (Date.now() > until) throw error
      }
    }
  }

  /**
   * A mark at the end of each partition, by its offset: a reader who comes to it has passed all that was under way. The
   * end that a broker tells is that of what is settled, and a transaction's end is not always when `commit` resolves.
   */
  async #mark(topic: string): Promise<Map<number, bigint>> {
    const admin = await this.admin()
    const { topics } = await admin.fetchTopicMetadata({ topics: [topic] })
    const marks = (topics[0]?.partitions ?? []).map(({ partitionId: partition }) => {
      return { topic, partition, key: MARK, value: null, headers: [] }
    })
    const written = await this.produce(marks)
    return new Map(written.map(({ partition, baseOffset }) => [partition, BigInt(baseOffset ?? 0)]))
  }

  /** A write outside any transaction. */
  async produce(
    messages: readonly Message[],
    principal: Principal = 'admin',
  ): Promise<readonly RecordMetadata[]> {
    const producer = await openProducer(this.#connection, principal, kafkajs.Partitioners.DefaultPartitioner)
    // Each partition by itself: of several kafkajs confuses, when a leader moves, which are written.
    const parts = Map.groupBy(messages, ({ topic, partition }) => `${topic}-${partition}`)
    try {
      const written = await Promise.all(
        Array.from(parts.values(), (part) => producer.sendBatch({ topicMessages: topicMessages(part) })),
      )
      return written.flat()
    } finally {
      await producer.disconnect()
    }
  }

  /** All that is committed in a topic, each partition's in order, as `principal` may read it. */
  async readCommitted(
    topic: string,
    principal: 'admin' | 'consumer' | 'poller' = 'admin',
  ): Promise<SourceRecord[]> {
    const records: SourceRecord[] = []
    const seen = new Set<string>()
    const waiting = await this.#mark(topic)
    const consumer = clientOf(this.#connection, principal).consumer({
      groupId: `${principal}.${unique()}`,
      allowAutoTopicCreation: false,
      maxWaitTimeInMs: 100,
      retry: { retries: 2 },
    })
    const reached = Promise.withResolvers<undefined>()
    const timer = setTimeout(() => reached.reject(new Error(`${topic} was not read to its end`)), 20_000)
    try {
      await consumer.connect()
      await consumer.subscribe({ topics: [topic], fromBeginning: true })
      // Also for batches in which nothing is committed, which are never handed out.
      consumer.on(consumer.events.END_BATCH_PROCESS, ({ payload: { partition, lastOffset } }) => {
        const mark = waiting.get(partition)
        if (mark !== undefined && BigInt(lastOffset) >= mark) waiting.delete(partition)
        if (waiting.size === 0) reached.resolve(undefined)
      })
      await consumer.run({
        eachBatch: ({ batch }) => {
          for (const { offset, timestamp, key, value, headers } of batch.messages) {
            if (key?.equals(MARK) === true) continue
            // A consumer whose commit fails begins again where it last committed.
            const place = `${batch.partition}@${offset}`
            if (seen.has(place)) continue
            seen.add(place)
            records.push({
              topic,
              partition: batch.partition,
              offset: BigInt(offset),
              timestamp: Number(timestamp),
              timestampType: 'CreateTime',
              key,
              value,
              headers: headersOf(headers ?? {}),
            })
          }
          return Promise.resolve()
        },
      })
      await reached.promise
    } finally {
      clearTimeout(timer)
      await consumer.disconnect()
    }
    return records.sort((a, b) => a.partition - b.partition || Number(a.offset - b.offset))
  }

  async end(): Promise<void> {
    if (this.#connected !== undefined) await this.#admin.disconnect()
  }
}

const isTooFew = (error: unknown): boolean =>
  error instanceof kafkajs.KafkaJSProtocolError && error.type === 'INVALID_REPLICATION_FACTOR'

function headersOf(headers: Record<string, unknown>): Header[] {
  return Object.entries(headers).flatMap(([name, value]) =>
    (Array.isArray(value) ? value : [value]).map((one: unknown) => ({
      name,
      value: one instanceof Uint8Array ? one : null,
    })),
  )
}
