/** Whom the client certificates of a rotation policy are from: its authority, that one's key, and the brokers that must take them. */
import { readFileSync, statSync } from 'node:fs'
import { resolve } from 'node:path'
import { importPkcs8, readCertificate, thumbprint } from '../envelope/crypto.ts'
import { codeOf, ConfigError, type Fault } from '../errors.ts'
import type { CertificateIssuer } from '../keys/client-certificate.ts'
import type { ClientCertificateRotation } from '../keys/rotation.ts'
import { localSigner } from '../keys/signer.ts'
import { readSigningSecret } from '../keys/signing-secret.ts'
import type { Clock, SecretStore, Signer } from '../ports.ts'
import type { KafkaConnectionSettings } from './kafka-settings.ts'
import { logInByCertificate } from './kafka-users.ts'
import { kmsPublicKey, kmsSigner } from './kms.ts'
import { KMS_KEY_ARN } from './kms-rotation.ts'
import { SECRET_ARN } from './secrets-manager.ts'

const FILE = 'file:'

export interface IssuerOptions {
  /** The policy's: its paths count from there. */
  readonly folder: string
  readonly secrets: SecretStore
  /** How to reach the brokers; undefined where nothing is renewed. Throws `ConfigError`. */
  readonly kafka: (() => KafkaConnectionSettings | undefined) | undefined
  readonly clock: Clock
}

/** Throws `ConfigError` where there is no certificate of an authority; its key is read when it signs. */
export function openIssuer(rotation: ClientCertificateRotation, options: IssuerOptions): CertificateIssuer {
  const { clock, folder } = options
  const path = resolve(folder, rotation.authority)
  const authority = authorityOf(path)
  const own = readCertificate(authority)
  return {
    hasIssued: (certificate) => readCertificate(certificate).isIssuedBy(own),
    issue: async (request, deadline) => {
      // Loaded where it is needed: each command would begin later.
      const { ownAuthority } = await import('./certificate-authority.ts')
      const issue = ownAuthority(authority, (until) => signerOf(rotation, options, until), clock)
      return issue(request, deadline)
    },
    logIn: (certificate, deadline) => {
      const settings = options.kafka?.()
      const brokers = rotation.brokers ?? settings?.brokers ?? []
      if (settings?.tls === undefined || brokers.length === 0)
        throw fault(rotation, {
          what: 'Which brokers must take its certificate is not known.',
          fix: 'Set SEALGATE_KAFKA_BROKERS and SEALGATE_KAFKA_SSL_CA, or brokers here too (docs/rotation.md).',
        })
      return logInByCertificate({ ...settings, brokers }, certificate, clock, deadline)
    },
  }
}

/** What of `authorityKey` is no place of a key. */
export function isAuthorityKey(key: string): boolean {
  return key.startsWith(FILE) || SECRET_ARN.test(key) || KMS_KEY_ARN.test(key)
}

const fault = ({ name }: ClientCertificateRotation, { what, fix }: Omit<Fault, 'where'>): ConfigError =>
  new ConfigError([{ where: `rotations.${name}`, what, fix }])

function authorityOf(path: string): string {
  const fix = 'Name a PEM file with the certificate of the authority that is to issue.'
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (error) {
    throw new ConfigError([{ where: path, what: `It cannot be read (${codeOf(error)}).`, fix }])
  }
  try {
    if (readCertificate(text).isAuthority) return text
  } catch {
    // Said below.
  }
  throw new ConfigError([{ where: path, what: 'It is no certificate of an authority.', fix }])
}

async function signerOf(
  rotation: ClientCertificateRotation,
  { folder, secrets, clock }: IssuerOptions,
  deadline: number,
): Promise<Signer> {
  const { authorityKey } = rotation
  if (KMS_KEY_ARN.test(authorityKey)) {
    const key = await kmsPublicKey(authorityKey, { clock }, deadline)
    return kmsSigner({ keyId: authorityKey, kid: thumbprint(key), alg: key.suite.cose }, { clock })
  }
  const bytes = authorityKey.startsWith(FILE)
    ? ownFile(resolve(folder, authorityKey.slice(FILE.length)))
    : (await secrets.read(authorityKey, deadline)).value
  const text = Buffer.from(bytes).toString()
  if (!text.includes('-----BEGIN ')) return localSigner(readSigningSecret(bytes, authorityKey))
  try {
    return localSigner(importPkcs8(text))
  } catch (error) {
    if (!(error instanceof TypeError)) throw error
    const what = 'The key of its authority cannot be used here.'
    throw fault(rotation, { what, fix: 'Use one of P-256 or Ed25519, not encrypted, or one in KMS.' })
  }
}

/** A file that nobody else may read. */
function ownFile(path: string): Uint8Array {
  try {
    if ((statSync(path).mode & 0o077) === 0) return readFileSync(path)
  } catch (error) {
    const what = `It cannot be read (${codeOf(error)}).`
    throw new ConfigError([{ where: path, what, fix: 'Name the file of the authority’s private key.' }])
  }
  throw new ConfigError([{ where: path, what: 'Others can read it.', fix: `chmod 600 ${path}` }])
}
