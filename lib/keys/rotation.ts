/**
 * What is to be done so that no key grows too old and none is missing meanwhile (keys.md §3, docs/rotation.md). Pure:
 * the world's state and the time in, steps out. All that is remembered stands in the world (stages of secrets, rows of
 * the key directory), so whoever plans next goes on where another died. Times are seconds since 1970.
 */
import { planClientCertificate } from './client-certificate.ts'
import type { SigningKeyEntry } from './directory-document.ts'

/** What the waits follow from, seconds. Each must be at least what those who run elsewhere are set to. */
export interface RotationWaits {
  /** How old a copy of the key directory a gate or consumer judges by may be: `graceMs` of `createDirectory`. */
  readonly directoryGrace: number
  /** How long who signs or logs in may go on with a secret that he has read, while the store does not answer. */
  readonly secretHold: number
  /** How long a sealed event may be on its way to the broker: the longest life of an event. */
  readonly eventLife: number
  /** How far clocks differ, and how late a write may land that we gave up. */
  readonly margin: number
  /** The longest time that somebody keeps events and may verify them. */
  readonly retention: number
}

/** Between a row's publication and the first signature: until then no copy that counts is without it. */
export const activationOf = ({ directoryGrace, margin }: RotationWaits): number => directoryGrace + margin

/** Between a secret's change and the last record by the key before: every signer has read, every event has arrived. */
export const overlapOf = ({ secretHold, eventLife, margin }: RotationWaits): number =>
  secretHold + eventLife + margin

/** Between a change of the pointer and the last log-in as the user before. */
export const releaseOf = ({ secretHold, margin }: RotationWaits): number => secretHold + margin

interface Named {
  /** What `sealgate rotate NAME` calls it. */
  readonly name: string
}

interface Periodic extends Named {
  /** How old it may grow, seconds. */
  readonly period: number
}

/** A signing key in a secret, as a private JWK: a gateway's, or a producer's. */
export interface SigningKeyRotation extends Periodic {
  readonly kind: 'signing-key'
  readonly iss: string
  readonly secret: string
}

/** Two Kafka users of one principal, and the secret that its clients read, which holds the one in use. */
export interface ScramRotation extends Periodic {
  readonly kind: 'scram'
  readonly pointer: string
  /** Secrets of the two users: each `{"username","password"}`. */
  readonly users: readonly [string, string]
  /** The ARN of an MSK cluster, which reads the users' secrets itself; else the brokers are told. */
  readonly msk?: string
  /** Of the listener at which the users log in; undefined: those of the settings. */
  readonly brokers?: readonly string[]
}

/** A TLS client's certificate in a secret, with its key. */
export interface ClientCertificateRotation extends Named {
  readonly kind: 'client-certificate'
  readonly secret: string
  /** As Kafka writes a principal: `CN=gate,O=Example`. */
  readonly subject: string
  /** The authority's certificate, a file of PEM; and where its key is: `file:PATH`, or the ARN of a secret or KMS key. */
  readonly authority: string
  readonly authorityKey: string
  /** Those that must take it; undefined: those of the settings. */
  readonly brokers: readonly string[] | undefined
  /** How long one counts, seconds; and how long before its end it is renewed. */
  readonly duration: number
  readonly renewBefore: number
}

/** A symmetric KMS key that rotates its own material. */
export interface KmsKeyRotation extends Periodic {
  readonly kind: 'kms-key'
  readonly key: string
}

/** The key directory itself, which ends unless it is published again. */
export interface DirectoryRenewal extends Named {
  readonly kind: 'directory'
}

/** What no program rotates: its age or end is watched. */
export interface Watched extends Named {
  readonly kind: 'pseudonym-keys' | 'certificate' | 'directory-root'
  /** Holds the certificate, with its key, where that is in no file. */
  readonly secret?: string
}

export type Rotation =
  SigningKeyRotation | ScramRotation | ClientCertificateRotation | KmsKeyRotation | DirectoryRenewal | Watched

export interface HeldKey {
  readonly version: string
  /** base64url, as in the key directory. */
  readonly kid: string
}

/** A version of a user's secret. */
export interface HeldPassword {
  readonly version: string
  readonly createdAt: number
}

export interface ScramUser {
  readonly secret: string
  readonly username: string
  readonly current: HeldPassword
  readonly pending: HeldPassword | undefined
}

export interface SigningKeyState {
  readonly kind: 'signing-key'
  readonly current: HeldKey
  readonly pending: HeldKey | undefined
  readonly previous: HeldKey | undefined
  /** The rows of its issuer. */
  readonly rows: readonly SigningKeyEntry[]
}

export interface ScramState {
  readonly kind: 'scram'
  /** `createdAt`: since when clients are told to be this user. */
  readonly pointer: HeldPassword & { readonly username: string }
  readonly users: readonly [ScramUser, ScramUser]
}

/** A version of a certificate's secret. */
export interface HeldCertificate {
  readonly version: string
  readonly from: number
  readonly until: number
  /** Whether it is from the authority that the rotation names now. */
  readonly isOurs: boolean
}

export interface ClientCertificateState {
  readonly kind: 'client-certificate'
  readonly current: HeldCertificate
  readonly pending: HeldCertificate | undefined
}

export interface KmsKeyState {
  readonly kind: 'kms-key'
  /** Days; undefined where it is not rotated. */
  readonly periodDays: number | undefined
  readonly rotatedAt: number | null
  readonly dueAt: number | null
  /** How often it may still be rotated on demand. */
  readonly onDemandLeft: number
}

export interface DirectoryState {
  readonly kind: 'directory'
  readonly version: number
  readonly issuedAt: number
  readonly expiresAt: number
}

export interface WatchedState {
  readonly kind: Watched['kind']
  readonly rotatedAt: number | null
  readonly dueAt: number | null
  /** Of a certificate. */
  readonly endsAt?: number
}

/** What a rotation is about, as the world shows it. */
export type RotationState =
  SigningKeyState | ScramState | ClientCertificateState | KmsKeyState | DirectoryState | WatchedState

/** One thing to do, which may be done twice. Which secret, key or user it is about stands in the rotation. */
export type RotationStep =
  /** `after`: the versions that are there, from which the new one's id follows. */
  | { readonly do: 'stage-key' | 'stage-certificate'; readonly after: string }
  | { readonly do: 'enrol-key'; readonly version: string; readonly kid: string; readonly life: number }
  | { readonly do: 'promote'; readonly secret: string; readonly version: string; readonly from: string }
  /** `at`: its last second. */
  | { readonly do: 'retire-key'; readonly kid: string; readonly at: number }
  | { readonly do: 'destroy-key'; readonly kid: string }
  | {
      readonly do: 'stage-password'
      readonly secret: string
      readonly username: string
      readonly after: string
    }
  /** Tells the brokers a user's new password. */
  | { readonly do: 'set-password'; readonly secret: string; readonly version: string }
  /** Has an MSK cluster take its users from these secrets. */
  | { readonly do: 'associate'; readonly secrets: readonly string[] }
  /** Logs in to the brokers, which must work before anybody is sent there. */
  | { readonly do: 'log-in'; readonly secret: string; readonly version: string }
  | { readonly do: 'move-pointer'; readonly secret: string; readonly version: string; readonly from: string }
  | { readonly do: 'enable-rotation'; readonly days: number }
  | { readonly do: 'rotate-on-demand' }
  | { readonly do: 'renew-directory'; readonly version: number }
  /** Nothing more until then: `why` is for people. */
  | { readonly do: 'wait'; readonly until: number; readonly why: string }

/** How far it has come: `blocked` goes on only when it is asked for by name. */
export type RotationPhase = 'current' | 'due' | 'under-way' | 'blocked'

export interface RotationPlan {
  readonly phase: RotationPhase
  readonly rotatedAt: number | null
  readonly dueAt: number | null
  /** What to do now, in order; at most the last is a wait. What follows is planned from what the world then shows. */
  readonly steps: readonly RotationStep[]
}

export interface RotationPolicy {
  readonly rotation: Rotation
  readonly waits: RotationWaits
  /** Whether it is to be rotated though it is not due, or blocked. */
  readonly now?: boolean
}

/** The steps of a rotation. Throws `TypeError` where state and rotation are of two kinds. */
export function planRotation(state: RotationState, policy: RotationPolicy, now: number): RotationPlan {
  const { rotation } = policy
  switch (state.kind) {
    case 'signing-key':
      if (rotation.kind === state.kind) return planSigningKey(state, rotation, policy, now)
      break
    case 'scram':
      if (rotation.kind === state.kind) return planScram(state, rotation, policy, now)
      break
    case 'client-certificate':
      if (rotation.kind === state.kind) return planClientCertificate(state, rotation, policy, now)
      break
    case 'kms-key':
      if (rotation.kind === state.kind) return planKmsKey(state, rotation, policy)
      break
    case 'directory':
      return planDirectory(state, policy, now)
    case 'pseudonym-keys':
    case 'certificate':
    case 'directory-root':
      return planWatched(state, now)
  }
  throw new TypeError(`a ${state.kind} is no ${rotation.kind}`)
}

/** New pair, pending → row, active → every copy shows it → current → the old one ends when nobody signs with it. */
function planSigningKey(
  { current, pending, previous, rows }: SigningKeyState,
  { secret, period }: SigningKeyRotation,
  { waits, now: isAsked = false }: RotationPolicy,
  now: number,
): RotationPlan {
  const rowOf = (key: HeldKey | undefined): SigningKeyEntry | undefined =>
    rows.find(({ kid }) => kid === key?.kid)
  const row = rowOf(current)
  const steps: RotationStep[] = []
  const old = rowOf(previous)
  // Only once another signs: whoever moved the stages by hand must not lose his last key.
  if (row?.state === 'active' && old?.state === 'active' && ![row.kid, pending?.kid].includes(old.kid))
    if (old.notAfter >= now) steps.push({ do: 'retire-key', kid: old.kid, at: now + overlapOf(waits) })
  const early = row === undefined ? now : row.notAfter - 2 * (activationOf(waits) + overlapOf(waits))
  const dueAt = row === undefined ? null : Math.min(row.notBefore + period, early)
  const rotatedAt = row?.notBefore ?? null
  const ended = tidy(rows, new Set([current.kid, pending?.kid]), waits, now)
  const plan = (phase: RotationPhase, step?: RotationStep): RotationPlan => {
    const more = step === undefined ? [] : [step]
    // What is urgent comes before tidying, and a wait last.
    return {
      phase,
      rotatedAt,
      dueAt,
      steps: [...steps, ...(step?.do === 'wait' ? [...ended, step] : [...more, ...ended])],
    }
  }
  // Who suspended or revoked the key, or took it out, does not want the issuer to have another by itself.
  const isBlocked = row?.state !== 'active' && !isAsked
  const next = rowOf(pending)
  if (pending !== undefined && canBecomeCurrent(next, waits, now)) {
    const readyAt = (next?.notBefore ?? 0) + activationOf(waits)
    if (next?.state !== 'active') {
      const life = 2 * period
      return isBlocked
        ? plan('blocked')
        : plan('under-way', { do: 'enrol-key', version: pending.version, kid: pending.kid, life })
    }
    return now < readyAt
      ? plan('under-way', { do: 'wait', until: readyAt, why: 'until every gate knows the new key' })
      : plan('under-way', { do: 'promote', secret, version: pending.version, from: current.version })
  }
  if (isBlocked) return plan('blocked')
  if (!isAsked && dueAt !== null && now < dueAt) return plan('current')
  return plan('due', { do: 'stage-key', after: [current.version, pending?.version].join() })
}

/** One that was made but never used may have been refused since, or be almost over. */
function canBecomeCurrent(row: SigningKeyEntry | undefined, waits: RotationWaits, now: number): boolean {
  if (row === undefined || row.state === 'pre-activation') return true
  return row.state === 'active' && row.notAfter > now + activationOf(waits) + overlapOf(waits)
}

/** Rows that have ended: deactivated, and taken out when nobody keeps what they signed. */
function tidy(
  rows: readonly SigningKeyEntry[],
  inUse: ReadonlySet<string | undefined>,
  { retention, margin }: RotationWaits,
  now: number,
): RotationStep[] {
  return rows.flatMap(({ kid, state, notAfter }): RotationStep[] => {
    if (inUse.has(kid)) return []
    if (state === 'active' && notAfter < now) return [{ do: 'retire-key', kid, at: notAfter }]
    const isForgotten = state === 'deactivated' && notAfter + retention + margin < now
    return isForgotten ? [{ do: 'destroy-key', kid }] : []
  })
}

/**
 * The idle user gets a new password and is logged in; then clients are told to be him. Nobody is told before it works,
 * and the other stays as he is until the next turn.
 */
function planScram(
  { pointer, users }: ScramState,
  { msk, period }: ScramRotation,
  { waits, now: isAsked = false }: RotationPolicy,
  now: number,
): RotationPlan {
  const [first, second] = users
  const idle = first.username === pointer.username ? second : first
  const { secret, username, current, pending } = idle
  const dueAt = pointer.createdAt + period
  const plan = (phase: RotationPhase, ...steps: RotationStep[]): RotationPlan => {
    return { phase, rotatedAt: pointer.createdAt, dueAt, steps }
  }
  const isSet = pending === undefined && current.createdAt > pointer.createdAt
  if (!isSet && pending === undefined && !isAsked && now < dueAt) return plan('current')
  const freeAt = pointer.createdAt + releaseOf(waits)
  // Until then somebody may still log in as the idle user, with the password that he has.
  if (now < freeAt)
    return plan('under-way', { do: 'wait', until: freeAt, why: `until nobody is ${username} any more` })
  if (isSet) {
    const { version } = current
    const associate = { do: 'associate', secrets: users.map((user) => user.secret) } as const
    return plan(
      'under-way',
      ...(msk === undefined ? [] : [associate]),
      { do: 'log-in', secret, version },
      { do: 'move-pointer', secret, version, from: pointer.version },
    )
  }
  // Not before that wait: whether it is set is told by its being made later than the pointer was moved.
  if (pending === undefined)
    return plan('due', { do: 'stage-password', secret, username, after: current.version })
  const { version } = pending
  const promote = { do: 'promote', secret, version, from: current.version } as const
  if (msk !== undefined) return plan('under-way', promote)
  return plan(
    'under-way',
    { do: 'set-password', secret, version },
    { do: 'log-in', secret, version },
    promote,
  )
}

const DAY = 86_400

function planKmsKey(
  { periodDays, rotatedAt, dueAt, onDemandLeft }: KmsKeyState,
  { period }: KmsKeyRotation,
  { now: isAsked = false }: RotationPolicy,
): RotationPlan {
  const days = Math.round(period / DAY)
  const steps: RotationStep[] = periodDays === days ? [] : [{ do: 'enable-rotation', days }]
  if (isAsked && onDemandLeft > 0) steps.push({ do: 'rotate-on-demand' })
  const phase = isAsked && onDemandLeft === 0 ? 'blocked' : steps.length > 0 ? 'due' : 'current'
  return { phase, rotatedAt, dueAt, steps }
}

/** Halfway through its life, so that whoever has to sign it has the other half to be repaired. */
function planDirectory(
  { version, issuedAt, expiresAt }: DirectoryState,
  { now: isAsked = false }: RotationPolicy,
  now: number,
): RotationPlan {
  const dueAt = issuedAt + Math.floor((expiresAt - issuedAt) / 2)
  const isDue = isAsked || now >= dueAt
  const steps: RotationStep[] = isDue ? [{ do: 'renew-directory', version }] : []
  return { phase: isDue ? 'due' : 'current', rotatedAt: issuedAt, dueAt, steps }
}

function planWatched({ rotatedAt, dueAt }: WatchedState, now: number): RotationPlan {
  return { phase: dueAt !== null && now >= dueAt ? 'due' : 'current', rotatedAt, dueAt, steps: [] }
}
