/** Keeps a copy of the key directory young, and never takes an older one for a newer (keys.md §1). */
import { digest, equal, type PublicKey } from '../envelope/crypto.ts'
import { Outage } from '../errors.ts'
import type { Clock, DocumentSource } from '../ports.ts'
import { byDeadline } from './deadline.ts'
import { type Directory, type DirectorySnapshot } from './directory.ts'
import { parseDirectory } from './directory-document.ts'

export interface DirectoryOptions {
  readonly source: DocumentSource
  /** The pinned root's public key; two while the root itself is being rotated. */
  readonly roots: readonly PublicKey[]
  readonly clock: Clock
  /** A slice that begins with an older copy reads anew. Ages count from the start of the read. */
  readonly maxAgeMs?: number
  /** How old a copy may grow where reading fails. */
  readonly graceMs?: number
  /** How long one read may take. */
  readonly readMs?: number
  /** After a read that failed, and while the copy serves, the next one waits this long. */
  readonly retryMs?: number
  /** Told of every read that failed: an alarm, since the gate stops when the copy has grown too old. */
  readonly onReadFailed?: (outage: Outage) => void
}

/** A copy issued further ahead of our clock than this is refused: one of the two clocks is wrong. */
const MAX_LEAD_MS = 300_000

interface Copy {
  readonly snapshot: DirectorySnapshot
  readonly etag: string
  /** Of the bytes as read: the same bytes need not be verified again. */
  readonly bytesDigest: Uint8Array
  readonly readAt: number
}

export function createDirectory(options: DirectoryOptions): Directory {
  const { source, roots, clock } = options
  const { maxAgeMs = 60_000, graceMs = 300_000, readMs = 5000, retryMs = 5000 } = options
  if (roots.length < 1 || roots.length > 2) throw new TypeError('one or two directory roots are pinned')
  const listeners: ((snapshot: DirectorySnapshot) => void)[] = []
  let copy: Copy | undefined
  /** The highest version that a root has signed, as far as we saw, and its content. */
  let seen: { version: number; payloadDigest: Uint8Array } = { version: 0, payloadDigest: new Uint8Array() }
  let flight: Promise<void> | undefined
  let retryFrom = -Infinity

  /** Not older than `limit`; a clock that went back makes no copy younger. */
  const isWithin = (limit: number, now: number): boolean =>
    copy !== undefined && now >= copy.readAt && now - copy.readAt <= limit

  const refuseOlder = ({ version }: DirectorySnapshot): void => {
    if (version < seen.version)
      throw failed(`version ${version} is older than version ${seen.version}, which was here before`)
  }

  /** A later version may have been seen and been of no use: then the copy at hand is an older one too. */
  const stillGood = (known: Copy): Copy => {
    refuseOlder(known.snapshot)
    return known
  }

  const load = async (startedAt: number): Promise<Copy> => {
    const answer = await source.read(copy?.etag, startedAt + readMs)
    if (answer === 'unchanged') {
      if (copy === undefined) throw failed('the source calls a document unchanged that was never read')
      return { ...stillGood(copy), readAt: startedAt }
    }
    const { etag, bytes } = answer
    const bytesDigest = digest(bytes)
    if (copy !== undefined && equal(copy.bytesDigest, bytesDigest))
      return { ...stillGood(copy), etag, readAt: startedAt }
    const { snapshot, payloadDigest } = parseDirectory(bytes, roots)
    refuseOlder(snapshot)
    if (snapshot.version === seen.version && !equal(payloadDigest, seen.payloadDigest))
      throw failed(`version ${snapshot.version} has two contents: publish the next version`)
    seen = { version: snapshot.version, payloadDigest }
    return { snapshot, etag, bytesDigest, readAt: startedAt }
  }

  const read = async (): Promise<void> => {
    const startedAt = clock.now()
    const deadline = startedAt + readMs
    try {
      const loaded = await byDeadline(load(startedAt), deadline, clock, () =>
        failed('the source does not answer'),
      )
      const { snapshot } = loaded
      const now = clock.now()
      if (snapshot.expiresAt * 1000 <= now)
        throw failed(`version ${snapshot.version} has expired: publish a new one`)
      if (snapshot.issuedAt * 1000 > now + MAX_LEAD_MS)
        throw failed(
          `version ${snapshot.version} was issued in the future: set this clock or the publisher's`,
        )
      const before = copy?.snapshot
      copy = loaded
      if (before === undefined || keksOf(before) !== keksOf(snapshot))
        for (const tell of listeners) tell(snapshot)
    } catch (error) {
      retryFrom = clock.now() + retryMs
      const outage = error instanceof Outage ? error : failed(messageOf(error), error)
      options.onReadFailed?.(outage)
      throw outage
    }
  }

  const readOnce = (): Promise<void> => {
    flight ??= read().finally(() => {
      flight = undefined
    })
    return flight
  }

  return {
    async snapshot(deadline) {
      const now = clock.now()
      if (copy !== undefined && isWithin(maxAgeMs, now)) return { snapshot: copy.snapshot, fresh: true }
      let cause: unknown
      // While the copy serves, a source that fails is not asked by every slice.
      if (!isWithin(graceMs, now) || now >= retryFrom) {
        try {
          await byDeadline(readOnce(), deadline, clock, () => failed('no time left to read it'))
        } catch (error) {
          cause = error
        }
      }
      const then = clock.now()
      if (copy !== undefined && isWithin(graceMs, then))
        return { snapshot: copy.snapshot, fresh: isWithin(maxAgeMs, then) }
      throw failed(`no copy is young enough (${messageOf(cause)})`, cause)
    },
    onKeksChanged(listener) {
      listeners.push(listener)
    },
  }
}

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : 'the clock went back')

const failed = (reason: string, cause?: unknown): Outage =>
  new Outage('directory-unavailable', `key directory: ${reason}`, cause === undefined ? undefined : { cause })

const keksOf = ({ keks }: DirectorySnapshot): string =>
  JSON.stringify(keks.map(({ kekId, provider, key, iss }) => [kekId, provider, key, iss]))
