/** Where a command works, an embedded stack or a cluster: flags before environment before settings file (docs/cli.md). */
import { existsSync } from 'node:fs'
import type { Environment } from '../lib/environment.ts'
import { ConfigError } from '../lib/errors.ts'
import { type GivenSetting, readSettingsFile } from './settings-file.ts'

/** What a user may say about where a command is to work. */
export interface PlaceFlags {
  readonly folder?: string
  readonly brokers?: string
  readonly settings?: string
}

/** An embedded stack's folder, or the settings of a cluster, not yet read. */
export type PlaceSettings = { readonly folder: string } | { readonly cluster: Given }

/** What was given for a cluster, by whatever counts most, over the environment that the process has. */
export interface Given {
  readonly settings: readonly GivenSetting[]
  readonly environment: Environment
  /** The settings file, where there is one. */
  readonly file: string | undefined
}

export const SETTINGS_FILE = 'sealgate.yaml'
const DEFAULT_FOLDER = '.sealgate'

/** Where a command works. Throws `ConfigError` where that cannot be told, or the settings file cannot be used. */
export function choosePlace(
  flags: PlaceFlags,
  environment: Environment,
  file: string = SETTINGS_FILE,
): PlaceSettings {
  const { folder, brokers, settings } = flags
  const set = (name: string): string | undefined => (environment[name] === '' ? undefined : environment[name])
  const local = set('SEALGATE_LOCAL')
  if (folder !== undefined) {
    if (brokers !== undefined || settings !== undefined) throw beside('--folder', 'the flags of a cluster')
    return { folder }
  }
  const isNamed = brokers !== undefined || settings !== undefined
  if (!isNamed && local !== undefined) {
    if (set(BROKERS) !== undefined) throw beside('SEALGATE_LOCAL', BROKERS)
    return { folder: local }
  }
  const path = settings ?? (existsSync(file) ? file : undefined)
  const fromFile = path === undefined ? [] : readSettingsFile(path)
  const fromEnvironment = Object.keys(environment)
    .filter((name) => name.startsWith('SEALGATE_') && set(name) !== undefined)
    .map((name): GivenSetting => ({ name, text: environment[name] ?? '', place: undefined }))
  const fromFlags: GivenSetting[] =
    brokers === undefined ? [] : [{ name: BROKERS, text: brokers, place: { where: '--brokers', path: '' } }]
  const replaced = fromEnvironment.flatMap(
    ({ name }) => ALTERNATIVES.find((names) => names.includes(name)) ?? [],
  )
  const all = new Map(
    [...fromFile.filter(({ name }) => !replaced.includes(name)), ...fromEnvironment, ...fromFlags].map(
      (given) => [given.name, given],
    ),
  )
  const inFile = fromFile.find(({ name }) => name === 'SEALGATE_LOCAL')
  all.delete('SEALGATE_LOCAL')
  if (inFile !== undefined && brokers === undefined && set(BROKERS) === undefined) {
    if (all.has(BROKERS)) throw beside(`${inFile.place?.where ?? ''}: local`, 'kafka.brokers')
    return { folder: inFile.text }
  }
  if (path === undefined && !all.has(BROKERS) && !all.has(DIRECTORY)) return { folder: DEFAULT_FOLDER }
  return { cluster: { settings: [...all.values()], environment, file: path } }
}

/** Where it is set, there is a cluster. */
export const BROKERS = 'SEALGATE_KAFKA_BROKERS'
/** Of a cluster too: commands on the key directory need no brokers. */
const DIRECTORY = 'SEALGATE_DIRECTORY'
/** Where the environment has one of these, the file's others do not stand beside it. */
const ALTERNATIVES = [
  ['SEALGATE_KAFKA_SASL_PASSWORD', 'SEALGATE_KAFKA_SASL_PASSWORD_FILE', 'SEALGATE_KAFKA_SASL_SECRET'],
]

const beside = (where: string, other: string): ConfigError =>
  new ConfigError([
    { where, what: `It is set beside ${other}.`, fix: 'Leave out one of them: the stack, or the cluster.' },
  ])
