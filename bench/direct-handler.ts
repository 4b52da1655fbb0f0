/** The process of a handler that is called directly: an event's JSON comes as a message, and goes back as its time. */
import { invokeJson, type LambdaHandler } from '../lib/local/invocation.ts'

export type DirectAnswer = { readonly milliseconds: number } | { readonly error: string }

const MAX_TRIES = 5
const [bundle = ''] = process.argv.slice(2)
const { handler } = (await import(bundle)) as { readonly handler: LambdaHandler }

process.on('message', (event: string) => {
  void timed(event).then((answer) => process.send?.(answer))
})
// Who measures has ended.
process.on('disconnect', () => process.exit())

async function timed(event: string): Promise<DirectAnswer> {
  for (let tries = 1; ; tries++) {
    const start = performance.now()
    try {
      await invokeJson(handler, event, { timeoutMs: 60_000 })
      return { milliseconds: performance.now() - start }
    } catch (error) {
      if (tries === MAX_TRIES) return { error: error instanceof Error ? error.message : String(error) }
    }
  }
}
