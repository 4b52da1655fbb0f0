/**
 * The embedded stack: log, key service, secrets, keys and topics in one folder, wired to the same core as on AWS. One
 * process owns a stack (`openStack`); others reach its log by a socket and its keys as files (`connectStack`). It stands
 * in for a cluster and an AWS account on one person's machine, and protects its keys by file permissions alone.
 */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { IngestParts, IngestSettings } from '../admission/slice.ts'
import { firstPosition } from '../admission/position.ts'
import { controlPlaceOf, firstControlPosition } from '../audit/control-chain.ts'
import { documentFile } from '../adapters/document-file.ts'
import { tracedKeyService, tracedSink } from '../adapters/tracing.ts'
import { loadBundle } from '../contract/bundle.ts'
import type { Contracts } from '../contract/contract.ts'
import { topicFaults } from '../contract/topics.ts'
import { ConfigError } from '../errors.ts'
import type { PublicKey } from '../envelope/crypto.ts'
import { createDataKeys } from '../keys/data-keys.ts'
import { createDirectory } from '../keys/directory-reader.ts'
import { shieldKeyService } from '../keys/key-service-shield.ts'
import { loadPseudonyms, NO_PSEUDONYMS, type Pseudonyms } from '../keys/pseudonyms.ts'
import { createSealingKeys } from '../keys/sealing-keys.ts'
import { type SecretSignerOptions, secretSigners } from '../keys/signing-secret.ts'
import type { Clock, DocumentSource, Kek, KeyService, Signer } from '../ports.ts'
import { openLocalKeyService } from './key-service.ts'
import { localKeyPort } from './key-service-port.ts'
import type { Log } from './log.ts'
import { DEFAULT_MAX_MESSAGE_BYTES } from './log.ts'
import { connectLog } from './log-client.ts'
import { openLog } from './log-open.ts'
import { createLocalPositions, createLocalSink } from './log-sink.ts'
import { writePrivateFile } from './private-file.ts'
import { type LocalKeys, openLocalKeys } from './root.ts'
import { ensurePseudonymKeys, ensureSecret, openLocalSecrets } from './secrets.ts'

/** The gateway's name on every embedded stack. */
export const LOCAL_GATEWAY = 'sealgate-local'
const DEPLOYMENT = 'local'
export const AUDIT_TOPIC: string = `${DEPLOYMENT}.audit`
export const QUARANTINE_TOPIC: string = `${DEPLOYMENT}.quarantine`
const PSEUDONYMS = 'pseudonyms'
/** The secret that holds the gateway's signing key, which `sealgate rotate` replaces. */
export const LOCAL_SIGNING_SECRET: string = 'signing-gateway'
const MAX_VALUE_BYTES = 1_048_576
const MAX_LIFE_SECONDS = 86_400
/** Outputs and quarantined records are longer than what came in by at most this (sealed-event.md §7). */
const ALLOWANCE_BYTES = 65_536
const SET_UP_MS = 30_000
const PSEUDONYMS_MAX_AGE_MS = 300_000

export interface StackOptions {
  /** Made if it is not there, for its owner alone. */
  readonly folder: string
  /** The bundle of the contracts it runs by (`buildBundle`). */
  readonly bundle: Uint8Array
  /** Partitions of ingress and output topics where they are made; default 4. */
  readonly partitions?: number
  /** Name and version, for the audit. */
  readonly software: string
  /** How long the gate goes on with a signing key that it has read. */
  readonly signing?: Pick<SecretSignerOptions, 'maxAgeMs' | 'holdMs'>
}

/** What a producer needs for sealing: the options of `createSealer` that come from its surroundings. */
export interface LocalProducer {
  readonly iss: string
  readonly audience: string
  readonly signer: Signer
  readonly kek: Kek
  readonly keyService: KeyService
}

/** What a consumer needs for opening. */
export interface LocalConsumer {
  readonly audience: string
  readonly directory: { readonly source: DocumentSource; readonly roots: readonly PublicKey[] }
  readonly keyService: KeyService
}

export interface Stack {
  readonly log: Log
  readonly clock: Clock
  readonly contracts: Contracts
  /** The topics that producers write to; a channel's topic has its name. */
  readonly ingress: readonly string[]
  /** The topics that consumers read from. */
  readonly outputs: readonly string[]
  /** The gate on this stack, for `createIngest`. */
  gateParts(): IngestParts
  /** Throws `TypeError` for an issuer that no contract names, `ConfigError` for one whose key may sign no more. */
  producer(iss: string): LocalProducer
  consumer(name: string): LocalConsumer
  /** The pinned root and the signed directory: what verifying an audit trusts. */
  readonly directory: LocalConsumer['directory']
  close(): Promise<void>
}

/**
 * Opens or makes a stack and owns it. `ConfigError` where another process does, where its files are damaged, or where a
 * consumer's channel is one that the gate reads or the stack's own: before anything is made.
 */
export async function openStack(options: StackOptions): Promise<Stack> {
  const { folder, bundle } = options
  const contracts = loadBundle(bundle)
  refuseTakenTopics(contracts)
  const log = await openLog(join(folder, 'log'))
  try {
    const world = await openWorld(folder, contracts, options.signing)
    await writePrivateFile(join(folder, BUNDLE_FILE), bundle)
    await world.enrol()
    await setUp(log, world, options.partitions ?? 4)
    return stackOf(log, world, options.software)
  } catch (error) {
    await log.close()
    throw error
  }
}

/** Reaches a stack that another process runs; `Outage('sink-unavailable')` where none does. */
export async function connectStack(folder: string, software: string): Promise<Stack> {
  const log = await connectLog(join(folder, 'log'))
  try {
    return stackOf(log, await openWorld(folder, loadBundle(await readBundle(folder))), software)
  } catch (error) {
    await log.close()
    throw error
  }
}

/** A stack's topics have their channels' names. */
function refuseTakenTopics(contracts: Contracts): void {
  const faults = topicFaults(contracts, {
    sources: new Map(channelsOf(contracts).map((channel) => [channel, channel])),
    auditTopic: AUDIT_TOPIC,
    quarantineTopic: QUARANTINE_TOPIC,
    topicOf: (channel) => channel,
  })
  if (faults.length > 0) throw new ConfigError(faults)
}

const BUNDLE_FILE = 'contracts.bundle.json'

/** The contracts that a stack was last started by, as a bundle. `ConfigError` where none was. */
export async function readBundle(folder: string): Promise<Uint8Array> {
  const path = join(folder, BUNDLE_FILE)
  try {
    return await readFile(path)
  } catch (cause) {
    const reason = cause instanceof Error ? cause.message : 'unknown'
    throw new ConfigError([
      {
        where: path,
        what: `It cannot be read (${reason}).`,
        fix: 'Start the stack there first: sealgate local start.',
      },
    ])
  }
}

/** Everything beside the log. */
interface World {
  readonly clock: Clock
  readonly contracts: Contracts
  readonly keys: LocalKeys
  /** Signs with the key that is current in the gateway's secret. */
  gatewaySigner(): Signer
  keyServiceOf(principal: string): KeyService
  pseudonyms(deadline: number): Promise<Pseudonyms>
  enrol(): Promise<void>
}

async function openWorld(
  folder: string,
  contracts: Contracts,
  signing: StackOptions['signing'] = {},
): Promise<World> {
  const clock: Clock = { now: () => Date.now() }
  const keyFolder = join(folder, 'keys')
  const keyService = await openLocalKeyService(keyFolder, clock)
  const keys = await openLocalKeys(keyFolder, keyService, clock)
  const secrets = await openLocalSecrets(join(folder, 'secrets'), clock)
  const current = secretSigners({ ...signing, secrets, secret: LOCAL_SIGNING_SECRET, clock })
  let read: { at: number; pseudonyms: Promise<Pseudonyms> } | undefined
  return {
    clock,
    contracts,
    keys,
    gatewaySigner: () => ({ ...keys.signer(LOCAL_GATEWAY), current }),
    keyServiceOf: (principal) =>
      shieldKeyService(tracedKeyService(localKeyPort(keyService, clock, principal)), {
        clock,
        random: Math.random,
      }),
    pseudonyms: (deadline) => {
      if (domainsOf(contracts).length === 0) return Promise.resolve(NO_PSEUDONYMS)
      const now = clock.now()
      if (read === undefined || now - read.at > PSEUDONYMS_MAX_AGE_MS) {
        const pseudonyms = loadPseudonyms(secrets, PSEUDONYMS, deadline)
        read = { at: now, pseudonyms }
        pseudonyms.catch(() => (read = undefined))
      }
      return read.pseudonyms
    },
    enrol: async () => {
      const issuers = new Set(contracts.all.flatMap(({ publish }) => [...publish.keys()]))
      const consumers = new Set(contracts.all.flatMap(({ routes }) => routes.map(({ consumer }) => consumer)))
      await keys.enrol([
        ...Array.from(issuers, (iss) => ({ iss, readers: [LOCAL_GATEWAY] })),
        { iss: LOCAL_GATEWAY, readers: [...consumers] },
      ])
      await ensureSecret(secrets, LOCAL_SIGNING_SECRET, () => JSON.stringify(keys.privateJwk(LOCAL_GATEWAY)))
      await ensurePseudonymKeys(secrets, PSEUDONYMS, domainsOf(contracts))
    },
  }
}

const channelsOf = (contracts: Contracts): string[] => [
  ...new Set(contracts.all.map(({ channel }) => channel)),
]
const outputsOf = (contracts: Contracts): string[] => [
  ...new Set(contracts.all.flatMap(({ routes }) => routes.map(({ channel }) => channel))),
]

const domainsOf = (contracts: Contracts): string[] => [
  ...new Set(contracts.all.flatMap(({ routes }) => routes.flatMap((route) => route.domains))),
]

/** Topics and first positions: what `sealgate setup` does once for a cluster. */
async function setUp(log: Log, world: World, partitions: number): Promise<void> {
  const { contracts, clock } = world
  const there = new Set((await log.topics()).map(({ name }) => name))
  const ensure = async (name: string, count: number, maxMessageBytes: number): Promise<void> => {
    if (!there.has(name))
      await log.createTopic(name, count, { timestampType: 'LogAppendTime', maxMessageBytes })
  }
  for (const channel of channelsOf(contracts)) await ensure(channel, partitions, DEFAULT_MAX_MESSAGE_BYTES)
  for (const channel of outputsOf(contracts))
    await ensure(channel, partitions, DEFAULT_MAX_MESSAGE_BYTES + ALLOWANCE_BYTES)
  await ensure(AUDIT_TOPIC, 2, DEFAULT_MAX_MESSAGE_BYTES)
  await ensure(QUARANTINE_TOPIC, 2, DEFAULT_MAX_MESSAGE_BYTES + ALLOWANCE_BYTES)
  const positions = createLocalPositions(log, { deployment: DEPLOYMENT })
  const control = controlPlaceOf(AUDIT_TOPIC)
  if ((await positions.show(control, clock.now() + SET_UP_MS)) === undefined)
    await positions.init(control, firstControlPosition(), clock.now() + SET_UP_MS)
  for (const topic of channelsOf(contracts)) {
    const { length } = await log.endOffsets(topic)
    for (let partition = 0; partition < length; partition++) {
      const deadline = clock.now() + SET_UP_MS
      const known = await positions.show({ topic, partition }, deadline)
      if (known === undefined) await positions.init({ topic, partition }, firstPosition(0n), deadline)
    }
  }
}

function stackOf(log: Log, world: World, software: string): Stack {
  const { clock, contracts, keys } = world
  const directory = {
    source: documentFile({ path: keys.directoryPath, outage: 'directory-unavailable', clock }),
    roots: keys.roots,
  }
  const ingress = channelsOf(contracts)
  return {
    log,
    clock,
    contracts,
    ingress,
    outputs: outputsOf(contracts),
    directory,
    gateParts: () => gateParts(log, world, directory, new Set(ingress), software),
    producer: (iss) => ({
      iss,
      audience: LOCAL_GATEWAY,
      signer: keys.producerSigner(iss),
      kek: keys.kek(iss),
      keyService: world.keyServiceOf(iss),
    }),
    consumer: (name) => ({ audience: name, directory, keyService: world.keyServiceOf(name) }),
    close: () => log.close(),
  }
}

function gateParts(
  log: Log,
  world: World,
  directory: LocalConsumer['directory'],
  ingress: ReadonlySet<string>,
  software: string,
): IngestParts {
  const { clock, contracts, keys } = world
  const keyService = world.keyServiceOf(LOCAL_GATEWAY)
  const settings: IngestSettings = {
    name: LOCAL_GATEWAY,
    deployment: DEPLOYMENT,
    epoch: 1,
    software,
    maxValueBytes: MAX_VALUE_BYTES,
    limits: { maxSessions: 64, newDataKeysPerMinute: 60 },
    outlet: {
      auditTopic: AUDIT_TOPIC,
      quarantineTopic: QUARANTINE_TOPIC,
      kekId: keys.kek(LOCAL_GATEWAY).kekId,
      topicOf: (channel) => channel,
    },
    reserveMs: 2000,
    channelOf: (topic) =>
      ingress.has(topic) ? { name: topic, maxLifeSeconds: MAX_LIFE_SECONDS } : undefined,
  }
  return {
    settings,
    clock,
    sink: tracedSink(createLocalSink(log, { deployment: DEPLOYMENT })),
    directory: createDirectory({ ...directory, clock }),
    dataKeys: createDataKeys({ keyService, clock }),
    signer: world.gatewaySigner(),
    contracts: () => Promise.resolve(contracts),
    pseudonyms: (deadline) => world.pseudonyms(deadline),
    newSealingKeys: () => createSealingKeys({ keyService, clock }),
  }
}
