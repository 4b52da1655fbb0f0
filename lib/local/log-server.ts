/** Serves the log of this process to others of the same user, by a socket that only that user may open. */
import { chmodSync } from 'node:fs'
import type { Server, Socket } from 'node:net'
import { createServer } from 'node:net'
import { ConfigError, Outage } from '../errors.ts'
import type { Clock } from '../ports.ts'
import type { ByteReader, ByteWriter } from './log-bytes.ts'
import type { Log, TransactionalProducer } from './log.ts'
import * as wire from './log-wire.ts'

const MAX_CONNECTIONS = 128
/** Calls of one connection under way, and bytes waiting for its reader, before it is no longer listened to. */
const MAX_UNDER_WAY = 256
const MAX_UNSENT_BYTES = 32 * 1024 * 1024

export interface LogServer {
  /** To be called once the log is closed: answers what is still to be answered, then ends every connection. */
  close(): Promise<void>
}

/** Listens at `path`, in a folder that lets in nobody else. */
export async function serveLog(log: Log, path: string, clock: Clock): Promise<LogServer> {
  const connections = new Set<{ end: () => Promise<void> }>()
  const server = createServer((socket) => {
    const connection = serveConnection(newSession(log, clock), socket)
    connections.add(connection)
    socket.once('close', () => connections.delete(connection))
  })
  server.maxConnections = MAX_CONNECTIONS
  await listening(server, path)
  // Accepting one connection may fail, for want of descriptors: that client tries again, the owner goes on.
  server.on('error', () => undefined)
  // For those who look at the socket alone.
  chmodSync(path, 0o600)
  return {
    close: async () => {
      const closed = new Promise((resolve) => server.close(resolve))
      await Promise.all([...connections].map(({ end }) => end()))
      await closed
    },
  }
}

function listening(server: Server, path: string): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen(path, () => {
      server.off('error', reject)
      resolve()
    })
  })
}

function serveConnection(session: Session, socket: Socket): { end: () => Promise<void> } {
  const cutter = new wire.FrameCutter()
  const underWay = new Set<Promise<void>>()

  const pace = (): void => {
    const busy = underWay.size >= MAX_UNDER_WAY || socket.writableLength > MAX_UNSENT_BYTES
    if (busy) socket.pause()
    else socket.resume()
  }

  const answer = async (reader: ByteReader): Promise<void> => {
    const call = reader.u48()
    const frame = wire.newFrame(call)
    try {
      const write = await session.call(reader)
      wire.writeOk(frame)
      write(frame)
      socket.write(wire.finishFrame(frame))
    } catch (error) {
      const failure = wire.newFrame(call)
      wire.writeError(failure, error)
      socket.write(wire.finishFrame(failure))
    }
  }

  socket.on('data', (chunk) => {
    try {
      for (const reader of cutter.push(Buffer.from(chunk))) {
        const done: Promise<void> = answer(reader)
          .catch(() => void socket.destroy())
          .finally(() => {
            underWay.delete(done)
            pace()
          })
        underWay.add(done)
      }
      pace()
    } catch {
      socket.destroy()
    }
  })
  socket.on('drain', pace)
  socket.on('error', () => void socket.destroy())
  socket.on('close', session.end)

  return {
    end: async () => {
      await Promise.all(underWay)
      await new Promise<void>((resolve) => {
        socket.once('close', () => resolve())
        socket.end(() => socket.destroy())
        // A reader that does not read does not hold up the owner's end.
        setTimeout(() => socket.destroy(), 1000).unref()
      })
    },
  }
}

type WriteResult = (writer: ByteWriter) => void

/** What one connection may do and holds. Calls take effect in the order in which they came. */
interface Session {
  readonly call: (reader: ByteReader) => Promise<WriteResult>
  /** Aborts its open transactions. */
  readonly end: () => void
}

function newSession(log: Log, clock: Clock): Session {
  const producers = new Map<number, TransactionalProducer>()
  const numbers = new Map<string, number>()
  let greeted = false
  let ended = false
  let lastNumber = 0

  const producerOf = (reader: ByteReader): TransactionalProducer => {
    const producer = producers.get(reader.u48())
    if (producer === undefined)
      throw new Outage('fenced', 'Another holder has taken this transactional id over.')
    return producer
  }

  const begin = async (transactionalId: string): Promise<number> => {
    const producer = await log.begin(transactionalId)
    const earlier = numbers.get(transactionalId)
    if (earlier !== undefined) producers.delete(earlier)
    const number = ++lastNumber
    if (!ended) {
      producers.set(number, producer)
      numbers.set(transactionalId, number)
    }
    return number
  }

  const run = async (operation: wire.Operation, reader: ByteReader): Promise<WriteResult> => {
    switch (operation) {
      case 'hello': {
        greeted = reader.text() === wire.PROTOCOL
        if (!greeted) throw otherVersion()
        return nothing
      }
      case 'createTopic': {
        const { name, partitions, ...settings } = wire.readTopic(reader)
        const made = await log.createTopic(name, partitions, settings)
        return (writer) => writer.u8(made ? 1 : 0)
      }
      case 'topics': {
        const topics = await log.topics()
        return (writer) => wire.writeList(writer, topics, (topic) => wire.writeTopic(writer, topic))
      }
      case 'append': {
        const places = await log.append(wire.readMessages(reader))
        return (writer) => wire.writePlaces(writer, places)
      }
      case 'begin': {
        const number = await begin(reader.text())
        return (writer) => writer.u48(number)
      }
      case 'addToTransaction':
        await producerOf(reader).append(wire.readMessages(reader))
        return nothing
      case 'commit':
        await producerOf(reader).commit(wire.readList(reader, () => wire.readGroupOffset(reader)))
        return nothing
      case 'abort':
        await producerOf(reader).abort()
        return nothing
      case 'read': {
        const [topic, partition, from] = [reader.text(), reader.u32(), BigInt(reader.u48())]
        const result = await log.read(topic, partition, from, {
          maxBytes: reader.u32(),
          maxRecords: reader.u32(),
        })
        return (writer) => wire.writeReadResult(writer, result)
      }
      case 'waitForData': {
        const places = wire.readPlaces(reader)
        const further = await log.waitForData(places, clock.now() + Math.min(reader.u48(), wire.MAX_WAIT_MS))
        return (writer) => writer.u8(further ? 1 : 0)
      }
      case 'endOffsets': {
        const ends = await log.endOffsets(reader.text())
        return (writer) => wire.writeList(writer, ends, (end) => writer.u48(Number(end)))
      }
      case 'commitGroup':
        await log.commitGroup(wire.readList(reader, () => wire.readGroupOffset(reader)))
        return nothing
      case 'groupOffset': {
        const offset = await log.groupOffset(reader.text(), reader.text(), reader.u32())
        return (writer) => wire.writeOptional(writer, offset, (found) => wire.writeGroupOffset(writer, found))
      }
    }
  }

  return {
    call: async (reader) => {
      const operation = wire.OPERATIONS[reader.u8()]
      if (operation === undefined || (operation !== 'hello' && !greeted)) throw otherVersion()
      return run(operation, reader)
    },
    end: () => {
      ended = true
      for (const producer of producers.values()) producer.abort().catch(() => undefined)
      producers.clear()
    },
  }
}

const nothing: WriteResult = () => undefined

function otherVersion(): ConfigError {
  const fix = 'Use the same version of sealgate in both, or restart the owner.'
  return new ConfigError([
    { where: 'socket', what: 'The process that runs this log is of another version.', fix },
  ])
}
