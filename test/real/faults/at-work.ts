/** A handler that is fed while a fault goes on, and the judgement of what came of it. */
import { expect } from 'vitest'
import { type RealStack, withAdmin } from '../stack/stack.ts'
import type { Arena } from './arena.ts'
import type { Handler } from './handler.ts'

/** Between two events, so that faults fall between and within them. */
const PAUSE_MS = 50
/** Events to have ready for `workThrough`. */
export const AT_WORK = 400

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

/** Feeds a handler while `fault` goes on, and then a little more. Rejects where it cannot go on again. */
export async function workThrough(arena: Arena, handler: Handler, fault: () => Promise<void>): Promise<void> {
  const over = new AbortController()
  const ended = fault().finally(() => over.abort())
  ended.catch(() => undefined)
  let batches = 0
  for (let after = 0; after < 5 && batches < AT_WORK; batches++) {
    if (over.signal.aborted) after++
    await arena.deliver(handler, await arena.next(), 60, 5000)
    await sleep(PAUSE_MS)
  }
  await ended
}

export async function judgeClean(arena: Arena, what: string): Promise<void> {
  const { sent, auditEntries, ...found } = await arena.judge()
  expect(found).toEqual({ lost: [], twice: [], outOfOrder: [], auditBreaks: [], headsKnown: true })
  expect(auditEntries).toBe(sent)
  const again = `${arena.failures} events handed over again`
  process.stdout.write(`faults: ${what}; ${sent} records, ${again}, 0 lost, 0 twice\n`)
}

/** Ends the stack's one broker, and starts it again. Resolves once it answers. */
export async function restartBroker(
  stack: RealStack,
  signal: 'SIGKILL' | 'SIGTERM',
  downMs = 0,
): Promise<void> {
  const broker = stack.brokers.get(1)
  await broker?.stop(signal)
  await sleep(downMs)
  await broker?.start()
  const until = Date.now() + 60_000
  for (;;) {
    try {
      await withAdmin(stack.connection, (admin) => admin.describeCluster())
      return
    } catch (error) {
      if (Date.now() > until) throw error
      await sleep(200)
    }
  }
}
