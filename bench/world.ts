/** What the benchmarks seal and admit: realistic orders, one producer, one gateway, one contract, all made on the spot. */
import type { EventInput } from '../lib/client/event.ts'
import type { ContractFile } from '../lib/contract/contract-file.ts'
import type { Contracts } from '../lib/contract/contract.ts'
import { contractsFrom } from '../lib/contract/bundle.ts'
import { DataKey, generateKeyPair, type PublicKey, random } from '../lib/envelope/crypto.ts'
import type { Claims, Recipient } from '../lib/envelope/format.ts'
import { prove, sealBody } from '../lib/envelope/seal.ts'
import type { SignatureSuite } from '../lib/envelope/suite.ts'
import { ProvenBatches } from '../lib/envelope/verify.ts'
import {
  decide,
  type Examined,
  examine,
  type Gate,
  type Verdict,
  wantedKeys,
} from '../lib/admission/admit.ts'
import { ReplayState } from '../lib/admission/replay.ts'
import { CONTENT_TYPE_HINT } from '../lib/keys/authenticate.ts'
import { createDataKeys } from '../lib/keys/data-keys.ts'
import { snapshotFrom } from '../lib/keys/directory.ts'
import { NO_PSEUDONYMS } from '../lib/keys/pseudonyms.ts'
import { localSigner } from '../lib/keys/signer.ts'
import type { Header, KeyService, Signer, SourceRecord } from '../lib/ports.ts'

export const ISSUER = 'urn:shop:checkout'
export const GATEWAY = 'urn:shop:gateway'
export const CHANNEL = 'orders'
export const TYPE = 'com.example.order.placed.v1'
export const SOURCE = '/shop/checkout'
const KEK_ID = Buffer.from('shop-2026')
/** As long as AWS KMS makes it. */
export const WRAPPED_BYTES = 184
/** Judging time and everybody's clock, seconds since 1970. */
const NOW = 1_790_000_000
export const SLICE = 128

/** A payload of `bytes` bytes of ASCII: an order with as many items as fit, the rest a note. */
export function orderOf(index: number, bytes: number): Buffer {
  const order = {
    orderId: `o-${String(index).padStart(10, '0')}`,
    placedAt: '2026-09-21T09:33:20Z',
    currency: 'EUR',
    total: (11_990 + (index % 1000)) / 100,
    customer: { id: `c-${index % 5000}`, email: `customer.${index % 5000}@example.com`, postcode: '79100' },
    items: new Array<object>(),
    note: '',
  }
  for (let item = 0; ; item++) {
    order.items.push({
      sku: `SKU-${1000 + item}`,
      name: 'Enamel mug, blue',
      quantity: 1 + (item % 3),
      price: 14.95,
    })
    if (JSON.stringify(order).length <= bytes) continue
    order.items.pop()
    break
  }
  order.note = 'x'.repeat(Math.max(0, bytes - JSON.stringify(order).length))
  return Buffer.from(JSON.stringify(order))
}

/** The same as an application gives it to the library. */
export const eventOf = (index: number, bytes: number): EventInput => ({
  source: SOURCE,
  type: TYPE,
  time: '2026-09-21T09:33:20Z',
  key: keyOf(index),
  dataBytes: orderOf(index, bytes),
})

const keyOf = (index: number): string => `c-${index % 5000}`

/** The contract of an order, as its file would have it; more of them differ by type. */
export function contractFile(type: string): ContractFile {
  return {
    contract: 'sealgate/1',
    type,
    channel: CHANNEL,
    publish: { [ISSUER]: { sources: [SOURCE] } },
    schema: {
      type: 'object',
      required: ['orderId', 'placedAt', 'currency', 'total', 'customer', 'items'],
      additionalProperties: false,
      properties: {
        orderId: { type: 'string', maxLength: 40 },
        placedAt: { type: 'string', maxLength: 40 },
        currency: { enum: ['EUR', 'GBP', 'USD'] },
        total: { type: 'number', minimum: 0 },
        customer: {
          type: 'object',
          'x-classification': 'personal',
          required: ['id'],
          additionalProperties: false,
          properties: { id: { type: 'string' }, email: { type: 'string' }, postcode: { type: 'string' } },
        },
        items: {
          type: 'array',
          items: {
            type: 'object',
            required: ['sku', 'quantity', 'price'],
            additionalProperties: false,
            properties: {
              sku: { type: 'string' },
              name: { type: 'string' },
              quantity: { type: 'integer', minimum: 1 },
              price: { type: 'number', minimum: 0 },
            },
          },
        },
        note: { type: 'string' },
      },
    },
  }
}

/** One producer with its key, and a gateway that knows both. */
export interface World {
  readonly publicKey: PublicKey
  readonly signer: Signer
  readonly dataKey: DataKey
  /** The data key's bytes, for who opens without us. */
  readonly secret: Uint8Array
  readonly recipient: Recipient
  /** A gateway that has seen no record yet; its data key is warm. */
  gate(): Gate
}

export async function makeWorld(suite: SignatureSuite, contracts?: Contracts): Promise<World> {
  const { publicKey, privateKey } = generateKeyPair(suite)
  const signer = localSigner(privateKey)
  const secret = random(32)
  const recipient = { kekId: KEK_ID, wrapped: random(WRAPPED_BYTES) }
  const keyService: KeyService = {
    generate: () => Promise.reject(new TypeError('nobody asks')),
    unwrap: () => Promise.resolve(Uint8Array.from(secret)),
  }
  const clock = { now: () => NOW * 1000 }
  const directory = {
    fresh: true,
    snapshot: snapshotFrom({
      version: 1,
      issuedAt: NOW,
      expiresAt: NOW + 86_400,
      signingKeys: [
        {
          kid: signer.kid,
          kidText: Buffer.from(signer.kid).toString('base64url'),
          iss: ISSUER,
          key: publicKey,
          state: 'active',
          notBefore: NOW - 86_400,
          notAfter: NOW + 86_400,
          compromisedAt: null,
        },
      ],
      keks: [{ kekIdBytes: KEK_ID, kekId: 'shop-2026', provider: 'bench', key: 'bench', iss: [ISSUER] }],
    }),
  }
  const dataKeys = createDataKeys({ keyService, clock })
  const channel = { name: CHANNEL, maxLifeSeconds: 86_400 }
  const known = contracts ?? contractsFrom([contractFile(TYPE)])
  const world = {
    publicKey,
    signer,
    recipient,
    dataKey: new DataKey(Uint8Array.from(secret)),
    secret,
    gate: () => ({
      audience: GATEWAY,
      maxValueBytes: 1_048_576,
      directory,
      contracts: known,
      dataKeys,
      pseudonyms: NO_PSEUDONYMS,
      batches: new ProvenBatches(),
      channelOf: () => channel,
      now: () => clock.now(),
    }),
  }
  const [first] = await sealSlices(world, 1, 1, 1024)
  await admitSlice(first ?? [], world.gate(), newState())
  return world
}

/** `count` records of one session and partition, in slices of 128; each slice one batch, or its records one by one. */
export async function sealSlices(
  world: Pick<World, 'signer' | 'dataKey' | 'recipient'>,
  count: number,
  perSignature: number,
  bytes: number,
  typeOf: (index: number) => string = () => TYPE,
): Promise<SourceRecord[][]> {
  const session = random(16)
  const slices: SourceRecord[][] = []
  for (let start = 0; start < count; start += SLICE) {
    const slice: SourceRecord[] = []
    for (let from = start; from < Math.min(count, start + SLICE); from += perSignature) {
      const indexes = Array.from({ length: Math.min(perSignature, count - from) }, (_, at) => from + at)
      slice.push(...(await sealTogether(world, indexes, session, bytes, typeOf)))
    }
    slices.push(slice)
  }
  return slices
}

async function sealTogether(
  { signer, dataKey, recipient }: Pick<World, 'signer' | 'dataKey' | 'recipient'>,
  indexes: readonly number[],
  session: Uint8Array,
  bytes: number,
  typeOf: (index: number) => string,
): Promise<SourceRecord[]> {
  const claims = indexes.map((index) => claimsOf(index, session, typeOf(index)))
  const bodies = claims.map((claim, at) => {
    const index = indexes[at] ?? 0
    return sealBody(claim, placeOf(index), orderOf(index, bytes), dataKey, recipient)
  })
  const sign = (input: Uint8Array): Promise<Uint8Array> => signer.sign(input, Number.MAX_SAFE_INTEGER)
  const values = await prove(bodies, { kid: signer.kid, alg: signer.alg, sign })
  return values.map((value, at) => recordOf(indexes[at] ?? 0, value, claims[at]))
}

export const placeOf = (index: number): { channel: string; partition: number; key: Uint8Array } => ({
  channel: CHANNEL,
  partition: 0,
  key: Buffer.from(keyOf(index)),
})

export function claimsOf(index: number, session: Uint8Array, type: string): Claims {
  const id = `00000000-0000-4000-8000-${String(index).padStart(12, '0')}`
  return {
    iss: ISSUER,
    aud: GATEWAY,
    iat: BigInt(NOW - 2),
    exp: BigInt(NOW + 3598),
    contentType: 'application/json',
    ce: new Map([
      ['id', id],
      ['source', SOURCE],
      ['specversion', '1.0'],
      ['time', '2026-09-21T09:33:20Z'],
      ['type', type],
    ]),
    session,
    number: BigInt(index),
  }
}

/** A record with the hints that the library's sealer sets. */
function recordOf(index: number, value: Uint8Array, claims: Claims | undefined): SourceRecord {
  const header = (name: string, text: string | undefined): Header => ({
    name,
    value: Buffer.from(text ?? ''),
  })
  return {
    topic: CHANNEL,
    partition: 0,
    offset: BigInt(index),
    timestamp: NOW * 1000,
    timestampType: 'LogAppendTime',
    key: placeOf(index).key,
    value,
    headers: [
      header('content-type', CONTENT_TYPE_HINT),
      header('ce_specversion', '1.0'),
      header('ce_id', claims?.ce.get('id')),
      header('ce_source', claims?.ce.get('source')),
      header('ce_type', claims?.ce.get('type')),
    ],
  }
}

/** The memory of a partition at a first start, with the default limits. */
export const newState = (): ReplayState =>
  new ReplayState({ maxSessions: 64, newDataKeysPerMinute: 60 }, 65_536)

/**
 * Steps 1 to 11 on the records of a slice, in the order in which lib/admission/slice.ts takes them. `onVerdict` is told of
 * each in turn. Rejects with the outage of the first that cannot be decided.
 */
export async function decideSlice(
  slice: readonly SourceRecord[],
  gate: Gate,
  state: ReplayState,
  deadline: number,
  onVerdict: (verdict: Verdict) => void,
): Promise<void> {
  const examined: Examined[] = []
  let time = state.time
  for (const record of slice) {
    const one = examine(record, gate, time)
    time = one.time
    examined.push(one)
  }
  const asked = wantedKeys(examined, gate, state)
  const keys = await gate.dataKeys.prepare(asked.requests, deadline)
  try {
    for (const one of examined) {
      const decision = decide(one, asked.asking, gate, state, keys)
      decision.apply()
      onVerdict(decision.verdict)
    }
  } finally {
    keys.release()
    gate.batches.endSlice()
  }
}

/** The same; all must be admitted. */
export const admitSlice = (slice: readonly SourceRecord[], gate: Gate, state: ReplayState): Promise<void> =>
  decideSlice(slice, gate, state, Number.MAX_SAFE_INTEGER, (verdict) => {
    if (!verdict.admitted)
      throw new TypeError(`an event was not admitted: ${verdict.code}, ${verdict.reason}`)
  })
