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

/** What is asked of an event that was judged before. */
export interface ReaderTimes {
  /** When that was, by the audit, seconds since 1970: its key had to be good then. Without it, at the judging time. */
  readonly firstJudged?: number
}

/** Throws `Rejection` with a code of steps 3 to 6, or `Outage` where the directory's copy is too old to call a key unknown. */
export function authenticate(
  envelope: Envelope,
  place: Place,
  directory: DirectoryCopy,
  bounds: Bounds & ReaderTimes,
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
  if (!maySign(row, bounds.firstJudged ?? bounds.time))
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

/** Headers that name what is signed, and the attribute that they name; any other is no hint. */
const HINTS = new Map([
  ['content-type', { bit: 1, attribute: undefined }],
  ['ce_id', { bit: 2, attribute: 'id' }],
  ['ce_source', { bit: 4, attribute: 'source' }],
  ['ce_type', { bit: 8, attribute: 'type' }],
  ['ce_specversion', { bit: 16, attribute: 'specversion' }],
])

/** Step 2: headers are never trusted, but those that name what is signed must say the same, byte for byte. */
function checkHints(headers: readonly Header[], envelope: Envelope): void {
  const { ce } = envelope.body.claims
  let met = 0
  for (const { name, value } of headers) {
    const hint = HINTS.get(name)
    if (hint === undefined) continue
    if ((met & hint.bit) !== 0) throw new Rejection('hint-mismatch', `header ${name} stands more than once`)
    met |= hint.bit
    const signed = hint.attribute === undefined ? CONTENT_TYPE_HINT : (ce.get(hint.attribute) ?? '')
    if (value === null || !isText(value, signed))
      throw new Rejection('hint-mismatch', `header ${name} is not what is signed`)
  }
}

/** Whether bytes are a text's UTF-8; a text of ASCII is compared as it stands. */
function isText(bytes: Uint8Array, text: string): boolean {
  for (let index = 0; index < text.length; index++) {
    const unit = text.charCodeAt(index)
    if (unit >= 0x80) return Buffer.from(text).equals(bytes)
    if (bytes[index] !== unit) return false
  }
  return bytes.length === text.length
}
