/** A whole deployment: what both tools' templates have besides their functions. */
import type { ClusterNeeds } from '../lib/cluster-needs.ts'
import {
  arnOf,
  failureMode,
  FUNCTIONS,
  functionPlans,
  type FunctionName,
  type FunctionPlan,
  IDS,
  loginSecret,
  rightsId,
  roleId,
} from './functions.ts'
import { createdKeks, kekArns } from './keks.ts'
import { networkOf } from './network.ts'
import { rightsOf } from './rights.ts'
import { pollerGroup, type Stage } from './stage.ts'
import { storesOf } from './stores.ts'
import { attribute, idPart, ref, type Resources, type Value, type Values } from './template.ts'
import { deadLetterArn, watchOf } from './watch.ts'

export interface Deployment {
  readonly stage: Stage
  readonly functions: readonly FunctionPlan[]
  readonly resources: Resources
  readonly outputs: Values
}

/**
 * @param needs what it needs of its cluster (`needsOf`)
 * @param functionId the logical ids that a tool gives functions
 */
export function deploymentOf(
  stage: Stage,
  needs: ClusterNeeds,
  functionId: (name: FunctionName) => string,
): Deployment {
  const stores = storesOf(stage)
  const network = networkOf(stage)
  return {
    stage,
    functions: functionPlans(stage),
    resources: {
      ...rightsOf(stage, needs),
      ...createdKeks(stage),
      ...stores,
      ...network,
      ...mappings(stage, functionId('ingest'), waysOf({ ...stores, ...network })),
      ...deadLetters(functionId('rotate')),
      ...watchOf(stage),
    },
    outputs: outputValues(stage),
  }
}

/** What a poller comes by: its user, rules and endpoints. A mapping that is made before them fails, or waits for long. */
const WAYS = [
  ...['AWS::MSK::BatchScramSecret', 'AWS::EC2::VPCEndpoint'],
  ...['AWS::EC2::SecurityGroupEgress', 'AWS::EC2::SecurityGroupIngress'],
]

const waysOf = (resources: Resources): readonly string[] =>
  Object.entries(resources).flatMap(([id, { Type }]) => (WAYS.includes(Type) ? [id] : []))

/**
 * One mapping a topic, which is all that Lambda takes. Nothing is dropped: no limit of retries or age, and no destination,
 * since with one Lambda gives up after ten retries. Those two and the answers' form are settings of provisioned pollers;
 * without them retries have no end anyway, and records no age.
 */
function mappings(stage: Stage, functionId: string, ways: readonly string[]): Resources {
  const { pollers } = stage
  const endless = { MaximumRetryAttempts: -1, MaximumRecordAgeInSeconds: -1 }
  const provisioned = pollers && {
    ProvisionedPollerConfig: { MinimumPollers: pollers.minimum, MaximumPollers: pollers.maximum },
    ...endless,
  }
  return Object.fromEntries(
    Object.keys(stage.channels).map((topic) => [
      `${idPart(topic)}Mapping`,
      {
        Type: 'AWS::Lambda::EventSourceMapping',
        DependsOn: [rightsId('ingest'), ...ways],
        Properties: {
          FunctionName: ref(functionId),
          ...source(stage, pollerGroup(stage, topic)),
          Topics: [topic],
          // What the gate has decided already it passes over; what it has not must never be left out.
          StartingPosition: 'TRIM_HORIZON',
          Enabled: stage.isEnabled,
          BatchSize: stage.batchSize,
          MaximumBatchingWindowInSeconds: stage.batchWindowSeconds,
          ...provisioned,
          ...failureMode(stage).mapping,
        },
      },
    ]),
  )
}

/**
 * The cluster, the group, and as whom the poller logs in: with IAM, as the function's role. Of MSK's Lambda knows where its
 * brokers are; for a cluster of one's own, where pollers stand is said here too, and whom they trust.
 */
function source(stage: Stage, group: string): Values {
  const { cluster, network } = stage
  const secret = loginSecret(stage, 'ingest')
  const type = cluster.authentication === 'scram' ? 'SASL_SCRAM_512_AUTH' : 'CLIENT_CERTIFICATE_TLS_AUTH'
  const login: readonly Values[] = secret === undefined ? [] : [{ Type: type, URI: secret }]
  if (cluster.arn !== undefined)
    return {
      EventSourceArn: cluster.arn,
      AmazonManagedKafkaEventSourceConfig: { ConsumerGroupId: group },
      ...(login.length === 0 ? {} : { SourceAccessConfigurations: login }),
    }
  return {
    SelfManagedEventSource: { Endpoints: { KafkaBootstrapServers: cluster.brokers } },
    SelfManagedKafkaEventSourceConfig: { ConsumerGroupId: group },
    SourceAccessConfigurations: [
      ...login,
      ...network.subnets.map((subnet) => ({ Type: 'VPC_SUBNET', URI: `subnet:${subnet}` })),
      {
        Type: 'VPC_SECURITY_GROUP',
        URI: { 'Fn::Sub': `security_group:\${${IDS.pollerSecurityGroup}.GroupId}` },
      },
      ...(cluster.caSecret === undefined
        ? []
        : [{ Type: 'SERVER_ROOT_CA_CERTIFICATE', URI: cluster.caSecret }]),
    ],
  }
}

/** An hour's run that failed, and again twice, is kept; of the stream nothing is ever given up. */
const deadLetters = (functionId: string): Resources => ({
  RotateFailures: {
    Type: 'AWS::Lambda::EventInvokeConfig',
    DependsOn: [rightsId('rotate')],
    Properties: {
      FunctionName: ref(functionId),
      Qualifier: '$LATEST',
      MaximumRetryAttempts: 2,
      MaximumEventAgeInSeconds: 3600,
      DestinationConfig: { OnFailure: { Destination: deadLetterArn } },
    },
  },
})

function outputValues(stage: Stage): Values {
  const login = (id: string, secret: Value | undefined) => secret !== undefined && { [id]: secret }
  const values: Readonly<Record<string, Value>> = {
    ...kekArns(stage),
    [IDS.signingKey]: arnOf(stage.signingKey, IDS.signingKey),
    ...login(IDS.kafkaSecret, loginSecret(stage, 'ingest')),
    ...login(IDS.rotateSecret, loginSecret(stage, 'rotate')),
    ...Object.fromEntries(FUNCTIONS.map((name) => [roleId(name), attribute(roleId(name), 'Arn')])),
  }
  return Object.fromEntries(Object.entries(values).map(([id, Value]) => [`${id}Arn`, { Value }]))
}
