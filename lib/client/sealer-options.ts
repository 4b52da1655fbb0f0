/** What a sealer is told, and what it makes. */
import type { Contracts } from '../contract/contract.ts'
import { suiteOf } from '../envelope/suite.ts'
import { HARD_MAX_AGE_MS, HARD_MAX_USES } from '../keys/sealing-keys.ts'
import type { Clock, Kek, KeyService, Signer } from '../ports.ts'
import type { TraceContext } from '../trace-context.ts'
import { aFunction, isObject, isText, objectWith, optional, type Rule, text, wholeNumber } from './options.ts'

export interface SealerOptions {
  /** Who seals: this producer's name in the key directory. 1 to 128 bytes. */
  readonly iss: string
  /** For whom: the gateway's name. 1 to 128 bytes. */
  readonly audience: string
  /** This producer's signing key; its public half stands in the key directory. */
  readonly signer: Signer
  /** The key-encryption key under which the key directory lets this producer seal. */
  readonly kek: Kek
  /** Makes data keys. Called about once an hour for each event type; shielded here (retries, breaker, quota). */
  readonly keyService: KeyService
  /** How many partitions a topic has, or how to find out: asked again when the answer is 5 minutes old. */
  readonly partitions: number | ((topic: string) => number | Promise<number>)
  /**
   * Hands one batch to Kafka and settles when Kafka has taken it or not: `(batch) => producer.send(batch)`. Must settle
   * in bounded time (kafkajs does): the next batch of the partition waits for it. Needed for `send`.
   */
  readonly deliver?: (batch: SealedBatch) => Promise<unknown>
  /** The topic of a channel (the logical name, which is signed). Default: the same name. */
  readonly topicOf?: (channel: string) => string
  /** With contracts, events are refused that the gateway would refuse by them. */
  readonly contracts?: Contracts
  /** How long an event is good for, in seconds: 1 to 86,400, by default an hour. */
  readonly lifeSeconds?: number
  /** The gateway's limit of a record's value, in bytes. Default 1 MiB. */
  readonly maxValueBytes?: number
  /**
   * Bound of what one `deliver` gives to one partition, in bytes, unless one event alone is larger; below the topic's
   * `max.message.bytes`. Default 900,000.
   */
  readonly maxBatchBytes?: number
  /** Events that wait to be sealed or sent, in bytes: beyond, calls reject with `Outage('sink-unavailable')`. Default 64 MiB. */
  readonly maxWaitingBytes?: number
  /** Events under one data key: by default 2²⁴, at most 2³². */
  readonly maxUses?: number
  /** Life of a data key in milliseconds: by default an hour, at most 24. */
  readonly maxAgeMs?: number
  /** How long a call waits for partition count, data keys and signature, each, in milliseconds. Default 10,000. */
  readonly timeoutMs?: number
  /**
   * The trace that a call belongs to, asked for at the call, for events that bring none; sent as plain headers, which are
   * not signed. Default: OpenTelemetry's active context, where the application has set OpenTelemetry up.
   */
  readonly trace?: () => TraceContext | undefined
  readonly clock?: Clock
}

/** What kafkajs' `producer.send` takes. */
export interface SealedBatch {
  topic: string
  messages: SealedMessage[]
}

/** One sealed record. Partition and key are signed: a record that is sent elsewhere, or with another key, is refused. */
export interface SealedMessage {
  partition: number
  key: Buffer | null
  value: Buffer
  headers: Record<string, string>
}

const MAX_PARTITIONS = 2 ** 31 - 1

export const partitionCountRule: Rule = wholeNumber(1, MAX_PARTITIONS)

const partitionsRule: Rule = (value) =>
  typeof value === 'function' || partitionCountRule(value) === undefined
    ? undefined
    : 'must be a number of partitions from 1, or a function that gives it for a topic'

const signerRule: Rule = (value) => {
  if (!isObject(value) || typeof value['sign'] !== 'function') return 'must be a Signer: kid, alg and sign()'
  const { kid, alg } = value
  if (!(kid instanceof Uint8Array) || kid.length < 1 || kid.length > 64)
    return 'must have a kid of 1 to 64 bytes'
  return typeof alg === 'number' && suiteOf(alg)
    ? undefined
    : 'must have the alg −19 (Ed25519) or −9 (ESP256)'
}

const kekRule: Rule = (value) =>
  isObject(value) && isText(value['kekId'], 64) && isText(value['provider'], 64) && isText(value['key'], 2048)
    ? undefined
    : 'must have kekId (at most 64 bytes), provider and key, as in the key directory'

export const SEALER_RULES: Readonly<Record<keyof SealerOptions, Rule>> = {
  iss: text(128),
  audience: text(128),
  signer: signerRule,
  kek: kekRule,
  keyService: objectWith('generate', 'unwrap'),
  partitions: partitionsRule,
  deliver: optional(aFunction),
  topicOf: optional(aFunction),
  contracts: optional(objectWith('find')),
  lifeSeconds: optional(wholeNumber(1, 86_400)),
  maxValueBytes: optional(wholeNumber(4096, 16_777_216)),
  maxBatchBytes: optional(wholeNumber(1, 1_073_741_824)),
  maxWaitingBytes: optional(wholeNumber(1, Number.MAX_SAFE_INTEGER)),
  maxUses: optional(wholeNumber(1, HARD_MAX_USES)),
  maxAgeMs: optional(wholeNumber(1, HARD_MAX_AGE_MS)),
  timeoutMs: optional(wholeNumber(1, 600_000)),
  trace: optional(aFunction),
  clock: optional(objectWith('now')),
}
