/** What kafka-repairs.ts touches inside kafkajs 2.2.4, which publishes no types for it. */

declare module 'kafkajs/src/cluster/index.js' {
  import type { RetryOptions } from 'kafkajs'

  export interface Broker {
    readonly nodeId: string | number
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
    retry: RetryOptions | undefined
    readonly brokerPool: { findConnectedBroker(): Promise<Broker> }
    refreshMetadataIfNecessary(): Promise<void>
    findBroker(query: { readonly nodeId: string | number }): Promise<Broker>
    findGroupCoordinator: (this: Cluster, query: CoordinatorQuery) => Promise<Coordinator>
    findGroupCoordinatorMetadata: (this: Cluster, query: CoordinatorQuery) => Promise<CoordinatorAnswer>
  }
  export { Cluster as default }
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

declare module 'kafkajs/src/protocol/encoder.js' {
  class Encoder {
    writeVarIntBytes: (this: Encoder, value: unknown) => Encoder
  }
  export { Encoder as default }
}
