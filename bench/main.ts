/** `npm run bench [-- NAME] [--json] [--quick]`: what is measured and how stands in docs/performance.md. */
import { spawnSync } from 'node:child_process'
import { availableParallelism, cpus } from 'node:os'
import { parseArgs } from 'node:util'
import { admission } from './admission.ts'
import { coldStart } from './cold-start.ts'
import { contracts } from './contracts.ts'
import { dataKeys } from './data-keys.ts'
import { kafka } from './kafka.ts'
import { kafkaMemory } from './kafka-memory.ts'
import { kafkaStages } from './kafka-stages.ts'
import { FULL, type Peer, QUICK, type Result, type Setting, tableText } from './measure.ts'
import { loadPeers, peersInstalled, peerVersions } from './peers.ts'
import { revocation } from './revocation.ts'
import { runtime } from './runtime.ts'
import { sealing } from './sealing.ts'
import { stages } from './stages.ts'
import { telemetry } from './telemetry.ts'

const BENCHES: Readonly<Record<string, (setting: Setting) => Promise<Result>>> = {
  admission,
  sealing,
  'cold-start': coldStart,
  contracts,
  stages,
  'data-keys': dataKeys,
  telemetry,
  kafka,
  'kafka-stages': kafkaStages,
  'kafka-memory': kafkaMemory,
  revocation,
  runtime,
}

/** Those that no peer is measured in. */
const ALONE = new Set([
  ...['contracts', 'stages', 'data-keys', 'telemetry', 'kafka', 'kafka-stages', 'kafka-memory', 'revocation'],
  'runtime',
])

const USAGE = `npm run bench [-- NAME …] [--json] [--quick]\nNAME is one of ${Object.keys(BENCHES).join(', ')}; all of them by default.`

async function main(): Promise<number> {
  const asked = readArguments(process.argv.slice(2))
  if (asked === undefined) return 2
  const { names, json, quick, help } = asked
  if (help) {
    console.log(USAGE)
    return 0
  }
  if (!quick && names.some((name) => !ALONE.has(name)) && !peersInstalled() && !installPeers()) return 1
  let loaded: Promise<readonly Peer[]> | undefined
  const peers = (): Promise<readonly Peer[]> =>
    (loaded ??= peersInstalled() ? loadPeers() : Promise.resolve([]))
  const setting = { effort: quick ? QUICK : FULL, quick, peers }
  const facts = {
    node: process.version,
    cores: availableParallelism(),
    cpu: cpus()[0]?.model ?? 'unknown',
    peers: peerVersions(),
    rounds: setting.effort.rounds,
  }
  if (!json) console.log(factsText(facts))
  const results: Record<string, unknown> = {}
  for (const name of names) {
    const result = await BENCHES[name]?.(setting)
    if (result === undefined) continue
    results[name] = result.data
    if (!json) console.log(`\n${name}\n${tableText(result.table)}`)
  }
  const [only] = names
  if (json)
    console.log(
      JSON.stringify({
        ...(names.length === 1 && only !== undefined ? spread(results[only]) : results),
        facts,
      }),
    )
  return 0
}

const spread = (data: unknown): object => (typeof data === 'object' && data !== null ? data : {})

interface Asked {
  readonly names: string[]
  readonly json: boolean
  readonly quick: boolean
  readonly help: boolean
}

function readArguments(args: string[]): Asked | undefined {
  try {
    const flag = { type: 'boolean', default: false } as const
    const { values, positionals } = parseArgs({
      args,
      allowPositionals: true,
      options: { json: flag, quick: flag, help: { ...flag, short: 'h' } },
    })
    const unknown = positionals.filter((name) => !Object.hasOwn(BENCHES, name))
    if (unknown.length > 0) throw new TypeError(`There is no benchmark called ${unknown.join(', ')}.`)
    return { ...values, names: positionals.length > 0 ? positionals : Object.keys(BENCHES) }
  } catch (error) {
    console.error(`${error instanceof Error ? error.message : String(error)}\n${USAGE}`)
    return undefined
  }
}

/** The peers are kept out of the project's own `npm ci`. Their npm speaks on stderr: stdout is for results. */
function installPeers(): boolean {
  console.error('The peers are not installed yet: npm ci --prefix bench')
  const npm = spawnSync('npm', ['ci', '--prefix', import.meta.dirname, '--no-audit', '--no-fund'], {
    stdio: ['ignore', 2, 2],
  })
  if (npm.status === 0 && peersInstalled()) return true
  console.error('The peers could not be installed. Do it by hand, or measure without them by --quick.')
  return false
}

function factsText(facts: {
  node: string
  cores: number
  cpu: string
  peers: Record<string, string>
}): string {
  const peers = Object.entries(facts.peers).map(([name, version]) => `${name} ${version}`)
  return [
    `Node ${facts.node}, ${facts.cores} cores (${facts.cpu}); peers: ${peers.join(', ')}`,
    'medians of interleaved rounds, quartiles in brackets',
  ].join('\n')
}

process.exitCode = await main()
