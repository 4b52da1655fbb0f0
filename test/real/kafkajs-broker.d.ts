/** The requests of kafkajs, for which it publishes no types: tests watch them, and repair one. */

declare module 'kafkajs/src/broker/index.js' {
  import type { FetchedPartition } from './committed-reads.ts'

  interface FetchAnswer {
    readonly responses: readonly { readonly partitions: readonly FetchedPartition[] }[]
  }

  class Broker {
    fetch: (this: Broker, request: unknown) => Promise<FetchAnswer>
  }
  export { Broker as default }
}
