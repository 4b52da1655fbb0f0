/**
 * Options of the library's own calls: an unknown name or a wrong value is a `TypeError` that names all of them at once
 * (threats.md 26: an option that is accepted and dropped is a hole nobody sees).
 */

/** What is wrong with a value, as the end of a sentence that starts with its name; undefined where nothing is. */
export type Rule = (value: unknown) => string | undefined

/** Throws `TypeError` unless `given` is an object with no names but those of `rules`, and every rule is content. */
export function checkOptions(call: string, given: unknown, rules: Readonly<Record<string, Rule>>): void {
  if (!isObject(given)) throw new TypeError(`${call}: give an object of options`)
  const unknown = Object.keys(given).filter((name) => !Object.hasOwn(rules, name))
  const known = Object.keys(rules).join(', ')
  const faults = unknown.map((name) => `${name}: unknown option; there are ${known}`)
  for (const [name, rule] of Object.entries(rules)) {
    const fault = rule(given[name])
    if (fault !== undefined) faults.push(`${name} ${fault}`)
  }
  if (faults.length > 0) throw new TypeError(`${call}:\n${faults.join('\n')}`)
}

export function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null
}

export const optional =
  (rule: Rule): Rule =>
  (value) =>
    value === undefined ? undefined : rule(value)

/** Text of 1 to `maxBytes` bytes of UTF-8. */
export const text =
  (maxBytes: number): Rule =>
  (value) =>
    isText(value, maxBytes) ? undefined : `must be text of 1 to ${maxBytes} bytes`

export function isText(value: unknown, maxBytes: number): value is string {
  if (typeof value !== 'string' || value === '' || value.length > maxBytes) return false
  return value.isWellFormed() && Buffer.byteLength(value) <= maxBytes
}

const DATE_TIME =
  /^\d{4}-(0[1-9]|1[0-2])-(0[1-9]|[12]\d|3[01])[Tt]([01]\d|2[0-3]):[0-5]\d:([0-5]\d|60)(\.\d{1,30})?([Zz]|[+-]([01]\d|2[0-3]):[0-5]\d)$/

/** Whether a text is an RFC 3339 `date-time` (§5.6), a leap second at any minute's end among them. */
export function isDateTime(value: string): boolean {
  if (!DATE_TIME.test(value)) return false
  const [year = 0, month = 0, day = 0] = value.slice(0, 10).split('-').map(Number)
  const leap = year % 4 === 0 && (year % 100 !== 0 || year % 400 === 0)
  return day <= (month === 2 ? (leap ? 29 : 28) : [4, 6, 9, 11].includes(month) ? 30 : 31)
}

export const wholeNumber =
  (min: number, max: number): Rule =>
  (value) =>
    typeof value === 'number' && Number.isInteger(value) && value >= min && value <= max
      ? undefined
      : `must be a whole number from ${min} to ${max}`

export const aFunction: Rule = (value) => (typeof value === 'function' ? undefined : 'must be a function')

/** An object with these methods. */
export const objectWith =
  (...methods: string[]): Rule =>
  (value) =>
    isObject(value) && methods.every((method) => typeof value[method] === 'function')
      ? undefined
      : `must be an object with ${methods.map((method) => `${method}()`).join(' and ')}`
