/**
 * `npm run local-world`: a world in which `sam local invoke` decides the events of events/, on a Kafka of one's own
 * (docs/local.md). Makes topics and first positions, writes what SAM is given (build/local), answers as KMS and Secrets
 * Manager, and prints each verdict as the audit topic gets it.
 */
import { existsSync } from 'node:fs'
import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Command, CommanderError, InvalidArgumentError } from 'commander'
import { stringify } from 'yaml'
import { EXIT, fail, printable } from '../cli/io.ts'
import { wholeNumber } from '../cli/numbers.ts'
import { processTerminal, type Terminal } from '../cli/terminal.ts'
import { functionPlans } from '../deploy/functions.ts'
import { SAM_GLOBALS } from '../deploy/sam.ts'
import { readStage } from '../deploy/stage-file.ts'
import { createKafkaSink } from '../lib/adapters/kafka.ts'
import { KafkaClients } from '../lib/adapters/kafka-clients.ts'
import { isPassing, kafkaOutage } from '../lib/adapters/kafka-outage.ts'
import type { KafkaSinkSettings, KafkaText, PasswordMechanism } from '../lib/adapters/kafka-settings.ts'
import { createKafkaSource, type KafkaSource } from '../lib/adapters/kafka-source.ts'
import { firstPosition } from '../lib/admission/position.ts'
import { parseVectorFile, type VectorGroup, type World } from '../lib/admission/vector-file.ts'
import { parseEntry, recordKey } from '../lib/audit/entry.ts'
import { Reader } from '../lib/environment.ts'
import { ConfigError, Outage } from '../lib/errors.ts'
import { readKafka } from '../lib/kafka-environment.ts'
import { serveAws } from '../lib/local/aws-endpoint.ts'
import { openLocalKeyService } from '../lib/local/key-service.ts'
import { AUDIT_TOPIC, QUARANTINE_TOPIC } from '../lib/local/stack.ts'
import {
  openVectorServices,
  VECTOR_KEK,
  VECTOR_SECRETS,
  type VectorServices,
} from '../lib/local/vector-services.ts'
import type { Clock } from '../lib/ports.ts'

const ROOT = join(import.meta.dirname, '..')
const FUNCTION = 'function'
const DEPLOYMENT = 'local'
const CALL_MS = 30_000
const FOLLOW_MS = 300
const PAGE = { maxBytes: 1_048_576, maxRecords: 2000 }
const clock: Clock = { now: () => Date.now() }

const HELP = `
Kafka is named by SEALGATE_KAFKA_BROKERS, _SSL_CA, _SASL_MECHANISM, _SASL_USERNAME and _SASL_PASSWORD (or _PASSWORD_FILE),
as docs/settings.md says. All keys are made at the start and kept by the process alone.

Examples:
  npm run local-world -- bundle
  npm run local-world -- serve --listen 127.0.0.1:4566

Exit status: 0 it was told to end, 2 bad input, 3 Kafka does not answer.`

interface ServeOptions {
  readonly folder: string
  readonly world: string
  readonly listen: Address
  readonly endpoint?: string
  /** Seconds. */
  readonly wait: number
}

interface Address {
  readonly host: string
  readonly port: number
}

async function main(argv: readonly string[]): Promise<void> {
  const terminal = processTerminal()
  const program = new Command('local-world')
    .description('The world of events/ on a Kafka of your own, for sam local invoke.')
    .exitOverride()
    .addHelpText('after', HELP)
  const folder = ['--folder <dir>', 'what SAM is given', join('build', 'local')] as const
  program
    .command('bundle')
    .description("bundle the function's code: on the machine that npm ci was run on")
    .option(...folder)
    .action((options: Pick<ServeOptions, 'folder'>) => bundle(options.folder))
  program
    .command('serve')
    .description('make the world, and print verdicts until Ctrl-C')
    .option(...folder)
    .option('--world <file>', 'the vector file', join('events', 'world.json'))
    .requiredOption('--listen <host:port>', 'where to answer as KMS and Secrets Manager', addressOf)
    .option('--endpoint <url>', 'the same as the function reaches it (default: http:// and --listen)', urlOf)
    .option('--wait <seconds>', 'for a Kafka that does not answer yet', wholeNumber(0, 600), 60)
    .action((options: ServeOptions) => serve(terminal, options))
  try {
    await program.parseAsync(argv, { from: 'user' })
  } catch (error) {
    // Commander has said it.
    if (error instanceof CommanderError) terminal.exit(error.exitCode === 0 ? EXIT.ok : EXIT.badInput)
    else fail(terminal, error)
  }
}

function addressOf(text: string): Address {
  const [, host = '', port = ''] = /^([A-Za-z0-9.-]{1,253}):([1-9][0-9]{0,4})$/.exec(text) ?? []
  if (host === '' || Number(port) > 65_535) throw new InvalidArgumentError('Give host:port.')
  return { host, port: Number(port) }
}

function urlOf(text: string): string {
  if (URL.parse(text)?.protocol !== 'http:') throw new InvalidArgumentError('Give http://host:port.')
  return text
}

async function bundle(folder: string): Promise<void> {
  const place = join(folder, FUNCTION)
  await mkdir(place, { recursive: true })
  // What a running world has put beside the code stays.
  for (const name of await readdir(place))
    if (name.endsWith('.mjs')) await rm(join(place, name), { recursive: true })
  // Only here: the bundler is of the machine on which it was installed.
  const { bundleFunction } = await import('./bundle.ts')
  await bundleFunction('ingest', place)
}

async function serve(terminal: Terminal, options: ServeOptions): Promise<void> {
  const { group, kafka } = await readInput(terminal, options)
  const { world } = group
  const sink = createKafkaSink(kafka.settings, clock)
  const source = createKafkaSource(kafka.settings)
  const keyFolder = await mkdtemp(join(tmpdir(), 'sealgate-local-world-'))
  try {
    const keys = await openLocalKeyService(keyFolder, clock)
    const { login } = kafka
    const services = await openVectorServices({ world, keys, kafkaLogin: login, clock })
    await makeTopics(kafka.settings, wantedTopics(group, services), options.wait)
    await Promise.all(
      sourcesOf(group).map(async (place) => {
        const deadline = clock.now() + CALL_MS
        const known = await sink.show(place, deadline)
        if (known === undefined) await sink.init(place, firstPosition(0n), deadline)
      }),
    )
    await writePackage(options, world, kafka, services)
    const verdicts = await followAudit(source)
    const stop = terminal.stopSignal()
    const endpoint = await serveAws(services.answers, options.listen)
    try {
      terminal.warn(`The world of ${options.world} is there; ${options.folder} is for sam local invoke.`)
      while (!stop.aborted) {
        for (const line of await verdicts()) terminal.write(line)
        await sleep(FOLLOW_MS, undefined, { signal: stop }).catch(() => undefined)
      }
    } finally {
      await endpoint.end()
    }
  } finally {
    await Promise.all([sink.close(), source.close()])
    await rm(keyFolder, { recursive: true })
  }
}

interface LocalKafka {
  readonly settings: KafkaSinkSettings
  readonly brokers: readonly string[]
  readonly mechanism: PasswordMechanism
  readonly login: { readonly username: string; readonly password: string }
  /** PEM. */
  readonly ca: Uint8Array
}

/** All that is given, with every fault of it. */
async function readInput(
  { env }: Terminal,
  { folder, world }: ServeOptions,
): Promise<{ readonly group: VectorGroup; readonly kafka: LocalKafka }> {
  const reader = new Reader(env)
  reader.refuseUnverified()
  if (!existsSync(join(folder, FUNCTION, 'index.mjs')))
    reader.fault(join(folder, FUNCTION), 'There is no bundle.', 'First: npm run local-world -- bundle')
  const group = reader.read('--world', world, 'Name a vector file, such as events/world.json.', (bytes) =>
    parseVectorFile(world, Buffer.from(bytes).toString()),
  )
  const settings = readKafka(reader, DEPLOYMENT)
  const kafka = settings && (await passwordKafka(reader, settings))
  if (reader.faults.length > 0 || group === undefined || kafka === undefined)
    throw new ConfigError(reader.faults)
  return { group, kafka }
}

/** The function gets name and password from a secret, and the authority in its package. */
async function passwordKafka(reader: Reader, settings: KafkaSinkSettings): Promise<LocalKafka | undefined> {
  const { brokers, sasl, tls } = settings
  if (sasl === undefined || !('login' in sasl) || sasl.mechanism === 'oauthbearer' || 'arn' in sasl.login) {
    const fix = 'Set plain or scram-sha-512, and SEALGATE_KAFKA_SASL_USERNAME with a password.'
    reader.fault('SEALGATE_KAFKA_SASL_MECHANISM', 'The function needs a name and a password.', fix)
    return undefined
  }
  if (tls?.ca === undefined) {
    reader.fault('SEALGATE_KAFKA_SSL_CA', 'It is not set.', "Name a PEM file of the broker's authority.")
    return undefined
  }
  const { mechanism, login } = sasl
  const password = Buffer.from(await textOf(login.secret)).toString()
  return { settings, brokers, mechanism, login: { username: login.name, password }, ca: await textOf(tls.ca) }
}

const textOf = async (text: KafkaText): Promise<Uint8Array> =>
  'file' in text ? readFile(text.file) : Buffer.from(text.text)

const partitionsOf = ({ vectors }: VectorGroup): number =>
  Math.max(0, ...vectors.map(({ record }) => record.partition)) + 1

const sourcesOf = (group: VectorGroup) =>
  [...group.world.channels.keys()].flatMap((topic) =>
    Array.from({ length: partitionsOf(group) }, (_, partition) => ({ topic, partition })),
  )

/** By topic: its partitions. */
const wantedTopics = (group: VectorGroup, { outputs }: VectorServices): ReadonlyMap<string, number> =>
  new Map([
    ...[...group.world.channels.keys()].map((topic) => [topic, partitionsOf(group)] as const),
    ...[...outputs, AUDIT_TOPIC, QUARANTINE_TOPIC].map((topic) => [topic, 1] as const),
  ])

/** Makes those that are not there, once Kafka answers. */
async function makeTopics(
  settings: KafkaSinkSettings,
  wanted: ReadonlyMap<string, number>,
  waitSeconds: number,
): Promise<void> {
  const clients = new KafkaClients(settings, clock)
  const limit = clients.limit(clock.now() + waitSeconds * 1000, 'topics')
  try {
    const there = await clients.repeat(limit, { firstMs: 200, longestMs: 1000 }, isPassing, () =>
      clients.ask((admin) => admin.listTopics()),
    )
    const topics = [...wanted]
      .filter(([topic]) => !there.includes(topic))
      .map(([topic, numPartitions]) => ({ topic, numPartitions }))
    const request = { topics, timeout: CALL_MS, waitForLeaders: false }
    if (topics.length > 0) await clients.ask((admin) => admin.createTopics(request))
    const found = await partitionsOnceThere(clients, [...wanted.keys()])
    const faults = [...wanted]
      .filter(([name, needed]) => (found.get(name) ?? 0) < needed)
      .map(([name, needed]) => ({
        where: name,
        what: `The topic has ${found.get(name) ?? 0} partitions, and needs ${needed}.`,
        fix: 'Delete it, or take a Kafka of its own for this.',
      }))
    if (faults.length > 0) throw new ConfigError(faults)
  } catch (error) {
    if (error instanceof ConfigError) throw error
    throw kafkaOutage(error, { name: 'topics', topics: [...wanted.keys()], group: '', transactionalId: '' })
  } finally {
    await clients.close()
  }
}

/**
 * By topic, once the broker knows each of them: it learns of a new one from the controller a moment later, which
 * kafkajs's own waiting takes for an error.
 */
async function partitionsOnceThere(
  clients: KafkaClients,
  names: readonly string[],
): Promise<ReadonlyMap<string, number>> {
  const limit = clients.limit(clock.now() + CALL_MS, 'topics')
  const mayPass = (error: unknown): boolean => error instanceof Outage || isPassing(error)
  return clients.repeat(limit, { firstMs: 50, longestMs: 1000 }, mayPass, async () => {
    const { topics } = await clients.ask((admin) => admin.fetchTopicMetadata())
    const found = new Map(topics.map(({ name, partitions }) => [name, partitions.length]))
    const missing = names.filter((name) => !found.has(name))
    if (missing.length === 0) return found
    const reason = `topics: Kafka does not show ${missing.join(', ')}. Allow its user Describe on each.`
    throw new Outage('sink-denied', reason)
  })
}

/** What the function is told: all that differs between worlds, and nothing secret. */
function variablesOf(
  { listen, endpoint }: ServeOptions,
  world: World,
  { brokers, mechanism }: LocalKafka,
): Readonly<Record<string, string>> {
  const channels = Array.from(world.channels, ([topic, { name }]) => `${topic}=${name}`)
  const lives = Array.from(world.channels.values(), ({ maxLifeSeconds }) => maxLifeSeconds)
  return {
    POWERTOOLS_SERVICE_NAME: 'sealgate-local',
    AWS_ENDPOINT_URL: endpoint ?? `http://${listen.host}:${listen.port}`,
    SEALGATE_NAME: world.audience,
    SEALGATE_DEPLOYMENT: DEPLOYMENT,
    SEALGATE_CHANNELS: channels.join(','),
    SEALGATE_AUDIT_TOPIC: AUDIT_TOPIC,
    SEALGATE_QUARANTINE_TOPIC: QUARANTINE_TOPIC,
    SEALGATE_CONTRACTS: 'contracts.json',
    SEALGATE_ROOTS: 'roots.json',
    SEALGATE_DIRECTORY: VECTOR_SECRETS.directory,
    SEALGATE_SIGNING_KEY: VECTOR_SECRETS.signingKey,
    SEALGATE_KEK_ID: VECTOR_KEK,
    SEALGATE_MAX_SESSIONS: String(world.maxSessions),
    // As many as vectors have: every one of them is a session, with keys of its own.
    SEALGATE_NEW_DATA_KEYS_PER_MINUTE: '100000',
    SEALGATE_MAX_LIFE_SECONDS: String(Math.min(...lives)),
    SEALGATE_KAFKA_BROKERS: brokers.join(','),
    SEALGATE_KAFKA_SASL_MECHANISM: mechanism,
    SEALGATE_KAFKA_SASL_SECRET: VECTOR_SECRETS.kafkaLogin,
    SEALGATE_KAFKA_SSL_CA: 'ca.pem',
    SEALGATE_FAILURE_MODE: 'throw',
    SEALGATE_MAPPING_ANSWERS: 'none',
  }
}

async function writePackage(
  options: ServeOptions,
  world: World,
  kafka: LocalKafka,
  { bundle: contracts, roots }: VectorServices,
): Promise<void> {
  const stage = join(ROOT, 'deploy', 'stages', 'example.yml')
  const plan = functionPlans(readStage(await readFile(stage, 'utf8'), stage)).find(
    ({ name }) => name === 'ingest',
  )
  const variables = variablesOf(options, world, kafka)
  const template = {
    AWSTemplateFormatVersion: '2010-09-09',
    Transform: 'AWS::Serverless-2016-10-31',
    Description: 'sealgate on this machine, made by npm run local-world: not to be deployed.',
    Resources: {
      IngestFunction: {
        Type: 'AWS::Serverless::Function',
        Properties: {
          ...SAM_GLOBALS,
          // Of this machine: another's would run in an emulator of its processor.
          Architectures: [process.arch === 'arm64' ? 'arm64' : 'x86_64'],
          CodeUri: `${FUNCTION}/`,
          Timeout: plan?.timeoutSeconds,
          MemorySize: plan?.memoryMb,
          // SAM hands over none that is not named here; env.json has their values.
          Environment: {
            Variables: Object.fromEntries(Object.keys(variables).map((name) => [name, ''])),
          },
        },
      },
    },
  }
  const inFunction = (name: string): string => join(options.folder, FUNCTION, name)
  await writeFile(inFunction('contracts.json'), contracts)
  await writeFile(inFunction('roots.json'), JSON.stringify(roots))
  await writeFile(inFunction('ca.pem'), kafka.ca)
  await writeFile(
    join(options.folder, 'template.yaml'),
    stringify(template, { defaultStringType: 'QUOTE_SINGLE', defaultKeyType: 'PLAIN', singleQuote: true }),
  )
  await writeFile(
    join(options.folder, 'env.json'),
    `${JSON.stringify({ IngestFunction: variables }, undefined, 2)}\n`,
  )
}

/** Gives what has come since it was asked before: place and verdict of each record. */
async function followAudit(source: KafkaSource): Promise<() => Promise<readonly string[]>> {
  const place = { topic: AUDIT_TOPIC, partition: 0 }
  let { end: next } = await source.offsets(place)
  return async () => {
    const page = await source.fetch(place, next, PAGE)
    next = page.next
    return page.records.flatMap(({ value }) => {
      const entry = value === null ? undefined : parseEntry(value)
      if (entry?.kind !== 'event.admitted' && entry?.kind !== 'event.rejected') return []
      const verdict = entry.kind === 'event.admitted' ? 'admitted' : entry.code
      return [printable(`${recordKey(entry.topic, entry.partition, entry.offset)}  ${verdict}`)]
    })
  }
}

if (import.meta.main) await main(process.argv.slice(2))
