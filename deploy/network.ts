/** Who reaches whom: functions, Lambda's pollers, brokers, and the services of AWS. */
import { IDS, serviceName } from './functions.ts'
import { PORTS, type Stage } from './stage.ts'
import { attribute, idPart, ref, type Resource, type Resources, type Value, type Values } from './template.ts'

/** What a function and, on demand, a poller asks; MSK's own API where users of MSK are rotated. */
const SERVICES = ['kms', 'lambda', 'secretsmanager', 'sts'] as const

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

function endpoints(stage: Stage, functions: Value): Resources {
  const { network, region } = stage
  const hasMskUsers = stage.rotations.some(({ rotation }) => rotation.kind === 'scram' && rotation.msk)
  const services = [...SERVICES, ...(hasMskUsers ? ['kafka'] : [])]
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
      },
    },
  }
}
