/** A document in a file, as `DocumentSource`: its writers replace it whole (temporary file, then rename). */
import { open } from 'node:fs/promises'
import { digest } from '../envelope/crypto.ts'
import { Outage, type OutageCode } from '../errors.ts'
import type { Clock, DocumentSource } from '../ports.ts'

export interface DocumentFileOptions {
  readonly path: string
  /** What it means that the file cannot be read. */
  readonly outage: OutageCode
  readonly clock: Clock
  /** A larger file is not read. */
  readonly maxBytes?: number
}

/** Its etag is the SHA-256 of its content: two writes within one tick of the file system's clock still differ. */
export function documentFile(options: DocumentFileOptions): DocumentSource {
  const { path, outage, clock, maxBytes = 16 * 1024 * 1024 } = options
  const fail = (reason: string, cause?: unknown): Outage =>
    new Outage(outage, `${path}: ${reason}`, cause === undefined ? undefined : { cause })
  return {
    async read(etag, deadline) {
      const left = deadline - clock.now()
      if (left <= 0) throw fail('no time left to read it')
      let bytes: Buffer
      try {
        const file = await open(path)
        try {
          const { size } = await file.stat()
          if (size > maxBytes) throw fail(`is larger than ${maxBytes} bytes`)
          bytes = await file.readFile({ signal: AbortSignal.timeout(Math.min(left, 2 ** 31 - 1)) })
        } finally {
          await file.close()
        }
      } catch (error) {
        throw error instanceof Outage ? error : fail('cannot be read', error)
      }
      const now = digest(bytes).toString('base64url')
      return now === etag ? 'unchanged' : { bytes, etag: now }
    },
  }
}
