/** Waiting no longer than there is time: the backstop behind ports that ought to keep their deadlines themselves. */
import type { Outage } from '../errors.ts'
import type { Clock } from '../ports.ts'

/** What setTimeout can hold: with more it rings at once. Longer waits are not bounded here. */
export const MAX_TIMER_MS: number = 2 ** 31 - 1

/** Settles as `work` does, or rejects with what `late` gives once `deadline` (ms since 1970) has passed. */
export async function byDeadline<T>(
  work: Promise<T>,
  deadline: number,
  clock: Clock,
  late: () => Outage,
): Promise<T> {
  const left = deadline - clock.now()
  if (left >= MAX_TIMER_MS) return work
  let timer: NodeJS.Timeout | undefined
  const ring = new Promise<never>((_, reject) => {
    // One more: a timer may ring a millisecond early by the clock, and whoever then looks finds time left.
    timer = setTimeout(() => reject(late()), Math.max(left, 0) + 1)
  })
  try {
    return await Promise.race([work, ring])
  } finally {
    clearTimeout(timer)
  }
}
