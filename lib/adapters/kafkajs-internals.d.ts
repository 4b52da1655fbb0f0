/** What our adapters touch inside kafkajs 2.2.4, which publishes no types for it. */

declare module 'kafkajs/src/cluster/index.js' {
  import type { ISocketFactory, KafkaConfig, Logger, PartitionMetadata, RetryOptions } from 'kafkajs'
  import type { Encoded } from 'kafkajs/src/protocol/requests/index.js'

  /** A request that kafkajs does not know: it adds length, api, version, correlation and client id, and takes the correlation off. */
  export interface BrokerRequest<D, T> {
    readonly request: {
      readonly apiKey: number
      readonly apiVersion: number
      readonly apiName: string
      encode(): Promise<Encoded>
    }
    readonly response: { decode(raw: Buffer): Promise<D>; parse(decoded: D): Promise<T> }
  }

  export interface ClusterOptions extends Omit<KafkaConfig, 'logLevel'> {
    readonly logger: Logger
    readonly socketFactory: ISocketFactory
    /** Milliseconds. */
    readonly metadataMaxAge: number
    readonly allowAutoTopicCreation: boolean
    /** 0: read_uncommitted; 1: read_committed. */
    readonly isolationLevel: 0 | 1
  }

  export interface FetchRequest {
    readonly isolationLevel: 0 | 1
    /** Milliseconds. */
    readonly maxWaitTime: number
    readonly minBytes: number
    readonly maxBytes: number
    readonly topics: readonly {
      readonly topic: string
      readonly partitions: readonly {
        readonly partition: number
        readonly fetchOffset: string
        readonly maxBytes: number
      }[]
    }[]
  }

  /** Of the record batch that a record came in; absent where it is of a format before Kafka 0.11. */
  export interface BatchContext {
    readonly firstOffset: string
    readonly lastOffsetDelta: number
    readonly producerId: string
    readonly inTransaction: boolean
    readonly isControlBatch: boolean
    /** 0: CreateTime; 1: LogAppendTime. */
    readonly timestampType: number
  }

  export interface FetchedRecord {
    readonly offset: string
    readonly timestamp: string
    readonly key: Buffer | null
    readonly value: Buffer | null
    readonly headers: object
    /** Never handed out to a reader. */
    isControlRecord: boolean
    readonly batchContext?: BatchContext
  }

  export interface FetchedPartition {
    readonly partition: number
    readonly lastStableOffset: string
    readonly highWatermark: string
    /** In no order to rely on. */
    abortedTransactions: readonly { readonly producerId: string; readonly firstOffset: string }[]
    /** Of whole batches, aborted ones and markers too; the first batch may begin before the offset asked for. */
    readonly messages: readonly FetchedRecord[]
  }

  export interface FetchAnswer {
    readonly responses: readonly { readonly partitions: readonly FetchedPartition[] }[]
  }

  export interface Broker {
    fetch(request: FetchRequest): Promise<FetchAnswer>
    offsetFetch(request: {
      readonly groupId: string
      readonly topics: readonly {
        readonly topic: string
        readonly partitions: readonly { readonly partition: number }[]
      }[]
    }): Promise<{
      readonly responses: readonly {
        readonly partitions: readonly { readonly partition: number; readonly offset: string }[]
      }[]
    }>
    offsetCommit(request: {
      readonly groupId: string
      readonly groupGenerationId: number
      readonly memberId: string
      readonly topics: readonly {
        readonly topic: string
        readonly partitions: readonly { readonly partition: number; readonly offset: string }[]
      }[]
    }): Promise<unknown>
    readonly nodeId: string | number
    /** By api key; what a broker does not know is left out. */
    readonly versions: Readonly<Record<number, { readonly maxVersion: number }>>
    readonly connectionPool: { send<D, T>(request: BrokerRequest<D, T>): Promise<T> }
    findGroupCoordinator(query: CoordinatorQuery): Promise<CoordinatorAnswer>
    initProducerId(request: unknown): Promise<unknown>
    addPartitionsToTxn(request: unknown): Promise<unknown>
    addOffsetsToTxn(request: unknown): Promise<unknown>
    txnOffsetCommit(request: unknown): Promise<unknown>
    endTxn(request: unknown): Promise<unknown>
  }

  /** What its transaction manager asks of a coordinator. */
  export type Coordinator = Pick<
    Broker,
    'nodeId' | 'initProducerId' | 'addPartitionsToTxn' | 'addOffsetsToTxn' | 'txnOffsetCommit' | 'endTxn'
  >

  export interface CoordinatorQuery {
    readonly groupId: string
    /** 0: group, the default; 1: transaction. */
    readonly coordinatorType?: number
  }

  export interface CoordinatorAnswer {
    readonly coordinator: { readonly nodeId: number }
  }

  class Cluster {
    constructor(options: ClusterOptions)
    connect(): Promise<void>
    disconnect(): Promise<void>
    addTargetTopic(topic: string): Promise<void>
    findTopicPartitionMetadata(topic: string): readonly PartitionMetadata[]
    /** By node id; a partition that is not known is left out. */
    findLeaderForPartitions(
      topic: string,
      partitions: readonly number[],
    ): Readonly<Record<string, readonly number[]>>
    fetchTopicsOffset(
      topics: readonly {
        readonly topic: string
        readonly partitions: readonly { readonly partition: number }[]
        readonly fromBeginning: boolean
      }[],
    ): Promise<readonly { readonly partitions: readonly { readonly offset: string }[] }[]>
    retry: RetryOptions | undefined
    readonly brokerPool: { findConnectedBroker(): Promise<Broker> }
    refreshMetadata(): Promise<void>
    refreshMetadataIfNecessary(): Promise<void>
    /** As of the metadata; a number each. */
    getNodeIds(): readonly string[]
    findControllerBroker(): Promise<Broker>
    findBroker(query: { readonly nodeId: string | number }): Promise<Broker>
    findGroupCoordinator: (this: Cluster, query: CoordinatorQuery) => Promise<Coordinator>
    findGroupCoordinatorMetadata: (this: Cluster, query: CoordinatorQuery) => Promise<CoordinatorAnswer>
  }
  export { Cluster as default }
}

declare module 'kafkajs/src/broker/index.js' {
  import type { FetchAnswer } from 'kafkajs/src/cluster/index.js'

  class Broker {
    fetch: (this: Broker, request: unknown) => Promise<FetchAnswer>
  }
  export { Broker as default }
}

declare module 'kafkajs/src/broker/saslAuthenticator/index.js' {
  class SASLAuthenticator {
    readonly connection: {
      readonly host: string
      readonly port: number
      readonly connectionStatus: 'connected' | 'disconnecting' | 'disconnected'
      /** As of `hrtime`; null until the first authentication after connecting. */
      readonly authenticatedAt: readonly [number, number] | null
      /** Of all connections, until one has its own. */
      sasl: { readonly ofConnection?: () => object }
      readonly socket: { destroy(): unknown }
      disconnect(): Promise<unknown>
    }
    authenticate: (this: SASLAuthenticator) => Promise<void>
  }
  export { SASLAuthenticator as default }
}

declare module 'kafkajs/src/network/connection.js' {
  class Connection {
    readonly socket: { destroy(error?: Error): unknown }
    /** Of the answer that is coming in, with its size. */
    readonly bytesNeeded: number
    processData: (this: Connection, data: Buffer) => void
  }
  export { Connection as default }
}

declare module 'kafkajs/src/network/requestQueue/index.js' {
  class RequestQueue {
    readonly pending: readonly unknown[]
    /** Milliseconds since 1970; −1 where the broker never asked us to wait. */
    readonly throttledUntil: number
    scheduleCheckPendingRequests: (this: RequestQueue) => void
  }
  export { RequestQueue as default }
}

declare module 'kafkajs/src/protocol/requests/index.js' {
  /** Of a Produce request, by topic and partition. */
  export interface ProduceOptions {
    readonly acks: number
    /** Milliseconds. */
    readonly timeout: number
    readonly transactionalId: string | undefined
    /** A whole number of 64 bits, in a form that its text tells. */
    readonly producerId: { toString(): string }
    readonly producerEpoch: number
    readonly topicData: readonly {
      readonly topic: string
      readonly partitions: readonly {
        readonly partition: number | string
        readonly firstSequence?: number
        readonly messages: readonly object[]
      }[]
    }[]
  }

  /** One of its encoders, or what can stand for one. */
  export interface Encoded {
    readonly buf: Buffer
    readonly buffer: Buffer
    size(): number
  }

  export type Produce = (options: ProduceOptions) => {
    readonly request: { encode(): Promise<Encoded> }
    readonly response: unknown
  }

  const protocol: {
    readonly requests: {
      Produce: {
        readonly versions: readonly string[]
        readonly protocol: (query: { readonly version: number }) => Produce
      }
    }
  }
  export { protocol as default }
}

declare module 'kafkajs/src/broker/saslAuthenticator/plain.js' {
  import type { AuthenticationProviderArgs, Authenticator } from 'kafkajs'

  function provide(login: {
    readonly username: string
    readonly password: string
  }): (args: AuthenticationProviderArgs) => Authenticator
  export { provide as default }
}

declare module 'kafkajs/src/broker/saslAuthenticator/scram256.js' {
  import type { AuthenticationProviderArgs, Authenticator } from 'kafkajs'

  function provide(login: {
    readonly username: string
    readonly password: string
  }): (args: AuthenticationProviderArgs) => Authenticator
  export { provide as default }
}

declare module 'kafkajs/src/broker/saslAuthenticator/scram512.js' {
  import type { AuthenticationProviderArgs, Authenticator } from 'kafkajs'

  function provide(login: {
    readonly username: string
    readonly password: string
  }): (args: AuthenticationProviderArgs) => Authenticator
  export { provide as default }
}

declare module 'kafkajs/src/protocol/encoder.js' {
  import type { Encoded } from 'kafkajs/src/protocol/requests/index.js'

  /** `UVarInt` in a name: the compact forms of KIP-482. */
  class Encoder implements Encoded {
    readonly buf: Buffer
    readonly buffer: Buffer
    size(): number
    writeInt8(value: number): this
    writeInt32(value: number): this
    writeBoolean(value: boolean): this
    writeString(value: string | null): this
    /** Of texts as such; of others by their own encoders. */
    writeArray(value: readonly (string | Encoder)[]): this
    writeUVarInt(value: number): this
    writeUVarIntString(value: string): this
    writeUVarIntBytes(value: Buffer): this
    writeUVarIntArray(value: readonly Encoder[]): this
  }
  export { Encoder as default }
}

declare module 'kafkajs/src/protocol/decoder.js' {
  class Decoder {
    constructor(raw: Buffer)
    readInt8(): number
    readInt16(): number
    readInt32(): number
    readBoolean(): boolean
    readString(): string | null
    readBytes(): Buffer | null
    readArray<T>(readOne: (decoder: Decoder) => T): readonly T[]
    readUVarInt(): number
    readUVarIntBytes(): Buffer | null
    readUVarIntString(): string | null
    readUVarIntArray<T>(readOne: (decoder: Decoder) => T): readonly T[] | null
    readTaggedFields(): unknown
    /** Used for a record's headers alone. */
    readVarIntArray: (this: Decoder, readOne: (decoder: Decoder) => unknown) => unknown[]
  }
  export { Decoder as default }
}
