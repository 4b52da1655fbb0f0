/** The log of another process of the same user, reached by its socket. */
import type { Socket } from 'node:net'
import { connect } from 'node:net'
import { existsSync, realpathSync } from 'node:fs'
import { dirname } from 'node:path'
import { setTimeout as delay } from 'node:timers/promises'
import { Outage } from '../errors.ts'
import { batchBytes } from '../ports.ts'
import type { ByteReader, ByteWriter } from './log-bytes.ts'
import { ownerOf, refuseForeign } from './log-lock.ts'
import type { Log, NewMessage, TransactionalProducer } from './log.ts'
import { DEFAULT_MAX_MESSAGE_BYTES } from './log.ts'
import * as wire from './log-wire.ts'

export interface ConnectOptions {
  /** Bound of connecting, and of each call, in milliseconds. Default 10,000. */
  readonly timeoutMs?: number
}

/**
 * Reaches the log in `folder` through the process that runs it. Where none does: `Outage('sink-unavailable')`. A lost
 * connection, or a call without an answer in time, ends it: the outcome of what was under way is unknown; connect anew.
 */
export async function connectLog(folder: string, options: ConnectOptions = {}): Promise<Log> {
  const { timeoutMs = 10_000 } = options
  const socket = await connected(folder, Date.now() + timeoutMs)
  const log = newClient(socket, timeoutMs)
  await log.greet()
  return log
}

/** An owner that is still opening its log has no socket yet: tried again until the deadline. */
async function connected(folder: string, deadline: number): Promise<Socket> {
  for (;;) {
    const owner = existsSync(folder) ? ownerOf(realpathSync(folder)) : undefined
    if (owner === undefined) {
      throw new Outage(
        'sink-unavailable',
        `No process runs the embedded log in ${folder}: start it (sealgate local start).`,
      )
    }
    try {
      refuseForeign(dirname(owner.socket), 0o077)
      return await connectOnce(owner.socket)
    } catch (error) {
      const early =
        error instanceof Error &&
        'code' in error &&
        (error.code === 'ENOENT' || error.code === 'ECONNREFUSED')
      if (!early) throw error
      if (Date.now() > deadline) {
        const reason = `Process ${owner.pid} runs the embedded log in ${folder}, but does not answer.`
        throw new Outage('sink-unavailable', reason, { cause: error })
      }
    }
    await delay(20)
  }
}

function connectOnce(path: string): Promise<Socket> {
  return new Promise((resolve, reject) => {
    const socket = connect(path)
    socket.once('error', reject)
    socket.once('connect', () => {
      socket.off('error', reject)
      resolve(socket)
    })
  })
}

interface Call {
  readonly resolve: (reader: ByteReader) => void
  readonly reject: (error: Error) => void
}

interface Client extends Log {
  greet(): Promise<void>
}

function newClient(socket: Socket, timeoutMs: number): Client {
  const cutter = new wire.FrameCutter()
  const calls = new Map<number, Call>()
  let lastCall = 0
  let lost: Outage | undefined
  let closing: Promise<void> | undefined
  /** Calls to be answered before this end closes: all but waits. */
  const owed = new Set<Promise<unknown>>()

  const isClosing = (): boolean => closing !== undefined

  const lose = (reason: Outage): void => {
    lost ??= reason
    socket.destroy()
    for (const { reject } of calls.values()) reject(lost)
    calls.clear()
  }

  socket.on('data', (chunk) => {
    try {
      for (const reader of cutter.push(Buffer.from(chunk))) {
        const number = reader.u48()
        const call = calls.get(number)
        calls.delete(number)
        call?.resolve(reader)
      }
    } catch (cause) {
      lose(new Outage('sink-unavailable', 'The embedded log answered what cannot be read.', { cause }))
    }
  })
  socket.on('error', (cause) => lose(gone(cause)))
  socket.on('close', () => lose(gone()))

  const call = async <T>(
    operation: wire.Operation,
    write: (writer: ByteWriter) => void,
    read: (reader: ByteReader) => T,
    { capacity = 256, extraMs = 0 } = {},
  ): Promise<T> => {
    if (lost !== undefined) throw lost
    const number = ++lastCall
    const frame = wire.newFrame(number, capacity)
    frame.u8(wire.OPERATIONS.indexOf(operation))
    write(frame)
    const bytes = wire.finishFrame(frame)
    let timer: NodeJS.Timeout | undefined
    try {
      const reader = await new Promise<ByteReader>((resolve, reject) => {
        calls.set(number, { resolve, reject })
        timer = setTimeout(() => lose(noAnswer(operation, timeoutMs + extraMs)), timeoutMs + extraMs)
        socket.write(bytes)
      })
      const error = wire.readError(reader)
      if (error !== undefined) throw error
      return read(reader)
    } finally {
      clearTimeout(timer)
    }
  }

  const ask: typeof call = (...args) => {
    if (isClosing()) return Promise.reject(lost ?? closed())
    const asked = call(...args)
    const settled: Promise<unknown> = asked.catch(() => undefined).finally(() => owed.delete(settled))
    owed.add(settled)
    return asked
  }

  const producer = (number: number): TransactionalProducer => {
    const own = (writer: ByteWriter): void => writer.u48(number)
    return {
      append: (messages) => {
        const write = (writer: ByteWriter): void => {
          own(writer)
          wire.writeMessages(writer, messages)
        }
        return ask('addToTransaction', write, nothing, { capacity: sizeOf(messages) })
      },
      commit: (offsets) => {
        const write = (writer: ByteWriter): void => {
          own(writer)
          wire.writeList(writer, offsets, (offset) => wire.writeGroupOffset(writer, offset))
        }
        return ask('commit', write, nothing)
      },
      abort: () => ask('abort', own, nothing),
    }
  }

  const close = async (): Promise<void> => {
    await Promise.all(owed)
    lose(closed())
  }

  return {
    greet: () => ask('hello', (writer) => writer.text(wire.PROTOCOL), nothing),

    createTopic: (name, partitions, settings = {}) => {
      const { timestampType = 'LogAppendTime', maxMessageBytes = DEFAULT_MAX_MESSAGE_BYTES } = settings
      const topic = { name, partitions, timestampType, maxMessageBytes }
      return ask('createTopic', (writer) => wire.writeTopic(writer, topic), isOne)
    },

    topics: () => ask('topics', nothing, (reader) => wire.readList(reader, () => wire.readTopic(reader))),

    append: (messages) =>
      ask('append', (writer) => wire.writeMessages(writer, messages), wire.readPlaces, {
        capacity: sizeOf(messages),
      }),

    begin: async (transactionalId) =>
      producer(
        await call(
          'begin',
          (writer) => writer.text(transactionalId),
          (reader) => reader.u48(),
        ),
      ),

    read: (topic, partition, from, limits = {}) => {
      const { maxBytes = 1_048_576, maxRecords = 10_000 } = limits
      const write = (writer: ByteWriter): void => {
        writer.text(topic)
        writer.u32(partition)
        writer.u48(Number(from))
        writer.u32(Math.min(maxBytes, 0xffff_ffff))
        writer.u32(Math.min(maxRecords, 0xffff_ffff))
      }
      return ask('read', write, (reader) => wire.readReadResult(reader, topic, partition))
    },

    waitForData: async (places, deadline) => {
      if (isClosing()) throw closed()
      for (;;) {
        const leftMs = Math.max(0, Math.trunc(deadline - Date.now()))
        const write = (writer: ByteWriter): void => {
          wire.writePlaces(writer, places)
          writer.u48(leftMs)
        }
        // The owner answers a long wait early, to be asked again.
        const asked = call('waitForData', write, isOne, { extraMs: wire.MAX_WAIT_MS })
        const further = await asked.catch((error: unknown) => {
          if (isClosing()) return false
          throw error
        })
        if (further || isClosing() || Date.now() >= deadline) return further
      }
    },

    endOffsets: (topic) =>
      call(
        'endOffsets',
        (writer) => writer.text(topic),
        (reader) => wire.readList(reader, () => BigInt(reader.u48())),
      ),

    commitGroup: (offsets) => {
      const write = (writer: ByteWriter): void =>
        wire.writeList(writer, offsets, (offset) => wire.writeGroupOffset(writer, offset))
      return ask('commitGroup', write, nothing)
    },

    groupOffset: (group, topic, partition) => {
      const write = (writer: ByteWriter): void => {
        writer.text(group)
        writer.text(topic)
        writer.u32(partition)
      }
      return ask('groupOffset', write, (reader) =>
        wire.readOptional(reader, () => wire.readGroupOffset(reader)),
      )
    },

    close: () => (closing ??= close()),
  }
}

const nothing = (): void => undefined
const isOne = (reader: ByteReader): boolean => reader.u8() === 1

function sizeOf(messages: readonly NewMessage[]): number {
  return messages.reduce((sum, message) => sum + batchBytes(message) + message.topic.length + 16, 64)
}

function gone(cause?: Error): Outage {
  return new Outage(
    'sink-unavailable',
    'The connection to the embedded log is lost; what was under way may have happened.',
    { cause },
  )
}

function closed(): Outage {
  return new Outage('sink-unavailable', 'This connection to the embedded log is closed.')
}

function noAnswer(operation: string, ms: number): Outage {
  return new Outage(
    'deadline',
    `The embedded log has not answered ${operation} within ${ms} ms; it may have happened.`,
  )
}
