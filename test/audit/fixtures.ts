/** Audit records as the gate writes them, made with real keys. */
import { encodeEntry, type Entry, recordKey } from '../../lib/audit/entry.ts'
import {
  type AuditHead,
  closeSegment,
  type ClosingSlice,
  FIRST_HEAD,
  segmentKey,
} from '../../lib/audit/segment.ts'
import { digest, generateKeyPair, type PublicKey, sign, thumbprint } from '../../lib/envelope/crypto.ts'
import type { AuditSource } from '../../lib/audit/verification.ts'
import { ED25519, type SignatureSuite } from '../../lib/envelope/suite.ts'
import type { Signer } from '../../lib/ports.ts'

/** What must be there for a test to mean anything. */
export function there<T>(value: T | null | undefined): T {
  if (value === null || value === undefined) throw new Error('nothing is there')
  return value
}

export interface Rec {
  offset: bigint
  key: Uint8Array | null
  value: Uint8Array | null
}

export interface TestSigner extends Signer {
  readonly publicKey: PublicKey
}

export function newSigner(suite: SignatureSuite = ED25519): TestSigner {
  const { publicKey, privateKey } = generateKeyPair(suite)
  return {
    publicKey,
    kid: thumbprint(publicKey),
    alg: suite.cose,
    sign: (bytes) => Promise.resolve(sign(privateKey, bytes)),
  }
}

export const policy = { bundle: digest(Buffer.from('bundle')), directory: 42 }

export const admitted = (offset: bigint, topic = 'orders', partition = 0): Entry => ({
  kind: 'event.admitted',
  timeMs: 1_795_000_000_123,
  topic,
  partition,
  offset,
  policy,
  trace: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
  digest: digest(Buffer.from(`${topic} ${offset}`)),
  event: {
    iss: 'shipping-service',
    kid: Buffer.from('k1'),
    id: `id-${offset}`,
    source: '/shipping',
    type: 'com.example.order.shipped.v1',
  },
  outputs: [{ channel: 'orders.notifications', consumer: 'notifications' }],
})

/** An audit topic of these partitions. */
export function sourceOf(
  partitions: readonly (readonly Rec[])[],
  heads?: ReadonlyMap<string, AuditHead>,
): AuditSource {
  const source: AuditSource = {
    partitions: () => Promise.resolve(partitions.length),
    read: async function* (partition) {
      await Promise.resolve()
      for (const [index, record] of (partitions[partition] ?? []).entries())
        yield { ...record, offset: BigInt(index) }
    },
  }
  return heads === undefined ? source : { ...source, heads: () => Promise.resolve(heads) }
}

/** Writes chains of several source partitions onto one audit partition. */
export class Stream {
  readonly records: Rec[] = []
  readonly heads = new Map<string, AuditHead>()
  readonly #next = new Map<string, bigint>()
  readonly #signer: Signer

  constructor(signer: Signer) {
    this.#signer = signer
  }

  put(key: string, value: Uint8Array): void {
    this.records.push({ offset: BigInt(this.records.length), key: Buffer.from(key), value })
  }

  /** One slice of `count` decided records, `gap` offsets skipped before each, and its segment. */
  async slice(count: number, change: Partial<ClosingSlice> & { gap?: number } = {}): Promise<void> {
    const { gap = 0, ...fields } = change
    const { topic = 'orders', partition = 0 } = fields
    const name = segmentKey({ topic, partition })
    const from = this.#next.get(name) ?? 0n
    let next = from
    const entries: Uint8Array[] = []
    for (let index = 0; index < count; index++) {
      next += BigInt(gap)
      const value = encodeEntry(admitted(next, topic, partition))
      entries.push(value)
      this.put(recordKey(topic, partition, next), value)
      next += 1n
    }
    const head = this.heads.get(name) ?? FIRST_HEAD
    const slice: ClosingSlice = {
      head,
      entries,
      deployment: 'test',
      topic,
      partition,
      from,
      next,
      time: 1_795_000_000 + head.sequence * 60,
      ...policy,
      software: 'sealgate/0.1.0',
      epoch: 1,
      unseen: 0,
      ...fields,
    }
    const segment = await closeSegment(slice, this.#signer, 0)
    this.put(name, segment.value)
    this.heads.set(name, segment.head)
    this.#next.set(name, slice.next)
  }
}
