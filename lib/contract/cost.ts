/** How often a schema judges one value, at worst: what multiplies is found when contracts are checked (threats.md, row 24). */
import type { Finding } from './contract-file.ts'
import { MAX_DEPTH, isArray, isObject, member, type JsonObject } from './json.ts'
import { matches } from './schema.ts'
import { isSchema, namesOf, patternsOf, resolveRef, subschemasOf, type Schema } from './shape.ts'

/** Evaluations of one value of a payload by the schemas of its place, at most. */
export const MAX_EVALUATIONS = 1000

/** Steps of the search itself: a schema that needs more is refused, not searched. */
const MAX_STEPS = 1_000_000

/** What makes a schema endless, or too dear, to judge by; undefined where it is neither. The path is from its own root. */
export function costFault(root: Schema): Finding | undefined {
  if (isSmall(root, MAX_EVALUATIONS)) return undefined
  const circle = circleOf(root)
  if (circle !== undefined)
    return {
      path: circle,
      what: 'This schema refers to itself for the very same value.',
      fix: 'Break the circle of $ref.',
    }
  return new Search(root).fault()
}

/**
 * Whether a schema, with a copy of its target for each `$ref`, has so few parts: each judges a value once at most, so no
 * search is needed. One that holds itself is never small.
 */
export function isSmall(root: Schema, most: number): boolean {
  const sizes = new Map<JsonObject, number>()
  const sizeOf = (schema: Schema): number => {
    if (typeof schema === 'boolean') return 1
    const known = sizes.get(schema)
    if (known !== undefined) return known
    // As long as it is being reckoned: it holds itself.
    sizes.set(schema, Infinity)
    const target = targetOf(root, schema)
    let size = 1 + (target === undefined ? 0 : sizeOf(target))
    for (const part of subschemasOf(schema)) size += sizeOf(part.schema)
    sizes.set(schema, size)
    return size
  }
  return sizeOf(root) <= most
}

/** The path of a schema that leads back to itself without going into the value: judging by it would never end. */
function circleOf(root: Schema): readonly string[] | undefined {
  const done = new Set<Schema>()
  const open = new Set<Schema>()
  const visit = (schema: Schema): boolean => {
    if (typeof schema === 'boolean' || done.has(schema)) return false
    if (open.has(schema)) return true
    open.add(schema)
    const circular = inPlaceOf(root, schema).some(visit)
    open.delete(schema)
    done.add(schema)
    return circular
  }
  for (const { path, schema } of placesOf(root)) if (visit(schema)) return path
  return undefined
}

function* placesOf(
  schema: Schema,
  path: readonly string[] = [],
): Generator<{ path: readonly string[]; schema: JsonObject }> {
  if (typeof schema === 'boolean') return
  yield { path, schema }
  for (const part of subschemasOf(schema)) yield* placesOf(part.schema, [...path, ...part.path])
}

/** The schemas that judge the same value as this one does, directly. */
function inPlaceOf(root: Schema, schema: JsonObject): JsonObject[] {
  const target = targetOf(root, schema)
  const parts = subschemasOf(schema).filter((part) => part.inPlace)
  return [...(target === undefined ? [] : [target]), ...parts.map((part) => part.schema)].filter(isObject)
}

function targetOf(root: Schema, schema: JsonObject): Schema | undefined {
  const ref = member(schema, '$ref')
  return typeof ref === 'string' ? resolveRef(root, ref) : undefined
}

/** A way from a value to values inside it, as far as a schema can tell them apart. */
type Label =
  | { readonly kind: 'name'; readonly name: string }
  /** A name in no `properties`. `patterns`: it matches none, the only one, or who knows which. */
  | { readonly kind: 'other'; readonly patterns: 'none' | 'one' | 'some' }
  | { readonly kind: 'item'; readonly index: number }
  | { readonly kind: 'key' }

const UNNAMED: Label = { kind: 'other', patterns: 'none' }

/** How often each schema (by its number) judges one value; under `LEAF`, all those that do not look inside it. */
type Load = ReadonlyMap<number, number>

const LEAF = -1
const NOTHING: Load = new Map()

/** Loads of which one or another comes true; of more than this only their maximum is kept. */
const MAX_CASES = 16

interface Judge {
  readonly number: number
  readonly schema: JsonObject
  /** It, and all that judge the same value through it. */
  readonly all: readonly JsonObject[]
  readonly evaluations: number
  /** That `all` have in `properties`; undefined where a pattern may tell any name from another. */
  readonly names: ReadonlySet<string> | undefined
  /** Those of `anyOf` and `oneOf`, in groups of which one at most looks inside the value. */
  readonly alternatives: readonly (readonly Schema[])[]
  readonly steps: Map<string, readonly Load[]>
}

/** Follows a value down through every load that its place may have, as deep as a payload may nest. */
class Search {
  readonly #root: Schema
  readonly #judges: Judge[] = []
  readonly #bySchema = new Map<JsonObject, Judge>()
  readonly #byText = new Map<string, Judge>()
  #steps = 0

  constructor(root: Schema) {
    this.#root = root
  }

  fault(): Finding | undefined {
    if (typeof this.#root === 'boolean') return undefined
    const seen = new Set<string>()
    let front: readonly Load[] = [this.#loadOf(this.#root)]
    // Breadth first: each load is met where it is least deep, so it need not be followed again further down.
    for (let depth = 0; depth <= MAX_DEPTH && front.length > 0; depth++) {
      const next: Load[] = []
      for (const load of front) {
        const dear = this.#tooDear(load)
        if (dear !== undefined) return this.#finding(dear, depth)
        const key = keyOf(load)
        if (seen.has(key)) continue
        seen.add(key)
        for (const label of this.#labelsOf(load)) {
          next.push(...this.#inside(load, label))
          if (this.#steps > MAX_STEPS) return this.#finding(load, depth)
        }
      }
      front = next
    }
    return undefined
  }

  #finding(load: Load, depth: number): Finding {
    const [most] = [...load].filter(([number]) => number !== LEAF).sort((a, b) => b[1] - a[1])
    const schema = most === undefined ? undefined : this.#judges[most[0]]?.schema
    const place = [...placesOf(this.#root)].find((one) => one.schema === schema)
    return {
      path: place?.path ?? [],
      what:
        depth === 0
          ? `One value may be judged over ${MAX_EVALUATIONS} times here, through $ref and the alternatives.`
          : `What leads to this schema multiplies: a value ${depth} deep in it may be judged over ${MAX_EVALUATIONS} times, or in too many ways to be counted.`,
      fix: 'Of all that judges one value, let only one alternative lead back to the same schema; or tell alternatives apart by a property that is required, first in properties and a const string in each (type: object, no other applicators), or by if, then and else.',
    }
  }

  #tooDear(load: Load): Load | undefined {
    let sum = load.get(LEAF) ?? 0
    for (const [number, count] of load)
      if (number !== LEAF) sum += count * (this.#judges[number]?.evaluations ?? 0)
    return sum > MAX_EVALUATIONS ? load : undefined
  }

  /** Alike schemas are one, and one that is a `$ref` only is what it refers to. */
  #judgeOf(schema: JsonObject): Judge {
    const known = this.#bySchema.get(schema)
    if (known !== undefined) return known
    const target = subschemasOf(schema).length === 0 ? targetOf(this.#root, schema) : undefined
    const text = isObject(target) ? '' : JSON.stringify(schema)
    const judge = isObject(target)
      ? this.#judgeOf(target)
      : (this.#byText.get(text) ?? this.#newJudge(schema))
    if (text !== '') this.#byText.set(text, judge)
    this.#bySchema.set(schema, judge)
    return judge
  }

  #newJudge(schema: JsonObject): Judge {
    const parts = inPlaceOf(this.#root, schema).map((part) => this.#judgeOf(part))
    const all = [...new Set([schema, ...parts.flatMap((part) => part.all)])]
    const judge: Judge = {
      number: this.#judges.length,
      schema,
      all,
      names: all.some((view) => patternsOf(view).length > 0) ? undefined : new Set(namesOf(all)),
      evaluations: parts.reduce((sum, part) => sum + part.evaluations, 1),
      alternatives: ['anyOf', 'oneOf'].flatMap((keyword) => this.#exclusive(listIn(schema, keyword))),
      steps: new Map(),
    }
    this.#judges.push(judge)
    return judge
  }

  #loadOf(schema: Schema | undefined): Load {
    if (!isObject(schema)) return NOTHING
    const judge = this.#judgeOf(schema)
    const looksInside = judge.all.some((one) => subschemasOf(one).some((part) => isInside(part)))
    return looksInside ? new Map([[judge.number, 1]]) : new Map([[LEAF, judge.evaluations]])
  }

  #labelsOf(load: Load): Label[] {
    const judges = [...load.keys()].flatMap((number) => this.#judges[number] ?? [])
    const views = [...new Set(judges.flatMap((judge) => judge.all))]
    const patterns = new Set(views.flatMap((view) => patternsOf(view).map(([pattern]) => pattern))).size
    const tuples = views.map((view) => listIn(view, 'prefixItems').length)
    const longest = tuples.reduce((a, b) => Math.max(a, b), 0)
    return [
      ...namesOf(views).map((name): Label => ({ kind: 'name', name })),
      UNNAMED,
      ...(patterns > 0 ? [{ kind: 'other', patterns: patterns === 1 ? 'one' : 'some' } as const] : []),
      ...Array.from({ length: longest + 1 }, (_, index): Label => ({ kind: 'item', index })),
      { kind: 'key' },
    ]
  }

  #inside(load: Load, label: Label): Load[] {
    let cases: readonly Load[] = [NOTHING]
    for (const [number, count] of load) {
      const judge = this.#judges[number]
      if (judge === undefined) continue
      this.#steps++
      const steps = this.#step(judge, label)
      cases = both(
        cases,
        // The same value, so the same case each time.
        steps.map((step) => new Map([...step].map(([key, times]) => [key, times * count]))),
      )
    }
    return cases.filter((one) => one.size > 0)
  }

  #step(judge: Judge, labelOfAll: Label): readonly Load[] {
    const isUnknown = labelOfAll.kind === 'name' && judge.names?.has(labelOfAll.name) === false
    const label = isUnknown ? UNNAMED : labelOfAll
    const key = JSON.stringify(label)
    const known = judge.steps.get(key)
    if (known !== undefined) return known
    this.#steps++
    const { schema } = judge
    const into = (part: Schema | undefined): readonly Load[] =>
      isObject(part) ? this.#step(this.#judgeOf(part), label) : [NOTHING]
    const either = (parts: readonly (Schema | undefined)[]): readonly Load[] =>
      distinct([...new Set(parts.flatMap(into))])
    const all = (parts: readonly (Schema | undefined)[]): readonly Load[] =>
      parts.map(into).reduce(both, [NOTHING])
    const once = ['not', 'if'].map((keyword) => schemaIn(schema, keyword))
    const listed = [
      ...listIn(schema, 'allOf'),
      ...Object.values(objectIn(schema, 'dependentSchemas')).filter(isSchema),
    ]
    const result = [
      insideOf(schema, label)
        .map((part) => [this.#loadOf(part)])
        .reduce(both, [NOTHING]),
      all([targetOf(this.#root, schema), ...once, ...listed]),
      either([schemaIn(schema, 'then'), schemaIn(schema, 'else')]),
      ...judge.alternatives.map((group) => either(group)),
    ].reduce(both)
    judge.steps.set(key, result)
    return result
  }

  /** Groups of alternatives, of each of which at most one looks past the property that tells them apart. */
  #exclusive(alternatives: readonly Schema[]): Schema[][] {
    const byName = new Map<string, Map<string, Schema>>()
    const groups: Schema[][] = []
    for (const alternative of alternatives) {
      const mark = this.#markOf(alternative)
      const values = byName.get(mark?.name ?? '') ?? new Map<string, Schema>()
      if (mark === undefined || values.has(mark.value)) groups.push([alternative])
      else byName.set(mark.name, values.set(mark.value, alternative))
    }
    return [...groups, ...[...byName.values()].map((values) => [...values.values()])]
  }

  /**
   * The property and its value by which a schema tells at once that an object is not its own. Ajv judges `required`
   * first, then `properties` in their order, and stops at the first that does not fit.
   */
  #markOf(schema: Schema): { name: string; value: string } | undefined {
    if (!isObject(schema)) return undefined
    const target = Object.keys(schema).every((keyword) => keyword === '$ref')
      ? targetOf(this.#root, schema)
      : undefined
    if (target !== undefined) return this.#markOf(target)
    const applicators = subschemasOf(schema).filter(
      (part) => part.path[0] !== 'properties' && isObject(part.schema),
    )
    if (applicators.length > 0 || member(schema, '$ref') !== undefined || member(schema, 'type') !== 'object')
      return undefined
    const [first] = Object.entries(objectIn(schema, 'properties'))
    if (first === undefined || !isObject(first[1])) return undefined
    const value = member(first[1], 'const')
    const required = member(schema, 'required')
    const isRequired = required !== undefined && isArray(required) && required.includes(first[0])
    return isRequired && typeof value === 'string' ? { name: first[0], value } : undefined
  }
}

const isInside = (part: ReturnType<typeof subschemasOf>[number]): boolean =>
  !part.inPlace && part.path[0] !== '$defs' && part.path[0] !== 'definitions'

/** The schemas that one object schema itself, without those in place, gives the values that a label leads to. */
function insideOf(schema: JsonObject, label: Label): Schema[] {
  const rest = schemaIn(schema, 'additionalProperties') ?? schemaIn(schema, 'unevaluatedProperties')
  const others = rest === undefined ? [] : [rest]
  const patterns = patternsOf(schema)
  switch (label.kind) {
    case 'name': {
      const named = member(objectIn(schema, 'properties'), label.name)
      const found = patterns.filter(([pattern]) => matches(pattern, label.name)).map(([, part]) => part)
      if (isSchema(named)) found.push(named)
      return found.length > 0 ? found : others
    }
    case 'other': {
      if (label.patterns === 'none' || patterns.length === 0) return others
      const matching = patterns.map(([, part]) => part)
      return label.patterns === 'one' ? matching : [...matching, ...others]
    }
    case 'item': {
      const tuple = listIn(schema, 'prefixItems')
      const item = tuple[label.index] ?? schemaIn(schema, 'items') ?? schemaIn(schema, 'unevaluatedItems')
      return [item, schemaIn(schema, 'contains')].filter((part) => part !== undefined)
    }
    case 'key':
      return [schemaIn(schema, 'propertyNames')].filter((part) => part !== undefined)
  }
}

const schemaIn = (schema: JsonObject, keyword: string): Schema | undefined => {
  const value = member(schema, keyword)
  return isSchema(value) ? value : undefined
}

const listIn = (schema: JsonObject, keyword: string): Schema[] => {
  const value = member(schema, keyword)
  return value !== undefined && isArray(value) ? value.filter(isSchema) : []
}

const objectIn = (schema: JsonObject, keyword: string): JsonObject => {
  const value = member(schema, keyword)
  return isObject(value) ? value : {}
}

/** A case of the one and a case of the other. */
function both(a: readonly Load[], b: readonly Load[]): readonly Load[] {
  if (b.length === 1 && b[0]?.size === 0) return a
  return distinct(a.flatMap((one) => b.map((other) => combined([one, other], (x, y) => x + y))))
}

function distinct(loads: readonly Load[]): readonly Load[] {
  if (loads.length < 2) return loads
  const byKey = new Map<string, Load>()
  for (const load of loads) {
    const key = keyOf(load)
    const same = byKey.get(key)
    byKey.set(key, same === undefined ? load : combined([same, load], Math.max))
  }
  const found = [...byKey.values()]
  return found.length <= MAX_CASES ? found : [combined(found, Math.max)]
}

function combined(loads: readonly Load[], join: (a: number, b: number) => number): Load {
  const [first = NOTHING, second = NOTHING, ...more] = loads
  if (more.length === 0 && second.size === 0) return first
  const result = new Map(first)
  for (const load of [second, ...more])
    for (const [number, count] of load) result.set(number, join(result.get(number) ?? 0, count))
  return result
}

/** Equal for loads that lead on equally. */
const keyOf = (load: Load): string =>
  [...load]
    .filter(([number]) => number !== LEAF)
    .sort(([a], [b]) => a - b)
    .map((entry) => entry.join(':'))
    .join()
