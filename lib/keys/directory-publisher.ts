/** Publishes the next version of a key directory so that of two who edit it neither is lost (keys.md §1). */
import type { PublicKey } from '../envelope/crypto.ts'
import { ConfigError, Outage } from '../errors.ts'
import type { Clock, DocumentStore, Signer } from '../ports.ts'
import { type DirectoryDocument, parseDirectory, sealDirectory } from './directory-document.ts'
import { DirectoryDraft, EMPTY_DIRECTORY } from './directory-draft.ts'

export interface PublisherOptions {
  readonly store: DocumentStore
  /** The pinned roots: what is there must be signed by one of them. */
  readonly roots: readonly PublicKey[]
  /** Signs the next version; one of the pinned. */
  readonly root: Signer
  readonly clock: Clock
  /** How long a version counts, seconds: a day unless told otherwise. */
  readonly life?: number
}

export interface Published {
  readonly before: DirectoryDocument
  readonly document: DirectoryDocument
}

/** So many others may be first before we give up. */
const ATTEMPTS = 8
const DAY_SECONDS = 86_400
const WHERE = 'key directory'

/** What a change is given to work on. */
export type DirectoryChange = (draft: DirectoryDraft, before: DirectoryDocument) => void

/**
 * Reads the directory, lets `change` draft the next version, and writes that where the one read still stands; where
 * another was first, all of it again, so `change` may be called more than once. Rejects with `ConfigError` where there is
 * no directory of these roots, or the draft has faults: nothing is written then.
 * @param leaving issuers that may be left without a key to sign with
 */
export async function publishChange(
  options: PublisherOptions,
  change: DirectoryChange,
  deadline: number,
  leaving: ReadonlySet<string> = new Set(),
): Promise<Published> {
  const { store, roots } = options
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const found = await store.find(deadline)
    if (found === undefined) {
      const fix = 'Make the first version with `sealgate directory init`, or name the place where it is.'
      throw new ConfigError([{ where: WHERE, what: 'There is none.', fix }])
    }
    const before = parseDirectory(found.bytes, roots).document
    const draft = new DirectoryDraft(before)
    change(draft, before)
    const document = await write(options, draft, found.etag, leaving, deadline)
    if (document !== undefined) return { before, document }
  }
  const reason = `${WHERE}: others published ${ATTEMPTS} times meanwhile; nothing was written, try again`
  throw new Outage('directory-unavailable', reason)
}

/** Writes the first version, in which there is nothing. `ConfigError` where there is a directory already. */
export async function publishFirst(options: PublisherOptions, deadline: number): Promise<DirectoryDocument> {
  const draft = new DirectoryDraft(EMPTY_DIRECTORY)
  const document = await write(options, draft, undefined, new Set(), deadline)
  if (document !== undefined) return document
  const fix = 'Change it with `sealgate keys`; a second first version would bring revoked keys back.'
  throw new ConfigError([{ where: WHERE, what: 'There is one already.', fix }])
}

/** Undefined where another was first. */
async function write(
  { store, roots, root, clock, life = DAY_SECONDS }: PublisherOptions,
  draft: DirectoryDraft,
  etag: string | undefined,
  leaving: ReadonlySet<string>,
  deadline: number,
): Promise<DirectoryDocument | undefined> {
  const document = draft.next({ now: Math.floor(clock.now() / 1000), life, leaving })
  const bytes = await sealDirectory(document, root, deadline)
  // By a root that is not pinned, or anything else that no gate would read: it must not replace what they do read.
  parseDirectory(bytes, roots)
  return (await store.write(bytes, etag, deadline)) === 'written' ? document : undefined
}
