/** What every signing key in a key service must keep (sealed-event.md §3), and how its public half is found. */
import { afterAll, beforeAll, describe, expect } from 'vitest'
import { type PublicKey, verify } from '../../lib/envelope/crypto.ts'
import { ED25519, ESP256, type SignatureSuite } from '../../lib/envelope/suite.ts'
import type { Signer } from '../../lib/ports.ts'
import { caseOf } from './known.ts'

export interface KeySignerWorld {
  makeKey(spec: 'ECC_NIST_P256' | 'ECC_NIST_EDWARDS25519' | 'SYMMETRIC_DEFAULT'): Promise<string>
  /** May be refused where the key does not sign. */
  signer(key: string, suite: SignatureSuite): Promise<Signer>
  publicKey(key: string): Promise<PublicKey>
  disable(key: string): Promise<void>
  scheduleDeletion(key: string): Promise<void>
  end(): Promise<void>
}

export const KEY_SIGNER_CASES = [
  'P-256: signatures of 64 bytes that verify',
  'P-256: messages over 4,096 bytes too',
  'Ed25519: signatures of 64 bytes that verify',
  'a key that encrypts does not sign',
  'a key that is not there does not sign',
  'a disabled key does not sign',
  'a key pending deletion does not sign',
] as const
export type KeySignerCase = (typeof KEY_SIGNER_CASES)[number]

const soon = (): number => Date.now() + 10_000
const REFUSED = { name: 'Outage', code: 'signer-unavailable' }

export function keySignerContract(
  name: string,
  openWorld: () => Promise<KeySignerWorld>,
  differences: ReadonlySet<KeySignerCase> = new Set(),
): void {
  describe(`${name} as Signer`, () => {
    let world: KeySignerWorld
    beforeAll(async () => {
      world = await openWorld()
    })
    afterAll(() => world.end())
    const known = caseOf(differences)

    const signs = async (suite: SignatureSuite, key: string, sizes: readonly number[]): Promise<void> => {
      const publicKey = await world.publicKey(key)
      const signer = await world.signer(key, suite)
      for (const size of sizes) {
        const message = Buffer.alloc(size, size)
        const signature = await signer.sign(message, soon())
        expect(signature).toHaveLength(64)
        expect(verify(publicKey, message, signature)).toBe(true)
        expect(verify(publicKey, Buffer.concat([message, Buffer.of(0)]), signature)).toBe(false)
      }
    }
    const refuses = async (key: string): Promise<void> => {
      const signing = world.signer(key, ESP256).then((signer) => signer.sign(Buffer.of(1), soon()))
      await expect(signing).rejects.toMatchObject(REFUSED)
    }

    known('P-256: signatures of 64 bytes that verify', async () => {
      const key = await world.makeKey('ECC_NIST_P256')
      // Many, since r and s may be short.
      await signs(ESP256, key, [1, ...Array.from({ length: 40 }, (_, at) => 32 + at), 4096])
    })

    known('P-256: messages over 4,096 bytes too', async () => {
      await signs(ESP256, await world.makeKey('ECC_NIST_P256'), [4097, 65_536])
    })

    known('Ed25519: signatures of 64 bytes that verify', async () => {
      await signs(ED25519, await world.makeKey('ECC_NIST_EDWARDS25519'), [1, 32, 4096])
    })

    known('a key that encrypts does not sign', async () => {
      const key = await world.makeKey('SYMMETRIC_DEFAULT')
      await refuses(key)
      await expect(world.publicKey(key)).rejects.toThrow()
    })

    known('a key that is not there does not sign', async () => {
      const key = await world.makeKey('ECC_NIST_P256')
      await refuses(key.replace(/[0-9a-f-]{36}$/, '00000000-0000-4000-8000-000000000000'))
    })

    known('a disabled key does not sign', async () => {
      const key = await world.makeKey('ECC_NIST_P256')
      await world.disable(key)
      await refuses(key)
    })

    known('a key pending deletion does not sign', async () => {
      const key = await world.makeKey('ECC_NIST_P256')
      await world.scheduleDeletion(key)
      await refuses(key)
    })
  })
}
