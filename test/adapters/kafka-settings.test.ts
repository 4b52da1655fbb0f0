import { describe, expect, it } from 'vitest'
import { readKafkaSettings } from '../../lib/adapters/kafka-settings.ts'
import { ConfigError } from '../../lib/errors.ts'

const USUAL = {
  brokers: ['b-1.example.com:9096', '127.0.0.1:9092'],
  sasl: { mechanism: 'scram-sha-512', username: 'gate', password: 'planted-secret' },
  deployment: 'shop',
}

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
      ...USUAL,
      clientId: 'sealgate',
      tls: {},
      epoch: 1,
      connectionTimeoutMs: 3000,
      authenticationTimeoutMs: 5000,
      requestTimeoutMs: 10_000,
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
      sasl: { mechanism: 'SCRAM', username: '', password: 7, token: 'planted-secret' },
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
        'kafka.sasl.mechanism',
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
})
