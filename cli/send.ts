/** `sealgate send`: events of a file or of standard input, sealed and delivered to the channels' topics. */
import { createReadStream } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Command } from 'commander'
import { type EventInput, RefusedEvents } from '../lib/client/event.ts'
import { createSealer, type Sealer } from '../lib/client/sealer.ts'
import { tokensOf } from '../lib/contract/shape.ts'
import { partitionOf } from '../lib/envelope/partition.ts'
import { codeOf, ConfigError, type Fault, Outage } from '../lib/errors.ts'
import { Delivery } from './delivery.ts'
import { BadLine, type Line, type LineDefaults, MAX_LINE_BYTES, readEvent, readLines } from './event-lines.ts'
import { EXIT, fail, printable, printFaults } from './io.ts'
import { OpenLines } from './open-lines.ts'
import { Pace, type Paced, untilNextSecond } from './pace.ts'
import { type Address, createPublishers } from './publishers.ts'
import type { PlaceFlags } from './place-settings.ts'
import type { Terminal } from './terminal.ts'
import { addPlaceOptions, closing, openWorld, placeFlags, type World } from './world.ts'

interface SendOptions extends PlaceFlags {
  readonly type?: string
  readonly source?: string
  readonly as?: string
  readonly key?: string
  readonly check?: true
  readonly json?: true
}

/** Long enough for the way to the broker, which judges; short, since a gate takes 64 live sessions of an issuer. */
const LIFE_SECONDS = 60
const CHUNK_BYTES = 262_144
const MAX_LISTED = 1000
const PROGRESS_MS = 200
/** Event types that are warned of, and characters of one that are shown. */
const MAX_TOLD_TYPES = 20
const MAX_TOLD_TYPE = 80

const HELP = `
A line is a CloudEvent (it has specversion), an envelope (eventType, payload,
timestamp), or a plain object, which needs --type. Each is sealed as the first
publisher whose sources fit. A type that no contract is for goes to the first
contract's channel, where the gate rejects it. Where a contract has
limits.perSecond, events wait for it.

Examples:
  sealgate send events.ndjson
  sealgate send orders.ndjson --type com.example.order.placed.v1 --key /orderId
  jq -c .orders[] dump.json | sealgate send - --type com.example.order.placed.v1

A cluster that does not answer is tried again for 30 s.

Exit status 1: some lines were no events; each is named, the rest was sent. 3:
something did not answer; it says how many were sent and of which lines that is
not known.`

/** Adds `send` to the program. */
export function addSendCommand(program: Command, terminal: Terminal): void {
  addPlaceOptions(program.command('send'))
    .description('seal events (NDJSON) and send them in')
    .argument('<file>', 'a JSON object a line; - for standard input')
    .option('--type <type>', 'event type of plain objects')
    .option('--source <source>', "source of events without one (default: the publisher's first)")
    .option('--as <issuer>', 'seal as this publisher, whatever the sources')
    .option(
      '--key <pointer>',
      'JSON Pointer into the payload: the record key (default: partitionkey, or none)',
    )
    .option('--check', 'refuse here what the gate would reject by the contracts')
    .option('--json', 'print {"sent","skipped","unknownType","faults"}')
    .addHelpText('after', HELP)
    .action(async (file: string, options: SendOptions) => {
      const defaults = { type: options.type, source: options.source, key: pointerOf(options.key) }
      const input = file === '-' ? terminal.input() : await openFile(file)
      await closing(await openWorld(terminal, options, true), async (world) => {
        const name = file === '-' ? 'standard input' : file
        const sending = new Sending(world, terminal, name, options, defaults)
        let outage: Outage | undefined
        try {
          for await (const lines of readLines(input)) await sending.add(lines)
        } catch (error) {
          if (!(error instanceof Outage) || !sending.hasBegun) throw error
          outage = error
        } finally {
          await sending.end()
        }
        sending.report(outage)
      })
    })
}

/** The names of a JSON Pointer given as `--key`. */
export function pointerOf(text: string | undefined): readonly string[] | undefined {
  if (text === undefined) return undefined
  const tokens = tokensOf(text)
  if (tokens !== undefined) return tokens
  throw new ConfigError([
    { where: '--key', what: `${text} is no JSON Pointer.`, fix: 'Give one such as /customer/id.' },
  ])
}

/** Opened before anything is done, so that a wrong name costs nothing. */
async function openFile(file: string): Promise<AsyncIterable<Uint8Array>> {
  const stream = createReadStream(file, { highWaterMark: CHUNK_BYTES })
  await new Promise<void>((resolve, reject) => {
    stream.once('error', reject)
    stream.once('readable', resolve)
    stream.once('end', resolve)
  }).catch((error: unknown) => {
    throw new ConfigError([
      {
        where: file,
        what: `It cannot be read (${codeOf(error)}).`,
        fix: 'Name a file of events, or - for standard input.',
      },
    ])
  })
  return stream
}

/** For `createSealer`: the topic of a channel, which it must have. */
export function topicsOf({ topicOf }: World): (channel: string) => string {
  return (channel) => {
    const topic = topicOf(channel)
    if (topic !== undefined) return topic
    throw new ConfigError([
      { where: channel, what: 'No topic is named for this channel.', fix: 'Add it to SEALGATE_CHANNELS.' },
    ])
  }
}

interface Addressed extends Paced {
  readonly line: number
  readonly event: EventInput
  /** Whether any contract is for its type. */
  readonly isKnown: boolean
}

/** One run of the command: what was sealed, sent and refused. */
class Sending {
  readonly #world: World
  readonly #terminal: Terminal
  readonly #name: string
  readonly #options: SendOptions
  readonly #defaults: LineDefaults
  readonly #address: (type: string, source: string | undefined) => Address
  readonly #sealers = new Map<string, Sealer>()
  readonly #partitionCounts = new Map<string, Promise<number>>()
  readonly #pace = new Pace()
  readonly #unknownTypes = new Set<string>()
  readonly #waitingTypes = new Set<string>()
  readonly #faults: Fault[] = []
  readonly #lines = new OpenLines()
  readonly #delivery: Delivery
  #hasBegun = false
  #sent = 0
  #skipped = 0
  #unknown = 0
  #keyless = 0
  #shownAt = 0

  constructor(world: World, terminal: Terminal, name: string, options: SendOptions, defaults: LineDefaults) {
    this.#world = world
    this.#terminal = terminal
    this.#name = name
    this.#options = options
    this.#defaults = defaults
    this.#delivery = new Delivery(world, terminal)
    this.#address = createPublishers(world.contracts, options.as)
  }

  /** Resolves once the topics have taken what could be sealed of these lines, which the contracts' limits may delay. */
  async add(lines: readonly Line[]): Promise<void> {
    for (const { number } of lines) this.#lines.add(number)
    let waiting: Addressed[] = []
    for (const line of lines) {
      const found = await this.#read(line)
      if (found !== undefined) waiting.push(found)
    }
    while (waiting.length > 0) {
      const { going, staying } = this.#choose(waiting)
      // A partition's events are taken together or not at all: so it is known which were.
      const groups = Map.groupBy(going, ({ iss, channel, partition }) =>
        JSON.stringify([iss, channel, partition]),
      )
      const ends = await Promise.allSettled(Array.from(groups.values(), (group) => this.#send(group)))
      for (const end of ends) if (end.status === 'rejected') throw end.reason
      this.#pace.appended(this.#world.clock.now())
      this.#showProgress()
      waiting = staying
      if (going.length === 0) await sleep(untilNextSecond(this.#world.clock.now()))
    }
  }

  /** Those that may go in this second, in order within a partition: behind one that has to wait, the others of it wait too. */
  #choose(waiting: readonly Addressed[]): { going: Addressed[]; staying: Addressed[] } {
    this.#pace.begin(this.#world.clock.now())
    const going: Addressed[] = []
    const staying: Addressed[] = []
    const blocked = new Set<string>()
    for (const event of waiting) {
      const lane = `${event.partition}/${event.channel}`
      const isBehind = blocked.has(lane)
      if (!isBehind && this.#pace.allows(event)) {
        going.push(event)
        continue
      }
      if (!isBehind) this.#tellOfWaiting(event)
      blocked.add(lane)
      staying.push(event)
    }
    return { going, staying }
  }

  #showProgress(): void {
    const now = this.#terminal.now()
    if (now - this.#shownAt < PROGRESS_MS) return
    this.#shownAt = now
    this.#terminal.progress?.(`${this.#sent.toLocaleString('en-GB')} events sent`)
  }

  /** Wipes the keys, whatever happened. */
  async end(): Promise<void> {
    await Promise.all(Array.from(this.#sealers.values(), (sealer) => sealer.close()))
  }

  /** Whether anything may have been sent. */
  get hasBegun(): boolean {
    return this.#hasBegun
  }

  /** With what has cut it short, if anything has. */
  report(outage?: Outage): void {
    const { json } = this.#options
    if (json)
      this.#terminal.write(
        JSON.stringify({
          sent: this.#sent,
          skipped: this.#skipped,
          unknownType: this.#unknown,
          faults: this.#faults,
          ...(outage && {
            outage: { code: outage.code, reason: outage.message },
            unsent: { lines: this.#lines.ranges(), after: this.#lines.last },
          }),
        }),
      )
    else {
      if (outage !== undefined) fail(this.#terminal, outage)
      const skipped = this.#skipped === 0 ? '' : `, ${count(this.#skipped, 'line')} skipped`
      const flag = placeFlags(this.#options)
      this.#terminal.write(`${count(this.#sent, 'event')} sent${skipped}.`)
      if (this.#unknown > 0)
        this.#terminal.write(
          `${count(this.#unknown, 'event')} of unknown type: see sealgate quarantine list${flag}`,
        )
    }
    if (outage !== undefined && !json)
      this.#terminal.warn(
        `Not known to be sent: ${this.#lines.text()}. No line after ${this.#lines.last} was read.`,
      )
    this.#terminal.exit(outage !== undefined ? EXIT.outage : this.#skipped === 0 ? EXIT.ok : EXIT.found)
  }

  async #read({ number, bytes }: Line): Promise<Addressed | undefined> {
    try {
      if (bytes === undefined)
        throw new BadLine(`It is longer than ${MAX_LINE_BYTES} bytes.`, 'An event takes at most 1 MiB.')
      const read = readEvent(bytes, this.#defaults)
      const { channel, iss, source, isKnown } = this.#address(read.type, read.source)
      if (this.#world.topicOf(channel) === undefined)
        throw new BadLine(`No topic is named for its channel ${channel}.`, 'Add it to SEALGATE_CHANNELS.')
      this.#sealer(iss)
      const { key, type } = read
      const partitions = await this.#partitions(channel)
      const partition =
        typeof key === 'string' ? partitionOf(Buffer.from(key), partitions) : this.#keyless++ % partitions
      return {
        ...{ line: number, iss, type, channel, partition, isKnown },
        perSecond: this.#world.contracts.find(channel, type)?.perSecond,
        event: { ...read, source, partition },
      }
    } catch (error) {
      const place = { where: this.#name, line: number }
      if (error instanceof BadLine) this.#skip([{ ...place, what: error.message, fix: error.fix }])
      // An issuer whose key is not here: the events of others go.
      else if (error instanceof ConfigError) this.#skip(error.faults.map((fault) => ({ ...fault, ...place })))
      else throw error
      return undefined
    }
  }

  #partitions(channel: string): Promise<number> {
    const known = this.#partitionCounts.get(channel)
    if (known !== undefined) return known
    const asked = this.#world.records.partitions(topicsOf(this.#world)(channel))
    this.#partitionCounts.set(channel, asked)
    return asked
  }

  /** Events of one publisher, channel and partition. */
  async #send(events: readonly Addressed[]): Promise<void> {
    const [first] = events
    if (first === undefined) return
    this.#hasBegun = true
    try {
      await this.#sealer(first.iss).send(
        first.channel,
        events.map(({ event }) => event),
      )
      this.#sent += events.length
      for (const { line } of events) this.#lines.close(line)
      for (const event of events) if (!event.isKnown) this.#warnOfType(event)
    } catch (error) {
      if (!(error instanceof RefusedEvents)) throw error
      // All of a call or nothing of it: the rest goes in a call of its own.
      const refused = Map.groupBy(error.refusals, ({ index }) => index)
      for (const [index, refusals] of refused)
        this.#skip(
          refusals.map(({ where, what, fix }) => ({
            where: this.#name,
            line: events[index]?.line ?? 0,
            what: `${where.replace(/^events\[\d+\]\.?/, '')} ${what}`.trimStart(),
            fix,
          })),
        )
      await this.#send(events.filter((_, index) => !refused.has(index)))
    }
  }

  #sealer(iss: string): Sealer {
    const known = this.#sealers.get(iss)
    if (known !== undefined) return known
    const world = this.#world
    const sealer = createSealer({
      ...world.producer(iss),
      partitions: (topic) => world.records.partitions(topic),
      topicOf: topicsOf(world),
      deliver: (batch) => this.#delivery.deliver(batch),
      lifeSeconds: LIFE_SECONDS,
      ...(this.#options.check && { contracts: world.contracts }),
    })
    this.#sealers.set(iss, sealer)
    return sealer
  }

  #warnOfType({ type, channel }: Addressed): void {
    this.#unknown++
    if (this.#unknownTypes.size >= MAX_TOLD_TYPES || this.#unknownTypes.has(type)) return
    this.#unknownTypes.add(type)
    const what = `No contract is for ${shortened(type)}.`
    const fix = `It went to ${channel}, where the gate rejects it as type-unknown.`
    printFaults(this.#terminal, [{ where: 'type', what, fix }], 'warning')
  }

  #tellOfWaiting({ type, perSecond }: Addressed): void {
    if (this.#waitingTypes.size >= MAX_TOLD_TYPES || this.#waitingTypes.has(type)) return
    this.#waitingTypes.add(type)
    this.#terminal.warn(
      `Waits for limits.perSecond of the contract for ${shortened(type)}: ${count(perSecond ?? 0, 'event')} a second in each partition.`,
    )
  }

  /** Counts one line, whatever the number of its faults. */
  #skip(faults: readonly Fault[]): void {
    this.#skipped++
    const [{ line = 0 } = {}] = faults
    this.#lines.close(line)
    printFaults(this.#terminal, faults)
    if (this.#faults.length < MAX_LISTED) this.#faults.push(...faults)
  }
}

const shortened = (type: string): string =>
  printable(JSON.stringify(type.length > MAX_TOLD_TYPE ? `${type.slice(0, MAX_TOLD_TYPE)}…` : type))

const count = (number: number, thing: string): string =>
  `${number.toLocaleString('en-GB')} ${thing}${number === 1 ? '' : 's'}`
