/** `sealgate keys`: the life of one signing key in the key directory (keys.md §1, §3). */
import { open, readFile, stat } from 'node:fs/promises'
import { type Command, InvalidArgumentError } from 'commander'
import { kmsPublicKey, kmsSigner } from '../lib/adapters/kms.ts'
import {
  exportPrivateJwk,
  exportPublicJwk,
  generateKeyPair,
  type PublicKey,
  publicKeyOf,
  thumbprint,
} from '../lib/envelope/crypto.ts'
import { suiteOf } from '../lib/envelope/suite.ts'
import { codeOf, ConfigError } from '../lib/errors.ts'
import type { DirectoryChange } from '../lib/keys/directory-publisher.ts'
import type { DirectoryDraft } from '../lib/keys/directory-draft.ts'
import { localSigner } from '../lib/keys/signer.ts'
import type { Kek, Signer } from '../lib/ports.ts'
import { privateKeyOf } from '../lib/settings.ts'
import {
  addChangeOptions,
  addDirectoryOptions,
  CALL_MS,
  changeDirectory,
  type ChangeFlags,
  type DirectoryFlags,
  openDirectoryPlace,
  readDirectory,
  timeText,
} from './directory-place.ts'
import { answerOf, Challenges, isIssuer, readChallenge, readProof } from './enrolment.ts'
import { EXIT, oneLine, table } from './io.ts'
import { collect, timeOf, wholeNumber } from './numbers.ts'
import { addKekCommands, kekOf } from './keks.ts'
import { readInput } from './record.ts'
import { isReadByOthers } from './settings-file.ts'
import type { Terminal } from './terminal.ts'
import { addTouchedCommand } from './touched.ts'
import { placeFlags } from './world.ts'

/** By then every gate has a new version, even one whose read failed once (keys.md §1). */
const USABLE_AFTER_SECONDS = 180
const DAY_SECONDS = 86_400
const POLLED = 'Gates that run have it within 60 s, after the slice at hand.'

interface EnrolFlags extends ChangeFlags {
  readonly notBefore?: number
  readonly days: number
  readonly kek?: Kek
}

/** Adds `keys new`, `challenge`, `prove`, `enrol`, `list`, `suspend`, `resume`, `revoke`, `retire`, `kek` and `touched`. */
export function addKeysCommands(program: Command, terminal: Terminal): void {
  const keys = program
    .command('keys')
    .description('signing keys: enrol them, look at them, put them out of use')
  addOwnerCommands(keys, terminal)
  addDirectoryOptions(
    keys
      .command('challenge')
      .description('make a challenge for a key that is to be enrolled; used once, good for a day')
      .argument('<issuer>', 'the name that the key is to sign for', issuer),
    'no effect: a challenge is JSON',
  )
    .addHelpText('after', example('challenge', 'shop-web > challenge.json'))
    .action((iss: string, flags: DirectoryFlags) => challenge(terminal, iss, flags))
  addChangeOptions(
    keys
      .command('enrol')
      .description('enrol a key whose owner has answered a challenge of yours')
      .argument('<proof>', 'what sealgate keys prove printed; - for standard input'),
  )
    .option('--not-before <time>', 'may sign from then on (default: 3 minutes from now)', seconds)
    .option('--days <n>', 'may sign so long', wholeNumber(1, 3650), 90)
    .option('--kek <kekId=arn>', 'lets the issuer seal under this KEK in AWS KMS too', kekOf)
    .addHelpText('after', example('enrol', 'proof.json'))
    .action((file: string, flags: EnrolFlags) => enrol(terminal, file, flags))
  addDirectoryOptions(
    keys.command('list').description('all signing keys and their states'),
    'print a JSON object for each key',
  )
    .option('--issuer <name>', 'only keys of this issuer')
    .addHelpText('after', example('list', '--issuer shop-web'))
    .action((flags: DirectoryFlags & { readonly issuer?: string }) => list(terminal, flags))
  addStateCommands(keys, terminal)
  addKekCommands(keys, terminal)
  addTouchedCommand(keys, terminal)
}

const example = (name: string, rest: string): string => `\nExample:\n  sealgate keys ${name} ${rest}`

/** What the owner of a key does, without any directory. */
function addOwnerCommands(keys: Command, terminal: Terminal): void {
  keys
    .command('new')
    .description('make a key pair; print its public half')
    .argument('<file>', 'where the private JWK goes, for you alone; never over a file that is there')
    .option('--alg <name>', 'Ed25519 or ESP256', 'Ed25519')
    .option('--json', 'no effect: a JWK is JSON')
    .addHelpText('after', example('new', 'shop-web.jwk'))
    .action((file: string, { alg }: { readonly alg: string }) => newPair(terminal, file, alg))
  keys
    .command('prove')
    .description('answer a challenge with a private key, which stays where it is')
    .argument('<challenge>', 'what sealgate keys challenge printed; - for standard input')
    .requiredOption('--key <key>', 'a private JWK for you alone, or the ARN of a KMS key')
    .option('--json', 'no effect: a proof is JSON')
    .addHelpText('after', example('prove', 'challenge.json --key shop-web.jwk > proof.json'))
    .action((file: string, { key }: { readonly key: string }) => prove(terminal, file, key))
}

function addStateCommands(keys: Command, terminal: Terminal): void {
  const add = (name: string, description: string, rest = ''): Command =>
    addChangeOptions(
      keys
        .command(name)
        .description(description)
        .argument('<kid>', 'the key, as sealgate keys list has it')
        // A kid may begin with a dash. What is neither flag nor kid is one argument too many, or no key.
        .allowUnknownOption()
        .allowExcessArguments(false),
    )
      .option('--leaving <issuer>', 'this issuer may be left without a key to sign with', collect, [])
      .addHelpText('after', example(name, `2ynK…${rest}`))
  const change = (
    flags: ChangeFlags,
    work: (draft: DirectoryDraft) => void,
    told: string,
    ...next: string[]
  ): Promise<void> => changeDirectory(terminal, flags, work, [`${told} ${POLLED}`, ...next].join('\n'))

  add('suspend', 'refuse all that a key signs, until it is resumed').action(
    (kid: string, flags: ChangeFlags) =>
      change(
        flags,
        (draft) => draft.suspend(kid),
        'All that it signs is refused, and so is what it signed and no gate has read yet.',
      ),
  )
  add('resume', 'let a suspended key sign again').action((kid: string, flags: ChangeFlags) =>
    change(
      flags,
      (draft) => draft.resume(kid),
      'It may sign again. What was refused meanwhile stays in quarantine: see sealgate quarantine redrive.',
    ),
  )
  add('revoke', 'a key is not its owner’s alone any more: for ever', ' --compromised-at 2026-11-22T09:15:00Z')
    .requiredOption(
      '--compromised-at <time>',
      'since when: ISO 8601; or `unknown`: nothing counts that it signed, ever',
      (text: string) => (text === 'unknown' ? text : seconds(text)),
    )
    .action((kid: string, flags: ChangeFlags & { readonly compromisedAt: number | 'unknown' }) => {
      const compromisedAt = flags.compromisedAt === 'unknown' ? null : flags.compromisedAt
      refuseFuture('--compromised-at', compromisedAt, terminal)
      const since =
        compromisedAt === null
          ? 'Nothing counts any more that it signed.'
          : `What brokers have stamped at ${timeText(compromisedAt)} or later is refused; what they stamped before counts.`
      const place = placeFlags(flags)
      return change(
        flags,
        (draft) => draft.revoke(kid, compromisedAt),
        since,
        `What it touched: sealgate keys touched${place} -- ${kid}`,
        `Its story: sealgate audit search --resource 'key:${kid}'${place}`,
      )
    })
  add('retire', 'a key signs no more; what it signed counts')
    .option('--at <time>', 'the last second in which it may (default: now)', seconds)
    .action((kid: string, flags: ChangeFlags & { readonly at?: number }) => {
      const at = flags.at ?? Math.floor(terminal.now() / 1000)
      const until = `What brokers stamp after ${timeText(at)} is refused; what they stamped until then counts.`
      return change(flags, (draft) => draft.retire(kid, at), until)
    })
}

function issuer(text: string): string {
  if (isIssuer(text)) return text
  throw new InvalidArgumentError('Give a name of 1 to 128 bytes.')
}

function seconds(text: string): number {
  const time = Math.floor(timeOf(text) / 1000)
  if (time >= 0) return time
  throw new InvalidArgumentError('Give a time as 2026-11-22T09:15:00Z.')
}

function refuseFuture(where: string, time: number | null, terminal: Terminal): void {
  const now = Math.floor(terminal.now() / 1000)
  if (time === null || time <= now) return
  const what = `${timeText(time)} is yet to come: here it is ${timeText(now)}.`
  throw new ConfigError([{ where, what, fix: 'Give a time that is over, unknown, or set this clock.' }])
}

async function newPair(terminal: Terminal, path: string, alg: string): Promise<void> {
  const suite = suiteOf(alg)
  if (suite === undefined)
    throw new ConfigError([{ where: '--alg', what: 'It is no algorithm.', fix: 'Give Ed25519 or ESP256.' }])
  const { privateKey, publicKey } = generateKeyPair(suite)
  // Never over another key, which may be the only one of its kind.
  const file = await open(path, 'wx', 0o600).catch((error: unknown) => {
    if (codeOf(error) !== 'EEXIST') throw error
    const fix = 'Name another: it may be the only copy of a key.'
    throw new ConfigError([{ where: path, what: 'There is a file already.', fix }])
  })
  try {
    await file.writeFile(JSON.stringify(exportPrivateJwk(privateKey)))
    await file.sync()
  } finally {
    await file.close()
  }
  terminal.write(JSON.stringify(exportPublicJwk(publicKey)))
  terminal.exit(EXIT.ok)
}

async function prove(terminal: Terminal, file: string, key: string): Promise<void> {
  const where = file === '-' ? 'standard input' : file
  const now = Math.floor(terminal.now() / 1000)
  const asked = readChallenge(where, await readInput(terminal, file), now)
  const deadline = terminal.now() + CALL_MS
  const { signer, publicKey } = await ownKey(terminal, key, deadline)
  terminal.write(await answerOf(asked, signer, publicKey, deadline))
  terminal.exit(EXIT.ok)
}

async function ownKey(
  terminal: Terminal,
  key: string,
  deadline: number,
): Promise<{ readonly signer: Signer; readonly publicKey: PublicKey }> {
  if (key.startsWith('arn:')) {
    const publicKey = await kmsPublicKey(key, { clock: terminal }, deadline)
    const row = { keyId: key, kid: thumbprint(publicKey), alg: publicKey.suite.cose }
    return { publicKey, signer: kmsSigner(row, { clock: terminal }) }
  }
  const path = key.replace(/^file:/, '')
  const bad = (what: string, fix: string): ConfigError => new ConfigError([{ where: '--key', what, fix }])
  const stats = await stat(path).catch(() => undefined)
  if (stats?.isFile() !== true) throw bad(`${path} is no file.`, 'Name a private JWK.')
  if (isReadByOthers(stats)) throw bad(`Others can read ${path}.`, `chmod 600 ${path}`)
  try {
    const privateKey = privateKeyOf(await readFile(path))
    return { signer: localSigner(privateKey), publicKey: publicKeyOf(privateKey) }
  } catch {
    // A parser's message may quote what it read, and that may be a key.
    throw bad(`${path} holds no private JWK.`, 'Make one with sealgate keys new.')
  }
}

async function challenge(terminal: Terminal, iss: string, flags: DirectoryFlags): Promise<void> {
  const { stateFolder } = await openDirectoryPlace(terminal, flags, false)
  const made = await new Challenges(stateFolder).make(iss, Math.floor(terminal.now() / 1000))
  terminal.write(JSON.stringify(made))
  terminal.exit(EXIT.ok)
}

async function enrol(terminal: Terminal, file: string, flags: EnrolFlags): Promise<void> {
  const where = file === '-' ? 'standard input' : file
  const proof = readProof(where, await readInput(terminal, file))
  const { stateFolder } = await openDirectoryPlace(terminal, flags, false)
  const challenges = new Challenges(stateFolder)
  const now = Math.floor(terminal.now() / 1000)
  await challenges.check(proof, where, now)
  const { iss, key } = proof
  const usableFrom = Math.max(flags.notBefore ?? 0, now + USABLE_AFTER_SECONDS)
  const change: DirectoryChange = (draft) => {
    const notAfter = usableFrom + flags.days * DAY_SECONDS
    draft.enrol({ iss, key, state: 'active', notBefore: usableFrom, notAfter })
    if (flags.kek !== undefined) draft.grantKek(flags.kek, iss)
  }
  const told = `${iss} may sign with it from ${timeText(usableFrom)} on: by then every gate knows it. Keep the old key until then, and retire it after that.`
  await changeDirectory(terminal, flags, change, told, () => challenges.use(proof, where))
}

async function list(terminal: Terminal, flags: DirectoryFlags & { readonly issuer?: string }): Promise<void> {
  const { signingKeys } = await readDirectory(terminal, await openDirectoryPlace(terminal, flags, false))
  const rows = signingKeys.filter(({ iss }) => flags.issuer === undefined || iss === flags.issuer)
  if (flags.json) {
    for (const { kid, iss, alg, state, notBefore, notAfter, compromisedAt } of rows)
      terminal.write(JSON.stringify({ kid, iss, alg, state, notBefore, notAfter, compromisedAt }))
  } else {
    const head = ['KID', 'ISSUER', 'ALG', 'STATE', 'FROM', 'UNTIL', 'COMPROMISED']
    const cells = rows.map(({ kid, iss, alg, state, notBefore, notAfter, compromisedAt }) => [
      ...[kid, iss, alg, state, timeText(notBefore), timeText(notAfter)],
      compromisedAt === null ? (state === 'compromised' ? 'unknown' : '') : timeText(compromisedAt),
    ])
    for (const line of table([head, ...cells])) terminal.write(oneLine(line))
  }
  terminal.exit(EXIT.ok)
}
