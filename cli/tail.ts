/** `sealgate tail`: an output channel of the embedded stack, read as its consumer. */
import { type Command, Option } from 'commander'
import type { Opener } from '../lib/client/opener.ts'
import type { Stack } from '../lib/local/stack.ts'
import type { SourceRecord } from '../lib/ports.ts'
import { dataMember, eventJson, kafkaMessage, openerOf, type Reading, readerOf } from './consumers.ts'
import { folderOption, withRunningStack, withStack } from './folder.ts'
import { EXIT, paint, printable } from './io.ts'
import { wholeNumber } from './numbers.ts'
import type { Terminal } from './terminal.ts'

interface TailOptions {
  readonly folder: string
  readonly consumer?: string
  readonly from: 'beginning' | 'end'
  readonly max?: number
  readonly follow?: true
  readonly json?: true
}

const PAGE = { maxBytes: 262_144, maxRecords: 500 }
/** A wait ends at the latest then, to see whether it is to stop. */
const WAIT_MS = 500

const HELP = `
Sealed channels are opened as the consumer that the contracts' routes name; plain ones are printed as they are.

Examples:
  sealgate tail notifications.orders
  sealgate tail notifications.orders --follow --from end --json

Exit status 1: some records could not be opened; each is named with its code.`

/** Adds `tail` to the program. */
export function addTailCommand(program: Command, terminal: Terminal): void {
  program
    .command('tail')
    .description('open and print the events of an output channel')
    .argument('<channel>', 'an output channel of the contracts')
    .option('--consumer <name>', "as whom to open (default: the channel's only consumer)")
    .addOption(
      new Option('--from <place>', 'where to begin').choices(['beginning', 'end']).default('beginning'),
    )
    .option('--max <n>', 'end after so many events', wholeNumber(1, Number.MAX_SAFE_INTEGER))
    .option('--follow', 'wait for more, until Ctrl-C')
    .addOption(folderOption(terminal))
    .option('--json', 'print a JSON object a line: {"topic","partition","offset","timestamp","key","event"}')
    .addHelpText('after', HELP)
    .action((channel: string, options: TailOptions) =>
      (options.follow ? withRunningStack : withStack)(options.folder, (stack) =>
        tail(terminal, stack, channel, options),
      ),
    )
}

async function tail(terminal: Terminal, stack: Stack, channel: string, options: TailOptions): Promise<void> {
  const reading = readerOf(stack, channel, options.consumer)
  const stop = options.follow === true ? terminal.stopSignal() : undefined
  const opener = openerOf(stack, reading.consumer)
  let left = options.max ?? Infinity
  let unopened = 0
  try {
    const ends = await stack.log.endOffsets(channel)
    const places = ends.map((end, partition) => ({
      topic: channel,
      partition,
      offset: options.from === 'end' ? end : 0n,
    }))
    while (left > 0 && stop?.aborted !== true) {
      const page: { record: SourceRecord; shown: Shown }[] = []
      for (const place of places) {
        const { records, next } = await stack.log.read(channel, place.partition, place.offset, PAGE)
        place.offset = next
        const shown = await showAll(records, reading, opener)
        records.forEach((record, index) => page.push({ record, shown: shown[index] ?? NOTHING }))
      }
      // Between partitions there is no order: by time it reads best.
      page.sort((a, b) => a.record.timestamp - b.record.timestamp)
      for (const { record, shown } of page.slice(0, left)) {
        if (shown.code !== undefined) unopened++
        terminal.write(options.json ? asJson(record, shown) : asText(terminal, record, shown))
      }
      left -= page.length
      await terminal.drained()
      if (page.length > 0) continue
      if (stop === undefined) break
      await stack.log.waitForData(places, terminal.now() + WAIT_MS)
    }
  } finally {
    opener.close()
  }
  terminal.exit(unopened === 0 ? EXIT.ok : EXIT.found)
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
    timestamp: new Date(timestamp).toISOString(),
    key: key && Buffer.from(key).toString(),
  }).slice(0, -1)
  return shown.code === undefined
    ? `${place},"event":${shown.json}}`
    : `${place},"rejected":${JSON.stringify({ code: shown.code, reason: shown.reason })}}`
}

function asText(terminal: Terminal, record: SourceRecord, shown: Shown): string {
  const { out } = terminal.colours
  const { topic, partition, offset, timestamp, key } = record
  const place = paint(out, 'dim', `${new Date(timestamp).toISOString()}  ${topic}/${partition}/${offset}`)
  if (shown.code !== undefined) return `${place}  ${paint(out, 'red', shown.code)}  ${shown.reason}`
  const type = paint(out, 'cyan', oneLine(shown.type))
  const named = key === null ? '' : `  key=${oneLine(Buffer.from(key).toString())}`
  return `${place}  ${type}${named}  ${oneLine(shown.data)}`
}

const oneLine = (text: string): string => printable(text.replaceAll('\n', ' '))
