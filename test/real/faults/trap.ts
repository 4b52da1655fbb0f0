/** Points of a handler's path, and a trap at one of them that kills or freezes the process that passes. */
import { writeSync } from 'node:fs'

/** Before the call is made, while its answer is awaited, or when it has come. */
export type Phase = 'before' | 'sent' | 'answered'

export interface Trap {
  /** E.g. `request.produce/sent`. */
  readonly point: string
  /** At which passing since the trap was set, from 1. */
  readonly nth: number
  readonly signal: 'SIGKILL' | 'SIGSTOP'
  readonly waitMs: number
}

/** What a handler tells its parent, a line of JSON each. */
export type Told =
  | { readonly is: 'ready' }
  | { readonly is: 'at'; readonly point: string }
  | { readonly is: 'done'; readonly passed: Readonly<Record<string, number>> }
  | { readonly is: 'failed'; readonly message: string; readonly passed: Readonly<Record<string, number>> }

/** Written at once, so that what is told before a signal is not lost by it. */
export const tell = (told: Told): void => {
  writeSync(1, `${JSON.stringify(told)}\n`)
}

export class Points {
  readonly #passed = new Map<string, number>()
  #trap: Trap | undefined

  /** Counts anew from here. */
  arm(trap: Trap | undefined): void {
    this.#passed.clear()
    this.#trap = trap
  }

  get passed(): Readonly<Record<string, number>> {
    return Object.fromEntries(this.#passed)
  }

  /** Makes the call `name` with a point before it, in it and behind it. */
  async around<T>(name: string, call: () => Promise<T>): Promise<T> {
    await this.#pass(`${name}/before`)
    const underWay = call()
    underWay.catch(() => undefined)
    void this.#pass(`${name}/sent`)
    const answer = await underWay
    await this.#pass(`${name}/answered`)
    return answer
  }

  async #pass(point: string): Promise<void> {
    const count = (this.#passed.get(point) ?? 0) + 1
    this.#passed.set(point, count)
    const trap = this.#trap
    if (trap?.point !== point || trap.nth !== count) return
    this.#trap = undefined
    if (trap.waitMs > 0) await new Promise((resolve) => setTimeout(resolve, trap.waitMs))
    tell({ is: 'at', point })
    process.kill(process.pid, trap.signal)
  }
}
