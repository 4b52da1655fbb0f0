/** AWS's way to decide by policies, as far as our templates use it. What it does not know it throws at. */
import { type CompiledResource, listOf, type Node, nodeOf } from './compiled.ts'

export interface Request {
  /** Role, as the policies name it. */
  readonly principal: string
  readonly action: string
  readonly resource: string
  readonly context: Readonly<Record<string, readonly string[]>>
}

const statementsOf = (document: unknown): readonly Node[] =>
  listOf(nodeOf(document)['Statement']).map((statement) => nodeOf(statement))

/** A function's own rights: of the policies that name its role. */
export const identityOf = (role: string, policies: readonly CompiledResource[]): readonly Node[] =>
  policies
    .filter(({ properties }) => listOf(properties['Roles']).includes(role))
    .flatMap(({ properties }) => statementsOf(properties['PolicyDocument']))

/**
 * Whether a role of the key's own account may do something with a key: the key's policy must let it, or let the account
 * decide (its root) and the role's own policy let it. A Deny in either counts more.
 */
export function mayUseKey(
  request: Request,
  keyPolicy: unknown,
  identity: readonly Node[],
  root: string,
): boolean {
  const own = statementsOf(keyPolicy).filter((statement) => isAbout(request, statement, 'key policy'))
  const mine = identity.filter((statement) => isAbout(request, statement, 'identity'))
  const named = (statement: Node, principal: string): boolean => {
    const { Principal } = statement
    return (
      Principal === '*' || listOf(nodeOf(Principal)['AWS']).some((one) => one === principal || one === '*')
    )
  }
  const about = own.filter((statement) => named(statement, request.principal) || named(statement, root))
  if ([...about, ...mine].some(({ Effect }) => Effect === 'Deny')) return false
  if (about.some((statement) => named(statement, request.principal))) return true
  return about.length > 0 && mine.length > 0
}

/** Whether a role may do something by its own policy alone. */
export function mayByIdentity(request: Request, identity: readonly Node[]): boolean {
  const mine = identity.filter((statement) => isAbout(request, statement, 'identity'))
  return mine.length > 0 && mine.every(({ Effect }) => Effect === 'Allow')
}

function isAbout(request: Request, statement: Node, kind: 'key policy' | 'identity'): boolean {
  const { Action, Resource, Condition, Effect, ...rest } = statement
  const unknown = Object.keys(rest).filter((name) => name !== 'Principal' && name !== 'Sid')
  if (unknown.length > 0 || (Effect !== 'Allow' && Effect !== 'Deny'))
    throw new Error(`unknown: ${unknown.join()}`)
  // In a key's policy `*` is this key.
  const resources = listOf(Resource).map(String)
  return (
    listOf(Action).some((one) => matches(String(one), request.action)) &&
    (kind === 'key policy'
      ? resources.includes('*')
      : resources.some((one) => matches(one, request.resource))) &&
    Object.entries(nodeOf(Condition)).every(([operator, tests]) =>
      Object.entries(nodeOf(tests)).every(([key, values]) =>
        holds(operator, request.context[key], listOf(values).map(String)),
      ),
    )
  )
}

function matches(pattern: string, text: string): boolean {
  const parts = pattern.split('*').map((part) => part.replace(/[.+^${}()|[\]\\]/g, '\\$&'))
  return new RegExp(`^${parts.join('.*')}$`, 's').test(text)
}

function holds(operator: string, found: readonly string[] | undefined, values: readonly string[]): boolean {
  switch (operator) {
    case 'StringEquals':
    case 'ArnEquals':
    case 'Bool':
      return found?.some((one) => values.includes(one)) === true
    case 'ForAllValues:StringEquals':
      return (found ?? []).every((one) => values.includes(one))
    default:
      throw new Error(`no such operator: ${operator}`)
  }
}
