/** What Lambda calls for the MSK trigger: hands events over to a gate. Nothing is decided here. */
import middy from '@middy/core'
import type { LambdaTelemetry } from '../lib/adapters/lambda-telemetry.ts'
import type { PartialAnswer } from '../lib/adapters/msk-event.ts'
import type { Gate } from '../lib/runtime.ts'

/** Takes an `MSKEvent` or `SelfManagedKafkaEvent` (@types/aws-lambda); typed as unknown, since it is checked as if it were. */
export type IngestHandler = middy.MiddyfiedHandler<unknown, PartialAnswer | undefined>

/** Kept in hand before Lambda's own deadline: an answer that comes too late is none. Milliseconds. */
const MARGIN_MS = 500

/**
 * A handler on a gate that is opened at the first invocation and kept for the next; one that fails to open is opened anew.
 * With telemetry each invocation tells what it did.
 */
export function ingestHandler(
  open: () => Promise<Gate>,
  telemetry?: Pick<LambdaTelemetry, 'gateInvocation'>,
): IngestHandler {
  let opening: Promise<Gate> | undefined
  let opened: Gate | undefined
  const gate = async (): Promise<Gate> => {
    opening ??= open()
    try {
      return (opened = await opening)
    } catch (error) {
      opening = undefined
      throw error
    }
  }
  return middy<unknown, PartialAnswer | undefined>().handler(async (event, context) => {
    const deadline = Date.now() + context.getRemainingTimeInMillis() - MARGIN_MS
    const work = async (): Promise<PartialAnswer | undefined> => (await gate()).handle(event, deadline)
    return telemetry === undefined
      ? work()
      : telemetry.gateInvocation(context, work, () => opened?.keyCounts())
  })
}
