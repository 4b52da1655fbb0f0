/**
 * Repairs of kafkajs 2.2.4, whose last release is this one (docs/decisions/0004-kafkajs.md). They reach into its inside,
 * so they refuse any other version. The imports are static: they must survive a bundler.
 */
import vendor from 'kafkajs'
import Broker from 'kafkajs/src/broker/index.js'
import SASLAuthenticator from 'kafkajs/src/broker/saslAuthenticator/index.js'
import type { Coordinator, CoordinatorQuery, FetchedPartition } from 'kafkajs/src/cluster/index.js'
import Cluster from 'kafkajs/src/cluster/index.js'
import Connection from 'kafkajs/src/network/connection.js'
import RequestQueue from 'kafkajs/src/network/requestQueue/index.js'
import kafkajs from 'kafkajs/package.json' with { type: 'json' }
import { isBusy } from './kafka-outage.ts'
import { repairProduce } from './kafka-produce.ts'

const REPAIRED_VERSION = '2.2.4'
const TRANSACTION = 1

let repaired = false

/** Once a process, before its first client. Throws where kafkajs is not the version that it was made for. */
export function repairKafkajs(version: string = kafkajs.version): void {
  if (version !== REPAIRED_VERSION)
    throw new TypeError(
      `kafkajs ${version} is installed; this software is made for ${REPAIRED_VERSION} alone: pin that version.`,
    )
  if (repaired) return
  repaired = true
  repairRetries()
  repairCoordinators()
  repairAuthentication()
  repairIdleTimer()
  repairAnswers()
  repairProduce()
  repairCommittedReads()
}

/** K8: its transaction manager reads settings that nobody sets, and so waits 300 ms between five tries; ours are none. */
function repairRetries(): void {
  Cluster.prototype.retry = { retries: 0 }
}

/**
 * K10: it asks for the coordinator before each request of a transaction. Here each cluster, which lives and dies with its
 * producer, keeps them until a request is rejected. K11: what a broker answers to the question is not lost.
 */
function repairCoordinators(): void {
  const { findGroupCoordinator: find } = Cluster.prototype
  const known = new WeakMap<Cluster, Map<string, string | number>>()

  Cluster.prototype.findGroupCoordinator = async function (query: CoordinatorQuery): Promise<Coordinator> {
    // Only a transactional producer asks for a transaction's coordinator; consumers and admins keep to their own ways.
    if (query.coordinatorType === TRANSACTION && !known.has(this)) known.set(this, new Map())
    const nodes = known.get(this)
    if (nodes === undefined) return find.call(this, query)
    const name = `${query.coordinatorType ?? 0}:${query.groupId}`
    const forgetting = async <T>(request: () => Promise<T>): Promise<T> => {
      try {
        return await request()
      } catch (error) {
        // Busy with the transaction before is no sign that it has moved.
        if (!isBusy(error)) nodes.delete(name)
        throw error
      }
    }
    const nodeId = nodes.get(name)
    const broker = await forgetting(() =>
      nodeId === undefined ? find.call(this, query) : this.findBroker({ nodeId }),
    )
    nodes.set(name, broker.nodeId)
    return {
      nodeId: broker.nodeId,
      initProducerId: (request) => forgetting(() => broker.initProducerId(request)),
      addPartitionsToTxn: (request) => forgetting(() => broker.addPartitionsToTxn(request)),
      addOffsetsToTxn: (request) => forgetting(() => broker.addOffsetsToTxn(request)),
      txnOffsetCommit: (request) => forgetting(() => broker.txnOffsetCommit(request)),
      endTxn: (request) => forgetting(() => broker.endTxn(request)),
    }
  }

  Cluster.prototype.findGroupCoordinatorMetadata = async function (query) {
    // The answer is a broker's number, which only metadata turns into a broker.
    await this.refreshMetadataIfNecessary()
    const broker = await this.brokerPool.findConnectedBroker()
    return broker.findGroupCoordinator(query)
  }
}

/**
 * K19: a connection whose authentication was not answered in time, or that is being ended, was used by whoever came next,
 * who began to authenticate anew. Brokers refuse that (`ILLEGAL_SASL_STATE`), which otherwise says that a listener takes no
 * SASL, and nobody tries again. The one is ended, for another to be made; the other is as one that is not connected.
 * K20: a mechanism is not told which connection asks, and could not know whom it has authenticated there before.
 */
function repairAuthentication(): void {
  const { authenticate } = SASLAuthenticator.prototype
  SASLAuthenticator.prototype.authenticate = async function () {
    const { connection } = this
    if (connection.authenticatedAt === null)
      connection.sasl = connection.sasl.ofConnection?.() ?? connection.sasl
    if (connection.connectionStatus === 'disconnecting')
      throw new vendor.KafkaJSConnectionError('Connection is being closed', {
        broker: `${connection.host}:${connection.port}`,
      })
    try {
      await authenticate.call(this)
    } catch (error) {
      // At once: its end, told later, would be taken for that of the next.
      connection.socket.destroy()
      await connection.disconnect()
      throw error
    }
  }
}

/** K7: an idle connection woke every millisecond for a timer in the past. Only what waits needs to be looked at again. */
function repairIdleTimer(): void {
  const { scheduleCheckPendingRequests: schedule } = RequestQueue.prototype
  RequestQueue.prototype.scheduleCheckPendingRequests = function () {
    if (this.pending.length > 0 || this.throttledUntil > Date.now()) schedule.call(this)
  }
}

/** More than brokers answer to anything that we ask. */
const MAX_ANSWER_BYTES = 134_217_728

/** K21: what is no answer, or one without end, ended the process or filled its memory; now it ends the connection. */
function repairAnswers(): void {
  const { processData } = Connection.prototype
  Connection.prototype.processData = function (data) {
    try {
      processData.call(this, data)
    } catch {
      this.socket.destroy(new Error('what came is no answer of Kafka'))
      return
    }
    if (this.bytesNeeded > MAX_ANSWER_BYTES)
      this.socket.destroy(new Error(`an answer of ${this.bytesNeeded} bytes is on its way`))
  }
}

/**
 * K16, K18: what a read_committed reader must not see is marked as what kafkajs never hands out, and nothing is left to
 * its own filter. That one takes a record whose key is four zeros for an end, and the list of aborted transactions to be
 * in the order of their beginnings; brokers give it in the order of their ends.
 */
function repairCommittedReads(): void {
  const { fetch } = Broker.prototype
  Broker.prototype.fetch = async function (request) {
    const answer = await fetch.call(this, request)
    for (const { partitions } of answer.responses) for (const partition of partitions) hideAborted(partition)
    return answer
  }
}

/** As Kafka's own consumer: a transaction is aborted from its first offset until its producer's abort marker. */
function hideAborted(page: FetchedPartition): void {
  if (page.abortedTransactions.length === 0) return
  const transactions = page.abortedTransactions
    .map(({ producerId, firstOffset }) => ({ producerId, first: BigInt(firstOffset) }))
    .sort((a, b) => (a.first < b.first ? -1 : 1))
    .values()
  const aborted = new Set<string>()
  let next = transactions.next()
  for (const message of page.messages) {
    for (; next.done !== true && next.value.first <= BigInt(message.offset); next = transactions.next())
      aborted.add(next.value.producerId)
    const { batchContext: batch } = message
    if (batch?.isControlBatch === true) {
      if (isAbortMarker(message.key)) aborted.delete(batch.producerId)
    } else if (batch?.inTransaction === true && aborted.has(batch.producerId)) message.isControlRecord = true
  }
  page.abortedTransactions = []
}

/** A marker's key: its version, and 0 for an abort or 1 for a commit, 16 bits each. */
const isAbortMarker = (key: Buffer | null): boolean =>
  key !== null && key.length >= 4 && key.readInt16BE(2) === 0
