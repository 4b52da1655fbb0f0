/** `sealgate quarantine list|show`: what the gate refused, and why. */
import { type Command } from 'commander'
import { QUARANTINE_HEADERS } from '../lib/admission/route.ts'
import { ConfigError, type Fault, REJECTION_CODES } from '../lib/errors.ts'
import { readToEnd } from '../lib/local/audit-source.ts'
import type { SourceRecord } from '../lib/ports.ts'
import { describeInspection, inspectionData } from './inspect.ts'
import { inspect } from './inspection.ts'
import { EXIT, isoTime, paint, printable } from './io.ts'
import { timeOf } from './numbers.ts'
import { givenRecord, parsePlace, recordAt, type RecordPlace } from './record.ts'
import { addRedriveCommand } from './redrive.ts'
import type { PlaceFlags } from './place-settings.ts'
import type { Terminal } from './terminal.ts'
import { addPlaceOptions, closing, openTopics, type Topics } from './world.ts'

interface ListOptions extends PlaceFlags {
  readonly code?: string
  readonly since?: string
  readonly json?: true
}

interface ShowOptions extends PlaceFlags {
  readonly json?: true
}

/** Adds `quarantine list`, `show` and `redrive` to the program. */
export function addQuarantineCommands(program: Command, terminal: Terminal): void {
  const quarantine = program
    .command('quarantine')
    .description('look at what the gate refused, and put it back')
  addPlaceOptions(quarantine.command('list'))
    .description('each refused record: its place here, code, time, and where it came from')
    .option('--code <code>', 'only this rejection code')
    .option('--since <time>', 'only from then on: ISO 8601, e.g. 2026-11-22T09:15:00Z')
    .option('--json', 'print a JSON object a line: each record, then {"totals"}')
    .addHelpText('after', '\nExample:\n  sealgate quarantine list --code schema-invalid')
    .action((options: ListOptions) => list(terminal, options))
  addPlaceOptions(quarantine.command('show'))
    .description('one refused record in words')
    .argument(
      '<place>',
      'partition/offset in the quarantine, or topic/partition/offset of the record refused',
    )
    .option('--json', 'print the same as a JSON object')
    .addHelpText(
      'after',
      '\nExamples:\n  sealgate quarantine show 0/12\n  sealgate quarantine show orders/3/1041',
    )
    .action((place: string, options: ShowOptions) => show(terminal, place, options))
  addRedriveCommand(quarantine, terminal)
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

async function* refusedIn({ records, quarantineTopic: topic }: Topics): AsyncGenerator<Refused> {
  const partitions = await records.partitions(topic)
  for (let partition = 0; partition < partitions; partition++)
    for await (const record of readToEnd(records, { topic, partition })) yield refusedOf(record)
}

async function list(terminal: Terminal, options: ListOptions): Promise<void> {
  const faults: Fault[] = []
  if (options.code !== undefined && !REJECTION_CODES.some((code) => code === options.code))
    faults.push({ where: '--code', what: 'No such code.', fix: `Use one of: ${REJECTION_CODES.join(', ')}.` })
  const since = options.since === undefined ? -Infinity : timeOf(options.since)
  if (Number.isNaN(since))
    faults.push({ where: '--since', what: 'It is no time.', fix: 'Use 2026-11-22 or 2026-11-22T09:15:00Z.' })
  if (faults.length > 0) throw new ConfigError(faults)
  await closing(await openTopics(terminal, options, false), async (topics) => {
    const byCode = new Map<string, number>()
    let found = 0
    for await (const refused of refusedIn(topics)) {
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

const placeOf = ({ partition, offset }: SourceRecord): string => `${partition}/${offset}`

function rowText(terminal: Terminal, { record, code, source }: Refused): string {
  const time = paint(terminal.colours.out, 'dim', isoTime(record.timestamp))
  const name = printable(code)
  const padding = ' '.repeat(Math.max(0, 17 - name.length))
  return `${placeOf(record).padEnd(8)}  ${time}  ${paint(terminal.colours.out, 'red', name)}${padding}  ${printable(source)}`
}

function rowJson({ record, code, source }: Refused): string {
  const time = isoTime(record.timestamp)
  return JSON.stringify({ place: placeOf(record), code, time, source })
}

async function show(terminal: Terminal, name: string, options: ShowOptions): Promise<void> {
  const isHere = /^\d+\/\d+$/.test(name)
  if (!isHere && parsePlace(name) === undefined)
    throw new ConfigError([
      {
        where: name,
        what: 'It is no place.',
        fix: 'Give partition/offset, as sealgate quarantine list shows it.',
      },
    ])
  await closing(await openTopics(terminal, options, false), async (topics) => {
    const place = parsePlace(isHere ? `${topics.quarantineTopic}/${name}` : name)
    const record = await refusedAt(topics, name, place)
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

async function refusedAt(
  topics: Topics,
  name: string,
  place: RecordPlace | undefined,
): Promise<SourceRecord> {
  if (place?.topic === topics.quarantineTopic) return recordAt(topics, place)
  for await (const { record, source } of refusedIn(topics)) if (source === name) return record
  throw new ConfigError([
    { where: name, what: 'No such record was refused.', fix: 'sealgate quarantine list shows them.' },
  ])
}
