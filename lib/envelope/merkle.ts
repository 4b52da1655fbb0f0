/**
 * RFC 9162 §2.1 Merkle trees over SHA-256. The inputs here are leaf *hashes*: `leafHash` makes one of an entry.
 */
import { Buffer } from 'node:buffer'
import { digest } from './crypto.ts'

const HASH_BYTES = 32

/** SHA-256(00 ‖ entry). */
export function leafHash(entry: Uint8Array): Uint8Array {
  const input = Buffer.allocUnsafe(entry.length + 1)
  input[0] = 0
  input.set(entry, 1)
  return digest(input)
}

/** SHA-256(01 ‖ left ‖ right). */
export function nodeHash(left: Uint8Array, right: Uint8Array): Uint8Array {
  node.set(left, 1)
  node.set(right, 1 + HASH_BYTES)
  return digest(node)
}

/** What `nodeHash` hashes, filled anew by each call. */
const node = Buffer.alloc(1 + 2 * HASH_BYTES, 1)

/**
 * The levels of a tree, from the leaves up to the root alone. A node without a sibling moves up as it is, which gives
 * the same tree as the RFC's recursive definition. Of no leaves: one level with the hash of nothing.
 */
export function treeLevels(leaves: readonly Uint8Array[]): readonly (readonly Uint8Array[])[] {
  if (leaves.length === 0) return [[digest(new Uint8Array())]]
  const levels: (readonly Uint8Array[])[] = [leaves]
  let level = leaves
  while (level.length > 1) {
    const above: Uint8Array[] = []
    for (let index = 0; index < level.length; index += 2) {
      const [left, right] = level.slice(index, index + 2)
      if (left === undefined) break
      above.push(right === undefined ? left : nodeHash(left, right))
    }
    levels.push(above)
    level = above
  }
  return levels
}

/** The root over leaf hashes. */
export function treeRoot(leaves: readonly Uint8Array[]): Uint8Array {
  const root = treeLevels(leaves).at(-1)?.[0]
  if (root === undefined) throw new TypeError('a tree without a root')
  return root
}

/** The audit path of a leaf in levels made by `treeLevels`: RFC 9162 §2.1.3.1, siblings from the leaf upwards. */
export function auditPath(levels: readonly (readonly Uint8Array[])[], leafIndex: number): Uint8Array[] {
  const path: Uint8Array[] = []
  let index = leafIndex
  for (const level of levels.slice(0, -1)) {
    const sibling = level[index ^ 1]
    if (sibling !== undefined) path.push(sibling)
    index >>= 1
  }
  return path
}

/** How many hashes the audit path of a leaf has: a level gives one unless the node there has no sibling. */
export function auditPathLength(treeSize: number, leafIndex: number): number {
  let length = 0
  let index = leafIndex
  for (let last = treeSize - 1; last > 0; last >>= 1) {
    if (index !== last || (index & 1) === 1) length++
    index >>= 1
  }
  return length
}

/** The root that a leaf and its audit path lead to. The path must have `auditPathLength` hashes. */
export function rootOfPath(
  leaf: Uint8Array,
  leafIndex: number,
  treeSize: number,
  path: readonly Uint8Array[],
): Uint8Array {
  let hash = leaf
  let index = leafIndex
  let used = 0
  for (let last = treeSize - 1; last > 0; last >>= 1) {
    const sibling = index === last && (index & 1) === 0 ? undefined : path[used++]
    if (sibling !== undefined) hash = (index & 1) === 1 ? nodeHash(sibling, hash) : nodeHash(hash, sibling)
    index >>= 1
  }
  return hash
}
