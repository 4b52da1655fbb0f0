/** `sealgate contracts check|build|show`. */
import { rename, writeFile } from 'node:fs/promises'
import type { Command } from 'commander'
import { readContracts } from '../lib/adapters/contract-files.ts'
import { buildBundle, loadBundle } from '../lib/contract/bundle.ts'
import type { ContractFile } from '../lib/contract/contract-file.ts'
import type { Contract } from '../lib/contract/contract.ts'
import { checkContracts, type Checked } from '../lib/contract/load.ts'
import { visibilityOf } from '../lib/contract/visibility.ts'
import { codeOf, ConfigError } from '../lib/errors.ts'
import { EXIT, fail, paint, printFaults, table, type Io } from './io.ts'

interface Options {
  readonly json?: true
}

/** Adds `contracts` and its subcommands to the program. */
export function addContractsCommands(program: Command, io: Io): void {
  const contracts = program.command('contracts').description('check, build and read event contracts')
  contracts
    .command('check')
    .description('find every fault in a folder of contracts')
    .argument('[dir]', 'folder of .yaml files', 'contracts')
    .option('--json', 'print {"contracts":n,"faults":[…],"warnings":[…]}')
    .action((folder: string, options: Options) => run(io, options, () => check(io, folder, options)))
  contracts
    .command('build')
    .description('make one bundle of a folder of contracts')
    .argument('[dir]', 'folder of .yaml files', 'contracts')
    .requiredOption('-o, --out <file>', 'where to write the bundle')
    .option('--json', 'print {"out","contracts","bytes","digest"}')
    .action((folder: string, options: Options & { out: string }) =>
      run(io, options, () => build(io, folder, options)),
    )
  contracts
    .command('show')
    .description('who may publish an event type, and who sees what of it')
    .argument('<type>', 'event type, or part of it or of its description')
    .option('-d, --dir <dir>', 'folder of .yaml files', 'contracts')
    .option('--json', 'print all of it, with the schema that each consumer gets')
    .action((type: string, options: Options & { dir: string }) =>
      run(io, options, () => show(io, type, options)),
    )
}

async function run(io: Io, options: Options, command: () => Promise<void>): Promise<void> {
  try {
    await command()
  } catch (error) {
    fail(io, error, options.json)
  }
}

async function check(io: Io, folder: string, options: Options): Promise<void> {
  const checked = checkContracts(await readContracts(folder))
  const { files, faults, warnings } = checked
  if (options.json) {
    io.write(JSON.stringify({ contracts: files.length, faults, warnings }))
    if (faults.length > 0) io.exit(EXIT.badInput)
    return
  }
  printFaults(io, warnings, 'warning')
  if (faults.length > 0) throw new ConfigError(faults)
  io.write(
    `${paint(io.colours.out, 'green', 'ok')} ${count(files.length, 'contract')}, ${count(warnings.length, 'warning')}`,
  )
}

async function build(io: Io, folder: string, options: Options & { out: string }): Promise<void> {
  const { files, warnings } = await readSound(folder)
  const bundle = buildBundle(files)
  const digest = Buffer.from(loadBundle(bundle).digest).toString('hex')
  await replace(options.out, bundle)
  if (options.json) {
    io.write(JSON.stringify({ out: options.out, contracts: files.length, bytes: bundle.length, digest }))
    return
  }
  printFaults(io, warnings, 'warning')
  io.write(`${options.out}: ${count(files.length, 'contract')}, ${bundle.length} bytes, SHA-256 ${digest}`)
}

async function readSound(folder: string): Promise<Checked> {
  const checked = checkContracts(await readContracts(folder))
  if (checked.faults.length > 0) throw new ConfigError(checked.faults)
  return checked
}

/** Whole or not at all: a gate may be reading it. */
async function replace(file: string, bytes: Uint8Array): Promise<void> {
  try {
    await writeFile(`${file}.new`, bytes)
    await rename(`${file}.new`, file)
  } catch (error) {
    throw new ConfigError([
      {
        where: file,
        what: `The bundle cannot be written (${codeOf(error)}).`,
        fix: 'Name a file in a folder that is there and may be written to.',
      },
    ])
  }
}

async function show(io: Io, type: string, options: Options & { dir: string }): Promise<void> {
  const { files } = await readSound(options.dir)
  const contracts = loadBundle(buildBundle(files))
  const chosen = matching(files, type)
  if (chosen.length === 0)
    throw new ConfigError([
      {
        where: options.dir,
        what: `No contract is for ${type}.`,
        fix: `There are: ${[...new Set(files.map((file) => file.type))].sort().join(', ')}.`,
      },
    ])
  const pairs = chosen.flatMap((file) => {
    const contract = contracts.find(file.channel, file.type)
    return contract === undefined ? [] : [{ file, contract }]
  })
  if (options.json) io.write(JSON.stringify(pairs.map(asData), null, 1))
  else io.write(pairs.map((pair) => asText(io, pair)).join('\n\n'))
}

/** The exact type if there is one, else whatever has the words in its type or description. */
function matching(files: readonly ContractFile[], words: string): readonly ContractFile[] {
  const exact = files.filter((file) => file.type === words)
  if (exact.length > 0) return exact
  const part = words.toLowerCase()
  return files.filter((file) => `${file.type} ${file.description ?? ''}`.toLowerCase().includes(part))
}

interface Pair {
  readonly file: ContractFile
  readonly contract: Contract
}

function asData({ file, contract }: Pair): unknown {
  const { type, channel, description, owner, classification, maxBytes, perSecond } = contract
  return {
    type,
    channel,
    description,
    owner,
    classification,
    limits: { maxBytes, ...(perSecond === undefined ? {} : { perSecond }) },
    publish: Object.fromEntries([...contract.publish].map(([iss, sources]) => [iss, [...sources]])),
    fields: visibilityOf(file),
    consume: contract.routes.map((route) => ({
      consumer: route.consumer,
      purpose: route.purpose,
      channel: route.channel,
      form: route.form,
      partitionBy: route.partitionBy,
      lifeSeconds: route.form === 'sealed' ? route.lifeSeconds : undefined,
      derivedSchema: route.derivedSchema,
    })),
  }
}

function asText(io: Io, { file, contract }: Pair): string {
  const heading = (text: string): string => paint(io.colours.out, 'bold', text)
  const consumers = contract.routes.map((route) => route.consumer)
  const publishers = [...contract.publish].map(([iss, sources]) => `  ${iss} for ${[...sources].join(', ')}`)
  const routes = contract.routes.map((route) => [
    `  ${route.consumer}`,
    route.purpose,
    `${route.form} on ${route.channel}`,
  ])
  const fields = visibilityOf(file).map((row) => [
    `  ${row.field === '' ? '(all)' : row.field}`,
    row.classification ?? '',
    ...consumers.map((consumer) =>
      row.treatments[consumer] === 'drop' ? '·' : (row.treatments[consumer] ?? '·'),
    ),
  ])
  return [
    heading(`${contract.type} on ${contract.channel}`),
    `  ${contract.description.trim()}`,
    `  ${contract.classification}, owned by ${contract.owner}`,
    heading('May publish'),
    ...publishers,
    heading('Goes to'),
    ...(routes.length > 0 ? table(routes) : ['  nobody']),
    heading('Who sees what (· nothing)'),
    ...table([['  field', 'classified', ...consumers], ...fields]),
  ].join('\n')
}

const count = (number: number, thing: string): string => `${number} ${thing}${number === 1 ? '' : 's'}`
