/** `sealgate directory init|show|verify|publish`: the key directory as a whole (keys.md §1). */
import type { Command } from 'commander'
import { readJson } from '../lib/contract/json.ts'
import { ConfigError, type Fault, Rejection } from '../lib/errors.ts'
import { type DirectoryDocument, readDirectoryDocument } from '../lib/keys/directory-document.ts'
import {
  addChangeOptions,
  addDirectoryOptions,
  changeDirectory,
  type ChangeFlags,
  type DirectoryFlags,
  initDirectory,
  openDirectoryPlace,
  readDirectory,
  timeText,
} from './directory-place.ts'
import { EXIT, oneLine, printFaults, table } from './io.ts'
import { collect } from './numbers.ts'
import { readInput } from './record.ts'
import type { Terminal } from './terminal.ts'

/** As gates bear it. */
const MAX_LEAD_SECONDS = 300

/** Adds `directory init`, `show`, `verify` and `publish` to the program. */
export function addDirectoryCommands(program: Command, terminal: Terminal): void {
  const directory = program.command('directory').description('the signed key directory: whose keys count')
  const example = (name: string, rest = ''): string => `\nExample:\n  sealgate directory ${name}${rest}`
  addChangeOptions(
    directory.command('init').description('publish a first version, in which there is nothing'),
  )
    .addHelpText('after', `${example('init')}\n\nRefused where there is a directory already.`)
    .action((flags: ChangeFlags) => initDirectory(terminal, flags))
  addDirectoryOptions(
    directory.command('show').description('print the directory, once its signature holds'),
    'print the document, to be edited and published',
  )
    .addHelpText('after', example('show', ' --json > directory.json'))
    .action((flags: DirectoryFlags) => show(terminal, flags))
  addDirectoryOptions(
    directory.command('verify').description('whether gates take the directory as it stands'),
    'print {"verified","version","issuedAt","expiresAt","faults":[…]}',
  )
    .addHelpText('after', `${example('verify')}\n\nExit status 1: they do not.`)
    .action((flags: DirectoryFlags) => verify(terminal, flags))
  addChangeOptions(
    directory
      .command('publish')
      .description(
        'publish the next version: the same again, so that it does not expire, or a file edited by hand',
      )
      .argument('[file]', 'a document as `directory show --json` prints it; - for standard input'),
  )
    .option('--leaving <issuer>', 'this issuer may be left without a key to sign with', collect, [])
    .option('--lapsed', 'though the version before expired over 30 days ago, this clock is right')
    .addHelpText('after', example('publish'))
    .action((file: string | undefined, flags: ChangeFlags) => publish(terminal, file, flags))
}

async function show(terminal: Terminal, flags: DirectoryFlags): Promise<void> {
  const place = await openDirectoryPlace(terminal, flags, false)
  const document = await readDirectory(terminal, place)
  if (flags.json) terminal.write(JSON.stringify(document, undefined, 2))
  else for (const line of linesOf(place.name, document)) terminal.write(oneLine(line))
  terminal.exit(EXIT.ok)
}

function linesOf(name: string, document: DirectoryDocument): readonly string[] {
  const { version, issuedAt, expiresAt, signingKeys, keks } = document
  const head = `Version ${version} at ${name}, issued ${timeText(issuedAt)}, expires ${timeText(expiresAt)}.`
  const signing = [
    ['SIGNING KEY', 'ISSUER', 'STATE', 'FROM', 'UNTIL'],
    ...signingKeys.map(({ kid, iss, state, notBefore, notAfter }) => [
      ...[kid, iss, state, timeText(notBefore), timeText(notAfter)],
    ]),
  ]
  const wrapping = [
    ['KEK', 'ISSUERS', 'KEY'],
    ...keks.map(({ kekId, iss, provider, key }) => [kekId, iss.join(','), `${provider} ${key}`]),
  ]
  return [head, '', ...table(signing), '', ...table(wrapping)]
}

async function verify(terminal: Terminal, flags: DirectoryFlags): Promise<void> {
  const place = await openDirectoryPlace(terminal, flags, false)
  const now = Math.floor(terminal.now() / 1000)
  let document: DirectoryDocument | undefined
  let faults: readonly Fault[]
  try {
    document = await readDirectory(terminal, place)
    faults = faultsOf(document, now).map((fault) => ({ ...fault, where: place.name }))
  } catch (error) {
    // Whose signature or form is wrong is what was asked for, and no wrong input.
    if (!(error instanceof ConfigError)) throw error
    faults = error.faults
  }
  const verified = faults.length === 0
  if (flags.json) {
    const { version, issuedAt, expiresAt } = document ?? {}
    terminal.write(JSON.stringify({ verified, version, issuedAt, expiresAt, faults }))
  } else {
    printFaults(terminal, faults)
    if (verified && document !== undefined)
      terminal.write(
        oneLine(
          `Version ${document.version} at ${place.name} is signed by a pinned root and counts until ${timeText(document.expiresAt)}.`,
        ),
      )
  }
  terminal.exit(verified ? EXIT.ok : EXIT.found)
}

function faultsOf({ version, issuedAt, expiresAt }: DirectoryDocument, now: number): Omit<Fault, 'where'>[] {
  if (expiresAt <= now) {
    const what = `Version ${version} expired at ${timeText(expiresAt)}, and here it is ${timeText(now)}.`
    return [{ what, fix: 'Renew it: sealgate directory publish. Or set this clock.' }]
  }
  if (issuedAt > now + MAX_LEAD_SECONDS) {
    const what = `Version ${version} was issued at ${timeText(issuedAt)}, and here it is ${timeText(now)}.`
    return [{ what, fix: "Set this clock, or the publisher's and publish again." }]
  }
  return []
}

async function publish(terminal: Terminal, file: string | undefined, flags: ChangeFlags): Promise<void> {
  const edited = file === undefined ? undefined : documentOf(file, await readInput(terminal, file))
  const told =
    edited === undefined ? '' : 'Gates that run have it within 60 s; use new keys from 3 minutes on.'
  await changeDirectory(terminal, flags, (draft) => edited && draft.take(edited), told)
}

/** Throws `ConfigError` with every fault of the file, each with its name. */
function documentOf(file: string, bytes: Uint8Array): DirectoryDocument {
  const where = file === '-' ? 'standard input' : file
  try {
    return readDirectoryDocument(readJson(bytes).value)
  } catch (error) {
    if (error instanceof ConfigError)
      throw new ConfigError(error.faults.map((fault) => ({ ...fault, where: `${where}: ${fault.where}` })))
    if (!(error instanceof Rejection)) throw error
    const fix = 'Edit what sealgate directory show --json prints.'
    throw new ConfigError([{ where, what: 'It is no JSON, or has a name twice.', fix }])
  }
}
