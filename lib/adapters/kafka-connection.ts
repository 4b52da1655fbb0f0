/** kafkajs's view of a whole cluster, below its clients: for what these cannot ask. */
import type { Logger } from 'kafkajs'
import Cluster from 'kafkajs/src/cluster/index.js'
import type { KafkaAccess } from './kafka-access.ts'
import { isPassing } from './kafka-outage.ts'

const READ_COMMITTED = 1
const METADATA_MAX_AGE_MS = 60_000

/** Connects by the first broker that answers, as who we are now; one that refuses us speaks for all. No other is tried after `until`. */
export async function connectCluster(
  access: KafkaAccess,
  brokers: readonly string[],
  until: number,
): Promise<Cluster> {
  await access.refresh()
  let last: unknown
  for (const broker of brokers) {
    const cluster = new Cluster({
      ...access.config([broker]),
      logger: SILENT,
      metadataMaxAge: METADATA_MAX_AGE_MS,
      allowAutoTopicCreation: false,
      isolationLevel: READ_COMMITTED,
    })
    try {
      await cluster.connect()
      return cluster
    } catch (error) {
      last = error
      void disconnectCluster(Promise.resolve(cluster))
      if (!isPassing(error) || Date.now() >= until) break
    }
  }
  throw last
}

/** Ends it once it is connected. Never rejects. */
export async function disconnectCluster(connecting: Promise<Cluster>): Promise<void> {
  await connecting.then((cluster) => cluster.disconnect()).catch(() => undefined)
}

/** Every error is thrown, and says more where it is translated. */
const SILENT: Logger = {
  info: () => undefined,
  error: () => undefined,
  warn: () => undefined,
  debug: () => undefined,
  namespace: () => SILENT,
  setLogLevel: () => undefined,
}
