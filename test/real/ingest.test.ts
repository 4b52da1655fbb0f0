/** The whole chain on real Kafka: sealer → producer → Kafka → handler's path → Kafka → read_committed reader and audit. */
import { afterEach, describe, expect, it } from 'vitest'
import { firstPosition, parseState } from '../../lib/admission/position.ts'
import { createIngest, type IngestParts } from '../../lib/admission/slice.ts'
import { createKafkaSink, type KafkaSink } from '../../lib/adapters/kafka.ts'
import { toMskEvent } from '../../lib/adapters/msk-event.ts'
import { type AuditSource, type VerificationReport, verifyAudit } from '../../lib/audit/verification.ts'
import { createOpener } from '../../lib/client/opener.ts'
import { createSealer, type Sealer } from '../../lib/client/sealer.ts'
import { createDirectory } from '../../lib/keys/directory-reader.ts'
import { segmentKey } from '../../lib/audit/segment.ts'
import type { Message, SourceRecord } from '../../lib/ports.ts'
import { createGate, type Gate } from '../../lib/runtime.ts'
import { ORDER_TYPE, openShop, type Shop } from '../shop.ts'
import { bytes, client, Cluster, settings, soon, text, unique } from './world.ts'
import { DEPLOYMENT } from './stack/stack.ts'

const ORIGIN = {
  eventSourceArn: 'arn:aws:kafka:eu-west-1:000000000000:cluster/test',
  bootstrapServers: 'b-1:9098',
}
const PARTITIONS = 2

/** A shop whose keys and contracts are the embedded stack's, and whose topics are on the real cluster. */
class RealShop {
  readonly shop: Shop
  readonly cluster: Cluster = new Cluster()
  readonly source: string
  readonly audit: string
  readonly quarantine: string
  readonly #suffix: string
  readonly #ending: (() => Promise<unknown>)[] = []

  private constructor(shop: Shop) {
    this.shop = shop
    this.#suffix = unique()
    this.source = `source.orders.${this.#suffix}`
    this.audit = `${DEPLOYMENT}.audit.${this.#suffix}`
    this.quarantine = `${DEPLOYMENT}.quarantine.${this.#suffix}`
  }

  static async open(): Promise<RealShop> {
    const real = new RealShop(await openShop())
    for (const topic of [
      real.source,
      real.audit,
      real.quarantine,
      ...real.shop.stack.outputs.map(real.topicOf),
    ])
      await real.cluster.createTopic(topic, PARTITIONS)
    const sink = real.sink()
    for (let partition = 0; partition < PARTITIONS; partition++)
      await sink.init({ topic: real.source, partition }, firstPosition(0n), soon())
    return real
  }

  readonly topicOf = (channel: string): string => `output.${channel}.${this.#suffix}`

  sink(): KafkaSink {
    const sink = createKafkaSink(settings(), { now: () => Date.now() })
    this.#ending.push(() => sink.close())
    return sink
  }

  /** A gate as another process would have it. */
  gate(): Gate {
    const parts = this.shop.stack.gateParts()
    const { source, audit, quarantine, topicOf } = this
    const real: IngestParts = {
      ...parts,
      sink: this.sink(),
      settings: {
        ...parts.settings,
        deployment: DEPLOYMENT,
        outlet: { ...parts.settings.outlet, auditTopic: audit, quarantineTopic: quarantine, topicOf },
        channelOf: (topic) => (topic === source ? { name: 'orders', maxLifeSeconds: 86_400 } : undefined),
      },
    }
    const gate = createGate(createIngest(real), 'throw')
    this.#ending.push(() => gate.close())
    return gate
  }

  async sealer(): Promise<Sealer> {
    const producer = client('producer').producer({
      allowAutoTopicCreation: false,
      createPartitioner: explicit,
    })
    await producer.connect()
    this.#ending.push(() => producer.disconnect())
    const sealer = createSealer({
      ...this.shop.stack.producer('shop-web'),
      partitions: PARTITIONS,
      topicOf: () => this.source,
      deliver: (batch) => producer.send(batch),
    })
    this.#ending.push(() => sealer.close())
    return sealer
  }

  /** As the gate's auditor sees it: the topic, and the heads in the positions. */
  async verify(): Promise<VerificationReport> {
    const { cluster, audit, source } = this
    const records = await cluster.readCommitted(audit, 'consumer')
    const positions = this.sink()
    const all: AuditSource = {
      partitions: () => Promise.resolve(PARTITIONS),
      async *read(partition) {
        await Promise.resolve()
        yield* records.filter((record) => record.partition === partition)
      },
      heads: async () => {
        const heads = new Map()
        for (let partition = 0; partition < PARTITIONS; partition++) {
          const place = { topic: source, partition }
          const found = await positions.show(place, soon())
          if (found === undefined) continue
          const limits = { maxSessions: Infinity, newDataKeysPerMinute: Infinity }
          heads.set(segmentKey(place), parseState(found.state, limits, Infinity).head)
        }
        return heads
      },
    }
    const { snapshot } = await this.shop.stack.gateParts().directory.snapshot(soon())
    return verifyAudit(all, { keyOf: (kid) => snapshot.signingKey(kid)?.key })
  }

  async end(): Promise<void> {
    await Promise.allSettled(this.#ending.splice(0).map((end) => end()))
    await this.cluster.end()
    await this.shop.close()
  }
}

const explicit = () => (args: { message: { partition?: number } }) => args.message.partition ?? -1

let real: RealShop
afterEach(() => real.end())

const order = (id: number): { type: string; source: string; key: string; data: unknown } => ({
  type: ORDER_TYPE,
  source: '/shop/web',
  key: `customer-${id % 7}`,
  data: { orderId: `A-${id}`, total: id, customer: { id: `c${id % 7}`, email: 'a@example.com' } },
})
const orders = (from: number, to: number): ReturnType<typeof order>[] =>
  Array.from({ length: to - from }, (_, index) => order(from + index))

const handle = (gate: Gate, records: readonly SourceRecord[]): Promise<unknown> =>
  gate.handle(JSON.parse(JSON.stringify(toMskEvent(records, ORIGIN))), soon())

const totals = (records: readonly SourceRecord[]): number[] =>
  records.map(({ value }) => Number(JSON.parse(text(value)).total)).sort((a, b) => a - b)

const upTo = (count: number): number[] => Array.from({ length: count }, (_, index) => index)

describe('the ingest gate on real Kafka', () => {
  it('brings sealed events through to what each consumer may see, once each, with an audit that verifies', async () => {
    real = await RealShop.open()
    const sealer = await real.sealer()
    await sealer.send('orders', orders(0, 120))
    const stranger: Message = {
      ...{ topic: real.source, partition: 1, key: null, value: bytes('plain text') },
      headers: [{ name: 'null', value: null }],
    }
    await real.cluster.produce([stranger], 'producer')
    const records = await real.cluster.readCommitted(real.source, 'poller')
    expect(records).toHaveLength(121)
    const gate = real.gate()
    await handle(gate, records)

    const plain = await real.cluster.readCommitted(real.topicOf('orders.analytics'), 'consumer')
    expect(totals(plain)).toEqual(upTo(120))
    const sealed = await real.cluster.readCommitted(real.topicOf('orders.fulfilment'), 'consumer')
    const fulfilment = real.shop.stack.consumer('fulfilment')
    const opener = createOpener({
      audience: 'fulfilment',
      issuers: 'any-in-directory',
      directory: createDirectory({ ...fulfilment.directory, clock: real.shop.stack.clock }),
      keyService: fulfilment.keyService,
      channelOf: () => 'orders.fulfilment',
    })
    const opened = await Promise.all(
      sealed.map(async ({ topic, partition, offset, timestamp, key, value, headers }) =>
        opener.open({
          topic,
          partition,
          message: {
            key,
            value,
            timestamp: String(timestamp),
            offset: String(offset),
            headers: Object.fromEntries(headers.map((one) => [one.name, one.value ?? undefined])),
          },
        }),
      ),
    )
    const ids = opened.map((one) => (one.opened ? JSON.parse(text(one.payload)).orderId : one.code))
    expect(ids.sort()).toEqual(
      upTo(120)
        .map((id) => `A-${id}`)
        .sort(),
    )
    opener.close()

    const quarantined = await real.cluster.readCommitted(real.quarantine, 'consumer')
    expect(quarantined.map(({ value }) => text(value))).toEqual(['plain text'])
    const headers = new Map(quarantined[0]?.headers.map(({ name, value }) => [name, value && text(value)]))
    expect([headers.get('null'), headers.get('sealgate-code')]).toEqual([null, 'malformed'])

    const report = await real.verify()
    expect([report.verified, report.headsKnown, report.entries]).toEqual([true, true, 121])
  })

  it('changes nothing when everything comes again, to the same gate and to a new one', async () => {
    real = await RealShop.open()
    const sealer = await real.sealer()
    await sealer.send('orders', orders(0, 30))
    const first = await real.cluster.readCommitted(real.source, 'poller')
    const gate = real.gate()
    await handle(gate, first)
    await handle(gate, first)
    await sealer.send('orders', orders(30, 60))
    const all = await real.cluster.readCommitted(real.source, 'poller')
    const other = real.gate()
    await handle(other, all)
    await handle(gate, all)
    const plain = await real.cluster.readCommitted(real.topicOf('orders.analytics'), 'consumer')
    expect(totals(plain)).toEqual(upTo(60))
    expect(await real.cluster.readCommitted(real.quarantine)).toEqual([])
    const report = await real.verify()
    expect([report.verified, report.entries]).toEqual([true, 60])
  })

  it('loses and doubles nothing where two gates take the same records at the same time', async () => {
    real = await RealShop.open()
    const sealer = await real.sealer()
    const gates = [real.gate(), real.gate()]
    const COUNT = 200
    await sealer.send('orders', orders(0, COUNT))
    const records = await real.cluster.readCommitted(real.source, 'poller')
    // Lambda would call again where an invocation fails; both go on until one of them has nothing left to do.
    const work = gates.map(async (gate) => {
      for (let at = 20; at <= COUNT; at += 20) {
        for (let attempt = 0; attempt < 20; attempt++) {
          const done = await handle(gate, records.slice(0, at)).then(
            () => true,
            () => false,
          )
          if (done) break
        }
      }
    })
    await Promise.all(work)
    await handle(real.gate(), records)
    const plain = await real.cluster.readCommitted(real.topicOf('orders.analytics'), 'consumer')
    expect(totals(plain)).toEqual(upTo(COUNT))
    const report = await real.verify()
    expect([report.verified, report.entries]).toEqual([true, COUNT])
  })
})
