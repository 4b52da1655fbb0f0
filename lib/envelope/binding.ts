/**
 * What a sealed event is bound to, as bytes (sealed-event.md §4): its place, the statement that is signed, and the COSE
 * structures (RFC 9052 §4.4, §5.3) around them. Made by hand into one buffer each: this is the hot path.
 */
import { CborWriter, MAJOR } from '../cbor.ts'
import { digest } from './crypto.ts'

/** Where an event belongs. `channel` is the logical topic name; the key is the record's, or null. */
export interface Place {
  readonly channel: string
  readonly partition: number
  readonly key: Uint8Array | null
}

const VERSION = 'sealgate/1'

function writePlace(writer: CborWriter, place: Place, elements: number): void {
  writer.head(MAJOR.array, elements)
  writer.text(VERSION)
  writer.text(place.channel)
  writer.integer(place.partition)
  if (place.key === null) writer.nil()
  else writer.byteString(place.key)
}

const capacityFor = (place: Place): number => 96 + place.channel.length * 3 + (place.key?.length ?? 0)

/** `["sealgate/1", channel, partition, key]` */
export function encodePlace(place: Place): Uint8Array {
  const writer = new CborWriter(capacityFor(place))
  writePlace(writer, place, 4)
  return writer.finish()
}

/** `["sealgate/1", channel, partition, key, SHA-256(body)]`: what a signature says, directly or through a batch's root. */
export function encodeStatement(place: Place, body: Uint8Array): Uint8Array {
  const writer = new CborWriter(capacityFor(place))
  writePlace(writer, place, 5)
  writer.byteString(digest(body))
  return writer.finish()
}

/** `["Encrypt", protected, external_aad = place]`: the AAD of the content encryption. */
export function encStructure(protectedHeader: Uint8Array, place: Place): Uint8Array {
  const external = encodePlace(place)
  const writer = new CborWriter(protectedHeader.length + external.length + 32)
  writer.head(MAJOR.array, 3)
  writer.text('Encrypt')
  writer.byteString(protectedHeader)
  writer.byteString(external)
  return writer.finish()
}

/** `["Signature1", protected, h'', payload]`: what is signed; the payload a statement, a root, or a segment. */
export function sigStructure(protectedHeader: Uint8Array, payload: Uint8Array): Uint8Array {
  const writer = new CborWriter(protectedHeader.length + payload.length + 32)
  writer.head(MAJOR.array, 4)
  writer.text('Signature1')
  writer.byteString(protectedHeader)
  writer.byteString(new Uint8Array())
  writer.byteString(payload)
  return writer.finish()
}
