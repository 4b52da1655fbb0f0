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
  const again = `${arena.failures.length} events handed over again`
  process.stdout.write(`faults: ${what}; ${sent} records, ${again}, 0 lost, 0 twice\n`)
}

/** Ends a broker, and starts it again. Resolves once every partition has all its replicas. */
export async function restartBroker(
  stack: RealStack,
  signal: 'SIGKILL' | 'SIGTERM',
  downMs = 0,
  id = 1,
): Promise<void> {
  const broker = stack.brokers.get(id)
  await broker?.stop(signal)
  await sleep(downMs)
  await broker?.start()
  await whole(stack)
}

/** Until every partition has a leader and all its replicas. */
export async function whole(stack: RealStack): Promise<void> {
  const until = Date.now() + 60_000
  for (;;) {
    try {
      const { topics } = await withAdmin(stack.connection, (admin) => admin.fetchTopicMetadata())
      const partitions = topics.flatMap((topic) => topic.partitions)
      if (partitions.every(({ leader, isr, replicas }) => leader > 0 && isr.length === replicas.length))
        return
      if (Date.now() > until) throw new Error('partitions lack replicas')
    } catch (error) {
      if (Date.now() > until) throw error
    }
    await sleep(200)
  }
}
