/** Words of CloudFormation templates. */

/** Anything that stands in a template. */
export type Value = string | number | boolean | readonly Value[] | { readonly [name: string]: Value }
export type Values = Readonly<Record<string, Value>>

export interface Resource {
  readonly Type: string
  readonly Properties: Values
  readonly DependsOn?: readonly string[]
  readonly DeletionPolicy?: 'Retain'
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

/** For what holds the only copy of something: it outlives the stack. */
export const RETAINED = { DeletionPolicy: 'Retain', UpdateReplacePolicy: 'Retain' } as const

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
