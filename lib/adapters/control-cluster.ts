/** The control chain on a Kafka cluster, for what changes keys and is no gate: a function, or a command. */
import type { LifecycleLog } from '../audit/lifecycle.ts'
import { lifecycleLog } from '../audit/lifecycle.ts'
import { createDirectory } from '../keys/directory-reader.ts'
import type { Clock } from '../ports.ts'
import type { ControlSettings, TrustSettings } from '../settings.ts'
import { gateSigner } from './directory-signer.ts'
import { openDocument } from './document-place.ts'
import { createKafkaSink } from './kafka.ts'

export interface OpenedLifecycleLog {
  readonly log: LifecycleLog
  close(): Promise<void>
}

/**
 * Connects when it is first told something. What is told rejects with `ConfigError` where the key directory has no key that
 * the gateway may sign with.
 *
 * @param software name and version, for the audit
 */
export function openClusterLifecycle(
  { name, kafka, auditTopic, signing }: ControlSettings,
  trust: TrustSettings,
  clock: Clock,
  software: string,
): OpenedLifecycleLog {
  const sink = createKafkaSink(kafka, clock)
  const log = lifecycleLog({
    ...{ sink, clock, software, auditTopic, deployment: kafka.deployment, epoch: kafka.epoch },
    signer: async (deadline) => {
      // Read each time: what was just published may have put the key itself out of use.
      const source = openDocument(trust.directory, { outage: 'directory-unavailable', clock })
      const { snapshot } = await createDirectory({ source, roots: trust.roots, clock }).snapshot(deadline)
      return gateSigner({ name, signing, snapshot, clock }, deadline)
    },
  })
  return { log, close: () => sink.close() }
}
