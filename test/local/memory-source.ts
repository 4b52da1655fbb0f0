/** A source in memory for the poller's tests: the same promises as a log, with switches for failing. */
import type { SourceRecord, TopicPartition } from '../../lib/ports.ts'
import type { PolledSource } from '../../lib/local/poller-lane.ts'

export class MemorySource implements PolledSource {
  readonly offsets = new Map<string, bigint>()
  /** Every commit, in order, as `topic-partition@offset`. */
  readonly commits: string[] = []
  /** Asked before each call: throwing makes it fail. */
  trouble: (call: 'fetch' | 'commit') => void = () => undefined
  fetches = 0
  readonly #topics = new Map<string, SourceRecord[][]>()
  readonly #sleepers = new Set<() => void>()

  create(topic: string, partitions: number): void {
    this.#topics.set(
      topic,
      Array.from({ length: partitions }, () => []),
    )
  }

  /** Appends; offsets continue unless the record names one, so that they may have gaps. */
  append(topic: string, partition: number, ...records: Partial<SourceRecord>[]): void {
    const log = this.#of({ topic, partition })
    for (const record of records) {
      const offset = (log.at(-1)?.offset ?? -1n) + 1n
      const rest = {
        timestamp: Date.now(),
        timestampType: 'CreateTime',
        key: null,
        value: null,
        headers: [],
      } as const
      log.push({ topic, partition, offset, ...rest, ...record })
    }
    for (const wake of this.#sleepers) wake()
  }

  async partitions(topic: string): Promise<number> {
    const partitions = this.#topics.get(topic)
    if (partitions === undefined) throw new Error(`no topic ${topic}`)
    return Promise.resolve(partitions.length)
  }

  async fetch(
    place: TopicPartition,
    from: bigint,
    { maxBytes, maxRecords }: { maxBytes: number; maxRecords: number },
  ): ReturnType<PolledSource['fetch']> {
    this.fetches++
    await Promise.resolve()
    this.trouble('fetch')
    const log = this.#of(place)
    const records: SourceRecord[] = []
    let bytes = 0
    for (const record of log.filter(({ offset }) => offset >= from).slice(0, maxRecords)) {
      bytes += record.value?.length ?? 0
      if (records.length > 0 && bytes > maxBytes) break
      records.push(record)
    }
    const last = records.at(-1)
    return {
      records,
      next: last === undefined ? from : last.offset + 1n,
      end: (log.at(-1)?.offset ?? -1n) + 1n,
    }
  }

  async groupOffset(group: string, { topic, partition }: TopicPartition): Promise<bigint | undefined> {
    return Promise.resolve(this.offsets.get(`${group}/${topic}-${partition}`))
  }

  async commitGroup(group: string, { topic, partition }: TopicPartition, offset: bigint): Promise<void> {
    await Promise.resolve()
    this.trouble('commit')
    this.offsets.set(`${group}/${topic}-${partition}`, offset)
    this.commits.push(`${topic}-${partition}@${offset}`)
  }

  async wait(places: readonly (TopicPartition & { offset: bigint })[], deadline: number): Promise<void> {
    if (places.some((place) => (this.#of(place).at(-1)?.offset ?? -1n) >= place.offset)) return
    await new Promise<void>((resolve) => {
      const wake = (): void => {
        clearTimeout(timer)
        this.#sleepers.delete(wake)
        resolve()
      }
      const timer = setTimeout(wake, Math.max(0, deadline - Date.now()))
      this.#sleepers.add(wake)
    })
  }

  #of({ topic, partition }: TopicPartition): SourceRecord[] {
    const log = this.#topics.get(topic)?.[partition]
    if (log === undefined) throw new Error(`no partition ${topic}-${partition}`)
    return log
  }
}
