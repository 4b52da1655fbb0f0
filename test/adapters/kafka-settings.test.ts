import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { readKafkaSettings } from '../../lib/adapters/kafka-settings.ts'
import { ConfigError } from '../../lib/errors.ts'

const USUAL = {
  brokers: ['b-1.example.com:9096', '127.0.0.1:9092'],
  sasl: { mechanism: 'scram-sha-512', username: 'gate', password: 'planted-secret' },
  deployment: 'shop',
}

const folder = mkdtempSync(join(tmpdir(), 'kafka-settings-'))
afterAll(() => rmSync(folder, { recursive: true }))
const file = (name: string, content: string): string => {
  writeFileSync(join(folder, name), content)
  return join(folder, name)
}
const ARN = 'arn:aws:secretsmanager:eu-west-1:111122223333:secret:AmazonMSK_gate-AbCdEf'

const faultsOf = (raw: unknown): string[] => {
  try {
    readKafkaSettings(raw)
    return []
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    expect(error.message).not.toContain('planted-secret')
    return error.faults.map(({ where }) => where)
  }
}

describe('settings of the Kafka sink', () => {
  it('are TLS, a client’s name and bounded times unless something else is said', () => {
    expect(readKafkaSettings(USUAL)).toEqual({
      brokers: USUAL.brokers,
      deployment: 'shop',
      clientId: 'sealgate',
      tls: {},
      sasl: {
        mechanism: 'scram-sha-512',
        login: { name: 'gate', secret: { text: 'planted-secret' } },
      },
      epoch: 1,
      connectionTimeoutMs: 3000,
      authenticationTimeoutMs: 5000,
      requestTimeoutMs: 10_000,
      secretMaxAgeMs: 60_000,
      transactionTimeoutMs: 15_000,
      openTimeoutMs: 10_000,
      maxIdleMs: 60_000,
    })
  })

  it('name every fault at once, and never quote a value', () => {
    const raw = {
      brokers: ['b-1.example.com', 'http://b-2:9092', 'b-3:70000', '[::1]:9092', 5],
      clientId: 'a b',
      ssl: { ca: 'planted-secret', rejectUnauthorized: false, key: 'planted-secret' },
      sasl: { mechanism: 'plain', username: '', password: 7, token: 'planted-secret' },
      epoch: 0,
      transactionTimeoutMs: '15000',
      retries: 5,
    }
    expect(faultsOf(raw).sort()).toEqual(
      [
        'kafka.brokers[0]',
        'kafka.brokers[1]',
        'kafka.brokers[2]',
        'kafka.brokers[3]',
        'kafka.brokers[4]',
        'kafka.clientId',
        'kafka.deployment',
        'kafka.epoch',
        'kafka.retries',
        'kafka.sasl.password',
        'kafka.sasl.token',
        'kafka.sasl.username',
        'kafka.ssl',
        'kafka.ssl.ca',
        'kafka.ssl.key',
        'kafka.ssl.rejectUnauthorized',
        'kafka.transactionTimeoutMs',
      ].sort(),
    )
    for (const nothing of [undefined, null, [], 'kafka', 5]) expect(faultsOf(nothing)).toContain('kafka')
  })

  it('refuse credentials without TLS, whatever the mechanism, and an unverified peer', () => {
    for (const mechanism of ['plain', 'scram-sha-256', 'scram-sha-512']) {
      const sasl = { ...USUAL.sasl, mechanism }
      expect(faultsOf({ ...USUAL, sasl, insecurePlaintext: true })).toEqual(['kafka.insecurePlaintext'])
      expect(faultsOf({ ...USUAL, sasl, ssl: false })).toEqual(['kafka.ssl'])
      expect(faultsOf({ ...USUAL, sasl })).toEqual([])
    }
    expect(faultsOf({ ...USUAL, ssl: { rejectUnauthorized: false } })).toEqual([
      'kafka.ssl.rejectUnauthorized',
    ])
    expect(faultsOf({ ...USUAL, ssl: { checkServerIdentity: () => undefined } })).toHaveLength(1)
  })

  it('go without TLS only by the name of what that is, and then without credentials', () => {
    const { brokers, deployment } = USUAL
    expect(readKafkaSettings({ brokers, deployment, insecurePlaintext: true }).tls).toBeUndefined()
    expect(faultsOf({ brokers, deployment, insecurePlaintext: false })).toEqual(['kafka.insecurePlaintext'])
    expect(faultsOf({ brokers, deployment, insecurePlaintext: true, ssl: {} })).toHaveLength(1)
  })

  it('take nothing from a prototype', () => {
    const raw: unknown = JSON.parse('{"__proto__": {"deployment": "shop"}, "brokers": ["b:1"]}')
    expect(faultsOf(raw)).toEqual(['kafka.__proto__', 'kafka.deployment'])
    expect(faultsOf(Object.create(USUAL))).toContain('kafka.deployment')
  })

  it('know each mechanism by its own fields', () => {
    const saslOf = (sasl: object): unknown => readKafkaSettings({ ...USUAL, sasl }).sasl
    const password = file('password', 'p')
    expect(saslOf({ mechanism: 'plain', username: 'u', passwordFile: password })).toEqual({
      mechanism: 'plain',
      login: { name: 'u', secret: { file: password } },
    })
    expect(saslOf({ mechanism: 'scram-sha-256', secret: ARN })).toEqual({
      mechanism: 'scram-sha-256',
      login: { arn: ARN },
    })
    const token = { mechanism: 'oauthbearer', tokenEndpoint: 'https://id.example.com/token' }
    expect(saslOf({ ...token, clientId: 'c', clientSecret: 's', scope: 'kafka' })).toEqual({
      mechanism: 'oauthbearer',
      url: 'https://id.example.com/token',
      login: { name: 'c', secret: { text: 's' } },
      scope: 'kafka',
      ca: undefined,
    })
    expect(saslOf({ mechanism: 'aws-msk-iam', region: 'eu-west-1' })).toEqual({
      mechanism: 'aws-msk-iam',
      region: 'eu-west-1',
    })
  })

  it('refuse credentials that are missing, doubled, of another mechanism, or not to be read', () => {
    const faults = (sasl: unknown): string[] => faultsOf({ ...USUAL, sasl })
    for (const nothing of [null, [], 'plain', {}, { mechanism: 'PLAIN' }, { mechanism: 'constructor' }])
      expect(faults(nothing)).toContain('kafka.sasl.mechanism')
    expect(faults(Object.create({ mechanism: 'gssapi' }))).toEqual(['kafka.sasl.mechanism'])
    const user = { mechanism: 'plain', username: 'u' }
    expect(faults(user)).toEqual(['kafka.sasl'])
    expect(faults({ ...user, password: 'planted-secret', secret: ARN })).toEqual([
      'kafka.sasl',
      'kafka.sasl.username',
    ])
    expect(faults({ ...user, passwordFile: join(folder, 'none') })).toEqual(['kafka.sasl.passwordFile'])
    expect(faults({ mechanism: 'plain', secret: 'AmazonMSK_gate' })).toEqual(['kafka.sasl.secret'])
    // The optional package is not installed here.
    expect(faults({ mechanism: 'gssapi', username: 'u', serviceName: 'a/b' })).toEqual([
      'kafka.sasl.username',
      'kafka.sasl.mechanism',
      'kafka.sasl.serviceName',
    ])
    expect(faults({ mechanism: 'aws-msk-iam' })).toEqual(['kafka.sasl.region'])
    const client = { mechanism: 'oauthbearer', clientId: 'c', clientSecret: 'planted-secret' }
    for (const tokenEndpoint of [undefined, 'http://id/token', 'https://a:planted-secret@id/', 'id'])
      expect(faults({ ...client, tokenEndpoint })).toEqual(['kafka.sasl.tokenEndpoint'])
  })

  it('take a client certificate from texts, files or a secret, and see at once whether it is one', () => {
    const tlsFaults = (ssl: object): string[] => faultsOf({ ...USUAL, ssl })
    const text = '-----BEGIN CERTIFICATE-----\nplanted-secret\n-----END CERTIFICATE-----\n'
    expect(readKafkaSettings({ ...USUAL, ssl: { secret: ARN } }).tls).toEqual({ client: { arn: ARN } })
    expect(tlsFaults({ secret: ARN, key: text })).toEqual(['kafka.ssl.secret'])
    expect(tlsFaults({ cert: text })).toEqual(['kafka.ssl'])
    expect(tlsFaults({ cert: text, key: text })).toEqual(['kafka.ssl'])
    expect(tlsFaults({ ca: file('ca.pem', text) })).toEqual(['kafka.ssl'])
    expect(tlsFaults({ ca: file('other', 'planted-secret') })).toEqual(['kafka.ssl.ca'])
    expect(tlsFaults({ ca: join(folder, 'none') })).toEqual(['kafka.ssl.ca'])
  })
})
