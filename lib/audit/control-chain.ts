/**
 * The chain of entries that belong to no source record (audit.md §2), written by whoever changes keys: a function, and
 * operators. It has a position like a source partition's, at partition 0 of the audit topic itself, so that its holder is
 * fenced and two who write cannot fork it. The position's offset is the count of its entries, its state deterministic
 * CBOR: `[version, sequence, hash, audit partition | nil, memory]`; what is remembered is the writer's own affair.
 */
import { CborError, CborReader, CborWriter, compareBytes, MAJOR } from '../cbor.ts'
import { random } from '../envelope/crypto.ts'
import { Outage } from '../errors.ts'
import { currentSigner } from '../keys/signer.ts'
import type { Clock, Message, Position, Signer, Sink, SinkSession, TopicPartition } from '../ports.ts'
import { CONTROL_TOPIC, type ControlEntry, encodeEntry, recordKey } from './entry.ts'
import { type AuditHead, auditPartitionOf, closeSegment, FIRST_HEAD, segmentKey } from './segment.ts'

export interface ControlParts {
  readonly sink: Sink
  readonly clock: Clock
  readonly deployment: string
  readonly epoch: number
  /** Name and version of this software. */
  readonly software: string
  readonly auditTopic: string
  /** The gateway's. */
  signer(deadline: number): Promise<Signer>
}

/** What happened, but for its time and place. */
export interface ControlFact extends Pick<ControlEntry, 'kind' | 'principal' | 'resource' | 'success'> {
  /** The version of the key directory that shows it, or in which it was done. */
  readonly directory: number
}

export interface ControlAccount {
  readonly facts: readonly ControlFact[]
  /** What to remember once they are told. */
  readonly memory: Uint8Array
}

/** Where the chain stands. */
export interface ControlState {
  readonly head: AuditHead
  /** The audit partition that it is on: fixed at its first entry. */
  readonly home: number | undefined
  /** Empty before the first entry. */
  readonly memory: Uint8Array
}

export const CONTROL_CHAIN: TopicPartition = { topic: CONTROL_TOPIC, partition: 0 }
export const CONTROL_NAME: string = segmentKey(CONTROL_CHAIN)

/** Where the chain's position is kept. */
export const controlPlaceOf = (auditTopic: string): TopicPartition => ({ topic: auditTopic, partition: 0 })

/** Stands for the contracts' digest: what is done to keys has to do with none. */
const NO_BUNDLE: Uint8Array = new Uint8Array(32)
const VERSION = 1
const HASH_BYTES = 32
/** What a position takes beside the memory, at most. */
const OWN_BYTES = 64

/** A first start, made by name like that of a source partition (`sealgate position init`). */
export const firstControlPosition = (): Position => ({
  next: 0n,
  state: encodeControlState({ head: FIRST_HEAD, home: undefined, memory: new Uint8Array() }),
})

export function encodeControlState({ head, home, memory }: ControlState): Uint8Array {
  const writer = new CborWriter(OWN_BYTES + memory.length)
  writer.head(MAJOR.array, 5)
  writer.integer(VERSION)
  writer.integer(head.sequence)
  writer.value(head.hash)
  if (home === undefined) writer.nil()
  else writer.integer(home)
  writer.value(memory)
  return writer.finish()
}

/** Reads what `encodeControlState` wrote; anything else is `Outage('position-damaged')`. */
export function parseControlState(bytes: Uint8Array): ControlState {
  try {
    const reader = new CborReader(bytes)
    if (reader.array() !== 5 || reader.uint() !== VERSION) throw new CborError('another shape')
    const sequence = reader.count()
    const hash = reader.byteString().slice()
    const home = reader.countOrNil()
    const memory = reader.byteString().slice()
    reader.end()
    if (hash.length !== HASH_BYTES) throw new CborError('a hash of another size')
    return { head: { sequence, hash }, home, memory }
  } catch (cause) {
    if (!(cause instanceof CborError)) throw cause
    const reason = 'The position of the control chain does not parse: see `sealgate position show`.'
    throw new Outage('position-damaged', reason, { cause })
  }
}

const RETRY_MS = 50
const MAX_RETRY_MS = 1000
/** Of one segment: some 300 bytes each, far below what a transaction may hold. */
const MAX_ENTRIES = 500

/**
 * Writes what `account` makes of what the chain remembers, behind the fence: called again where another was first.
 * Rejects with `Outage`: `position-missing` where the chain was never begun. After that nothing is known of what was written.
 *
 * @param account is told how many bytes may be remembered
 */
export async function writeControl(
  parts: ControlParts,
  account: (memory: Uint8Array, maxBytes: number) => ControlAccount,
  deadline: number,
): Promise<void> {
  const { clock } = parts
  /** The head as it is once all is told; a commit that failed may have been one that stands. */
  let last: AuditHead | undefined
  for (let attempt = 1; ; attempt++) {
    let isOpen = false
    try {
      const session = await parts.sink.open(controlPlaceOf(parts.auditTopic), deadline)
      isOpen = true
      try {
        const state = parseControlState(session.position.state)
        if (last !== undefined && compareBytes(state.head.hash, last.hash) === 0) return
        const told = account(state.memory, session.maxStateBytes - OWN_BYTES)
        await commitAll(parts, session, state, told, deadline, (head) => (last = head))
        return
      } finally {
        await session.close()
      }
    } catch (error) {
      const code = error instanceof Outage ? error.code : undefined
      // Another holder; or a broker that went away in between. Opening has had its own tries.
      const mayPass = code === 'fenced' || (code === 'sink-unavailable' && isOpen)
      const wait = Math.min(RETRY_MS * attempt, MAX_RETRY_MS) + (random(1)[0] ?? 0)
      if (!mayPass || clock.now() + wait >= deadline) throw error
      await new Promise((resolve) => setTimeout(resolve, wait))
    }
  }
}

/** In as many segments as it takes; with the last one it is remembered that all was told. */
async function commitAll(
  parts: ControlParts,
  session: SinkSession,
  state: ControlState,
  { facts, memory }: ControlAccount,
  deadline: number,
  onLast: (head: AuditHead) => void,
): Promise<void> {
  const { sink, auditTopic } = parts
  const home = state.home ?? auditPartitionOf(CONTROL_CHAIN, await sink.partitionsOf(auditTopic, deadline))
  const signer = await currentSigner(await parts.signer(deadline), deadline)
  let { head } = state
  for (let start = 0; start < facts.length; start += MAX_ENTRIES) {
    const some = facts.slice(start, start + MAX_ENTRIES)
    const isLast = start + some.length === facts.length
    const from = session.position.next
    const next = from + BigInt(some.length)
    const closed = await controlSegment(parts, some, { head, from, next, home }, signer, deadline)
    ;({ head } = closed)
    if (isLast) onLast(head)
    const after = encodeControlState({ head, home, memory: isLast ? memory : state.memory })
    await session.commit(closed.messages, { next, state: after }, deadline)
  }
}

/** Where in the chain a segment stands: its entries are [from, next). */
export interface ControlLink {
  readonly head: AuditHead
  readonly from: bigint
  readonly next: bigint
  readonly home: number
}

/** The entries of these facts and the segment that closes them, as they are to be written, and the head after it. */
export async function controlSegment(
  { deployment, epoch, software, clock, auditTopic }: ControlParts,
  facts: readonly ControlFact[],
  { head, from, next, home }: ControlLink,
  signer: Signer,
  deadline: number,
): Promise<{ readonly messages: readonly Message[]; readonly head: AuditHead }> {
  const timeMs = clock.now()
  const message = (key: string, value: Uint8Array): Message => {
    return { topic: auditTopic, partition: home, key: Buffer.from(key), value, headers: [] }
  }
  const entries = facts.map(({ directory, ...fact }, index) => {
    const offset = from + BigInt(index)
    const policy = { bundle: NO_BUNDLE, directory }
    const value = encodeEntry({ ...fact, ...CONTROL_CHAIN, offset, timeMs, policy })
    return message(recordKey(CONTROL_CHAIN.topic, CONTROL_CHAIN.partition, offset), value)
  })
  const closed = await closeSegment(
    {
      ...{ ...CONTROL_CHAIN, head, from, next, deployment, epoch, software },
      entries: entries.map(({ value }) => value ?? new Uint8Array()),
      ...{ time: Math.floor(timeMs / 1000), bundle: NO_BUNDLE, unseen: 0 },
      directory: facts.at(-1)?.directory ?? 0,
    },
    signer,
    deadline,
  )
  return { messages: [...entries, message(CONTROL_NAME, closed.value)], head: closed.head }
}
