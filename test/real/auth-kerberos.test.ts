/** GSSAPI with a KDC and a broker of its own: the command as a process, since Kerberos reads the environment itself. */
import { execFile } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { installKerberos, kerberosListener, type Realm, startRealm } from './stack/kerberos.ts'
import { DEPLOYMENT, type RealStack, startStack } from './stack/stack.ts'
import { Cluster, unique } from './world.ts'

const MAIN = join(import.meta.dirname, '../../cli/main.ts')
const topic = `source.kerberos.${unique()}`
let folder: string
let realm: Realm
let stack: RealStack
let gate: string
beforeAll(async () => {
  const say = (line: string): void => void process.stdout.write(`stack: ${line}\n`)
  await installKerberos(say)
  folder = await mkdtemp(join(tmpdir(), 'sealgate-kerberos-'))
  realm = await startRealm(folder)
  gate = await realm.add('gate')
  stack = await startStack({ listeners: () => kerberosListener(realm), say })
  await writeFile(join(folder, 'ca.pem'), stack.connection.ca)
  const cluster = new Cluster(stack.connection)
  await cluster.createTopic(topic, 1)
  await cluster.end()
}, 600_000)
afterAll(async () => {
  await stack.stop()
  await realm.end()
  await rm(folder, { recursive: true, force: true })
})

interface Ended {
  readonly status: number
  readonly out: string
  readonly err: string
  readonly ms: number
}

/** `sealgate position …` as whom a keytab makes it. */
function position(command: string, keytab: string, changes: Record<string, string> = {}): Promise<Ended> {
  const begun = Date.now()
  const env = {
    PATH: process.env['PATH'],
    ...realm.environment(keytab),
    SEALGATE_DEPLOYMENT: DEPLOYMENT,
    SEALGATE_KAFKA_BROKERS: stack.connection.listeners['KERBEROS'],
    SEALGATE_KAFKA_SSL_CA: join(folder, 'ca.pem'),
    SEALGATE_KAFKA_SASL_MECHANISM: 'gssapi',
    ...changes,
  }
  return new Promise((resolve) => {
    execFile(
      process.execPath,
      [MAIN, 'position', command, topic],
      { env, timeout: 30_000 },
      (error, out, err) => {
        const status = error === null ? 0 : typeof error.code === 'number' ? error.code : -1
        resolve({ status, out, err: err.trimEnd(), ms: Date.now() - begun })
      },
    )
  })
}

describe('Kerberos', () => {
  it('lets in who has the keytab, for questions and for transactions', async () => {
    const init = await position('init', gate)
    expect([init.err, init.status]).toEqual(['', 0])
    const show = await position('show', gate)
    expect([show.err, show.status, /\n0 +0/.test(show.out)]).toEqual(['', 0, true])
  })

  it('knows one who has no rights by name', async () => {
    const ended = await position('show', await realm.add('stranger'))
    expect([ended.status, ended.err]).toEqual([3, expect.stringMatching(/^[^\n]*Allow Read[^\n]*$/)])
  })

  it.each([
    ['a keytab that is no longer right', async () => ({ keytab: await outdated() }), /sink-denied/],
    ['a keytab that is not there', () => ({ keytab: join(folder, 'none') }), /sink-denied/],
    [
      'a service that the realm does not know',
      () => ({ SEALGATE_KAFKA_SASL_SERVICE_NAME: 'other' }),
      /not found in Kerberos database.*sink-denied/,
    ],
    ['a KDC that does not answer', async () => ({ KRB5_CONFIG: await awayRealm() }), /sink-unavailable/],
  ])('says what to do with %s, soon and in one line', async (_, given, line) => {
    const { keytab = gate, ...changes }: Record<string, string> = await given()
    const ended = await position('show', keytab, changes)
    expect([ended.status, ended.out, ended.err]).toEqual([
      3,
      '',
      expect.stringMatching(/^[^\n]*Kerberos: [^\n]*KRB5_CLIENT_KTNAME[^\n]*$/),
    ])
    expect(ended.err).toMatch(line)
    expect(ended.ms).toBeLessThan(15_000)
  })

  it('says at start that the optional package is not installed', async () => {
    const ended = await position('show', gate, { NODE_PATH: '' })
    expect([ended.status, ended.err]).toEqual([
      2,
      expect.stringMatching(/SASL_MECHANISM: .*npm install kerberos/),
    ])
  })
})

async function outdated(): Promise<string> {
  const keytab = await realm.add('old')
  await realm.rekey('old')
  return keytab
}

async function awayRealm(): Promise<string> {
  const path = join(folder, 'away.conf')
  await writeFile(
    path,
    `[libdefaults]\n default_realm = SEALGATE.TEST\n dns_lookup_kdc = false\n udp_preference_limit = 1\n[realms]\n SEALGATE.TEST = {\n  kdc = 127.0.0.1:1\n }\n`,
  )
  return path
}
