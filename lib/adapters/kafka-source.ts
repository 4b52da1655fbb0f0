/**
 * A Kafka cluster as the event-source poller polls it: explicit offsets, committed records only, offsets of a group that
 * nobody joins. kafkajs's consumer cannot be told where to read, so this asks its brokers itself.
 */
import type {
  BatchContext,
  Broker,
  default as Cluster,
  FetchedPartition,
  FetchedRecord,
} from 'kafkajs/src/cluster/index.js'
import Decoder from 'kafkajs/src/protocol/decoder.js'
import { Outage } from '../errors.ts'
import type { Header, SourceRecord, TopicPartition } from '../ports.ts'
import { KafkaAccess } from './kafka-access.ts'
import { connectCluster, disconnectCluster } from './kafka-connection.ts'
import { isPassing, kafkaOutage } from './kafka-outage.ts'
import { repairKafkajs } from './kafka-repairs.ts'
import type { KafkaConnectionSettings } from './kafka-settings.ts'

export interface FetchLimits {
  readonly maxBytes: number
  readonly maxRecords: number
}

export interface FetchedRecords {
  readonly records: readonly SourceRecord[]
  /** Where to read on. */
  readonly next: bigint
  /** The last stable offset: what is committed later will have at least this one. */
  readonly end: bigint
}

/** The poller's `PolledSource` (lib/local). Every rejection is an `Outage`; the next call connects anew. */
export interface KafkaSource {
  partitions(topic: string): Promise<number>
  /** From the first record kept, where `from` is before it; at least one record where there is one. */
  fetch(place: TopicPartition, from: bigint, limits: FetchLimits): Promise<FetchedRecords>
  /** The first offset kept, and the last stable one. */
  offsets(place: TopicPartition): Promise<{ readonly first: bigint; readonly end: bigint }>
  /** The end with what open transactions still hide. */
  writtenEnd(place: TopicPartition): Promise<bigint>
  groupOffset(group: string, place: TopicPartition): Promise<bigint | undefined>
  /** Refused by the broker while consumers are members of the group. */
  commitGroup(group: string, place: TopicPartition, offset: bigint): Promise<void>
  close(): Promise<void>
}

/** Connects when it is first asked. Records compressed by other than gzip cannot be read: kafkajs has no other codec. */
export function createKafkaSource(settings: KafkaConnectionSettings): KafkaSource {
  repairKafkajs()
  keepHeaders()
  const link = new Link(settings)
  return {
    partitions: (topic) =>
      link.ask(`partitions of ${topic}`, topic, '', async (cluster) => {
        await cluster.addTargetTopic(topic)
        return cluster.findTopicPartitionMetadata(topic).length
      }),
    fetch: (place, from, limits) =>
      link.ask(`fetch from ${nameOf(place)}`, place.topic, '', (cluster) =>
        fetchSome(cluster, place, from, limits),
      ),
    offsets: (place) =>
      link.ask(`offsets of ${nameOf(place)}`, place.topic, '', async (cluster) => {
        await leaderOf(cluster, place)
        const [first, end] = await Promise.all([
          offsetAt(cluster, place, true),
          offsetAt(cluster, place, false),
        ])
        return { first, end }
      }),
    writtenEnd: (place) =>
      link.ask(`end of ${nameOf(place)}`, place.topic, '', async (cluster) => {
        const broker = await leaderOf(cluster, place)
        const end = await offsetAt(cluster, place, false)
        return BigInt((await fetchPage(broker, place, end, { maxBytes: 1, maxRecords: 1 })).highWatermark)
      }),
    groupOffset: (group, place) =>
      link.ask(`offset of ${group} on ${nameOf(place)}`, place.topic, group, async (cluster) => {
        const { topic, partition } = place
        const broker = await coordinatorOf(cluster, group)
        const { responses } = await broker.offsetFetch({
          groupId: group,
          topics: [{ topic, partitions: [{ partition }] }],
        })
        const found = responses[0]?.partitions[0]?.offset
        return found === undefined || found === '-1' ? undefined : BigInt(found)
      }),
    commitGroup: (group, place, offset) =>
      link.ask(`commit of ${group} on ${nameOf(place)}`, place.topic, group, async (cluster) => {
        const { topic, partition } = place
        const broker = await coordinatorOf(cluster, group)
        await broker.offsetCommit({
          groupId: group,
          // Of nobody's membership.
          groupGenerationId: -1,
          memberId: '',
          topics: [{ topic, partitions: [{ partition, offset: String(offset) }] }],
        })
      }),
    close: () => link.close(),
  }
}

/** The connections: thrown away at the first error, since what they know of the cluster may be what was wrong. */
class Link {
  readonly #settings: KafkaConnectionSettings
  readonly #access: KafkaAccess
  #cluster: Promise<Cluster> | undefined
  #closed = false

  constructor(settings: KafkaConnectionSettings) {
    this.#settings = settings
    this.#access = new KafkaAccess(settings, { now: () => Date.now() })
  }

  async ask<T>(
    name: string,
    topic: string,
    group: string,
    question: (cluster: Cluster) => Promise<T>,
  ): Promise<T> {
    const until = Date.now() + PATIENCE_MS
    for (let wait = FIRST_WAIT_MS; ; wait *= 2) {
      try {
        return await this.#askOnce(question, until)
      } catch (error) {
        // A cluster that is new, or has just lost a broker, is whole again in a moment.
        if (!isPassing(error) || wait > LONGEST_WAIT_MS || Date.now() >= until)
          throw kafkaOutage(error, { name, topics: [topic], group, transactionalId: '' })
      }
      await new Promise((resolve) => setTimeout(resolve, wait))
    }
  }

  async #askOnce<T>(question: (cluster: Cluster) => Promise<T>, until: number): Promise<T> {
    if (this.#closed) throw new Outage('sink-unavailable', 'This source has been closed.')
    const connecting = (this.#cluster ??= connectCluster(this.#access, this.#settings.brokers, until))
    try {
      const cluster = await connecting
      await cluster.refreshMetadataIfNecessary()
      return await question(cluster)
    } catch (error) {
      if (this.#cluster === connecting) {
        this.#cluster = undefined
        void disconnectCluster(connecting)
      }
      throw error
    }
  }

  async close(): Promise<void> {
    this.#closed = true
    const cluster = this.#cluster
    this.#cluster = undefined
    if (cluster !== undefined) await disconnectCluster(cluster)
  }
}

const READ_COMMITTED = 1
/** Five waits, 1.5 s in all. */
const FIRST_WAIT_MS = 50
const LONGEST_WAIT_MS = 800
/** Nothing is tried again after so long. */
const PATIENCE_MS = 8000

async function leaderOf(cluster: Cluster, { topic, partition }: TopicPartition): Promise<Broker> {
  await cluster.addTargetTopic(topic)
  const [nodeId] = Object.keys(cluster.findLeaderForPartitions(topic, [partition]))
  if (nodeId === undefined) throw new Outage('sink-denied', `${topic} has no partition ${partition}.`)
  return cluster.findBroker({ nodeId })
}

async function coordinatorOf(cluster: Cluster, groupId: string): Promise<Broker> {
  const { coordinator } = await cluster.findGroupCoordinatorMetadata({ groupId })
  return cluster.findBroker({ nodeId: coordinator.nodeId })
}

async function offsetAt(
  cluster: Cluster,
  { topic, partition }: TopicPartition,
  fromBeginning: boolean,
): Promise<bigint> {
  const [answer] = await cluster.fetchTopicsOffset([{ topic, partitions: [{ partition }], fromBeginning }])
  const offset = answer?.partitions[0]?.offset
  if (offset === undefined) throw new Outage('sink-unavailable', 'The broker told no offset.')
  return BigInt(offset)
}

async function fetchSome(
  cluster: Cluster,
  place: TopicPartition,
  from: bigint,
  limits: FetchLimits,
): Promise<FetchedRecords> {
  const broker = await leaderOf(cluster, place)
  for (let at = from; ;) {
    let found: FetchedRecords
    try {
      found = readableOf(await fetchPage(broker, place, at, limits), place, at, limits.maxRecords)
    } catch (error) {
      if (!isOutOfRange(error)) throw error
      const first = await offsetAt(cluster, place, true)
      if (first <= at) throw beyondEnd(place, at, error)
      at = first
      continue
    }
    // Markers and aborted records alone: something may stand behind them.
    if (found.records.length > 0 || found.next === at || found.next >= found.end) return found
    at = found.next
  }
}

async function fetchPage(
  broker: Broker,
  { topic, partition }: TopicPartition,
  at: bigint,
  { maxBytes }: FetchLimits,
): Promise<FetchedPartition> {
  const { responses } = await broker.fetch({
    isolationLevel: READ_COMMITTED,
    // Answered at once, with at least one whole batch where there is one.
    maxWaitTime: 0,
    minBytes: 1,
    maxBytes,
    topics: [{ topic, partitions: [{ partition, fetchOffset: String(at), maxBytes }] }],
  })
  const page = responses[0]?.partitions[0]
  if (page === undefined) throw new Outage('sink-unavailable', 'The broker left the partition out.')
  return page
}

/** What of a page is committed: aborted records are marked as markers are (kafka-repairs.ts). */
function readableOf(
  page: FetchedPartition,
  place: TopicPartition,
  from: bigint,
  maxRecords: number,
): FetchedRecords {
  const end = BigInt(page.lastStableOffset)
  const records: SourceRecord[] = []
  let next = from
  for (const raw of page.messages) {
    const batch = batchOf(raw, place)
    const offset = BigInt(raw.offset)
    if (!raw.isControlRecord && offset >= from) {
      if (records.length === maxRecords) return { records, next, end }
      records.push(recordOf(raw, batch, place))
    }
    // Up to a record that was taken or is none of ours; behind a batch's last record, behind all of the batch.
    if (offset >= next) next = offset + 1n
  }
  const lastBatch = page.messages.at(-1)?.batchContext
  if (lastBatch !== undefined) {
    const behind = BigInt(lastBatch.firstOffset) + BigInt(lastBatch.lastOffsetDelta) + 1n
    if (behind > next) next = behind
  }
  return { records, next, end }
}

function batchOf({ batchContext, offset }: FetchedRecord, place: TopicPartition): BatchContext {
  if (batchContext !== undefined) return batchContext
  const reason = `${nameOf(place)} at offset ${offset} is in a format from before Kafka 0.11, which is not read.`
  throw new Outage('sink-denied', reason)
}

const LOG_APPEND_TIME = 1

function recordOf(
  { offset, timestamp, key, value, headers }: FetchedRecord,
  batch: BatchContext,
  { topic, partition }: TopicPartition,
): SourceRecord {
  return {
    topic,
    partition,
    offset: BigInt(offset),
    timestamp: Number(timestamp),
    timestampType: batch.timestampType === LOG_APPEND_TIME ? 'LogAppendTime' : 'CreateTime',
    key,
    value,
    headers: kept.get(headers) ?? [],
  }
}

interface RawHeader {
  readonly key: string
  readonly value: Buffer | null
}

/** A record's headers in their own order and as often as they came, by what kafkajs makes of them. */
const kept = new WeakMap<object, readonly Header[]>()

let keeping = false

/**
 * kafkajs makes an object of a record's headers: numbers first, in time that grows with the square of their number, and
 * beginning from what every object inherits (`constructor`). Here the same object is made of its own entries alone, and
 * the headers are kept beside it.
 */
function keepHeaders(): void {
  if (keeping) return
  keeping = true
  const { readVarIntArray: read } = Decoder.prototype
  Decoder.prototype.readVarIntArray = function (readOne) {
    const list = read.call(this, readOne)
    Object.defineProperty(list, 'reduce', { value: () => headerObject(list) })
    return list
  }
}

function headerObject(list: readonly unknown[]): object {
  const headers = list.filter(isRawHeader)
  const grouped = Map.groupBy(headers, ({ key }) => key)
  const object = Object.fromEntries(
    Array.from(grouped, ([key, same]) => [
      key,
      same.length === 1 ? same[0]?.value : same.map(({ value }) => value),
    ]),
  )
  kept.set(
    object,
    headers.map(({ key, value }) => ({ name: key, value })),
  )
  return object
}

const isRawHeader = (item: unknown): item is RawHeader =>
  typeof item === 'object' && item !== null && 'key' in item && 'value' in item

const isOutOfRange = (error: unknown): boolean =>
  error instanceof Error && 'type' in error && error.type === 'OFFSET_OUT_OF_RANGE'

function beyondEnd(place: TopicPartition, at: bigint, cause: unknown): Outage {
  const reason = `Offset ${at} of ${nameOf(place)} lies beyond its end: the topic was made anew, or its records were lost.`
  return new Outage('position-damaged', `${reason} Set the group's offset by name.`, { cause })
}

const nameOf = ({ topic, partition }: TopicPartition): string => `${topic}-${partition}`
