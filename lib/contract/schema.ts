/**
 * Payloads against JSON Schema 2020-12 (sealed-event.md §5, step 11), by Ajv: strict, own properties only, regular
 * expressions by RE2 in linear time, `format` an annotation unless asserted. A schema is compiled at its first use;
 * that it compiles is proven when contracts are checked.
 */
import { Ajv2020, type ErrorObject, type Options, type ValidateFunction } from 'ajv/dist/2020.js'
import { fullFormats } from 'ajv-formats/dist/formats.js'
import { RE2JS } from 're2js'
import { Rejection } from '../errors.ts'
import type { PayloadSchema } from './contract.ts'
import {
  compare,
  decimalKey,
  decimalOf,
  isInteger,
  isMultipleOf,
  parseDecimal,
  type Decimal,
} from './decimal.ts'
import { isArray, isObject, member, readJson, type JsonText, type JsonValue } from './json.ts'
import type { Schema } from './shape.ts'

type BrokenRule = Pick<ErrorObject, 'schemaPath'>

const CONTENT_TYPE = 'application/json'

/** One schema, ready to judge payloads. */
export class CompiledSchema implements PayloadSchema {
  readonly #schema: Schema
  readonly #assertFormats: boolean
  #validate: ValidateFunction | undefined
  #validateExactly: ((json: JsonText) => BrokenRule | undefined) | undefined

  constructor(schema: Schema, assertFormats: boolean) {
    this.#schema = schema
    this.#assertFormats = assertFormats
  }

  check(contentType: string, payload: Uint8Array): void {
    if (contentType !== CONTENT_TYPE)
      throw new Rejection('schema-invalid', `The content type is not ${CONTENT_TYPE}.`)
    this.checkJson(readJson(payload))
  }

  /** The same for what has been read. */
  checkJson(json: JsonText): void {
    const broken = json.longNumbers.length === 0 ? this.#firstError(json) : this.#firstErrorExactly(json)
    // The place in the schema, not in the payload, whose names may be personal data.
    if (broken !== undefined)
      throw new Rejection('schema-invalid', `The payload does not fit the schema at ${broken.schemaPath}.`)
  }

  #firstError(json: JsonText): BrokenRule | undefined {
    this.#validate ??= plainAjv(this.#assertFormats).compile(withoutNames(this.#schema))
    return firstError(this.#validate, json.value)
  }

  #firstErrorExactly(json: JsonText): BrokenRule | undefined {
    this.#validateExactly ??= exactValidator(this.#schema, this.#assertFormats)
    return this.#validateExactly(json)
  }
}

/**
 * Undefined where the value fits. A validator that throws, on this payload it always will: to take that for an outage
 * would hold up everything behind it.
 */
function firstError(validate: ValidateFunction, value: JsonValue): BrokenRule | undefined {
  try {
    return validate(value) ? undefined : (validate.errors?.[0] ?? { schemaPath: '#' })
  } catch (error) {
    throw new Rejection('schema-invalid', 'The schema cannot be applied to this payload.', { cause: error })
  }
}

/** Why Ajv does not take a schema, in its words; undefined where it does. */
export function compileFault(schema: Schema, assertFormats: boolean): string | undefined {
  try {
    ajvFor(assertFormats).compile(withoutNames(schema))
    return undefined
  } catch (error) {
    return error instanceof Error ? error.message : String(error)
  }
}

/** What the JSON Schema of JSON Schemas finds wrong with a schema: its keywords' types and values. */
export function keywordErrors(schema: Schema): readonly ErrorObject[] {
  metaAjv ??= new Ajv2020({ ...OPTIONS, allErrors: true, messages: true })
  return metaAjv.validate('https://json-schema.org/draft/2020-12/schema', schema)
    ? []
    : (metaAjv.errors ?? [])
}

let metaAjv: Ajv2020 | undefined

/** Does the pattern match somewhere in the text, by RE2? Not if RE2 cannot do it, which is a contract's fault. */
export function matches(pattern: string, text: string): boolean {
  return patternFault(pattern) === undefined && linear(pattern).test(text)
}

/** Why RE2 does not take a pattern, in its words; undefined where it does. */
export function patternFault(pattern: string): string | undefined {
  try {
    linear(pattern)
    return undefined
  } catch (error) {
    return error instanceof Error ? error.message : String(error)
  }
}

/** `$schema` and `$id` of the whole say nothing here, and an `$id` would have to be unique among all contracts. */
function withoutNames(schema: Schema): Schema {
  if (typeof schema === 'boolean') return schema
  return Object.fromEntries(Object.entries(schema).filter(([name]) => name !== '$schema' && name !== '$id'))
}

/** ECMAScript's spelling in RE2's; RE2 answers in linear time, and has no look-around and no back-references. */
const linear = (pattern: string): RE2JS => RE2JS.compile(RE2JS.translateRegExp(pattern))

const OPTIONS: Options = {
  strict: true,
  strictTypes: false,
  strictTuples: false,
  strictRequired: false,
  allowUnionTypes: true,
  allowMatchingProperties: true,
  ownProperties: true,
  validateSchema: false,
  messages: false,
  logger: false,
  code: { regExp: Object.assign((pattern: string) => linear(pattern), { code: 'linear' }) },
}

/** Formats of strings that a contract may assert. The others of ajv-formats check nothing, or check doubles. */
const FORMATS = [
  'date',
  'time',
  'date-time',
  'iso-time',
  'iso-date-time',
  'duration',
  'uri',
  'uri-reference',
  'uri-template',
  'email',
  'hostname',
  'ipv4',
  'ipv6',
  'uuid',
  'json-pointer',
  'relative-json-pointer',
] as const

/** Their regular expressions backtrack: a longer text has no format. */
const MAX_FORMATTED = 1024

function ajvFor(assertFormats: boolean): Ajv2020 {
  const ajv = new Ajv2020({ ...OPTIONS, meta: false, validateFormats: assertFormats })
  ajv.addKeyword({ keyword: 'x-classification', schemaType: 'string' })
  // The built-in ones divide doubles, and compare each item with each other.
  redefine(ajv, 'multipleOf', (step, value) => isMultiple(decimalOf(value), step))
  ajv.removeKeyword('uniqueItems')
  ajv.addKeyword({
    keyword: 'uniqueItems',
    type: 'array',
    schemaType: 'boolean',
    errors: false,
    validate: areUnique,
  })
  if (assertFormats) {
    const formats = new Ajv2020({ ...OPTIONS, meta: false, formats: fullFormats })
    for (const name of FORMATS) {
      const fits = formats.compile<string>({ format: name })
      ajv.addFormat(name, { validate: (text: string) => text.length <= MAX_FORMATTED && fits(text) })
    }
  }
  return ajv
}

function redefine(ajv: Ajv2020, keyword: string, validate: (limit: number, value: number) => boolean): void {
  ajv.removeKeyword(keyword)
  ajv.addKeyword({ keyword, type: 'number', schemaType: 'number', errors: false, validate })
}

const areUnique = (unique: boolean, items: readonly JsonValue[]): boolean =>
  !unique || new Set(items.map(canonical)).size === items.length

const isMultiple = (value: Decimal | undefined, step: number): boolean => {
  const decimal = decimalOf(step)
  return value !== undefined && decimal !== undefined && isMultipleOf(value, decimal)
}

/** Equal for equal values, whatever the order of their names. */
function canonical(value: JsonValue): string {
  if (isArray(value)) return `[${value.map(canonical).join()}]`
  if (!isObject(value)) return JSON.stringify(value)
  const names = Object.keys(value).sort()
  return `{${names.map((name) => `${JSON.stringify(name)}:${canonical(member(value, name) ?? null)}`).join()}}`
}

const plain: { asserted?: Ajv2020; annotated?: Ajv2020 } = {}

function plainAjv(assertFormats: boolean): Ajv2020 {
  if (assertFormats) return (plain.asserted ??= ajvFor(true))
  return (plain.annotated ??= ajvFor(false))
}

// Payloads with numbers that a double does not hold, which are rare, are judged by their text. Ajv sees a stand-in for
// each such number: one double per number, of its kind (whole or not), that no shorter number has. So `type`, `const`,
// `enum` and `uniqueItems` answer rightly, and the bounds ask for the number that it stands for.

const BOUNDS: Readonly<Record<string, (order: number) => boolean>> = {
  minimum: (order) => order >= 0,
  maximum: (order) => order <= 0,
  exclusiveMinimum: (order) => order > 0,
  exclusiveMaximum: (order) => order < 0,
}

/** Stand-ins: whole numbers from 2^1023 up, others from the smallest double up. No faithful number is as large or small. */
const WHOLE = 2 ** 1023
const WHOLE_STEP = 2 ** 971

function exactValidator(schema: Schema, assertFormats: boolean): (json: JsonText) => BrokenRule | undefined {
  let standIns: ReadonlyMap<number, Decimal> = new Map()
  const exact = (value: number): Decimal | undefined => standIns.get(value) ?? decimalOf(value)
  const ajv = ajvFor(assertFormats)
  for (const [keyword, holds] of Object.entries(BOUNDS)) {
    redefine(ajv, keyword, (bound, value) => {
      const [number, limit] = [exact(value), decimalOf(bound)]
      return number !== undefined && limit !== undefined && holds(compare(number, limit))
    })
  }
  redefine(ajv, 'multipleOf', (step, value) => isMultiple(exact(value), step))
  const validate = ajv.compile(withoutNames(schema))
  return (json) => {
    const stand = standInsOf(json)
    standIns = stand.numbers
    return firstError(validate, stand.value)
  }
}

function standInsOf(json: JsonText): { value: JsonValue; numbers: ReadonlyMap<number, Decimal> } {
  const numbers = new Map<number, Decimal>()
  const byKey = new Map<string, number>()
  let text = ''
  let done = 0
  for (const { start, end } of json.longNumbers) {
    const decimal = parseDecimal(json.text.slice(start, end))
    if (decimal === undefined)
      throw new Rejection('schema-invalid', 'A number has an exponent of over a thousand digits.')
    const key = decimalKey(decimal)
    const double = Number(json.text.slice(start, end))
    const meant = Math.abs(double) > 1e-290 && Math.abs(double) < WHOLE ? decimalOf(double) : undefined
    if (meant !== undefined && decimalKey(meant) === key) continue
    const place = numbers.size + 1
    const standIn =
      byKey.get(key) ?? (isInteger(decimal) ? WHOLE + place * WHOLE_STEP : place * Number.MIN_VALUE)
    byKey.set(key, standIn)
    numbers.set(standIn, decimal)
    text += json.text.slice(done, start) + String(standIn)
    done = end
  }
  return { value: JSON.parse(text + json.text.slice(done)) as JsonValue, numbers }
}
