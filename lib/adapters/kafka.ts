/**
 * The Sink port on Kafka, by kafkajs: one transaction per slice, and its position in the metadata of a shadow group's
 * offsets (exactly-once.md). What it needs of the brokers stands in docs/kafka.md, why kafkajs in docs/decisions/0004.
 */
import { ConfigError, Outage } from '../errors.ts'
import type { Clock, Position, PositionAdmin, Sink, SinkSession, TopicPartition } from '../ports.ts'
import { KafkaClients } from './kafka-clients.ts'
import { fetchOffset, Holder, operationOn, type Place } from './kafka-holder.ts'
import { kafkaOutage } from './kafka-outage.ts'
import { groupName, MAX_STATE_BYTES, StoredPosition } from './kafka-position.ts'
import type { KafkaSinkSettings } from './kafka-settings.ts'
import { nameOf } from './kafka-wire.ts'

/** kafkajs makes one record batch of what goes to a topic-partition, and a topic takes 1 MiB unless told otherwise. */
const MAX_BATCH_BYTES = 900_000

export interface KafkaSink extends Sink, PositionAdmin {
  /** Ends the connection for questions; sessions are closed by who opened them. */
  close(): Promise<void>
}

/** Connects when it is first asked. `settings` come from `readKafkaSettings`. */
export function createKafkaSink(settings: KafkaSinkSettings, clock: Clock): KafkaSink {
  const clients = new KafkaClients(settings, clock)
  const { deployment, epoch } = settings
  const placeOf = (source: TopicPartition): Place => ({
    source,
    group: `${deployment}.shadow.v${epoch}`,
    transactionalId: `${deployment}.${source.topic}.${source.partition}`,
  })
  return {
    partitionsOf: (topic, deadline) => countPartitions(clients, topic, deadline),
    open: async (source, deadline) => {
      const place = placeOf(source)
      const { holder, stored } = await Holder.takeOver(clients, place, deadline)
      if (stored !== undefined) return new KafkaSession(clients, clock, place, holder, stored)
      await holder.end()
      throw positionMissing(source)
    },
    init: async (source, position, deadline) => {
      const place = placeOf(source)
      // Before fencing, so that a mistake does not disturb a gate at work; after it, so that of two only one succeeds.
      refuseExisting(source, await peek(clients, place, deadline))
      const { holder, stored } = await Holder.takeOver(clients, place, deadline)
      try {
        refuseExisting(source, stored)
        const { offsets } = StoredPosition.none.follow(place.group, source, position, secondsOf(clock))
        await holder.commit([], offsets, deadline)
      } finally {
        await holder.end()
      }
    },
    repair: async (source, deadline) => {
      const place = placeOf(source)
      const { holder, stored } = await Holder.seize(clients, place, deadline)
      const base = stored instanceof StoredPosition ? stored : StoredPosition.none
      return {
        found: stored instanceof Outage ? 'damaged' : stored?.position,
        maxStateBytes: MAX_STATE_BYTES,
        commit: (messages, position, until) => {
          const { offsets } = base.follow(place.group, source, position, secondsOf(clock))
          return holder.commit(messages, offsets, until)
        },
        close: () => holder.end(),
      }
    },
    renew: async (source, deadline) => {
      const place = placeOf(source)
      const found = await peek(clients, place, deadline)
      if (found?.isYoung(secondsOf(clock)) === true) return false
      // Of a commit whose transaction has not ended yet nothing was found beside its holder; behind the fence it is.
      const { holder, stored } = await Holder.takeOver(clients, place, deadline)
      try {
        if (stored === undefined) throw positionMissing(source)
        if (stored.isYoung(secondsOf(clock))) return false
        const { offsets } = stored.follow(place.group, source, stored.position, secondsOf(clock))
        await holder.commit([], offsets, deadline)
        return true
      } finally {
        await holder.end()
      }
    },
    show: async (source, deadline) => (await peek(clients, placeOf(source), deadline))?.position,
    close: () => clients.close(),
  }
}

class KafkaSession implements SinkSession {
  readonly maxBatchBytes = MAX_BATCH_BYTES
  readonly maxStateBytes = MAX_STATE_BYTES
  readonly #clients: KafkaClients
  readonly #clock: Clock
  readonly #place: Place
  #holder: Holder
  #stored: StoredPosition
  /** Milliseconds since 1970. */
  #used: number
  #usable = true

  constructor(clients: KafkaClients, clock: Clock, place: Place, holder: Holder, stored: StoredPosition) {
    this.#clients = clients
    this.#clock = clock
    this.#place = place
    this.#holder = holder
    this.#stored = stored
    this.#used = clock.now()
  }

  get position(): Position {
    return this.#stored.position
  }

  async commit(...[messages, position, deadline]: Parameters<SinkSession['commit']>): Promise<void> {
    if (!this.#usable)
      throw new Outage(
        'sink-unavailable',
        `This session on ${nameOf(this.#place.source)} has ended: open a new one.`,
      )
    // Until it has succeeded: a failed commit, or a second one beside it, leaves the outcome unknown.
    this.#usable = false
    try {
      if (this.#clients.isStale({ at: this.#used, user: this.#holder.user }))
        await this.#takeOverAgain(deadline)
      const { group, source } = this.#place
      const { stored, offsets } = this.#stored.follow(group, source, position, secondsOf(this.#clock))
      await this.#holder.commit(messages, offsets, deadline)
      this.#stored = stored
    } catch (error) {
      void this.#holder.end()
      throw error
    }
    this.#used = this.#clock.now()
    this.#usable = true
  }

  async close(): Promise<void> {
    this.#usable = false
    await this.#holder.end()
  }

  /** After long idleness, such as a frozen Lambda's, or as another user: where nobody has moved the position since. */
  async #takeOverAgain(deadline: number): Promise<void> {
    void this.#holder.end()
    const { holder, stored } = await Holder.takeOver(this.#clients, this.#place, deadline)
    this.#holder = holder
    if (stored === undefined) throw positionMissing(this.#place.source)
    if (!isSamePosition(stored.position, this.position))
      throw new Outage('fenced', `Another holder has moved ${nameOf(this.#place.source)} on: open it again.`)
    this.#stored = stored
  }
}

async function countPartitions(clients: KafkaClients, topic: string, deadline: number): Promise<number> {
  const operation = { name: `partitions of ${topic}`, topics: [topic], group: '', transactionalId: '' }
  const limit = clients.limitOfOpening(deadline, operation.name)
  try {
    const { topics } = await clients.persist(limit, () =>
      clients.within(limit, () => clients.ask((admin) => admin.fetchTopicMetadata({ topics: [topic] }))),
    )
    const count = topics.find(({ name }) => name === topic)?.partitions.length ?? 0
    if (count > 0) return count
  } catch (error) {
    throw kafkaOutage(error, operation)
  }
  throw new Outage('sink-denied', `The topic ${topic} is not there. Create it, or correct its name.`)
}

/** What is stored, read beside whoever may hold it: between two of its commits parts may not fit together. */
async function peek(
  clients: KafkaClients,
  place: Place,
  deadline: number,
): Promise<StoredPosition | undefined> {
  const { source, group } = place
  const operation = operationOn(place, 'position of', [source.topic])
  const limit = clients.limitOfOpening(deadline, operation.name)
  const read = async (): Promise<StoredPosition | undefined> => {
    const main = await fetchOffset(clients, group, source)
    if (main === undefined) return undefined
    const numbers = Array.from({ length: StoredPosition.furtherParts(main, source) }, (_, index) => index + 1)
    const further = await Promise.all(
      numbers.map((part) => fetchOffset(clients, groupName(group, part), source)),
    )
    return StoredPosition.parse(group, source, main, further)
  }
  let looks = 0
  const isBetween = (error: unknown): boolean =>
    error instanceof Outage && error.code === 'position-damaged' && ++looks < PEEKS
  try {
    return await clients.repeat(limit, { firstMs: 10, longestMs: 50 }, isBetween, () =>
      clients.persist(limit, () => clients.within(limit, read)),
    )
  } catch (error) {
    throw kafkaOutage(error, operation)
  }
}

/** Two seconds of them, beside a holder that commits all the time: any one of them may fall between two commits. */
const PEEKS = 40

function refuseExisting(source: TopicPartition, stored: StoredPosition | undefined): void {
  if (stored === undefined) return
  const what = `It has a position already, at offset ${stored.position.next}.`
  const fix = 'Nothing is to be done for a first start; to reprocess, raise the epoch by name.'
  throw new ConfigError([{ where: nameOf(source), what, fix }])
}

function positionMissing(source: TopicPartition): Outage {
  const first = `A first start is made by name: sealgate position init ${source.topic}.`
  const lost = 'One that it had is restored: sealgate position restore.'
  return new Outage('position-missing', `There is no position for ${nameOf(source)}. ${first} ${lost}`)
}

const isSamePosition = (a: Position, b: Position): boolean =>
  a.next === b.next && Buffer.compare(a.state, b.state) === 0

const secondsOf = (clock: Clock): number => Math.floor(clock.now() / 1000)
