/** The embedded stack's audit for `sealgate audit`: its topic, the heads in its positions, the gateway's keys. */
import type { TopicPartition } from '../lib/ports.ts'
import { createDirectory } from '../lib/keys/directory-reader.ts'
import { auditSource } from '../lib/local/audit-source.ts'
import { polledLog } from '../lib/local/poller.ts'
import { createLocalPositions } from '../lib/local/log-sink.ts'
import { AUDIT_TOPIC, LOCAL_GATEWAY } from '../lib/local/stack.ts'
import { ConfigError } from '../lib/errors.ts'
import type { OpenAudit } from './audit.ts'
import { reachStack } from './folder.ts'

const CALL_MS = 60_000

/** Opens the audit of the stack in a folder. The keys are those of its directory, which its root has signed. */
export function openLocalAudit(folderOf: () => string): OpenAudit {
  return async ({ topic = AUDIT_TOPIC }) => {
    const stack = await reachStack(folderOf())
    try {
      const topics = (await stack.log.topics()).map(({ name }) => name)
      if (!topics.includes(topic))
        throw new ConfigError([
          { where: '--topic', what: `There is no topic ${topic}.`, fix: `There are: ${topics.join(', ')}.` },
        ])
      const sources: TopicPartition[] = []
      for (const ingress of stack.ingress)
        for (const partition of (await stack.log.endOffsets(ingress)).keys())
          sources.push({ topic: ingress, partition })
      const { deployment } = stack.gateParts().settings
      const positions = createLocalPositions(stack.log, { deployment })
      const deadline = stack.clock.now() + CALL_MS
      const directory = createDirectory({ ...stack.directory, clock: stack.clock })
      const { snapshot } = await directory.snapshot(deadline)
      const own = snapshot.signingKeys.filter(({ iss }) => iss === LOCAL_GATEWAY)
      return {
        source: auditSource(polledLog(stack.log), topic, { positions, sources, deadline }),
        keys: new Map(own.map(({ kidText, key }) => [kidText, key])),
        close: () => stack.close(),
      }
    } catch (error) {
      await stack.close()
      throw error
    }
  }
}
