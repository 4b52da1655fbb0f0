/** Credentials that somebody else gives us: tokens from an endpoint, secrets from Secrets Manager. On a real broker. */
import { createPrivateKey } from 'node:crypto'
import diagnostics from 'node:diagnostics_channel'
import { readFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:https'
import { join } from 'node:path'
import SASLAuthenticator from 'kafkajs/src/broker/saslAuthenticator/index.js'
import { afterAll, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest'
import { createKafkaSink, type KafkaSink } from '../../lib/adapters/kafka.ts'
import { Outage } from '../../lib/errors.ts'
import { type SecretsEndpoint, setEnvironment, startSecretsEndpoint } from '../secrets-endpoint.ts'
import { issue } from './stack/certificates.ts'
import { signToken } from './stack/mechanisms.ts'
import { Cluster, connection, settings, unique } from './world.ts'

const cluster = new Cluster()
const topic = `source.tokens.${unique()}`
/** Added to the gate's clock. */
let later = 0
const clock = { now: () => Date.now() + later }
const sinks: KafkaSink[] = []
beforeAll(async () => {
  await cluster.createTopic(topic, 1)
  await issue(connection.certificates, { name: 'id', names: ['DNS:localhost'] })
})
beforeEach(() => {
  later = 0
})
afterAll(async () => {
  await Promise.all(sinks.map((sink) => sink.close()))
  await cluster.end()
})

const sinkOf = (listener: string, changes: object): KafkaSink => {
  const sink = createKafkaSink(settings({ brokers: [connection.listeners[listener]], ...changes }), clock)
  sinks.push(sink)
  return sink
}
const ask = (sink: KafkaSink): Promise<number> => sink.partitionsOf(topic, clock.now() + 15_000)

/** The outage's code and message, and that nothing of `secret` is in it. */
async function outageOf(sink: KafkaSink): Promise<[string, string]> {
  const begun = Date.now()
  const error = await ask(sink).catch((reason: unknown) => reason)
  if (!(error instanceof Outage)) throw new Error('no outage', { cause: error })
  expect(Date.now() - begun).toBeLessThan(8000)
  expect(error.message).not.toMatch(/planted|\n/)
  return [error.code, error.message]
}

describe('OAUTHBEARER by a token endpoint', () => {
  let server: Server
  let address: string
  /** What was asked for, in order. */
  const asked: { authorization: string | undefined; body: string }[] = []
  const usual = (): [number, object] => [200, bearer(signToken(connection, 'gate', 3600), 3600)]
  const bearer = (token: string, life: number): object => ({
    access_token: token,
    token_type: 'Bearer',
    expires_in: life,
  })
  let answer: () => [number, object] | undefined = usual
  beforeAll(async () => {
    const pem = await readFile(join(connection.certificates, 'id.pem'), 'utf8')
    server = createServer({ key: pem, cert: pem }, (request, response) => {
      const parts: Buffer[] = []
      request.on('data', (part: Buffer) => parts.push(part))
      request.on('end', () => {
        asked.push({ authorization: request.headers.authorization, body: Buffer.concat(parts).toString() })
        const [status, body] = answer() ?? []
        if (status !== undefined) response.writeHead(status, { location: address }).end(JSON.stringify(body))
      })
    })
    server.on('tlsClientError', () => undefined)
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const place = server.address()
    address = `https://localhost:${place !== null && typeof place === 'object' ? place.port : 0}/token`
  })
  beforeEach(() => {
    answer = usual
    asked.length = 0
  })
  afterAll(async () => {
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
  })

  const sinkBy = (changes: object = {}, more: object = {}): KafkaSink => {
    const client = { clientId: 'gate:1', clientSecret: 'planted secret', scope: 'kafka' }
    const tokenCa = connection.ca
    const sasl = { mechanism: 'oauthbearer', tokenEndpoint: address, tokenCa, ...client, ...changes }
    return sinkOf('MANY', { sasl, ...more })
  }

  it('lets in who has a token, which is asked for once and got anew early', async () => {
    answer = () => [200, bearer(signToken(connection, 'gate', 3600), 1000)]
    const sink = sinkBy()
    expect(await ask(sink)).toBe(1)
    const authorization = `Basic ${Buffer.from('gate%3A1:planted%20secret').toString('base64')}`
    expect(asked).toEqual([{ authorization, body: 'grant_type=client_credentials&scope=kafka' }])
    later = 700_000
    expect([await ask(sink), asked.length]).toEqual([1, 1])
    later = 870_000
    expect([await ask(sink), asked.length]).toEqual([1, 2])
  })

  it('proves itself anew on the same connection before the broker ends the session', async () => {
    answer = () => [200, bearer(signToken(connection, 'gate', 3600), 1000)]
    const sink = sinkBy({}, { maxIdleMs: 3_600_000 })
    await ask(sink)
    // The connection's time is real, the token's is the gate's.
    await new Promise((resolve) => setTimeout(resolve, 2500))
    later = 870_000
    const proofs = vi.spyOn(SASLAuthenticator.prototype, 'authenticate')
    let sockets = 0
    const count = (): number => ++sockets
    diagnostics.subscribe('net.client.socket', count)
    try {
      // With a new token, and so one connection: to the endpoint.
      expect([await ask(sink), asked.length, sockets]).toEqual([1, 2, 1])
      expect(proofs).toHaveBeenCalledOnce()
    } finally {
      proofs.mockRestore()
      diagnostics.unsubscribe('net.client.socket', count)
    }
  })

  it('lives on its last token while the endpoint is away', async () => {
    answer = () => [200, bearer(signToken(connection, 'gate', 3600), 1000)]
    const sink = sinkBy()
    await ask(sink)
    answer = () => [503, {}]
    later = 900_000
    expect(await ask(sink)).toBe(1)
    later = 1_100_000
    expect(await outageOf(sink)).toEqual(['sink-unavailable', expect.stringContaining('status 503')])
  })

  it.each([
    ['of another audience', () => signToken(connection, 'gate', 3600, { aud: 'another' })],
    ['that has expired', () => signToken(connection, 'gate', -3600)],
    ['of another key', () => `${signToken(connection, 'gate', 3600).slice(0, -8)}AAAAAAAA`],
  ])('a token %s is refused, once', async (_, token) => {
    answer = () => [200, bearer(token(), 3600)]
    expect(await outageOf(sinkBy())).toEqual([
      'sink-denied',
      expect.stringMatching(/the broker refuses our token .*See that issuer, audience/),
    ])
    expect(asked).toHaveLength(1)
  })

  it('a refused token is got anew once, where it is not of this moment', async () => {
    answer = () => [200, bearer(signToken(connection, 'gate', -3600), 3600)]
    const sink = sinkBy()
    await outageOf(sink)
    answer = usual
    later = 6000
    expect([await ask(sink), asked.length]).toEqual([1, 2])
  })

  it('an endpoint that refuses the client says so by its own word, and is asked once', async () => {
    answer = () => [401, { error: 'invalid_client', error_description: 'planted' }]
    expect(await outageOf(sinkBy())).toEqual([
      'sink-denied',
      expect.stringMatching(
        /token endpoint https:.* refuses us \(401, invalid_client\)\. Check sasl\.clientId/,
      ),
    ])
    expect(asked).toHaveLength(1)
  })

  it.each([
    ['silent', () => undefined, /did not answer in time/],
    ['no JSON of a token', (): [number, object] => [200, { planted: true }], /answers with no bearer token/],
    ['a redirect', (): [number, object] => [302, {}], /answers with status 302/],
    ['a token with a line in it', (): [number, object] => [200, bearer('a\u0001b', 9)], /no bearer token/],
    ['endless', (): [number, object] => [200, { access_token: 'x'.repeat(100_000) }], /cannot be reached/],
  ])('an endpoint that is %s is an outage', async (_, given, line) => {
    answer = given
    expect(await outageOf(sinkBy({}, { authenticationTimeoutMs: 3000 }))).toEqual([
      'sink-unavailable',
      expect.stringMatching(line),
    ])
    expect(asked).toHaveLength(1)
  })

  it('an endpoint that is not there, or of an authority that is not ours, is not sent the secret', async () => {
    const gone = sinkBy({ tokenEndpoint: 'https://localhost:1/token' })
    expect(await outageOf(gone)).toEqual(['sink-unavailable', expect.stringMatching(/ECONNREFUSED/)])
    const strange = await outageOf(sinkBy({ tokenCa: undefined }))
    expect(strange).toEqual([
      'sink-unavailable',
      expect.stringMatching(/Check sasl\.tokenEndpoint, sasl\.tokenCa/),
    ])
    expect(asked).toHaveLength(0)
  })

  it('AWS MSK IAM sends its token so that a broker reads it, and tells a refusal', async () => {
    const keys = { AWS_ACCESS_KEY_ID: 'AKIDEXAMPLE', AWS_SECRET_ACCESS_KEY: 'planted' }
    const restore = setEnvironment(keys)
    try {
      const sink = sinkOf('MANY', { sasl: { mechanism: 'aws-msk-iam', region: 'eu-west-1' } })
      expect(await outageOf(sink)).toEqual(['sink-denied', expect.stringMatching(/refuses our token/)])
    } finally {
      restore()
    }
  })
})

describe('credentials in Secrets Manager', () => {
  const arn = (name: string): string =>
    `arn:aws:secretsmanager:eu-west-1:111122223333:secret:AmazonMSK_${name}`
  const login = (password: string): { value: string } => ({
    value: JSON.stringify({ username: 'gate', password }),
  })
  let secrets: SecretsEndpoint
  beforeAll(async () => {
    secrets = await startSecretsEndpoint()
  })
  afterAll(() => secrets.end())
  const reads = (name: string): number => secrets.read.filter((one) => one === arn(name)).length
  const scram = (name: string): KafkaSink =>
    sinkOf('MANY', { sasl: { mechanism: 'scram-sha-512', secret: arn(name) } })

  it('are read once in a while', async () => {
    secrets.set(arn('right'), login(connection.passwords.gate))
    const sink = scram('right')
    expect([await ask(sink), reads('right')]).toEqual([1, 1])
    // A new connection, since the old one has been idle for too long.
    later = 59_000 + 2000
    expect([await ask(sink), reads('right')]).toEqual([1, 2])
    secrets.set(arn('right'), { error: 'InternalServiceError' })
    later += 61_000
    expect(await ask(sink)).toBe(1)
  })

  it('that were rotated are read at once where the old ones are refused', async () => {
    secrets.set(arn('rotated'), login('planted-old'))
    const sink = scram('rotated')
    expect(await outageOf(sink)).toEqual(['sink-denied', expect.stringMatching(/refuses our credentials/)])
    expect(reads('rotated')).toBe(1)
    secrets.set(arn('rotated'), login(connection.passwords.gate))
    later = 6000
    expect([await ask(sink), reads('rotated')]).toEqual([1, 2])
  })

  it('that are still wrong are read once more, and that is all', async () => {
    secrets.set(arn('wrong'), login('planted-old'))
    const sink = scram('wrong')
    await outageOf(sink)
    later = 6000
    await outageOf(sink)
    await outageOf(sink)
    expect(reads('wrong')).toBe(2)
  })

  it('that are missing, denied or of another form are an outage that says what to do', async () => {
    expect(await outageOf(scram('none'))).toEqual([
      'secret-unavailable',
      expect.stringMatching(/there is no such secret/),
    ])
    secrets.set(arn('denied'), { error: 'AccessDeniedException' })
    expect(await outageOf(scram('denied'))).toEqual([
      'secret-unavailable',
      expect.stringMatching(/Allow secretsmanager:GetSecretValue/),
    ])
    for (const value of ['planted', '[]', '{"username":"gate","password":7}']) {
      secrets.set(arn('odd'), { value })
      expect((await outageOf(scram('odd')))[0]).toBe('secret-unavailable')
    }
  })

  it('hold a client certificate, and a new one is used from the next connection on', async () => {
    const certificates = connection.certificates
    await issue(certificates, { name: 'secret-old', names: ['DNS:gate.example'], days: -1 })
    await issue(certificates, { name: 'secret-new', names: ['DNS:gate.example'] })
    const pair = async (name: string): Promise<{ certificate: string; privateKey: string }> => ({
      certificate: await readFile(join(certificates, `${name}.crt`), 'utf8'),
      privateKey: await readFile(join(certificates, `${name}.key`), 'utf8'),
    })
    const set = (value: object): void => secrets.set(arn('mtls'), { value: JSON.stringify(value) })
    const [old, plain] = await Promise.all([pair('secret-old'), pair('secret-new')])
    const locked = { cipher: 'aes-256-cbc', passphrase: 'planted', type: 'pkcs8', format: 'pem' } as const
    const privateKey = createPrivateKey(plain.privateKey).export(locked)
    const fresh = { certificate: plain.certificate, privateKey, privateKeyPassword: 'planted' }
    const sink = sinkOf('MTLS', { ssl: { ca: connection.ca, secret: arn('mtls') }, sasl: undefined })
    set({ ...fresh, privateKey: 'planted' })
    expect((await outageOf(sink))[0]).toBe('secret-unavailable')
    later = 61_000
    set(old)
    const refused = ['sink-denied', expect.stringContaining('does not take our certificate')]
    expect([await outageOf(sink), reads('mtls')]).toEqual([refused, 2])
    // Not of this moment any more: the refusal has it read again, for the next connection.
    later += 6000
    set(fresh)
    expect(await outageOf(sink)).toEqual(refused)
    // The certificate's common name has no rights: who we are is by it.
    await expect
      .poll(() => outageOf(sink), { timeout: 10_000 })
      .toEqual(['sink-denied', expect.stringMatching(/Allow Read/)])
    expect(reads('mtls')).toBe(3)
  })
})
