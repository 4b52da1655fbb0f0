/**
 * The four kinds of error (design: architecture.md §4), and the closed lists of their codes.
 * Dashboards, audit and documents are keyed by these codes: adding one is a change of a public interface.
 */

/** Why a record is refused, in the order of admission (sealed-event.md §5). */
export const REJECTION_CODES = [
  'value-missing',
  'oversize',
  'malformed',
  'unsupported',
  'hint-mismatch',
  'key-unknown',
  'issuer-mismatch',
  'key-not-valid',
  'signature-invalid',
  'audience-mismatch',
  'time-invalid',
  'type-unknown',
  'not-authorised',
  'replayed',
  'over-limit',
  'undecryptable',
  'schema-invalid',
] as const

export type RejectionCode = (typeof REJECTION_CODES)[number]

/** Why nothing could be decided. What each means and what to do stands in docs/operations.md. */
export const OUTAGE_CODES = [
  'channel-unknown', // a topic that the settings map to no channel
  'clock-skew', // a broker's timestamp more than 300 s ahead of the gateway's clock
  'directory-unavailable', // no copy of the key directory young enough to judge by
  'contracts-unavailable',
  'key-service-unavailable', // no answer, throttled, or the breaker is open
  'key-service-denied', // the key service refuses us: rights, a disabled or missing KEK
  'secret-unavailable',
  'signer-unavailable',
  'position-missing', // the sink knows no position for a source partition: a first start is made by name
  'position-damaged', // a position that does not parse, or whose parts do not fit together
  'fenced', // another handler has taken this partition over: open again
  'sink-unavailable', // the broker or log did not take the transaction
  'sink-denied', // the broker refuses us: rights, or a topic that is not there
  'deadline', // no time left
  'unexpected', // anything else: fail closed, keep order, alarm
] as const

export type OutageCode = (typeof OUTAGE_CODES)[number]

/** The record's fault: it is quarantined with its code and audited, and the slice goes on. Only `admit` catches it. */
export class Rejection extends Error {
  override readonly name = 'Rejection'
  readonly code: RejectionCode

  constructor(code: RejectionCode, reason: string, options?: { cause?: unknown }) {
    super(reason, options)
    this.code = code
  }
}

/** Ours or a service's fault, for now: the slice stops before the record, which is tried again. Only `slice` catches it. */
export class Outage extends Error {
  override readonly name = 'Outage'
  readonly code: OutageCode

  constructor(code: OutageCode, reason: string, options?: { cause?: unknown }) {
    super(reason, options)
    this.code = code
  }
}

/** One thing wrong with what somebody configured: where, what, and what to do about it. */
export interface Fault {
  /** A file, setting, flag or field; with `line` counted from 1 where it is a text file. */
  readonly where: string
  readonly line?: number
  readonly what: string
  readonly fix: string
}

/** The deployer's or programmer's fault: fails at start and names every fault at once. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError'
  readonly faults: readonly Fault[]

  constructor(faults: readonly Fault[]) {
    super(faults.map(describeFault).join('\n'))
    this.faults = faults
  }
}

/** Node's own code of an error, such as `ENOENT`: its message may quote anything. */
export const codeOf = (error: unknown): string =>
  error instanceof Error && 'code' in error ? String(error.code) : 'unknown'

/** `where:line: what. fix`, as one line. */
export function describeFault(fault: Fault): string {
  const place = fault.line === undefined ? fault.where : `${fault.where}:${fault.line}`
  return `${place}: ${fault.what} ${fault.fix}`.trimEnd()
}
