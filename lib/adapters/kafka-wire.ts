/** Messages as kafkajs takes them. */
import type { TopicMessages } from 'kafkajs'
import { batchBytes, type Message, type TopicPartition } from '../ports.ts'
import type { Operation } from './kafka-outage.ts'
import { wireHeaders } from './kafka-repairs.ts'

/** By topic, in their order; kafkajs makes one record batch of those of a topic-partition. */
export function topicMessages(messages: readonly Message[]): TopicMessages[] {
  return Array.from(
    Map.groupBy(messages, ({ topic }) => topic),
    ([topic, ofTopic]) => ({
      topic,
      messages: ofTopic.map(({ partition, key, value, headers }) => ({
        partition,
        key: key && asBuffer(key),
        value: value && asBuffer(value),
        headers: wireHeaders(headers),
      })),
    }),
  )
}

const asBuffer = (bytes: Uint8Array): Buffer => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length)

/** The most bytes for one topic-partition, for what is said of messages that are too large. */
export function largestOf(messages: readonly Message[]): Pick<Operation, 'largest'> {
  const sizes = new Map<string, number>()
  for (const message of messages)
    sizes.set(nameOf(message), (sizes.get(nameOf(message)) ?? 0) + batchBytes(message))
  const [largest] = [...sizes].sort(([, a], [, b]) => b - a)
  return largest === undefined ? {} : { largest: { place: largest[0], bytes: largest[1] } }
}

export const nameOf = ({ topic, partition }: TopicPartition): string => `${topic}-${partition}`
