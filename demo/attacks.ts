/**
 * What an attacker with access to the brokers, or a producer who lies, may try: each attack as real records on real
 * topics, made from records that the gate has admitted, or sealed with keys that are good for something else.
 */
import { recordOf } from '../cli/delivery.ts'
import type { World } from '../cli/world.ts'
import type { SealerOptions } from '../lib/client/sealer-options.ts'
import { generateKeyPair } from '../lib/envelope/crypto.ts'
import { encodeProof, encodeSealedEvent } from '../lib/envelope/encode.ts'
import { parse } from '../lib/envelope/format.ts'
import { ED25519 } from '../lib/envelope/suite.ts'
import type { RejectionCode } from '../lib/errors.ts'
import { localSigner } from '../lib/keys/signer.ts'
import type { KeyService, Message, SourceRecord } from '../lib/ports.ts'
import type { Offer } from './offers.ts'
import { sealerOf } from './producers.ts'

/** One kind of attack. */
export interface Attack {
  readonly name: string
  /** What is tried. */
  readonly tries: string
  /** How it has to end. */
  readonly expected: RejectionCode
  readonly records: readonly Message[]
}

/** What attacks are made of. */
export interface Loot {
  readonly world: World
  /** Of each channel's topic. */
  readonly partitions: number
  /** Of each kind so many records. */
  readonly count: number
}

type Kind = Omit<Attack, 'records'>

/** A copied record, as the attacker sends it; undefined where this one does not lend itself to it. */
interface Forgery extends Kind {
  readonly forge: (record: SourceRecord, other: SourceRecord | undefined, loot: Loot) => Message | undefined
}

interface Told {
  readonly offer: Offer
  readonly options: Partial<SealerOptions>
}

/** A producer with a key of its own that goes beyond what it may; undefined where the contracts leave no room for it. */
interface Lie extends Kind {
  readonly lie: (offer: Offer, loot: Loot) => Told | undefined
}

/** How long what `sealLies` makes must lie before all of it is as bad as it is meant to be. */
export const LIES_RIPEN_MS = 2_050
const EXPIRES_SECONDS = 1
const MAX_VALUE_BYTES = 16 * 1024 * 1024

const FORGERIES: readonly Forgery[] = [
  {
    name: 'altered',
    tries: 'a bit of the encrypted payload is flipped',
    expected: 'signature-invalid',
    forge: (record) => {
      const value = Buffer.from(record.value ?? [])
      const { ciphertext } = parse(value, MAX_VALUE_BYTES).body
      const middle = ciphertext.length >> 1
      ciphertext[middle] = (ciphertext[middle] ?? 0) ^ 0x10
      return { ...copyOf(record), value }
    },
  },
  {
    name: 'moved, partition',
    tries: 'a good record is copied to another partition',
    expected: 'signature-invalid',
    forge: (record, _, { partitions }) =>
      partitions < 2 ? undefined : { ...copyOf(record), partition: (record.partition + 1) % partitions },
  },
  {
    name: 'moved, channel',
    tries: 'a good record is copied to another topic',
    expected: 'signature-invalid',
    forge: (record, _, { world: { sources } }) => {
      const topic = sources[(sources.indexOf(record.topic) + 1) % sources.length] ?? record.topic
      return topic === record.topic ? undefined : { ...copyOf(record), topic }
    },
  },
  {
    name: 'other key',
    tries: 'a good record is given another record key',
    expected: 'signature-invalid',
    forge: (record) => ({
      ...copyOf(record),
      key: Buffer.concat([record.key ?? Buffer.of(), Buffer.from('!')]),
    }),
  },
  {
    name: 'replayed',
    tries: 'a good record is sent again, byte for byte',
    expected: 'replayed',
    forge: (record) => copyOf(record),
  },
  {
    name: 'stolen signature',
    tries: "a good record's signature is put on another's body",
    expected: 'signature-invalid',
    forge: (record, other) => {
      if (record.value === null || typeof other?.value !== 'object' || other.value === null) return undefined
      const { body } = parse(record.value, MAX_VALUE_BYTES)
      const { proof } = parse(other.value, MAX_VALUE_BYTES)
      return { ...copyOf(record), value: encodeSealedEvent(body.bytes, encodeProof(proof)) }
    },
  },
  {
    name: 'unsigned',
    tries: 'the signature is cut out',
    expected: 'signature-invalid',
    forge: (record) => {
      const { body, proof } = parse(record.value, MAX_VALUE_BYTES)
      const bare = encodeProof({ ...proof, signature: new Uint8Array() })
      return { ...copyOf(record), value: encodeSealedEvent(body.bytes, bare) }
    },
  },
  {
    name: 'plaintext',
    tries: 'JSON is sent where sealed events belong',
    expected: 'malformed',
    forge: (record) => ({ ...copyOf(record), value: Buffer.from('{"orderId":"A-1","total":0.01}') }),
  },
  {
    name: 'tombstone',
    tries: 'a null value, which deletes on a compacted topic',
    expected: 'value-missing',
    forge: (record) => ({ ...copyOf(record), value: null }),
  },
  {
    name: 'false label',
    tries: 'the header ce_type of a good record is rewritten',
    expected: 'hint-mismatch',
    forge: (record) => ({
      ...copyOf(record),
      headers: record.headers.map((header) =>
        header.name === 'ce_type' ? { ...header, value: Buffer.from('com.example.refund.v1') } : header,
      ),
    }),
  },
]

const LIES: readonly Lie[] = [
  {
    name: 'wrong producer',
    tries: 'a producer of other events publishes this one',
    expected: 'not-authorised',
    lie: (offer, { world }) => {
      const stranger = issuersOf(world).find((iss) => offer.contract?.publish.has(iss) === false)
      return stranger === undefined ? undefined : { offer: { ...offer, iss: stranger }, options: {} }
    },
  },
  {
    name: 'wrong source',
    tries: 'the right producer speaks for a source not its own',
    expected: 'not-authorised',
    lie: (offer) => {
      const event = { ...offer.event, source: '/somewhere/else' }
      const isTheirs = offer.contract?.publish.get(offer.iss)?.has(event.source)
      return isTheirs === false ? { offer: { ...offer, event }, options: {} } : undefined
    },
  },
  {
    name: 'impersonation',
    tries: 'a producer signs as another, with the key that it has',
    expected: 'issuer-mismatch',
    lie: (offer, { world }) => {
      const thief = issuersOf(world).find((iss) => iss !== offer.iss)
      if (thief === undefined) return undefined
      const { signer, kek, keyService: own } = world.producer(thief)
      // The key service makes it no data key in the other's name, so it takes one in its own.
      const keyService: KeyService = {
        generate: (key, context, deadline) =>
          own.generate(key, { ...context, 'sealgate:iss': thief }, deadline),
        unwrap: (...asked) => own.unwrap(...asked),
      }
      return { offer, options: { signer, kek, keyService } }
    },
  },
  {
    name: 'unknown key',
    tries: 'a key signs that the key directory does not hold',
    expected: 'key-unknown',
    lie: (offer) => ({ offer, options: { signer: localSigner(generateKeyPair(ED25519).privateKey) } }),
  },
  {
    name: 'expired',
    tries: `an event good for ${EXPIRES_SECONDS} s is held back and sent late`,
    expected: 'time-invalid',
    lie: (offer) => ({ offer, options: { lifeSeconds: EXPIRES_SECONDS } }),
  },
  {
    name: 'misdirected',
    tries: 'an event sealed for another gateway is sent to this one',
    expected: 'audience-mismatch',
    lie: (offer) => ({ offer, options: { audience: 'another-gateway' } }),
  },
]

/** Lies about these events. What is sealed here is good to be sent after `LIES_RIPEN_MS`. */
export async function sealLies(samples: readonly Offer[], loot: Loot): Promise<readonly Attack[]> {
  const attacks: Attack[] = []
  for (const { lie, ...kind } of LIES) {
    const records: Message[] = []
    for (const sample of pick(samples, loot.count)) {
      const told = lie(sample, loot)
      if (told !== undefined) records.push(await sealOne(told.offer, loot.world, told.options))
    }
    attacks.push({ ...kind, records })
  }
  return attacks.filter(({ records }) => records.length > 0)
}

/** Forgeries of records that were admitted: with a single channel, say, nothing can be moved to another. */
export function forge(admitted: readonly SourceRecord[], loot: Loot): readonly Attack[] {
  return FORGERIES.map(({ forge: forgeOne, ...kind }) => {
    const records = pick(admitted, loot.count).map((record) =>
      forgeOne(
        record,
        admitted.find((other) => isPartner(record, other)),
        loot,
      ),
    )
    return { ...kind, records: records.filter((record) => record !== undefined) }
  }).filter(({ records }) => records.length > 0)
}

/** Whose signature is stolen: of the same partition, so that only the body is another. */
function isPartner(record: SourceRecord, other: SourceRecord): boolean {
  return record !== other && record.topic === other.topic && record.partition === other.partition
}

async function sealOne(
  { iss, channel, event }: Offer,
  world: World,
  options: Partial<SealerOptions>,
): Promise<Message> {
  const sealer = sealerOf(world, iss, options)
  try {
    const { topic, messages } = await sealer.seal(channel, event)
    const [message] = messages
    if (message === undefined) throw new TypeError('a sealer that seals nothing')
    return recordOf(topic, message)
  } finally {
    await sealer.close()
  }
}

const issuersOf = ({ contracts }: World): string[] => [
  ...new Set(contracts.all.flatMap(({ publish }) => [...publish.keys()])),
]

const copyOf = ({ topic, partition, key, value, headers }: SourceRecord): Message => ({
  topic,
  partition,
  key,
  value,
  headers,
})

/** So many, from all over the list. */
function pick<T>(items: readonly T[], count: number): T[] {
  const step = Math.max(1, items.length / count)
  return items
    .filter((_, index) => Math.floor(index / step) !== Math.floor((index - 1) / step))
    .slice(0, count)
}
