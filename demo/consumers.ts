/** The consumers: each opens all that was written for it, and keeps what it got of a few known events for show. */
import { kafkaMessage, openerOf } from '../cli/consumers.ts'
import type { World } from '../cli/world.ts'
import type { Opener } from '../lib/client/opener.ts'
import { CONTENT_TYPE_HINT } from '../lib/keys/authenticate.ts'
import type { SourceRecord } from '../lib/ports.ts'
import { recordsOf } from './ledger.ts'
import { leavesOf, MAX_LEAVES } from './leaves.ts'
import type { Offer } from './offers.ts'

/** What reading a channel's topic came to. */
export interface Delivery {
  readonly channel: string
  readonly records: number
  readonly sealed: number
  /** Of the sealed ones, those that one of their consumers could open. */
  readonly opened: number
}

/** An event before its treatment, and what each consumer got of it. */
export interface Specimen {
  readonly offer: Offer
  readonly seen: readonly {
    readonly consumer: string
    readonly channel: string
    readonly payload: Uint8Array
  }[]
}

export interface Deliveries {
  readonly channels: readonly Delivery[]
  /** As few events as show every consumer that got any of the samples. */
  readonly specimens: readonly Specimen[]
}

const BATCH = 512

/** Reads every output topic to its end, as its consumers do. */
export async function openOutputs(
  world: World,
  samples: readonly Offer[],
  onOpened: (records: number) => void,
): Promise<Deliveries> {
  const sampled = new Map(samples.map((offer) => [nameOf(offer.event.type, offer.event.id ?? ''), offer]))
  const seen = new Map<Offer, Map<string, Specimen['seen'][number]>>()
  const channels: Delivery[] = []
  let total = 0
  for (const channel of world.outputs) {
    const consumers = new Consumers(world, channel)
    let [records, sealed, opened] = [0, 0, 0]
    try {
      for await (const read of recordsOf(world.records, world.topicOf(channel) ?? channel)) {
        for (let start = 0; start < read.length; start += BATCH) {
          const batch = read.slice(start, start + BATCH)
          for (const one of await consumers.take(batch)) {
            records++
            if (one.sealed) sealed++
            if (one.payload === undefined || one.consumer === undefined) continue
            if (one.sealed) opened++
            const offer = sampled.get(nameOf(one.type, one.id))
            if (offer === undefined) continue
            const shown = seen.get(offer) ?? new Map<string, Specimen['seen'][number]>()
            shown.set(one.consumer, { consumer: one.consumer, channel, payload: one.payload })
            seen.set(offer, shown)
          }
          onOpened((total += batch.length))
        }
      }
    } finally {
      consumers.close()
    }
    channels.push({ channel, records, sealed, opened })
  }
  return { channels, specimens: chooseSpecimens(seen) }
}

/** One record as it came out. */
interface Taken {
  readonly sealed: boolean
  readonly type: string
  readonly id: string
  readonly consumer: string | undefined
  readonly payload: Uint8Array | undefined
}

/** The consumers of one channel. */
class Consumers {
  readonly #world: World
  readonly #channel: string
  readonly #openers: ReadonlyMap<string, Opener>

  constructor(world: World, channel: string) {
    this.#world = world
    this.#channel = channel
    const routes = world.contracts.all.flatMap((contract) => contract.routes)
    const names = routes.filter((route) => route.channel === channel && route.form === 'sealed')
    this.#openers = new Map(names.map(({ consumer }) => [consumer, openerOf(world, consumer)]))
  }

  /** Of one partition, in order. */
  async take(records: readonly SourceRecord[]): Promise<Taken[]> {
    const sealed = records.filter((record) => textOf(record, 'content-type') === CONTENT_TYPE_HINT)
    const opened = new Map<SourceRecord, Taken>()
    const [first] = sealed
    for (const [consumer, opener] of this.#openers) {
      if (first === undefined) break
      const { topic, partition } = first
      const results = await opener.openBatch({ topic, partition, messages: sealed.map(kafkaMessage) })
      for (const [index, result] of results.entries()) {
        const record = sealed[index]
        if (record === undefined || !result.opened) continue
        const { type, id } = result.event
        opened.set(record, { sealed: true, type, id, consumer, payload: result.payload })
      }
    }
    return records.map((record) => opened.get(record) ?? this.#unopened(record, sealed.includes(record)))
  }

  #unopened(record: SourceRecord, sealed: boolean): Taken {
    const type = textOf(record, 'ce_type')
    const routes = this.#world.contracts.all
      .filter((contract) => contract.type === type)
      .flatMap(({ routes }) => routes)
    const consumer = routes.find(
      ({ channel, form }) => channel === this.#channel && form === 'plain',
    )?.consumer
    return {
      sealed,
      type,
      id: textOf(record, 'ce_id'),
      consumer,
      payload: sealed ? undefined : (record.value ?? undefined),
    }
  }

  close(): void {
    for (const opener of this.#openers.values()) opener.close()
  }
}

const nameOf = (type: string, id: string): string => JSON.stringify([type, id])

function textOf({ headers }: SourceRecord, name: string): string {
  return Buffer.from(headers.find((header) => header.name === name)?.value ?? []).toString()
}

/** Always the event that shows the most consumers not shown yet; of several, the one that has most to show. */
function chooseSpecimens(
  seen: ReadonlyMap<Offer, ReadonlyMap<string, Specimen['seen'][number]>>,
): Specimen[] {
  const specimens: Specimen[] = []
  const shown = new Set<string>()
  for (;;) {
    let best: { specimen: Specimen; fresh: number; matter: number } | undefined
    for (const [offer, byConsumer] of seen) {
      const fresh = [...byConsumer.keys()].filter((consumer) => !shown.has(consumer)).length
      const matter = matterOf(offer)
      if (fresh === 0 || fresh < (best?.fresh ?? 0)) continue
      if (fresh === best?.fresh && matter <= best.matter) continue
      best = { specimen: { offer, seen: [...byConsumer.values()] }, fresh, matter }
    }
    if (best === undefined) return specimens
    specimens.push(best.specimen)
    for (const { consumer } of best.specimen.seen) shown.add(consumer)
  }
}

/** How many fields have something in them; 0 where they are too many to be shown. */
function matterOf({ event }: Offer): number {
  const leaves = leavesOf(Buffer.from(event.dataBytes ?? []).toString(), MAX_LEAVES + 1)
  return leaves.length > MAX_LEAVES ? 0 : leaves.filter(([, text]) => text !== 'null').length
}
