/** Signing as an issuer, with a key that the key directory has for it: otherwise whoever reads would refuse what it signs. */
import { ConfigError } from '../errors.ts'
import { type DirectorySnapshot, maySign, type SigningKeyRow } from '../keys/directory.ts'
import { localSigner } from '../keys/signer.ts'
import { openSecretSigner } from '../keys/signing-secret.ts'
import type { Clock, Signer } from '../ports.ts'
import type { GateSigning, SigningSettings } from '../settings.ts'
import { kmsSigner } from './kms.ts'
import { secretsManager } from './secrets-manager.ts'

export interface DirectorySigner {
  /** The issuer. */
  readonly name: string
  readonly signing: SigningSettings
  readonly snapshot: DirectorySnapshot
  readonly clock: Clock
  /** The settings that name the key, and its kid where the directory has several: for faults. */
  readonly where: { readonly key: string; readonly kid: string }
}

/** The gateway's own, by the settings of a gate. Rejects as the two below do. */
export const gateSigner = async (
  {
    signing,
    ...rest
  }: Pick<DirectorySigner, 'name' | 'snapshot' | 'clock'> & { readonly signing: GateSigning },
  deadline: number,
): Promise<Signer> => {
  const options = { ...rest, where: { key: 'SEALGATE_SIGNING_KEY', kid: 'SEALGATE_SIGNING_KID' } }
  return 'secret' in signing
    ? secretSigner({ ...options, secret: signing.secret }, deadline)
    : directorySigner({ ...options, signing })
}

/**
 * The same with the key that is current in a secret, by its ARN; the signer's `current` follows it. Rejects with
 * `Outage('signer-unavailable')` where the secret cannot be read.
 */
export async function secretSigner(
  { secret, ...options }: Omit<DirectorySigner, 'signing'> & { readonly secret: string },
  deadline: number,
): Promise<Signer> {
  const { name, snapshot, clock, where } = options
  const signer = await openSecretSigner({ secrets: secretsManager(clock), secret, clock }, deadline)
  const row = snapshot.signingKey(signer.kid)
  if (row?.iss === name && row.state === 'active' && maySign(row, Math.floor(clock.now() / 1000)))
    return signer
  const fix = `Enrol its current key for ${name}, or see sealgate rotate status.`
  const what = `The key directory has no such key of ${name} that may sign now.`
  throw new ConfigError([{ where: where.key, what, fix }])
}

/** Throws `ConfigError` where the directory has no such key that may sign now, or several and none is named. */
export function directorySigner({ name, signing, snapshot, clock, where }: DirectorySigner): Signer {
  const now = Math.floor(clock.now() / 1000)
  const fault = (what: string, fix: string): ConfigError => new ConfigError([{ where: where.key, what, fix }])
  const publish = 'Publish it in the key directory, or set another.'
  const active = snapshot.signingKeys.filter((row) => row.iss === name && row.state === 'active')
  const ours = active.filter((row) => maySign(row, now))
  if ('key' in signing) {
    const signer = localSigner(signing.key)
    const isIts = ({ kid }: SigningKeyRow): boolean => Buffer.compare(kid, signer.kid) === 0
    if (ours.some(isIts)) return signer
    const early = active.find((row) => isIts(row) && row.notBefore > now)
    if (early !== undefined) {
      const from = new Date(early.notBefore * 1000).toISOString()
      throw fault(`This key of ${name} may sign from ${from} on.`, 'Wait until then, or set another.')
    }
    throw fault(`The key directory has no such key of ${name} that may sign now.`, publish)
  }
  const [row, second] = ours.filter(({ kidText }) => signing.kid === undefined || kidText === signing.kid)
  if (row === undefined) throw fault(`The key directory has no key of ${name} that may sign now.`, publish)
  if (second !== undefined)
    throw fault(`The key directory has several keys of ${name}.`, `Say which by ${where.kid}.`)
  return kmsSigner({ keyId: signing.arn, kid: row.kid, alg: row.key.suite.cose }, { clock })
}
