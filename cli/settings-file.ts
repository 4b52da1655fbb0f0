/**
 * `sealgate.yaml`: the settings of the environment (docs/settings.md) in a file, each by its name there in camelCase, and
 * read as if it stood there: `kafka.sasl.passwordFile` is SEALGATE_KAFKA_SASL_PASSWORD_FILE.
 */
import { closeSync, constants, fstatSync, openSync, readFileSync, realpathSync, type Stats } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { isMap, isScalar, isSeq, LineCounter, parseDocument, type YAMLMap, type YAMLSeq } from 'yaml'
import { codeOf, ConfigError, type Fault } from '../lib/errors.ts'

/** A setting as it was given. */
export interface GivenSetting {
  /** Its name in the environment. */
  readonly name: string
  readonly text: string
  /** Where it was given, for what is wrong with it; undefined for a variable of the environment. */
  readonly place: { readonly where: string; readonly line?: number; readonly path: string } | undefined
}

const MAX_BYTES = 262_144
/** Maps below it are sections; any other map is a list of pairs. */
const KAFKA = 'kafka'
const NAME = /^[a-z][A-Za-z0-9]{0,63}$/
/** Settings that name a file or folder: in a settings file, from its own folder on. */
const PATHS =
  /^SEALGATE_(LOCAL|CONTRACTS|DIRECTORY|DIRECTORY_CA|ROOTS|PSEUDONYMS|KAFKA_\w+_FILE|KAFKA_SSL_(CA|CERT|KEY)|KAFKA_SASL_TOKEN_CA)$/
/** Of something that is no file here: an ARN, a URL. */
const ADDRESS = /^[a-z][a-z0-9+.-]*:/
const PREFIXED_PATH = /^(file|local):(?!\/)/
/** What nobody else may read. */
const SECRET = /_(PASSWORD|CLIENT_SECRET)$/
const PEM = '-----BEGIN '

/** Reads a settings file. Throws `ConfigError` with all that is wrong with its form, its owner or its permissions. */
export function readSettingsFile(file: string): readonly GivenSetting[] {
  const { text, stats, folder } = readOwn(file)
  const reading = new Reading(file, folder)
  reading.read(text)
  if (isReadByOthers(stats)) reading.refuseSecrets()
  if (reading.faults.length > 0) throw new ConfigError(reading.faults)
  return reading.given
}

class Reading {
  readonly given: GivenSetting[] = []
  readonly faults: Fault[] = []
  readonly #file: string
  readonly #folder: string
  readonly #lines = new LineCounter()

  constructor(file: string, folder: string) {
    this.#file = file
    this.#folder = folder
  }

  fault(line: number, what: string, fix: string): void {
    this.faults.push({ where: this.#file, line, what, fix })
  }

  read(text: string): void {
    const document = parseDocument(text, {
      lineCounter: this.#lines,
      version: '1.2',
      schema: 'core',
      prettyErrors: false,
      stringKeys: true,
    })
    // What is wrong once makes much after it wrong: the first of each line.
    const byLine = new Map<number, string>()
    for (const { pos, message } of [...document.errors, ...document.warnings])
      if (!byLine.has(this.#lineAt(pos[0]))) byLine.set(this.#lineAt(pos[0]), message.replace(/\.$/, ''))
    for (const [line, message] of byLine)
      this.fault(line, `The YAML is not sound: ${message}.`, 'Correct it.')
    if (this.faults.length > 0) return
    if (isMap(document.contents)) this.#section(document.contents, [])
    else this.fault(1, 'It holds no settings.', 'Give names and values (docs/cli.md).')
  }

  /** A secret in a file that others can read is none. */
  refuseSecrets(): void {
    for (const { name, text, place } of this.given)
      if (SECRET.test(name) || (name.endsWith('_SSL_KEY') && text.includes(PEM)))
        this.fault(
          place?.line ?? 1,
          `${place?.path ?? name}: others can read this file, and so the secret in it.`,
          `chmod 600 ${this.#file}, or keep the secret in a file of its own.`,
        )
  }

  #section(map: YAMLMap, path: readonly string[]): void {
    for (const { key, value } of map.items) {
      const name = scalarOf(key) ?? ''
      const own = [...path, name]
      const line = this.#lineAt(isScalar(key) ? key.range?.[0] : undefined)
      if (!NAME.test(name))
        this.fault(line, `${own.join('.')} is no name of a setting.`, 'Write it in camelCase.')
      else if (isMap(value) && own[0] === KAFKA) this.#section(value, own)
      else this.#take(value, own, line)
    }
  }

  #take(value: unknown, path: readonly string[], line: number): void {
    const place = { where: this.#file, line, path: path.join('.') }
    const name = environmentName(path)
    const text = isMap(value) ? this.#pairs(value) : isSeq(value) ? listOf(value) : scalarOf(value)
    if (text !== undefined) this.given.push({ name, text: this.#located(name, text), place })
    else
      this.fault(
        line,
        `${place.path}: It is empty, or no text.`,
        'Give a text; in lists and pairs, without commas.',
      )
  }

  /** As the environment has them: `from=to,from=to`. */
  #pairs({ items }: YAMLMap): string | undefined {
    const pairs = items.map(({ key, value }) => [scalarOf(key), scalarOf(value)] as const)
    if (pairs.some(([from, to]) => from === undefined || /[=,]/.test(from) || to?.includes(',') !== false))
      return undefined
    return pairs.map(([from, to]) => `${from ?? ''}=${this.#located('', to ?? '')}`).join()
  }

  /** A path as seen from the settings file's own folder; any other value as it stands. */
  #located(name: string, value: string): string {
    const folder = this.#folder
    if (PATHS.test(name) && !value.includes(PEM) && !ADDRESS.test(value)) return resolve(folder, value)
    const prefix = PREFIXED_PATH.exec(value)?.[0]
    return prefix === undefined ? value : prefix + resolve(folder, value.slice(prefix.length))
  }

  #lineAt(offset: number | undefined): number {
    return this.#lines.linePos(offset ?? 0).line
  }
}

/** Whether a file of ours can be read by others. As ssh has it, what belongs to somebody else is that one's affair. */
export function isReadByOthers({ uid, mode }: Pick<Stats, 'uid' | 'mode'>): boolean {
  return uid === process.getuid?.() && (mode & 0o077) !== 0
}

/** Whoever can write it chooses where events and passwords go: it has to be ours or root's, and nobody else's to write. */
function readOwn(file: string): { readonly text: string; readonly stats: Stats; readonly folder: string } {
  const refused = (what: string, fix: string): ConfigError => new ConfigError([{ where: file, what, fix }])
  let descriptor: number | undefined
  try {
    // Where it is and not where a link to it is: whoever made the link has no say in what lies beside the file.
    const real = realpathSync(file)
    // A pipe in its place is not waited for.
    descriptor = openSync(real, constants.O_RDONLY | constants.O_NONBLOCK)
    const stats = fstatSync(descriptor)
    if (!stats.isFile()) throw refused('It is no file.', 'Name a settings file.')
    const own = process.getuid?.()
    if (own !== undefined && stats.uid !== own && stats.uid !== 0)
      throw refused(
        'It belongs to another user, who could send you anywhere.',
        'Copy it, and read what it says.',
      )
    if (own !== undefined && (stats.mode & 0o022) !== 0)
      throw refused('Others can write it, and so send you anywhere.', `chmod go-w ${file}`)
    if (stats.size > MAX_BYTES)
      throw refused(`It is longer than ${MAX_BYTES} bytes.`, 'Name a settings file.')
    const text = new TextDecoder('utf-8', { fatal: true }).decode(readFileSync(descriptor))
    return { text, stats, folder: dirname(real) }
  } catch (error) {
    if (error instanceof ConfigError) throw error
    throw refused(`It cannot be read (${codeOf(error)}).`, 'Name a settings file that can, in UTF-8.')
  } finally {
    if (descriptor !== undefined) closeSync(descriptor)
  }
}

/** The other way round, as far as a name tells: sections below `kafka` are `ssl` and `sasl`. */
export function fileNameOf(name: string): string {
  const [, kafka = '', section = '', rest = ''] = /^SEALGATE_(KAFKA_)?((?:SSL|SASL)_)?(.*)$/.exec(name) ?? []
  const camel = rest.toLowerCase().replace(/_([a-z])/g, (_, letter: string) => letter.toUpperCase())
  return `${kafka}${section}`.toLowerCase().replaceAll('_', '.') + camel
}

/** `kafka.sasl.passwordFile` → `SEALGATE_KAFKA_SASL_PASSWORD_FILE` */
const environmentName = (path: readonly string[]): string =>
  `SEALGATE_${path.map((part) => part.replace(/[A-Z]/g, (letter) => `_${letter}`).toUpperCase()).join('_')}`

function listOf({ items }: YAMLSeq): string | undefined {
  const texts = items.map(scalarOf)
  return texts.some((text) => text?.includes(',') !== false) ? undefined : texts.join()
}

/** A scalar's text as it was written; undefined for what is none, or empty. */
function scalarOf(node: unknown): string | undefined {
  if (!isScalar(node) || node.value === '') return undefined
  if (typeof node.value === 'string') return node.value
  return node.value === null ? undefined : node.source
}
