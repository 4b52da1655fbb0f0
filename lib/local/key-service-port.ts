/** The embedded key service as the ports that the core asks. */
import { checkUnwrapped, kmsOutage, kmsUnwrapError } from '../adapters/kms.ts'
import { Outage } from '../errors.ts'
import type { Clock, KeyService, Signer } from '../ports.ts'
import { type LocalKeyService, suiteFor } from './key-service.ts'

/** This service as the port, for one principal; its errors are translated as KMS's are. */
export function localKeyPort(service: LocalKeyService, clock: Clock, principal?: string): KeyService {
  const inTime = (deadline: number): void => {
    if (clock.now() >= deadline)
      throw new Outage('key-service-unavailable', 'no time left for the key service')
  }
  return {
    generate: (kek, context, deadline) =>
      new Promise((resolve) => {
        try {
          inTime(deadline)
          const { plaintext, ciphertext } = service.generateDataKey(kek.key, context, principal)
          resolve({ dataKey: plaintext, wrapped: ciphertext })
        } catch (error) {
          throw kmsOutage(error, kek)
        }
      }),
    unwrap: (kek, wrapped, context, deadline) =>
      new Promise((resolve) => {
        try {
          inTime(deadline)
          resolve(checkUnwrapped(service.decrypt(kek.key, wrapped, context, principal)))
        } catch (error) {
          throw kmsUnwrapError(error, kek)
        }
      }),
  }
}

/** An asymmetric key of this service as a `Signer`; throws `Outage('signer-unavailable')` where there is none. */
export function localKeySigner(
  service: LocalKeyService,
  key: string,
  kid: Uint8Array,
  principal?: string,
): Signer {
  const tried = <T>(ask: () => T): T => {
    try {
      return ask()
    } catch (cause) {
      throw new Outage('signer-unavailable', `the key service does not sign with ${key}`, { cause })
    }
  }
  const { cose: alg } = tried(() => suiteFor(service.describeKey(key).spec))
  return {
    kid,
    alg,
    sign: (bytes) =>
      new Promise((resolve) => {
        resolve(tried(() => service.sign(key, bytes, principal)))
      }),
  }
}
