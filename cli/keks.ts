/** `sealgate keys kek`: which KEKs an issuer may seal under (keys.md §1, threats.md 36). */
import { type Command, InvalidArgumentError } from 'commander'
import { ConfigError } from '../lib/errors.ts'
import type { Kek } from '../lib/ports.ts'
import {
  addChangeOptions,
  addDirectoryOptions,
  changeDirectory,
  type ChangeFlags,
  type DirectoryFlags,
  openDirectoryPlace,
  readDirectory,
} from './directory-place.ts'
import { isIssuer } from './enrolment.ts'
import { EXIT, oneLine, table } from './io.ts'
import { collect } from './numbers.ts'
import type { Terminal } from './terminal.ts'

/** A KEK of the key directory from `kekId=ARN`; an embedded stack's ARNs name themselves. */
export function kekOf(text: string): Kek {
  const [, kekId, key, region] =
    /^([^=]{1,64})=(arn:aws[a-z-]*:kms:([a-z0-9-]+):[0-9]{12}:key\/[A-Za-z0-9-]{1,100})$/.exec(text) ?? []
  if (kekId !== undefined && key !== undefined && Buffer.byteLength(kekId) <= 64)
    return { kekId, key, provider: region === 'local' ? 'local' : 'aws-kms' }
  throw new InvalidArgumentError('Give kekId=arn:aws:kms:REGION:ACCOUNT:key/ID.')
}

/** Adds `kek add`, `withdraw` and `list` to `sealgate keys`. */
export function addKekCommands(keys: Command, terminal: Terminal): void {
  const kek = keys.command('kek').description('KEKs: under which keys of the key service an issuer may seal')
  const example = (rest: string): string => `\nExample:\n  sealgate keys kek ${rest}`
  addChangeOptions(
    kek
      .command('add')
      .description('let an issuer seal under a KEK, beside those that it has')
      .argument('<kekId=arn>', 'its name, as records bear it, and its key in AWS KMS', kekOf)
      .requiredOption('--issuer <name>', 'who may seal under it; once for each', issuers, []),
  )
    .addHelpText(
      'after',
      example('add shop-2027=arn:aws:kms:eu-central-1:111122223333:key/… --issuer shop-web'),
    )
    .action((added: Kek, flags: ChangeFlags & { readonly issuer: readonly string[] }) =>
      changeDirectory(
        terminal,
        flags,
        (draft) => {
          for (const iss of named(flags.issuer)) draft.grantKek(added, iss)
        },
        'Seal under it 3 minutes from now: by then every gate knows it, and has to be let use kms:Decrypt on it.',
      ),
    )
  addChangeOptions(
    kek
      .command('withdraw')
      .description('take a KEK away: what is sealed under it is refused, and no call is made for it')
      .argument('<kekId>', 'the KEK, as sealgate keys kek list has it'),
  )
    .option('--issuer <name>', 'only from this issuer; once for each (default: from all)', issuers, [])
    .option('--leaving <issuer>', 'this issuer may be left without a KEK to seal under', collect, [])
    .addHelpText('after', example('withdraw shop-2026 --issuer shop-web'))
    .action((kekId: string, flags: ChangeFlags & { readonly issuer: readonly string[] }) =>
      changeDirectory(
        terminal,
        flags,
        (draft) => {
          if (flags.issuer.length === 0) draft.withdrawKek(kekId)
          for (const iss of flags.issuer) draft.withdrawKek(kekId, iss)
        },
        [
          'Gates that run have it within 60 s, after the slice at hand, and wipe its data keys then.',
          'Records under it, those too that were sealed before and no gate has read yet, are undecryptable from then on.',
        ].join('\n'),
      ),
    )
  addDirectoryOptions(
    kek.command('list').description('all KEKs, and who may seal under them'),
    'print a JSON object for each KEK',
  )
    .addHelpText('after', example('list'))
    .action((flags: DirectoryFlags) => list(terminal, flags))
}

function issuers(text: string, before: readonly string[]): readonly string[] {
  if (isIssuer(text)) return [...before, text]
  throw new InvalidArgumentError('Give a name of 1 to 128 bytes.')
}

/** Commander takes an empty default for a value that is there. */
function named(given: readonly string[]): readonly string[] {
  if (given.length > 0) return given
  throw new ConfigError([
    { where: '--issuer', what: 'It is missing.', fix: 'Name who may seal under the KEK.' },
  ])
}

async function list(terminal: Terminal, flags: DirectoryFlags): Promise<void> {
  const { keks } = await readDirectory(terminal, await openDirectoryPlace(terminal, flags, false))
  if (flags.json) for (const row of keks) terminal.write(JSON.stringify(row))
  else {
    const cells = keks.map(({ kekId, iss, provider, key }) => [kekId, iss.join(','), `${provider} ${key}`])
    for (const line of table([['KEK', 'ISSUERS', 'KEY'], ...cells])) terminal.write(oneLine(line))
  }
  terminal.exit(EXIT.ok)
}
