/**
 * Producers and a gate on one key service that is slow or fails when told: what data keys cost, and whom they hold up
 * (keys.md §2). Real sealers, admission up to the verdict, real cryptography; Kafka is a list.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Gate, Verdict } from '../lib/admission/admit.ts'
import { ReplayState } from '../lib/admission/replay.ts'
import { systemClock } from '../lib/client/machine.ts'
import type { EventInput } from '../lib/client/event.ts'
import { createSealer, type Sealer } from '../lib/client/sealer.ts'
import type { SealedBatch } from '../lib/client/sealer-options.ts'
import { contractsFrom } from '../lib/contract/bundle.ts'
import { generateKeyPair } from '../lib/envelope/crypto.ts'
import { parse } from '../lib/envelope/format.ts'
import { ED25519 } from '../lib/envelope/suite.ts'
import { ProvenBatches } from '../lib/envelope/verify.ts'
import { Outage } from '../lib/errors.ts'
import { createDataKeys, type DataKeyCounts } from '../lib/keys/data-keys.ts'
import {
  type DirectorySnapshot,
  type KekRow,
  type SigningKeyRow,
  snapshotFrom,
} from '../lib/keys/directory.ts'
import { NO_PSEUDONYMS } from '../lib/keys/pseudonyms.ts'
import { shieldKeyService } from '../lib/keys/key-service-shield.ts'
import { localSigner } from '../lib/keys/signer.ts'
import { openLocalKeyService } from '../lib/local/key-service.ts'
import { localKeyPort } from '../lib/local/key-service-port.ts'
import type { EncryptionContext, Kek, KeyService, SourceRecord } from '../lib/ports.ts'
import { CHANNEL, contractFile, decideSlice, GATEWAY, SOURCE, TYPE } from './world.ts'

export interface DataKeyWorldOptions {
  readonly producers: number
  readonly partitions: number
  /** Bounds of a data key where it seals; its uses by default as always. */
  readonly maxAgeMs: number
  readonly maxUses?: number
  /** How long the gate keeps an unwrapped key. */
  readonly cacheMs: number
}

/** A call as the key service saw it. */
export interface Call {
  readonly kind: 'generate' | 'unwrap'
  readonly kek: string
  /** When it came, milliseconds. */
  readonly at: number
  /** The wrapped key, in base64; of a call to generate that failed undefined. */
  wrapped: string | undefined
  isAnswered: boolean
}

/** The embedded key service behind a delay, and a switch. */
export class SlowKeyService implements KeyService {
  readonly #inner: KeyService
  readonly calls: Call[] = []
  /** By wrapped key: when it was asked for. */
  readonly born = new Map<string, number>()
  /** Before each answer. */
  delayMs = 0
  isFailing = false

  constructor(inner: KeyService) {
    this.#inner = inner
  }

  async generate(kek: Kek, context: EncryptionContext, deadline: number) {
    const call = await this.#answer('generate', kek, undefined)
    const made = await this.#inner.generate(kek, context, deadline)
    call.wrapped = nameOf(made.wrapped)
    this.born.set(call.wrapped, call.at)
    return made
  }

  async unwrap(kek: Kek, wrapped: Uint8Array, context: EncryptionContext, deadline: number) {
    await this.#answer('unwrap', kek, nameOf(wrapped))
    return this.#inner.unwrap(kek, wrapped, context, deadline)
  }

  async #answer(kind: Call['kind'], { key: kek }: Kek, wrapped: string | undefined): Promise<Call> {
    const call: Call = { kind, kek, at: systemClock.now(), wrapped, isAnswered: false }
    this.calls.push(call)
    if (this.delayMs > 0) await new Promise<void>((resolve) => setTimeout(resolve, this.delayMs))
    if (this.isFailing) throw new Outage('key-service-unavailable', 'told to fail')
    call.isAnswered = true
    return call
  }
}

const nameOf = (wrapped: Uint8Array): string => Buffer.from(wrapped).toString('base64')

/** What became of the records that a gate took. */
export interface Verdicts {
  admitted: number
  /** By code. */
  readonly rejected: Map<string, number>
  /** Of slices that stopped, and came again. */
  outages: number
}

export interface DataKeyWorld {
  readonly keyService: SlowKeyService
  readonly issuers: readonly string[]
  readonly sealers: readonly Sealer[]
  readonly verdicts: Verdicts
  /** Milliseconds after a data key was asked for that it was last sealed with, at the most. */
  readonly oldestUseMs: number
  /** Takes what waits, each partition's by itself, the partitions side by side. What cannot be decided stays. */
  admit(deadlineMs: number): Promise<void>
  readonly waiting: number
  readonly opening: DataKeyCounts
  /** Takes an issuer's KEK out of the directory, or puts it back. */
  setKek(iss: string, isThere: boolean): void
  close(): Promise<void>
}

export async function makeDataKeyWorld(options: DataKeyWorldOptions): Promise<DataKeyWorld> {
  const folder = await mkdtemp(join(tmpdir(), 'sealgate-data-keys-'))
  const local = await openLocalKeyService(folder, systemClock)
  const keyService = new SlowKeyService(localKeyPort(local, systemClock))
  const issuers = Array.from({ length: options.producers }, (_, index) => `urn:shop:producer-${index}`)
  const seconds = Math.floor(systemClock.now() / 1000)
  const signingKeys: SigningKeyRow[] = []
  const keks: KekRow[] = []
  const sealers: Sealer[] = []
  const queues = Array.from({ length: options.partitions }, () => new Array<SourceRecord>())
  let offset = 0n
  let oldestUseMs = 0

  /** What Kafka does: an offset and a time for each record, in its partition. */
  const deliver = ({ topic, messages }: SealedBatch): Promise<void> => {
    const now = systemClock.now()
    // A group has one key, or two where it changes: looking into each record would be half of what is measured.
    for (const message of [messages.at(0), messages.at(-1)]) {
      if (message === undefined) continue
      const born = keyService.born.get(nameOf(parse(message.value, 1_048_576).body.recipient.wrapped))
      if (born === undefined) throw new TypeError('sealed with a key that nobody made')
      oldestUseMs = Math.max(oldestUseMs, now - born)
    }
    for (const { partition, key, value, headers } of messages) {
      queues[partition]?.push({
        ...{ topic, partition, offset: offset++, timestamp: now, timestampType: 'LogAppendTime', key, value },
        headers: Object.entries(headers).map(([header, text]) => ({
          name: header,
          value: Buffer.from(text),
        })),
      })
    }
    return Promise.resolve()
  }

  for (const iss of issuers) {
    const { publicKey, privateKey } = generateKeyPair(ED25519)
    const signer = localSigner(privateKey)
    const kid = signer.kid
    const times = { notBefore: seconds - 86_400, notAfter: seconds + 86_400, compromisedAt: null }
    const kidText = Buffer.from(kid).toString('base64url')
    signingKeys.push({ kid, kidText, iss, key: publicKey, state: 'active', ...times })
    const kek = { kekId: iss, provider: 'local', key: (await local.createKey()).arn }
    keks.push({ ...kek, kekIdBytes: Buffer.from(iss), iss: [iss] })
    const bounds = { maxAgeMs: options.maxAgeMs, ...(options.maxUses && { maxUses: options.maxUses }) }
    const rest = { signer, kek, keyService, deliver, partitions: options.partitions, ...bounds }
    sealers.push(createSealer({ iss, audience: GATEWAY, ...rest }))
  }

  const without = new Set<string>()
  let version = 0
  const snapshotNow = (): DirectorySnapshot =>
    snapshotFrom({
      ...{ version: ++version, issuedAt: seconds, expiresAt: seconds + 86_400, signingKeys },
      keks: keks.filter(({ kekId }) => !without.has(kekId)),
    })
  let snapshot = snapshotNow()
  const dataKeys = createDataKeys({
    keyService: shieldKeyService(keyService, { clock: systemClock, random: Math.random }),
    clock: systemClock,
    maxAgeMs: options.cacheMs,
  })
  const file = contractFile(TYPE)
  const publish = Object.fromEntries(issuers.map((iss) => [iss, { sources: [SOURCE] }]))
  const contracts = contractsFrom([{ ...file, publish }])
  const limits = { maxSessions: 64, newDataKeysPerMinute: 60 }
  const lanes = queues.map((queue) => ({
    queue,
    batches: new ProvenBatches(),
    state: new ReplayState(limits, 1_048_576),
  }))
  const verdicts: Verdicts = { admitted: 0, rejected: new Map(), outages: 0 }

  const gateOf = (batches: ProvenBatches): Gate => ({
    audience: GATEWAY,
    maxValueBytes: 1_048_576,
    directory: { fresh: true, snapshot },
    contracts,
    dataKeys,
    pseudonyms: NO_PSEUDONYMS,
    batches,
    channelOf: () => ({ name: CHANNEL, maxLifeSeconds: 86_400 }),
    now: () => systemClock.now(),
  })

  /** Stops at the first outage. */
  const admitLane = async ({ queue, batches, state }: (typeof lanes)[number], deadlineMs: number) => {
    let decided = 0
    const onVerdict = (verdict: Verdict): void => {
      decided += 1
      if (verdict.admitted) verdicts.admitted += 1
      else verdicts.rejected.set(verdict.code, (verdicts.rejected.get(verdict.code) ?? 0) + 1)
    }
    try {
      const deadline = systemClock.now() + deadlineMs
      await decideSlice(queue.slice(0, MAX_SLICE), gateOf(batches), state, deadline, onVerdict)
    } catch (error) {
      if (!(error instanceof Outage)) throw error
      verdicts.outages += 1
    } finally {
      queue.splice(0, decided)
    }
  }

  return {
    keyService,
    issuers,
    sealers,
    verdicts,
    get oldestUseMs() {
      return oldestUseMs
    },
    admit: async (deadlineMs) => {
      await Promise.all(lanes.map((lane) => admitLane(lane, deadlineMs)))
    },
    get waiting() {
      return queues.reduce((sum, queue) => sum + queue.length, 0)
    },
    get opening() {
      return dataKeys.counts()
    },
    setKek(iss, isThere) {
      if (isThere) without.delete(iss)
      else without.add(iss)
      snapshot = snapshotNow()
      dataKeys.retain(snapshot)
    },
    close: async () => {
      await Promise.all(sealers.map((sealer) => sealer.close()))
      dataKeys.close()
      await rm(folder, { recursive: true, force: true })
    },
  }
}

/** As Lambda hands them over at the most. */
const MAX_SLICE = 2000

const PAYLOAD = Buffer.from(
  JSON.stringify({
    ...{ orderId: 'o-1', placedAt: '2026-09-21T09:33:20Z', currency: 'EUR', total: 19.9 },
    ...{ customer: { id: 'c-1' }, items: [{ sku: 'SKU-1', quantity: 1, price: 19.9 }] },
  }),
)

/** `count` small orders as an application gives them to a sealer, all for one partition. */
export const smallOrders = (count: number, partition: number): EventInput[] =>
  Array.from({ length: count }, () => ({ source: SOURCE, type: TYPE, dataBytes: PAYLOAD, partition }))

/**
 * The shortest time between two calls that unwrapped the same key, milliseconds; infinite where none was unwrapped twice.
 * No shorter than the gate's cache life: no more than one call for each data key and life.
 */
export function shortestRepeatMs(calls: readonly Call[]): number {
  const last = new Map<string, number>()
  let shortest = Infinity
  for (const { kind, wrapped = '', at, isAnswered } of calls) {
    if (kind !== 'unwrap' || !isAnswered) continue
    const before = last.get(wrapped)
    if (before !== undefined) shortest = Math.min(shortest, at - before)
    last.set(wrapped, at)
  }
  return shortest
}
