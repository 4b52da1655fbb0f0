/** What one transaction will write for a source partition: drafts until the sink's limit, then proofs, segment, position. */
import { controlTopicOf } from '../audit/entry.ts'
import { type AuditHead, closeSegment, segmentKey } from '../audit/segment.ts'
import { prove } from '../envelope/seal.ts'
import type { RejectionCode } from '../errors.ts'
import { currentSigner } from '../keys/signer.ts'
import type { Message, Signer, SourceRecord, TopicPartition } from '../ports.ts'
import type { Gate } from './admit.ts'
import type { Committed } from './observer.ts'
import { encodeState } from './position.ts'
import { type Draft, type DraftOutput, placeOf } from './route.ts'
import type { IngestParts, Lane } from './slice.ts'

/** A segment's record and the batch's own header, at most. */
const SEGMENT_BYTES = 1536
const BATCH_HEADER_BYTES = 64

/** The part of a chain that a transaction adds: offsets [from, next) of its source, or of its own count. */
interface Link extends TopicPartition {
  readonly head: AuditHead
  readonly from: bigint
  readonly next: bigint
}

export class Transaction {
  readonly #lane: Lane
  readonly #gate: Gate
  readonly #parts: IngestParts
  readonly #drafts: Draft[] = []
  /** Bytes for each topic-partition, at most. */
  readonly #bytes = new Map<string, number>()
  readonly #redrives: boolean
  #first: SourceRecord | undefined
  #last: SourceRecord | undefined

  /** @param redrives whether its records come from quarantine: then its entries go to the control chain, and the position stays */
  constructor(lane: Lane, gate: Gate, parts: IngestParts, redrives = false) {
    this.#lane = lane
    this.#gate = gate
    this.#parts = parts
    this.#redrives = redrives
  }

  get size(): number {
    return this.#drafts.length
  }

  /** Whether a draft can be added with no topic-partition over the sink's limit. One draft alone always can. */
  hasRoomFor(draft: Draft): boolean {
    if (this.#drafts.length === 0) return true
    for (const [place, { bytes }] of draft.shares) {
      const before = this.#bytes.get(place) ?? 0
      // A message too large for any company is sent alone: the topic's own limit decides.
      if (before > 0 && before + bytes > this.#limitOf(place)) return false
    }
    return true
  }

  add(record: SourceRecord, draft: Draft): void {
    for (const [place, { bytes }] of draft.shares) {
      this.#bytes.set(place, (this.#bytes.get(place) ?? BATCH_HEADER_BYTES) + bytes)
    }
    this.#drafts.push(draft)
    this.#first ??= record
    this.#last = record
  }

  /** Signs, closes the segment and commits all of it with the new position. Does nothing where no record was decided. */
  async commit(deadline: number): Promise<void> {
    const last = this.#last
    if (last === undefined) return
    const lane = this.#lane
    const link = this.#redrives ? this.#controlLink() : this.#decisionLink(last)
    const signer = await currentSigner(this.#parts.signer, deadline)
    const outputs = await this.#signedOutputs(signer, deadline)
    const quarantine = this.#drafts.flatMap((draft) => draft.quarantine ?? [])
    const entries = this.#drafts.map(({ entry }) => entry)
    const time = Math.floor(this.#gate.now() / 1000)
    const segment = await this.#segment(link, entries, time, signer, deadline)
    const { next, head, control } = this.#redrives
      ? { next: lane.next, head: lane.head, control: { head: segment.head, count: link.next, time } }
      : { next: link.next, head: segment.head, control: lane.control }
    const homes = { audit: lane.outlet.auditPartition, quarantine: lane.outlet.quarantinePartition }
    const state = encodeState({ head, homes, control, replay: lane.replay })
    await lane.session.commit(
      [...outputs, ...quarantine, ...entries, segment.message],
      { next, state },
      deadline,
    )
    lane.head = head
    lane.next = next
    lane.control = control
    this.#parts.observer?.committed(this.#told())
  }

  #told(): Committed {
    const { timestampType, timestamp = 0 } = this.#first ?? {}
    const rejected = new Map<RejectionCode, number>()
    let admitted = 0
    for (const { verdict } of this.#drafts)
      if (verdict.admitted) admitted += 1
      else rejected.set(verdict.code, (rejected.get(verdict.code) ?? 0) + 1)
    return {
      ...this.#lane.source,
      admitted,
      rejected,
      entries: this.size,
      ageMs: timestampType === 'LogAppendTime' ? Math.max(0, this.#gate.now() - timestamp) : undefined,
    }
  }

  #decisionLink({ offset }: SourceRecord): Link {
    const { source, head, next } = this.#lane
    return { ...source, head, from: next, next: offset + 1n }
  }

  #controlLink(): Link {
    const { source, control } = this.#lane
    const topic = controlTopicOf(source.topic)
    const next = control.count + BigInt(this.size)
    return { topic, partition: source.partition, head: control.head, from: control.count, next }
  }

  /** The outputs to one partition as one batch: one signature for all of them. */
  async #signedOutputs(signer: Signer, deadline: number): Promise<Message[]> {
    const bound = {
      kid: signer.kid,
      alg: signer.alg,
      sign: (bytes: Uint8Array) => signer.sign(bytes, deadline),
    }
    const batches = new Map<string, DraftOutput[]>()
    const all = this.#drafts.flatMap(({ outputs }) => outputs)
    for (const output of all) {
      const place = placeOf(output.message)
      const batch = batches.get(place)
      if (batch === undefined) batches.set(place, [output])
      else batch.push(output)
    }
    const messages: Message[] = []
    for (const batch of batches.values()) {
      const values = await prove(
        batch.flatMap(({ sealed }) => sealed ?? []),
        bound,
      )
      const proven = values.values()
      for (const { message, sealed } of batch) {
        messages.push(sealed === undefined ? message : { ...message, value: proven.next().value ?? null })
      }
    }
    return messages
  }

  async #segment(
    link: Link,
    entries: readonly Message[],
    time: number,
    signer: Signer,
    deadline: number,
  ): Promise<{ message: Message; head: AuditHead }> {
    const { settings } = this.#parts
    const { outlet, replay } = this.#lane
    const unseen = replay.takeUnseen()
    const fields = {
      ...link,
      deployment: settings.deployment,
      time,
      bundle: this.#gate.contracts.digest,
      directory: this.#gate.directory.snapshot.version,
      software: settings.software,
      epoch: settings.epoch,
      unseen: Number(unseen < MAX_UNSEEN ? unseen : MAX_UNSEEN),
    }
    const values = entries.map(({ value }) => value ?? new Uint8Array())
    const closed = await closeSegment({ ...fields, entries: values }, signer, deadline)
    const key = Buffer.from(segmentKey(link))
    const message = {
      topic: outlet.names.auditTopic,
      partition: outlet.auditPartition,
      key,
      value: closed.value,
      headers: [],
    }
    return { message, head: closed.head }
  }

  #limitOf(place: string): number {
    const { outlet, session } = this.#lane
    const audit = placeOf({ topic: outlet.names.auditTopic, partition: outlet.auditPartition })
    return place === audit ? session.maxBatchBytes - SEGMENT_BYTES : session.maxBatchBytes
  }
}

/** Beyond this a count says no more than "very many". */
const MAX_UNSEEN = BigInt(Number.MAX_SAFE_INTEGER)
