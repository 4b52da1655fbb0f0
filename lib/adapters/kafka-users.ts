/**
 * SCRAM-SHA-512 users of a Kafka cluster: their passwords by AlterUserScramCredentials (KIP-554), which kafkajs lacks and
 * whose connections carry it (docs/decisions/0007-scram-rotation.md), and logging in as one of them.
 */
import type { BrokerRequest, default as Cluster } from 'kafkajs/src/cluster/index.js'
import Decoder from 'kafkajs/src/protocol/decoder.js'
import Encoder from 'kafkajs/src/protocol/encoder.js'
import { random, scramSaltedPassword } from '../envelope/crypto.ts'
import { Outage } from '../errors.ts'
import { byDeadline } from '../keys/deadline.ts'
import type { ClientCertificate } from '../keys/client-certificate.ts'
import type { ScramUsers } from '../keys/rotation-steps.ts'
import type { Clock } from '../ports.ts'
import { KafkaAccess } from './kafka-access.ts'
import { connectCluster, disconnectCluster } from './kafka-connection.ts'
import { isPassing, isRefusedCertificate, isRefusedLogin, kafkaOutage } from './kafka-outage.ts'
import { repairKafkajs } from './kafka-repairs.ts'
import type { KafkaConnectionSettings } from './kafka-settings.ts'

const ALTER_USER_SCRAM_CREDENTIALS = 51
const SCRAM_SHA_256 = 1
const SCRAM_SHA_512 = 2
/** Kafka takes 4096 to 16384. Our passwords are random: more would cost each login, and keep nobody out. */
const ITERATIONS = 8192
const SALT_BYTES = 32
const CLUSTER_AUTHORIZATION_FAILED = 31
const NOT_CONTROLLER = 41
const RESOURCE_NOT_FOUND = 91

/** Between two tries: brokers take a password over within moments, those of MSK within ten minutes. */
const FIRST_WAIT_MS = 100
const LONGEST_WAIT_MS = 10_000

/** As who the settings say, who needs Alter on the cluster to set passwords. Every rejection is an `Outage`. */
export function kafkaUsers(
  settings: KafkaConnectionSettings,
  clock: Clock,
): Pick<ScramUsers, 'setPassword' | 'logIn'> {
  repairKafkajs()
  return {
    setPassword: async ({ username, password }, deadline) => {
      const task = { name: `password of ${username}`, settings, clock, deadline }
      const salt = random(SALT_BYTES)
      const saltedPassword = await scramSaltedPassword(password, salt, ITERATIONS)
      const mayPass = (error: unknown): boolean => isPassing(error) || error instanceof ControllerMoved
      try {
        await repeat(task, mayPass, (cluster) => alter(cluster, { username, salt, saltedPassword }))
      } catch (error) {
        throw outageOf(task, error)
      }
    },
    logIn: async ({ username, password }, brokers = settings.brokers, deadline) => {
      const login = { name: username, secret: { text: password } }
      const sasl = { mechanism: 'scram-sha-512', login } as const
      const own = { ...settings, brokers, sasl }
      const task = { name: `log-in of ${username}`, settings: own, clock, deadline }
      const mayPass = (error: unknown): boolean => isPassing(error) || isRefusedLogin(error)
      try {
        await repeat(task, mayPass, findAll)
      } catch (error) {
        if (!isRefusedLogin(error)) throw outageOf(task, error)
        const reason =
          'a broker does not take its password, or not yet. Nobody is told to use it. Run it again.'
        throw new Outage('sink-denied', `${task.name}: ${reason}`, { cause: error })
      }
    },
  }
}

/** Connects to every broker with a client certificate instead of what the settings say. Every rejection is an `Outage`. */
export async function logInByCertificate(
  settings: KafkaConnectionSettings,
  { certificate, privateKey }: ClientCertificate,
  clock: Clock,
  deadline: number,
): Promise<void> {
  repairKafkajs()
  const client = { cert: { text: certificate }, key: { text: privateKey } }
  const name = 'log-in with the new certificate'
  const own = { ...settings, tls: { ...settings.tls, client }, sasl: undefined }
  const task = { name, settings: own, clock, deadline }
  try {
    await repeat(task, isPassing, findAll)
  } catch (error) {
    if (!(error instanceof Error && isRefusedCertificate(error))) throw outageOf(task, error)
    const reason =
      'a broker does not take it. Nobody is told to use it. Have brokers trust its authority, and run it again.'
    throw new Outage('sink-denied', `${name}: ${reason}`, { cause: error })
  }
}

/** Finding one connects to it. */
async function findAll(cluster: Cluster): Promise<void> {
  await cluster.refreshMetadata()
  for (const nodeId of cluster.getNodeIds()) await cluster.findBroker({ nodeId })
}

/** One thing to be done, as one user. */
interface Task {
  /** For people. */
  readonly name: string
  readonly settings: KafkaConnectionSettings
  readonly clock: Clock
  /** Milliseconds since 1970. */
  readonly deadline: number
}

/** On new connections each time, ever less often, while there is time. Rejects with what went wrong last. */
async function repeat(
  task: Task,
  mayPass: (error: unknown) => boolean,
  work: (cluster: Cluster) => Promise<void>,
): Promise<void> {
  let last: unknown
  for (let wait = FIRST_WAIT_MS; ; wait = Math.min(2 * wait, LONGEST_WAIT_MS)) {
    try {
      await once(task, work)
      return
    } catch (error) {
      // Cut short in a later try: what the one before met says more.
      if (error instanceof Outage && error.code === 'deadline') throw last instanceof Error ? last : error
      if (!mayPass(error) || task.clock.now() + wait >= task.deadline) throw error
      last = error
    }
    await new Promise((resolve) => setTimeout(resolve, wait))
  }
}

async function once(
  { name, settings, clock, deadline }: Task,
  work: (cluster: Cluster) => Promise<void>,
): Promise<void> {
  const late = (): Outage =>
    new Outage('deadline', `${name}: no time left; whether it happened is not known.`)
  if (clock.now() >= deadline) throw late()
  const connecting = connectCluster(new KafkaAccess(settings, clock), settings.brokers, deadline)
  try {
    await byDeadline(connecting.then(work), deadline, clock, late)
  } finally {
    void disconnectCluster(connecting)
  }
}

const outageOf = ({ name }: Task, error: unknown): Outage =>
  kafkaOutage(error, { name, topics: [], group: '', transactionalId: '' })

interface Credential {
  readonly username: string
  readonly salt: Buffer
  readonly saltedPassword: Buffer
}

/**
 * By the controller, or by any broker where these pass it on (KRaft). A password by the other mechanism, as of a user who was
 * made with both, would stay good whatever is rotated here: it is taken away. Brokers refuse both at once where one fails.
 */
async function alter(cluster: Cluster, credential: Credential): Promise<void> {
  const { username } = credential
  await cluster.refreshMetadata()
  const broker = await cluster.findControllerBroker()
  if (broker.versions[ALTER_USER_SCRAM_CREDENTIALS] === undefined)
    throw new Outage(
      'sink-denied',
      'These brokers cannot be told passwords. Use Kafka 2.7 or later, with KRaft 3.5.',
    )
  check(username, await broker.connectionPool.send(requestOf(username, upsertionOf(credential))))
  const code = await broker.connectionPool.send(requestOf(username, undefined))
  if (code !== RESOURCE_NOT_FOUND) check(username, code)
}

function check(username: string, code: number): void {
  if (code === 0) return
  if (code === CLUSTER_AUTHORIZATION_FAILED)
    throw new Outage(
      'sink-denied',
      `The broker refuses us the password of ${username}. Allow us Alter on the cluster.`,
    )
  if (code === NOT_CONTROLLER) throw new ControllerMoved('the controller has moved')
  throw new Outage('sink-unavailable', `The broker did not take the password of ${username} (error ${code}).`)
}

interface Answer {
  /** Milliseconds for which kafkajs then keeps this connection quiet (KIP-219). */
  readonly clientSideThrottleTime: number
  readonly results: readonly { readonly user: string | null; readonly code: number }[]
}

const NO_TAGS = 0
/** Kafka's UNKNOWN_SERVER_ERROR, for an answer that is not about our user. */
const NO_ANSWER = -1

class ControllerMoved extends Error {
  override readonly name = 'ControllerMoved'
}

const upsertionOf = ({ username, salt, saltedPassword }: Credential): Encoder =>
  new Encoder()
    .writeUVarIntString(username)
    .writeInt8(SCRAM_SHA_512)
    .writeInt32(ITERATIONS)
    .writeUVarIntBytes(salt)
    .writeUVarIntBytes(saltedPassword)
    .writeUVarInt(NO_TAGS)

/**
 * Version 0, the only one: KIP-554, in the flexible format of KIP-482, whose header ends with tagged fields.
 * @param upsertion undefined: takes away what the user has by SCRAM-SHA-256
 */
function requestOf(username: string, upsertion: Encoder | undefined): BrokerRequest<Answer, number> {
  return {
    request: {
      apiKey: ALTER_USER_SCRAM_CREDENTIALS,
      apiVersion: 0,
      apiName: 'AlterUserScramCredentials',
      encode: () => {
        const deletion = new Encoder()
          .writeUVarIntString(username)
          .writeInt8(SCRAM_SHA_256)
          .writeUVarInt(NO_TAGS)
        const body = new Encoder()
          .writeUVarInt(NO_TAGS)
          .writeUVarIntArray(upsertion === undefined ? [deletion] : [])
          .writeUVarIntArray(upsertion === undefined ? [] : [upsertion])
          .writeUVarInt(NO_TAGS)
        return Promise.resolve(body)
      },
    },
    response: {
      decode: (raw) => {
        const decoder = new Decoder(raw)
        decoder.readTaggedFields()
        const clientSideThrottleTime = decoder.readInt32()
        const results = decoder.readUVarIntArray((result) => {
          const user = result.readUVarIntString()
          const code = result.readInt16()
          result.readUVarIntString()
          result.readTaggedFields()
          return { user, code }
        })
        return Promise.resolve({ clientSideThrottleTime, results: results ?? [] })
      },
      parse: ({ results }) =>
        Promise.resolve(results.find(({ user }) => user === username)?.code ?? NO_ANSWER),
    },
  }
}
