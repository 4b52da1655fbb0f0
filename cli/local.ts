/** `sealgate local`: runs the embedded stack, and looks at it. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Command } from 'commander'
import { ingestHandler } from '../functions/ingest-handler.ts'
import { observers } from '../lib/admission/observer.ts'
import { createIngest, type GateKeyCounts } from '../lib/admission/slice.ts'
import type { PrometheusMetrics } from '../lib/adapters/prometheus.ts'
import { readContracts } from '../lib/adapters/contract-files.ts'
import { buildBundle } from '../lib/contract/bundle.ts'
import { checkContracts } from '../lib/contract/load.ts'
import { ConfigError } from '../lib/errors.ts'
import { eventJson, Gathering, itemOf } from '../lib/local/event-batch.ts'
import { rotationRow } from '../lib/keys/rotation-status.ts'
import { createLocalPositions } from '../lib/local/log-sink.ts'
import { LOCAL_ORIGIN, type Poller, polledLog, startPoller } from '../lib/local/poller.ts'
import { openStack, type Stack } from '../lib/local/stack.ts'
import type { Clock, TopicPartition } from '../lib/ports.ts'
import { openLocalRotations } from '../lib/rotation-runtime.ts'
import { createGate, SOFTWARE } from '../lib/runtime.ts'
import { directoryTrust } from './directory-place.ts'
import { folderFlag, folderOption, withRunningStack, withStack } from './folder.ts'
import { EXIT, paint, printFaults, table } from './io.ts'
import { type MetricsEndpoint, startMetricsEndpoint } from './metrics-endpoint.ts'
import { wholeNumber } from './numbers.ts'
import type { Terminal } from './terminal.ts'

interface LocalOptions {
  readonly folder: string
  readonly json?: true
}

interface StartOptions extends LocalOptions {
  readonly contracts?: string
  readonly partitions: number
  readonly gate: boolean
  readonly metricsPort?: number
}

const CALL_MS = 10_000
const LOOK_MS = 500

/** Adds `local start`, `local status` and `local event` to the program. */
export function addLocalCommands(program: Command, terminal: Terminal): void {
  const local = program.command('local').description('run the embedded stack: log, key service, gate')
  local
    .command('start')
    .description('run the embedded stack until Ctrl-C')
    .addOption(folderOption(terminal))
    .option('--contracts <dir>', 'contract files (default: contracts/ if it is there, else the examples)')
    .option('--partitions <n>', 'partitions of topics that are made now', wholeNumber(1, 1024), 4)
    .option('--no-gate', 'leave what comes in undecided, for sealgate invoke')
    .option(
      '--metrics-port <n>',
      "serve the gate's metrics to Prometheus at http://127.0.0.1:<n>/metrics; 0 takes a free port",
      wholeNumber(0, 65_535),
    )
    .option('--json', 'print a JSON object at the start and one at the end')
    .addHelpText(
      'after',
      '\nExample:\n  sealgate local start --contracts my-contracts\n\nExit status 2: another process runs this folder, or has the port.',
    )
    .action((options: StartOptions) => start(terminal, options))
  local
    .command('status')
    .description('show topics, and how far the gate has come')
    .addOption(folderOption(terminal))
    .option('--json', 'print {"topics":[{"topic","partitions":[{"end","next"}]}]}')
    .addHelpText(
      'after',
      '\nExample:\n  sealgate local status\n\nExit status 3: no process runs this folder.',
    )
    .action((options: LocalOptions) => status(terminal, options))
  local
    .command('event')
    .description('print the event that Lambda would send of what the gate has not decided yet')
    .addOption(folderOption(terminal))
    .option('--max <n>', 'at most so many records of each partition', wholeNumber(1, 10_000), 100)
    .option('--json', 'no difference: the event is JSON')
    .addHelpText(
      'after',
      '\nExample, with sealgate local start --no-gate running:\n  sealgate local event > event.json\n  sealgate invoke ingest -e event.json\n\nExit status 1: nothing waits to be decided.',
    )
    .action((options: LocalOptions & { max: number }) => printEvent(terminal, options))
}

async function start(terminal: Terminal, options: StartOptions): Promise<void> {
  if (options.metricsPort !== undefined && !options.gate) {
    const what = 'Metrics are of the gate, and --no-gate runs none.'
    throw new ConfigError([{ where: '--metrics-port', what, fix: 'Leave one of the two out.' }])
  }
  const stop = terminal.stopSignal()
  const folder = options.contracts ?? defaultContracts()
  const { files, faults, warnings } = checkContracts(await readContracts(folder))
  if (faults.length > 0) throw new ConfigError(faults)
  const stack = await openStack({
    folder: options.folder,
    bundle: buildBundle(files),
    partitions: options.partitions,
    software: SOFTWARE,
  })
  try {
    const running = options.gate ? await startGate(stack, options) : undefined
    try {
      printFaults(terminal, warnings, 'warning')
      announce(terminal, stack, options, `${files.length} contracts of ${folder}`, running?.metrics?.url)
      await untilStopped(terminal, stop, running?.poller)
    } finally {
      await running?.stop()
    }
    const stats = running?.poller.stats()
    if (options.json) terminal.write(JSON.stringify({ stopped: true, records: stats?.records ?? 0 }))
    else terminal.write(`Stopped. ${(stats?.records ?? 0).toLocaleString('en-GB')} records were decided.`)
  } finally {
    await stack.close()
  }
  terminal.exit(EXIT.ok)
}

interface RunningGate {
  readonly poller: Poller
  readonly metrics: MetricsEndpoint | undefined
  stop(): Promise<void>
}

async function startGate(stack: Stack, { folder, metricsPort }: StartOptions): Promise<RunningGate> {
  const metrics =
    metricsPort === undefined ? undefined : await metricsOf(stack, folder, () => gate.keyCounts())
  const parts = stack.gateParts()
  const told = metrics === undefined ? {} : { observer: observers([metrics.observer]) }
  const gate = createGate(createIngest({ ...parts, ...told }), 'throw')
  const endpoint =
    metrics === undefined || metricsPort === undefined
      ? undefined
      : await startMetricsEndpoint(metricsPort, metrics)
  const poller = await startPoller({
    source: polledLog(stack.log),
    group: 'sealgate-ingest',
    topics: stack.ingress,
    handler: ingestHandler(() => Promise.resolve(gate)),
    options: { batchSize: 1000, batchingWindowMs: 50 },
  })
  return {
    poller,
    metrics: endpoint,
    stop: async () => {
      await endpoint?.close()
      await poller.stop()
      await gate.close()
    },
  }
}

/** Most runs need no library for it. */
async function metricsOf(
  stack: Stack,
  folder: string,
  keyCounts: () => GateKeyCounts | undefined,
): Promise<PrometheusMetrics> {
  const { prometheusMetrics } = await import('../lib/adapters/prometheus.ts')
  const asked = { keyCounts, waiting: () => waitingIn(stack), overdue: () => overdueIn(folder, stack.clock) }
  return prometheusMetrics(asked, stack.clock)
}

/** What is not decided yet, of each source partition. */
async function waitingIn(stack: Stack): Promise<(TopicPartition & { records: number })[]> {
  const topics = stack.ingress.map(async (topic) => {
    const ends = await stack.log.endOffsets(topic)
    const nexts = await positionsOf(stack, topic, ends.length)
    return ends.map((end, partition) => {
      return { topic, partition, records: Math.max(0, Number(end - (nexts[partition] ?? 0n))) }
    })
  })
  return (await Promise.all(topics)).flat()
}

/** How many rotations of a stack are overdue, as `sealgate rotate status` counts them. */
async function overdueIn(folder: string, clock: Clock): Promise<number> {
  const { trust } = await directoryTrust({ folder }, false)
  const { policies, view } = await openLocalRotations(folder, trust, undefined, clock)
  const rows = policies.map((policy) => rotationRow(policy, view, clock.now() + CALL_MS))
  return (await Promise.all(rows)).filter(({ overdue }) => overdue).length
}

/** The examples that come with this package, where the project has no contracts of its own. */
function defaultContracts(): string {
  if (existsSync('contracts')) return 'contracts'
  // The package's root is above cli/ in a checkout and above dist/cli/ once compiled. dist/contracts holds the schema alone.
  const [near = '', far = ''] = ['../', '../../'].map((path) => fileURLToPath(new URL(path, import.meta.url)))
  return join(existsSync(join(near, 'package.json')) ? near : far, 'contracts')
}

function announce(
  terminal: Terminal,
  stack: Stack,
  options: StartOptions,
  rules: string,
  metrics: string | undefined,
): void {
  const { ingress, outputs } = stack
  if (options.json) {
    terminal.write(
      JSON.stringify({
        ...{ started: true, pid: process.pid, folder: options.folder, ingress, outputs },
        ...(metrics !== undefined && { metrics }),
      }),
    )
    return
  }
  const flag = folderFlag(terminal, options.folder)
  // In a checkout there is no sealgate on the path: npx, which says so to what it starts, finds it.
  const called = terminal.env['npm_command'] === 'exec' ? 'npx sealgate' : 'sealgate'
  const bold = (text: string): string => paint(terminal.colours.out, 'bold', text)
  const consumers = stack.contracts.all.flatMap(({ routes }) => routes)
  const rows = outputs.map((channel) => {
    const routes = consumers.filter((route) => route.channel === channel)
    const names = [...new Set(routes.map(({ consumer }) => consumer))].join(', ')
    return [`  ${channel}`, names, routes[0]?.form ?? '']
  })
  terminal.write(
    [
      `${bold('sealgate local')} is running in ${options.folder} (process ${process.pid}), by ${rules}.`,
      `Producers write to ${ingress.join(', ')}. ${options.gate ? 'The gate decides, and writes:' : 'No gate runs. Outputs:'}`,
      ...table(rows),
      ...(metrics === undefined ? [] : [`Metrics for Prometheus are at ${metrics}.`]),
      bold('In another terminal:'),
      `  ${called} send events.ndjson${flag}`,
      `  ${called} tail ${outputs[0] ?? 'CHANNEL'}${flag}`,
      `  ${called} quarantine list${flag}`,
      `  ${called} audit verify${flag}`,
      'Ctrl-C stops it.',
    ].join('\n'),
  )
}

/** Shows how far it has come where that can be seen, and tells of each new failure. */
async function untilStopped(
  terminal: Terminal,
  stop: AbortSignal,
  poller: Poller | undefined,
): Promise<void> {
  let told = ''
  while (await sleep(LOOK_MS, true, { signal: stop }).catch(() => false)) {
    if (poller === undefined) continue
    const { records, invocations, failures, lastError } = poller.stats()
    const reason = lastError instanceof Error ? lastError.message : ''
    if (reason !== '' && reason !== told)
      terminal.warn(`${paint(terminal.colours.err, 'red', 'failed')} and is tried again: ${reason}`)
    told = reason
    terminal.progress?.(
      `${records.toLocaleString('en-GB')} records decided in ${invocations.toLocaleString('en-GB')} invocations, ${failures} failed`,
    )
  }
}

async function status(terminal: Terminal, { folder, json }: LocalOptions): Promise<void> {
  await withRunningStack(folder, async (stack) => {
    const topics = []
    for (const { name, partitions } of await stack.log.topics()) {
      const ends = await stack.log.endOffsets(name)
      const nexts = stack.ingress.includes(name) ? await positionsOf(stack, name, partitions) : undefined
      topics.push({
        topic: name,
        partitions: ends.map((end, index) => ({
          end: Number(end),
          ...(nexts && { next: Number(nexts[index] ?? 0n) }),
        })),
      })
    }
    if (json) terminal.write(JSON.stringify({ topics }))
    else {
      const rows = topics.map(({ topic, partitions }) => [
        topic,
        partitions.map(({ end }) => end).join(' '),
        partitions.map(({ next }) => next ?? '').join(' '),
      ])
      for (const line of table([['TOPIC', 'ENDS', 'DECIDED'], ...rows])) terminal.write(line)
    }
    terminal.exit(EXIT.ok)
  })
}

async function positionsOf(stack: Stack, topic: string, partitions: number): Promise<readonly bigint[]> {
  const { deployment } = stack.gateParts().settings
  const positions = createLocalPositions(stack.log, { deployment })
  const deadline = stack.clock.now() + CALL_MS
  return Promise.all(
    Array.from(
      { length: partitions },
      async (_, partition) => (await positions.show({ topic, partition }, deadline))?.next ?? 0n,
    ),
  )
}

async function printEvent(
  terminal: Terminal,
  { folder, max }: LocalOptions & { max: number },
): Promise<void> {
  await withStack(folder, async (stack) => {
    const gathering = new Gathering(10_000, LOCAL_ORIGIN)
    for (const topic of stack.ingress) {
      const { length } = await stack.log.endOffsets(topic)
      const nexts = await positionsOf(stack, topic, length)
      for (const [partition, next] of nexts.entries())
        gathering.takeFrom(
          (await stack.log.read(topic, partition, next, { maxRecords: max })).records.map(itemOf),
        )
    }
    const isEmpty = gathering.items.length === 0
    if (isEmpty) terminal.warn('Nothing waits to be decided.')
    terminal.write(eventJson(gathering.items, LOCAL_ORIGIN))
    terminal.exit(isEmpty ? EXIT.found : EXIT.ok)
  })
}
