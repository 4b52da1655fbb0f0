/** What is to be rotated, how often, and what all the waits follow from: a YAML file (docs/rotation.md). */
import { parseDocument } from 'yaml'
import { ConfigError, type Fault } from '../errors.ts'
import { isSubject } from './client-certificate.ts'
import {
  activationOf,
  type ClientCertificateRotation,
  overlapOf,
  releaseOf,
  type Rotation,
  type RotationWaits,
} from './rotation.ts'

/** A rotation of the file; the last two are there for what is only watched. */
export interface RotationEntry {
  readonly rotation: Rotation
  /** Since when it is as it is, seconds since 1970: nobody else remembers. */
  readonly since: number | undefined
  /** A certificate's PEM file. */
  readonly file: string | undefined
  readonly period: number | undefined
}

export interface RotationPolicies {
  readonly entries: readonly RotationEntry[]
  readonly waits: RotationWaits
}

const DAY = 86_400
const UNITS: Readonly<Record<string, number>> = { s: 1, m: 60, h: 3600, d: DAY }

/** As the parts of sealgate are set where nobody sets them otherwise. */
export const DEFAULT_WAITS: RotationWaits = {
  directoryGrace: 300,
  secretHold: 3600,
  eventLife: DAY,
  margin: 60,
  retention: 365 * DAY,
}

/** A row of the file: which fields it has, and its usual period. */
interface Kind {
  readonly needs: readonly string[]
  readonly may: readonly string[]
  readonly period: string
}

type KindName = Rotation['kind']

const KINDS: Readonly<Record<KindName, Kind>> = {
  'signing-key': { needs: ['iss', 'secret'], may: ['period'], period: '90d' },
  scram: { needs: ['pointer', 'users'], may: ['brokers', 'msk', 'period'], period: '30d' },
  'client-certificate': {
    needs: ['secret', 'subject', 'authority', 'authorityKey'],
    may: ['brokers', 'duration', 'renewBefore'],
    period: '',
  },
  'kms-key': { needs: ['key'], may: ['period'], period: '365d' },
  directory: { needs: [], may: [], period: '' },
  'pseudonym-keys': { needs: ['since'], may: [], period: '' },
  certificate: { needs: [], may: ['file', 'secret'], period: '' },
  'directory-root': { needs: ['since'], may: ['period'], period: '365d' },
}

const MAX_BYTES = 262_144
const NAME = /^[a-z0-9][a-z0-9.-]{0,62}$/i
/** KMS's own bounds of a rotation period, days. */
const KMS_DAYS = { least: 90, most: 2560 } as const

/** Reads the file's text. Throws `ConfigError` with every fault. */
export function readRotationPolicy(text: string, where: string): RotationPolicies {
  const reading = new Reading(where)
  const policies = reading.policies(text)
  if (reading.faults.length > 0) throw new ConfigError(reading.faults)
  return policies
}

type Fields = ReadonlyMap<string, unknown>

class Reading {
  readonly faults: Fault[] = []
  readonly #where: string

  constructor(where: string) {
    this.#where = where
  }

  policies(text: string): RotationPolicies {
    const top = this.#fields(this.#parsed(text), '', ['rotations', 'waits'])
    const waits = this.#waits(top.get('waits'))
    const rows = this.#fields(top.get('rotations') ?? {}, 'rotations')
    if (rows.size === 0) this.#fault('rotations', 'There is none.', 'Name at least one (docs/rotation.md).')
    const entries = [...rows].flatMap(([name, row]) => this.#entry(name, row, waits))
    const secrets = entries.flatMap(({ rotation }) => secretsOf(rotation)).filter((secret) => secret !== '')
    for (const secret of new Set(secrets.filter((one, index) => secrets.indexOf(one) !== index)))
      this.#fault('rotations', `Two have the secret ${secret}.`, 'Give each its own.')
    return { entries, waits }
  }

  #parsed(text: string): unknown {
    try {
      const document = parseDocument(text.slice(0, MAX_BYTES), { schema: 'core', stringKeys: true })
      const isSound = document.errors.length === 0 && document.warnings.length === 0
      if (text.length <= MAX_BYTES && isSound) return document.toJS({ mapAsMap: true, maxAliasCount: 0 })
    } catch {
      // An alias, or nested without end.
    }
    this.#fault('', 'It is no sound YAML, or has aliases, or is too long.', 'Correct it.')
    return new Map()
  }

  #fault(path: string, what: string, fix: string): void {
    this.faults.push({ where: path === '' ? this.#where : `${this.#where}: ${path}`, what, fix })
  }

  #fields(value: unknown, path: string, known?: readonly string[]): Fields {
    const fields = new Map<string, unknown>()
    if (!(value instanceof Map)) {
      this.#fault(path, 'It is no map.', 'Give names and values.')
      return fields
    }
    const given: Iterable<[unknown, unknown]> = value
    for (const [name, field] of given) {
      if (typeof name === 'string' && (known === undefined || known.includes(name))) fields.set(name, field)
      else
        this.#fault(path, `${String(name)} is no field of it.`, `Known are ${known?.join(', ') ?? 'texts'}.`)
    }
    return fields
  }

  #waits(value: unknown): RotationWaits {
    const given = value === undefined ? new Map<string, unknown>() : this.#fields(value, 'waits', WAITS)
    const wait = (name: keyof RotationWaits): number =>
      given.has(name) ? this.#seconds(given.get(name), `waits.${name}`) : DEFAULT_WAITS[name]
    return {
      directoryGrace: wait('directoryGrace'),
      secretHold: wait('secretHold'),
      eventLife: wait('eventLife'),
      margin: wait('margin'),
      retention: wait('retention'),
    }
  }

  #entry(name: string, value: unknown, waits: RotationWaits): RotationEntry[] {
    const path = `rotations.${name}`
    if (!NAME.test(name)) this.#fault(path, 'It is no name.', 'Use letters, digits, dots and hyphens.')
    const fields = this.#fields(value, path)
    const kind = fields.get('kind')
    if (!isKind(kind)) {
      this.#fault(
        path,
        'It has no kind that is known.',
        `Set kind to one of ${Object.keys(KINDS).join(', ')}.`,
      )
      return []
    }
    const { needs, may, period: usual } = KINDS[kind]
    const known = ['kind', ...needs, ...may]
    for (const field of fields.keys())
      if (!known.includes(field))
        this.#fault(path, `${field} is no field of a ${kind}.`, `Known are ${known.join(', ')}.`)
    const text = (field: string): string => {
      const found = fields.get(field)
      if (typeof found === 'string' && found !== '') return found
      if (needs.includes(field)) this.#fault(path, `It has no ${field}.`, `Set ${field} (docs/rotation.md).`)
      return ''
    }
    for (const field of needs) if (field !== 'users') text(field)
    // Left out it means something else than wrong.
    if (fields.has('msk') && !isFilled(fields.get('msk')))
      this.#fault(`${path}.msk`, 'It is no text.', 'Set the ARN of an MSK cluster, or leave it out.')
    const users = needs.includes('users') ? this.#pair(fields.get('users'), `${path}.users`) : NO_PAIR
    const period = usual === '' ? undefined : this.#seconds(fields.get('period') ?? usual, `${path}.period`)
    const since = needs.includes('since') ? this.#time(fields.get('since'), `${path}.since`) : undefined
    const file = kind === 'certificate' && fields.has('file') ? text('file') : undefined
    if (kind === 'certificate' && isFilled(file) === isFilled(fields.get('secret')))
      this.#fault(path, 'Where it is, is not told once.', 'Set file (PEM), or secret.')
    const rotation = this.#rotation(kind, name, fields, users, period ?? 0)
    if (rotation.kind === 'signing-key')
      this.#checkOverlap(rotation.period, activationOf(waits) + overlapOf(waits), path)
    if (rotation.kind === 'scram') this.#checkOverlap(rotation.period, releaseOf(waits), path)
    if (rotation.kind === 'client-certificate') this.#checkCertificate(rotation, waits, path)
    if (rotation.kind === 'kms-key') this.#checkDays(rotation.period, path)
    return [{ rotation, since, file, period }]
  }

  #rotation(kind: KindName, name: string, fields: Fields, users: Pair, period: number): Rotation {
    const text = (field: string): string => {
      const found = fields.get(field)
      return typeof found === 'string' ? found : ''
    }
    const path = `rotations.${name}`
    const given = fields.get('brokers')
    const brokers = given === undefined ? undefined : this.#list(given, `${path}.brokers`)
    switch (kind) {
      case 'signing-key':
        return { kind, name, iss: text('iss'), secret: text('secret'), period }
      case 'scram': {
        const msk = text('msk')
        return {
          ...{ kind, name, pointer: text('pointer'), users, period },
          ...(msk !== '' && { msk }),
          ...(brokers !== undefined && { brokers }),
        }
      }
      case 'client-certificate': {
        const names = { secret: text('secret'), subject: text('subject'), authority: text('authority') }
        return {
          ...{ kind, name, ...names, authorityKey: text('authorityKey') },
          duration: this.#seconds(fields.get('duration') ?? '90d', `${path}.duration`),
          renewBefore: this.#seconds(fields.get('renewBefore') ?? '30d', `${path}.renewBefore`),
          brokers,
        }
      }
      case 'kms-key':
        return { kind, name, key: text('key'), period }
      case 'certificate': {
        const secret = text('secret')
        return { kind, name, ...(secret !== '' && { secret }) }
      }
      case 'directory':
      case 'pseudonym-keys':
      case 'directory-root':
        return { kind, name }
    }
  }

  /** The next would begin before the last has ended. */
  #checkOverlap(period: number, takes: number, path: string): void {
    const least = 2 * takes
    if (period >= least) return
    const what = `A rotation takes ${takes} s with its waits, and the period is ${period} s.`
    this.#fault(
      `${path}.period`,
      what,
      `Set at least ${least}s, or shorten the waits and what they follow from.`,
    )
  }

  /** It counts twice as long as the old one and the new one count both, and all that time whoever reads the secret sees it. */
  #checkCertificate(
    { subject, duration, renewBefore }: ClientCertificateRotation,
    waits: RotationWaits,
    path: string,
  ): void {
    if (subject !== '' && !isSubject(subject))
      this.#fault(`${path}.subject`, 'It is no subject.', 'Write CN=gate,O=Example: CN, OU, O, L, ST, C.')
    const least = releaseOf(waits)
    if (renewBefore < least)
      this.#fault(`${path}.renewBefore`, `Clients may take ${least} s to see it.`, `Set at least ${least}s.`)
    if (duration < 2 * renewBefore)
      this.#fault(
        `${path}.duration`,
        'It would be due again soon after it was renewed.',
        'Set it to at least twice renewBefore.',
      )
  }

  #list(value: unknown, path: string): readonly string[] {
    const list: readonly unknown[] = Array.isArray(value) ? value : []
    const texts = list.filter(isFilled)
    if (texts.length === 0 || texts.length < list.length)
      this.#fault(path, 'It is no list of texts.', 'Write [b-1.example.com:9094, b-2.example.com:9094].')
    return texts
  }

  #pair(value: unknown, path: string): Pair {
    const list: readonly unknown[] = Array.isArray(value) ? value : []
    const [first, second] = list
    if (isFilled(first) && isFilled(second) && list.length === 2) return [first, second]
    this.#fault(path, 'It is no list of two secrets.', 'Name the secrets of the two users: [ARN, ARN].')
    return NO_PAIR
  }

  #checkDays(period: number, path: string): void {
    const days = period / DAY
    if (Number.isInteger(days) && days >= KMS_DAYS.least && days <= KMS_DAYS.most) return
    const fix = `Set ${KMS_DAYS.least}d to ${KMS_DAYS.most}d.`
    this.#fault(`${path}.period`, 'KMS rotates by whole days, within bounds of its own.', fix)
  }

  #seconds(value: unknown, path: string): number {
    const [, digits, unit = ''] = /^([0-9]{1,9})([smhd])$/.exec(typeof value === 'string' ? value : '') ?? []
    const seconds = Number(digits) * (UNITS[unit] ?? NaN)
    if (seconds > 0 && seconds <= MAX_SECONDS) return seconds
    this.#fault(path, 'It is no length of time.', 'Write 90d, 12h, 5m or 30s.')
    return MAX_SECONDS
  }

  #time(value: unknown, path: string): number {
    const text = typeof value === 'string' ? value : ''
    const at = /^[0-9]{4}-[0-9]{2}-[0-9]{2}$/.test(text) ? Date.parse(text) : NaN
    if (!Number.isNaN(at)) return at / 1000
    this.#fault(path, 'It is no date.', 'Write 2026-11-22: the day since which it is in use.')
    return 0
  }
}

type Pair = readonly [string, string]
const NO_PAIR: Pair = ['', '']
const isFilled = (value: unknown): value is string => typeof value === 'string' && value !== ''

/** The secrets that a rotation changes. */
export function secretsOf(rotation: Rotation): readonly string[] {
  if (rotation.kind === 'scram') return [rotation.pointer, ...rotation.users]
  return 'secret' in rotation ? [rotation.secret] : []
}

const WAITS = ['directoryGrace', 'secretHold', 'eventLife', 'margin', 'retention']
const MAX_SECONDS = 10_000 * DAY

const isKind = (value: unknown): value is KindName => typeof value === 'string' && Object.hasOwn(KINDS, value)
