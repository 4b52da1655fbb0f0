/** Templates of CloudFormation, as tests look at them: parsed, with the logical ids that the two tools give named alike. */
import { parse } from 'yaml'

export type Node = Readonly<Record<string, unknown>>

export const isNode = (value: unknown): value is Node =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
export const nodeOf = (value: unknown): Node => (isNode(value) ? value : {})
export const listOf = (value: unknown): readonly unknown[] =>
  Array.isArray(value) ? value : value === undefined ? [] : [value]

export interface CompiledResource {
  readonly id: string
  readonly type: string
  readonly properties: Node
}

/** With every intrinsic function as a text: `Id.Attribute`. */
export function resourcesIn(template: unknown): readonly CompiledResource[] {
  return Object.entries(nodeOf(nodeOf(template)['Resources'])).map(([id, resource]) => {
    const { Type, Properties } = nodeOf(resource)
    return { id: commonId(id), type: String(Type), properties: nodeOf(named(Properties)) }
  })
}

export const ofType = (template: unknown, type: string): readonly CompiledResource[] =>
  resourcesIn(template).filter((resource) => resource.type === type)

export const parseTemplate = (text: string): unknown => parse(text) as unknown

/** `IngestLambdaFunction` (osls) and `IngestFunction` (SAM) → `Ingest`. */
const commonId = (id: string): string => id.replace(/^(Ingest|Rotate|Keys)(Lambda)?Function$/, '$1')

function named(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(named)
  if (!isNode(value)) return value
  const entries = Object.entries(value)
  const [name, content] = entries[0] ?? []
  if (entries.length === 1 && name === 'Ref') return commonId(String(content))
  if (entries.length === 1 && name === 'Fn::GetAtt') {
    const [id = '', attribute = ''] = listOf(content).map(String)
    return `${commonId(id)}.${attribute}`
  }
  if (entries.length === 1 && name === 'Fn::Sub')
    return String(content).replace(
      /\$\{(\w+)\.(\w+)\}/g,
      (_, id: string, at: string) => `${commonId(id)}.${at}`,
    )
  return Object.fromEntries(entries.map(([key, one]) => [key, named(one)]))
}
