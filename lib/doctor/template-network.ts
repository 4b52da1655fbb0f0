/** The network of a deployment's template: whom functions and Lambda's pollers reach, and who reaches them (docs/network.md). */
import { fail, skip, type Verdict, warn } from './finding.ts'

/** What somebody parsed out of JSON or YAML. */
type Node = Readonly<Record<string, unknown>>

const isNode = (value: unknown): value is Node =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
const nodeOf = (value: unknown): Node => (isNode(value) ? value : {})
const listOf = (value: unknown): readonly Node[] => (Array.isArray(value) ? value.filter(isNode) : [])

/** What functions in a VPC, or pollers on demand beside them, ask of AWS. */
const SERVICES = ['kms', 'secretsmanager', 'sts', 'lambda'] as const
const ANYWHERE = ['0.0.0.0/0', '::/0']
const HTTPS = 443

/**
 * Checks a CloudFormation or SAM template, parsed, without resolving intrinsic functions.
 * @param where the file's name, for people
 */
export function networkVerdicts(template: unknown, where: string): readonly Verdict[] {
  const resources: readonly Resource[] = Object.entries(nodeOf(nodeOf(template)['Resources'])).map(
    ([id, value]) => {
      const { Type: type, Properties: properties } = nodeOf(value)
      return { id, type, properties: nodeOf(properties) }
    },
  )
  const ofType = (type: string) => resources.filter((one) => one.type === type)
  const faults: Verdict[] = []
  const fault = (id: string, what: string, fix: string): void =>
    void faults.push(fail(`${where}: ${id}: ${what}`, fix))
  const gates = resources.filter(
    ({ properties }) => environmentOf(properties)['SEALGATE_CHANNELS'] !== undefined,
  )
  for (const { id, properties } of gates)
    if (listIn(properties['VpcConfig'], 'SecurityGroupIds').length === 0)
      fault(id, 'It is in no VPC: brokers would have to be public.', 'Give it VpcConfig.')
  const groups = ofType('AWS::EC2::SecurityGroup')
  for (const { id, properties } of groups) {
    for (const rule of listOf(properties['SecurityGroupIngress']))
      if (isAnywhere(rule)) fault(id, 'It lets in whoever comes.', 'Name the security group that may.')
    for (const rule of listOf(properties['SecurityGroupEgress']))
      if (isAnywhere(rule) && !isPort(rule, HTTPS))
        fault(id, 'It lets out to anywhere, by more than 443.', "Name the brokers' security group and port.")
    if (
      gates.some(({ properties: gate }) => mentions(gate['VpcConfig'], id)) &&
      !('SecurityGroupEgress' in properties)
    )
      fault(id, 'It lets out to anywhere: no egress is named.', "Name the brokers' security group and port.")
  }
  const ingress = ofType('AWS::EC2::SecurityGroupIngress')
  for (const { id, properties } of ingress)
    if (isAnywhere(properties)) fault(id, 'It lets in whoever comes.', 'Name the security group that may.')
  const egress = [
    ...groups.flatMap(({ properties }) => listOf(properties['SecurityGroupEgress'])),
    ...ofType('AWS::EC2::SecurityGroupEgress').map(({ properties }) => properties),
  ]
  const hasNat = egress.some((rule) => isAnywhere(rule) && isPort(rule, HTTPS))
  const endpoints = ofType('AWS::EC2::VPCEndpoint').map(({ properties }) => properties)
  const reaches = (service: string): boolean =>
    hasNat || endpoints.some((one) => JSON.stringify(one['ServiceName'] ?? '').includes(`.${service}"`))
  const told = (what: string, fix: string): void => void faults.push(skip(`${where}: network: ${what}`, fix))
  const missing = SERVICES.filter((service) => !reaches(service))
  // A way out to a group, or a prefix list, of somebody else's: what is there no template tells.
  const given = egress.find((rule) => isPort(rule, HTTPS) && isGivenGroup(rule))
  if (given !== undefined && missing.length > 0)
    told(
      `It makes no endpoint for ${missing.join(', ')}, and has a way to ${String(given['DestinationSecurityGroupId'])}.`,
      'See that the VPC has them, in that group and with private DNS: aws ec2 describe-vpc-endpoints.',
    )
  else
    for (const service of missing)
      fault('network', `There is no way to ${service}.`, 'Add an interface endpoint for it, or a NAT.')
  if (gates.some(({ properties }) => isInS3(properties)) && !reaches('s3')) {
    if (egress.some((rule) => isPort(rule, HTTPS) && 'DestinationPrefixListId' in rule))
      told(
        'It makes no endpoint for S3, and has a way to its prefix list.',
        "See that the subnets' route tables have one: aws ec2 describe-vpc-endpoints.",
      )
    else
      fault(
        'network',
        'There is no way to S3, where the key directory is.',
        'Add a gateway endpoint, or a NAT.',
      )
  }
  return [...faults, ...pollerVerdicts(resources, where)]
}

interface Resource {
  readonly id: string
  readonly type: unknown
  readonly properties: Node
}

/** Whether anything lets Lambda's pollers come by, wherever they stand. */
function pollerVerdicts(resources: readonly Resource[], where: string): readonly Verdict[] {
  const ofType = (type: string) => resources.filter((one) => one.type === type)
  const rules: readonly Rule[] = [
    ...ofType('AWS::EC2::SecurityGroupIngress').map(({ properties }) => ({
      ...{ rule: properties, into: groupOf(properties['GroupId']) },
    })),
    ...ofType('AWS::EC2::SecurityGroup').flatMap(({ id, properties }) =>
      listOf(properties['SecurityGroupIngress']).map((rule) => ({ rule, into: id })),
    ),
  ]
  const ways = ofType('AWS::EC2::VPCEndpoint').flatMap(({ properties }) =>
    listIn(properties, 'SecurityGroupIds').map(groupOf),
  )
  const mappings = ofType('AWS::Lambda::EventSourceMapping')
  const own = mappings.filter(({ properties }) => 'SelfManagedEventSource' in properties)
  const ofMsk = mappings.filter((one) => !own.includes(one))
  const found = own.flatMap((one) => ownPollers(one, resources, rules, ways, where))
  // All mappings of a deployment stand in one place: what is wrong there is said once.
  const once = found.filter((one, at) => found.findIndex(({ message }) => message === one.message) === at)
  return own.length > 0 && ofMsk.length === 0 ? once : [...once, ...mskPollers(ofMsk, rules, ways, where)]
}

interface Rule {
  readonly rule: Node
  readonly into: string | undefined
}
type Groups = readonly (string | undefined)[]

const missing = (where: string, way: string, fix: string): Verdict =>
  warn(`${where}: nothing in it lets Lambda's pollers reach ${way}.`, `${fix}, unless somebody else has.`)
const sourceOf = ({ SourceSecurityGroupId: source }: Node): string | undefined => groupOf(source)
const isOnDemand = ({ properties }: Resource): boolean => !isNode(properties['ProvisionedPollerConfig'])

/** Whether those of these groups come into each of the endpoints'. */
const isLetIn = (rules: readonly Rule[], ways: Groups, pollers: readonly string[]): boolean =>
  ways.every((way) =>
    rules.some(({ rule, into }) => {
      const source = sourceOf(rule)
      const isTheirs = source === undefined ? 'CidrIp' in rule : pollers.includes(source)
      return into === way && isPort(rule, HTTPS) && isTheirs
    }),
  )

/** MSK's stand in the brokers' subnets, with the brokers' own security group. */
function mskPollers(
  mappings: readonly Resource[],
  rules: readonly Rule[],
  ways: Groups,
  where: string,
): readonly Verdict[] {
  const brokers = rules.flatMap(({ rule, into }) =>
    into !== undefined && into === sourceOf(rule) ? [into] : [],
  )
  if (brokers.length === 0)
    return [
      missing(
        where,
        'the brokers, whose own security group they have',
        "Let that group in from itself at the brokers' port (pollerRules)",
      ),
    ]
  return mappings.some(isOnDemand) && !isLetIn(rules, ways, brokers)
    ? [missing(where, 'the endpoints', "Let the brokers' group into the endpoints' at 443 (pollerRules)")]
    : []
}

/** Those of a self-managed cluster stand where their mapping says. */
function ownPollers(
  mapping: Resource,
  resources: readonly Resource[],
  rules: readonly Rule[],
  ways: Groups,
  where: string,
): readonly Verdict[] {
  const places = listOf(mapping.properties['SourceAccessConfigurations'])
  const uris = (type: string) => places.filter((one) => one['Type'] === type).map(({ URI }) => URI)
  if (uris('VPC_SUBNET').length === 0 || uris('VPC_SECURITY_GROUP').length === 0)
    return [
      fail(
        `${where}: ${mapping.id}: Its pollers are in no VPC: brokers would have to be public.`,
        'Name VPC_SUBNET and VPC_SECURITY_GROUP in its SourceAccessConfigurations.',
      ),
    ]
  const pollers = uris('VPC_SECURITY_GROUP').flatMap((uri) => placedGroup(uri) ?? [])
  const made = resources.filter(({ id, type }) => type === 'AWS::EC2::SecurityGroup' && pollers.includes(id))
  const open = made
    .filter(({ properties }) => !('SecurityGroupEgress' in properties))
    .map(({ id }) =>
      fail(
        `${where}: ${id}: It lets out to anywhere: no egress is named.`,
        "Name the brokers' security group and port.",
      ),
    )
  const isLetOut = (to: string | undefined): boolean =>
    made.length === 0 ||
    made.some(({ properties }) =>
      listOf(properties['SecurityGroupEgress']).some(
        ({ DestinationSecurityGroupId: group }) => groupOf(group) === to,
      ),
    )
  const isAtBrokers = rules.some(
    ({ rule, into }) =>
      pollers.includes(sourceOf(rule) ?? '') &&
      !isPort(rule, HTTPS) &&
      !ways.includes(into) &&
      isLetOut(into),
  )
  return [
    ...open,
    ...(isAtBrokers || open.length > 0
      ? []
      : [missing(where, 'the brokers', "Let their security group out, and into the brokers' at their port")]),
    ...(isOnDemand(mapping) && !isLetIn(rules, ways, pollers)
      ? [missing(where, 'the endpoints', "Let the pollers' group into the endpoints' at 443")]
      : []),
  ]
}

/** `security_group:sg-…`, or the same of one that the template makes. */
const placedGroup = (uri: unknown): string | undefined =>
  /security_group:(?:\$\{)?([\w-]+)/.exec(JSON.stringify(uri ?? ''))?.[1]

/** A security group by its id, or its logical id. */
function groupOf(value: unknown): string | undefined {
  if (typeof value === 'string') return value
  const { Ref: id, 'Fn::GetAtt': attribute } = nodeOf(value)
  const name: unknown = id ?? (Array.isArray(attribute) ? attribute[0] : attribute)
  return typeof name === 'string' ? name.replace(/\.GroupId$/, '') : undefined
}

const environmentOf = (properties: Node): Node => nodeOf(nodeOf(properties['Environment'])['Variables'])

const listIn = (value: unknown, name: string): readonly unknown[] => {
  const list = nodeOf(value)[name]
  return Array.isArray(list) ? list : []
}

const isInS3 = (properties: Node): boolean =>
  JSON.stringify(environmentOf(properties)['SEALGATE_DIRECTORY'] ?? '').includes('s3://')

const mentions = (value: unknown, id: string): boolean =>
  new RegExp(`(^|[^A-Za-z0-9])${id}([^A-Za-z0-9]|$)`).test(JSON.stringify(value ?? ''))

const isAnywhere = ({ CidrIp: four, CidrIpv6: six }: Node): boolean =>
  ANYWHERE.some((net) => net === four || net === six)

const isGivenGroup = ({ DestinationSecurityGroupId: group }: Node): boolean =>
  typeof group === 'string' && group.startsWith('sg-')

const isPort = ({ FromPort: from, ToPort: to }: Node, port: number): boolean => from === port && to === port
