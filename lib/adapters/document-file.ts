/** A document in a file, as `DocumentStore`: whoever writes it replaces it whole (temporary file, then rename). */
import { open, rm, stat } from 'node:fs/promises'
import { digest } from '../envelope/crypto.ts'
import { Outage, type OutageCode } from '../errors.ts'
import type { Clock, DocumentStore } from '../ports.ts'
import { writeWhole } from './whole-file.ts'

export interface DocumentFileOptions {
  readonly path: string
  /** What it means that the file cannot be read or written. */
  readonly outage: OutageCode
  readonly clock: Clock
  /** A larger file is not read. */
  readonly maxBytes?: number
}

/**
 * Its etag is the SHA-256 of its content: two writes within one tick of the file system's clock still differ. Writers
 * wait for each other by a file beside it, `.lock`, which one that dies leaves behind: it is named, and removed by hand.
 */
export function documentFile(options: DocumentFileOptions): DocumentStore {
  const { path, outage, clock, maxBytes = 16 * 1024 * 1024 } = options
  const fail = (reason: string, cause?: unknown): Outage =>
    new Outage(outage, `${path}: ${reason}`, cause === undefined ? undefined : { cause })

  const read = async (deadline: number): Promise<{ bytes: Buffer; etag: string }> => {
    const left = deadline - clock.now()
    if (left <= 0) throw fail('no time left to read it')
    try {
      const file = await open(path)
      try {
        const { size } = await file.stat()
        if (size > maxBytes) throw fail(`is larger than ${maxBytes} bytes`)
        const bytes = await file.readFile({ signal: AbortSignal.timeout(Math.min(left, 2 ** 31 - 1)) })
        return { bytes, etag: digest(bytes).toString('base64url') }
      } finally {
        await file.close()
      }
    } catch (error) {
      throw error instanceof Outage ? error : fail('cannot be read', error)
    }
  }

  const find = async (deadline: number): Promise<{ bytes: Buffer; etag: string } | undefined> => {
    try {
      return await read(deadline)
    } catch (error) {
      if (error instanceof Outage && isCode(error.cause, 'ENOENT')) return undefined
      throw error
    }
  }

  const locked = async <T>(deadline: number, work: () => Promise<T>): Promise<T> => {
    const lock = `${path}.lock`
    for (;;) {
      try {
        await (await open(lock, 'wx', 0o600)).close()
        break
      } catch (error) {
        if (!isCode(error, 'EEXIST')) throw fail('cannot be written', error)
        if (clock.now() >= deadline)
          throw fail(`somebody else is writing it. If nobody is, one died at it: remove ${lock}`)
      }
      await new Promise((resolve) => setTimeout(resolve, LOCK_WAIT_MS))
    }
    try {
      return await work()
    } finally {
      await rm(lock, { force: true })
    }
  }

  return {
    async read(etag, deadline) {
      const found = await read(deadline)
      return found.etag === etag ? 'unchanged' : found
    },
    find,
    write: (bytes, etag, deadline) =>
      locked(deadline, async () => {
        if ((await find(deadline))?.etag !== etag) return 'changed'
        try {
          // As readable as it was: gates that run as other users go on reading it.
          await writeWhole(path, bytes, etag === undefined ? 0o644 : (await stat(path)).mode & 0o777)
        } catch (error) {
          throw fail('cannot be written', error)
        }
        return 'written'
      }),
  }
}

const LOCK_WAIT_MS = 20

const isCode = (error: unknown, code: string): boolean =>
  error instanceof Error && 'code' in error && error.code === code
