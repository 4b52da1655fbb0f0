/** `sealgate position init|show|renew|restore`: how far the gate has come in a source topic (exactly-once.md §1, §2). */
import { type Command, InvalidArgumentError } from 'commander'
import { beginEpoch } from '../lib/admission/begin-epoch.ts'
import { restoreControlPosition } from '../lib/admission/control-position.ts'
import { firstPosition } from '../lib/admission/position.ts'
import { restorePosition } from '../lib/admission/restore.ts'
import { controlPlaceOf, firstControlPosition } from '../lib/audit/control-chain.ts'
import { ConfigError, type Fault } from '../lib/errors.ts'
import type { RecordReader, TopicPartition } from '../lib/ports.ts'
import { openGateWorld } from './gate-world.ts'
import { EXIT, printFaults, table } from './io.ts'
import { wholeNumber } from './numbers.ts'
import type { PlaceFlags } from './place-settings.ts'
import type { Terminal } from './terminal.ts'
import { addPlaceOptions, closing, openTopics, type Topics } from './world.ts'

type Start = 'earliest' | 'latest' | bigint

interface PositionOptions extends PlaceFlags {
  readonly partition?: number
  readonly json?: true
}

/** A partition's position after the command. */
interface Row {
  readonly partition: number
  /** The first offset not yet decided; null where there is no position. */
  readonly next: string | null
  /** What the command did; absent where it only looks. */
  readonly done?: string
}

/** Adds `position init`, `show`, `renew` and `restore` to the program. */
export function addPositionCommands(program: Command, terminal: Terminal): void {
  const position = program.command('position').description('how far the gate has come in a source topic')
  const add = (name: string, description: string, more = ''): Command =>
    addPlaceOptions(position.command(name))
      .description(description)
      .argument('<topic>', 'the source topic; or the audit topic: the position of the control chain')
      .option('--partition <n>', 'only this partition', wholeNumber(0, 1_000_000))
      .option('--json', 'print {"topic","partitions":[{"partition","next"}]}')
      .addHelpText('after', `\nExample:\n  sealgate position ${name} orders${more}`)
  add('init', 'make the first position of a topic; refused where there is one')
    .option('--at <offset>', 'earliest, latest or an offset', startOf, 'earliest')
    .action((topic: string, options: PositionOptions & { at: Start }) =>
      onEach(terminal, topic, options, async ({ positions, records, auditTopic, epoch }, source) => {
        if (topic === auditTopic) {
          if (epoch > 1) return goOn(terminal, options, source)
          await positions.init(source, firstControlPosition(), terminal.now() + CALL_MS)
          return { partition: source.partition, next: '0' }
        }
        const { first, end } = await records.offsets(source)
        const next = options.at === 'earliest' ? first : options.at === 'latest' ? end : options.at
        if (next < first || next > end) throw outOfRange(source, next, first, end)
        if (epoch === 1) await positions.init(source, firstPosition(next), terminal.now() + CALL_MS)
        else await begin(terminal, options, source, next)
        return { partition: source.partition, next: String(next) }
      }),
    )
  add(
    'show',
    'the first offset of each partition that is not yet decided',
    '\n\nExit status 1: a partition has no position.',
  ).action((topic: string, options: PositionOptions) =>
    onEach(terminal, topic, options, async ({ positions }, source) => {
      const found = await positions.show(source, terminal.now() + CALL_MS)
      return { partition: source.partition, next: found === undefined ? null : String(found.next) }
    }),
  )
  add(
    'renew',
    'write positions again that are older than a day: to be run daily, or those of idle partitions expire',
  ).action((topic: string, options: PositionOptions) =>
    onEach(terminal, topic, options, async ({ positions }, source) => {
      const found = await positions.show(source, terminal.now() + CALL_MS)
      if (found === undefined) return { partition: source.partition, next: null, done: 'missing' }
      const isWritten = await positions.renew(source, terminal.now() + CALL_MS)
      return { partition: source.partition, next: String(found.next), done: isWritten ? 'renewed' : 'young' }
    }),
  )
  add('restore', 'make a lost or damaged position again, from the audit; refused where that would be unsafe')
    .option('--by <name>', 'who does it, for the audit')
    .action((topic: string, options: PositionOptions & { by?: string }) => restore(terminal, topic, options))
}

async function onEach(
  terminal: Terminal,
  topic: string,
  options: PositionOptions,
  act: (topics: Topics, source: TopicPartition) => Promise<Row>,
): Promise<void> {
  await closing(await openTopics(terminal, options, false), async (topics) => {
    const rows: Row[] = []
    for (const source of await sourcesOf(topics.records, topic, options, topics.auditTopic))
      rows.push(await act(topics, source))
    print(terminal, topic, rows, options)
  })
}

/** Under a raised epoch it goes on in the audit's chains, which only the gate's own settings can tell. */
async function begin(
  terminal: Terminal,
  options: PositionOptions,
  source: TopicPartition,
  next: bigint,
): Promise<void> {
  const world = await openGateWorld(terminal, options)
  try {
    await beginEpoch(source, next, world, progressOf(terminal, source))
  } finally {
    await world.close()
  }
}

/** The same for the control chain. */
async function goOn(terminal: Terminal, options: PositionOptions, source: TopicPartition): Promise<Row> {
  const world = await openGateWorld(terminal, options)
  try {
    const { next, isNew } = await restoreControlPosition(null, world, progressOf(terminal, source), true)
    return { partition: source.partition, next: String(next), ...(isNew ? {} : { done: 'good' }) }
  } finally {
    await world.close()
  }
}

const progressOf =
  (terminal: Terminal, { topic, partition }: TopicPartition) =>
  (records: number): void =>
    terminal.progress?.(`${topic}/${partition}: ${records} records of the audit read`)

async function restore(
  terminal: Terminal,
  topic: string,
  options: PositionOptions & { by?: string },
): Promise<void> {
  const world = await openGateWorld(terminal, options)
  const { auditTopic } = world.ingest.settings.outlet
  const rows: Row[] = []
  const faults: Fault[] = []
  try {
    for (const source of await sourcesOf(world.reader, topic, options, auditTopic)) {
      const { partition } = source
      const onProgress = progressOf(terminal, source)
      try {
        const by = options.by ?? null
        const { next, lost, isNew } =
          topic === auditTopic
            ? await restoreControlPosition(by, world, onProgress)
            : await restorePosition(source, by, world, onProgress)
        if (lost > 0n)
          terminal.warn(
            `warning ${topic}/${partition}: ${lost} offsets that nobody has decided are not kept any more.`,
          )
        rows.push({ partition, next: String(next), done: isNew ? 'restored' : 'good' })
      } catch (error) {
        // One that cannot be restored does not hold up the others.
        if (!(error instanceof ConfigError)) throw error
        faults.push(...error.faults)
        rows.push({ partition, next: null, done: 'refused' })
      }
    }
    print(terminal, topic, rows, options)
    if (faults.length === 0) return
    printFaults(terminal, faults)
    terminal.exit(EXIT.badInput)
  } finally {
    await world.close()
  }
}

const CALL_MS = 15_000

function startOf(text: string): Start {
  if (text === 'earliest' || text === 'latest') return text
  if (/^[0-9]{1,18}$/.test(text)) return BigInt(text)
  throw new InvalidArgumentError('Give earliest, latest or an offset.')
}

async function sourcesOf(
  reader: Pick<RecordReader, 'partitions'>,
  topic: string,
  { partition }: PositionOptions,
  auditTopic: string,
): Promise<readonly TopicPartition[]> {
  // Of the control chain, which has one wherever its entries are.
  if (topic === auditTopic) return [controlPlaceOf(auditTopic)]
  const count = await reader.partitions(topic)
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
      ['PARTITION', 'NEXT', ''],
      ...rows.map(({ partition, next, done = '' }) => [`${partition}`, next ?? 'none', done]),
    ]))
      terminal.write(line)
  terminal.exit(rows.some(({ next }) => next === null) ? EXIT.found : EXIT.ok)
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
