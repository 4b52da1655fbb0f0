/** Packages of a stage: reads its parameters, refuses what does not fit, and writes all that the two tools deploy. */
import { createWriteStream } from 'node:fs'
import { copyFile, mkdir, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { basename, dirname, isAbsolute, join, relative, resolve } from 'node:path'
import { pipeline } from 'node:stream/promises'
import { stringify } from 'yaml'
import { ZipFile } from 'yazl'
import type { ClusterNeeds } from '../lib/cluster-needs.ts'
import { buildBundle, loadBundle } from '../lib/contract/bundle.ts'
import { checkContracts } from '../lib/contract/load.ts'
import { ConfigError, type Fault } from '../lib/errors.ts'
import type { RotationEntry } from '../lib/keys/rotation-policy.ts'
import { openRotations, readRotationSettings } from '../lib/rotation-runtime.ts'
import { readKeysSettings, readSettings } from '../lib/settings.ts'
import { bundleFunction } from '../scripts/bundle.ts'
import { deploymentOf } from './deployment.ts'
import {
  CA_FILE,
  CONTRACTS_FILE,
  functionPlans,
  type FunctionName,
  type FunctionPlan,
  ROOTS_FILE,
  ROTATION_FILE,
  serviceName,
} from './functions.ts'
import { peopleFaults } from './keks.ts'
import { needsOf } from './rights.ts'
import { samFunctionId, samTemplate } from './sam.ts'
import { oslsFunctionId, serverlessValues } from './serverless.ts'
import { readStage } from './stage-file.ts'
import type { Stage } from './stage.ts'
import { givenKeyPolicies } from './stores.ts'
import type { Value, Values } from './template.ts'

const ROOT = join(import.meta.dirname, '..')
export const STAGES = join(ROOT, 'deploy', 'stages')
/** Where packages go, within the folder of serverless.yml. */
export const buildFolder = (root: string): string => join(root, 'build', 'deploy')

export interface Packaged {
  readonly stage: Stage
  readonly folder: string
  /** Bytes of each function's code, before it is zipped. */
  readonly codeBytes: ReadonlyMap<FunctionName, number>
}

/** The names of the stages in deploy/stages. */
export async function stageNames(): Promise<readonly string[]> {
  const files = await readdir(STAGES)
  return files.filter((file) => file.endsWith('.yml')).map((file) => file.slice(0, -'.yml'.length))
}

/** A stage's file: a path, or the name of one in deploy/stages. */
export const stagePath = (asked: string): string =>
  /\.ya?ml$/.test(asked) ? resolve(asked) : join(STAGES, `${asked}.yml`)

/** Writes build/deploy/STAGE, whole, or throws `ConfigError` with every fault and leaves none. */
export async function packageStage(path: string, bundles: Bundles): Promise<Packaged> {
  const folder = join(buildFolder(bundles.root), basename(path).replace(/\.ya?ml$/, ''))
  await rm(folder, { recursive: true, force: true })
  const { stage, contracts } = await readParts(path)
  try {
    const codeBytes = new Map<FunctionName, number>()
    for (const plan of functionPlans(stage)) {
      const files = join(folder, plan.name)
      await addFiles(plan.name, stage, contracts, files)
      checkSettings(plan, stage, files)
      codeBytes.set(plan.name, await bundles.copy(plan.name, files))
      await zip(files, join(folder, `${plan.name}.zip`))
      await rm(files, { recursive: true })
    }
    await writeTemplates(stage, needsOf(stage, contracts), folder, relative(bundles.root, folder))
    return { stage, folder, codeBytes }
  } catch (error) {
    await rm(folder, { recursive: true, force: true })
    throw error
  }
}

/** The functions' code, bundled once for all stages. */
export class Bundles {
  readonly root: string
  readonly #sizes = new Map<FunctionName, number>()

  /** @param root where build/deploy is written: the checkout, or for a test a folder of its own */
  constructor(root: string = ROOT) {
    this.root = root
  }

  async copy(name: FunctionName, folder: string): Promise<number> {
    const code = join(buildFolder(this.root), '.code', name)
    let size = this.#sizes.get(name)
    if (size === undefined) {
      await rm(code, { recursive: true, force: true })
      size = await bundleFunction(name, code, join(buildFolder(this.root), 'maps', name))
      this.#sizes.set(name, size)
    }
    for (const file of await readdir(code)) await copyFile(join(code, file), join(folder, file))
    return size
  }
}

/** Every text in quotes: SAM reads YAML 1.1, where a policy's version is a date. */
const QUOTED = { defaultStringType: 'QUOTE_SINGLE', defaultKeyType: 'PLAIN', singleQuote: true } as const

/** The SAM template of a stage, as text. */
export function samText(stage: Stage, needs: ClusterNeeds, packages: string): string {
  const head = `# The deployment of the stage ${stage.name} for AWS SAM, made by npm run package from deploy/: not to be edited.\n`
  const template = samTemplate(deploymentOf(stage, needs, samFunctionId), packages)
  return head + stringify(template, { ...QUOTED, lineWidth: 0, aliasDuplicateObjects: false })
}

/** A stage's parameters, and the bundle of its contracts; everything that is wrong with either. */
export async function readParts(path: string): Promise<{ stage: Stage; contracts: Uint8Array }> {
  const text = await readFile(path, 'utf8').catch(() => {
    const fix = 'Name one of deploy/stages, or the path of a .yml file.'
    throw new ConfigError([{ where: path, what: 'There is no such stage.', fix }])
  })
  const stage = readStage(text, path)
  const names = (await readdir(stage.contracts).catch(() => []))
    .filter((file) => /\.ya?ml$/.test(file))
    .sort()
  const sources = await Promise.all(
    names.map(async (file) => ({ file, text: await readFile(join(stage.contracts, file), 'utf8') })),
  )
  const { files, faults } = checkContracts(sources)
  if (names.length === 0)
    throw new ConfigError([
      { where: stage.contracts, what: 'There are no contracts.', fix: 'Correct contracts.' },
    ])
  if (faults.length > 0) throw new ConfigError(faults)
  const bundle = buildBundle(files)
  const absent = peopleFaults(stage, loadBundle(bundle), path)
  if (absent.length > 0) throw new ConfigError(absent)
  return { stage, contracts: bundle }
}

async function addFiles(
  name: FunctionName,
  stage: Stage,
  contracts: Uint8Array,
  folder: string,
): Promise<void> {
  await mkdir(folder, { recursive: true })
  const copies: (readonly [string, string, string])[] = [['roots', stage.roots, ROOTS_FILE]]
  if (name !== 'keys' && stage.cluster.ca !== undefined)
    copies.push(['cluster.ca', stage.cluster.ca, CA_FILE])
  if (name === 'ingest') await writeFile(join(folder, CONTRACTS_FILE), contracts)
  if (name === 'rotate') {
    copies.push(['rotation', stage.rotation, ROTATION_FILE])
    const beside = dirname(stage.rotation)
    for (const file of stage.rotations.flatMap(filesOf))
      copies.push(['rotation', resolve(beside, file), relative(beside, resolve(beside, file))])
  }
  const faults: Fault[] = []
  for (const [where, from, to] of copies) {
    const fault = (what: string): void =>
      void faults.push({
        where: `${stage.name}: ${where}`,
        what,
        fix: 'Name a file that is there, beside its policy.',
      })
    if (to.startsWith('..') || isAbsolute(to)) fault(`${from} lies elsewhere.`)
    else {
      await mkdir(dirname(join(folder, to)), { recursive: true })
      await copyFile(from, join(folder, to)).catch(() => fault(`${from} cannot be read.`))
    }
  }
  if (faults.length > 0) throw new ConfigError(faults)
}

/** The files that a rotation names, beside its policy. */
const filesOf = ({ file, rotation }: RotationEntry): readonly string[] => [
  ...(file === undefined ? [] : [file]),
  ...(rotation.kind === 'client-certificate' ? [rotation.authority] : []),
]

/** Of all variables of a function, as JSON, by Lambda. */
const MAX_ENVIRONMENT_BYTES = 4096

/** Whether Lambda takes what a function is told. */
export function environmentFaults(
  { name, environment }: Pick<FunctionPlan, 'name' | 'environment'>,
  stage: Stage,
): readonly Fault[] {
  const told = Object.entries(environment).map(([key, value]) => [key, deployedValue(value, stage)] as const)
  const bytes = Buffer.byteLength(JSON.stringify(Object.fromEntries(told)))
  if (bytes <= MAX_ENVIRONMENT_BYTES) return []
  const longest = told
    .map(([key, value]) => ({ key, length: Buffer.byteLength(value) }))
    .sort((a, b) => b.length - a.length)
    .slice(0, 3)
    .map(({ key, length }) => `${key} (${length})`)
  return [
    {
      where: `${stage.name}: ${name}`,
      what: `Its environment has ${bytes} bytes, and Lambda takes ${MAX_ENVIRONMENT_BYTES}.`,
      fix: `Shorten the longest: ${longest.join(', ')}; or divide the channels among several deployments.`,
    },
  ]
}

/** What the function would say at its start, said now: by its own reader, of its own files. */
function checkSettings(plan: FunctionPlan, stage: Stage, files: string): void {
  const { name, environment, functionName } = plan
  const tooLong = environmentFaults(plan, stage)
  if (tooLong.length > 0) throw new ConfigError(tooLong)
  if (name === 'ingest') refuseOverridden(environment, stage)
  const told = Object.entries(environment).map(
    ([key, value]) => [key, settingOf(value, stage, files)] as const,
  )
  const seen = { ...Object.fromEntries(told), AWS_LAMBDA_FUNCTION_NAME: functionName }
  if (name === 'ingest') readSettings(seen)
  else if (name === 'keys') readKeysSettings(seen)
  else {
    const settings = readRotationSettings(seen)
    openRotations(settings, settings.policy, { now: () => Date.now() })
  }
}

/** A setting that a parameter sets is not set beside it. */
function refuseOverridden(environment: Values, { name, settings }: Stage): void {
  const faults = Object.entries(settings)
    .filter(([key, value]) => environment[key] !== value)
    .map(([key]) => ({
      where: `${name}: settings.${key}`,
      what: 'Another parameter of the stage sets it.',
      fix: 'Set that, and leave this out.',
    }))
  if (faults.length > 0) throw new ConfigError(faults)
}

const FILES = [CONTRACTS_FILE, ROOTS_FILE, ROTATION_FILE, CA_FILE]

function settingOf(value: Value, stage: Stage, files: string): string {
  const setting = deployedValue(value, stage)
  return FILES.includes(setting) ? join(files, setting) : setting
}

/** What is known only when it is deployed is stood in for, by as long a text. */
function deployedValue(value: Value, stage: Stage): string {
  const { region, account } = stage
  if (typeof value === 'string') return value
  return JSON.stringify(value).includes('GetAtt')
    ? `arn:aws:kms:${region}:${account}:key/00000000-0000-0000-0000-000000000000`
    : `arn:aws:secretsmanager:${region}:${account}:secret:AmazonMSK_${serviceName(stage)}.rotate-AbCdEf`
}

async function writeTemplates(
  stage: Stage,
  needs: ClusterNeeds,
  folder: string,
  fromServerless: string,
): Promise<void> {
  const values = serverlessValues(deploymentOf(stage, needs, oslsFunctionId), `${fromServerless}/`)
  await writeFile(join(folder, 'serverless.json'), JSON.stringify(values, null, 1))
  await writeFile(join(folder, 'template.yaml'), samText(stage, needs, ''))
  await writeFile(join(folder, 'key-policies.json'), keyPoliciesText(stage))
}

/** To be put into policies by hand: what only the deployed stack knows is named as its outputs are, `${IngestRoleArn}`. */
export const keyPoliciesText = (stage: Stage): string =>
  `${JSON.stringify(givenKeyPolicies(stage), (_, value: Value) => outputOf(value) ?? value, 2)}\n`

/** The name of the output that tells it; undefined where the value is known already. */
function outputOf(value: Value): string | undefined {
  if (typeof value !== 'object' || !('Fn::GetAtt' in value)) return undefined
  const [id, name] = [value['Fn::GetAtt']].flat()
  return typeof id === 'string' && name === 'Arn' ? `\${${id}Arn}` : undefined
}

/** The same files give the same bytes, on every day and in every time zone. */
async function zip(folder: string, file: string): Promise<void> {
  const archive = new ZipFile()
  const options = { mtime: new Date(2000, 0, 1), mode: 0o100_644, forceDosTimestamp: true }
  const names = await readdir(folder, { recursive: true, withFileTypes: true })
  for (const path of names
    .filter((one) => one.isFile())
    .map((one) => join(one.parentPath, one.name))
    .sort())
    archive.addFile(path, relative(folder, path), options)
  archive.end()
  await pipeline(archive.outputStream, createWriteStream(file))
}
