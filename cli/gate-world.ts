/** The gate itself, as an operator works with it: its rights, its keys and its positions. */
import type { IngestParts } from '../lib/admission/slice.ts'
import { createLocalPositions } from '../lib/local/log-sink.ts'
import { polledLog } from '../lib/local/poller.ts'
import type { PositionAdmin, RecordReader } from '../lib/ports.ts'
import { SOFTWARE } from '../lib/runtime.ts'
import { reachStack } from './folder.ts'
import { choosePlace, type PlaceFlags } from './place-settings.ts'
import { type GateSettings, readGateSettings } from './settings.ts'
import type { Terminal } from './terminal.ts'

export interface GateWorld {
  readonly ingest: IngestParts
  readonly reader: RecordReader
  readonly positions: PositionAdmin
  close(): Promise<void>
}

/** Opens the gate of what the flags, the environment or the settings file name. A stack may be run by another process. */
export async function openGateWorld({ env }: Terminal, flags: PlaceFlags): Promise<GateWorld> {
  const place = choosePlace(flags, env)
  if (!('folder' in place)) return openClusterGate(readGateSettings(place.cluster))
  const stack = await reachStack(place.folder)
  const ingest = stack.gateParts()
  return {
    ingest,
    reader: polledLog(stack.log),
    positions: createLocalPositions(stack.log, ingest.settings),
    close: () => stack.close(),
  }
}

/** Who works on the embedded stack needs no vendor's code. */
async function openClusterGate({ cluster, keyServiceFolder }: GateSettings): Promise<GateWorld> {
  const { openCluster } = await import('../lib/adapters/cluster.ts')
  const { createKafkaSink } = await import('../lib/adapters/kafka.ts')
  const { createKafkaSource } = await import('../lib/adapters/kafka-source.ts')
  const { parts, close } = await openCluster(cluster, SOFTWARE)
  const reader = createKafkaSource(cluster.kafka)
  const positions = createKafkaSink(cluster.kafka, parts.clock)
  return {
    ingest: keyServiceFolder === undefined ? parts : await withLocalKeys(parts, keyServiceFolder),
    reader,
    positions,
    close: async () => {
      await Promise.all([close(), reader.close(), positions.close()])
    },
  }
}

async function withLocalKeys(parts: IngestParts, folder: string): Promise<IngestParts> {
  const { openLocalKeyService } = await import('../lib/local/key-service.ts')
  const { localKeyPort } = await import('../lib/local/key-service-port.ts')
  const { createDataKeys } = await import('../lib/keys/data-keys.ts')
  const { createSealingKeys } = await import('../lib/keys/sealing-keys.ts')
  const { clock, settings } = parts
  const keyService = localKeyPort(await openLocalKeyService(folder, clock), clock, settings.name)
  return {
    ...parts,
    dataKeys: createDataKeys({ keyService, clock }),
    newSealingKeys: () => createSealingKeys({ keyService, clock }),
  }
}
