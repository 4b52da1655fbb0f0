/** A Kerberos realm on this machine (MIT's KDC, Debian's krb5-kdc), and a listener whose broker belongs to it. */
import { type ChildProcess, execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir, open, writeFile } from 'node:fs/promises'
import { connect } from 'node:net'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { freePorts, spawnTied } from './broker.ts'
import type { Listeners } from './stack.ts'

const run = promisify(execFile)
const REALM = 'SEALGATE.TEST'
/** The npm package that needs a compiler and Kerberos's headers, kept away from the root's own. */
const CLIENT = join(import.meta.dirname, '../kerberos')
const DEBIAN = ['krb5-kdc', 'krb5-admin-server', 'libkrb5-dev']

export interface Realm {
  /** What a client of the realm has in its environment; `keytab` is a principal's, by its path. */
  environment(keytab: string): Record<string, string>
  /** Adds a principal; its keytab's path. */
  add(principal: string): Promise<string>
  /** Gives a principal another key: keytabs made before are of no more use. */
  rekey(principal: string): Promise<void>
  end(): Promise<void>
}

/** Installs what is missing: as root from Debian, the npm package by its own lock file. */
export async function installKerberos(say: (line: string) => void): Promise<void> {
  const needed = ['/usr/sbin/krb5kdc', '/usr/sbin/kadmin.local', '/usr/include/gssapi/gssapi.h']
  if (!needed.every((path) => existsSync(path))) {
    say(`installing ${DEBIAN.join(', ')}`)
    const env = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' }
    try {
      await run('apt-get', ['update'], { env, timeout: 120_000 })
      await run('apt-get', ['install', '-y', '--no-install-recommends', ...DEBIAN], { env, timeout: 300_000 })
    } catch (cause) {
      throw new Error(`These tests need ${DEBIAN.join(', ')}: install them, or run as root`, { cause })
    }
  }
  if (existsSync(join(CLIENT, 'node_modules/kerberos/build/Release/kerberos.node'))) return
  say('building the npm package kerberos')
  try {
    await run('npm', ['ci', '--no-audit', '--no-fund'], { cwd: CLIENT, timeout: 300_000 })
  } catch (cause) {
    throw new Error('The npm package kerberos was not built: it needs make, g++ and Python 3', { cause })
  }
}

/** A KDC in a new folder below `parent`. */
export async function startRealm(parent: string): Promise<Realm> {
  const folder = join(parent, 'realm')
  await mkdir(folder, { mode: 0o700 })
  const at = (name: string): string => join(folder, name)
  const [port = 0] = await freePorts(1)
  const address = `127.0.0.1:${port}`
  await writeFile(at('krb5.conf'), clientFile(address))
  await writeFile(
    at('kdc.conf'),
    `[kdcdefaults]\n kdc_listen = ${address}\n kdc_tcp_listen = ${address}\n[realms]\n ${REALM} = {\n  database_name = ${at('principal')}\n  key_stash_file = ${at('stash')}\n  acl_file = ${at('none.acl')}\n }\n`,
  )
  const env = {
    PATH: process.env['PATH'] ?? '',
    KRB5_CONFIG: at('krb5.conf'),
    KRB5_KDC_PROFILE: at('kdc.conf'),
  }
  const admin = (query: string): Promise<unknown> =>
    run('/usr/sbin/kadmin.local', ['-r', REALM, '-q', query], { env, timeout: 20_000 })
  const creating = run('/usr/sbin/kdb5_util', ['create', '-s', '-r', REALM], { env, timeout: 20_000 })
  // By its standard input: a command line can be read by everybody.
  creating.child.stdin?.end('master key of a test\nmaster key of a test\n')
  await creating
  const log = await open(at('kdc.log'), 'a', 0o600)
  let kdc: ChildProcess
  try {
    const args = [
      ...Object.entries(env).map(([name, value]) => `${name}=${value}`),
      '/usr/sbin/krb5kdc',
      '-n',
    ]
    kdc = spawnTied('env', args, log.fd)
  } finally {
    await log.close()
  }
  await reached(port)
  return {
    environment: (keytab) => ({
      KRB5_CONFIG: at('krb5.conf'),
      KRB5_CLIENT_KTNAME: keytab,
      KRB5CCNAME: 'MEMORY:',
      NODE_PATH: join(CLIENT, 'node_modules'),
    }),
    add: async (principal) => {
      const keytab = at(`${principal.replace('/', '-')}.keytab`)
      await admin(`addprinc -randkey ${principal}`)
      await admin(`ktadd -k ${keytab} ${principal}`)
      return keytab
    },
    rekey: async (principal) => {
      await admin(`cpw -randkey ${principal}`)
    },
    end: async () => {
      const ended = new Promise((resolve) => kdc.once('exit', resolve))
      kdc.kill('SIGKILL')
      await ended
      kdc.stdio[3]?.destroy()
    },
  }
}

/** KERBEROS: GSSAPI, advertised as localhost, whose principal is kafka/localhost. */
export async function kerberosListener(realm: Realm): Promise<Listeners> {
  const keytab = await realm.add('kafka/localhost')
  const login = 'com.sun.security.auth.module.Krb5LoginModule required useKeyTab=true storeKey=true'
  return {
    java: [`-Djava.security.krb5.conf=${realm.environment(keytab)['KRB5_CONFIG'] ?? ''}`],
    listeners: {
      KERBEROS: {
        protocol: 'SASL_SSL',
        host: 'localhost',
        properties: [
          'sasl.enabled.mechanisms=GSSAPI',
          `gssapi.sasl.jaas.config=${login} keyTab="${keytab}" principal="kafka/localhost@${REALM}";`,
          'sasl.kerberos.service.name=kafka',
        ],
      },
    },
  }
}

const clientFile = (kdc: string): string => `[libdefaults]
 default_realm = ${REALM}
 dns_lookup_kdc = false
 dns_lookup_realm = false
 dns_canonicalize_hostname = false
 rdns = false
 udp_preference_limit = 1
[realms]
 ${REALM} = {
  kdc = ${kdc}
 }
`

async function reached(port: number): Promise<void> {
  for (let tries = 0; tries < 100; tries++) {
    const isOpen = await new Promise<boolean>((resolve) => {
      const socket = connect(port, '127.0.0.1')
      socket.once('connect', () => resolve(true)).once('error', () => resolve(false))
      socket.once('connect', () => socket.destroy())
    })
    if (isOpen) return
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
  throw new Error('the KDC does not listen')
}
