/** A document in an S3 object, as `DocumentStore`: of two who write at once, S3's conditional writes let one win. */
import { addAbortSignal, Readable } from 'node:stream'
import type { GetObjectCommandOutput, S3Client } from '@aws-sdk/client-s3'
import { Outage, type OutageCode } from '../errors.ts'
import type { Clock, DocumentStore } from '../ports.ts'
import { signalUntil } from './aws-signal.ts'

export interface DocumentS3Options {
  readonly bucket: string
  readonly key: string
  /** What it means that the object cannot be read or written. */
  readonly outage: OutageCode
  readonly clock: Clock
  readonly maxBytes: number
}

/** Loaded at the first call: who keeps documents elsewhere need not wait for the SDK. */
const sdk = () => import('@aws-sdk/client-s3')

/** Credentials, region and endpoint are found as the AWS SDK finds them. The SDK itself never tries again here. */
export function documentS3(options: DocumentS3Options): DocumentStore {
  const { bucket: Bucket, key: Key, outage, clock, maxBytes } = options
  let client: Promise<S3Client> | undefined
  const connect = (): Promise<S3Client> =>
    (client ??= sdk().then(({ S3Client: Client }) => new Client({ maxAttempts: 1 })))
  const until = (deadline: number): AbortSignal => signalUntil(deadline, clock)
  const fail = (reason: string, cause?: unknown): Outage =>
    new Outage(outage, `s3://${Bucket}/${Key}: ${reason}`, cause === undefined ? undefined : { cause })

  const get = async (
    etag: string | undefined,
    deadline: number,
  ): Promise<{ bytes: Buffer; etag: string }> => {
    const abortSignal = until(deadline)
    const { GetObjectCommand } = await sdk()
    const command = new GetObjectCommand({ Bucket, Key, ...(etag !== undefined && { IfNoneMatch: etag }) })
    const answer = await (await connect()).send(command, { abortSignal })
    if (answer.ETag === undefined) throw new TypeError('no entity tag')
    return { bytes: await bodyOf(answer, abortSignal), etag: answer.ETag }
  }

  const bodyOf = async ({ Body }: GetObjectCommandOutput, signal: AbortSignal): Promise<Buffer> => {
    if (!(Body instanceof Readable)) throw new TypeError('no body')
    // The SDK lets go of the signal once the headers are there.
    const body = addAbortSignal(signal, Body)
    const parts: Uint8Array[] = []
    let length = 0
    for await (const part of body) {
      if (!(part instanceof Uint8Array)) throw new TypeError('a body that is no bytes')
      length += part.length
      if (length > maxBytes) throw fail(`it is larger than ${maxBytes} bytes`)
      parts.push(part)
    }
    return Buffer.concat(parts)
  }

  return {
    async read(etag, deadline) {
      try {
        return await get(etag, deadline)
      } catch (error) {
        if (statusOf(error) === 304 && etag !== undefined) return 'unchanged'
        throw error instanceof Outage ? error : fail(adviceOn(error, 's3:GetObject'), error)
      }
    },

    async find(deadline) {
      try {
        return await get(undefined, deadline)
      } catch (error) {
        if (nameOf(error) === 'NoSuchKey') return undefined
        throw error instanceof Outage ? error : fail(adviceOn(error, 's3:GetObject'), error)
      }
    },

    async write(bytes, etag, deadline) {
      const condition = etag === undefined ? { IfNoneMatch: '*' } : { IfMatch: etag }
      try {
        const { PutObjectCommand } = await sdk()
        const command = new PutObjectCommand({
          ...{ Bucket, Key, Body: bytes, ContentType: 'application/jose' },
          ...condition,
        })
        await (await connect()).send(command, { abortSignal: until(deadline) })
        return 'written'
      } catch (error) {
        // 412: another object is there; 409: another write was under way; NoSuchKey: it was deleted meanwhile.
        const status = statusOf(error)
        if (status === 412 || status === 409 || (etag !== undefined && nameOf(error) === 'NoSuchKey'))
          return 'changed'
        throw fail(adviceOn(error, 's3:PutObject'), error)
      }
    },
  }
}

const nameOf = (error: unknown): string => (error instanceof Error ? error.name : 'unknown error')

function statusOf(error: unknown): number | undefined {
  if (!(error instanceof Error) || !('$metadata' in error)) return undefined
  const { $metadata } = error
  if (typeof $metadata !== 'object' || $metadata === null || !('httpStatusCode' in $metadata))
    return undefined
  return typeof $metadata.httpStatusCode === 'number' ? $metadata.httpStatusCode : undefined
}

/** By the error's name alone: a message of the service may quote what it was sent. */
function adviceOn(error: unknown, right: string): string {
  const name = nameOf(error)
  switch (name) {
    case 'NoSuchKey':
      return 'there is no such object. Make it with sealgate directory init, or correct the name.'
    case 'NoSuchBucket':
      return 'there is no such bucket. Correct its name, or make it.'
    case 'PermanentRedirect':
    case 'AuthorizationHeaderMalformed':
      return `the bucket lies in another region (${name}). Set AWS_REGION to its region.`
    case 'AbortError':
    case 'TimeoutError':
      return 'S3 did not answer in time.'
    case 'CredentialsProviderError':
      return `there are no AWS credentials (${name}). Give the function a role, or set AWS_PROFILE.`
  }
  return statusOf(error) === 403
    ? `S3 refuses us (${name}), or the object is not there and we may not know. Allow ${right} on it, s3:ListBucket on the bucket, and the use of its KMS key.`
    : `it cannot be reached (${name}). Check the network to S3; it is tried again.`
}
