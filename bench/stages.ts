/** Where the time of admission goes: a CPU profile of this process, each sample given to the stage that it fell in. */
import { type Profiler, Session } from 'node:inspector/promises'
import { ED25519 } from '../lib/envelope/suite.ts'
import { admissionArm, sealedCase } from './admission.ts'
import type { Result, Setting } from './measure.ts'
import { SLICE } from './world.ts'

/** Functions whose time, with all that they call, belongs to a stage; the innermost of a sample's stack decides. */
export type Stages = readonly (readonly [stage: string, functions: readonly string[]])[]

const STAGES: Stages = [
  ['parse the record', ['format.ts parse']],
  ['hints', ['authenticate.ts checkHints']],
  ['SHA-256 of the body, statement', ['binding.ts encodeStatement']],
  ['signature, or leaf and path', ['crypto.ts verify', 'verify.ts proves']],
  ['key, audience, time', ['authenticate.ts authenticate']],
  ['contract', ['authorise.ts authorise']],
  [
    'data keys',
    ['admit.ts keyRequestOf', 'admit.ts wantedKeys', 'data-keys.ts prepare', 'data-keys.ts lend'],
  ],
  ['replay window, limits', ['replay.ts judge', 'replay.ts decide']],
  ['AAD, commitment', ['seal.ts open']],
  ['AES-256-GCM', ['crypto.ts open']],
  ['JSON.parse, duplicate names', ['json.ts readJson']],
  ['schema', ['schema.ts check']],
  ['garbage collection', [' (garbage collector)']],
  ['the rest', ['world.ts admitSlice']],
]

export async function stages({ quick }: Setting): Promise<Result> {
  const milliseconds = quick ? 100 : 8000
  const batch = await profile(SLICE, milliseconds)
  const single = await profile(1, milliseconds)
  const rows = STAGES.map(([stage]) => ({
    stage,
    batch: batch.get(stage) ?? 0,
    single: single.get(stage) ?? 0,
  }))
  const percent = (share: number): string => `${(share * 100).toFixed(1)} %`
  return {
    table: [
      ['stage', 'batch of 128', 'single Ed25519'],
      ...rows.map((row) => [row.stage, percent(row.batch), percent(row.single)]),
    ],
    data: { rows },
  }
}

async function profile(perSignature: number, milliseconds: number): Promise<ReadonlyMap<string, number>> {
  const { world, slices } = await sealedCase({ suite: ED25519, perSignature, bytes: 1024 })
  const arm = admissionArm('profiled', world, slices)
  await runFor(arm.run, milliseconds / 4)
  return profileShares(STAGES, () => runFor(arm.run, milliseconds))
}

/** What share of the time each stage took while `work` ran; what belongs to none is left out. */
export async function profileShares(
  stages: Stages,
  work: () => Promise<void>,
): Promise<ReadonlyMap<string, number>> {
  const session = new Session()
  session.connect()
  await session.post('Profiler.enable')
  await session.post('Profiler.setSamplingInterval', { interval: 200 })
  await session.post('Profiler.start')
  await work()
  const { profile: samples } = await session.post('Profiler.stop')
  session.disconnect()
  return sharesOf(stages, samples)
}

async function runFor(run: () => unknown, milliseconds: number): Promise<void> {
  const end = performance.now() + milliseconds
  while (performance.now() < end) await run()
}

function sharesOf(
  stages: Stages,
  { nodes, samples, timeDeltas }: Profiler.Profile,
): ReadonlyMap<string, number> {
  const stageOf = new Map(
    stages.flatMap(([stage, functions]) => functions.map((name) => [name, stage] as const)),
  )
  const parents = new Map(
    nodes.flatMap(({ id, children }) => (children ?? []).map((child) => [child, id] as const)),
  )
  const names = new Map(nodes.map(({ id, callFrame }) => [id, nameOf(callFrame)]))
  const times = new Map<string, number>()
  let total = 0
  for (const [index, sample] of (samples ?? []).entries()) {
    let stage: string | undefined
    for (let id: number | undefined = sample; id !== undefined && stage === undefined; id = parents.get(id))
      stage = stageOf.get(names.get(id) ?? '')
    if (stage === undefined) continue
    const time = timeDeltas?.[index] ?? 0
    total += time
    times.set(stage, (times.get(stage) ?? 0) + time)
  }
  return new Map([...times].map(([stage, time]) => [stage, time / total]))
}

/** A method `#x` or `x` of a class is `x`. */
const nameOf = ({ url, functionName }: { url: string; functionName: string }): string =>
  `${url.slice(url.lastIndexOf('/') + 1)} ${functionName}`
