/**
 * What producers call: events in, sealed Kafka records out (sealed-event.md §2 to §4), each partition's numbered and
 * handed over in one order. Written for a kafkajs producer, on which it does not depend.
 */
import { Outage } from '../errors.ts'
import { type DataKey, random } from '../envelope/crypto.ts'
import { MAX_TREE_SIZE } from '../envelope/format.ts'
import { partitionOf } from '../envelope/partition.ts'
import { prove, sealBody, type SealedBody } from '../envelope/seal.ts'
import { suiteOf } from '../envelope/suite.ts'
import { CONTENT_TYPE_HINT } from '../keys/authenticate.ts'
import type { DataKeyCounts } from '../keys/data-keys.ts'
import { byDeadline } from '../keys/deadline.ts'
import { shieldKeyService } from '../keys/key-service-shield.ts'
import { createSealingKeys } from '../keys/sealing-keys.ts'
import { currentSigner } from '../keys/signer.ts'
import { type EventInput, type PreparedEvent, prepareEvents, type Refusal, RefusedEvents } from './event.ts'
import { cutIntoGroups, Lane, type Load } from './lane.ts'
import { checkOptions, isText } from './options.ts'
import {
  partitionCountRule,
  SEALER_RULES,
  type SealedBatch,
  type SealedMessage,
  type SealerOptions,
} from './sealer-options.ts'
import { randomFraction, systemClock } from './machine.ts'

export type { SealedBatch, SealedMessage, SealerOptions } from './sealer-options.ts'

export interface Sealer {
  /** 16 random bytes, made at the start: with channel, partition and number they name an event. */
  readonly session: Uint8Array
  /**
   * Seals events and delivers them, each partition's in the order of the calls and one delivery at a time. Calls that
   * come meanwhile go together in the next delivery. Resolves once Kafka has taken all of them.
   *
   * Rejects with `RefusedEvents` or `Outage('sink-unavailable')` (too many wait) before anything is sealed; with
   * `Outage` where the key service or signer fails; and with what `deliver` rejected with. After the latter, and where
   * one call reached several partitions, some of its events may be in Kafka: calling again sends new events, which may
   * then be there twice.
   */
  send(channel: string, events: EventInput | readonly EventInput[]): Promise<void>
  /**
   * Seals events and leaves delivering to the caller: messages in the order of the events. Each partition's must reach
   * Kafka in the order of the calls, since the gateway refuses those that come 64 numbers late or twice; `send` sees to it.
   */
  seal(channel: string, events: EventInput | readonly EventInput[]): Promise<SealedBatch>
  /** How its data keys fare, for metrics: `waits` are events that had to wait for the key service. */
  keyCounts(): DataKeyCounts
  /** Waits for what is under way, then wipes the keys; calls from now on reject. */
  close(): Promise<void>
}

/** Events of one call for one partition. */
interface SealingLoad extends Load {
  readonly events: readonly PreparedEvent[]
  readonly deliver: boolean
  /** The whole call's, by the events' indexes. */
  readonly messages: SealedMessage[]
  resolve(): void
  reject(error: unknown): void
}

interface EncryptedEvent {
  readonly load: SealingLoad
  readonly event: PreparedEvent
  readonly body: SealedBody
}

interface Channel {
  readonly name: string
  readonly topic: string
  readonly lanes: Map<number, Lane<SealingLoad>>
  /** The partition that keyless events went to last. */
  sticky: number
  count: { readonly known: Promise<number>; readonly at: number } | undefined
}

const PARTITIONS_MAX_AGE_MS = 300_000

/**
 * A producer's sealer. Make one when the process starts and keep it: each has a session of its own, and a gateway takes
 * at most 64 live sessions of an issuer in a partition. A copy of a running process (a snapshot that is restored twice)
 * must make its own, after it was copied; worker threads and child processes of Node share nothing.
 *
 * Throws `TypeError` that names every unknown or wrong option.
 */
export function createSealer(options: SealerOptions): Sealer {
  checkOptions('createSealer', options, SEALER_RULES)
  const { iss, audience, signer, kek, contracts, deliver } = options
  const { lifeSeconds = 3600, maxValueBytes = 1_048_576, timeoutMs = 10_000, clock = systemClock } = options
  const { maxBatchBytes = 900_000, maxWaitingBytes = 67_108_864 } = options
  const { topicOf = (channel: string) => channel } = options
  const rules = { iss, aud: audience, kidBytes: signer.kid.length, maxValueBytes, contracts }
  const limits = { groupBytes: maxBatchBytes, groupCount: MAX_TREE_SIZE }
  const session = random(16)
  const kekId = Buffer.from(kek.kekId)
  const keys = createSealingKeys({
    keyService: shieldKeyService(options.keyService, { clock, random: randomFraction }),
    clock,
    ...(options.maxUses !== undefined && { maxUses: options.maxUses }),
    ...(options.maxAgeMs !== undefined && { maxAgeMs: options.maxAgeMs }),
  })
  const channels = new Map<string, Channel>()
  const calls = new Set<Promise<unknown>>()
  let waitingBytes = 0
  let closed = false

  const channelOf = (name: string): Channel => {
    const known = channels.get(name)
    if (known !== undefined) return known
    if (!isText(name, MAX_CHANNEL_BYTES))
      throw new TypeError(`a channel's name is text of 1 to ${MAX_CHANNEL_BYTES} bytes`)
    const sticky = random(4).readUInt32BE()
    const channel = { name, topic: topicOf(name), lanes: new Map(), sticky, count: undefined }
    channels.set(name, channel)
    return channel
  }

  /** Always waits for the same promise, so that calls go on in the order in which they came. */
  const partitionCount = (channel: Channel): Promise<number> => {
    const now = clock.now()
    const { count } = channel
    if (count !== undefined && now - count.at < PARTITIONS_MAX_AGE_MS) return count.known
    const known = askPartitions(channel.topic, now + timeoutMs)
    channel.count = { known, at: now }
    known.catch(() => {
      if (channel.count?.known === known) channel.count = undefined
    })
    return known
  }

  const askPartitions = async (topic: string, deadline: number): Promise<number> => {
    if (typeof options.partitions === 'number') return options.partitions
    let count: number
    try {
      const asked = Promise.resolve(options.partitions(topic))
      count = await byDeadline(asked, deadline, clock, () => new Outage('deadline', 'no answer in time'))
    } catch (cause) {
      throw new Outage('sink-unavailable', `cannot find out how many partitions ${topic} has`, { cause })
    }
    if (partitionCountRule(count) !== undefined)
      throw new TypeError(`options.partitions gave no number of partitions for ${topic}`)
    return count
  }

  const laneOf = (channel: Channel, partition: number): Lane<SealingLoad> => {
    const known = channel.lanes.get(partition)
    if (known !== undefined) return known
    let number = 0n
    const lane = new Lane<SealingLoad>(limits, async (group) => {
      try {
        await work(group, channel, partition, () => number++)
      } catch (error) {
        for (const load of group) load.reject(error)
      }
    })
    channel.lanes.set(partition, lane)
    return lane
  }

  /** Seals a partition's group, delivers what is to be delivered, and settles each load. */
  const work = async (
    group: readonly SealingLoad[],
    channel: Channel,
    partition: number,
    nextNumber: () => bigint,
  ): Promise<void> => {
    const encrypted = await encrypt(group, channel.name, partition, nextNumber)
    const values = await sign(encrypted.map(({ body }) => body))
    const outgoing: SealedMessage[] = []
    for (const [index, value] of values.entries()) {
      const { load, event } = encrypted[index] ?? {}
      if (load === undefined || event === undefined) continue
      const message = messageOf(event, partition, value)
      load.messages[event.index] = message
      if (load.deliver) outgoing.push(message)
    }
    // Whoever delivers by itself has nothing to do with how this delivery ends.
    for (const load of group) if (!load.deliver) load.resolve()
    if (outgoing.length > 0) await deliver?.({ topic: channel.topic, messages: outgoing })
    for (const load of group) load.resolve()
  }

  /** Encrypts what there are keys for. A type without a key rejects the calls that hold it, and no others. */
  const encrypt = async (
    group: readonly SealingLoad[],
    channel: string,
    partition: number,
    nextNumber: () => bigint,
  ): Promise<EncryptedEvent[]> => {
    const now = clock.now()
    const iat = Math.floor(now / 1000)
    const claims = { iss, aud: audience, iat: BigInt(iat), exp: BigInt(iat + lifeSeconds), session }
    const withoutKey = new Map<string, unknown>()
    const encrypted: EncryptedEvent[] = []
    for (const load of group) {
      const mine: EncryptedEvent[] = []
      try {
        for (const event of load.events) {
          const { type, contentType, ce, key, payload } = event
          if (withoutKey.has(type)) throw withoutKey.get(type)
          const scope = { kek, iss, aud: audience, type }
          const use = (dataKey: DataKey, wrapped: Uint8Array): SealedBody => {
            const own = { ...claims, contentType, ce, number: nextNumber() }
            return sealBody(own, { channel, partition, key }, payload, dataKey, { kekId, wrapped })
          }
          const lent = keys.tryLend(scope, use)
          const lend = () => keys.lend(scope, now + timeoutMs, use)
          const body = lent?.value ?? (await remembering(withoutKey, type, lend))
          mine.push({ load, event, body })
        }
        for (const one of mine) encrypted.push(one)
      } catch (error) {
        load.reject(error)
      }
    }
    return encrypted
  }

  const answered = <T>(asked: Promise<T>, deadline: number): Promise<T> =>
    byDeadline(asked, deadline, clock, () => {
      return new Outage('signer-unavailable', 'the signer does not answer')
    })

  const sign = async (bodies: readonly SealedBody[]): Promise<Uint8Array[]> => {
    const until = clock.now() + timeoutMs
    const own = await answered(currentSigner(signer, until), until)
    return prove(bodies, {
      kid: own.kid,
      alg: own.alg,
      sign: async (bytes) => {
        const deadline = clock.now() + timeoutMs
        const signature = await answered(own.sign(bytes, deadline), deadline)
        if (signature.length !== suiteOf(own.alg)?.signatureBytes)
          throw new Outage('signer-unavailable', 'the signer gave a signature of another length')
        return signature
      },
    })
  }

  /** Puts a call's events into their lanes; resolves to their messages, in the order of the events. */
  const call = async (
    name: string,
    input: EventInput | readonly EventInput[],
    toDeliver: boolean,
  ): Promise<SealedBatch> => {
    if (closed) throw new TypeError('the sealer has been closed')
    const channel = channelOf(name)
    const events = prepareEvents(Array.isArray(input) ? input : [input], name, {
      ...rules,
      trace: options.trace?.(),
    })
    const { bytes } = sum(events)
    if (waitingBytes > 0 && waitingBytes + bytes > maxWaitingBytes)
      throw new Outage(
        'sink-unavailable',
        `more than ${maxWaitingBytes} bytes of events wait to be sealed or sent`,
      )
    waitingBytes += bytes
    try {
      const messages = new Array<SealedMessage>(events.length)
      const loads: Promise<void>[] = []
      for (const [partition, share] of shareOut(events, channel, await partitionCount(channel)))
        for (const part of cutIntoGroups(share, loadOf, limits))
          loads.push(
            new Promise((resolve, reject) => {
              const load = { ...sum(part), events: part, deliver: toDeliver, messages, resolve, reject }
              laneOf(channel, partition).add(load)
            }),
          )
      await allOf(loads)
      return { topic: channel.topic, messages }
    } finally {
      waitingBytes -= bytes
    }
  }

  const tracked = async <T>(work: Promise<T>): Promise<T> => {
    calls.add(work)
    try {
      return await work
    } finally {
      calls.delete(work)
    }
  }

  return {
    session: Uint8Array.from(session),
    async send(channel, events) {
      if (deliver === undefined) throw new TypeError('send needs the option deliver of createSealer')
      await tracked(call(channel, events, true))
    },
    seal: (channel, events) => tracked(call(channel, events, false)),
    keyCounts: () => keys.counts(),
    async close() {
      closed = true
      await Promise.allSettled(calls)
      keys.close()
    },
  }
}

const MAX_CHANNEL_BYTES = 249

/** Each partition's events, in order. */
function shareOut(
  events: readonly PreparedEvent[],
  channel: Channel,
  count: number,
): Map<number, PreparedEvent[]> {
  const refusals: Refusal[] = []
  const shares = new Map<number, PreparedEvent[]>()
  // One partition for the keyless of one call, another for those of the next, as Kafka's producers do with batches.
  if (events.some((event) => event.key === null && event.partition === undefined))
    channel.sticky = (channel.sticky + 1) % count
  for (const event of events) {
    const { index, key } = event
    const partition = event.partition ?? (key === null ? channel.sticky : partitionOf(key, count))
    if (partition >= count) {
      const what = `is ${partition}, but ${channel.topic} has ${count} partitions.`
      refusals.push({
        index,
        where: `events[${index}].partition`,
        code: undefined,
        what,
        fix: 'Count from 0.',
      })
      continue
    }
    const share = shares.get(partition)
    if (share === undefined) shares.set(partition, [event])
    else share.push(event)
  }
  if (refusals.length > 0) throw new RefusedEvents(refusals)
  return shares
}

const loadOf = (event: PreparedEvent): Load => ({ bytes: event.recordBytes, count: 1 })

const sum = (events: readonly PreparedEvent[]): Load => ({
  bytes: events.reduce((bytes, event) => bytes + event.recordBytes, 0),
  count: events.length,
})

/** Waits for all of them, then rejects as the first did that rejected: nothing of a call is left behind. */
async function allOf(loads: readonly Promise<void>[]): Promise<void> {
  for (const outcome of await Promise.allSettled(loads))
    if (outcome.status === 'rejected') throw outcome.reason
}

/** Does `task`, and keeps what it rejects with under `name`. */
async function remembering<T>(
  failures: Map<string, unknown>,
  name: string,
  task: () => Promise<T>,
): Promise<T> {
  try {
    return await task()
  } catch (error) {
    failures.set(name, error)
    throw error
  }
}

function messageOf(event: PreparedEvent, partition: number, value: Uint8Array): SealedMessage {
  const { ce, key, trace } = event
  const headers = {
    'content-type': CONTENT_TYPE_HINT,
    ce_specversion: '1.0',
    ce_id: ce.get('id') ?? '',
    ce_source: ce.get('source') ?? '',
    ce_type: event.type,
    ...trace,
  }
  return { partition, key, value: Buffer.from(value.buffer, value.byteOffset, value.byteLength), headers }
}
