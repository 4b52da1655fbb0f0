/** A deployment to a Kafka of one's own: where its pollers stand, as whom they log in, and what of MSK does not go with it. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { beforeAll, describe, expect, it } from 'vitest'
import { readParts, samText, STAGES } from '../../deploy/package.ts'
import { needsOf } from '../../deploy/rights.ts'
import type { Stage } from '../../deploy/stage.ts'
import { networkVerdicts } from '../../lib/doctor/template-network.ts'
import { templateFaults } from '../../lib/template-faults.ts'
import { listOf, nodeOf, ofType, parseTemplate, resourcesIn, type Node } from './compiled.ts'
import { identityOf, mayByIdentity } from './policy.ts'
import { type Edit, editedText, placesAt } from './stage-text.ts'

const path = join(STAGES, 'example-self-managed.yml')
const text = readFileSync(path, 'utf8')
const SECRET = 'arn:aws:secretsmanager:eu-west-1:123456789012:secret:'
const MSK = 'arn:aws:kafka:eu-west-1:123456789012:cluster/shop/6cc0432b-8618-4f44-bccc-e1fbd8fb7c4d-2'

let stage: Stage
let contracts: Uint8Array
beforeAll(async () => {
  ;({ stage, contracts } = await readParts(path))
})
const templateOf = (one: Stage): unknown => parseTemplate(samText(one, needsOf(one, contracts), ''))
const withNetwork = (network: Partial<Stage['network']>): Stage => ({
  ...stage,
  network: { ...stage.network, ...network },
})

const edited = (...edits: readonly Edit[]): string => editedText(text, edits)
const placesOf = (of: string): string[] => placesAt(path, of)

describe('a stage of a self-managed cluster', () => {
  it('is read, without an ARN', () => {
    expect(placesOf(text)).toEqual([])
    expect(stage.cluster).toMatchObject({ arn: undefined, authentication: 'scram', secret: 'create' })
    const mine: readonly Edit[] = [['secret: create', `secret: ${SECRET}sealgate/kafka-user-Ab12Cd`]]
    expect(placesOf(edited(...mine))).toEqual([])
    expect(placesOf(edited(...mine, ['authentication: scram', 'authentication: mtls']))).toEqual([])
    expect(placesOf(edited([/ {2}ca: .*\n {2}caSecret: .*\n/, '']))).toEqual([])
    expect(placesOf(edited([/:9094/g, ':19093']))).toEqual([])
  })

  it('is told of all at once that is MSK’s alone', () => {
    expect(
      placesOf(
        edited(
          ['  kind: self-managed', `  kind: self-managed\n  arn: ${MSK}`],
          ['authentication: scram', 'authentication: iam'],
          ['  ways: endpoints', '  ways: endpoints\n  pollerRules: given\n  given: [kafka]'],
        ),
      ),
    ).toEqual([
      ...['cluster.authentication', 'cluster.arn', 'network.pollerRules', 'network.given'],
      'network.endpointsSecurityGroup',
    ])
  })

  it.each<[string, string, readonly Edit[]]>([
    ['cluster.kind', 'a kind that there is not', [['kind: self-managed', `kind: own\n  arn: ${MSK}`]]],
    ['cluster.brokers', 'brokers of several listeners', [['kafka-2.shop.internal:9094', 'kafka-2:9092']]],
    ['cluster.brokers', 'a port that there is not', [[/:9094/g, ':70000']]],
    [
      'cluster.brokers',
      'more brokers than Lambda takes',
      [
        [
          /brokers: .*/,
          `brokers: [${Array.from({ length: 11 }, (_, one) => `kafka-${one}.internal:9094`).join(', ')}]`,
        ],
      ],
    ],
    ['cluster.caSecret', 'an authority that functions trust and pollers do not', [[/ {2}caSecret.*\n/, '']]],
    ['cluster.caSecret', 'an authority that pollers trust and functions do not', [[/ {2}ca: .*\n/, '']]],
    [
      'cluster.caSecret',
      'an authority elsewhere',
      [['secretsmanager:eu-west-1', 'secretsmanager:eu-west-2']],
    ],
    [
      'cluster.secret',
      'a certificate that nobody has made',
      [['authentication: scram', 'authentication: mtls']],
    ],
  ])('is refused for %s: %s', (where, _, edits) => {
    const places = placesOf(edited(...edits)).filter((one) => !(where === 'cluster.kind' && one !== where))
    expect(places).toEqual([where])
  })

  it('refuses a secret of the authority for MSK, which Lambda trusts by itself', () => {
    const msk = readFileSync(join(STAGES, 'example.yml'), 'utf8')
    const told = msk.replace('  secret: create', `  secret: create\n  caSecret: ${SECRET}ca-Ab12Cd`)
    expect(placesOf(told)).toEqual(['cluster.caSecret'])
  })

  it('refuses a rotation that would tell MSK the passwords of these brokers', () => {
    const files = mkdtempSync(join(tmpdir(), 'sealgate-self-managed-'))
    const rotation = join(files, 'rotation.yaml')
    const told = (msk: string): string[] => {
      writeFileSync(
        rotation,
        `rotations:
  directory: { kind: directory }
  gate: { kind: scram, pointer: '${SECRET}gate-Ab12Cd', users: ['${SECRET}AmazonMSK_a-Ab12Cd', '${SECRET}AmazonMSK_b-Ab12Cd']${msk} }
`,
      )
      return placesOf(
        edited(['secret: create', `secret: ${SECRET}gate-Ab12Cd`], ['example/rotation.yaml', rotation]),
      )
    }
    expect(told('')).toEqual([])
    expect(told(`, msk: '${MSK}'`)).toEqual(['rotation'])
    rmSync(files, { recursive: true })
  })
})

describe('the stack of a self-managed cluster', () => {
  const mappingsOf = (template: unknown): readonly Node[] =>
    ofType(template, 'AWS::Lambda::EventSourceMapping').map(({ properties }) => properties)

  it('has mappings that say where pollers stand, as whom they log in and whom they trust', () => {
    const mappings = mappingsOf(templateOf(stage))
    expect(mappings.map(({ Topics }) => Topics)).toEqual([['ingress.orders'], ['ingress.payments']])
    for (const mapping of mappings) {
      expect(Object.keys(mapping)).not.toContain('EventSourceArn')
      expect(mapping).toMatchObject({
        SelfManagedEventSource: { Endpoints: { KafkaBootstrapServers: stage.cluster.brokers } },
        SelfManagedKafkaEventSourceConfig: {
          ConsumerGroupId: `shop.lambda.${String(listOf(mapping['Topics'])[0])}`,
        },
        StartingPosition: 'TRIM_HORIZON',
        SourceAccessConfigurations: [
          { Type: 'SASL_SCRAM_512_AUTH', URI: 'KafkaSecret' },
          ...stage.network.subnets.map((subnet) => ({ Type: 'VPC_SUBNET', URI: `subnet:${subnet}` })),
          { Type: 'VPC_SECURITY_GROUP', URI: 'security_group:PollerSecurityGroup.GroupId' },
          { Type: 'SERVER_ROOT_CA_CERTIFICATE', URI: stage.cluster.caSecret },
        ],
      })
    }
  })

  it('makes its mappings after the rules and endpoints that its pollers come by', () => {
    const { Resources } = nodeOf(templateOf(stage))
    expect(listOf(nodeOf(nodeOf(Resources)['IngressOrdersMapping'])['DependsOn'])).toEqual([
      ...['IngestRights', 'BrokersFromFunctions', 'BrokersFromPollers'],
      ...['EndpointsFromFunctions', 'EndpointsFromPollers', 'KmsEndpoint', 'LambdaEndpoint'],
      ...['SecretsmanagerEndpoint', 'StsEndpoint', 'S3Endpoint'],
    ])
  })

  it('logs in by certificate, with provisioned pollers and partial answers, and without an authority of its own', () => {
    const cluster = {
      ...stage.cluster,
      ...{
        authentication: 'mtls' as const,
        secret: `${SECRET}tls-Ab12Cd`,
        rotateSecret: `${SECRET}tls-Ab12Cd`,
      },
      ...{ ca: undefined, caSecret: undefined },
    }
    const pollers = { minimum: 1, maximum: 4 }
    const template = templateOf({ ...stage, cluster, pollers, failureMode: 'partial' })
    const [mapping] = mappingsOf(template)
    expect(mapping).toMatchObject({
      ProvisionedPollerConfig: { MinimumPollers: 1, MaximumPollers: 4 },
      ...{ MaximumRetryAttempts: -1, MaximumRecordAgeInSeconds: -1 },
      FunctionResponseTypes: ['ReportBatchItemFailures'],
    })
    const types = listOf(mapping?.['SourceAccessConfigurations']).map((one) => nodeOf(one)['Type'])
    expect(types[0]).toBe('CLIENT_CERTIFICATE_TLS_AUTH')
    expect(types).not.toContain('SERVER_ROOT_CA_CERTIFICATE')
    expect(templateFaults(template, 't')).toEqual([])
    expect(networkVerdicts(template, 't')).toEqual([])
  })

  it('asks nothing of MSK, and reads the secrets that its pollers log in by', () => {
    const template = templateOf(stage)
    expect(JSON.stringify(template)).not.toMatch(/"kafka:|kafka-cluster:|AmazonMSK_|AWS::MSK::|:9096/)
    const policies = ofType(template, 'AWS::IAM::Policy')
    const may = (role: string, resource: string): boolean =>
      mayByIdentity(
        { principal: role, action: 'secretsmanager:GetSecretValue', resource, context: {} },
        identityOf(role, policies),
      )
    const secrets = [stage.cluster.caSecret ?? '', 'KafkaSecret', 'RotateKafkaSecret']
    const roles = ['IngestRole', 'RotateRole', 'KeysRole']
    expect(roles.map((role) => secrets.map((secret) => may(role, secret)))).toEqual([
      [true, true, false],
      [false, false, true],
      [false, false, false],
    ])
  })

  const rulesInto = (template: unknown, group: string): string[] =>
    ofType(template, 'AWS::EC2::SecurityGroupIngress')
      .filter(({ properties }) => properties['GroupId'] === group)
      .map(
        ({ properties: { SourceSecurityGroupId, FromPort } }) =>
          `${String(SourceSecurityGroupId)} ${String(FromPort)}`,
      )
  const outOf = (template: unknown, group: string): unknown[] =>
    resourcesIn(template)
      .filter(({ id }) => id === group)
      .flatMap(({ properties }) => listOf(properties['SecurityGroupEgress']))
      .map(nodeOf)
      .map(({ FromPort, DestinationSecurityGroupId, CidrIp }) => [
        FromPort,
        DestinationSecurityGroupId ?? CidrIp,
      ])

  it('has a group for its pollers alone, from which they reach the brokers and AWS', () => {
    const brokers = stage.network.brokersSecurityGroup
    const template = templateOf(stage)
    expect(rulesInto(template, brokers)).toEqual([
      'FunctionSecurityGroup.GroupId 9094',
      'PollerSecurityGroup.GroupId 9094',
    ])
    expect(rulesInto(template, 'EndpointSecurityGroup.GroupId')).toEqual([
      'FunctionSecurityGroup.GroupId 443',
      'PollerSecurityGroup.GroupId 443',
    ])
    const out = (target: string) => [
      [9094, brokers],
      [443, target],
    ]
    expect(outOf(template, 'PollerSecurityGroup')).toEqual(out('EndpointSecurityGroup.GroupId'))
    expect(ofType(template, 'AWS::EC2::SecurityGroupEgress')).toEqual([])
    const nat = templateOf(withNetwork({ ways: 'nat' }))
    expect(outOf(nat, 'PollerSecurityGroup')).toEqual(out('0.0.0.0/0'))
    const group = 'sg-0fedcba9876543210'
    const given = templateOf(
      withNetwork({ given: ['kms', 'lambda', 'secretsmanager', 'sts'], endpointsSecurityGroup: group }),
    )
    expect(outOf(given, 'PollerSecurityGroup')).toEqual(out(group))
    expect(rulesInto(given, group)).toContain('PollerSecurityGroup.GroupId 443')
    for (const one of [template, nat]) expect(networkVerdicts(one, 't')).toEqual([])
  })

  it('is found at fault where somebody takes a way or the login of its pollers out', () => {
    const whole = nodeOf(templateOf(stage))
    const resources = nodeOf(whole['Resources'])
    const told = (changes: Record<string, unknown>): string[] => {
      const rest = Object.entries({ ...resources, ...changes }).filter(([, one]) => one !== undefined)
      const template = { ...whole, Resources: Object.fromEntries(rest) }
      const faults = templateFaults(template, 't').map(({ what }) => what)
      return [
        ...faults,
        ...networkVerdicts(template, 't').map(({ status, message }) => `${status}: ${message}`),
      ]
    }
    expect(told({})).toEqual([])
    expect(told({ BrokersFromPollers: undefined })).toEqual([
      expect.stringMatching(/^warn: .* reach the brokers/),
    ])
    expect(told({ EndpointsFromPollers: undefined })).toEqual([
      expect.stringMatching(/^warn: .* reach the endpoints/),
    ])
    const group = nodeOf(resources['PollerSecurityGroup'])
    const { SecurityGroupEgress: egress, ...open } = nodeOf(group['Properties'])
    expect(told({ PollerSecurityGroup: { ...group, Properties: open } })).toEqual([
      'fail: t: PollerSecurityGroup: It lets out to anywhere: no egress is named.',
    ])
    const shut = { ...open, SecurityGroupEgress: listOf(egress).slice(1) }
    expect(told({ PollerSecurityGroup: { ...group, Properties: shut } })).toEqual([
      expect.stringMatching(/^warn: .* reach the brokers/),
    ])
    const mapping = nodeOf(resources['IngressOrdersMapping'])
    const properties = nodeOf(mapping['Properties'])
    const access = listOf(properties['SourceAccessConfigurations']).map(nodeOf)
    const only = (kept: (type: string) => boolean): unknown => ({
      ...mapping,
      Properties: {
        ...properties,
        SourceAccessConfigurations: access.filter(({ Type }) => kept(String(Type))),
      },
    })
    for (const out of ['VPC_SUBNET', 'VPC_SECURITY_GROUP'])
      expect(told({ IngressOrdersMapping: only((type) => type !== out) })).toEqual([
        'fail: t: IngressOrdersMapping: Its pollers are in no VPC: brokers would have to be public.',
      ])
    expect(told({ IngressOrdersMapping: only((type) => type.startsWith('VPC_')) })).toEqual([
      expect.stringContaining('log in as nobody'),
    ])
    const queue = { ConsumerGroupId: 'g', ConsumptionMode: 'Queue' }
    expect(
      told({
        IngressOrdersMapping: {
          ...mapping,
          Properties: { ...properties, SelfManagedKafkaEventSourceConfig: queue },
        },
      }),
    ).toEqual([expect.stringContaining('in no order')])
  })

  it('is found at fault in SAM’s short form too', () => {
    const Variables = { SEALGATE_CHANNELS: 'a=b' }
    const told = (properties: object): string[] => {
      const Events = {
        Orders: {
          Type: 'SelfManagedKafka',
          Properties: { KafkaBootstrapServers: ['k:9094'], ...properties },
        },
      }
      const Properties = { Runtime: 'nodejs24.x', Timeout: 60, Environment: { Variables }, Events }
      const Resources = { Gate: { Type: 'AWS::Serverless::Function', Properties } }
      return templateFaults({ Resources }, 't').map(({ what }) => what)
    }
    const login = { SourceAccessConfigurations: [{ Type: 'CLIENT_CERTIFICATE_TLS_AUTH', URI: 'arn' }] }
    expect(told(login)).toEqual([])
    expect(told({})).toEqual([expect.stringContaining('log in as nobody')])
    expect(told({ ...login, ConsumptionMode: 'Queue' })).toEqual([expect.stringContaining('in no order')])
  })
})
