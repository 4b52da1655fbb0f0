/** Decides some quarantined records of one source partition anew, and commits what becomes of them (redrive.ts). */
import { compareBytes } from '../cbor.ts'
import { controlTopicOf, placeOf, recordKey, type RecordPlace, type Redriven } from '../audit/entry.ts'
import { type Evidence, type EventName, eventKey, type ProvenRejection } from '../audit/evidence.ts'
import { digest } from '../envelope/crypto.ts'
import { MAX_CLOCK_LEAD_SECONDS } from '../envelope/verify.ts'
import type { SourceRecord } from '../ports.ts'
import { decide, type Examined, examine, type Gate, type Verdict } from './admit.ts'
import type { Quarantined } from './quarantined.ts'
import type { RedriveOrder, RedriveOutcome, SkipReason } from './redrive.ts'
import { draftOf } from './route.ts'
import { gateFor, type IngestParts, type Lane } from './slice.ts'
import { Transaction } from './transaction.ts'

export interface RedriveBatchParts {
  readonly order: RedriveOrder
  readonly ingest: IngestParts
  /** Read up to the heads of the lane's position. */
  readonly evidence: Evidence
  /** Told of each record once what became of it stands. */
  readonly tell: (outcome: RedriveOutcome) => void
}

/** A record with the event that it claims to be, where it parses. */
export interface ClaimedRecord {
  readonly found: Quarantined
  readonly event: ClaimedEvent | undefined
}

export interface ClaimedEvent extends EventName {
  /** When it was sealed, seconds since 1970: some minutes before, by another's clock, nobody can have let it in. */
  readonly iat: number
}

interface Judged extends ClaimedRecord {
  readonly examined: Examined
  readonly note: Redriven
}

/** No record asks for a data key on its issuer's budget: the operator does. */
const NOBODY: ReadonlySet<Examined> = new Set()

/** Rejects with `Outage` at the first record that cannot be decided, with all before it committed. */
export async function redriveBatch(
  records: readonly ClaimedRecord[],
  lane: Lane,
  parts: RedriveBatchParts,
  deadline: number,
): Promise<void> {
  const { ingest, evidence, tell } = parts
  const gate = await gateFor(lane, ingest, deadline)
  const judged = judgeAll(records, lane, gate, parts)
  const requests = judged.flatMap(({ examined }) => examined.keyRequest ?? [])
  const keys = await ingest.dataKeys.prepare(requests, deadline)
  const memory = lane.replay.redriving()
  let transaction = new Transaction(lane, gate, ingest, true)
  let done: { readonly outcome: RedriveOutcome; readonly event: EventName | undefined }[] = []
  const letIn = new Set<string>()
  const commit = async (): Promise<void> => {
    await transaction.commit(deadline)
    for (const { outcome, event } of done) {
      if (event !== undefined && outcome.result === 'admitted')
        evidence.letIn(event, placeText(outcome.quarantine))
      tell(outcome)
    }
    done = []
    transaction = new Transaction(lane, gate, ingest, true)
  }
  try {
    for (const { found, event, examined, note } of judged) {
      if (event !== undefined && letIn.has(eventKey(event))) {
        done.push({ outcome: skipped(found, 'let-in', 'a copy of it has just been let in'), event })
        continue
      }
      let decision, draft
      try {
        decision = decide(examined, NOBODY, gate, memory, keys)
        const entry = {
          topic: controlTopicOf(lane.source.topic),
          partition: lane.source.partition,
          offset: lane.control.count + BigInt(transaction.size),
        }
        draft = await draftOf(examined, decision.verdict, gate, lane.outlet, deadline, { entry, note })
      } catch (error) {
        await commit()
        throw error
      }
      if (!transaction.hasRoomFor(draft)) await commit()
      if (draft.verdict.admitted) {
        decision.apply()
        if (event !== undefined) letIn.add(eventKey(event))
      }
      transaction.add(examined.record, draft)
      done.push({ outcome: outcomeOf(found, draft.verdict), event })
    }
    await commit()
  } finally {
    keys.release()
    lane.batches.endSlice()
  }
}

/** Steps 1 to 7 for what may be judged again at all; tells of the rest. */
function judgeAll(
  records: readonly ClaimedRecord[],
  { source, replay }: Lane,
  gate: Gate,
  { order, evidence, tell }: RedriveBatchParts,
): readonly Judged[] {
  const judged: Judged[] = []
  for (const { found, event } of records) {
    if (!found.isWhole) {
      tell(skipped(found, 'not-whole', 'it was too long to be kept: see its source topic'))
      continue
    }
    const rejection = evidence.rejectionOf(source, found.source.offset)
    if (rejection === undefined || !isOf(found, rejection)) {
      tell(skipped(found, 'unproven', 'the audit does not prove that the gate rejected this record there'))
      continue
    }
    if (rejection.code === 'replayed') {
      tell(skipped(found, 'replayed', 'its event had been decided before'))
      continue
    }
    const admitted = event === undefined ? undefined : evidence.admissionOf(event)
    if (admitted !== undefined) {
      tell(skipped(found, 'let-in', `its event has been let in: ${admitted}`))
      continue
    }
    if (event !== undefined && !evidence.reachesBackTo(source, event.iat - 2 * MAX_CLOCK_LEAD_SECONDS)) {
      const reason =
        'its event may have been let in before the audit begins, of which retention has taken the rest'
      tell(skipped(found, 'unproven', reason))
      continue
    }
    const { key, value, headers } = found
    // Judged by our own clock: nobody can prove what the broker's said at first.
    const stamp = { timestamp: gate.now(), timestampType: 'CreateTime' } as const
    const record: SourceRecord = { ...source, offset: found.source.offset, ...stamp, key, value, headers }
    const acceptExpired = isNamed({ found, event }, order.acceptExpired)
    const firstJudged = Math.floor(rejection.timeMs / 1000)
    const examined = examine(record, gate, replay.time, { firstJudged, acceptExpired })
    const exp = examined.envelope?.body.claims.exp
    const expired = acceptExpired && exp !== undefined && examined.time > exp
    const { by, reason } = order
    const note = { source: found.source, quarantine: found.quarantine, by, reason, expired }
    judged.push({ found, event, examined, note })
  }
  return judged
}

/** Whether the record's bytes are those that the audit says were rejected. Its key is bound by the seal, or it is refused again. */
function isOf({ value }: Quarantined, rejection: ProvenRejection): boolean {
  if (value === null || rejection.digest === null) return value === rejection.digest
  return compareBytes(digest(value), rejection.digest) === 0
}

/** Whether an operator has named this record, by its place, or its event by its id. */
function isNamed({ found, event }: ClaimedRecord, names: ReadonlySet<string>): boolean {
  if (names.size === 0) return false
  const { source, quarantine } = found
  return (
    names.has(placeText(source)) ||
    names.has(placeText(quarantine)) ||
    // A producer chooses its ids: none of them stands for a place.
    (event !== undefined && placeOf(event.id) === undefined && names.has(event.id))
  )
}

const placeText = ({ topic, partition, offset }: RecordPlace): string => recordKey(topic, partition, offset)

function skipped({ quarantine, source }: Quarantined, code: SkipReason, reason: string): RedriveOutcome {
  return { quarantine, source, result: 'skipped', code, reason }
}

function outcomeOf({ quarantine, source }: Quarantined, verdict: Verdict): RedriveOutcome {
  if (verdict.admitted) return { quarantine, source, result: 'admitted', code: null, reason: '' }
  return { quarantine, source, result: 'rejected', code: verdict.code, reason: verdict.reason }
}
