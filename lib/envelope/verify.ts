/**
 * Steps 5 and 6 of admission (sealed-event.md §5): the signature over the statement that is recomputed from the record
 * itself, then audience and time.
 */
import { compareBytes } from '../cbor.ts'
import { Rejection } from '../errors.ts'
import { encodeStatement, type Place, sigStructure } from './binding.ts'
import { type PublicKey, verify as verifySignature } from './crypto.ts'
import { BYTES_PER_PATH_HASH, type Envelope, type Receipt } from './format.ts'
import { leafHash, nodeHash } from './merkle.ts'

declare const verified: unique symbol

/** An envelope whose signature, audience and time hold at its place. Made by `verify` alone. */
export interface Verified extends Envelope {
  readonly place: Place
  readonly [verified]: true
}

/** What a reader asks of an event's claims. */
export interface Bounds {
  /** Who the reader is: the event's `aud`. */
  readonly audience: string
  /** Judging time, seconds since 1970. */
  readonly time: number
  /** The longest `exp` − `iat` of the channel, seconds. */
  readonly maxLifeSeconds: number
}

/** Producers' clocks may run ahead of ours by this much, seconds. */
export const MAX_CLOCK_LEAD_SECONDS = 300

/**
 * Throws `Rejection` with `signature-invalid`, `audience-mismatch` or `time-invalid`. The caller has found `key` in the
 * directory, with the header's algorithm, and valid at the judging time.
 */
export function verify(
  envelope: Envelope,
  place: Place,
  key: PublicKey,
  bounds: Bounds,
  batches: ProvenBatches,
): Verified {
  const { body, proof } = envelope
  const statement = encodeStatement(place, body.bytes)
  const holds =
    proof.receipt === undefined
      ? verifySignature(key, sigStructure(proof.protected, statement), proof.signature)
      : batches.proves(envelope, proof.receipt, statement, key)
  if (!holds)
    throw new Rejection(
      'signature-invalid',
      'the signature is not over this record, at this place, by this key',
    )
  const { aud, iat, exp } = body.claims
  if (aud !== bounds.audience)
    throw new Rejection('audience-mismatch', 'the event is meant for another audience')
  const now = BigInt(bounds.time)
  if (iat > now + BigInt(MAX_CLOCK_LEAD_SECONDS))
    throw new Rejection('time-invalid', 'iat lies in the future')
  if (now > exp) throw new Rejection('time-invalid', 'the event has expired')
  if (exp <= iat) throw new Rejection('time-invalid', 'exp is not after iat')
  if (exp - iat > BigInt(bounds.maxLifeSeconds))
    throw new Rejection('time-invalid', 'the event lives longer than its channel allows')
  const stage: Omit<Verified, typeof verified> = { body, proof, place }
  return stage as Verified
}

/** A node of a batch's tree that is known to be under its signed root, with what must stand above it in a path. */
interface ProvenNode {
  readonly hash: Uint8Array
  /** Undefined where the node has no sibling and moves up as it is. */
  readonly sibling: Uint8Array | undefined
  /** The path after the sibling, as `Receipt.path` holds it. */
  readonly rest: Uint8Array
}

interface ProvenBatch {
  readonly key: PublicKey
  readonly treeSize: number
  readonly root: Uint8Array
  /** By level × 4,096 + index; forgotten between slices, as its paths are views into records. */
  readonly nodes: Map<number, ProvenNode>
}

const MAX_BATCHES = 1024
const NODES_PER_LEVEL = 4096

/**
 * Remembers whose root signature held, so that a batch costs one, and which nodes of its tree are proven, so that a
 * path is folded only up to the first of them. Every byte of a path is still compared: a verdict never depends on what
 * is remembered. Key state is not remembered here; the caller asks it for every record.
 */
export class ProvenBatches {
  readonly #batches = new Map<string, ProvenBatch>()

  /** Lets go of the records that were looked at; proven roots stay. */
  endSlice(): void {
    for (const batch of this.#batches.values()) batch.nodes.clear()
  }

  /** Whether the statement is in a tree whose root this key signed. */
  proves(envelope: Envelope, receipt: Receipt, statement: Uint8Array, key: PublicKey): boolean {
    const { proof } = envelope
    const name = Buffer.concat([proof.protected, proof.signature]).toString('latin1')
    const known = this.#batches.get(name)
    const batch = known?.key === key && known.treeSize === receipt.treeSize ? known : undefined
    const climb = climbPath(leafHash(statement), receipt, batch?.nodes)
    if (climb === undefined) return false
    if (climb.reached !== undefined) {
      const { hash } = climb.reached
      if (batch === undefined || compareBytes(batch.root, hash) !== 0) {
        if (!verifySignature(key, sigStructure(proof.protected, hash), proof.signature)) return false
        this.#remember(name, { key, treeSize: receipt.treeSize, root: hash, nodes: new Map() })
      }
    }
    const nodes = this.#batches.get(name)?.nodes
    if (nodes !== undefined) for (const [id, node] of climb.learnt) nodes.set(id, node)
    return true
  }

  #remember(name: string, batch: ProvenBatch): void {
    if (this.#batches.size >= MAX_BATCHES) {
      const oldest = this.#batches.keys().next()
      if (oldest.done !== true) this.#batches.delete(oldest.value)
    }
    this.#batches.delete(name)
    this.#batches.set(name, batch)
  }
}

interface Climb {
  /** The root, where the climb came that far; undefined where it met a proven node. */
  readonly reached: { readonly hash: Uint8Array } | undefined
  readonly learnt: readonly (readonly [number, ProvenNode])[]
}

/** Folds a path upwards to the root or to the first proven node; undefined where it contradicts that node. */
function climbPath(
  leaf: Uint8Array,
  receipt: Receipt,
  nodes: ReadonlyMap<number, ProvenNode> | undefined,
): Climb | undefined {
  const { path } = receipt
  const learnt: (readonly [number, ProvenNode])[] = []
  let hash = leaf
  let index = receipt.leafIndex
  let offset = 0
  let level = 0
  for (let last = receipt.treeSize - 1; last > 0; last >>= 1) {
    const proven = nodes?.get(level * NODES_PER_LEVEL + index)
    if (proven !== undefined)
      return agrees(proven, hash, path, offset) ? { reached: undefined, learnt } : undefined
    if (index !== last || (index & 1) === 1) {
      const sibling = path.subarray(offset + 2, offset + BYTES_PER_PATH_HASH)
      offset += BYTES_PER_PATH_HASH
      const rest = path.subarray(offset)
      learnt.push([level * NODES_PER_LEVEL + index, { hash, sibling, rest }])
      learnt.push([level * NODES_PER_LEVEL + (index ^ 1), { hash: sibling, sibling: hash, rest }])
      hash = (index & 1) === 1 ? nodeHash(sibling, hash) : nodeHash(hash, sibling)
    } else {
      learnt.push([
        level * NODES_PER_LEVEL + index,
        { hash, sibling: undefined, rest: path.subarray(offset) },
      ])
    }
    index >>= 1
    level += 1
  }
  return { reached: { hash }, learnt }
}

function agrees(proven: ProvenNode, hash: Uint8Array, path: Uint8Array, offset: number): boolean {
  if (Buffer.compare(proven.hash, hash) !== 0) return false
  const { sibling } = proven
  if (sibling === undefined) return Buffer.compare(proven.rest, path.subarray(offset)) === 0
  const end = offset + BYTES_PER_PATH_HASH
  return (
    Buffer.compare(sibling, path.subarray(offset + 2, end)) === 0 &&
    Buffer.compare(proven.rest, path.subarray(end)) === 0
  )
}
