/** Whether two compiled templates deploy the same. What the tools write differently stands here by name, and nothing else may. */
import { listOf, nodeOf, resourcesIn, type Node } from './compiled.ts'

/** Where osls keeps packages: SAM has a stack of its own for that. */
const TOOLS_OWN = ['ServerlessDeploymentBucket', 'ServerlessDeploymentBucketPolicy']
/** Each tool names these itself. */
const NAMED_BY_TOOLS = ['AWS::Events::Rule', 'AWS::Lambda::Permission', 'AWS::Lambda::Url']

/** What one has and the other has not, as texts; empty where they agree. */
export function differences(one: unknown, other: unknown): readonly string[] {
  const [first, second] = [deployed(one), deployed(other)]
  const missing = (from: ReadonlyMap<string, string>, of: ReadonlyMap<string, string>, sign: string) =>
    [...from].filter(([id, text]) => of.get(id) !== text).map(([id, text]) => `${sign} ${id} ${text}`)
  return [...missing(first, second, '-'), ...missing(second, first, '+')].sort()
}

/** Every resource as a text, in order, by its name. */
function deployed(template: unknown): ReadonlyMap<string, string> {
  const rows = resourcesIn(template)
    .filter(({ id }) => !TOOLS_OWN.includes(id))
    .map(({ id, type, properties }) => {
      const text = JSON.stringify(sorted(common(type, properties)))
      return [NAMED_BY_TOOLS.includes(type) ? `${type} ${text}` : `${type} ${id}`, text] as const
    })
  return new Map(rows)
}

function common(type: string, properties: Node): Node {
  switch (type) {
    case 'AWS::Lambda::Function': {
      const { Code, Tags, ...rest } = properties
      const code = String(nodeOf(Code)['S3Key']).split('/').at(-1)
      return { ...rest, Code: code, tagged: listOf(Tags).every((tag) => nodeOf(tag)['Value'] === 'SAM') }
    }
    case 'AWS::Events::Rule':
      return {
        ScheduleExpression: properties['ScheduleExpression'],
        isOn: (properties['State'] ?? 'ENABLED') === 'ENABLED',
        targets: listOf(properties['Targets']).map((target) => nodeOf(target)['Arn']),
      }
    case 'AWS::Lambda::Permission':
      return 'SourceArn' in properties ? { ...properties, SourceArn: 'the schedule' } : properties
    default:
      return properties
  }
}

/** Names in order, and a function by its name wherever its ARN stands. */
function sorted(value: unknown): unknown {
  if (typeof value === 'string') return value.replace(/^(Ingest|Rotate|Keys)\.Arn$/, '$1')
  if (Array.isArray(value)) return value.map(sorted)
  if (typeof value !== 'object' || value === null) return value
  const entries = Object.entries(value).sort(([a], [b]) => (a < b ? -1 : 1))
  return Object.fromEntries(entries.map(([name, one]) => [name, sorted(one)]))
}
