/** What of a deployment's template would lose records or stop them: whatever its tool, its mappings against its functions. */
import type { Fault } from './errors.ts'

/** What somebody parsed out of JSON or YAML. */
type Node = Readonly<Record<string, unknown>>

const isNode = (value: unknown): value is Node =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
const nodeOf = (value: unknown): Node => (isNode(value) ? value : {})

/** Lambda's limit for functions of Kafka event source mappings. */
const MAX_SECONDS = 840
const RUNTIMES = ['nodejs24.x', 'nodejs22.x']
const ANSWERS = 'ReportBatchItemFailures'
const FROM_FIRST = 'TRIM_HORIZON'
const FUNCTION_TYPES = ['AWS::Lambda::Function', 'AWS::Serverless::Function']
const SAM_EVENTS = ['MSK', 'SelfManagedKafka']
/** As somebody: of a self-managed cluster this must be said, MSK's may be by IAM. */
const LOGINS = ['SASL_SCRAM_512_AUTH', 'SASL_SCRAM_256_AUTH', 'BASIC_AUTH', 'CLIENT_CERTIFICATE_TLS_AUTH']

/**
 * Checks the gates of a CloudFormation or SAM template (the functions with a `SEALGATE_CHANNELS`), parsed. The texts of
 * intrinsic functions are not resolved: a gate's failure mode must stand there as itself.
 * @param where the file's name, for the faults
 */
export function templateFaults(template: unknown, where: string): readonly Fault[] {
  const globals = nodeOf(nodeOf(nodeOf(template)['Globals'])['Function'])
  const resources = Object.entries(nodeOf(nodeOf(template)['Resources'])).map(
    ([id, resource]) => [id, nodeOf(resource)] as const,
  )
  const gates = resources.filter(([, { Type, Properties }]) => isFunction(Type) && isGate(nodeOf(Properties)))
  if (gates.length === 0)
    return [{ where, what: 'It has no ingest function.', fix: 'Name a compiled template of this project.' }]
  return gates.flatMap(([id, { Properties }]) => {
    const properties = { ...globals, ...nodeOf(Properties) }
    const mappings = [...mappingsOf(id, properties, resources), ...eventsOf(id, properties)]
    return [
      ...functionFaults(properties, `${where}: ${id}`),
      ...(mappings.length === 0
        ? [
            {
              where: `${where}: ${id}`,
              what: 'No event source mapping calls it.',
              fix: 'Give it one a topic.',
            },
          ]
        : []),
      ...mappings.flatMap(({ name, mapping }) =>
        mappingFaults(mapping, environmentOf(properties), `${where}: ${name}`),
      ),
    ]
  })
}

const isFunction = (type: unknown): boolean => FUNCTION_TYPES.some((known) => known === type)
const environmentOf = (properties: Node): Node => nodeOf(nodeOf(properties['Environment'])['Variables'])
const isGate = (properties: Node): boolean => 'SEALGATE_CHANNELS' in environmentOf(properties)

interface NamedMapping {
  readonly name: string
  readonly mapping: Node
}

/** Those that name it by its logical id, or by its own name: alone, or as part of an ARN. */
function mappingsOf(
  id: string,
  { FunctionName: own }: Node,
  resources: readonly (readonly [string, Node])[],
): NamedMapping[] {
  const byId = new RegExp(`(^|[^A-Za-z0-9])${id}([^A-Za-z0-9]|$)`)
  const isName = (text: unknown): boolean =>
    typeof own === 'string' && typeof text === 'string' && text.split(':').includes(own)
  return resources
    .filter(([, { Type }]) => Type === 'AWS::Lambda::EventSourceMapping')
    .map(([name, { Properties }]) => ({ name, mapping: nodeOf(Properties) }))
    .filter(({ mapping: { FunctionName: target } }) => {
      const texts = textsIn(target)
      return texts.some(isName) || texts.some((text) => byId.test(text))
    })
}

/** Every text in what an intrinsic function is made of. */
const textsIn = (value: unknown): readonly string[] =>
  typeof value === 'string'
    ? [value]
    : Array.isArray(value)
      ? value.flatMap(textsIn)
      : Object.values(nodeOf(value)).flatMap(textsIn)

/** SAM's short form. */
const eventsOf = (id: string, properties: Node): NamedMapping[] =>
  Object.entries(nodeOf(properties['Events']))
    .map(([name, event]) => ({ name: `${id}.${name}`, event: nodeOf(event) }))
    .filter(({ event }) => SAM_EVENTS.some((known) => known === event['Type']))
    .map(({ name, event }) => ({ name, mapping: nodeOf(event['Properties']) }))

function functionFaults(properties: Node, where: string): Fault[] {
  const faults: Fault[] = []
  const { Timeout: timeout, Runtime: runtime } = properties
  if (typeof timeout !== 'number' || timeout > MAX_SECONDS)
    faults.push({
      where,
      what: 'Lambda lets a function of a Kafka mapping run for 14 minutes at most.',
      fix: `Set a Timeout up to ${MAX_SECONDS}.`,
    })
  const transaction = Number(environmentOf(properties)['SEALGATE_KAFKA_TRANSACTION_TIMEOUT_MS'] ?? 15_000)
  if (typeof timeout === 'number' && !(timeout * 1000 > transaction))
    faults.push({
      where,
      what: 'It ends before a dead holder’s transaction does, and would never take a partition over.',
      fix: 'Set a Timeout well above SEALGATE_KAFKA_TRANSACTION_TIMEOUT_MS.',
    })
  if (!RUNTIMES.some((known) => known === runtime))
    faults.push({ where, what: 'Its runtime is none that it runs on.', fix: `Set ${RUNTIMES.join(' or ')}.` })
  return faults
}

function mappingFaults(mapping: Node, environment: Node, where: string): Fault[] {
  const faults: Fault[] = []
  const fault = (what: string, fix: string): void => void faults.push({ where, what, fix })
  const types: unknown = mapping['FunctionResponseTypes'] ?? []
  if (!Array.isArray(types))
    fault(
      'What answers it expects cannot be known: its FunctionResponseTypes are no list.',
      'Write them out.',
    )
  const expects = Array.isArray(types) && types.some((type) => type === ANSWERS)
  const mode = environment['SEALGATE_FAILURE_MODE'] ?? 'throw'
  const answers = environment['SEALGATE_MAPPING_ANSWERS'] ?? (mode === 'partial' ? undefined : 'none')
  if (expects !== (mode === 'partial'))
    fault(
      `The function's failure mode is ${text(mode)}, and the mapping ${expects ? 'expects' : 'expects no'} partial answers: records would be lost, or tried for ever.`,
      'Set failureMode of the stage, which sets both.',
    )
  if (answers !== (expects ? ANSWERS : 'none'))
    fault(
      'SEALGATE_MAPPING_ANSWERS says otherwise than its FunctionResponseTypes.',
      'Set failureMode of the stage, which sets both.',
    )
  const isProvisioned = isNode(mapping['ProvisionedPollerConfig'])
  for (const name of ['MaximumRetryAttempts', 'MaximumRecordAgeInSeconds']) {
    const value = mapping[name]
    if (value !== -1 && (value !== undefined || isProvisioned))
      fault(`${name} is not −1: Lambda would drop what the gate has not decided.`, 'Set −1, without end.')
  }
  if (expects && !isProvisioned)
    fault('Pollers on demand take no partial answers.', 'Set ProvisionedPollerConfig, or throw.')
  if ('DestinationConfig' in mapping)
    fault('With a destination Lambda gives records up after ten retries.', 'Take DestinationConfig out.')
  const { StartingPosition: start = FROM_FIRST } = mapping
  if (start !== FROM_FIRST)
    fault(
      `It starts at ${text(start)}: what is there already no gate decides, and no audit tells of.`,
      `Set StartingPosition: ${FROM_FIRST}; what has been decided the gate passes over.`,
    )
  if (isOwnCluster(mapping) && !LOGINS.some((login) => accessTypes(mapping).includes(login)))
    fault(
      'Its pollers log in as nobody: brokers that let them in let everybody in.',
      `Name one of ${LOGINS.join(', ')} in its SourceAccessConfigurations.`,
    )
  if (isQueue(mapping))
    fault(
      'As a queue Lambda hands records over in no order, and the gate decides a partition in its order.',
      'Take ConsumptionMode out.',
    )
  if ('FilterCriteria' in mapping)
    fault('What a filter leaves out no gate decides, and no audit tells of.', 'Take FilterCriteria out.')
  return faults
}

/** In CloudFormation's words, and SAM's. */
const isOwnCluster = (mapping: Node): boolean =>
  'SelfManagedEventSource' in mapping || 'KafkaBootstrapServers' in mapping

const accessTypes = ({ SourceAccessConfigurations: list }: Node): readonly unknown[] =>
  Array.isArray(list) ? list.map((one) => nodeOf(one)['Type']) : []

const isQueue = (mapping: Node): boolean =>
  [
    mapping,
    nodeOf(mapping['SelfManagedKafkaEventSourceConfig']),
    nodeOf(mapping['AmazonManagedKafkaEventSourceConfig']),
  ].some(({ ConsumptionMode: mode = 'Stream' }) => mode !== 'Stream')

const text = (value: unknown): string => (typeof value === 'string' ? value : 'not told')
