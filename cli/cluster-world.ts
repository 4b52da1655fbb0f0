/** Topics of a Kafka cluster as commands work on them. */
import { directorySigner } from '../lib/adapters/directory-signer.ts'
import { openDocument } from '../lib/adapters/document-place.ts'
import { createKafkaAppender } from '../lib/adapters/kafka-appender.ts'
import { createKafkaSink } from '../lib/adapters/kafka.ts'
import { createKafkaSource } from '../lib/adapters/kafka-source.ts'
import { kmsKeyService } from '../lib/adapters/kms.ts'
import { ConfigError } from '../lib/errors.ts'
import type { Directory, DirectorySnapshot } from '../lib/keys/directory.ts'
import { createDirectory } from '../lib/keys/directory-reader.ts'
import { openLocalKeyService } from '../lib/local/key-service.ts'
import { localKeyPort } from '../lib/local/key-service-port.ts'
import type { LocalProducer } from '../lib/local/stack.ts'
import type { Clock, Kek, KeyService } from '../lib/ports.ts'
import type { Given } from './place-settings.ts'
import {
  type DirectorySettings,
  type EventSettings,
  readEventSettings,
  readTopicSettings,
  type TopicSettings,
} from './settings.ts'
import type { Topics, World } from './world.ts'

const clock: Clock = { now: () => Date.now() }
const CALL_MS = 10_000

/** Connects when it is first asked. Throws `ConfigError` with every fault of the settings. */
export function openClusterTopics(given: Given, needsDirectory: boolean): Topics {
  return topicsOf(readTopicSettings(given, needsDirectory))
}

/** The same for sealing and opening. Reads the key directory once: rejects with `Outage` where it cannot. */
export async function openClusterWorld(given: Given): Promise<World> {
  const settings = await readEventSettings(given)
  const { contracts, channels, topics, directory: named } = settings
  const directory = directoryOf(named)
  const { snapshot } = await directory.snapshot(clock.now() + CALL_MS)
  const keyServiceOf = await keyServicesOf(settings)
  const outputs = [...new Set(contracts.all.flatMap(({ routes }) => routes.map(({ channel }) => channel)))]
  const topicOf = new Map(outputs.map((channel) => [channel, topics.get(channel) ?? channel]))
  for (const [topic, channel] of channels) topicOf.set(channel, topic)
  const channelOf = new Map(Array.from(topicOf, ([channel, topic]) => [topic, channel]))
  const appender = createKafkaAppender(settings.kafka, clock)
  const read = topicsOf(settings)
  return {
    ...read,
    contracts,
    gateway: named.gateway,
    directory,
    ingress: [...new Set(channels.values())],
    outputs,
    topicOf: (channel) => topicOf.get(channel),
    channelOf: (topic) => channelOf.get(topic),
    reconnects: true,
    append: (messages) => appender.append(messages),
    producer: (iss) => producerOf(iss, settings, snapshot, keyServiceOf(iss)),
    keyServiceOf,
    close: async () => {
      await Promise.all([appender.close(), read.close()])
    },
  }
}

function topicsOf({ kafka, channels, directory, auditTopic, quarantineTopic }: TopicSettings): Topics {
  const records = createKafkaSource(kafka)
  const positions = createKafkaSink(kafka, clock)
  return {
    ...{ clock, records, positions, auditTopic, quarantineTopic },
    sources: [...channels.keys()],
    epoch: kafka.epoch,
    gateKeys: async () => {
      if (directory === undefined) return new Map()
      const { snapshot } = await directoryOf(directory).snapshot(clock.now() + CALL_MS)
      const own = snapshot.signingKeys.filter(({ iss }) => iss === directory.gateway)
      return new Map(own.map(({ kidText, key }) => [kidText, key]))
    },
    close: async () => {
      await Promise.all([records.close(), positions.close()])
    },
  }
}

function directoryOf({ directory, roots }: DirectorySettings): Directory {
  const source = openDocument(directory, { outage: 'directory-unavailable', clock })
  return createDirectory({ source, roots, clock })
}

async function keyServicesOf({ keyServiceFolder }: EventSettings): Promise<(name: string) => KeyService> {
  if (keyServiceFolder === undefined) {
    const kms = kmsKeyService({ clock })
    return () => kms
  }
  const local = await openLocalKeyService(keyServiceFolder, clock)
  return (name) => localKeyPort(local, clock, name)
}

function producerOf(
  iss: string,
  { signing, kekIds, directory }: EventSettings,
  snapshot: DirectorySnapshot,
  keyService: KeyService,
): LocalProducer {
  const own = signing.get(iss)
  if (own === undefined)
    throw new ConfigError([
      {
        where: 'SEALGATE_SIGNING_KEYS',
        what: `It names no key of ${iss}.`,
        fix: 'Add it (signingKeys in sealgate.yaml), or seal as another with --as.',
      },
    ])
  const where = { key: 'SEALGATE_SIGNING_KEYS', kid: 'SEALGATE_SIGNING_KIDS' }
  const signer = directorySigner({ name: iss, signing: own, snapshot, clock, where })
  return { iss, audience: directory.gateway, signer, kek: kekOf(iss, kekIds.get(iss), snapshot), keyService }
}

/** The KEK under which the key directory lets an issuer seal. */
function kekOf(iss: string, kekId: string | undefined, { keks }: DirectorySnapshot): Kek {
  const own = keks.filter((kek) => kek.iss.includes(iss) && (kekId === undefined || kek.kekId === kekId))
  const [only, second] = own
  if (only !== undefined && second === undefined) return only
  const what =
    only === undefined
      ? `The key directory has no such KEK for ${iss}.`
      : `The key directory has several KEKs for ${iss}: ${own.map((kek) => kek.kekId).join(', ')}.`
  const fix = 'Name the one to seal under, issuer=kekId.'
  throw new ConfigError([{ where: 'SEALGATE_KEK_IDS', what, fix }])
}
