/**
 * What kafkajs cannot ask a broker: which operations it allows us (KIP-430), its features (KIP-584), and settings as it
 * has them. Versions are the newest in the old format where there is one: Kafka 3.9 and 4 answer all of them.
 */
import type { Broker, BrokerRequest } from 'kafkajs/src/cluster/index.js'
import Decoder from 'kafkajs/src/protocol/decoder.js'
import Encoder from 'kafkajs/src/protocol/encoder.js'

/** Operations by Kafka's own names, as an authoriser allows them. */
export type Allowed = ReadonlySet<string>

/** Settings by name; a value that is kept back is null. */
export type Config = ReadonlyMap<string, string | null>

export interface TopicFacts {
  /** Kafka's number; 0: none. */
  readonly error: number
  readonly partitions: readonly { readonly replicas: number; readonly inSync: number }[]
  readonly allowed: Allowed
}

export interface MetadataFacts {
  readonly brokers: readonly { readonly id: number; readonly host: string; readonly port: number }[]
  readonly topics: ReadonlyMap<string, TopicFacts>
  /** On the cluster itself. */
  readonly allowed: Allowed
}

const OPERATIONS = [
  ...['', '', 'All', 'Read', 'Write', 'Create', 'Delete', 'Alter', 'Describe', 'ClusterAction'],
  ...['DescribeConfigs', 'AlterConfigs', 'IdempotentWrite', 'CreateTokens', 'DescribeTokens'],
]

/** A bit for each operation, at its number. */
const allowedOf = (bits: number): Allowed =>
  new Set(OPERATIONS.filter((name, code) => name !== '' && (bits & (1 << code)) !== 0))

/** Metadata, version 8. Topics that are not there are not made. */
export const askMetadata = (broker: Broker, topics: readonly string[]): Promise<MetadataFacts> =>
  send(broker, { apiKey: 3, apiVersion: 8, apiName: 'Metadata' }, metadataBody(topics), (decoder) => {
    const brokers = decoder.readArray((each) => {
      const id = each.readInt32()
      const host = each.readString() ?? ''
      const port = each.readInt32()
      each.readString()
      return { id, host, port }
    })
    decoder.readString()
    decoder.readInt32()
    const found = decoder.readArray((each) => {
      const error = each.readInt16()
      const name = each.readString() ?? ''
      each.readBoolean()
      const partitions = each.readArray(readPartition)
      return [name, { error, partitions, allowed: allowedOf(each.readInt32()) }] as const
    })
    return { brokers, topics: new Map(found), allowed: allowedOf(decoder.readInt32()) }
  })

/** Neither is a topic to be made, and both kinds of operations are asked for. */
const metadataBody = (topics: readonly string[]): Encoder =>
  new Encoder().writeArray(topics).writeBoolean(false).writeBoolean(true).writeBoolean(true)

function readPartition(each: Decoder): { readonly replicas: number; readonly inSync: number } {
  each.readInt16()
  each.readInt32()
  each.readInt32()
  each.readInt32()
  const replicas = each.readArray((one) => one.readInt32()).length
  const inSync = each.readArray((one) => one.readInt32()).length
  each.readArray((one) => one.readInt32())
  return { replicas, inSync }
}

/** DescribeGroups, version 3, of the group's coordinator. `error` is Kafka's number. */
export const askGroup = (
  broker: Broker,
  group: string,
): Promise<{ readonly error: number; readonly allowed: Allowed }> => {
  const body = new Encoder().writeArray([group]).writeBoolean(true)
  return send(broker, { apiKey: 15, apiVersion: 3, apiName: 'DescribeGroups' }, body, (decoder) => {
    const [found] = decoder.readArray((each) => {
      const error = each.readInt16()
      for (let text = 0; text < 4; text++) each.readString()
      each.readArray((member) => {
        for (let text = 0; text < 3; text++) member.readString()
        member.readBytes()
        member.readBytes()
      })
      return { error, allowed: allowedOf(each.readInt32()) }
    })
    return found ?? { error: NO_ANSWER, allowed: new Set() }
  })
}

/** Kafka's UNKNOWN_SERVER_ERROR. */
const NO_ANSWER = -1
const TOPIC = 2
const BROKER = 4

/** DescribeConfigs, version 2, of topics, or of the broker itself by its id. What it does not tell us is undefined. */
export async function askConfigs(
  broker: Broker,
  what: { readonly topics: readonly string[] } | { readonly broker: number },
): Promise<ReadonlyMap<string, Config | undefined>> {
  const names = 'topics' in what ? what.topics : [String(what.broker)]
  const type = 'topics' in what ? TOPIC : BROKER
  const resources = names.map((name) => new Encoder().writeInt8(type).writeString(name).writeInt32(ALL))
  const body = new Encoder().writeArray(resources).writeBoolean(false)
  return send(broker, { apiKey: 32, apiVersion: 2, apiName: 'DescribeConfigs' }, body, (decoder) => {
    const results = decoder.readArray((each) => {
      const error = each.readInt16()
      each.readString()
      each.readInt8()
      const name = each.readString() ?? ''
      const entries = each.readArray(readConfig)
      return [name, error === 0 ? new Map(entries) : undefined] as const
    })
    return new Map(results)
  })
}

/** A null array: every setting. */
const ALL = -1

function readConfig(each: Decoder): readonly [string, string | null] {
  const name = each.readString() ?? ''
  const value = each.readString()
  each.readBoolean()
  each.readInt8()
  each.readBoolean()
  each.readArray((synonym) => {
    synonym.readString()
    synonym.readString()
    synonym.readInt8()
  })
  return [name, value]
}

/** Every feature that a broker's software knows, with the highest level of it: ApiVersions, version 3 (KIP-482, KIP-511). */
export function askFeatures(broker: Broker, version: string): Promise<ReadonlyMap<string, number>> {
  const body = new Encoder()
    .writeUVarInt(0)
    .writeUVarIntString('sealgate')
    .writeUVarIntString(version)
    .writeUVarInt(0)
  const about = { apiKey: 18, apiVersion: 3, apiName: 'ApiVersions' }
  return send(
    broker,
    about,
    body,
    (decoder) => {
      decoder.readUVarIntArray((each) => {
        each.readInt16()
        each.readInt16()
        each.readInt16()
        each.readTaggedFields()
      })
      decoder.readInt32()
      return readFeatures(decoder)
    },
    'error first',
  )
}

const SUPPORTED_FEATURES = 0

function readFeatures(decoder: Decoder): ReadonlyMap<string, number> {
  for (let fields = decoder.readUVarInt(); fields > 0; fields--) {
    const tag = decoder.readUVarInt()
    const size = decoder.readUVarInt()
    if (tag === SUPPORTED_FEATURES) {
      const features = decoder.readUVarIntArray((each) => {
        const name = each.readUVarIntString() ?? ''
        each.readInt16()
        const highest = each.readInt16()
        each.readTaggedFields()
        return [name, highest] as const
      })
      return new Map(features ?? [])
    }
    for (let skipped = 0; skipped < size; skipped++) decoder.readInt8()
  }
  return new Map()
}

/** kafkajs keeps a connection quiet for `clientSideThrottleTime`, in milliseconds (KIP-219). */
interface Answer<T> {
  readonly clientSideThrottleTime: number
  readonly value: T
}

/** An answer begins with the time for which we are to be quiet, but that of ApiVersions, which begins with its error. */
function send<T>(
  broker: Broker,
  about: Omit<BrokerRequest<Answer<T>, T>['request'], 'encode'>,
  body: Encoder,
  read: (decoder: Decoder) => T,
  head: 'throttle first' | 'error first' = 'throttle first',
): Promise<T> {
  return broker.connectionPool.send<Answer<T>, T>({
    request: { ...about, encode: () => Promise.resolve(body) },
    response: {
      decode: (raw) => {
        const decoder = new Decoder(raw)
        if (head === 'error first') decoder.readInt16()
        const clientSideThrottleTime = head === 'throttle first' ? decoder.readInt32() : 0
        return Promise.resolve({ clientSideThrottleTime, value: read(decoder) })
      },
      parse: ({ value }) => Promise.resolve(value),
    },
  })
}
