/** What is due when: a row for each rotation, as `sealgate rotate status` and the function tell it. */
import { ConfigError, Outage } from '../errors.ts'
import { planRotation, type RotationPhase, type RotationPolicy, type RotationState } from './rotation.ts'
import { readRotation, type RotationView } from './rotation-state.ts'

/** Times are RFC 3339, null where nobody knows or none is. */
export interface RotationRow {
  readonly name: string
  readonly kind: string
  /** `unknown`: it cannot be looked at, for `reason`. */
  readonly state: RotationPhase | 'unknown'
  readonly rotatedAt: string | null
  readonly dueAt: string | null
  readonly overdue: boolean
  /** When a rotation that is under way goes on. */
  readonly waitsUntil?: string
  /** How often a KMS key may still be rotated on demand. */
  readonly onDemandLeft?: number
  /** Until when a certificate counts. */
  readonly endsAt?: string
  readonly reason?: string
}

/** One that cannot be looked at does not hide the others: it is overdue until it can. */
export async function rotationRow(
  policy: RotationPolicy,
  view: RotationView,
  deadline: number,
): Promise<RotationRow> {
  const { name, kind } = policy.rotation
  try {
    const state = await readRotation(policy.rotation, view, deadline)
    const now = Math.floor(view.clock.now() / 1000)
    const { phase, rotatedAt, dueAt, steps } = planRotation(state, policy, now)
    const wait = steps.find((step) => step.do === 'wait')
    return {
      ...{ name, kind, state: phase, rotatedAt: timeText(rotatedAt), dueAt: timeText(dueAt) },
      overdue: dueAt !== null && now > dueAt,
      ...(wait !== undefined && { waitsUntil: timeText(wait.until) ?? '' }),
      ...(state.kind === 'kms-key' && { onDemandLeft: state.onDemandLeft }),
      ...endOf(state),
    }
  } catch (error) {
    if (!(error instanceof Outage || error instanceof ConfigError)) throw error
    const reason = error.message.replaceAll('\n', ' ')
    return { name, kind, state: 'unknown', rotatedAt: null, dueAt: null, overdue: true, reason }
  }
}

function endOf(state: RotationState): Pick<RotationRow, 'endsAt'> {
  if (state.kind === 'client-certificate') return { endsAt: timeText(state.current.until) ?? '' }
  return 'endsAt' in state ? { endsAt: timeText(state.endsAt) ?? '' } : {}
}

const timeText = (seconds: number | null): string | null =>
  seconds === null ? null : new Date(seconds * 1000).toISOString().replace('.000Z', 'Z')
