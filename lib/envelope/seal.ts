/**
 * Sealing: encrypt first, then sign (sealed-event.md §3), one event or a batch of them; and opening what is verified.
 */
import { Rejection } from '../errors.ts'
import { encodeStatement, encStructure, type Place, sigStructure } from './binding.ts'
import { type DataKey, equal, random } from './crypto.ts'
import {
  encodeBody,
  encodeBodyHeader,
  encodePath,
  encodeProof,
  encodeProofHeader,
  encodeSealedEvent,
} from './encode.ts'
import { type Claims, MAX_TREE_SIZE, type Recipient } from './format.ts'
import { auditPath, leafHash, treeLevels } from './merkle.ts'
import { A256GCM } from './suite.ts'
import type { Verified } from './verify.ts'

/** Signs with one key; `Signer` of ports.ts with its deadline already given. */
export interface ProofSigner {
  /** 1 to 64 bytes. */
  readonly kid: Uint8Array
  /** COSE algorithm of the suite table. */
  readonly alg: number
  sign(bytes: Uint8Array): Promise<Uint8Array>
}

/** An event encrypted and not yet signed. */
export interface SealedBody {
  readonly place: Place
  readonly body: Uint8Array
}

/** Encrypts one event at its place. The data key is lent by its keeper, which counts it. */
export function sealBody(
  claims: Claims,
  place: Place,
  plaintext: Uint8Array,
  dataKey: DataKey,
  recipient: Recipient,
): SealedBody {
  const header = encodeBodyHeader(claims, dataKey.commitment)
  // Drawn for each event, never from a pool: a copy of this process (a restored snapshot) would use what is left of it too.
  const nonce = random(A256GCM.nonceBytes)
  const ciphertext = dataKey.seal(nonce, encStructure(header, place), plaintext)
  return { place, body: encodeBody({ protected: header, nonce, ciphertext, recipient }) }
}

/**
 * Signs bodies and gives the records' values, in the same order: one event by itself, more as batches of up to 4,096
 * with one signature each. A batch makes no promise of append-only.
 */
export async function prove(bodies: readonly SealedBody[], signer: ProofSigner): Promise<Uint8Array[]> {
  const values: Uint8Array[] = []
  for (let start = 0; start < bodies.length; start += MAX_TREE_SIZE) {
    values.push(...(await proveTogether(bodies.slice(start, start + MAX_TREE_SIZE), signer)))
  }
  return values
}

async function proveTogether(bodies: readonly SealedBody[], signer: ProofSigner): Promise<Uint8Array[]> {
  const statements = bodies.map(({ place, body }) => encodeStatement(place, body))
  const [statement, ...more] = statements
  if (statement === undefined) return []
  const batch = more.length > 0
  const protectedHeader = encodeProofHeader(signer.alg, signer.kid, batch)
  const levels = batch ? treeLevels(statements.map(leafHash)) : []
  const root = levels.at(-1)?.[0] ?? statement
  const signature = await signer.sign(sigStructure(protectedHeader, root))
  return bodies.map(({ body }, leafIndex) => {
    const receipt = batch
      ? { treeSize: bodies.length, leafIndex, path: encodePath(auditPath(levels, leafIndex)) }
      : undefined
    return encodeSealedEvent(body, encodeProof({ protected: protectedHeader, signature, receipt }))
  })
}

/** Upper bound of what signing and framing add to a body, in bytes: header, signature, and the path in the largest tree. */
export function maxProofBytes(kidBytes: number): number {
  return 192 + kidBytes + 13 * 34
}

/** One text for every failure: it must not tell which step it was. */
export const UNDECRYPTABLE = 'the event cannot be decrypted'

/** The plaintext of a verified event; every failure is `Rejection('undecryptable')`. */
export function open(event: Verified, dataKey: DataKey): Uint8Array {
  const { body, place } = event
  // The commitment first: AES-GCM alone lets one ciphertext open to two plaintexts under two keys.
  const plaintext = equal(body.commitment, dataKey.commitment)
    ? dataKey.open(body.nonce, encStructure(body.protected, place), body.ciphertext)
    : undefined
  if (plaintext === undefined) throw new Rejection('undecryptable', UNDECRYPTABLE)
  return plaintext
}
