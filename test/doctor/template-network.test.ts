/** The network of a template: one that is sound, and each way in or out that is missing or too wide. */
import { describe, expect, it } from 'vitest'
import { networkVerdicts } from '../../lib/doctor/template-network.ts'

type Parts = Record<string, { Type: string; Properties: Record<string, unknown> }>

const endpoint = (service: string) => ({
  Type: 'AWS::EC2::VPCEndpoint',
  Properties: { ServiceName: { 'Fn::Sub': `com.amazonaws.\${AWS::Region}.${service}` } },
})
const tcp = (port: number) => ({ IpProtocol: 'tcp', FromPort: port, ToPort: port })
const gate = (more: object) => ({
  Type: 'AWS::Lambda::Function',
  Properties: {
    Environment: { Variables: { SEALGATE_CHANNELS: 'a=b', SEALGATE_DIRECTORY: 's3://keys/directory.jws' } },
    VpcConfig: { SecurityGroupIds: [{ 'Fn::GetAtt': ['Functions', 'GroupId'] }] },
    ...more,
  },
})
const functions = (egress: unknown) => ({
  Type: 'AWS::EC2::SecurityGroup',
  Properties: egress === undefined ? {} : { SecurityGroupEgress: egress },
})
const toBrokers = { ...tcp(9096), DestinationSecurityGroupId: 'sg-brokers' }
const sound: Parts = {
  Gate: gate({}),
  Functions: functions([toBrokers]),
  Pollers: {
    Type: 'AWS::EC2::SecurityGroupIngress',
    Properties: { GroupId: 'sg-brokers', SourceSecurityGroupId: 'sg-brokers', ...tcp(9096) },
  },
  Kms: endpoint('kms'),
  Secrets: endpoint('secretsmanager'),
  Sts: endpoint('sts'),
  Lambda: endpoint('lambda'),
  S3: endpoint('s3'),
}
const judge = (changes: Record<string, Parts[string] | undefined>): string[] => {
  const parts = Object.entries({ ...sound, ...changes }).filter(([, part]) => part !== undefined)
  return networkVerdicts({ Resources: Object.fromEntries(parts) }, 't').map(
    ({ status, message }) => `${status}: ${message}`,
  )
}

describe('the network of a template', () => {
  it('is well with endpoints for what is asked, or with a NAT instead', () => {
    expect(judge({})).toEqual([])
    const nat = functions([toBrokers, { ...tcp(443), CidrIp: '0.0.0.0/0' }])
    const none = { Kms: undefined, Secrets: undefined, Sts: undefined, Lambda: undefined, S3: undefined }
    expect(judge({ Functions: nat, ...none })).toEqual([])
  })

  it.each([
    ['Kms', 'fail: t: network: There is no way to kms.'],
    ['Secrets', 'fail: t: network: There is no way to secretsmanager.'],
    ['Sts', 'fail: t: network: There is no way to sts.'],
    ['Lambda', 'fail: t: network: There is no way to lambda.'],
    ['S3', 'fail: t: network: There is no way to S3, where the key directory is.'],
  ])('is red without %s', (id, message) => {
    expect(judge({ [id]: undefined })).toEqual([message])
  })

  it('is red where the gate is in no VPC, and where anybody comes in', () => {
    expect(judge({ Gate: gate({ VpcConfig: undefined }) })[0]).toContain('It is in no VPC')
    const open = { ...tcp(9096), GroupId: 'sg-brokers', CidrIp: '0.0.0.0/0' }
    const rule = { Type: 'AWS::EC2::SecurityGroupIngress', Properties: open }
    expect(judge({ Open: rule })).toEqual(['fail: t: Open: It lets in whoever comes.'])
    const group = {
      Type: 'AWS::EC2::SecurityGroup',
      Properties: { SecurityGroupIngress: [{ ...tcp(9096), CidrIpv6: '::/0' }] },
    }
    expect(judge({ Open: group })).toEqual(['fail: t: Open: It lets in whoever comes.'])
  })

  it('is red where functions come out anywhere, said or unsaid', () => {
    expect(judge({ Functions: functions(undefined) })).toEqual([
      'fail: t: Functions: It lets out to anywhere: no egress is named.',
    ])
    const all = [toBrokers, { IpProtocol: '-1', CidrIp: '0.0.0.0/0' }]
    expect(judge({ Functions: functions(all) })[0]).toContain('by more than 443')
  })

  it('is spoken of where no rule of it lets the pollers in', () => {
    expect(judge({ Pollers: undefined })[0]).toMatch(/^warn: .*pollers/)
  })

  describe('of endpoints with a group', () => {
    const grouped = (service: string) => ({
      ...endpoint(service),
      Properties: {
        ...endpoint(service).Properties,
        SecurityGroupIds: [{ 'Fn::GetAtt': ['Ways', 'GroupId'] }],
      },
    })
    const into = (from: Record<string, unknown>) => ({
      Type: 'AWS::EC2::SecurityGroupIngress',
      Properties: { GroupId: { Ref: 'Ways' }, ...tcp(443), ...from },
    })
    const mapping = (more: object) => ({
      Type: 'AWS::Lambda::EventSourceMapping',
      Properties: { FunctionName: { Ref: 'Gate' }, ...more },
    })
    const parts = {
      ...{ Kms: grouped('kms'), Secrets: grouped('secretsmanager'), Sts: grouped('sts') },
      ...{ Lambda: grouped('lambda'), Mapping: mapping({}) },
      Functions443: into({ SourceSecurityGroupId: { 'Fn::GetAtt': ['Functions', 'GroupId'] } }),
    }
    const Pollers443 = into({ SourceSecurityGroupId: 'sg-brokers' })

    it('is spoken of where none of its rules lets pollers on demand in', () => {
      expect(judge(parts)).toEqual([expect.stringMatching(/^warn: t: .*pollers.* reach the endpoints/)])
      const elsewhere = into({ SourceSecurityGroupId: 'sg-others' })
      expect(judge({ ...parts, Pollers443: elsewhere })).toHaveLength(1)
    })

    it('is well with such a rule, with one for addresses, or with provisioned pollers', () => {
      expect(judge({ ...parts, Pollers443 })).toEqual([])
      expect(judge({ ...parts, Pollers443: into({ CidrIp: '10.0.0.0/16' }) })).toEqual([])
      const inline = { CidrIp: '10.0.0.0/16', ...tcp(443) }
      const group = { Type: 'AWS::EC2::SecurityGroup', Properties: { SecurityGroupIngress: [inline] } }
      expect(judge({ ...parts, Ways: group })).toEqual([])
      const provisioned = mapping({ ProvisionedPollerConfig: { MinimumPollers: 1 } })
      expect(judge({ ...parts, Mapping: provisioned })).toEqual([])
    })
  })

  it.each([[undefined], [null], ['text'], [[]], [{ Resources: { a: null, b: [] } }]])(
    'takes %j',
    (template) => {
      expect(networkVerdicts(template, 't').length).toBeGreaterThan(0)
    },
  )
})
