import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { CborReader, type CborValue, encodeCbor } from '../../lib/cbor.ts'
import { DataKey, random } from '../../lib/envelope/crypto.ts'
import { encodeProof, encodeProofHeader, encodeSealedEvent } from '../../lib/envelope/encode.ts'
import { parse, TYP_PROOF } from '../../lib/envelope/format.ts'
import { sealBody } from '../../lib/envelope/seal.ts'
import { ED25519 } from '../../lib/envelope/suite.ts'

// What recurs from one message to the next is compared with what was kept of the last one: never may that show.

describe('recurring text', () => {
  it('is what the bytes say, whatever was read before in its place', () => {
    const texts = fc.oneof(
      // The same first, middle and last character and length: one place for all of them.
      fc
        .tuple(fc.string({ minLength: 1, maxLength: 1 }), fc.string({ minLength: 1, maxLength: 1 }))
        .map(([a, b]) => `x${a}y${b}z`),
      fc.string({ unit: 'grapheme', maxLength: 80 }),
    )
    fc.assert(
      fc.property(fc.array(texts, { maxLength: 20 }), (list) => {
        for (const text of list) expect(new CborReader(encodeCbor(text)).recurringText()).toBe(text)
      }),
    )
  })
})

describe('a proof header', () => {
  const kid = Buffer.from('kid-1')
  const signature = Buffer.alloc(64)

  const value = (header: Uint8Array): Uint8Array => {
    const claims = {
      iss: 'shop',
      aud: 'gate',
      iat: 1n,
      exp: 2n,
      contentType: 'application/json',
      ce: new Map(['id', 'source', 'type', 'specversion'].map((name) => [name, '1.0'])),
      session: random(16),
      number: 0n,
    }
    const place = { channel: 'orders', partition: 0, key: null }
    const recipient = { kekId: Buffer.from('kek'), wrapped: Buffer.alloc(184) }
    const sealed = sealBody(claims, place, Buffer.from('{}'), new DataKey(random(32)), recipient)
    return encodeSealedEvent(sealed.body, encodeProof({ protected: header, signature, receipt: undefined }))
  }
  const read = (bytes: Uint8Array): unknown => {
    try {
      const { alg, kid: id } = parse(bytes, 1_048_576).proof
      return `${alg} ${Buffer.from(id).toString()}`
    } catch (error) {
      return error instanceof Error && 'code' in error ? error.code : error
    }
  }

  it('that has a fault has it each time, and lends nothing to the next one', () => {
    const good = value(encodeProofHeader(ED25519.cose, kid, false))
    const other = value(encodeProofHeader(ED25519.cose, Buffer.from('kid-2'), false))
    const unsupported = value(encodeProofHeader(-7, kid, false))
    const empty = value(new Uint8Array())
    const said = [empty, good, unsupported, unsupported, good, other, empty, good].map(read)
    expect(said).toEqual([
      'malformed',
      '-19 kid-1',
      'unsupported',
      'unsupported',
      '-19 kid-1',
      '-19 kid-2',
      'malformed',
      '-19 kid-1',
    ])
  })

  const header = (alg: CborValue, typ: CborValue): Uint8Array =>
    encodeCbor(
      new Map<number, CborValue>([
        [1, alg],
        [4, kid],
        [16, typ],
      ]),
    )

  it.each([
    ['an alg of another number', header(-7, TYP_PROOF), 'unsupported'],
    ['an alg by its name', header('Ed25519', TYP_PROOF), 'unsupported'],
    ['an alg of too long a name', header('x'.repeat(1025), TYP_PROOF), 'oversize'],
    ['another typ', header(ED25519.cose, 'application/vnd.sealgate.body+cose'), 'unsupported'],
    ['a typ by number', header(ED25519.cose, 18), 'unsupported'],
    ['too long a typ', header(ED25519.cose, 'x'.repeat(1025)), 'oversize'],
  ])('is no better the second time: %s', (_what, bytes, code) => {
    expect(read(value(header(ED25519.cose, TYP_PROOF)))).toBe('-19 kid-1')
    const bad = value(bytes)
    expect([bad, bad, bad].map(read)).toEqual([code, code, code])
  })
})
