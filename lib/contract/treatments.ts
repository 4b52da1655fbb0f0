/**
 * Treatments (contracts.md): what a consumer gets of each field. They work on the source text, so that what is not
 * treated keeps it byte for byte, and drop what they do not fit: nothing passes because it was not understood.
 */
import { Rejection } from '../errors.ts'
import type { PseudonymKeys } from './contract.ts'
import { isInteger, parseDecimal, roundToMultiple, type Decimal } from './decimal.ts'
import { MAX_DEPTH, endOfString, endOfValue, skipBlank } from './json.ts'
import type { JsonType } from './shape.ts'

export type Treatment =
  | { readonly kind: 'pass' | 'drop' }
  | { readonly kind: 'mask'; readonly show: number }
  | { readonly kind: 'keep'; readonly characters: number }
  | { readonly kind: 'round'; readonly step: Decimal }
  | { readonly kind: 'date'; readonly unit: DateUnit }
  | { readonly kind: 'pseudonym'; readonly domain: string }

export type DateUnit = 'year' | 'month' | 'day'

/** What happens at one place of the payload and below it. The items of an array are the member `*`. */
export interface Plan {
  /** Where absent, what covers the place from above. */
  readonly own: Treatment | undefined
  readonly members: ReadonlyMap<string, Plan>
}

export const DROP: Treatment = { kind: 'drop' }

/** A plan of treatments by the tokens of their pointers. */
export function planOf(treatments: readonly (readonly [readonly string[], Treatment])[]): Plan {
  interface Growing {
    own: Treatment | undefined
    members: Map<string, Growing>
  }
  const root: Growing = { own: undefined, members: new Map() }
  for (const [tokens, treatment] of treatments) {
    let place = root
    for (const token of tokens) {
      const next = place.members.get(token) ?? { own: undefined, members: new Map<string, Growing>() }
      place.members.set(token, next)
      place = next
    }
    place.own = treatment
  }
  return root
}

/** What is done at a place that `plan` is for, where `above` covers it if the plan says nothing. */
export function treatmentAt(plan: Plan | undefined, above: Treatment): Treatment {
  return plan?.own ?? above
}

/** Does the consumer see anything of this place? Where not, it is absent. */
export function shows(plan: Plan | undefined, above: Treatment): boolean {
  const here = treatmentAt(plan, above)
  if (here.kind !== 'drop') return true
  for (const member of plan?.members.values() ?? []) if (shows(member, here)) return true
  return false
}

/** Does everything from here down pass? */
export function passesAll(plan: Plan | undefined, above: Treatment): boolean {
  const here = treatmentAt(plan, above)
  if (here.kind !== 'pass') return false
  for (const member of plan?.members.values() ?? []) if (!passesAll(member, here)) return false
  return true
}

/** The type of what a treatment makes of a value of this type; undefined where it does not fit and drops it. */
export function typeAfter(treatment: Treatment, type: JsonType): JsonType | undefined {
  // An object or array is treated member by member, and a null tells no more than a field that is not there.
  if (type === 'object' || type === 'array' || type === 'null') return type
  const isNumber = type === 'number' || type === 'integer'
  switch (treatment.kind) {
    case 'pass':
      return type
    case 'drop':
      return undefined
    case 'mask':
    case 'keep':
    case 'date':
      return type === 'string' ? 'string' : undefined
    case 'round':
      return isNumber ? (isInteger(treatment.step) ? 'integer' : 'number') : undefined
    case 'pseudonym':
      return type === 'string' || type === 'integer' ? 'string' : undefined
  }
}

/**
 * Carries out a plan on a text that is JSON. Undefined where nothing was changed: the text as it is.
 * What is left of a text of which nothing shows is `{}`.
 */
export function applyPlan(plan: Plan, text: string, keys: PseudonymKeys): string | undefined {
  const run = new Run(text, keys)
  const result = run.value(plan, DROP)
  return run.changes > 0 ? (result ?? '{}') : undefined
}

/** One walk through one text, from `at` on. */
class Run {
  changes = 0
  readonly #text: string
  readonly #keys: PseudonymKeys
  #at: number
  #depth = 0

  constructor(text: string, keys: PseudonymKeys) {
    this.#text = text
    this.#keys = keys
    this.#at = skipBlank(text, 0)
  }

  /** Treats the value here and moves past it. Undefined where nothing is left of it. */
  value(plan: Plan | undefined, above: Treatment): string | undefined {
    const here = treatmentAt(plan, above)
    const isLeaf = plan === undefined || plan.members.size === 0
    if (isLeaf && here.kind === 'pass') return this.#source()
    if (isLeaf ? here.kind === 'drop' : !shows(plan, above)) {
      this.#source()
      this.changes++
      return undefined
    }
    const first = this.#unit()
    if (first === '{' || first === '[') return this.#container(first, plan, here)
    const literal = this.#source()
    const result = treatScalar(here, literal, this.#keys)
    if (result !== literal) this.changes++
    return result
  }

  #source(): string {
    const start = this.#at
    this.#at = endOfValue(this.#text, start)
    return this.#text.slice(start, this.#at)
  }

  #container(first: '{' | '[', plan: Plan | undefined, here: Treatment): string {
    if (++this.#depth > MAX_DEPTH) throw new Rejection('schema-invalid', 'The payload is nested too deep.')
    const start = this.#at
    const last = first === '{' ? '}' : ']'
    const before = this.changes
    const parts: string[] = []
    this.#next(1)
    while (this.#unit() !== last) {
      const name = first === '{' ? this.#name() : undefined
      const treated = this.value(plan?.members.get(name === undefined ? '*' : name.text), here)
      if (treated !== undefined) parts.push(name === undefined ? treated : `${name.literal}:${treated}`)
      this.#next(0)
      if (this.#text[this.#at] === ',') this.#next(1)
      else if (this.#text[this.#at] !== last)
        throw new Rejection('schema-invalid', 'The payload is not JSON.')
    }
    this.#at++
    this.#depth--
    return this.changes > before ? `${first}${parts.join(',')}${last}` : this.#text.slice(start, this.#at)
  }

  /** The name of a member, and the colon after it. */
  #name(): { literal: string; text: string } {
    const literal = this.#text.slice(this.#at, endOfString(this.#text, this.#at))
    this.#next(literal.length)
    this.#next(1)
    return { literal, text: stringOf(literal) }
  }

  #unit(): string | undefined {
    return this.#text[this.#at]
  }

  #next(units: number): void {
    this.#at = skipBlank(this.#text, this.#at + units)
  }
}

const stringOf = (literal: string): string =>
  literal.includes('\\') ? String(JSON.parse(literal)) : literal.slice(1, -1)

const NUMBER_START = /^[-\d]/

function treatScalar(treatment: Treatment, literal: string, keys: PseudonymKeys): string | undefined {
  if (treatment.kind === 'pass' || literal === 'null') return literal
  if (literal.startsWith('"')) {
    const text = stringOf(literal)
    const result = treatString(treatment, text, keys)
    return result === undefined ? undefined : result === text ? literal : JSON.stringify(result)
  }
  const number = NUMBER_START.test(literal) ? parseDecimal(literal) : undefined
  if (number === undefined) return undefined
  if (treatment.kind === 'round') return roundToMultiple(number, treatment.step)
  if (treatment.kind !== 'pseudonym' || !isInteger(number)) return undefined
  const whole = roundToMultiple(number, ONE)
  return whole === undefined ? undefined : JSON.stringify(keys.pseudonym(treatment.domain, whole))
}

const ONE: Decimal = { negative: false, digits: '1', exponent: 1n }

function treatString(treatment: Treatment, text: string, keys: PseudonymKeys): string | undefined {
  switch (treatment.kind) {
    case 'mask':
      return MASK + lastCharacters(text, treatment.show)
    case 'keep':
      return firstCharacters(text, treatment.characters)
    case 'date':
      return generalDate(text, treatment.unit)
    case 'pseudonym':
      return keys.pseudonym(treatment.domain, text)
    case 'pass':
      return text
    case 'drop':
    case 'round':
      return undefined
  }
}

/** Always four, so that the mask does not tell the length. */
const MASK = '••••'

/** Nothing of a text that has no more characters than are to be shown: all of it would be. */
function lastCharacters(text: string, count: number): string {
  let start = text.length
  for (let shown = 0; shown < count; shown++) {
    if (start === 0) return ''
    start -= start > 1 && (text.codePointAt(start - 2) ?? 0) > 0xffff ? 2 : 1
  }
  return start === 0 ? '' : text.slice(start)
}

function firstCharacters(text: string, count: number): string {
  let end = 0
  for (let kept = 0; kept < count && end < text.length; kept++)
    end += (text.codePointAt(end) ?? 0) > 0xffff ? 2 : 1
  return text.slice(0, end)
}

const DATE = /^\d{4}([-/])(?:0[1-9]|1[0-2])\1(?:0[1-9]|[12]\d|3[01])(?:[Tt ]|$)/
const DATE_LENGTH: Readonly<Record<DateUnit, number>> = { year: 4, month: 7, day: 10 }

/** By what the text says: 2026-03-01T00:30+02:00 is of March, whatever it is elsewhere. */
function generalDate(text: string, unit: DateUnit): string | undefined {
  return DATE.test(text) ? text.slice(0, DATE_LENGTH[unit]) : undefined
}

/** The source text of the scalar that a pointer leads to, by names only; undefined where there is none. */
export function literalAt(text: string, tokens: readonly string[]): string | undefined {
  let at = skipBlank(text, 0)
  for (const token of tokens) {
    const next = memberStart(text, at, token)
    if (next === undefined) return undefined
    at = next
  }
  const first = text[at]
  return first === '{' || first === '[' ? undefined : text.slice(at, endOfValue(text, at))
}

function memberStart(text: string, object: number, name: string): number | undefined {
  if (text[object] !== '{') return undefined
  let at = skipBlank(text, object + 1)
  while (text[at] === '"') {
    const end = endOfString(text, at)
    const start = skipBlank(text, skipBlank(text, end) + 1)
    if (stringOf(text.slice(at, end)) === name) return start
    at = skipBlank(text, endOfValue(text, start))
    if (text[at] === ',') at = skipBlank(text, at + 1)
  }
  return undefined
}
