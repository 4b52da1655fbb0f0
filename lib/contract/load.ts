/** Contract files, read and checked: every fault of all of them at once, with file and line. */
import {
  LineCounter,
  isMap,
  isNode,
  isPair,
  isScalar,
  parseDocument,
  visit,
  type Document,
  type Node,
} from 'yaml'
import { ConfigError, type Fault } from '../errors.ts'
import { buildBundle, loadBundle } from './bundle.ts'
import { checkContract } from './check.ts'
import { checkTogether, type Placed } from './check-together.ts'
import { readContractFile, type ContractFile, type Finding } from './contract-file.ts'
import type { Contracts } from './contract.ts'
import { decimalKey, decimalOf, parseDecimal } from './decimal.ts'
import type { JsonValue } from './json.ts'

/** A contract file's name, for messages, and its text. */
export interface ContractSource {
  readonly file: string
  readonly text: string
}

export interface Checked {
  /** Those without a fault of their own shape. */
  readonly files: readonly ContractFile[]
  readonly faults: readonly Fault[]
  /** What is allowed but may not be meant. */
  readonly warnings: readonly Fault[]
}

/** Longer files are not written by people. */
const MAX_TEXT = 1_048_576

/** Checks contract files, each by itself and beside one another. */
export function checkContracts(sources: readonly ContractSource[]): Checked {
  const found: { fault: Fault; warning: boolean }[] = []
  const placed: Placed<Read>[] = []
  const report = (read: Read, finding: Finding): void => {
    found.push({
      fault: {
        where: read.source.file,
        line: read.lineOf(finding.path),
        what: finding.what,
        fix: finding.fix,
      },
      warning: finding.warning === true,
    })
  }
  for (const source of sources) {
    const read = readYaml(source)
    for (const fault of read.faults) found.push({ fault, warning: false })
    if (read.value === undefined || read.faults.length > 0) continue
    const contract = readContractFile(read.value)
    if ('file' in contract) placed.push({ file: contract.file, where: read })
    const findings = 'file' in contract ? checkContract(contract.file) : contract.findings
    for (const finding of findings) report(read, finding)
    if ('file' in contract || contract.rest === undefined) continue
    for (const finding of checkContract(contract.rest)) if (finding.warning !== true) report(read, finding)
  }
  for (const { where, finding } of checkTogether(placed, (read) => read.source.file)) report(where, finding)
  const inOrder = found.sort((a, b) =>
    a.fault.where === b.fault.where
      ? (a.fault.line ?? 0) - (b.fault.line ?? 0)
      : a.fault.where < b.fault.where
        ? -1
        : 1,
  )
  return {
    files: placed.map(({ file }) => file),
    faults: inOrder.filter(({ warning }) => !warning).map(({ fault }) => fault),
    warnings: inOrder.filter(({ warning }) => warning).map(({ fault }) => fault),
  }
}

/**
 * Contract files, ready for use.
 * @throws ConfigError with every fault, if there is one
 */
export function loadContracts(sources: readonly ContractSource[]): Contracts {
  const { files, faults } = checkContracts(sources)
  if (faults.length > 0) throw new ConfigError(faults)
  return loadBundle(buildBundle(files))
}

interface Read {
  readonly source: ContractSource
  readonly value: JsonValue | undefined
  readonly faults: readonly Fault[]
  /** The line, from 1, of what a path leads to, or of the nearest thing above it that is there. */
  readonly lineOf: (path: readonly string[]) => number
}

function readYaml(source: ContractSource): Read {
  const faults: Fault[] = []
  const lines = new LineCounter()
  const add = (offset: number, what: string, fix: string): void => {
    faults.push({ where: source.file, line: lines.linePos(offset).line, what, fix })
  }
  const nothing: Read = { source, value: undefined, faults, lineOf: () => 1 }
  if (source.text.length > MAX_TEXT) {
    faults.push({
      where: source.file,
      what: 'The file is longer than a mebibyte.',
      fix: 'Split it: one contract to a file.',
    })
    return nothing
  }
  try {
    const document = parseDocument(source.text, {
      lineCounter: lines,
      version: '1.2',
      schema: 'core',
      prettyErrors: false,
      stringKeys: true,
    })
    for (const problem of [...document.errors, ...document.warnings])
      add(problem.pos[0], yamlProblem(problem.message), 'Correct the YAML.')
    checkScalars(document, add)
    if (faults.length > 0) return nothing
    // Through JSON: what YAML shares between places becomes a copy for each.
    const value = JSON.parse(JSON.stringify(document.toJS({ maxAliasCount: 100 }) ?? null)) as JsonValue
    return { source, value, faults, lineOf: (path) => lines.linePos(offsetOf(document, path)).line }
  } catch (error) {
    const tooDeep = error instanceof RangeError
    faults.push({
      where: source.file,
      what: tooDeep
        ? 'The file is nested too deep.'
        : 'The file repeats itself by aliases too often, or without end.',
      fix: tooDeep ? 'Use $defs and $ref.' : 'Write it out, or use $defs and $ref.',
    })
    return nothing
  }
}

const yamlProblem = (message: string): string => `The YAML is not sound: ${message.replace(/\.$/, '')}.`

/** What YAML allows and JSON, or a double, does not. */
function checkScalars(document: Document, add: (offset: number, what: string, fix: string) => void): void {
  visit(document, {
    Scalar(_, node) {
      const offset = node.range?.[0] ?? 0
      if (node.value === '__proto__') add(offset, 'Nothing may be called __proto__.', 'Give it another name.')
      if (typeof node.value !== 'number') return
      const written = parseDecimal(node.source ?? '')
      const held = decimalOf(node.value)
      if (held === undefined)
        add(offset, `${node.source ?? 'This'} is not a number of JSON.`, 'Write a finite number.')
      else if (written !== undefined && decimalKey(written) !== decimalKey(held))
        add(
          offset,
          `${node.source ?? 'This number'} has more digits than can be held exactly.`,
          'Write at most 15 digits, or a whole number that a double holds, such as 9223372036854775808.',
        )
    },
  })
}

/** Where in the text the key that a path ends in stands, or else its value. */
function offsetOf(document: Document, path: readonly string[]): number {
  let place: unknown = document.contents
  let offset = startOf(document.contents)
  for (const name of path) {
    const pair: unknown = isMap(place)
      ? place.items.find((item) => isScalar(item.key) && String(item.key.value) === name)
      : undefined
    if (isPair(pair)) {
      offset = startOf(pair.key, offset)
      place = pair.value
    } else {
      const item: unknown =
        isNode(place) && 'items' in place && Array.isArray(place.items)
          ? place.items[Number(name)]
          : undefined
      if (item === undefined) return offset
      offset = startOf(item, offset)
      place = item
    }
  }
  return offset
}

function startOf(node: unknown, otherwise = 0): number {
  return isNode(node) ? (rangeStart(node) ?? otherwise) : otherwise
}

const rangeStart = (node: Node): number | undefined => node.range?.[0]
