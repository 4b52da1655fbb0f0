/** What one transaction will write for a source partition: drafts until the sink's limit, then proofs, segment, position. */
import { closeSegment, segmentKey } from '../audit/segment.ts'
import { prove } from '../envelope/seal.ts'
import type { Message, SourceRecord } from '../ports.ts'
import type { Gate } from './admit.ts'
import { encodeState } from './position.ts'
import { type Draft, type DraftOutput, placeOf } from './route.ts'
import type { IngestParts, Lane } from './slice.ts'

/** A segment's record and the batch's own header, at most. */
const SEGMENT_BYTES = 1536
const BATCH_HEADER_BYTES = 64

export class Transaction {
  readonly #lane: Lane
  readonly #gate: Gate
  readonly #parts: IngestParts
  readonly #drafts: Draft[] = []
  /** Bytes for each topic-partition, at most. */
  readonly #bytes = new Map<string, number>()
  #last: SourceRecord | undefined

  constructor(lane: Lane, gate: Gate, parts: IngestParts) {
    this.#lane = lane
    this.#gate = gate
    this.#parts = parts
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
    this.#last = record
  }

  /** Signs, closes the segment and commits all of it with the new position. Does nothing where no record was decided. */
  async commit(deadline: number): Promise<void> {
    const last = this.#last
    if (last === undefined) return
    const lane = this.#lane
    const next = last.offset + 1n
    const outputs = await this.#signedOutputs(deadline)
    const quarantine = this.#drafts.flatMap((draft) => draft.quarantine ?? [])
    const entries = this.#drafts.map(({ entry }) => entry)
    const segment = await this.#segment(entries, next, deadline)
    const state = encodeState({
      head: segment.head,
      homes: { audit: lane.outlet.auditPartition, quarantine: lane.outlet.quarantinePartition },
      replay: lane.replay,
    })
    await lane.session.commit(
      [...outputs, ...quarantine, ...entries, segment.message],
      { next, state },
      deadline,
    )
    lane.head = segment.head
    lane.next = next
  }

  /** The outputs to one partition as one batch: one signature for all of them. */
  async #signedOutputs(deadline: number): Promise<Message[]> {
    const { signer } = this.#parts
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
    entries: readonly Message[],
    next: bigint,
    deadline: number,
  ): Promise<{ message: Message; head: Lane['head'] }> {
    const { settings, signer } = this.#parts
    const { source, outlet, replay, next: from, head } = this.#lane
    const unseen = replay.takeUnseen()
    const fields = {
      deployment: settings.deployment,
      topic: source.topic,
      partition: source.partition,
      from,
      next,
      time: Math.floor(this.#gate.now() / 1000),
      bundle: this.#gate.contracts.digest,
      directory: this.#gate.directory.snapshot.version,
      software: settings.software,
      epoch: settings.epoch,
      unseen: Number(unseen < MAX_UNSEEN ? unseen : MAX_UNSEEN),
    }
    const values = entries.map(({ value }) => value ?? new Uint8Array())
    const closed = await closeSegment({ ...fields, head, entries: values }, signer, deadline)
    const key = Buffer.from(segmentKey(source))
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
