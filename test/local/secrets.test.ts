import { mkdtemp, readdir, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { hmac } from '../../lib/envelope/crypto.ts'
import { encodeCbor } from '../../lib/cbor.ts'
import { ConfigError, Outage } from '../../lib/errors.ts'
import { loadPseudonyms } from '../../lib/keys/pseudonyms.ts'
import { ensurePseudonymKeys, type LocalSecretStore, openLocalSecrets } from '../../lib/local/secrets.ts'
import { manualClock } from '../keys/fixtures.ts'

let folder: string
let secrets: LocalSecretStore
const clock = manualClock()
const soon = clock.ms + 1000
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'sealgate-'))
  secrets = await openLocalSecrets(folder, clock)
})
afterEach(() => rm(folder, { recursive: true, force: true }))

/** As long as Secrets Manager wants one. */
const TOKEN = 'token'.padEnd(32, '-')
const bytes = (text: string): Uint8Array => Buffer.from(text)
const named = (name: string): unknown => expect.objectContaining({ name })
const current = async (name = 'db/password'): Promise<string> =>
  Buffer.from((await secrets.read(name, soon)).value).toString()

describe('the embedded secrets', () => {
  test('a pending version becomes current when it is promoted, and the old one stays readable as previous', async () => {
    await secrets.put('db/password', bytes('one'))
    const version = await secrets.put('db/password', bytes('two'), 'AWSPENDING')
    expect(await current()).toBe('one')
    await secrets.promote('db/password', version)
    await secrets.promote('db/password', version)
    expect(await current()).toBe('two')
    const previous = await secrets.readStage('db/password', 'AWSPREVIOUS')
    expect(Buffer.from(previous.value).toString()).toBe('one')
    await expect(secrets.readStage('db/password', 'AWSPENDING')).rejects.toThrow(
      named('ResourceNotFoundException'),
    )
  })

  test('the same token again changes nothing; with another value it is refused', async () => {
    await secrets.put('s', bytes('zero'))
    await secrets.put('s', bytes('one'), 'AWSPENDING', TOKEN)
    await secrets.put('s', bytes('one'), 'AWSPENDING', TOKEN)
    await expect(secrets.put('s', bytes('two'), 'AWSPENDING', TOKEN)).rejects.toThrow(
      named('ResourceExistsException'),
    )
    expect(Buffer.from((await secrets.readStage('s', 'AWSPENDING')).value).toString()).toBe('one')
  })

  test('concurrent writes lose none and leave no draft behind', async () => {
    await Promise.all(
      Array.from({ length: 10 }, (_, index) => secrets.put(`s${index % 2}`, bytes(String(index)))),
    )
    expect((await readdir(folder)).sort()).toEqual(['s0.json', 's1.json'])
    expect([await current('s0'), await current('s1')]).toEqual(['8', '9'])
    expect((await stat(join(folder, 's0.json'))).mode & 0o777).toBe(0o600)
  })

  test('outlive a restart', async () => {
    await secrets.put('s', bytes('one'))
    secrets = await openLocalSecrets(folder, clock)
    expect(await current('s')).toBe('one')
  })

  test('a secret that is missing, damaged or out of time is an outage', async () => {
    const outage = { name: 'Outage', code: 'secret-unavailable' }
    await expect(secrets.read('none', soon)).rejects.toMatchObject(outage)
    await secrets.put('s', bytes('one'))
    await expect(secrets.read('s', clock.ms)).rejects.toMatchObject(outage)
    await writeFile(join(folder, 's.json'), '{"versions":1,"stages":{}}')
    await expect(secrets.read('s', soon)).rejects.toMatchObject(outage)
  })

  test('a name cannot leave the folder', async () => {
    await secrets.put('../escape', bytes('one'))
    expect(await readdir(folder)).toEqual(['..%2Fescape.json'])
    for (const name of ['', 'a b', 'a\0', 'x'.repeat(201)])
      await expect(secrets.put(name, bytes('one'))).rejects.toThrow(named('InvalidParameterException'))
  })
})

describe('pseudonyms', () => {
  test('are the HMAC of domain and value under the newest key of the domain', async () => {
    const [old, newest] = [Buffer.alloc(32, 1), Buffer.alloc(32, 2)]
    const document = { analytics: { '1': old.toString('base64url'), '10': newest.toString('base64url') } }
    await secrets.put('pseudonyms', bytes(JSON.stringify(document)))
    const pseudonyms = await loadPseudonyms(secrets, 'pseudonyms', soon)
    const expected = hmac(newest, encodeCbor(['analytics', 'Ada'])).toString('base64url')
    expect(pseudonyms.pseudonym('analytics', 'Ada')).toBe(`p10:${expected}`)
    expect(pseudonyms.domains).toEqual(['analytics'])
    expect(() => pseudonyms.pseudonym('billing', 'Ada')).toThrow(Outage)
  })

  test('join within a domain and not across two; a domain’s first key is made once', async () => {
    await ensurePseudonymKeys(secrets, 'pseudonyms', ['a', 'b'])
    const first = await loadPseudonyms(secrets, 'pseudonyms', soon)
    await ensurePseudonymKeys(secrets, 'pseudonyms', ['b', 'c'])
    const then = await loadPseudonyms(secrets, 'pseudonyms', soon)
    expect(then.domains).toEqual(['a', 'b', 'c'])
    expect(then.pseudonym('a', 'x')).toBe(first.pseudonym('a', 'x'))
    expect(then.pseudonym('a', 'x')).not.toBe(then.pseudonym('b', 'x'))
    expect(then.pseudonym('a', 'x')).toMatch(/^p1:[\w-]{43}$/)
  })

  test('bad keys are refused, all at once, and none is quoted', async () => {
    const short = Buffer.alloc(31, 7).toString('base64url')
    await secrets.put('p', bytes(JSON.stringify({ a: { '1': short }, b: { '0': 'x' }, c: 1, d: {} })))
    const error: unknown = await loadPseudonyms(secrets, 'p', soon).catch((caught: unknown) => caught)
    expect(error).toBeInstanceOf(ConfigError)
    const text = error instanceof Error ? error.message : ''
    for (const where of ['p: a: 1', 'p: b: 0', 'p: c', 'p: d']) expect(text).toContain(where)
    expect(text).not.toContain(short)
    await secrets.put('q', bytes('{"secret'))
    await expect(loadPseudonyms(secrets, 'q', soon)).rejects.toThrow('is no JSON object')
  })
})
