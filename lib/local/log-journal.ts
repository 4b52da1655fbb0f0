/**
 * The one file under an embedded log: frames, only ever appended, each durable before it is acknowledged.
 *
 * A file begins with its name and a random marker; a frame is marker, its own position, how much of the file was durable
 * when it was written, its length, CRC-32 of the payload, CRC-32 of this header; then the payload. A frame that a crash
 * left incomplete is dropped at the next opening. Damage to what was durable is told apart from that by the frames behind
 * it, which say so; it is refused. Damage to the very last durable frame is seen only where the log was closed cleanly
 * since. The marker is unguessable, so no record's content can pass for a frame.
 */
import { randomBytes } from 'node:crypto'
import {
  closeSync,
  fstatSync,
  fsyncSync,
  ftruncateSync,
  openSync,
  readSync,
  renameSync,
  writeSync,
} from 'node:fs'
import { open } from 'node:fs/promises'
import { dirname } from 'node:path'
import { crc32 } from 'node:zlib'
import { ConfigError, Outage } from '../errors.ts'

/** Space that a frame given to `append` leaves at its start. */
export const FRAME_HEADER_BYTES = 32
/** Bound of a frame with its header. */
export const MAX_FRAME_BYTES: number = 64 * 1024 * 1024
const FILE_NAME = Buffer.from('sealgate log v1\n')
const MARKER_BYTES = 8
const FILE_HEADER_BYTES: number = FILE_NAME.length + MARKER_BYTES + 4
const WINDOW_BYTES = 4 * 1024 * 1024
/** Frames are written and made durable in groups of about this size. */
const GROUP_BYTES = 32 * 1024 * 1024

/** Takes a frame's payload, which begins at `position` in the file. The payload is only lent. */
export type Apply = (payload: Buffer, position: number) => void

export interface Journal {
  /** Bytes of an incomplete last write that opening has dropped. */
  readonly droppedBytes: number
  /** Writes a frame. Once it is durable it is applied, in order; then this resolves. After any failure all is refused: open anew. */
  append(frame: Buffer): Promise<void>
  /** Resolves when all that was appended until now has been applied, or has failed. */
  settled(): Promise<void>
  readonly read: (position: number, length: number) => Buffer
  close(): Promise<void>
}

interface Pending {
  readonly frame: Buffer
  readonly position: number
  readonly resolve: () => void
  readonly reject: (reason: Outage) => void
}

interface FrameHeader {
  readonly position: number
  readonly durable: number
  readonly length: number
  readonly payloadCrc: number
}

/** Opens the journal at `path`, or makes it, and applies all that it holds. A damaged one: `ConfigError`. */
export async function openJournal(path: string, apply: Apply): Promise<Journal> {
  const recovered = recover(path, apply)
  const { marker } = recovered
  const handle = await open(path, 'r+')
  let assigned = recovered.length
  let durable = recovered.length
  let queue: Pending[] = []
  let flushing: Promise<void> | undefined
  let last: Promise<void> = Promise.resolve()
  let broken: Outage | undefined

  const flush = async (): Promise<void> => {
    while (queue.length > 0) {
      const group = takeGroup()
      try {
        if (broken !== undefined) throw broken
        for (const { frame, position } of group) writeHeader(frame, marker, position, durable)
        await writeFully(Buffer.concat(group.map(({ frame }) => frame)))
        await handle.datasync()
        for (const { frame, position, resolve } of group) {
          durable = position + frame.length
          apply(frame.subarray(FRAME_HEADER_BYTES), position + FRAME_HEADER_BYTES)
          resolve()
        }
      } catch (cause) {
        // What of it has reached the disk is unknown, and a failed fsync cannot be repeated: only opening anew tells.
        const reason = `The embedded log cannot write ${path}. Mend that, then open the log anew.`
        broken ??= new Outage('sink-unavailable', reason, { cause })
        for (const { reject } of group) reject(broken)
      }
    }
    flushing = undefined
  }

  const takeGroup = (): Pending[] => {
    let bytes = 0
    let count = 0
    while (count < queue.length && bytes < GROUP_BYTES) bytes += queue[count++]?.frame.length ?? 0
    const group = queue.slice(0, count)
    queue = queue.slice(count)
    return group
  }

  const writeFully = async (bytes: Buffer): Promise<void> => {
    for (let written = 0; written < bytes.length;) {
      const result = await handle.write(bytes, written, bytes.length - written, durable + written)
      written += result.bytesWritten
    }
  }

  const append = (frame: Buffer): Promise<void> => {
    if (broken !== undefined) return Promise.reject(broken)
    const position = assigned
    assigned += frame.length
    const done = new Promise<void>((resolve, reject) => queue.push({ frame, position, resolve, reject }))
    last = done.catch(() => undefined)
    // A turn later, so that what is appended together is written together.
    flushing ??= Promise.resolve().then(flush)
    return done
  }

  return {
    droppedBytes: recovered.dropped,
    append,
    settled: () => last,
    read: (position, length) => readExactly(handle.fd, position, length),
    close: async () => {
      await flushing
      await handle.close()
    },
  }
}

function writeHeader(frame: Buffer, marker: Buffer, position: number, durable: number): void {
  frame.set(marker, 0)
  frame.writeUIntBE(position, 8, 6)
  frame.writeUIntBE(durable, 14, 6)
  frame.writeUInt32BE(frame.length, 20)
  frame.writeUInt32BE(crc32(frame.subarray(FRAME_HEADER_BYTES)), 24)
  frame.writeUInt32BE(crc32(frame.subarray(0, 28)), 28)
}

/** The header that `bytes` begin with, or undefined where they begin with none that is whole. */
function readHeader(bytes: Buffer, marker: Buffer): FrameHeader | undefined {
  if (bytes.length < FRAME_HEADER_BYTES || !bytes.subarray(0, MARKER_BYTES).equals(marker)) return undefined
  if (crc32(bytes.subarray(0, 28)) !== bytes.readUInt32BE(28)) return undefined
  return {
    position: bytes.readUIntBE(8, 6),
    durable: bytes.readUIntBE(14, 6),
    length: bytes.readUInt32BE(20),
    payloadCrc: bytes.readUInt32BE(24),
  }
}

function readExactly(fd: number, position: number, length: number): Buffer {
  const bytes = Buffer.allocUnsafe(length)
  for (let got = 0; got < length;) {
    const more = readSync(fd, bytes, got, length - got, position + got)
    if (more === 0) throw new Outage('sink-unavailable', `The embedded log's file ends at ${position + got}.`)
    got += more
  }
  return bytes
}

interface Recovered {
  readonly marker: Buffer
  readonly length: number
  readonly dropped: number
}

function recover(path: string, apply: Apply): Recovered {
  const fd = openOrCreate(path)
  try {
    const size = fstatSync(fd).size
    if (size < FILE_HEADER_BYTES) throw damaged(path, 0)
    const head = readExactly(fd, 0, FILE_HEADER_BYTES)
    const named = head.subarray(0, FILE_NAME.length).equals(FILE_NAME)
    const sum = crc32(head.subarray(0, FILE_HEADER_BYTES - 4))
    if (!named || sum !== head.readUInt32BE(FILE_HEADER_BYTES - 4)) throw damaged(path, 0)
    const marker = head.subarray(FILE_NAME.length, FILE_NAME.length + MARKER_BYTES)
    const length = replay(fd, size, marker, path, apply)
    if (length < size) {
      if (isDamage(fd, size, marker, length)) throw damaged(path, length)
      ftruncateSync(fd, length)
    }
    // Also what a killed owner wrote but had not yet made durable: it is served from here on.
    fsyncSync(fd)
    return { marker, length, dropped: size - length }
  } finally {
    closeSync(fd)
  }
}

/** Applies frame after frame; returns where the whole ones end. */
function replay(fd: number, size: number, marker: Buffer, path: string, apply: Apply): number {
  let windowAt = 0
  let window: Buffer = Buffer.alloc(0)
  const bytesAt = (position: number, length: number): Buffer => {
    const available = Math.min(length, size - position)
    if (position < windowAt || position + available > windowAt + window.length) {
      windowAt = position
      window = readExactly(fd, position, Math.min(size - position, Math.max(available, WINDOW_BYTES)))
    }
    return window.subarray(position - windowAt, position - windowAt + available)
  }
  let position = FILE_HEADER_BYTES
  for (;;) {
    const header = readHeader(bytesAt(position, FRAME_HEADER_BYTES), marker)
    if (header?.position !== position) return position
    if (header.length < FRAME_HEADER_BYTES || header.length > size - position) return position
    const payload = bytesAt(position, header.length).subarray(FRAME_HEADER_BYTES)
    if (crc32(payload) !== header.payloadCrc) return position
    try {
      apply(payload, position + FRAME_HEADER_BYTES)
    } catch (cause) {
      throw damaged(path, position, cause)
    }
    position += header.length
  }
}

/** Whether some frame behind `position` shows that this is no torn write: the file was durable beyond it, or frames were moved. */
function isDamage(fd: number, size: number, marker: Buffer, position: number): boolean {
  for (let at = position; at < size; at += WINDOW_BYTES) {
    const window = readExactly(fd, at, Math.min(size - at, WINDOW_BYTES + FRAME_HEADER_BYTES - 1))
    for (let found = window.indexOf(marker); found !== -1; found = window.indexOf(marker, found + 1)) {
      const header = readHeader(window.subarray(found), marker)
      if (header !== undefined && (header.durable > position || header.position !== at + found)) return true
    }
  }
  return false
}

/** A new journal appears whole or not at all. */
function openOrCreate(path: string): number {
  try {
    return openSync(path, 'r+')
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'ENOENT')) throw error
  }
  const head = Buffer.concat([FILE_NAME, randomBytes(MARKER_BYTES), Buffer.alloc(4)])
  head.writeUInt32BE(crc32(head.subarray(0, FILE_HEADER_BYTES - 4)), FILE_HEADER_BYTES - 4)
  const fd = openSync(`${path}.new`, 'w', 0o600)
  writeSync(fd, head)
  fsyncSync(fd)
  closeSync(fd)
  renameSync(`${path}.new`, path)
  const folder = openSync(dirname(path), 'r')
  fsyncSync(folder)
  closeSync(folder)
  return openSync(path, 'r+')
}

function damaged(path: string, position: number, cause?: unknown): ConfigError {
  const error = new ConfigError([
    {
      where: path,
      what: `The embedded log is damaged at byte ${position}, before its end: records or positions would be lost.`,
      fix: 'Restore the folder from a copy, or remove it to start with an empty log.',
    },
  ])
  if (cause !== undefined) error.cause = cause
  return error
}
