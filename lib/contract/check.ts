/** What is wrong with a contract beyond its shape, and with contracts beside one another (contracts.md, `check`). */
import { checkSchema, impossibleFields } from './check-schema.ts'
import {
  channelOf,
  parseTreatment,
  secondsOf,
  type ContractFile,
  type Finding,
  type RouteFile,
} from './contract-file.ts'
import { costFault, isSmall, MAX_EVALUATIONS } from './cost.ts'
import { deriveSchema } from './derive.ts'
import { MAX_FIELDS, fieldsOf, type Field } from './fields.ts'
import { member } from './json.ts'
import { compileFault, matches } from './schema.ts'
import {
  namesOf,
  pointerOf,
  stepInto,
  tokensOf,
  typesOf,
  viewsOf,
  type JsonType,
  type Schema,
} from './shape.ts'
import { DROP, planOf, typeAfter, type Plan, type Treatment } from './treatments.ts'

/** Every finding in one contract. */
export function checkContract(file: ContractFile): Finding[] {
  const dear = costFinding(file)
  // Alone: whatever else goes through such a schema might not come to an end either.
  if (dear !== undefined) return [dear]
  const findings = checkSchema(file.schema, file.assertFormats === true).map((finding): Finding => ({
    ...finding,
    path: ['schema', ...finding.path],
  }))
  const isSound = findings.length === 0
  if (isSound)
    for (const finding of impossibleFields(file.schema))
      findings.push({ ...finding, path: ['schema', ...finding.path] })
  const fields = fieldsOf(file.schema)
  if (file.subject !== undefined) findings.push(...checkPointer(file.schema, file.subject, ['subject']))
  findings.push(...loweredClassifications(fields))
  const routes = Object.entries(file.consume ?? {})
  const root = typesOf(file.schema, file.schema)
  if (routes.length > 0 && !root.has('object'))
    findings.push({
      path: ['schema'],
      what: 'Only an object can be passed on to consumers.',
      fix: 'Write type: object.',
    })
  const plans = new Map<string, Plan>()
  for (const [consumer, route] of routes) {
    const parsed = readTreatments(file.schema, consumer, route)
    findings.push(...parsed.findings)
    const plan = planOf(parsed.treatments)
    plans.set(consumer, plan)
    findings.push(...checkRoute(file, consumer, route, plan))
    if (isSound) findings.push(...checkDerived(file, consumer, plan))
  }
  if (plans.size > 0) findings.push(...unnamedFields(fields, [...plans.values()]))
  if (file.owner === undefined)
    findings.push({
      path: [],
      what: 'The contract names no owner.',
      fix: 'Add owner: TEAM, for whoever finds its events in quarantine.',
      warning: true,
    })
  return findings
}

/**
 * What may cost too much to judge a payload by, or what a consumer gets of one: asked of contracts that have been built
 * too, so quick where a schema is small.
 */
export function checkCost(file: ContractFile): Finding[] {
  // What a treatment makes of a schema has a few parts for each of its own.
  if (isSmall(file.schema, MAX_EVALUATIONS / 8)) return []
  const dear = costFinding(file)
  if (dear !== undefined) return [dear]
  return Object.entries(file.consume ?? {}).flatMap(([consumer, route]) =>
    derivedCost(consumer, deriveSchema(file.schema, planOf(treatmentsOf(route)))),
  )
}

function costFinding(file: ContractFile): Finding | undefined {
  const dear = costFault(file.schema)
  return dear === undefined ? undefined : { ...dear, path: ['schema', ...dear.path] }
}

/** A treatment may take away what tells alternatives apart. */
function derivedCost(consumer: string, derived: Schema): Finding[] {
  if (costFault(derived) === undefined) return []
  return [
    {
      path: ['consume', consumer],
      what: `The schema of what ${consumer} gets would judge one value too often: its alternatives are not told apart any more.`,
      fix: 'Pass or drop what refers to itself as a whole.',
    },
  ]
}

/** A route's treatments by their pointers' tokens; both parse in a contract that `checkContract` has no fault in. */
export function treatmentsOf(route: RouteFile): (readonly [readonly string[], Treatment])[] {
  return Object.entries(route.treatments ?? {}).flatMap(([pointer, value]) => {
    const tokens = tokensOf(pointer)
    const treatment = parseTreatment(value)
    return tokens !== undefined && 'kind' in treatment ? [[tokens, treatment] as const] : []
  })
}

function readTreatments(
  schema: Schema,
  consumer: string,
  route: RouteFile,
): { treatments: ReturnType<typeof treatmentsOf>; findings: Finding[] } {
  const findings: Finding[] = []
  for (const [pointer, value] of Object.entries(route.treatments ?? {})) {
    const path = ['consume', consumer, 'treatments', pointer]
    findings.push(...checkPointer(schema, pointer, path))
    const treatment = parseTreatment(value)
    if (!('kind' in treatment)) findings.push({ path, ...treatment })
  }
  return { treatments: treatmentsOf(route), findings }
}

/** Does the schema have a field there, in one of its branches? */
function checkPointer(root: Schema, pointer: string, path: readonly string[]): Finding[] {
  const tokens = tokensOf(pointer)
  if (tokens === undefined)
    return [{ path, what: `${pointer} is not a JSON Pointer.`, fix: 'Write it like /customer/id.' }]
  let schemas: Schema[] = [root]
  for (const [index, token] of tokens.entries()) {
    const views = viewsOf(root, schemas)
    if (token === '*' && views.some((view) => member(view, 'prefixItems') !== undefined))
      return [
        {
          path,
          what: `The items of ${pointerOf(tokens.slice(0, index))} differ by place (prefixItems).`,
          fix: 'Treat the array as a whole.',
        },
      ]
    const mayBeObject = schemas.some((schema) => typesOf(root, schema).has('object'))
    schemas = stepInto(views, token, matches)
    if (token === '*' && mayBeObject && schemas.length > 0 && !namesOf(views).includes('*'))
      return [
        {
          path,
          what: `${pointerOf(tokens.slice(0, index)) || 'The payload'} may be an object, and * stands for the items of an array only.`,
          fix: 'Say type: array in the schema, or treat it as a whole.',
        },
      ]
    if (schemas.length > 0) continue
    const above = tokens.slice(0, index)
    const there = [
      ...namesOf(views).map((name) => [...above, name]),
      ...(stepInto(views, '*', matches).length > 0 ? [[...above, '*']] : []),
    ]
    const fix =
      there.length > 0
        ? `There: ${there.map(pointerOf).join(', ')}.`
        : 'Name what it is in as a whole, or describe it in the schema.'
    return [{ path, what: `The schema has no field ${pointerOf(tokens.slice(0, index + 1))}.`, fix }]
  }
  return []
}

function checkRoute(file: ContractFile, consumer: string, route: RouteFile, plan: Plan): Finding[] {
  const at = ['consume', consumer]
  const findings = new Map<string, Finding>()
  // The first at a place: what holds for an object need not be said again for all that is in it.
  const add = (finding: Finding): void => {
    const key = pointerOf(finding.path)
    if (!findings.has(key)) findings.set(key, finding)
  }
  const channel = channelOf(route, file.type)
  if (!/^[a-zA-Z0-9._-]{1,249}$/.test(channel))
    add({
      path: [...at, 'to'],
      what: `"${channel}" cannot be the name of a channel.`,
      fix: 'Use letters, digits, points, _ and -, 249 at most; or give the channel itself.',
    })
  if (route.life !== undefined && secondsOf(route.life) > 86_400)
    add({
      path: [...at, 'life'],
      what: 'A sealed event is good for a day at most.',
      fix: 'Write 1d or less.',
    })
  const fields = fieldsOf(file.schema, plan)
  if (fields.length >= MAX_FIELDS)
    add({
      path: ['schema'],
      what: `The schema comes to over ${MAX_FIELDS} fields.`,
      fix: 'Describe parts of it as plain objects.',
    })
  for (const field of fields) {
    const path = [...at, 'treatments', ...coveredBy(route, field)]
    const name = pointerOf(field.tokens) || 'the payload'
    if (route.form === 'plain' && field.treatment.kind === 'pass' && field.classification !== undefined)
      add({
        path,
        what: `${name} is classified (${field.classification}) and would pass in clear.`,
        fix: 'Drop or generalise it, or make the route form: sealed.',
      })
    checkFit(field, name, path).forEach(add)
  }
  if (route.partitionBy !== undefined)
    checkKey(file.schema, route.partitionBy, fields, [...at, 'partitionBy']).forEach(add)
  if (fields.every((field) => field.treatment.kind === 'drop'))
    add({
      path: at,
      what: `${consumer} gets nothing of the payload.`,
      fix: 'Name the fields it may see under treatments.',
      warning: true,
    })
  return [...findings.values()]
}

/** A derived schema is compiled at its first use: that it will is proven here. */
function checkDerived(file: ContractFile, consumer: string, plan: Plan): Finding[] {
  const derived = deriveSchema(file.schema, plan)
  const dear = derivedCost(consumer, derived)
  if (dear.length > 0) return dear
  const fault = compileFault(derived, file.assertFormats === true)
  if (fault === undefined) return []
  const what = `The schema of what ${consumer} gets does not compile: ${fault}.`
  return [{ path: ['consume', consumer], what, fix: 'Write the payload schema more plainly.' }]
}

/** The pointer, as the route writes it, of the treatment that says what happens to a field. */
function coveredBy(route: RouteFile, field: Field): string[] {
  for (let length = field.tokens.length; length >= 0; length--) {
    const pointer = pointerOf(field.tokens.slice(0, length))
    if (Object.hasOwn(route.treatments ?? {}, pointer)) return [pointer]
  }
  return []
}

/** Could the treatment do anything with the values that may be there? */
function checkFit(field: Field, name: string, path: readonly string[]): Finding[] {
  const { treatment } = field
  const scalars = [...field.types].filter((type) => type !== 'null' && type !== 'object' && type !== 'array')
  if (treatment.kind === 'drop' || scalars.length === 0) return []
  const misfits = scalars.filter((type) => typeAfter(treatment, type) === undefined)
  if (misfits.length === scalars.length)
    return [
      {
        path,
        what: `${treatment.kind} does not fit ${name}, which is ${scalars.join(' or ')}.`,
        fix: FITS[treatment.kind] ?? 'Use another treatment.',
      },
    ]
  if (misfits.length === 0) return []
  return [
    {
      path,
      what: `${treatment.kind} drops ${name} where it is ${misfits.join(' or ')}.`,
      fix: 'Narrow its type in the schema.',
      warning: true,
    },
  ]
}

const FITS: Readonly<Partial<Record<Treatment['kind'], string>>> = {
  mask: 'mask is for strings.',
  keep: 'keep is for strings.',
  date: 'date is for strings that begin with a date.',
  round: 'round is for numbers.',
  pseudonym: 'pseudonym is for strings and integers.',
}

function checkKey(
  root: Schema,
  pointer: string,
  fields: readonly Field[],
  path: readonly string[],
): Finding[] {
  const missing = checkPointer(root, pointer, path)
  if (missing.length > 0) return missing
  const tokens = tokensOf(pointer) ?? []
  if (tokens.includes('*'))
    return [
      { path, what: 'An output has one key, not one for each item.', fix: 'Name a field outside of arrays.' },
    ]
  const field = fields.find((one) => pointerOf(one.tokens) === pointer)
  const treatment = field?.treatment ?? DROP
  if (field === undefined || treatment.kind === 'drop')
    return [
      {
        path,
        what: `${pointer} is not part of what this consumer gets.`,
        fix: 'Give it a treatment, or take another field.',
      },
    ]
  const types = [...field.types].flatMap((type) => typeAfter(treatment, type) ?? [])
  if (types.every((type) => KEYS.includes(type))) return []
  return [
    {
      path,
      what: `${pointer} may be other than a string or number.`,
      fix: 'Take a field whose type is string, integer or number.',
    },
  ]
}

/** A null makes a null key. */
const KEYS: readonly JsonType[] = ['string', 'number', 'integer', 'null']

function loweredClassifications(fields: readonly Field[]): Finding[] {
  return fields
    .filter((field) => field.classificationAbove === 'sensitive' && field.classification !== 'sensitive')
    .map((field) => ({
      path: ['schema'],
      what: `${pointerOf(field.tokens)} is in something sensitive, and marked ${String(field.classification)}.`,
      fix: 'A classification holds for all that is inside: move the field out, or take its mark off.',
    }))
}

/** Classified fields of which no consumer's treatments speak: they drop, which may be an oversight. */
function unnamedFields(fields: readonly Field[], plans: readonly Plan[]): Finding[] {
  const isNamed = (field: Field): boolean => plans.some((plan) => coveringPlan(plan, field.tokens))
  const names = fields
    .filter((field) => field.isLeaf && field.classification !== undefined && !isNamed(field))
    .map((field) => pointerOf(field.tokens))
  if (names.length === 0) return []
  return [
    {
      path: ['consume'],
      what: `No consumer's treatments speak of ${names.join(', ')} (classified): dropped for all.`,
      fix: 'Write drop where that is meant.',
      warning: true,
    },
  ]
}

function coveringPlan(plan: Plan, tokens: readonly string[]): boolean {
  let place: Plan | undefined = plan
  if (place.own !== undefined) return true
  for (const token of tokens) {
    place = place.members.get(token)
    if (place === undefined) return false
    if (place.own !== undefined) return true
  }
  return false
}
