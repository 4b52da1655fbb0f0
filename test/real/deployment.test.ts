/** Both tools' compiled templates of every example stage: clean by AWS's own checks, offline, and the same deployment. */
import { readFileSync, writeFileSync } from 'node:fs'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Bundles, packageStage, stagePath, STAGES } from '../../deploy/package.ts'
import { templateFaults } from '../../lib/template-faults.ts'
import { compiledFolder, compileServerless } from '../../scripts/package.ts'
import { differences } from '../deployment/agreement.ts'
import { ofType } from '../deployment/compiled.ts'
import { type DeploymentTools, deploymentTools, TOOLS_MS } from './deployment-tools.ts'

const EXAMPLES = ['example', 'example-iam', 'example-mtls', 'example-self-managed']

let tools: DeploymentTools
let root: string
let bundles: Bundles
beforeAll(async () => {
  tools = await deploymentTools()
  root = await mkdtemp(join(tmpdir(), 'sealgate-deployment-'))
  bundles = new Bundles(root)
}, TOOLS_MS)
afterAll(async () => {
  await rm(root, { recursive: true })
})

describe.each(EXAMPLES)('the deployment %s', (name) => {
  let compiled: string
  let folder: string
  let osls: unknown
  let sam: unknown
  beforeAll(async () => {
    ;({ folder } = await packageStage(stagePath(name), bundles))
    compileServerless(name, root)
    compiled = join(compiledFolder(name, root), 'cloudformation-template-update-stack.json')
    osls = JSON.parse(readFileSync(compiled, 'utf8'))
    sam = await tools.translate(join(folder, 'template.yaml'))
  })

  it('is clean by sam validate --lint, and both compiled templates by cfn-lint', async () => {
    const translated = join(folder, 'template.compiled.json')
    writeFileSync(translated, JSON.stringify(sam))
    const template = join(folder, 'template.yaml')
    const faults = [tools.samFaults(template), tools.lintFaults(compiled), tools.lintFaults(translated)]
    expect(await Promise.all(faults)).toEqual(['', '', ''])
  })

  it('is the same by either tool: functions, triggers, rights, failure mode, environment', () => {
    expect(ofType(osls, 'AWS::Lambda::Function')).toHaveLength(3)
    expect(ofType(osls, 'AWS::Lambda::EventSourceMapping')).toHaveLength(2)
    expect(differences(osls, sam)).toEqual([])
    expect(templateFaults(osls, 'osls')).toEqual([])
    expect(templateFaults(sam, 'sam')).toEqual([])
  })

  it('would be found to differ in a single word', () => {
    const text = JSON.stringify(sam)
    for (const [from, to] of [
      ['"kms:Sign"', '"kms:Verify"'],
      ['"Timeout":60', '"Timeout":61'],
      ['TRIM_HORIZON', 'LATEST'],
      ['rate(1 hour)', 'rate(1 day)'],
      ['"SEALGATE_FAILURE_MODE":"', '"SEALGATE_FAILURE_MODE":"x'],
      ['"SEALGATE_NAME"', '"SEALGATE_NAMES"'],
    ] as const) {
      const edited = text.replace(from, to)
      expect(edited).not.toBe(text)
      expect(differences(osls, JSON.parse(edited)).length).toBeGreaterThan(0)
    }
  })
})

describe('the checks', () => {
  it('find what is wrong with a template', async () => {
    const file = join(root, 'broken.yaml')
    const text = readFileSync(join(STAGES, '../../template.yaml'), 'utf8')
    writeFileSync(file, text.replace("Type: 'AWS::SQS::Queue'", "Type: 'AWS::SQS::Queues'"))
    const [sam, lint] = await Promise.all([tools.samFaults(file), tools.lintFaults(file)])
    expect(sam).toContain('AWS::SQS::Queues')
    expect(lint).toContain('AWS::SQS::Queues')
  })
})
