/** `sealgate quarantine redrive`: puts what the gate refused through admission again, or writes it to files. */
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { type Command, InvalidArgumentError, Option } from 'commander'
import { type Quarantined, parseQuarantined } from '../lib/admission/quarantined.ts'
import {
  redrive,
  type RedriveOrder,
  type RedriveOutcome,
  type RedriveReport,
} from '../lib/admission/redrive.ts'
import { recordKey, type RecordPlace } from '../lib/audit/entry.ts'
import { ConfigError, type Fault, REJECTION_CODES, type RejectionCode } from '../lib/errors.ts'
import { readToEnd } from '../lib/local/audit-source.ts'
import { openGateWorld } from './gate-world.ts'
import { EXIT, paint, printable } from './io.ts'
import { timeOf } from './numbers.ts'
import type { PlaceFlags } from './place-settings.ts'
import type { Terminal } from './terminal.ts'
import { addPlaceOptions, closing, openTopics } from './world.ts'

interface RedriveOptions extends PlaceFlags {
  readonly code?: RejectionCode
  readonly since?: number
  readonly to?: string
  readonly dryRun?: true
  readonly acceptExpired?: readonly string[]
  readonly by?: string
  readonly reason?: string
  readonly json?: true
}

/** Adds `redrive` to `sealgate quarantine`. */
export function addRedriveCommand(quarantine: Command, terminal: Terminal): void {
  addPlaceOptions(quarantine.command('redrive'))
    .description('put refused records through admission again, each once; what is refused again stays')
    .addOption(new Option('--code <code>', 'only this rejection code').choices(REJECTION_CODES))
    .option('--since <time>', 'only from then on: ISO 8601, e.g. 2026-11-22T09:15:00Z', since)
    .option('--to <dir>', 'write the original records to files there, and change nothing')
    .option('--dry-run', 'say what would become of each, and change nothing')
    .option(
      '--accept-expired <name...>',
      'let these in although their time has run out: ids of events, or topic/partition/offset (with --by and --reason)',
    )
    .option('--by <name>', 'who does it, for the audit')
    .option('--reason <text>', 'why, for the audit')
    .option('--json', 'print a JSON object a line: each record, then {"totals"}')
    .addHelpText(
      'after',
      '\nExamples:\n  sealgate quarantine redrive --code type-unknown --dry-run' +
        '\n  sealgate quarantine redrive --accept-expired orders/3/1041 --by ann --reason "outage of 21 November"',
    )
    .action((options: RedriveOptions) =>
      options.to === undefined ? redriveAll(terminal, options) : exportAll(terminal, options, options.to),
    )
}

function since(text: string): number {
  const time = timeOf(text)
  if (Number.isNaN(time)) throw new InvalidArgumentError('Use 2026-11-22 or 2026-11-22T09:15:00Z.')
  return time
}

async function redriveAll(terminal: Terminal, options: RedriveOptions): Promise<void> {
  const { code, since: sinceMs, dryRun = false, acceptExpired = [], by = null, reason = null } = options
  const order: RedriveOrder = {
    ...(code !== undefined && { code }),
    ...(sinceMs !== undefined && { sinceMs }),
    ...{ dryRun, acceptExpired: new Set(acceptExpired), by, reason },
  }
  const world = await openGateWorld(terminal, options)
  const counts = new Counts()
  try {
    const report = await redrive(
      order,
      world,
      {
        outcome: (outcome) => {
          counts.add(outcome)
          if (options.json) terminal.write(rowJson(outcome))
          else if (!isSettled(outcome)) terminal.write(rowText(terminal, outcome))
        },
        drained: () => terminal.drained(),
        progress: (audit, quarantine) =>
          terminal.progress?.(
            `${quarantine} quarantined records and ${audit} of the audit read, ${counts.admitted} let in`,
          ),
      },
      terminal.stopSignal(),
    )
    tell(terminal, options, counts, report)
  } finally {
    await world.close()
  }
}

/** Nothing is to be done about it: it has had its turn. */
const isSettled = ({ result, code }: RedriveOutcome): boolean =>
  result === 'skipped' && (code === 'let-in' || code === 'replayed')

class Counts {
  admitted = 0
  readonly rejected = new Map<string, number>()
  readonly skipped = new Map<string, number>()
  /** Records that stay and ought not to. */
  left = 0

  add(outcome: RedriveOutcome): void {
    if (outcome.result === 'admitted') this.admitted += 1
    else {
      const counts = outcome.result === 'rejected' ? this.rejected : this.skipped
      counts.set(outcome.code ?? '', (counts.get(outcome.code ?? '') ?? 0) + 1)
      if (!isSettled(outcome)) this.left += 1
    }
  }
}

function tell(
  terminal: Terminal,
  { dryRun, json }: RedriveOptions,
  { admitted, rejected, skipped, left }: Counts,
  { stops, interrupted }: RedriveReport,
): void {
  if (json)
    terminal.write(
      JSON.stringify({
        totals: { admitted, rejected: Object.fromEntries(rejected), skipped: Object.fromEntries(skipped) },
        stops: stops.map(({ topic, partition, outage }) => ({
          ...{ topic, partition, code: outage.code, reason: outage.message },
        })),
        ...{ interrupted, dryRun: dryRun === true },
      }),
    )
  else {
    const of = (counts: ReadonlyMap<string, number>): string =>
      counts.size === 0 ? '' : ` (${Array.from(counts, ([code, count]) => `${count} ${code}`).join(', ')})`
    const total = (counts: ReadonlyMap<string, number>): number =>
      [...counts.values()].reduce((sum, count) => sum + count, 0)
    const what = dryRun ? 'would be let in' : 'let in'
    const again = dryRun ? 'would be refused again' : 'refused again'
    terminal.write(
      `${admitted} ${what}, ${total(rejected)} ${again}${of(rejected)}, ${total(skipped)} not tried${of(skipped)}.`,
    )
    if (dryRun) terminal.write('Nothing was changed.')
  }
  for (const { topic, partition, outage } of stops)
    terminal.warn(
      `${paint(terminal.colours.err, 'red', 'unreachable')} ${topic}/${partition}: ${outage.message} (${outage.code})`,
    )
  if (interrupted) terminal.warn('Interrupted: what was let in stands. The same command goes on from here.')
  const status = left > 0 ? EXIT.found : EXIT.ok
  terminal.exit(interrupted ? EXIT.interrupted : stops.length > 0 ? EXIT.outage : status)
}

const placeText = (place: RecordPlace | undefined): string | null =>
  place === undefined ? null : recordKey(place.topic, place.partition, place.offset)

function rowJson({ quarantine, source, result, code, reason }: RedriveOutcome): string {
  const why = reason === '' ? null : reason
  return JSON.stringify({
    record: placeText(source),
    quarantine: placeText(quarantine),
    result,
    code,
    reason: why,
  })
}

function rowText(
  { colours }: Terminal,
  { quarantine, source, result, code, reason }: RedriveOutcome,
): string {
  const colour = result === 'admitted' ? 'green' : result === 'rejected' ? 'red' : 'yellow'
  const place = placeText(source) ?? placeText(quarantine) ?? ''
  const why = code === null ? '' : `  ${code}: ${reason}`
  return `${paint(colours.out, colour, result.padEnd(8))}  ${printable(place)}${printable(why)}`
}

/** What `--to` writes: what was refused, as `sealgate inspect FILE` reads it. */
function fileJson(found: Quarantined): string {
  const base64 = (bytes: Uint8Array | null): string | null => bytes && Buffer.from(bytes).toString('base64')
  const { source, quarantine, code, timestamp, key, value, headers, isWhole } = found
  return `${JSON.stringify({
    topic: source.topic,
    partition: source.partition,
    offset: Number(source.offset),
    timestamp,
    timestampType: 'LOG_APPEND_TIME',
    key: base64(key),
    headers: headers.map(({ name, value: bytes }) => ({ [name]: bytes === null ? null : [...bytes] })),
    value: base64(value),
    ...{ code, quarantine: placeText(quarantine), whole: isWhole },
  })}\n`
}

async function exportAll(terminal: Terminal, options: RedriveOptions, folder: string): Promise<void> {
  const needless = [
    ...(options.dryRun === undefined ? [] : ['--dry-run']),
    ...(options.acceptExpired === undefined ? [] : ['--accept-expired']),
    ...(options.by === undefined ? [] : ['--by']),
    ...(options.reason === undefined ? [] : ['--reason']),
  ].map((where): Fault => ({
    where,
    what: 'It is set beside --to, which only copies.',
    fix: 'Leave it out.',
  }))
  if (folder === '') needless.push({ where: '--to', what: 'It is empty.', fix: 'Name a folder.' })
  if (needless.length > 0) throw new ConfigError(needless)
  const stop = terminal.stopSignal()
  const isStopped = (): boolean => stop.aborted
  await closing(await openTopics(terminal, options, false), async ({ records, quarantineTopic: topic }) => {
    await mkdir(folder, { recursive: true, mode: 0o700 })
    const partitions = await records.partitions(topic)
    const totals = { written: 0, there: 0, unreadable: 0 }
    for (let partition = 0; partition < partitions && !isStopped(); partition++)
      for await (const record of readToEnd(records, { topic, partition })) {
        if (isStopped()) break
        const found = parseQuarantined(record)
        if (record.timestamp < (options.since ?? -Infinity)) continue
        if (found === undefined) totals.unreadable += options.code === undefined ? 1 : 0
        else if (options.code === undefined || found.code === options.code)
          totals[await writeOnce(folder, found)] += 1
        terminal.progress?.(`${totals.written} records written`)
      }
    const { written, there, unreadable } = totals
    if (options.json) terminal.write(JSON.stringify({ totals, interrupted: isStopped() }))
    else
      terminal.write(
        `${written} ${written === 1 ? 'record' : 'records'} written to ${printable(folder)}, ${there} were there already` +
          `${unreadable === 0 ? '' : `, ${unreadable} are not of the gate’s making`}.`,
      )
    terminal.exit(isStopped() ? EXIT.interrupted : EXIT.ok)
  })
}

/** Named by its place in quarantine, which no two share; for its owner alone. `ConfigError` where another file is there. */
async function writeOnce(folder: string, found: Quarantined): Promise<'written' | 'there'> {
  const { topic, partition, offset } = found.quarantine
  const path = join(folder, `${topic}-${partition}-${offset}.json`)
  const text = fileJson(found)
  try {
    await writeFile(path, text, { flag: 'wx', mode: 0o600 })
    return 'written'
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'EEXIST')) throw error
    if ((await readFile(path, 'utf8')) === text) return 'there'
    throw new ConfigError([
      { where: path, what: 'Another record is there.', fix: 'Name an empty folder with --to.' },
    ])
  }
}
