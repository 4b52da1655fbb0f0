import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  auditPartitionOf,
  closeSegment,
  type ClosingSlice,
  FIRST_HEAD,
  parseSegment,
  verifySegment,
} from '../../lib/audit/segment.ts'
import { CborReader, decodeCbor, encodeCbor } from '../../lib/cbor.ts'
import { digest, verify } from '../../lib/envelope/crypto.ts'
import { partitionOf } from '../../lib/envelope/partition.ts'
import { ED25519, ESP256 } from '../../lib/envelope/suite.ts'
import { newSigner, policy, there } from './fixtures.ts'

const slice = (change: Partial<ClosingSlice> = {}): ClosingSlice => ({
  head: FIRST_HEAD,
  entries: [Buffer.from('a'), Buffer.from('b'), Buffer.from('c')],
  deployment: 'test',
  topic: 'orders',
  partition: 3,
  from: 10n,
  next: 14n,
  time: 1_795_000_000,
  ...policy,
  software: 'sealgate/0.1.0',
  epoch: 1,
  unseen: 2,
  ...change,
})

const signer = newSigner()

const sha = (...parts: Uint8Array[]): Buffer => digest(Buffer.concat(parts))

describe('segments', () => {
  test('a segment is a COSE_Sign1 of the map in audit.md §2, over the RFC 9162 root of the entries', async () => {
    const { value, head } = await closeSegment(slice(), signer, 0)
    const reader = new CborReader(value)
    expect(reader.tag()).toBe(18)
    const [header, unprotected, payload, signature] = reader.value() as [
      Uint8Array,
      Map<number, unknown>,
      Uint8Array,
      Uint8Array,
    ]
    reader.end()
    expect(decodeCbor(header)).toEqual(
      new Map<number, unknown>([
        [1, -19],
        [4, signer.kid],
        [16, 'application/vnd.sealgate.segment+cose'],
      ]),
    )
    expect(unprotected.size).toBe(0)
    const leaf = (text: string): Buffer => sha(Buffer.of(0), Buffer.from(text))
    const root = sha(Buffer.of(1), sha(Buffer.of(1), leaf('a'), leaf('b')), leaf('c'))
    const expected = [
      'sealgate-segment/1',
      'test',
      'orders',
      3,
      1,
      10,
      14,
      3,
      root,
      Buffer.alloc(32),
      1_795_000_000,
      policy.bundle,
      42,
      'sealgate/0.1.0',
      1,
      2,
    ]
    const map = decodeCbor(payload) as Map<number, unknown>
    expect([...map.keys()]).toEqual(expected.map((_, index) => index + 1))
    for (const [index, item] of expected.entries()) {
      const found = map.get(index + 1)
      expect(found instanceof Uint8Array ? Buffer.from(found) : found).toEqual(item)
    }
    const signed = encodeCbor(['Signature1', header, new Uint8Array(), payload])
    expect(verify(signer.publicKey, signed, signature)).toBe(true)
    expect(head).toEqual({ sequence: 1, hash: sha(value) })
  })

  test('each segment names the one before it by sequence and hash, the first by zeros', async () => {
    const first = await closeSegment(slice(), signer, 0)
    const second = await closeSegment(
      slice({ head: first.head, from: 14n, next: 14n, entries: [] }),
      signer,
      0,
    )
    const parsed = parseSegment(second.value)
    expect(parsed).toMatchObject({ sequence: 2, count: 0, root: sha(Buffer.of()) })
    expect(Buffer.from(there(parsed).previous)).toEqual(sha(first.value))
    expect(Buffer.from(there(parseSegment(first.value)).previous)).toEqual(Buffer.alloc(32))
  })

  test('a segment verifies under the key that made it and under no other, in both algorithms', async () => {
    for (const suite of [ED25519, ESP256]) {
      const maker = newSigner(suite)
      const { value } = await closeSegment(slice(), maker, 0)
      const segment = there(parseSegment(value))
      expect(verifySegment(segment, maker.publicKey)).toBe(true)
      expect(verifySegment(segment, newSigner(suite).publicKey)).toBe(false)
      expect(verifySegment(segment, newSigner(suite === ED25519 ? ESP256 : ED25519).publicKey)).toBe(false)
    }
  })

  test('a segment whose header names another algorithm than its key’s is no good, though the signature is', async () => {
    const { value } = await closeSegment(slice(), { ...signer, alg: ESP256.cose }, 0)
    expect(verifySegment(there(parseSegment(value)), signer.publicKey)).toBe(false)
  })

  test('no changed byte of a segment verifies', async () => {
    const { value } = await closeSegment(slice(), signer, 0)
    for (let index = 0; index < value.length; index++) {
      const changed = Buffer.from(value)
      changed[index] = (changed[index] ?? 0) ^ 1
      const segment = parseSegment(changed)
      expect(
        segment !== undefined &&
          verifySegment(segment, signer.publicKey) &&
          Buffer.from(segment.kid).equals(signer.kid),
      ).toBe(false)
    }
  })

  test('fields of any size come back as they went in', async () => {
    const hash = fc
      .uint8Array({ minLength: 32, maxLength: 32 })
      .filter((bytes) => bytes.some((byte) => byte > 0))
    const counter = fc.maxSafeNat()
    const slices = fc.record({
      head: fc.record({ sequence: fc.integer({ min: 1, max: 2 ** 40 }), hash }),
      deployment: fc.string({ unit: 'binary', minLength: 1, maxLength: 60 }),
      partition: fc.nat(),
      from: fc.bigInt({ min: 0n, max: 2n ** 63n - 11n }),
      time: counter,
      bundle: hash,
      directory: counter,
      software: fc.string({ unit: 'binary', minLength: 1, maxLength: 60 }),
      epoch: counter,
      unseen: counter,
    })
    await fc.assert(
      fc.asyncProperty(slices, async ({ head, ...fields }) => {
        const { value } = await closeSegment(slice({ ...fields, head, next: fields.from + 10n }), signer, 0)
        const { deployment, partition, from, time, directory, software, epoch, unseen, ...parsed } = there(
          parseSegment(value),
        )
        expect({
          deployment,
          partition,
          from,
          time,
          directory,
          software,
          epoch,
          unseen,
          bundle: Uint8Array.from(parsed.bundle),
        }).toEqual(fields)
        expect(Buffer.compare(parsed.previous, head.hash)).toBe(0)
        expect(parsed.sequence).toBe(head.sequence + 1)
      }),
      { numRuns: 50 },
    )
  })

  test('bytes that differ from what closeSegment writes are no segment: longer forms, other shapes, anything left over', async () => {
    const { value } = await closeSegment(slice(), signer, 0)
    const at = Buffer.from(value).indexOf(Buffer.from('orders')) + 6 // the partition: label 4, then 3
    const longer = Buffer.concat([value.subarray(0, at + 1), Buffer.of(0x18, 3), value.subarray(at + 2)])
    for (const other of [
      Buffer.of(),
      longer,
      Buffer.concat([value, Buffer.of(0)]),
      value.subarray(1),
      value.subarray(0, -1),
    ])
      expect(parseSegment(other)).toBeUndefined()
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 500 }), (bytes) => {
        expect(parseSegment(bytes)).toBeUndefined()
      }),
    )
  })

  test('a slice that cannot be is refused before it is signed', async () => {
    const sign = (): Promise<never> => Promise.reject(new Error('signed'))
    const bad: Partial<ClosingSlice>[] = [
      { from: 15n },
      { next: 12n },
      { from: -1n },
      { topic: 'a/b' },
      { topic: '' },
      { deployment: '' },
      { software: 'x'.repeat(256) },
      { partition: -1 },
      { time: 1.5 },
      { unseen: -1 },
      { bundle: Buffer.alloc(31) },
      { head: { sequence: 3, hash: new Uint8Array(32) } },
      { head: { sequence: 0, hash: Buffer.alloc(32, 1) } },
      { head: { sequence: Number.MAX_SAFE_INTEGER, hash: Buffer.alloc(32, 1) } },
    ]
    for (const change of bad)
      await expect(closeSegment(slice(change), { ...signer, sign }, 0)).rejects.toThrow(TypeError)
    await expect(closeSegment(slice(), { ...signer, kid: new Uint8Array(), sign }, 0)).rejects.toThrow(
      TypeError,
    )
    await expect(
      closeSegment(slice(), { ...signer, sign: () => Promise.resolve(Buffer.alloc(63)) }, 0),
    ).rejects.toThrow(TypeError)
  })

  test('the signer’s outage and its deadline pass through', async () => {
    const outage = new Error('no answer')
    const deadlines: number[] = []
    const sign = (_: Uint8Array, deadline: number): Promise<never> => {
      deadlines.push(deadline)
      return Promise.reject(outage)
    }
    await expect(closeSegment(slice(), { ...signer, sign }, 1234)).rejects.toBe(outage)
    expect(deadlines).toEqual([1234])
  })

  test('a source partition’s audit partition is murmur2 of its name, modulo the count', () => {
    expect(auditPartitionOf({ topic: 'orders', partition: 3 }, 12)).toBe(
      partitionOf(Buffer.from('orders/3'), 12),
    )
  })
})
