/** `sealgate tail`: an output channel, read as its consumer. */
import { setTimeout as sleep } from 'node:timers/promises'
import { type Command, Option } from 'commander'
import type { Opener } from '../lib/client/opener.ts'
import type { SourceRecord, TopicPartition } from '../lib/ports.ts'
import { dataMember, eventJson, kafkaMessage, openerOf, type Reading, readerOf } from './consumers.ts'
import { EXIT, isoTime, oneLine, paint } from './io.ts'
import { wholeNumber } from './numbers.ts'
import type { PlaceFlags } from './place-settings.ts'
import type { Terminal } from './terminal.ts'
import { addPlaceOptions, closing, openWorld, type World } from './world.ts'

interface TailOptions extends PlaceFlags {
  readonly consumer?: string
  readonly from: 'beginning' | 'end'
  readonly group?: string
  readonly max?: number
  readonly follow?: true
  readonly json?: true
}

const PAGE = { maxBytes: 1_048_576, maxRecords: 2_000 }
/** A wait ends at the latest then, to see whether it is to stop; a cluster is looked at as often. */
const WAIT_MS = 500

const HELP = `
Sealed channels are opened as the consumer that the contracts' routes name;
plain ones are printed as they are.

Without --group nothing is kept, and nobody else is disturbed. With it reading
goes on where that group stood, and its offsets are committed after what was
printed.

Examples:
  sealgate tail notifications.orders
  sealgate tail notifications.orders --follow --from end --json

Exit status 1: some records could not be opened; each is named with its code.`

/** Adds `tail` to the program. */
export function addTailCommand(program: Command, terminal: Terminal): void {
  addPlaceOptions(program.command('tail'))
    .description('open and print the events of an output channel')
    .argument('<channel>', 'an output channel of the contracts')
    .option('--consumer <name>', "as whom to open (default: the channel's only consumer)")
    .addOption(
      new Option('--from <place>', 'where to begin').choices(['beginning', 'end']).default('beginning'),
    )
    .addOption(new Option('--from-beginning', 'the same as --from beginning').conflicts('from'))
    .option(
      '--group <name>',
      'go on where this group stood, and commit its offsets; where it has none, as --from says',
    )
    .option('--max <n>', 'end after so many events', wholeNumber(1, Number.MAX_SAFE_INTEGER))
    .option('--follow', 'wait for more, until Ctrl-C')
    .option('--json', 'print a JSON object a line: {"topic","partition","offset","timestamp","key","event"}')
    .addHelpText('after', HELP)
    .action(async (channel: string, options: TailOptions) => {
      const world = await openWorld(terminal, options, options.follow === true)
      await closing(world, () => tail(terminal, world, channel, options))
    })
}

async function tail(terminal: Terminal, world: World, channel: string, options: TailOptions): Promise<void> {
  const { records: source } = world
  const reading = readerOf(world, channel, options.consumer)
  const stop = options.follow === true ? terminal.stopSignal() : undefined
  const opener = openerOf(world, reading.consumer)
  let left = options.max ?? Infinity
  let unopened = 0
  try {
    const places = await placesOf(world, world.topicOf(channel) ?? channel, options)
    while (left > 0 && stop?.aborted !== true) {
      const page: { place: Reached; record: SourceRecord; shown: Shown; time: number }[] = []
      let isMore = false
      for (const place of places) {
        const { records, next } = await source.fetch(place, place.offset, PAGE)
        isMore ||= records.length > 0
        place.offset = next
        const shown = await showAll(records, reading, opener)
        // Producers may set timestamps: within a partition the order is that of the offsets whatever they say.
        let time = -Infinity
        for (const [index, record] of records.entries()) {
          time = Math.max(time, record.timestamp)
          page.push({ place, record, shown: shown[index] ?? NOTHING, time })
        }
      }
      // Between partitions there is no order: by time it reads best.
      page.sort((a, b) => a.time - b.time)
      for (const { place, record, shown } of page.splice(0, left)) {
        if (shown.code !== undefined) unopened++
        terminal.write(options.json ? asJson(record, shown) : asText(terminal, record, shown))
        place.printed = record.offset + 1n
        left--
      }
      await terminal.drained()
      if (options.group !== undefined) await commit(world, options.group, places)
      if (isMore) continue
      if (stop === undefined) break
      await waitForMore(world, places, stop)
    }
  } finally {
    opener.close()
  }
  terminal.exit(unopened === 0 ? EXIT.ok : EXIT.found)
}

/** How far a partition has been read. */
interface Reached extends TopicPartition {
  offset: bigint
  /** Behind what was printed last; undefined where nothing was. */
  printed: bigint | undefined
}

async function placesOf({ records }: World, topic: string, { from, group }: TailOptions): Promise<Reached[]> {
  const count = await records.partitions(topic)
  return Promise.all(
    Array.from({ length: count }, async (_, partition) => {
      const place = { topic, partition }
      const kept = group === undefined ? undefined : await records.groupOffset(group, place)
      const { first, end } = await records.offsets(place)
      const begin = from === 'end' ? end : first
      return { ...place, offset: kept === undefined || kept < first ? begin : kept, printed: undefined }
    }),
  )
}

async function commit({ records }: World, group: string, places: readonly Reached[]): Promise<void> {
  for (const place of places) {
    if (place.printed === undefined) continue
    await records.commitGroup(group, place, place.printed)
    place.printed = undefined
  }
}

async function waitForMore(
  { records, clock }: World,
  places: readonly Reached[],
  stop: AbortSignal,
): Promise<void> {
  if (records.wait === undefined) await sleep(WAIT_MS, undefined, { signal: stop }).catch(() => undefined)
  else await records.wait(places, clock.now() + WAIT_MS)
}

/** A record as it is printed: as a CloudEvent in JSON, or why it cannot be. */
type Shown =
  | { readonly json: string; readonly type: string; readonly data: string; readonly code?: undefined }
  | { readonly code: string; readonly reason: string }

const NOTHING: Shown = { code: 'value-missing', reason: 'the record has no value' }

async function showAll(
  records: readonly SourceRecord[],
  { form }: Reading,
  opener: Opener,
): Promise<readonly Shown[]> {
  const [first] = records
  if (first === undefined) return []
  if (form === 'plain') return records.map(plainEvent)
  const { topic, partition } = first
  const opened = await opener.openBatch({ topic, partition, messages: records.map(kafkaMessage) })
  return opened.map((each) =>
    each.opened
      ? { json: eventJson(each.event, each.payload), type: each.event.type, data: dataOf(true, each.payload) }
      : { code: each.code, reason: each.reason },
  )
}

/** CloudEvents' Kafka binding, binary mode. Nothing of it is signed: who may write there is up to the broker. */
function plainEvent({ value, headers }: SourceRecord): Shown {
  if (value === null) return NOTHING
  const attributes = headers
    .filter(({ name }) => name.startsWith('ce_') || name === 'content-type')
    .map(({ name, value: text }) => [
      name === 'content-type' ? 'datacontenttype' : name.slice(3),
      Buffer.from(text ?? []).toString(),
    ])
  const members = attributes.map(([name, text]) => `${JSON.stringify(name)}:${JSON.stringify(text)}`)
  const type = attributes.find(([name]) => name === 'type')?.[1] ?? ''
  const isJson = isJsonText(value)
  const json = `{${[...members, dataMember(isJson, value)].join(',')}}`
  return { json, type, data: dataOf(isJson, value) }
}

function isJsonText(value: Uint8Array): boolean {
  try {
    JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(value))
    return true
  } catch {
    return false
  }
}

const dataOf = (isJson: boolean, payload: Uint8Array): string =>
  dataMember(isJson, payload).replace(/^"data(_base64)?":/, '')

function asJson(record: SourceRecord, shown: Shown): string {
  const { topic, partition, timestamp, key } = record
  const place = JSON.stringify({
    ...{ topic, partition, offset: Number(record.offset) },
    timestamp: isoTime(timestamp),
    key: key && Buffer.from(key).toString(),
  }).slice(0, -1)
  return shown.code === undefined
    ? `${place},"event":${shown.json}}`
    : `${place},"rejected":${JSON.stringify({ code: shown.code, reason: shown.reason })}}`
}

function asText(terminal: Terminal, record: SourceRecord, shown: Shown): string {
  const { out } = terminal.colours
  const { topic, partition, offset, timestamp, key } = record
  const place = paint(out, 'dim', `${isoTime(timestamp)}  ${topic}/${partition}/${offset}`)
  if (shown.code !== undefined) return `${place}  ${paint(out, 'red', shown.code)}  ${shown.reason}`
  const type = paint(out, 'cyan', oneLine(shown.type))
  const named = key === null ? '' : `  key=${oneLine(Buffer.from(key).toString())}`
  return `${place}  ${type}${named}  ${oneLine(shown.data)}`
}
