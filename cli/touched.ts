/** `sealgate keys touched`: what a signing key sent, what became of it and where it went, from the audit (docs/keys.md). */
import { type Command, InvalidArgumentError } from 'commander'
import {
  type OffsetRange,
  type Tally,
  type Touched,
  touchedBy,
  type TouchedPlace,
} from '../lib/audit/touched.ts'
import { openAudit } from './audit-place.ts'
import { EXIT, oneLine, table } from './io.ts'
import { timeOf } from './numbers.ts'
import type { PlaceFlags } from './place-settings.ts'
import type { Terminal } from './terminal.ts'
import { addPlaceOptions } from './world.ts'

interface Flags extends PlaceFlags {
  readonly since?: number
  readonly until?: number
  readonly json?: true
}

/** Adds `touched` to `sealgate keys`. */
export function addTouchedCommand(keys: Command, terminal: Terminal): void {
  addPlaceOptions(keys.command('touched'))
    .description('which records a key signed, what became of them, and where they went: from the audit')
    .argument('<kid>', 'the key, as sealgate keys list has it', kidOf)
    .option('--since <time>', 'only what was decided from then on: ISO 8601', milliseconds)
    .option('--until <time>', 'only what was decided before then', milliseconds)
    .option('--json', 'print {"kid","partitions":[{"topic","partition","proven","claimed"}],"channels",…}')
    // A kid may begin with a dash.
    .allowUnknownOption()
    .allowExcessArguments(false)
    .addHelpText(
      'after',
      '\nExample:\n  sealgate keys touched 2ynK… --since 2026-11-22T09:15:00Z\n\nIt finds, and does not verify: run sealgate audit verify.',
    )
    .action((kid: string, flags: Flags) => run(terminal, kid, flags))
}

function kidOf(text: string): string {
  if (/^[A-Za-z0-9_-]{1,86}$/.test(text)) return text
  throw new InvalidArgumentError('Give a kid in base64url.')
}

function milliseconds(text: string): number {
  const time = timeOf(text)
  if (Number.isNaN(time)) throw new InvalidArgumentError('Use 2026-11-22 or 2026-11-22T09:15:00Z.')
  return time
}

async function run(terminal: Terminal, kid: string, flags: Flags): Promise<void> {
  const { since: sinceMs, until: untilMs, json, ...place } = flags
  const audit = await openAudit(terminal)({ ...place, needsKeys: false })
  try {
    const query = {
      kid,
      ...(sinceMs !== undefined && { sinceMs }),
      ...(untilMs !== undefined && { untilMs }),
    }
    const touched = await touchedBy(audit.source, query, (records) =>
      terminal.progress?.(`${records.toLocaleString('en-GB')} records of the audit read`),
    )
    if (json) terminal.write(jsonOf(kid, touched))
    else for (const line of linesOf(kid, touched)) terminal.write(oneLine(line))
    terminal.exit(EXIT.ok)
  } finally {
    await audit.close()
  }
}

function jsonOf(kid: string, { places, channels, omitted, searched }: Touched): string {
  const tallyOf = (tally: Tally | undefined) =>
    tally && {
      admitted: tally.admitted,
      rejected: Object.fromEntries(tally.rejected),
      ranges: tally.ranges.map(({ from, next }) => [String(from), String(next)]),
      ...{ coarse: tally.isCoarse, first: iso(tally.firstMs), last: iso(tally.lastMs) },
    }
  const partitions = places.map(({ topic, partition, proven, claimed }) => {
    return { topic, partition, proven: tallyOf(proven) ?? null, claimed: tallyOf(claimed) ?? null }
  })
  return JSON.stringify({
    ...{ kid, verified: false, partitions, channels: Object.fromEntries(channels) },
    ...{ omitted, searched },
  })
}

const iso = (ms: number): string => new Date(ms).toISOString()

function linesOf(kid: string, { places, channels, omitted, searched }: Touched): readonly string[] {
  const proven = rowsOf(places, ({ proven: tally }) => tally)
  const claimed = rowsOf(places, ({ claimed: tally }) => tally)
  const lines =
    proven.length === 0
      ? [`No record that key ${kid} signed is in the audit. Is this its kid? See sealgate keys list.`]
      : table([HEAD, ...proven])
  if (claimed.length > 0)
    lines.push('', 'Named it, and were refused before that was proven; anyone can name a key:')
  if (claimed.length > 0) lines.push(...table([HEAD, ...claimed]))
  if (channels.size > 0)
    lines.push(
      '',
      `Went out to: ${Array.from(channels, ([channel, count]) => `${channel} ${count}`).join(', ')}.`,
    )
  if (places.some((place) => place.proven?.isCoarse === true || place.claimed?.isCoarse === true))
    lines.push('* Too many ranges to tell apart: records of others lie within them.')
  if (omitted > 0) lines.push(`${omitted} entries of further partitions are not shown.`)
  lines.push(`Of ${searched} entries. They are not verified: sealgate audit verify.`)
  return lines
}

const HEAD = ['SOURCE', 'ADMITTED', 'REFUSED', 'FIRST', 'LAST', 'OFFSETS']
const SHOWN_RANGES = 8

const rowsOf = (
  places: readonly TouchedPlace[],
  pick: (place: TouchedPlace) => Tally | undefined,
): string[][] =>
  places.flatMap((place) => {
    const tally = pick(place)
    if (tally === undefined) return []
    const refused = Array.from(tally.rejected, ([code, count]) => `${count} ${code}`).join(', ')
    const cells = [`${place.topic}/${place.partition}`, `${tally.admitted}`, refused === '' ? '0' : refused]
    return [[...cells, iso(tally.firstMs), iso(tally.lastMs), offsetsText(tally)]]
  })

function offsetsText({ ranges, isCoarse }: Tally): string {
  const text = ({ from, next }: OffsetRange): string => `[${from}, ${next})`
  const shown = ranges.slice(0, SHOWN_RANGES).map(text).join(' ')
  const [last] = ranges.slice(-1)
  const more =
    ranges.length > SHOWN_RANGES && last !== undefined
      ? ` and ${ranges.length - SHOWN_RANGES} more ranges up to ${last.next} (--json has all)`
      : ''
  return shown + more + (isCoarse ? ' *' : '')
}
