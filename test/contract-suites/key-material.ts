/** What every `KeyMaterial` must keep: rotation of a symmetric key as AWS KMS documents it (keys.md §3). */
import { beforeAll, describe, expect } from 'vitest'
import type { KeyMaterial } from '../../lib/keys/rotation-state.ts'
import { caseOf } from './known.ts'

export interface KeyMaterialWorld {
  readonly material: KeyMaterial
  /** A new enabled symmetric key, by its ARN. */
  makeKey(): Promise<string>
  /** One that signs. */
  makeSigningKey(): Promise<string>
  disable(key: string): Promise<void>
}

export const KEY_MATERIAL_CASES = [
  'a new key is not rotated, and may be 25 times on demand',
  'a period is told back with the day that it is due, and replaced by another',
  'a period under 90 or over 2,560 days is refused, with nothing changed',
  'a rotation on demand is dated and counted',
  'after 25 rotations on demand no more is made',
  'an asymmetric key is refused',
  'a disabled key is refused',
  'a key that is not there is refused',
  'a call without time left is an outage',
] as const
export type KeyMaterialCase = (typeof KEY_MATERIAL_CASES)[number]

const DAY_MS = 86_400_000
const soon = (): number => Date.now() + 10_000
const DENIED = { name: 'Outage', code: 'key-service-denied' }

export function keyMaterialContract(
  name: string,
  openWorld: () => Promise<KeyMaterialWorld>,
  differences: ReadonlySet<KeyMaterialCase> = new Set(),
): void {
  describe(`${name} as KeyMaterial`, () => {
    let world: KeyMaterialWorld
    let material: KeyMaterial
    beforeAll(async () => {
      world = await openWorld()
      material = world.material
    })
    const known = caseOf(differences)

    known('a new key is not rotated, and may be 25 times on demand', async () => {
      const found = await material.describe(await world.makeKey(), soon())
      expect(found).toEqual({ periodDays: undefined, rotatedAt: null, dueAt: null, onDemandLeft: 25 })
    })

    known('a period is told back with the day that it is due, and replaced by another', async () => {
      const key = await world.makeKey()
      for (const days of [180, 365, 90, 2560]) {
        await material.enableRotation(key, days, soon())
        const { periodDays, dueAt } = await material.describe(key, soon())
        expect(periodDays).toBe(days)
        expect(Math.abs((dueAt ?? 0) - Date.now() - days * DAY_MS)).toBeLessThan(2 * DAY_MS)
      }
    })

    known('a period under 90 or over 2,560 days is refused, with nothing changed', async () => {
      const key = await world.makeKey()
      await material.enableRotation(key, 180, soon())
      for (const days of [0, 89, 2561])
        await expect(material.enableRotation(key, days, soon())).rejects.toMatchObject(DENIED)
      expect((await material.describe(key, soon())).periodDays).toBe(180)
    })

    known('a rotation on demand is dated and counted', async () => {
      const key = await world.makeKey()
      for (const left of [24, 23]) {
        await material.rotateOnDemand(key, soon())
        const { rotatedAt, onDemandLeft } = await material.describe(key, soon())
        expect(onDemandLeft).toBe(left)
        expect(Math.abs((rotatedAt ?? 0) - Date.now())).toBeLessThan(60_000)
      }
    })

    known('after 25 rotations on demand no more is made', async () => {
      const key = await world.makeKey()
      for (let made = 0; made < 25; made++) await material.rotateOnDemand(key, soon())
      expect((await material.describe(key, soon())).onDemandLeft).toBe(0)
      await expect(material.rotateOnDemand(key, soon())).rejects.toMatchObject({ name: 'Outage' })
      expect((await material.describe(key, soon())).onDemandLeft).toBe(0)
    })

    known('an asymmetric key is refused', async () => {
      const key = await world.makeSigningKey()
      await expect(material.enableRotation(key, 365, soon())).rejects.toMatchObject(DENIED)
      await expect(material.rotateOnDemand(key, soon())).rejects.toMatchObject(DENIED)
    })

    known('a disabled key is refused', async () => {
      const key = await world.makeKey()
      await world.disable(key)
      await expect(material.enableRotation(key, 365, soon())).rejects.toMatchObject(DENIED)
      await expect(material.rotateOnDemand(key, soon())).rejects.toMatchObject(DENIED)
    })

    known('a key that is not there is refused', async () => {
      const key = (await world.makeKey()).replace(/[0-9a-f-]{36}$/, '00000000-0000-4000-8000-000000000000')
      await expect(material.describe(key, soon())).rejects.toMatchObject(DENIED)
      await expect(material.enableRotation(key, 365, soon())).rejects.toMatchObject(DENIED)
      await expect(material.rotateOnDemand(key, soon())).rejects.toMatchObject(DENIED)
    })

    known('a call without time left is an outage', async () => {
      const key = await world.makeKey()
      const late = Date.now() - 1
      await expect(material.describe(key, late)).rejects.toMatchObject({ name: 'Outage' })
      await expect(material.rotateOnDemand(key, late)).rejects.toMatchObject({ name: 'Outage' })
    })
  })
}
