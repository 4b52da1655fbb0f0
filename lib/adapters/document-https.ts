/** A document behind an https address, as `DocumentSource`. Nobody writes there by way of us. */
import { readFile } from 'node:fs/promises'
import type { IncomingMessage } from 'node:http'
import { request } from 'node:https'
import { digest } from '../envelope/crypto.ts'
import { Outage, type OutageCode } from '../errors.ts'
import type { Clock, DocumentSource } from '../ports.ts'

export interface DocumentHttpsOptions {
  /** An https address without user, password and fragment. What follows its path may be a secret: it is never told. */
  readonly url: URL
  /** A PEM file of the authorities to trust instead of the public ones, read anew each time. */
  readonly caFile: string | undefined
  /** What it means that the document cannot be read. */
  readonly outage: OutageCode
  readonly clock: Clock
  readonly maxBytes: number
}

/** A longer entity tag is not sent back: the document is compared by its content then, as where there is none. */
const MAX_ETAG_CHARS = 256
/** RFC 9110 §8.8.3, in ASCII. */
const ETAG = /^(?:W\/)?"[\x21\x23-\x7e]*"$/
/** Begins an etag of ours, which no server has made: theirs begin with a quote or W. */
const BY_CONTENT = 'sha256:'

/**
 * Asks conditionally (RFC 9110 §13.1.2). TLS is verified whatever the environment says, and no redirect is followed: it
 * would leave to a server, or to whoever plays one, where keys come from.
 */
export function documentHttps(options: DocumentHttpsOptions): DocumentSource {
  const { url, caFile, outage, clock, maxBytes } = options
  const fail = (reason: string, cause?: unknown): Outage =>
    new Outage(outage, `${url.origin}${url.pathname}: ${reason}`, cause === undefined ? undefined : { cause })

  const get = async (etag: string | undefined, deadline: number): Promise<IncomingMessage> => {
    const left = deadline - clock.now()
    if (left <= 0) throw fail('no time left to read it')
    const signal = AbortSignal.timeout(Math.min(left, 2 ** 31 - 1))
    const ca = caFile === undefined ? undefined : await authorities(caFile, fail)
    const asking = request(url, {
      headers: {
        'accept-encoding': 'identity',
        'user-agent': 'sealgate',
        ...(etag !== undefined && { 'if-none-match': etag }),
      },
      ...(ca !== undefined && { ca }),
      minVersion: 'TLSv1.2',
      rejectUnauthorized: true,
      agent: false,
      signal,
    })
    return new Promise((resolve, reject) => {
      asking.on('response', resolve)
      asking.on('error', reject)
      asking.end()
    })
  }

  return {
    async read(etag, deadline) {
      const tag = etag?.startsWith(BY_CONTENT) === true ? undefined : etag
      try {
        const answer = await get(tag, deadline)
        try {
          const status = answer.statusCode ?? 0
          if (status === 304 && tag !== undefined) return 'unchanged'
          if (status !== 200) throw fail(adviceOn(status))
          if ((answer.headers['content-encoding'] ?? 'identity') !== 'identity')
            throw fail('it answers in an encoding that was not asked for')
          const bytes = await bodyOf(answer, maxBytes, fail)
          const given = answer.headers.etag ?? ''
          const current =
            given.length <= MAX_ETAG_CHARS && ETAG.test(given)
              ? given
              : BY_CONTENT + digest(bytes).toString('base64url')
          return current === etag ? 'unchanged' : { bytes, etag: current }
        } finally {
          answer.destroy()
        }
      } catch (error) {
        throw error instanceof Outage ? error : fail(`it cannot be read (${codeOf(error)})`, error)
      }
    },
  }
}

type Fail = (reason: string, cause?: unknown) => Outage

async function authorities(caFile: string, fail: Fail): Promise<string> {
  try {
    return await readFile(caFile, 'utf8')
  } catch (error) {
    throw fail(`the authorities' file ${caFile} cannot be read (${codeOf(error)})`, error)
  }
}

async function bodyOf(answer: IncomingMessage, maxBytes: number, fail: Fail): Promise<Buffer> {
  const parts: Buffer[] = []
  let length = 0
  for await (const part of answer) {
    if (!Buffer.isBuffer(part)) throw new TypeError('a body that is no bytes')
    length += part.length
    if (length > maxBytes) throw fail(`it is larger than ${maxBytes} bytes`)
    parts.push(part)
  }
  // A connection that was cut is an error above, unless the length was left to its end.
  if (!answer.complete) throw fail('it was cut off')
  return Buffer.concat(parts)
}

function adviceOn(status: number): string {
  if (status >= 300 && status < 400)
    return `it answers with a redirect (${status}), which is not followed: name the last address`
  if (status === 401 || status === 403) return `it refuses us (${status})`
  if (status === 404 || status === 410) return `there is no such document (${status})`
  return `it answers with status ${status}`
}

const codeOf = (error: unknown): string => {
  if (!(error instanceof Error)) return 'unknown error'
  if (error.name === 'AbortError' || error.name === 'TimeoutError') return 'no answer in time'
  return 'code' in error ? String(error.code) : error.name
}
