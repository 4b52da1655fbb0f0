/**
 * `sam local invoke` as docs/local.md has it, by the real SAM CLI: its template, variables, mounts and network, and its own
 * emulator of the runtime. Docker's engine and the image are what is stood in for (docker-engine.ts).
 */
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { slicesOf } from '../../lib/adapters/msk-event.ts'
import { parseVectorFile } from '../../lib/admission/vector-file.ts'
import { recordKey } from '../../lib/audit/entry.ts'
import type { SourceRecord } from '../../lib/ports.ts'
import { type DeploymentTools, deploymentTools, type SamRun, TOOLS_MS } from './deployment-tools.ts'
import { type DockerEngine, startDockerEngine } from './docker-engine.ts'
import {
  bundleLocalWorld,
  type ComposeBroker,
  type LocalWorld,
  samVariables,
  startComposeBroker,
  startLocalWorld,
} from './local-world.ts'
import { RUNTIME_MS } from './runtime-api.ts'

const ROOT = join(import.meta.dirname, '../..')
const START_MS = 90_000
let folder: string
/** In place of build/local. */
let local: string
let tools: DeploymentTools
let engine: DockerEngine
let broker: ComposeBroker
let world: LocalWorld
/** The command of docs/local.md, without `sam`. */
let command: readonly string[]

beforeAll(
  async () => {
    tools = await deploymentTools()
    folder = await mkdtemp(join(tmpdir(), 'sealgate-sam-'))
    local = join(folder, 'local')
    await mkdir(join(folder, 'docker'))
    engine = await startDockerEngine(join(folder, 'docker'), ['sealgate_default'])
    ;[broker] = await Promise.all([startComposeBroker(folder), bundleLocalWorld(local)])
    world = await startLocalWorld(broker, local)
    const text = (await readFile(join(ROOT, 'docs/local.md'), 'utf8')).replaceAll('\\\n', ' ')
    const [, written = ''] = /^sam (local invoke IngestFunction .*)$/m.exec(text) ?? []
    command = written.split(/\s+/).map((word) => word.replace('build/local', local))
  },
  TOOLS_MS + RUNTIME_MS + START_MS,
)
afterAll(async () => {
  await engine.end()
  await world.end()
  await broker.end()
  await rm(folder, { recursive: true })
})

const sam = (args: readonly string[]): Promise<SamRun> =>
  tools.sam(args, { DOCKER_HOST: engine.host, TMPDIR: folder })

/** The command of the documentation with other words in it. */
const edited = (words: Readonly<Record<string, string>>): Promise<SamRun> => {
  for (const word of Object.keys(words)) expect(command).toContain(word)
  return sam(command.map((word) => words[word] ?? word))
}

it('answers an outage with its error, and the function has of env.json what the template names', async () => {
  const variables = JSON.parse(await readFile(join(local, 'env.json'), 'utf8'))
  const more = join(folder, 'more.json')
  await writeFile(more, JSON.stringify({ IngestFunction: { ...variables.IngestFunction, ADDED: 'lost' } }))
  const run = await edited({
    'events/msk-mixed.json': 'events/msk-outage.json',
    [join(local, 'env.json')]: more,
  })
  expect(JSON.parse(run.stdout)).toMatchObject({
    errorMessage: expect.stringContaining('key-service-unavailable'),
  })
  const { expected } = await events()
  const outages = [...expected].filter(([, verdict]) => verdict === 'outage').map(([place]) => place)
  expect(outages).not.toEqual([])
  for (const place of outages) expect(world.verdicts().has(place)).toBe(false)

  const [{ request, networks } = { request: undefined, networks: [] }] = engine.containers
  expect(networks).toEqual(['sealgate_default'])
  expect(request?.HostConfig.Binds).toEqual([`${join(local, 'function')}:/var/task:ro,delegated`])
  const given = Object.fromEntries((request?.Env ?? []).map((one) => one.split(/=(.*)/s)))
  expect(given).toMatchObject(await samVariables(local))
  expect(given).not.toHaveProperty('ADDED')
  expect(given['AWS_LAMBDA_FUNCTION_TIMEOUT']).toBe('60')
})

it('decides events/msk-mixed.json as the documentation’s command says, and leaves no container', async () => {
  const run = await sam(command)
  expect(run).toMatchObject({ status: 0, stdout: 'null' })
  const { mixed, expected } = await events()
  const wanted = new Map([...expected].filter(([place]) => mixed.has(place)))
  expect(wanted.size).toBe(mixed.size)
  await expect.poll(() => world.verdicts(), { timeout: 10_000 }).toEqual(wanted)
  expect(engine.left()).toBe(0)
})

/** By place: which records are in msk-mixed.json, and what is to become of every record that there is. */
async function events() {
  const event = JSON.parse(await readFile(join(ROOT, 'events/msk-mixed.json'), 'utf8'))
  const { vectors } = parseVectorFile('world.json', await readFile(join(ROOT, 'events/world.json'), 'utf8'))
  const placeOf = (record: Pick<SourceRecord, 'topic' | 'partition' | 'offset'>): string =>
    recordKey(record.topic, record.partition, record.offset)
  return {
    mixed: new Set(slicesOf(event).flatMap(({ records }) => records.map(placeOf))),
    expected: new Map(vectors.map(({ record, expect: verdict }) => [placeOf(record), verdict])),
  }
}

it('fails where Docker has no such network, or the template is of the other processor', async () => {
  const stranger = await edited({ sealgate_default: 'elsewhere' })
  expect(stranger.status).not.toBe(0)
  expect(stranger.stderr).toContain('network elsewhere not found')

  const [own, other] = process.arch === 'arm64' ? ['arm64', 'x86_64'] : ['x86_64', 'arm64']
  const text = await readFile(join(local, 'template.yaml'), 'utf8')
  expect(text).toContain(own)
  const template = join(local, 'other.yaml')
  await writeFile(template, text.replace(own, other))
  const foreign = await edited({ [join(local, 'template.yaml')]: template })
  expect(foreign.status).not.toBe(0)
  expect(foreign.stderr).toContain('exec format error')
  expect(engine.left()).toBe(0)
})
