/** The embedded log itself, in the process that owns it: what is visible, who holds a transactional id, who waits. */
import { Outage } from '../errors.ts'
import type { Clock, Message, TopicPartition } from '../ports.ts'
import { batchBytes } from '../ports.ts'
import { ByteReader, ByteWriter } from './log-bytes.ts'
import { FRAME_HEADER_BYTES, MAX_FRAME_BYTES, openJournal } from './log-journal.ts'
import type { Partition } from './log-partition.ts'
import {
  applyChunk,
  checkMessage,
  checkedTopic,
  isU48,
  newPartitions,
  readRecords,
  refuseOtherSettings,
  tooLarge,
  writeChunks,
} from './log-partition.ts'
import type { GroupOffset, Log, NewMessage, Place, Topic, TransactionalProducer } from './log.ts'
import { MAX_BATCH_BYTES, MAX_METADATA_BYTES } from './log.ts'

/** What a frame is made of. The numbers are part of the file format. */
const ENTRY_TOPIC = 1
const ENTRY_CHUNK = 2
const ENTRY_OFFSET = 3

const MAX_TIMER_MS = 2 ** 31 - 1

interface Waiter {
  readonly places: readonly Place[]
  readonly done: (further: boolean) => void
}

/** A log, and how many bytes of an incomplete last write its opening has dropped. */
export interface Engine extends Log {
  readonly droppedBytes: number
}

/** Opens the journal at `path`, or makes it. A damaged one: `ConfigError`. */
export async function openEngine(path: string, clock: Clock): Promise<Engine> {
  const partitions = new Map<string, readonly Partition[]>()
  const groupOffsets = new Map<string, GroupOffset>()
  // Holders live no longer than this process or their connection to it, so epochs need not be kept on disk.
  const holders = new Map<string, TransactionalProducer>()
  const waiters = new Set<Waiter>()
  let creating: Promise<unknown> = Promise.resolve()
  let closing: Promise<void> | undefined

  /** The one way anything becomes visible: at opening, and after each durable write. */
  const apply = (payload: Buffer, position: number): void => {
    const reader = new ByteReader(payload)
    while (!reader.ended) {
      const kind = reader.u8()
      if (kind === ENTRY_TOPIC) applyTopic(reader)
      else if (kind === ENTRY_CHUNK)
        applyChunk(reader, position, (topic, index) => partitions.get(topic)?.[index])
      else if (kind === ENTRY_OFFSET) applyOffset(reader)
      else throw new RangeError(`unknown entry ${kind}`)
    }
    for (const waiter of waiters) if (waiter.places.some(isFurther)) waiter.done(true)
  }

  const applyTopic = (reader: ByteReader): void => {
    const name = reader.text()
    const count = reader.u32()
    const timestampType = reader.u8() === 1 ? 'CreateTime' : 'LogAppendTime'
    partitions.set(
      name,
      newPartitions({ name, partitions: count, timestampType, maxMessageBytes: reader.u32() }),
    )
  }

  const applyOffset = (reader: ByteReader): void => {
    const [group, topic, partition, next] = [reader.text(), reader.text(), reader.u32(), BigInt(reader.u48())]
    const metadata = Uint8Array.from(reader.bytes() ?? [])
    groupOffsets.set(offsetKey(group, { topic, partition }), { group, topic, partition, next, metadata })
  }

  const partitionsOf = (topic: string): readonly Partition[] => {
    const found = partitions.get(topic)
    if (found !== undefined) return found
    throw new Outage('sink-denied', `There is no topic ${quote(topic)} in the embedded log: create it first.`)
  }

  const partitionOf = ({ topic, partition }: TopicPartition): Partition => {
    const all = partitionsOf(topic)
    const found = all[partition]
    if (found !== undefined) return found
    throw new Outage(
      'sink-denied',
      `Topic ${quote(topic)} has partitions 0 to ${all.length - 1}, not ${partition}.`,
    )
  }

  const isFurther = (place: Place): boolean => partitionOf(place).end > place.offset

  const journal = await openJournal(path, apply)

  const refuseClosed = (): void => {
    if (closing !== undefined) throw new Outage('sink-unavailable', 'The embedded log is closed.')
  }

  const newFrame = (messages: readonly Message[] = []): ByteWriter => {
    const bytes = messages.reduce((sum, message) => sum + batchBytes(message), 4096)
    // Half, since names of topics and groups come on top.
    if (bytes > MAX_FRAME_BYTES / 2) throw tooLarge(`${bytes} bytes at once`, MAX_FRAME_BYTES / 2)
    return new ByteWriter(bytes, FRAME_HEADER_BYTES)
  }

  const addMessages = (writer: ByteWriter, messages: readonly NewMessage[], markers: 0 | 1): Place[] => {
    const placed = messages.map((message) => [partitionOf(message), message] as const)
    return writeChunks(writer, ENTRY_CHUNK, placed, markers, Math.trunc(clock.now()))
  }

  const checkOffset = (offset: GroupOffset): void => {
    partitionOf(offset)
    if (!isU48(Number(offset.next))) throw new TypeError(`${offset.next} is no offset.`)
    if (!/^[^\0]{1,255}$/u.test(offset.group))
      throw new TypeError('A group has a name of 1 to 255 characters.')
    const { length } = offset.metadata
    if (length > MAX_METADATA_BYTES) throw tooLarge(`Metadata of ${length} bytes`, MAX_METADATA_BYTES)
  }

  const addOffset = (writer: ByteWriter, { group, topic, partition, next, metadata }: GroupOffset): void => {
    writer.u8(ENTRY_OFFSET)
    writer.text(group)
    writer.text(topic)
    writer.u32(partition)
    writer.u48(Number(next))
    writer.bytes(metadata)
  }

  /** One frame, hence all or nothing. */
  const commit = async (messages: readonly Message[], offsets: readonly GroupOffset[]): Promise<void> => {
    offsets.forEach(checkOffset)
    if (messages.length === 0 && offsets.length === 0) return
    const writer = newFrame(messages)
    for (const offset of offsets) addOffset(writer, offset)
    addMessages(writer, messages, 1)
    await journal.append(writer.finish())
  }

  const newProducer = (transactionalId: string): TransactionalProducer => {
    let messages: Message[] = []
    let sums = new Map<Partition, { bytes: number; count: number }>()
    let failed: Error | undefined
    const reset = (): void => {
      messages = []
      sums = new Map()
      failed = undefined
    }
    const refuseZombie = (): void => {
      refuseClosed()
      if (holders.get(transactionalId) === self) return
      reset()
      throw new Outage(
        'fenced',
        `Another holder has taken over the transactional id ${quote(transactionalId)}.`,
      )
    }
    const add = (message: Message): void => {
      const to = partitionOf(message)
      const sum = sums.get(to) ?? { bytes: 0, count: 0 }
      sum.bytes += checkMessage(to, message)
      sum.count++
      if (sum.count > 1 && sum.bytes > MAX_BATCH_BYTES) {
        throw tooLarge(
          `A transaction of ${sum.bytes} bytes for partition ${to.partition}`,
          MAX_BATCH_BYTES,
          to.topic.name,
        )
      }
      sums.set(to, sum)
      messages.push(message)
    }
    const self: TransactionalProducer = {
      append: async (more) => {
        refuseZombie()
        try {
          more.forEach(add)
        } catch (error) {
          // As in Kafka, a transaction that lacks one of its messages can only be aborted.
          failed ??= error instanceof Error ? error : new TypeError('not a message')
          throw error
        }
        return Promise.resolve()
      },
      commit: async (offsets) => {
        refuseZombie()
        const [taken, fault] = [messages, failed]
        reset()
        if (fault !== undefined) throw fault
        await commit(taken, offsets)
      },
      abort: async () => {
        reset()
        return Promise.resolve()
      },
    }
    return self
  }

  const create = async (topic: Topic): Promise<boolean> => {
    refuseClosed()
    const existing = partitions.get(topic.name)?.[0]?.topic
    if (existing !== undefined) {
      refuseOtherSettings(existing, topic)
      return false
    }
    const writer = newFrame()
    writer.u8(ENTRY_TOPIC)
    writer.text(topic.name)
    writer.u32(topic.partitions)
    writer.u8(topic.timestampType === 'CreateTime' ? 1 : 0)
    writer.u32(topic.maxMessageBytes)
    await journal.append(writer.finish())
    return true
  }

  const close = async (): Promise<void> => {
    for (const waiter of waiters) waiter.done(false)
    await creating
    // An empty frame says that all before it was durable, so that later damage cannot pass for a torn write.
    await journal.append(newFrame().finish()).catch(() => undefined)
    await journal.close()
  }

  return {
    droppedBytes: journal.droppedBytes,

    createTopic: async (name, count, settings = {}) => {
      const topic = checkedTopic(name, count, settings)
      // One after the other, so that two makers of one topic cannot both make it.
      const made = creating.then(() => create(topic))
      creating = made.catch(() => undefined)
      return made
    },

    topics: async () => {
      const all = [...partitions.values()].flatMap((own) => own[0]?.topic ?? [])
      return Promise.resolve(all.sort((a, b) => (a.name < b.name ? -1 : 1)))
    },

    append: async (messages) => {
      refuseClosed()
      for (const message of messages) checkMessage(partitionOf(message), message)
      if (messages.length === 0) return []
      const writer = newFrame(messages)
      const places = addMessages(writer, messages, 0)
      await journal.append(writer.finish())
      return places
    },

    begin: async (transactionalId) => {
      refuseClosed()
      const producer = newProducer(transactionalId)
      holders.set(transactionalId, producer)
      await journal.settled()
      return producer
    },

    read: async (topic, partition, from, limits = {}) => {
      refuseClosed()
      return Promise.resolve(readRecords(partitionOf({ topic, partition }), from, limits, journal.read))
    },

    waitForData: async (places, deadline) => {
      refuseClosed()
      if (places.some(isFurther)) return true
      return new Promise<boolean>((resolve) => {
        const done = (further: boolean): void => {
          clearTimeout(timer)
          waiters.delete(waiter)
          resolve(further)
        }
        const waiter: Waiter = { places, done }
        const timer = setTimeout(
          () => done(false),
          Math.min(Math.max(deadline - clock.now(), 0), MAX_TIMER_MS),
        )
        waiters.add(waiter)
      })
    },

    endOffsets: async (topic) => {
      refuseClosed()
      return Promise.resolve(partitionsOf(topic).map(({ end }) => BigInt(end)))
    },

    commitGroup: async (offsets) => {
      refuseClosed()
      await commit([], offsets)
    },

    groupOffset: async (group, topic, partition) => {
      refuseClosed()
      partitionOf({ topic, partition })
      return Promise.resolve(groupOffsets.get(offsetKey(group, { topic, partition })))
    },

    close: () => (closing ??= close()),
  }
}

/** A topic's name holds no slash, so no two share a key. */
function offsetKey(group: string, { topic, partition }: TopicPartition): string {
  return `${topic}/${partition}/${group}`
}

/** A name in a message: with nothing in it that a terminal would obey. */
function quote(name: string): string {
  return JSON.stringify(name.slice(0, 250))
}
