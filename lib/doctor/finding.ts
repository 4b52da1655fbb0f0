/** What `sealgate doctor` says: one line for each thing it has looked at, or for each that is wrong there. */
import { ConfigError, describeFault, Outage } from '../errors.ts'
import { byDeadline } from '../keys/deadline.ts'
import type { Clock } from '../ports.ts'

/** `skip`: it cannot be known from here, which is never `ok`. */
export type Status = 'ok' | 'warn' | 'fail' | 'skip'

export interface Verdict {
  readonly status: Status
  /** What was seen. */
  readonly message: string
  /** What to do; empty where there is nothing. */
  readonly fix: string
  /** Only where something did not answer, or could not be asked: nothing is known of it. */
  readonly isOutage?: true
}

export interface Finding extends Verdict {
  /** The check's; a check that finds several faults has a line for each. */
  readonly name: string
}

export interface Check {
  readonly name: string
  /** Within `deadline`, milliseconds since 1970. */
  look(deadline: number): Promise<readonly Verdict[]>
}

export const ok = (message: string): Verdict => ({ status: 'ok', message, fix: '' })
export const warn = (message: string, fix: string): Verdict => ({ status: 'warn', message, fix })
export const fail = (message: string, fix: string): Verdict => ({ status: 'fail', message, fix })
export const skip = (message: string, fix: string): Verdict => ({ status: 'skip', message, fix })

/** What was found wrong; where that is nothing, the one line that all is well. */
export const orElse = (faults: readonly Verdict[], well: string): readonly Verdict[] =>
  faults.length > 0 ? faults : [ok(well)]

/** Of the time, so much is for saying what was not answered: milliseconds, and no more than a tenth. */
const SPARE_MS = 500

/**
 * All side by side, each as long as it may take; their findings in the order of the checks. Never rejects, whatever a check
 * ends with.
 */
export async function runChecks(
  checks: readonly Check[],
  clock: Clock,
  timeoutMs: number,
): Promise<readonly Finding[]> {
  const deadline = clock.now() + timeoutMs
  const late = (): Outage => new Outage('deadline', `It did not end within ${timeoutMs / 1000} s.`)
  const found = await Promise.all(
    checks.map(async (check) => {
      const { name } = check
      // Sooner than we are done: whatever has no answer then can still say so of itself.
      const until = deadline - Math.min(SPARE_MS, timeoutMs / 10)
      const looking = Promise.resolve().then(() => check.look(until))
      const verdicts = await byDeadline(looking, deadline, clock, late).catch(verdictsOf)
      return verdicts.map((verdict) => ({ name, ...verdict }))
    }),
  )
  return found.flat()
}

/** Of an error: an outage is a fault too, for whatever it keeps from being seen keeps the gate from working. */
export function verdictsOf(error: unknown): readonly Verdict[] {
  if (error instanceof ConfigError)
    return error.faults.map((fault) => fail(describeFault({ ...fault, fix: '' }), fault.fix))
  if (!(error instanceof Outage)) return [unexpected(error)]
  const fix = 'See docs/operations.md for the code.'
  const isRefusal = REFUSALS.some((code) => code === error.code)
  return [{ ...fail(`${error.message} (${error.code})`, fix), ...(!isRefusal && { isOutage: true }) }]
}

/** By its name alone: others' words may hold anything. */
function unexpected(error: unknown): Verdict {
  const name = error instanceof Error ? error.name : typeof error
  const verdict = fail(
    `It ended with ${name}, which nobody expected.`,
    'Report it: it is a fault of sealgate.',
  )
  return { ...verdict, isOutage: true }
}

/** Answered, and with a no. */
const REFUSALS = ['sink-denied', 'key-service-denied', 'position-missing', 'position-damaged'] as const
