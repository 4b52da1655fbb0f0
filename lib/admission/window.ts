/** A session's window of numbers as IPsec has it (RFC 4303 §3.4.3; sealed-event.md §6). */

/** The highest number, and a bit for it and each of the 63 below. */
export interface Window {
  readonly highest: bigint
  /** Bit n: the number `highest` − n has been seen, or would be negative. */
  readonly seen: bigint
  /** The latest `exp` of the records marked, seconds. */
  readonly exp: number
}

const WINDOW_BITS = 64n
/** Of a session all of whose numbers have come. */
export const ALL_SEEN: bigint = (1n << WINDOW_BITS) - 1n

/** Whether a number was marked, or is too old to tell. */
export function isSeen(window: Window, number: bigint): boolean {
  const below = window.highest - number
  if (below < 0n) return false
  return isTooOld(window, number) || ((window.seen >> below) & 1n) === 1n
}

/** Whether a number is so far below the highest that the window does not tell of it. */
export function isTooOld({ highest }: Window, number: bigint): boolean {
  return highest - number >= WINDOW_BITS
}

/** The window with a number marked that is not too old for it, and how many others left it unseen. */
export function marked(
  window: Window | undefined,
  number: bigint,
  exp: number,
): { readonly after: Window; readonly unseen: bigint } {
  if (window === undefined) return { after: { highest: number, seen: firstSeen(number), exp }, unseen: 0n }
  const { highest, seen } = window
  const ahead = number - highest
  const latest = Math.max(window.exp, exp)
  if (ahead <= 0n) return { after: { highest, seen: seen | (1n << -ahead), exp: latest }, unseen: 0n }
  if (ahead === 1n && seen === ALL_SEEN)
    return { after: { highest: number, seen: ALL_SEEN, exp: latest }, unseen: 0n }
  const moved = ahead >= WINDOW_BITS ? 1n : ((seen << ahead) | 1n) & ALL_SEEN
  return { after: { highest: number, seen: moved, exp: latest }, unseen: leftUnseen(seen, ahead) }
}

/** The map of a session whose first number here is this one: those below it are not seen, those below 0 never missing. */
function firstSeen(number: bigint): bigint {
  if (number >= WINDOW_BITS - 1n) return 1n
  return ((ALL_SEEN >> (number + 1n)) << (number + 1n)) | 1n
}

/** How many numbers leave a window unseen when it moves on by `ahead`. */
function leftUnseen(seen: bigint, ahead: bigint): bigint {
  const leaving = ahead < WINDOW_BITS ? ahead : WINDOW_BITS
  let unseen = ahead - leaving
  for (let bit = WINDOW_BITS - leaving; bit < WINDOW_BITS; bit++)
    if (((seen >> bit) & 1n) === 0n) unseen += 1n
  return unseen
}
