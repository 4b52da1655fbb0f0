/** Messages as kafkajs takes them. */
import type { TopicMessages } from 'kafkajs'
import { batchBytes, type Message, type TopicPartition } from '../ports.ts'
import type { Operation } from './kafka-outage.ts'

/** A message as kafkajs passes it on from `sendBatch` to the request, where kafka-produce.ts writes it. */
export interface WireMessage {
  readonly partition: number
  readonly value: null
  readonly message: Message
  /** Only kafkajs's own encoder asks for it, and would write nothing of what `message` holds. */
  readonly headers: never
}

/** For `sendBatch`: by topic, in their order. One record batch is made of those of a topic-partition. */
export function topicMessages(messages: readonly Message[]): TopicMessages[] {
  return Array.from(
    Map.groupBy(messages, ({ topic }) => topic),
    ([topic, ofTopic]) => ({ topic, messages: ofTopic.map(wireMessage) }),
  )
}

const wireMessage = (message: Message): WireMessage => ({
  partition: message.partition,
  value: null,
  message,
  get headers(): never {
    throw new TypeError('kafkajs was not repaired: it would write an empty record')
  },
})

/** Whether `topicMessages` made it. */
export const isWireMessage = (value: object): value is WireMessage => 'message' in value

/** The most bytes for one topic-partition, for what is said of messages that are too large. */
export function largestOf(messages: readonly Message[]): Pick<Operation, 'largest'> {
  const sizes = new Map<string, number>()
  for (const message of messages)
    sizes.set(nameOf(message), (sizes.get(nameOf(message)) ?? 0) + batchBytes(message))
  const [largest] = [...sizes].sort(([, a], [, b]) => b - a)
  return largest === undefined ? {} : { largest: { place: largest[0], bytes: largest[1] } }
}

export const nameOf = ({ topic, partition }: TopicPartition): string => `${topic}-${partition}`
