/** The audit topic of a stack or a cluster for `sealgate audit`, with the heads in the gate's positions. */
import type { AuditHead } from '../lib/audit/segment.ts'
import { Outage } from '../lib/errors.ts'
import { auditSource, readHeads } from '../lib/local/audit-source.ts'
import type { TopicPartition } from '../lib/ports.ts'
import type { OpenAudit } from './audit.ts'
import { oneLine } from './io.ts'
import type { Terminal } from './terminal.ts'
import { openTopics, type Topics } from './world.ts'

const CALL_MS = 60_000

/** Opens it where flags, environment and settings say. The keys are those of the directory, which its root has signed. */
export function openAudit(terminal: Terminal): OpenAudit {
  return async ({ topic, needsKeys, ...flags }) => {
    const topics = await openTopics(terminal, flags, needsKeys)
    try {
      const keys = needsKeys ? await topics.gateKeys() : new Map()
      const source = auditSource(topics.records, topic ?? topics.auditTopic)
      // Whether the topic is there, before anything else is said of it.
      await source.partitions()
      return {
        source: { ...source, heads: () => headsOf(topics, terminal) },
        keys,
        close: () => topics.close(),
      }
    } catch (error) {
      await topics.close()
      throw error
    }
  }
}

/** Undefined where they are not for us to read: what is there can be verified, but a cut at the end would not show. */
async function headsOf(
  { sources: topics, records, positions, auditTopic, clock }: Topics,
  terminal: Terminal,
): Promise<ReadonlyMap<string, AuditHead> | undefined> {
  if (topics.length === 0) {
    terminal.warn('The heads in the positions are not looked for: SEALGATE_CHANNELS names no source topic.')
    return undefined
  }
  try {
    const sources: TopicPartition[] = []
    for (const topic of topics) {
      const count = await records.partitions(topic)
      sources.push(...Array.from({ length: count }, (_, partition) => ({ topic, partition })))
    }
    return await readHeads({ positions, sources, auditTopic, deadline: clock.now() + CALL_MS })
  } catch (error) {
    if (!(error instanceof Outage) || error.code !== 'sink-denied') throw error
    terminal.warn(oneLine(`The heads in the positions may not be read: ${error.message}`))
    return undefined
  }
}
