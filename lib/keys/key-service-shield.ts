/**
 * Stands before a key service (keys.md §2, threats.md 32): every call ends in time, is tried again a bounded number of
 * times, is not made while the service is down, and keeps under the account's request quota.
 */
import { wipe } from '../envelope/crypto.ts'
import { Outage } from '../errors.ts'
import type { Clock, Kek, KeyService } from '../ports.ts'
import { byDeadline } from './deadline.ts'

export interface ShieldOptions {
  readonly clock: Clock
  /** From 0 up to 1: the jitter between attempts. */
  readonly random: () => number
  readonly sleep?: (ms: number) => Promise<void>
  /** How long one attempt may take. */
  readonly attemptMs?: number
  readonly maxAttempts?: number
  /** The longest wait before the second attempt; doubled for each one after. */
  readonly backoffMs?: number
  /** Attempts in a row without an answer after which the breaker opens. */
  readonly breakerFailures?: number
  /** How long it stays open before one call may try. */
  readonly breakerMs?: number
  /** Calls a second in the long run; as many may come at once after a pause. */
  readonly callsPerSecond?: number
}

/** One per KEK: one producer's broken key must not cut off all the others (threats.md 36). */
interface Breaker {
  failures: number
  openUntil: number
  probing: boolean
}

const unavailable = (reason: string, cause?: unknown): Outage =>
  new Outage('key-service-unavailable', reason, cause === undefined ? undefined : { cause })

const lateOutage = (cause?: unknown): Outage =>
  new Outage(
    'deadline',
    'no time left for a call of the key service',
    cause === undefined ? undefined : { cause },
  )

export function shieldKeyService(keyService: KeyService, options: ShieldOptions): KeyService {
  const { clock, random, attemptMs = 2000, maxAttempts = 3, backoffMs = 50 } = options
  const { breakerFailures = 5, breakerMs = 5000, callsPerSecond = 500 } = options
  const { sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms)) } = options
  const breakers = new Map<string, Breaker>()
  let tokens = callsPerSecond
  let filledAt = clock.now()

  /** Takes a token; waits for it where that can end in time. */
  const takeToken = async (deadline: number): Promise<void> => {
    const now = clock.now()
    tokens = Math.min(callsPerSecond, tokens + (Math.max(0, now - filledAt) * callsPerSecond) / 1000)
    filledAt = now
    const waitMs = tokens >= 1 ? 0 : ((1 - tokens) * 1000) / callsPerSecond
    if (now + waitMs >= deadline) {
      throw waitMs === 0 ? lateOutage() : unavailable('our own limit of calls a second leaves no time')
    }
    tokens -= 1
    if (waitMs > 0) await sleep(waitMs)
  }

  const breakerOf = (kek: Kek): Breaker => {
    const known = breakers.get(kek.key)
    if (known !== undefined) return known
    const breaker = { failures: 0, openUntil: 0, probing: false }
    breakers.set(kek.key, breaker)
    return breaker
  }

  /** Whether this call is the one that tries for all the others. Throws while no call is to be made. */
  const passBreaker = (breaker: Breaker): boolean => {
    if (breaker.failures < breakerFailures) return false
    if (breaker.probing || clock.now() < breaker.openUntil)
      throw unavailable('the key service has failed repeatedly: no call is made for now')
    breaker.probing = true
    return true
  }

  const attempt = async <T>(
    breaker: Breaker,
    call: (deadline: number) => Promise<T>,
    discard: (result: T) => void,
    deadline: number,
  ): Promise<T> => {
    const probe = passBreaker(breaker)
    const attemptDeadline = Math.min(deadline, clock.now() + attemptMs)
    try {
      const work = call(attemptDeadline)
      const result = await byDeadline(work, attemptDeadline, clock, () => {
        // What comes after all holds a key that nobody waits for.
        work.then(discard, () => undefined)
        return unavailable('the key service does not answer')
      })
      breaker.failures = 0
      return result
    } catch (error) {
      // A caller that came with too little time says nothing about the service.
      if (isRetryable(error) && clock.now() >= deadline) throw lateOutage(error)
      breaker.failures = isRetryable(error) ? breaker.failures + 1 : 0
      breaker.openUntil = clock.now() + breakerMs
      throw error
    } finally {
      if (probe) breaker.probing = false
    }
  }

  const shielded = async <T>(
    kek: Kek,
    call: (deadline: number) => Promise<T>,
    discard: (result: T) => void,
    deadline: number,
  ): Promise<T> => {
    const breaker = breakerOf(kek)
    for (let made = 1; ; made++) {
      await takeToken(deadline)
      try {
        return await attempt(breaker, call, discard, deadline)
      } catch (error) {
        if (!isRetryable(error)) throw error
        const waitMs = random() * backoffMs * 2 ** (made - 1)
        if (made >= maxAttempts || breaker.failures >= breakerFailures) throw error
        if (clock.now() + waitMs >= deadline) throw error
        await sleep(waitMs)
      }
    }
  }

  return {
    generate: (kek, context, deadline) =>
      shielded(
        kek,
        (attemptDeadline) => keyService.generate(kek, context, attemptDeadline),
        (made) => wipe(made.dataKey),
        deadline,
      ),
    unwrap: (kek, wrapped, context, deadline) =>
      shielded(
        kek,
        (attemptDeadline) => keyService.unwrap(kek, wrapped, context, attemptDeadline),
        wipe,
        deadline,
      ),
  }
}

/** No answer, or a busy one: the same question may be answered the next time. A refusal is an answer. */
function isRetryable(error: unknown): boolean {
  return error instanceof Outage && error.code === 'key-service-unavailable'
}
