/** What `sealgate` has around it: streams, signals, environment, clock. Tests make their own. */
import { EXIT, type Io, processIo } from './io.ts'

export interface Terminal extends Io {
  readonly env: Readonly<Record<string, string | undefined>>
  /** Milliseconds since 1970. */
  now(): number
  /** Standard input's bytes. */
  input(): AsyncIterable<Uint8Array>
  /** Resolves once standard output has room again: to be awaited by what writes much. */
  drained(): Promise<void>
  /** Only where standard error is a terminal: replaces the text of the last call, which the next line removes. */
  readonly progress?: (text: string) => void
  /**
   * For commands that run until they are told to end: aborted by Ctrl-C, SIGTERM or SIGHUP, and when nobody reads
   * standard output any more. A second Ctrl-C ends the process at once.
   */
  stopSignal(): AbortSignal
}

/** `npx` hands a Ctrl-C on to a process that has had it from the terminal already: within this it is the same one. */
const SAME_KEY_MS = 500

/** The process's own. To be made once. */
export function processTerminal(): Terminal {
  const { env, stdin, stdout, stderr } = process
  const io = processIo(env)
  let stop: AbortController | undefined
  let shown = false
  let gone = false
  const clear = (): void => {
    if (shown) stderr.write('\r\u001b[K')
    shown = false
  }
  const abandon = (error: Error): void => {
    if (!('code' in error) || error.code !== 'EPIPE') throw error
    gone = true
    if (stop === undefined) process.exit(EXIT.ok)
    stop.abort()
  }
  stdout.on('error', abandon)
  stderr.on('error', abandon)
  return {
    ...io,
    env,
    write: (text) => {
      clear()
      if (!gone) io.write(text)
    },
    warn: (text) => {
      clear()
      if (!gone) io.warn(text)
    },
    now: () => Date.now(),
    input: () => stdin,
    drained: () =>
      gone || !stdout.writableNeedDrain
        ? Promise.resolve()
        : new Promise((resolve) => {
            const done = (): void => {
              for (const event of ['drain', 'close', 'error']) stdout.off(event, done)
              resolve()
            }
            for (const event of ['drain', 'close', 'error']) stdout.on(event, done)
          }),
    // One that is dumb would show the sequence that clears a line.
    ...(stderr.isTTY &&
      env['TERM'] !== 'dumb' && {
        progress: (text: string) => {
          stderr.write(`\r\u001b[K${text}`)
          shown = true
        },
      }),
    stopSignal: () => {
      stop ??= stopOnSignals()
      return stop.signal
    },
  }
}

function stopOnSignals(): AbortController {
  const stop = new AbortController()
  let first: number | undefined
  const onSignal = (signal: NodeJS.Signals): void => {
    if (first !== undefined && performance.now() - first > SAME_KEY_MS)
      process.exit(signal === 'SIGINT' ? 130 : 143)
    first ??= performance.now()
    stop.abort()
  }
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, onSignal)
  return stop
}
