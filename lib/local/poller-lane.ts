/** One sequence of a poller: gathers the records of its partitions, has them decided, commits (poller.ts). */
import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { nameOf } from '../adapters/msk-event.ts'
import type { EventOrigin } from '../adapters/msk-event.ts'
import type { RecordReader, TopicPartition } from '../ports.ts'
import { Gathering, MAX_EVENT_BYTES, eventJson, failedItems, failureRecord, itemOf } from './event-batch.ts'
import type { FailureCondition, FailureRecord, Item } from './event-batch.ts'
import { functionArnOf, invokeJson } from './invocation.ts'
import type { LambdaHandler } from './invocation.ts'

/** What is polled: the embedded log, or a cluster. Any rejection is tried again later. */
export interface PolledSource extends Pick<RecordReader, 'partitions' | 'fetch'> {
  groupOffset(group: string, place: TopicPartition): Promise<bigint | undefined>
  commitGroup(group: string, place: TopicPartition, offset: bigint): Promise<void>
  /** Waits until one of the places has more to read, or the deadline (ms since 1970). Without it the poller looks every 100 ms. */
  wait?(places: readonly (TopicPartition & { readonly offset: bigint })[], deadline: number): Promise<unknown>
}

/** The same, where a reader must know how far a topic reaches. */
export interface ReadableSource extends PolledSource, RecordReader {}

/** A poller's settings, defaults filled in, and what its lanes share. */
export interface LanePlan {
  readonly source: PolledSource
  readonly group: string
  readonly handler: LambdaHandler
  readonly batchSize: number
  readonly batchingWindowMs: number
  /** Infinity: endless. */
  readonly maxRetries: number
  /** Infinity: any age. */
  readonly maxAgeMs: number
  readonly bisect: boolean
  readonly reportItemFailures: boolean
  readonly onFailure: ((record: FailureRecord) => Promise<void> | void) | undefined
  readonly functionTimeoutMs: number
  readonly functionName: string
  readonly origin: EventOrigin
  readonly backoffMs: { readonly initial: number; readonly max: number }
  readonly stop: AbortController
  readonly stats: {
    invocations: number
    failures: number
    retries: number
    records: number
    discarded: number
    lastError: unknown
  }
}

/** A partition of a lane. */
export interface LanePartition {
  readonly place: TopicPartition
  /** Where the next fetch reads on. */
  position: bigint
  /** The source's end when it was last asked. */
  end: bigint
  /** Fetched, and not yet in a batch. */
  readonly waiting: Item[]
}

/** Records that are invoked together, and what became of them so far. */
interface Part {
  readonly items: readonly Item[]
  readonly invoked: number
  readonly retries: number
  /** Failures in a row without progress: the wait before a retry grows with them. */
  readonly stuck: number
  /** Whether the last invocation threw or ran out of time, rather than answered. */
  readonly functionError: boolean
}

/** A batch's records of one partition, in order: nothing behind an undecided one is committed. */
interface Flight {
  readonly partition: LanePartition
  readonly items: Item[]
  readonly done: Set<Item>
  head: number
}

/** Base64 grows by a third: no more raw bytes than this fit an event. */
const FETCH_BYTES = (MAX_EVENT_BYTES / 4) * 3
const IDLE_WAIT_MS = 500
const LOOK_AGAIN_MS = 100

export class Lane {
  readonly #partitions: readonly LanePartition[]
  readonly #plan: LanePlan
  #turn = 0
  #watchers: ((empty: boolean) => void)[] = []

  constructor(partitions: readonly LanePartition[], plan: LanePlan) {
    this.#partitions = partitions
    this.#plan = plan
  }

  /** Until the plan's stop. Never rejects. */
  async run(): Promise<void> {
    while (!this.#stopped()) await this.#deliver(await this.#gather())
    for (const tell of this.#watchers.splice(0)) tell(false)
  }

  /** Resolves to true once a look at every partition, begun after the call, has found nothing left to do; to false at the stop. */
  async empty(): Promise<boolean> {
    if (this.#stopped()) return false
    return new Promise((resolve) => this.#watchers.push(resolve))
  }

  #stopped(): boolean {
    return this.#plan.stop.signal.aborted
  }

  async #gather(): Promise<readonly Item[]> {
    const { batchSize, origin, batchingWindowMs } = this.#plan
    const gathering = new Gathering(batchSize, origin)
    let windowEnd = Infinity
    this.#turn = (this.#turn + 1) % this.#partitions.length
    for (;;) {
      const watchers = this.#watchers.splice(0)
      const look = await this.#look(gathering)
      const gathered = gathering.items.length > 0
      if (look === 'nothing' && !gathered) for (const tell of watchers) tell(true)
      else this.#watchers.unshift(...watchers)
      if (look === 'full' || this.#stopped()) return gathering.items
      if (gathered) windowEnd = Math.min(windowEnd, performance.now() + batchingWindowMs)
      const left = windowEnd - performance.now()
      if (look === 'more') continue
      if (left <= 0) return gathering.items
      // What is held would end the wait for more data at once.
      if (look === 'held') await this.#pause(Math.min(left, LOOK_AGAIN_MS))
      else await this.#waitForMore(Math.min(left, IDLE_WAIT_MS))
    }
  }

  /**
   * Takes what is there, beginning with another partition for each batch. `full`: no more fits; `more`: look again at once;
   * `held`: something that cannot be had or sent for now; `nothing`: every partition is at its end.
   */
  async #look(gathering: Gathering): Promise<'full' | 'more' | 'held' | 'nothing'> {
    let more = false
    let held = false
    for (let index = 0; index < this.#partitions.length; index++) {
      const partition = this.#partitions[(this.#turn + index) % this.#partitions.length]
      if (partition === undefined) continue
      const before = partition.position
      if (partition.waiting.length === 0 && !(await this.#fetch(partition, gathering.room))) held = true
      gathering.takeFrom(partition.waiting)
      if (gathering.room === 0) return 'full'
      if (partition.waiting.length > 0) {
        if (gathering.items.length > 0) return 'full'
        if (await this.#discardOversize(partition)) more = true
        else held = true
      } else if (partition.position < partition.end) {
        if (partition.position > before) more = true
        else held = true
      }
    }
    return more ? 'more' : held ? 'held' : 'nothing'
  }

  async #fetch(partition: LanePartition, maxRecords: number): Promise<boolean> {
    try {
      const limits = { maxBytes: FETCH_BYTES, maxRecords }
      const { records, next, end } = await this.#plan.source.fetch(
        partition.place,
        partition.position,
        limits,
      )
      partition.waiting.push(...records.map(itemOf))
      partition.position = next
      partition.end = end
      return true
    } catch (error) {
      this.#plan.stats.lastError = error
      return false
    }
  }

  /** A record too large for any event: to the destination; without one its partition is held, not silently shortened. */
  async #discardOversize(partition: LanePartition): Promise<boolean> {
    const [item] = partition.waiting
    if (item === undefined) return false
    if (this.#plan.onFailure === undefined) {
      this.#plan.stats.lastError = new RangeError(
        `${item.name} at offset ${item.record.offset} makes an event of more than ${MAX_EVENT_BYTES} bytes: it waits for an on-failure destination.`,
      )
      return false
    }
    const part = { items: [item], invoked: 0, retries: 0, stuck: 0, functionError: false }
    if (!(await this.#discard(part, 'MaximumPayloadSizeExceeded', this.#flightsOf([item])))) return false
    partition.waiting.shift()
    return true
  }

  async #deliver(batch: readonly Item[]): Promise<void> {
    const flights = this.#flightsOf(batch)
    const work: Part[] = [{ items: batch, invoked: 0, retries: 0, stuck: 0, functionError: false }]
    for (let next = work.pop(); next !== undefined && !this.#stopped(); next = work.pop()) {
      const part = await this.#withoutOld(next, flights)
      if (part.items.length === 0 || this.#stopped()) continue
      const after = await this.#invoke(part)
      const failed = new Set(after.items)
      await this.#settle(
        part.items.filter((item) => !failed.has(item)),
        flights,
        'records',
      )
      if (failed.size === 0) continue
      this.#plan.stats.failures++
      if (this.#plan.bisect && after.functionError && failed.size > 1) {
        const middle = Math.ceil(failed.size / 2)
        // Halving spends no retry, as AWS documents for streams; the first half comes off the stack first.
        const half = { ...after, retries: part.retries, stuck: 0 }
        work.push(
          { ...half, items: after.items.slice(middle) },
          { ...half, items: after.items.slice(0, middle) },
        )
      } else if (after.retries > this.#plan.maxRetries) {
        await this.#discard(after, 'RetryAttemptsExhausted', flights)
      } else {
        work.push(after)
        await this.#backOff(after.stuck)
      }
    }
  }

  /** The part as it is after one more invocation: with only the records that have failed. */
  async #invoke(part: Part): Promise<Part> {
    const { handler, origin, stats, functionTimeoutMs, functionName, reportItemFailures } = this.#plan
    stats.invocations++
    if (part.invoked > 0) stats.retries++
    const after = { ...part, invoked: part.invoked + 1, retries: part.retries + 1, stuck: part.stuck + 1 }
    try {
      const json = eventJson(part.items, origin)
      const answer = await invokeJson(handler, json, { timeoutMs: functionTimeoutMs, functionName })
      if (!reportItemFailures) return { ...after, items: [], functionError: false }
      const failed = failedItems(answer, part.items)
      if (failed === 'malformed') {
        stats.lastError = new TypeError('The partial answer is malformed: the whole batch counts as failed.')
        return { ...after, functionError: false }
      }
      const stuck = failed.length < part.items.length ? 0 : after.stuck
      return { ...after, items: failed, stuck, functionError: false }
    } catch (error) {
      stats.lastError = error
      return { ...after, functionError: true }
    }
  }

  async #withoutOld(part: Part, flights: ReadonlyMap<string, Flight>): Promise<Part> {
    const oldest = Date.now() - this.#plan.maxAgeMs
    const old = part.items.filter(({ record }) => record.timestamp < oldest)
    if (old.length === 0) return part
    await this.#discard({ ...part, items: old }, 'RecordAgeExceeded', flights)
    return { ...part, items: part.items.filter(({ record }) => record.timestamp >= oldest) }
  }

  /** Gives records up. False where the stop came before the destination had taken them: then they are read again next time. */
  async #discard(
    part: Part,
    condition: FailureCondition,
    flights: ReadonlyMap<string, Flight>,
  ): Promise<boolean> {
    const { onFailure, origin, functionName } = this.#plan
    if (onFailure !== undefined) {
      const record = failureRecord(part.items, origin, {
        requestContext: {
          requestId: randomUUID(),
          functionArn: functionArnOf(functionName),
          condition,
          approximateInvokeCount: part.invoked,
        },
        responseContext:
          part.invoked === 0
            ? null
            : {
                statusCode: 200,
                executedVersion: '$LATEST',
                ...(part.functionError && { functionError: 'Unhandled' }),
              },
      })
      if (!(await this.#insist(async () => onFailure(record)))) return false
    }
    await this.#settle(part.items, flights, 'discarded')
    return true
  }

  /** Records are done, one way or the other: commits each partition up to its first that is not. */
  async #settle(
    items: readonly Item[],
    flights: ReadonlyMap<string, Flight>,
    as: 'records' | 'discarded',
  ): Promise<void> {
    for (const item of items) flights.get(item.name)?.done.add(item)
    this.#plan.stats[as] += items.length
    await Promise.all(Array.from(flights.values(), (flight) => this.#commit(flight)))
  }

  async #commit(flight: Flight): Promise<void> {
    const { partition, items, done } = flight
    let last: Item | undefined
    for (let item = items[flight.head]; item !== undefined && done.has(item); item = items[flight.head]) {
      last = item
      flight.head++
    }
    if (last === undefined) return
    const next = last.record.offset + 1n
    await this.#insist(() => this.#plan.source.commitGroup(this.#plan.group, partition.place, next))
  }

  #flightsOf(batch: readonly Item[]): ReadonlyMap<string, Flight> {
    const byName = Map.groupBy(batch, ({ name }) => name)
    const flown = this.#partitions.flatMap((partition): [string, Flight][] => {
      const name = nameOf(partition.place)
      const items = byName.get(name)
      return items === undefined ? [] : [[name, { partition, items, done: new Set(), head: 0 }]]
    })
    return new Map(flown)
  }

  /** Tries until it is done (true) or the poller stops (false). */
  async #insist(act: () => Promise<void>): Promise<boolean> {
    for (let tries = 1; ; tries++) {
      try {
        await act()
        return true
      } catch (error) {
        this.#plan.stats.lastError = error
        if (this.#stopped()) return false
        await this.#backOff(tries)
      }
    }
  }

  async #backOff(times: number): Promise<void> {
    const { initial, max } = this.#plan.backoffMs
    await this.#pause(Math.min(max, initial * 2 ** (times - 1)))
  }

  async #waitForMore(ms: number): Promise<void> {
    const { source, stop, stats } = this.#plan
    if (source.wait === undefined) {
      await this.#pause(Math.min(ms, LOOK_AGAIN_MS))
      return
    }
    const stopped = Promise.withResolvers<undefined>()
    const onStop = (): void => stopped.resolve(undefined)
    stop.signal.addEventListener('abort', onStop)
    try {
      const places = this.#partitions.map(({ place, position }) => ({ ...place, offset: position }))
      await Promise.race([stopped.promise, source.wait(places, Date.now() + ms)])
    } catch (error) {
      stats.lastError = error
      await this.#pause(LOOK_AGAIN_MS)
    } finally {
      stop.signal.removeEventListener('abort', onStop)
    }
  }

  /** Waits, less where the poller stops. */
  async #pause(ms: number): Promise<void> {
    await sleep(ms, undefined, { signal: this.#plan.stop.signal }).catch(() => undefined)
  }
}
