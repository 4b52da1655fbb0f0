/** The key directory that a command works on: an embedded stack's, or the one that the settings name. */
import { dirname, join } from 'node:path'
import type { Command } from 'commander'
import { openDocument, openDocumentStore, placeName } from '../lib/adapters/document-place.ts'
import { rootSigner } from '../lib/adapters/root-signer.ts'
import { type PublicKey, publicKeyOf } from '../lib/envelope/crypto.ts'
import { differences, type RowDifference } from '../lib/keys/directory-difference.ts'
import { type DirectoryDocument, parseDirectory } from '../lib/keys/directory-document.ts'
import { EMPTY_DIRECTORY } from '../lib/keys/directory-draft.ts'
import {
  type DirectoryChange,
  draftChange,
  draftFirst,
  publishChange,
  publishFirst,
  type Published,
} from '../lib/keys/directory-publisher.ts'
import { readLocalRoot } from '../lib/local/root.ts'
import type { DocumentSource, DocumentStore, Signer } from '../lib/ports.ts'
import { EXIT, oneLine } from './io.ts'
import { byOption, type Lifecycle, openLifecycle } from './lifecycle.ts'
import { wholeNumber } from './numbers.ts'
import { choosePlace, type PlaceSettings } from './place-settings.ts'
import { type KeySettings, readKeySettings } from './settings.ts'
import type { Terminal } from './terminal.ts'
import { namingOption, stackFolderOption } from './world.ts'

/** What is asked of a directory may take so long, writing included. */
export const CALL_MS = 20_000

export interface DirectoryFlags {
  readonly folder?: string
  readonly settings?: string
  readonly json?: true
}

export interface ChangeFlags extends DirectoryFlags {
  readonly dryRun?: true
  /** Hours. */
  readonly life?: number
  readonly leaving?: readonly string[]
  readonly lapsed?: true
  readonly by?: string
}

export interface DirectoryPlace {
  /** As it is told to people. */
  readonly name: string
  readonly roots: readonly PublicKey[]
  readonly source: DocumentSource
  /** Where this user's challenges are kept. */
  readonly stateFolder: string
  /** Where what is changed is told of. Throws `ConfigError` with every fault of its settings. */
  lifecycle(by: string | undefined): Promise<Lifecycle>
  /** Throws `ConfigError` where nobody writes. */
  store(): DocumentStore
  /** The root; only where it was asked for. */
  signer(deadline: number): Promise<Signer>
}

/** Adds `--folder`, `--settings` and `--json`. */
export function addDirectoryOptions(command: Command, json: string): Command {
  const settings = 'settings with directory, roots, rootKey (default: sealgate.yaml)'
  return command
    .addOption(stackFolderOption())
    .addOption(namingOption('--settings <file>', settings))
    .option('--json', json)
}

/** Adds what every change takes. */
export function addChangeOptions(command: Command): Command {
  const json = 'print {"published","version","issuedAt","expiresAt","changes":[…],"audited"}'
  return addDirectoryOptions(command, json)
    .addOption(byOption())
    .option('--dry-run', 'show the difference; publish nothing')
    .option(
      '--life <hours>',
      'how long the version counts (default: as the one before)',
      wholeNumber(1, 8760),
    )
}

/** With `needsRoot`, the settings must name what signs. */
export async function openDirectoryPlace(
  terminal: Terminal,
  { folder, settings }: DirectoryFlags,
  needsRoot: boolean,
): Promise<DirectoryPlace> {
  const place = choosePlace(
    { ...(folder !== undefined && { folder }), ...(settings !== undefined && { settings }) },
    terminal.env,
  )
  const { trust, stateFolder } = await directoryTrust(place, needsRoot)
  const { directory, roots, rootKey } = trust
  const options = { outage: 'directory-unavailable', clock: terminal } as const
  return {
    name: placeName(directory),
    roots,
    source: openDocument(directory, options),
    stateFolder,
    lifecycle: (by) => openLifecycle(terminal, place, trust, by),
    store: () => openDocumentStore(directory, options),
    signer: async (deadline) => {
      if (rootKey === undefined) throw new TypeError('the root was not asked for')
      return rootSigner(rootKey, roots, terminal, deadline)
    },
  }
}

/** What a place trusts, and with `needsRoot` what signs there; and where this user's challenges are kept. */
export async function directoryTrust(
  place: PlaceSettings,
  needsRoot: boolean,
): Promise<{ readonly trust: KeySettings; readonly stateFolder: string }> {
  if ('folder' in place) return { trust: await localTrust(place.folder), stateFolder: place.folder }
  const stateFolder = join(dirname(place.cluster.file ?? STATE_FOLDER), STATE_FOLDER)
  return { trust: readKeySettings(place.cluster, needsRoot), stateFolder }
}

/** Beside the settings file, or in the working directory. */
const STATE_FOLDER = '.sealgate'

async function localTrust(folder: string): Promise<KeySettings> {
  const { directoryPath, root } = await readLocalRoot(join(folder, 'keys'))
  return {
    directory: { kind: 'file', path: directoryPath },
    roots: [publicKeyOf(root)],
    rootKey: { key: root },
  }
}

/** The directory as it stands. Rejects with `Outage` where it cannot be read, with `ConfigError` where no gate would read it. */
export async function readDirectory(terminal: Terminal, place: DirectoryPlace): Promise<DirectoryDocument> {
  const found = await place.source.read(undefined, terminal.now() + CALL_MS)
  if (found === 'unchanged') throw new TypeError('what was never read is not unchanged')
  return parseDirectory(found.bytes, place.roots).document
}

/**
 * Publishes a change and tells the audit, or with `--dry-run` shows it; says `told`. What is published stands, whatever
 * becomes of the audit: a revocation must not wait for Kafka.
 * @param first what is to be done once, after it is known that the change has no fault, and before it is published
 */
export async function changeDirectory(
  terminal: Terminal,
  flags: ChangeFlags,
  change: DirectoryChange,
  told: string,
  first?: () => Promise<void>,
): Promise<void> {
  const { dryRun, json, life, leaving, lapsed } = flags
  const place = await openDirectoryPlace(terminal, flags, dryRun === undefined)
  const deadline = terminal.now() + CALL_MS
  const options = {
    store: place.store(),
    roots: place.roots,
    clock: terminal,
    leaving: new Set(leaving),
    ...(life !== undefined && { life: life * 3600 }),
    ...(lapsed && { lapsed }),
  }
  if (dryRun !== undefined) {
    tell(terminal, flags, place.name, await draftChange(options, change, deadline), told)
    return
  }
  await draftChange(options, change, deadline)
  const lifecycle = await place.lifecycle(flags.by)
  try {
    const root = await place.signer(deadline)
    await first?.()
    const published = await publishChange({ ...options, root }, change, deadline)
    lifecycle.account.add({ published })
    if (!json) tell(terminal, flags, place.name, published, told)
    const audited = await lifecycle.settle(`Version ${published.document.version} stands.`)
    if (json) tell(terminal, flags, place.name, published, told, audited)
    if (audited === false) terminal.exit(EXIT.outage)
  } finally {
    await lifecycle.close()
  }
}

/**
 * Publishes the first version, or with `--dry-run` shows it. Nobody can sign an entry of it yet: the first that is written
 * notes what was before.
 */
export async function initDirectory(terminal: Terminal, flags: ChangeFlags): Promise<void> {
  const { life, dryRun } = flags
  const place = await openDirectoryPlace(terminal, flags, dryRun === undefined)
  const deadline = terminal.now() + CALL_MS
  const options = {
    ...{ store: place.store(), roots: place.roots },
    ...{ clock: terminal, ...(life !== undefined && { life: life * 3600 }) },
  }
  const document =
    dryRun === undefined
      ? await publishFirst({ ...options, root: await place.signer(deadline) }, deadline)
      : await draftFirst(options, deadline)
  const next =
    'Enrol keys with sealgate keys enrol, and renew it before it expires: sealgate directory publish.'
  tell(terminal, flags, place.name, { before: EMPTY_DIRECTORY, document }, next)
}

function tell(
  terminal: Terminal,
  { json, dryRun }: ChangeFlags,
  name: string,
  { before, document }: Published,
  sentence: string,
  audited: boolean | null = null,
): void {
  const changes = differences(before, document)
  const { version, issuedAt, expiresAt } = document
  const published = dryRun === undefined
  if (json) {
    const told = { published, directory: name, version, issuedAt, expiresAt, changes, audited }
    terminal.write(JSON.stringify(told))
  } else {
    for (const difference of changes) terminal.write(oneLine(lineOf(difference)))
    const verb = published ? 'Published' : 'Would publish'
    terminal.write(oneLine(`${verb} version ${version} at ${name}. It expires at ${timeText(expiresAt)}.`))
    if (published && sentence !== '') for (const line of sentence.split('\n')) terminal.write(oneLine(line))
  }
  terminal.exit(EXIT.ok)
}

function lineOf({ list, name, iss, change, fields }: RowDifference): string {
  const sign = { added: '+', removed: '-', changed: '~' }[change]
  const row = `${sign} ${list === 'keks' ? 'KEK' : 'key'} ${name} of ${iss.join(', ')}`
  const changed = fields.map(
    ({ field, from, to }) => `${field} ${valueText(field, from)} → ${valueText(field, to)}`,
  )
  return changed.length === 0 ? row : `${row}: ${changed.join(', ')}`
}

const TIMES: ReadonlySet<string> = new Set(['notBefore', 'notAfter', 'compromisedAt'])

function valueText(field: string, value: unknown): string {
  if (TIMES.has(field) && typeof value === 'number') return timeText(value)
  return typeof value === 'string' ? value : value === null ? 'none' : JSON.stringify(value)
}

/** Seconds since 1970 as RFC 3339; as they are, where no calendar reaches. */
export function timeText(seconds: number): string {
  const date = new Date(seconds * 1000)
  return Number.isNaN(date.getTime()) ? String(seconds) : date.toISOString().replace('.000Z', 'Z')
}
