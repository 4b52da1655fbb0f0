/** Sealed messages on their way to the topics of a world: again, where what does not answer may answer in a moment. */
import { setTimeout as sleep } from 'node:timers/promises'
import type { SealedBatch, SealedMessage } from '../lib/client/sealer-options.ts'
import { Outage } from '../lib/errors.ts'
import type { Message } from '../lib/ports.ts'
import { paint, printable } from './io.ts'
import type { Terminal } from './terminal.ts'
import type { World } from './world.ts'

/** No attempt begins later than this after the first. With the usual time-outs the last ends within the minute that an event lives. */
const AGAIN_MS = 30_000
const FIRST_WAIT_MS = 250
const LONGEST_WAIT_MS = 2000

export class Delivery {
  readonly #world: Pick<World, 'append' | 'clock' | 'reconnects'>
  readonly #terminal: Terminal
  #isTryingAgain = false

  constructor(world: Pick<World, 'append' | 'clock' | 'reconnects'>, terminal: Terminal) {
    this.#world = world
    this.#terminal = terminal
  }

  /**
   * For `createSealer`. What is sent again is what was sealed, bytes, number and all: the gate takes it once, whatever a
   * broker had taken of it before (sealed-event.md §6). Rejects with `Outage`: then some of it may be there.
   */
  async deliver(batch: SealedBatch): Promise<void> {
    const { clock, reconnects } = this.#world
    const until = clock.now() + AGAIN_MS
    for (let wait = FIRST_WAIT_MS; ; wait = Math.min(wait * 2, LONGEST_WAIT_MS)) {
      try {
        await deliverTo(this.#world)(batch)
        this.#isTryingAgain = false
        return
      } catch (error) {
        const mayPass = reconnects && error instanceof Outage && error.code === 'sink-unavailable'
        if (!mayPass || clock.now() + wait >= until) throw error
        this.#tellOfTrying(error)
      }
      await sleep(wait)
    }
  }

  /** Once for each time that the cluster does not answer. */
  #tellOfTrying({ message }: Outage): void {
    if (this.#isTryingAgain) return
    this.#isTryingAgain = true
    const mark = paint(this.#terminal.colours.err, 'yellow', 'trying again')
    this.#terminal.warn(`${mark} for ${AGAIN_MS / 1000} s: ${printable(message)}`)
  }
}

/** For `createSealer`: hands sealed messages over as they are. */
export function deliverTo(world: Pick<World, 'append'>): (batch: SealedBatch) => Promise<unknown> {
  return ({ topic, messages }) => world.append(messages.map((message) => recordOf(topic, message)))
}

/** A sealed message as a record of its topic. */
export function recordOf(topic: string, { partition, key, value, headers }: SealedMessage): Message {
  return {
    ...{ topic, partition, key, value },
    headers: Object.entries(headers).map(([name, text]) => ({ name, value: Buffer.from(text) })),
  }
}
