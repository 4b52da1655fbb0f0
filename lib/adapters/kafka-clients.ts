/** kafkajs's clients of one cluster, and how long anybody waits for them. */
import {
  type Admin,
  type ICustomPartitioner,
  Kafka,
  logLevel,
  type PartitionMetadata,
  type Producer,
} from 'kafkajs'
import { Outage } from '../errors.ts'
import { byDeadline } from '../keys/deadline.ts'
import type { Clock } from '../ports.ts'
import { KafkaAccess } from './kafka-access.ts'
import { isPassing } from './kafka-outage.ts'
import { repairKafkajs } from './kafka-repairs.ts'
import type { KafkaSinkSettings } from './kafka-settings.ts'

/** How long something may take, and what it means when it takes longer. */
export interface Limit {
  /** Milliseconds since 1970. */
  readonly at: number
  readonly late: () => Outage
}

/** When a connection was last used, and as whom it was made: as `KafkaClients.user` tells it. */
export interface Use {
  /** Milliseconds since 1970. */
  readonly at: number
  readonly user: string | undefined
}

interface SharedAdmin {
  readonly client: Admin
  readonly connected: Promise<void>
  /** Connecting, and every question since. */
  doing: Promise<unknown>
  /** Undefined until it is connected. */
  used: Use | undefined
}

export class KafkaClients {
  readonly #settings: KafkaSinkSettings
  readonly #clock: Clock
  readonly #access: KafkaAccess
  readonly #kafka: Kafka
  #admin: SharedAdmin | undefined
  #closed = false

  constructor(settings: KafkaSinkSettings, clock: Clock) {
    repairKafkajs()
    this.#settings = settings
    this.#clock = clock
    this.#access = new KafkaAccess(settings, clock)
    this.#kafka = new Kafka({
      // Each client begins with another broker: one that is down must not be the first for ever.
      ...this.#access.config(() => shuffled(settings.brokers)),
      // Every error is thrown, and says more where it is translated.
      logLevel: logLevel.NOTHING,
    })
  }

  /** A producer that is not connected yet. The transactional id alone makes it idempotent (K5). */
  producer(transactionalId: string): Producer {
    return this.#kafka.producer({
      transactionalId,
      transactionTimeout: this.#settings.transactionTimeoutMs,
      maxInFlightRequests: 1,
      retry: { retries: 0 },
      allowAutoTopicCreation: false,
      createPartitioner: explicitPartitions,
    })
  }

  /** Connects a client, as who we are now: resolves to that user, as `user` tells it. */
  async connect(client: Admin | Producer): Promise<string | undefined> {
    const user = await this.#access.refresh()
    await client.connect()
    return user
  }

  /** Who new connections are, where a secret says so (docs/rotation.md). */
  get user(): string | undefined {
    return this.#access.user
  }

  /** One outside any transaction, not connected yet. It sends once, or not at all: sent again, order would be lost. */
  plainProducer(): Producer {
    return this.#kafka.producer({
      retry: { retries: 0 },
      allowAutoTopicCreation: false,
      createPartitioner: explicitPartitions,
    })
  }

  /** Asks by the one connection for questions; it is thrown away at the first error, and when it was idle for long. */
  async ask<T>(question: (admin: Admin) => Promise<T>): Promise<T> {
    if (this.#closed) throw new Outage('sink-unavailable', 'This sink has been closed.')
    if (this.#admin?.used !== undefined && this.isStale(this.#admin.used)) this.#dropAdmin()
    const admin = (this.#admin ??= this.#connectAdmin())
    try {
      const asking = admin.connected.then(() => question(admin.client))
      // Others may give the client up meanwhile; a question under way could then still connect to a broker.
      admin.doing = Promise.allSettled([admin.doing, asking]).then(() => undefined)
      const answer = await asking
      admin.used = { at: this.#clock.now(), user: admin.used?.user }
      return answer
    } catch (error) {
      if (this.#admin === admin) this.#dropAdmin()
      throw error
    }
  }

  /**
   * Whether a connection is to be replaced before it is used: it may have died unnoticed (a frozen process, a NAT that
   * forgot it), or is that of a user whom another follows, and whose password will not be good for ever.
   */
  isStale({ at, user }: Use): boolean {
    const idle = this.#clock.now() - at
    return idle < 0 || idle > this.#settings.maxIdleMs || user !== this.user
  }

  limit(deadline: number, name: string): Limit {
    const late = (): Outage =>
      new Outage('deadline', `${name}: no time left; whether it happened is not known.`)
    return { at: deadline, late }
  }

  /** The same, and not longer than opening may take. */
  limitOfOpening(deadline: number, name: string): Limit {
    const { openTimeoutMs } = this.#settings
    const at = this.#clock.now() + openTimeoutMs
    if (at >= deadline) return this.limit(deadline, name)
    const reason = `${name}: no broker answered within ${openTimeoutMs} ms (openTimeoutMs). Check brokers and network.`
    return { at, late: () => new Outage('sink-unavailable', reason) }
  }

  /** Begins `work` unless it is too late, and waits for it no longer than it may take. */
  async within<T>(limit: Limit, work: () => Promise<T>): Promise<T> {
    if (this.#clock.now() >= limit.at) throw limit.late()
    return byDeadline(work(), limit.at, this.#clock, limit.late)
  }

  /** Tries again, ever less often, while errors are of that kind and there is time. */
  async repeat<T>(
    limit: Limit,
    waits: { readonly firstMs: number; readonly longestMs: number },
    mayPass: (error: unknown) => boolean,
    work: () => Promise<T>,
  ): Promise<T> {
    let last: Error | undefined
    for (let wait = waits.firstMs; ; wait = Math.min(wait * 2, waits.longestMs)) {
      try {
        return await work()
      } catch (error) {
        // Cut short in a later try: what the one before met says more.
        if (error instanceof Outage && last !== undefined && this.#clock.now() >= limit.at)
          throw error.code === 'deadline' ? new Outage('deadline', error.message, { cause: last }) : last
        if (!mayPass(error) || this.#clock.now() + wait >= limit.at) throw error
        last = error instanceof Error ? error : undefined
      }
      await new Promise((resolve) => setTimeout(resolve, wait))
    }
  }

  /** `repeat` for work that begins with a connection (K12: one dead broker makes questions to the others fail). */
  persist<T>(limit: Limit, work: () => Promise<T>): Promise<T> {
    return this.repeat(limit, { firstMs: 20, longestMs: 1000 }, isPassing, work)
  }

  async close(): Promise<void> {
    this.#closed = true
    const admin = this.#admin
    this.#admin = undefined
    if (admin !== undefined) await disconnect(admin.client, admin.doing)
  }

  #connectAdmin(): SharedAdmin {
    const client = this.#kafka.admin({ retry: { retries: 0 } })
    const connecting = this.connect(client)
    const admin: SharedAdmin = {
      client,
      connected: connecting.then((user) => {
        admin.used = { at: this.#clock.now(), user }
      }),
      doing: connecting,
      used: undefined,
    }
    return admin
  }

  #dropAdmin(): void {
    const admin = this.#admin
    this.#admin = undefined
    if (admin !== undefined) void disconnect(admin.client, admin.doing)
  }
}

/**
 * Ends a client once what it is doing is over, which its time-outs bound: kafkajs would lose sight of a connection that is
 * being made, and never end it. Waits for that no longer than a moment. Never rejects.
 */
export async function disconnect(client: Admin | Producer, underWay: Promise<unknown>): Promise<void> {
  let timer: NodeJS.Timeout | undefined
  const long = new Promise((resolve) => {
    timer = setTimeout(resolve, PATIENCE_MS)
  })
  const ended = Promise.allSettled([underWay]).then(() => client.disconnect())
  await Promise.race([ended.catch(() => undefined), long])
  clearTimeout(timer)
}

const PATIENCE_MS = 2000

function shuffled(list: readonly string[]): string[] {
  return list
    .map((item) => ({ item, key: Math.random() }))
    .sort((a, b) => a.key - b.key)
    .map(({ item }) => item)
}

/**
 * The partition is always ours to choose. kafkajs silently leaves out messages for a partition that it does not know
 * (K14), so that one is refused here.
 */
const explicitPartitions: ICustomPartitioner = () => {
  const known = new WeakMap<readonly PartitionMetadata[], ReadonlySet<number>>()
  return ({ topic, partitionMetadata, message: { partition } }) => {
    let ids = known.get(partitionMetadata)
    if (ids === undefined) {
      ids = new Set(partitionMetadata.map(({ partitionId }) => partitionId))
      known.set(partitionMetadata, ids)
    }
    if (partition !== undefined && ids.has(partition)) return partition
    throw new Outage('sink-denied', `${topic} has no partition ${partition ?? '(none named)'}.`)
  }
}
