/** Fakes with real cryptography and switches, for the tests of keys. */
import type { DataKey } from '../../lib/envelope/crypto.ts'
import { generateKeyPair, type PublicKey, random } from '../../lib/envelope/crypto.ts'
import { ED25519 } from '../../lib/envelope/suite.ts'
import { Outage, Rejection } from '../../lib/errors.ts'
import {
  type DirectorySnapshot,
  type KekRow,
  type SigningKeyRow,
  snapshotFrom,
} from '../../lib/keys/directory.ts'
import type { Clock, DocumentSource, EncryptionContext, Kek, KeyService } from '../../lib/ports.ts'

export interface ManualClock extends Clock {
  ms: number
}

export const START_MS = 1_795_000_000_000

export function manualClock(ms: number = START_MS): ManualClock {
  return {
    ms,
    now() {
      return this.ms
    },
  }
}

export const KEK: Kek = { kekId: 'orders-2026', provider: 'fake', key: 'kek-1' }

export const kekRow = (iss: readonly string[], kek: Kek = KEK): KekRow => ({
  ...kek,
  kekIdBytes: Buffer.from(kek.kekId),
  iss,
})

export const key: PublicKey = generateKeyPair(ED25519).publicKey

export const signingRow = (changes: Partial<SigningKeyRow> = {}): SigningKeyRow => ({
  kid: Buffer.from('kid-1'),
  kidText: Buffer.from('kid-1').toString('base64url'),
  iss: 'shipping-service',
  key,
  state: 'active',
  notBefore: 1000,
  notAfter: 2000,
  compromisedAt: null,
  ...changes,
})

export const snapshotOf = (
  keks: readonly KekRow[],
  signingKeys: readonly SigningKeyRow[] = [],
): DirectorySnapshot => snapshotFrom({ version: 1, issuedAt: 0, expiresAt: 1, signingKeys, keks })

/** What must be there. */
export function nth<T>(list: readonly T[], index: number): T {
  const found = list[index]
  if (found === undefined) throw new Error(`nothing at ${index}`)
  return found
}

/** A promise that the test settles. */
export function gate<T = void>() {
  return Promise.withResolvers<T>()
}

export interface FakeKeyService extends KeyService {
  readonly calls: { kind: 'generate' | 'unwrap'; kek: Kek; context: EncryptionContext; deadline: number }[]
  /** What unwrap or generate waits for or throws first. */
  before: (kind: 'generate' | 'unwrap', wrapped: Uint8Array | undefined) => Promise<void>
  running: number
  mostRunning: number
  /** Every key that was given out, as the very bytes. */
  readonly given: Uint8Array[]
  wrap(context: EncryptionContext): Uint8Array
}

/** Wraps by number; the context must be the same to unwrap. */
export function fakeKeyService(): FakeKeyService {
  const wrappedKeys = new Map<string, { bytes: Buffer; context: string }>()
  const wrap = (context: EncryptionContext): Uint8Array => {
    const wrapped = random(184)
    wrappedKeys.set(wrapped.toString('hex'), { bytes: random(32), context: JSON.stringify(context) })
    return wrapped
  }
  const fake: FakeKeyService = {
    calls: [],
    given: [],
    running: 0,
    mostRunning: 0,
    before: () => Promise.resolve(),
    wrap,
    async generate(kek, context, deadline) {
      fake.calls.push({ kind: 'generate', kek, context, deadline })
      await fake.before('generate', undefined)
      const wrapped = wrap(context)
      const dataKey = Buffer.from(wrappedKeys.get(Buffer.from(wrapped).toString('hex'))?.bytes ?? [])
      fake.given.push(dataKey)
      return { dataKey, wrapped }
    },
    async unwrap(kek, wrapped, context, deadline) {
      fake.calls.push({ kind: 'unwrap', kek, context, deadline })
      fake.running += 1
      fake.mostRunning = Math.max(fake.mostRunning, fake.running)
      try {
        await fake.before('unwrap', wrapped)
      } finally {
        fake.running -= 1
      }
      const known = wrappedKeys.get(Buffer.from(wrapped).toString('hex'))
      if (known?.context !== JSON.stringify(context)) throw new Rejection('undecryptable', 'no')
      const bytes = Buffer.from(known.bytes)
      fake.given.push(bytes)
      return bytes
    },
  }
  return fake
}

export const isWiped = (bytes: Uint8Array): boolean => bytes.every((byte) => byte === 0)

export const unavailable = (): Outage => new Outage('key-service-unavailable', 'switched off')

export const commitmentOf = (dataKey: DataKey): string => Buffer.from(dataKey.commitment).toString('hex')

/** A document that the test replaces, and counts the reads of. */
export interface FakeSource extends DocumentSource {
  bytes: Uint8Array
  etag: string
  reads: number
  before: () => Promise<void>
}

export function fakeSource(bytes: Uint8Array): FakeSource {
  return {
    bytes,
    etag: '1',
    reads: 0,
    before: () => Promise.resolve(),
    async read(etag) {
      this.reads += 1
      await this.before()
      return etag === this.etag ? 'unchanged' : { bytes: this.bytes, etag: this.etag }
    },
  }
}
