import { MAX_TIMER_MS } from '../keys/deadline.ts'
import type { Clock } from '../ports.ts'

/** Ends a call of the AWS SDK at `deadline`, milliseconds since 1970; past it, before it is made. */
export function signalUntil(deadline: number, clock: Clock): AbortSignal {
  const left = deadline - clock.now()
  // A timer of 0 ms is late: a quick service has answered by then.
  return left <= 0 ? AbortSignal.abort() : AbortSignal.timeout(Math.min(left, MAX_TIMER_MS))
}
