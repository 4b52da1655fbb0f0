/** Wires settings → adapters → core: what a function runs on. */
import { createIngest, type Ingest } from './admission/slice.ts'
import { answer, type AnswerMode, type PartialAnswer, slicesOf } from './adapters/msk-event.ts'
import { ConfigError, type Fault } from './errors.ts'
import { connectStack } from './local/stack.ts'

/** What a function is told by its environment. */
export interface Settings {
  /** The folder of the embedded stack to run on, which another process owns (`sealgate local start`). */
  readonly localFolder: string
  readonly answerMode: AnswerMode
}

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

const PREFIX = 'SEALGATE_'
const NAMES = ['SEALGATE_LOCAL', 'SEALGATE_FAILURE_MODE']
const MODES: readonly AnswerMode[] = ['throw', 'partial']

/** The settings of an environment. Throws `ConfigError` with every fault: a name that is not known among them, since an option that is silently dropped protects nobody. */
export function readSettings(environment: Readonly<Record<string, string | undefined>>): Settings {
  const faults: Fault[] = []
  for (const name of Object.keys(environment)) {
    if (name.startsWith(PREFIX) && !NAMES.includes(name))
      faults.push({ where: name, what: 'No setting has this name.', fix: `Known are ${NAMES.join(', ')}.` })
  }
  const localFolder = environment['SEALGATE_LOCAL'] ?? ''
  if (localFolder === '')
    faults.push({
      where: 'SEALGATE_LOCAL',
      what: 'It is not set.',
      fix: 'Name the folder of an embedded stack (sealgate local start).',
    })
  const mode = environment['SEALGATE_FAILURE_MODE'] ?? 'throw'
  const answerMode = MODES.find((known) => known === mode)
  if (answerMode === undefined)
    faults.push({
      where: 'SEALGATE_FAILURE_MODE',
      what: `"${mode}" is no failure mode.`,
      fix: 'Set throw (the default) or partial, and the event source mapping alike.',
    })
  if (faults.length > 0 || answerMode === undefined) throw new ConfigError(faults)
  return { localFolder, answerMode }
}

/** The gate that settings describe. */
export async function openGate(settings: Settings): Promise<Gate> {
  const stack = await connectStack(settings.localFolder, SOFTWARE)
  const gate = createGate(createIngest(stack.gateParts()), settings.answerMode)
  return {
    handle: (event, deadline) => gate.handle(event, deadline),
    close: async () => {
      await gate.close()
      await stack.close()
    },
  }
}

/** This software's name and version, as the audit names it; the version is package.json's, which a test sees to. */
export const SOFTWARE = 'sealgate/0.1.0'
