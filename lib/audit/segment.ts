/**
 * A segment closes a slice's entries (audit.md §2): a COSE_Sign1 with its payload attached, chained to the segment
 * before by sequence, hash and source offsets. `parseSegment` accepts only what `closeSegment` writes.
 */
import { CborError, CborReader, CborWriter, MAJOR } from '../cbor.ts'
import { sigStructure } from '../envelope/binding.ts'
import { digest, type PublicKey, verify } from '../envelope/crypto.ts'
import { leafHash, treeRoot } from '../envelope/merkle.ts'
import { partitionOf } from '../envelope/partition.ts'
import { suiteOf } from '../envelope/suite.ts'
import type { Signer, TopicPartition } from '../ports.ts'

const TAG_SIGN1 = 18
const TYP = 'application/vnd.sealgate.segment+cose'
const VERSION = 'sealgate-segment/1'
const HASH_BYTES = 32
const SIGNATURE_BYTES = 64
const MAX_NAME_BYTES = 255

/** Where a source partition's chain ends. Kept in the position and committed with it. */
export interface AuditHead {
  /** Sequence of the last segment written, which are counted from 1; 0 where there is none. */
  readonly sequence: number
  /** SHA-256 of that segment's record value; 32 zeros where there is none. */
  readonly hash: Uint8Array
}

/** The head of a chain that has not begun. */
export const FIRST_HEAD: AuditHead = { sequence: 0, hash: new Uint8Array(HASH_BYTES) }

/** What the gateway knows of a slice when it closes it, but for its entries. */
export interface SegmentFields {
  readonly deployment: string
  /** The source partition; `_control` and 0 for entries that belong to no source record. */
  readonly topic: string
  readonly partition: number
  /** Source offsets [from, next): `from` is the `next` of the segment before. */
  readonly from: bigint
  readonly next: bigint
  /** Seconds since 1970. */
  readonly time: number
  /** SHA-256 of the contract bundle. */
  readonly bundle: Uint8Array
  /** Version of the key directory. */
  readonly directory: number
  /** Name and version of what decided. */
  readonly software: string
  /** Raised by each reprocessing on purpose (exactly-once.md §2). */
  readonly epoch: number
  /** Producers' numbers that left the replay map in this slice without having come. */
  readonly unseen: number
}

/** What is signed. */
export interface SegmentPayload extends SegmentFields {
  readonly sequence: number
  readonly count: number
  /** RFC 9162 root over the entries' bytes, in order. */
  readonly root: Uint8Array
  readonly previous: Uint8Array
}

/** A segment that parsed: nothing in it is verified. */
export interface Segment extends SegmentPayload {
  readonly alg: number
  readonly kid: Uint8Array
  /** The bytes that the signature is over (RFC 9052 §4.4), and it. */
  readonly signed: Uint8Array
  readonly signature: Uint8Array
  /** SHA-256 of the whole value: the next segment's `previous`. */
  readonly hash: Uint8Array
}

/** The key of a segment's record: `topic/partition`. */
export function segmentKey(source: TopicPartition): string {
  return `${source.topic}/${source.partition}`
}

/** The partition, from 0, that a source partition's entries, segments and quarantined records go to; kept in its position. */
export function auditPartitionOf(source: TopicPartition, count: number): number {
  return partitionOf(Buffer.from(segmentKey(source)), count)
}

/** A slice to be closed. */
export interface ClosingSlice extends SegmentFields {
  readonly head: AuditHead
  /** The values of the entries' records, in offset order: they stand before the segment on its audit partition. */
  readonly entries: readonly Uint8Array[]
}

/**
 * Chains, signs and encodes the segment of a slice. The head returned is to be committed with the position, in the
 * transaction of both. Rejects as the signer does (`Outage`); throws `TypeError` for fields that no slice can have.
 */
export async function closeSegment(
  { head, entries, ...fields }: ClosingSlice,
  signer: Signer,
  deadline: number,
): Promise<{ readonly value: Uint8Array; readonly head: AuditHead }> {
  const payload: SegmentPayload = {
    ...fields,
    sequence: head.sequence + 1,
    count: entries.length,
    root: treeRoot(entries.map(leafHash)),
    previous: head.hash,
  }
  const fault = faultOf(payload)
  if (fault !== undefined) throw new TypeError(`a segment cannot be made: ${fault}`)
  const protectedHeader = encodeProtected(signer.alg, signer.kid)
  const body = encodePayload(payload)
  const signature = await signer.sign(sigStructure(protectedHeader, body), deadline)
  if (signature.length !== SIGNATURE_BYTES) throw new TypeError('a signature has 64 bytes')
  const value = encodeSign1(protectedHeader, body, signature)
  return { value, head: { sequence: payload.sequence, hash: digest(value) } }
}

/** Whether the key made this segment. The caller has found it by `kid` among those it trusts. */
export function verifySegment(segment: Segment, key: PublicKey): boolean {
  return segment.alg === key.suite.cose && verify(key, segment.signed, segment.signature)
}

/** Whether a record of the audit is a segment: it begins with COSE_Sign1's tag 18, an entry as JSON does. */
export const isSegment = (value: Uint8Array): boolean => value[0] === 0xd2

/** Reads a segment record's value; undefined for whatever `closeSegment` would not have written. */
export function parseSegment(value: Uint8Array): Segment | undefined {
  try {
    const segment = readSegment(value)
    return faultOf(segment) === undefined ? segment : undefined
  } catch (error) {
    if (error instanceof CborError) return undefined
    throw error
  }
}

function encodeProtected(alg: number, kid: Uint8Array): Uint8Array {
  if (suiteOf(alg) === undefined) throw new TypeError('a signature algorithm that is not in the table')
  if (kid.length < 1 || kid.length > 64) throw new TypeError('a kid has 1 to 64 bytes')
  const writer = new CborWriter(128)
  writer.head(MAJOR.map, 3)
  writer.integer(1)
  writer.integer(alg)
  writer.integer(4)
  writer.byteString(kid)
  writer.integer(16)
  writer.text(TYP)
  return writer.finish()
}

function encodePayload(payload: SegmentPayload): Uint8Array {
  const writer = new CborWriter(384)
  const values = [
    VERSION,
    payload.deployment,
    payload.topic,
    payload.partition,
    payload.sequence,
    payload.from,
    payload.next,
    payload.count,
    payload.root,
    payload.previous,
    payload.time,
    payload.bundle,
    payload.directory,
    payload.software,
    payload.epoch,
    payload.unseen,
  ]
  writer.head(MAJOR.map, values.length)
  for (const [index, value] of values.entries()) {
    writer.integer(index + 1)
    writer.value(value)
  }
  return writer.finish()
}

function encodeSign1(protectedHeader: Uint8Array, body: Uint8Array, signature: Uint8Array): Uint8Array {
  const writer = new CborWriter(protectedHeader.length + body.length + signature.length + 16)
  writer.head(MAJOR.tag, TAG_SIGN1)
  writer.head(MAJOR.array, 4)
  writer.byteString(protectedHeader)
  writer.head(MAJOR.map, 0)
  writer.byteString(body)
  writer.byteString(signature)
  return writer.finish()
}

function readSegment(value: Uint8Array): Segment {
  const reader = new CborReader(value)
  expect(reader.tag(), TAG_SIGN1)
  expect(reader.array(), 4)
  const protectedHeader = reader.byteString()
  expect(reader.map(), 0)
  const body = reader.byteString()
  const signature = hashLike(reader.byteString(), SIGNATURE_BYTES)
  reader.end()
  return {
    ...readProtected(protectedHeader),
    ...readPayload(body),
    signed: sigStructure(protectedHeader, body),
    signature,
    hash: digest(value),
  }
}

function readProtected(bytes: Uint8Array): { alg: number; kid: Uint8Array } {
  const reader = new CborReader(bytes)
  expect(reader.map(), 3)
  expect(reader.integer(), 1)
  const suite = suiteOf(reader.integer())
  if (suite === undefined) throw new CborError('a signature algorithm that is not in the table')
  expect(reader.integer(), 4)
  const kid = reader.byteString()
  if (kid.length < 1 || kid.length > 64) throw new CborError('a kid of another size')
  expect(reader.integer(), 16)
  expect(reader.text(), TYP)
  reader.end()
  return { alg: suite.cose, kid }
}

function readPayload(bytes: Uint8Array): SegmentPayload {
  const reader = new CborReader(bytes)
  let label = 0
  const next = (): CborReader => {
    expect(reader.uint(), (label += 1))
    return reader
  }
  expect(reader.map(), 16)
  expect(next().text(), VERSION)
  const payload = {
    deployment: next().text(),
    topic: next().text(),
    partition: next().count(),
    sequence: next().count(),
    from: BigInt(next().uint()),
    next: BigInt(next().uint()),
    count: next().count(),
    root: next().byteString(),
    previous: next().byteString(),
    time: next().count(),
    bundle: next().byteString(),
    directory: next().count(),
    software: next().text(),
    epoch: next().count(),
    unseen: next().count(),
  }
  reader.end()
  return payload
}

function expect<T>(found: T, expected: T): void {
  if (found !== expected) throw new CborError('another shape')
}

function hashLike(bytes: Uint8Array, length: number): Uint8Array {
  if (bytes.length !== length) throw new CborError('bytes of another length')
  return bytes
}

const TOPIC_NAME = /^[a-zA-Z0-9._-]{1,249}$/
const MAX_PARTITION = 2 ** 31 - 1
const MAX_OFFSET = 2n ** 63n - 1n

/** What is wrong with a payload, both when it is written and when it is read. */
function faultOf(payload: SegmentPayload): string | undefined {
  const { sequence, count: entries, from, next } = payload
  const counts = [sequence, entries, payload.time, payload.directory, payload.epoch, payload.unseen]
  if (!isName(payload.deployment) || !isName(payload.software)) return 'a name of no or over 255 bytes'
  if (!TOPIC_NAME.test(payload.topic)) return 'a topic that has no name of a topic'
  if (!isCount(payload.partition) || payload.partition > MAX_PARTITION) return 'a partition out of range'
  if (!counts.every(isCount)) return 'a number that is no count'
  if (from < 0n || next < from || next > MAX_OFFSET) return 'offsets out of range'
  if (BigInt(entries) > next - from) return 'more entries than offsets'
  if ([payload.root, payload.previous, payload.bundle].some(({ length }) => length !== HASH_BYTES))
    return 'a hash that has not 32 bytes'
  const first = payload.previous.every((byte) => byte === 0)
  return sequence < 1 || (sequence === 1) !== first
    ? 'a sequence that does not fit the hash before'
    : undefined
}

const isCount = (value: number): boolean => Number.isSafeInteger(value) && value >= 0

function isName(text: string): boolean {
  const length = Buffer.byteLength(text)
  return length > 0 && length <= MAX_NAME_BYTES
}
