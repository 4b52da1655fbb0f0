import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { DataKey, random } from '../../lib/envelope/crypto.ts'
import { encodeProof, encodeProofHeader, encodeSealedEvent } from '../../lib/envelope/encode.ts'
import { sealBody } from '../../lib/envelope/seal.ts'
import { ED25519 } from '../../lib/envelope/suite.ts'
import { Outage, Rejection } from '../../lib/errors.ts'
import { judgingTime, parseRecord } from '../../lib/keys/authenticate.ts'

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
