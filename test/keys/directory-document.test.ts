import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  exportPrivateJwk,
  exportPublicJwk,
  generateKeyPair,
  publicKeyOf,
  thumbprint,
} from '../../lib/envelope/crypto.ts'
import { ED25519, ESP256 } from '../../lib/envelope/suite.ts'
import { ConfigError } from '../../lib/errors.ts'
import {
  type DirectoryDocument,
  MAX_DIRECTORY_BYTES,
  parseDirectory,
  sealDirectory,
} from '../../lib/keys/directory-document.ts'
import { localSigner } from '../../lib/keys/signer.ts'
import { nth } from './fixtures.ts'

const root = generateKeyPair(ED25519)
const roots = [root.publicKey]
const signer = localSigner(root.privateKey)
const pair = generateKeyPair(ED25519)
const other = generateKeyPair(ESP256)

const entry = (key = pair.publicKey) => ({
  kid: thumbprint(key).toString('base64url'),
  iss: 'shipping-service',
  alg: key.suite.name,
  jwk: exportPublicJwk(key),
  state: 'active' as const,
  notBefore: 1000,
  notAfter: 2000,
  compromisedAt: null,
})

const document = (changes: Partial<DirectoryDocument> = {}): DirectoryDocument => ({
  directory: 'sealgate/1',
  version: 42,
  issuedAt: 1_795_000_000,
  expiresAt: 1_795_086_400,
  signingKeys: [entry(), entry(other.publicKey)],
  keks: [{ kekId: 'orders-2026', provider: 'aws-kms', key: 'arn:…', iss: ['shipping-service'] }],
  ...changes,
})

const b64 = (text: string): string => Buffer.from(text).toString('base64url')
const HEADER = {
  alg: 'Ed25519',
  kid: Buffer.from(signer.kid).toString('base64url'),
  typ: 'vnd.sealgate.directory+jws',
}

/** What a root that checks nothing would sign. */
async function jws(payload: string, header: unknown = HEADER): Promise<Uint8Array> {
  const input = `${b64(JSON.stringify(header))}.${b64(payload)}`
  const signature = await signer.sign(Buffer.from(input), 0)
  return Buffer.from(`${input}.${Buffer.from(signature).toString('base64url')}`)
}

const faultsOf = (bytes: Uint8Array): string[] => {
  try {
    parseDirectory(bytes, roots)
    return []
  } catch (error) {
    if (error instanceof ConfigError) return error.faults.map(({ where, what }) => `${where} ${what}`)
    throw error
  }
}

describe('the signed directory', () => {
  test.each([root, generateKeyPair(ESP256)])(
    'comes back as it was sealed ($publicKey.suite.name root)',
    async (pinned) => {
      const sealed = await sealDirectory(document(), localSigner(pinned.privateKey), 0)
      const parsed = parseDirectory(sealed, [generateKeyPair(ED25519).publicKey, pinned.publicKey])
      expect(parsed.document).toEqual(document())
      const row = parsed.snapshot.signingKey(thumbprint(other.publicKey))
      expect(row).toMatchObject({
        iss: 'shipping-service',
        state: 'active',
        kidText: entry(other.publicKey).kid,
      })
      expect(row && thumbprint(row.key)).toEqual(thumbprint(other.publicKey))
      expect(parsed.snapshot.kek('orders-2026', 'shipping-service')).toMatchObject({
        key: 'arn:…',
        provider: 'aws-kms',
      })
      expect(parsed.snapshot).toMatchObject({
        version: 42,
        issuedAt: 1_795_000_000,
        expiresAt: 1_795_086_400,
      })
    },
  )

  test('is refused when any byte of it is changed', async () => {
    const sealed = await sealDirectory(document(), signer, 0)
    fc.assert(
      fc.property(fc.nat(sealed.length - 1), fc.integer({ min: 1, max: 255 }), (at, change) => {
        const changed = Uint8Array.from(sealed)
        changed[at] = (changed[at] ?? 0) ^ change
        expect(() => parseDirectory(changed, roots)).toThrow(ConfigError)
      }),
      { numRuns: 500 },
    )
  })

  test('has no two KEKs of one name on the wire: a text that is no Unicode is refused', async () => {
    const kek = { provider: 'aws-kms', key: 'arn:…', iss: ['shipping-service'] }
    // Escaped in JSON, and both U+FFFD in UTF-8.
    const keks = ['\ud800', '\ud801'].map((kekId) => ({ kekId, ...kek }))
    expect(faultsOf(await jws(JSON.stringify(document({ keks }))))).toEqual(
      expect.arrayContaining([
        'keks[0].kekId It is no text of 1 to 64 bytes.',
        'keks[1].kekId It is no text of 1 to 64 bytes.',
      ]),
    )
  })

  test('is refused from a root that is not pinned', async () => {
    const stranger = localSigner(generateKeyPair(ED25519).privateKey)
    expect(faultsOf(await sealDirectory(document(), stranger, 0))).toEqual([
      'key directory It is not signed by a pinned root.',
    ])
    // Its kid alone does not help.
    const posing = { ...stranger, kid: signer.kid }
    expect(faultsOf(await sealDirectory(document(), posing, 0))).toHaveLength(1)
  })

  test.each([
    ['crit', { ...HEADER, crit: ['exp'] }],
    ['a key of its own', { ...HEADER, jwk: exportPublicJwk(root.publicKey) }],
    ['an address', { ...HEADER, jku: 'https://example.org' }],
    ['no alg', { kid: HEADER.kid, typ: HEADER.typ }],
    ['alg none', { ...HEADER, alg: 'none' }],
    ['alg EdDSA', { ...HEADER, alg: 'EdDSA' }],
    ['alg HS256', { ...HEADER, alg: 'HS256' }],
    ['another typ', { ...HEADER, typ: 'JWT' }],
  ])('is refused with %s in its header, though the signature holds', async (_, header) => {
    expect(faultsOf(await jws(JSON.stringify(document()), header))).toHaveLength(1)
  })

  test.each([
    ['a name twice', '{"directory":"sealgate/1","directory":"sealgate/1"}'],
    ['a name twice, one escaped', '{"version":1,"v\\u0065rsion":2}'],
    ['white space', JSON.stringify(document(), null, 1)],
    ['a byte order mark', '\ufeff{}'],
    ['no JSON', '{'],
    ['a number written otherwise', '{"version":1e0}'],
  ])('is refused with %s', async (_, payload) => {
    expect(faultsOf(await jws(payload))).toEqual([
      'key directory Its payload is not JSON as JSON.stringify writes it.',
    ])
  })

  test('is refused where it is no JWS, or too large, without being read', () => {
    for (const text of ['', 'a', 'a.b', 'a.b.c.d', '{}']) expect(faultsOf(Buffer.from(text))).toHaveLength(1)
    expect(faultsOf(Buffer.alloc(MAX_DIRECTORY_BYTES + 1, '.'))).toEqual(['key directory It is too large.'])
  })

  test('names every fault at once', async () => {
    const bad = {
      directory: 'sealgate/2',
      version: 0,
      issuedAt: 5,
      expiresAt: 5,
      extra: true,
      signingKeys: [
        { ...entry(), kid: 'not base64url', state: 'destroyed', notAfter: 1 },
        { ...entry(), jwk: exportPrivateJwk(pair.privateKey) },
        { ...entry(), alg: 'ES512', compromisedAt: -1 },
        { ...entry(), alg: 'ESP256', iss: '' },
        { ...entry(), jwk: { kty: 'OKP', crv: 'Ed25519', x: Buffer.alloc(32).toString('base64url') } },
        { ...entry(), x5c: [] },
        { kid: 'AA' },
        null,
      ],
      keks: [
        { kekId: 'k', provider: 'p', key: 'a', iss: [] },
        { kekId: 'k', provider: 'p', key: 'b', iss: ['i', 7] },
        { kekId: 'x'.repeat(65), provider: 'p', key: 'b', iss: ['i'] },
      ],
    }
    const faults = faultsOf(await jws(JSON.stringify(bad)))
    for (const expected of [
      'directory It is not "sealgate/1"',
      'version It is 0',
      'expiresAt It is not after issuedAt',
      'key directory It has the unknown field "extra"',
      'signingKeys[0].kid It is not base64url',
      'signingKeys[0].state It is no state',
      'signingKeys[0].notAfter It is before notBefore',
      'signingKeys[1].jwk It holds a private key',
      'signingKeys[2].alg It is no algorithm',
      'signingKeys[2].compromisedAt It is no whole number',
      'signingKeys[2].kid It stands twice',
      'signingKeys[3].iss It is no text',
      'signingKeys[3].jwk It is no public key: not a ESP256 key',
      'signingKeys[4].jwk It is no public key: x is a point of low order',
      'signingKeys[5] It has the unknown field "x5c"',
      'signingKeys[6].iss It is no text',
      'signingKeys[7] It is no object',
      'keks[0].iss It is no list',
      'keks[1].kekId It stands twice',
      'keks[1].iss[1] It is no text',
      'keks[2].kekId It is no text',
    ])
      expect(faults.some((fault) => fault.startsWith(expected))).toBe(true)
    expect(faults.join()).not.toContain(exportPrivateJwk(pair.privateKey).d)
  })

  test('is not signed with a fault in it', async () => {
    const twice = document({ signingKeys: [entry(), entry()] })
    await expect(sealDirectory(twice, signer, 0)).rejects.toThrow('signingKeys[1].kid')
    const open: DirectoryDocument = JSON.parse(
      JSON.stringify(document({ signingKeys: [{ ...entry(), jwk: exportPrivateJwk(pair.privateKey) }] })),
    )
    await expect(sealDirectory(open, signer, 0)).rejects.toThrow('private key')
  })

  test('holds public keys only, whatever was given', async () => {
    const sealed = Buffer.from(await sealDirectory(document(), signer, 0)).toString()
    const payload = Buffer.from(nth(sealed.split('.'), 1), 'base64url').toString()
    expect(payload).not.toContain('"d"')
    expect(publicKeyOf(root.privateKey).suite).toBe(ED25519)
  })
})
