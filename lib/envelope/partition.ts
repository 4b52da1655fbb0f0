/**
 * Kafka's default partitioning of keyed records. A sealed event's partition is signed (sealed-event.md §4), so whoever
 * seals must choose it as every other Kafka client would.
 */

const M = 0x5bd1e995
const SEED = 0x9747b28c

/** MurmurHash2 as Kafka computes it (`org.apache.kafka.common.utils.Utils.murmur2`): a signed 32-bit integer. */
export function murmur2(bytes: Uint8Array): number {
  const { length } = bytes
  const whole = length & ~3
  let hash = SEED ^ length
  for (let index = 0; index < whole; index += 4) {
    let word =
      (bytes[index] ?? 0) |
      ((bytes[index + 1] ?? 0) << 8) |
      ((bytes[index + 2] ?? 0) << 16) |
      ((bytes[index + 3] ?? 0) << 24)
    word = Math.imul(word, M)
    word ^= word >>> 24
    hash = Math.imul(hash, M) ^ Math.imul(word, M)
  }
  const rest = length & 3
  if (rest === 3) hash ^= (bytes[whole + 2] ?? 0) << 16
  if (rest >= 2) hash ^= (bytes[whole + 1] ?? 0) << 8
  if (rest >= 1) hash = Math.imul(hash ^ (bytes[whole] ?? 0), M)
  hash = Math.imul(hash ^ (hash >>> 13), M)
  return hash ^ (hash >>> 15)
}

/** The partition, from 0, of a key among `count` partitions: murmur2 with its sign bit cleared, modulo the count. */
export function partitionOf(key: Uint8Array, count: number): number {
  if (!Number.isSafeInteger(count) || count < 1) throw new TypeError('a topic has one partition or more')
  return (murmur2(key) & 0x7fffffff) % count
}
