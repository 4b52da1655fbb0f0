/** A shop whose keys and contracts are an embedded stack's, and whose topics are on the real cluster. */
import { firstPosition, headsOf, parseState } from '../../lib/admission/position.ts'
import { createIngest, type IngestParts } from '../../lib/admission/slice.ts'
import { createKafkaSink, type KafkaSink } from '../../lib/adapters/kafka.ts'
import { createKafkaSource } from '../../lib/adapters/kafka-source.ts'
import { toMskEvent } from '../../lib/adapters/msk-event.ts'
import { type AuditSource, type VerificationReport, verifyAudit } from '../../lib/audit/verification.ts'
import { createSealer, type Sealer } from '../../lib/client/sealer.ts'
import type { SealerOptions } from '../../lib/client/sealer-options.ts'
import { buildBundle, loadBundle } from '../../lib/contract/bundle.ts'
import type { Contracts } from '../../lib/contract/contract.ts'
import { checkContracts } from '../../lib/contract/load.ts'
import type { SourceRecord } from '../../lib/ports.ts'
import { createGate, type Gate } from '../../lib/runtime.ts'
import { ORDER_CONTRACT, ORDER_TYPE, openShop, type Shop } from '../shop.ts'
import { openProducer } from './cluster.ts'
import { Cluster, connection, settings, soon, text, unique } from './world.ts'
import { DEPLOYMENT } from './stack/stack.ts'

export const PARTITIONS = 2

/** Contracts by which the producer may not publish: what it sends is refused at step 7, and leaves no mark. */
export const STRICT: Contracts = loadBundle(
  buildBundle(
    checkContracts([{ file: 'strict.yaml', text: ORDER_CONTRACT.replace('shop-web:', 'shop-other:') }]).files,
  ),
)

export class RealShop {
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

  /** `config` is of all its topics. */
  static async open(config: Record<string, string> = {}): Promise<RealShop> {
    const real = new RealShop(await openShop())
    for (const topic of [
      real.source,
      real.audit,
      real.quarantine,
      ...real.shop.stack.outputs.map(real.topicOf),
    ])
      await real.cluster.createTopic(topic, PARTITIONS, config)
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

  /** What a gate works with, as another process would have it. */
  parts(): IngestParts {
    const parts = this.shop.stack.gateParts()
    const { source, audit, quarantine, topicOf } = this
    return {
      ...parts,
      sink: this.sink(),
      settings: {
        ...parts.settings,
        deployment: DEPLOYMENT,
        outlet: { ...parts.settings.outlet, auditTopic: audit, quarantineTopic: quarantine, topicOf },
        channelOf: (topic) => (topic === source ? { name: 'orders', maxLifeSeconds: 86_400 } : undefined),
      },
    }
  }

  gate(change: (parts: IngestParts) => IngestParts = (parts) => parts): Gate {
    const gate = createGate(createIngest(change(this.parts())), 'throw')
    this.#ending.push(() => gate.close())
    return gate
  }

  /** All that stands in the source, as Lambda's poller has it. */
  async records(): Promise<SourceRecord[]> {
    const reader = createKafkaSource(settings())
    try {
      const records: SourceRecord[] = []
      for (let partition = 0; partition < PARTITIONS; partition++) {
        const place = { topic: this.source, partition }
        const { end } = await reader.offsets(place)
        for (let from = 0n; from < end;) {
          const page = await reader.fetch(place, from, { maxBytes: 1_048_576, maxRecords: 10_000 })
          records.push(...page.records)
          from = page.next
        }
      }
      return records
    } finally {
      await reader.close()
    }
  }

  /** All that stands in the source, in one event: by a gate of its own, unless told of one. */
  async handle({ gate, contracts }: { gate?: Gate; contracts?: Contracts } = {}): Promise<void> {
    const own =
      gate ??
      this.gate((parts) => (contracts ? { ...parts, contracts: () => Promise.resolve(contracts) } : parts))
    const event = toMskEvent(await this.records(), { eventSourceArn: 'arn', bootstrapServers: 'b' })
    try {
      for (let tries = 1; ; tries++) {
        try {
          await own.handle(JSON.parse(JSON.stringify(event)), Date.now() + 20_000)
          return
        } catch (error) {
          // Fenced twice in one invocation, the gate leaves the rest to Lambda's next.
          if (tries === 10 || !String(error).includes('fenced')) throw error
        }
      }
    } finally {
      if (gate === undefined) await own.close()
    }
  }

  async sealer(change: Partial<SealerOptions> = {}): Promise<Sealer> {
    const producer = await openProducer(connection, 'producer', explicit)
    this.#ending.push(() => producer.disconnect())
    const sealer = createSealer({
      ...this.shop.stack.producer('shop-web'),
      partitions: PARTITIONS,
      topicOf: () => this.source,
      deliver: (batch) => producer.send(batch),
      ...change,
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
          for (const [name, head] of headsOf(place, parseState(found.state, limits, Infinity)))
            heads.set(name, head)
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

export const order = (id: number): { type: string; source: string; key: string; data: unknown } => ({
  type: ORDER_TYPE,
  source: '/shop/web',
  key: `customer-${id % 7}`,
  data: { orderId: `A-${id}`, total: id, customer: { id: `c${id % 7}`, email: 'a@example.com' } },
})
export const orders = (from: number, to: number): ReturnType<typeof order>[] =>
  Array.from({ length: to - from }, (_, index) => order(from + index))

export const totals = (records: readonly SourceRecord[]): number[] =>
  records.map(({ value }) => Number(JSON.parse(text(value)).total)).sort((a, b) => a - b)

export const upTo = (count: number): number[] => Array.from({ length: count }, (_, index) => index)
