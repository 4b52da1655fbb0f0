/**
 * Steps 1 to 6 of admission (sealed-event.md §5): who made this record, for whom, where and when. The gate and every
 * consumer do them in this order; none of them waits for anything or costs a call.
 */
import { Outage, Rejection } from '../errors.ts'
import type { Place } from '../envelope/binding.ts'
import { type Envelope, parse } from '../envelope/format.ts'
import {
  type Bounds,
  MAX_CLOCK_LEAD_SECONDS,
  type ProvenBatches,
  type Verified,
  verify,
} from '../envelope/verify.ts'
import type { Header, SourceRecord } from '../ports.ts'
import { type DirectoryCopy, maySign } from './directory.ts'

/** Who reads, and what it asks of an event. */
export interface ReaderBounds extends Bounds {
  /** The longest value, in bytes. */
  readonly maxValueBytes: number
}

/** A record's value that parsed and whose hints agree, and which nobody has verified: what it *claims* to be. */
export function parseRecord(
  record: Pick<SourceRecord, 'value' | 'headers'>,
  maxValueBytes: number,
): Envelope {
  const envelope = parse(record.value, maxValueBytes)
  checkHints(record.headers, envelope)
  return envelope
}

/** Throws `Rejection` with a code of steps 3 to 6, or `Outage` where the directory's copy is too old to call a key unknown. */
export function authenticate(
  envelope: Envelope,
  place: Place,
  directory: DirectoryCopy,
  bounds: Bounds,
  batches: ProvenBatches,
): Verified {
  const { proof, body } = envelope
  const row = directory.snapshot.signingKey(proof.kid)
  if (row === undefined) {
    if (!directory.fresh)
      throw new Outage(
        'directory-unavailable',
        'a kid is unknown to a copy of the key directory that is over 60 s old; the directory could not be refreshed',
      )
    throw new Rejection('key-unknown', 'the key directory has no such kid')
  }
  if (row.key.suite.cose !== proof.alg) throw new Rejection('unsupported', "the algorithm is not the key's")
  if (row.iss !== body.claims.iss) throw new Rejection('issuer-mismatch', 'the key belongs to another issuer')
  if (!maySign(row, bounds.time))
    throw new Rejection('key-not-valid', `the key may not sign at this time (state ${row.state})`)
  return verify(envelope, place, row.key, bounds, batches)
}

/**
 * The judging time in whole seconds: the broker's timestamp where the broker set it, else our clock; never before
 * `highest`, the highest of any record decided in the partition. Rejects with `Outage('clock-skew')` a broker's
 * timestamp more than 300 s ahead of our clock.
 * @param now milliseconds since 1970
 * @param highest seconds since 1970
 */
export function judgingTime(
  record: Pick<SourceRecord, 'timestamp' | 'timestampType'>,
  now: number,
  highest: number,
): number {
  const stamped = record.timestampType === 'LogAppendTime'
  const milliseconds = stamped ? record.timestamp : now
  if (stamped && milliseconds > now + MAX_CLOCK_LEAD_SECONDS * 1000) {
    throw new Outage(
      'clock-skew',
      `the broker's clock is more than ${MAX_CLOCK_LEAD_SECONDS} s ahead of ours: set both by NTP`,
    )
  }
  return Math.max(highest, Math.floor(milliseconds / 1000))
}

/** `content-type`, where there, is this constant. */
export const CONTENT_TYPE_HINT = 'application/vnd.sealgate.event+cbor'

/** The signed value that a hint must be equal to; undefined for any other header. */
function hinted(name: string, envelope: Envelope): string | undefined {
  switch (name) {
    case 'content-type':
      return CONTENT_TYPE_HINT
    case 'ce_id':
      return envelope.body.claims.ce.get('id')
    case 'ce_source':
      return envelope.body.claims.ce.get('source')
    case 'ce_type':
      return envelope.body.claims.ce.get('type')
    case 'ce_specversion':
      return envelope.body.claims.ce.get('specversion')
    default:
      return undefined
  }
}

/** Step 2: headers are never trusted, but those that name what is signed must say the same, byte for byte. */
function checkHints(headers: readonly Header[], envelope: Envelope): void {
  const met = new Set<string>()
  for (const { name, value } of headers) {
    const signed = hinted(name, envelope)
    if (signed === undefined) continue
    if (met.has(name)) throw new Rejection('hint-mismatch', `header ${name} stands more than once`)
    met.add(name)
    if (value === null || !Buffer.from(signed).equals(value))
      throw new Rejection('hint-mismatch', `header ${name} is not what is signed`)
  }
}
