/** Who reaches whom: functions, Lambda's pollers, brokers, and the services of AWS. */
import { IDS, serviceName } from './functions.ts'
import { givenArns, PORTS, type Stage } from './stage.ts'
import {
  allow,
  attribute,
  idPart,
  policyDocument,
  ref,
  type Resource,
  type Resources,
  type Statement,
  type Value,
  type Values,
} from './template.ts'

/** What a function and, on demand, a poller asks; MSK's own API where users of MSK are rotated. */
const SERVICES = ['kms', 'lambda', 'secretsmanager', 'sts'] as const
type InterfaceService = (typeof SERVICES)[number] | 'kafka'

export function networkOf(stage: Stage): Resources {
  const { network } = stage
  const port = PORTS[stage.cluster.authentication]
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
    ...(network.pollerRules === 'create' ? pollerRules(stage, port) : {}),
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

function toServices({ network }: Stage): readonly Values[] {
  if (network.ways === 'nat') return [{ ...tcp(443), CidrIp: '0.0.0.0/0', Description: 'AWS, by NAT' }]
  return [
    {
      ...tcp(443),
      DestinationSecurityGroupId: attribute(IDS.endpointGroup, 'GroupId'),
      Description: 'endpoints',
    },
    ...(network.s3PrefixList === undefined
      ? []
      : [{ ...tcp(443), DestinationPrefixListId: network.s3PrefixList, Description: 'S3' }]),
  ]
}

/** Lambda's pollers stand in the brokers' subnets with the brokers' own security group. */
function pollerRules(stage: Stage, port: number): Resources {
  const { brokersSecurityGroup: brokers, ways } = stage.network
  const out = (target: Values, to: number): Resource => ({
    Type: 'AWS::EC2::SecurityGroupEgress',
    Properties: { GroupId: brokers, ...target, ...tcp(to), Description: POLLERS },
  })
  const services =
    ways === 'nat'
      ? { CidrIp: '0.0.0.0/0' }
      : { DestinationSecurityGroupId: attribute(IDS.endpointGroup, 'GroupId') }
  return {
    BrokersFromPollers: ingress(brokers, brokers, port, POLLERS),
    PollersToBrokers: out({ DestinationSecurityGroupId: brokers }, port),
    PollersToServices: out(services, 443),
  }
}

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
  const hasMskUsers = stage.rotations.some(({ rotation }) => rotation.kind === 'scram' && rotation.msk)
  const services: readonly InterfaceService[] = [...SERVICES, ...(hasMskUsers ? (['kafka'] as const) : [])]
  return {
    [IDS.endpointGroup]: {
      Type: 'AWS::EC2::SecurityGroup',
      Properties: {
        GroupDescription: `${serviceName(stage)}: endpoints of AWS services`,
        VpcId: network.vpc,
      },
    },
    EndpointsFromFunctions: ingress(ref(IDS.endpointGroup), functions, 443, 'functions'),
    EndpointsFromPollers: ingress(ref(IDS.endpointGroup), network.brokersSecurityGroup, 443, POLLERS),
    ...Object.fromEntries(
      services.map((service) => [
        `${idPart(service)}Endpoint`,
        {
          Type: 'AWS::EC2::VPCEndpoint',
          Properties: {
            VpcEndpointType: 'Interface',
            ServiceName: `com.amazonaws.${region}.${service}`,
            VpcId: network.vpc,
            SubnetIds: network.subnets,
            SecurityGroupIds: [attribute(IDS.endpointGroup, 'GroupId')],
            PrivateDnsEnabled: true,
            PolicyDocument: wayPolicy(stage, service),
          },
        },
      ]),
    ),
    S3Endpoint: {
      Type: 'AWS::EC2::VPCEndpoint',
      Properties: {
        VpcEndpointType: 'Gateway',
        ServiceName: `com.amazonaws.${region}.s3`,
        VpcId: network.vpc,
        RouteTableIds: network.routeTables,
        PolicyDocument: ownAlone(stage, ...directoryRight(stage)),
      },
    },
  }
}
