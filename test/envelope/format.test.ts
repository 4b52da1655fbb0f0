import fc from 'fast-check'
import { readdirSync, readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { CborError, decodeCbor, encodeCbor } from '../../lib/cbor.ts'
import { Rejection } from '../../lib/errors.ts'
import { DataKey, generateKeyPair, type PublicKey, random, sign } from '../../lib/envelope/crypto.ts'
import { encode } from '../../lib/envelope/encode.ts'
import { parse } from '../../lib/envelope/format.ts'
import {
  auditPath,
  auditPathLength,
  leafHash,
  rootOfPath,
  treeLevels,
  treeRoot,
} from '../../lib/envelope/merkle.ts'
import { open, prove, sealBody } from '../../lib/envelope/seal.ts'
import { ED25519, ESP256, type SignatureSuite } from '../../lib/envelope/suite.ts'
import { ProvenBatches, type Verified, verify } from '../../lib/envelope/verify.ts'

const LIMIT = 1_048_576
const PLACE = { channel: 'orders', partition: 3, key: Buffer.from('k') }
const BOUNDS = { audience: 'gate', time: 1_790_000_000, maxLifeSeconds: 86_400 }
const PLAINTEXT = Buffer.from('{"order":"A-1"}')

interface Sealed {
  readonly values: Uint8Array[]
  readonly dataKey: DataKey
  read(value: Uint8Array, batches?: ProvenBatches, key?: PublicKey): Verified
}

async function seal(count: number, suite: SignatureSuite = ED25519): Promise<Sealed> {
  const { privateKey, publicKey } = generateKeyPair(suite)
  const dataKey = new DataKey(random(32))
  const bodies = Array.from({ length: count }, (_, index) =>
    sealBody(
      {
        iss: 'shop',
        aud: 'gate',
        iat: 1_789_999_999n,
        exp: 1_790_003_600n,
        contentType: 'application/json',
        ce: new Map([
          ['id', `id-${index}`],
          ['source', '/shop'],
          ['type', 'com.example.order.v1'],
          ['specversion', '1.0'],
        ]),
        session: Buffer.alloc(16, 7),
        number: BigInt(index),
      },
      PLACE,
      PLAINTEXT,
      dataKey,
      { kekId: Buffer.from('kek-1'), wrapped: Buffer.alloc(184, 9) },
    ),
  )
  const signer = {
    kid: Buffer.from('kid-1'),
    alg: suite.cose,
    sign: (bytes: Uint8Array) => Promise.resolve(sign(privateKey, bytes)),
  }
  return {
    values: await prove(bodies, signer),
    dataKey,
    read: (value, batches = new ProvenBatches(), key = publicKey) =>
      verify(parse(value, LIMIT), PLACE, key, BOUNDS, batches),
  }
}

function codeOf(work: () => unknown): string {
  try {
    work()
    return 'admitted'
  } catch (error) {
    if (error instanceof Rejection) return error.code
    throw error
  }
}

/** What parsing alone refuses; `unsupported` also stands for an algorithm that is not the key's. */
const PARSE_CODES = ['value-missing', 'oversize', 'malformed', 'unsupported']

const VECTORS = new URL('../vectors/', import.meta.url)
const vectorValues = readdirSync(VECTORS)
  .filter((file) => file.endsWith('.json'))
  .flatMap((file) => {
    const group: VectorFile = JSON.parse(readFileSync(new URL(file, VECTORS), 'utf8'))
    return group.vectors.map(({ name, value, expect: expected }) => ({
      name: `${group.group}/${name}`,
      limit: group.gateway.maxValueBytes,
      value: value === null ? null : Buffer.from(value, 'hex'),
      expected: PARSE_CODES.includes(expected) && name !== 'alg-of-another-key' ? expected : 'admitted',
    }))
  })

interface VectorFile {
  readonly group: string
  readonly gateway: { readonly maxValueBytes: number }
  readonly vectors: readonly {
    readonly name: string
    readonly value: string | null
    readonly expect: string
  }[]
}

describe('the sealed event', () => {
  it.each(vectorValues)('parses as its vector expects: $name', ({ value, limit, expected }) => {
    expect(codeOf(() => parse(value, limit))).toBe(expected)
  })

  it.each(vectorValues.filter(({ expected }) => expected === 'admitted'))(
    'is written again byte for byte: $name',
    ({ value, limit }) => {
      expect(Buffer.from(encode(parse(value, limit))).equals(value ?? Buffer.alloc(0))).toBe(true)
    },
  )

  it.each([ED25519, ESP256])('opens to what was sealed, one event and batches, with $name', async (suite) => {
    for (const count of [1, 2, 3, 5, 8, 13]) {
      const { values, dataKey, read } = await seal(count, suite)
      const batches = new ProvenBatches()
      for (const value of values) expect(Buffer.from(open(read(value, batches), dataKey))).toEqual(PLAINTEXT)
      for (const value of values.toReversed()) expect(read(value, batches).body.claims.iss).toBe('shop')
    }
  })

  it('is refused with any single bit changed, alone or after its batch has been proven', async () => {
    for (const count of [1, 5]) {
      const { values, read } = await seal(count)
      const warm = new ProvenBatches()
      for (const value of values) read(value, warm)
      const target = Buffer.from(values[count - 2] ?? values[0] ?? [])
      for (let bit = 0; bit < target.length * 8; bit++) {
        const changed = Buffer.from(target)
        changed[bit >> 3] = (changed[bit >> 3] ?? 0) ^ (1 << (bit & 7))
        if (onlyTreeSizeDiffers(target, changed)) continue
        expect(
          codeOf(() => read(changed)),
          `bit ${bit}, cold`,
        ).not.toBe('admitted')
        expect(
          codeOf(() => read(changed, warm)),
          `bit ${bit}, warm`,
        ).not.toBe('admitted')
      }
    }
  })

  it('keeps its content even where the tree size, which no signature covers, is changed to one with the same path', async () => {
    const { values, read, dataKey } = await seal(5)
    const target = parse(values[3] ?? null, LIMIT)
    const { receipt } = target.proof
    if (receipt === undefined) throw new Error('a batch has receipts')
    const changed = encode({ ...target, proof: { ...target.proof, receipt: { ...receipt, treeSize: 7 } } })
    expect(Buffer.from(open(read(changed), dataKey))).toEqual(PLAINTEXT)
  })

  it('gives the same verdict on a batch whatever is remembered of it', async () => {
    const { values, read } = await seal(9)
    const other = await seal(9)
    await fc.assert(
      fc.asyncProperty(
        fc.array(
          fc.record({
            index: fc.nat(8),
            flip: fc.option(fc.nat(), { nil: undefined }),
            foreign: fc.boolean(),
          }),
          { maxLength: 30 },
        ),
        (steps) => {
          const warm = new ProvenBatches()
          for (const { index, flip, foreign } of steps) {
            const value = Buffer.from((foreign ? other : { values }).values[index] ?? [])
            if (flip !== undefined) {
              const at = value.length - 1 - (flip % 700)
              value[at] = (value[at] ?? 0) ^ 1
            }
            expect(codeOf(() => read(value, warm))).toBe(codeOf(() => read(value)))
          }
          return Promise.resolve()
        },
      ),
      { numRuns: 60 },
    )
  })

  it('is proven by its own key alone, whatever another key has proven before', async () => {
    const { values, read } = await seal(5)
    const { publicKey: other } = generateKeyPair(ED25519)
    const batches = new ProvenBatches()
    for (const value of values) read(value, batches)
    for (const value of values) expect(codeOf(() => read(value, batches, other))).toBe('signature-invalid')
    for (const value of values) expect(codeOf(() => read(value, batches))).toBe('admitted')
  })

  it('gives the same verdict on a path of any length, in a tree of any size, whatever was proven before', async () => {
    const { values, read } = await seal(6)
    const warm = new ProvenBatches()
    for (const value of values) read(value, warm)
    const hash = Buffer.concat([Buffer.of(0x58, 32), random(32)])
    let admitted = 0
    for (const value of values) {
      const { body, proof } = parse(value, LIMIT)
      const path = proof.receipt?.path ?? new Uint8Array()
      for (const claimed of [path, path.subarray(34), path.subarray(0, -34), Buffer.concat([path, hash])]) {
        for (let treeSize = 2; treeSize <= 14; treeSize++) {
          for (let leafIndex = 0; leafIndex < treeSize; leafIndex++) {
            if (auditPathLength(treeSize, leafIndex) * 34 !== claimed.length) continue
            const receipt = { treeSize, leafIndex, path: claimed }
            const changed = encode({ body, proof: { ...proof, receipt } })
            const verdict = codeOf(() => read(changed))
            expect(codeOf(() => read(changed, warm))).toBe(verdict)
            if (verdict === 'admitted') admitted += 1
          }
        }
      }
    }
    // In other trees than its own too: RFC 9162 roots commit to neither size nor place, and nothing here depends on them.
    expect(admitted).toBeGreaterThan(values.length)
  })

  it('throws nothing but a Rejection, and is never admitted with other content, over 100,000 mutated records', async () => {
    const worlds = await Promise.all([seal(1), seal(1, ESP256), seal(2), seal(7, ESP256)])
    const own = worlds.flatMap((world) => world.values.map((value, index) => ({ value, world, index })))
    const foreign = vectorValues.flatMap(({ value }) =>
      value !== null && value.length < 4096 ? [{ value, world: undefined, index: 0 }] : [],
    )
    const sources = [...own, ...foreign]
    const next = generator(0x2545f491)
    let [parsed, admitted] = [0, 0]
    for (let round = 0; round < 100_000; round++) {
      const source = sources[round % sources.length]
      if (source === undefined) throw new Error('no source')
      const value = mutate(Buffer.from(source.value), next)
      if (codeOf(() => parse(value, LIMIT)) !== 'admitted') continue
      parsed += 1
      if (!Buffer.from(encode(parse(value, LIMIT))).equals(value))
        throw new Error(`read in two ways: ${value.toString('hex')}`)
      const { world, index } = source
      if (world === undefined || codeOf(() => world.read(value)) !== 'admitted') continue
      admitted += 1
      const event = world.read(value)
      expect(event.body.claims.ce.get('id')).toBe(`id-${index}`)
      expect(Buffer.from(open(event, world.dataKey))).toEqual(PLAINTEXT)
    }
    // Both branches were reached: mutations of texts and hashes parse, and some leave the record as it was.
    expect(parsed).toBeGreaterThan(10_000)
    expect(admitted).toBeGreaterThan(10)
  }, 60_000)
})

/** Numbers below a bound, always the same from the same seed (xorshift32). */
function generator(seed: number): (bound: number) => number {
  let state = seed
  return (bound) => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) % bound
  }
}

/** RFC 9162 roots do not commit to the size of their tree, and only the root is signed. */
function onlyTreeSizeDiffers(a: Buffer, b: Buffer): boolean {
  if (codeOf(() => parse(b, LIMIT)) !== 'admitted') return false
  const [one, two] = [parse(a, LIMIT), parse(b, LIMIT)]
  const { receipt } = one.proof
  if (
    receipt === undefined ||
    two.proof.receipt === undefined ||
    receipt.treeSize === two.proof.receipt.treeSize
  )
    return false
  const same = {
    ...two,
    proof: { ...two.proof, receipt: { ...two.proof.receipt, treeSize: receipt.treeSize } },
  }
  return Buffer.from(encode(same)).equals(a)
}

function mutate(value: Buffer, next: (bound: number) => number): Buffer {
  const at = next(Math.max(1, value.length))
  switch (next(6)) {
    case 0:
      value[at] = (value[at] ?? 0) ^ (1 << next(8))
      return value
    case 1:
      value[at] = next(256)
      return value
    case 2:
      return Buffer.concat([value.subarray(0, at), value.subarray(at + 1 + next(4))])
    case 3:
      return Buffer.concat([value.subarray(0, at), Buffer.from([next(256)]), value.subarray(at)])
    case 4:
      return value.subarray(0, at)
    default: {
      const from = next(Math.max(1, value.length))
      return Buffer.concat([value.subarray(0, at), value.subarray(from, from + next(64)), value.subarray(at)])
    }
  }
}

/** For comparing: views of bytes as hex. */
function plain(value: unknown): unknown {
  if (value instanceof Uint8Array) return `h'${Buffer.from(value).toString('hex')}'`
  return Array.isArray(value) ? value.map(plain) : value
}

describe('deterministic CBOR', () => {
  const cbor = fc.letrec<{ value: number | bigint | string | boolean | null | Uint8Array | unknown[] }>(
    (tie) => ({
      value: fc.oneof(
        { maxDepth: 4 },
        fc
          .bigInt({ min: -(2n ** 64n), max: 2n ** 64n - 1n })
          .map((value) =>
            value >= BigInt(Number.MIN_SAFE_INTEGER) && value <= BigInt(Number.MAX_SAFE_INTEGER)
              ? Number(value)
              : value,
          ),
        fc.string({ unit: 'grapheme' }),
        fc.boolean(),
        fc.constant(null),
        fc.uint8Array({ maxLength: 40 }),
        fc.array(tie('value'), { maxLength: 5 }),
      ),
    }),
  ).value

  it('comes back as it went', () => {
    fc.assert(
      fc.property(cbor, (value) => {
        const bytes = encodeCbor(value as Parameters<typeof encodeCbor>[0])
        const decoded = decodeCbor(bytes)
        expect(Buffer.from(encodeCbor(decoded))).toEqual(Buffer.from(bytes))
        expect(plain(decoded)).toEqual(plain(value))
      }),
    )
  })

  it('has one encoding: whatever bytes decode are what encoding writes', () => {
    fc.assert(
      fc.property(fc.uint8Array({ minLength: 1, maxLength: 12 }), (bytes) => {
        let decoded
        try {
          decoded = decodeCbor(bytes)
        } catch {
          return
        }
        expect(Buffer.from(encodeCbor(decoded))).toEqual(Buffer.from(bytes))
      }),
      { numRuns: 20_000 },
    )
  })

  it.each([
    ['1817', 'an integer longer than need be'],
    ['190017', 'an integer longer than need be'],
    ['1a0000ffff', 'an integer longer than need be'],
    ['1b00000000ffffffff', 'an integer longer than need be'],
    ['5f4100ff', 'an indefinite byte string'],
    ['9f00ff', 'an indefinite array'],
    ['bf0000ff', 'an indefinite map'],
    ['a200000000', 'a key twice'],
    ['a201000000', 'keys out of order'],
    ['61ff', 'text that is not UTF-8'],
    ['f97e00', 'a float'],
    ['f7', 'undefined'],
    ['c000', 'a tag'],
    ['0000', 'bytes left over'],
    ['5bffffffffffffffff', 'a length beyond the end'],
    ['818181818181818181818181818181818181818100', 'nesting without end'],
  ])('refuses %s: %s', (hex) => {
    expect(() => decodeCbor(Buffer.from(hex, 'hex'))).toThrow(CborError)
  })
})

describe('the Merkle tree', () => {
  /** RFC 9162 §2.1.1, as it is defined there. */
  const rfcRoot = (entries: readonly Uint8Array[]): Uint8Array => {
    if (entries.length <= 1) return entries[0] === undefined ? treeRoot([]) : leafHash(entries[0])
    let split = 1
    while (split * 2 < entries.length) split *= 2
    return treeRoot([rfcRoot(entries.slice(0, split)), rfcRoot(entries.slice(split))])
  }

  it('is the one of RFC 9162 for every size, and each path leads to its root', () => {
    for (let size = 1; size <= 70; size++) {
      const entries = Array.from({ length: size }, (_, index) => Buffer.from(`entry ${index}`))
      const leaves = entries.map(leafHash)
      const levels = treeLevels(leaves)
      const root = levels.at(-1)?.[0] ?? Buffer.alloc(0)
      expect(Buffer.from(root)).toEqual(Buffer.from(rfcRoot(entries)))
      for (const [index, leaf] of leaves.entries()) {
        const path = auditPath(levels, index)
        expect(path.length).toBe(auditPathLength(size, index))
        expect(Buffer.from(rootOfPath(leaf, index, size, path))).toEqual(Buffer.from(root))
      }
    }
  })
})
