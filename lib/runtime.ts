/** Wires settings → adapters → core: what a function runs on. */
import { type Observer, observers } from './admission/observer.ts'
import { createIngest, type GateKeyCounts, type Ingest, type IngestParts } from './admission/slice.ts'
import { answer, type AnswerMode, type PartialAnswer, slicesOf } from './adapters/msk-event.ts'
import { tracingObserver } from './adapters/tracing.ts'
import type { Settings } from './settings.ts'

/** A gate that takes Lambda's Kafka events. */
export interface Gate {
  /**
   * Brings an event's records to their verdicts before `deadline` (milliseconds since 1970). In `throw` mode rejects
   * where a slice stopped; in `partial` mode resolves to what was left undecided.
   */
  handle(event: unknown, deadline: number): Promise<PartialAnswer | undefined>
  /** How data keys fare, for metrics; undefined while it is not connected. */
  keyCounts(): GateKeyCounts | undefined
  close(): Promise<void>
}

export function createGate(ingest: Ingest, mode: AnswerMode): Gate {
  return {
    handle: async (event, deadline) => {
      const slices = slicesOf(event)
      return answer(await ingest.ingest(slices, deadline), mode, slices)
    },
    keyCounts: () => ingest.keyCounts(),
    close: () => ingest.close(),
  }
}

/** The gate that settings describe; `observer` is told what it does. */
export async function openGate(settings: Settings, observer?: Observer): Promise<Gate> {
  const told = { observer: observers([tracingObserver, ...(observer === undefined ? [] : [observer])]) }
  if (settings.localFolder === undefined) {
    // Who runs on the embedded stack needs no vendor's code.
    const { openCluster } = await import('./adapters/cluster.ts')
    const { parts, close } = await openCluster(settings, SOFTWARE)
    return closing(createGate(createIngest({ ...parts, ...told }), settings.answerMode), close)
  }
  return openLocalGate(settings.localFolder, settings.answerMode, told)
}

/** A gate on the stack that another process owns: one that failed begins anew, since a lost connection does not come back. */
async function openLocalGate(
  folder: string,
  mode: AnswerMode,
  told: Pick<IngestParts, 'observer'>,
): Promise<Gate> {
  // Nor does who runs on a cluster need the embedded stack's code.
  const { connectStack } = await import('./local/stack.ts')
  const connected = async (): Promise<Gate> => {
    const stack = await connectStack(folder, SOFTWARE)
    return closing(createGate(createIngest({ ...stack.gateParts(), ...told }), mode), () => stack.close())
  }
  let gate: Gate | undefined = await connected()
  return {
    handle: async (event, deadline) => {
      const current = (gate ??= await connected())
      let isDone = false
      try {
        const given = await current.handle(event, deadline)
        isDone = given === undefined || given.batchItemFailures.length === 0
        return given
      } finally {
        if (!isDone && gate === current) {
          gate = undefined
          await current.close().catch(() => undefined)
        }
      }
    },
    keyCounts: () => gate?.keyCounts(),
    close: async () => gate?.close(),
  }
}

function closing(gate: Gate, end: () => Promise<void>): Gate {
  return {
    handle: (event, deadline) => gate.handle(event, deadline),
    keyCounts: () => gate.keyCounts(),
    close: async () => {
      await gate.close()
      await end()
    },
  }
}

/** This software's name and version, as the audit names it; the version is package.json's, which a test sees to. */
export const SOFTWARE = 'sealgate/0.1.0'
