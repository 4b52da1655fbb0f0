/** `sealgate directory` and what is told of bad input, on settings that name a file. */
import { appendFile, copyFile, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { exportPrivateJwk, exportPublicJwk, generateKeyPair } from '../../lib/envelope/crypto.ts'
import { ED25519 } from '../../lib/envelope/suite.ts'
import { parseDirectory } from '../../lib/keys/directory-document.ts'
import type { DirectoryDocument, SigningKeyEntry } from '../../lib/keys/directory-document.ts'
import { type Around, type Ran, sealgate } from './terminal.ts'

const root = generateKeyPair(ED25519)
const HOUR = 3_600_000
const YEAR = 365.25 * 24 * HOUR
let folder = ''
let settings = ''
const path = (name: string): string => join(folder, name)

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'sealgate-directory-'))
  settings = path('sealgate.yaml')
  await writeFile(path('roots.json'), JSON.stringify(exportPublicJwk(root.publicKey)))
  await writeFile(path('root.jwk'), JSON.stringify(exportPrivateJwk(root.privateKey)), { mode: 0o600 })
  await writeFile(
    settings,
    'directory: directory.jws\nroots: roots.json\nrootKey: file:root.jwk\nlifecycleAudit: none\n',
  )
})
afterEach(() => rm(folder, { recursive: true }))

const run = (args: readonly string[], around: Around = {}): Promise<Ran> =>
  sealgate([...args, '--settings', settings], around)
const ok = async (args: readonly string[], around: Around = {}): Promise<string> => {
  const { out, err, status } = await run(args, around)
  expect({ err, status }).toEqual({ err: '', status: 0 })
  return out
}
const stored = async (): Promise<DirectoryDocument> =>
  parseDirectory(await readFile(path('directory.jws')), [root.publicKey]).document

const entry = (kid: string, changes: Partial<SigningKeyEntry> = {}): SigningKeyEntry => {
  const now = Math.floor(Date.now() / 1000)
  const jwk = exportPublicJwk(generateKeyPair(ED25519).publicKey)
  const times = { notBefore: now, notAfter: now + 86_400, compromisedAt: null }
  return { kid, iss: 'shop', alg: 'Ed25519', jwk, state: 'active', ...times, ...changes }
}

/** Publishes the document that is there, edited. */
const edit = async (change: (document: DirectoryDocument) => object, ...flags: string[]): Promise<Ran> => {
  const document: DirectoryDocument = JSON.parse(await ok(['directory', 'show', '--json']))
  await writeFile(path('edited.json'), JSON.stringify(change(document)))
  return run(['directory', 'publish', path('edited.json'), ...flags])
}

describe('sealgate directory', () => {
  it('makes a first version once, shows and verifies it, and renews it', async () => {
    const init = JSON.parse(await ok(['directory', 'init', '--json']))
    expect(init).toMatchObject({ published: true, directory: path('directory.jws'), version: 1, changes: [] })
    expect(init.expiresAt - init.issuedAt).toBe(86_400)
    expect((await run(['directory', 'init'])).err).toContain('There is one already.')
    expect(await ok(['directory', 'show'])).toContain(`Version 1 at ${path('directory.jws')}, issued `)
    expect(JSON.parse(await ok(['directory', 'verify', '--json']))).toMatchObject({ verified: true })
    expect(await ok(['directory', 'publish', '--life', '2'])).toContain('Published version 2')
    const { version, issuedAt, expiresAt } = JSON.parse(await ok(['directory', 'publish', '--json']))
    expect([version, expiresAt - issuedAt]).toEqual([3, 7200])
  })

  it('makes no first version with --dry-run, needs no root for it, and says so where there is one', async () => {
    await writeFile(settings, 'directory: directory.jws\nroots: roots.json\n')
    expect(await ok(['directory', 'init', '--dry-run'])).toContain('Would publish version 1')
    await expect(readFile(path('directory.jws'))).rejects.toThrow('ENOENT')
    await writeFile(settings, `${await readFile(settings, 'utf8')}rootKey: file:root.jwk\n`)
    await ok(['directory', 'init'])
    const again = await run(['directory', 'init', '--dry-run'])
    expect([again.status, again.err]).toEqual([2, expect.stringContaining('There is one already.')])
  })

  it('publishes what was edited by hand, and shows with --dry-run what that would be', async () => {
    await ok(['directory', 'init'])
    const kek = { kekId: 'orders', provider: 'aws-kms', key: 'arn', iss: ['shop'] }
    const added = (document: DirectoryDocument): object => ({
      ...document,
      ...{ signingKeys: [entry('a2V5')], keks: [kek] },
    })
    const dry = await edit(added, '--dry-run')
    expect(dry.out).toContain('+ key a2V5 of shop\n+ KEK orders of shop\nWould publish version 2')
    expect((await stored()).version).toBe(1)
    expect((await edit(added)).status).toBe(0)
    expect(await stored()).toMatchObject({ version: 2, signingKeys: [{ kid: 'a2V5' }], keks: [kek] })
    const suspended = await edit((document) => ({
      ...document,
      signingKeys: document.signingKeys.map((each) => ({ ...each, state: 'suspended' })),
    }))
    expect([suspended.status, suspended.err]).toEqual([2, expect.stringContaining('--leaving shop')])
  })

  it('takes an edited document by the rules of the single commands, and tells every fault', async () => {
    await ok(['directory', 'init'])
    const ended = [
      entry('b2xk', { state: 'deactivated' }),
      entry('YmFk', { state: 'compromised', compromisedAt: 1000 }),
      entry('bm93'),
    ]
    await edit((document) => ({ ...document, signingKeys: ended }))
    const before = await readFile(path('directory.jws'))
    const { err, status } = await edit((document) => ({
      ...document,
      version: 1,
      signingKeys: document.signingKeys.flatMap((each) => {
        if (each.kid === 'b2xk') return [{ ...each, notAfter: each.notAfter + 1 }]
        if (each.kid === 'YmFk') return [{ ...each, compromisedAt: 2000, iss: 'other' }]
        return []
      }),
    }))
    expect(status).toBe(2)
    expect(err.split('\n')).toEqual([
      expect.stringContaining('version: It is 1, and the directory is at 2.'),
      expect.stringContaining('bm93: It is active, and cannot become destroyed.'),
      expect.stringContaining('b2xk: It is deactivated, and would sign longer.'),
      expect.stringContaining('YmFk: It has another iss.'),
      expect.stringContaining('YmFk: It would be compromised no more, or later.'),
    ])
    expect(await readFile(path('directory.jws'))).toEqual(before)
  })
})

describe('bad input of a directory is refused, with what to do, and nothing is published', () => {
  it('a document that is malformed, with a kid twice and a private key in it, with all faults', async () => {
    await ok(['directory', 'init'])
    const pair = generateKeyPair(ED25519)
    const { err, status } = await edit((document) => ({
      ...document,
      signingKeys: [
        entry('a2V5'),
        entry('a2V5'),
        { ...entry('cHJpdmF0ZQ'), jwk: exportPrivateJwk(pair.privateKey) },
        { ...entry('c3RhdGU'), state: 'fine' },
      ],
      extra: 1,
    }))
    expect(status).toBe(2)
    const file = path('edited.json')
    for (const fault of [
      `${file}: key directory: It has the unknown field`,
      `${file}: signingKeys[1].kid: It stands twice`,
      `${file}: signingKeys[2].jwk: It holds a private key`,
      `${file}: signingKeys[3].state: It is no state`,
    ])
      expect(err).toContain(fault)
    expect(err).not.toContain(exportPrivateJwk(pair.privateKey).d)
    expect((await stored()).version).toBe(1)
  })

  it('a file that is no JSON, or has a name twice', async () => {
    await ok(['directory', 'init'])
    for (const text of ['{', '{"version":1,"version":2}', '']) {
      await writeFile(path('edited.json'), text)
      const { err, status } = await run(['directory', 'publish', path('edited.json')])
      expect([status, err]).toEqual([2, expect.stringContaining('It is no JSON, or has a name twice.')])
    }
  })

  it('a directory that another root signed, or nobody: in every command', async () => {
    await ok(['directory', 'init'])
    const other = generateKeyPair(ED25519)
    await writeFile(path('roots.json'), JSON.stringify(exportPublicJwk(other.publicKey)))
    const told = expect.stringContaining('It is not signed by a pinned root. Sign it with the directory root')
    for (const command of ['show', 'publish'])
      expect(await run(['directory', command])).toMatchObject({ status: 2, err: told })
    expect(await run(['keys', 'list'])).toMatchObject({ status: 2, err: told })
    const verified = await run(['directory', 'verify', '--json'])
    expect(verified.status).toBe(1)
    expect(JSON.parse(verified.out)).toMatchObject({ verified: false, faults: [{ where: 'key directory' }] })
    await rm(path('directory.jws'))
    expect(await run(['directory', 'init'])).toMatchObject({
      status: 2,
      err: expect.stringContaining('It is none of the pinned roots.'),
    })
    await writeFile(path('directory.jws'), 'not signed')
    expect((await run(['directory', 'show'])).err).toContain('It is no compact JWS.')
  })

  it('a private key where the public one of a root belongs, and is not quoted', async () => {
    await copyFile(path('root.jwk'), path('roots.json'))
    const { out, err, status } = await run(['directory', 'show'])
    expect([status, err]).toEqual([2, expect.stringContaining('roots: ')])
    expect(out + err).not.toContain(exportPrivateJwk(root.privateKey).d)
  })

  it('a root key that others can read, that is none, or that is not set', async () => {
    await writeFile(path('open.jwk'), await readFile(path('root.jwk')), { mode: 0o644 })
    const with_ = (rootKey: string): Promise<Ran> =>
      writeFile(settings, `directory: directory.jws\nroots: roots.json\n${rootKey}\n`).then(() =>
        run(['directory', 'init']),
      )
    expect((await with_('rootKey: file:open.jwk')).err).toContain(`Others can read ${path('open.jwk')}.`)
    expect((await with_('rootKey: file:roots.json')).err).toContain('rootKey: ')
    expect((await with_('rootKey: root.jwk')).err).toContain('rootKey: It is no such key.')
    expect((await with_('')).err).toContain('rootKey: It is not set.')
    expect((await run(['directory', 'publish', '--dry-run'])).err).toContain('There is none.')
  })

  it('settings that nobody knows, in the file and in the environment', async () => {
    await appendFile(settings, 'lifecycleAdit: none\n')
    const { err, status } = await run(['directory', 'show'], { env: { SEALGATE_ROOT: 'roots.json' } })
    expect(status).toBe(2)
    expect(err).toContain(`${settings}:5: lifecycleAdit: No setting has this name.`)
    expect(err).toContain('SEALGATE_ROOT: No setting has this name.')
  })

  it('a place that is none, or where nobody writes', async () => {
    const at = (directory: string): Promise<Ran> =>
      writeFile(
        settings,
        `directory: ${directory}\nroots: roots.json\nrootKey: file:root.jwk\nlifecycleAudit: none\n`,
      ).then(() => run(['directory', 'init']))
    expect((await at('http://127.0.0.1/directory.jws')).err).toContain('Without TLS')
    expect((await at('s3://bucket')).err).toContain('It is no s3://bucket/key.')
    expect((await at('https://127.0.0.1:1/d')).err).toContain('Nothing is written to an https address.')
  })

  it('a clock that is years off: behind, ahead, and where only gates would notice', async () => {
    await ok(['directory', 'init'])
    const now = Date.now()
    const back = await run(['directory', 'publish'], { nowMs: now - 5 * YEAR })
    expect([back.status, back.err]).toEqual([2, expect.stringContaining('Set the clock of this machine')])
    const ahead = await run(['directory', 'publish'], { nowMs: now + 5 * YEAR })
    expect([ahead.status, ahead.err]).toEqual([2, expect.stringContaining('long before. Set the clock')])
    expect((await stored()).version).toBe(1)
    const early = await run(['directory', 'verify'], { nowMs: now - 5 * YEAR })
    expect([early.status, early.err]).toEqual([1, expect.stringContaining('was issued at')])
    const late = await run(['directory', 'verify'], { nowMs: now + 25 * HOUR })
    expect([late.status, late.err]).toEqual([1, expect.stringContaining('Renew it')])
    await ok(['directory', 'publish', '--lapsed'], { nowMs: now + 5 * YEAR })
    expect((await stored()).version).toBe(2)
  })
})
