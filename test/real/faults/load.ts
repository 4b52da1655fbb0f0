/** A load on one arena that never ends by itself: one handler at a time, always another after one that died. */
import type { Arena, Batch } from './arena.ts'
import type { Handler, Outcome } from './handler.ts'

export const TEN_MINUTES_MS = 600_000

/** Events made ready before, and by how far the clocks of their producers lead. */
const FILLS = [
  { events: 10, leadMs: 0 },
  { events: 10, leadMs: TEN_MINUTES_MS },
  { events: 10, leadMs: -TEN_MINUTES_MS },
  { events: 170, leadMs: 0 },
]
/** An outage may last so many attempts. */
const ATTEMPTS = 400
const EVENT_MS = 8000
/** A handler is ready by then. */
const START_MS = 20_000
/** A frozen handler loses its transaction. */
const TRANSACTION_MS = 1000

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

export class Load {
  readonly arena: Arena
  readonly #brokers: readonly string[]
  /** By how far the clock of the producers of each event to come leads. */
  readonly #leads: number[] = []
  #handler: Handler | undefined
  #batch: Batch = []
  #leadMs = 0
  #timeMs: () => number = () => EVENT_MS
  #over = false
  /** How often events began to come from producers with a wrong clock, by how far it leads. */
  readonly producers = new Map<number, number>()

  private constructor(arena: Arena, brokers: readonly string[]) {
    this.arena = arena
    this.#brokers = brokers
  }

  /** Its handlers go by these brokers; what is sent and read does not. */
  static async on(arena: Arena, brokers: readonly string[]): Promise<Load> {
    const load = new Load(arena, brokers)
    for (const { events, leadMs } of FILLS) {
      await arena.fill(events, leadMs)
      load.#leads.push(...Array.from({ length: events }, () => leadMs))
    }
    load.#handler = await load.#start()
    return load
  }

  /** The last that was ready. */
  get handler(): Handler {
    if (this.#handler === undefined) throw new Error('no handler has been started')
    return this.#handler
  }

  /** Until `end`; rejects where an event cannot be brought to its end. */
  async run(): Promise<void> {
    for (let before = 0; !this.#over;) {
      this.#batch = await this.arena.next()
      const leadMs = this.#leads.shift() ?? 0
      if (leadMs !== 0 && leadMs !== before) this.producers.set(leadMs, (this.producers.get(leadMs) ?? 0) + 1)
      before = leadMs
      while ((await this.#deliver(this.handler)) === 'killed') this.#handler = await this.#start()
    }
    await this.handler.close()
  }

  end(): void {
    this.#over = true
  }

  /** Another that wants the same partitions, and gets what is under way as well. */
  async rival(events: number): Promise<void> {
    const rival = await this.#start()
    for (let count = 0; count < events; count++) await this.#deliver(rival)
    await rival.close()
  }

  /** For so long whoever handles has a clock that leads by so much. */
  async withClock(leadMs: number, forMs: number): Promise<void> {
    const before = this.handler
    this.#leadMs = leadMs
    before.signal('SIGKILL')
    // Only another that is ready can be killed again.
    const until = Date.now() + START_MS
    while (this.handler === before && Date.now() < until) await sleep(50)
    await sleep(forMs)
    this.#leadMs = 0
    this.handler.signal('SIGKILL')
  }

  /** For so long events have so much time each. */
  async withTime(timeMs: () => number, forMs: number): Promise<void> {
    this.#timeMs = timeMs
    await sleep(forMs)
    this.#timeMs = () => EVENT_MS
  }

  async #start(): Promise<Handler> {
    const changes = { brokers: this.#brokers, transactionTimeoutMs: TRANSACTION_MS }
    const handler = this.arena.handler(changes, this.#leadMs)
    await handler.ready()
    return handler
  }

  async #deliver(handler: Handler): Promise<Outcome['is']> {
    return (await this.arena.deliver(handler, this.#batch, ATTEMPTS, () => this.#timeMs())).is
  }
}
