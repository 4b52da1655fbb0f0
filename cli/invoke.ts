/** `sealgate invoke ingest`: one Lambda event through the function's own handler. */
import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import type { Command } from 'commander'
import { ingestHandler } from '../functions/ingest-handler.ts'
import { createIngest } from '../lib/admission/slice.ts'
import { slicesOf } from '../lib/adapters/msk-event.ts'
import { parseEntry, recordKey } from '../lib/audit/entry.ts'
import type { JsonValue } from '../lib/contract/json.ts'
import { ConfigError, Outage } from '../lib/errors.ts'
import { invokeOnce } from '../lib/local/invocation.ts'
import type { Log } from '../lib/local/log.ts'
import { AUDIT_TOPIC, type Stack } from '../lib/local/stack.ts'
import { createGate, type Gate } from '../lib/runtime.ts'
import { readSettings, type Settings } from '../lib/settings.ts'
import { folderOption, reachStack } from './folder.ts'
import { EXIT, printable } from './io.ts'
import { wholeNumber } from './numbers.ts'
import { readInput } from './record.ts'
import { functionEnvironment } from './settings.ts'
import type { Terminal } from './terminal.ts'
import { openVectorWorld } from './vector-world.ts'

interface InvokeOptions {
  readonly event: string
  readonly folder: string
  readonly world?: string
  readonly timeout: number
  readonly json?: true
}

const HELP = `
The answer is printed as Lambda would give it; each record's verdict, read from
the audit, goes to standard error. Nobody need run the folder's stack. Events in
events/ are made from conformance vectors; events/world.json is their world.

Examples:
  sealgate invoke ingest -e events/msk-mixed.json
  sealgate local event > event.json && sealgate invoke ingest -e event.json

Exit status 1: the handler threw, so Lambda would send the batch again.`

/** Adds `invoke ingest` to the program. */
export function addInvokeCommands(program: Command, terminal: Terminal): void {
  program
    .command('invoke')
    .description("run a Lambda function's handler once")
    .command('ingest')
    .description('give a Lambda Kafka event to the ingest function')
    .requiredOption('-e, --event <file>', 'the event as JSON; - for standard input')
    .option(
      '--world <file>',
      "a vector file whose gateway, keys and contracts to judge by, in place of a stack's",
    )
    .option('--timeout <seconds>', "the function's time-out", wholeNumber(1, 840), 60)
    .addOption(folderOption(terminal))
    .option('--json', 'print {"answer","error","records":[{"place","verdict"}]}')
    .addHelpText('after', HELP)
    .action((options: InvokeOptions, command: Command) => {
      const namesStack =
        command.getOptionValueSource('folder') === 'cli' || (terminal.env['SEALGATE_LOCAL'] ?? '') !== ''
      const beside = worldBeside(options.event)
      const world = namesStack || !existsSync(beside) ? undefined : beside
      return invoke(terminal, world === undefined ? options : { world, ...options })
    })
}

/** The vector file that events/*.json are made from. */
const worldBeside = (event: string): string => join(dirname(event), 'world.json')

async function invoke(terminal: Terminal, options: InvokeOptions): Promise<void> {
  const event = parseEvent(options.event, await readInput(terminal, options.event))
  const settings = readSettings({ ...functionEnvironment(terminal.env), SEALGATE_LOCAL: options.folder })
  const place = await openPlace(options, settings, event)
  let outcome: { readonly answer: unknown } | { readonly error: LambdaError }
  let verdicts: readonly Verdict[]
  try {
    const before = await place.log.endOffsets(AUDIT_TOPIC)
    outcome = await callHandler(place.gate, event, options.timeout)
    verdicts = await verdictsOf(place.log, before, event)
  } finally {
    await place.close()
  }
  if (options.json) terminal.write(JSON.stringify({ ...outcome, records: verdicts }))
  else {
    for (const { place: name, verdict } of verdicts) terminal.warn(`${name}  ${printable(verdict)}`)
    if (options.world !== undefined) terminal.warn(`Decided in the world of ${options.world}.`)
    if (verdicts.length === 0) terminal.warn('Nothing new was decided.')
    terminal.write(JSON.stringify('error' in outcome ? outcome.error : outcome.answer))
  }
  terminal.exit('error' in outcome ? EXIT.found : EXIT.ok)
}

interface Place {
  readonly gate: Gate
  readonly log: Log
  close(): Promise<void>
}

async function openPlace(options: InvokeOptions, settings: Settings, event: JsonValue): Promise<Place> {
  if (options.world !== undefined) return openVectorWorld(options.world, settings.answerMode)
  const stack = await reachStack(options.folder)
  const gate = createGate(createIngest(stack.gateParts()), settings.answerMode)
  const close = async (): Promise<void> => {
    await gate.close()
    await stack.close()
  }
  try {
    await refuseStrangers(stack, options, event)
  } catch (error) {
    await close()
    throw error
  }
  return { gate, log: stack.log, close }
}

/** Records that the log does not have would move the position past those that it will have: they would be lost. */
async function refuseStrangers(
  stack: Stack,
  { event: where, folder }: InvokeOptions,
  event: JsonValue,
): Promise<void> {
  const beside = worldBeside(where)
  const faults = []
  for (const { topic, partition, records } of slicesIn(event)) {
    const isKnown = stack.ingress.includes(topic)
    const end = isKnown ? ((await stack.log.endOffsets(topic))[partition] ?? 0n) : 0n
    const last = records.at(-1)?.offset ?? 0n
    if (last < end) continue
    faults.push({
      where: `${where} ${topic}-${partition}`,
      what: isKnown
        ? `It has offset ${last}, and this stack's log ends before ${end}: deciding it would skip what comes there.`
        : `The stack in ${folder} has no such topic.`,
      fix: `Take an event of this stack (sealgate local event), or judge it by a world of its own: ${
        existsSync(beside) ? `--world ${beside}` : '--world FILE'
      }.`,
    })
  }
  if (faults.length > 0) throw new ConfigError(faults)
}

/** What cannot be read is the handler's to refuse. */
function slicesIn(event: JsonValue): ReturnType<typeof slicesOf> {
  try {
    return slicesOf(event)
  } catch (error) {
    if (error instanceof Outage) return []
    throw error
  }
}

function parseEvent(where: string, bytes: Uint8Array): JsonValue {
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes)) as JsonValue
  } catch {
    throw new ConfigError([
      { where, what: 'It is no JSON.', fix: 'Give a Lambda event, such as events/msk-mixed.json.' },
    ])
  }
}

/** As Lambda reports a failed invocation, without the stack. */
interface LambdaError {
  readonly errorType: string
  readonly errorMessage: string
}

async function callHandler(
  gate: Gate,
  event: JsonValue,
  timeoutSeconds: number,
): Promise<{ readonly answer: unknown } | { readonly error: LambdaError }> {
  const handler = ingestHandler(() => Promise.resolve(gate))
  try {
    return { answer: await invokeOnce(handler, event, { timeoutMs: timeoutSeconds * 1000 }) }
  } catch (error) {
    const known = error instanceof Error ? error : new Error(String(error))
    return { error: { errorType: known.name, errorMessage: known.message } }
  }
}

interface Verdict {
  /** `topic/partition/offset` of the record. */
  readonly place: string
  readonly verdict: string
}

/** What the audit says of this event's records since the call. */
async function verdictsOf(
  log: Log,
  before: readonly bigint[],
  event: JsonValue,
): Promise<readonly Verdict[]> {
  const wanted = new Set(
    slicesIn(event).flatMap(({ records }) =>
      records.map(({ topic, partition, offset }) => recordKey(topic, partition, offset)),
    ),
  )
  const found = new Map<string, string>()
  const ends = await log.endOffsets(AUDIT_TOPIC)
  for (const [partition, end] of ends.entries()) {
    for (let from = before[partition] ?? 0n; from < end;) {
      const { records, next } = await log.read(AUDIT_TOPIC, partition, from)
      for (const { key, value } of records) {
        const place = Buffer.from(key ?? []).toString()
        if (wanted.has(place)) found.set(place, verdictIn(value))
      }
      if (next <= from) break
      from = next
    }
  }
  return Array.from(wanted, (place) => ({ place, verdict: found.get(place) ?? '' })).filter(
    ({ verdict }) => verdict !== '',
  )
}

function verdictIn(value: Uint8Array | null): string {
  const entry = value === null ? undefined : parseEntry(value)
  return entry?.kind === 'event.rejected'
    ? entry.code
    : entry?.kind === 'event.admitted'
      ? 'admitted'
      : 'unknown'
}
