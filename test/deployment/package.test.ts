/** npm run package: what it writes starts as it is deployed, and what does not fit is not packaged. */
import { execFile, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { inflateRawSync } from 'node:zlib'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { parse } from 'yaml'
import { buildFolder, Bundles, packageStage, stageNames, stagePath, STAGES } from '../../deploy/package.ts'
import { compiledFolder, compileServerless } from '../../scripts/package.ts'
import { templateFaults } from '../../lib/template-faults.ts'
import { nodeOf, ofType } from './compiled.ts'

const execute = promisify(execFile)
let folder: string
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'sealgate-package-'))
})
afterAll(() => {
  rmSync(folder, { recursive: true })
})

const FUNCTIONS = ['ingest', 'rotate', 'keys'] as const

describe('npm run package', () => {
  it('makes packages that start in Lambda’s place, the same bytes each time, ingest at most 2 MB', async () => {
    const bundles = new Bundles(folder)
    const { codeBytes } = await packageStage(stagePath('example'), bundles)
    expect(codeBytes.get('ingest')).toBeLessThanOrEqual(2_000_000)
    const zips = FUNCTIONS.map(zipDigest)
    const values: unknown = JSON.parse(
      readFileSync(join(buildFolder(folder), 'example/serverless.json'), 'utf8'),
    )
    await Promise.all(
      FUNCTIONS.map(async (name) => {
        const place = join(folder, 'lambda', name)
        const names = unzip(readFileSync(zipOf(name)), place)
        expect(names).toContain('index.mjs')
        expect(names.filter((file) => file.endsWith('.map'))).toEqual([])
        const { environment } = nodeOf(nodeOf(nodeOf(values)['functions'])[name])
        const told = Object.fromEntries(
          Object.entries(nodeOf(environment)).map(([key, value]) => [
            key,
            typeof value === 'string' ? value : arnFor(value),
          ]),
        )
        expect(await start(place, told)).toBe('function')
        if (name !== 'ingest') return
        const edited = { ...told, SEALGATE_FAILURE_MODE: 'partial', SEALGATE_ROOTS: 'none.json' }
        expect(await start(place, edited)).toMatch(/SEALGATE_ROOTS: [^]*SEALGATE_MAPPING_ANSWERS: /)
      }),
    )
    await packageStage(stagePath('example'), bundles)
    expect(FUNCTIONS.map(zipDigest)).toEqual(zips)
    // Three bundles and four processes take seconds, and more where others work too.
  }, 90_000)

  it('compiles serverless.yml by osls, offline, into a template without faults', () => {
    compileServerless('example', folder)
    const file = join(compiledFolder('example', folder), 'cloudformation-template-update-stack.json')
    const template: unknown = JSON.parse(readFileSync(file, 'utf8'))
    expect(templateFaults(template, file)).toEqual([])
    expect(ofType(template, 'AWS::Lambda::EventSourceMapping')).toHaveLength(2)
    // Since October 2025 a public function URL takes both, and the second only by the URL.
    const anybody = ofType(template, 'AWS::Lambda::Permission')
      .filter(({ properties }) => properties['Principal'] === '*')
      .map(({ properties: { Action, FunctionUrlAuthType, InvokedViaFunctionUrl } }) => [
        Action,
        FunctionUrlAuthType ?? InvokedViaFunctionUrl,
      ])
    expect(anybody).toEqual([
      ['lambda:InvokeFunctionUrl', 'NONE'],
      ['lambda:InvokeFunction', true],
    ])
    // All roles are ours: osls's own would have rights of every function.
    expect(ofType(template, 'AWS::IAM::Role').map(({ id }) => id)).toEqual([
      'IngestRole',
      'RotateRole',
      'KeysRole',
    ])
  })

  it('gives the gate alone the layer of traces, by either tool, with its wrapper and the right to write them', async () => {
    await packageStage(stagePath('example-iam'), new Bundles(folder))
    compileServerless('example-iam', folder)
    const osls = join(compiledFolder('example-iam', folder), 'cloudformation-template-update-stack.json')
    const sam = join(buildFolder(folder), 'example-iam', 'template.yaml')
    const layer = parse(readFileSync(stagePath('example-iam'), 'utf8')).tracing.layer
    for (const [file, type, traced] of [
      [osls, 'AWS::Lambda::Function', { TracingConfig: { Mode: 'Active' }, Layers: [layer] }],
      [sam, 'AWS::Serverless::Function', { Tracing: 'Active', Layers: [layer] }],
    ] as const) {
      const template: unknown = parse(readFileSync(file, 'utf8'))
      const [ingest, ...others] = ofType(template, type).map(({ properties }) => properties)
      expect(ingest).toMatchObject(traced)
      expect(nodeOf(nodeOf(ingest?.['Environment'])['Variables'])).toMatchObject({
        AWS_LAMBDA_EXEC_WRAPPER: '/opt/otel-instrument',
        OTEL_AWS_APPLICATION_SIGNALS_ENABLED: 'false',
      })
      expect(others).toHaveLength(2)
      for (const other of others) {
        expect(Object.keys(other)).not.toContain('Layers')
        expect(JSON.stringify(other)).not.toContain('EXEC_WRAPPER')
      }
      const writers = ofType(template, 'AWS::IAM::Policy').filter(({ properties }) =>
        JSON.stringify(properties).includes('xray:'),
      )
      expect(writers.map(({ properties }) => properties['Roles'])).toEqual([['IngestRole']])
      expect(nodeOf(writers[0]?.properties['PolicyDocument'])['Statement']).toContainEqual({
        Effect: 'Allow',
        Action: ['xray:PutTelemetryRecords', 'xray:PutTraceSegments'],
        Resource: '*',
      })
    }
  }, 90_000)

  it('stops at missing and contradictory parameters with all of them named, and leaves no package', () => {
    const path = join(folder, 'broken.yml')
    const text = readFileSync(join(STAGES, 'example.yml'), 'utf8')
    writeFileSync(
      path,
      text.replace('failureMode: throw', 'failureMode: partial').replace(/^region: .*$/m, ''),
    )
    const { status, stderr, stdout } = run(path)
    expect(status).toBe(2)
    expect(stdout).toBe('')
    const lines = stderr.trim().split('\n')
    expect(lines.map((line) => /broken\.yml: ([a-zA-Z.]+)/.exec(line)?.[1]).sort()).toEqual([
      ...['cluster.arn', 'failureMode', 'region', 'rotation'],
    ])
    expect(existsSync(join(buildFolder(join(STAGES, '../..')), 'broken'))).toBe(false)
    expect(run('none').stderr).toContain('There is no such stage')
  })

  it('says how it is called, to whoever asks and to whoever calls it otherwise', () => {
    expect(run('--help')).toMatchObject({ status: 0, stdout: expect.stringContaining('[-- STAGE…]') })
    expect(run('--stage')).toMatchObject({ status: 2, stderr: expect.stringContaining('[-- STAGE…]') })
  })

  it('stops at what the functions themselves would refuse to start with', () => {
    const text = readFileSync(join(STAGES, 'example.yml'), 'utf8')
    const whole = text
      .replaceAll('example/', join(STAGES, 'example/'))
      .replace('../../contracts', join(STAGES, '../../contracts'))
    const path = join(folder, 'unfit.yml')
    writeFileSync(
      path,
      whole
        .replace('ingress.payments: payments', 'ingress.payments: refunds')
        .replace(/^pseudonyms: .*$/m, ''),
    )
    const { status, stderr } = run(path)
    expect(status).toBe(2)
    expect(stderr).toContain('SEALGATE_CHANNELS: No contract has the channel refunds')
    expect(stderr).toContain('SEALGATE_PSEUDONYMS: It is not set')
    writeFileSync(path, whole.replace(/^ {2}(fulfilment|accounting): .*$/gm, ''))
    expect(run(path).stderr).toMatch(
      /producers: fulfilment is not in it[^]*consumers: accounting is not in it/,
    )
    const more = 'settings: { SEALGATE_MAX_LIFE_SECONDS: "1e9", SEALGATE_TYPO: x }'
    writeFileSync(path, `${whole}\n${more}\n`)
    expect(run(path).stderr).toMatch(
      /SEALGATE_TYPO: No setting[^]*SEALGATE_MAX_LIFE_SECONDS: It is not such a number/,
    )
    writeFileSync(path, `${whole}\nsettings: { SEALGATE_FAILURE_MODE: partial }\n`)
    expect(run(path).stderr).toContain('settings.SEALGATE_FAILURE_MODE: Another parameter')
    expect(existsSync(join(buildFolder(join(STAGES, '../..')), 'unfit'))).toBe(false)
  })

  it('has for every example stage what sam deploy takes from samconfig.toml', async () => {
    const config = readFileSync(join(STAGES, '../../samconfig.toml'), 'utf8')
    for (const name of await stageNames()) {
      const { region } = parse(readFileSync(stagePath(name), 'utf8'))
      const section = name === 'example' ? 'default' : name
      const globals = config.split(`[${section}.global.parameters]`)[1]?.split('\n[')[0] ?? ''
      expect(globals).toContain(`stack_name = "sealgate-${name}"`)
      expect(globals).toContain(`region = "${region}"`)
      const deploy = config.split(`[${section}.deploy.parameters]`)[1]?.split('\n[')[0] ?? ''
      expect(deploy).toContain(`template_file = "build/deploy/${name}/template.yaml"`)
    }
  })
})

const run = (stage: string) =>
  spawnSync(process.execPath, [join(STAGES, '../../scripts/package.ts'), stage], {
    encoding: 'utf8',
    timeout: 25_000,
  })

const zipOf = (name: string): string => join(buildFolder(folder), 'example', `${name}.zip`)

const zipDigest = (name: string): string =>
  createHash('sha256')
    .update(readFileSync(zipOf(name)))
    .digest('hex')

/** Loads it in a process of its own, as Lambda does: the handler's type, or why it does not start. */
async function start(cwd: string, told: Record<string, string>): Promise<string> {
  const script = `import('./index.mjs').then(({ handler }) => console.log(typeof handler), (error) => console.log(error.message))`
  const env = { ...told, AWS_LAMBDA_FUNCTION_NAME: 'test', AWS_REGION: 'eu-west-1' }
  const { stdout } = await execute(process.execPath, ['-e', script], { cwd, env, timeout: 20_000 })
  return stdout.trim()
}

const arnFor = (value: unknown): string =>
  JSON.stringify(value).includes('SigningKey')
    ? 'arn:aws:kms:eu-west-1:123456789012:key/1234abcd'
    : 'arn:aws:secretsmanager:eu-west-1:123456789012:secret:AmazonMSK_x-AbCdEf'

/** Files of a zip (APPNOTE 4.3.12: the central directory), put into a folder; resolves to their names. */
function unzip(zip: Buffer, to: string): string[] {
  const end = zip.lastIndexOf(Buffer.from('PK\x05\x06', 'latin1'))
  const names: string[] = []
  let at = zip.readUInt32LE(end + 16)
  for (let left = zip.readUInt16LE(end + 10); left > 0; left--) {
    const [packed, nameLength, extra, comment, local] = [
      zip.readUInt32LE(at + 20),
      zip.readUInt16LE(at + 28),
      zip.readUInt16LE(at + 30),
      zip.readUInt16LE(at + 32),
      zip.readUInt32LE(at + 42),
    ]
    const name = zip.toString('utf8', at + 46, at + 46 + nameLength)
    const data = local + 30 + zip.readUInt16LE(local + 26) + zip.readUInt16LE(local + 28)
    if (names.length === 0) mkdirSync(to, { recursive: true })
    const content = zip.subarray(data, data + packed)
    writeFileSync(join(to, name), zip.readUInt16LE(at + 10) === 8 ? inflateRawSync(content) : content)
    names.push(name)
    at += 46 + nameLength + extra + comment
  }
  return names
}
