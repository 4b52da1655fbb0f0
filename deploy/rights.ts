/** What each function may do: one role each, by name wherever AWS takes one. */
import { clusterNeeds, type ClusterNeeds, type Right } from '../lib/cluster-needs.ts'
import { loadBundle } from '../lib/contract/bundle.ts'
import { ConfigError } from '../lib/errors.ts'
import { secretsOf } from '../lib/keys/rotation-policy.ts'
import { iamPolicy, MSK_POLLER_RIGHTS } from '../lib/setup-commands.ts'
import {
  arnOf,
  directoryPlace,
  functionArn,
  functionNameOf,
  type FunctionName,
  FUNCTIONS,
  IDS,
  loginSecret,
  rightsId,
  roleId,
} from './functions.ts'
import { decryptRight, generateRight, producerKekId } from './keks.ts'
import type { Stage } from './stage.ts'
import {
  allow,
  charactersOf,
  policyDocument,
  ref,
  type Resource,
  type Resources,
  type Statement,
  type Value,
} from './template.ts'
import { deadLetterArn } from './watch.ts'

const INTERFACE_ACTIONS = [
  'ec2:AssignPrivateIpAddresses',
  'ec2:CreateNetworkInterface',
  'ec2:DeleteNetworkInterface',
  'ec2:DescribeNetworkInterfaces',
  'ec2:DescribeSubnets',
  'ec2:UnassignPrivateIpAddresses',
] as const
/**
 * What Lambda does as a function's role for its network interfaces, and for those of its pollers. Their subnets are the
 * cluster's, and listing takes no name at all; the function's own code is denied them again, below.
 */
export const NETWORK_ACTIONS: Readonly<Record<'ingest' | 'rotate', readonly string[]>> = {
  ingest: [...INTERFACE_ACTIONS, 'ec2:DescribeSecurityGroups', 'ec2:DescribeVpcs'],
  rotate: INTERFACE_ACTIONS,
}

/** X-Ray knows no resources for these. */
export const TRACE_ACTIONS = ['xray:PutTelemetryRecords', 'xray:PutTraceSegments'] as const

/** Of all policies in a role together, spaces aside. */
const MAX_CHARACTERS = 10_240

/** Roles and their policies, or `ConfigError` where IAM would not take them. Policies stand apart, since keys name the roles and policies name the keys. */
export function rightsOf(stage: Stage, needs: ClusterNeeds): Resources {
  const statements: Readonly<Record<FunctionName, readonly Statement[]>> = {
    ingest: [
      ...inVpc(stage, 'ingest'),
      ...polling(stage, needs),
      ...gating(stage, needs),
      ...(stage.tracing === undefined ? [] : [allow(TRACE_ACTIONS, '*')]),
    ],
    rotate: [...inVpc(stage, 'rotate'), ...rotating(stage, needs)],
    keys: directoryRights(stage, 'read'),
  }
  const faults = FUNCTIONS.filter(
    (name) => charactersOf(policyDocument([...logging(stage, name), ...statements[name]])) > MAX_CHARACTERS,
  ).map((name) => ({
    where: `${stage.name}: ${name}`,
    what: `Its rights are more than the ${MAX_CHARACTERS} characters that IAM takes of a role.`,
    fix: 'Divide its producers, channels or rotations among several deployments.',
  }))
  if (faults.length > 0) throw new ConfigError(faults)
  return Object.fromEntries(
    FUNCTIONS.flatMap((name): [string, Resource][] => [
      [
        roleId(name),
        {
          Type: 'AWS::IAM::Role',
          Properties: {
            Description: `sealgate ${stage.name}: the function ${name}`,
            AssumeRolePolicyDocument: {
              Version: '2012-10-17',
              Statement: [
                { Effect: 'Allow', Principal: { Service: 'lambda.amazonaws.com' }, Action: 'sts:AssumeRole' },
              ],
            },
          },
        },
      ],
      [
        rightsId(name),
        {
          Type: 'AWS::IAM::Policy',
          Properties: {
            PolicyName: functionNameOf(stage, name),
            Roles: [ref(roleId(name))],
            PolicyDocument: policyDocument([...logging(stage, name), ...statements[name]]),
          },
        },
      ],
    ]),
  )
}

/** What a deployment needs of its cluster, by the contracts of its channels. Throws `ConfigError` for a bundle that is none. */
export function needsOf(stage: Stage, bundle: Uint8Array): ClusterNeeds {
  const channels = new Map(Object.entries(stage.channels))
  const here = new Set(channels.values())
  const contracts = loadBundle(bundle)
  return clusterNeeds({
    ...stage,
    channels,
    topics: new Map(Object.entries(stage.topics)),
    contracts: { ...contracts, all: contracts.all.filter(({ channel }) => here.has(channel)) },
  })
}

function logging(stage: Stage, name: FunctionName): readonly Statement[] {
  const group = `arn:aws:logs:${stage.region}:${stage.account}:log-group:/aws/lambda/${functionNameOf(stage, name)}`
  return [allow(['logs:CreateLogStream', 'logs:PutLogEvents'], `${group}:*`)]
}

/** Lambda itself and its pollers need these of the role; code that was taken over must not have them. */
function inVpc(stage: Stage, name: 'ingest' | 'rotate'): readonly Statement[] {
  const actions = NETWORK_ACTIONS[name]
  const denied: Statement = {
    Effect: 'Deny',
    Action: actions,
    Resource: '*',
    Condition: { ArnEquals: { 'lambda:SourceFunctionArn': functionArn(stage, name) } },
  }
  return [allow(actions, '*'), denied]
}

/** What the event source mapping does as the function's role. A cluster of one's own AWS knows nothing of. */
function polling(stage: Stage, { poller }: ClusterNeeds): readonly Statement[] {
  const { arn, caSecret } = stage.cluster
  if (arn === undefined) return caSecret === undefined ? [] : secretRights(stage, [caSecret])
  return [
    allow(['kafka:DescribeClusterV2', 'kafka:GetBootstrapBrokers'], arn),
    ...kafkaRights(stage, [...poller, ...MSK_POLLER_RIGHTS]),
  ]
}

/** On a cluster with IAM; elsewhere ACLs say it (`sealgate setup print`). */
function kafkaRights({ cluster }: Stage, rights: readonly Right[]): readonly Statement[] {
  const { authentication, arn } = cluster
  return authentication === 'iam' && arn !== undefined ? iamPolicy(rights, arn).Statement : []
}

function gating(stage: Stage, { gate }: ClusterNeeds): readonly Statement[] {
  const { gateway, producers } = stage
  return [
    ...loginRights(stage, 'ingest'),
    ...kafkaRights(stage, gate),
    ...directoryRights(stage, 'read'),
    ...signingRights(stage),
    ...(stage.pseudonyms === undefined ? [] : secretRights(stage, [stage.pseudonyms])),
    ...Object.entries(producers).map(([producer, { kek }]) =>
      decryptRight(arnOf(kek, producerKekId(producer)), { iss: producer, aud: gateway }),
    ),
    generateRight(arnOf(stage.kek.key, IDS.gatewayKek), gateway),
  ]
}

function loginRights(stage: Stage, name: 'ingest' | 'rotate'): readonly Statement[] {
  const secret = loginSecret(stage, name)
  return secret === undefined ? [] : secretRights(stage, [secret])
}

function secretRights(stage: Stage, secrets: readonly Value[]): readonly Statement[] {
  return [
    allow(['secretsmanager:DescribeSecret', 'secretsmanager:GetSecretValue'], secrets),
    viaSecretsManager(stage, ['kms:Decrypt']),
  ]
}

const viaSecretsManager = (stage: Stage, actions: readonly string[]): Statement =>
  allow(actions, arnOf(stage.secretsKey, IDS.secretsKey), {
    StringEquals: { 'kms:ViaService': `secretsmanager.${stage.region}.amazonaws.com` },
  })

const isSecret = (arn: string): boolean => arn.includes(':secretsmanager:')

function signingRights(stage: Stage): readonly Statement[] {
  if (isSecret(stage.signingKey)) return secretRights(stage, [stage.signingKey])
  return [allow(['kms:Sign'], arnOf(stage.signingKey, IDS.signingKey))]
}

function directoryRights(stage: Stage, how: 'read' | 'write'): readonly Statement[] {
  const place = directoryPlace(stage)
  if (!place.startsWith('s3://')) {
    const write = allow(['secretsmanager:PutSecretValue'], place)
    const more = [write, viaSecretsManager(stage, ['kms:GenerateDataKey'])]
    return [...secretRights(stage, [place]), ...(how === 'write' ? more : [])]
  }
  const object = place.slice('s3://'.length)
  const slash = object.indexOf('/')
  return [
    allow(how === 'write' ? ['s3:GetObject', 's3:PutObject'] : ['s3:GetObject'], `arn:aws:s3:::${object}`),
    // Tells "not there" from "not allowed".
    allow(['s3:ListBucket'], `arn:aws:s3:::${object.slice(0, slash)}`, {
      StringEquals: { 's3:prefix': object.slice(slash + 1) },
    }),
  ]
}

/** What its policy has it rotate, and nothing else. */
function rotating(stage: Stage, { rotator }: ClusterNeeds): readonly Statement[] {
  const rotations = stage.rotations.map(({ rotation }) => rotation)
  const watched = rotations.filter(({ kind }) => kind === 'certificate').flatMap(secretsOf)
  const changed = rotations.filter(({ kind }) => kind !== 'certificate').flatMap(secretsOf)
  const authorities = rotations.flatMap((one) =>
    one.kind === 'client-certificate' ? [one.authorityKey] : [],
  )
  const read = [...watched, ...authorities.filter(isSecret)]
  const issuing = authorities.filter((key) => key.startsWith('arn:') && !isSecret(key))
  const keys = rotations.flatMap((one) => (one.kind === 'kms-key' ? [one.key] : []))
  const clusters = rotations.flatMap((one) => (one.kind === 'scram' && one.msk ? [one.msk] : []))
  return [
    allow(['kms:GetPublicKey', 'kms:Sign'], stage.rootKey),
    ...directoryRights(stage, 'write'),
    ...loginRights(stage, 'rotate'),
    ...(stage.lifecycleAudit === 'none' ? [] : [...signingRights(stage), ...kafkaRights(stage, rotator)]),
    ...(read.length === 0 ? [] : secretRights(stage, [...new Set(read)])),
    ...(issuing.length === 0 ? [] : [allow(['kms:GetPublicKey', 'kms:Sign'], [...new Set(issuing)])]),
    ...(changed.length === 0
      ? []
      : [
          allow(
            [
              ...['secretsmanager:DescribeSecret', 'secretsmanager:GetSecretValue'],
              ...['secretsmanager:PutSecretValue', 'secretsmanager:UpdateSecretVersionStage'],
            ],
            [...new Set(changed)],
          ),
          viaSecretsManager(stage, ['kms:Decrypt', 'kms:GenerateDataKey']),
        ]),
    ...(keys.length === 0
      ? []
      : [
          allow(
            [
              ...['kms:EnableKeyRotation', 'kms:GetKeyRotationStatus'],
              ...['kms:ListKeyRotations', 'kms:RotateKeyOnDemand'],
            ],
            keys,
          ),
        ]),
    allow(['sqs:SendMessage'], deadLetterArn),
    ...(clusters.length === 0 ? [] : mskUserRights(stage, [...new Set(clusters)])),
  ]
}

function mskUserRights(stage: Stage, clusters: readonly string[]): readonly Statement[] {
  return [
    allow(['kafka:BatchAssociateScramSecret', 'kafka:ListScramSecrets'], clusters),
    // MSK reads the secret by a grant on its key that whoever associates it makes; it looks at the key as him first.
    allow(['kms:DescribeKey'], arnOf(stage.secretsKey, IDS.secretsKey)),
    allow(['kms:CreateGrant'], arnOf(stage.secretsKey, IDS.secretsKey), {
      Bool: { 'kms:GrantIsForAWSResource': 'true' },
    }),
  ]
}
