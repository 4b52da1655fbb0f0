/** An environment, read strictly: every fault of every variable, gathered. */
import { readFileSync } from 'node:fs'
import { codeOf, ConfigError, type Fault } from './errors.ts'

export type Environment = Readonly<Record<string, string | undefined>>

/** What the names of our variables begin with. */
export const PREFIX = 'SEALGATE_'
const TOPIC = /^[A-Za-z0-9._-]{1,249}$/

/** Reads variables and gathers what is wrong. No value is quoted that may be a secret in the wrong place. */
export class Reader {
  readonly faults: Fault[] = []
  readonly #environment: Environment

  constructor(environment: Environment) {
    this.#environment = environment
  }

  fault(where: string, what: string, fix: string): void {
    this.faults.push({ where, what, fix })
  }

  refuseUnknown(known: readonly string[]): void {
    for (const name of Object.keys(this.#environment))
      if (name.startsWith(PREFIX) && !known.includes(name))
        this.fault(name, 'No setting has this name.', `Known are ${[...new Set(known)].join(', ')}.`)
  }

  /** Node's own switch, which every connection of the process heeds that does not know better. */
  refuseUnverified(): void {
    if (this.#environment['NODE_TLS_REJECT_UNAUTHORIZED'] === '0')
      this.fault(
        'NODE_TLS_REJECT_UNAUTHORIZED',
        'With 0 whoever is on the way to AWS could pose as it.',
        'Leave it out; for an authority of your own set SEALGATE_KAFKA_SSL_CA, or NODE_EXTRA_CA_CERTS.',
      )
  }

  optional(name: string): string | undefined {
    const value = this.#environment[name]
    return value === '' ? undefined : value
  }

  text(name: string, fix: string): string {
    const value = this.optional(name)
    if (value === undefined) this.fault(name, 'It is not set.', fix)
    return value ?? ''
  }

  integer(name: string, usual: number, least: number, greatest: number): number {
    const text = this.optional(name)
    const value = text === undefined ? usual : numberOf(text)
    if (value >= least && value <= greatest) return value
    this.fault(name, 'It is not such a number.', `Set a whole number from ${least} to ${greatest}.`)
    return usual
  }

  /** `a=b,c=d`, where each `b` is as `form` says. */
  pairs(name: string, form: string, value: RegExp = TOPIC): ReadonlyMap<string, string> {
    const pairs = new Map<string, string>()
    for (const [index, pair] of (this.optional(name)?.split(',') ?? []).entries()) {
      const [, from = '', to = ''] = /^([A-Za-z0-9._-]{1,249})=([^]*)$/.exec(pair) ?? []
      if (!value.test(to) || pairs.has(from))
        this.fault(name, `Pair ${index + 1} of it is none, or named twice.`, `Set ${form},${form}.`)
      pairs.set(from, to)
    }
    return pairs
  }

  file<T>(name: string, fix: string, use: (bytes: Uint8Array) => T): T | undefined {
    const path = this.text(name, fix)
    return path === '' ? undefined : this.read(name, path, fix, use)
  }

  read<T>(name: string, path: string, fix: string, use: (bytes: Uint8Array) => T): T | undefined {
    let bytes: Uint8Array
    try {
      bytes = readFileSync(path)
    } catch (error) {
      this.fault(name, `${shown(path)} cannot be read (${codeOf(error)}).`, fix)
      return undefined
    }
    try {
      return use(bytes)
    } catch (error) {
      // A parser's message may quote what it read, and that may be a key.
      if (error instanceof ConfigError) this.faults.push(...error.faults)
      else this.fault(name, `${shown(path)} is not what belongs there.`, fix)
      return undefined
    }
  }
}

/** A path; what looks like a key put in its place is not told. */
const shown = (path: string): string =>
  /^[^{\n]{1,255}$/.test(path) && !path.startsWith('-----') ? path : 'The file that it names'

/** NaN, which every reader refuses, for what is no plain number. */
export const numberOf = (text: string): number => (/^[0-9]{1,15}$/.test(text) ? Number(text) : NaN)
