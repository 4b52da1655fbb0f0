/**
 * Proof of possession at enrolment (keys.md §1): the owner of a signing key signs a fresh challenge, so that nobody has
 * another's public key entered under his own name.
 */
import type { PublicKey } from '../envelope/crypto.ts'
import { random, thumbprint, verify } from '../envelope/crypto.ts'
import type { Signer } from '../ports.ts'

const CHALLENGE_BYTES = 32
/** What is signed begins with this, as nothing else does that these keys sign. */
const PURPOSE = 'sealgate/1 enrolment'

/** 256 random bits, to be used for one enrolment and soon. */
export const newChallenge = (): Uint8Array => random(CHALLENGE_BYTES)

/** The owner's answer to a challenge: 64 bytes. `iss` is the name that the key is to sign for. */
export function provePossession(
  signer: Signer,
  iss: string,
  challenge: Uint8Array,
  deadline: number,
): Promise<Uint8Array> {
  return signer.sign(statement(iss, signer.kid, challenge), deadline)
}

/** Whether the owner of this key has answered this challenge for this name. */
export function provesPossession(
  key: PublicKey,
  iss: string,
  challenge: Uint8Array,
  proof: Uint8Array,
): boolean {
  return (
    challenge.length === CHALLENGE_BYTES && verify(key, statement(iss, thumbprint(key), challenge), proof)
  )
}

/** Lengths are fixed but for the last: no two statements have the same bytes. */
function statement(iss: string, kid: Uint8Array, challenge: Uint8Array): Uint8Array {
  const length = Buffer.alloc(1, kid.length)
  return Buffer.concat([Buffer.from(`${PURPOSE}\0`), challenge, length, kid, Buffer.from(iss)])
}
