/** A document in an AWS Secrets Manager secret, as `DocumentStore`. At most 64 KiB: the service's own bound. */
import type { SecretsManagerClient } from '@aws-sdk/client-secrets-manager'
import { digest } from '../envelope/crypto.ts'
import { ConfigError, Outage, type OutageCode } from '../errors.ts'
import type { Clock, DocumentStore } from '../ports.ts'
import { signalUntil } from './aws-signal.ts'

export interface DocumentSecretOptions {
  /** The secret's ARN. It must be there, with a value or without one. */
  readonly arn: string
  /** What it means that the secret cannot be read or written. */
  readonly outage: OutageCode
  readonly clock: Clock
}

/** `SecretString`, in bytes. */
const MAX_BYTES = 65_536

/** Loaded at the first call: who keeps documents elsewhere need not wait for the SDK. */
const sdk = () => import('@aws-sdk/client-secrets-manager')

/**
 * The etag is the id of the version that is `AWSCURRENT`. Secrets Manager has no conditional write, but an id is that of
 * one value for ever (`ResourceExistsException`): so the id of a version is made from the id of the one that it follows.
 * Of any number of such writers who have read the same version, one makes its successor, whenever their calls arrive. Who
 * puts a value there by other means, between our look and our write, is not seen: his value becomes `AWSPREVIOUS`.
 */
export function documentSecret(options: DocumentSecretOptions): DocumentStore {
  const { arn, outage, clock } = options
  let client: Promise<SecretsManagerClient> | undefined
  const region = arn.split(':', 4)[3] ?? ''
  const connect = (): Promise<SecretsManagerClient> =>
    (client ??= sdk().then(({ SecretsManagerClient: Client }) => new Client({ maxAttempts: 1, region })))
  const until = (deadline: number): AbortSignal => signalUntil(deadline, clock)
  const fail = (reason: string, cause?: unknown): Outage =>
    new Outage(outage, `${arn}: ${reason}`, cause === undefined ? undefined : { cause })

  const read = async (deadline: number): Promise<{ bytes: Buffer; etag: string }> => {
    const { GetSecretValueCommand } = await sdk()
    const command = new GetSecretValueCommand({ SecretId: arn })
    const answer = await (await connect()).send(command, { abortSignal: until(deadline) })
    const { SecretString: text, SecretBinary: binary, VersionId: etag } = answer
    const bytes = text === undefined ? binary : Buffer.from(text)
    if (bytes === undefined || etag === undefined) throw new TypeError('no value')
    return { bytes: Buffer.from(bytes), etag }
  }

  const find = async (deadline: number): Promise<{ bytes: Buffer; etag: string } | undefined> => {
    try {
      return await read(deadline)
    } catch (error) {
      if (nameOf(error) === 'ResourceNotFoundException') return undefined
      throw fail(adviceOn(error, 'GetSecretValue'), error)
    }
  }

  return {
    async read(etag, deadline) {
      try {
        const found = await read(deadline)
        return found.etag === etag ? 'unchanged' : found
      } catch (error) {
        throw fail(adviceOn(error, 'GetSecretValue'), error)
      }
    },
    find,
    async write(bytes, etag, deadline) {
      if (bytes.length > MAX_BYTES) {
        const what = `The document has ${bytes.length} bytes, and a secret holds ${MAX_BYTES}.`
        const fix = 'Remove keys that are no longer needed, or keep the document in S3.'
        throw new ConfigError([{ where: arn, what, fix }])
      }
      if ((await find(deadline))?.etag !== etag) return 'changed'
      const version = successorOf(etag)
      try {
        const { PutSecretValueCommand } = await sdk()
        const SecretString = Buffer.from(bytes).toString()
        const command = new PutSecretValueCommand({
          ...{ SecretId: arn, ClientRequestToken: version, SecretString },
        })
        await (await connect()).send(command, { abortSignal: until(deadline) })
        return 'written'
      } catch (error) {
        if (nameOf(error) !== 'ResourceExistsException') throw fail(adviceOn(error, 'PutSecretValue'), error)
      }
      if ((await find(deadline))?.etag !== etag) return 'changed'
      // Somebody moved the label back: gates refuse the older document, and what follows it is there already.
      throw fail(
        `its version ${version} was current, and AWSCURRENT has been moved back. Move it to that version again.`,
      )
    },
  }
}

/** 64 characters, which is what an id may have. */
const successorOf = (etag: string | undefined): string =>
  digest(Buffer.from(`sealgate successor\0${etag ?? ''}`)).toString('hex')

const nameOf = (error: unknown): string => (error instanceof Error ? error.name : 'unknown error')

/** By the error's name alone: a message of the service may quote what it was sent. */
function adviceOn(error: unknown, right: string): string {
  const name = nameOf(error)
  switch (name) {
    case 'AccessDeniedException':
      return `we may not use this secret (${name}). Allow secretsmanager:${right} on it, and the use of its KMS key.`
    case 'ResourceNotFoundException':
      return `there is no such secret, or none that is current (${name}). Make it, then sealgate directory init.`
    case 'LimitExceededException':
      return `it has too many versions for now (${name}). Publish less often, or keep the document in S3.`
    case 'AbortError':
    case 'TimeoutError':
      return 'Secrets Manager did not answer in time.'
    case 'CredentialsProviderError':
      return `there are no AWS credentials (${name}). Give the function a role, or set AWS_PROFILE.`
    default:
      return `this secret cannot be used (${name}). Check the network to Secrets Manager; it is tried again.`
  }
}
