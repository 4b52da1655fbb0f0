/** Every way to authenticate but Kerberos, on a real broker: with what is right, and with what is wrong. */
import { copyFile, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import tls from 'node:tls'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createKafkaSink } from '../../lib/adapters/kafka.ts'
import { createKafkaSource } from '../../lib/adapters/kafka-source.ts'
import { Outage } from '../../lib/errors.ts'
import { sealgate, type Ran } from '../cli/terminal.ts'
import { setEnvironment } from '../secrets-endpoint.ts'
import { issue, makeAuthority } from './stack/certificates.ts'
import { DEPLOYMENT } from './stack/stack.ts'
import { Cluster, connection, settings, soon, unique } from './world.ts'

const cluster = new Cluster()
const topic = `source.auth.${unique()}`
let folder: string
let usual: Record<string, string>
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'sealgate-auth-'))
  usual = { SEALGATE_DEPLOYMENT: DEPLOYMENT, SEALGATE_KAFKA_SSL_CA: await file('ca.pem', connection.ca) }
  await cluster.createTopic(topic, 1)
})
afterAll(async () => {
  await rm(folder, { recursive: true, force: true })
  await cluster.end()
})

async function file(name: string, content: string): Promise<string> {
  const path = join(folder, name)
  await writeFile(path, content, { mode: 0o600 })
  return path
}

/** The environment of the command, `SEALGATE_KAFKA_` left out of the names. */
const environment = (listener: string, kafka: Record<string, string>): Record<string, string> => ({
  ...usual,
  SEALGATE_KAFKA_BROKERS: connection.listeners[listener] ?? listener,
  ...Object.fromEntries(Object.entries(kafka).map(([name, value]) => [`SEALGATE_KAFKA_${name}`, value])),
})

const show = (listener: string, kafka: Record<string, string>, source = topic): Promise<Ran> =>
  sealgate(['position', 'show', source], { env: environment(listener, kafka) })

/** Counts connections on the way to a listener. */
async function counted<T>(listener: string, work: (address: string) => Promise<T>): Promise<[T, number]> {
  const [host = '', port = ''] = (connection.listeners[listener] ?? '').split(':')
  const sockets: Socket[] = []
  let connections = 0
  const server = createServer((near) => {
    connections++
    const far = connect(Number(port), host)
    sockets.push(near, far)
    near.pipe(far).pipe(near)
    for (const socket of [near, far]) socket.on('error', () => near.destroy())
  })
  try {
    return [await work(await listening(server)), connections]
  } finally {
    for (const socket of sockets) socket.destroy()
    await new Promise((resolve) => server.close(resolve))
  }
}

async function listening(server: Server): Promise<string> {
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('no port')
  return `127.0.0.1:${address.port}`
}

/** Refused: one line that says what and what to do, status 3, one connection, no time lost, and nothing secret. */
async function refused(listener: string, kafka: Record<string, string>, line: RegExp): Promise<void> {
  const begun = Date.now()
  const [ran, connections] = await counted(listener, (address) => show(address, kafka))
  expect([ran.status, ran.out, ran.err.split('\n')]).toEqual([3, '', [expect.stringMatching(line)]])
  expect([connections, Date.now() - begun < 8000]).toEqual([1, true])
  for (const secret of [kafka['SASL_PASSWORD'], connection.passwords.gate])
    if (secret !== undefined) expect(ran.err).not.toContain(secret)
}

const taken = async (listener: string, kafka: Record<string, string>): Promise<void> => {
  const ran = await show(listener, kafka)
  expect([ran.err, ran.status]).toEqual(['', 1])
  expect(ran.out).toMatch(/\n0 +none/)
}

describe.each(['plain', 'scram-sha-256', 'scram-sha-512'])('SASL %s', (mechanism) => {
  const user = { SASL_MECHANISM: mechanism, SASL_USERNAME: 'gate' }

  it('lets in who has the password', () =>
    taken('MANY', { ...user, SASL_PASSWORD: connection.passwords.gate }))

  it('keeps out who has another, or another name', async () => {
    const line = /refuses our credentials\. Check mechanism, user name and password/
    await refused('MANY', { ...user, SASL_PASSWORD: 'planted-secret' }, line)
    await refused('MANY', { ...user, SASL_USERNAME: 'nobody', SASL_PASSWORD: 'planted-secret' }, line)
  })

  it('tries no more often where a partition is taken over', async () => {
    const sasl = { mechanism, username: 'gate', password: 'planted-secret' }
    const [code, connections] = await counted('MANY', async (address) => {
      const sink = createKafkaSink(settings({ brokers: [address], sasl }), { now: () => Date.now() })
      const error = await sink.open({ topic, partition: 0 }, soon()).catch((reason: unknown) => reason)
      await sink.close()
      return error instanceof Outage ? error.code : error
    })
    expect([code, connections]).toEqual(['sink-denied', 1])
  })

  it('asks one broker of many where it reads a cluster, since one refusal speaks for all', async () => {
    const sasl = { mechanism, username: 'gate', password: 'planted-secret' }
    const [code, connections] = await counted('MANY', async (address) => {
      const source = createKafkaSource(settings({ brokers: [address, address, address], sasl }))
      const error = await source.partitions(topic).catch((reason: unknown) => reason)
      await source.close()
      return error instanceof Outage ? error.code : error
    })
    expect([code, connections]).toEqual(['sink-denied', 1])
  })

  it('reads the password’s file anew for each connection', async () => {
    const path = await file('password', 'planted-secret')
    const sasl = { mechanism, username: 'gate', passwordFile: path }
    const brokers = [connection.listeners['MANY']]
    const sink = createKafkaSink(settings({ brokers, sasl }), { now: () => Date.now() })
    try {
      await expect(sink.partitionsOf(topic, soon())).rejects.toMatchObject({ code: 'sink-denied' })
      await file('password', `${connection.passwords.gate}\n`)
      expect(await sink.partitionsOf(topic, soon())).toBe(1)
    } finally {
      await sink.close()
    }
  })
})

describe('mutual TLS', () => {
  let own: { SSL_CERT: string; SSL_KEY: string }
  beforeAll(async () => {
    await issue(connection.certificates, { name: 'gate', names: ['DNS:gate.example'] })
    const at = (suffix: string): string => join(connection.certificates, `gate.${suffix}`)
    own = { SSL_CERT: at('crt'), SSL_KEY: at('key') }
  })

  it('lets in who has a certificate of the authority, by its common name', () => taken('MTLS', own))

  it('keeps out who has none, or one of another authority', async () => {
    const line = /TLS to the broker fails: .*ssl\.cert and ssl\.key/
    await refused('MTLS', {}, line)
    const foreign = await mkdtemp(join(folder, 'foreign-'))
    await makeAuthority(foreign, { name: 'gate', names: ['DNS:gate.example'] })
    const strange = { SSL_CERT: join(foreign, 'gate.crt'), SSL_KEY: join(foreign, 'gate.key') }
    await refused('MTLS', strange, line)
  })

  it('uses a new certificate from the next connection on, without a restart', async () => {
    const cert = join(folder, 'own.crt')
    const key = join(folder, 'own.key')
    await issue(connection.certificates, { name: 'gate-old', names: ['DNS:gate.example'], days: -1 })
    await copyFile(join(connection.certificates, 'gate-old.crt'), cert)
    await copyFile(join(connection.certificates, 'gate-old.key'), key)
    const ssl = { ca: connection.ca, cert, key }
    const brokers = [connection.listeners['MTLS']]
    const sink = createKafkaSink(settings({ brokers, ssl, sasl: undefined }), { now: () => Date.now() })
    try {
      await expect(sink.partitionsOf(topic, soon())).rejects.toMatchObject({ code: 'sink-denied' })
      await copyFile(own.SSL_CERT, cert)
      // Not the certificate's key any more: said, not tried.
      await expect(sink.partitionsOf(topic, soon())).rejects.toMatchObject({ code: 'secret-unavailable' })
      await copyFile(own.SSL_KEY, key)
      expect(await sink.partitionsOf(topic, soon())).toBe(1)
    } finally {
      await sink.close()
    }
  })
})

describe('bad input', () => {
  const right = { SASL_MECHANISM: 'scram-sha-512', SASL_USERNAME: 'gate' }
  const password = (): { SASL_PASSWORD: string } => ({ SASL_PASSWORD: connection.passwords.gate })

  it('a certificate that has expired, of another host, of an authority that is not ours', async () => {
    await refused('EXPIRED', { ...right, ...password() }, /certificate has expired\. Renew/)
    await refused(
      'ELSEWHERE',
      { ...right, ...password() },
      /another host's\. List brokers by the names in it/,
    )
    const foreign = await mkdtemp(join(folder, 'other-'))
    const { caPath } = await makeAuthority(foreign, { name: 'x', names: ['DNS:x'] })
    await refused('MANY', { ...right, ...password(), SSL_CA: caPath }, /Set ssl\.ca to it/)
  })

  it('a mechanism that the listener does not offer, and SASL where it is not asked for', async () => {
    const clients = connection.brokers.join()
    const other = await show(clients, { ...right, ...password(), SASL_MECHANISM: 'scram-sha-256' })
    expect([other.status, other.err]).toEqual([
      3,
      expect.stringMatching(/does not offer this SASL mechanism/),
    ])
    await refused('MTLS', { ...right, ...password() }, /TLS to the broker fails/)
  })

  it('a broker that is not there, is not known, does not answer, or asks for SASL, within 15 s', async () => {
    const sockets: Socket[] = []
    const silent = createServer((socket) => void sockets.push(socket.resume().on('error', () => undefined)))
    const hole = await listening(silent)
    try {
      const said = await Promise.all(
        [
          show('127.0.0.1:1', { ...right, ...password() }),
          show('no-such-broker.invalid:9092', { ...right, ...password() }),
          show(hole, { ...right, ...password() }),
          show('MANY', {}),
        ].map(async (running) => {
          const begun = Date.now()
          const { status, err } = await running
          expect([status, Date.now() - begun < 15_000, err.split('\n').length]).toEqual([3, true, 1])
          return err
        }),
      )
      expect(said).toEqual([
        expect.stringContaining('no broker can be reached (ECONNREFUSED). Check brokers'),
        expect.stringContaining("a broker's name is not known"),
        expect.stringContaining('no broker can be reached (Connection timeout). Check brokers'),
        expect.stringMatching(/\(Closed connection\).* whether that listener asks for TLS and SASL/),
      ])
    } finally {
      for (const socket of sockets) socket.destroy()
      await new Promise((resolve) => silent.close(resolve))
    }
  })

  it('a topic that is not there, and one that we have no right to', async () => {
    const gone = await show('MANY', { ...right, ...password() }, `source.${unique()}`)
    expect([gone.status, gone.err]).toEqual([3, expect.stringMatching(/not there\. Create it, or correct/)])
    const hidden = `hidden.${unique()}`
    await cluster.createTopic(hidden, 1)
    const denied = await show('MANY', { ...right, ...password() }, hidden)
    expect([denied.status, denied.err]).toEqual([3, expect.stringMatching(/refuses us .*Allow Read/)])
  })

  it('NODE_TLS_REJECT_UNAUTHORIZED=0, and nothing is done', async () => {
    const env = { ...environment('MANY', { ...right, ...password() }), NODE_TLS_REJECT_UNAUTHORIZED: '0' }
    const ran = await sealgate(['position', 'show', topic], { env })
    expect([ran.status, ran.err]).toEqual([2, expect.stringContaining('NODE_TLS_REJECT_UNAUTHORIZED')])
  })
})

describe('whatever the process is told', () => {
  const right = { mechanism: 'scram-sha-512', username: 'gate' }

  it('an unverified broker is refused', async () => {
    const restore = setEnvironment({ NODE_TLS_REJECT_UNAUTHORIZED: '0' })
    const sasl = { ...right, password: connection.passwords.gate }
    const sink = createKafkaSink(settings({ sasl, ssl: undefined }), { now: () => Date.now() })
    try {
      await expect(sink.partitionsOf(topic, soon())).rejects.toMatchObject({ code: 'sink-denied' })
    } finally {
      restore()
      await sink.close()
    }
  })

  it('TLS before 1.2 is refused', async () => {
    const pem = await readFile(join(connection.certificates, 'broker.pem'), 'utf8')
    const before = [tls.DEFAULT_MIN_VERSION, tls.DEFAULT_CIPHERS] as const
    const old = { minVersion: 'TLSv1', maxVersion: 'TLSv1.1', ciphers: 'ALL:@SECLEVEL=0' } as const
    let handshakes = 0
    const server = tls.createServer({ key: pem, cert: pem, ...old }, (socket) => {
      handshakes++
      socket.destroy()
    })
    server.on('tlsClientError', () => undefined)
    tls.DEFAULT_MIN_VERSION = 'TLSv1'
    tls.DEFAULT_CIPHERS = 'ALL:@SECLEVEL=0'
    const brokers = [await listening(server)]
    const sink = createKafkaSink(settings({ brokers }), { now: () => Date.now() })
    try {
      await expect(sink.partitionsOf(topic, soon())).rejects.toMatchObject({ code: 'sink-denied' })
      expect(handshakes).toBe(0)
    } finally {
      tls.DEFAULT_MIN_VERSION = before[0]
      tls.DEFAULT_CIPHERS = before[1]
      await sink.close()
      await new Promise((resolve) => server.close(resolve))
    }
  })
})

it('the private key never stands in what is said', async () => {
  const key = await readFile(join(connection.certificates, 'gate.key'), 'utf8')
  const ran = await show('MTLS', { SSL_CERT: join(folder, 'none'), SSL_KEY: key })
  expect([ran.status, ran.err.includes(key.split('\n')[1] ?? '-')]).toEqual([2, false])
})
