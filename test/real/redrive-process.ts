/** An operator in a process of its own, to be killed: redrives a real shop's quarantine, and says when it commits. */
import { createKafkaSink } from '../../lib/adapters/kafka.ts'
import { readKafkaSettings } from '../../lib/adapters/kafka-settings.ts'
import { createKafkaSource } from '../../lib/adapters/kafka-source.ts'
import { redrive } from '../../lib/admission/redrive.ts'
import { connectStack } from '../../lib/local/stack.ts'
import type { Sink } from '../../lib/ports.ts'

/** It comes in the environment, as JSON. */
export interface OperatorSettings {
  /** Of the embedded stack, for keys and contracts; its owner is another process. */
  readonly folder: string
  /** As `readKafkaSettings` takes them. */
  readonly kafka: object
  readonly deployment: string
  readonly source: string
  readonly audit: string
  readonly quarantine: string
  /** Channel to topic. */
  readonly outputs: Readonly<Record<string, string>>
}

const settings: OperatorSettings = JSON.parse(process.env['OPERATOR'] ?? '')
const kafka = readKafkaSettings(settings.kafka)
const stack = await connectStack(settings.folder, 'test')
const positions = createKafkaSink(kafka, stack.clock)
const reader = createKafkaSource(kafka)
const parts = stack.gateParts()

/** Many transactions, and a sign of life on each side of them. */
const sink: Sink = {
  partitionsOf: (topic, deadline) => positions.partitionsOf(topic, deadline),
  open: async (source, deadline) => {
    const { position, maxStateBytes, ...session } = await positions.open(source, deadline).then((opened) => ({
      position: opened.position,
      maxStateBytes: opened.maxStateBytes,
      commit: (...call: Parameters<typeof opened.commit>) => opened.commit(...call),
      close: () => opened.close(),
    }))
    return {
      ...{ position, maxStateBytes, maxBatchBytes: 4_000 },
      commit: async (...call) => {
        process.stdout.write('.')
        await session.commit(...call)
        process.stdout.write('.')
      },
      close: session.close,
    }
  },
}

process.stdout.write('.')
const { stops } = await redrive(
  { dryRun: false, acceptExpired: new Set(), by: null, reason: null },
  {
    ingest: {
      ...parts,
      sink,
      settings: {
        ...parts.settings,
        deployment: settings.deployment,
        outlet: {
          ...parts.settings.outlet,
          auditTopic: settings.audit,
          quarantineTopic: settings.quarantine,
          topicOf: (channel) => settings.outputs[channel] ?? channel,
        },
        channelOf: (topic) =>
          topic === settings.source ? { name: 'orders', maxLifeSeconds: 86_400 } : undefined,
      },
    },
    reader,
    positions,
  },
  { outcome: () => undefined },
  new AbortController().signal,
)
await Promise.all([positions.close(), reader.close(), stack.close()])
for (const { partition, outage } of stops) process.stderr.write(`${partition}: ${outage.message}\n`)
process.exitCode = stops.length
