import { describe, expect, it } from 'vitest'
import { directorySigner, secretSigner } from '../../lib/adapters/directory-signer.ts'
import { publicKeyOf, verify } from '../../lib/envelope/crypto.ts'
import { ED25519, ESP256, type SignatureSuite } from '../../lib/envelope/suite.ts'
import { ConfigError, Outage } from '../../lib/errors.ts'
import { kidOf, newSigningSecret, readSigningSecret, secretSigners } from '../../lib/keys/signing-secret.ts'
import type { SecretStore } from '../../lib/ports.ts'
import { startStagedSecrets } from '../staged-secrets-endpoint.ts'
import { manualClock, signingRow, snapshotOf } from './fixtures.ts'

const SECRET = 'signing/gateway'
const kidText = (kid: Uint8Array): string => Buffer.from(kid).toString('base64url')

/** A store with one secret, that can be put out of order. */
function shelf(value: Uint8Array) {
  const state = { value, version: 1, isDown: false, reads: 0 }
  const secrets: SecretStore = {
    read: () => {
      state.reads++
      if (state.isDown) return Promise.reject(new Outage('secret-unavailable', 'down'))
      return Promise.resolve({ value: state.value, version: String(state.version) })
    },
  }
  return { state, secrets }
}

describe('a signing key in a secret', () => {
  it.each([ED25519, ESP256])('is made, read and used: $name', (suite: SignatureSuite) => {
    const key = readSigningSecret(newSigningSecret(suite), SECRET)
    expect(key.suite).toBe(suite)
    expect(kidOf(key)).toMatch(/^[\w-]{43}$/)
  })

  it.each([
    ['{"kty":"OKP","crv":"Ed25519","x":"AA","d":"planted"}'],
    ['{"kty":"OKP","crv":"Ed25519","x":"planted"}'],
    ['{"kty":"OKP","crv":"X25519","x":"AA","d":"planted"}'],
    ['{"kty":"OKP","crv":"Ed25519","x":"AA","d":"AA","__proto__":{"planted":1}}'],
    ['["planted"]'],
    ['null'],
    ['planted'],
    [`"${'planted'.repeat(1000)}"`],
  ])('is refused where it is another thing, and nothing of it told: %s', (text) => {
    const read = (): unknown => readSigningSecret(Buffer.from(text), SECRET)
    expect(read).toThrow(ConfigError)
    expect(read).toThrow(
      /^signing\/gateway: It is no private signing key as a JWK\. Make its value (?!.*planted)/,
    )
  })

  it('is read again after its age, and what was begun goes on with its key', async () => {
    const clock = manualClock()
    const { state, secrets } = shelf(newSigningSecret(ED25519))
    const current = secretSigners({ secrets, secret: SECRET, clock })
    const first = await current(clock.ms + 1000)
    const old = publicKeyOf(readSigningSecret(state.value, SECRET))
    state.value = newSigningSecret(ED25519)
    state.version++
    clock.ms += 60_000
    expect(kidText((await current(clock.ms + 1000)).kid)).toBe(kidText(first.kid))
    clock.ms += 1
    const second = await current(clock.ms + 1000)
    expect(kidText(second.kid)).toBe(kidOf(readSigningSecret(state.value, SECRET)))
    expect(state.reads).toBe(2)
    const bytes = Buffer.from('begun before')
    expect(verify(old, bytes, await first.sign(bytes, clock.ms + 1000))).toBe(true)
  })

  it('serves while the store does not answer, for as long as the rotation waits for it and no longer', async () => {
    const clock = manualClock()
    const { state, secrets } = shelf(newSigningSecret(ED25519))
    const current = secretSigners({ secrets, secret: SECRET, clock })
    const { kid } = await current(clock.ms + 1000)
    state.isDown = true
    clock.ms += 3_600_000
    for (let time = 0; time < 3; time++) expect((await current(clock.ms + 1000)).kid).toBe(kid)
    // Who does not answer is not asked for each.
    expect(state.reads).toBe(2)
    clock.ms += 1
    await expect(current(clock.ms + 1000)).rejects.toMatchObject({ code: 'signer-unavailable' })
    state.isDown = false
    state.value = Buffer.from('{"planted":1}')
    state.version++
    const error: unknown = await current(clock.ms + 1000).catch((reason: unknown) => reason)
    expect(error).toMatchObject({
      code: 'signer-unavailable',
      message: expect.not.stringContaining('planted'),
    })
  })
})

it('a gate signs with a secret whose current key the key directory has for it, and with no other', async () => {
  const endpoint = await startStagedSecrets()
  try {
    const arn = 'arn:aws:secretsmanager:eu-west-1:111122223333:secret:gate'
    const value = newSigningSecret(ED25519)
    const key = readSigningSecret(value, arn)
    endpoint.put(arn, Buffer.from(value).toString())
    const clock = { now: () => Date.now() }
    const now = Math.floor(Date.now() / 1000)
    const row = signingRow({
      ...{ kid: Buffer.from(kidOf(key), 'base64url'), kidText: kidOf(key), key: publicKeyOf(key) },
      ...{ notBefore: now - 10, notAfter: now + 1000, iss: 'gateway-eu' },
    })
    const where = { key: 'SEALGATE_SIGNING_KEY', kid: 'SEALGATE_SIGNING_KID' }
    const open = (name: string, state: 'active' | 'suspended') =>
      secretSigner(
        { name, secret: arn, snapshot: snapshotOf([], [{ ...row, state }]), clock, where },
        Date.now() + 5000,
      )
    const signer = await open('gateway-eu', 'active')
    expect(kidText(signer.kid)).toBe(kidOf(key))
    expect(kidText((await signer.current?.(Date.now() + 5000))?.kid ?? new Uint8Array())).toBe(kidOf(key))
    await expect(open('another', 'active')).rejects.toThrow(
      'SEALGATE_SIGNING_KEY: The key directory has no such key',
    )
    await expect(open('gateway-eu', 'suspended')).rejects.toThrow(ConfigError)
  } finally {
    await endpoint.end()
  }
})

it('a key that is enrolled and may not sign yet is told from one that is not there, with the time', () => {
  const clock = manualClock()
  const now = Math.floor(clock.ms / 1000)
  const key = readSigningSecret(newSigningSecret(ED25519), SECRET)
  const row = signingRow({
    ...{ kid: Buffer.from(kidOf(key), 'base64url'), iss: 'shop-web', key: publicKeyOf(key) },
    ...{ state: 'active', notBefore: now + 180, notAfter: now + 86_400 },
  })
  const where = { key: 'SEALGATE_SIGNING_KEYS', kid: 'SEALGATE_SIGNING_KIDS' }
  const open = (name: string) =>
    directorySigner({ name, signing: { key }, snapshot: snapshotOf([], [row]), clock, where })
  const from = new Date((now + 180) * 1000).toISOString()
  expect(() => open('shop-web')).toThrow(`This key of shop-web may sign from ${from} on. Wait until then`)
  expect(() => open('another')).toThrow('has no such key of another that may sign now')
  clock.ms += 180_000
  expect(kidText(open('shop-web').kid)).toBe(kidOf(key))
})
