import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { murmur2, partitionOf } from '../../lib/envelope/partition.ts'

/** From Apache Kafka's own UtilsTest.testMurmur2. */
const KAFKA: readonly (readonly [string, number])[] = [
  ['21', -973932308],
  ['foobar', -790332482],
  ['a-little-bit-long-string', -985981536],
  ['a-little-bit-longer-string', -1486304829],
  ['lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8', -58897971],
  ['abc', 479470107],
]

describe('partitions of keys', () => {
  test.each(KAFKA)("murmur2 of %j is that of Kafka's own test", (text, hash) => {
    expect(murmur2(Buffer.from(text))).toBe(hash)
  })

  test('a key goes where the Java client sends it: the hash without its sign bit, modulo the count', () => {
    for (const [text, hash] of KAFKA) expect(partitionOf(Buffer.from(text), 7)).toBe((hash & 0x7fffffff) % 7)
  })

  test('every key, of any length and bytes, has a partition', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 70 }), fc.integer({ min: 1, max: 1_000 }), (key, count) => {
        const partition = partitionOf(key, count)
        expect(Number.isInteger(partition) && partition >= 0 && partition < count).toBe(true)
      }),
    )
  })

  test('a topic without partitions is the caller’s mistake', () => {
    for (const count of [0, -1, 1.5, NaN])
      expect(() => partitionOf(Buffer.from('k'), count)).toThrow(TypeError)
  })
})
