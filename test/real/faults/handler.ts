/** The parent's side of a handler process. Every wait has a bound, and how the process ended is never lost. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import type { HandlerSettings, Order } from './handler-process.ts'
import type { Told, Trap } from './trap.ts'

/** What became of an event. */
export type Outcome =
  | {
      readonly is: 'done' | 'failed'
      readonly passed: Readonly<Record<string, number>>
      readonly message?: string
    }
  | { readonly is: 'killed' }

/** Beyond an event's deadline: by then a handler must have answered, also one that was frozen for some seconds of it. */
const GRACE_MS = 20_000
const READY_MS = 20_000

export class Handler {
  readonly #process: ChildProcess
  readonly #ended: Promise<number | NodeJS.Signals>
  readonly #told: Told[] = []
  readonly #waiting = new Set<() => void>()
  /** Where its trap has caught it. */
  caughtAt: string | undefined

  constructor(settings: HandlerSettings) {
    const child = spawn(process.execPath, [join(import.meta.dirname, 'handler-process.ts')], {
      stdio: ['ignore', 'pipe', 'inherit', 'ipc'],
    })
    this.#process = child
    this.#ended = once(child, 'close').then((end: unknown[]) => {
      const [code, signal] = end
      return typeof code === 'number' ? code : signal === 'SIGKILL' ? 'SIGKILL' : 'SIGTERM'
    })
    createInterface({ input: child.stdout ?? process.stdin }).on('line', (line) => {
      const told: Told = JSON.parse(line)
      if (told.is === 'at') this.caughtAt = told.point
      this.#told.push(told)
      this.#wake()
    })
    void this.#ended.then(() => this.#wake())
    this.#order({ do: 'open', settings })
  }

  arm(trap: Trap): void {
    this.#order({ do: 'arm', trap })
  }

  /** Until it has its keys; no broker is asked yet. */
  async ready(): Promise<void> {
    if ((await this.#next((told) => told.is === 'ready', READY_MS)) === 'killed')
      throw new Error('the handler died')
  }

  /** Gives it an event and waits until it has answered or was killed. Rejects where it hangs or ends by itself. */
  async handle(event: unknown, forMs = 20_000): Promise<Outcome> {
    this.#order({ do: 'handle', event, deadline: Date.now() + forMs })
    const told = await this.#next(({ is }) => is === 'done' || is === 'failed', forMs + GRACE_MS)
    if (told === 'killed') return { is: 'killed' }
    if (told.is === 'done' || told.is === 'failed') return told
    throw new Error(`it said ${told.is}`)
  }

  /** Until its trap has caught it. */
  async caught(withinMs: number): Promise<void> {
    if (this.caughtAt !== undefined) return
    await this.#next(({ is }) => is === 'at', withinMs)
  }

  /** Of memory; 0 where it has ended, or the system does not tell. */
  get residentBytes(): number {
    try {
      const status = readFileSync(`/proc/${this.#process.pid ?? 0}/status`, 'utf8')
      return Number(/^VmRSS:\s+(\d+) kB$/m.exec(status)?.[1] ?? 0) * 1024
    } catch {
      return 0
    }
  }

  signal(name: 'SIGKILL' | 'SIGSTOP' | 'SIGCONT'): void {
    this.#process.kill(name)
  }

  async kill(): Promise<void> {
    this.signal('SIGKILL')
    await this.#ended
  }

  /** Lets it end in order: with nothing left open, and no rejection that nobody handled. */
  async close(): Promise<void> {
    this.#order({ do: 'close' })
    const timer = setTimeout(() => this.signal('SIGKILL'), 20_000)
    const end = await this.#ended
    clearTimeout(timer)
    if (end !== 0) throw new Error(`a handler that was to close ended with ${end}`)
  }

  #wake(): void {
    const waiting = [...this.#waiting]
    this.#waiting.clear()
    for (const resolve of waiting) resolve()
  }

  #order(order: Order): void {
    // A process that was killed takes no orders: its end is seen elsewhere.
    this.#process.send(order, () => undefined)
  }

  async #next(wanted: (told: Told) => boolean, withinMs: number): Promise<Told | 'killed'> {
    const late = AbortSignal.timeout(withinMs)
    late.addEventListener('abort', () => this.#wake())
    let end: number | NodeJS.Signals | undefined
    void this.#ended.then((how) => (end = how))
    for (;;) {
      const index = this.#told.findIndex(wanted)
      const [told] = index < 0 ? [] : this.#told.splice(index, 1)
      if (told !== undefined) return told
      if (end === 'SIGKILL') return 'killed'
      if (end !== undefined) throw new Error(`a handler ended by itself, with ${end}`)
      if (late.aborted) {
        this.signal('SIGKILL')
        throw new Error(`a handler hung: nothing in ${withinMs} ms`)
      }
      await new Promise<void>((resolve) => this.#waiting.add(resolve))
    }
  }
}
