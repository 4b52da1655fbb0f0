/**
 * Turns a verdict into what it writes (sealed-event.md §7, contracts.md, audit.md §1): admitted → an output for each
 * consumer, rejected → the quarantine, and always an audit entry. Sealed outputs get their signature when the slice
 * closes, one for all that go to a partition.
 */
import {
  type EventClaims,
  encodeEntry,
  type Policy,
  recordKey,
  type RecordPlace,
  type Redriven,
} from '../audit/entry.ts'
import { Outage, Rejection } from '../errors.ts'
import { digest } from '../envelope/crypto.ts'
import { type Claims, type Envelope, MAX_CE_ENTRIES } from '../envelope/format.ts'
import { partitionOf } from '../envelope/partition.ts'
import { maxProofBytes, sealBody, type SealedBody } from '../envelope/seal.ts'
import { CONTENT_TYPE_HINT } from '../keys/authenticate.ts'
import type { SealingKeys } from '../keys/sealing-keys.ts'
import { batchBytes, type Header, type Message, type SourceRecord, type TopicPartition } from '../ports.ts'
import { traceContextOf } from '../trace-context.ts'
import { type Admitted, type Examined, type Gate, rejected, type Treated, type Verdict } from './admit.ts'

/** What one verdict writes. */
export interface Draft {
  /** The one it was asked for, or a rejection of what no transaction can hold. */
  readonly verdict: Verdict
  readonly outputs: readonly DraftOutput[]
  /** The quarantined record, where it was rejected. */
  readonly quarantine: Message | undefined
  readonly entry: Message
  /** What each `topic/partition` gets of it, at most, with the proofs that are still to come. */
  readonly shares: ReadonlyMap<string, Share>
}

/** What a topic-partition gets of one record. */
export interface Share {
  readonly bytes: number
  readonly messages: number
}

/** An output; of a sealed one the value is still to be signed, and `message.value` is its body alone. */
export interface DraftOutput {
  readonly message: Message
  readonly sealed: SealedBody | undefined
}

/** The gate as a sender: of outputs, quarantine and audit of one source partition. */
export interface Outlet {
  /** Settings. */
  readonly names: OutletNames
  readonly sealingKeys: SealingKeys
  readonly numbers: NumberedSession
  readonly auditPartition: number
  readonly quarantinePartition: number
  /** The sink's bound of what one transaction gives to a topic-partition in several messages. */
  readonly maxBatchBytes: number
  /** Of the gateway's signing key. */
  readonly kidBytes: number
  /** Asked of the sink once and remembered for a while. */
  partitionsOf(topic: string, deadline: number): Promise<number>
}

export interface OutletNames {
  readonly auditTopic: string
  readonly quarantineTopic: string
  /** The KEK of the gateway's own outputs, by its name in the directory. */
  readonly kekId: string
  /** The topic of an output channel. */
  topicOf(channel: string): string
}

/** A session of 16 random bytes, and the next number for each channel and partition: one per source partition and process. */
export class NumberedSession {
  readonly id: Uint8Array
  readonly #next = new Map<string, bigint>()

  constructor(id: Uint8Array) {
    this.id = id
  }

  /** A number is never given twice, even if what it was for is never sent. */
  take(channel: string, partition: number): bigint {
    const name = `${partition}/${channel}`
    const number = this.#next.get(name) ?? 0n
    this.#next.set(name, number + 1n)
    return number
  }
}

/** A record that comes back from quarantine: its entry stands on the control chain, and if it is refused it stays where it is. */
export interface RedrivenDraft {
  readonly entry: RecordPlace
  readonly note: Redriven
}

/**
 * Rejects with `Outage` where a topic or a data key for an output is not to be had. What no transaction can hold is
 * drafted as a rejection instead: record keys and attributes go to every consumer, and treatments may lengthen, so that
 * an output may outgrow what came in, and would hold its partition up for ever.
 */
export async function draftOf(
  examined: Examined,
  verdict: Verdict,
  gate: Gate,
  outlet: Outlet,
  deadline: number,
  redriven?: RedrivenDraft,
): Promise<Draft> {
  const outputs: DraftOutput[] = []
  if (verdict.admitted)
    for (const treated of verdict.outputs)
      outputs.push(await outputOf(examined, verdict, treated, gate, outlet, deadline))
  const quarantine =
    verdict.admitted || redriven !== undefined
      ? undefined
      : quarantineMessage(examined.record, verdict.code, gate, outlet)
  const entry = entryOf(examined, verdict, gate, outlet, redriven)
  const shares = sharesOf(outputs, quarantine, entry, outlet)
  if (!verdict.admitted || isWritable(shares, gate, outlet))
    return { verdict, outputs, quarantine, entry, shares }
  const tooLong = new Rejection('over-limit', 'what its consumers would get is longer than their topics take')
  return draftOf(examined, rejected(tooLong, verdict.event), gate, outlet, deadline, redriven)
}

function sharesOf(
  outputs: readonly DraftOutput[],
  quarantine: Message | undefined,
  entry: Message,
  outlet: Outlet,
): ReadonlyMap<string, Share> {
  const shares = new Map<string, Share>()
  const add = (message: Message, more: number): void => {
    const place = placeOf(message)
    const { bytes, messages } = shares.get(place) ?? { bytes: 0, messages: 0 }
    shares.set(place, { bytes: bytes + batchBytes(message) + more, messages: messages + 1 })
  }
  const proof = maxProofBytes(outlet.kidBytes)
  for (const { message, sealed } of outputs) add(message, sealed === undefined ? 0 : proof)
  if (quarantine !== undefined) add(quarantine, 0)
  add(entry, 0)
  return shares
}

/** The name of a topic-partition in `Draft.shares`. */
export const placeOf = ({ topic, partition }: TopicPartition): string => `${topic}/${partition}`

/** Outputs and quarantine take records up to the ingress limit and this (sealed-event.md §7). */
const ALLOWANCE_BYTES = 65_536

const longestMessage = (gate: Gate): number => gate.maxValueBytes + ALLOWANCE_BYTES

function isWritable(shares: ReadonlyMap<string, Share>, gate: Gate, outlet: Outlet): boolean {
  for (const { bytes, messages } of shares.values())
    if (bytes > (messages > 1 ? outlet.maxBatchBytes : longestMessage(gate))) return false
  return true
}

async function outputOf(
  examined: Examined,
  verdict: Admitted,
  treated: Treated,
  gate: Gate,
  outlet: Outlet,
  deadline: number,
): Promise<DraftOutput> {
  const { route, key } = treated
  const topic = outlet.names.topicOf(route.channel)
  const count = await outlet.partitionsOf(topic, deadline)
  // Without a key the outputs of one source partition stay together, and so in order.
  const partition = partitionOf(
    key ?? Buffer.from(`${examined.record.topic}/${examined.record.partition}`),
    count,
  )
  const ce = withCausation(verdict.event.body.claims.ce)
  const trace = traceHeaders(examined.record.headers)
  if (route.form === 'plain') {
    return {
      message: { topic, partition, key, value: treated.payload, headers: [...plainHeaders(ce), ...trace] },
      sealed: undefined,
    }
  }
  const kek = gate.directory.snapshot.kek(outlet.names.kekId, gate.audience)
  if (kek === undefined)
    throw new Outage(
      'key-service-denied',
      `the key directory does not give ${gate.audience} the KEK ${outlet.names.kekId}: add it to the row's iss`,
    )
  const scope = { kek, iss: gate.audience, aud: route.consumer, type: verdict.event.contract.type }
  const place = { channel: route.channel, partition, key }
  const seal = (dataKey: Parameters<typeof sealBody>[3], wrapped: Uint8Array): SealedBody => {
    const claims: Claims = {
      iss: gate.audience,
      aud: route.consumer,
      iat: BigInt(examined.time),
      exp: BigInt(examined.time + route.lifeSeconds),
      contentType: 'application/json',
      ce,
      session: outlet.numbers.id,
      number: outlet.numbers.take(route.channel, partition),
    }
    return sealBody(claims, place, treated.payload, dataKey, { kekId: Buffer.from(kek.kekId), wrapped })
  }
  const sealed =
    outlet.sealingKeys.tryLend(scope, seal)?.value ?? (await outlet.sealingKeys.lend(scope, deadline, seal))
  return { message: { topic, partition, key, value: sealed.body, headers: [...hints(ce), ...trace] }, sealed }
}

/** CloudEvents attributes are carried over unchanged, with the input's id as `causationid` where there is none and room. */
function withCausation(ce: ReadonlyMap<string, string>): ReadonlyMap<string, string> {
  const id = ce.get('id')
  if (id === undefined || ce.has('causationid') || ce.size >= MAX_CE_ENTRIES) return ce
  return new Map([...ce, ['causationid', id]])
}

const header = (name: string, value: string): Header => ({ name, value: Buffer.from(value) })

const HINTED = ['id', 'source', 'type', 'specversion'] as const

/** For people and routers: sealed-event.md §2. */
function hints(ce: ReadonlyMap<string, string>): Header[] {
  return [
    header('content-type', CONTENT_TYPE_HINT),
    ...HINTED.map((name) => header(`ce_${name}`, ce.get(name) ?? '')),
  ]
}

/** CloudEvents' Kafka binding, binary mode: the content type stands in the header of that name alone. */
function plainHeaders(ce: ReadonlyMap<string, string>): Header[] {
  const attributes = [...ce].filter(([name]) => name !== 'datacontenttype')
  return [
    header('content-type', 'application/json'),
    ...attributes.map(([name, value]) => header(`ce_${name}`, value)),
  ]
}

/** Headers added to a quarantined record, after its own: a reader takes the last of each name. */
export const QUARANTINE_HEADERS = {
  code: 'sealgate-code',
  topic: 'sealgate-topic',
  partition: 'sealgate-partition',
  offset: 'sealgate-offset',
  timestamp: 'sealgate-timestamp',
  /** Only where the record was too long to be kept: its length and its value's digest. */
  omitted: 'sealgate-omitted',
} as const

/**
 * The record's own bytes. One that is longer than any output may be (a producer's compression hides that from the
 * ingress topic's limit) is named by its digest and sizes alone, and stays where it was read.
 */
function quarantineMessage(record: SourceRecord, code: string, gate: Gate, outlet: Outlet): Message {
  const { key, value, headers } = record
  const added = [
    header(QUARANTINE_HEADERS.code, code),
    header(QUARANTINE_HEADERS.topic, record.topic),
    header(QUARANTINE_HEADERS.partition, String(record.partition)),
    header(QUARANTINE_HEADERS.offset, String(record.offset)),
    header(QUARANTINE_HEADERS.timestamp, String(record.timestamp)),
  ]
  const place = { topic: outlet.names.quarantineTopic, partition: outlet.quarantinePartition }
  const whole = { ...place, key, value, headers: [...headers, ...added] }
  const length = batchBytes(whole)
  if (length <= longestMessage(gate)) return whole
  const sha256 = digest(value ?? new Uint8Array()).toString('hex')
  const omitted = header(QUARANTINE_HEADERS.omitted, `${length} bytes; value sha256:${sha256}`)
  return { ...place, key: null, value: null, headers: [...added, omitted] }
}

function entryOf(
  examined: Examined,
  verdict: Verdict,
  gate: Gate,
  outlet: Outlet,
  redriven: RedrivenDraft | undefined,
): Message {
  const { record } = examined
  const { topic, partition, offset } = redriven?.entry ?? record
  const policy = policyOf(gate)
  const trace = traceContextOf(record.headers)?.traceparent ?? null
  const common = {
    ...{ timeMs: gate.now(), topic, partition, offset, policy, trace },
    ...(redriven === undefined ? {} : { redriven: redriven.note }),
  }
  const value = encodeEntry(
    verdict.admitted
      ? {
          kind: 'event.admitted',
          ...common,
          digest: digest(record.value ?? new Uint8Array()),
          event: claimsOf(verdict.event),
          outputs: verdict.outputs.map(({ route }) => ({ channel: route.channel, consumer: route.consumer })),
        }
      : {
          kind: 'event.rejected',
          ...common,
          code: verdict.code,
          digest: record.value === null ? null : digest(record.value),
          event: verdict.envelope === undefined ? null : claimsOf(verdict.envelope),
        },
  )
  const key = Buffer.from(recordKey(topic, partition, offset))
  return { topic: outlet.names.auditTopic, partition: outlet.auditPartition, key, value, headers: [] }
}

/** The same object for all entries of a gate, by which their encoder knows it again. */
const policies = new WeakMap<Gate, Policy>()

function policyOf(gate: Gate): Policy {
  const known = policies.get(gate)
  if (known !== undefined) return known
  const policy = { bundle: gate.contracts.digest, directory: gate.directory.snapshot.version }
  policies.set(gate, policy)
  return policy
}

function claimsOf({ body, proof }: Envelope): EventClaims {
  const { iss, ce } = body.claims
  return {
    iss,
    kid: proof.kid,
    id: ce.get('id') ?? '',
    source: ce.get('source') ?? '',
    type: ce.get('type') ?? '',
  }
}

/** Trace context to carry on, in its valid form only: nothing that a stranger could make an output too long with. */
function traceHeaders(headers: readonly Header[]): Header[] {
  const trace = traceContextOf(headers)
  if (trace === undefined) return []
  const parent = header('traceparent', trace.traceparent)
  if (trace.tracestate === undefined) return [parent]
  return [parent, { name: 'tracestate', value: Buffer.from(trace.tracestate, 'latin1') }]
}
