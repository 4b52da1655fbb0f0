import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { buildBundle } from '../lib/contract/bundle.ts'
import { checkContracts } from '../lib/contract/load.ts'
import { exportPrivateJwk, exportPublicJwk, generateKeyPair } from '../lib/envelope/crypto.ts'
import { ED25519, ESP256 } from '../lib/envelope/suite.ts'
import { ConfigError } from '../lib/errors.ts'
import { type ClusterSettings, readSettings } from '../lib/settings.ts'
import { ORDER_CONTRACT } from './shop.ts'

const folder = mkdtempSync(join(tmpdir(), 'settings-'))
afterAll(() => rmSync(folder, { recursive: true }))

const file = (name: string, content: string | Uint8Array): string => {
  writeFileSync(join(folder, name), content)
  return join(folder, name)
}
const pair = generateKeyPair(ED25519)
const other = generateKeyPair(ESP256)
const root = JSON.stringify(exportPublicJwk(pair.publicKey))
const secret = JSON.stringify(exportPrivateJwk(pair.privateKey))
const ARN = 'arn:aws:kms:eu-west-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab'

const whole = (): Record<string, string> => ({
  SEALGATE_NAME: 'gate',
  SEALGATE_DEPLOYMENT: 'shop',
  SEALGATE_CHANNELS: 'source.orders=orders',
  SEALGATE_CONTRACTS: file(
    'bundle.json',
    buildBundle(checkContracts([{ file: 'a.yaml', text: ORDER_CONTRACT }]).files),
  ),
  SEALGATE_DIRECTORY: '/var/task/directory.jws',
  SEALGATE_ROOTS: file('roots.json', root),
  SEALGATE_KEK_ID: 'kek-1',
  SEALGATE_SIGNING_KEY: ARN,
  SEALGATE_PSEUDONYMS: '/var/task/pseudonyms.json',
  SEALGATE_KAFKA_BROKERS: 'b-1.example.com:9096,b-2.example.com:9096',
})

const clusterOf = (environment: Record<string, string>): ClusterSettings => {
  const settings = readSettings(environment)
  if (settings.localFolder !== undefined) throw new Error('not of a cluster')
  return settings
}

function faultsOf(environment: Record<string, string>): { where: string; text: string }[] {
  try {
    readSettings(environment)
  } catch (error) {
    if (error instanceof ConfigError)
      return error.faults.map(({ where, what, fix }) => ({ where, text: `${what} ${fix}` }))
    throw error
  }
  return []
}
const placesOf = (environment: Record<string, string>): string[] =>
  faultsOf(environment).map(({ where }) => where)

describe('the settings of a gate on a cluster', () => {
  it('need few variables, and have defaults for the rest', () => {
    const settings = clusterOf(whole())
    expect(settings).toMatchObject({
      answerMode: 'throw',
      auditTopic: 'shop.audit',
      quarantineTopic: 'shop.quarantine',
      channels: new Map([['source.orders', 'orders']]),
      topics: new Map(),
      limits: { maxSessions: 64, newDataKeysPerMinute: 60 },
      maxLifeSeconds: 86_400,
      signing: { arn: ARN, kid: undefined },
      kafka: { epoch: 1, deployment: 'shop', brokers: ['b-1.example.com:9096', 'b-2.example.com:9096'] },
    })
    expect(settings.roots).toHaveLength(1)
  })

  it('can all be set', () => {
    const roots = `[${root},${JSON.stringify(exportPublicJwk(other.publicKey))}]`
    const settings = clusterOf({
      ...whole(),
      SEALGATE_ROOTS: file('two.json', roots),
      SEALGATE_EPOCH: '3',
      SEALGATE_TOPICS: 'orders.fulfilment=out.a,orders.analytics=out.b',
      SEALGATE_AUDIT_TOPIC: 'a',
      SEALGATE_QUARANTINE_TOPIC: 'q',
      SEALGATE_SIGNING_KID: 'k',
      SEALGATE_FAILURE_MODE: 'partial',
      SEALGATE_MAX_SESSIONS: '10',
      SEALGATE_NEW_DATA_KEYS_PER_MINUTE: '20',
      SEALGATE_MAX_LIFE_SECONDS: '60',
      SEALGATE_KAFKA_CLIENT_ID: 'us',
      SEALGATE_KAFKA_SASL_MECHANISM: 'scram-sha-512',
      SEALGATE_KAFKA_SASL_USERNAME: 'u',
      SEALGATE_KAFKA_SASL_PASSWORD: 'p',
      SEALGATE_KAFKA_REQUEST_TIMEOUT_MS: '7000',
      SEALGATE_KAFKA_MAX_IDLE_MS: '8000',
      SEALGATE_KAFKA_SECRET_MAX_AGE_MS: '9000',
    })
    expect(settings.roots.map(({ suite }) => suite.name)).toEqual(['Ed25519', 'ESP256'])
    expect(settings).toMatchObject({
      answerMode: 'partial',
      auditTopic: 'a',
      quarantineTopic: 'q',
      limits: { maxSessions: 10, newDataKeysPerMinute: 20 },
      maxLifeSeconds: 60,
      signing: { kid: 'k' },
      kafka: {
        epoch: 3,
        clientId: 'us',
        sasl: { mechanism: 'scram-sha-512', login: { name: 'u', secret: { text: 'p' } } },
        requestTimeoutMs: 7000,
        maxIdleMs: 8000,
        secretMaxAgeMs: 9000,
      },
    })
    expect(settings.topics.get('orders.analytics')).toBe('out.b')
  })

  it('are told all that is missing at once', () => {
    expect(placesOf({ SEALGATE_NAME: 'gate' })).toEqual([
      'SEALGATE_KAFKA_BROKERS',
      'SEALGATE_DEPLOYMENT',
      'SEALGATE_CONTRACTS',
      'SEALGATE_CHANNELS',
      'SEALGATE_DIRECTORY',
      'SEALGATE_ROOTS',
      'SEALGATE_KEK_ID',
      'SEALGATE_SIGNING_KEY',
    ])
  })

  it('are told all that is wrong at once, by the names of the environment and without any secret', () => {
    const faults = faultsOf({
      ...whole(),
      SEALGATE_LOCAL: '/x',
      SEALGATE_TYPO: '1',
      SEALGATE_EPOCH: '1.5',
      SEALGATE_CHANNELS: 'source.orders=nothing,=x',
      SEALGATE_ROOTS: file('secret.json', secret),
      SEALGATE_CONTRACTS: join(folder, 'none'),
      SEALGATE_SIGNING_KEY: 'alias/gate',
      SEALGATE_MAX_SESSIONS: '1e3',
      SEALGATE_FAILURE_MODE: 'never',
      SEALGATE_KAFKA_BROKERS: 'b-1',
      SEALGATE_KAFKA_SSL_CA: file('ca.pem', 'hunter2'),
      SEALGATE_KAFKA_SASL_MECHANISM: 'plain',
      SEALGATE_KAFKA_SASL_PASSWORD: 'hunter2',
      SEALGATE_KAFKA_SASL_SCOPE: 'hunter2',
      NODE_TLS_REJECT_UNAUTHORIZED: '0',
      SEALGATE_KAFKA_OPEN_TIMEOUT_MS: 'long',
    })
    expect(faults.map(({ where }) => where).sort()).toEqual([
      'NODE_TLS_REJECT_UNAUTHORIZED',
      'SEALGATE_CHANNELS',
      'SEALGATE_CONTRACTS',
      'SEALGATE_EPOCH',
      'SEALGATE_FAILURE_MODE',
      'SEALGATE_KAFKA_BROKERS[0]',
      'SEALGATE_KAFKA_OPEN_TIMEOUT_MS',
      'SEALGATE_KAFKA_SASL_SCOPE',
      'SEALGATE_KAFKA_SASL_USERNAME',
      'SEALGATE_KAFKA_SSL_CA',
      'SEALGATE_LOCAL',
      'SEALGATE_MAX_SESSIONS',
      'SEALGATE_ROOTS',
      'SEALGATE_SIGNING_KEY',
      'SEALGATE_TYPO',
    ])
    expect(JSON.stringify(faults)).not.toContain('hunter2')
    expect(JSON.stringify(faults)).not.toContain(JSON.parse(secret).d)
  })

  it('are all documented', () => {
    const page = readFileSync(join(import.meta.dirname, '../docs/settings.md'), 'utf8')
    const [fault] = faultsOf({ ...whole(), SEALGATE_TYPO: '1' })
    const known = fault?.text.match(/SEALGATE_[A-Z_]+/g) ?? []
    expect(known.length).toBeGreaterThan(40)
    for (const name of known) expect(page).toContain(`\`${name}\``)
  })

  it('refuse a channel without contract, and pseudonyms without keys', () => {
    const rest = { ...whole(), SEALGATE_PSEUDONYMS: '' }
    const faults = faultsOf({ ...rest, SEALGATE_CHANNELS: 'source.orders=elsewhere' })
    expect(faults.map(({ where }) => where)).toEqual(['SEALGATE_CHANNELS', 'SEALGATE_PSEUDONYMS'])
    const secret = 'arn:aws:secretsmanager:eu-west-1:111122223333:secret:pseudonyms-AbCdEf'
    expect(placesOf({ ...rest, SEALGATE_PSEUDONYMS: secret })).toEqual([])
    expect(placesOf({ ...rest, SEALGATE_PSEUDONYMS: secret.slice(0, -30) })).toEqual(['SEALGATE_PSEUDONYMS'])
    const plain = file('none.json', buildBundle([]))
    expect(placesOf({ ...rest, SEALGATE_CONTRACTS: plain })).toEqual(['SEALGATE_CHANNELS'])
  })

  it('refuse a topic of two uses and a channel of two topics, all at once', () => {
    const faults = faultsOf({
      ...whole(),
      SEALGATE_CHANNELS: 'source.orders=orders,copy.orders=orders,shop.audit=orders',
      SEALGATE_QUARANTINE_TOPIC: 'shop.audit',
      SEALGATE_TOPICS: 'orders.fulfilment=source.orders,orders.analytics=shop.audit',
    })
    expect(faults.map(({ where, text }) => `${where}: ${text}`)).toEqual([
      'quarantine: shop.audit would be the quarantine topic, and is the audit topic. Give it a topic of its own.',
      expect.stringMatching(
        /^channel orders: It has two source topics, source\.orders and copy\.orders: a copy/,
      ),
      expect.stringMatching(
        /^channel orders: It has two source topics, source\.orders and shop\.audit: a copy/,
      ),
      'channel orders: shop.audit would be a source topic, and is the audit topic. Use another topic.',
      expect.stringMatching(
        /consumer fulfilment: source\.orders would be the output topic of orders\.fulfilment, and is a source topic\. Give/,
      ),
      expect.stringMatching(/consumer analytics: shop\.audit would be .*, and is the audit topic\. Give/),
    ])
    const one = { SEALGATE_TOPICS: 'orders.fulfilment=out,orders.analytics=out' }
    expect(faultsOf({ ...whole(), ...one }).map(({ text }) => text)).toEqual([
      expect.stringMatching(
        /^out would be the output topic of orders\.analytics, and is the output topic of/,
      ),
    ])
  })

  it('takes a signing key in a secret by its ARN, which has its own kid', () => {
    const secret = 'arn:aws:secretsmanager:eu-west-1:111122223333:secret:gate-AbCdEf'
    const settings = readSettings({ ...whole(), SEALGATE_SIGNING_KEY: secret })
    expect(settings).toMatchObject({ signing: { secret } })
    expect(placesOf({ ...whole(), SEALGATE_SIGNING_KEY: secret, SEALGATE_SIGNING_KID: 'k' })).toEqual([
      'SEALGATE_SIGNING_KID',
    ])
  })

  it('take a private key from a file for tests, and never on Lambda', () => {
    const key = { SEALGATE_SIGNING_KEY: `file:${file('key.json', secret)}` }
    expect(clusterOf({ ...whole(), ...key }).signing).toHaveProperty('key')
    expect(placesOf({ ...whole(), ...key, AWS_LAMBDA_FUNCTION_NAME: 'ingest' })).toEqual([
      'SEALGATE_SIGNING_KEY',
    ])
    expect(placesOf({ ...whole(), SEALGATE_SIGNING_KEY: `file:${file('root.json', root)}` })).toEqual([
      'SEALGATE_SIGNING_KEY',
    ])
  })
})
