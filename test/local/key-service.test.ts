import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, test } from 'vitest'
import { importPublicKey, verify } from '../../lib/envelope/crypto.ts'
import { ED25519, ESP256 } from '../../lib/envelope/suite.ts'
import { ConfigError } from '../../lib/errors.ts'
import { openLocalKeyService } from '../../lib/local/key-service.ts'
import { localKeyPort, localKeySigner } from '../../lib/local/key-service-port.ts'
import { keyServiceContract } from '../contract-suites/key-service.ts'
import { keySignerContract } from '../contract-suites/key-signer.ts'
import { manualClock, nth } from '../keys/fixtures.ts'

const folders: string[] = []
async function newFolder(): Promise<string> {
  const folder = await mkdtemp(join(tmpdir(), 'sealgate-'))
  folders.push(folder)
  return join(folder, 'keys')
}
afterEach(async () => {
  for (const folder of folders.splice(0)) await rm(folder, { recursive: true, force: true })
})

const CONTEXT = { 'sealgate:iss': 'a', 'sealgate:aud': 'b' }
const named = (name: string): unknown => expect.objectContaining({ name })

keyServiceContract('The embedded key service', async () => {
  const clock = { now: () => Date.now() }
  const folder = await mkdtemp(join(tmpdir(), 'sealgate-'))
  const keys = await openLocalKeyService(folder, clock)
  return {
    service: localKeyPort(keys, clock),
    makeKek: async () => ({ kekId: 'k', provider: 'local', key: (await keys.createKey()).arn }),
    makeSigningKek: async () => {
      const { arn: key } = await keys.createKey({ spec: 'ECC_NIST_P256' })
      return { kekId: 'k', provider: 'local', key }
    },
    encrypt: (kek, plaintext, context) => Promise.resolve(keys.encrypt(kek.key, plaintext, context)),
    disable: (kek) => keys.disableKey(kek.key),
    enable: (kek) => keys.enableKey(kek.key),
    scheduleDeletion: (kek) => keys.scheduleKeyDeletion(kek.key),
    rotate: (kek) => keys.rotateKeyOnDemand(kek.key),
    end: () => rm(folder, { recursive: true, force: true }),
  }
})

keySignerContract('The embedded key service', async () => {
  const clock = { now: () => Date.now() }
  const folder = await mkdtemp(join(tmpdir(), 'sealgate-'))
  const keys = await openLocalKeyService(folder, clock)
  return {
    makeKey: async (spec) => (await keys.createKey({ spec })).arn,
    signer: async (key) => Promise.resolve(localKeySigner(keys, key, Buffer.from('kid'))),
    publicKey: async (key) => {
      const jwk = keys.getPublicKey(key)
      return Promise.resolve(importPublicKey(jwk.kty === 'EC' ? ESP256 : ED25519, jwk))
    },
    disable: (key) => keys.disableKey(key),
    scheduleDeletion: (key) => keys.scheduleKeyDeletion(key),
    end: () => rm(folder, { recursive: true, force: true }),
  }
})

describe('the embedded key service', () => {
  test('keeps its keys over a restart, states and all material', async () => {
    const folder = await newFolder()
    const clock = manualClock()
    const first = await openLocalKeyService(folder, clock)
    const { arn } = await first.createKey({
      policy: [
        { principal: 'p', actions: ['Decrypt', 'GenerateDataKey'], context: { 'sealgate:iss': ['a'] } },
      ],
    })
    const signing = await first.createKey({ spec: 'ECC_NIST_P256' })
    const old = first.generateDataKey(arn, CONTEXT, 'p')
    await first.rotateKeyOnDemand(arn)
    const again = await openLocalKeyService(folder, clock)
    expect(again.describeKey(arn)).toEqual(first.describeKey(arn))
    expect(Buffer.from(again.decrypt(arn, old.ciphertext, CONTEXT, 'p'))).toEqual(Buffer.from(old.plaintext))
    expect(() => again.decrypt(arn, old.ciphertext, CONTEXT, 'q')).toThrow(named('AccessDeniedException'))
    expect(again.getPublicKey(signing.arn)).toEqual(first.getPublicKey(signing.arn))
  })

  test('wraps a data key in 184 bytes, as AWS does', async () => {
    const keys = await openLocalKeyService(await newFolder(), manualClock())
    const { arn } = await keys.createKey()
    expect(keys.generateDataKey(arn, CONTEXT).ciphertext).toHaveLength(184)
  })

  test('refuses a blob that was changed in any byte', async () => {
    const keys = await openLocalKeyService(await newFolder(), manualClock())
    const { arn } = await keys.createKey()
    await keys.rotateKeyOnDemand(arn)
    const { ciphertext } = keys.generateDataKey(arn, CONTEXT)
    for (let at = 0; at < ciphertext.length; at++) {
      const changed = Uint8Array.from(ciphertext)
      changed[at] = nth([...changed], at) ^ 1
      const expected = at >= 4 && at < 40 ? 'IncorrectKeyException' : 'InvalidCiphertextException'
      expect(() => keys.decrypt(arn, changed, CONTEXT)).toThrow(named(expected))
    }
    expect(() => keys.decrypt(arn, ciphertext.subarray(1), CONTEXT)).toThrow(
      named('InvalidCiphertextException'),
    )
  })

  test('names its errors as AWS does', async () => {
    const keys = await openLocalKeyService(await newFolder(), manualClock())
    const { arn } = await keys.createKey()
    const other = await keys.createKey()
    const signing = await keys.createKey({ spec: 'ECC_NIST_EDWARDS25519' })
    const { ciphertext } = keys.generateDataKey(arn, CONTEXT)
    expect(() => keys.decrypt(other.arn, ciphertext, CONTEXT)).toThrow(named('IncorrectKeyException'))
    expect(() => keys.decrypt('arn:aws:kms:local:000000000000:key/none', ciphertext, CONTEXT)).toThrow(
      named('NotFoundException'),
    )
    expect(() => keys.encrypt(arn, Buffer.alloc(4097), CONTEXT)).toThrow(named('ValidationException'))
    expect(() => keys.encrypt(arn, Buffer.alloc(0), CONTEXT)).toThrow(named('ValidationException'))
    expect(() => keys.generateDataKey(signing.arn, CONTEXT)).toThrow(named('InvalidKeyUsageException'))
    expect(() => keys.sign(arn, Buffer.alloc(1))).toThrow(named('InvalidKeyUsageException'))
    await expect(keys.rotateKeyOnDemand(signing.arn)).rejects.toThrow(named('UnsupportedOperationException'))
    await expect(keys.cancelKeyDeletion(arn)).rejects.toThrow(named('KMSInvalidStateException'))
    await expect(keys.scheduleKeyDeletion(arn, 6)).rejects.toThrow(named('ValidationException'))
    await keys.disableKey(arn)
    expect(() => keys.decrypt(arn, ciphertext, CONTEXT)).toThrow(named('DisabledException'))
    await keys.scheduleKeyDeletion(arn)
    expect(() => keys.decrypt(arn, ciphertext, CONTEXT)).toThrow(named('KMSInvalidStateException'))
    await expect(keys.enableKey(arn)).rejects.toThrow(named('KMSInvalidStateException'))
  })

  test('a key pending deletion can be kept, disabled, until its day; then it is gone from disk too', async () => {
    const folder = await newFolder()
    const clock = manualClock()
    const keys = await openLocalKeyService(folder, clock)
    const { arn, keyId } = await keys.createKey()
    await keys.scheduleKeyDeletion(arn, 7)
    await keys.cancelKeyDeletion(arn)
    expect(keys.describeKey(arn)).toMatchObject({ state: 'Disabled', deletionAt: null })
    await keys.scheduleKeyDeletion(arn, 7)
    clock.ms += 7 * 86_400_000
    expect(() => keys.describeKey(arn)).toThrow(named('NotFoundException'))
    await keys.createKey()
    expect(await readFile(join(folder, 'key-service.json'), 'utf8')).not.toContain(keyId)
  })

  test('is rotated on demand 25 times and no more', async () => {
    const keys = await openLocalKeyService(await newFolder(), manualClock())
    const { arn } = await keys.createKey()
    // Side by side: none may be lost.
    await Promise.all(Array.from({ length: 25 }, () => keys.rotateKeyOnDemand(arn)))
    expect(keys.describeKey(arn).onDemandRotations).toBe(25)
    await expect(keys.rotateKeyOnDemand(arn)).rejects.toThrow(named('LimitExceededException'))
  })

  test('a policy lets a principal act only under the context that it names', async () => {
    const keys = await openLocalKeyService(await newFolder(), manualClock())
    const { arn } = await keys.createKey({
      policy: [
        { principal: 'a', actions: ['GenerateDataKey'], context: { 'sealgate:iss': ['a'] } },
        { principal: 'b', actions: ['Decrypt'], context: { 'sealgate:aud': ['b'] } },
      ],
    })
    const { ciphertext } = keys.generateDataKey(arn, CONTEXT, 'a')
    const denied = named('AccessDeniedException')
    expect(keys.decrypt(arn, ciphertext, CONTEXT, 'b')).toHaveLength(32)
    expect(() => keys.decrypt(arn, ciphertext, CONTEXT, 'a')).toThrow(denied)
    expect(() => keys.decrypt(arn, ciphertext, CONTEXT)).toThrow(denied)
    expect(() => keys.generateDataKey(arn, { ...CONTEXT, 'sealgate:iss': 'c' }, 'a')).toThrow(denied)
    expect(() => keys.generateDataKey(arn, {}, 'a')).toThrow(denied)
    const port = localKeyPort(keys, manualClock(), 'c')
    const asked = port.unwrap({ kekId: 'k', provider: 'local', key: arn }, ciphertext, CONTEXT, Infinity)
    await expect(asked).rejects.toMatchObject({ name: 'Outage', code: 'key-service-denied' })
  })

  test.each([
    ['ECC_NIST_EDWARDS25519', ED25519],
    ['ECC_NIST_P256', ESP256],
  ] as const)('signs with a key that never leaves it (%s)', async (spec, suite) => {
    const keys = await openLocalKeyService(await newFolder(), manualClock())
    const { arn } = await keys.createKey({ spec })
    const jwk = keys.getPublicKey(arn)
    expect(jwk).not.toHaveProperty('d')
    const signer = localKeySigner(keys, arn, Buffer.from('kid'))
    expect(signer.alg).toBe(suite.cose)
    const message = Buffer.from('message')
    expect(verify(importPublicKey(suite, jwk), message, await signer.sign(message, Infinity))).toBe(true)
    await keys.disableKey(arn)
    await expect(signer.sign(message, Infinity)).rejects.toMatchObject({ code: 'signer-unavailable' })
  })

  test('its file is for its owner only, whole, and the only one', async () => {
    const folder = await newFolder()
    const keys = await openLocalKeyService(folder, manualClock())
    await Promise.all(Array.from({ length: 5 }, () => keys.createKey()))
    expect(await readdir(folder)).toEqual(['key-service.json'])
    expect((await stat(folder)).mode & 0o777).toBe(0o700)
    expect((await stat(join(folder, 'key-service.json'))).mode & 0o777).toBe(0o600)
  })

  test.each([
    '',
    '{',
    '[]',
    '{}',
    '{"keys":[{}]}',
    '{"keys":[{"keyId":"a","spec":"RSA","state":"Enabled","deletionAt":null,"materials":[],"policy":null}]}',
  ])('a damaged file is refused and left as it is: %s', async (content) => {
    const folder = await newFolder()
    await openLocalKeyService(folder, manualClock())
    const path = join(folder, 'key-service.json')
    await writeFile(path, content)
    await expect(openLocalKeyService(folder, manualClock())).rejects.toThrow(ConfigError)
    expect(await readFile(path, 'utf8')).toBe(content)
  })
})
