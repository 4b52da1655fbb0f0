import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { APIGatewayProxyEventV2, Handler } from 'aws-lambda'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { keysHandler, type KeysHandler } from '../../functions/keys-handler.ts'
import { documentFile } from '../../lib/adapters/document-file.ts'
import {
  exportPrivateJwk,
  exportPublicJwk,
  generateKeyPair,
  importPublicKey,
  type PrivateKey,
  sign,
  verify,
} from '../../lib/envelope/crypto.ts'
import { ED25519, ESP256 } from '../../lib/envelope/suite.ts'
import { ConfigError } from '../../lib/errors.ts'
import type { DirectoryDraft } from '../../lib/keys/directory-draft.ts'
import { publishChange, publishFirst, type PublisherOptions } from '../../lib/keys/directory-publisher.ts'
import { createDirectory } from '../../lib/keys/directory-reader.ts'
import type { Jwks, PublishedKey } from '../../lib/keys/jwks.ts'
import { localSigner } from '../../lib/keys/signer.ts'
import { invokeOnce } from '../../lib/local/invocation.ts'
import { readKeysSettings } from '../../lib/settings.ts'

const clock = { now: () => Date.now() }
const soon = (): number => Date.now() + 10_000
const root = generateKeyPair(ED25519)
let folder = ''
let options: PublisherOptions
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'keys-'))
  const path = join(folder, 'directory.jws')
  const store = documentFile({ path, outage: 'directory-unavailable', clock })
  options = { store, roots: [root.publicKey], root: localSigner(root.privateKey), clock }
  await publishFirst(options, soon())
})
afterEach(() => rm(folder, { recursive: true }))

const change = async (work: (draft: DirectoryDraft) => void): Promise<void> => {
  await publishChange({ ...options, leaving: new Set(['shop']) }, work, soon())
}

async function enrol(iss: string, state: 'active' | 'pre-activation' = 'active', suite = ED25519) {
  const { publicKey, privateKey } = generateKeyPair(suite)
  const now = Math.floor(Date.now() / 1000)
  let kid = ''
  await change((draft) => {
    kid = draft.enrol({ iss, key: publicKey, state, notBefore: now - 10, notAfter: now + 1000 })
  })
  return { kid, privateKey }
}

/** One that has nothing in its memory yet. */
const fresh = (): KeysHandler =>
  keysHandler(() => createDirectory({ source: options.store, roots: options.roots, clock }))

interface Answer {
  readonly statusCode: number
  readonly headers: Readonly<Record<string, string>>
  readonly body?: string
}

async function get(path: string, handler = fresh(), headers = {}, method = 'GET'): Promise<Answer> {
  const event = { version: '2.0', rawPath: path, headers, requestContext: { http: { method } } }
  const answer: unknown = await invokeOnce(handler, event, { timeoutMs: 5000 })
  if (!isAnswer(answer)) throw new Error('no answer')
  return answer
}

const isAnswer = (value: unknown): value is Answer =>
  typeof value === 'object' && value !== null && 'statusCode' in value && 'headers' in value

const jwks = async (): Promise<Jwks> => {
  const parsed: Jwks = JSON.parse((await get('/jwks.json')).body ?? '')
  return parsed
}
const keyAt = async (kid: string): Promise<PublishedKey> => {
  const parsed: PublishedKey = JSON.parse((await get(`/keys/${kid}`)).body ?? '')
  return parsed
}

function canVerify({ kty, crv, x, y, alg }: PublishedKey, privateKey: PrivateKey): boolean {
  const suite = alg === 'ES256' ? ESP256 : ED25519
  const key = importPublicKey(suite, y === undefined ? { kty, crv, x } : { kty, crv, x, y })
  return verify(key, Buffer.from('text'), sign(privateKey, Buffer.from('text')))
}

describe('the function of public keys', () => {
  it('gives out keys by which signatures verify, of both algorithms, as a set and by kid', async () => {
    const [one, two] = [await enrol('shop'), await enrol('stock', 'active', ESP256)]
    const { keys } = await jwks()
    expect(keys.map(({ kid, iss, alg, use }) => [kid, iss, alg, use])).toEqual([
      [one.kid, 'shop', 'Ed25519', 'sig'],
      [two.kid, 'stock', 'ES256', 'sig'],
    ])
    for (const { kid, privateKey } of [one, two]) {
      expect(await keyAt(kid)).toEqual(keys.find((key) => key.kid === kid))
      expect(canVerify(await keyAt(kid), privateKey)).toBe(true)
    }
    expect(await get('/.well-known/jwks.json')).toEqual(await get('/jwks.json'))
  })

  it('lists no key that a plain library must not trust, and tells the state of each by kid', async () => {
    const good = await enrol('shop')
    const [early, slept, stolen, retired] = [
      await enrol('shop', 'pre-activation'),
      await enrol('shop'),
      await enrol('shop'),
      await enrol('shop'),
    ]
    await change((draft) => {
      draft.suspend(slept.kid)
      draft.revoke(stolen.kid, 1_790_000_000)
      draft.retire(retired.kid, Math.floor(Date.now() / 1000))
    })
    expect((await jwks()).keys.map(({ kid }) => kid)).toEqual([good.kid, retired.kid])
    expect((await keyAt(early.kid)).state).toBe('pre-activation')
    expect((await keyAt(slept.kid)).state).toBe('suspended')
    expect(await keyAt(stolen.kid)).toMatchObject({ state: 'compromised', compromisedAt: 1_790_000_000 })
  })

  it('never gives out a private part, nor what stands beside the keys', async () => {
    const { kid, privateKey } = await enrol('shop')
    await change((draft) => draft.grantKek({ kekId: 'kek', provider: 'p', key: 'arn:secret-place' }, 'shop'))
    const { d } = exportPrivateJwk(privateKey)
    for (const path of ['/jwks.json', `/keys/${kid}`]) {
      const { body = '' } = await get(path)
      expect(body).not.toContain(d)
      expect(body).not.toMatch(/"(d|p|q|k|oth)":/)
      expect(body).not.toContain('arn:')
      expect(body).toContain(kid)
    }
  })

  it('lets caches keep an answer for a minute, and tells them when it is unchanged', async () => {
    const { kid } = await enrol('shop')
    const first = await get('/jwks.json')
    expect(first.headers).toMatchObject({
      'Cache-Control': 'public, max-age=60',
      'Content-Type': 'application/json',
    })
    const etag = first.headers['ETag'] ?? ''
    expect(etag).toMatch(/^"[\w-]{43}"$/)
    for (const tag of [etag, `W/${etag}`, `"x", ${etag}`, '*']) {
      const again = await get('/jwks.json', fresh(), { 'if-none-match': tag })
      expect(again).toMatchObject({ statusCode: 304, headers: { ETag: etag } })
      expect(again.body).toBeUndefined()
    }
    expect((await get('/jwks.json', fresh(), { 'if-none-match': '"x"' })).statusCode).toBe(200)
    await enrol('stock')
    expect((await get('/jwks.json', fresh(), { 'if-none-match': etag })).statusCode).toBe(200)
    const head = await get(`/keys/${kid}`, fresh(), {}, 'HEAD')
    expect(head).toMatchObject({ statusCode: 200, body: '' })
  })

  it.each([
    '/',
    '/keys',
    '/keys/',
    '/keys/AAAA',
    '/keys/..',
    `/keys/${'A'.repeat(200)}`,
    '/keys/a/b',
    '/jwks.json/',
    '/__proto__',
  ])('answers %s with 404, which caches may keep', async (path) => {
    await enrol('shop')
    const answer = await get(path)
    expect(answer).toMatchObject({
      statusCode: 404,
      headers: { 'Cache-Control': 'public, max-age=60' },
      body: '{"error":"not found"}',
    })
  })

  it.each([undefined, null, 1, [], {}, { rawPath: 5, requestContext: [] }, { rawPath: '/jwks.json' }])(
    'refuses what is no request for a key: %j',
    async (event) => {
      const answer: unknown = await invokeOnce(fresh(), event ?? null, { timeoutMs: 5000 })
      expect(answer).toMatchObject({ statusCode: 405, headers: { Allow: 'GET, HEAD' } })
    },
  )

  it('does not read the directory for an unknown kid, however often it is asked', async () => {
    let reads = 0
    const { store } = options
    const source = {
      read: (...args: Parameters<typeof store.read>) => {
        reads += 1
        return store.read(...args)
      },
    }
    const handler = keysHandler(() => createDirectory({ source, roots: options.roots, clock }))
    for (let request = 0; request < 50; request++) await get(`/keys/AAA${request}`, handler)
    expect(reads).toBe(1)
  })

  it('answers 503, which nobody keeps, where it has no directory, and goes on when there is one again', async () => {
    const path = join(folder, 'directory.jws')
    const handler = keysHandler(() =>
      createDirectory({
        source: documentFile({ path, outage: 'directory-unavailable', clock }),
        roots: options.roots,
        clock,
        retryMs: 0,
      }),
    )
    const kept = await options.store.find(soon())
    await rm(path)
    const answer = await get('/jwks.json', handler)
    expect(answer).toMatchObject({
      statusCode: 503,
      headers: { 'Cache-Control': 'no-store', 'Retry-After': '5' },
    })
    expect(answer.body).not.toContain(folder)
    await writeFile(path, kept?.bytes ?? '')
    expect((await get('/jwks.json', handler)).statusCode).toBe(200)
  })

  it('starts by its environment, or says all that is wrong with it', async () => {
    const roots = join(folder, 'roots.json')
    await writeFile(roots, JSON.stringify(exportPublicJwk(root.publicKey)))
    const directory = join(folder, 'directory.jws')
    expect(readKeysSettings({ SEALGATE_DIRECTORY: directory, SEALGATE_ROOTS: roots })).toMatchObject({
      directory: { kind: 'file', path: directory },
    })
    await writeFile(roots, JSON.stringify(exportPrivateJwk(root.privateKey)))
    const wrong = { SEALGATE_ROOTS: roots, SEALGATE_NAME: 'gate' }
    try {
      readKeysSettings(wrong)
      expect.unreachable()
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error
      expect(error.faults.map(({ where }) => where).toSorted()).toEqual([
        'SEALGATE_DIRECTORY',
        'SEALGATE_NAME',
        'SEALGATE_ROOTS',
      ])
    }
  })

  it('has the type that Lambda gives a handler of HTTP requests', () => {
    const handler: Handler<APIGatewayProxyEventV2> = fresh()
    expect(handler).toBeTypeOf('function')
  })
})
