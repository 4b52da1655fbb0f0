/**
 * The producers: one sealer each, and records appended in the order of their events. They keep to the contracts'
 * `perSecond`, as producers who may not be refused for haste must.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { Pace, type Paced, untilNextSecond } from '../cli/pace.ts'
import { recordOf } from '../cli/delivery.ts'
import { topicsOf } from '../cli/send.ts'
import type { World } from '../cli/world.ts'
import { type EventInput, RefusedEvents } from '../lib/client/event.ts'
import { createSealer, type Sealer, type SealerOptions } from '../lib/client/sealer.ts'
import { describeFault, type Fault } from '../lib/errors.ts'
import { partitionOf } from '../lib/envelope/partition.ts'
import type { Message } from '../lib/ports.ts'
import type { Offer, Offered } from './offers.ts'

/** What sealing came to. */
export interface SealedCount {
  /** Records appended. */
  readonly sealed: number
  /** Lines and events that could not be sealed. */
  readonly skipped: number
  /** The first of them, at most `MAX_TOLD_FAULTS`. */
  readonly faults: readonly Fault[]
  readonly producers: number
  /** Milliseconds spent waiting for the contracts' `perSecond`. */
  readonly waitedMs: number
  /** The first events of each type that are expected to be admitted. */
  readonly samples: readonly Offer[]
}

export interface SealingWatch {
  /** Called after each round, with the records appended so far. */
  onSealed(records: number): void
  onFault(fault: Fault): void
}

export const MAX_TOLD_FAULTS = 100
/** An offer and the partition that it goes to, counted against its contract there. */
interface Waiting {
  readonly offer: Offer
  readonly partition: number
  readonly bytes: number
}

const pacedOf = ({ offer: { iss, channel, event, contract }, partition }: Waiting): Paced => ({
  ...{ iss, channel, partition },
  type: event.type,
  perSecond: contract?.perSecond,
})

const ROUND_EVENTS = 2_000
const ROUND_BYTES = 4 * 1024 * 1024
const MAX_WAITING = 8_000
const MAX_WAITING_BYTES = 16 * 1024 * 1024
const SAMPLES_PER_TYPE = 8
const MAX_SAMPLES = 400

/** A sealer of an issuer of this world. */
export function sealerOf(world: World, iss: string, options: Partial<SealerOptions> = {}): Sealer {
  const partitions = (topic: string): Promise<number> => world.records.partitions(topic)
  const { clock } = world
  return createSealer({ ...world.producer(iss), partitions, topicOf: topicsOf(world), clock, ...options })
}

/** Seals what is offered, to its end, and appends it to the channels' topics. */
export async function sealAll(
  world: World,
  offers: AsyncIterable<Offered>,
  watch: SealingWatch,
): Promise<SealedCount> {
  const producers = new Producers(world, watch)
  try {
    for await (const offered of offers) await producers.take(offered)
    return await producers.finish()
  } finally {
    await producers.close()
  }
}

class Producers {
  readonly #world: World
  readonly #watch: SealingWatch
  readonly #sealers = new Map<string, Sealer>()
  readonly #counts = new Map<string, Promise<number>>()
  readonly #pace = new Pace()
  readonly #samples = new Map<string, Offer[]>()
  readonly #faults: Fault[] = []
  #waiting: Waiting[] = []
  #waitingBytes = 0
  #sealed = 0
  #skipped = 0
  #keyless = 0
  #waitedMs = 0

  constructor(world: World, watch: SealingWatch) {
    this.#world = world
    this.#watch = watch
  }

  async take(offered: Offered): Promise<void> {
    if ('fault' in offered) {
      this.#skip(offered.fault)
      return
    }
    const { channel, event } = offered
    const count = await this.#partitions(channel)
    const { key } = event
    const partition = typeof key === 'string' ? partitionOf(Buffer.from(key), count) : this.#keyless++ % count
    const bytes = event.dataBytes?.length ?? 0
    this.#waiting.push({ offer: offered, partition, bytes })
    this.#waitingBytes += bytes
    if (this.#waiting.length >= MAX_WAITING || this.#waitingBytes >= MAX_WAITING_BYTES) await this.#round()
  }

  async finish(): Promise<SealedCount> {
    while (this.#waiting.length > 0) await this.#round()
    return {
      sealed: this.#sealed,
      skipped: this.#skipped,
      faults: this.#faults,
      producers: this.#sealers.size,
      waitedMs: this.#waitedMs,
      samples: [...this.#samples.values()].flat(),
    }
  }

  async close(): Promise<void> {
    await Promise.all(Array.from(this.#sealers.values(), (sealer) => sealer.close()))
  }

  #skip(fault: Fault): void {
    this.#skipped++
    if (this.#faults.length < MAX_TOLD_FAULTS) this.#faults.push(fault)
    this.#watch.onFault(fault)
  }

  #partitions(channel: string): Promise<number> {
    const known = this.#counts.get(channel)
    if (known !== undefined) return known
    const count = this.#world.records.partitions(topicsOf(this.#world)(channel))
    this.#counts.set(channel, count)
    return count
  }

  /** Seals and appends what may go now; waits for the next second where nothing may. */
  async #round(): Promise<void> {
    const going = this.#chooseRound()
    if (going.length === 0) {
      const begun = performance.now()
      await sleep(untilNextSecond(this.#world.clock.now()))
      this.#waitedMs += performance.now() - begun
      return
    }
    const messages = await this.#seal(going)
    if (messages.length > 0) await this.#world.append(messages)
    this.#pace.appended(this.#world.clock.now())
    this.#sealed += messages.length
    this.#watch.onSealed(this.#sealed)
  }

  /** In order within a partition: behind one that has to wait, the others of its partition wait too. */
  #chooseRound(): Waiting[] {
    this.#pace.begin(this.#world.clock.now())
    const going: Waiting[] = []
    const staying: Waiting[] = []
    const blocked = new Set<string>()
    let bytes = 0
    for (const waiting of this.#waiting) {
      const lane = `${waiting.partition}/${waiting.offer.channel}`
      const isFull = going.length >= ROUND_EVENTS || (bytes > 0 && bytes + waiting.bytes > ROUND_BYTES)
      if (isFull || blocked.has(lane) || !this.#pace.allows(pacedOf(waiting))) {
        blocked.add(lane)
        staying.push(waiting)
      } else {
        going.push(waiting)
        bytes += waiting.bytes
      }
    }
    this.#waiting = staying
    this.#waitingBytes -= bytes
    return going
  }

  /** The records of those that can be sealed, in their order. */
  async #seal(going: readonly Waiting[]): Promise<Message[]> {
    const groups = Map.groupBy(going, ({ offer }) => JSON.stringify([offer.iss, offer.channel]))
    const records = new Map<Waiting, Message>()
    await Promise.all(Array.from(groups.values(), (group) => this.#sealGroup(group, records)))
    return going.map((waiting) => records.get(waiting)).filter((record) => record !== undefined)
  }

  /** One producer's events of one channel. Those that the sealer refuses are skipped, and the others sealed. */
  async #sealGroup(group: readonly Waiting[], records: Map<Waiting, Message>): Promise<void> {
    const [first] = group
    if (first === undefined) return
    const { iss, channel } = first.offer
    const inputs = group.map(({ offer, partition }): EventInput => ({ ...offer.event, partition }))
    try {
      const { topic, messages } = await this.#sealer(iss).seal(channel, inputs)
      for (const [index, waiting] of group.entries()) {
        const message = messages[index]
        if (message === undefined) continue
        records.set(waiting, recordOf(topic, message))
        this.#sample(waiting.offer)
      }
    } catch (error) {
      if (!(error instanceof RefusedEvents)) throw error
      const refused = Map.groupBy(error.refusals, ({ index }) => index)
      for (const [index, refusals] of refused) {
        const place = group[index]?.offer.place ?? { where: 'input' }
        const what = refusals
          .map((refusal) => describeFault({ ...refusal, where: fieldOf(refusal.where) }))
          .join(' ')
        this.#skip({ ...place, what, fix: '' })
      }
      const sound = group.filter((_, index) => !refused.has(index))
      await this.#sealGroup(sound, records)
    }
  }

  #sealer(iss: string): Sealer {
    const sealer = this.#sealers.get(iss) ?? sealerOf(this.#world, iss)
    this.#sealers.set(iss, sealer)
    return sealer
  }

  #sample(offer: Offer): void {
    if (offer.contract === undefined) return
    const { type } = offer.event
    const samples = this.#samples.get(type) ?? []
    if (samples.length >= SAMPLES_PER_TYPE || (samples.length === 0 && this.#samples.size >= MAX_SAMPLES))
      return
    samples.push(offer)
    this.#samples.set(type, samples)
  }
}

/** `events[7].subject` is `subject` of the line's event. */
const fieldOf = (where: string): string => /^events\[\d+\]\.?(.*)$/.exec(where)?.[1] || 'the event'
