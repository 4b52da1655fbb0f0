/**
 * What every KeyService must keep (sealed-event.md §5, keys.md §2), whatever is behind it: the embedded one, AWS KMS, or
 * an emulator of it. Where an emulator differs from AWS, the difference is named, and the suite shows that it is there.
 */
import { afterAll, beforeAll, describe, expect } from 'vitest'
import { Rejection } from '../../lib/errors.ts'
import type { EncryptionContext, Kek, KeyService } from '../../lib/ports.ts'
import { caseOf } from './known.ts'

export interface KeyServiceWorld {
  readonly service: KeyService
  /** A new enabled KEK. */
  makeKek(): Promise<Kek>
  /** A key that signs, as if it were a KEK. */
  makeSigningKek(): Promise<Kek>
  /** Wraps any bytes under a KEK, as a producer may that has the right to. */
  encrypt(kek: Kek, plaintext: Uint8Array, context: EncryptionContext): Promise<Uint8Array>
  disable(kek: Kek): Promise<void>
  enable(kek: Kek): Promise<void>
  scheduleDeletion(kek: Kek): Promise<void>
  rotate(kek: Kek): Promise<void>
  end(): Promise<void>
}

export const KEY_SERVICE_CASES = [
  'a data key comes back from its wrapped form, under the same context in any order',
  'no two data keys are alike',
  'any change of the context is a definite no',
  'a tampered blob is a definite no',
  'bytes that no key service made are a definite no',
  'another KEK than the one that wrapped is a definite no',
  'what was wrapped but is no 256-bit key is a definite no',
  'every definite no says the same',
  'a KEK that is not there is an outage',
  'a KEK that signs is an outage',
  'a disabled KEK is an outage, and works again when enabled',
  'a KEK pending deletion is an outage',
  'what was wrapped before a rotation still unwraps',
  'a call without time left is an outage',
] as const
export type KeyServiceCase = (typeof KEY_SERVICE_CASES)[number]

const CONTEXT: EncryptionContext = {
  'sealgate:v': '1',
  'sealgate:iss': 'shipping-service',
  'sealgate:aud': 'gateway',
  'sealgate:type': 'OrderShipped',
}

const soon = (): number => Date.now() + 10_000

const NO = { name: 'Rejection', code: 'undecryptable' }
const DENIED = { name: 'Outage', code: 'key-service-denied' }

export function keyServiceContract(
  name: string,
  makeWorld: () => Promise<KeyServiceWorld>,
  differences: ReadonlySet<KeyServiceCase> = new Set(),
): void {
  describe(`${name} as KeyService`, () => {
    let world: KeyServiceWorld
    let kek: Kek
    beforeAll(async () => {
      world = await makeWorld()
      kek = await world.makeKek()
    })
    afterAll(() => world.end())

    const known = caseOf(differences)

    known('a data key comes back from its wrapped form, under the same context in any order', async () => {
      const { dataKey, wrapped } = await world.service.generate(kek, CONTEXT, soon())
      expect(dataKey).toHaveLength(32)
      expect(wrapped.length).toBeGreaterThan(32)
      expect(wrapped.length).toBeLessThanOrEqual(1024)
      const reversed = Object.fromEntries(Object.entries(CONTEXT).reverse())
      expect(Buffer.from(await world.service.unwrap(kek, wrapped, reversed, soon()))).toEqual(
        Buffer.from(dataKey),
      )
    })

    known('no two data keys are alike', async () => {
      const made = await Promise.all(
        Array.from({ length: 10 }, () => world.service.generate(kek, CONTEXT, soon())),
      )
      expect(new Set(made.map(({ dataKey }) => Buffer.from(dataKey).toString('hex'))).size).toBe(10)
      expect(new Set(made.map(({ wrapped }) => Buffer.from(wrapped).toString('hex'))).size).toBe(10)
    })

    known('any change of the context is a definite no', async () => {
      const { wrapped } = await world.service.generate(kek, CONTEXT, soon())
      const less = Object.fromEntries(Object.entries(CONTEXT).slice(1))
      const others = [
        ...Object.keys(CONTEXT).map((part) => ({ ...CONTEXT, [part]: 'other' })),
        { ...CONTEXT, more: 'than that' },
        { ...CONTEXT, 'sealgate:type': 'ordershipped' },
        less,
        {},
      ]
      for (const other of others)
        await expect(world.service.unwrap(kek, wrapped, other, soon())).rejects.toMatchObject(NO)
    })

    known('a tampered blob is a definite no', async () => {
      const { wrapped } = await world.service.generate(kek, CONTEXT, soon())
      for (const at of [wrapped.length - 1, wrapped.length - 20, wrapped.length - 45]) {
        const tampered = Uint8Array.from(wrapped)
        tampered[at] = (tampered[at] ?? 0) ^ 1
        await expect(world.service.unwrap(kek, tampered, CONTEXT, soon())).rejects.toMatchObject(NO)
      }
    })

    known('bytes that no key service made are a definite no', async () => {
      for (const garbage of [Buffer.from([7]), Buffer.alloc(184, 7), Buffer.alloc(1024)])
        await expect(world.service.unwrap(kek, garbage, CONTEXT, soon())).rejects.toMatchObject(NO)
    })

    known('another KEK than the one that wrapped is a definite no', async () => {
      const { wrapped } = await world.service.generate(kek, CONTEXT, soon())
      await expect(
        world.service.unwrap(await world.makeKek(), wrapped, CONTEXT, soon()),
      ).rejects.toMatchObject(NO)
    })

    known('what was wrapped but is no 256-bit key is a definite no', async () => {
      for (const length of [1, 16, 31, 33, 64]) {
        const wrapped = await world.encrypt(kek, Buffer.alloc(length, 1), CONTEXT)
        await expect(world.service.unwrap(kek, wrapped, CONTEXT, soon())).rejects.toMatchObject(NO)
      }
      const whole = await world.encrypt(kek, Buffer.alloc(32, 1), CONTEXT)
      expect(Buffer.from(await world.service.unwrap(kek, whole, CONTEXT, soon()))).toEqual(
        Buffer.alloc(32, 1),
      )
    })

    known('every definite no says the same', async () => {
      const { wrapped } = await world.service.generate(kek, CONTEXT, soon())
      const short = await world.encrypt(kek, Buffer.alloc(16, 1), CONTEXT)
      const reasons = new Set<string>()
      for (const [bytes, context] of [
        [wrapped, {}],
        [short, CONTEXT],
      ] as const) {
        const error: unknown = await world.service
          .unwrap(kek, bytes, context, soon())
          .catch((caught: unknown) => caught)
        expect(error).toBeInstanceOf(Rejection)
        if (error instanceof Rejection) reasons.add(error.message)
      }
      expect(reasons.size).toBe(1)
    })

    known('a KEK that is not there is an outage', async () => {
      const { wrapped } = await world.service.generate(kek, CONTEXT, soon())
      const gone = { ...kek, key: kek.key.replace(/[0-9a-f-]{36}$/, '00000000-0000-4000-8000-000000000000') }
      expect(gone.key).not.toBe(kek.key)
      await expect(world.service.generate(gone, CONTEXT, soon())).rejects.toMatchObject(DENIED)
      await expect(world.service.unwrap(gone, wrapped, CONTEXT, soon())).rejects.toMatchObject(DENIED)
    })

    known('a KEK that signs is an outage', async () => {
      const { wrapped } = await world.service.generate(kek, CONTEXT, soon())
      const signing = await world.makeSigningKek()
      await expect(world.service.generate(signing, CONTEXT, soon())).rejects.toMatchObject(DENIED)
      await expect(world.service.unwrap(signing, wrapped, CONTEXT, soon())).rejects.toMatchObject(DENIED)
    })

    known('a disabled KEK is an outage, and works again when enabled', async () => {
      const mine = await world.makeKek()
      const { wrapped } = await world.service.generate(mine, CONTEXT, soon())
      await world.disable(mine)
      await expect(world.service.generate(mine, CONTEXT, soon())).rejects.toMatchObject(DENIED)
      await expect(world.service.unwrap(mine, wrapped, CONTEXT, soon())).rejects.toMatchObject(DENIED)
      await world.enable(mine)
      await world.service.unwrap(mine, wrapped, CONTEXT, soon())
    })

    known('a KEK pending deletion is an outage', async () => {
      const mine = await world.makeKek()
      const { wrapped } = await world.service.generate(mine, CONTEXT, soon())
      await world.scheduleDeletion(mine)
      await expect(world.service.unwrap(mine, wrapped, CONTEXT, soon())).rejects.toMatchObject(DENIED)
    })

    known('what was wrapped before a rotation still unwraps', async () => {
      const mine = await world.makeKek()
      const before = await world.service.generate(mine, CONTEXT, soon())
      await world.rotate(mine)
      const after = await world.service.generate(mine, CONTEXT, soon())
      for (const { dataKey, wrapped } of [before, after])
        expect(Buffer.from(await world.service.unwrap(mine, wrapped, CONTEXT, soon()))).toEqual(
          Buffer.from(dataKey),
        )
    })

    known('a call without time left is an outage', async () => {
      const late = expect.objectContaining({ name: 'Outage' })
      await expect(world.service.generate(kek, CONTEXT, Date.now() - 1)).rejects.toEqual(late)
      await expect(world.service.unwrap(kek, Buffer.alloc(184), CONTEXT, Date.now() - 1)).rejects.toEqual(
        late,
      )
    })
  })
}
