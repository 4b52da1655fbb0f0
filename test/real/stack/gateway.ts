/** A gateway on a real cluster, as `npm run stack` runs it: topics, positions, keys, and what a command line needs. */
import { join } from 'node:path'
import { openClusterWorld } from '../../../cli/cluster-world.ts'
import { choosePlace } from '../../../cli/place-settings.ts'
import type { World } from '../../../cli/world.ts'
import { createKafkaSink } from '../../../lib/adapters/kafka.ts'
import { readKafkaSettings, type KafkaSinkSettings } from '../../../lib/adapters/kafka-settings.ts'
import { createKafkaSource, type KafkaSource } from '../../../lib/adapters/kafka-source.ts'
import { firstPosition } from '../../../lib/admission/position.ts'
import type { IngestParts } from '../../../lib/admission/slice.ts'
import { controlPlaceOf, firstControlPosition } from '../../../lib/audit/control-chain.ts'
import { clusterNeeds } from '../../../lib/cluster-needs.ts'
import { openStack, type Stack } from '../../../lib/local/stack.ts'
import { SOFTWARE } from '../../../lib/runtime.ts'
import { RealCluster, soon } from '../cluster.ts'
import type { Principal } from './rights.ts'
import { writeCommandSettings } from './settings.ts'
import { type Connection, DEPLOYMENT } from './stack.ts'

export interface Gateway {
  /** sealgate.yaml of the principal `operator`. */
  readonly settingsFile: string
  /** The world of these settings: what commands work on. */
  readonly world: World
  /** The pinned root, and where the signed directory is. */
  readonly trust: Stack['directory']
  /** For `createIngest`: writes as the principal `gate`. */
  gateParts(): IngestParts
  /** For the poller: reads as the principal `poller`. */
  readonly polled: { readonly source: KafkaSource; readonly group: string }
  close(): Promise<void>
}

const AUDIT = `${DEPLOYMENT}.audit`
const QUARANTINE = `${DEPLOYMENT}.quarantine`

/**
 * Sets it up on a cluster without topics, by the rights that all principals of the stack have; files go to `folder`.
 * @param prepare makes the topics instead, given the settings
 */
export async function openGateway(
  connection: Connection,
  folder: string,
  bundle: Uint8Array,
  partitions: number,
  prepare?: (settingsFile: string) => Promise<void>,
): Promise<Gateway> {
  const stackFolder = join(folder, 'keys-and-contracts')
  const stack = await openStack({ folder: stackFolder, bundle, partitions: 1, software: SOFTWARE })
  const sources = new Map(stack.ingress.map((channel) => [channel, `source.${channel}`]))
  const outputs = new Map(stack.outputs.map((channel) => [channel, `output.${channel}`]))
  const cluster = new RealCluster(connection)
  const sink = createKafkaSink(settingsOf(connection, 'gate'), stack.clock)
  const source = createKafkaSource(settingsOf(connection, 'poller'))
  const close = async (): Promise<void> => {
    await Promise.all([sink.close(), source.close(), cluster.end(), stack.close()])
  }
  try {
    const settingsFile = await writeCommandSettings(folder, {
      ...{ connection, principal: 'operator', stack, stackFolder, sources, outputs },
      ...{ auditTopic: AUDIT, quarantineTopic: QUARANTINE },
    })
    const channelOf = new Map(Array.from(sources, ([channel, topic]) => [topic, channel]))
    if (prepare === undefined) {
      const topics = { topics: outputs, auditTopic: AUDIT, quarantineTopic: QUARANTINE }
      const { contracts } = stack
      const needs = clusterNeeds({ deployment: DEPLOYMENT, channels: channelOf, contracts, ...topics })
      // A single broker has no second replica.
      const withoutReplicas = (settings: Readonly<Record<string, string>>): Record<string, string> =>
        Object.fromEntries(Object.entries(settings).filter(([name]) => name !== 'min.insync.replicas'))
      await Promise.all(
        needs.topics.map(({ name, settings }) =>
          cluster.createTopic(name, partitions, withoutReplicas(settings)),
        ),
      )
    } else await prepare(settingsFile)
    for (const topic of sources.values())
      for (let partition = 0; partition < partitions; partition++)
        await sink.init({ topic, partition }, firstPosition(0n), soon())
    const operator = createKafkaSink(settingsOf(connection, 'operator'), stack.clock)
    await operator.init(controlPlaceOf(AUDIT), firstControlPosition(), soon()).finally(() => operator.close())
    const place = choosePlace({ settings: settingsFile }, {})
    if ('folder' in place) throw new TypeError('settings of a cluster name a folder')
    const world = await openClusterWorld(place.cluster)
    return {
      settingsFile,
      world,
      trust: stack.directory,
      gateParts: () => {
        const parts = stack.gateParts()
        const { settings } = parts
        const outlet = {
          ...{ kekId: settings.outlet.kekId, auditTopic: AUDIT, quarantineTopic: QUARANTINE },
          topicOf: (channel: string) => outputs.get(channel) ?? channel,
        }
        return {
          ...parts,
          sink,
          settings: {
            ...{ ...settings, deployment: DEPLOYMENT, outlet },
            channelOf: (topic) => {
              const name = channelOf.get(topic)
              return name === undefined ? undefined : { name, maxLifeSeconds: 86_400 }
            },
          },
        }
      },
      polled: { source, group: `${DEPLOYMENT}.lambda.ingest` },
      close: async () => {
        await world.close()
        await close()
      },
    }
  } catch (error) {
    await close()
    throw error
  }
}

function settingsOf(connection: Connection, principal: Principal): KafkaSinkSettings {
  return readKafkaSettings({
    brokers: connection.brokers,
    ssl: { ca: connection.ca },
    sasl: { mechanism: 'scram-sha-512', username: principal, password: connection.passwords[principal] },
    deployment: DEPLOYMENT,
  })
}
