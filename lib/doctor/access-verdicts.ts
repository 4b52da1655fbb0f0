/** What is to be said of connections and of keys, given what was seen of them. */
import { type DirectorySnapshot, maySign, type SigningKeyRow } from '../keys/directory.ts'
import type { Outage } from '../errors.ts'
import { fail, ok, orElse, skip, type Verdict, verdictsOf, warn } from './finding.ts'

const DAY_MS = 86_400_000
/** So long before its end a certificate or key is spoken of. */
const NOTICE_DAYS = 30

/** A connection to a broker; `tls` is undefined without TLS. */
export interface Connected {
  readonly broker: string
  readonly tls:
    | {
        readonly protocol: string
        readonly cipher: string
        /** Milliseconds since 1970. */
        readonly endsAt: number
        readonly ownEndsAt: number | undefined
      }
    | undefined
}

/** A listener that no connection was made to, and why. */
export interface Missed {
  readonly broker: string
  readonly outage: Outage
}

/** What is to be said of listeners: a line for each that is not well, or one for all. */
export function listenerVerdicts(made: readonly Connected[], missed: readonly Missed[]): readonly Verdict[] {
  const faults = missed.flatMap(({ outage }) => verdictsOf(outage))
  const others = tlsVerdicts(made).filter(({ status }) => missed.length === 0 || status !== 'ok')
  return [...faults, ...others]
}

/** The same of certificates: those that have ended, or will soon. */
export function expiryVerdicts(
  made: readonly Connected[],
  missed: readonly Missed[],
  now: number,
): readonly Verdict[] {
  const ended = missed.filter(({ outage }) => outage.message.includes('CERT_HAS_EXPIRED'))
  const unseen = missed.filter((each) => !ended.includes(each)).map(({ broker }) => broker)
  return [
    ...ended.flatMap(({ outage }) => verdictsOf(outage)),
    ...(made.length > 0 ? certificateVerdicts(made, now) : []),
    ...(unseen.length > 0
      ? [skip(`No connection was made to ${unseen.join(', ')}.`, 'See the check tls.')]
      : []),
  ]
}

export function tlsVerdicts(connections: readonly Connected[]): readonly Verdict[] {
  const faults = connections.flatMap(({ broker, tls }): Verdict[] => {
    if (tls === undefined)
      return [
        fail(
          `${broker}: without TLS, by insecurePlaintext.`,
          'Leave that setting out, and use a TLS listener.',
        ),
      ]
    return tls.protocol === 'TLSv1.3' || tls.protocol === 'TLSv1.2'
      ? []
      : [
          fail(
            `${broker}: ${tls.protocol}.`,
            'Let brokers take TLS 1.2 and 1.3 alone (ssl.enabled.protocols).',
          ),
        ]
  })
  const kinds = new Set(connections.flatMap(({ tls }) => (tls ? [`${tls.protocol} ${tls.cipher}`] : [])))
  return orElse(faults, `${connections.length} listeners, verified: ${[...kinds].join(', ')}.`)
}

export function certificateVerdicts(connections: readonly Connected[], now: number): readonly Verdict[] {
  const ends = connections.flatMap(({ broker, tls }) => [
    ...(tls ? [{ whose: `the certificate of ${broker}`, at: tls.endsAt }] : []),
    ...(tls?.ownEndsAt === undefined ? [] : [{ whose: 'our certificate', at: tls.ownEndsAt }]),
  ])
  if (ends.length === 0) return [skip('There are no certificates without TLS.', 'See the check tls.')]
  const faults = ends.flatMap(({ whose, at }): Verdict[] => {
    const days = Math.floor((at - now) / DAY_MS)
    const renew = 'Renew it (docs/rotation.md).'
    if (at <= now) return [fail(`It has ended: ${whose}.`, renew)]
    return days < NOTICE_DAYS ? [warn(`It ends in ${days} days: ${whose}.`, renew)] : []
  })
  const first = Math.min(...ends.map(({ at }) => at))
  return orElse(faults, `The first to end has ${Math.floor((first - now) / DAY_MS)} days left.`)
}

/** How we prove who we are, and whether those who prove nothing are let in. */
export function authenticationVerdicts(
  mechanism: string | undefined,
  hasCertificate: boolean,
  admitsAnybody: boolean,
): readonly Verdict[] {
  const faults: Verdict[] = []
  if (admitsAnybody)
    faults.push(
      fail(
        'The brokers answer somebody who shows neither password nor certificate.',
        'Ask all for one: a SASL_SSL listener, or ssl.client.auth=required.',
      ),
    )
  if (mechanism === undefined && !hasCertificate)
    faults.push(
      fail('The gate shows neither password nor certificate.', 'Set kafka.sasl, or kafka.ssl.cert and key.'),
    )
  if (mechanism === 'plain')
    faults.push(
      warn('PLAIN shows the password to every broker.', 'Use scram-sha-512 where the cluster offers it.'),
    )
  return orElse(faults, `By ${mechanism ?? 'certificate'}; who shows nothing is refused.`)
}

export const MIN_PASSWORD_LENGTH = 12

/** `isLong` is undefined where there is no password. */
export function passwordVerdicts(isLong: boolean | undefined): readonly Verdict[] {
  if (isLong === undefined) return [ok('There is no password to guess.')]
  return isLong
    ? [ok(`At least ${MIN_PASSWORD_LENGTH} characters.`)]
    : [
        fail(
          `The password has fewer than ${MIN_PASSWORD_LENGTH} characters.`,
          'Set one that is random, or let sealgate rotate (docs/rotation.md).',
        ),
      ]
}

/** Of the key directory: how long it counts yet, and whether all are in it that contracts name. */
export function directoryVerdicts(
  snapshot: Pick<DirectorySnapshot, 'version' | 'issuedAt' | 'expiresAt' | 'signingKeys'>,
  issuers: readonly string[],
  now: number,
): readonly Verdict[] {
  const seconds = Math.floor(now / 1000)
  const hours = Math.floor((snapshot.expiresAt - seconds) / 3600)
  const share = (snapshot.expiresAt - seconds) / (snapshot.expiresAt - snapshot.issuedAt)
  const faults: Verdict[] = []
  if (share < LAST_PART)
    faults.push(
      warn(`Version ${snapshot.version} counts for ${hours} hours yet.`, 'Run sealgate directory publish.'),
    )
  const nobodies = issuers.filter(
    (iss) => !snapshot.signingKeys.some((row) => row.iss === iss && maySign(row, seconds)),
  )
  if (nobodies.length > 0)
    faults.push(
      warn(
        `No key may sign for ${nobodies.join(', ')}, whom contracts name.`,
        'Enrol one (sealgate keys enrol).',
      ),
    )
  return orElse(
    faults,
    `Version ${snapshot.version}, signed by a pinned root, counts for ${hours} hours yet.`,
  )
}

/** Of a version's life. */
const LAST_PART = 0.2

/** Of the keys that the directory has, those that end soon. */
export function keyVerdicts(rows: readonly SigningKeyRow[], now: number): readonly Verdict[] {
  const seconds = Math.floor(now / 1000)
  const good = rows.filter((row) => row.state === 'active' && maySign(row, seconds))
  const lastOf = new Map<string, number>()
  for (const { iss, notAfter } of good) lastOf.set(iss, Math.max(notAfter, lastOf.get(iss) ?? 0))
  const faults = Array.from(lastOf).flatMap(([iss, end]): Verdict[] => {
    const days = Math.floor((end - seconds) / 86_400)
    return days < NOTICE_DAYS
      ? [warn(`The last key of ${iss} ends in ${days} days.`, 'Rotate it (docs/rotation.md).')]
      : []
  })
  return orElse(
    faults,
    `${good.length} keys of ${lastOf.size} issuers may sign; none ends within ${NOTICE_DAYS} days.`,
  )
}

/** Ahead or behind, against somebody's clock: milliseconds, and how exactly that is known. */
export function clockVerdicts(aheadMs: number, exactMs: number, whose: string): readonly Verdict[] {
  const seconds = (Math.abs(aheadMs) / 1000).toFixed(1)
  if (Math.abs(aheadMs) <= MAX_SKEW_MS + exactMs) return [ok(`Within ${MAX_SKEW_MS / 1000} s of ${whose}.`)]
  const message = `This clock is ${seconds} s ${aheadMs > 0 ? 'ahead of' : 'behind'} ${whose}.`
  return [fail(message, 'Set it by NTP.')]
}

const MAX_SKEW_MS = 5000

/**
 * The same by how old the newest record is, in milliseconds, where there is no other clock; undefined where there is none. A
 * record may be old; what is later than now is a clock that is wrong.
 */
export function recordVerdicts(ageMs: number | undefined): readonly Verdict[] {
  if (ageMs !== undefined && ageMs <= MAX_SKEW_MS) return clockVerdicts(ageMs, 0, 'the brokers')
  const none = 'There is no clock of AWS to compare with, and '
  if (ageMs === undefined)
    return [skip(`${none}no record of the brokers' time.`, 'Send an event, and look again within seconds.')]
  return [
    skip(
      `${none}the newest record is ${(ageMs / 1000).toFixed(0)} s old, or this clock as much ahead.`,
      'Send an event, and look again within seconds: where it is as old then, set this clock by NTP.',
    ),
  ]
}
