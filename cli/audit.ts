/** `sealgate audit verify` and `sealgate audit search` (audit.md §4). docs/audit.md is their manual. */
import { readFile } from 'node:fs/promises'
import { type Command, Option } from 'commander'
import { encodeEntry, principalOf, recordKey } from '../lib/audit/entry.ts'
import { type AuditQuery, type FoundEntry, searchAudit, type SearchTotals } from '../lib/audit/search.ts'
import {
  type AuditBreak,
  type AuditSource,
  type VerificationReport,
  verifyAudit,
} from '../lib/audit/verification.ts'
import { isObject, type JsonObject, type JsonValue, member } from '../lib/contract/json.ts'
import { importPublicKey, type PublicKey, thumbprint } from '../lib/envelope/crypto.ts'
import { suiteOf } from '../lib/envelope/suite.ts'
import { ConfigError, type Fault, REJECTION_CODES } from '../lib/errors.ts'
import { EXIT, type ExitStatus, fail, type Io, printable, table } from './io.ts'
import type { PlaceFlags } from './place-settings.ts'
import { addPlaceOptions } from './world.ts'

/** `progress`, where standard error is a terminal, takes a text that replaces the last one, without a line end. */
export interface AuditIo extends Io {
  readonly progress?: (text: string) => void
}

/** An audit topic that was opened. */
export interface OpenedAudit {
  readonly source: AuditSource
  /** The keys pinned for it, by kid in base64url; `--key` replaces them. */
  readonly keys: ReadonlyMap<string, PublicKey>
  close(): Promise<void>
}

/** What is to be opened. */
export interface AuditPlace extends PlaceFlags {
  readonly topic?: string
  /** Whether the keys pinned for it are wanted. */
  readonly needsKeys: boolean
}

/** Opens the audit topic; of that name where one was given. Rejects with `Outage` or `ConfigError`. */
export type OpenAudit = (place: AuditPlace) => Promise<OpenedAudit>

interface VerifyOptions extends PlaceFlags {
  readonly topic?: string
  readonly key: readonly string[]
  readonly from?: string
  readonly to?: string
  readonly json?: true
}

interface SearchOptions extends PlaceFlags {
  readonly topic?: string
  readonly principal?: string
  readonly type?: string
  readonly code?: string
  readonly record?: string
  readonly resource?: string
  readonly since?: string
  readonly until?: string
  readonly limit?: string
  readonly json?: true
}

/** Adds `audit verify` and `audit search` to the program. */
export function addAuditCommands(program: Command, io: AuditIo, open: OpenAudit): void {
  const audit = program.command('audit').description('verify and search what was decided')
  const topic = (): Option => new Option('--topic <name>', "the audit topic (default: the deployment's own)")
  const times = 'ISO 8601, e.g. 2026-11-22 or 2026-11-22T09:15:00Z'
  addPlaceOptions(audit.command('verify'))
    .description('verify that the audit is complete and unaltered, trusting pinned keys alone')
    .addOption(topic())
    .option('--key <file>', 'a pinned public key, as JWK or JWK set; may be repeated', collect, [])
    .option('--from <time>', `only segments from then on: ${times}`)
    .option('--to <time>', 'only segments before then')
    .option('--json', 'print the report as JSON')
    .action((options: VerifyOptions) => guarded(io, options, () => runVerify(io, open, options)))
  addPlaceOptions(audit.command('search'))
    .description('find entries; what is found is proven only where `audit verify` finds no break')
    .addOption(topic())
    .option(
      '--principal <name>',
      'who, where that is proven, or who an operator said he was; * for any characters',
    )
    .option(
      '--type <type>',
      "what happened (event.rejected, key.*) or the event's own type; * for any characters",
    )
    .option('--code <code>', 'a rejection code')
    .option('--record <record>', 'topic, topic/partition or topic/partition/offset')
    .option('--resource <resource>', 'what it was done to: key:KID, directory:42; * for any characters')
    .option('--since <time>', `from then on: ${times}`)
    .option('--until <time>', 'before then')
    .option(
      '--limit <number>',
      'print at most so many entries; the totals count all (default: 100, with --json all)',
    )
    .option('--json', 'print a JSON object a line: each entry, then the totals')
    .action((options: SearchOptions) => guarded(io, options, () => runSearch(io, open, options)))
}

const collect = (file: string, files: readonly string[]): readonly string[] => [...files, file]

async function guarded(
  io: AuditIo,
  options: { readonly json?: true },
  run: () => Promise<ExitStatus>,
): Promise<void> {
  try {
    io.exit(await run())
  } catch (error) {
    fail(io, error, options.json)
  }
}

async function runVerify(io: AuditIo, open: OpenAudit, options: VerifyOptions): Promise<ExitStatus> {
  const faults: Fault[] = []
  const from = secondsOf('--from', options.from, faults)
  const to = secondsOf('--to', options.to, faults)
  const given = await readKeys(options.key, faults)
  if (faults.length > 0) throw new ConfigError(faults)
  return withAudit(
    open,
    { ...options, needsKeys: options.key.length === 0 },
    async ({ source, keys: own }) => {
      const keys = options.key.length > 0 ? given : own
      if (keys.size === 0)
        throw new ConfigError([
          {
            where: '--key',
            what: 'No key is pinned, so nothing can be trusted.',
            fix: "Give the gate's public key.",
          },
        ])
      const report = await verifyAudit(source, {
        keyOf: (kid) => keys.get(Buffer.from(kid).toString('base64url')),
        ...(from === undefined ? {} : { from }),
        ...(to === undefined ? {} : { to }),
        ...progressOn(io, 'verified'),
      })
      io.write(options.json === true ? jsonText(report) : describeReport(report))
      return report.verified ? EXIT.ok : EXIT.found
    },
  )
}

async function runSearch(io: AuditIo, open: OpenAudit, options: SearchOptions): Promise<ExitStatus> {
  const faults: Fault[] = []
  const since = secondsOf('--since', options.since, faults)
  const until = secondsOf('--until', options.until, faults)
  const code = REJECTION_CODES.find((known) => known === options.code)
  const limit = options.limit ?? (options.json === true ? 'Infinity' : '100')
  if (options.code !== undefined && code === undefined)
    faults.push({ where: '--code', what: 'No such code.', fix: `Use one of: ${REJECTION_CODES.join(', ')}.` })
  if (limit !== 'Infinity' && !/^[0-9]{1,15}$/.test(limit))
    faults.push({ where: '--limit', what: 'Not a whole number.', fix: 'Use 0 or more.' })
  if (faults.length > 0) throw new ConfigError(faults)
  const { principal, type, record, resource } = options
  const query: AuditQuery = {
    ...(principal === undefined ? {} : { principal }),
    ...(type === undefined ? {} : { type }),
    ...(record === undefined ? {} : { record }),
    ...(resource === undefined ? {} : { resource }),
    ...(code === undefined ? {} : { code }),
    ...(since === undefined ? {} : { sinceMs: since * 1000 }),
    ...(until === undefined ? {} : { untilMs: until * 1000 }),
  }
  const toText = options.json === true ? foundJson : describeFound
  return withAudit(open, { ...options, needsKeys: false }, async ({ source }) => {
    let left = Number(limit)
    const { onProgress } = progressOn(io, 'searched')
    const onFound = (found: FoundEntry): void => {
      if (left-- > 0) io.write(toText(found))
    }
    const totals = await searchAudit(source, query, onFound, onProgress)
    io.write(options.json === true ? jsonText({ totals }) : describeTotals(totals, Number(limit)))
    return EXIT.ok
  })
}

async function withAudit(
  open: OpenAudit,
  place: AuditPlace,
  run: (audit: OpenedAudit) => Promise<ExitStatus>,
): Promise<ExitStatus> {
  const audit = await open(place)
  try {
    return await run(audit)
  } finally {
    await audit.close()
  }
}

function progressOn(io: AuditIo, verb: string): { onProgress?: (records: number) => void } {
  const { progress } = io
  if (progress === undefined) return {}
  return { onProgress: (records) => progress(`${records.toLocaleString('en-GB')} records ${verb}`) }
}

const TIME = /^\d{4}-\d{2}-\d{2}(T\d{2}:\d{2}(:\d{2}(\.\d{1,3})?)?(Z|[+-]\d{2}:\d{2}))?$/

function secondsOf(flag: string, text: string | undefined, faults: Fault[]): number | undefined {
  if (text === undefined) return undefined
  const seconds = TIME.test(text) ? Date.parse(text) / 1000 : NaN
  if (Number.isNaN(seconds))
    faults.push({ where: flag, what: `${text} is no time.`, fix: 'Use 2026-11-22 or 2026-11-22T09:15:00Z.' })
  return seconds
}

async function readKeys(files: readonly string[], faults: Fault[]): Promise<ReadonlyMap<string, PublicKey>> {
  const keys = new Map<string, PublicKey>()
  for (const file of files) {
    try {
      const json = JSON.parse(await readFile(file, 'utf8')) as JsonValue
      const set = isObject(json) ? member(json, 'keys') : undefined
      const rows: readonly JsonValue[] = Array.isArray(set) ? set : [json]
      for (const row of rows) {
        const key = readKey(row)
        const kid = isObject(row) ? member(row, 'kid') : undefined
        keys.set(typeof kid === 'string' ? kid : thumbprint(key).toString('base64url'), key)
      }
    } catch (error) {
      // A parser's message may quote what it read.
      const what =
        error instanceof TypeError ? `Not a public key: ${error.message}.` : 'Not a readable JSON file.'
      faults.push({ where: file, what, fix: 'Give a public JWK or JWK set, for Ed25519 or P-256.' })
    }
  }
  return keys
}

function readKey(json: JsonValue): PublicKey {
  if (!isObject(json)) throw new TypeError('no object stands there')
  const [kty, crv, x] = [text(json, 'kty'), text(json, 'crv'), text(json, 'x')]
  if (member(json, 'd') !== undefined) throw new TypeError('a private key stands there')
  const suite = suiteOf(crv === 'P-256' ? 'ESP256' : crv)
  if (suite === undefined) throw new TypeError('a curve that is not known')
  return importPublicKey(
    suite,
    member(json, 'y') === undefined ? { kty, crv, x } : { kty, crv, x, y: text(json, 'y') },
  )
}

function text(json: JsonObject, name: string): string {
  const value = member(json, name)
  if (typeof value !== 'string') throw new TypeError(`${name} is missing`)
  return value
}

const jsonText = (value: unknown): string =>
  JSON.stringify(value, (_, item: unknown): unknown => {
    if (typeof item === 'bigint') return Number.isSafeInteger(Number(item)) ? Number(item) : item.toString()
    return item instanceof Map ? Object.fromEntries<unknown>(item) : item
  })

function foundJson({ auditPartition, auditOffset, entry }: FoundEntry): string {
  return `{"audit":"${auditPartition}/${auditOffset}","entry":${encodeEntry(entry).toString()}}`
}

function describeFound({ entry }: FoundEntry): string {
  const decision = entry.kind === 'event.admitted' || entry.kind === 'event.rejected' ? entry : undefined
  const event = decision?.event ?? undefined
  const nobody = decision === undefined ? '(not known)' : '(not proven)'
  const who = principalOf(entry) ?? (event === undefined ? nobody : `(claims ${event.iss})`)
  const what =
    decision === undefined
      ? 'resource' in entry
        ? entry.resource
        : ''
      : `${event?.type ?? ''} ${event?.id ?? ''}`
  const failed = 'success' in entry && !entry.success ? ' failure' : ''
  const code = entry.kind === 'event.rejected' ? ` ${entry.code}` : failed
  const where = recordKey(entry.topic, entry.partition, entry.offset)
  const line = `${new Date(entry.timeMs).toISOString()}  ${where}  ${entry.kind}${code}  ${who}  ${what}`
  return printable(line.replaceAll('\n', ' ').trimEnd())
}

function describeTotals(totals: SearchTotals, limit: number): string {
  const list = (counts: ReadonlyMap<string, number>): string =>
    Array.from(counts)
      .sort((a, b) => b[1] - a[1])
      .slice(0, 10)
      .map(([name, count]) => `  ${String(count).padStart(8)}  ${name.replaceAll('\n', ' ')}`)
      .join('\n')
  const lines = [
    `\n${totals.found} of ${totals.searched} entries found${totals.found > limit ? `, ${limit} shown` : ''}.`,
  ]
  if (totals.unreadable > 0)
    lines.push(`${totals.unreadable} records are no entries: run sealgate audit verify.`)
  if (totals.byType.size > 0) lines.push(`By type:\n${list(totals.byType)}`)
  if (totals.byCode.size > 0) lines.push(`By code:\n${list(totals.byCode)}`)
  // Who works on keys and positions is whoever he said he was.
  const said = [...totals.byType.keys()].some((type) => !type.startsWith('event.'))
  const heading = `By principal, where proven${said ? '; of what operators did, as they said' : ''}:`
  if (totals.byPrincipal.size > 0) lines.push(`${heading}\n${list(totals.byPrincipal)}`)
  return printable(lines.join('\n'))
}

const SHOWN_BREAKS = 50

function describeReport(report: VerificationReport): string {
  const rows = report.ranges.map(({ topic, partition, from, next, entries, segments, breaks }) => [
    `${topic}/${partition}`,
    `[${from}, ${next})`,
    ...[entries, segments, breaks].map(String),
  ])
  const lines = table([['SOURCE', 'OFFSETS', 'ENTRIES', 'SEGMENTS', 'BREAKS'], ...rows])
  const { entries, segments, breaks, breaksOmitted } = report
  const all = breaks.length + breaksOmitted
  lines.push(
    '',
    `${entries} ${entries === 1 ? 'entry' : 'entries'} in ${segments} ${segments === 1 ? 'segment' : 'segments'} hold${entries === 1 ? 's' : ''}.`,
  )
  const unseen = report.ranges.reduce((sum, range) => sum + range.unseen, 0)
  if (unseen > 0) lines.push(`${unseen} events that producers numbered never came.`)
  if (!report.headsKnown) lines.push(headlessText(report.headless))
  if (report.verified && segments === 0) lines.push('Nothing is there to verify.')
  else if (report.verified) lines.push('Verified: complete and unaltered.')
  else lines.push(`NOT VERIFIED: ${all} ${all === 1 ? 'break' : 'breaks'}.`, '')
  lines.push(...breaks.slice(0, SHOWN_BREAKS).map(describeBreak))
  if (all > SHOWN_BREAKS) lines.push(`  and ${all - SHOWN_BREAKS} more`)
  return printable(lines.join('\n'))
}

function headlessText(headless: readonly string[]): string {
  const some = headless.slice(0, SHOWN_HEADLESS).join(', ')
  const more = headless.length > SHOWN_HEADLESS ? ` and ${headless.length - SHOWN_HEADLESS} more` : ''
  const of = some === '' ? '' : ` of ${some}${more}`
  return `The heads in the positions${of} are not known here: segments cut from the end would not show.`
}

const SHOWN_HEADLESS = 8

function describeBreak({ kind, topic, partition, from, next, at, detail }: AuditBreak): string {
  const source = topic === null || partition === null ? 'no source partition' : `${topic}/${partition}`
  const offsets = from === null && next === null ? '' : ` [${from ?? '?'}, ${next ?? '…'})`
  const place = at === null ? '' : ` at audit ${at.auditPartition}/${at.auditOffset}`
  return `  ${kind}: ${source}${offsets}${place}: ${detail}`
}
