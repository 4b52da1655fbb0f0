/** `sealgate quarantine list|show`: what the gate refused, and why. */
import { type Command } from 'commander'
import { QUARANTINE_HEADERS } from '../lib/admission/route.ts'
import { ConfigError, type Fault, REJECTION_CODES } from '../lib/errors.ts'
import { QUARANTINE_TOPIC, type Stack } from '../lib/local/stack.ts'
import type { SourceRecord } from '../lib/ports.ts'
import { folderOption, withStack } from './folder.ts'
import { describeInspection, inspectionData } from './inspect.ts'
import { inspect } from './inspection.ts'
import { EXIT, paint, printable } from './io.ts'
import { givenRecord, parsePlace, recordAt, type RecordPlace } from './record.ts'
import type { Terminal } from './terminal.ts'

interface ListOptions {
  readonly folder: string
  readonly code?: string
  readonly since?: string
  readonly json?: true
}

/** Adds `quarantine list` and `quarantine show` to the program. */
export function addQuarantineCommands(program: Command, terminal: Terminal): void {
  const quarantine = program.command('quarantine').description('look at what the gate refused')
  quarantine
    .command('list')
    .description('each refused record: its place here, code, time, and where it came from')
    .option('--code <code>', 'only this rejection code')
    .option('--since <time>', 'only from then on: ISO 8601, e.g. 2026-11-22T09:15:00Z')
    .addOption(folderOption(terminal))
    .option('--json', 'print a JSON object a line: each record, then {"totals"}')
    .addHelpText('after', '\nExample:\n  sealgate quarantine list --code schema-invalid')
    .action((options: ListOptions) => list(terminal, options))
  quarantine
    .command('show')
    .description('one refused record in words')
    .argument(
      '<place>',
      'partition/offset in the quarantine, or topic/partition/offset of the record refused',
    )
    .addOption(folderOption(terminal))
    .option('--json', 'print the same as a JSON object')
    .addHelpText(
      'after',
      '\nExamples:\n  sealgate quarantine show 0/12\n  sealgate quarantine show orders/3/1041',
    )
    .action((place: string, options: { folder: string; json?: true }) => show(terminal, place, options))
}

/** A quarantined record by the headers that the gate added: the last of each name, since a producer's stand before. */
interface Refused {
  readonly record: SourceRecord
  readonly code: string
  readonly source: string
}

function refusedOf(record: SourceRecord): Refused {
  const text = (name: string): string =>
    Buffer.from(record.headers.findLast((header) => header.name === name)?.value ?? []).toString()
  const { code, topic, partition, offset } = QUARANTINE_HEADERS
  return { record, code: text(code), source: `${text(topic)}/${text(partition)}/${text(offset)}` }
}

async function* refusedIn(stack: Stack): AsyncGenerator<Refused> {
  const ends = await stack.log.endOffsets(QUARANTINE_TOPIC)
  for (const [partition, end] of ends.entries()) {
    for (let from = 0n; from < end;) {
      const { records, next } = await stack.log.read(QUARANTINE_TOPIC, partition, from)
      for (const record of records) yield refusedOf(record)
      if (next <= from) break
      from = next
    }
  }
}

async function list(terminal: Terminal, options: ListOptions): Promise<void> {
  const faults: Fault[] = []
  if (options.code !== undefined && !REJECTION_CODES.some((code) => code === options.code))
    faults.push({ where: '--code', what: 'No such code.', fix: `Use one of: ${REJECTION_CODES.join(', ')}.` })
  const since = options.since === undefined ? -Infinity : timeOf(options.since)
  if (Number.isNaN(since))
    faults.push({ where: '--since', what: 'It is no time.', fix: 'Use 2026-11-22 or 2026-11-22T09:15:00Z.' })
  if (faults.length > 0) throw new ConfigError(faults)
  await withStack(options.folder, async (stack) => {
    const byCode = new Map<string, number>()
    let found = 0
    for await (const refused of refusedIn(stack)) {
      const { record, code } = refused
      if (record.timestamp < since || (options.code !== undefined && code !== options.code)) continue
      found++
      byCode.set(code, (byCode.get(code) ?? 0) + 1)
      terminal.write(options.json ? rowJson(refused) : rowText(terminal, refused))
      await terminal.drained()
    }
    const totals = { found, byCode: Object.fromEntries(byCode) }
    const counts = Array.from(byCode, ([code, count]) => `${count} ${code}`).join(', ')
    if (options.json) terminal.write(JSON.stringify({ totals }))
    else terminal.write(found === 0 ? 'Nothing was refused.' : `\n${found} refused: ${printable(counts)}`)
    terminal.exit(EXIT.ok)
  })
}

const timeOf = (text: string): number =>
  /^\d{4}-\d{2}-\d{2}(T[\d:.]+(Z|[+-]\d{2}:\d{2}))?$/.test(text) ? Date.parse(text) : NaN

const placeOf = ({ partition, offset }: SourceRecord): string => `${partition}/${offset}`

function rowText(terminal: Terminal, { record, code, source }: Refused): string {
  const time = paint(terminal.colours.out, 'dim', new Date(record.timestamp).toISOString())
  const name = printable(code)
  const padding = ' '.repeat(Math.max(0, 17 - name.length))
  return `${placeOf(record).padEnd(8)}  ${time}  ${paint(terminal.colours.out, 'red', name)}${padding}  ${printable(source)}`
}

function rowJson({ record, code, source }: Refused): string {
  const time = new Date(record.timestamp).toISOString()
  return JSON.stringify({ place: placeOf(record), code, time, source })
}

async function show(
  terminal: Terminal,
  name: string,
  options: { folder: string; json?: true },
): Promise<void> {
  const place = /^\d+\/\d+$/.test(name) ? parsePlace(`${QUARANTINE_TOPIC}/${name}`) : parsePlace(name)
  if (place === undefined)
    throw new ConfigError([
      {
        where: name,
        what: 'It is no place.',
        fix: 'Give partition/offset, as sealgate quarantine list shows it.',
      },
    ])
  await withStack(options.folder, async (stack) => {
    const record = await refusedAt(stack, place)
    const { code, source } = refusedOf(record)
    const inspection = inspect(givenRecord(record))
    if (options.json)
      terminal.write(JSON.stringify({ code, source, inspection: inspectionData(inspection, terminal.now()) }))
    else {
      const red = paint(terminal.colours.out, 'red', printable(code))
      terminal.write(
        `Refused: ${red}. It was ${printable(source)}.\n\n${describeInspection(inspection, terminal)}`,
      )
    }
    terminal.exit(EXIT.ok)
  })
}

async function refusedAt(stack: Stack, place: RecordPlace): Promise<SourceRecord> {
  if (place.topic === QUARANTINE_TOPIC) return recordAt(stack, place)
  const wanted = `${place.topic}/${place.partition}/${place.offset}`
  for await (const { record, source } of refusedIn(stack)) if (source === wanted) return record
  throw new ConfigError([
    { where: wanted, what: 'No such record was refused.', fix: 'sealgate quarantine list shows them.' },
  ])
}
