import { mkdtemp, readFile, rm, stat, unlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { documentFile } from '../../lib/adapters/document-file.ts'
import { verify } from '../../lib/envelope/crypto.ts'
import { ConfigError } from '../../lib/errors.ts'
import { encryptionContext } from '../../lib/keys/data-keys.ts'
import { maySign, type DirectorySnapshot } from '../../lib/keys/directory.ts'
import { createDirectory } from '../../lib/keys/directory-reader.ts'
import { type LocalKeyService, openLocalKeyService } from '../../lib/local/key-service.ts'
import { localKeyPort } from '../../lib/local/key-service-port.ts'
import { type LocalKeys, openLocalKeys } from '../../lib/local/root.ts'
import { manualClock } from '../keys/fixtures.ts'

let folder: string
let service: LocalKeyService
const clock = manualClock()
const open = (): Promise<LocalKeys> => openLocalKeys(join(folder, 'keys'), service, clock)
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'sealgate-'))
  service = await openLocalKeyService(join(folder, 'kms'), clock)
})
afterEach(() => rm(folder, { recursive: true, force: true }))

async function read(keys: LocalKeys): Promise<DirectorySnapshot> {
  const source = documentFile({ path: keys.directoryPath, outage: 'directory-unavailable', clock })
  return (await createDirectory({ source, roots: keys.roots, clock }).snapshot(clock.ms + 5000)).snapshot
}

describe('the keys of a local run', () => {
  test('a first start makes a root, and principals whose keys are usable at once', async () => {
    const keys = await open()
    await keys.enrol([
      { iss: 'shop', readers: ['gateway'] },
      { iss: 'gateway', readers: ['billing'] },
    ])
    const snapshot = await read(keys)
    const signer = keys.signer('shop')
    const row = snapshot.signingKey(signer.kid)
    expect(row).toMatchObject({ iss: 'shop' })
    expect(row && maySign(row, Math.floor(clock.ms / 1000))).toBe(true)
    const signature = await signer.sign(Buffer.from('x'), Infinity)
    expect(row && verify(row.key, Buffer.from('x'), signature)).toBe(true)
    expect(snapshot.kek(keys.kek('shop').kekId, 'shop')).toMatchObject(keys.kek('shop'))
    expect(snapshot.kek(keys.kek('shop').kekId, 'gateway')).toBeUndefined()
    expect(() => keys.signer('nobody')).toThrow(TypeError)
  })

  test('an issuer makes data keys in its own name only, and only its readers open what is meant for them', async () => {
    const keys = await open()
    await keys.enrol([{ iss: 'shop', readers: ['gateway'] }])
    const context = encryptionContext({ iss: 'shop', aud: 'gateway', type: 't' })
    const kek = keys.kek('shop')
    const as = (principal: string) => localKeyPort(service, clock, principal)
    const { wrapped } = await as('shop').generate(kek, context, Infinity)
    expect(await as('gateway').unwrap(kek, wrapped, context, Infinity)).toHaveLength(32)
    const denied = { code: 'key-service-denied' }
    await expect(
      as('shop').generate(kek, { ...context, 'sealgate:iss': 'other' }, Infinity),
    ).rejects.toMatchObject(denied)
    await expect(as('billing').unwrap(kek, wrapped, context, Infinity)).rejects.toMatchObject(denied)
    const more = { ...context, purpose: 'backup' }
    await expect(as('shop').generate(kek, more, Infinity)).rejects.toMatchObject(denied)
    await expect(as('gateway').unwrap(kek, wrapped, more, Infinity)).rejects.toMatchObject(denied)
    await keys.enrol([{ iss: 'shop', readers: ['billing'] }])
    await expect(as('gateway').unwrap(kek, wrapped, context, Infinity)).rejects.toMatchObject(denied)
  })

  test('a restart changes nothing, and a new principal makes a new version beside the old rows', async () => {
    const first = await open()
    await first.enrol([{ iss: 'shop', readers: [] }])
    const before = await read(first)
    const again = await open()
    await again.enrol([{ iss: 'shop', readers: [] }])
    expect((await read(again)).version).toBe(before.version)
    expect(again.signer('shop').kid).toEqual(first.signer('shop').kid)
    await again.enrol([{ iss: 'billing', readers: [] }])
    const after = await read(again)
    expect(after.version).toBe(before.version + 1)
    expect(after.signingKeys.map(({ iss }) => iss)).toEqual(['shop', 'billing'])
  })

  test('a directory that runs out is renewed when the folder is opened', async () => {
    const late = manualClock()
    const first = await openLocalKeys(join(folder, 'keys'), service, late)
    const { version } = await read(first)
    late.ms += 29 * 86_400_000
    await openLocalKeys(join(folder, 'keys'), service, late)
    const source = documentFile({ path: first.directoryPath, outage: 'directory-unavailable', clock: late })
    const copy = await createDirectory({ source, roots: first.roots, clock: late }).snapshot(late.ms + 5000)
    expect(copy.snapshot.version).toBe(version + 1)
  })

  test('private keys are for their owner only, and none is in the directory', async () => {
    const keys = await open()
    await keys.enrol([{ iss: 'shop', readers: [] }])
    for (const file of ['root.json', 'principals.json'])
      expect((await stat(join(folder, 'keys', file))).mode & 0o777).toBe(0o600)
    expect((await stat(join(folder, 'keys'))).mode & 0o777).toBe(0o700)
    const payload = (await readFile(keys.directoryPath, 'utf8')).split('.')[1] ?? ''
    expect(Buffer.from(payload, 'base64url').toString()).not.toContain('"d"')
  })

  test('a lost or changed directory is refused, not made anew: what was revoked would come back', async () => {
    const keys = await open()
    await keys.enrol([{ iss: 'shop', readers: [] }])
    await writeFile(keys.directoryPath, 'a.b.c')
    await expect(open()).rejects.toThrow(ConfigError)
    await unlink(keys.directoryPath)
    await expect(open()).rejects.toThrow(ConfigError)
  })

  test.each(['root.json', 'principals.json'])(
    'a damaged %s is refused, and no key is quoted',
    async (file) => {
      await (await open()).enrol([{ iss: 'shop', readers: [] }])
      await writeFile(join(folder, 'keys', file), '{"d":"c2VjcmV0"')
      await expect(open()).rejects.toThrow(/It is not what was written there/)
      await expect(open()).rejects.not.toThrow(/c2VjcmV0/)
      await writeFile(join(folder, 'keys', file), '{"principals":[{"iss":1}]}')
      await expect(open()).rejects.toThrow(ConfigError)
    },
  )
})
