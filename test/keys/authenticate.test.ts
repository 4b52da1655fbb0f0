import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { DataKey, generateKeyPair, random } from '../../lib/envelope/crypto.ts'
import { encodeProof, encodeProofHeader, encodeSealedEvent } from '../../lib/envelope/encode.ts'
import { prove, sealBody } from '../../lib/envelope/seal.ts'
import { ED25519 } from '../../lib/envelope/suite.ts'
import { ProvenBatches } from '../../lib/envelope/verify.ts'
import { Outage, Rejection } from '../../lib/errors.ts'
import { authenticate, judgingTime, parseRecord } from '../../lib/keys/authenticate.ts'
import { KEY_STATES, type KeyState } from '../../lib/keys/directory.ts'
import { localSigner } from '../../lib/keys/signer.ts'
import { signingRow, snapshotOf } from './fixtures.ts'

const NOW = 1_790_000_000_000

describe('the judging time', () => {
  const broker = (timestamp: number) => ({ timestamp, timestampType: 'LogAppendTime' as const })
  const producer = (timestamp: number) => ({ timestamp, timestampType: 'CreateTime' as const })

  test('is the broker’s, in whole seconds rounded down, and ours where a producer wrote the timestamp', () => {
    expect(judgingTime(broker(NOW - 1), NOW, 0)).toBe(NOW / 1000 - 1)
    expect(judgingTime(producer(0), NOW + 999, 0)).toBe(NOW / 1000)
    expect(judgingTime(producer(NOW * 2), NOW, 0)).toBe(NOW / 1000)
  })

  test('is never before that of a record decided already', () => {
    expect(judgingTime(broker(NOW), NOW, NOW / 1000 + 7)).toBe(NOW / 1000 + 7)
    expect(judgingTime(broker(NOW), NOW, NOW / 1000 - 7)).toBe(NOW / 1000)
  })

  test('may be ahead of our clock by 300 s to the millisecond, and is an outage from there on', () => {
    expect(judgingTime(broker(NOW + 300_000), NOW, 0)).toBe(NOW / 1000 + 300)
    expect(() => judgingTime(broker(NOW + 300_001), NOW, 0)).toThrow(Outage)
    expect(judgingTime(producer(NOW + 300_001), NOW, 0)).toBe(NOW / 1000)
  })
})

describe('a hint', () => {
  /** A record of an event with this id; nobody asks who signed it. */
  const recordOf = (id: string, hint: Uint8Array) => {
    const ce = new Map([
      ['id', id],
      ['source', '/s'],
      ['type', 't'],
      ['specversion', '1.0'],
    ])
    const claims = {
      ...{ iss: 'shop', aud: 'gate', iat: 1n, exp: 2n, contentType: 'application/json', ce },
      ...{ session: random(16), number: 0n },
    }
    const recipient = { kekId: Buffer.from('kek'), wrapped: Buffer.alloc(184) }
    const place = { channel: 'orders', partition: 0, key: null }
    const { body } = sealBody(claims, place, Buffer.from('{}'), new DataKey(random(32)), recipient)
    const header = encodeProofHeader(ED25519.cose, Buffer.from('kid'), false)
    const proof = encodeProof({ protected: header, signature: Buffer.alloc(64), receipt: undefined })
    return { value: encodeSealedEvent(body, proof), headers: [{ name: 'ce_id', value: hint }] }
  }
  const agrees = (id: string, hint: Uint8Array): boolean => {
    try {
      parseRecord(recordOf(id, hint), 1_048_576)
      return true
    } catch (error) {
      if (error instanceof Rejection && error.code === 'hint-mismatch') return false
      throw error
    }
  }

  test('agrees with what is signed if its bytes are that text’s UTF-8, and never otherwise', () => {
    const texts = fc.string({ unit: fc.constantFrom('a', '\x7f', '\x80', 'é', '€', '😀'), minLength: 1 })
    fc.assert(
      fc.property(texts, texts, fc.nat(), (id, other, at) => {
        const bytes = Buffer.from(id)
        expect(agrees(id, bytes)).toBe(true)
        expect(agrees(id, Buffer.from(other))).toBe(id === other)
        // One byte a character, which is no UTF-8 beyond ASCII.
        expect(agrees(id, Buffer.from(id, 'latin1'))).toBe(Buffer.from(id, 'latin1').equals(bytes))
        expect(agrees(id, Buffer.concat([bytes, Buffer.from('a')]))).toBe(false)
        const changed = Buffer.from(bytes)
        changed[at % bytes.length] = (changed[at % bytes.length] ?? 0) ^ 1
        expect(agrees(id, changed)).toBe(false)
      }),
    )
  })
})

describe('a sealed record, by the state of its key and the broker’s time', () => {
  const { publicKey, privateKey } = generateKeyPair(ED25519)
  const signer = localSigner(privateKey)
  const place = { channel: 'orders', partition: 0, key: null }
  const sealed = async () => {
    const ce = new Map([
      ['id', '1'],
      ['source', '/s'],
      ['specversion', '1.0'],
      ['type', 't'],
    ])
    const claims = {
      ...{ iss: 'shop', aud: 'gate', iat: 900n, exp: 3000n, contentType: 'application/json', ce },
      ...{ session: random(16), number: 0n },
    }
    const recipient = { kekId: Buffer.from('kek'), wrapped: Buffer.alloc(184) }
    const body = sealBody(claims, place, Buffer.from('{}'), new DataKey(random(32)), recipient)
    const sign = (bytes: Uint8Array): Promise<Uint8Array> => signer.sign(bytes, Infinity)
    const [value] = await prove([body], { kid: signer.kid, alg: signer.alg, sign })
    return parseRecord({ value: value ?? null, headers: [] }, 1_048_576)
  }
  const [notBefore, compromisedAt, notAfter] = [1000, 1500, 2000]
  const times = {
    'before notBefore': notBefore - 1,
    'at notBefore': notBefore,
    'before the compromise': compromisedAt - 1,
    'at the compromise': compromisedAt,
    'after the compromise': compromisedAt + 1,
    'at notAfter': notAfter,
    'after notAfter': notAfter + 1,
  }
  /** A letter for each of the times: admitted, not valid, unknown. */
  const expected: Record<KeyState | 'destroyed', { readonly never: string; readonly since: string }> = {
    'pre-activation': { never: '-------', since: '-------' },
    active: { never: '-yyyyy-', since: '-yy----' },
    suspended: { never: '-------', since: '-------' },
    deactivated: { never: '-yyyyy-', since: '-yy----' },
    // Nobody knows since when: nothing counts, whatever the time.
    compromised: { never: '-------', since: '-yy----' },
    destroyed: { never: '???????', since: '???????' },
  }

  test.each([...KEY_STATES, 'destroyed'] as const)('%s', async (state) => {
    const envelope = await sealed()
    const letterAt = (time: number, since: number | null): string => {
      const row = signingRow({ kid: signer.kid, iss: 'shop', key: publicKey, notBefore, notAfter })
      const rows = state === 'destroyed' ? [] : [{ ...row, state, compromisedAt: since }]
      const bounds = { audience: 'gate', time, maxLifeSeconds: 86_400 }
      const copy = { snapshot: snapshotOf([], rows), fresh: true }
      try {
        authenticate(envelope, place, copy, bounds, new ProvenBatches())
        return 'y'
      } catch (error) {
        if (!(error instanceof Rejection)) throw error
        return error.code === 'key-not-valid' ? '-' : error.code === 'key-unknown' ? '?' : error.code
      }
    }
    const letters = (since: number | null): string =>
      Object.values(times)
        .map((time) => letterAt(time, since))
        .join('')
    expect(letters(null)).toBe(expected[state].never)
    expect(letters(compromisedAt)).toBe(expected[state].since)
  })
})
