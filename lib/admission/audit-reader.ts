/** Reads the audit up to where a position says that it reaches, for what an operator does to a source partition. */
import type { AuditTrust } from '../audit/follower.ts'
import { Outage } from '../errors.ts'
import type { RecordReader, SourceRecord, TopicPartition } from '../ports.ts'
import type { IngestParts } from './slice.ts'

const PAGE = { maxBytes: 4_194_304, maxRecords: 10_000 }
/** A transaction that was left open hides what is behind it for its time-out (15 s) and until the broker's next look. */
const VISIBLE_MS = 40_000
const POLL_MS = 20

/** Whose segments count: this gateway's keys, as the directory has them now. A compromised key's could be of any date. */
export async function auditTrustOf(parts: IngestParts, deadline: number): Promise<AuditTrust> {
  const { snapshot } = await parts.directory.snapshot(deadline)
  const { deployment, name } = parts.settings
  return {
    deployment,
    keyOf: (kid) => {
      const row = snapshot.signingKey(kid)
      const isSound = row?.compromisedAt === null && (row.state === 'active' || row.state === 'deactivated')
      return row?.iss === name && isSound ? row.key : undefined
    },
  }
}

/** Each partition of the audit topic is read once, from its beginning, as far as it is needed. */
export class AuditReader {
  readonly #topic: string
  readonly #parts: IngestParts
  readonly #reader: RecordReader
  readonly #take: (page: readonly SourceRecord[]) => Promise<void>
  /** Told how many records were read so far. */
  readonly #onProgress: (records: number) => void
  readonly #next = new Map<number, bigint>()
  #read = 0

  constructor(
    parts: IngestParts,
    reader: RecordReader,
    take: (page: readonly SourceRecord[]) => Promise<void>,
    onProgress: (records: number) => void,
  ) {
    this.#topic = parts.settings.outlet.auditTopic
    this.#parts = parts
    this.#reader = reader
    this.#take = take
    this.#onProgress = onProgress
  }

  /**
   * Reads on until `isEnough`. At the end it waits: what is committed may still be hidden by another's open transaction.
   * Rejects with `Outage('position-damaged')` where it does not come.
   */
  async read(source: TopicPartition, partition: number, isEnough: () => boolean): Promise<void> {
    const { clock } = this.#parts
    let until: number | undefined
    while (!isEnough()) {
      if (await this.#readPage(partition)) {
        until = undefined
        continue
      }
      until ??= clock.now() + VISIBLE_MS
      if (clock.now() >= until) throw cutShort(source)
      await new Promise((resolve) => setTimeout(resolve, POLL_MS))
    }
  }

  /** Reads on up to an offset that was an end, or until `isEnough`. */
  async readTo(
    source: TopicPartition,
    partition: number,
    end: bigint,
    isEnough: () => boolean = () => false,
  ): Promise<void> {
    await this.read(source, partition, () => isEnough() || (this.#next.get(partition) ?? 0n) >= end)
  }

  /** Reads on in every partition, as far as it is written now. */
  async readAll(source: TopicPartition): Promise<void> {
    const partitions = await this.#reader.partitions(this.#topic)
    for (let partition = 0; partition < partitions; partition++)
      await this.readTo(source, partition, await this.#reader.writtenEnd({ topic: this.#topic, partition }))
  }

  async #readPage(partition: number): Promise<boolean> {
    const place = { topic: this.#topic, partition }
    const from = this.#next.get(partition) ?? 0n
    const { records, next } = await this.#reader.fetch(place, from, PAGE)
    await this.#take(records)
    this.#next.set(partition, next)
    this.#read += records.length
    this.#onProgress(this.#read)
    return next > from
  }
}

function cutShort({ topic, partition }: TopicPartition): Outage {
  const what = `The audit of ${topic}-${partition} does not come to the segment that its position names.`
  return new Outage('position-damaged', `${what} See what sealgate audit verify finds.`)
}
