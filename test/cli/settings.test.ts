/** Where commands work: flags before environment before sealgate.yaml, and all that is wrong with them at once. */
import { execFileSync, spawn } from 'node:child_process'
import { chmod, mkdir, mkdtemp, readFile, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { choosePlace, type PlaceFlags } from '../../cli/place-settings.ts'
import { readEventSettings, readTopicSettings } from '../../cli/settings.ts'
import { readSettingsFile } from '../../cli/settings-file.ts'
import { exportPrivateJwk, exportPublicJwk, generateKeyPair } from '../../lib/envelope/crypto.ts'
import { ED25519 } from '../../lib/envelope/suite.ts'
import { ConfigError } from '../../lib/errors.ts'
import { ORDER_CONTRACT } from '../shop.ts'
import { sealgate } from './terminal.ts'

let folder: string
let file: string
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'sealgate-settings-'))
  file = join(folder, 'sealgate.yaml')
})
afterEach(() => rm(folder, { recursive: true, force: true }))

const write = async (text: string, mode = 0o600): Promise<void> => {
  await writeFile(file, text)
  await chmod(file, mode)
}

const faultsOf = async (work: () => unknown): Promise<readonly string[]> => {
  try {
    await work()
  } catch (error) {
    if (error instanceof ConfigError) return error.message.split('\n')
    throw error
  }
  throw new Error('nothing was refused')
}

type Environment = Record<string, string>

const given = (flags: PlaceFlags = {}, environment: Environment = {}) => {
  const place = choosePlace(flags, environment, file)
  if ('folder' in place) throw new Error('no cluster')
  return place.cluster
}

const CLUSTER = `deployment: shop
kafka:
  brokers: [b-1.example.com:9096, b-2.example.com:9096]
  sasl: { mechanism: scram-sha-512, username: ann, passwordFile: secret }
`

const withFiles = async (): Promise<void> => {
  await writeFile(join(folder, 'secret'), 'hush', { mode: 0o600 })
}

describe('the place of a command', () => {
  it('is the embedded stack where nothing says otherwise, and what is named before what is found', async () => {
    expect(choosePlace({}, {}, file)).toEqual({ folder: '.sealgate' })
    expect(choosePlace({}, { SEALGATE_LOCAL: 'x' }, file)).toEqual({ folder: 'x' })
    await write('local: stack')
    expect(choosePlace({}, {}, file)).toEqual({ folder: join(folder, 'stack') })
    await write('kafka: { brokers: [f:1] }')
    expect(choosePlace({}, {}, file)).toMatchObject({ cluster: { file } })
    expect(choosePlace({}, { SEALGATE_LOCAL: 'x' }, file)).toEqual({ folder: 'x' })
    expect(choosePlace({ folder: 'y' }, { SEALGATE_LOCAL: 'x' }, file)).toEqual({ folder: 'y' })
    expect(choosePlace({ settings: file }, { SEALGATE_LOCAL: 'x' }, 'none')).toMatchObject({
      cluster: { file },
    })
  })

  it('is named once', async () => {
    const both = { SEALGATE_LOCAL: 'x', SEALGATE_KAFKA_BROKERS: 'e:1' }
    expect(await faultsOf(() => choosePlace({}, both, file))).toEqual([expect.stringContaining('beside')])
    expect(await faultsOf(() => choosePlace({ folder: 'x', brokers: 'f:1' }, {}, file))).toEqual([
      expect.stringContaining('--folder: It is set beside'),
    ])
    await write('local: x\nkafka: { brokers: [f:1] }')
    expect(await faultsOf(() => choosePlace({}, {}, file))).toEqual([
      expect.stringContaining('kafka.brokers'),
    ])
  })

  it('goes by flags, then the environment, then the file', async () => {
    await withFiles()
    await write(CLUSTER)
    const brokers = (flags: PlaceFlags, environment: Environment = {}) =>
      readTopicSettings(given(flags, environment), false).kafka.brokers
    expect(brokers({})).toEqual(['b-1.example.com:9096', 'b-2.example.com:9096'])
    expect(brokers({}, { SEALGATE_KAFKA_BROKERS: 'e:1' })).toEqual(['e:1'])
    expect(brokers({ brokers: 'f:1,f:2' }, { SEALGATE_KAFKA_BROKERS: 'e:1' })).toEqual(['f:1', 'f:2'])
    const environment = { SEALGATE_KAFKA_SASL_PASSWORD: 'other', SEALGATE_AUDIT_TOPIC: 'trail' }
    const settings = readTopicSettings(given({}, environment), false)
    expect(settings).toMatchObject({ auditTopic: 'trail', quarantineTopic: 'shop.quarantine' })
    expect(settings.kafka.sasl).toMatchObject({ login: { name: 'ann', secret: { text: 'other' } } })
  })
})

describe('sealgate.yaml', () => {
  it('holds the settings of the environment by their names in camelCase, files from its own folder on', async () => {
    await write(`local: stack
contracts: /elsewhere
directory: s3://bucket/key
roots: ../roots.json
signingKeys: { shop-web: file:web.jwk, other: "arn:aws:kms:x" }
kafka: { sasl: { passwordFile: secret }, ssl: { ca: ca.pem }, requestTimeoutMs: 5000, insecurePlaintext: true }`)
    const texts = readSettingsFile(file).map(({ name, text }) => [name, text])
    expect(Object.fromEntries(texts)).toEqual({
      SEALGATE_LOCAL: join(folder, 'stack'),
      SEALGATE_CONTRACTS: '/elsewhere',
      SEALGATE_DIRECTORY: 's3://bucket/key',
      SEALGATE_ROOTS: join(folder, '..', 'roots.json'),
      SEALGATE_SIGNING_KEYS: `shop-web=file:${join(folder, 'web.jwk')},other=arn:aws:kms:x`,
      SEALGATE_KAFKA_SASL_PASSWORD_FILE: join(folder, 'secret'),
      SEALGATE_KAFKA_SSL_CA: join(folder, 'ca.pem'),
      SEALGATE_KAFKA_REQUEST_TIMEOUT_MS: '5000',
      SEALGATE_KAFKA_INSECURE_PLAINTEXT: 'true',
    })
  })

  it('has all its faults told at once, each with its line', async () => {
    await write(`deployment: "no name"
topics: { a: b, c: "no topic" }
contracts: none
keyService: gcp
kafka:
  brokers: [nowhere]
  brokres: x
  sasl: { mechanism: magic }
`)
    const faults = await faultsOf(() => readEventSettings(given()))
    const at = (line: number, what: string): unknown => expect.stringContaining(`${file}:${line}: ${what}`)
    expect(faults).toEqual(
      expect.arrayContaining([
        at(1, 'deployment: '),
        at(2, 'topics: '),
        at(3, 'contracts: '),
        at(4, 'keyService: It is no key service.'),
        at(6, 'kafka.brokers: It is not host:port.'),
        at(7, 'kafka.brokres: No setting has this name.'),
        at(8, 'kafka.sasl.mechanism: '),
        expect.stringContaining(`${file}: name: It is not set.`),
        expect.stringContaining(`${file}: directory: It is not set.`),
        expect.stringContaining(`${file}: roots: It is not set.`),
      ]),
    )
    expect(faults).toHaveLength(10)
  })

  it('is as the manual shows it', async () => {
    const manual = await readFile(new URL('../../docs/cli.md', import.meta.url), 'utf8')
    const [, example = ''] = /```yaml\n([^]*?)```/.exec(manual) ?? []
    await write(example)
    await writeFile(join(folder, 'ann.password'), 'hush', { mode: 0o600 })
    // The files that it names are not here, and nothing else is wrong with it.
    const faults = await faultsOf(() => readEventSettings(given()))
    expect(faults.map((fault) => /: ([\w.]+): /.exec(fault)?.[1]).sort()).toEqual(
      ['contracts', 'directory', 'kafka.ssl.ca', 'roots', 'signingKeys'].sort(),
    )
  })

  it('is read as YAML, strictly', async () => {
    const cases: readonly (readonly [string, string])[] = [
      ['', 'It holds no settings.'],
      ['- a', 'It holds no settings.'],
      ['a: [', 'The YAML is not sound'],
      ['a: 1\na: 2', 'The YAML is not sound'],
      ['name:', 'name: It is empty, or no text.'],
      ['a: &x b\nc: *x', ':2: c: It is empty, or no text.'],
      ['channels: { a: [b] }', 'channels: It is empty, or no text.'],
      ['channels: { "a,b": c }', 'channels: It is empty, or no text.'],
      ['kafka: { brokers: [{ a: b }] }', 'kafka.brokers: It is empty, or no text.'],
      ['SEALGATE_NAME: x', 'SEALGATE_NAME is no name of a setting. Write it in camelCase.'],
      ['__proto__: { a: b }', '__proto__ is no name of a setting.'],
      [`kafka: ${'['.repeat(20_000)}${']'.repeat(20_000)}`, 'The YAML is not sound'],
      [`a: ${'x'.repeat(300_000)}`, 'It is longer than'],
    ]
    for (const [text, what] of cases) {
      await write(text)
      expect(await faultsOf(() => readSettingsFile(file)), text.slice(0, 40)).toEqual([
        expect.stringContaining(what),
      ])
    }
    await writeFile(file, Buffer.from([0x61, 0x3a, 0xff]))
    expect(await faultsOf(() => readSettingsFile(file))).toEqual([expect.stringContaining('in UTF-8')])
    expect(await faultsOf(() => given({ settings: join(folder, 'none') }))).toEqual([
      expect.stringContaining('cannot be read (ENOENT)'),
    ])
    expect(await faultsOf(() => given({ settings: folder }))).toEqual([
      expect.stringContaining('It is no file.'),
    ])
  })

  it('is refused where others can write it, and with a secret in it where they can read it', async () => {
    await write(CLUSTER, 0o664)
    expect(await faultsOf(() => given())).toEqual([expect.stringContaining(`chmod go-w ${file}`)])
    const inline = CLUSTER.replace('passwordFile: secret', 'password: swordfish')
    await write(inline, 0o644)
    const [fault = ''] = await faultsOf(() => given())
    expect(fault).toContain(`${file}:4: kafka.sasl.password: others can read this file`)
    expect(fault).not.toContain('swordfish')
    await withFiles()
    await write(inline, 0o600)
    expect(readTopicSettings(given(), false).kafka.sasl).toMatchObject({
      login: { secret: { text: 'swordfish' } },
    })
    await write(CLUSTER, 0o644)
    await chmod(join(folder, 'secret'), 0o640)
    expect(await faultsOf(() => readTopicSettings(given(), false))).toEqual([
      `${file}:4: kafka.sasl.passwordFile: Others can read ${join(folder, 'secret')}. chmod 600 ${join(folder, 'secret')}`,
    ])
  })

  it('gives what sealing needs: contracts of a folder or a bundle, roots, and keys that only we can read', async () => {
    const { privateKey, publicKey } = generateKeyPair(ED25519)
    await withFiles()
    await mkdir(join(folder, 'contracts'))
    await writeFile(join(folder, 'contracts', 'order.yaml'), ORDER_CONTRACT)
    await writeFile(join(folder, 'roots.json'), JSON.stringify(exportPublicJwk(publicKey)))
    await writeFile(join(folder, 'directory.jws'), '')
    const key = join(folder, 'web.jwk')
    await writeFile(key, JSON.stringify(exportPrivateJwk(privateKey)), { mode: 0o600 })
    const text = `${CLUSTER}name: gateway
contracts: contracts
directory: directory.jws
roots: roots.json
signingKeys: { shop-web: file:web.jwk, shipping: "arn:aws:kms:eu-west-1:000000000000:key/1" }
signingKids: { shipping: k-7 }
`
    await write(text)
    const settings = await readEventSettings(given())
    expect(settings.contracts.all).toHaveLength(1)
    expect(settings.directory).toMatchObject({
      gateway: 'gateway',
      directory: { kind: 'file', path: join(folder, 'directory.jws') },
    })
    expect(settings.directory.roots).toHaveLength(1)
    expect(settings.keyServiceFolder).toBeUndefined()
    expect(Object.keys(settings.signing.get('shop-web') ?? {})).toEqual(['key'])
    expect(settings.signing.get('shipping')).toEqual({
      arn: 'arn:aws:kms:eu-west-1:000000000000:key/1',
      kid: 'k-7',
    })
    await chmod(key, 0o644)
    await writeFile(join(folder, 'contracts', 'order.yaml'), 'contract: sealgate/9')
    const faults = await faultsOf(() => readEventSettings(given()))
    expect(faults).toContainEqual(expect.stringContaining(`Others can read ${key}. chmod 600 ${key}`))
    expect(faults).toContainEqual(expect.stringContaining('order.yaml:1: '))
  })
})

describe('a secret in the wrong place', () => {
  it('is not told', async () => {
    const key = `-----BEGIN PRIVATE KEY-----\n${'secret'.repeat(1000)}`
    const jwk = '{"kty":"OKP","d":"secret"}'
    await write(CLUSTER.replace('sasl:', `ssl: { key: ${JSON.stringify(key)} }\n  sasl:`))
    await withFiles()
    const environments = [
      {},
      { SEALGATE_KAFKA_SSL_KEY: key },
      { SEALGATE_KAFKA_SASL_PASSWORD_FILE: 'secret'.repeat(10_000) },
      { SEALGATE_SIGNING_KEYS: `shop-web=${jwk}`, SEALGATE_CONTRACTS: key, SEALGATE_KEY_SERVICE: key },
      { SEALGATE_CHANNELS: `a=${jwk}`, SEALGATE_ROOTS: jwk },
    ]
    for (const environment of environments) {
      const { out, err, status } = await sealgate(['tail', 'x', '--settings', file], { env: environment })
      expect(status).toBe(2)
      expect(out + err, Object.keys(environment).join()).not.toMatch(/secret\b/)
    }
  })
})

describe('a settings file', () => {
  it('that is a pipe is not waited for', async () => {
    execFileSync('mkfifo', [file])
    expect(await faultsOf(() => given())).toEqual([expect.stringContaining('It is no file.')])
  })

  it('names files beside itself, not beside a link to it', async () => {
    await write('directory: directory.jws')
    await mkdir(join(folder, 'elsewhere'))
    const link = join(folder, 'elsewhere', 'sealgate.yaml')
    await symlink(file, link)
    expect(readSettingsFile(link).map(({ text }) => text)).toEqual([join(folder, 'directory.jws')])
  })

  it('is found in the working directory of a process', async () => {
    await write('kafka: { brokers: [x] }')
    const bin = fileURLToPath(new URL('../../bin/sealgate.js', import.meta.url))
    const child = spawn(process.execPath, [bin, 'quarantine', 'list'], {
      cwd: folder,
      env: { PATH: process.env['PATH'] },
    })
    let err = ''
    child.stderr.on('data', (chunk: Buffer) => (err += chunk.toString()))
    expect(await new Promise((resolve) => child.once('close', resolve))).toBe(2)
    expect(err.split('\n').slice(0, 2)).toEqual([
      expect.stringContaining('fault sealgate.yaml:1: kafka.brokers: It is not host:port.'),
      expect.stringContaining('fault sealgate.yaml: deployment: '),
    ])
  }, 20_000)
})

describe('the flags of a place', () => {
  it('take no password', async () => {
    for (const command of [
      ['send', '-'],
      ['tail', 'x'],
      ['audit', 'verify'],
      ['quarantine', 'list'],
    ]) {
      const { err, status } = await sealgate([...command, '--password', 'x'])
      expect([status, err]).toEqual([2, expect.stringContaining("unknown option '--password'")])
    }
  })

  it('name every fault of the settings, and exit 2', async () => {
    await write('kafka: { brokers: [x] }')
    const { out, err, status } = await sealgate(['tail', 'x', '--settings', file])
    expect([out, status]).toEqual(['', 2])
    expect(err.split('\n')).toEqual([
      expect.stringContaining(`fault ${file}:1: kafka.brokers: `),
      expect.stringContaining(`fault ${file}: deployment: `),
      expect.stringContaining(`fault ${file}: name: `),
      expect.stringContaining(`fault ${file}: directory: `),
      expect.stringContaining(`fault ${file}: roots: `),
      expect.stringContaining(`fault ${file}: contracts: `),
    ])
  })
})
