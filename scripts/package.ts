/**
 * `npm run package [-- STAGE…]`: packages stages of deploy/stages (all, where none is named) or of files elsewhere, offline: bundles and zips in
 * build/deploy/STAGE, SAM's template beside them, what osls deploys in serverless/; the example's as template.yaml too.
 */
import { spawnSync } from 'node:child_process'
import { copyFileSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { needsOf } from '../deploy/rights.ts'
import {
  buildFolder,
  Bundles,
  packageStage,
  readParts,
  samText,
  stageNames,
  stagePath,
  STAGES,
} from '../deploy/package.ts'
import { ConfigError, describeFault } from '../lib/errors.ts'

const ROOT = join(import.meta.dirname, '..')
/** The gate's code may be no larger: what a cold start reads. */
const MAX_INGEST_BYTES = 2_000_000

/** What stands in the repository as template.yaml, for the stage `example`. */
export async function exampleTemplate(): Promise<string> {
  const { stage, contracts } = await readParts(join(STAGES, 'example.yml'))
  return samText(stage, needsOf(stage, contracts), 'build/deploy/example/')
}

/** Where osls's deployment of a stage lies: for osls deploy --package. */
export const compiledFolder = (stage: string, root: string = ROOT): string =>
  join(buildFolder(root), stage, 'serverless')

/** Compiles serverless.yml for a packaged stage. */
export function compileServerless(stage: string, root: string = ROOT): void {
  if (root !== ROOT) copyFileSync(join(ROOT, 'serverless.yml'), join(root, 'serverless.yml'))
  const osls = join(createRequire(import.meta.url).resolve('osls/package.json'), '../bin/serverless.js')
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    [osls, 'package', '--stage', stage, '--package', compiledFolder(stage, root)],
    // Nothing is asked of AWS; credentials that happen to be there are none of its business.
    { cwd: root, encoding: 'utf8', env: { PATH: process.env['PATH'], HOME: process.env['HOME'], CI: '1' } },
  )
  if (status !== 0) throw new Error(`osls package --stage ${stage}:\n${`${stdout}${stderr}`.slice(0, 4000)}`)
}

const USAGE = `npm run package [-- STAGE…]
Packages stages of deploy/stages, or .yml files elsewhere, into build/deploy: all of deploy/stages where none is named.`

async function main(asked: readonly string[]): Promise<void> {
  const flag = asked.find((name) => name.startsWith('-'))
  if (flag !== undefined) {
    const isHelp = flag === '--help' || flag === '-h'
    if (isHelp) process.stdout.write(`${USAGE}\n`)
    else process.stderr.write(`npm run package: It does not take ${flag}. ${USAGE}\n`)
    process.exitCode = isHelp ? 0 : 2
    return
  }
  const stages = asked.length === 0 ? await stageNames() : asked
  const bundles = new Bundles()
  const faults: string[] = []
  for (const name of stages) {
    try {
      const { stage, codeBytes } = await packageStage(stagePath(name), bundles)
      compileServerless(stage.name)
      const sizes = [...codeBytes].map(([one, bytes]) => `${one} ${(bytes / 1e6).toFixed(2)} MB`)
      process.stdout.write(`${stage.name}: ${sizes.join(', ')}; build/deploy/${stage.name}\n`)
      if ((codeBytes.get('ingest') ?? 0) > MAX_INGEST_BYTES) faults.push('ingest is larger than 2 MB')
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error
      faults.push(...error.faults.map(describeFault))
    }
  }
  if (stages.includes('example') && faults.length === 0)
    await writeFile(join(ROOT, 'template.yaml'), await exampleTemplate())
  for (const fault of faults) process.stderr.write(`${fault}\n`)
  if (faults.length > 0) process.exitCode = 2
}

if (import.meta.main) await main(process.argv.slice(2))
