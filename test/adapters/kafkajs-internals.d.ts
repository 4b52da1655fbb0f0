/** What tests look at inside kafkajs, which publishes no types for it. */

declare module 'kafkajs/src/protocol/recordBatch/record/v0/index.js' {
  import type { IHeaders } from 'kafkajs'

  function encodeRecord(record: {
    readonly key: Buffer | null
    readonly value: Buffer | null
    readonly headers: IHeaders
  }): { readonly buffer: Buffer }
  export { encodeRecord as default }
}
