/** A sealed channel on a real cluster, what was sent into it, and the judgement of what came out of it. */
import { firstPosition, parseState } from '../../../lib/admission/position.ts'
import { createKafkaSink, type KafkaSink } from '../../../lib/adapters/kafka.ts'
import { readKafkaSettings } from '../../../lib/adapters/kafka-settings.ts'
import { toMskEvent } from '../../../lib/adapters/msk-event.ts'
import type { AuditHead } from '../../../lib/audit/segment.ts'
import { segmentKey } from '../../../lib/audit/segment.ts'
import { type AuditSource, verifyAudit } from '../../../lib/audit/verification.ts'
import { createOpener } from '../../../lib/client/opener.ts'
import { createSealer, type Sealer } from '../../../lib/client/sealer.ts'
import { createDirectory } from '../../../lib/keys/directory-reader.ts'
import type { SourceRecord } from '../../../lib/ports.ts'
import { ORDER_TYPE, openShop, type Shop } from '../../shop.ts'
import { type Connection, DEPLOYMENT } from '../stack/stack.ts'
import { bytes, openProducer, RealCluster, soon, text, unique } from '../cluster.ts'
import { Handler, type Outcome } from './handler.ts'
import { areSettled } from './leaders.ts'

const PARTITIONS = 2
/** Of each source partition, in one event. */
const SLICE = 8
/** One record in so many is no sealed event, and goes to quarantine. */
const STRANGER_EVERY = 8
/** Events made at once. */
const FILL = 60
/** A handler keeps so much of its time for the last commit. */
const RESERVE_MS = 500
/** Between two attempts at an event, as Lambda waits too. */
const AGAIN_MS = 50
/** Beyond it an event is from the future, and goes to quarantine: 300 s. */
const MAX_LEAD_MS = 300_000
/** So that a slice is some transactions. */
const MAX_BATCH_BYTES = 5000
const ORIGIN = {
  eventSourceArn: 'arn:aws:kafka:eu-west-1:000000000000:cluster/test',
  bootstrapServers: 'b-1:9098',
}

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

/** An event as Lambda hands it over: a slice of each source partition. */
export type Batch = readonly SourceRecord[]

/** What a read_committed reader has found, against what was handed over. */
export interface Judgement {
  readonly sent: number
  readonly lost: readonly string[]
  readonly twice: readonly string[]
  readonly outOfOrder: readonly string[]
  readonly auditEntries: number
  readonly auditBreaks: readonly unknown[]
  readonly headsKnown: boolean
}

export class Arena {
  readonly #shop: Shop
  readonly #cluster: RealCluster
  readonly #connection: Connection
  readonly #suffix = unique()
  readonly #source = `source.orders.${this.#suffix}`
  readonly #audit = `${DEPLOYMENT}.audit.${this.#suffix}`
  readonly #quarantine = `${DEPLOYMENT}.quarantine.${this.#suffix}`
  readonly #handlers = new Set<Handler>()
  readonly #batches: Batch[] = []
  readonly #handedOver: SourceRecord[] = []
  readonly #filled = new Map<number, number>()
  /** By how far their clock leads. */
  readonly #sealers = new Map<number, Sealer>()
  readonly #ending: (() => Promise<void>)[] = []
  #ids = 0
  /** By place, the records of a producer whose clock is ahead. */
  readonly #fromFuture = new Set<string>()
  /** Records of a topic that is not there any more. */
  readonly #kept = new Map<string, SourceRecord[]>()
  /** What handlers said of events that they did not bring to their end, and so had to be handed over again. */
  readonly failures: string[] = []

  private constructor(shop: Shop, connection: Connection) {
    this.#shop = shop
    this.#connection = connection
    this.#cluster = new RealCluster(connection)
  }

  /** With so many events to begin with. */
  static async open(connection: Connection, batches = FILL): Promise<Arena> {
    const arena = new Arena(await openShop(), connection)
    try {
      await arena.#prepare(batches)
      return arena
    } catch (error) {
      await arena.end()
      throw error
    }
  }

  async #prepare(batches: number): Promise<void> {
    for (const topic of this.topics) await this.#createTopic(topic)
    // A cluster that moves leaders by itself does so first: kafkajs's plain producers do not bear it.
    const until = Date.now() + 20_000
    const admin = await this.#cluster.admin()
    while (!(await areSettled(admin, this.topics)) && Date.now() < until) await sleep(100)
    const sink = this.#sink()
    try {
      for (let partition = 0; partition < PARTITIONS; partition++) await this.#init(sink, partition)
    } finally {
      await sink.close()
    }
    if (batches > 0) await this.fill(batches)
  }

  /** A handler in a process of its own; `changes` are raw settings of the sink. */
  handler(changes: object = {}, clockLeadMs = 0): Handler {
    const handler = new Handler({
      folder: this.#shop.folder,
      kafka: { ...this.#settings, ...changes },
      deployment: DEPLOYMENT,
      source: this.#source,
      audit: this.#audit,
      quarantine: this.#quarantine,
      outputs: this.#outputs,
      maxBatchBytes: MAX_BATCH_BYTES,
      reserveMs: RESERVE_MS,
      clockLeadMs,
    })
    this.#handlers.add(handler)
    return handler
  }

  /** All its topics: source, outputs, quarantine, audit. */
  get topics(): readonly string[] {
    return [this.#source, this.#audit, this.#quarantine, ...Object.values(this.#outputs)]
  }

  /** Of the holders of its source partitions. */
  get transactionalIds(): readonly string[] {
    return Array.from({ length: PARTITIONS }, (_, partition) => `${DEPLOYMENT}.${this.#source}.${partition}`)
  }

  /** Records that no handler has had yet. */
  async next(): Promise<Batch> {
    if (this.#batches.length === 0) await this.fill()
    const batch = this.#batches.shift() ?? []
    this.#handedOver.push(...batch)
    return batch
  }

  /** Hands a batch over until it is done, as Lambda does, at most so often. */
  async deliver(
    handler: Handler,
    batch: Batch,
    attempts = 5,
    forMs: number | (() => number) = 20_000,
  ): Promise<Outcome> {
    for (let attempt = 0; attempt < attempts; attempt++) {
      const outcome = await handler.handle(eventOf(batch), typeof forMs === 'number' ? forMs : forMs())
      if (outcome.is !== 'failed') return outcome
      this.failures.push(outcome.message ?? '')
      await sleep(AGAIN_MS)
    }
    throw new Error(`a batch failed ${attempts} times:\n${this.failures.slice(-attempts).join('\n')}`)
  }

  /** Seals and sends the next batches, and reads them back as the poller does. A clock that leads is its producer's. */
  async fill(batches = FILL, clockLeadMs = 0): Promise<void> {
    const sealer = await this.#openSealer(clockLeadMs)
    const from = this.#ids
    this.#ids += batches * SLICE * PARTITIONS
    const ids = Array.from({ length: this.#ids - from }, (_, index) => from + index)
    const strangers = ids.filter((id) => id % STRANGER_EVERY === 0)
    await sealer.send(
      'orders',
      ids
        .filter((id) => id % STRANGER_EVERY !== 0)
        .map((id) => ({
          type: ORDER_TYPE,
          source: '/shop/web',
          key: `customer-${id % 97}`,
          data: { orderId: `A-${id}`, total: id, customer: { id: `c${id % 97}`, email: 'a@example.com' } },
        })),
    )
    await this.#cluster.produce(
      strangers.map((id) => ({
        topic: this.#source,
        partition: (id / STRANGER_EVERY) % PARTITIONS,
        key: null,
        value: bytes(`stranger ${id}`),
        headers: [],
      })),
      'producer',
    )
    const all = await this.#cluster.readCommitted(this.#source, 'poller')
    const lists = Array.from({ length: PARTITIONS }, (_, partition) => {
      const records = all.filter((record) => record.partition === partition)
      const fresh = records
        .slice(this.#filled.get(partition) ?? 0)
        .map((record): SourceRecord => ({ ...record, timestampType: 'LogAppendTime' }))
      if (clockLeadMs > MAX_LEAD_MS) for (const record of fresh) this.#fromFuture.add(placeOf(record))
      this.#filled.set(partition, records.length)
      return fresh
    })
    for (let batch = 0; batch < batches; batch++)
      this.#batches.push(
        lists.flatMap((records) =>
          records.slice(
            Math.floor((batch * records.length) / batches),
            Math.floor(((batch + 1) * records.length) / batches),
          ),
        ),
      )
  }

  /** Deletes the plain output as if by mistake, while nobody writes. Resolves to what makes it anew. What it held counts. */
  async deletePlain(): Promise<() => Promise<void>> {
    const topic = this.#outputs['orders.analytics'] ?? ''
    this.#kept.set(topic, await this.#read(topic))
    const admin = await this.#cluster.admin()
    await admin.deleteTopics({ topics: [topic] })
    return () => this.#createTopic(topic)
  }

  /** How many records a read_committed reader of a plain output sees now. It waits for no open transaction but to its end. */
  async plainCount(): Promise<number> {
    return (await this.#plain()).length
  }

  /** All that was handed over must have come out once, in the order of its source partition. */
  async judge(): Promise<Judgement> {
    const lost: string[] = []
    const twice: string[] = []
    const outOfOrder: string[] = []
    const refused = (record: SourceRecord): boolean =>
      isStranger(record) || this.#fromFuture.has(placeOf(record))
    const places = await this.#placesOf(this.#handedOver.filter((record) => !refused(record)))
    const refusedPlaces = new Map(this.#handedOver.filter(refused).map((record) => [nameOf(record), record]))
    const compare = (
      what: string,
      places: ReadonlyMap<string, SourceRecord>,
      found: readonly Found[],
    ): void => {
      const counts = new Map<string, number>()
      const last = new Map<string, bigint>()
      for (const { id, partition } of found) {
        counts.set(id, (counts.get(id) ?? 0) + 1)
        const place = places.get(id)
        if (place === undefined) throw new Error(`${what} holds ${id}, which nobody sent`)
        const lane = `${partition}<${place.partition}`
        if (place.offset < (last.get(lane) ?? -1n)) outOfOrder.push(`${what} ${id}`)
        last.set(lane, place.offset)
      }
      for (const id of places.keys()) {
        const count = counts.get(id) ?? 0
        if (count === 0) lost.push(`${what} ${id}`)
        if (count > 1) twice.push(`${what} ${id}`)
      }
    }
    compare('quarantine', refusedPlaces, await this.#quarantined())
    compare('plain', places, await this.#plain())
    compare('sealed', places, await this.#opened())
    const report = await this.#verify()
    const { breaks, entries, headsKnown } = report
    return {
      sent: this.#handedOver.length,
      lost,
      twice,
      outOfOrder,
      auditEntries: entries,
      auditBreaks: breaks,
      headsKnown,
    }
  }

  async end(): Promise<void> {
    for (const handler of this.#handlers) await handler.kill()
    for (const end of this.#ending.splice(0)) await Promise.allSettled([end()])
    await this.#cluster.end()
    await this.#shop.close()
  }

  /** Coordinators that have just started may not know yet that they are. */
  async #init(sink: KafkaSink, partition: number): Promise<void> {
    const place = { topic: this.#source, partition }
    for (let attempt = 1; ; attempt++) {
      try {
        if ((await sink.show(place, soon())) === undefined) await sink.init(place, firstPosition(0n), soon())
        return
      } catch (error) {
        if (attempt === 5) throw error
      }
    }
  }

  /** A broker that has just started may have made a topic and not know it yet. */
  async #createTopic(topic: string): Promise<void> {
    for (let attempt = 1; ; attempt++) {
      try {
        const admin = await this.#cluster.admin()
        const stamped = topic === this.#source ? STAMPED : {}
        if (!(await admin.listTopics()).includes(topic))
          await this.#cluster.createTopic(topic, PARTITIONS, stamped)
        return
      } catch (error) {
        if (attempt === 20) throw error
        await sleep(250)
      }
    }
  }

  /** Of all times, in order. */
  async #read(topic: string): Promise<SourceRecord[]> {
    return [...(this.#kept.get(topic) ?? []), ...(await this.#cluster.readCommitted(topic, 'consumer'))]
  }

  get #outputs(): Record<string, string> {
    const { outputs } = this.#shop.stack
    return Object.fromEntries(outputs.map((channel) => [channel, `output.${channel}.${this.#suffix}`]))
  }

  get #settings(): object {
    const { brokers, ca, passwords } = this.#connection
    const sasl = { mechanism: 'scram-sha-512', username: 'gate', password: passwords.gate }
    return { brokers, ssl: { ca }, sasl, deployment: DEPLOYMENT }
  }

  #sink(): KafkaSink {
    return createKafkaSink(readKafkaSettings(this.#settings), this.#shop.stack.clock)
  }

  async #openSealer(clockLeadMs: number): Promise<Sealer> {
    const known = this.#sealers.get(clockLeadMs)
    if (known !== undefined) return known
    const explicit = () => (args: { message: { partition?: number } }) => args.message.partition ?? -1
    const producer = await openProducer(this.#connection, 'producer', explicit)
    const clock = { now: () => Date.now() + clockLeadMs }
    const { keyService, ...rest } = this.#shop.stack.producer('shop-web')
    const sealer = createSealer({
      ...rest,
      // It goes by the true time.
      keyService: {
        generate: (kek, context, deadline) => keyService.generate(kek, context, deadline - clockLeadMs),
        unwrap: (kek, wrapped, context, deadline) =>
          keyService.unwrap(kek, wrapped, context, deadline - clockLeadMs),
      },
      partitions: PARTITIONS,
      topicOf: () => this.#source,
      deliver: (batch) => producer.send(batch),
      clock,
    })
    this.#sealers.set(clockLeadMs, sealer)
    this.#ending.push(
      () => sealer.close(),
      () => producer.disconnect(),
    )
    return sealer
  }

  /** Where each sealed event came in, by its id: read as the gate's own audience. */
  async #placesOf(sealed: readonly SourceRecord[]): Promise<Map<string, SourceRecord>> {
    const ids = await this.#open(sealed, 'sealgate-local', 'orders')
    return new Map(sealed.map((record, index) => [ids[index] ?? '', record]))
  }

  async #quarantined(): Promise<Found[]> {
    const records = await this.#read(this.#quarantine)
    return records.map((record) => ({ id: nameOf(record), partition: record.partition }))
  }

  async #plain(): Promise<Found[]> {
    const records = await this.#read(this.#outputs['orders.analytics'] ?? '')
    return records.map(({ value, partition }) => {
      const { total }: { total: number } = JSON.parse(text(value))
      return { id: `A-${total}`, partition }
    })
  }

  async #opened(): Promise<Found[]> {
    const records = await this.#read(this.#outputs['orders.fulfilment'] ?? '')
    const ids = await this.#open(records, 'fulfilment', 'orders.fulfilment')
    return records.map(({ partition }, index) => ({ id: ids[index] ?? '', partition }))
  }

  async #open(records: readonly SourceRecord[], audience: string, channel: string): Promise<string[]> {
    const { stack } = this.#shop
    const consumer = stack.consumer(audience)
    const opener = createOpener({
      audience,
      issuers: 'any-in-directory',
      directory: createDirectory({ ...consumer.directory, clock: stack.clock }),
      keyService: consumer.keyService,
      channelOf: () => channel,
    })
    const ids: string[] = []
    for (const { topic, partition, offset, timestamp, key, value, headers } of records) {
      const named = Object.fromEntries(headers.map((one) => [one.name, one.value ?? undefined]))
      const message = { key, value, timestamp: String(timestamp), offset: String(offset), headers: named }
      const one = await opener.open({ topic, partition, message })
      if (!one.opened) throw new Error(`${topic}-${partition}@${offset} cannot be opened: ${one.code}`)
      const { orderId }: { orderId: string } = JSON.parse(text(one.payload))
      ids.push(orderId)
    }
    opener.close()
    return ids
  }

  async #verify(): ReturnType<typeof verifyAudit> {
    const records = await this.#read(this.#audit)
    const sink = this.#sink()
    const heads = new Map<string, AuditHead>()
    for (let partition = 0; partition < PARTITIONS; partition++) {
      const place = { topic: this.#source, partition }
      const found = await sink.show(place, soon())
      const limits = { maxSessions: Infinity, newDataKeysPerMinute: Infinity }
      if (found !== undefined) heads.set(segmentKey(place), parseState(found.state, limits, Infinity).head)
    }
    await sink.close()
    const source: AuditSource = {
      partitions: () => Promise.resolve(PARTITIONS),
      async *read(partition) {
        await Promise.resolve()
        yield* records.filter((record) => record.partition === partition)
      },
      heads: () => Promise.resolve(heads),
    }
    const { snapshot } = await this.#shop.stack.gateParts().directory.snapshot(soon())
    return verifyAudit(source, { keyOf: (kid) => snapshot.signingKey(kid)?.key })
  }
}

/** As docs/operations.md has it: brokers set the time that events are judged by. */
const STAMPED = { 'message.timestamp.type': 'LogAppendTime' }

const placeOf = ({ partition, offset }: SourceRecord): string => `${partition}@${offset}`
const isStranger = ({ value }: SourceRecord): boolean => text(value).startsWith('stranger')
/** Of what is refused: quarantine keeps its bytes. */
const nameOf = ({ value }: SourceRecord): string => Buffer.from(value ?? []).toString('base64')

interface Found {
  readonly id: string
  readonly partition: number
}

/** As JSON, as Lambda gives it. */
const eventOf = (batch: Batch): unknown => JSON.parse(JSON.stringify(toMskEvent(batch, ORIGIN)))
