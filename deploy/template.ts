/** Words of CloudFormation templates. */

/** Anything that stands in a template. */
export type Value = string | number | boolean | readonly Value[] | { readonly [name: string]: Value }
export type Values = Readonly<Record<string, Value>>

export interface Resource {
  readonly Type: string
  readonly Properties: Values
  readonly DependsOn?: readonly string[]
  readonly DeletionPolicy?: 'RetainExceptOnCreate'
  readonly UpdateReplacePolicy?: 'Retain'
}

/** By their logical ids. */
export type Resources = Readonly<Record<string, Resource>>

export interface Statement {
  readonly Effect: 'Allow' | 'Deny'
  readonly Action: readonly string[]
  readonly Resource: Value
  readonly Principal?: Value
  readonly Condition?: Values
}

export const ref = (id: string): Values => ({ Ref: id })
export const attribute = (id: string, name: string): Values => ({ 'Fn::GetAtt': [id, name] })

/**
 * For what holds the only copy of something: it outlives the stack. But not the deployment that made it and failed: names of
 * buckets and secrets would be taken when it is tried again.
 */
export const RETAINED = { DeletionPolicy: 'RetainExceptOnCreate', UpdateReplacePolicy: 'Retain' } as const

export const allow = (Action: readonly string[], Resource: Value, Condition?: Values): Statement => ({
  Effect: 'Allow',
  Action,
  Resource,
  ...(Condition === undefined ? {} : { Condition }),
})

export const policyDocument = (statements: readonly Statement[]): Values => ({
  Version: '2012-10-17',
  Statement: statements.map((statement): Values => ({ ...statement })),
})

/** Part of a logical id: letters and digits, each word of `name` begun with a capital. */
export const idPart = (name: string): string =>
  name
    .split(/[^A-Za-z0-9]+/)
    .map((word) => word.slice(0, 1).toUpperCase() + word.slice(1))
    .join('')

/** How long a text made of it is, spaces aside. What is known only when it is deployed counts as the longest ARN of a key there is. */
export const charactersOf = (value: Value): number =>
  JSON.stringify(value)
    .replaceAll(/\{"(Fn::GetAtt|Ref)":[^}]*\}/g, `"${'x'.repeat(100)}"`)
    .replaceAll(/\s/g, '').length
