/** A look at a Kafka cluster from outside, for `sealgate doctor`: it changes nothing that anybody else sees. */
import { lookup } from 'node:dns/promises'
import type { Socket } from 'node:net'
import { TLSSocket } from 'node:tls'
import type { Broker, default as Cluster } from 'kafkajs/src/cluster/index.js'
import { Outage } from '../errors.ts'
import { byDeadline } from '../keys/deadline.ts'
import type { Clock } from '../ports.ts'
import { KafkaAccess } from './kafka-access.ts'
import { connectCluster, disconnectCluster } from './kafka-connection.ts'
import { credentialsOf } from './kafka-credentials.ts'
import { isCold, kafkaOutage } from './kafka-outage.ts'
import {
  type Allowed,
  askConfigs,
  askFeatures,
  askGroup,
  askMetadata,
  type Config,
  type MetadataFacts,
} from './kafka-questions.ts'
import { repairKafkajs } from './kafka-repairs.ts'
import type { KafkaConnectionSettings } from './kafka-settings.ts'
import { secretsManager } from './secrets-manager.ts'

/** Answers of a cluster. Every rejection is an `Outage`. */
export interface KafkaSurvey {
  /** Of these topics and no others, whether they are there or not. */
  metadata(topics: readonly string[]): Promise<MetadataFacts>
  /** What we may do with a group; undefined where we may not even see it. */
  group(group: string): Promise<Allowed | undefined>
  /** Whether we may write as this transactional id. Whoever writes as it is fenced: give one that nobody uses. */
  mayTransact(transactionalId: string): Promise<boolean>
  /** By topic; undefined where we may not see its settings. */
  topicConfigs(topics: readonly string[]): Promise<ReadonlyMap<string, Config | undefined>>
  /** One broker's; undefined where we may not see them. */
  brokerConfig(): Promise<Config | undefined>
  /** What each broker's software knows of. */
  software(): Promise<readonly BrokerSoftware[]>
  close(): Promise<void>
}

export interface BrokerSoftware {
  readonly id: number
  /** The highest version of a Fetch request. */
  readonly fetchVersion: number
  /** The highest level of the feature `metadata.version`; undefined where it has none, as without KRaft. */
  readonly metadataVersion: number | undefined
}

const GROUP_AUTHORIZATION_FAILED = 30
const RETRY_MS = 200
/** Kafka's numbers: it loads, is made, or is another broker by now. */
const COLD = [14, 15, 16] as const

class ColdCoordinator extends Error {
  override readonly name = 'ColdCoordinator'
}

/** Connects as who the settings say. Rejects with `Outage`. */
export async function surveyKafka(
  settings: KafkaConnectionSettings,
  clock: Clock,
  deadline: number,
): Promise<KafkaSurvey> {
  repairKafkajs()
  const connecting = connectCluster(new KafkaAccess(settings, clock), settings.brokers, deadline)
  const within = async <T>(name: string, work: () => Promise<T>): Promise<T> => {
    for (;;)
      try {
        return await byDeadline(work(), deadline, clock, () => late(name))
      } catch (error) {
        // A coordinator that nobody has asked for anything yet is made first.
        const mayPass = isCold(error) || error instanceof ColdCoordinator
        if (!mayPass || clock.now() + RETRY_MS >= deadline)
          throw kafkaOutage(error, { name, topics: [], group: '', transactionalId: '' })
        await new Promise((resolve) => setTimeout(resolve, RETRY_MS))
      }
  }
  const cluster = await within('the cluster', () => connecting).catch((error: unknown) => {
    void disconnectCluster(connecting)
    throw error
  })
  const ask = <T>(name: string, question: (broker: Broker) => Promise<T>): Promise<T> =>
    within(name, async () => question(await cluster.brokerPool.findConnectedBroker()))
  await within('the cluster', () => cluster.refreshMetadata())
  return {
    metadata: (topics) => ask('topics', (broker) => askMetadata(broker, topics)),
    group: (group) =>
      within(`group ${group}`, async () => {
        const { coordinator } = await cluster.findGroupCoordinatorMetadata({ groupId: group })
        const { error, allowed } = await askGroup(await cluster.findBroker(coordinator), group)
        if (error === 0) return allowed
        if (error === GROUP_AUTHORIZATION_FAILED) return undefined
        if (COLD.some((code) => code === error)) throw new ColdCoordinator('not ready yet')
        throw new Outage('sink-unavailable', `its coordinator does not tell us (error ${error})`)
      }).catch(unlessRefused('GROUP_AUTHORIZATION_FAILED', undefined)),
    mayTransact: (transactionalId) =>
      within(`transactional id ${transactionalId}`, async () => {
        const query = { groupId: transactionalId, coordinatorType: 1 }
        const coordinator = await cluster.findGroupCoordinator(query)
        await coordinator.initProducerId({ transactionalId, transactionTimeout: 1000 })
        return true
      }).catch(unlessRefused('TRANSACTIONAL_ID_AUTHORIZATION_FAILED', false)),
    topicConfigs: (topics) => ask('settings of topics', (broker) => askConfigs(broker, { topics })),
    brokerConfig: () =>
      ask('settings of a broker', async (broker) => {
        const id = Number(broker.nodeId)
        return (await askConfigs(broker, { broker: id })).get(String(id))
      }),
    software: () => within('versions', () => softwareOf(cluster)),
    close: () => disconnectCluster(connecting),
  }
}

/** For an error by which a broker refuses us something: an answer instead. */
const unlessRefused =
  <T>(type: string, answer: T) =>
  (error: unknown): T => {
    for (let cause: unknown = error; cause instanceof Error; cause = cause.cause)
      if ('type' in cause && cause.type === type) return answer
    throw error
  }

async function softwareOf(cluster: Cluster): Promise<readonly BrokerSoftware[]> {
  return Promise.all(
    cluster.getNodeIds().map(async (nodeId) => {
      const broker = await cluster.findBroker({ nodeId })
      const features = await askFeatures(broker, '1')
      const fetchVersion = broker.versions[FETCH]?.maxVersion ?? 0
      return { id: Number(nodeId), fetchVersion, metadataVersion: features.get('metadata.version') }
    }),
  )
}

const FETCH = 1

/** A connection as it was made, TLS or not. */
export interface Handshake {
  readonly address: string
  /** Undefined without TLS. */
  readonly tls: TlsFacts | undefined
}

export interface TlsFacts {
  readonly protocol: string
  readonly cipher: string
  /** Milliseconds since 1970: when the first certificate of the broker's chain ends. */
  readonly endsAt: number
  /** The same of our own, where we have shown one. */
  readonly ownEndsAt: number | undefined
}

/** Connects to one listener, and verifies what it shows as every connection does. Rejects with `Outage`. */
export async function shakeHands(
  settings: KafkaConnectionSettings,
  broker: string,
  clock: Clock,
  deadline: number,
): Promise<Handshake> {
  const [host = '', port = ''] = broker.split(':')
  const access = new KafkaAccess(settings, clock)
  let socket: Socket | undefined
  try {
    await access.refresh()
    const made = new Promise<Handshake>((resolve, reject) => {
      const { socketFactory } = access.config([broker])
      const opened = socketFactory({
        ...{ host, port: Number(port), ssl: {} },
        onConnect: () => resolve({ address: opened.remoteAddress ?? '', tls: tlsOf(opened) }),
      })
      socket = opened
      opened.once('error', reject)
    })
    return await byDeadline(made, deadline, clock, () => late(broker))
  } catch (error) {
    throw kafkaOutage(error, { name: broker, topics: [], group: '', transactionalId: '' })
  } finally {
    socket?.destroy()
  }
}

function tlsOf(socket: Socket): TlsFacts | undefined {
  if (!(socket instanceof TLSSocket)) return undefined
  const ends: number[] = []
  // Issued by itself, the last one stands in its own place.
  for (let one = socket.getPeerX509Certificate(); one !== undefined && ends.length < MAX_CHAIN;) {
    ends.push(Date.parse(one.validTo))
    one = one.issuerCertificate?.fingerprint256 === one.fingerprint256 ? undefined : one.issuerCertificate
  }
  const own = socket.getX509Certificate()
  return {
    protocol: socket.getProtocol() ?? '',
    cipher: socket.getCipher().name,
    endsAt: Math.min(...ends),
    ownEndsAt: own && Date.parse(own.validTo),
  }
}

const MAX_CHAIN = 10

/**
 * Whether one of the brokers answers somebody who shows neither password nor certificate. Rejects with `Outage` where none is
 * reached, or none says either yes or no.
 */
export async function admitsAnybody(
  settings: KafkaConnectionSettings,
  clock: Clock,
  deadline: number,
): Promise<boolean> {
  const asked = settings.brokers.map((broker) => listenerAdmits(settings, broker, clock, deadline))
  const answers = await Promise.allSettled(asked)
  const said = answers.flatMap((answer) => (answer.status === 'fulfilled' ? answer.value : []))
  const [first] = answers
  if (said.length === 0 && first?.status === 'rejected') throw first.reason
  return said.includes(true)
}

async function listenerAdmits(
  settings: KafkaConnectionSettings,
  broker: string,
  clock: Clock,
  deadline: number,
): Promise<boolean> {
  const { tls } = settings
  const nobody = { ...settings, sasl: undefined, tls: tls && { ...(tls.ca && { ca: tls.ca }) } }
  // Where nobody is there, nobody is refused either.
  await shakeHands(settings, broker, clock, deadline)
  const asking = surveyKafka({ ...nobody, brokers: [broker] }, clock, deadline)
  try {
    const survey = await asking
    await survey.metadata([])
    return true
  } catch (error) {
    if (isSilence(error)) throw error
    return false
  } finally {
    void asking.then((survey) => survey.close()).catch(() => undefined)
  }
}

/** No answer is no refusal. */
function isSilence(error: unknown): boolean {
  for (let cause: unknown = error; cause instanceof Error; cause = cause.cause) {
    if (cause instanceof Outage && cause.code === 'deadline') return true
    if (cause.name === 'KafkaJSRequestTimeoutError') return true
  }
  return false
}

/** Whether a password or client secret of the settings is as long as that; undefined where they have none. Rejects with `Outage`. */
export async function hasLongPassword(
  { sasl, secretMaxAgeMs: maxAgeMs }: KafkaConnectionSettings,
  length: number,
  clock: Clock,
  deadline: number,
): Promise<boolean | undefined> {
  if (sasl === undefined || !('login' in sasl)) return undefined
  const names =
    sasl.mechanism === 'oauthbearer'
      ? { name: 'clientId', secret: 'clientSecret' }
      : { name: 'username', secret: 'password' }
  const source = credentialsOf(sasl.login, names, { secrets: secretsManager(clock), clock, maxAgeMs })
  return (await source.current(deadline)).secret.length >= length
}

/** The addresses that a host's name stands for, from here. Rejects with `Outage`. */
export async function addressesOf(host: string): Promise<readonly string[]> {
  try {
    return (await lookup(host, { all: true })).map(({ address }) => address)
  } catch (cause) {
    throw new Outage('sink-unavailable', `the name ${host} is not known here`, { cause })
  }
}

const late = (name: string): Outage => new Outage('deadline', `${name}: no answer in time.`)
