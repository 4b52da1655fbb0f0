/** One partition of the embedded log: where its records stand in the journal, how they are written, read and bounded. */
import { ConfigError, Outage } from '../errors.ts'
import type { SourceRecord } from '../ports.ts'
import { batchBytes } from '../ports.ts'
import { ByteReader, type ByteWriter, MAX_U48 } from './log-bytes.ts'
import type { NewMessage, Place, ReadLimits, ReadResult, Topic, TopicSettings } from './log.ts'
import { DEFAULT_MAX_MESSAGE_BYTES, MAX_BATCH_BYTES } from './log.ts'

/** Largest `maxMessageBytes` of a topic, and largest answer to a read. */
const MAX_READ_BYTES = 8 * 1024 * 1024
const MAX_PARTITIONS = 1024
/** Records are kept and found in chunks of about this size: the index in memory holds one entry for each. */
const CHUNK_BYTES = 64 * 1024

export interface Partition {
  readonly topic: Topic
  readonly partition: number
  /** The next offset to give out; ahead of `end` while writes are under way. */
  assigned: number
  /** Below it all is durable and visible. */
  end: number
  /** For each chunk: its first offset, where its records begin in the journal, their bytes together. */
  readonly bases: number[]
  readonly positions: number[]
  readonly lengths: number[]
}

export function newPartitions(topic: Topic): Partition[] {
  return Array.from({ length: topic.partitions }, (_, partition) => {
    return { topic, partition, assigned: 0, end: 0, bases: [], positions: [], lengths: [] }
  })
}

/** Refuses what the partition would not take. Returns the message's `batchBytes`. */
export function checkMessage({ topic }: Partition, message: NewMessage): number {
  const bytes = batchBytes(message)
  if (bytes > topic.maxMessageBytes)
    throw tooLarge(`A message of ${bytes} bytes`, topic.maxMessageBytes, topic.name)
  if (message.timestamp !== undefined && !isU48(message.timestamp))
    throw new TypeError('A timestamp is a whole number of milliseconds since 1970.')
  return bytes
}

/**
 * Writes messages, each partition's in order, as chunks, which are to become a frame's entries; gives them their offsets.
 * `markers` is 1 for a transaction: as in Kafka, its end takes an offset in every partition it wrote to.
 */
export function writeChunks(
  writer: ByteWriter,
  entryKind: number,
  messages: readonly (readonly [Partition, NewMessage])[],
  markers: 0 | 1,
  now: number,
): Place[] {
  const byPartition = new Map<Partition, number[]>()
  messages.forEach(([to], index) => {
    const own = byPartition.get(to)
    if (own === undefined) byPartition.set(to, [index])
    else own.push(index)
  })
  const places: Place[] = []
  const assigned = new Map<Partition, number>()
  for (const [to, own] of byPartition) {
    const { topic, partition } = to
    let next = to.assigned
    for (let at = 0; at < own.length;) {
      writer.u8(entryKind)
      writer.text(topic.name)
      writer.u32(partition)
      writer.u48(next)
      const start = writer.length
      writer.u32(0)
      writer.u32(0)
      writer.u8(0)
      const first = at
      for (; at < own.length && writer.length - start < CHUNK_BYTES; at++) {
        const index = own[at] ?? 0
        const message = messages[index]?.[1]
        if (message === undefined) continue
        writer.record(message, topic.timestampType === 'CreateTime' ? (message.timestamp ?? now) : now)
        places[index] = { topic: topic.name, partition, offset: BigInt(next++) }
      }
      writer.putU32(start, writer.length - start - 9)
      writer.putU32(start + 4, at - first)
      writer.putU8(start + 8, at === own.length ? markers : 0)
    }
    assigned.set(to, next + markers)
  }
  // Only now: had anything thrown before, offsets would be given out that no record ever takes.
  for (const [to, next] of assigned) to.assigned = next
  return places
}

/** Takes a chunk into the index, its entry's kind being read already and `position` being where the reader's data stand. */
export function applyChunk(
  reader: ByteReader,
  position: number,
  find: (topic: string, partition: number) => Partition | undefined,
): void {
  const at = find(reader.text(), reader.u32())
  const base = reader.u48()
  const length = reader.u32()
  const count = reader.u32()
  const markers = reader.u8()
  if (at === undefined || base !== at.end) throw new RangeError(`a chunk at offset ${base} does not follow`)
  at.bases.push(base)
  at.positions.push(position + reader.skip(length))
  at.lengths.push(length)
  at.end = base + count + markers
  at.assigned = Math.max(at.assigned, at.end)
}

/** `Log.read`; `pread` reads the journal. */
export function readRecords(
  at: Partition,
  from: bigint,
  limits: ReadLimits,
  pread: (position: number, length: number) => Uint8Array,
): ReadResult {
  const { topic, partition } = at
  const end = BigInt(at.end)
  if (from < 0n || from > end) {
    const reason = `${JSON.stringify(topic.name)}-${partition} has offsets from 0 to ${end}, not ${from}.`
    throw new Outage('sink-unavailable', reason)
  }
  const maxBytes = Math.min(limits.maxBytes ?? 1_048_576, MAX_READ_BYTES)
  const maxRecords = limits.maxRecords ?? 10_000
  const records: SourceRecord[] = []
  let bytes = 0
  for (let index = chunkOf(at.bases, Number(from)); index < at.bases.length; index++) {
    const reader = new ByteReader(pread(at.positions[index] ?? 0, at.lengths[index] ?? 0))
    for (let offset = BigInt(at.bases[index] ?? 0); !reader.ended; offset++) {
      if (offset < from) {
        reader.skipRecord()
        continue
      }
      const fields = reader.record()
      bytes += batchBytes(fields)
      const full = records.length >= maxRecords || (records.length > 0 && bytes > maxBytes)
      if (full) return { records, next: offset, end }
      records.push({ topic: topic.name, partition, offset, timestampType: topic.timestampType, ...fields })
    }
  }
  return { records, next: end, end }
}

/** The last chunk that begins at or before `offset`; 0 where there is none. */
function chunkOf(bases: readonly number[], offset: number): number {
  let low = 0
  let high = bases.length
  while (low < high) {
    const middle = (low + high) >>> 1
    if ((bases[middle] ?? 0) <= offset) low = middle + 1
    else high = middle
  }
  return Math.max(low - 1, 0)
}

/** A topic as asked for, its settings filled in. All faults at once: `ConfigError`. */
export function checkedTopic(name: string, partitions: number, settings: TopicSettings): Topic {
  const { timestampType = 'LogAppendTime', maxMessageBytes = DEFAULT_MAX_MESSAGE_BYTES } = settings
  const where = `topic ${JSON.stringify(name.slice(0, 250))}`
  const wrong = (what: string, fix: string): { where: string; what: string; fix: string } => ({
    where,
    what,
    fix,
  })
  const faults = []
  if (!/^[a-zA-Z0-9._-]{1,249}$/.test(name) || name === '.' || name === '..')
    faults.push(wrong('This is no name for a topic.', 'Use 1 to 249 of a-z A-Z 0-9 . _ -'))
  if (!Number.isInteger(partitions) || partitions < 1 || partitions > MAX_PARTITIONS)
    faults.push(wrong(`It cannot have ${partitions} partitions.`, `Use 1 to ${MAX_PARTITIONS}.`))
  if (
    !Number.isInteger(maxMessageBytes) ||
    maxMessageBytes < MAX_BATCH_BYTES ||
    maxMessageBytes > MAX_READ_BYTES
  )
    faults.push(
      wrong(`maxMessageBytes cannot be ${maxMessageBytes}.`, `Use ${MAX_BATCH_BYTES} to ${MAX_READ_BYTES}.`),
    )
  if (faults.length > 0) throw new ConfigError(faults)
  return { name, partitions, timestampType, maxMessageBytes }
}

/** Refuses a topic that is there already with other settings: `ConfigError`. */
export function refuseOtherSettings(existing: Topic, wanted: Topic): void {
  const faults = (['partitions', 'timestampType', 'maxMessageBytes'] as const)
    .filter((key) => existing[key] !== wanted[key])
    .map((key) => ({
      where: `topic ${JSON.stringify(wanted.name)}`,
      what: `It is there already with ${key} ${existing[key]}, not ${wanted[key]}.`,
      fix: 'Keep what it has, or name another topic.',
    }))
  if (faults.length > 0) throw new ConfigError(faults)
}

/** What the log does not take for its size: nothing has moved. */
export function tooLarge(what: string, limit: number, topic?: string): Outage {
  const where = topic === undefined ? '' : ` to topic ${JSON.stringify(topic)}`
  return new Outage('sink-unavailable', `${what}${where}: the log takes at most ${limit}.`)
}

export function isU48(value: number): boolean {
  return Number.isInteger(value) && value >= 0 && value <= MAX_U48
}
