/**
 * What may be told of an error: its kind, its code, and where in the code it came from. Of our own errors their words too,
 * which name what to do and are tested to hold no secret; of others' errors never, since they may quote anything.
 */
import type { Outage } from '../errors.ts'

export interface Cause {
  readonly name: string
  /** A system's or a vendor's short code, such as `ECONNREFUSED`. */
  readonly code?: string
  /** Code locations, the innermost first. */
  readonly at: readonly string[]
}

const MAX_REASON = 500
const MAX_CAUSES = 4
const MAX_FRAMES = 8

export const reasonOf = (outage: Outage): string => outage.message.slice(0, MAX_REASON)

/** The causes of an error, the nearest first. */
export function causesOf(error: Error): Cause[] {
  const causes: Cause[] = []
  for (let { cause } = error; cause instanceof Error && causes.length < MAX_CAUSES; { cause } = cause)
    causes.push(told(cause))
  return causes
}

const NAME = /^[A-Za-z][A-Za-z0-9_]{0,63}$/
const CODE = /^[A-Za-z][A-Za-z0-9_.-]{0,63}$/
/** A frame of V8 with a file's or Node's own location. Nothing else of a stack is told: its head quotes the message. */
const FRAME = /^ {4}at (?:[\w$.<>[\] ]{1,120} \()?((?:file:\/\/|node:|\/)[\w@+./-]{1,300}:\d+:\d+)\)?$/

function told(error: Error): Cause {
  const name = NAME.test(error.name) ? error.name : 'Error'
  const code =
    'code' in error && typeof error.code === 'string' && CODE.test(error.code) ? error.code : undefined
  return { name, ...(code !== undefined && { code }), at: framesOf(error) }
}

/** None where the stack does not begin with the error's own words: then nobody knows where they end. */
function framesOf({ name, message, stack }: Error): string[] {
  const head = message === '' ? name : `${name}: ${message}`
  if (stack?.startsWith(`${head}\n`) !== true) return []
  const lines = stack.slice(head.length + 1).split('\n', 2 * MAX_FRAMES)
  return lines.flatMap((line) => FRAME.exec(line)?.[1] ?? []).slice(0, MAX_FRAMES)
}
