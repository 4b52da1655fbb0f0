/** What the machine gives where the caller gives nothing: applications call the library without wiring of their own. */
import { random } from '../envelope/crypto.ts'
import type { Clock } from '../ports.ts'

export const systemClock: Clock = { now: () => Date.now() }

/** From 0 up to 1, for jitter. */
export function randomFraction(): number {
  return random(4).readUInt32BE() / 2 ** 32
}
