/**
 * The functions on AWS's own runtime client, bundled as they are deployed: their init beside that of a function that does
 * nothing, ingest's first event, and what a warm invocation costs beside the handler called directly.
 */
import { fork } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { CONTROL_NAMES } from '../lib/settings.ts'
import { bundleFunction, sizeOf } from '../scripts/bundle.ts'
import type { FunctionPlace } from '../test/real/function-place.ts'
import { type FunctionOptions, type RunningFunction, startFunction } from '../test/real/runtime-api.ts'
import type { DirectAnswer } from './direct-handler.ts'
import { KafkaWorld, type Site } from './kafka-world.ts'
import { type Result, type Setting, spreadOf, spreadText } from './measure.ts'

/** Events of an invocation. */
const SLICE = 100
const MAX_TRIES = 5

interface Plan {
  /** Processes of each function, in turn. */
  readonly starts: number
  /** Rounds of warm invocations, and those of each arm in a round. */
  readonly rounds: number
  readonly invocations: number
}

const FULL: Plan = { starts: 15, rounds: 15, invocations: 15 }
const QUICK: Plan = { starts: 2, rounds: 2, invocations: 3 }

export async function runtime({ quick }: Setting): Promise<Result> {
  const plan = quick ? QUICK : FULL
  const folder = await mkdtemp(join(tmpdir(), 'sealgate-bench-'))
  const world = await KafkaWorld.open((line) => console.error(`runtime: ${line}`))
  try {
    const site = await world.site(1)
    const place = await world.ingest(site)
    const bytes = sizeOf(place.folder)
    const others = { hello: await helloWorld(folder), ...(await otherFunctions(place)) }
    const starts = await measureStarts(plan, { place, site }, others)
    const other = await world.site(1)
    const warm = await measureWarm(plan, {
      runtime: { place, site },
      direct: { place: await world.ingest(other), site: other },
    })
    for (const one of [site, other]) await world.checkNothingQuarantined(one)
    const { hello, ingest, ratio, keys, rotate, first } = starts
    return {
      table: [
        ['', 'median and quartiles'],
        ['init of hello world, ms', spreadText(hello, 0)],
        ['init of ingest, ms', spreadText(ingest, 0)],
        ['× hello world', spreadText(ratio)],
        ['init of keys, ms', spreadText(keys.milliseconds, 0)],
        ['× hello world', spreadText(keys.ratio)],
        ['init of rotate, ms', spreadText(rotate.milliseconds, 0)],
        ['× hello world', spreadText(rotate.ratio)],
        [`first invocation, ${SLICE} events, ms`, spreadText(first, 0)],
        [`warm invocation, ${SLICE} events, ms`, spreadText(warm.runtime, 1)],
        ['the handler called directly, ms', spreadText(warm.direct, 1)],
        ['× called directly', spreadText(warm.ratio)],
        ['package, kB', (bytes / 1000).toFixed(0)],
      ],
      data: { init: { hello, ingest, ratio, keys, rotate }, first, warm: { events: SLICE, ...warm }, bytes },
    }
  } finally {
    await world.close()
    await rm(folder, { recursive: true, force: true })
  }
}

async function helloWorld(folder: string): Promise<FunctionOptions> {
  await writeFile(join(folder, 'index.mjs'), `export const handler = async () => 'hello world'\n`)
  return { folder, environment: {} }
}

/** The other two, beside ingest: of its environment each has what it reads. */
async function otherFunctions({ folder, environment }: FunctionPlace) {
  const pick = (names: readonly string[]): Record<string, string> =>
    Object.fromEntries(Object.entries(environment).filter(([name]) => names.includes(name)))
  const trust = pick(['SEALGATE_DIRECTORY', 'SEALGATE_ROOTS'])
  const optionsOf = async (name: string, own: Record<string, string>): Promise<FunctionOptions> => {
    await bundleFunction(name, join(folder, name))
    return { folder, handler: `${name}/index.handler`, environment: own }
  }
  return {
    keys: await optionsOf('keys', trust),
    rotate: await optionsOf('rotate', {
      ...{ ...trust, ...pick(CONTROL_NAMES), SEALGATE_ROTATION: 'rotation.yaml' },
      SEALGATE_ROOT_KEY: 'arn:aws:kms:eu-west-1:111122223333:key/root',
    }),
  }
}

interface Placed {
  readonly place: FunctionPlace
  readonly site: Site
}

const FUNCTIONS = ['hello', 'ingest', 'keys', 'rotate'] as const
type Started = (typeof FUNCTIONS)[number]

/** New processes, in turn; ingest's takes an event before it ends. The first of each is not counted: it warms the disk's cache. */
async function measureStarts(
  { starts }: Plan,
  { place, site }: Placed,
  others: Readonly<Record<Exclude<Started, 'ingest'>, FunctionOptions>>,
) {
  const options = { ...others, ingest: place }
  const times: Record<Started, number[]> = { hello: [], ingest: [], keys: [], rotate: [] }
  const firstMs: number[] = []
  for (let round = 0; round <= starts; round++)
    for (const name of FUNCTIONS) {
      const one = await startFunction(options[name])
      try {
        const first = name === 'ingest' ? await timesOf(one, await site.nextEvent(SLICE)) : undefined
        if (round === 0) continue
        times[name].push(one.initMilliseconds)
        if (first !== undefined) firstMs.push(first)
      } finally {
        await one.end()
      }
    }
  const beside = (name: Started) => ({
    milliseconds: spreadOf(times[name]),
    ratio: spreadOf(times[name].map((one, round) => one / (times.hello[round] ?? Number.NaN))),
  })
  const { milliseconds: ingest, ratio } = beside('ingest')
  const more = { keys: beside('keys'), rotate: beside('rotate'), first: spreadOf(firstMs) }
  return { hello: spreadOf(times.hello), ingest, ratio, ...more }
}

/** Each arm has a site of its own: two on one would fence each other. A round's figure is its median. */
async function measureWarm(
  { rounds, invocations }: Plan,
  arms: { readonly runtime: Placed; readonly direct: Placed },
) {
  const running = await startFunction(arms.runtime.place)
  const direct = callDirectly(arms.direct.place)
  const slot = async (call: (event: string) => Promise<number>, site: Site): Promise<number> => {
    const times: number[] = []
    for (let count = 0; count < invocations; count++) times.push(await call(await site.nextEvent(SLICE)))
    return spreadOf(times).median
  }
  const slots = {
    runtime: () => slot((event) => timesOf(running, event), arms.runtime.site),
    direct: () => slot((event) => direct.call(event), arms.direct.site),
  }
  try {
    const times = { runtime: new Array<number>(), direct: new Array<number>() }
    // The first rounds open connections, and let code become quick.
    for (let round = -3; round < rounds; round++)
      for (const name of round % 2 === 0 ? ORDER : ORDER.toReversed()) {
        const time = await slots[name]()
        if (round >= 0) times[name].push(time)
      }
    const ratio = spreadOf(times.runtime.map((one, round) => one / (times.direct[round] ?? Number.NaN)))
    return { runtime: spreadOf(times.runtime), direct: spreadOf(times.direct), ratio }
  } finally {
    await running.end()
    direct.end()
  }
}

const ORDER = ['runtime', 'direct'] as const

/** Lambda hands over again what failed: a broker on a busy machine may be late. */
async function timesOf(running: RunningFunction, event: string): Promise<number> {
  for (let tries = 1; ; tries++) {
    const invocation = await running.invoke(event)
    if ('answer' in invocation) return invocation.milliseconds
    if (tries === MAX_TRIES) throw new TypeError(`ingest fails: ${invocation.error.errorMessage}`)
  }
}

/** The same bundle in a process that nothing stands between. */
function callDirectly({ folder, environment }: FunctionPlace) {
  const child = fork(join(import.meta.dirname, 'direct-handler.ts'), [join(folder, 'index.mjs')], {
    cwd: folder,
    env: { PATH: process.env['PATH'], AWS_REGION: 'eu-west-1', ...environment },
    stdio: ['ignore', 'ignore', 'inherit', 'ipc'],
  })
  return {
    call: async (event: string): Promise<number> => {
      const answer = await new Promise<DirectAnswer>((resolve, reject) => {
        child.once('message', (message: DirectAnswer) => resolve(message))
        child.once('exit', () => reject(new TypeError('the handler’s process has ended')))
        child.send(event)
      })
      child.removeAllListeners('exit')
      if ('error' in answer) throw new TypeError(`ingest fails: ${answer.error}`)
      return answer.milliseconds
    },
    end: () => void child.kill('SIGKILL'),
  }
}
