/**
 * A repair of kafkajs 2.2.4 for read_committed readers. It takes the list of aborted transactions to be in the order of
 * their beginnings, and enters one a message; brokers give it in the order of their ends. Where transactions overlapped
 * it so shows records of aborted ones (consumer/filterAbortedMessages.js).
 */
import Broker from 'kafkajs/src/broker/index.js'

let repaired = false

/** Once a process, before its first reader. */
export function repairCommittedReads(): void {
  if (repaired) return
  repaired = true
  const { fetch } = Broker.prototype
  Broker.prototype.fetch = async function (request) {
    const answer = await fetch.call(this, request)
    // Consumers wait for records; the poller's source does not, and looks at the list itself.
    if (
      typeof request === 'object' &&
      request !== null &&
      'maxWaitTime' in request &&
      request.maxWaitTime === 0
    )
      return answer
    for (const { partitions } of answer.responses) for (const partition of partitions) hideAborted(partition)
    return answer
  }
}

const ABORT = 0

/** Marks aborted records as what kafkajs never hands out, and leaves it nothing to decide. */
function hideAborted(partition: FetchedPartition): void {
  const { abortedTransactions, messages } = partition
  if (abortedTransactions.length === 0) return
  const waiting = abortedTransactions
    .map(({ producerId, firstOffset }) => ({ producerId, first: BigInt(firstOffset) }))
    .sort((a, b) => Number(a.first - b.first))
  const aborted = new Set<string>()
  for (const message of messages) {
    const offset = BigInt(message.offset)
    for (let next = waiting[0]; next !== undefined && next.first <= offset; next = waiting[0]) {
      aborted.add(next.producerId)
      waiting.shift()
    }
    const { producerId, inTransaction } = message.batchContext
    if (message.isControlRecord) {
      if (message.key?.readInt16BE(2) === ABORT) aborted.delete(producerId)
    } else if (inTransaction && aborted.has(producerId)) message.isControlRecord = true
  }
  partition.abortedTransactions = []
}

/** What of a fetch's answer matters here. */
export interface FetchedPartition {
  abortedTransactions: readonly { readonly producerId: string; readonly firstOffset: string }[]
  readonly messages: readonly {
    readonly offset: string
    readonly key: Buffer | null
    isControlRecord: boolean
    readonly batchContext: { readonly producerId: string; readonly inTransaction: boolean }
  }[]
}
