/** SAM CLI and cfn-lint, in a folder of our own: from PyPI where they are not there yet. Offline afterwards. */
import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir, rename, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)
const ROOT = join(import.meta.dirname, '../..')
const CACHE = join(ROOT, '.cache')
const PACKAGES = ['aws-sam-cli==1.170.0', 'cfn-lint==1.58.0']
const FOLDER = join(CACHE, PACKAGES.map((name) => name.replace('==', '-')).join('-'))
/** The longest that the installation takes. */
export const TOOLS_MS = 300_000

export interface DeploymentTools {
  /** What `sam validate --lint` finds wrong; empty where nothing is. */
  samFaults(template: string): Promise<string>
  /** What cfn-lint finds wrong, warnings too. */
  lintFaults(template: string): Promise<string>
  /** A SAM template as CloudFormation gets it: by SAM's own translator, which AWS runs too. */
  translate(template: string): Promise<unknown>
  /** Runs `sam` in the project's folder. */
  sam(args: readonly string[], environment: Readonly<Record<string, string>>): Promise<SamRun>
}

export interface SamRun {
  readonly status: number
  readonly stdout: string
  readonly stderr: string
}

const TRANSLATE = `
import json, sys
from samtranslator.translator.transform import transform
from samtranslator.yaml_helper import yaml_parse
class NoManagedPolicies:
    def load(self): return {}
template = yaml_parse(open(sys.argv[1]).read())
for resource in template['Resources'].values():
    if resource['Type'] == 'AWS::Serverless::Function':
        # As sam package writes it.
        resource['Properties']['CodeUri'] = 's3://packages/' + resource['Properties']['CodeUri']
print(json.dumps(transform(template, {}, NoManagedPolicies())))
`
const LINT = 'import sys; from cfnlint.runner import main; sys.exit(main())'

export async function deploymentTools(): Promise<DeploymentTools> {
  const python = join(FOLDER, 'bin', 'python')
  if (!existsSync(python)) await install()
  const options = {
    timeout: 60_000,
    maxBuffer: 16_777_216,
    // Where to deploy is all that it must know; nothing is asked there.
    env: { PATH: process.env['PATH'], HOME: FOLDER, AWS_DEFAULT_REGION: 'eu-west-1', SAM_CLI_TELEMETRY: '0' },
  }
  const faults = async (args: readonly string[]): Promise<string> => {
    try {
      await run(python, [...args], options)
      return ''
    } catch (error) {
      const { stdout, stderr } = error as { stdout?: string; stderr?: string }
      return `${stdout ?? ''}${stderr ?? ''}` || String(error)
    }
  }
  return {
    samFaults: (template) => faults(['-m', 'samcli', 'validate', '--lint', '--template', template]),
    lintFaults: (template) => faults(['-c', LINT, template]),
    translate: async (template) => {
      const { stdout } = await run(python, ['-c', TRANSLATE, template], options)
      return JSON.parse(stdout) as unknown
    },
    sam: (args, environment) =>
      new Promise((resolve) => {
        const all = { ...options, cwd: ROOT, env: { ...options.env, ...environment } }
        execFile(python, ['-m', 'samcli', ...args], all, (error, stdout, stderr) => {
          resolve({ status: error === null ? 0 : Number(error.code ?? 1), stdout, stderr })
        })
      }),
  }
}

/** A folder that was not finished has another name: it is never used. */
async function install(): Promise<void> {
  const draft = `${FOLDER}.${process.pid}`
  await mkdir(CACHE, { recursive: true })
  try {
    await run('python3', ['-m', 'venv', draft], { timeout: 60_000 })
    const pip = ['-m', 'pip', 'install', '--quiet', '--disable-pip-version-check', ...PACKAGES]
    await run(join(draft, 'bin', 'python'), pip, { timeout: TOOLS_MS - 60_000 })
    await rename(draft, FOLDER)
  } catch (error) {
    await rm(draft, { recursive: true, force: true })
    if (!existsSync(join(FOLDER, 'bin', 'python'))) throw error
  }
}
