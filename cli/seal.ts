/** `sealgate seal` and `sealgate open`: one event, with the keys of a stack or of the settings. */
import { type Command, Option } from 'commander'
import { createSealer } from '../lib/client/sealer.ts'
import { ConfigError } from '../lib/errors.ts'
import { eventJson, kafkaMessage, openerOf, readerOf } from './consumers.ts'
import { BadLine, readEvent } from './event-lines.ts'
import { EXIT, paint, printable } from './io.ts'
import { wholeNumber } from './numbers.ts'
import { createPublishers } from './publishers.ts'
import {
  givenRecord,
  type GivenRecord,
  parsePlace,
  parseRecordJson,
  readInput,
  recordAt,
  recordJson,
} from './record.ts'
import { pointerOf, topicsOf } from './send.ts'
import type { PlaceFlags } from './place-settings.ts'
import type { Terminal } from './terminal.ts'
import { addPlaceOptions, closing, openWorld, type World } from './world.ts'

interface SealOptions extends PlaceFlags {
  readonly type?: string
  readonly source?: string
  readonly as?: string
  readonly key?: string
  readonly life: number
}

interface OpenOptions extends PlaceFlags {
  readonly as?: string
  readonly json?: true
}

/** Adds `seal` and `open` to the program. */
export function addSealCommands(program: Command, terminal: Terminal): void {
  addPlaceOptions(program.command('seal'))
    .description('seal one event, and print the Kafka record as JSON')
    .argument('[file]', 'a JSON object as sealgate send takes them; - for standard input', '-')
    .option('--type <type>', 'event type of a plain object')
    .option('--source <source>', "its source, where it has none (default: the publisher's first)")
    .option('--as <issuer>', 'seal as this publisher')
    .option('--key <pointer>', 'JSON Pointer into the payload: the record key')
    .option('--life <seconds>', 'how long it is good for', wholeNumber(1, 86_400), 3600)
    .addOption(new Option('--json', 'no difference: the record is JSON'))
    .addHelpText(
      'after',
      '\nExamples:\n  sealgate seal event.json > record.json\n  echo \'{"orderId":"A-1"}\' | sealgate seal --type com.example.order.placed.v1 | sealgate inspect',
    )
    .action((file: string, options: SealOptions) => seal(terminal, file, options))
  addPlaceOptions(program.command('open'))
    .description('verify and open one sealed record')
    .argument(
      '[record]',
      'a record as sealgate seal prints it: file, - for standard input, or topic/partition/offset',
      '-',
    )
    .option(
      '--as <name>',
      "the reader (default: the gateway for what producers send, else the channel's consumer)",
    )
    .option('--json', 'print {"opened":true,"event",…} or {"opened":false,"code","reason"}')
    .addHelpText(
      'after',
      '\nExamples:\n  sealgate open record.json\n  sealgate open notifications.orders/0/0 --as warehouse\n\nExit status 1: it was refused.',
    )
    .action((record: string, options: OpenOptions) => open(terminal, record, options))
}

async function seal(terminal: Terminal, file: string, options: SealOptions): Promise<void> {
  const defaults = { type: options.type, source: options.source, key: pointerOf(options.key) }
  const bytes = await readInput(terminal, file)
  const read = readOne(file, () => readEvent(bytes, defaults))
  await closing(await openWorld(terminal, options, false), async (world) => {
    const address = createPublishers(world.contracts, options.as)(read.type, read.source)
    const sealer = createSealer({
      ...world.producer(address.iss),
      partitions: (topic) => world.records.partitions(topic),
      topicOf: topicsOf(world),
      lifeSeconds: options.life,
    })
    try {
      const { topic, messages } = await sealer.seal(address.channel, { ...read, source: address.source })
      for (const message of messages) terminal.write(recordJson({ topic, ...message }))
    } finally {
      await sealer.close()
    }
    terminal.exit(EXIT.ok)
  })
}

function readOne<T>(where: string, read: () => T): T {
  try {
    return read()
  } catch (error) {
    if (!(error instanceof BadLine)) throw error
    const place = where === '-' ? 'standard input' : where
    throw new ConfigError([{ where: place, what: error.message, fix: error.fix }])
  }
}

async function open(terminal: Terminal, name: string, options: OpenOptions): Promise<void> {
  const place = parsePlace(name)
  const bytes = place === undefined ? await readInput(terminal, name) : undefined
  await closing(await openWorld(terminal, options, false), async (world) => {
    const given =
      place === undefined
        ? parseRecordJson(name, Buffer.from(bytes ?? []).toString())
        : givenRecord(await recordAt(world, place))
    const { record } = given
    if (record === undefined) throw new TypeError('a record without a place')
    const opener = openerOf(
      world,
      readerFor(world, record.topic, options.as),
      given.stored?.timestampType ?? 'CreateTime',
    )
    try {
      const opened = await opener.open({ ...record, message: messageOf(given, record) })
      if (opened.opened) {
        const { iss, aud, iat, exp, session, number } = opened.event
        const event = eventJson(opened.event, opened.payload)
        const vouched = JSON.stringify({ iss, aud, iat, exp, session, number: Number(number) }).slice(1)
        terminal.write(options.json ? `{"opened":true,"event":${event},${vouched}` : printable(event))
      } else if (options.json) terminal.write(JSON.stringify(opened))
      else terminal.warn(`${paint(terminal.colours.err, 'red', opened.code)} ${opened.reason}`)
      terminal.exit(opened.opened ? EXIT.ok : EXIT.found)
    } finally {
      opener.close()
    }
  })
}

function messageOf(
  { value, stored }: GivenRecord,
  { key, headers }: NonNullable<GivenRecord['record']>,
): ReturnType<typeof kafkaMessage> {
  return kafkaMessage({
    key,
    value,
    headers,
    offset: stored?.offset ?? 0n,
    timestamp: stored?.timestamp ?? 0,
  })
}

function readerFor(world: World, topic: string, as: string | undefined): string {
  const channel = world.channelOf(topic) ?? topic
  if (as === world.gateway) return as
  if (world.ingress.includes(channel)) return as ?? world.gateway
  return readerOf(world, channel, as).consumer
}
