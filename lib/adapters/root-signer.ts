/** The key directory's root as what signs: a key at hand, or one in KMS, and a pinned one in either case. */
import { type PublicKey, publicKeyOf, thumbprint } from '../envelope/crypto.ts'
import { ED25519 } from '../envelope/suite.ts'
import { ConfigError } from '../errors.ts'
import { localSigner } from '../keys/signer.ts'
import type { Clock, Signer } from '../ports.ts'
import type { SigningSettings } from '../settings.ts'
import { kmsPublicKey, kmsSigner } from './kms.ts'

/** Throws `ConfigError` where the key is not one of the pinned roots, or cannot sign what is as long as a directory. */
export async function rootSigner(
  root: SigningSettings,
  roots: readonly PublicKey[],
  clock: Clock,
  deadline: number,
): Promise<Signer> {
  const own = 'key' in root ? publicKeyOf(root.key) : await kmsPublicKey(root.arn, { clock }, deadline)
  const kid = thumbprint(own)
  const fault = (what: string, fix: string): ConfigError =>
    new ConfigError([{ where: 'SEALGATE_ROOT_KEY', what, fix }])
  if (!roots.some((pinned) => thumbprint(pinned).equals(kid)))
    throw fault('It is none of the pinned roots.', 'Pin its public key in SEALGATE_ROOTS, or name another.')
  if ('key' in root) return localSigner(root.key)
  if (own.suite === ED25519)
    throw fault('KMS signs at most 4,096 bytes with Ed25519.', 'Make a key of the kind ECC_NIST_P256.')
  return kmsSigner({ keyId: root.arn, kid, alg: own.suite.cose }, { clock })
}
