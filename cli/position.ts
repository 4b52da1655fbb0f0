/** `sealgate position init|show`: how far the gate has come in a source topic, and its first start (exactly-once.md §1). */
import { type Command, InvalidArgumentError } from 'commander'
import { firstPosition } from '../lib/admission/position.ts'
import { ConfigError } from '../lib/errors.ts'
import { createLocalPositions } from '../lib/local/log-sink.ts'
import type { PositionAdmin, TopicPartition } from '../lib/ports.ts'
import { readKafkaEnvironment } from '../lib/settings.ts'
import { folderOption, withStack } from './folder.ts'
import { EXIT, table } from './io.ts'
import { wholeNumber } from './numbers.ts'
import type { Terminal } from './terminal.ts'

type Start = 'earliest' | 'latest' | bigint

interface PositionOptions {
  readonly folder: string
  readonly partition?: number
  readonly json?: true
}

/** What is asked: the embedded log, or a cluster. */
interface Place {
  readonly admin: PositionAdmin
  partitions(topic: string): Promise<number>
  offsets(source: TopicPartition): Promise<{ readonly first: bigint; readonly end: bigint }>
}

/** A partition's position after the command. */
interface Row {
  readonly partition: number
  /** The first offset not yet decided; null where there is no position. */
  readonly next: string | null
}

/** Adds `position init` and `position show` to the program. */
export function addPositionCommands(program: Command, terminal: Terminal): void {
  const position = program
    .command('position')
    .description(
      'how far the gate has come: on a cluster where SEALGATE_KAFKA_BROKERS is set, else on a stack',
    )
  const add = (name: string, description: string): Command =>
    position
      .command(name)
      .description(description)
      .argument('<topic>', 'the source topic')
      .option('--partition <n>', 'only this partition', wholeNumber(0, 1_000_000))
      .addOption(folderOption(terminal))
      .option('--json', 'print {"topic","partitions":[{"partition","next"}]}')
      .addHelpText('after', `\nExample:\n  sealgate position ${name} orders`)
  add('init', 'make the first position of a topic; refused where there is one')
    .option('--at <offset>', 'earliest, latest or an offset', startOf, 'earliest')
    .action((topic: string, options: PositionOptions & { at: Start }) =>
      withPlace(terminal, options, async (place) => {
        const rows: Row[] = []
        for (const source of await sourcesOf(place, topic, options)) {
          const { first, end } = await place.offsets(source)
          const next = options.at === 'earliest' ? first : options.at === 'latest' ? end : options.at
          if (next < first || next > end) throw outOfRange(source, next, first, end)
          await place.admin.init(source, firstPosition(next), terminal.now() + CALL_MS)
          rows.push({ partition: source.partition, next: String(next) })
        }
        print(terminal, topic, rows, options)
      }),
    )
  add('show', 'the first offset of each partition that is not yet decided').action(
    (topic: string, options: PositionOptions) =>
      withPlace(terminal, options, async (place) => {
        const rows: Row[] = []
        for (const source of await sourcesOf(place, topic, options)) {
          const found = await place.admin.show(source, terminal.now() + CALL_MS)
          rows.push({ partition: source.partition, next: found === undefined ? null : String(found.next) })
        }
        print(terminal, topic, rows, options)
      }),
  )
}

const CALL_MS = 15_000

function startOf(text: string): Start {
  if (text === 'earliest' || text === 'latest') return text
  if (/^[0-9]{1,18}$/.test(text)) return BigInt(text)
  throw new InvalidArgumentError('Give earliest, latest or an offset.')
}

async function sourcesOf(
  place: Place,
  topic: string,
  { partition }: PositionOptions,
): Promise<readonly TopicPartition[]> {
  const count = await place.partitions(topic)
  if (partition === undefined)
    return Array.from({ length: count }, (_, index) => ({ topic, partition: index }))
  if (partition < count) return [{ topic, partition }]
  const what = `${topic} has ${count} partitions.`
  throw new ConfigError([{ where: '--partition', what, fix: `Give a number below ${count}.` }])
}

function print(terminal: Terminal, topic: string, rows: readonly Row[], { json }: PositionOptions): void {
  if (json) terminal.write(JSON.stringify({ topic, partitions: rows }))
  else
    for (const line of table([
      ['PARTITION', 'NEXT'],
      ...rows.map((row) => [`${row.partition}`, row.next ?? 'none']),
    ]))
      terminal.write(line)
  terminal.exit(rows.some(({ next }) => next === null) ? EXIT.found : EXIT.ok)
}

async function withPlace(
  terminal: Terminal,
  options: PositionOptions,
  use: (place: Place) => Promise<void>,
): Promise<void> {
  const { env } = terminal
  if ((env['SEALGATE_KAFKA_BROKERS'] ?? '') === '') {
    await withStack(options.folder, async (stack) => {
      const { log } = stack
      const { deployment } = stack.gateParts().settings
      await use({
        admin: createLocalPositions(log, { deployment }),
        partitions: async (topic) => (await endsOf(topic, () => log.endOffsets(topic))).length,
        offsets: async ({ topic, partition }) => ({
          first: 0n,
          end: (await log.endOffsets(topic))[partition] ?? 0n,
        }),
      })
    })
    return
  }
  if ((env['SEALGATE_LOCAL'] ?? '') !== '')
    throw new ConfigError([
      {
        where: 'SEALGATE_LOCAL',
        what: 'It is set beside SEALGATE_KAFKA_BROKERS.',
        fix: 'Leave out one of them: the stack, or the cluster.',
      },
    ])
  const settings = readKafkaEnvironment(env)
  const { createKafkaSink } = await import('../lib/adapters/kafka.ts')
  const { createKafkaSource } = await import('../lib/adapters/kafka-source.ts')
  const sink = createKafkaSink(settings, terminal)
  const source = createKafkaSource(settings)
  try {
    await use({
      admin: sink,
      partitions: (topic) => sink.partitionsOf(topic, terminal.now() + CALL_MS),
      offsets: (place) => source.offsets(place),
    })
  } finally {
    await Promise.all([sink.close(), source.close()])
  }
}

async function endsOf(topic: string, ask: () => Promise<readonly bigint[]>): Promise<readonly bigint[]> {
  try {
    return await ask()
  } catch (cause) {
    if (!(cause instanceof Error)) throw cause
    throw new ConfigError([
      { where: topic, what: 'The stack has no such topic.', fix: 'See sealgate local status.' },
    ])
  }
}

function outOfRange(
  { topic, partition }: TopicPartition,
  next: bigint,
  first: bigint,
  end: bigint,
): ConfigError {
  const what = `Offset ${next} of ${topic}-${partition} is not between ${first} and ${end}.`
  return new ConfigError([{ where: '--at', what, fix: 'Give one that is, earliest or latest.' }])
}
