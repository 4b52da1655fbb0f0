/** What is wrong with a payload schema: found when contracts are checked, so that nothing of it is found later. */
import type { Finding } from './contract-file.ts'
import { isArray, isObject, member, type JsonObject, type JsonValue } from './json.ts'
import { compileFault, keywordErrors, patternFault } from './schema.ts'
import { isSchema, resolveRef, subschemasOf, tokensOf, type Schema } from './shape.ts'

const DIALECT = /^https:\/\/json-schema\.org\/draft\/2020-12\/schema#?$/
const NAMES_OF_PARTS = [
  '$id',
  '$anchor',
  '$dynamicAnchor',
  '$dynamicRef',
  '$recursiveRef',
  '$recursiveAnchor',
]

/** Paths are from the schema's own root. */
export function checkSchema(root: Schema, assertFormats: boolean): Finding[] {
  const misused = keywordErrors(root).filter((error) => error.keyword !== 'anyOf' && error.keyword !== 'if')
  const places = new Map<string, string>()
  for (const { instancePath, message = 'is wrong', params } of misused) {
    const allowed: unknown = params['allowedValues']
    const rule = Array.isArray(allowed) ? `${message}: ${allowed.join(', ')}` : message
    if (!places.has(instancePath)) places.set(instancePath, rule)
  }
  if (places.size > 0) {
    return [...places].map(([place, rule]) => ({
      path: tokensOf(place) ?? [],
      what: `JSON Schema 2020-12 does not allow this: it ${rule}.`,
      fix: 'Correct the keyword.',
    }))
  }
  const findings = [...partsOf(root)].flatMap(({ path, schema }) => checkPart(root, path, schema))
  if (findings.length > 0) return findings
  const open = [...partsOf(root)].find(({ schema }) => member(schema, 'unevaluatedProperties') !== undefined)
  if (
    open !== undefined &&
    [...partsOf(root)].some(({ schema }) => member(schema, 'patternProperties') !== undefined)
  )
    // Ajv 8.20 makes validators of the two together that throw on some payloads.
    return [
      {
        path: [...open.path, 'unevaluatedProperties'],
        what: 'unevaluatedProperties and patternProperties are not supported together.',
        fix: 'Use additionalProperties.',
      },
    ]
  const circle = circleOf(root)
  if (circle !== undefined)
    return [
      {
        path: circle,
        what: 'This schema refers to itself for the very same value.',
        fix: 'Break the circle of $ref.',
      },
    ]
  const fault = compileFault(root, assertFormats)
  return fault === undefined
    ? []
    : [
        {
          path: [],
          what: `The schema does not compile: ${fault}.`,
          fix: 'Correct it, or take the keyword out.',
        },
      ]
}

interface Part {
  readonly path: readonly string[]
  readonly schema: JsonObject
}

function* partsOf(schema: Schema, path: readonly string[] = []): Generator<Part> {
  if (typeof schema === 'boolean') return
  yield { path, schema }
  for (const part of subschemasOf(schema)) yield* partsOf(part.schema, [...path, ...part.path])
}

function checkPart(root: Schema, path: readonly string[], schema: JsonObject): Finding[] {
  const findings: Finding[] = []
  const add = (more: readonly string[], what: string, fix: string): void => {
    findings.push({ path: [...path, ...more], what, fix })
  }
  const dialect = member(schema, '$schema')
  if (dialect !== undefined && !(typeof dialect === 'string' && DIALECT.test(dialect)))
    add(
      ['$schema'],
      'Schemas are read as JSON Schema 2020-12 only.',
      'Write https://json-schema.org/draft/2020-12/schema, or leave it out.',
    )
  for (const keyword of NAMES_OF_PARTS) {
    if (member(schema, keyword) !== undefined && !(keyword === '$id' && path.length === 0))
      add(
        [keyword],
        `${keyword} is not supported inside a contract.`,
        'Refer to parts by $ref: "#/$defs/NAME".',
      )
  }
  const ref = member(schema, '$ref')
  if (typeof ref === 'string' && resolveRef(root, ref) === undefined) {
    if (ref.startsWith('#'))
      add(
        ['$ref'],
        `There is no schema at ${ref}.`,
        'Point to one of this schema, such as "#/$defs/address".',
      )
    else
      add(
        ['$ref'],
        'A $ref may only point into the same schema.',
        'Copy the other schema into $defs and refer to it there.',
      )
  }
  const patterns: [string, string][] = Object.keys(objectAt(schema, 'patternProperties')).map((key) => [
    'patternProperties',
    key,
  ])
  const pattern = member(schema, 'pattern')
  if (typeof pattern === 'string') patterns.push(['pattern', pattern])
  for (const [keyword, text] of patterns) {
    const fault = patternFault(text)
    if (fault !== undefined)
      add(
        keyword === 'pattern' ? ['pattern'] : [keyword, text],
        `RE2 cannot do this pattern: ${fault}.`,
        'Write it without look-around and back-references.',
      )
  }
  if (namesIn(schema).includes('__proto__'))
    add([], 'A field may not be called __proto__.', 'Give it another name.')
  const label = member(schema, 'x-classification')
  if (label !== undefined && (typeof label !== 'string' || NOT_CLASSIFIED.includes(label)))
    add(
      ['x-classification'],
      'This does not classify the field.',
      'Write personal or sensitive; leave it out where neither is true.',
    )
  return findings
}

const NOT_CLASSIFIED = ['', 'none', 'public']

const objectAt = (schema: JsonObject, keyword: string): JsonObject => {
  const value = member(schema, keyword)
  return isObject(value) ? value : {}
}

function namesIn(schema: JsonObject): JsonValue[] {
  const required = member(schema, 'required')
  return [
    ...Object.keys(objectAt(schema, 'properties')),
    ...(required !== undefined && isArray(required) ? required : []),
  ]
}

/** The path of a schema that leads back to itself without going into the value: judging by it would never end. */
function circleOf(root: Schema): readonly string[] | undefined {
  const done = new Set<Schema>()
  const open = new Set<Schema>()
  const visit = (schema: Schema): boolean => {
    if (typeof schema === 'boolean' || done.has(schema)) return false
    if (open.has(schema)) return true
    open.add(schema)
    const ref = member(schema, '$ref')
    const target = typeof ref === 'string' ? resolveRef(root, ref) : undefined
    const next = subschemasOf(schema)
      .filter((part) => part.inPlace)
      .map((part) => part.schema)
    const circular = [...(isSchema(target) ? [target] : []), ...next].some(visit)
    open.delete(schema)
    done.add(schema)
    return circular
  }
  for (const { path, schema } of partsOf(root)) if (visit(schema)) return path
  return undefined
}
