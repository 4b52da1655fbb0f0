/**
 * The schema of what a consumer gets (contracts.md): whatever fits the contract's schema fits, once treated, the
 * derived one, which allows nothing else. Constraints hold on in what passes; of treated values only types are known.
 */
import { isArray, isObject, member, type JsonObject, type JsonValue } from './json.ts'
import { matches } from './schema.ts'
import {
  JSON_TYPES,
  isSchema,
  itemSchemas,
  mapSubschemas,
  memberSchemas,
  namesOf,
  patternsOf,
  resolveRef,
  typesOf,
  type JsonType,
  type Schema,
} from './shape.ts'
import { DROP, shows, treatmentAt, typeAfter, type Plan, type Treatment } from './treatments.ts'

export function deriveSchema(root: Schema, plan: Plan): JsonObject {
  const derivation = new Derivation(root)
  const derived = shows(plan, DROP) ? derivation.treated(root, plan, DROP) : { additionalProperties: false }
  const whole = isObject(derived) ? derived : { not: {} }
  return {
    $schema: 'https://json-schema.org/draft/2020-12/schema',
    ...whole,
    type: 'object',
    ...(derivation.defs.size > 0 ? { $defs: Object.fromEntries(derivation.defs) } : {}),
  }
}

class Derivation {
  readonly defs: Map<string, Schema> = new Map<string, Schema>()
  readonly #root: Schema
  readonly #made: {
    target: Schema
    plan: Plan | undefined
    here: Treatment
    name: string
  }[] = []

  constructor(root: Schema) {
    this.#root = root
  }

  /** What is known of a value that fitted `schema`, once treated, and of which something shows. */
  treated(schema: Schema, plan: Plan | undefined, above: Treatment): Schema {
    const here = treatmentAt(plan, above)
    if (here.kind === 'pass' && (plan === undefined || plan.members.size === 0)) return this.#copy(schema)
    if (schema === false) return false
    // What is open holds anything, which may hold anything in its turn.
    if (schema === true && plan === undefined) return this.#definition(true, 'any', plan, here)
    return this.#treatedOwn(schema === true ? {} : schema, plan, here)
  }

  #treatedOwn(own: JsonObject, plan: Plan | undefined, here: Treatment): Schema {
    const ref = member(own, '$ref')
    if (typeof ref === 'string' && isOnlyRef(own)) return this.#reference(ref, plan, here)
    const types = typesAfter(typesOf(this.#root, own), here)
    const [only, second] = types
    if (only === undefined) return false
    return {
      type: second === undefined ? only : types,
      ...(types.includes('object') ? this.#members(own, plan, here) : {}),
      ...(types.includes('array') ? { items: this.#items(own, plan?.members.get('*'), here) } : {}),
      ...this.#inPlace(own, plan, here),
    }
  }

  #members(own: JsonObject, plan: Plan | undefined, here: Treatment): JsonObject {
    const planned = [...(plan?.members.keys() ?? [])].filter((name) => name !== '*')
    const properties: [string, Schema][] = []
    for (const name of new Set([...namesOf([own]), ...planned])) {
      const inner = plan?.members.get(name)
      if (!shows(inner, here)) continue
      const parts = memberSchemas(own, name, matches).map((part) => this.treated(part, inner, here))
      const [only, second] = parts
      // A name of which only another schema of this place speaks: it says there what it knows.
      properties.push([name, only === undefined ? true : second === undefined ? only : { allOf: parts }])
    }
    const kept = asNames(member(own, 'required')).filter((name) =>
      this.#staysAlways(memberSchemas(own, name, matches), plan?.members.get(name), here),
    )
    return {
      properties: Object.fromEntries(properties),
      ...(kept.length > 0 ? { required: kept } : {}),
      ...this.#otherMembers(own, here),
    }
  }

  /** Is something left of the value whatever its type? A date that is none is not foreseen: it refuses the event. */
  #staysAlways(schemas: readonly Schema[], plan: Plan | undefined, above: Treatment): boolean {
    if (!shows(plan, above)) return false
    const possible = schemas.map((schema) => typesOf(this.#root, schema))
    const types = JSON_TYPES.filter((type) => possible.every((some) => some.has(type)))
    return types.every((type) => typeAfter(treatmentAt(plan, above), type) !== undefined)
  }

  #otherMembers(own: JsonObject, here: Treatment): JsonObject {
    if (here.kind === 'drop') return { additionalProperties: false }
    const patterns = patternsOf(own).map(([pattern, schema]) => [
      pattern,
      this.treated(schema, undefined, here),
    ])
    const rest = member(own, 'additionalProperties')
    return {
      ...(patterns.length > 0 ? { patternProperties: Object.fromEntries(patterns) as JsonObject } : {}),
      additionalProperties: this.treated(isSchema(rest) ? rest : true, undefined, here),
    }
  }

  #items(own: JsonObject, plan: Plan | undefined, here: Treatment): Schema {
    if (!shows(plan, here)) return false
    const parts = itemSchemas(own).map((part) => this.treated(part, plan, here))
    const [only, second] = parts
    if (only === undefined) return this.treated(true, plan, here)
    return second === undefined ? only : { anyOf: parts }
  }

  /** The other schemas of the same place. Two of `oneOf` may be alike after a treatment, and `not` says nothing then. */
  #inPlace(own: JsonObject, plan: Plan | undefined, here: Treatment): JsonObject {
    const part = (schema: Schema): Schema => this.treated(schema, plan, here)
    const all = schemasIn(own, 'allOf').map(part)
    for (const keyword of ['anyOf', 'oneOf']) {
      const parts = schemasIn(own, keyword)
      if (parts.length > 0) all.push({ anyOf: parts.map(part) })
    }
    const [then, otherwise] = [member(own, 'then'), member(own, 'else')]
    if (isSchema(then) && isSchema(otherwise)) all.push({ anyOf: [part(then), part(otherwise)] })
    const ref = member(own, '$ref')
    if (typeof ref === 'string') all.push(this.#reference(ref, plan, here))
    return all.length > 0 ? { allOf: all } : {}
  }

  /** A schema of its own for each use of a target, so that one which refers to itself comes to an end. */
  #reference(ref: string, plan: Plan | undefined, here: Treatment): Schema {
    const target = resolveRef(this.#root, ref) ?? false
    return this.#definition(target, /[\w.-]*$/.exec(ref)?.[0] ?? '', plan, here)
  }

  #definition(target: Schema, wanted: string, plan: Plan | undefined, here: Treatment): Schema {
    const made = this.#made.find((one) => one.target === target && one.plan === plan && one.here === here)
    if (made !== undefined) return { $ref: `#/$defs/${made.name}` }
    const name = this.#freeName(wanted)
    this.#made.push({ target, plan, here, name })
    this.defs.set(name, true)
    const isOpen = target === true && plan === undefined && here.kind !== 'pass'
    this.defs.set(name, isOpen ? this.#treatedOwn({}, plan, here) : this.treated(target, plan, here))
    return { $ref: `#/$defs/${name}` }
  }

  #freeName(wanted: string): string {
    const stem = wanted === '' ? 'payload' : wanted
    let name = stem
    for (let count = 2; this.defs.has(name); count++) name = `${stem}-${count}`
    return name
  }

  /** The schema of what passes, with its references turned to the derived schema's own definitions. */
  #copy(schema: Schema): Schema {
    if (typeof schema === 'boolean') return schema
    const ref = member(schema, '$ref')
    const copied = mapSubschemas(withoutDefinitions(schema), (part) => this.#copy(part))
    if (typeof ref !== 'string') return copied
    const target = this.#reference(ref, undefined, PASS)
    return { ...copied, ...(isObject(target) ? target : {}) }
  }
}

const PASS: Treatment = { kind: 'pass' }

const ANNOTATIONS = ['$ref', 'title', 'description', '$comment', 'x-classification', 'examples', 'deprecated']
const isOnlyRef = (schema: JsonObject): boolean =>
  Object.keys(schema).every((name) => ANNOTATIONS.includes(name))

const DEFINITIONS = ['$schema', '$id', '$defs', 'definitions']
const withoutDefinitions = (schema: JsonObject): JsonObject =>
  Object.fromEntries(Object.entries(schema).filter(([name]) => !DEFINITIONS.includes(name)))

/** As few words as say it: an integer is a number. */
function typesAfter(before: ReadonlySet<JsonType>, treatment: Treatment): JsonType[] {
  const after = new Set([...before].map((type) => typeAfter(treatment, type)))
  return JSON_TYPES.filter((type) => after.has(type) && !(type === 'integer' && after.has('number')))
}

const asNames = (value: JsonValue | undefined): string[] =>
  value !== undefined && isArray(value) ? value.filter((name) => typeof name === 'string') : []

const schemasIn = (schema: JsonObject, keyword: string): Schema[] => {
  const value = member(schema, keyword)
  return value !== undefined && isArray(value) ? value.filter(isSchema) : []
}
