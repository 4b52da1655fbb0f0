/**
 * What a sealed event is bound to, as bytes (sealed-event.md §4): its place, the statement that is signed, and the COSE
 * structures (RFC 9052 §4.4, §5.3) around them. Made by hand into one buffer each: this is the hot path.
 */
import { CborWriter, encodeCbor, headBytes, MAJOR } from '../cbor.ts'
import { digest } from './crypto.ts'

/** Where an event belongs. `channel` is the logical topic name; the key is the record's, or null. */
export interface Place {
  readonly channel: string
  readonly partition: number
  readonly key: Uint8Array | null
}

const VERSION = 'sealgate/1'
const DIGEST_BYTES = 32
/** The contexts of RFC 9052, encoded. */
const ENCRYPT = encodeCbor('Encrypt')
const SIGNATURE1 = encodeCbor('Signature1')

/** `"sealgate/1", channel, partition`: the same for all of a slice, so the last one is kept. */
function prefixOf(channel: string, partition: number): Uint8Array {
  if (channel !== last.channel || partition !== last.partition) {
    const writer = new CborWriter(32 + channel.length * 3)
    writer.text(VERSION)
    writer.text(channel)
    writer.integer(partition)
    last = { channel, partition, prefix: writer.finish() }
  }
  return last.prefix
}

let last: Pick<Place, 'channel' | 'partition'> & { prefix: Uint8Array } = {
  channel: '',
  partition: -1,
  prefix: new Uint8Array(),
}

/** A writer that has the elements of a place in it, as the first of so many, and room for `more` bytes. */
function startPlace({ channel, partition, key }: Place, elements: number, more: number): CborWriter {
  const prefix = prefixOf(channel, partition)
  const writer = new CborWriter(1 + prefix.length + (key === null ? 1 : stringBytes(key)) + more)
  writer.head(MAJOR.array, elements)
  writer.raw(prefix)
  if (key === null) writer.nil()
  else writer.byteString(key)
  return writer
}

/** What a byte string takes up with its head. */
const stringBytes = ({ length }: Uint8Array): number => headBytes(length) + length

/** `["sealgate/1", channel, partition, key]` */
export function encodePlace(place: Place): Uint8Array {
  return startPlace(place, 4, 0).finish()
}

/** `["sealgate/1", channel, partition, key, SHA-256(body)]`: what a signature says, directly or through a batch's root. */
export function encodeStatement(place: Place, body: Uint8Array): Uint8Array {
  const writer = startPlace(place, 5, DIGEST_BYTES + 2)
  writer.byteString(digest(body))
  return writer.finish()
}

/** `["Encrypt", protected, external_aad = place]`: the AAD of the content encryption. */
export function encStructure(protectedHeader: Uint8Array, place: Place): Uint8Array {
  const external = encodePlace(place)
  const size = 1 + ENCRYPT.length + stringBytes(protectedHeader) + stringBytes(external)
  const writer = new CborWriter(size)
  writer.head(MAJOR.array, 3)
  writer.raw(ENCRYPT)
  writer.byteString(protectedHeader)
  writer.byteString(external)
  return writer.finish()
}

/** `["Signature1", protected, h'', payload]`: what is signed; the payload a statement, a root, or a segment. */
export function sigStructure(protectedHeader: Uint8Array, payload: Uint8Array): Uint8Array {
  const writer = new CborWriter(protectedHeader.length + payload.length + 32)
  writer.head(MAJOR.array, 4)
  writer.raw(SIGNATURE1)
  writer.byteString(protectedHeader)
  writer.byteString(new Uint8Array())
  writer.byteString(payload)
  return writer.finish()
}
