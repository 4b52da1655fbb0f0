/**
 * `npm run stack -- [--kafka 4.3.1|3.9.1] [--brokers 1|3] [--demo [--events N] [--keep] [--json]]`: a real Kafka with a gateway on
 * it to work on, until Ctrl-C; or the demo of `npm start` on it.
 */
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { EXIT, fail, paint } from '../../../cli/io.ts'
import { processTerminal, type Terminal } from '../../../cli/terminal.ts'
import { DEMO_EVENTS, demoOffers, type Offered } from '../../../demo/offers.ts'
import { Progress } from '../../../demo/progress.ts'
import { PARTITIONS, runOn } from '../../../demo/run.ts'
import { summaryJson, summaryText } from '../../../demo/summary.ts'
import { ingestHandler } from '../../../functions/ingest-handler.ts'
import { readContracts } from '../../../lib/adapters/contract-files.ts'
import { createIngest } from '../../../lib/admission/slice.ts'
import { buildBundle } from '../../../lib/contract/bundle.ts'
import type { Contracts } from '../../../lib/contract/contract.ts'
import { checkContracts } from '../../../lib/contract/load.ts'
import { ConfigError } from '../../../lib/errors.ts'
import { startPoller } from '../../../lib/local/poller.ts'
import { createGate } from '../../../lib/runtime.ts'
import { type Gateway, openGateway } from './gateway.ts'
import { type RealStack, type StackOptions, startStack } from './stack.ts'

interface Flags {
  readonly version: NonNullable<StackOptions['version']>
  readonly brokers: NonNullable<StackOptions['brokers']>
  /** How many events the demo is to have; undefined for no demo. */
  readonly events: number | undefined
  /** Whether it is to run on after the demo. */
  readonly keep: boolean
  readonly json: boolean
}

const USAGE = 'npm run stack -- [--kafka 4.3.1|3.9.1] [--brokers 1|3] [--demo [--events N] [--keep] [--json]]'
const CONTRACTS = fileURLToPath(new URL('../../../contracts', import.meta.url))
const LOOK_MS = 500

const terminal = processTerminal()
const stop = terminal.stopSignal()
try {
  const flags = readFlags()
  if (flags !== undefined) await run(flags)
} catch (error) {
  fail(terminal, error)
}

async function run(flags: Flags): Promise<void> {
  const say = flags.json ? undefined : (line: string) => terminal.write(line)
  const { files } = checkContracts(await readContracts(CONTRACTS))
  const stack = await startStack({ version: flags.version, brokers: flags.brokers, ...(say && { say }) })
  let isCutShort = false
  try {
    say?.('making topics, keys and settings')
    const folder = join(stack.connection.certificates, 'gateway')
    const gateway = await openGateway(stack.connection, folder, buildBundle(files), PARTITIONS)
    try {
      if (flags.events !== undefined) isCutShort = !(await demonstrate(gateway, flags.events, flags))
      if (flags.events === undefined || (flags.keep && !isCutShort)) await serve(gateway, stack)
    } finally {
      await gateway.close()
    }
  } finally {
    say?.('stopping')
    await stack.stop()
    // What the demo has under way would keep the process.
    if (isCutShort) process.exit(130)
  }
}

/** Undefined where it was only asked for help. */
function readFlags(): Flags | undefined {
  try {
    const { values } = parseArgs({
      options: {
        kafka: { type: 'string', default: '4.3.1' },
        brokers: { type: 'string', default: '1' },
        demo: { type: 'boolean', default: false },
        events: { type: 'string', default: String(DEMO_EVENTS) },
        keep: { type: 'boolean', default: false },
        json: { type: 'boolean', default: false },
        help: { type: 'boolean', short: 'h', default: false },
      },
    })
    const { kafka, brokers, demo, events, keep, json, help } = values
    if (help) {
      terminal.write(USAGE)
      return undefined
    }
    const version = kafka === '3.9.1' || kafka === '4.3.1' ? kafka : undefined
    const count = brokers === '1' ? 1 : brokers === '3' ? 3 : undefined
    if (
      version !== undefined &&
      count !== undefined &&
      /^[1-9][0-9]{0,6}$/.test(events) &&
      (demo || !(json || keep))
    )
      return { version, brokers: count, events: demo ? Number(events) : undefined, keep, json }
  } catch {
    // A flag that is not known: the usage says which are.
  }
  throw new ConfigError([{ where: 'npm run stack', what: 'It does not take these flags.', fix: USAGE }])
}

/** Runs the gate until Ctrl-C, and says how to work with it. */
async function serve(gateway: Gateway, { connection, connectionFile }: RealStack): Promise<void> {
  const gate = createGate(createIngest(gateway.gateParts()), 'throw')
  const poller = await startPoller({
    ...gateway.polled,
    topics: gateway.world.sources,
    handler: ingestHandler(() => Promise.resolve(gate)),
    options: { batchSize: 1000, batchingWindowMs: 50 },
  })
  try {
    terminal.write(howTo(terminal, gateway, connection.brokers, connectionFile))
    let told = ''
    while (await sleep(LOOK_MS, true, { signal: stop }).catch(() => false)) {
      const { lastError } = poller.stats()
      const reason = lastError instanceof Error ? lastError.message : ''
      if (reason !== '' && reason !== told) terminal.warn(`failed, and is tried again: ${reason}`)
      told = reason
    }
  } finally {
    await poller.stop()
    await gate.close()
  }
}

function howTo(
  { colours }: Terminal,
  { settingsFile, world }: Gateway,
  brokers: readonly string[],
  connectionFile: string,
): string {
  const event = '{"orderId":"A-1","fulfilledAt":"2026-11-22T10:00:00Z","items":2}'
  const flag = `--settings ${settingsFile}`
  const bold = (text: string): string => paint(colours.out, 'bold', text)
  return `
Brokers   ${brokers.join(',')}  (SASL_SSL, SCRAM-SHA-512)
Users     admin, gate, producer, consumer (in groups consumer.…), poller, operator
Password of each, and the authority to trust (ca): ${connectionFile}, which only you can read
Gateway   ${world.gateway}: reads ${world.sources.join(', ')}
${bold('In another terminal, as operator:')}
  echo '${event}' | npx sealgate send - --type com.example.order.fulfilled.v1 ${flag}
  npx sealgate tail notifications.orders --follow --max 1 ${flag}
  npx sealgate quarantine list ${flag}
  npx sealgate audit verify ${flag}
Ctrl-C ends it, and deletes everything.`
}

/** Resolves to false where it was ended by a signal. */
async function demonstrate(gateway: Gateway, events: number, { json, keep }: Flags): Promise<boolean> {
  const offers = (known: Contracts): AsyncIterable<Offered> => demoOffers(known, events)
  const running = runOn(gateway, { expected: events, isSound: true, offers }, new Progress(terminal, json))
  const outcome = await Promise.race([
    running,
    new Promise<undefined>((resolve) => {
      stop.addEventListener('abort', () => resolve(undefined))
    }),
  ])
  if (outcome === undefined) return false
  const style = {
    colours: terminal.colours.out,
    width: process.stdout.isTTY ? process.stdout.columns : 120,
    kept: keep ? `--settings ${gateway.settingsFile}` : undefined,
    isDemo: true,
  }
  terminal.write(json ? summaryJson(outcome) : summaryText(outcome, style))
  terminal.exit(outcome.problems.length > 0 ? EXIT.found : EXIT.ok)
  return true
}
