/** The packed package, installed into a project of its own. */
import { execFile } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'

const run = promisify(execFile)
const root = join(import.meta.dirname, '..')
const node24 = join(root, 'node_modules', '.bin', 'node')
const TWO_MINUTES = 120_000

/** Seals and opens an event with nothing but the package and a key service of its own. */
const ROUND_TRIP = `
import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto'
import { createDirectory, createOpener, createSealer, ED25519, exportPublicJwk, generateKeyPair, localSigner,
  sealDirectory, systemClock } from 'sealgate'

const master = randomBytes(32)
const bound = (context) => Buffer.from(JSON.stringify(Object.entries(context).sort()))
const keyService = {
  async generate(kek, context) {
    const dataKey = randomBytes(32)
    const nonce = randomBytes(12)
    const cipher = createCipheriv('aes-256-gcm', master, nonce).setAAD(bound(context))
    const wrapped = Buffer.concat([nonce, cipher.update(dataKey), cipher.final(), cipher.getAuthTag()])
    return { dataKey, wrapped }
  },
  async unwrap(kek, wrapped, context) {
    const decipher = createDecipheriv('aes-256-gcm', master, wrapped.subarray(0, 12)).setAAD(bound(context))
    decipher.setAuthTag(wrapped.subarray(-16))
    return Buffer.concat([decipher.update(wrapped.subarray(12, -16)), decipher.final()])
  },
}

const root = generateKeyPair(ED25519)
const shipping = generateKeyPair(ED25519)
const signer = localSigner(shipping.privateKey)
const now = Math.floor(Date.now() / 1000)
const bytes = await sealDirectory({
  directory: 'sealgate/1', version: 1, issuedAt: now, expiresAt: now + 3600,
  signingKeys: [{ kid: Buffer.from(signer.kid).toString('base64url'), iss: 'shipping', alg: 'Ed25519',
    jwk: exportPublicJwk(shipping.publicKey), state: 'active', notBefore: now - 60, notAfter: now + 3600, compromisedAt: null }],
  keks: [{ kekId: 'orders', provider: 'memory', key: 'orders', iss: ['shipping'] }],
}, localSigner(root.privateKey), Date.now() + 5000)
const source = { read: async () => ({ bytes, etag: '1' }) }
const directory = createDirectory({ source, roots: [root.publicKey], clock: systemClock })

const records = []
const sealer = createSealer({ iss: 'shipping', audience: 'consumer', signer, keyService, partitions: 3,
  kek: { kekId: 'orders', provider: 'memory', key: 'orders' }, deliver: async ({ topic, messages }) => {
    for (const { partition, ...message } of messages)
      records.push({ topic, partition, message: { ...message, timestamp: String(Date.now()), offset: '0' } })
  } })
const opener = createOpener({ audience: 'consumer', issuers: ['shipping'], directory, keyService })
await sealer.send('orders', [1, 2, 3].map((n) => ({ source: '/shipping', type: 'shipped', key: 'k', data: { n } })))
const opened = await Promise.all(records.map((record) => opener.open(record)))
const moved = await opener.open({ ...records[0], topic: 'payments' })
await sealer.close()
opener.close()
console.log(JSON.stringify({ node: process.versions.node.split('.')[0], data: opened.map(({ event }) => event?.data), moved: moved.code }))
`

/** What a project in TypeScript writes; its types are checked against the declarations, those of all dependencies too. */
const TYPED = `
import { Kafka } from 'kafkajs'
import { createOpener, createSealer, type EventInput, kmsKeyService, type Opened, type OpenerOptions, Outage,
  RefusedEvents, type SealerOptions, systemClock } from 'sealgate'

declare const options: Omit<SealerOptions, 'keyService' | 'deliver' | 'partitions'>
declare const opening: OpenerOptions
const kafka = new Kafka({ brokers: ['localhost:9092'] })
const producer = kafka.producer()
const sealer = createSealer({
  ...options,
  keyService: kmsKeyService({ clock: systemClock }),
  partitions: async (topic) => {
    const { topics } = await kafka.admin().fetchTopicMetadata({ topics: [topic] })
    return topics[0]?.partitions.length ?? 0
  },
  deliver: (batch) => producer.send({ acks: -1, ...batch }),
})
const event: EventInput = { source: '/shipping', type: 'shipped', data: { n: 1 }, key: 'k' }
await sealer.send('orders', [event])
await producer.send(await sealer.seal('orders', event))
// @ts-expect-error an event without a type
await sealer.send('orders', { source: '/shipping', data: 1 })

const opener = createOpener(opening)
await kafka.consumer({ groupId: 'g' }).run({
  eachMessage: async (record) => {
    const opened: Opened = await opener.open(record)
    if (opened.opened) console.log(opened.event.type, opened.event.data, opened.payload.length)
    else console.log(opened.code, opened.reason)
  },
})
await kafka.consumer({ groupId: 'g' }).run({
  eachBatch: async ({ batch }) => {
    for (const opened of await opener.openBatch(batch)) console.log(opened.opened)
  },
})
export const isKnown = (error: unknown): boolean => error instanceof Outage || error instanceof RefusedEvents
`

describe('the packed package', () => {
  let folder: string
  let files: string[]

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'sealgate-package-'))
    const packed = await run('npm', ['pack', '--json', '--pack-destination', folder], {
      cwd: root,
      timeout: TWO_MINUTES,
    })
    // What the build prints comes first.
    const list: unknown = JSON.parse(packed.stdout.slice(packed.stdout.search(/^[[{]/m)))
    files = JSON.stringify(list).match(/(?<="path":")[^"]*/g) ?? []
    const project = { name: 'consumer', private: true, type: 'module', allowScripts: { node: true } }
    await writeFile(join(folder, 'package.json'), JSON.stringify(project))
    await writeFile(join(folder, 'round-trip.js'), ROUND_TRIP)
    await writeFile(join(folder, 'typed.ts'), TYPED)
    const tarball = join(folder, `sealgate-${await versionOf(root)}.tgz`)
    const install = ['install', '--prefer-offline', '--no-audit', '--no-fund', tarball, 'node@22.23.3']
    await run('npm', install, { cwd: folder, timeout: TWO_MINUTES })
  }, 2 * TWO_MINUTES)

  afterAll(async () => {
    await rm(folder, { recursive: true, force: true })
  })

  it('holds compiled JavaScript with declarations, and no sources, tests or keys', () => {
    expect(files).toContain('dist/lib/client/sealgate.js')
    expect(files).toContain('dist/lib/client/sealgate.d.ts')
    expect(files).toContain('bin/sealgate.js')
    const strange = files.filter(
      (path) =>
        /(^|\/)(test|bench|node_modules|\.sealgate)\//.test(path) ||
        (/\.ts$/.test(path) && !/\.d\.ts$/.test(path)),
    )
    expect(strange).toEqual([])
  })

  it.each([
    ['24', () => node24],
    ['22', () => join(folder, 'node_modules', '.bin', 'node')],
  ])('seals and opens an event in another project under Node %s', async (major, node) => {
    const { stdout } = await run(node(), ['round-trip.js'], { cwd: folder, timeout: 30_000 })
    expect(JSON.parse(stdout)).toEqual({
      node: major,
      data: [{ n: 1 }, { n: 2 }, { n: 3 }],
      moved: 'signature-invalid',
    })
  })

  it('has the sealgate command', async () => {
    const bin = join(folder, 'node_modules', 'sealgate', 'bin', 'sealgate.js')
    const { stdout } = await run(node24, [bin, '--version'], { cwd: folder, timeout: 30_000 })
    expect(stdout).toBe(`${await versionOf(root)}\n`)
  })

  it('runs the embedded stack by the examples that come with it', async () => {
    const bin = join(folder, 'node_modules', 'sealgate', 'bin', 'sealgate.js')
    const env = { ...process.env, SEALGATE_LOCAL: '' }
    const stack = execFile(node24, [bin, 'local', 'start'], { cwd: folder, env, timeout: 30_000 })
    const ended = once(stack, 'close')
    let printed = ''
    try {
      await new Promise<void>((resolve) => {
        const look = (text: string): void => {
          printed += text
          if (printed.includes('Ctrl-C')) resolve()
        }
        stack.stdout?.on('data', look)
        stack.stderr?.on('data', look)
        void ended.then(() => {
          resolve()
        })
      })
    } finally {
      stack.kill('SIGKILL')
      await ended
    }
    expect(printed).toMatch(/is running in .*, by \d+ contracts of .*node_modules.sealgate.contracts\./)
  }, 40_000)

  it(
    'has declarations that a strict TypeScript project with kafkajs checks',
    async () => {
      const compilerOptions = {
        ...{ strict: true, exactOptionalPropertyTypes: true, skipLibCheck: false, noEmit: true },
        ...{ target: 'es2024', module: 'nodenext', types: ['node'] },
        typeRoots: [join(root, 'node_modules', '@types')],
      }
      await writeFile(join(folder, 'tsconfig.json'), JSON.stringify({ compilerOptions, files: ['typed.ts'] }))
      const tsc = join(root, 'node_modules', 'typescript', 'bin', 'tsc')
      const checked = await run(node24, [tsc, '-p', folder], { cwd: folder, timeout: TWO_MINUTES }).catch(
        (error: unknown) => error,
      )
      expect(checked).toMatchObject({ stdout: '' })
    },
    TWO_MINUTES,
  )
})

async function versionOf(directory: string): Promise<string> {
  const { version } = JSON.parse(await readFile(join(directory, 'package.json'), 'utf8')) as {
    version: string
  }
  return version
}
