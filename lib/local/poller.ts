/**
 * What Lambda's event source mapping for Kafka does, over anything that can be read like a Kafka topic: gathers records
 * into events, invokes the function, retries, halves, honours partial answers, discards, and commits the group's offsets
 * only after that. It follows AWS's documents (components.md, last section); where they are silent the doc comments say
 * what was chosen. At least once, in order within a partition.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { EventOrigin } from '../adapters/msk-event.ts'
import { ConfigError, Outage } from '../errors.ts'
import type { Fault } from '../errors.ts'
import type { RecordReader, TopicPartition } from '../ports.ts'
import type { FailureRecord } from './event-batch.ts'
import type { LambdaHandler } from './invocation.ts'
import type { Log } from './log.ts'
import { Lane } from './poller-lane.ts'
import type { LanePartition, LanePlan, PolledSource, ReadableSource } from './poller-lane.ts'

/** Named as in AWS's CreateEventSourceMapping, with the unit in the name. Defaults are Lambda's, but where said. */
export interface PollerOptions {
  /** Records in one event: 1 to 10,000; default 100. */
  readonly batchSize?: number
  /** How long to gather from the first record on: 0 to 300,000; default 500. */
  readonly batchingWindowMs?: number
  /** Where a group without offsets begins; the place is committed at the start. Default `earliest`. */
  readonly startingPosition?: 'earliest' | 'latest'
  /** 0 to 10,000, or -1, endless, the default. With `onFailure` set AWS documents that -1 means 10. */
  readonly maximumRetryAttempts?: number
  /** 60 to 604,800, or -1, any age, the default. Older records are discarded, even before their first invocation. */
  readonly maximumRecordAgeInSeconds?: number
  /** Halves a failed batch; halving does not count as a retry (documented for streams). Default false. */
  readonly bisectBatchOnFunctionError?: boolean
  /** Whether partial answers are read. Without it any answer is success, a partial one too. Default false. */
  readonly reportBatchItemFailures?: boolean
  /** The on-failure destination. Without it what is given up is lost. A rejection is tried again until it is taken. */
  readonly onFailure?: (record: FailureRecord) => Promise<void> | void
  /** The function's time-out: 1 to 840,000, Lambda's bound for Kafka; default 60,000. */
  readonly functionTimeoutMs?: number
  readonly functionName?: string
  /** Sequences side by side, the partitions dealt out among them: 1 to 1,024; default 1. */
  readonly concurrency?: number
  readonly origin?: EventOrigin
  /** The wait before a retry doubles from `initial` to `max`. Ours: AWS does not say. Default 100, 10,000. */
  readonly backoffMs?: { readonly initial: number; readonly max: number }
}

export interface PollerSettings {
  readonly source: PolledSource
  readonly group: string
  readonly topics: readonly string[]
  readonly handler: LambdaHandler
  readonly options?: PollerOptions
}

export interface PollerStats {
  /** Calls of the function. */
  readonly invocations: number
  /** Invocations that failed, wholly or in part. */
  readonly failures: number
  /** Invocations with records that had failed before. */
  readonly retries: number
  /** Records done: the function took them. */
  readonly records: number
  /** Records given up: sent to the on-failure destination, or lost. */
  readonly discarded: number
  /** What the last failure of function, source or destination was; undefined where there was none. */
  readonly lastError: unknown
}

export interface Poller {
  stats(): PollerStats
  /** Resolves to true once all that was in the topics at the call is done and committed, to false at the time-out or stop. */
  drained(timeoutMs: number): Promise<boolean>
  /** Begins nothing more and waits for the invocation at hand, at most the function's time-out. What was not done is read again next time. */
  stop(): Promise<void>
}

/**
 * Starts polling. Rejects with `ConfigError` naming every bad setting, or as the source does while partitions and their
 * starting places are looked up; partitions added later are not seen. After that failures are tried again, and show in `stats`.
 */
export async function startPoller(settings: PollerSettings): Promise<Poller> {
  const plan = planOf(settings)
  const partitions = (await Promise.all(settings.topics.map((topic) => partitionsOf(topic, settings)))).flat()
  const count = Math.min(settings.options?.concurrency ?? 1, partitions.length)
  const lanes = Array.from(
    { length: count },
    (_, lane) =>
      new Lane(
        partitions.filter((_partition, index) => index % count === lane),
        plan,
      ),
  )
  const ended = Promise.all(lanes.map((lane) => lane.run()))
  return {
    stats: () => ({ ...plan.stats }),
    drained: async (timeoutMs) => {
      const timer = new AbortController()
      const late = sleep(timeoutMs, false, { signal: timer.signal }).catch(() => false)
      const empty = Promise.all(lanes.map((lane) => lane.empty())).then((each) => each.every(Boolean))
      const drained = await Promise.race([empty, late])
      timer.abort()
      return drained
    },
    stop: async () => {
      plan.stop.abort()
      await ended
    },
  }
}

/** The embedded log as the poller's source. */
export function polledLog(log: Log): ReadableSource & RecordReader {
  return {
    partitions: async (topic) => (await log.endOffsets(topic)).length,
    fetch: ({ topic, partition }, from, limits) => log.read(topic, partition, from, limits),
    offsets: async ({ topic, partition }) => {
      const end = (await log.endOffsets(topic))[partition]
      if (end === undefined) throw new Outage('sink-denied', `${topic} has no partition ${partition}.`)
      return { first: 0n, end }
    },
    // What is not committed stands nowhere yet.
    writtenEnd: async ({ topic, partition }) => (await log.endOffsets(topic))[partition] ?? 0n,
    groupOffset: async (group, { topic, partition }) =>
      (await log.groupOffset(group, topic, partition))?.next,
    commitGroup: (group, { topic, partition }, next) =>
      log.commitGroup([{ group, topic, partition, next, metadata: new Uint8Array() }]),
    wait: (places, deadline) => log.waitForData(places, deadline),
  }
}

/** A cluster that is not there: what the embedded stack's events say they come from. */
export const LOCAL_ORIGIN: EventOrigin = {
  eventSourceArn:
    'arn:aws:kafka:eu-west-1:000000000000:cluster/sealgate-local/00000000-0000-0000-0000-000000000000-1',
  bootstrapServers: 'localhost:9092',
}

/** AWS: "When you configure both infinite retries and an on-failure destination, Lambda automatically applies a maximum of 10". */
const RETRIES_WITH_DESTINATION = 10

function planOf({ source, group, topics, handler, options = {} }: PollerSettings): LanePlan {
  const {
    batchSize = 100,
    batchingWindowMs = 500,
    maximumRetryAttempts = -1,
    maximumRecordAgeInSeconds = -1,
    functionTimeoutMs = 60_000,
    concurrency = 1,
    backoffMs = { initial: 100, max: 10_000 },
    onFailure,
  } = options
  const faults: Fault[] = []
  const check = (where: string, value: number, low: number, high: number, endless = false): void => {
    if ((Number.isInteger(value) && value >= low && value <= high) || (endless && value === -1)) return
    const fix = `Give a whole number from ${low} to ${high}${endless ? ', or -1 for no bound' : ''}.`
    faults.push({ where, what: `${value} is not possible.`, fix })
  }
  check('batchSize', batchSize, 1, 10_000)
  check('batchingWindowMs', batchingWindowMs, 0, 300_000)
  check('maximumRetryAttempts', maximumRetryAttempts, 0, 10_000, true)
  check('maximumRecordAgeInSeconds', maximumRecordAgeInSeconds, 60, 604_800, true)
  check('functionTimeoutMs', functionTimeoutMs, 1, 840_000)
  check('concurrency', concurrency, 1, 1_024)
  check('backoffMs.initial', backoffMs.initial, 1, 3_600_000)
  check('backoffMs.max', backoffMs.max, 1, 3_600_000)
  if (topics.length === 0 || new Set(topics).size < topics.length) {
    faults.push({
      where: 'topics',
      what: 'is empty or names a topic twice.',
      fix: 'Name each source topic once.',
    })
  }
  if (faults.length > 0) throw new ConfigError(faults)
  const endless = onFailure === undefined ? Infinity : RETRIES_WITH_DESTINATION
  return {
    source,
    group,
    handler,
    batchSize,
    batchingWindowMs,
    maxRetries: maximumRetryAttempts === -1 ? endless : maximumRetryAttempts,
    maxAgeMs: maximumRecordAgeInSeconds === -1 ? Infinity : maximumRecordAgeInSeconds * 1000,
    bisect: options.bisectBatchOnFunctionError ?? false,
    reportItemFailures: options.reportBatchItemFailures ?? false,
    onFailure,
    functionTimeoutMs,
    functionName: options.functionName ?? 'ingest',
    origin: options.origin ?? LOCAL_ORIGIN,
    backoffMs,
    stop: new AbortController(),
    stats: { invocations: 0, failures: 0, retries: 0, records: 0, discarded: 0, lastError: undefined },
  }
}

async function partitionsOf(
  topic: string,
  { source, group, options }: PollerSettings,
): Promise<LanePartition[]> {
  const count = await source.partitions(topic)
  return Promise.all(
    Array.from({ length: count }, async (_, partition) => {
      const place: TopicPartition = { topic, partition }
      const committed = await source.groupOffset(group, place)
      const position = committed ?? (await startOf(place, source, options?.startingPosition))
      if (committed === undefined) await source.commitGroup(group, place, position)
      return { place, position, end: position, waiting: [] }
    }),
  )
}

async function startOf(
  place: TopicPartition,
  source: PolledSource,
  startingPosition: PollerOptions['startingPosition'] = 'earliest',
): Promise<bigint> {
  if (startingPosition === 'earliest') return 0n
  const { end } = await source.fetch(place, 0n, { maxBytes: 1, maxRecords: 1 })
  return end
}
