/** The `sealgate` command: its parts, and how each way of failing ends (docs/cli.md). */
import { Command, CommanderError, Help } from 'commander'
import { RefusedEvents } from '../lib/client/event.ts'
import { ConfigError, Outage } from '../lib/errors.ts'
import { SOFTWARE } from '../lib/runtime.ts'
import { addAuditCommands } from './audit.ts'
import { openAudit } from './audit-place.ts'
import { addConformanceCommand } from './conformance.ts'
import { addContractsCommands } from './contracts.ts'
import { addDirectoryCommands } from './directory.ts'
import { addDoctorCommand } from './doctor.ts'
import { addInspectCommand } from './inspect.ts'
import { addInvokeCommands } from './invoke.ts'
import { EXIT, fail } from './io.ts'
import { addKeysCommands } from './keys.ts'
import { addLocalCommands } from './local.ts'
import { addPositionCommands } from './position.ts'
import { addQuarantineCommands } from './quarantine.ts'
import { addRotateCommands } from './rotate.ts'
import { addSealCommands } from './seal.ts'
import { addSendCommand } from './send.ts'
import { addSetupCommands } from './setup.ts'
import { addTailCommand } from './tail.ts'
import type { Terminal } from './terminal.ts'

const EXIT_STATUSES = `
Exit status: 0 all is well, 1 something was found (a difference, a break, a line
or event that was refused), 2 bad input: nothing was done, 3 something does not
answer. Each command: sealgate help COMMAND.`

const HELP = new Help()

/** Runs one command to its end, and sets the exit status. Never rejects. */
export async function run(argv: readonly string[], terminal: Terminal): Promise<void> {
  const program = newProgram(terminal)
  const json = argv.includes('--json')
  try {
    await program.parseAsync(argv, { from: 'user' })
  } catch (error) {
    if (error instanceof CommanderError && error.exitCode === 0) terminal.exit(EXIT.ok)
    // What was missing is shown already: the help of the command.
    else if (error instanceof CommanderError && error.code === 'commander.help') terminal.exit(EXIT.badInput)
    else fail(terminal, knownError(error, program, argv), json)
  }
}

function newProgram(terminal: Terminal): Command {
  const program = new Command('sealgate')
    .description('Secure event ingestion for Kafka: seal, verify, treat, re-emit and audit events.')
    .version(SOFTWARE.replace(/^.*\//, ''))
    .showSuggestionAfterError()
    .exitOverride()
    .configureOutput({
      writeOut: (text) => terminal.write(text.trimEnd()),
      writeErr: (text) => terminal.warn(text.trimEnd()),
      outputError: () => undefined,
      getOutHasColors: () => terminal.colours.out,
      getErrHasColors: () => terminal.colours.err,
    })
    // A list that begins empty has no default that anybody would want to read of.
    .configureHelp({
      optionDescription: (option) => HELP.optionDescription(option).replace(' (default: [])', ''),
    })
    .addHelpText('after', EXIT_STATUSES)
  addLocalCommands(program, terminal)
  addSendCommand(program, terminal)
  addTailCommand(program, terminal)
  addSealCommands(program, terminal)
  addInspectCommand(program, terminal)
  addQuarantineCommands(program, terminal)
  addPositionCommands(program, terminal)
  addAuditCommands(program, terminal, openAudit(terminal))
  addDirectoryCommands(program, terminal)
  addKeysCommands(program, terminal)
  addRotateCommands(program, terminal)
  addSetupCommands(program, terminal)
  addDoctorCommand(program, terminal)
  addInvokeCommands(program, terminal)
  addContractsCommands(program, terminal)
  addConformanceCommand(program, terminal)
  for (const [parent, commands] of Object.entries(EXAMPLES))
    for (const [name, example] of Object.entries(commands))
      child(child(program, parent), name)?.addHelpText(
        'after',
        `\nExample:\n  sealgate ${parent} ${name}${example}`,
      )
  return program
}

/** Of commands that are described elsewhere. */
const EXAMPLES = {
  audit: {
    verify: '\n\nExit status 1: breaks were found.',
    search: ' --code schema-invalid --since 2026-11-22',
  },
  contracts: { check: ' contracts', build: ' contracts --out contracts.bundle.json', show: ' order.placed' },
} as const

const child = (command: Command | undefined, name: string): Command | undefined =>
  command?.commands.find((each) => each.name() === name)

/** Every error as one of the kinds that have an exit status; no stack trace reaches a user. */
function knownError(error: unknown, program: Command, argv: readonly string[]): ConfigError | Outage {
  if (error instanceof ConfigError || error instanceof Outage) return error
  if (error instanceof CommanderError) return usageError(error, program, argv)
  if (error instanceof RefusedEvents) return new ConfigError(error.refusals)
  if (error instanceof Error && 'syscall' in error && 'code' in error) {
    const where = 'path' in error && typeof error.path === 'string' ? error.path : String(error.syscall)
    return new ConfigError([
      {
        where,
        what: `The system refuses it (${String(error.code)}).`,
        fix: 'Look at the path, its permissions and the room on the disk.',
      },
    ])
  }
  const what = error instanceof Error ? `${error.name}: ${error.message}` : String(error)
  return new Outage('unexpected', `${what.replaceAll(/\s+/g, ' ')}: a fault of sealgate, please report it`)
}

function usageError(error: CommanderError, program: Command, argv: readonly string[]): ConfigError {
  const path = [program.name()]
  let command: Command | undefined = program
  for (const word of argv) {
    command = child(command, word)
    if (command === undefined) break
    path.push(word)
  }
  const where = path.join(' ')
  const what = error.message.replace(/^error: /, '').replaceAll(/\s*\n\s*/g, ' ')
  return new ConfigError([
    { where, what: what.endsWith('.') ? what : `${what}.`, fix: `See ${where} --help.` },
  ])
}
