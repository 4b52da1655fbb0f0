/**
 * Decides records (sealed-event.md §5): bytes → Envelope → Verified → Authorised → payload. Each arrow is one function,
 * and each stage can be made only by the one before it.
 *
 * The work is batched: `examine` (steps 1 to 7) looks at each record by itself, `wantedKeys` asks ahead which data keys
 * the slice will need, and `decide` (steps 8 to 11) takes the records in order once those keys are at hand. `admit` does
 * all three for one record.
 */
import { authorise as findContract } from '../contract/authorise.ts'
import type { Contract, Contracts, PseudonymKeys, Route } from '../contract/contract.ts'
import { Outage, Rejection, type RejectionCode } from '../errors.ts'
import type { Place } from '../envelope/binding.ts'
import { type Envelope, MAX_CIPHERTEXT_BYTES } from '../envelope/format.ts'
import { open, UNDECRYPTABLE } from '../envelope/seal.ts'
import { A256GCM } from '../envelope/suite.ts'
import type { ProvenBatches, Verified } from '../envelope/verify.ts'
import { authenticate, judgingTime, parseRecord } from '../keys/authenticate.ts'
import type { DataKeys, PreparedKeys } from '../keys/data-keys.ts'
import { isSameKey, type KeyRequest, nameOf } from '../keys/key-request.ts'
import type { DirectoryCopy } from '../keys/directory.ts'
import type { SourceRecord } from '../ports.ts'
import type { Claimant, Memory, ReplayState } from './replay.ts'

/** What fits into the longest ciphertext (sealed-event.md §2). */
const MAX_PLAINTEXT_BYTES = MAX_CIPHERTEXT_BYTES - A256GCM.tagBytes

declare const authorised: unique symbol

/** A verified event whose type, issuer and source a contract allows here. Only these cost a call of the key service. */
export interface Authorised extends Verified {
  readonly contract: Contract
  readonly [authorised]: true
}

/** What records are decided by: as of when the slice began. */
export interface Gate {
  /** This gateway's own name: the `aud` it answers to. */
  readonly audience: string
  readonly maxValueBytes: number
  readonly directory: DirectoryCopy
  readonly contracts: Contracts
  readonly dataKeys: DataKeys
  readonly pseudonyms: PseudonymKeys
  readonly batches: ProvenBatches
  /** The channel of a topic: undefined is a fault of the settings. */
  channelOf(topic: string): Channel | undefined
  /** Our clock, milliseconds since 1970. */
  now(): number
}

/** A logical topic and its own bounds. */
export interface Channel {
  readonly name: string
  /** The longest `exp` − `iat`, seconds. */
  readonly maxLifeSeconds: number
}

/** A record that has been looked at as far as it can be by itself, at its judging time. */
export interface Examined {
  readonly record: SourceRecord
  /** Judging time, seconds since 1970. */
  readonly time: number
  /** What parsed: of a rejected record only a claim. */
  readonly envelope: Envelope | undefined
  /** Passed step 7, or why it did not. */
  readonly result: Authorised | Rejection
  /** Where it is authorised and its issuer has the KEK. */
  readonly keyRequest: KeyRequest | undefined
}

export type Verdict = Admitted | Rejected

export interface Admitted {
  readonly admitted: true
  readonly event: Authorised
  /** One I-JSON text that fits the contract's schema. */
  readonly payload: Uint8Array
  /** What each consumer gets of it, in the order of the contract's routes. */
  readonly outputs: readonly Treated[]
}

/** A payload as one consumer may see it. */
export interface Treated {
  readonly route: Route
  readonly payload: Uint8Array
  /** The output's record key. */
  readonly key: Uint8Array | null
}

export interface Rejected {
  readonly admitted: false
  readonly code: RejectionCode
  /** For people; tells nothing of the payload or of keys. */
  readonly reason: string
  /** What it claims to be; undefined where it does not parse. */
  readonly envelope: Envelope | undefined
}

/** Decides one record. Resolves to a verdict on it; rejects, with nothing changed in `state`, only when it could not decide. */
export async function admit(
  record: SourceRecord,
  gate: Gate,
  state: ReplayState,
  deadline: number,
): Promise<Verdict> {
  const examined = examine(record, gate, state.time)
  const asked = wantedKeys([examined], gate, state)
  const keys = await gate.dataKeys.prepare(asked.requests, deadline)
  try {
    const decision = decide(examined, asked.asking, gate, state, keys)
    decision.apply()
    return decision.verdict
  } finally {
    keys.release()
  }
}

/** What an operator's redrive asks otherwise of a record (docs/operations.md). */
export interface RedriveBounds {
  /** When the gate first decided it, by the audit, seconds since 1970: its key had to be good then. */
  readonly firstJudged: number
  /** Named by the operator: its time may have run out. */
  readonly acceptExpired: boolean
}

/** Steps 1 to 7. Throws `Outage` where the record cannot be judged at all. */
export function examine(
  record: SourceRecord,
  gate: Gate,
  highestTime: number,
  redrive?: RedriveBounds,
): Examined {
  const channel = gate.channelOf(record.topic)
  if (channel === undefined)
    throw new Outage('channel-unknown', `topic ${record.topic} has no channel: name it in the settings`)
  const time = judgingTime(record, gate.now(), highestTime)
  let envelope: Envelope | undefined
  try {
    envelope = parseRecord(record, gate.maxValueBytes)
    const place = { channel: channel.name, partition: record.partition, key: record.key }
    const bounds = { audience: gate.audience, time, maxLifeSeconds: channel.maxLifeSeconds, ...redrive }
    const event = authenticateAndAuthorise(envelope, place, bounds, gate)
    return { record, time, envelope, result: event, keyRequest: keyRequestOf(event, gate.directory) }
  } catch (error) {
    if (!(error instanceof Rejection)) throw error
    return { record, time, envelope, result: error, keyRequest: undefined }
  }
}

function authenticateAndAuthorise(
  envelope: Envelope,
  place: Place,
  bounds: Parameters<typeof authenticate>[3],
  gate: Gate,
): Authorised {
  const verified = authenticate(envelope, place, gate.directory, bounds, gate.batches)
  const { iss, ce } = verified.body.claims
  const contract = findContract(
    place.channel,
    { iss, type: ce.get('type') ?? '', source: ce.get('source') ?? '' },
    gate.contracts,
  )
  const stage: Omit<Authorised, typeof authorised> = { ...verified, contract }
  return stage as Authorised
}

function keyRequestOf(event: Authorised, directory: DirectoryCopy): KeyRequest | undefined {
  const { claims, recipient } = event.body
  const kek = directory.snapshot.kek(recipient.kekId, claims.iss)
  if (kek === undefined) return undefined
  return {
    iss: claims.iss,
    aud: claims.aud,
    type: event.contract.type,
    kekId: recipient.kekId,
    wrapped: recipient.wrapped,
    kek,
  }
}

/** The data keys that these records will need, in order, and those among the records that are the first to ask for one. */
export interface AskedKeys {
  readonly requests: readonly KeyRequest[]
  readonly asking: ReadonlySet<Examined>
}

/** What to prepare for these records. */
export function wantedKeys(slice: readonly Examined[], gate: Gate, state: ReplayState): AskedKeys {
  const requests = keysAtHand(slice, gate)
  return requests === undefined ? askAhead(slice, gate, state) : { requests, asking: NONE }
}

const NONE: ReadonlySet<Examined> = new Set()

/** The requests of a slice, where all of them are at hand: then none of them costs a call, whatever becomes of its record. */
function keysAtHand(slice: readonly Examined[], gate: Gate): KeyRequest[] | undefined {
  const requests: KeyRequest[] = []
  let last: KeyRequest | undefined
  for (const { keyRequest } of slice) {
    if (keyRequest === undefined || (last !== undefined && isSameKey(last, keyRequest))) continue
    if (!gate.dataKeys.holds(keyRequest)) return undefined
    requests.push(keyRequest)
    last = keyRequest
  }
  return requests
}

/**
 * Asks ahead with steps 8 and 9 on a copy of the state, so that neither a replay nor a record over its limits costs a
 * call. Who names a key that is not at hand asks for it, until one who does has been let through.
 */
function askAhead(slice: readonly Examined[], gate: Gate, state: ReplayState): AskedKeys {
  const ahead = state.fork()
  const requests: KeyRequest[] = []
  const asking = new Set<Examined>()
  const paid = new Set<string>()
  for (const examined of slice) {
    const { result, keyRequest, time } = examined
    if (result instanceof Rejection) continue
    const name = keyRequest === undefined || gate.dataKeys.holds(keyRequest) ? undefined : nameOf(keyRequest)
    if (name !== undefined && !paid.has(name)) asking.add(examined)
    const claimant = claimantOf(result, examined, asking)
    const ruling = ahead.judge(claimant, time)
    ahead.decide(time, claimant, ruling)
    if (ruling.rejection !== undefined || keyRequest === undefined) continue
    // Only now: a record that is refused pays for nobody else's key.
    if (name !== undefined) paid.add(name)
    requests.push(keyRequest)
  }
  return { requests, asking }
}

function claimantOf(event: Authorised, examined: Examined, asking: ReadonlySet<Examined>): Claimant {
  const { claims, ciphertext } = event.body
  const { contract } = event
  const fits = ciphertext.length - A256GCM.tagBytes <= contract.maxBytes
  const asked = asking.has(examined) ? examined.keyRequest : undefined
  const askedKey = asked && nameOf(asked)
  return { claims, type: contract.type, perSecond: contract.perSecond, fits, askedKey }
}

/** A verdict that the state does not know of yet. */
export interface Decision {
  readonly verdict: Verdict
  /** Tells the state, once and in order. Not to be called where the record ends in an outage after all. */
  apply(): void
}

/** Steps 8 to 11, at once. Throws `Outage` where the key service did not say; `state` is only asked. */
export function decide(
  examined: Examined,
  asking: ReadonlySet<Examined>,
  gate: Gate,
  state: Memory,
  keys: PreparedKeys,
): Decision {
  const { result, envelope, time } = examined
  if (result instanceof Rejection)
    return { verdict: rejected(result, envelope), apply: () => state.decide(time) }
  const claimant = claimantOf(result, examined, asking)
  const ruling = state.judge(claimant, time)
  const verdict =
    ruling.rejection === undefined
      ? openAndCheck(examined, result, gate, keys)
      : rejected(ruling.rejection, envelope)
  return { verdict, apply: () => state.decide(time, claimant, ruling) }
}

function openAndCheck(examined: Examined, event: Authorised, gate: Gate, keys: PreparedKeys): Verdict {
  try {
    const request = examined.keyRequest
    if (request === undefined) throw new Rejection('undecryptable', UNDECRYPTABLE)
    const payload = keys.lend(request, (dataKey) => open(event, dataKey))
    event.contract.payload.check(event.body.claims.contentType, payload)
    const outputs = event.contract.routes.map((route) => treat(route, payload, examined.record.key, gate))
    return { admitted: true, event, payload, outputs }
  } catch (error) {
    if (!(error instanceof Rejection)) throw error
    return rejected(error, examined.envelope)
  }
}

function treat(route: Route, payload: Uint8Array, key: Uint8Array | null, gate: Gate): Treated {
  const treated = route.treat(payload, gate.pseudonyms)
  // Treatments may lengthen, and no reader takes a longer ciphertext.
  if (treated.length > MAX_PLAINTEXT_BYTES)
    throw new Rejection('over-limit', `what ${route.consumer} would get is longer than an event may be`)
  return { route, payload: treated, key: route.partitionBy === undefined ? key : route.keyOf(treated) }
}

/** A verdict against a record. */
export function rejected(rejection: Rejection, envelope: Envelope | undefined): Rejected {
  return { admitted: false, code: rejection.code, reason: rejection.message, envelope }
}
