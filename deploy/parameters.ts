/** Parameters in YAML, read strictly: what is wrong is gathered, each fault with its line. */
import { readFileSync } from 'node:fs'
import { type Document, isMap, isNode, LineCounter, parseDocument } from 'yaml'
import { ConfigError, type Fault } from '../lib/errors.ts'

/** `cluster.arn`; or its names, where one of them may have a dot. */
export type Path = string | readonly string[]

export class ParameterReader {
  readonly faults: Fault[] = []
  readonly #where: string
  readonly #lines = new LineCounter()
  readonly #document: Document

  constructor(text: string, where: string) {
    this.#where = where
    this.#document = parseDocument(text, { lineCounter: this.#lines, strict: true })
    for (const { message, pos } of this.#document.errors)
      this.#push({
        where,
        line: this.#lines.linePos(pos[0]).line,
        what: firstLine(message),
        fix: 'Correct it.',
      })
    if (this.faults.length === 0 && !isMap(this.#document.contents))
      this.#push({ where, what: 'It is no map of parameters.', fix: 'See deploy/stages/example.yml.' })
    if (this.faults.length > 0) throw new ConfigError(this.faults)
  }

  fault(path: Path, what: string, fix: string): void {
    const line = this.#lineOf(path)
    const name = keysOf(path).join('.')
    const where = name === '' ? this.#where : `${this.#where}: ${name}`
    this.#push(line === undefined ? { where, what, fix } : { where, line, what, fix })
  }

  has(path: Path): boolean {
    return this.#value(path) !== undefined
  }

  /** Nothing else may stand there. */
  known(path: Path, names: readonly string[]): void {
    const value = this.#value(path)
    if (value === undefined) return
    if (!isObject(value)) {
      this.fault(path, 'It is no map.', `Known are ${names.join(', ')}.`)
      return
    }
    for (const name of Object.keys(value))
      if (!names.includes(name)) {
        const what = 'No parameter has this name.'
        this.fault([...keysOf(path), name], what, `Known are ${names.join(', ')}.`)
      }
  }

  optional(path: Path, pattern: RegExp, fix: string): string | undefined {
    return this.has(path) ? this.text(path, pattern, fix) : undefined
  }

  text(path: Path, pattern: RegExp, fix: string): string {
    const value = this.#value(path)
    if (typeof value === 'string' && pattern.test(value)) return value
    this.fault(path, value === undefined ? 'It is not set.' : 'It is not of that form.', fix)
    return ''
  }

  /** Undefined, and a fault where something stands there. */
  none(path: Path, fix: string): string | undefined {
    if (this.has(path)) this.fault(path, 'It does not go with the rest.', fix)
    return undefined
  }

  integer(path: Path, usual: number, least: number, greatest: number): number {
    const value = this.#value(path) ?? usual
    if (typeof value === 'number' && Number.isInteger(value) && value >= least && value <= greatest)
      return value
    this.fault(path, 'It is not such a number.', `Set a whole number from ${least} to ${greatest}.`)
    return usual
  }

  choice<const T extends string>(path: Path, choices: readonly T[], usual?: T): T {
    const value = this.#value(path) ?? usual
    const chosen = choices.find((one) => one === (typeof value === 'boolean' ? String(value) : value))
    if (chosen !== undefined) return chosen
    const what = value === undefined ? 'It is not set.' : 'It is none of the choices.'
    this.fault(path, what, `Set ${choices.join(' or ')}.`)
    return usual ?? choices[0] ?? never()
  }

  /** A list of some of them; empty where nothing stands there. */
  choices<const T extends string>(path: Path, choices: readonly T[]): readonly T[] {
    if (!this.has(path)) return []
    const texts = this.list(
      path,
      new RegExp(`^(${choices.join('|')})$`),
      `List some of ${choices.join(', ')}.`,
      1,
    )
    return choices.filter((one) => texts.includes(one))
  }

  list(path: Path, pattern: RegExp, fix: string, least: number): readonly string[] {
    const value = this.#value(path)
    const list: readonly unknown[] = Array.isArray(value) ? value : []
    const texts = list.filter((one) => typeof one === 'string').filter((one) => pattern.test(one))
    if (texts.length !== list.length || texts.length < least)
      this.fault(path, `It is no list of ${least} or more of that form.`, fix)
    if (new Set(texts).size < texts.length) this.fault(path, 'One stands there twice.', 'Take it out.')
    return texts
  }

  map(
    path: Path,
    name: RegExp,
    value: RegExp,
    fix: string,
    needed?: 'needed',
  ): Readonly<Record<string, string>> {
    const found = this.#value(path)
    if (found === undefined && needed === undefined) return {}
    const entries = isObject(found) ? Object.entries(found) : []
    const good = entries.flatMap(([key, to]) =>
      name.test(key) && typeof to === 'string' && value.test(to) ? [[key, to] as const] : [],
    )
    if (!isObject(found) || good.length !== entries.length || (needed && good.length === 0))
      this.fault(path, 'It is no such map.', fix)
    return Object.fromEntries(good)
  }

  /** The names of a map of maps, each with these fields and no others. */
  names(path: Path, name: RegExp, fields: readonly string[]): readonly string[] {
    const found = this.#value(path)
    const names = isObject(found) ? Object.keys(found) : []
    if (!isObject(found) || !names.every((one) => name.test(one)))
      this.fault(path, 'It is no map of names.', 'Set name: { … } for each, or {}.')
    for (const one of names) this.known([...keysOf(path), one], fields)
    return names.filter((one) => name.test(one))
  }

  /** What `use` makes of a file that a parameter names; its own faults are gathered too. */
  file<T>(path: Path, file: string, use: (text: string) => T): T | undefined {
    try {
      return use(readFileSync(file, 'utf8'))
    } catch (error) {
      if (error instanceof ConfigError) this.faults.push(...error.faults)
      else this.fault(path, `${file} cannot be read.`, 'Name a file that can.')
      return undefined
    }
  }

  #push(fault: Fault): void {
    this.faults.push(fault)
  }

  #value(path: Path): unknown {
    const value: unknown = this.#document.getIn(keysOf(path), true)
    return isNode(value) ? value.toJS(this.#document) : (value ?? undefined)
  }

  #lineOf(path: Path): number | undefined {
    for (let keys = keysOf(path); keys.length > 0; keys = keys.slice(0, -1)) {
      const node = this.#document.getIn(keys, true)
      if (isNode(node) && node.range) return this.#lines.linePos(node.range[0]).line
    }
    return undefined
  }
}

const keysOf = (path: Path): readonly string[] =>
  typeof path === 'string' ? path.split('.').filter((name) => name !== '') : path

const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)

const firstLine = (text: string): string => text.split('\n', 1)[0] ?? ''

function never(): never {
  throw new TypeError('a choice of nothing')
}
