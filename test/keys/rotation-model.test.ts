import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { Rotation, RotationWaits } from '../../lib/keys/rotation.ts'
import {
  CERTIFICATE,
  ISSUER,
  POINTER,
  RotationWorld,
  SECRET,
  SUBJECT,
  USERS,
  WAITS,
} from './rotation-world.ts'

const PERIOD = 3000
const SECONDS = 16_000
const signingKey: Rotation = {
  kind: 'signing-key',
  name: 'gateway',
  iss: ISSUER,
  secret: SECRET,
  period: PERIOD,
}
const scram: Rotation = { kind: 'scram', name: 'kafka', pointer: POINTER, users: USERS, period: PERIOD }
const certificate: Rotation = {
  ...{ kind: 'client-certificate', name: 'gate-tls', secret: CERTIFICATE, subject: SUBJECT },
  ...{ authority: 'ca.pem', authorityKey: 'file:ca.key', brokers: undefined },
  ...{ duration: 4000, renewBefore: 1500 },
}

async function lived(rotation: Rotation, seed: number, waits: RotationWaits = WAITS): Promise<RotationWorld> {
  const world = new RotationWorld(seed)
  await world.begin()
  await world.live(rotation, waits, SECONDS)
  return world
}

/** Whether some seed shows a moment without a usable key. */
async function findsGap(rotation: Rotation, waits: RotationWaits): Promise<boolean> {
  for (let seed = 0; seed < 60; seed++)
    if ((await lived(rotation, seed, waits)).failures.length > 0) return true
  return false
}

describe('rotation, with rotators that die anywhere, run twice and have wrong clocks', () => {
  it('never lacks a key to seal or verify with, and does complete', { timeout: 60_000 }, async () => {
    await fc.assert(
      fc.asyncProperty(fc.integer(), async (seed) => {
        const world = await lived(signingKey, seed)
        expect(world.failures).toEqual([])
        expect(world.turns(SECRET)).toBeGreaterThanOrEqual(4)
        const rows = world.rows()
        expect(rows.filter(({ state }) => state === 'active').length).toBeLessThanOrEqual(3)
        // Those that nobody needs any more have been taken out.
        expect(rows.length).toBeLessThanOrEqual(5)
      }),
      { numRuns: 6 },
    )
  })

  it('never lacks a password to log in with, and does complete', { timeout: 60_000 }, async () => {
    await fc.assert(
      fc.asyncProperty(fc.integer(), async (seed) => {
        const world = await lived(scram, seed)
        expect(world.failures).toEqual([])
        expect(world.turns(POINTER)).toBeGreaterThanOrEqual(4)
      }),
      { numRuns: 6 },
    )
  })

  it('never lacks a certificate to present, and does complete', { timeout: 60_000 }, async () => {
    await fc.assert(
      fc.asyncProperty(fc.integer(), async (seed) => {
        const world = await lived(certificate, seed)
        expect(world.failures).toEqual([])
        expect(world.turns(CERTIFICATE)).toBeGreaterThanOrEqual(4)
      }),
      { numRuns: 6 },
    )
  })

  it('would have a gap if a certificate were renewed when it ends', { timeout: 60_000 }, async () => {
    expect(await findsGap({ ...certificate, renewBefore: 30 }, WAITS)).toBe(true)
  })

  it.each(['directoryGrace', 'secretHold', 'eventLife', 'retention'] as const)(
    'would have a gap if it did not wait for %s',
    { timeout: 60_000 },
    async (wait) => {
      expect(await findsGap(signingKey, { ...WAITS, [wait]: 0 })).toBe(true)
    },
  )

  it('would refuse a client if a user were rotated who is still in use', { timeout: 60_000 }, async () => {
    const hasty: Rotation = { ...scram, period: 1 }
    expect(await findsGap(hasty, { ...WAITS, secretHold: 0, margin: 0 })).toBe(true)
  })
})
