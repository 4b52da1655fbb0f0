/** Who reaches whom: functions, Lambda's pollers, brokers, and the services of AWS. */
import { IDS, serviceName } from './functions.ts'
import {
  ENDPOINT_SERVICES,
  type EndpointService,
  givenArns,
  hasMskUsers,
  portOf,
  type Stage,
} from './stage.ts'
import {
  allow,
  attribute,
  idPart,
  policyDocument,
  type Resource,
  type Resources,
  type Statement,
  type Value,
  type Values,
} from './template.ts'

type InterfaceService = Exclude<EndpointService, 's3'>

export function networkOf(stage: Stage): Resources {
  const { network } = stage
  const port = portOf(stage)
  const functions = attribute(IDS.functionGroup, 'GroupId')
  const brokers = network.brokersSecurityGroup
  const toBrokers = { ...tcp(port), DestinationSecurityGroupId: brokers, Description: 'brokers' }
  return {
    [IDS.functionGroup]: {
      Type: 'AWS::EC2::SecurityGroup',
      Properties: {
        GroupDescription: `${serviceName(stage)}: functions`,
        VpcId: network.vpc,
        SecurityGroupEgress: [toBrokers, ...toServices(stage)],
      },
    },
    BrokersFromFunctions: ingress(brokers, functions, port, `${serviceName(stage)}: functions`),
    ...(stage.cluster.arn === undefined
      ? ownPollers(stage, port)
      : network.pollerRules === 'create'
        ? mskPollerRules(stage, port)
        : {}),
    ...(network.ways === 'endpoints' ? endpoints(stage, functions) : {}),
  }
}

/** In a rule's description EC2 takes no apostrophe. */
const POLLERS = 'pollers of Lambda'

const tcp = (port: number): Values => ({ IpProtocol: 'tcp', FromPort: port, ToPort: port })

const ingress = (group: Value, source: Value, port: number, description: string): Resource => ({
  Type: 'AWS::EC2::SecurityGroupIngress',
  Properties: { GroupId: group, SourceSecurityGroupId: source, ...tcp(port), Description: description },
})

/** Of the endpoints for interfaces: the stack's, or that of those that are there already. */
const endpointGroup = ({ network }: Stage): Value =>
  network.endpointsSecurityGroup ?? attribute(IDS.endpointGroup, 'GroupId')

function toServices(stage: Stage): readonly Values[] {
  const { network } = stage
  if (network.ways === 'nat') return [{ ...tcp(443), CidrIp: '0.0.0.0/0', Description: 'AWS, by NAT' }]
  return [
    {
      ...tcp(443),
      DestinationSecurityGroupId: endpointGroup(stage),
      Description: 'endpoints',
    },
    ...(network.s3PrefixList === undefined
      ? []
      : [{ ...tcp(443), DestinationPrefixListId: network.s3PrefixList, Description: 'S3' }]),
  ]
}

/** What pollers ask of AWS. */
const toAws = (stage: Stage): Values =>
  stage.network.ways === 'nat'
    ? { CidrIp: '0.0.0.0/0' }
    : { DestinationSecurityGroupId: endpointGroup(stage) }

/** MSK's stand in the brokers' subnets with the brokers' own security group. */
function mskPollerRules(stage: Stage, port: number): Resources {
  const { brokersSecurityGroup: brokers } = stage.network
  const out = (target: Values, to: number): Resource => ({
    Type: 'AWS::EC2::SecurityGroupEgress',
    Properties: { GroupId: brokers, ...target, ...tcp(to), Description: POLLERS },
  })
  return {
    BrokersFromPollers: ingress(brokers, brokers, port, POLLERS),
    PollersToBrokers: out({ DestinationSecurityGroupId: brokers }, port),
    PollersToServices: out(toAws(stage), 443),
  }
}

/** Those of a self-managed cluster stand where the mapping says: in the functions' subnets, with a group for them alone. */
function ownPollers(stage: Stage, port: number): Resources {
  const { vpc, brokersSecurityGroup: brokers } = stage.network
  return {
    [IDS.pollerSecurityGroup]: {
      Type: 'AWS::EC2::SecurityGroup',
      Properties: {
        GroupDescription: `${serviceName(stage)}: ${POLLERS}`,
        VpcId: vpc,
        SecurityGroupEgress: [
          { ...tcp(port), DestinationSecurityGroupId: brokers, Description: 'brokers' },
          { ...tcp(443), ...toAws(stage), Description: 'AWS' },
        ],
      },
    },
    BrokersFromPollers: ingress(
      brokers,
      pollersSecurityGroup(stage),
      port,
      `${serviceName(stage)}: ${POLLERS}`,
    ),
  }
}

const pollersSecurityGroup = ({ cluster, network }: Stage): Value =>
  cluster.arn === undefined ? attribute(IDS.pollerSecurityGroup, 'GroupId') : network.brokersSecurityGroup

/** Only what is the account's, or of an account whose keys and secrets the stage names; functions need nothing of AWS's own. */
function ownAlone(stage: Stage, ...more: readonly Statement[]): Values {
  const arns = givenArns(stage).map(([, arn]) => arn.split(':'))
  const theirs = arns.flatMap(([, , service, , account = '']) => (service === 'sns' ? [] : [account]))
  const accounts = [...new Set([stage.account, ...theirs])]
  const own = allow(['*'], '*', { StringEquals: { 'aws:ResourceAccount': accounts } })
  return policyDocument([own, ...more].map((statement) => ({ ...statement, Principal: '*' })))
}

/**
 * What is asked by the other endpoints, of this account: anything else is somebody's who has taken a function over, with
 * credentials of his own. Not of this deployment alone, since another in the VPC may share its endpoints. For pollers AWS
 * documents just these two actions. No principal stands there: they come as a service, or as the function's role.
 */
const ASKED: Readonly<Record<'kafka' | 'lambda' | 'sts', (stage: Stage) => Statement>> = {
  kafka: ({ region, account }) =>
    allow(
      ['kafka:BatchAssociateScramSecret', 'kafka:ListScramSecrets'],
      `arn:aws:kafka:${region}:${account}:cluster/*`,
    ),
  lambda: ({ region, account }) =>
    allow(['lambda:InvokeFunction'], `arn:aws:lambda:${region}:${account}:function:*`),
  sts: ({ account }) => allow(['sts:AssumeRole'], `arn:aws:iam::${account}:role/*`),
}

/** By whichever service it is. */
const wayPolicy = (stage: Stage, service: InterfaceService): Values =>
  service === 'kms' || service === 'secretsmanager'
    ? ownAlone(stage)
    : policyDocument([{ ...ASKED[service](stage), Principal: '*' }])

/** A bucket's name does not tell whose it is. */
function directoryRight({ directory }: Stage): readonly Statement[] {
  if (!directory.startsWith('s3://')) return []
  const object = directory.slice('s3://'.length)
  const bucket = object.slice(0, object.indexOf('/'))
  return [
    allow(
      ['s3:GetObject', 's3:ListBucket', 's3:PutObject'],
      [`arn:aws:s3:::${bucket}`, `arn:aws:s3:::${object}`],
    ),
  ]
}

function endpoints(stage: Stage, functions: Value): Resources {
  const { network, region } = stage
  const made = ENDPOINT_SERVICES.filter(
    (service) => !network.given.includes(service) && (service !== 'kafka' || hasMskUsers(stage)),
  )
  const group = endpointGroup(stage)
  const isOurs = network.endpointsSecurityGroup === undefined
  const common = (service: EndpointService): Values => ({
    ServiceName: `com.amazonaws.${region}.${service}`,
    VpcId: network.vpc,
  })
  const madeOne = (service: EndpointService): Values =>
    service === 's3'
      ? {
          VpcEndpointType: 'Gateway',
          ...common(service),
          RouteTableIds: network.routeTables,
          PolicyDocument: ownAlone(stage, ...directoryRight(stage)),
        }
      : {
          VpcEndpointType: 'Interface',
          ...common(service),
          SubnetIds: network.subnets,
          SecurityGroupIds: [group],
          PrivateDnsEnabled: true,
          PolicyDocument: wayPolicy(stage, service),
        }
  return {
    ...(isOurs && {
      [IDS.endpointGroup]: {
        Type: 'AWS::EC2::SecurityGroup',
        Properties: {
          GroupDescription: `${serviceName(stage)}: endpoints of AWS services`,
          VpcId: network.vpc,
        },
      },
    }),
    EndpointsFromFunctions: ingress(group, functions, 443, 'functions'),
    // Another deployment at these brokers of MSK's may have let their group in.
    ...((isOurs || network.pollerRules === 'create') && {
      EndpointsFromPollers: ingress(group, pollersSecurityGroup(stage), 443, POLLERS),
    }),
    ...Object.fromEntries(
      made.map((service) => [
        `${idPart(service)}Endpoint`,
        { Type: 'AWS::EC2::VPCEndpoint', Properties: madeOne(service) },
      ]),
    ),
  }
}
