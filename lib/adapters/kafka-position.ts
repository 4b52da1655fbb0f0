/**
 * A position as Kafka keeps it (exactly-once.md §2): in the metadata of the offsets of a shadow group that nobody joins,
 * and of up to seven more for what one offset's metadata cannot hold. Each is base64url of deterministic CBOR:
 *
 *     the group itself   [version, written, number of further parts, SHA-256 over group, source, offset and state, bytes]
 *     group.1 to .7      [version, written, bytes]
 *
 * `written` is in seconds since 1970. Offsets without a member expire (`offsets.retention.minutes`, by default after seven
 * days of quiet), so a part that stays the same is written again after a day.
 */
import { CborError, CborReader, CborWriter, encodeCbor, MAJOR } from '../cbor.ts'
import { digest } from '../envelope/crypto.ts'
import { Outage } from '../errors.ts'
import type { Position, TopicPartition } from '../ports.ts'

const VERSION = 1
const MAX_FURTHER = 7
/** UTF-16 units: a broker's own limit (`offset.metadata.max.bytes`) where nobody changed it. */
const MAX_METADATA_UNITS = 4096
const MAX_PART_BYTES = (MAX_METADATA_UNITS / 4) * 3
/** What CBOR needs beside a part's bytes, at most: heads, version, time; in the group itself, count and digest too. */
const FURTHER_OVERHEAD = 10
const MAIN_OVERHEAD = FURTHER_OVERHEAD + 35
const MAIN_BYTES = MAX_PART_BYTES - MAIN_OVERHEAD
const FURTHER_BYTES = MAX_PART_BYTES - FURTHER_OVERHEAD
const RENEW_AFTER_SECONDS = 86_400

/** The longest state of a position. */
export const MAX_STATE_BYTES: number = MAIN_BYTES + MAX_FURTHER * FURTHER_BYTES

/** An offset of a source partition as a group has it. */
export interface StoredOffset {
  readonly offset: bigint
  readonly metadata: string
}

/** One to be written. */
export interface GroupOffset extends StoredOffset {
  readonly group: string
}

/** The group itself, or its further one of that number. */
export const groupName = (group: string, part: number): string => (part === 0 ? group : `${group}.${part}`)

interface Part {
  readonly bytes: Uint8Array
  /** Seconds since 1970. */
  readonly written: number
}

/** What is known to be stored for a source partition. */
export class StoredPosition {
  readonly position: Position
  /** When the group itself was written, seconds since 1970. */
  readonly #written: number
  readonly #further: readonly Part[]

  private constructor(position: Position, written: number, further: readonly Part[]) {
    this.position = position
    this.#written = written
    this.#further = further
  }

  /** Nothing is stored yet, or nothing of what is stored may be relied on. */
  static readonly none: StoredPosition = new StoredPosition({ next: -1n, state: new Uint8Array() }, 0, [])

  /** How many further parts belong to what the group itself holds. Rejects as `parse` does. */
  static furtherParts(main: StoredOffset, source: TopicPartition): number {
    return readMain(main, source).count
  }

  /** Anything but what was written together is `Outage('position-damaged')`. */
  static parse(
    group: string,
    source: TopicPartition,
    main: StoredOffset,
    further: readonly (StoredOffset | undefined)[],
  ): StoredPosition {
    const { count, sum, part } = readMain(main, source)
    if (further.length !== count) throw damaged(source)
    const rest = further.map((one) => readFurther(one, source))
    const position = { next: main.offset, state: Buffer.concat([part, ...rest].map(({ bytes }) => bytes)) }
    if (!sumOf(group, source, position).equals(sum)) throw damaged(source)
    return new StoredPosition(
      { next: main.offset, state: new Uint8Array(position.state) },
      part.written,
      rest,
    )
  }

  /** Whether all of it was written within the last day: what is older may expire where nothing is decided for long. */
  isYoung(nowSeconds: number): boolean {
    return [{ written: this.#written }, ...this.#further].every((part) => isYoung(part, nowSeconds))
  }

  /** The offsets that make `next` the stored position: of the group itself always, of further ones where they change or grow old. */
  follow(
    group: string,
    source: TopicPartition,
    next: Position,
    nowSeconds: number,
  ): { readonly stored: StoredPosition; readonly offsets: readonly GroupOffset[] } {
    const { state } = next
    if (state.length > MAX_STATE_BYTES) {
      const reason = `A position's state of ${state.length} bytes for ${nameOf(source)}: Kafka takes at most ${MAX_STATE_BYTES}.`
      throw new Outage('sink-unavailable', reason)
    }
    const further: Part[] = []
    const offsets: GroupOffset[] = []
    for (let start = MAIN_BYTES; start < state.length; start += FURTHER_BYTES) {
      const bytes = state.slice(start, start + FURTHER_BYTES)
      const before = this.#further[further.length]
      const keeps = before !== undefined && isSame(before.bytes, bytes) && isYoung(before, nowSeconds)
      const part = keeps ? before : { bytes, written: nowSeconds }
      further.push(part)
      if (!keeps)
        offsets.push({
          group: groupName(group, further.length),
          offset: next.next,
          metadata: writeFurther(part),
        })
    }
    const main = { bytes: state.subarray(0, MAIN_BYTES), written: nowSeconds }
    const metadata = writeMain(main, further.length, sumOf(group, source, next))
    offsets.unshift({ group, offset: next.next, metadata })
    return {
      stored: new StoredPosition({ next: next.next, state: state.slice() }, nowSeconds, further),
      offsets,
    }
  }
}

const isSame = (a: Uint8Array, b: Uint8Array): boolean => Buffer.compare(a, b) === 0

/** Of a time ahead of ours nothing is known. */
function isYoung({ written }: Pick<Part, 'written'>, nowSeconds: number): boolean {
  return written <= nowSeconds && nowSeconds - written < RENEW_AFTER_SECONDS
}

/** Binds the parts to each other, and to the one place and offset that they were written for. */
function sumOf(group: string, { topic, partition }: TopicPartition, { next, state }: Position): Buffer {
  return digest(encodeCbor([group, topic, partition, next, state]))
}

function writeMain({ bytes, written }: Part, count: number, sum: Uint8Array): string {
  const writer = new CborWriter(bytes.length + MAIN_OVERHEAD)
  writer.head(MAJOR.array, 5)
  writer.integer(VERSION)
  writer.integer(written)
  writer.integer(count)
  writer.byteString(sum)
  writer.byteString(bytes)
  return Buffer.from(writer.finish()).toString('base64url')
}

function writeFurther({ bytes, written }: Part): string {
  const writer = new CborWriter(bytes.length + FURTHER_OVERHEAD)
  writer.head(MAJOR.array, 3)
  writer.integer(VERSION)
  writer.integer(written)
  writer.byteString(bytes)
  return Buffer.from(writer.finish()).toString('base64url')
}

function readMain(
  { metadata }: StoredOffset,
  source: TopicPartition,
): { part: Part; count: number; sum: Uint8Array } {
  return reading(metadata, source, (reader) => {
    if (reader.array() !== 5 || reader.uint() !== VERSION) throw new CborError('another shape')
    const written = reader.count()
    const count = reader.uint()
    if (typeof count === 'bigint' || count > MAX_FURTHER) throw new CborError('too many parts')
    const sum = reader.byteString()
    return { part: { bytes: reader.byteString(), written }, count, sum }
  })
}

function readFurther(stored: StoredOffset | undefined, source: TopicPartition): Part {
  if (stored === undefined) throw damaged(source)
  return reading(stored.metadata, source, (reader) => {
    if (reader.array() !== 3 || reader.uint() !== VERSION) throw new CborError('another shape')
    const written = reader.count()
    return { bytes: reader.byteString(), written }
  })
}

function reading<T>(metadata: string, source: TopicPartition, read: (reader: CborReader) => T): T {
  if (metadata === '') throw damaged(source, 'its metadata is empty, as a tool leaves it that resets offsets')
  const bytes = Buffer.from(metadata, 'base64url')
  if (bytes.toString('base64url') !== metadata) throw damaged(source, 'its metadata is not of our making')
  try {
    const reader = new CborReader(bytes)
    const value = read(reader)
    reader.end()
    return value
  } catch (cause) {
    if (!(cause instanceof CborError)) throw cause
    throw damaged(source, 'its metadata is not of our making', cause)
  }
}

const nameOf = ({ topic, partition }: TopicPartition): string => `${topic}-${partition}`

function damaged(source: TopicPartition, why = 'its parts do not fit together', cause?: unknown): Outage {
  const repair = 'Look at it with sealgate position show, and restore it from the audit topic.'
  return new Outage(
    'position-damaged',
    `The position of ${nameOf(source)} cannot be read: ${why}. ${repair}`,
    cause === undefined ? undefined : { cause },
  )
}
