/**
 * The settings of commands that work on a cluster: flags before environment before settings file, in one vocabulary, that
 * of the function (docs/settings.md). docs/cli.md is the manual. All faults at once, each where its setting was given.
 */
import { type Stats, statSync } from 'node:fs'
import {
  type KafkaConnectionSettings,
  type KafkaSinkSettings,
  readKafkaSettings,
} from '../lib/adapters/kafka-settings.ts'
import { readContracts } from '../lib/adapters/contract-files.ts'
import { buildBundle, loadBundle } from '../lib/contract/bundle.ts'
import type { Contracts } from '../lib/contract/contract.ts'
import { checkContracts } from '../lib/contract/load.ts'
import { topicFaults } from '../lib/contract/topics.ts'
import { type Environment, Reader } from '../lib/environment.ts'
import { ConfigError, type Fault } from '../lib/errors.ts'
import { readBrokers } from '../lib/kafka-environment.ts'
import {
  type ClusterSettings,
  type ControlSettings,
  GATE_NAMES,
  privateKeyOf,
  readControl,
  readKafkaEnvironment,
  readSettings,
  readTrust,
  type SigningSettings,
  type TrustSettings,
} from '../lib/settings.ts'
import { BROKERS, type Given } from './place-settings.ts'
import { fileNameOf, type GivenSetting, isReadByOthers } from './settings-file.ts'

/** Topics of a cluster. */
export interface TopicSettings {
  readonly kafka: KafkaSinkSettings
  readonly auditTopic: string
  readonly quarantineTopic: string
  /** The topics that the gate reads, and the channel of each; empty where they are not set. */
  readonly channels: ReadonlyMap<string, string>
  readonly directory: DirectorySettings | undefined
}

/** Who may say what: the gateway's name, and the signed key directory. */
export interface DirectorySettings extends TrustSettings {
  readonly gateway: string
}

/** The key directory as it is looked at and changed. */
export interface KeySettings extends TrustSettings {
  /** What signs the directory; undefined where it is only looked at. */
  readonly rootKey: SigningSettings | undefined
}

/** Topics, with the contracts that say what they are for. */
export interface DeploymentSettings extends TopicSettings {
  readonly contracts: Contracts
  /** Output channels whose topic is named otherwise. */
  readonly topics: ReadonlyMap<string, string>
}

/** What sealing and opening need besides. */
export interface EventSettings extends DeploymentSettings {
  readonly directory: DirectorySettings
  /** The folder of an embedded key service; undefined: AWS KMS. */
  readonly keyServiceFolder: string | undefined
  /** By issuer: the key that it signs with, and its KEK where the directory gives it several. */
  readonly signing: ReadonlyMap<string, SigningSettings>
  readonly kekIds: ReadonlyMap<string, string>
}

/** What the function has, on AWS KMS or an embedded key service. */
export interface GateSettings {
  readonly cluster: ClusterSettings
  /** The folder of an embedded key service; undefined: AWS KMS. */
  readonly keyServiceFolder: string | undefined
}

/** Those of the command line alone: the function neither has nor knows them. */
const OWN = [
  ...['SEALGATE_KEY_SERVICE', 'SEALGATE_SIGNING_KEYS', 'SEALGATE_SIGNING_KIDS', 'SEALGATE_KEK_IDS'],
  ...['SEALGATE_ROOT_KEY', 'SEALGATE_LIFECYCLE_AUDIT'],
]
/** One file serves all commands, and one environment may be that of the function that rotates too. */
const KNOWN = [...GATE_NAMES, ...OWN, 'SEALGATE_ROTATION']

/** An environment as the function would have it. */
export function functionEnvironment(environment: Environment): Environment {
  return Object.fromEntries(Object.entries(environment).filter(([name]) => !OWN.includes(name)))
}

/** Settings of commands that look at topics alone; with `needsDirectory`, those of the key directory must be there. */
export function readTopicSettings(given: Given, needsDirectory: boolean): TopicSettings {
  const reading = new Reading(given)
  const settings = reading.topics(needsDirectory)
  reading.finish()
  return settings
}

/** What a cluster is to be made ready for: topics and contracts. */
export async function readDeploymentSettings(given: Given): Promise<DeploymentSettings> {
  const reading = new Reading(given)
  const settings = await reading.deployment(false)
  reading.finish()
  return settings
}

/** Settings of commands that seal or open. */
export async function readEventSettings(given: Given): Promise<EventSettings> {
  const reading = new Reading(given)
  const settings = await reading.events()
  reading.finish()
  return settings
}

/** The gate's own settings, for what is done with its rights and keys. */
export function readGateSettings(given: Given): GateSettings {
  const reading = new Reading(given)
  const settings = reading.gate()
  reading.finish()
  if (settings === undefined) throw new TypeError('settings with faults were let through')
  return settings
}

const SECRET_FILES = [
  'SEALGATE_KAFKA_SASL_PASSWORD_FILE',
  'SEALGATE_KAFKA_SASL_CLIENT_SECRET_FILE',
  'SEALGATE_KAFKA_SSL_KEY',
]
/** Settings of commands on the key directory itself. */
export function readKeySettings(given: Given, needsRootKey: boolean): KeySettings {
  const reading = new Reading(given)
  const settings = reading.keys(needsRootKey)
  reading.finish()
  return settings
}

/** What it takes to audit what is done to keys; undefined where the settings say by name that it is not audited. */
export function readControlSettings(given: Given): ControlSettings | undefined {
  const reading = new Reading(given)
  const settings = reading.control()
  reading.finish()
  return settings
}

/** How commands on Kafka's users reach the cluster; undefined where no brokers are given. */
export function readBrokerSettings(given: Given): KafkaConnectionSettings | undefined {
  if (!given.settings.some(({ name }) => name === BROKERS)) return undefined
  const reading = new Reading(given)
  const settings = reading.brokers()
  reading.finish()
  return settings
}

const LOCAL_SERVICE = /^local:./
const SIGNING_KEY = /^(file:.+|arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:key\/[A-Za-z0-9-]{1,100})$/
/** Stands where there were faults, and goes no further. */
const NO_CONTRACTS: Contracts = { digest: new Uint8Array(), all: [], find: () => undefined }

class Reading {
  readonly #reader: Reader
  readonly #environment: Environment
  readonly #places: ReadonlyMap<string, GivenSetting['place']>
  readonly #file: string | undefined

  constructor({ settings, environment, file }: Given) {
    const texts = settings.map(({ name, text }) => [name, text] as const)
    this.#environment = { ...environment, ...Object.fromEntries(texts) }
    this.#reader = new Reader(this.#environment)
    this.#places = new Map(settings.map(({ name, place }) => [name, place]))
    this.#file = file
  }

  topics(needsDirectory: boolean): TopicSettings {
    const reader = this.#reader
    const kafka = this.#kafka()
    const deployment = kafka?.deployment ?? ''
    const isSet = ['SEALGATE_DIRECTORY', 'SEALGATE_ROOTS'].some((name) => reader.optional(name) !== undefined)
    return {
      kafka: kafka ?? NO_KAFKA,
      auditTopic: reader.optional('SEALGATE_AUDIT_TOPIC') ?? `${deployment}.audit`,
      quarantineTopic: reader.optional('SEALGATE_QUARANTINE_TOPIC') ?? `${deployment}.quarantine`,
      channels: reader.pairs('SEALGATE_CHANNELS', 'topic=channel'),
      directory: needsDirectory || isSet ? this.#directory() : undefined,
    }
  }

  /** Undefined where there are faults. */
  gate(): GateSettings | undefined {
    const keyServiceFolder = this.#keyServiceFolder()
    this.#refuseOpenSigningKey()
    try {
      const cluster = readSettings({ ...functionEnvironment(this.#environment), SEALGATE_LOCAL: '' })
      return cluster.localFolder === undefined ? { cluster, keyServiceFolder } : undefined
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error
      this.#reader.faults.push(...error.faults)
      return undefined
    }
  }

  control(): ControlSettings | undefined {
    const settings = readControl(this.#reader, this.#environment)
    if (settings === undefined) return undefined
    this.#refuseOpenSigningKey()
    for (const name of SECRET_FILES) this.#refuseOpen(name, this.#reader.optional(name))
    return settings
  }

  #refuseOpenSigningKey(): void {
    const file = this.#reader.optional('SEALGATE_SIGNING_KEY')
    if (file?.startsWith('file:') === true)
      this.#refuseOpen('SEALGATE_SIGNING_KEY', file.slice('file:'.length))
  }

  async deployment(needsDirectory: boolean): Promise<DeploymentSettings> {
    const reader = this.#reader
    const settings = this.topics(needsDirectory)
    const contracts = await this.#contracts()
    const topics = reader.pairs('SEALGATE_TOPICS', 'channel=topic')
    const topicOf = (channel: string): string => topics.get(channel) ?? channel
    const { channels: sources, auditTopic, quarantineTopic } = settings
    reader.faults.push(...topicFaults(contracts, { sources, auditTopic, quarantineTopic, topicOf }))
    return { ...settings, contracts, topics }
  }

  async events(): Promise<EventSettings> {
    const reader = this.#reader
    const kids = reader.pairs('SEALGATE_SIGNING_KIDS', 'issuer=kid')
    const keys = reader.pairs('SEALGATE_SIGNING_KEYS', 'issuer=file:PATH or issuer=ARN', SIGNING_KEY)
    const deployment = await this.deployment(true)
    return {
      ...deployment,
      directory: deployment.directory ?? this.#directory(),
      keyServiceFolder: this.#keyServiceFolder(),
      signing: new Map(
        Array.from(keys, ([iss, key]) => [iss, this.#signing('SEALGATE_SIGNING_KEYS', key, kids.get(iss))]),
      ),
      kekIds: reader.pairs('SEALGATE_KEK_IDS', 'issuer=kekId'),
    }
  }

  /** Throws `ConfigError` where anything was wrong, and says where each setting was given. */
  finish(): void {
    const faults = this.#reader.faults.map((fault) => this.#placed(fault))
    if (faults.length > 0) throw new ConfigError(faults)
  }

  /** Undefined where there are faults. */
  brokers(): KafkaConnectionSettings | undefined {
    this.#reader.refuseUnverified()
    this.#refuseOpenSecrets()
    return readBrokers(this.#reader)
  }

  #kafka(): KafkaSinkSettings | undefined {
    this.#refuseOpenSecrets()
    try {
      return readKafkaEnvironment(functionEnvironment(this.#environment))
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error
      this.#reader.faults.push(...error.faults)
      return undefined
    }
  }

  #keyServiceFolder(): string | undefined {
    const reader = this.#reader
    const service = reader.optional('SEALGATE_KEY_SERVICE') ?? 'aws'
    if (service === 'aws') return undefined
    if (!LOCAL_SERVICE.test(service))
      reader.fault('SEALGATE_KEY_SERVICE', 'It is no key service.', 'Set aws (the default), or local:FOLDER.')
    return service.slice('local:'.length)
  }

  /** With `needsRootKey`, what signs must be set. */
  keys(needsRootKey: boolean): KeySettings {
    this.#reader.refuseUnverified()
    this.#reader.refuseUnknown(KNOWN)
    const name = 'SEALGATE_ROOT_KEY'
    const fix = 'Name the ARN of a KMS key, or file:PATH of a private JWK.'
    const text = needsRootKey ? this.#reader.text(name, fix) : ''
    if (text !== '' && !SIGNING_KEY.test(text)) this.#reader.fault(name, 'It is no such key.', fix)
    const rootKey = SIGNING_KEY.test(text) ? this.#signing(name, text, undefined) : undefined
    return { ...readTrust(this.#reader), rootKey }
  }

  #directory(): DirectorySettings {
    const reader = this.#reader
    const settings = {
      gateway: reader.text('SEALGATE_NAME', "Set the gateway's name."),
      ...readTrust(reader),
    }
    const { directory } = settings
    if (directory.kind === 'file' && directory.path !== '')
      reader.read('SEALGATE_DIRECTORY', directory.path, "Name the key directory's file.", () => undefined)
    return settings
  }

  /** A bundle, or the folder of files that one is built from. */
  async #contracts(): Promise<Contracts> {
    const reader = this.#reader
    const name = 'SEALGATE_CONTRACTS'
    const fix = 'Name a folder of contracts, or a bundle (sealgate contracts build).'
    const path = reader.optional(name)
    if (path === undefined || statOf(path)?.isDirectory() !== true)
      return reader.file(name, fix, loadBundle) ?? NO_CONTRACTS
    try {
      const { files, faults } = checkContracts(await readContracts(path))
      reader.faults.push(...faults)
      return faults.length > 0 ? NO_CONTRACTS : loadBundle(buildBundle(files))
    } catch (error) {
      if (!(error instanceof ConfigError)) throw error
      reader.faults.push(...error.faults)
      return NO_CONTRACTS
    }
  }

  #signing(name: string, value: string, kid: string | undefined): SigningSettings {
    if (!value.startsWith('file:')) return { arn: value, kid }
    const path = value.slice('file:'.length)
    this.#refuseOpen(name, path)
    const key = this.#reader.read(name, path, 'Name a file with a private JWK.', privateKeyOf)
    return key === undefined ? { arn: '', kid } : { key }
  }

  #refuseOpenSecrets(): void {
    for (const name of SECRET_FILES) this.#refuseOpen(name, this.#reader.optional(name))
  }

  /** As ssh does: a private key or password that others can read is used by nobody who cares. */
  #refuseOpen(name: string, path: string | undefined): void {
    const stats = path === undefined ? undefined : statOf(path)
    if (stats !== undefined && isReadByOthers(stats))
      this.#reader.fault(name, `Others can read ${path ?? ''}.`, `chmod 600 ${path ?? ''}`)
  }

  #placed(fault: Fault): Fault {
    const [name = ''] = /^SEALGATE_[A-Z0-9_]+/.exec(fault.where) ?? []
    const place = this.#places.get(name)
    if (place !== undefined) {
      const { where, line, path } = place
      const what = path === '' ? fault.what : `${path}: ${fault.what}`
      return { ...fault, where, ...(line !== undefined && { line }), what }
    }
    // What is set nowhere is looked for in the file first.
    if (name === '' || this.#file === undefined || this.#environment[name] !== undefined) return fault
    return { ...fault, where: this.#file, what: `${fileNameOf(name)}: ${fault.what}` }
  }
}

/** Undefined where there is no such file; what the system says is not told, since a key itself may stand for a path. */
function statOf(path: string): Stats | undefined {
  try {
    return statSync(path)
  } catch {
    return undefined
  }
}

const NO_KAFKA: KafkaSinkSettings = readKafkaSettings({ brokers: ['none.invalid:1'], deployment: 'none' })
