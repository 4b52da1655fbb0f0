/** The Sink port on the embedded log, by the protocol of the real one (exactly-once.md §1): fence, read, commit together. */
import { createHash } from 'node:crypto'
import { ConfigError, Outage } from '../errors.ts'
import type { Position, PositionAdmin, Sink, SinkSession, TopicPartition } from '../ports.ts'
import type { GroupOffset, Log, TransactionalProducer } from './log.ts'
import { MAX_BATCH_BYTES } from './log.ts'

/** What eight shadow groups hold on a real broker (exactly-once.md §2). */
const MAX_STATE_BYTES: number = 3072 * 8
/** A position's metadata: this version, a digest that binds all of it together, the state. */
const METADATA_VERSION = 1
const DIGEST_BYTES = 32

export interface LocalSinkSettings {
  /** Begins every transactional id and the shadow group's name. */
  readonly deployment: string
}

export function createLocalSink(log: Log, settings: LocalSinkSettings): Sink {
  return {
    partitionsOf: (topic, deadline) => within(deadline, async () => (await log.endOffsets(topic)).length),
    open: (source, deadline) =>
      within(deadline, async () => {
        const producer = await log.begin(transactionalId(settings, source))
        const position = await readPosition(log, settings, source)
        if (position === undefined) throw positionMissing(source)
        return newSession(settings, source, producer, position)
      }),
  }
}

export function createLocalPositions(log: Log, settings: LocalSinkSettings): PositionAdmin {
  return {
    init: (source, position, deadline) =>
      within(deadline, async () => {
        // Before fencing, so that a mistake does not disturb a gate at work; after it, so that of two only one succeeds.
        await refuseExisting(log, settings, source)
        const producer = await log.begin(transactionalId(settings, source))
        await refuseExisting(log, settings, source)
        await producer.commit([encodePosition(settings, source, position)])
      }),
    show: (source, deadline) => within(deadline, () => readPosition(log, settings, source)),
    repair: (source, deadline) =>
      within(deadline, async () => {
        const producer = await log.begin(transactionalId(settings, source))
        const found = await readPosition(log, settings, source).catch((error: unknown) => {
          if (error instanceof Outage && error.code === 'position-damaged') return 'damaged' as const
          throw error
        })
        const session = newSession(settings, source, producer, { next: -1n, state: new Uint8Array() })
        return {
          found,
          maxStateBytes: session.maxStateBytes,
          commit: (...call) => session.commit(...call),
          close: () => session.close(),
        }
      }),
    // This log's positions do not expire.
    renew: async (source, deadline) => {
      if ((await within(deadline, () => readPosition(log, settings, source))) === undefined)
        throw positionMissing(source)
      return false
    },
  }
}

function newSession(
  settings: LocalSinkSettings,
  source: TopicPartition,
  producer: TransactionalProducer,
  found: Position,
): SinkSession {
  let position = found
  let usable = true
  return {
    get position() {
      return position
    },
    maxBatchBytes: MAX_BATCH_BYTES,
    maxStateBytes: MAX_STATE_BYTES,
    commit: async (messages, next, deadline) => {
      if (!usable)
        throw new Outage('sink-unavailable', `This session on ${nameOf(source)} has ended: open a new one.`)
      // Until it has succeeded: a failed commit, or a second one beside it, leaves the outcome unknown.
      usable = false
      const offset = encodePosition(settings, source, next)
      await within(deadline, async () => {
        await producer.append(messages)
        await producer.commit([offset])
      })
      position = { next: next.next, state: next.state.slice() }
      usable = true
    },
    close: async () => {
      usable = false
      // The transaction of a lost connection has ended already.
      await producer.abort().catch(() => undefined)
    },
  }
}

async function readPosition(
  log: Log,
  settings: LocalSinkSettings,
  source: TopicPartition,
): Promise<Position | undefined> {
  const found = await log.groupOffset(shadowGroup(settings), source.topic, source.partition)
  if (found === undefined) return undefined
  const { next, metadata } = found
  const state = metadata.slice(1 + DIGEST_BYTES)
  const digest = metadata.subarray(1, 1 + DIGEST_BYTES)
  if (metadata[0] !== METADATA_VERSION || !digestOf(source, next, state).equals(digest)) {
    const repair = 'Look at it with sealgate position show, and restore it from the audit topic.'
    throw new Outage('position-damaged', `The position of ${nameOf(source)} does not fit together. ${repair}`)
  }
  return { next, state }
}

function encodePosition(
  settings: LocalSinkSettings,
  source: TopicPartition,
  { next, state }: Position,
): GroupOffset {
  if (state.length > MAX_STATE_BYTES) {
    const reason = `A position's state of ${state.length} bytes for ${nameOf(source)}: the sink takes at most ${MAX_STATE_BYTES}.`
    throw new Outage('sink-unavailable', reason)
  }
  const metadata = Buffer.concat([Buffer.of(METADATA_VERSION), digestOf(source, next, state), state])
  return { group: shadowGroup(settings), topic: source.topic, partition: source.partition, next, metadata }
}

function digestOf(source: TopicPartition, next: bigint, state: Uint8Array): Buffer {
  return createHash('sha256')
    .update(`${nameOf(source)}/${next}\n`)
    .update(state)
    .digest()
}

async function refuseExisting(log: Log, settings: LocalSinkSettings, source: TopicPartition): Promise<void> {
  const { topic, partition } = source
  const found = await log.groupOffset(shadowGroup(settings), topic, partition)
  if (found === undefined) return
  const fix = 'Nothing is to be done for a first start; to reprocess, raise the epoch by name.'
  throw new ConfigError([
    { where: nameOf(source), what: `It has a position already, at offset ${found.next}.`, fix },
  ])
}

/** Runs `work` unless the deadline has passed, and gives up on its answer when it does. */
async function within<T>(deadline: number, work: () => Promise<T>): Promise<T> {
  const leftMs = deadline - Date.now()
  if (leftMs <= 0) throw new Outage('deadline', 'No time was left to ask the embedded log.')
  let timer: NodeJS.Timeout | undefined
  const tooLate = new Promise<never>((_, reject) => {
    const late = (): void =>
      reject(new Outage('deadline', 'The embedded log has not answered in time; the outcome is unknown.'))
    timer = setTimeout(late, Math.min(leftMs, 2 ** 31 - 1))
  })
  try {
    return await Promise.race([work(), tooLate])
  } finally {
    clearTimeout(timer)
  }
}

function transactionalId({ deployment }: LocalSinkSettings, { topic, partition }: TopicPartition): string {
  return `${deployment}.${topic}.${partition}`
}

function shadowGroup({ deployment }: LocalSinkSettings): string {
  return `${deployment}.shadow.v1`
}

function nameOf({ topic, partition }: TopicPartition): string {
  return `${topic}-${partition}`
}

function positionMissing(source: TopicPartition): Outage {
  const first = `A first start is made by name: sealgate position init ${source.topic}.`
  const lost = 'One that it had is restored: sealgate position restore.'
  return new Outage('position-missing', `There is no position for ${nameOf(source)}. ${first} ${lost}`)
}
