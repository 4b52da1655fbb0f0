/** Which topics go with which channels: no topic has two uses, since each use would take the other's records for its own. */
import type { Fault } from '../errors.ts'
import type { Contracts } from './contract.ts'

/** A deployment's topics. */
export interface Topics {
  /** Source topics, and the channel of each. */
  readonly sources: ReadonlyMap<string, string>
  readonly auditTopic: string
  readonly quarantineTopic: string
  /** The topic of an output channel. */
  topicOf(channel: string): string
}

/**
 * Every fault at once: a channel with two source topics (a copy on the other would not be known for a replay, since the
 * channel is signed and the topic is not: sealed-event.md §4), and a topic with two uses, be it source, audit,
 * quarantine or the output of a channel.
 */
export function topicFaults(contracts: Contracts, topics: Topics): Fault[] {
  const faults: Fault[] = []
  const uses = new Map([[topics.auditTopic, 'the audit topic']])
  const claim = (topic: string, use: string, where: string, fix: string): void => {
    const other = uses.get(topic)
    if (other !== undefined && other !== use)
      faults.push({ where, what: `${topic} would be ${use}, and is ${other}.`, fix })
    else uses.set(topic, use)
  }
  claim(topics.quarantineTopic, 'the quarantine topic', 'quarantine', 'Give it a topic of its own.')
  const sourceOf = new Map<string, string>()
  for (const [topic, channel] of topics.sources) {
    const other = sourceOf.get(channel)
    if (other !== undefined)
      faults.push({
        where: `channel ${channel}`,
        what: `It has two source topics, ${other} and ${topic}: a copy from one to the other would be taken for new.`,
        fix: 'Give it one topic at a time.',
      })
    sourceOf.set(channel, other ?? topic)
    claim(topic, 'a source topic', `channel ${channel}`, 'Use another topic.')
  }
  for (const { type, routes } of contracts.all)
    for (const { consumer, channel } of routes)
      claim(
        topics.topicOf(channel),
        `the output topic of ${channel}`,
        `contract for ${type}, consumer ${consumer}`,
        'Give the consumer a channel and a topic of its own.',
      )
  return faults
}
