/**
 * W3C Trace Context as it stands in a record's headers. No signature covers it: whoever can write to a topic can write it.
 * It says which trace a record belongs to, and nothing is decided by it.
 */
import type { Header } from './ports.ts'

export interface TraceContext {
  /** Version, trace-id, parent-id, flags: 55 characters. */
  readonly traceparent: string
  /** The vendors' own, at most 512 characters; undefined where there is none. */
  readonly tracestate: string | undefined
}

/** W3C Trace Context §3.2: version, trace-id, parent-id, flags; neither id all zeros, no version ff. */
const TRACEPARENT = /^(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}$/
const TRACEPARENT_LENGTH = 55
/** §3.3: printable ASCII and tabs. Whoever sends it on, in a header of HTTP too, sends nothing else. */
const TRACESTATE = /^[\t\x20-\x7e]{1,512}$/
const MAX_TRACESTATE_BYTES = 512

export const isTraceparent = (text: string): boolean =>
  text.length === TRACEPARENT_LENGTH && TRACEPARENT.test(text)

/** That of a record; undefined where it has none of valid form. The first header of each name counts. */
export function traceContextOf(headers: readonly Header[]): TraceContext | undefined {
  const parent = headers.find(({ name }) => name === 'traceparent')?.value
  if (parent?.length !== TRACEPARENT_LENGTH) return undefined
  const traceparent = Buffer.from(parent).toString('latin1')
  if (!isTraceparent(traceparent)) return undefined
  const state = headers.find(({ name }) => name === 'tracestate')?.value
  const isShort = state !== undefined && state !== null && state.length <= MAX_TRACESTATE_BYTES
  const tracestate = isShort ? Buffer.from(state).toString('latin1') : ''
  return { traceparent, tracestate: TRACESTATE.test(tracestate) ? tracestate : undefined }
}
