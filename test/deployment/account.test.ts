/** What a real account would refuse, or do badly, and no linter of templates sees. */
import { join } from 'node:path'
import { beforeAll, describe, expect, it } from 'vitest'
import { functionPlans } from '../../deploy/functions.ts'
import { createdKeks } from '../../deploy/keks.ts'
import { environmentFaults, keyPoliciesText, readParts, samText, STAGES } from '../../deploy/package.ts'
import { needsOf } from '../../deploy/rights.ts'
import type { Stage } from '../../deploy/stage.ts'
import { networkVerdicts } from '../../lib/doctor/template-network.ts'
import type { Verdict } from '../../lib/doctor/finding.ts'
import type { Fault } from '../../lib/errors.ts'
import { listOf, nodeOf, ofType, parseTemplate } from './compiled.ts'
import { identityOf, mayByIdentity } from './policy.ts'

let stage: Stage
let contracts: Uint8Array
beforeAll(async () => {
  ;({ stage, contracts } = await readParts(join(STAGES, 'example.yml')))
})
const templateOf = (one: Stage): unknown => parseTemplate(samText(one, needsOf(one, contracts), ''))

const secret = 'arn:aws:secretsmanager:eu-west-1:123456789012:secret:'
const withMskUsers = (): Stage => ({
  ...stage,
  rotations: [
    {
      since: undefined,
      file: undefined,
      period: undefined,
      rotation: {
        kind: 'scram',
        name: 'gate',
        period: 1,
        pointer: `${secret}gate-Ab12Cd`,
        users: [`${secret}AmazonMSK_a-Ab12Cd`, `${secret}AmazonMSK_b-Ab12Cd`],
        msk: stage.cluster.arn ?? '',
      },
    },
  ],
})

describe('a stack', () => {
  it('whose first deployment failed leaves nothing whose name the second needs', () => {
    const resources = Object.entries(nodeOf(nodeOf(templateOf(stage))['Resources']))
    const policies = resources.map(([id, one]) => [id, nodeOf(one)['DeletionPolicy']] as const)
    const kept = policies.filter(([, policy]) => policy !== undefined)
    expect(new Set(kept.map(([, policy]) => policy))).toEqual(new Set(['RetainExceptOnCreate']))
  })

  it('leaves, with what stays, what guards it and what logs in by it', () => {
    const resources = nodeOf(nodeOf(templateOf(stage))['Resources'])
    for (const id of ['DirectoryBucketPolicy', 'KafkaUser'])
      expect([id, nodeOf(resources[id])['DeletionPolicy']]).toEqual([id, 'RetainExceptOnCreate'])
  })

  it('is not made where KMS would not take the policy of a key', () => {
    const of = (count: number): Stage => {
      const names = Array.from({ length: count }, (_, index) => [
        `reader${index}`,
        { role: `arn:aws:iam::123456789012:role/reader${index}` },
      ])
      return { ...stage, consumers: Object.fromEntries(names) }
    }
    expect(Object.keys(createdKeks(of(20)))).toHaveLength(4)
    expect(() => createdKeks(of(200))).toThrow(/example: GatewayKek: .*32768 characters/)
  })
})

describe('a function', () => {
  it('is told no more than Lambda takes, and which variables are the longest', () => {
    const channels = Object.fromEntries(
      Array.from({ length: 60 }, (_, index) => [
        `ingress.of-some-department.${index}`,
        `department-${index}`,
      ]),
    )
    const topics = Object.fromEntries(Object.values(channels).map((one) => [one, one]))
    const faultsOf = (one: Stage): readonly Fault[] => {
      const [ingest] = functionPlans(one)
      return ingest === undefined ? [] : environmentFaults(ingest, one)
    }
    expect(faultsOf(stage)).toEqual([])
    const [fault, ...others] = faultsOf({ ...stage, channels, topics })
    expect(others).toEqual([])
    expect(fault?.where).toBe('example: ingest')
    expect(fault?.what).toMatch(/^Its environment has 5\d{3} bytes, and Lambda takes 4096\.$/)
    expect(fault?.fix).toMatch(
      /^Shorten the longest: SEALGATE_CHANNELS \(\d{4}\), SEALGATE_TOPICS \(\d{4}\), SEALGATE_KAFKA_BROKERS \(\d{3}\)/,
    )
  })

  it('is told as much as Lambda takes, to the byte', () => {
    const [plan] = functionPlans(stage)
    if (plan === undefined) throw new Error('there is none')
    const of = (text: string): readonly Fault[] =>
      environmentFaults({ ...plan, environment: { A: text } }, stage)
    expect(of('x'.repeat(4096 - '{"A":""}'.length))).toEqual([])
    expect(of('x'.repeat(4097 - '{"A":""}'.length))).toHaveLength(1)
    expect(of('ü'.repeat(2045))).toHaveLength(1)
  })
})

describe('the function that rotates', () => {
  const loginOf = (template: unknown, name: 'ingest' | 'rotate'): unknown => {
    const [one] = ofType(template, 'AWS::Serverless::Function').filter(({ properties }) =>
      String(properties['FunctionName']).endsWith(name),
    )
    return nodeOf(nodeOf(one?.properties['Environment'])['Variables'])['SEALGATE_KAFKA_SASL_SECRET']
  }

  it('logs in as a user of its own: what it may, the gate may not', () => {
    const template = templateOf(stage)
    expect([loginOf(template, 'ingest'), loginOf(template, 'rotate')]).toEqual([
      'KafkaSecret',
      'RotateKafkaSecret',
    ])
    const [users] = ofType(template, 'AWS::MSK::BatchScramSecret')
    expect(users?.properties['SecretArnList']).toEqual(['KafkaSecret', 'RotateKafkaSecret'])
    const secrets = ofType(template, 'AWS::SecretsManager::Secret').map(({ properties }) => [
      properties['Name'],
      nodeOf(properties['GenerateSecretString'])['SecretStringTemplate'],
    ])
    expect(secrets).toEqual([
      ['AmazonMSK_sealgate-example', '{"username":"sealgate-example"}'],
      ['AmazonMSK_sealgate-example.rotate', '{"username":"sealgate-example.rotate"}'],
    ])
    const policies = ofType(template, 'AWS::IAM::Policy')
    const reads = (role: string, resource: string): boolean =>
      mayByIdentity(
        { principal: role, action: 'secretsmanager:GetSecretValue', resource, context: {} },
        identityOf(role, policies),
      )
    for (const role of ['IngestRole', 'RotateRole'])
      expect([role, reads(role, 'KafkaSecret'), reads(role, 'RotateKafkaSecret')]).toEqual([
        ...[role, role === 'IngestRole', role === 'RotateRole'],
      ])
  })

  it('logs in as whom it is given, and else as the gate', () => {
    const own = `${secret}AmazonMSK_rotate-Ab12Cd`
    const given = templateOf({ ...stage, cluster: { ...stage.cluster, rotateSecret: own } })
    expect([loginOf(given, 'rotate'), loginOf(given, 'ingest')]).toEqual([own, 'KafkaSecret'])
    expect(ofType(given, 'AWS::SecretsManager::Secret').map(({ id }) => id)).toEqual(['KafkaSecret'])
    const gates = `${secret}AmazonMSK_gate-Ab12Cd`
    const shared = templateOf({ ...stage, cluster: { ...stage.cluster, secret: gates, rotateSecret: gates } })
    expect([loginOf(shared, 'rotate'), loginOf(shared, 'ingest')]).toEqual([gates, gates])
    expect(ofType(shared, 'AWS::MSK::BatchScramSecret')).toEqual([])
  })
})

describe('a key that is there already', () => {
  it('has what belongs into its policy written out, by names that the stack’s outputs have', async () => {
    const { stage: iam, contracts: bundle } = await readParts(join(STAGES, 'example-iam.yml'))
    const signingKey = 'arn:aws:kms:eu-west-1:123456789012:key/11111111-0000-0000-0000-000000000000'
    const one = { ...iam, signingKey }
    const text = keyPoliciesText(one)
    const policies = nodeOf(JSON.parse(text))
    const payments = iam.producers['payments']?.kek ?? ''
    expect(Object.keys(policies).sort()).toEqual(
      [iam.kek.key, payments, signingKey, iam.rootKey, iam.secretsKey].sort(),
    )
    expect(nodeOf(policies[signingKey])['Statement']).toEqual([
      {
        Effect: 'Allow',
        Action: ['kms:Sign'],
        Resource: '*',
        Principal: { AWS: ['${IngestRoleArn}', '${RotateRoleArn}'] },
      },
    ])
    const { Outputs } = nodeOf(parseTemplate(samText(one, needsOf(one, bundle), '')))
    const named = Array.from(text.matchAll(/\$\{(\w+)\}/g), ([, name]) => name ?? '')
    expect(new Set(named)).toEqual(new Set(['IngestRoleArn', 'RotateRoleArn']))
    for (const name of named) expect(Object.keys(nodeOf(Outputs))).toContain(name)
    expect(text).not.toContain('Fn::')
  })
})

describe('a role', () => {
  it('that is no poller’s does not look at the VPC', () => {
    const policies = ofType(templateOf(stage), 'AWS::IAM::Policy')
    const may = (role: string, action: string): boolean =>
      mayByIdentity(
        { principal: role, action, resource: 'arn:aws:ec2:any', context: {} },
        identityOf(role, policies),
      )
    for (const action of ['ec2:DescribeVpcs', 'ec2:DescribeSecurityGroups'])
      expect([may('IngestRole', action), may('RotateRole', action)]).toEqual([true, false])
    expect(may('RotateRole', 'ec2:CreateNetworkInterface')).toBe(true)
  })

  it('that rotates writes the control chain, in its transaction and in nobody else’s', async () => {
    const { stage: iam, contracts: bundle } = await readParts(join(STAGES, 'example-iam.yml'))
    const template = parseTemplate(samText(iam, needsOf(iam, bundle), ''))
    const identity = identityOf('RotateRole', ofType(template, 'AWS::IAM::Policy'))
    const may = (action: string, kind: string, name: string): boolean => {
      const resource = `${(iam.cluster.arn ?? '').replace(':cluster/', `:${kind}/`)}/${name}`
      const request = { principal: 'RotateRole', action: `kafka-cluster:${action}`, resource, context: {} }
      return mayByIdentity(request, identity)
    }
    for (const action of ['ReadData', 'WriteData']) expect(may(action, 'topic', 'shop.audit')).toBe(true)
    expect(may('AlterGroup', 'group', 'shop.shadow.v1')).toBe(true)
    const transactions = [
      'shop.shop.audit.0',
      'shop.shop.audit.1',
      'shop.shop.audit.01',
      'shop.ingress.orders.0',
    ]
    expect(transactions.filter((id) => may('AlterTransactionalId', 'transactional-id', id))).toEqual([
      'shop.shop.audit.0',
    ])
    expect(may('WriteData', 'topic', 'shop.quarantine')).toBe(false)
  })

  it('that makes users of MSK may what MSK asks of it there', () => {
    const identity = identityOf('RotateRole', ofType(templateOf(withMskUsers()), 'AWS::IAM::Policy'))
    const may = (action: string, resource: string, context: Record<string, string[]> = {}): boolean =>
      mayByIdentity({ principal: 'RotateRole', action, resource, context }, identity)
    expect(may('kafka:BatchAssociateScramSecret', stage.cluster.arn ?? '')).toBe(true)
    expect(may('kms:DescribeKey', 'SecretsKey.Arn')).toBe(true)
    expect(may('kms:CreateGrant', 'SecretsKey.Arn', { 'kms:GrantIsForAWSResource': ['true'] })).toBe(true)
    expect(may('kms:CreateGrant', 'SecretsKey.Arn')).toBe(false)
    expect(may('secretsmanager:GetSecretValue', `${secret}AmazonMSK_a-Ab12Cd`)).toBe(true)
  })
})

describe('an endpoint that is there already', () => {
  const group = 'sg-0fedcba9876543210'
  const withNetwork = (network: Partial<Stage['network']>): unknown =>
    templateOf({ ...stage, network: { ...stage.network, ...network } })
  const servicesOf = (template: unknown): string[] =>
    ofType(template, 'AWS::EC2::VPCEndpoint').map(({ properties }) =>
      String(properties['ServiceName']).replace('com.amazonaws.eu-west-1.', ''),
    )
  const rulesTo = (template: unknown, target: string): string[] =>
    ofType(template, 'AWS::EC2::SecurityGroupIngress')
      .filter(({ properties }) => properties['GroupId'] === target)
      .map(({ properties }) => String(properties['SourceSecurityGroupId']))
  const ways = (template: unknown): Verdict[] => [...networkVerdicts(template, 't')]

  it('is not made a second time, and lets functions and pollers in by its own group', () => {
    const all = ['kms', 'lambda', 'secretsmanager', 'sts', 's3'] as const
    const template = withNetwork({ given: all, endpointsSecurityGroup: group, routeTables: [] })
    expect(servicesOf(template)).toEqual([])
    expect(ofType(template, 'AWS::EC2::SecurityGroup').map(({ id }) => id)).toEqual(['FunctionSecurityGroup'])
    const brokers = stage.network.brokersSecurityGroup
    expect(rulesTo(template, group)).toEqual(['FunctionSecurityGroup.GroupId', brokers])
    const [functions] = ofType(template, 'AWS::EC2::SecurityGroup')
    const out = [
      ...listOf(functions?.properties['SecurityGroupEgress']),
      ...ofType(template, 'AWS::EC2::SecurityGroupEgress').map(({ properties }) => properties),
    ].map(nodeOf)
    expect(out.filter(({ FromPort }) => FromPort === 443)).toMatchObject([
      { DestinationSecurityGroupId: group },
      { DestinationPrefixListId: stage.network.s3PrefixList },
      { GroupId: brokers, DestinationSecurityGroupId: group },
    ])
  })

  it('leaves those to be made that are not, in the same group', () => {
    const template = withNetwork({ given: ['kms', 'sts'], endpointsSecurityGroup: group })
    expect(servicesOf(template)).toEqual(['lambda', 'secretsmanager', 's3'])
    expect(
      ofType(template, 'AWS::EC2::VPCEndpoint').flatMap(
        ({ properties }) => properties['SecurityGroupIds'] ?? [],
      ),
    ).toEqual([group, group])
    const s3Alone = withNetwork({ given: ['s3'], routeTables: [] })
    expect(servicesOf(s3Alone)).toEqual(['kms', 'lambda', 'secretsmanager', 'sts'])
    expect(rulesTo(s3Alone, 'EndpointSecurityGroup.GroupId')).toHaveLength(2)
  })

  it('lets pollers in by a rule of somebody else’s, where they are given', () => {
    const template = withNetwork({
      given: ['kms', 'lambda', 'secretsmanager', 'sts'],
      endpointsSecurityGroup: group,
      pollerRules: 'given',
    })
    expect(rulesTo(template, group)).toEqual(['FunctionSecurityGroup.GroupId'])
  })

  it('is nothing that the doctor can see in the template, which it says', () => {
    expect(ways(withNetwork({}))).toEqual([])
    expect(ways(withNetwork({ given: ['kms', 'sts'], endpointsSecurityGroup: group }))).toEqual([
      {
        status: 'skip',
        message: `t: network: It makes no endpoint for kms, sts, and has a way to ${group}.`,
        fix: 'See that the VPC has them, in that group and with private DNS: aws ec2 describe-vpc-endpoints.',
      },
    ])
    expect(ways(withNetwork({ given: ['s3'], routeTables: [] }))).toMatchObject([
      {
        status: 'skip',
        message: `t: network: It makes no endpoint for S3, and has a way to its prefix list.`,
      },
    ])
  })
})

describe('an interface endpoint', () => {
  const statementsOf = (service: string): readonly unknown[] =>
    ofType(templateOf(withMskUsers()), 'AWS::EC2::VPCEndpoint')
      .filter(({ properties }) => String(properties['ServiceName']).endsWith(`.${service}`))
      .flatMap(({ properties }) => listOf(nodeOf(properties['PolicyDocument'])['Statement']))

  it.each([
    ['sts', ['sts:AssumeRole'], 'arn:aws:iam::123456789012:role/*'],
    ['lambda', ['lambda:InvokeFunction'], 'arn:aws:lambda:eu-west-1:123456789012:function:*'],
    [
      'kafka',
      ['kafka:BatchAssociateScramSecret', 'kafka:ListScramSecrets'],
      'arn:aws:kafka:eu-west-1:123456789012:cluster/*',
    ],
  ])('of %s lets pollers and functions do what they do, in this account', (service, Action, Resource) => {
    expect(statementsOf(service)).toEqual([{ Effect: 'Allow', Action, Resource, Principal: '*' }])
  })
})
