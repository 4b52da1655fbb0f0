/** What a sealed record says of itself, read without any key: nothing here is verified. */
import { CborError, CborReader } from '../lib/cbor.ts'
import { encodeProof, encodeProofHeader, encodeSealedEvent } from '../lib/envelope/encode.ts'
import { type Envelope, parse } from '../lib/envelope/format.ts'
import { ED25519, suiteOf } from '../lib/envelope/suite.ts'
import { Rejection, type RejectionCode } from '../lib/errors.ts'
import { parseRecord } from '../lib/keys/authenticate.ts'
import type { GivenRecord } from './record.ts'

export interface Inspection {
  readonly bytes: number
  readonly record: GivenRecord['record']
  readonly stored: GivenRecord['stored']
  /** Why it would be refused before any key is looked at. */
  readonly refusal: Refusal | undefined
  /** Undefined where it does not parse. */
  readonly envelope: Envelope | undefined
  /** Where body and proof lie in the value. */
  readonly parts: Parts | undefined
}

export interface Refusal {
  readonly code: RejectionCode
  readonly reason: string
  readonly place: string
}

export interface Parts {
  /** Offsets of the first byte. */
  readonly body: { readonly start: number; readonly bytes: Uint8Array }
  readonly proof: { readonly start: number; readonly bytes: Uint8Array }
}

/** The gate's own limit (sealed-event.md §2). */
const MAX_VALUE_BYTES = 1_048_576

export function inspect({ value, record, stored }: GivenRecord): Inspection {
  const base = { bytes: value?.length ?? 0, record, stored }
  const outer = value === null ? 'there is no value' : partsOf(value)
  try {
    const envelope = parse(value, MAX_VALUE_BYTES)
    const parts = typeof outer === 'string' ? undefined : outer
    return { ...base, envelope, parts, refusal: hintRefusal({ value, record, stored }) }
  } catch (error) {
    if (!(error instanceof Rejection)) throw error
    const place = typeof outer === 'string' ? outer : faultyPart(outer, error.message)
    return {
      ...base,
      envelope: undefined,
      parts: undefined,
      refusal: { code: error.code, reason: error.message, place },
    }
  }
}

function hintRefusal({ value, record }: GivenRecord): Refusal | undefined {
  if (record === undefined) return undefined
  try {
    parseRecord({ value, headers: record.headers }, MAX_VALUE_BYTES)
    return undefined
  } catch (error) {
    if (!(error instanceof Rejection)) throw error
    return { code: error.code, reason: error.message, place: 'in the headers' }
  }
}

/** The outer array, or where it breaks off. */
function partsOf(value: Uint8Array): Parts | string {
  const reader = new CborReader(value)
  try {
    reader.tag()
    reader.array()
    const body = reader.byteString()
    const bodyEnd = reader.offset
    const proof = reader.byteString()
    const end = reader.offset
    reader.end()
    return {
      body: { start: bodyEnd - body.length, bytes: body },
      proof: { start: end - proof.length, bytes: proof },
    }
  } catch (error) {
    if (!(error instanceof CborError)) throw error
    return `in the outer array, near byte ${Math.min(reader.offset, value.length)} of ${value.length}`
  }
}

/** With a proof that is known to be well formed beside it, a fault that stays is the body's. */
function faultyPart({ body, proof }: Parts, reason: string): string {
  const sound = encodeProof({
    protected: encodeProofHeader(ED25519.cose, Uint8Array.of(1), false),
    signature: new Uint8Array(64),
    receipt: undefined,
  })
  let isBody = false
  try {
    parse(encodeSealedEvent(body.bytes, sound), Infinity)
  } catch (error) {
    isBody = error instanceof Rejection && error.message === reason
  }
  const [name, { start, bytes }] = isBody ? ['body', body] : ['proof', proof]
  return `in the ${name}, bytes ${start} to ${start + bytes.length - 1}`
}

/** How a COSE algorithm of a proof is called. */
export function algorithmName(alg: number): string {
  return `${suiteOf(alg)?.name ?? 'unknown'} (COSE ${alg})`
}
