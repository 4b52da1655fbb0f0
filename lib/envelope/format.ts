/**
 * What a sealed event is, and `parse`, which reads its bytes (sealed-event.md §2). Only what `encode` (encode.ts) would
 * write is accepted, which the properties in test/envelope show.
 */
import { Buffer } from 'node:buffer'
import { CborError, type CborInteger, CborReader, compareBytes, MAJOR } from '../cbor.ts'
import { Rejection } from '../errors.ts'
import { auditPathLength } from './merkle.ts'
import { A256GCM, KEY_SERVICE_WRAP, suiteOf } from './suite.ts'

export const OUTER_TAG = 1397052977 // "SEV1"
export const TAG_ENCRYPT = 96
export const TAG_SIGN1 = 18
export const TYP_BODY = 'application/vnd.sealgate.body+cose'
export const TYP_PROOF = 'application/vnd.sealgate.proof+cose'
export const TYP_BATCH = 'application/vnd.sealgate.batch+cose'
/** RFC 9942: the tree's algorithm (395, protected), receipts (396) and inclusion proofs (−1) in them. */
export const LABEL_VDS = 395
export const LABEL_PROOFS = 396
export const LABEL_INCLUSION = -1
const MAX_NAME_BYTES = 128
const MAX_TEXT_BYTES = 1024
export const MAX_CE_ENTRIES = 32
export const MAX_CIPHERTEXT_BYTES = 1_048_576
export const MAX_TREE_SIZE = 4096

/** What a producer says of an event, all of it signed. Times in seconds since 1970; integers exact, as on the wire. */
export interface Claims {
  readonly iss: string
  readonly aud: string
  readonly iat: bigint
  readonly exp: bigint
  /** Content type of the plaintext. */
  readonly contentType: string
  /** CloudEvents attributes, with the four required ones. */
  readonly ce: ReadonlyMap<string, string>
  /** 16 random bytes, the producer's own. */
  readonly session: Uint8Array
  /** Counts the session's events of this channel and partition. */
  readonly number: bigint
}

/** Which key-encryption key wrapped the data key, and the wrapped key. `kekId` names a row of the key directory. */
export interface Recipient {
  readonly kekId: Uint8Array
  readonly wrapped: Uint8Array
}

/** The tagged COSE_Encrypt: what is signed. */
export interface Body {
  readonly claims: Claims
  /** Commitment to the data key, 32 bytes. */
  readonly commitment: Uint8Array
  /** The protected header's bytes, which the encryption authenticates. */
  readonly protected: Uint8Array
  readonly nonce: Uint8Array
  /** With the 16-byte tag at its end. */
  readonly ciphertext: Uint8Array
  readonly recipient: Recipient
  /** The whole of it, from its tag. */
  readonly bytes: Uint8Array
}

/** Where an event stands in its batch's tree (RFC 9162). */
export interface Receipt {
  readonly treeSize: number
  readonly leafIndex: number
  /** Sibling hashes from the leaf upwards, each as its CBOR byte string (58 20 …): 34 bytes a hash. */
  readonly path: Uint8Array
}

/** The tagged COSE_Sign1 with its payload left out. */
export interface Proof {
  /** A COSE algorithm of the suite table. */
  readonly alg: number
  /** 1 to 64 bytes. */
  readonly kid: Uint8Array
  readonly protected: Uint8Array
  readonly signature: Uint8Array
  /** Only for an event of a batch. */
  readonly receipt: Receipt | undefined
}

/** A record's value that parsed: nothing in it is verified. */
export interface Envelope {
  readonly body: Body
  readonly proof: Proof
}

export const BYTES_PER_PATH_HASH = 34

/**
 * Reads a record's value. Throws `Rejection` with `value-missing`, `oversize`, `malformed` or `unsupported`, and nothing
 * else, whatever the bytes are. What it returns are views into `value`.
 */
export function parse(value: Uint8Array | null, maxValueBytes: number): Envelope {
  if (value === null || value.length === 0) throw new Rejection('value-missing', 'the record has no value')
  if (value.length > maxValueBytes)
    throw new Rejection('oversize', `the value is longer than ${maxValueBytes} bytes`)
  const late: Late = { oversize: undefined, unsupported: undefined }
  let envelope: Envelope
  try {
    envelope = readEnvelope(value, late)
  } catch (error) {
    if (error instanceof CborError) throw new Rejection('malformed', `not a sealed event: ${error.message}`)
    throw error
  }
  if (late.oversize !== undefined) throw new Rejection('oversize', late.oversize)
  if (late.unsupported !== undefined) throw new Rejection('unsupported', late.unsupported)
  return envelope
}

/** Faults that count only once the whole shape is known to be right. */
interface Late {
  oversize: string | undefined
  unsupported: string | undefined
}

function readEnvelope(value: Uint8Array, late: Late): Envelope {
  const reader = new CborReader(value)
  expectTag(reader, OUTER_TAG)
  expectArray(reader, 2)
  const body = readBody(reader.byteString(), late)
  const proof = readProof(reader.byteString(), late)
  reader.end()
  return { body, proof }
}

function readBody(bytes: Uint8Array, late: Late): Body {
  const reader = new CborReader(bytes)
  expectTag(reader, TAG_ENCRYPT)
  expectArray(reader, 4)
  const protectedHeader = reader.byteString()
  const header = readBodyHeader(protectedHeader, late)
  expectMap(reader, 1)
  expectLabel(reader, 5)
  const nonce = bytesOf(reader, A256GCM.nonceBytes, A256GCM.nonceBytes, 'nonce')
  const ciphertext = bytesOf(reader, A256GCM.tagBytes, MAX_CIPHERTEXT_BYTES, 'ciphertext')
  expectArray(reader, 1)
  expectArray(reader, 3)
  if (reader.skipByteString() !== 0) throw new CborError("recipient's protected header not empty")
  expectMap(reader, 2)
  expectLabel(reader, 1)
  readAlgorithm(reader, late, (alg) => alg === KEY_SERVICE_WRAP, 'recipient algorithm')
  expectLabel(reader, 4)
  const kekId = bytesOf(reader, 1, 64, 'kek-id')
  const wrapped = bytesOf(reader, 1, 1024, 'wrapped key')
  reader.end()
  const { claims, commitment } = header
  return {
    claims,
    commitment,
    protected: protectedHeader,
    nonce,
    ciphertext,
    recipient: { kekId, wrapped },
    bytes,
  }
}

function readBodyHeader(bytes: Uint8Array, late: Late): { claims: Claims; commitment: Uint8Array } {
  const reader = new CborReader(bytes)
  expectMap(reader, 7)
  expectLabel(reader, 1)
  readAlgorithm(reader, late, (alg) => alg === A256GCM.cose, 'content algorithm')
  expectLabel(reader, 3)
  const contentType = limited(reader.recurringText(), late, 'content type')
  expectLabel(reader, 15)
  expectMap(reader, 4)
  expectLabel(reader, 1)
  const iss = sized(reader.recurringText(), MAX_NAME_BYTES, 'iss')
  expectLabel(reader, 3)
  const aud = sized(reader.recurringText(), MAX_NAME_BYTES, 'aud')
  expectLabel(reader, 4)
  const exp = BigInt(reader.uint())
  expectLabel(reader, 6)
  const iat = BigInt(reader.uint())
  expectLabel(reader, 16)
  readTyp(reader, late, (typ) => typ === TYP_BODY)
  expectName(reader, 'ce')
  const ce = readCloudEvent(reader, late)
  expectName(reader, 'kc')
  const commitment = bytesOf(reader, 32, 32, 'kc')
  expectName(reader, 'seq')
  expectArray(reader, 2)
  const session = bytesOf(reader, 16, 16, 'session')
  const number = BigInt(reader.uint())
  reader.end()
  return { claims: { iss, aud, iat, exp, contentType, ce, session, number }, commitment }
}

function readCloudEvent(reader: CborReader, late: Late): ReadonlyMap<string, string> {
  const ce = new Map<string, string>()
  let before = ''
  const entries = reader.map()
  for (let left = entries; left > 0; left--) {
    const name = reader.recurringText()
    if (!CE_NAME.test(name)) throw new CborError('a ce name that is none')
    // Names are ASCII of less than 24 bytes: the order of their encodings is by length, then by text.
    if (name.length < before.length || (name.length === before.length && name <= before))
      throw new CborError('ce names out of order')
    before = name
    if (name === 'id') {
      ce.set(name, sized(reader.text(), MAX_TEXT_BYTES, name))
    } else if (name === 'source' || name === 'type') {
      ce.set(name, sized(reader.recurringText(), MAX_TEXT_BYTES, name))
    } else {
      const text = limited(reader.text(), late, 'ce value')
      if (name === 'specversion' && text !== '1.0') late.unsupported ??= 'a specversion other than 1.0'
      ce.set(name, text)
    }
  }
  for (const name of CE_REQUIRED) if (!ce.has(name)) throw new CborError(`ce ${name} missing`)
  if (entries > MAX_CE_ENTRIES) late.oversize ??= `more than ${MAX_CE_ENTRIES} ce entries`
  return ce
}

const CE_NAME = /^[a-z0-9]{1,20}$/
const CE_REQUIRED = ['id', 'source', 'type', 'specversion'] as const

function readProof(bytes: Uint8Array, late: Late): Proof {
  const reader = new CborReader(bytes)
  expectTag(reader, TAG_SIGN1)
  expectArray(reader, 4)
  const protectedHeader = reader.byteString()
  const { alg, kid, batch } = readProofHeader(protectedHeader, late)
  expectMap(reader, batch ? 1 : 0)
  const receipt = batch ? readReceipts(reader) : undefined
  reader.nil()
  const signature = reader.byteString()
  reader.end()
  return { alg, kid, protected: protectedHeader, signature, receipt }
}

interface ProofHeader {
  readonly alg: number
  readonly kid: Uint8Array
  readonly batch: boolean
}

/** The last header that was read without a fault: mostly the next event's too. */
let lastProofHeader: (ProofHeader & { readonly bytes: Uint8Array }) | undefined

function readProofHeader(bytes: Uint8Array, late: Late): ProofHeader {
  const last = lastProofHeader
  if (last !== undefined && compareBytes(bytes, last.bytes) === 0) return last
  const header = new CborReader(bytes)
  const entries = header.map()
  if (entries !== 3 && entries !== 4) throw new CborError('a proof header of another shape')
  expectLabel(header, 1)
  const alg = readAlgorithm(header, late, (found) => suiteOf(found) !== undefined, 'signature algorithm')
  expectLabel(header, 4)
  const kid = bytesOf(header, 1, 64, 'kid')
  expectLabel(header, 16)
  const typ = readTyp(header, late, (found) => found === TYP_PROOF || found === TYP_BATCH)
  const batch = entries === 4
  if (batch) {
    expectLabel(header, LABEL_VDS)
    if (header.uint() !== 1) throw new CborError('another kind of tree')
  }
  header.end()
  if (batch !== (typ === TYP_BATCH)) throw new CborError('typ and label 395 do not go together')
  const read = { alg: Number(alg), kid: Buffer.from(kid), batch }
  if (late.oversize === undefined && late.unsupported === undefined)
    lastProofHeader = { ...read, bytes: Buffer.from(bytes) }
  return read
}

function readReceipts(reader: CborReader): Receipt {
  expectLabel(reader, LABEL_PROOFS)
  expectMap(reader, 1)
  expectLabel(reader, LABEL_INCLUSION)
  expectArray(reader, 1)
  const inner = new CborReader(reader.byteString())
  expectArray(inner, 3)
  const treeSize = Number(inner.uint())
  const leafIndex = Number(inner.uint())
  if (treeSize < 2 || treeSize > MAX_TREE_SIZE || leafIndex >= treeSize)
    throw new CborError('a place outside the tree')
  const length = auditPathLength(treeSize, leafIndex)
  expectArray(inner, length)
  const path = inner.bytes.subarray(inner.offset)
  if (path.length !== length * BYTES_PER_PATH_HASH) throw new CborError('a path of another length')
  for (let at = 0; at < path.length; at += BYTES_PER_PATH_HASH)
    if (path[at] !== 0x58 || path[at + 1] !== 32) throw new CborError('hash of a path of another size')
  return { treeSize, leafIndex, path }
}

function expectTag(reader: CborReader, tag: number): void {
  if (reader.tag() !== tag) throw new CborError('another tag')
}

function expectArray(reader: CborReader, length: number): void {
  if (reader.array() !== length) throw new CborError('an array of another length')
}

function expectMap(reader: CborReader, entries: number): void {
  if (reader.map() !== entries) throw new CborError('a map of another size')
}

function expectLabel(reader: CborReader, label: number): void {
  if (reader.integer() !== label) throw new CborError('another label')
}

function expectName(reader: CborReader, name: string): void {
  if (reader.recurringText() !== name) throw new CborError('another label')
}

function bytesOf(reader: CborReader, min: number, max: number, what: string): Uint8Array {
  const bytes = reader.byteString()
  if (bytes.length < min || bytes.length > max) throw new CborError(`${what} of another size`)
  return bytes
}

/** Text of 1 to `max` bytes of UTF-8: beyond that it is no sealed event. */
function sized(text: string, max: number, what: string): string {
  if (text.length === 0 || isLonger(text, max)) throw new CborError(`${what} of another size`)
  return text
}

/** Text of any length, which is `oversize` beyond 1,024 bytes. */
function limited(text: string, late: Late, what: string): string {
  if (isLonger(text, MAX_TEXT_BYTES)) late.oversize ??= `${what} longer than ${MAX_TEXT_BYTES} bytes`
  return text
}

/** In bytes of UTF-8, which are at most three a code unit: few texts need counting. */
const isLonger = (text: string, maxBytes: number): boolean =>
  text.length * 3 > maxBytes && Buffer.byteLength(text) > maxBytes

/** An algorithm: any integer or text is well formed, but only some are supported. */
function readAlgorithm(
  reader: CborReader,
  late: Late,
  known: (alg: CborInteger) => boolean,
  what: string,
): CborInteger | string {
  const alg = reader.major === MAJOR.text ? limited(reader.text(), late, what) : reader.integer()
  if (typeof alg === 'string' || !known(alg)) late.unsupported ??= `${what} not supported`
  return alg
}

/** A typ: any unsigned integer (a CoAP content format) or text is well formed. */
function readTyp(reader: CborReader, late: Late, known: (typ: string) => boolean): CborInteger | string {
  const typ = reader.major === MAJOR.text ? limited(reader.recurringText(), late, 'typ') : reader.uint()
  if (typeof typ !== 'string' || !known(typ)) late.unsupported ??= 'typ not supported'
  return typ
}
