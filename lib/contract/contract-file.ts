/** What a contract file holds (contracts/contract.schema.json), and what is wrong with one that does not fit. */
import { Ajv2020, type ErrorObject, type ValidateFunction } from 'ajv/dist/2020.js'
import schema from '../../contracts/contract.schema.json' with { type: 'json' }
import type { Classification } from './contract.ts'
import { decimalOf } from './decimal.ts'
import { isObject, member, type JsonValue } from './json.ts'
import { tokensOf, type Schema } from './shape.ts'
import type { DateUnit, Treatment } from './treatments.ts'

/** A contract as data: what a file says, and what a bundle holds. */
export interface ContractFile {
  readonly contract: 'sealgate/1'
  readonly type: string
  readonly description?: string
  readonly owner?: string
  readonly channel: string
  readonly publish: Readonly<Record<string, { readonly sources: readonly string[] }>>
  readonly classification?: Classification
  readonly regulation?: readonly string[]
  readonly subject?: string
  readonly limits?: { readonly maxBytes?: number; readonly perSecond?: number }
  readonly retention?: { readonly channel?: string; readonly outputs?: string }
  readonly assertFormats?: boolean
  readonly schema: Schema
  readonly consume?: Readonly<Record<string, RouteFile>>
}

export interface RouteFile {
  readonly purpose: string
  readonly to: string | { readonly type: string | null }
  readonly form?: 'sealed' | 'plain'
  readonly partitionBy?: string
  readonly life?: string
  readonly treatments?: Readonly<Record<string, JsonValue>>
}

/** Something to say about one place of a contract. A warning does not keep it from being used. */
export interface Finding {
  readonly path: readonly string[]
  readonly what: string
  readonly fix: string
  readonly warning?: true
}

/**
 * Is it a contract, as far as one can see without reading its schema? If not: every fault of its fields, and what is
 * left without them where that is a contract, so that the rest may be checked too.
 */
export function readContractFile(
  data: JsonValue,
): { file: ContractFile } | { findings: Finding[]; rest: ContractFile | undefined } {
  validate ??= new Ajv2020({
    allErrors: true,
    verbose: true,
    ownProperties: true,
    allowUnionTypes: true,
    logger: false,
    // A test holds it against the JSON Schema of JSON Schemas; a cold start has no time for that, nor to optimise code.
    validateSchema: false,
    meta: false,
    code: { optimize: false },
  }).compile<ContractFile>(schema)
  if (validate(data)) return { file: data }
  const errors = validate.errors ?? []
  const findings = errors.filter((error) => !isWithinTreatment(error)).flatMap(findingOf)
  const all = [...firstOfEachPlace(findings), ...faultsOfTreatments(data)]
  const rest = all.reduce((value, { path }) => without(value, path), data)
  return { findings: all, rest: validate(rest) ? rest : undefined }
}

/** A copy without what the path leads to; the items of an array stay. */
function without(value: JsonValue, path: readonly string[]): JsonValue {
  const [name, ...more] = path
  if (name === undefined || !isObject(value)) return value
  const members = Object.entries(value).flatMap(([key, item]): [string, JsonValue][] => {
    if (key !== name) return [[key, item]]
    return more.length === 0 ? [] : [[key, without(item, more)]]
  })
  return Object.fromEntries(members)
}

let validate: ValidateFunction<ContractFile> | undefined

/** Seconds of `30s`, `15m`, `24h`, `7d`. */
export function secondsOf(duration: string): number {
  const unit = { s: 1, m: 60, h: 3600, d: 86_400 }[duration.at(-1) ?? ''] ?? Number.NaN
  return Number.parseInt(duration, 10) * unit
}

/** The output channel of a route. */
export function channelOf(route: RouteFile, type: string): string {
  return typeof route.to === 'string' ? route.to : (route.to.type ?? '') + type
}

const UNITS: readonly DateUnit[] = ['year', 'month', 'day']
const LATER = ['tokenise', 'encrypt', 'consent', 'range', 'reversible']
const LATER_FIELDS = [
  'kafka',
  'topic',
  'topics',
  'resources',
  'acceptUnsealedUntil',
  'consent',
  'format',
  'registry',
]

/** What a treatment's YAML means; a fault's text and fix where it means nothing. */
export function parseTreatment(
  value: JsonValue,
): Treatment | { readonly what: string; readonly fix: string } {
  const [name = '', ...more] = isObject(value) ? Object.keys(value) : [typeof value === 'string' ? value : '']
  if (LATER.includes(name))
    return {
      what: `The treatment "${name}" is not supported yet.`,
      fix: 'Until it is, use drop, mask or pseudonym.',
    }
  if (value === 'pass' || value === 'drop') return { kind: value }
  if (more.length > 0)
    return {
      what: `A field has one treatment, and this names ${more.length + 1}.`,
      fix: 'Keep the one that is meant.',
    }
  const setting = isObject(value) ? member(value, name) : undefined
  if (name === 'mask') {
    const show = isObject(setting) && Object.keys(setting).length === 1 ? member(setting, 'show') : undefined
    if (isCount(show, 0, 100)) return { kind: 'mask', show }
    return { what: 'mask needs how many characters to show.', fix: 'Write mask: { show: 4 }, at most 100.' }
  }
  if (name === 'keep') {
    if (isCount(setting, 1, 1000)) return { kind: 'keep', characters: setting }
    return { what: 'keep needs a number of characters.', fix: 'Write keep: 3, from 1 to 1000.' }
  }
  if (name === 'round') {
    const step = typeof setting === 'number' && setting > 0 ? decimalOf(setting) : undefined
    if (step !== undefined && Math.abs(Number(step.exponent)) <= 300) return { kind: 'round', step }
    return { what: 'round needs a number above 0.', fix: 'Write round: 10, or round: 0.05.' }
  }
  if (name === 'date') {
    const unit = UNITS.find((one) => one === setting)
    if (unit !== undefined) return { kind: 'date', unit }
    return { what: 'date needs a unit.', fix: 'Write date: year, date: month or date: day.' }
  }
  if (name === 'pseudonym') {
    if (typeof setting === 'string' && /^[a-zA-Z0-9._-]{1,64}$/.test(setting))
      return { kind: 'pseudonym', domain: setting }
    return {
      what: 'pseudonym needs a domain.',
      fix: 'Write pseudonym: analytics, of letters, digits, point, _ and -.',
    }
  }
  return {
    what: 'This is no treatment.',
    fix: 'Use pass, drop, mask: { show: n }, keep: n, round: n, date: UNIT or pseudonym: DOMAIN.',
  }
}

const isCount = (value: JsonValue | undefined, least: number, most: number): value is number =>
  typeof value === 'number' && Number.isInteger(value) && value >= least && value <= most

/** Ajv says of a treatment that it is none of seven things. We say what it lacks. */
const isWithinTreatment = (error: ErrorObject): boolean =>
  /^\/consume\/[^/]*\/treatments\/./.test(error.instancePath)

function faultsOfTreatments(data: JsonValue): Finding[] {
  const consume = isObject(data) ? member(data, 'consume') : undefined
  if (!isObject(consume)) return []
  return Object.entries(consume).flatMap(([consumer, route]) => {
    const treatments = isObject(route) ? member(route, 'treatments') : undefined
    if (!isObject(treatments)) return []
    return Object.entries(treatments).flatMap(([pointer, value]) => {
      const parsed = parseTreatment(value)
      return 'kind' in parsed ? [] : [{ path: ['consume', consumer, 'treatments', pointer], ...parsed }]
    })
  })
}

function findingOf(error: ErrorObject): Finding[] {
  const path = tokensOf(error.instancePath) ?? []
  const params: Record<string, unknown> = error.params
  const known = namesAllowed(error.parentSchema)
  switch (error.keyword) {
    case 'additionalProperties': {
      const name = String(params['additionalProperty'])
      if (LATER_FIELDS.includes(name))
        return [
          { path: [...path, name], what: `"${name}" is not supported yet.`, fix: 'Take it out for now.' },
        ]
      return [
        { path: [...path, name], what: `Unknown field "${name}".`, fix: `Known here: ${known.join(', ')}.` },
      ]
    }
    case 'required': {
      const name = String(params['missingProperty'])
      return [{ path, what: `The field "${name}" is missing.`, fix: `Add ${name}: …` }]
    }
    case 'propertyNames': {
      const name = String(params['propertyName'])
      return [
        {
          path: [...path, name],
          what: `"${name}" is no name that can stand here.`,
          fix: FIXES[path.at(-1) ?? ''] ?? POINTERS,
        },
      ]
    }
    case 'oneOf':
      return [
        {
          path,
          what: 'This is neither a channel nor { type: PREFIX }.',
          fix: `Write to: orders.analytics, or to: { type: analytics. }.`,
        },
      ]
    case 'const':
      return [{ path, what: 'This is not a format that is known.', fix: 'Write contract: sealgate/1.' }]
    case 'enum':
      return [
        {
          path,
          what: 'This value is not one of those allowed.',
          fix: `Use one of: ${String(params['allowedValues'])}.`,
        },
      ]
    default:
      if (error.schemaPath.includes('/oneOf/') || error.propertyName !== undefined) return []
      return [
        {
          path,
          what: `This ${error.message ?? 'is wrong'}.`,
          fix: FIXES[path.at(-1) ?? ''] ?? 'See docs/contracts.md.',
        },
      ]
  }
}

/** `error.parentSchema`, a part of the schema of contract files. */
function namesAllowed(part: Readonly<Record<string, unknown>> | undefined): string[] {
  const properties = part?.['properties']
  return typeof properties === 'object' && properties !== null ? Object.keys(properties) : []
}

const POINTERS = 'Write a JSON Pointer such as /customer/id; ~0 stands for ~ and ~1 for /.'
const FIXES: Readonly<Record<string, string>> = {
  publish: 'Write publish: { ISSUER: { sources: [/SOURCE] } }; an issuer has 1 to 128 characters.',
  sources: 'Write sources: [/shop/checkout].',
  consume: 'Write consume: { CONSUMER: { purpose: …, to: … } }; a consumer has 1 to 128 characters.',
  channel: 'Use 1 to 249 letters, digits, points, _ and -.',
  subject: POINTERS,
  partitionBy: POINTERS,
  life: 'Write a number and s, m, h or d, such as 24h.',
  outputs: 'Write a number and s, m, h or d, such as 30d.',
  maxBytes: 'Write a whole number from 1 to 1048576.',
  perSecond: 'Write a whole number from 1 to 1000000.',
}

function firstOfEachPlace(findings: readonly Finding[]): Finding[] {
  const seen = new Set<string>()
  return findings.filter((finding) => {
    const key = JSON.stringify([finding.path, finding.what])
    return !seen.has(key) && seen.add(key)
  })
}
