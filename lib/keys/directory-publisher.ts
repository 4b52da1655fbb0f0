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
  /** How long a version counts, seconds: unless told otherwise as long as the one before, the first a day. */
  readonly life?: number
  /** Issuers that may be left without a key to sign with. */
  readonly leaving?: ReadonlySet<string>
  /** Whether the version before may have expired long ago. */
  readonly lapsed?: boolean
  /** Told of each version once it stands. */
  readonly onPublished?: (published: Published) => void
}

/** What drafting takes. */
export type DraftOptions = Omit<PublisherOptions, 'root'>

/** A version and the next. */
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
 */
export async function publishChange(
  options: PublisherOptions,
  change: DirectoryChange,
  deadline: number,
): Promise<Published> {
  for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
    const { before, document, etag } = await draft(options, change, deadline)
    if (!(await write(options, document, etag, deadline))) continue
    options.onPublished?.({ before, document })
    return { before, document }
  }
  const reason = `${WHERE}: others published ${ATTEMPTS} times meanwhile; nothing was written, try again`
  throw new Outage('directory-unavailable', reason)
}

/** What `publishChange` would write now, which needs no root. Nothing is written. */
export async function draftChange(
  options: DraftOptions,
  change: DirectoryChange,
  deadline: number,
): Promise<Published> {
  const { before, document } = await draft(options, change, deadline)
  return { before, document }
}

/** Writes the first version, in which there is nothing. `ConfigError` where there is a directory already. */
export async function publishFirst(options: PublisherOptions, deadline: number): Promise<DirectoryDocument> {
  const document = firstOf(options)
  if (await write(options, document, undefined, deadline)) return document
  throw thereIsOne()
}

/** What `publishFirst` would write now, which needs no root. Nothing is written. */
export async function draftFirst(options: DraftOptions, deadline: number): Promise<DirectoryDocument> {
  if ((await options.store.find(deadline)) !== undefined) throw thereIsOne()
  return firstOf(options)
}

const firstOf = (options: DraftOptions): DirectoryDocument =>
  nextOf(options, new DirectoryDraft(EMPTY_DIRECTORY), EMPTY_DIRECTORY)

function thereIsOne(): ConfigError {
  const fix = 'Change it with `sealgate keys`; a second first version would bring revoked keys back.'
  return new ConfigError([{ where: WHERE, what: 'There is one already.', fix }])
}

async function draft(
  options: DraftOptions,
  change: DirectoryChange,
  deadline: number,
): Promise<Published & { readonly etag: string }> {
  const found = await options.store.find(deadline)
  if (found === undefined) {
    const fix = 'Make the first version with `sealgate directory init`, or name the place where it is.'
    throw new ConfigError([{ where: WHERE, what: 'There is none.', fix }])
  }
  const before = parseDirectory(found.bytes, options.roots).document
  const next = new DirectoryDraft(before)
  change(next, before)
  return { before, document: nextOf(options, next, before), etag: found.etag }
}

function nextOf(options: DraftOptions, next: DirectoryDraft, before: DirectoryDocument): DirectoryDocument {
  const { clock, leaving = new Set(), lapsed = false } = options
  const usual = before.version === 0 ? DAY_SECONDS : before.expiresAt - before.issuedAt
  return next.next({ now: Math.floor(clock.now() / 1000), life: options.life ?? usual, leaving, lapsed })
}

/** Whether nobody else was first. */
async function write(
  { store, roots, root }: PublisherOptions,
  document: DirectoryDocument,
  etag: string | undefined,
  deadline: number,
): Promise<boolean> {
  const bytes = await sealDirectory(document, root, deadline)
  // By a root that is not pinned, or anything else that no gate would read: it must not replace what they do read.
  parseDirectory(bytes, roots)
  return (await store.write(bytes, etag, deadline)) === 'written'
}
