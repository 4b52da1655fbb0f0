/** `sealgate keys`: enrolment with proof of possession, and the states of a key; on settings and on an embedded stack. */
import { chmod, mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest'
import { readContracts } from '../../lib/adapters/contract-files.ts'
import { buildBundle } from '../../lib/contract/bundle.ts'
import { checkContracts } from '../../lib/contract/load.ts'
import { maySign } from '../../lib/keys/directory.ts'
import { createDirectory } from '../../lib/keys/directory-reader.ts'
import { openStack, type Stack } from '../../lib/local/stack.ts'
import { type Around, type Ran, sealgate } from './terminal.ts'

const HOUR = 3_600_000
let folder = ''
const path = (name: string): string => join(folder, name)
const run = (args: readonly string[], around: Around = {}): Promise<Ran> =>
  sealgate([...args, '--settings', path('sealgate.yaml')], around)
const ok = async (args: readonly string[], around: Around = {}): Promise<string> => {
  const { out, err, status } = await run(args, around)
  expect({ err, status }).toEqual({ err: '', status: 0 })
  return out
}
const bare = async (args: readonly string[], around: Around = {}): Promise<string> => {
  const { out, err, status } = await sealgate(args, around)
  expect({ err, status }).toEqual({ err: '', status: 0 })
  return out
}

/** What the owner of a new key answers to a challenge; gives the proof's file. */
async function proofOf(iss: string, name: string): Promise<string> {
  await bare(['keys', 'new', path(`${name}.jwk`)])
  await writeFile(path(`${name}.challenge`), await ok(['keys', 'challenge', iss]))
  const proof = await bare(['keys', 'prove', path(`${name}.challenge`), '--key', path(`${name}.jwk`)])
  await writeFile(path(`${name}.proof`), proof)
  return path(`${name}.proof`)
}

const kidOf = (json: string): string => JSON.parse(json).changes[0].name
const enrol = async (iss: string, name: string): Promise<string> =>
  kidOf(await ok(['keys', 'enrol', await proofOf(iss, name), '--json']))
const rows = async (): Promise<{ kid: string; iss: string; state: string; compromisedAt: number | null }[]> =>
  (await ok(['keys', 'list', '--json']))
    .split('\n')
    .filter(Boolean)
    .map((line) => JSON.parse(line))

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'sealgate-keys-'))
  await writeFile(path('roots.json'), await bare(['keys', 'new', path('root.jwk')]))
  await writeFile(
    path('sealgate.yaml'),
    'directory: directory.jws\nroots: roots.json\nrootKey: file:root.jwk\nlifecycleAudit: none\n',
  )
  await ok(['directory', 'init'])
})
afterEach(() => rm(folder, { recursive: true }))

describe('sealgate keys new', () => {
  it('leaves the private half to its owner alone, and no key is ever overwritten', async () => {
    const before = await readFile(path('root.jwk'))
    expect((await stat(path('root.jwk'))).mode & 0o777).toBe(0o600)
    expect((await sealgate(['keys', 'new', path('root.jwk')])).err).toContain(
      'There is a file already. Name another: it may be the only copy of a key.',
    )
    expect(await readFile(path('root.jwk'))).toEqual(before)
    const esp256 = JSON.parse(await bare(['keys', 'new', path('p.jwk'), '--alg', 'ESP256']))
    expect(esp256).toEqual({
      kty: 'EC',
      crv: 'P-256',
      x: expect.any(String),
      y: expect.any(String),
    })
    expect((await sealgate(['keys', 'new', path('q.jwk'), '--alg', 'RS256'])).status).toBe(2)
  })
})

describe('sealgate keys enrol', () => {
  it('takes a key whose owner has answered, and says from when it may sign', async () => {
    const proof = await proofOf('shop', 'first')
    const dry = await ok(['keys', 'enrol', proof, '--dry-run'])
    expect(dry).toMatch(/^\+ key \S+ of shop\nWould publish version 2 /)
    const now = Date.parse('2026-11-22T10:00:00Z')
    await writeFile(path('c'), await ok(['keys', 'challenge', 'shop'], { nowMs: now }))
    expect(await rows()).toEqual([])
    const out = await ok([
      ...['keys', 'enrol', proof, '--days', '2'],
      ...['--kek', 'shop-2026=arn:aws:kms:eu-central-1:111122223333:key/abc'],
    ])
    const from = /may sign with it from (\S+) on/.exec(out)?.[1] ?? ''
    expect(Math.abs(Date.parse(from) - Date.now() - 180_000)).toBeLessThan(20_000)
    expect(out).toContain('+ KEK shop-2026 of shop')
    const [row] = await rows()
    expect(row).toMatchObject({ iss: 'shop', state: 'active', notBefore: Date.parse(from) / 1000 })
    expect(row).toMatchObject({ notAfter: Date.parse(from) / 1000 + 2 * 86_400 })
  })

  it('takes an answer once, of two at the same time too', async () => {
    const proof = await proofOf('shop', 'first')
    const both = await Promise.all([run(['keys', 'enrol', proof]), run(['keys', 'enrol', proof])])
    expect(both.map(({ status }) => status).sort()).toEqual([0, 2])
    expect((await run(['keys', 'enrol', proof])).err).toContain('was not made here, or has been used')
    expect(await rows()).toHaveLength(1)
    expect(await readdir(join(folder, '.sealgate', 'challenges'))).toEqual([])
  })

  it('takes no answer after a day, to somebody else’s challenge, or for another issuer or key', async () => {
    const proof = await proofOf('shop', 'first')
    const late = await run(['keys', 'enrol', proof], { nowMs: Date.now() + 25 * HOUR })
    expect([late.status, late.err]).toEqual([2, expect.stringContaining('Its challenge has expired.')])
    const answer = JSON.parse(await readFile(proof, 'utf8'))
    const other = JSON.parse(await readFile(await proofOf('stock', 'second'), 'utf8'))
    const forged = async (changes: object): Promise<Ran> => {
      await writeFile(path('forged'), JSON.stringify({ ...answer, ...changes }))
      return run(['keys', 'enrol', path('forged')])
    }
    for (const changes of [
      { iss: 'stock' },
      { jwk: other.jwk },
      { challenge: other.challenge },
      { proof: other.proof },
    ])
      expect((await forged(changes)).err).toContain(
        'proof: It was not made with this key, for this issuer and challenge.',
      )
    await rm(join(folder, '.sealgate', 'challenges', answer.challenge))
    expect((await run(['keys', 'enrol', proof])).err).toContain('was not made here')
    expect(await rows()).toEqual([])
  })

  it('refuses a private key in an answer, what is none, and a path for a challenge, with all faults', async () => {
    const proof = await proofOf('shop', 'first')
    const answer = JSON.parse(await readFile(proof, 'utf8'))
    const jwk = JSON.parse(await readFile(path('first.jwk'), 'utf8'))
    await writeFile(proof, JSON.stringify({ ...answer, jwk }))
    const { out, err, status } = await run(['keys', 'enrol', proof])
    expect([status, err]).toEqual([
      2,
      expect.stringContaining('jwk: It is a private key. Hold it for compromised'),
    ])
    expect(out + err).not.toContain(jwk.d)
    await writeFile(proof, JSON.stringify({ ...answer, jwk: {}, challenge: '../../../root.jwk', iss: '' }))
    expect((await run(['keys', 'enrol', proof])).err.split('\n')).toHaveLength(3)
    await writeFile(proof, '[]')
    expect((await run(['keys', 'enrol', proof])).err).toContain('It is no JSON object.')
  })

  it('keeps the answer good where the change would have had a fault', async () => {
    await enrol('shop', 'first')
    await writeFile(path('again'), await ok(['keys', 'challenge', 'shop']))
    const proof = await bare(['keys', 'prove', path('again'), '--key', path('first.jwk')])
    const { err, status } = await run(['keys', 'enrol', '-'], { input: proof })
    expect([status, err]).toEqual([2, expect.stringContaining('is enrolled already, for shop')])
    expect(await readdir(join(folder, '.sealgate', 'challenges'))).toHaveLength(1)
  })

  it('loses nothing of many who enrol at once', async () => {
    const names = ['a', 'b', 'c', 'd', 'e']
    const proofs = await Promise.all(names.map((name) => proofOf(`iss-${name}`, name)))
    await Promise.all(proofs.map((proof) => ok(['keys', 'enrol', proof])))
    expect((await rows()).map(({ iss }) => iss).sort()).toEqual(names.map((name) => `iss-${name}`))
  })
})

describe('sealgate keys prove', () => {
  it('refuses a key that others can read, no key, and a challenge that is over', async () => {
    await bare(['keys', 'new', path('k.jwk')])
    await writeFile(path('c'), await ok(['keys', 'challenge', 'shop']))
    const prove = (key: string, around: Around = {}): Promise<Ran> =>
      sealgate(['keys', 'prove', path('c'), '--key', key], around)
    expect((await prove(path('roots.json'))).err).toContain('chmod 600')
    await chmod(path('roots.json'), 0o600)
    expect((await prove(path('roots.json'))).err).toContain('holds no private JWK')
    expect((await prove(path('none'))).err).toContain('is no file')
    const late = await prove(path('k.jwk'), { nowMs: Date.now() + 25 * HOUR })
    expect(late.err).toContain('It has expired.')
    await writeFile(path('c'), '{"enrolment":"challenge"}')
    expect((await prove(path('k.jwk'))).err).toContain('It is no challenge.')
  })
})

describe('the states of a key', () => {
  it('are changed with what happens when, and never so that an issuer is left without a key unasked', async () => {
    const kid = await enrol('shop', 'first')
    for (const command of [['suspend'], ['retire'], ['revoke', '--compromised-at', 'unknown']]) {
      const { err, status } = await run(['keys', ...command, kid])
      expect([status, err]).toEqual([2, expect.stringContaining('would have no key left to sign with')])
    }
    const second = await enrol('shop', 'second')
    const out = await ok(['keys', 'suspend', kid])
    expect(out).toContain(`~ key ${kid} of shop: state active → suspended\nPublished version 4 `)
    expect(out).toContain('Gates that run have it within 60 s, after the slice at hand.')
    await ok(['keys', 'resume', kid])
    await ok(['keys', 'retire', kid, '--at', '2999-01-01'])
    const since = '2026-01-02T03:04:05Z'
    expect(await ok(['keys', 'revoke', kid, '--compromised-at', since])).toContain(
      `compromisedAt none → ${since}`,
    )
    await ok(['keys', 'revoke', second, '--compromised-at', 'unknown', '--leaving', 'shop'])
    expect((await rows()).map(({ state, compromisedAt }) => [state, compromisedAt])).toEqual([
      ['compromised', Date.parse(since) / 1000],
      ['compromised', null],
    ])
    expect(await ok(['keys', 'list', '--issuer', 'shop'])).toMatch(/compromised .* unknown$/m)
    expect(await ok(['keys', 'list', '--issuer', 'stock'])).not.toContain('shop')
  })

  it('are not changed by who does not say since when a key is compromised, or says a time to come', async () => {
    const kid = await enrol('shop', 'first')
    const revoke = (...flags: string[]): Promise<Ran> =>
      run(['keys', 'revoke', kid, '--leaving', 'shop', ...flags])
    expect((await revoke()).err).toContain("required option '--compromised-at <time>' not specified")
    expect((await revoke('--compromised-at', 'yesterday')).err).toContain('Give a time as')
    expect((await revoke('--compromised-at', '2999-01-01')).err).toContain('is yet to come')
    const dry = JSON.parse((await revoke('--compromised-at', 'unknown', '--dry-run', '--json')).out)
    expect(dry).toMatchObject({ published: false, changes: [{ change: 'changed', name: kid }] })
    expect(await rows()).toMatchObject([{ state: 'active' }])
  })

  it('are found for a kid that begins with a dash, and a flag that is none is no kid', async () => {
    const jwk = JSON.parse(await readFile(path('roots.json'), 'utf8'))
    const document = JSON.parse(await ok(['directory', 'show', '--json']))
    const row = { kid: '-hE-', iss: 'shop', alg: 'Ed25519', jwk, state: 'active', compromisedAt: null }
    document.signingKeys.push({ ...row, notBefore: 0, notAfter: 9_000_000_000 })
    await ok(['directory', 'publish', '-'], { input: JSON.stringify(document) })
    const suspended = await sealgate([
      ...['keys', 'suspend', '--settings', path('sealgate.yaml'), '--leaving', 'shop', '--', '-hE-'],
    ])
    expect(suspended.status).toBe(0)
    for (const wrong of [['--dryrun'], ['--dryrun', '-hE-'], ['nobody']])
      expect((await run(['keys', 'suspend', ...wrong])).status).toBe(2)
  })
})

describe('sealgate keys kek', () => {
  const ARN = 'arn:aws:kms:eu-central-1:111122223333:key/'
  const keks = async (): Promise<unknown[]> =>
    (await ok(['keys', 'kek', 'list', '--json']))
      .split('\n')
      .filter(Boolean)
      .map((line) => JSON.parse(line))

  it('adds KEKs for issuers and withdraws them, with the difference shown, from one issuer or from all', async () => {
    const [first, second] = [`k-1=${ARN}1`, `k-2=${ARN}2`]
    const dry = await ok(['keys', 'kek', 'add', first, '--issuer', 'shop', '--dry-run'])
    expect(dry).toMatch(/^\+ KEK k-1 of shop\nWould publish version 2 /)
    expect(await keks()).toEqual([])
    await ok(['keys', 'kek', 'add', first, '--issuer', 'shop', '--issuer', 'stock'])
    await ok(['keys', 'kek', 'add', second, '--issuer', 'shop'])
    const row = { kekId: 'k-1', provider: 'aws-kms', key: `${ARN}1` }
    expect(await keks()).toMatchObject([
      { ...row, iss: ['shop', 'stock'] },
      { kekId: 'k-2', iss: ['shop'] },
    ])
    expect(await ok(['keys', 'kek', 'list'])).toMatch(/^KEK +ISSUERS +KEY\nk-1 +shop,stock +aws-kms arn:/)
    const one = await ok(['keys', 'kek', 'withdraw', 'k-1', '--issuer', 'stock'])
    expect(one).toContain('~ KEK k-1 of shop: iss ["shop","stock"] → ["shop"]')
    expect(one).toContain('are undecryptable from then on')
    const all = JSON.parse(await ok(['keys', 'kek', 'withdraw', 'k-1', '--json']))
    expect(all.changes).toEqual([{ list: 'keks', name: 'k-1', iss: ['shop'], change: 'removed', fields: [] }])
    expect(await keks()).toMatchObject([{ kekId: 'k-2' }])
  })

  it('leaves no issuer that can sign without a KEK, unless by name', async () => {
    await ok(['keys', 'enrol', await proofOf('shop', 'first'), '--kek', `k-1=${ARN}1`])
    const refused = await run(['keys', 'kek', 'withdraw', 'k-1'])
    expect(refused.status).toBe(2)
    expect(refused.err).toContain('shop: It would have no KEK left to seal under.')
    expect(refused.err).toContain('--leaving shop')
    expect(await keks()).toHaveLength(1)
    await ok(['keys', 'kek', 'withdraw', 'k-1', '--leaving', 'shop'])
    expect(await keks()).toEqual([])
  })

  it('refuses what is no KEK, one that is not there, another key under a name, and no issuer', async () => {
    await ok(['keys', 'kek', 'add', `k-1=${ARN}1`, '--issuer', 'shop'])
    for (const [args, told] of [
      [['add', 'k-1=alias/shop', '--issuer', 'shop'], 'Give kekId=arn:'],
      [['add', `k-1=${ARN}2`, '--issuer', 'shop'], 'is another key'],
      [['add', `k-2=${ARN}2`], '--issuer'],
      [['add', `k-2=${ARN}2`, '--issuer', ''], 'Give a name'],
      [['withdraw', 'k-2'], 'is no KEK of this directory'],
      [['withdraw', 'k-1', '--issuer', 'stock'], 'is no KEK of this directory for stock'],
    ] as const) {
      const { err, status } = await run(['keys', 'kek', ...args])
      expect([args, status, err]).toEqual([args, 2, expect.stringContaining(told)])
    }
    expect(await keks()).toHaveLength(1)
  })
})

describe('on an embedded stack that another process runs', () => {
  let stack: Stack
  let stackFolder = ''
  const at = (...args: string[]): Promise<Ran> => sealgate([...args, '--folder', stackFolder])
  beforeAll(async () => {
    stackFolder = await mkdtemp(join(tmpdir(), 'sealgate-stack-'))
    const contracts = await readContracts(fileURLToPath(new URL('../../contracts', import.meta.url)))
    const bundle = buildBundle(checkContracts(contracts).files)
    stack = await openStack({ folder: stackFolder, bundle, partitions: 1, software: 'test' })
  })
  afterAll(async () => {
    await stack.close()
    await rm(stackFolder, { recursive: true })
  })

  it('a key is put out of use, and whoever runs sees that at the next look', async () => {
    const gate = createDirectory({ ...stack.directory, clock: stack.clock, maxAgeMs: 0 })
    const { kid } = stack.producer('storefront').signer
    const kidText = Buffer.from(kid).toString('base64url')
    const now = Math.floor(Date.now() / 1000)
    const signs = async (): Promise<boolean> => {
      const row = (await gate.snapshot(Date.now() + 5000)).snapshot.signingKey(kid)
      return row !== undefined && maySign(row, now)
    }
    expect(await signs()).toBe(true)
    const suspended = await at('keys', 'suspend', kidText, '--leaving', 'storefront')
    expect([suspended.status, suspended.err]).toEqual([0, ''])
    await new Promise((resolve) => setTimeout(resolve, 5))
    expect(await signs()).toBe(false)
    expect((await at('directory', 'verify')).status).toBe(0)
    const { out } = await at('directory', 'publish', '--json')
    const { issuedAt, expiresAt } = JSON.parse(out)
    expect(expiresAt - issuedAt).toBe(30 * 86_400)
  })

  it('nothing is sent with a key that the gate would refuse, and it is said why', async () => {
    const { kid } = stack.producer('fulfilment').signer
    const kidText = Buffer.from(kid).toString('base64url')
    const event = '{"orderId":"A-1","fulfilledAt":"2026-11-22T10:00:00Z","items":2}\n'
    const type = 'com.example.order.fulfilled.v1'
    const send = (): Promise<Ran> =>
      sealgate(['send', '-', '--type', type, '--folder', stackFolder], { input: event })
    expect((await send()).out).toContain('1 event sent.')
    const revoke = ['keys', 'revoke', '--compromised-at', 'unknown', '--leaving', 'fulfilment']
    expect((await sealgate([...revoke, '--folder', stackFolder, '--', kidText])).status).toBe(0)
    const { out, err, status } = await send()
    expect([status, out]).toEqual([1, expect.stringContaining('0 events sent, 1 line skipped.')])
    expect(err).toContain('The key that this stack made for it is compromised in the key directory')
    // A compromised key is never resumed.
    expect(err).not.toContain('resume')
  })

  it('says where there is none', async () => {
    const { err, status } = await sealgate(['keys', 'list', '--folder', join(stackFolder, 'none')])
    expect([status, err]).toEqual([
      2,
      expect.stringContaining('There are no keys of an embedded stack here.'),
    ])
  })
})
