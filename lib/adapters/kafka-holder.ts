/** A process's hold on a source partition: its transactional producer (exactly-once.md §1, §3). */
import type { Producer, Transaction } from 'kafkajs'
import { Outage } from '../errors.ts'
import type { Message, TopicPartition } from '../ports.ts'
import { disconnect, type KafkaClients, type Limit } from './kafka-clients.ts'
import { isBusy, isCold, kafkaOutage, type Operation } from './kafka-outage.ts'
import { groupName, type GroupOffset, type StoredOffset, StoredPosition } from './kafka-position.ts'
import { largestOf, nameOf, topicMessages } from './kafka-wire.ts'

/** Where a source partition's truth is kept. */
export interface Place {
  readonly source: TopicPartition
  readonly group: string
  readonly transactionalId: string
}

/** Short waits, for what a broker ends within milliseconds. */
const SOON = { firstMs: 2, longestMs: 50 }

export class Holder {
  readonly #clients: KafkaClients
  readonly #place: Place
  readonly #producer: Producer
  /** As whom it has connected, as `KafkaClients.user` tells it. */
  #user: string | undefined
  /** What it is doing, or did last. */
  #doing: Promise<unknown> = Promise.resolve()

  private constructor(clients: KafkaClients, place: Place) {
    this.#clients = clients
    this.#place = place
    this.#producer = clients.producer(place.transactionalId)
  }

  /** Fences whoever held the place before, and only then reads what is stored for it. */
  static async takeOver(
    clients: KafkaClients,
    place: Place,
    deadline: number,
  ): Promise<{ readonly holder: Holder; readonly stored: StoredPosition | undefined }> {
    const { holder, stored } = await Holder.seize(clients, place, deadline)
    if (!(stored instanceof Outage)) return { holder, stored }
    await holder.end()
    throw stored
  }

  /** The same, where what is stored may be damaged: then that outage takes its place. */
  static async seize(
    clients: KafkaClients,
    place: Place,
    deadline: number,
  ): Promise<{ readonly holder: Holder; readonly stored: StoredPosition | Outage | undefined }> {
    const operation = operationOn(place, 'opening of', [place.source.topic])
    const limit = clients.limitOfOpening(deadline, operation.name)
    try {
      return await clients.persist(limit, async () => {
        const holder = new Holder(clients, place)
        try {
          return { holder, stored: await holder.#open(limit) }
        } catch (error) {
          void holder.end()
          throw error
        }
      })
    } catch (error) {
      throw kafkaOutage(error, operation)
    }
  }

  get user(): string | undefined {
    return this.#user
  }

  /** Messages and offsets in one transaction. Rejects with `Outage`, and is then of no more use: `end` it. */
  async commit(
    messages: readonly Message[],
    offsets: readonly GroupOffset[],
    deadline: number,
  ): Promise<void> {
    const topics = [...Map.groupBy(messages, ({ topic }) => topic).keys()]
    const operation = operationOn(this.#place, 'commit of', topics)
    const limit = this.#clients.limit(deadline, operation.name)
    let isBegun = false
    try {
      const transaction = await this.#within(limit, () => this.#producer.transaction())
      // First, since this is refused without effect while the transaction before is still being ended; a batch is not.
      await Promise.all(offsets.map((offset) => this.#sendOffset(transaction, offset, isBusy, limit)))
      isBegun = true
      await this.#send(transaction, messages, limit)
      await this.#within(limit, () => transaction.commit())
    } catch (error) {
      // This transaction is being ended, and not by us.
      if (isBegun && isBusy(error))
        throw new Outage('fenced', `${operation.name}: another holder is taking over.`, { cause: error })
      throw kafkaOutage(error, { ...operation, ...largestOf(messages) })
    }
  }

  /** Lets go. Never rejects; what was open is ended by the next holder, or by the broker. */
  end(): Promise<void> {
    return disconnect(this.#producer, this.#doing)
  }

  async #open(limit: Limit): Promise<StoredPosition | Outage | undefined> {
    this.#user = await this.#within(limit, () => this.#clients.connect(this.#producer))
    const transaction = await this.#clients.repeat(limit, SOON, isCold, () =>
      this.#within(limit, () => this.#producer.transaction()),
    )
    const stored = await this.#read(transaction, limit).catch((error: unknown) => {
      if (error instanceof Outage && error.code === 'position-damaged') return error
      throw error
    })
    await this.#within(limit, () => transaction.abort())
    return stored
  }

  async #read(transaction: Transaction, limit: Limit): Promise<StoredPosition | undefined> {
    const { source, group } = this.#place
    const main = await this.#readBehindBarrier(transaction, 0, limit)
    const count = main === undefined ? 0 : StoredPosition.furtherParts(main, source)
    const parts = Array.from({ length: count }, (_, index) => index + 1)
    const further = await Promise.all(parts.map((part) => this.#readBehindBarrier(transaction, part, limit)))
    return main && StoredPosition.parse(group, source, main, further)
  }

  /**
   * A coordinator that has just taken over may not serve its newest commits yet. Once it has acknowledged a write, it
   * does; this one is aborted and leaves no trace.
   */
  async #readBehindBarrier(
    transaction: Transaction,
    part: number,
    limit: Limit,
  ): Promise<StoredOffset | undefined> {
    const group = groupName(this.#place.group, part)
    await this.#sendOffset(transaction, { group, offset: 0n, metadata: 'barrier' }, isCold, limit)
    return this.#clients.repeat(limit, SOON, isCold, () =>
      this.#within(limit, () => fetchOffset(this.#clients, group, this.#place.source)),
    )
  }

  async #sendOffset(
    transaction: Transaction,
    { group, offset, metadata }: GroupOffset,
    mayPass: (error: unknown) => boolean,
    limit: Limit,
  ): Promise<void> {
    const { topic, partition } = this.#place.source
    // kafkajs's types do not know the metadata that it sends.
    const partitions = [{ partition, offset: String(offset), metadata }]
    await this.#clients.repeat(limit, SOON, mayPass, () =>
      this.#within(limit, () =>
        transaction.sendOffsets({ consumerGroupId: group, topics: [{ topic, partitions }] }),
      ),
    )
  }

  async #send(transaction: Transaction, messages: readonly Message[], limit: Limit): Promise<void> {
    if (messages.length === 0) return
    const answers = await this.#within(limit, () =>
      transaction.sendBatch({ acks: -1, topicMessages: topicMessages(messages) }),
    )
    // kafkajs leaves out what it finds no leader for (K14): everything sent must have been answered for.
    const written = new Set(answers.map(({ topicName, partition }) => `${topicName}-${partition}`))
    for (const message of messages) {
      if (!written.has(nameOf(message)))
        throw new Outage('sink-unavailable', `${nameOf(message)} was not written: it is tried again.`)
    }
  }

  #within<T>(limit: Limit, work: () => Promise<T>): Promise<T> {
    return this.#clients.within(limit, () => {
      const doing = work()
      // Without their values: each would hold those of all before it.
      this.#doing = Promise.allSettled([this.#doing, doing]).then(() => undefined)
      return doing
    })
  }
}

/** What a group has for a source partition; undefined where it has nothing. */
export async function fetchOffset(
  clients: KafkaClients,
  group: string,
  { topic, partition }: TopicPartition,
): Promise<StoredOffset | undefined> {
  const answers = await clients.ask((admin) => admin.fetchOffsets({ groupId: group, topics: [topic] }))
  const found = answers
    .find((answer) => answer.topic === topic)
    ?.partitions.find((one) => one.partition === partition)
  if (found === undefined || found.offset === '-1') return undefined
  return { offset: BigInt(found.offset), metadata: found.metadata ?? '' }
}

/** For messages about what is done on a place. */
export function operationOn(place: Place, what: string, topics: readonly string[]): Operation {
  const { source, group, transactionalId } = place
  return { name: `${what} ${nameOf(source)}`, topics, group, transactionalId }
}
