/** A stage's parameters: what is wrong with them is told at once, with its line, and packages nothing. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { STAGES } from '../../deploy/package.ts'
import { readStage } from '../../deploy/stage-file.ts'
import type { Stage } from '../../deploy/stage.ts'
import type { Fault } from '../../lib/errors.ts'
import { type Edit, editedText, faultsAt, placesAt } from './stage-text.ts'

const path = join(STAGES, 'example.yml')
const text = readFileSync(path, 'utf8')
const iam = readFileSync(join(STAGES, 'example-iam.yml'), 'utf8')

const faultsOf = (of: string, file = path): readonly Fault[] => faultsAt(file, of)
const placesOf = (of: string): string[] => placesAt(path, of)
/** The example with some of its text replaced. */
const edited = (...edits: readonly Edit[]): string => editedText(text, edits)

describe('a stage', () => {
  it('is read', () => {
    const stage: Stage = readStage(text, path)
    expect(stage).toMatchObject({
      name: 'example',
      gateway: 'gateway-eu',
      auditTopic: 'shop.audit',
      failureMode: 'throw',
      pollers: undefined,
      isEnabled: false,
      cluster: {
        authentication: 'scram',
        secret: 'create',
        rotateSecret: 'create',
        transactionTimeoutMs: 15_000,
      },
      timeoutSeconds: 60,
    })
    expect(faultsOf(iam, join(STAGES, 'example-iam.yml'))).toEqual([])
  })

  it('that is empty is told all that is missing at once', () => {
    expect(placesOf('{}')).toEqual([
      ...[
        'deployment',
        'cluster.authentication',
        'rotation',
        'cluster.secret',
        'account',
        'region',
        'gateway',
        'channels',
      ],
      ...['cluster.arn', 'cluster.brokers', 'contracts', 'roots', 'directory', 'signingKey'],
      ...['rootKey', 'secretsKey', 'kek.id', 'kek.key', 'producers', 'consumers', 'failureMode', 'keysUrl'],
      ...['network.vpc', 'network.subnets', 'network.brokersSecurityGroup', 'network.ways', 'alarms.topic'],
    ])
  })

  it('is told every fault with its line and what to do', () => {
    const faults = faultsOf(
      edited(
        ["account: '123456789012'", 'account: 123456789012'],
        ['region: eu-west-1', 'region: Europe'],
        ['keysUrl: public', 'keysUrl: everybody'],
        ['alarms: { topic: create }', 'alarms: { topic: create, lag: 3 }\nfailuremode: partial'],
      ),
    )
    expect(faults.map(({ where, line }) => [where.replace(`${path}: `, ''), line])).toEqual([
      ['failuremode', expect.any(Number)],
      ['alarms.lag', expect.any(Number)],
      ['account', 2],
      ['region', 3],
      ['keysUrl', expect.any(Number)],
      ['cluster.arn', expect.any(Number)],
    ])
    expect(faults.every(({ fix }) => fix !== '')).toBe(true)
  })

  it.each<[string, string, readonly Edit[]]>([
    [
      'failureMode',
      'partial answers without provisioned pollers',
      [['failureMode: throw', 'failureMode: partial']],
    ],
    [
      'pollers',
      'fewer pollers at most than at least',
      [['enabled: false', 'pollers: { minimum: 9, maximum: 2 }']],
    ],
    ['cluster.arn', 'a cluster elsewhere', [['kafka:eu-west-1', 'kafka:us-east-1']]],
    [
      'cluster.brokers',
      'the port of another login',
      [
        ['authentication: scram', 'authentication: mtls'],
        ['secret: create', 'secret: arn:aws:secretsmanager:eu-west-1:123456789012:secret:x-Ab12Cd'],
      ],
    ],
    [
      'cluster.secret',
      'a secret beside IAM',
      [
        ['authentication: scram', 'authentication: iam'],
        [/:9096/g, ':9098'],
      ],
    ],
    [
      'cluster.secret',
      'a name that MSK does not take, and no pointer',
      [['secret: create', 'secret: arn:aws:secretsmanager:eu-west-1:123456789012:secret:x-Ab12Cd']],
    ],
    [
      'cluster.rotateSecret',
      'a name that MSK does not take, for the function that rotates',
      [
        [
          'secret: create',
          `secret: create\n  rotateSecret: arn:aws:secretsmanager:eu-west-1:123456789012:secret:x-Ab12Cd`,
        ],
      ],
    ],
    [
      'cluster.rotateSecret',
      'a secret elsewhere',
      [
        [
          'secret: create',
          `secret: create\n  rotateSecret: arn:aws:secretsmanager:eu-west-2:123456789012:secret:AmazonMSK_x-Ab12Cd`,
        ],
      ],
    ],
    [
      'cluster.secret',
      'a certificate that nobody has made',
      [
        ['authentication: scram', 'authentication: mtls'],
        [/:9096/g, ':9094'],
      ],
    ],
    ['network.routeTables', 'endpoints without a way to S3', [[/ {2}routeTables.*\n/, '']]],
    ['network.s3PrefixList', 'endpoints without S3’s addresses', [[/ {2}s3PrefixList.*\n/, '']]],
    [
      'network.endpointsSecurityGroup',
      'endpoints that are there already, of which no group is told',
      [['ways: endpoints', 'ways: endpoints\n  given: [kms, sts]']],
    ],
    [
      'network.routeTables',
      'a second way to S3, which a route table does not take',
      [['ways: endpoints', 'ways: endpoints\n  given: [s3]']],
    ],
    [
      'network.given',
      'endpoints that are there already, and none that are used',
      [['ways: endpoints', 'ways: nat\n  given: [s3]']],
    ],
    [
      'network.endpointsSecurityGroup',
      'a group of endpoints, and none that are used',
      [['ways: endpoints', 'ways: nat\n  endpointsSecurityGroup: sg-0123456789abcdef1']],
    ],
    ['network.given', 'a service that nobody asks', [['ways: endpoints', 'ways: endpoints\n  given: [ec2]']]],
    [
      'timeoutSeconds',
      'too little time to take a partition over',
      [['enabled: false', 'timeoutSeconds: 34']],
    ],
    [
      'timeoutSeconds',
      'a transaction that outlives the function',
      [['authentication: scram', 'authentication: scram\n  transactionTimeoutMs: 60000']],
    ],
    ['timeoutSeconds', 'more than Lambda gives', [['enabled: false', 'timeoutSeconds: 841']]],
    ['producers', 'a producer of the gateway’s name', [['  checkout: {', '  gateway-eu: {']]],
    ['producers', 'one role for two producers', [['role/payments', 'role/checkout']]],
    [
      'producers',
      'a producer whose KEK would have the name of the gateway’s in the stack',
      [['  checkout: {', '  gateway: {']],
    ],
    ['consumers', 'one role for two consumers', [['role/notifications', 'role/warehouse']]],
    ['channels', 'topics that differ in punctuation alone', [['ingress.payments:', 'ingress-orders:']]],
    [
      'gateway',
      'a name that a policy would read as a variable',
      [['gateway: gateway-eu', "gateway: '${aws:username}'"]],
    ],
    ['gateway', 'a wildcard for a name', [['gateway: gateway-eu', "gateway: '*'"]]],
    [
      'channels',
      'a topic whose poller’s group would be longer than Lambda takes',
      [['ingress.payments:', `${'p'.repeat(190)}:`]],
    ],
    ['rootKey', 'a key elsewhere', [['arn:aws:kms:eu-west-1', 'arn:aws:kms:us-east-1']]],
    [
      'pseudonyms',
      'a secret elsewhere',
      [['arn:aws:secretsmanager:eu-west-1', 'arn:aws:secretsmanager:eu-west-2']],
    ],
    [
      'alarms.topic',
      'a topic elsewhere',
      [['{ topic: create }', '{ topic: "arn:aws:sns:us-east-1:123456789012:a" }']],
    ],
    ['rootKey', 'a key of another partition', [['arn:aws:kms:eu-west-1', 'arn:aws-cn:kms:eu-west-1']]],
    [
      'tracing.layer',
      'a layer of another region',
      [['enabled: false', "tracing: { layer: 'arn:aws:lambda:us-east-1:615299751070:layer:A:1' }"]],
    ],
    [
      'tracing.layer',
      'a layer without its version',
      [['enabled: false', "tracing: { layer: 'arn:aws:lambda:eu-west-1:615299751070:layer:A' }"]],
    ],
    ['rootKey', 'an alias', [[/rootKey: .*/, 'rootKey: alias/root']]],
    ['logDays', 'a time that CloudWatch does not keep', [['enabled: false', 'logDays: 42']]],
  ])('is refused for %s: %s', (where, _, edits) => {
    expect(placesOf(edited(...edits))).toEqual([where])
  })

  it('is deployed to no other partition, whose ARNs begin otherwise', () => {
    for (const region of ['cn-north-1', 'us-gov-west-1', 'us-iso-east-1'])
      expect(faultsOf(text.replaceAll('eu-west-1', region)).map(({ what }) => what)).toEqual([
        'It is of another partition than aws.',
      ])
  })

  it('may have keys and secrets of another account in its region', () => {
    const other = 'arn:aws:kms:eu-west-1:999999999999:key/5d1a7f0e-3c55-4b0e-8f6c-6f3f0a9b2c11'
    expect(placesOf(edited([/rootKey: .*/, `rootKey: ${other}`]))).toEqual([])
  })

  it('may log in by the secret that points at one of two users, where they are rotated', () => {
    const secret = 'arn:aws:secretsmanager:eu-west-1:123456789012:secret:'
    const files = mkdtempSync(join(tmpdir(), 'sealgate-stage-'))
    const rotation = join(files, 'rotation.yaml')
    const row = (pointer: string): string => `rotations:
  directory: { kind: directory }
  gate: { kind: scram, pointer: '${secret}${pointer}', users: ['${secret}AmazonMSK_a-Ab12Cd', '${secret}AmazonMSK_b-Ab12Cd'] }
  tls: { kind: client-certificate, secret: '${secret}c-Ab12Cd', subject: 'CN=gate', authority: ca.pem, authorityKey: 'file:ca.key' }
`
    const by = [
      ['secret: create', `secret: ${secret}gate-Ab12Cd`],
      ['example/rotation.yaml', rotation],
    ] as const
    const told = (pointer: string): string[] => {
      writeFileSync(rotation, row(pointer))
      return placesOf(edited(...by))
    }
    // The key of the authority may not lie beside the policy.
    expect(told('gate-Ab12Cd')).toEqual(['rotation'])
    expect(told('other-Ab12Cd')).toEqual(['cluster.secret', 'rotation'])
    rmSync(files, { recursive: true })
  })

  it('has a name with which the directory’s bucket has one that S3 takes', () => {
    const longest = 'sealgate-production-blue-two'.slice('sealgate-'.length)
    const file = join(STAGES, `${longest}.yml`)
    expect(faultsOf(text, file)).toEqual([])
    const elsewhere = text.replaceAll('eu-west-1', 'ap-northeast-1')
    const told = (of: string) =>
      faultsOf(of, file).flatMap(({ where, what }) => (where.endsWith(': directory') ? [what] : []))
    expect(told(elsewhere)).toEqual([expect.stringContaining('63 characters')])
    expect(told(elsewhere.replace('directory: create', 'directory: s3://a-bucket/directory.jws'))).toEqual([])
  })

  it('may not leave the key directory to expire', () => {
    const rotation = join(STAGES, 'example/none.yaml')
    expect(placesOf(edited(['example/rotation.yaml', 'example/none.yaml']))).toEqual(['rotation'])
    expect(faultsOf(edited(['example/rotation.yaml', 'example/none.yaml']))[0]?.what).toContain(rotation)
    expect(
      faultsOf(edited(['example/rotation.yaml', '../../../contracts/order-placed.yaml'])).length,
    ).toBeGreaterThan(0)
  })

  it('that is no YAML, or no map, or has a name twice, is refused', () => {
    expect(faultsOf('a: [')[0]).toMatchObject({ where: path, line: expect.any(Number) })
    expect(faultsOf('- a')).toHaveLength(1)
    expect(faultsOf(`${text}\nkeysUrl: iam\n`)[0]?.what).toContain('unique')
    expect(faultsOf(text, join(STAGES, 'My Stage.yml'))).toHaveLength(1)
    expect(placesOf(`${text}\n__proto__: { polluted: true }\n`)).toEqual(['__proto__'])
  })
})
