/** What stands in the settings, in files and in secrets, as of now. */
import { readFileSync } from 'node:fs'
import { codeOf, Outage } from '../errors.ts'
import type { Clock, SecretStore } from '../ports.ts'
import type { KafkaLogin, KafkaText } from './kafka-settings.ts'
import { Renewable, type Source } from './renewable.ts'

/** Where secrets are read, and how long a copy counts: a change is seen then, or at once where the old one is refused. */
export interface SecretReading {
  readonly secrets: SecretStore
  readonly clock: Clock
  /** Milliseconds. */
  readonly maxAgeMs: number
}

export interface Credentials {
  readonly name: string
  readonly secret: string
}

/**
 * Credentials of a login, kept up to date.
 * @param names of the two fields, in the settings as in a secret
 */
export function credentialsOf(
  login: KafkaLogin,
  names: { readonly name: string; readonly secret: string },
  reading: SecretReading,
): Source<Credentials> {
  if ('arn' in login)
    return keptSecret(login.arn, reading, (fields) => {
      const name = fields.get(names.name)
      const secret = fields.get(names.secret)
      if (name === undefined || secret === undefined) throw new TypeError(`${names.name} and ${names.secret}`)
      return { name, secret }
    })
  const current = async (): Promise<Credentials> => {
    const text = textOf(login.secret, `sasl.${names.secret}File`)
    // Editors end a file with a line feed; no password does.
    const secret = 'file' in login.secret ? text.replace(/\r?\n$/, '') : text
    return Promise.resolve({ name: login.name, secret })
  }
  return {
    current,
    isRenewed: (refused) =>
      current().then(
        ({ secret }) => secret !== refused.secret,
        () => false,
      ),
  }
}

/** The text as of now. Throws `Outage('secret-unavailable')` where its file cannot be read. */
export function textOf(text: KafkaText, name: string): string {
  if ('text' in text) return text.text
  try {
    return readFileSync(text.file, 'utf8')
  } catch (error) {
    throw unusable(`the file of ${name} cannot be read (${codeOf(error)})`, 'Put it back.')
  }
}

/** A secret whose value is JSON with texts in it; `use` throws `TypeError` with what it misses. */
export function keptSecret<T>(
  arn: string,
  { secrets, clock, maxAgeMs }: SecretReading,
  use: (fields: ReadonlyMap<string, string>) => T,
): Renewable<T> {
  return new Renewable(async (deadline) => {
    const { value, version } = await secrets.read(arn, deadline)
    const freshUntil = clock.now() + maxAgeMs
    try {
      const parsed: unknown = JSON.parse(Buffer.from(value).toString())
      const entries = typeof parsed === 'object' && parsed !== null ? Object.entries(parsed) : []
      const texts = entries.filter((entry): entry is [string, string] => typeof entry[1] === 'string')
      return { value: use(new Map(texts)), version, freshUntil, goodUntil: Infinity }
    } catch (error) {
      // A parser's message quotes what it read.
      const needed = error instanceof TypeError ? error.message : 'JSON'
      throw unusable(`${arn} does not hold ${needed}`, 'Correct its value.')
    }
  }, clock)
}

export const unusable = (what: string, fix: string): Outage =>
  new Outage('secret-unavailable', `${what}. ${fix}`)
