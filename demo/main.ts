/** `npm start`: the real path on real input, in a folder that is gone afterwards. README.md shows what it prints. */
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { Command, CommanderError } from 'commander'
import { EXIT, fail, paint } from '../cli/io.ts'
import { processTerminal, type Terminal } from '../cli/terminal.ts'
import { readContracts } from '../lib/adapters/contract-files.ts'
import { buildBundle } from '../lib/contract/bundle.ts'
import { checkContracts } from '../lib/contract/load.ts'
import { codeOf, ConfigError, type Fault } from '../lib/errors.ts'
import { DEMO_EVENTS, demoOffers, inputOffers, openInput } from './offers.ts'
import { count, Progress } from './progress.ts'
import { type Plan, runLocally } from './run.ts'
import { summaryJson, summaryText } from './summary.ts'

interface Flags {
  readonly input?: string
  readonly contracts?: string
  readonly events?: string
  readonly keep?: string
  readonly json?: true
}

/** What the flags come to, all of it checked. */
interface Settings extends Plan {
  readonly bundle: Uint8Array
  readonly keep: string | undefined
  readonly input: string | undefined
  readonly json: boolean
}

const MAX_EVENTS = 10_000_000
const CONTRACTS = fileURLToPath(new URL('../contracts', import.meta.url))

const HELP = `
Seals ${count(DEMO_EVENTS)} events, a made-up shop's and 20,000 real flights
(vega-datasets), runs them through the event-source poller and the Lambda
handler, attacks them, opens what came out, verifies the audit and tampers with
it.

Examples:
  npm start
  npm start -- --input my.ndjson --contracts my-contracts
  npm -s start -- --json        (-s: npm prints lines of its own to standard output)

Lines of --input are CloudEvents or {eventType, timestamp, payload} envelopes,
one JSON object each. Each is sealed as the first publisher whose sources fit; a
type that no contract is for goes to the first contract's channel, where the
gate rejects it. A line that is no event is named and skipped.

Exit status: 0 all is as it should be, 1 something is not, or lines were
skipped, 2 bad input and nothing was done, 3 something does not answer.`

const terminal = processTerminal()
const json = process.argv.includes('--json')
try {
  const flags = readFlags(process.argv.slice(2), terminal)
  if (flags !== undefined) await demonstrate(await settingsOf(flags), terminal)
} catch (error) {
  fail(terminal, error, json)
}

async function demonstrate(settings: Settings, { ...screen }: Terminal): Promise<void> {
  const begun = performance.now()
  const folder = settings.keep ?? temporaryFolder(screen)
  if (!settings.json) {
    const what = settings.input ?? `a shop, and the flights of vega-datasets`
    screen.write(
      `${paint(screen.colours.out, 'bold', 'sealgate')}: ${what}, on an embedded stack in ${folder}\n`,
    )
  }
  const outcome = await runLocally(
    { folder, bundle: settings.bundle },
    settings,
    new Progress(screen, settings.json),
  )
  if (settings.json) screen.write(summaryJson(outcome))
  else {
    const style = {
      colours: screen.colours.out,
      width: Math.max(60, Math.min(140, process.stdout.isTTY ? process.stdout.columns : 120)),
      kept: settings.keep === undefined ? undefined : `--folder ${settings.keep}`,
      isDemo: settings.input === undefined,
    }
    screen.write(summaryText(outcome, style))
    screen.write(paint(style.colours, 'dim', `\n${((performance.now() - begun) / 1000).toFixed(1)} s in all`))
  }
  screen.exit(outcome.problems.length > 0 || outcome.sealing.skipped > 0 ? EXIT.found : EXIT.ok)
}

/** Gone when the process ends, however it ends. */
function temporaryFolder(screen: Terminal): string {
  const folder = mkdtempSync(join(tmpdir(), 'sealgate-demo-'))
  process.once('exit', () => rmSync(folder, { recursive: true, force: true, maxRetries: 3 }))
  screen.stopSignal().addEventListener('abort', () => process.exit(130))
  return folder
}

/** Undefined where only help was wanted. */
function readFlags(argv: readonly string[], screen: Terminal): Flags | undefined {
  const program = new Command('npm start --')
    .description('sealgate at work, from sealed events to a verified audit')
    .usage('[options]')
    .option('--input <file>', 'events, a JSON object a line; - for standard input (default: the demo)')
    .option('--contracts <dir>', 'contract files for --input (default: the examples)')
    .option('--events <n>', `how many events the demo makes (default: ${DEMO_EVENTS})`)
    .option('--keep <dir>', 'work in this new folder and keep it')
    .option('--json', 'print the summary as JSON, and nothing else')
    .addHelpText('after', HELP)
    .allowExcessArguments(false)
    .exitOverride()
    .configureOutput({
      writeOut: (text) => screen.write(text.trimEnd()),
      outputError: () => undefined,
      getOutHasColors: () => screen.colours.out,
    })
  try {
    program.parse(argv, { from: 'user' })
    return program.opts<Flags>()
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error
    if (error.exitCode === 0) return undefined
    const what = error.message.replace(/^error: (.*?)\.?$/s, '$1.').replaceAll(/\s*\n\s*/g, ' ')
    throw new ConfigError([{ where: 'npm start', what, fix: 'See npm start -- --help.' }])
  }
}

/** Reads all that the flags name. Rejects with every fault at once. */
async function settingsOf({ input, contracts, events, keep, json: asJson }: Flags): Promise<Settings> {
  const faults: Fault[] = []
  const trying = async <T>(work: () => Promise<T> | T): Promise<T | undefined> => {
    try {
      return await work()
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error
      faults.push(...error.faults)
      return undefined
    }
  }
  const number = events === undefined ? DEMO_EVENTS : /^\d{1,9}$/.test(events) ? Number(events) : NaN
  if (!(number >= 1 && number <= MAX_EVENTS))
    faults.push({ where: '--events', what: 'It is no number of events.', fix: `Give 1 to ${MAX_EVENTS}.` })
  if (events !== undefined && input !== undefined)
    faults.push({ where: '--events', what: 'It is for the demo, and --input is not.', fix: 'Leave one out.' })
  if (contracts !== undefined && input === undefined)
    faults.push({
      where: '--contracts',
      what: 'The demo makes events for the examples.',
      fix: 'Give --input too.',
    })
  const folder = keep === undefined ? undefined : resolve(keep)
  await trying(() => refuseFull(folder))
  const bundle = await trying(() => bundleOf(contracts ?? CONTRACTS))
  const bytes = input === undefined ? undefined : await trying(() => openInput(input))
  if (faults.length > 0 || bundle === undefined) throw new ConfigError(faults)
  return {
    bundle,
    keep: folder,
    input,
    json: asJson === true,
    expected: input === undefined ? number : undefined,
    isSound: input === undefined,
    offers: (known) =>
      input === undefined || bytes === undefined
        ? demoOffers(known, number)
        : inputOffers(known, input, bytes),
  }
}

async function bundleOf(folder: string): Promise<Uint8Array> {
  const { files, faults } = checkContracts(await readContracts(folder))
  if (faults.length > 0) throw new ConfigError(faults)
  return buildBundle(files)
}

/** A folder that is to be kept must be the demo's alone. */
function refuseFull(folder: string | undefined): void {
  if (folder === undefined) return
  let what = 'It is not empty.'
  try {
    if (readdirSync(folder).length === 0) return
  } catch (error) {
    const code = codeOf(error)
    if (code === 'ENOENT') return
    what = `It is no folder that can be used (${code}).`
  }
  throw new ConfigError([{ where: '--keep', what, fix: 'Name a folder that is not there yet.' }])
}
