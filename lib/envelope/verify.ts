/**
 * Steps 5 and 6 of admission (sealed-event.md §5): the signature over the statement that is recomputed from the record
 * itself, then audience and time.
 */
import { Buffer } from 'node:buffer'
import { compareBytes } from '../cbor.ts'
import { Rejection } from '../errors.ts'
import { encodeStatement, type Place, sigStructure } from './binding.ts'
import { type PublicKey, verify as verifySignature } from './crypto.ts'
import { BYTES_PER_PATH_HASH, type Envelope, type Proof, type Receipt } from './format.ts'
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
  /** An operator lets this event in by name although its time has run out. */
  readonly acceptExpired?: boolean
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
  // Comparing a bigint with a number is exact.
  if (iat > bounds.time + MAX_CLOCK_LEAD_SECONDS)
    throw new Rejection('time-invalid', 'iat lies in the future')
  if (bounds.time > exp && bounds.acceptExpired !== true)
    throw new Rejection('time-invalid', 'the event has expired')
  if (exp <= iat) throw new Rejection('time-invalid', 'exp is not after iat')
  if (exp - iat > bounds.maxLifeSeconds)
    throw new Rejection('time-invalid', 'the event lives longer than its channel allows')
  const stage: Omit<Verified, typeof verified> = { body, proof, place }
  return stage as Verified
}

/** Two siblings of a batch's tree that are known to be under its signed root, with what must stand above them in a path. */
interface ProvenPair {
  /** Level × 4,096 + the place of the node above them in its level. */
  readonly id: number
  readonly left: Uint8Array
  /** Undefined where the left one has no sibling and moves up as it is. */
  readonly right: Uint8Array | undefined
  /** The path after the sibling, as `Receipt.path` holds it. */
  readonly rest: Uint8Array
}

interface ProvenBatch {
  readonly key: PublicKey
  readonly protected: Uint8Array
  readonly signature: Uint8Array
  readonly treeSize: number
  readonly root: Uint8Array
  /** By id; forgotten between slices, as its paths are views into records. */
  readonly pairs: Map<number, ProvenPair>
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
  /** The batch of the last event: mostly the next one's too. */
  #last: ProvenBatch | undefined

  /** Lets go of the records that were looked at; proven roots stay. */
  endSlice(): void {
    for (const batch of this.#batches.values()) batch.pairs.clear()
  }

  /** Whether the statement is in a tree whose root this key signed. */
  proves(envelope: Envelope, receipt: Receipt, statement: Uint8Array, key: PublicKey): boolean {
    const { proof } = envelope
    const known = this.#find(proof)
    const batch = known?.key === key && known.treeSize === receipt.treeSize ? known : undefined
    const { root, learnt } = climbPath(leafHash(statement), receipt, batch?.pairs)
    let pairs = batch?.pairs
    if (root !== undefined && (batch === undefined || compareBytes(batch.root, root) !== 0)) {
      if (!verifySignature(key, sigStructure(proof.protected, root), proof.signature)) return false
      pairs = this.#remember(proof, key, receipt.treeSize, root)
    }
    for (const pair of learnt ?? []) pairs?.set(pair.id, pair)
    return true
  }

  #find(proof: Proof): ProvenBatch | undefined {
    const last = this.#last
    if (last === undefined || !isProofOf(last, proof)) this.#last = this.#batches.get(nameOf(proof))
    return this.#last
  }

  /** Gives the place for what is learnt of its nodes. */
  #remember(proof: Proof, key: PublicKey, treeSize: number, root: Uint8Array): Map<number, ProvenPair> {
    if (this.#batches.size >= MAX_BATCHES) {
      const oldest = this.#batches.keys().next()
      if (oldest.done !== true) this.#batches.delete(oldest.value)
    }
    const pairs = new Map<number, ProvenPair>()
    // Copies: what was given are views into a record, or into Buffer's pool, which would be kept with them.
    const signed = { protected: new Uint8Array(proof.protected), signature: new Uint8Array(proof.signature) }
    this.#last = { ...signed, key, treeSize, root: new Uint8Array(root), pairs }
    const name = nameOf(proof)
    this.#batches.delete(name)
    this.#batches.set(name, this.#last)
    return pairs
  }
}

const nameOf = (proof: Proof): string => Buffer.concat([proof.protected, proof.signature]).toString('latin1')

const isProofOf = (batch: ProvenBatch, proof: Proof): boolean =>
  compareBytes(batch.signature, proof.signature) === 0 && compareBytes(batch.protected, proof.protected) === 0

interface Climb {
  /** Undefined where the climb met a proven pair. */
  readonly root: Uint8Array | undefined
  readonly learnt: readonly ProvenPair[] | undefined
}

/** Folds a path upwards to the root, or to the first proven pair that it agrees with. */
function climbPath(
  leaf: Uint8Array,
  receipt: Receipt,
  pairs: ReadonlyMap<number, ProvenPair> | undefined,
): Climb {
  const { path } = receipt
  let learnt: ProvenPair[] | undefined
  let hash = leaf
  let index = receipt.leafIndex
  let offset = 0
  let level = 0
  for (let last = receipt.treeSize - 1; last > 0; last >>= 1) {
    const isRight = (index & 1) === 1
    const alone = !isRight && index === last
    const id = level * NODES_PER_LEVEL + (index >> 1)
    const proven = pairs?.get(id)
    if (proven !== undefined && agrees(proven, hash, isRight, alone, path, offset))
      return { root: undefined, learnt }
    const sibling = alone ? undefined : path.subarray(offset + 2, offset + BYTES_PER_PATH_HASH)
    if (!alone) offset += BYTES_PER_PATH_HASH
    const left = isRight && sibling !== undefined ? sibling : hash
    const right = isRight ? hash : sibling
    learnt ??= []
    learnt.push({ id, left, right, rest: path.subarray(offset) })
    hash = right === undefined ? left : nodeHash(left, right)
    index >>= 1
    level += 1
  }
  return { root: hash, learnt }
}

/** Whether a node and its path from there on are those of the proven pair. */
function agrees(
  { left, right, rest }: ProvenPair,
  hash: Uint8Array,
  isRight: boolean,
  alone: boolean,
  path: Uint8Array,
  offset: number,
): boolean {
  if (right === undefined || alone)
    return right === undefined && alone && holdsAt(hash, 0, left) && endsWith(path, offset, rest)
  return (
    holdsAt(hash, 0, isRight ? right : left) &&
    holdsAt(path, offset + 2, isRight ? left : right) &&
    endsWith(path, offset + BYTES_PER_PATH_HASH, rest)
  )
}

/** Whether these very bytes stand there. Making a view, or a call of Buffer.compare, costs more than the loop. */
function holdsAt(bytes: Uint8Array, offset: number, part: Uint8Array): boolean {
  for (let index = 0; index < part.length; index++) if (bytes[offset + index] !== part[index]) return false
  return true
}

const endsWith = (bytes: Uint8Array, offset: number, part: Uint8Array): boolean =>
  bytes.length - offset === part.length && holdsAt(bytes, offset, part)
