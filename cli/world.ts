/** What commands work on: an embedded stack, or topics of a cluster, chosen by flags, environment and settings file. */
import { type Command, InvalidArgumentError, Option } from 'commander'
import type { Contracts } from '../lib/contract/contract.ts'
import type { PublicKey } from '../lib/envelope/crypto.ts'
import type { Directory } from '../lib/keys/directory.ts'
import type { Place } from '../lib/local/log.ts'
import type { ReadableSource } from '../lib/local/poller-lane.ts'
import type { LocalProducer } from '../lib/local/stack.ts'
import type { Clock, KeyService, Message, PositionAdmin } from '../lib/ports.ts'
import { shellWord } from './io.ts'
import { choosePlace, type PlaceFlags } from './place-settings.ts'
import { reachWorld } from './stack-world.ts'
import type { Terminal } from './terminal.ts'

/** Topics, read as they are committed. What a cluster does not do within 15 s is an `Outage`. */
export interface Topics {
  readonly clock: Clock
  readonly records: ReadableSource
  readonly positions: PositionAdmin
  /** The topics that the gate reads; empty where the settings do not name them. */
  readonly sources: readonly string[]
  /** Of the gate's positions: above 1 where all was decided anew. */
  readonly epoch: number
  readonly auditTopic: string
  readonly quarantineTopic: string
  /** The gate's own public keys by kid in base64url, as the signed key directory has them; none where no directory is set. */
  gateKeys(): Promise<ReadonlyMap<string, PublicKey>>
  close(): Promise<void>
}

/** Topics with all that sealing and opening need. */
export interface World extends Topics {
  readonly contracts: Contracts
  /** The gateway's name. */
  readonly gateway: string
  readonly directory: Directory
  /** Channels that producers write to, and those that consumers read from. */
  readonly ingress: readonly string[]
  readonly outputs: readonly string[]
  /** Undefined for a channel that is neither. */
  readonly topicOf: (channel: string) => string | undefined
  readonly channelOf: (topic: string) => string | undefined
  /** Whether what did not answer may answer the next `append`, by a new connection. */
  readonly reconnects: boolean
  /** Appends outside any transaction, in order within a partition; where each came to stand. */
  append(messages: readonly Message[]): Promise<readonly Place[]>
  /** Throws `ConfigError` for an issuer whose keys are not here. */
  producer(iss: string): LocalProducer
  /** As whoever bears the name; on AWS as whoever calls. */
  keyServiceOf(name: string): KeyService
}

/** Adds `--folder`, `--brokers` and `--settings`. */
export function addPlaceOptions(command: Command): Command {
  return command
    .addOption(stackFolderOption())
    .addOption(namingOption('--brokers <list>', 'a cluster: host:port,host:port'))
    .addOption(namingOption('--settings <file>', 'settings of a cluster (default: sealgate.yaml)'))
}

/** `--folder`. */
export const stackFolderOption = (): Option =>
  namingOption('--folder <dir>', 'an embedded stack (default: SEALGATE_LOCAL, or .sealgate)')

/** An option whose value must name something: empty, a path would be the current folder. */
export function namingOption(flags: string, description: string): Option {
  return new Option(flags, description).argParser((value: string) => {
    if (value === '') throw new InvalidArgumentError('It is empty: name one, or leave it out.')
    return value
  })
}

/** The flags that a user is to repeat for the next command on the same place. */
export function placeFlags({ folder, brokers, settings }: PlaceFlags): string {
  const flag = (name: string, value: string | undefined): string =>
    value === undefined ? '' : ` ${name} ${shellWord(value)}`
  return flag('--folder', folder) + flag('--brokers', brokers) + flag('--settings', settings)
}

/** Opens what the flags, the environment or the settings file name; with `needsDirectory` its settings must be there. */
export async function openTopics(
  { env }: Terminal,
  flags: PlaceFlags,
  needsDirectory: boolean,
): Promise<Topics> {
  const place = choosePlace(flags, env)
  if ('folder' in place) return reachWorld(place.folder, false)
  // Who works on the embedded stack needs no vendor's code.
  const { openClusterTopics } = await import('./cluster-world.ts')
  return openClusterTopics(place.cluster, needsDirectory)
}

/** The same with contracts and keys; with `isRunning`, an embedded stack must be run by another process. */
export async function openWorld({ env }: Terminal, flags: PlaceFlags, isRunning: boolean): Promise<World> {
  const place = choosePlace(flags, env)
  if ('folder' in place) return reachWorld(place.folder, isRunning)
  const { openClusterWorld } = await import('./cluster-world.ts')
  return openClusterWorld(place.cluster)
}

/** Closes it, whatever `use` does. */
export async function closing<T extends Topics, R>(topics: T, use: (topics: T) => Promise<R>): Promise<R> {
  try {
    return await use(topics)
  } finally {
    await topics.close()
  }
}
