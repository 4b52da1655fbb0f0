/** The bytes of a sealed event, written: `encode`, and its parts for whoever seals (sealed-event.md §2). */
import { CborWriter, MAJOR } from '../cbor.ts'
import {
  type Body,
  BYTES_PER_PATH_HASH,
  type Claims,
  type Envelope,
  LABEL_INCLUSION,
  LABEL_PROOFS,
  LABEL_VDS,
  OUTER_TAG,
  type Proof,
  type Receipt,
  TAG_ENCRYPT,
  TAG_SIGN1,
  TYP_BATCH,
  TYP_BODY,
  TYP_PROOF,
} from './format.ts'
import { A256GCM, KEY_SERVICE_WRAP } from './suite.ts'

/** The bytes of an envelope. */
export function encode(envelope: Envelope): Uint8Array {
  return encodeSealedEvent(encodeBody(envelope.body), encodeProof(envelope.proof))
}

/** The outer array over a body and a proof that are encoded already. */
export function encodeSealedEvent(body: Uint8Array, proof: Uint8Array): Uint8Array {
  const writer = new CborWriter(body.length + proof.length + 24)
  writer.head(MAJOR.tag, OUTER_TAG)
  writer.head(MAJOR.array, 2)
  writer.byteString(body)
  writer.byteString(proof)
  return writer.finish()
}

/** A body's protected header. */
export function encodeBodyHeader(claims: Claims, commitment: Uint8Array): Uint8Array {
  const writer = new CborWriter(512)
  writer.head(MAJOR.map, 7)
  writer.integer(1)
  writer.integer(A256GCM.cose)
  writer.integer(3)
  writer.text(claims.contentType)
  writer.integer(15)
  writer.head(MAJOR.map, 4)
  writer.integer(1)
  writer.text(claims.iss)
  writer.integer(3)
  writer.text(claims.aud)
  writer.integer(4)
  writer.integer(claims.exp)
  writer.integer(6)
  writer.integer(claims.iat)
  writer.integer(16)
  writer.text(TYP_BODY)
  writer.text('ce')
  writer.value(claims.ce)
  writer.text('kc')
  writer.byteString(commitment)
  writer.text('seq')
  writer.head(MAJOR.array, 2)
  writer.byteString(claims.session)
  writer.integer(claims.number)
  return writer.finish()
}

/** A body, its protected header taken as it stands. */
export function encodeBody(body: Pick<Body, 'protected' | 'nonce' | 'ciphertext' | 'recipient'>): Uint8Array {
  const writer = new CborWriter(
    body.protected.length + body.ciphertext.length + body.recipient.wrapped.length + 128,
  )
  writer.head(MAJOR.tag, TAG_ENCRYPT)
  writer.head(MAJOR.array, 4)
  writer.byteString(body.protected)
  writer.head(MAJOR.map, 1)
  writer.integer(5)
  writer.byteString(body.nonce)
  writer.byteString(body.ciphertext)
  writer.head(MAJOR.array, 1)
  writer.head(MAJOR.array, 3)
  writer.byteString(new Uint8Array())
  writer.head(MAJOR.map, 2)
  writer.integer(1)
  writer.integer(KEY_SERVICE_WRAP)
  writer.integer(4)
  writer.byteString(body.recipient.kekId)
  writer.byteString(body.recipient.wrapped)
  return writer.finish()
}

/** A proof's protected header, for one event or for a batch. */
export function encodeProofHeader(alg: number, kid: Uint8Array, batch: boolean): Uint8Array {
  const writer = new CborWriter(128)
  writer.head(MAJOR.map, batch ? 4 : 3)
  writer.integer(1)
  writer.integer(alg)
  writer.integer(4)
  writer.byteString(kid)
  writer.integer(16)
  writer.text(batch ? TYP_BATCH : TYP_PROOF)
  if (batch) {
    writer.integer(LABEL_VDS)
    writer.integer(1)
  }
  return writer.finish()
}

/** A proof, its protected header taken as it stands. */
export function encodeProof(proof: Pick<Proof, 'protected' | 'signature' | 'receipt'>): Uint8Array {
  const { receipt } = proof
  const writer = new CborWriter(
    proof.protected.length + proof.signature.length + (receipt?.path.length ?? 0) + 64,
  )
  writer.head(MAJOR.tag, TAG_SIGN1)
  writer.head(MAJOR.array, 4)
  writer.byteString(proof.protected)
  writer.head(MAJOR.map, receipt === undefined ? 0 : 1)
  if (receipt !== undefined) {
    writer.integer(LABEL_PROOFS)
    writer.head(MAJOR.map, 1)
    writer.integer(LABEL_INCLUSION)
    writer.head(MAJOR.array, 1)
    writer.byteString(encodeReceipt(receipt))
  }
  writer.nil()
  writer.byteString(proof.signature)
  return writer.finish()
}

function encodeReceipt(receipt: Receipt): Uint8Array {
  const writer = new CborWriter(receipt.path.length + 16)
  writer.head(MAJOR.array, 3)
  writer.integer(receipt.treeSize)
  writer.integer(receipt.leafIndex)
  writer.head(MAJOR.array, receipt.path.length / BYTES_PER_PATH_HASH)
  writer.raw(receipt.path)
  return writer.finish()
}

/** Siblings from the leaf upwards, as `Receipt.path` holds them. */
export function encodePath(path: readonly Uint8Array[]): Uint8Array {
  const writer = new CborWriter(path.length * BYTES_PER_PATH_HASH)
  for (const hash of path) writer.byteString(hash)
  return writer.finish()
}
