/** Writes to topics outside any transaction: what producers send, not what the gate commits. */
import type { Producer, RecordMetadata } from 'kafkajs'
import { Outage } from '../errors.ts'
import { batchBytes, type Clock, type Message, type TopicPartition } from '../ports.ts'
import { disconnect, KafkaClients, type Limit } from './kafka-clients.ts'
import { kafkaOutage } from './kafka-outage.ts'
import type { KafkaSinkSettings } from './kafka-settings.ts'
import { largestOf, nameOf, topicMessages } from './kafka-wire.ts'

/** kafkajs makes one record batch of what goes to a topic-partition, and a topic takes 1 MiB unless told otherwise. */
const MAX_BATCH_BYTES = 900_000

export interface KafkaAppender {
  /**
   * Appends in order within a partition, acknowledged by all replicas in sync; where each came to stand. Nothing is tried
   * again: after an `Outage` some of them may be there.
   */
  append(messages: readonly Message[]): Promise<readonly (TopicPartition & { readonly offset: bigint })[]>
  close(): Promise<void>
}

interface Line {
  readonly producer: Producer
  /** As whom it has connected, as `KafkaClients.user` tells it. */
  readonly user: string | undefined
  /** What it is doing, or did last. */
  doing: Promise<unknown>
}

/** Connects when it is first asked, and again after any error, or to follow a change of user. */
export function createKafkaAppender(settings: KafkaSinkSettings, clock: Clock): KafkaAppender {
  const clients = new KafkaClients(settings, clock)
  let opened: Promise<Line> | undefined
  const open = (limit: Limit): Promise<Line> =>
    clients.persist(limit, async () => {
      const producer = clients.plainProducer()
      const connected = clients.connect(producer)
      try {
        const user = await clients.within(limit, () => connected)
        return { producer, user, doing: connected }
      } catch (error) {
        void disconnect(producer, connected)
        throw error
      }
    })
  const drop = async (dropped: Promise<Line> | undefined): Promise<void> => {
    if (opened === dropped) opened = undefined
    await dropped?.then(({ producer, doing }) => disconnect(producer, doing)).catch(() => undefined)
  }
  /** The connection to use now, and what it was opened by. */
  const line = async (name: string): Promise<readonly [Line, Promise<Line>]> => {
    const using = (opened ??= open(clients.limitOfOpening(Infinity, name)))
    try {
      const found = await using
      if (found.user === clients.user) return [found, using]
    } catch (error) {
      void drop(using)
      throw error
    }
    // Others may be sending on it.
    void drop(using)
    return line(name)
  }
  return {
    append: async (messages) => {
      const places: (TopicPartition & { readonly offset: bigint })[] = []
      for (const part of partsOf(messages)) {
        const topics = [...new Set(part.map(({ topic }) => topic))]
        const operation = { name: `append to ${topics.join(', ')}`, topics, group: '', transactionalId: '' }
        let using: Promise<Line> | undefined
        try {
          const [found, by] = await line(operation.name)
          using = by
          const sending = found.producer.sendBatch({ acks: -1, topicMessages: topicMessages(part) })
          // Without its value, which would hold those of all before it.
          found.doing = Promise.allSettled([found.doing, sending]).then(() => undefined)
          places.push(...placesOf(part, await sending))
        } catch (error) {
          if (using !== undefined) void drop(using)
          throw kafkaOutage(error, { ...operation, ...largestOf(part) })
        }
      }
      return places
    },
    close: async () => {
      await Promise.all([drop(opened), clients.close()])
    },
  }
}

/** In order, each with no more for one topic-partition than a record batch takes, unless one message alone is larger. */
function partsOf(messages: readonly Message[]): Message[][] {
  const parts: Message[][] = []
  let sizes = new Map<string, number>()
  for (const message of messages) {
    const place = nameOf(message)
    const bytes = batchBytes(message)
    const before = sizes.get(place) ?? 0
    const part = parts.at(-1)
    if (part === undefined || (before > 0 && before + bytes > MAX_BATCH_BYTES)) {
      parts.push([message])
      sizes = new Map([[place, bytes]])
    } else {
      part.push(message)
      sizes.set(place, before + bytes)
    }
  }
  return parts
}

/** A topic-partition's messages became one batch, in their order. kafkajs leaves out what it finds no leader for (K14). */
function placesOf(
  messages: readonly Message[],
  answers: readonly RecordMetadata[],
): (TopicPartition & { offset: bigint })[] {
  const next = new Map(
    answers.map(({ topicName, partition, baseOffset }) => [
      nameOf({ topic: topicName, partition }),
      baseOffset,
    ]),
  )
  const counts = new Map<string, bigint>()
  return messages.map((message) => {
    const { topic, partition } = message
    const place = nameOf(message)
    const base = next.get(place)
    if (base === undefined) throw new Outage('sink-unavailable', `${place} was not written.`)
    const count = counts.get(place) ?? 0n
    counts.set(place, count + 1n)
    return { topic, partition, offset: BigInt(base) + count }
  })
}
