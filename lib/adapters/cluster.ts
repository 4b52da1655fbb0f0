/** What the gate works with between topics of a Kafka cluster, with keys in AWS KMS. */
import type { IngestParts } from '../admission/slice.ts'
import { Outage } from '../errors.ts'
import { createDataKeys } from '../keys/data-keys.ts'
import { createDirectory } from '../keys/directory-reader.ts'
import { shieldKeyService } from '../keys/key-service-shield.ts'
import { loadPseudonyms, NO_PSEUDONYMS } from '../keys/pseudonyms.ts'
import { createSealingKeys } from '../keys/sealing-keys.ts'
import type { Clock, SecretStore } from '../ports.ts'
import type { ClusterSettings } from '../settings.ts'
import { gateSigner } from './directory-signer.ts'
import { documentFile } from './document-file.ts'
import { openDocument } from './document-place.ts'
import { createKafkaSink } from './kafka.ts'
import { kmsKeyService } from './kms.ts'
import { Renewable } from './renewable.ts'
import { secretsManager } from './secrets-manager.ts'
import { tracedKeyService, tracedSink } from './tracing.ts'

/**
 * Reads the key directory once, for the signer's key: rejects with `Outage` where it cannot, with `ConfigError` where
 * it has no key that this gateway may sign with. Kafka and KMS are first asked by the first slice.
 */
export async function openCluster(
  settings: ClusterSettings,
  software: string,
): Promise<{ readonly parts: IngestParts; readonly close: () => Promise<void> }> {
  const { name, contracts, channels, topics, kafka, kekId, maxLifeSeconds } = settings
  const clock: Clock = { now: () => Date.now() }
  const source = openDocument(settings.directory, { outage: 'directory-unavailable', clock })
  const directory = createDirectory({ source, roots: settings.roots, clock })
  const { snapshot } = await directory.snapshot(clock.now() + OPEN_MS)
  const { signing } = settings
  const signer = await gateSigner({ name, signing, snapshot, clock }, clock.now() + OPEN_MS)
  const keyService = shieldKeyService(tracedKeyService(kmsKeyService({ clock })), {
    clock,
    random: Math.random,
  })
  const sink = createKafkaSink(kafka, clock)
  const parts: IngestParts = {
    settings: {
      name,
      deployment: kafka.deployment,
      epoch: kafka.epoch,
      software,
      maxValueBytes: MAX_VALUE_BYTES,
      limits: settings.limits,
      outlet: {
        auditTopic: settings.auditTopic,
        quarantineTopic: settings.quarantineTopic,
        kekId,
        topicOf: (channel) => topics.get(channel) ?? channel,
      },
      reserveMs: RESERVE_MS,
      channelOf: (topic) => {
        const channel = channels.get(topic)
        return channel === undefined ? undefined : { name: channel, maxLifeSeconds }
      },
    },
    clock,
    sink: tracedSink(sink),
    directory,
    dataKeys: createDataKeys({ keyService, clock }),
    signer,
    contracts: () => Promise.resolve(contracts),
    pseudonyms: pseudonymsOf(settings.pseudonyms, clock),
    newSealingKeys: () => createSealingKeys({ keyService, clock }),
  }
  return { parts, close: () => sink.close() }
}

const MAX_VALUE_BYTES = 1_048_576
const RESERVE_MS = 2000
const OPEN_MS = 5000
const PSEUDONYMS_FRESH_MS = 300_000
/** While where they are kept does not answer. */
const PSEUDONYMS_GOOD_MS = 3_600_000

/** The pseudonym keys in a file or, by its ARN, in a secret: read again every five minutes. */
function pseudonymsOf(name: string | undefined, clock: Clock): IngestParts['pseudonyms'] {
  if (name === undefined) return () => Promise.resolve(NO_PSEUDONYMS)
  const store = name.startsWith('arn:') ? secretsManager(clock) : fileStore(name, clock)
  const kept = new Renewable(async (deadline) => {
    const value = await loadPseudonyms(store, name, deadline)
    const now = clock.now()
    return {
      value,
      version: '',
      freshUntil: now + PSEUDONYMS_FRESH_MS,
      goodUntil: now + PSEUDONYMS_GOOD_MS,
    }
  }, clock)
  return (deadline) => kept.current(deadline)
}

function fileStore(path: string, clock: Clock): SecretStore {
  const file = documentFile({ path, outage: 'secret-unavailable', clock })
  return {
    read: async (_, deadline) => {
      const read = await file.read(undefined, deadline)
      if (read === 'unchanged')
        throw new Outage('unexpected', 'a file read for the first time is not unchanged')
      return { value: read.bytes, version: read.etag }
    },
  }
}
