/** A producer, a gateway's name and a directory in memory, with real cryptography and with switches. */
import { Outage, Rejection } from '../../lib/errors.ts'
import {
  DataKey,
  digest,
  exportPublicJwk,
  generateKeyPair,
  random,
  thumbprint,
} from '../../lib/envelope/crypto.ts'
import { ED25519 } from '../../lib/envelope/suite.ts'
import { type Directory, type KekRow, type SigningKeyRow, snapshotFrom } from '../../lib/keys/directory.ts'
import { localSigner } from '../../lib/keys/signer.ts'
import type { EncryptionContext, Kek, KeyService, Signer } from '../../lib/ports.ts'
import type { KafkaMessage, Opened, OpenedEvent } from '../../lib/client/opener.ts'
import type { SealedMessage, SealerOptions } from '../../lib/client/sealer-options.ts'

export const START = 1_790_000_000_000

/** A clock that stands until it is moved. */
export class HandClock {
  ms: number = START
  now(): number {
    return this.ms
  }
}

/** Wraps data keys under a key of its own, bound to KEK and context; counts, and fails when told. */
export class MemoryKeyService implements KeyService {
  readonly #root = new DataKey(random(32))
  generated = 0
  unwrapped = 0
  readonly askedKeks: string[] = []
  /** The plaintext keys that it gave away: whoever took them wipes them. */
  readonly handed: Uint8Array[] = []
  /** Thrown by every call while it is there. */
  failure: Error | undefined
  /** Fails for these event types alone. */
  readonly failingTypes = new Set<string>()
  /** What a call waits for before it answers. */
  gate: Promise<void> = Promise.resolve()

  async generate(
    kek: Kek,
    context: EncryptionContext,
  ): Promise<{ dataKey: Uint8Array; wrapped: Uint8Array }> {
    this.generated += 1
    await this.gate
    if (this.failure !== undefined) throw this.failure
    if (this.failingTypes.has(context['sealgate:type'] ?? ''))
      throw new Outage('key-service-denied', 'told to fail for this type')
    const dataKey = random(32)
    const nonce = random(12)
    const sealed = this.#root.seal(nonce, boundTo(kek, context), dataKey)
    return { dataKey: this.#hand(dataKey), wrapped: Buffer.concat([nonce, sealed]) }
  }

  async unwrap(kek: Kek, wrapped: Uint8Array, context: EncryptionContext): Promise<Uint8Array> {
    this.unwrapped += 1
    this.askedKeks.push(kek.kekId)
    await this.gate
    if (this.failure !== undefined) throw this.failure
    const key = this.#root.open(wrapped.subarray(0, 12), boundTo(kek, context), wrapped.subarray(12))
    if (key === undefined) throw new Rejection('undecryptable', 'no key of mine')
    return this.#hand(key)
  }

  #hand(key: Uint8Array): Uint8Array {
    const handed = Uint8Array.from(key)
    this.handed.push(handed)
    return handed
  }
}

const boundTo = (kek: Kek, context: EncryptionContext): Uint8Array =>
  digest(Buffer.from(JSON.stringify([kek.key, Object.entries(context).sort()])))

export interface Producer {
  readonly iss: string
  readonly signer: Signer
  readonly row: SigningKeyRow
}

export function producer(iss: string): Producer {
  const { publicKey, privateKey } = generateKeyPair(ED25519)
  const kid = thumbprint(publicKey)
  const kidText = kid.toString('base64url')
  const times = {
    notBefore: START / 1000 - 86_400,
    notAfter: START / 1000 + 86_400 * 90,
    compromisedAt: null,
  }
  const row: SigningKeyRow = { kid, kidText, iss, key: publicKey, state: 'active', ...times }
  return { iss, signer: localSigner(privateKey), row }
}

export const KEK: Kek = { kekId: 'orders-2026', provider: 'memory', key: 'key/orders-2026' }

export function directoryOf(producers: readonly Producer[], keks: readonly KekRow[]): Directory {
  const snapshot = snapshotFrom({
    version: 1,
    issuedAt: START / 1000,
    expiresAt: START / 1000 + 86_400,
    signingKeys: producers.map(({ row }) => row),
    keks,
  })
  return { snapshot: () => Promise.resolve({ snapshot, fresh: true }), onKeksChanged: () => undefined }
}

export const kekRow = (iss: readonly string[], kek: Kek = KEK): KekRow => ({
  ...kek,
  kekIdBytes: Buffer.from(kek.kekId),
  iss,
})

/** All that most tests need: one producer, one consumer named `gate`. */
export function shop() {
  const clock = new HandClock()
  const keyService = new MemoryKeyService()
  const shipping = producer('shipping-service')
  const directory = directoryOf([shipping], [kekRow([shipping.iss])])
  const sealing = {
    iss: shipping.iss,
    audience: 'gate',
    signer: shipping.signer,
    kek: KEK,
    keyService,
    partitions: 4,
    clock,
  } satisfies SealerOptions
  const opening = {
    audience: 'gate',
    issuers: [shipping.iss],
    directory,
    keyService,
    clock,
  }
  return { clock, keyService, shipping, directory, sealing, opening }
}

/** Whether all of these keys have been overwritten. */
export const areWiped = (keys: readonly Uint8Array[]): boolean =>
  keys.length > 0 && keys.every((key) => key.every((byte) => byte === 0))

/** A message as kafkajs gives it to a consumer. */
export function received(message: SealedMessage, offset = '0', timestamp: number = START): KafkaMessage {
  const headers = Object.fromEntries(
    Object.entries(message.headers).map(([name, value]) => [name, Buffer.from(value)]),
  )
  return { key: message.key, value: message.value, headers, offset, timestamp: String(timestamp) }
}

export const publicJwkOf = ({ row }: Producer) => exportPublicJwk(row.key)

/** What is there must be there. */
export function there<T>(value: T | undefined): T {
  if (value === undefined) throw new Error('nothing there')
  return value
}

/** The event of a record that must open. */
export function eventOf(opened: Opened | undefined): OpenedEvent {
  if (opened?.opened !== true) throw new Error(opened?.reason ?? 'nothing there')
  return opened.event
}
