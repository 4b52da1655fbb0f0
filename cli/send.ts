/** `sealgate send`: events of a file or of standard input, sealed and delivered into the embedded stack. */
import { createReadStream } from 'node:fs'
import type { Command } from 'commander'
import { type EventInput, RefusedEvents } from '../lib/client/event.ts'
import { createSealer, type Sealer } from '../lib/client/sealer.ts'
import type { SealedBatch } from '../lib/client/sealer-options.ts'
import { tokensOf } from '../lib/contract/shape.ts'
import { ConfigError, type Fault } from '../lib/errors.ts'
import type { Stack } from '../lib/local/stack.ts'
import { BadLine, type Line, type LineDefaults, MAX_LINE_BYTES, readEvent, readLines } from './event-lines.ts'
import { folderFlag, folderOption, withRunningStack } from './folder.ts'
import { EXIT, printFaults } from './io.ts'
import { type Address, createPublishers } from './publishers.ts'
import type { Terminal } from './terminal.ts'

interface SendOptions {
  readonly type?: string
  readonly source?: string
  readonly as?: string
  readonly key?: string
  readonly check?: true
  readonly json?: true
  readonly folder: string
}

/** Long enough for the way to the broker, which judges; short, since a gate takes 64 live sessions of an issuer. */
const LIFE_SECONDS = 60
const CHUNK_BYTES = 262_144
const MAX_LISTED = 1000
const PROGRESS_MS = 200

const HELP = `
A line is a CloudEvent (it has specversion), an envelope (eventType, payload, timestamp), or a plain object, which needs
--type. Each is sealed as the first publisher whose sources fit. A type that no contract is for goes to the first
contract's channel, where the gate rejects it.

Examples:
  sealgate send events.ndjson
  sealgate send orders.ndjson --type com.example.order.placed.v1 --key /orderId
  jq -c .orders[] dump.json | sealgate send - --type com.example.order.placed.v1

Exit status 1: some lines were no events; each is named, the rest was sent.`

/** Adds `send` to the program. */
export function addSendCommand(program: Command, terminal: Terminal): void {
  program
    .command('send')
    .description('seal events (NDJSON) and send them into the embedded stack')
    .argument('<file>', 'a JSON object a line; - for standard input')
    .option('--type <type>', 'event type of plain objects')
    .option('--source <source>', "source of events without one (default: the publisher's first)")
    .option('--as <issuer>', 'seal as this publisher, whatever the sources')
    .option(
      '--key <pointer>',
      'JSON Pointer into the payload: the record key (default: partitionkey, or none)',
    )
    .option('--check', 'refuse here what the gate would reject by the contracts')
    .addOption(folderOption(terminal))
    .option('--json', 'print {"sent","skipped","unknownType","faults"}')
    .addHelpText('after', HELP)
    .action(async (file: string, options: SendOptions) => {
      const defaults = { type: options.type, source: options.source, key: pointerOf(options.key) }
      const input = file === '-' ? terminal.input() : await openFile(file)
      await withRunningStack(options.folder, async (stack) => {
        const sending = new Sending(
          stack,
          terminal,
          file === '-' ? 'standard input' : file,
          options,
          defaults,
        )
        try {
          for await (const lines of readLines(input)) await sending.add(lines)
        } finally {
          await sending.end()
        }
        sending.report()
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
    const code = error instanceof Error && 'code' in error ? String(error.code) : 'unknown'
    throw new ConfigError([
      {
        where: file,
        what: `It cannot be read (${code}).`,
        fix: 'Name a file of events, or - for standard input.',
      },
    ])
  })
  return stream
}

/** Hands sealed messages to the embedded log. */
export function deliverTo(stack: Stack): (batch: SealedBatch) => Promise<unknown> {
  return ({ topic, messages }) =>
    stack.log.append(
      messages.map(({ partition, key, value, headers }) => ({
        topic,
        partition,
        key,
        value,
        headers: Object.entries(headers).map(([name, text]) => ({ name, value: Buffer.from(text) })),
      })),
    )
}

interface Addressed {
  readonly line: number
  readonly event: EventInput
}

/** One run of the command: what was sealed, sent and refused. */
class Sending {
  readonly #stack: Stack
  readonly #terminal: Terminal
  readonly #name: string
  readonly #options: SendOptions
  readonly #defaults: LineDefaults
  readonly #address: (type: string, source: string | undefined) => Address
  readonly #sealers = new Map<string, Sealer>()
  readonly #unknownTypes = new Set<string>()
  readonly #faults: Fault[] = []
  #sent = 0
  #skipped = 0
  #unknown = 0
  #shownAt = 0

  constructor(stack: Stack, terminal: Terminal, name: string, options: SendOptions, defaults: LineDefaults) {
    this.#stack = stack
    this.#terminal = terminal
    this.#name = name
    this.#options = options
    this.#defaults = defaults
    this.#address = createPublishers(stack.contracts, options.as)
  }

  /** Resolves once the embedded log has taken what could be sealed of these lines. */
  async add(lines: readonly Line[]): Promise<void> {
    const groups = new Map<string, { iss: string; channel: string; events: Addressed[] }>()
    for (const line of lines) {
      const found = this.#read(line)
      if (found === undefined) continue
      const { iss, channel } = found.address
      const name = JSON.stringify([iss, channel])
      const group = groups.get(name) ?? { iss, channel, events: [] }
      group.events.push({ line: line.number, event: found.event })
      groups.set(name, group)
    }
    await Promise.all(
      Array.from(groups.values(), ({ iss, channel, events }) => this.#send(iss, channel, events)),
    )
    const now = this.#terminal.now()
    if (now - this.#shownAt < PROGRESS_MS) return
    this.#shownAt = now
    this.#terminal.progress?.(`${this.#sent.toLocaleString('en-GB')} events sent`)
  }

  /** Wipes the keys, whatever happened. */
  async end(): Promise<void> {
    await Promise.all(Array.from(this.#sealers.values(), (sealer) => sealer.close()))
  }

  report(): void {
    const { json, folder } = this.#options
    if (json)
      this.#terminal.write(
        JSON.stringify({
          sent: this.#sent,
          skipped: this.#skipped,
          unknownType: this.#unknown,
          faults: this.#faults,
        }),
      )
    else {
      const skipped = this.#skipped === 0 ? '' : `, ${count(this.#skipped, 'line')} skipped`
      const flag = folderFlag(this.#terminal, folder)
      this.#terminal.write(`${count(this.#sent, 'event')} sent${skipped}.`)
      if (this.#unknown > 0)
        this.#terminal.write(
          `${count(this.#unknown, 'event')} of unknown type: see sealgate quarantine list${flag}`,
        )
    }
    this.#terminal.exit(this.#skipped === 0 ? EXIT.ok : EXIT.found)
  }

  #read({ number, bytes }: Line): { address: Address; event: EventInput } | undefined {
    try {
      if (bytes === undefined)
        throw new BadLine(`It is longer than ${MAX_LINE_BYTES} bytes.`, 'An event takes at most 1 MiB.')
      const read = readEvent(bytes, this.#defaults)
      const address = this.#address(read.type, read.source)
      if (!address.isKnown) this.#warnOfType(read.type, address.channel)
      return { address, event: { ...read, source: address.source } }
    } catch (error) {
      if (!(error instanceof BadLine)) throw error
      this.#skip([{ where: this.#name, line: number, what: error.message, fix: error.fix }])
      return undefined
    }
  }

  async #send(iss: string, channel: string, events: readonly Addressed[]): Promise<void> {
    if (events.length === 0) return
    try {
      await this.#sealer(iss).send(
        channel,
        events.map(({ event }) => event),
      )
      this.#sent += events.length
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
      await this.#send(
        iss,
        channel,
        events.filter((_, index) => !refused.has(index)),
      )
    }
  }

  #sealer(iss: string): Sealer {
    const known = this.#sealers.get(iss)
    if (known !== undefined) return known
    const stack = this.#stack
    const sealer = createSealer({
      ...stack.producer(iss),
      partitions: async (topic) => (await stack.log.endOffsets(topic)).length,
      deliver: deliverTo(stack),
      lifeSeconds: LIFE_SECONDS,
      ...(this.#options.check && { contracts: stack.contracts }),
    })
    this.#sealers.set(iss, sealer)
    return sealer
  }

  #warnOfType(type: string, channel: string): void {
    this.#unknown++
    if (this.#unknownTypes.size >= 20 || this.#unknownTypes.has(type)) return
    this.#unknownTypes.add(type)
    const what = `No contract is for ${JSON.stringify(type.slice(0, 200))}.`
    const fix = `It goes to ${channel}, where the gate rejects it as type-unknown.`
    printFaults(this.#terminal, [{ where: 'type', what, fix }], 'warning')
  }

  /** Counts one line, whatever the number of its faults. */
  #skip(faults: readonly Fault[]): void {
    this.#skipped++
    printFaults(this.#terminal, faults)
    if (this.#faults.length < MAX_LISTED) this.#faults.push(...faults)
  }
}

const count = (number: number, thing: string): string =>
  `${number.toLocaleString('en-GB')} ${thing}${number === 1 ? '' : 's'}`
