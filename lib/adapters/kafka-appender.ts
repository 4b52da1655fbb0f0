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

/** Connects when it is first asked, and again after any error. */
export function createKafkaAppender(settings: KafkaSinkSettings, clock: Clock): KafkaAppender {
  const clients = new KafkaClients(settings, clock)
  let opened: Promise<Producer> | undefined
  const open = (limit: Limit): Promise<Producer> =>
    clients.persist(limit, async () => {
      const producer = clients.plainProducer()
      const connected = clients.connect(producer)
      try {
        await clients.within(limit, () => connected)
        return producer
      } catch (error) {
        void disconnect(producer, connected)
        throw error
      }
    })
  const drop = async (dropped: Promise<Producer> | undefined): Promise<void> => {
    if (opened === dropped) opened = undefined
    await dropped?.then((producer) => disconnect(producer, Promise.resolve())).catch(() => undefined)
  }
  return {
    append: async (messages) => {
      const places: (TopicPartition & { readonly offset: bigint })[] = []
      for (const part of partsOf(messages)) {
        const topics = [...new Set(part.map(({ topic }) => topic))]
        const operation = { name: `append to ${topics.join(', ')}`, topics, group: '', transactionalId: '' }
        const using = (opened ??= open(clients.limitOfOpening(Infinity, operation.name)))
        try {
          const producer = await using
          const answers = await producer.sendBatch({ acks: -1, topicMessages: topicMessages(part) })
          places.push(...placesOf(part, answers))
        } catch (error) {
          void drop(using)
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
