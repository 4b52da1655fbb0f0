/** Signing with a private key in this process. */
import { type PrivateKey, publicKeyOf, sign, thumbprint } from '../envelope/crypto.ts'
import type { Signer } from '../ports.ts'

/** The signer for the next piece of work, which keeps its key. */
export const currentSigner = async (signer: Signer, deadline: number): Promise<Signer> =>
  signer.current === undefined ? signer : signer.current(deadline)

/** A `Signer` over a key at hand. `kid` is by default the RFC 7638 thumbprint. */
export function localSigner(privateKey: PrivateKey, kid?: Uint8Array): Signer {
  return {
    kid: kid ?? thumbprint(publicKeyOf(privateKey)),
    alg: privateKey.suite.cose,
    sign: (bytes) => Promise.resolve(sign(privateKey, bytes)),
  }
}
