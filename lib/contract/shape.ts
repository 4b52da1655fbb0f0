/** What a JSON Schema says of the values it describes: where its parts are, which fields it has, of which types. */
import { isArray, isObject, member, type JsonObject, type JsonValue } from './json.ts'

export type Schema = boolean | JsonObject

export const JSON_TYPES = ['null', 'boolean', 'integer', 'number', 'string', 'object', 'array'] as const

export type JsonType = (typeof JSON_TYPES)[number]

export function isSchema(value: JsonValue | undefined): value is Schema {
  return typeof value === 'boolean' || isObject(value)
}

/** A schema inside another: `inPlace` where it speaks of the same value, not of one inside it. */
export interface Subschema {
  readonly path: readonly string[]
  readonly schema: Schema
  readonly inPlace: boolean
}

const ONE_IN_PLACE = ['not', 'if', 'then', 'else']
const LIST_IN_PLACE = ['allOf', 'anyOf', 'oneOf']
const ONE_INSIDE = [
  'additionalProperties',
  'unevaluatedProperties',
  'propertyNames',
  'items',
  'contains',
  'unevaluatedItems',
]
const MAP_INSIDE = ['properties', 'patternProperties', '$defs', 'definitions']

/** The same schema with each directly inside it replaced, `$ref` not followed. */
export function mapSubschemas(schema: JsonObject, change: (schema: Schema) => Schema): JsonObject {
  const changed = (value: JsonValue): JsonValue => (isSchema(value) ? change(value) : value)
  const inside = (keyword: string, value: JsonValue): JsonValue => {
    if ([...ONE_IN_PLACE, ...ONE_INSIDE].includes(keyword)) return changed(value)
    if (![...LIST_IN_PLACE, ...MAP_INSIDE, 'dependentSchemas', 'prefixItems'].includes(keyword)) return value
    if (isArray(value)) return value.map(changed)
    if (!isObject(value)) return value
    return Object.fromEntries(Object.entries(value).map(([name, item]) => [name, changed(item)]))
  }
  return Object.fromEntries(
    Object.entries(schema).map(([keyword, value]) => [keyword, inside(keyword, value)]),
  )
}

/** The schemas directly inside one, `$ref` not followed. */
export function subschemasOf(schema: Schema): Subschema[] {
  if (typeof schema === 'boolean') return []
  const found: Subschema[] = []
  const add = (path: string[], value: JsonValue | undefined, inPlace: boolean): void => {
    if (isSchema(value)) found.push({ path, schema: value, inPlace })
  }
  const addEach = (keyword: string, inPlace: boolean): void => {
    const value = member(schema, keyword)
    if (typeof value !== 'object' || value === null) return
    for (const [name, item] of Object.entries(value)) add([keyword, name], item, inPlace)
  }
  for (const keyword of ONE_IN_PLACE) add([keyword], member(schema, keyword), true)
  for (const keyword of LIST_IN_PLACE) addEach(keyword, true)
  addEach('dependentSchemas', true)
  for (const keyword of ONE_INSIDE) add([keyword], member(schema, keyword), false)
  for (const keyword of MAP_INSIDE) addEach(keyword, false)
  addEach('prefixItems', false)
  return found
}

/** What a local `$ref` (`#` or `#/…`) points to, if that is a schema. */
export function resolveRef(root: Schema, ref: string): Schema | undefined {
  const pointer = ref.startsWith('#') ? pointerOfFragment(ref.slice(1)) : undefined
  const tokens = pointer === undefined ? undefined : tokensOf(pointer)
  if (tokens === undefined) return undefined
  let value: JsonValue | undefined = root
  for (const token of tokens) {
    if (value !== undefined && isArray(value)) value = /^\d+$/.test(token) ? value[Number(token)] : undefined
    else value = isObject(value) ? member(value, token) : undefined
  }
  return isSchema(value) ? value : undefined
}

function pointerOfFragment(fragment: string): string | undefined {
  try {
    return decodeURIComponent(fragment)
  } catch {
    return undefined
  }
}

/** The tokens of a JSON Pointer (RFC 6901); undefined where it is not one. */
export function tokensOf(pointer: string): string[] | undefined {
  if (pointer === '') return []
  if (!pointer.startsWith('/') || /~(?![01])/.test(pointer)) return undefined
  return pointer
    .slice(1)
    .split('/')
    .map((token) => token.replaceAll('~1', '/').replaceAll('~0', '~'))
}

export function pointerOf(tokens: readonly string[]): string {
  return tokens.map((token) => `/${token.replaceAll('~', '~0').replaceAll('/', '~1')}`).join('')
}

/**
 * All the object schemas that may have a say in a value that `schemas` describe: themselves, and through `$ref`, `allOf`,
 * `anyOf`, `oneOf`, `if`, `then`, `else` and `dependentSchemas`. Not through `not`, which describes what a value is not.
 */
export function viewsOf(root: Schema, schemas: readonly Schema[]): JsonObject[] {
  const views = new Set<JsonObject>()
  const visit = (schema: Schema): void => {
    if (typeof schema === 'boolean' || views.has(schema)) return
    views.add(schema)
    const ref = member(schema, '$ref')
    const target = typeof ref === 'string' ? resolveRef(root, ref) : undefined
    if (target !== undefined) visit(target)
    for (const part of subschemasOf(schema)) if (part.inPlace && part.path[0] !== 'not') visit(part.schema)
  }
  schemas.forEach(visit)
  return [...views]
}

/** The schemas that one object schema itself gives the member of that name; none where it says nothing of it. */
export function memberSchemas(view: JsonObject, name: string, matches: PatternTest): Schema[] {
  const found: Schema[] = []
  const named = own(view, 'properties', name)
  if (isSchema(named)) found.push(named)
  for (const [pattern, schema] of patternsOf(view)) if (matches(pattern, name)) found.push(schema)
  if (found.length > 0) return found
  const rest = member(view, 'additionalProperties')
  return isObject(rest) ? [rest] : []
}

export function patternsOf(view: JsonObject): [string, Schema][] {
  const patterns = member(view, 'patternProperties')
  if (!isObject(patterns)) return []
  return Object.entries(patterns).flatMap(([pattern, schema]) =>
    isSchema(schema) ? [[pattern, schema]] : [],
  )
}

/**
 * The schemas of what one token of a pointer leads to: a member of that name, or with `*` the items of an array; a
 * member named `*` only where `properties` has that very name, as a treatment at `*` speaks of no other member.
 * None where no schema has it: a name that is merely not forbidden does not count.
 */
export function stepInto(views: readonly JsonObject[], token: string, matches: PatternTest): Schema[] {
  if (token !== '*') return membersOf(views, token, matches)
  const named = namesOf(views).includes('*') ? membersOf(views, token, matches) : []
  return [...named, ...views.flatMap(judgesOfItems)]
}

function membersOf(views: readonly JsonObject[], name: string, matches: PatternTest): Schema[] {
  const found = views.flatMap((view) => memberSchemas(view, name, matches))
  // Whether another schema of the place has judged the member may depend on the payload.
  const rest = views.filter(
    (view) =>
      own(view, 'properties', name) === undefined && member(view, 'additionalProperties') === undefined,
  )
  return [...found, ...rest.map((view) => member(view, 'unevaluatedProperties')).filter(isObject)]
}

/** Does the pattern of a schema match this text? Given, so that all do it by one engine (schema.ts). */
export type PatternTest = (pattern: string, text: string) => boolean

/** The schemas that one object schema gives the items of an array. */
export function itemSchemas(view: JsonObject): Schema[] {
  const found: Schema[] = list(view, 'prefixItems').filter(isSchema)
  const rest = member(view, 'items') ?? member(view, 'unevaluatedItems')
  if (isObject(rest)) found.push(rest)
  return found
}

/** Those, and the one that some items must fit (`contains`): all that may say something of an item. */
export function judgesOfItems(view: JsonObject): Schema[] {
  const contained = member(view, 'contains')
  return isObject(contained) ? [...itemSchemas(view), contained] : itemSchemas(view)
}

function own(view: JsonObject, keyword: string, name: string): JsonValue | undefined {
  const map = member(view, keyword)
  return isObject(map) ? member(map, name) : undefined
}

/** The names that the `properties` of any of these schemas have, in their order. */
export function namesOf(views: readonly JsonObject[]): string[] {
  const names = new Set<string>()
  for (const view of views) {
    const properties = member(view, 'properties')
    if (isObject(properties)) for (const name of Object.keys(properties)) names.add(name)
  }
  return [...names]
}

/** The JSON types that a value may have which fits this schema. An integer is `integer`; `number` stands for all others. */
export function typesOf(root: Schema, schema: Schema): ReadonlySet<JsonType> {
  return possible(root, schema, new Set())
}

const ALL: ReadonlySet<JsonType> = new Set(JSON_TYPES)
const NONE: ReadonlySet<JsonType> = new Set()

function possible(root: Schema, schema: Schema, above: ReadonlySet<Schema>): ReadonlySet<JsonType> {
  if (typeof schema === 'boolean') return schema ? ALL : NONE
  if (above.has(schema)) return ALL
  const stack = new Set([...above, schema])
  const of = (value: JsonValue | undefined): ReadonlySet<JsonType> =>
    isSchema(value) ? possible(root, value, stack) : ALL
  let types = declaredTypes(schema)
  const ref = member(schema, '$ref')
  if (typeof ref === 'string') types = both(types, of(resolveRef(root, ref)))
  for (const part of list(schema, 'allOf')) types = both(types, of(part))
  for (const keyword of ['anyOf', 'oneOf']) {
    const parts = list(schema, keyword)
    if (parts.length > 0) types = both(types, new Set(parts.flatMap((part) => [...of(part)])))
  }
  return types
}

const both = (a: ReadonlySet<JsonType>, b: ReadonlySet<JsonType>): ReadonlySet<JsonType> =>
  new Set([...a].filter((type) => b.has(type)))

/** Those that a schema's own `type`, `const` and `enum` leave. */
function declaredTypes(schema: JsonObject): ReadonlySet<JsonType> {
  const type = member(schema, 'type')
  let types = ALL
  if (type !== undefined) {
    const names = isArray(type) ? type : [type]
    types = new Set(
      JSON_TYPES.filter((name) => names.includes(name) || (name === 'integer' && names.includes('number'))),
    )
  }
  const constant = member(schema, 'const')
  const values = constant === undefined ? list(schema, 'enum') : [constant]
  return values.length === 0 ? types : both(types, new Set(values.map(typeOf)))
}

const list = (schema: JsonObject, keyword: string): readonly JsonValue[] => {
  const value = member(schema, keyword)
  return value !== undefined && isArray(value) ? value : []
}

function typeOf(value: JsonValue): JsonType {
  if (value === null) return 'null'
  if (isArray(value)) return 'array'
  if (typeof value === 'string') return 'string'
  if (typeof value === 'boolean') return 'boolean'
  if (typeof value === 'number') return Number.isInteger(value) ? 'integer' : 'number'
  return 'object'
}
