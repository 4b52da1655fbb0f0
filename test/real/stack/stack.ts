/**
 * Apache Kafka as a customer runs it, on this machine: KRaft, SASL_SSL with SCRAM-SHA-512, an authorizer that denies by
 * default, each principal with the least rights. Everything binds to 127.0.0.1 and ends with the process that started it.
 */
import { randomBytes } from 'node:crypto'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type Admin, Kafka, type KafkaConfig, logLevel } from 'kafkajs'
import { repairKafkajs } from '../../../lib/adapters/kafka-repairs.ts'
import { Broker, classPathOf, freePorts, type KafkaVersion, runTool } from './broker.ts'
import { makeAuthority } from './certificates.ts'
import {
  gateRights,
  operatorRights,
  prefixed,
  type Principal,
  PRINCIPALS,
  producerRights,
  readerRights,
} from './rights.ts'

export interface StackOptions {
  readonly version?: KafkaVersion
  /** 1, or 3 with replication 3 and min.insync.replicas 2. */
  readonly brokers?: 1 | 3
  /** More lines for every broker's `server.properties`; the last of a name counts. */
  readonly properties?: readonly string[]
  /** More listeners of a single broker, made ready in the stack's folder before it starts. */
  readonly listeners?: (made: Made) => Promise<Listeners>
  /** `none`: whoever starts it makes the rights too. By default those that tests usually need. */
  readonly rights?: 'usual' | 'none'
  /** Told what is being done, a line at a time; never a secret. */
  readonly say?: (line: string) => void
}

/** What a stack consists of before its brokers start. */
export interface Made {
  /** Private; the authority stands in it. */
  readonly folder: string
  readonly passwords: Readonly<Record<Principal, string>>
}

export interface Listeners {
  /** By name, in capitals. */
  readonly listeners: Readonly<Record<string, Listener>>
  /** Java's own arguments. */
  readonly java: readonly string[]
}

export interface Listener {
  readonly protocol: 'PLAINTEXT' | 'SSL' | 'SASL_SSL'
  /** As it is advertised; 127.0.0.1 where it is not said. */
  readonly host?: string
  /** Broker properties of this listener alone: their names without `listener.name.…`. */
  readonly properties: readonly string[]
}

/** What is needed to connect: readable by its owner alone where it is kept as a file. */
export interface Connection {
  readonly version: KafkaVersion
  readonly brokers: readonly string[]
  /** PEM text. */
  readonly ca: string
  /** The folder of the authority: more certificates can be issued there. */
  readonly certificates: string
  readonly passwords: Readonly<Record<Principal, string>>
  /** Those that were asked for, by name: `host:port`. */
  readonly listeners: Readonly<Record<string, string>>
}

export interface RealStack {
  readonly connection: Connection
  /** A file with the connection, readable by its owner alone. */
  readonly connectionFile: string
  /** By broker id, from 1. */
  readonly brokers: ReadonlyMap<number, Broker>
  stop(): Promise<void>
}

export const DEPLOYMENT = 'test'
const READY_MS = 60_000

/** Settings of kafkajs for a principal. */
export function clientConfig(connection: Connection, principal: Principal): KafkaConfig {
  return {
    brokers: [...connection.brokers],
    clientId: principal,
    ssl: { ca: connection.ca },
    sasl: { mechanism: 'scram-sha-512', username: principal, password: connection.passwords[principal] },
    connectionTimeout: 5000,
    logLevel: logLevel.NOTHING,
  }
}

export async function startStack(options: StackOptions = {}): Promise<RealStack> {
  repairKafkajs()
  const { version = '4.3.1', brokers: count = 1, say = () => undefined } = options
  const classPath = await classPathOf(version, say)
  const folder = await mkdtemp(join(tmpdir(), 'sealgate-kafka-'))
  const brokers = new Map<number, Broker>()
  const stop = async (): Promise<void> => {
    await Promise.all([...brokers.values()].map((broker) => broker.stop()))
    await rm(folder, { recursive: true, force: true })
  }
  try {
    say('making certificates and passwords')
    const authority = await makeAuthority(folder, {
      name: 'broker',
      names: ['IP:127.0.0.1', 'DNS:localhost'],
    })
    const passwords = newPasswords()
    const extra = await options.listeners?.({ folder, passwords })
    // In one draw: what one lets go the next may get.
    const ports = await freePorts(2 * count + Object.keys(extra?.listeners ?? {}).length)
    const places = placesOf(extra, ports.slice(2 * count))
    const nodes = Array.from({ length: count }, (_, index) => ({
      id: index + 1,
      port: ports[2 * index] ?? 0,
      controllerPort: ports[2 * index + 1] ?? 0,
    }))
    const clusterId = randomBytes(16).toString('base64url')
    for (const node of nodes) {
      const home = join(folder, String(node.id))
      await mkdir(home)
      const properties = join(home, 'server.properties')
      const { caPath, brokerPath } = authority
      const own = { version, home, caPath, brokerPath, passwords }
      const text = serverProperties(node, nodes, own) + listenerProperties(node, extra, places)
      const more = (options.properties ?? []).map((line) => `${line}\n`).join('')
      await writeFile(properties, text + more, { mode: 0o600 })
      const users = PRINCIPALS.flatMap((name) => [
        '--add-scram',
        `SCRAM-SHA-512=[name=${name},password=${passwords[name]}]`,
        '--add-scram',
        `SCRAM-SHA-256=[name=${name},password=${passwords[name]}]`,
      ])
      const format = ['format', `--cluster-id=${clusterId}`, '--config', properties, ...users]
      await runTool(home, classPath, 'kafka.tools.StorageTool', format)
      brokers.set(
        node.id,
        new Broker({ folder: home, classPath, properties, heap: '512m', java: extra?.java ?? [] }),
      )
    }
    const connection: Connection = {
      version,
      brokers: nodes.map(({ port }) => `127.0.0.1:${port}`),
      ca: authority.ca,
      certificates: folder,
      passwords,
      listeners: places,
    }
    say(`starting ${count} broker${count === 1 ? '' : 's'} of Kafka ${version}`)
    await Promise.all([...brokers.values()].map((broker) => broker.start()))
    await waitUntilReady(connection, count, brokers)
    if (options.rights !== 'none') await withAdmin(connection, grantUsual)
    const connectionFile = join(folder, 'connection.json')
    await writeFile(connectionFile, JSON.stringify(connection), { mode: 0o600 })
    say(`ready on ${connection.brokers.join(', ')}`)
    return { connection, connectionFile, brokers, stop }
  } catch (error) {
    await stop()
    throw error
  }
}

export async function withAdmin<T>(connection: Connection, work: (admin: Admin) => Promise<T>): Promise<T> {
  const admin = new Kafka(clientConfig(connection, 'admin')).admin()
  try {
    await admin.connect()
    return await work(admin)
  } finally {
    await admin.disconnect()
  }
}

/** Tests name their topics by these beginnings: `source.` goes into the gate, `output.` comes out of it. */
async function grantUsual(admin: Admin): Promise<void> {
  const sources = [prefixed('source.')]
  const outputs = [prefixed('output.'), prefixed(`${DEPLOYMENT}.audit`), prefixed(`${DEPLOYMENT}.quarantine`)]
  await admin.createAcls({
    acl: [
      ...gateRights({ deployment: DEPLOYMENT, sources, outputs }),
      ...producerRights(sources),
      ...readerRights('consumer', outputs),
      ...readerRights('poller', sources),
      ...readerRights('poller', sources, `${DEPLOYMENT}.lambda.`),
      ...operatorRights({ deployment: DEPLOYMENT, sources, outputs }, prefixed(`${DEPLOYMENT}.audit`)),
    ],
  })
}

async function waitUntilReady(
  connection: Connection,
  count: number,
  brokers: ReadonlyMap<number, Broker>,
): Promise<void> {
  const until = Date.now() + READY_MS
  for (;;) {
    const died = [...brokers.values()].find(({ pid }) => pid === undefined)
    let cause: unknown
    try {
      const cluster = await withAdmin(connection, (admin) => admin.describeCluster())
      if (cluster.brokers.length === count) return
    } catch (error) {
      cause = error
    }
    if (died !== undefined || Date.now() > until) {
      const log = await readFile((died ?? [...brokers.values()][0])?.logPath ?? '', 'utf8')
      throw new Error(`Kafka did not become ready:\n${log.slice(-3000)}`, { cause })
    }
    await new Promise((resolve) => setTimeout(resolve, 200))
  }
}

function newPasswords(): Record<Principal, string> {
  const password = (): string => randomBytes(24).toString('base64url')
  return {
    admin: password(),
    gate: password(),
    producer: password(),
    consumer: password(),
    poller: password(),
    operator: password(),
  }
}

/** Where each listener is reached. */
function placesOf(more: Listeners | undefined, ports: readonly number[]): Record<string, string> {
  const wanted = Object.entries(more?.listeners ?? {})
  return Object.fromEntries(
    wanted.map(([name, { host }], index) => [name, `${host ?? '127.0.0.1'}:${ports[index] ?? 0}`]),
  )
}

/** Lines that add listeners to those of a node; the last of a name counts. */
function listenerProperties(
  node: Node,
  more: Listeners | undefined,
  places: Readonly<Record<string, string>>,
): string {
  if (more === undefined) return ''
  const wanted = Object.entries(more.listeners)
  const bound = wanted.map(([name]) => `${name}://127.0.0.1:${places[name]?.split(':')[1] ?? ''}`)
  const lines = [
    [
      'listeners',
      `CLIENTS://127.0.0.1:${node.port}`,
      `CONTROLLER://127.0.0.1:${node.controllerPort}`,
      ...bound,
    ],
    [
      'advertised.listeners',
      `CLIENTS://127.0.0.1:${node.port}`,
      ...wanted.map(([name]) => `${name}://${places[name] ?? ''}`),
    ],
    [
      'listener.security.protocol.map',
      'CONTROLLER:SSL',
      'CLIENTS:SASL_SSL',
      ...wanted.map(([name, { protocol }]) => `${name}:${protocol}`),
    ],
  ].map(([property, ...values]) => `${property ?? ''}=${values.join(',')}`)
  const own = wanted.flatMap(([name, { properties }]) =>
    properties.map((property) => `listener.name.${name.toLowerCase()}.${property}`),
  )
  return [...lines, ...own, ''].join('\n')
}

interface Node {
  readonly id: number
  readonly port: number
  readonly controllerPort: number
}

interface Machine {
  readonly version: KafkaVersion
  readonly home: string
  readonly caPath: string
  readonly brokerPath: string
  readonly passwords: Readonly<Record<Principal, string>>
}

function serverProperties(node: Node, nodes: readonly Node[], machine: Machine): string {
  const { version, home, caPath, brokerPath, passwords } = machine
  const replicas = nodes.length
  const inSync = Math.min(2, replicas)
  const voters = nodes.map(({ id, controllerPort }) => `${id}@127.0.0.1:${controllerPort}`).join(',')
  const login = 'org.apache.kafka.common.security.scram.ScramLoginModule'
  const share =
    version === '3.9.1'
      ? []
      : [
          `share.coordinator.state.topic.replication.factor=${replicas}`,
          `share.coordinator.state.topic.min.isr=${inSync}`,
        ]
  return [
    'process.roles=broker,controller',
    `node.id=${node.id}`,
    `controller.quorum.voters=${voters}`,
    'controller.listener.names=CONTROLLER',
    `listeners=CLIENTS://127.0.0.1:${node.port},CONTROLLER://127.0.0.1:${node.controllerPort}`,
    `advertised.listeners=CLIENTS://127.0.0.1:${node.port}`,
    // Brokers know each other by certificate, clients by SCRAM.
    'listener.security.protocol.map=CONTROLLER:SSL,CLIENTS:SASL_SSL',
    'listener.name.controller.ssl.client.auth=required',
    'inter.broker.listener.name=CLIENTS',
    'sasl.mechanism.inter.broker.protocol=SCRAM-SHA-512',
    'sasl.enabled.mechanisms=SCRAM-SHA-512',
    `listener.name.clients.scram-sha-512.sasl.jaas.config=${login} required username="admin" password="${passwords.admin}";`,
    'ssl.keystore.type=PEM',
    `ssl.keystore.location=${brokerPath}`,
    'ssl.truststore.type=PEM',
    `ssl.truststore.location=${caPath}`,
    'ssl.enabled.protocols=TLSv1.2,TLSv1.3',
    'authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer',
    'super.users=User:admin;User:CN=broker',
    'allow.everyone.if.no.acl.found=false',
    'auto.create.topics.enable=false',
    `default.replication.factor=${replicas}`,
    `min.insync.replicas=${inSync}`,
    `offsets.topic.replication.factor=${replicas}`,
    'offsets.topic.num.partitions=6',
    `transaction.state.log.replication.factor=${replicas}`,
    `transaction.state.log.min.isr=${inSync}`,
    'transaction.state.log.num.partitions=6',
    ...share,
    'group.initial.rebalance.delay.ms=0',
    'unclean.leader.election.enable=false',
    // A broker that was killed is back within seconds.
    'broker.session.timeout.ms=2000',
    'broker.heartbeat.interval.ms=500',
    `log.dirs=${join(home, 'data')}`,
    '',
  ].join('\n')
}
