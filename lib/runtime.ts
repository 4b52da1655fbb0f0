/** Wires settings → adapters → core: what a function runs on. */
import { createIngest, type Ingest } from './admission/slice.ts'
import { answer, type AnswerMode, type PartialAnswer, slicesOf } from './adapters/msk-event.ts'
import { connectStack } from './local/stack.ts'
import type { Settings } from './settings.ts'

/** A gate that takes Lambda's Kafka events. */
export interface Gate {
  /**
   * Brings an event's records to their verdicts before `deadline` (milliseconds since 1970). In `throw` mode rejects
   * where a slice stopped; in `partial` mode resolves to what was left undecided.
   */
  handle(event: unknown, deadline: number): Promise<PartialAnswer | undefined>
  close(): Promise<void>
}

export function createGate(ingest: Ingest, mode: AnswerMode): Gate {
  return {
    handle: async (event, deadline) => {
      const slices = slicesOf(event)
      return answer(await ingest.ingest(slices, deadline), mode, slices)
    },
    close: () => ingest.close(),
  }
}

/** The gate that settings describe. */
export async function openGate(settings: Settings): Promise<Gate> {
  if (settings.localFolder === undefined) {
    // Who runs on the embedded stack needs no vendor's code.
    const { openCluster } = await import('./adapters/cluster.ts')
    const { parts, close } = await openCluster(settings, SOFTWARE)
    return closing(createGate(createIngest(parts), settings.answerMode), close)
  }
  const stack = await connectStack(settings.localFolder, SOFTWARE)
  return closing(createGate(createIngest(stack.gateParts()), settings.answerMode), () => stack.close())
}

function closing(gate: Gate, end: () => Promise<void>): Gate {
  return {
    handle: (event, deadline) => gate.handle(event, deadline),
    close: async () => {
      await gate.close()
      await end()
    },
  }
}

/** This software's name and version, as the audit names it; the version is package.json's, which a test sees to. */
export const SOFTWARE = 'sealgate/0.1.0'
