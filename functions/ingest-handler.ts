/** What Lambda calls for the MSK trigger: hands events over to a gate. Nothing is decided here. */
import middy from '@middy/core'
import type { PartialAnswer } from '../lib/adapters/msk-event.ts'
import type { Gate } from '../lib/runtime.ts'

/** Takes an `MSKEvent` or `SelfManagedKafkaEvent` (@types/aws-lambda); typed as unknown, since it is checked as if it were. */
export type IngestHandler = middy.MiddyfiedHandler<unknown, PartialAnswer | undefined>

/** Kept in hand before Lambda's own deadline: an answer that comes too late is none. Milliseconds. */
const MARGIN_MS = 500

/** A handler on a gate that is opened at the first invocation and kept for the next; one that fails to open is opened anew. */
export function ingestHandler(open: () => Promise<Gate>): IngestHandler {
  let opening: Promise<Gate> | undefined
  const gate = async (): Promise<Gate> => {
    opening ??= open()
    try {
      return await opening
    } catch (error) {
      opening = undefined
      throw error
    }
  }
  return middy<unknown, PartialAnswer | undefined>().handler(async (event, context) => {
    const deadline = Date.now() + context.getRemainingTimeInMillis() - MARGIN_MS
    return (await gate()).handle(event, deadline)
  })
}
