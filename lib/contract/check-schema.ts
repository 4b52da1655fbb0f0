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

/** Paths are from the schema's own root. Of a schema that `costFault` (cost.ts) has no fault in. */
export function checkSchema(root: Schema, assertFormats: boolean): Finding[] {
  const misused = keywordErrors(root).filter((error) => error.keyword !== 'anyOf' && error.keyword !== 'if')
  const places = new Map<string, string>()
  for (const { instancePath, message = 'is wrong', params } of misused) {
    const allowed: unknown = params['allowedValues']
    const rule = Array.isArray(allowed) ? `${message}: ${allowed.join(', ')}` : message
    if (!places.has(instancePath)) places.set(instancePath, rule)
  }
  const misuses = [...places].map(([place, rule]) => ({
    path: tokensOf(place) ?? [],
    what: `JSON Schema 2020-12 does not allow this: it ${rule}.`,
    fix: 'Correct the keyword.',
  }))
  const findings = [
    ...misuses,
    ...[...partsOf(root)].flatMap(({ path, schema }) => checkPart(root, path, schema)),
  ]
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

/** Fields that an object must have and may not, as a slip of the pen makes them: every payload would be rejected. */
export function impossibleFields(root: Schema): Finding[] {
  return [...partsOf(root)].flatMap(({ path, schema }) => {
    const required = member(schema, 'required')
    const isClosed = member(schema, 'additionalProperties') === false
    if (!isClosed || required === undefined || !isArray(required)) return []
    if (member(schema, 'patternProperties') !== undefined) return []
    const known = new Set(Object.keys(objectAt(schema, 'properties')))
    const names = required.filter((name): name is string => typeof name === 'string' && !known.has(name))
    if (names.length === 0) return []
    return [
      {
        path: [...path, 'required'],
        what: `No object fits this: ${names.join(', ')} must be there, and additionalProperties: false lets nothing of that name in.`,
        fix: 'Correct the spelling, or describe the field under properties.',
        warning: true,
      },
    ]
  })
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
  for (const keyword of Object.keys(schema)) {
    if (!KEYWORDS.has(keyword) && !NAMES_OF_PARTS.includes(keyword))
      add(
        [keyword],
        `JSON Schema 2020-12 has no keyword ${JSON.stringify(keyword.slice(0, 60))}.`,
        'Correct its spelling, or take it out.',
      )
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
  for (const [keyword, instead] of NOT_LOOKED_INTO) {
    if (member(schema, keyword) !== undefined)
      add([keyword], `${keyword} is not supported inside a contract.`, instead)
  }
  for (const keyword of ['not', 'propertyNames']) {
    const part = member(schema, keyword)
    if (isSchema(part) && holdsMark(root, part))
      add(
        [keyword],
        `An x-classification in ${keyword} classifies no field.`,
        'Mark the field itself, or the object that it is in.',
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

/** All that a contract's schema may say: those of the 2020-12 vocabularies, and our own mark. */
const KEYWORDS: ReadonlySet<string> = new Set(
  [
    '$schema $id $ref $defs $comment definitions dependencies',
    'type enum const multipleOf maximum exclusiveMaximum minimum exclusiveMinimum maxLength minLength pattern',
    'maxItems minItems uniqueItems maxContains minContains maxProperties minProperties required dependentRequired',
    'prefixItems items contains additionalProperties properties patternProperties dependentSchemas propertyNames',
    'if then else allOf anyOf oneOf not unevaluatedItems unevaluatedProperties',
    'title description default deprecated readOnly writeOnly examples format',
    'contentEncoding contentMediaType contentSchema x-classification',
  ].flatMap((line) => line.split(' ')),
)

/** Schemas in them would be neither counted nor searched for classified fields. */
const NOT_LOOKED_INTO = [
  ['dependencies', 'Use dependentSchemas or dependentRequired.'],
  ['contentSchema', 'Take it out: it judges nothing.'],
] as const

/** Is there an `x-classification` in this schema, or in what it refers to? */
function holdsMark(root: Schema, start: Schema): boolean {
  const seen = new Set<Schema>()
  const visit = (schema: Schema): boolean => {
    if (typeof schema === 'boolean' || seen.has(schema)) return false
    seen.add(schema)
    if (member(schema, 'x-classification') !== undefined) return true
    const ref = member(schema, '$ref')
    const target = typeof ref === 'string' ? resolveRef(root, ref) : undefined
    return (target !== undefined && visit(target)) || subschemasOf(schema).some((part) => visit(part.schema))
  }
  return visit(start)
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
