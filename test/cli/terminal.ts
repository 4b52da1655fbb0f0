/** A terminal of a test: what a command wrote, and how it ended. */
import { Readable } from 'node:stream'
import { run } from '../../cli/program.ts'
import type { Terminal } from '../../cli/terminal.ts'

export interface Ran {
  readonly out: string
  readonly err: string
  readonly status: number | undefined
}

export interface Around {
  readonly input?: string | Uint8Array | AsyncIterable<Uint8Array>
  readonly env?: Readonly<Record<string, string>>
  readonly stop?: AbortSignal
  readonly nowMs?: number
  /** Told of each line of standard output as it comes. */
  readonly onLine?: (line: string) => void
}

/** Runs `sealgate` in this process. */
export async function sealgate(args: readonly string[], around: Around = {}): Promise<Ran> {
  const out: string[] = []
  const err: string[] = []
  let status: number | undefined
  const terminal: Terminal = {
    write: (text) => {
      out.push(text)
      around.onLine?.(text)
    },
    warn: (text) => void err.push(text),
    colours: { out: false, err: false },
    exit: (code) => void (status = code),
    env: around.env ?? {},
    now: () => around.nowMs ?? Date.now(),
    input: () => inputOf(around.input),
    drained: () => Promise.resolve(),
    stopSignal: () => around.stop ?? AbortSignal.timeout(20_000),
  }
  await run(args, terminal)
  return { out: out.join('\n'), err: err.join('\n'), status }
}

/** As it is where it comes bit by bit: a stream would read ahead. */
function inputOf(input: Around['input']): AsyncIterable<Uint8Array> {
  if (typeof input === 'object' && Symbol.asyncIterator in input) return input
  return Readable.from(input === undefined ? [] : [Buffer.from(input)])
}
