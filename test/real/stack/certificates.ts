/** An authority of our own and a certificate for the brokers, made on the spot with openssl. */
import { execFile } from 'node:child_process'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)

export interface Authority {
  /** PEM text: what clients trust. */
  readonly ca: string
  readonly caPath: string
  /** Key, certificate and authority in one PEM file, as Kafka's key store wants it. */
  readonly brokerPath: string
}

export interface CertificateOptions {
  /** Also its subject's common name. */
  readonly name: string
  /** Subject alternative names, as openssl writes them: `DNS:localhost`, `IP:127.0.0.1`. */
  readonly names: readonly string[]
  /** Days it is valid; negative for one that has expired. */
  readonly days?: number
}

const KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes']

/** Makes an authority in a folder, and the brokers' certificate by it. */
export async function makeAuthority(folder: string, broker: CertificateOptions): Promise<Authority> {
  const caPath = join(folder, 'ca.crt')
  await run('openssl', [
    ...['req', '-x509', ...KEY, '-days', '7', '-subj', '/CN=sealgate test authority'],
    ...['-keyout', join(folder, 'ca.key'), '-out', caPath],
    ...['-addext', 'basicConstraints=critical,CA:TRUE', '-addext', 'keyUsage=critical,keyCertSign,cRLSign'],
  ])
  const brokerPath = await issue(folder, broker)
  return { ca: await readFile(caPath, 'utf8'), caPath, brokerPath }
}

/**
 * A certificate by the authority in a folder, in one PEM file with its key and the authority. Beside it, by its name,
 * stand key (`.key`) and certificate (`.crt`) alone.
 */
export async function issue(folder: string, options: CertificateOptions): Promise<string> {
  const { name, names, days = 7 } = options
  const at = (suffix: string): string => join(folder, `${name}.${suffix}`)
  await run('openssl', [
    'req',
    '-new',
    ...KEY,
    '-subj',
    `/CN=${name}`,
    '-keyout',
    at('key'),
    '-out',
    at('csr'),
  ])
  await writeFile(
    at('ext'),
    `basicConstraints=critical,CA:FALSE\nextendedKeyUsage=serverAuth,clientAuth\nsubjectAltName=${names.join(',')}\n`,
  )
  await run('openssl', [
    ...['x509', '-req', '-in', at('csr'), '-CA', join(folder, 'ca.crt'), '-CAkey', join(folder, 'ca.key')],
    ...['-CAcreateserial', '-days', String(days), '-extfile', at('ext'), '-out', at('crt')],
  ])
  const parts = await Promise.all(
    [at('key'), at('crt'), join(folder, 'ca.crt')].map((path) => readFile(path, 'utf8')),
  )
  await writeFile(at('pem'), parts.join(''), { mode: 0o600 })
  return at('pem')
}
