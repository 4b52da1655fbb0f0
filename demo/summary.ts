/** What a person reads at the end, and the same as data. */
import { paint, printable, type Colour } from '../cli/io.ts'
import type { AuditBreak } from '../lib/audit/verification.ts'
import type { Specimen } from './consumers.ts'
import { type Leaf, leavesOf, MAX_LEAVES } from './leaves.ts'
import { count } from './progress.ts'
import type { AttackOutcome, Outcome } from './run.ts'

/** How the summary is to look. */
export interface Style {
  readonly colours: boolean
  /** Columns of the terminal. */
  readonly width: number
  /** The flag that leads commands to what is left for a look, if it is. */
  readonly kept: string | undefined
  readonly isDemo: boolean
}

/** As JSON: the fields that are promised, then more. */
export function summaryJson(outcome: Outcome): string {
  const { sent, ledger, deliveries, audit, eventsPerSecond, sealing, events, attacks, tamperings, problems } =
    outcome
  return JSON.stringify({
    sent,
    admitted: ledger.admitted,
    rejected: Object.fromEntries(ledger.rejected),
    outputs: Object.fromEntries(deliveries.channels.map(({ channel, records }) => [channel, records])),
    audit: { verified: audit.verified, entries: audit.entries, segments: audit.segments },
    eventsPerSecond,
    events: {
      ...{ sealed: sealing.sealed, skipped: sealing.skipped, producers: sealing.producers },
      ...{ admitted: events.admitted, rejected: Object.fromEntries(events.rejected) },
    },
    attacks: attacks.map(({ name, expected, sent: tried, ended }) => ({
      ...{ name, expected, sent: tried },
      ended: Object.fromEntries(ended),
    })),
    tampering: tamperings.map(({ name, did, found, isNamed }) => ({
      ...{ name, did, found: isNamed },
      kinds: [...new Set(found.map(({ kind }) => kind))],
    })),
    faults: sealing.faults,
    problems,
  })
}

/** As text. */
export function summaryText(outcome: Outcome, style: Style): string {
  return [
    ...totals(outcome, style),
    ...attacksPart(outcome.attacks, style),
    ...outputsPart(outcome, style),
    ...specimensPart(outcome.deliveries.specimens, style),
    ...auditPart(outcome, style),
    ...problemsPart(outcome.problems, style),
    ...nextPart(style),
  ].join('\n')
}

interface Cell {
  readonly text: string
  readonly colour?: Colour
  /** Whether it stands at the right edge of its column. */
  readonly right?: boolean
}

const cell = (text: string, colour?: Colour): Cell => (colour === undefined ? { text } : { text, colour })
const number = (value: number): Cell => ({ text: count(value), right: true })

/** Rows under each other, cut to the width; the last column takes what the others leave. */
function rowsOf(rows: readonly (readonly Cell[])[], style: Style): string[] {
  const columns = Math.max(0, ...rows.map(({ length }) => length))
  const widths = Array.from({ length: columns }, (_, column) =>
    Math.max(0, ...rows.map((row) => lengthOf(row[column]?.text ?? ''))),
  )
  return rows.map((row) => {
    let left = style.width - 2
    const cells = row.map(({ text, colour, right }, column) => {
      const width = Math.min(widths[column] ?? 0, Math.max(0, left))
      left -= width + 2
      const cut = cutTo(text, width)
      const padding = ' '.repeat(width - lengthOf(cut))
      const painted = colour === undefined ? cut : paint(style.colours, colour, cut)
      return right === true ? padding + painted : painted + padding
    })
    return `  ${cells.join('  ')}`.trimEnd()
  })
}

const lengthOf = (text: string): number => Array.from(text).length

function cutTo(text: string, width: number): string {
  const points = Array.from(text)
  return points.length <= width ? text : width === 0 ? '' : `${points.slice(0, width - 1).join('')}…`
}

const several = (number: number, thing: string, things: string = `${thing}s`): string =>
  `${count(number)} ${number === 1 ? thing : things}`

const heading = (text: string, style: Style): string[] => ['', paint(style.colours, 'bold', text)]

function totals(
  { sent, ledger, events, eventsPerSecond, invocations, sealing }: Outcome,
  style: Style,
): string[] {
  const rejected = [...ledger.rejected.values()].reduce((sum, each) => sum + each, 0)
  const skipped = sealing.skipped === 0 ? '' : `, ${several(sealing.skipped, 'line')} skipped`
  const waited =
    sealing.waitedMs < 500
      ? ''
      : `; ${(sealing.waitedMs / 1000).toFixed(1)} s of sealing were waiting, to keep to the contracts' perSecond`
  const own = Array.from(events.rejected, ([code, times]) => `${count(times)} ${code}`).join(', ')
  const codes = Array.from(ledger.rejected).sort((a, b) => b[1] - a[1])
  return [
    ...heading('What came in', style),
    ...rowsOf(
      [
        [
          number(sent),
          cell(`records sent by ${several(sealing.producers, 'producer')} and an attacker${skipped}`),
        ],
        [{ ...number(ledger.admitted), colour: 'green' }, cell('admitted')],
        [
          { ...number(rejected), colour: 'yellow' },
          cell(own === '' ? 'rejected, all of them attacks' : `rejected, of the events themselves ${own}`),
        ],
        ...codes.map(([code, times]) => [cell(''), cell(`${count(times).padStart(6)}  ${code}`, 'dim')]),
        [
          { ...number(eventsPerSecond), colour: 'cyan' },
          cell(`events/s through the gate, in ${several(invocations, 'invocation')}${waited}`),
        ],
      ],
      style,
    ),
  ]
}

function attacksPart(attacks: readonly AttackOutcome[], style: Style): string[] {
  if (attacks.length === 0) return []
  const rows = attacks.map(({ name, tries, expected, sent, ended }) => {
    const isHeld = ended.get(expected) === sent
    const ends = Array.from(ended, ([end, times]) => (ended.size === 1 ? end : `${times} ${end}`)).join(', ')
    return [cell(name), number(sent), cell(ends, isHeld ? 'green' : 'red'), cell(tries, 'dim')]
  })
  const held = attacks.every(({ ended, expected, sent }) => ended.get(expected) === sent)
  const title = held
    ? 'The attacks: each was refused, and for its own reason'
    : 'The attacks: NOT each was refused as it should'
  const head = ['ATTACK', 'SENT', 'ENDED AS', 'WHAT WAS TRIED'].map((text) => cell(text, 'dim'))
  return [...heading(title, style), ...rowsOf([head, ...rows], style)]
}

function outputsPart({ deliveries, ledger, contracts }: Outcome, style: Style): string[] {
  const routes = contracts.all.flatMap((contract) => contract.routes)
  const rows = deliveries.channels.flatMap(({ channel, records }) =>
    Array.from(ledger.outputs.get(channel) ?? [], ([consumer, written]) => {
      const form =
        routes.find((route) => route.channel === channel && route.consumer === consumer)?.form ?? ''
      return { consumer, channel, form, written: Math.min(written, records) }
    }),
  )
  rows.sort((a, b) => a.consumer.localeCompare(b.consumer) || b.written - a.written)
  const sealed = deliveries.channels.reduce((sum, channel) => sum + channel.sealed, 0)
  const opened = deliveries.channels.reduce((sum, channel) => sum + channel.opened, 0)
  const plain = deliveries.channels.reduce((sum, channel) => sum + channel.records - channel.sealed, 0)
  const head = ['CONSUMER', 'EVENTS', 'FORM', 'CHANNEL'].map((text) => cell(text, 'dim'))
  const lines = rows.map(({ consumer, channel, form, written }, index) => [
    cell(rows[index - 1]?.consumer === consumer ? '' : consumer),
    number(written),
    cell(form),
    cell(channel),
  ])
  const title = `What went out: ${count(sealed)} sealed events, ${opened === sealed ? 'each' : count(opened)} opened by its consumer, and ${count(plain)} in plain form`
  return [...heading(title, style), ...rowsOf([head, ...lines], style)]
}

const MIN_COLUMN = 18
const MAX_COLUMN = 30

function specimensPart(specimens: readonly Specimen[], style: Style): string[] {
  if (specimens.length === 0) return []
  const lines = heading('One event before, and as each consumer sees it (· nothing)', style)
  for (const { offer, seen } of specimens) {
    const before = leavesOf(textOf(offer.event.dataBytes), MAX_LEAVES + 1)
    const { type } = offer.event
    lines.push('', `  ${paint(style.colours, 'cyan', printable(type))}, sealed by ${printable(offer.iss)}`)
    const fieldWidth = Math.min(24, Math.max(...before.map(([pointer]) => lengthOf(pointer))))
    const room = style.width - 4 - fieldWidth
    const abreast = Math.max(1, Math.floor(room / (MIN_COLUMN + 2)) - 1)
    for (let start = 0; start < seen.length; start += abreast) {
      const some = seen.slice(start, start + abreast)
      if (start > 0) lines.push('')
      const width = Math.min(MAX_COLUMN, Math.max(8, Math.floor(room / (some.length + 1)) - 2))
      lines.push(...specimenTable(before, some, width, fieldWidth, style))
    }
  }
  return lines
}

function specimenTable(
  before: readonly Leaf[],
  seen: Specimen['seen'],
  width: number,
  fieldWidth: number,
  style: Style,
): string[] {
  const shown = before.slice(0, MAX_LEAVES)
  const after = seen.map(({ payload }) => new Map(leavesOf(textOf(payload), Infinity)))
  const known = new Set(before.map(([pointer]) => pointer))
  // A treatment may leave an object where a scalar stood, or the other way round.
  const added = new Set(
    after.flatMap((leaves) => [...leaves.keys()]).filter((pointer) => !known.has(pointer)),
  )
  const fit = (text: string): string => cutTo(printable(text).replaceAll('\n', ' '), width)
  const head = ['field', 'before', ...seen.map(({ consumer }) => consumer)].map((text) =>
    cell(fit(text), 'dim'),
  )
  const rows = [
    ...shown,
    ...(before.length > MAX_LEAVES ? [] : Array.from(added, (pointer): Leaf => [pointer, ''])),
  ].map(([pointer, text]) => [
    cell(cutTo(printable(pointer === '' ? '(all)' : pointer), fieldWidth)),
    cell(fit(text)),
    ...after.map((leaves) => {
      const seenText = leaves.get(pointer)
      if (seenText === undefined) return cell('·', 'dim')
      return seenText === text ? cell(fit(seenText)) : cell(fit(seenText), 'yellow')
    }),
  ])
  const more = before.length > MAX_LEAVES ? ['  … and more'] : []
  return [...rowsOf([head, ...rows], style), ...more]
}

const textOf = (bytes: Uint8Array | undefined): string => Buffer.from(bytes ?? []).toString()

function auditPart({ audit, tamperings }: Outcome, style: Style): string[] {
  const lines = heading('The audit', style)
  const verdict = audit.verified
    ? paint(style.colours, 'green', 'complete and unaltered')
    : paint(style.colours, 'red', 'NOT VERIFIED')
  lines.push(
    `  ${several(audit.entries, 'entry', 'entries')} in ${several(audit.segments, 'signed segment')}: ${verdict}`,
  )
  if (tamperings.length === 0) return lines
  lines.push('  Then an insider with access to the disks, each time on a fresh copy:')
  for (const { name, did, found, isNamed } of tamperings) {
    const mark = isNamed ? paint(style.colours, 'green', 'found') : paint(style.colours, 'red', 'NOT FOUND')
    lines.push(
      `  ${mark}  ${name}: ${cutTo(printable(did), Math.max(20, style.width - lengthOf(name) - 12))}`,
    )
    const [first] = found
    if (first !== undefined)
      lines.push(
        paint(style.colours, 'dim', `         ${cutTo(describeBreak(first, found.length), style.width - 9)}`),
      )
  }
  return lines
}

function describeBreak(
  { kind, topic, partition, from, next, at, detail }: AuditBreak,
  breaks: number,
): string {
  const where = topic === null || partition === null ? '' : ` ${topic}/${partition}`
  const offsets = from === null || next === null ? '' : ` [${from}, ${next})`
  const place = at === null ? '' : `, audit ${at.auditPartition}/${at.auditOffset}`
  const more = breaks > 1 ? ` (and ${breaks - 1} more)` : ''
  return printable(`${kind}:${where}${offsets}${place}: ${detail}${more}`)
}

function problemsPart(problems: readonly string[], style: Style): string[] {
  if (problems.length === 0)
    return ['', paint(style.colours, 'green', 'Every number above was counted in the log, and they agree.')]
  return [
    '',
    paint(style.colours, 'red', 'Not as it should be:'),
    ...problems.map((problem) => `  ${printable(problem)}`),
  ]
}

function nextPart({ kept, isDemo, ...style }: Style): string[] {
  const rows: (readonly [string, string])[] =
    kept === undefined
      ? [['npm start -- --keep demo-run', 'the same again, and keep the folder to look into it']]
      : [
          [`npx sealgate audit verify ${kept}`, 'verify this audit yourself'],
          [`npx sealgate quarantine list ${kept}`, 'what was refused, and why'],
          [`npx sealgate audit search --code replayed ${kept}`, 'who did what, and when'],
        ]
  if (isDemo)
    rows.push(['npm start -- --input my.ndjson --contracts DIR', 'your own events, by your own contracts'])
  rows.push(
    ['npx sealgate contracts show OrderPlaced', 'who may publish an event, and who sees what of it'],
    ['npx sealgate conformance test/vectors', 'the wire format, against vectors that someone else made'],
    ['npx sealgate local start', 'a stack of your own, with send and tail from other terminals'],
  )
  return [
    ...heading('What to try next', { ...style, kept, isDemo }),
    ...rowsOf(
      rows.map(([command, why]) => [cell(command, 'cyan'), cell(why, 'dim')]),
      { ...style, kept, isDemo },
    ),
  ]
}
