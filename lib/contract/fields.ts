/** The fields of a schema, one by one: what a check, and a table of who may see what, go through. */
import { isObject, member, type JsonObject } from './json.ts'
import { matches } from './schema.ts'
import {
  judgesOfItems,
  namesOf,
  patternsOf,
  stepInto,
  typesOf,
  viewsOf,
  type JsonType,
  type Schema,
} from './shape.ts'
import { DROP, treatmentAt, type Plan, type Treatment } from './treatments.ts'

export interface Field {
  /** The tokens of its pointer: `*` for every item, `OTHER` for every member that the schema does not name. */
  readonly tokens: readonly string[]
  readonly types: ReadonlySet<JsonType>
  /** Its own `x-classification`, or that of what it is in. */
  readonly classification: string | undefined
  /** That of what it is in. */
  readonly classificationAbove: string | undefined
  readonly treatment: Treatment
  /** Has no fields of its own that the schema knows. */
  readonly isLeaf: boolean
}

export const OTHER = '(any other)'

/** A schema that comes to more says the same things in too many places to be checked. */
export const MAX_FIELDS = 5000

/**
 * Every field from the whole payload (no tokens) down, at most `MAX_FIELDS`, with what the plan does to it. A schema
 * that holds itself is followed until it comes back with nothing new: every treatment that any depth gets is seen.
 */
export function fieldsOf(root: Schema, plan?: Plan): Field[] {
  const fields: Field[] = []
  const numbers = new Map<unknown, number>()
  const numberOf = (thing: unknown): number => {
    const number = numbers.get(thing) ?? numbers.size
    numbers.set(thing, number)
    return number
  }
  const visit = (place: Omit<Field, 'types' | 'classification' | 'treatment' | 'isLeaf'> & Place): void => {
    if (fields.length >= MAX_FIELDS) return
    const views = viewsOf(root, place.schemas)
    const label = views.map((view) => member(view, 'x-classification')).find((one) => typeof one === 'string')
    const classification = label ?? place.classificationAbove
    const treatment = treatmentAt(place.plan, place.above)
    const parts = partsOf(views, place.plan)
    fields.push({
      tokens: place.tokens,
      types: new Set(place.schemas.flatMap((schema) => [...typesOf(root, schema)])),
      classification,
      classificationAbove: place.classificationAbove,
      treatment,
      isLeaf: parts.length === 0,
    })
    const state = [...views, place.plan, treatment, classification].map(numberOf).join()
    if (place.within.has(state)) return
    const within = new Set([...place.within, state])
    for (const part of parts) {
      const inner = part.token === OTHER ? undefined : place.plan?.members.get(part.token)
      visit({
        tokens: [...place.tokens, part.token],
        schemas: part.schemas,
        plan: inner,
        above: treatment,
        classificationAbove: classification,
        within,
      })
    }
  }
  visit({ tokens: [], schemas: [root], plan, above: DROP, classificationAbove: undefined, within: new Set() })
  return fields
}

interface Place {
  readonly schemas: readonly Schema[]
  readonly plan: Plan | undefined
  readonly above: Treatment
  /** What has been met on the way here. */
  readonly within: ReadonlySet<string>
}

function partsOf(
  views: readonly JsonObject[],
  plan: Plan | undefined,
): { token: string; schemas: Schema[] }[] {
  const named = new Set([...namesOf(views), ...(plan?.members.keys() ?? [])])
  if (views.some((view) => judgesOfItems(view).length > 0)) named.add('*')
  const parts = [...named].map((token) => ({ token, schemas: stepInto(views, token, matches) }))
  const others = views.flatMap((view) => [
    ...patternsOf(view).map(([, schema]) => schema),
    ...[member(view, 'additionalProperties'), member(view, 'unevaluatedProperties')].filter(isObject),
  ])
  return [...parts, { token: OTHER, schemas: others }].filter(({ schemas }) => schemas.length > 0)
}
