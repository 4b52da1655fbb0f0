import fc from 'fast-check'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { Outage } from '../../lib/errors.ts'
import { createSealingKeys, type SealingKeyOptions, type SealingKeys } from '../../lib/keys/sealing-keys.ts'
import { fakeKeyService, gate, isWiped, KEK, manualClock, nth, unavailable } from './fixtures.ts'

const SCOPE = { kek: KEK, iss: 'shipping-service', aud: 'gateway', type: 'OrderShipped' }
const idOf = (_: unknown, wrapped: Uint8Array): string => Buffer.from(wrapped).toString('hex', 0, 8)

const open: SealingKeys[] = []
afterEach(() => {
  for (const keys of open.splice(0)) keys.close()
})

function world(options: Partial<SealingKeyOptions> = {}) {
  const service = fakeKeyService()
  const clock = manualClock()
  const keys = createSealingKeys({ keyService: service, clock, ...options })
  open.push(keys)
  const lend = (): Promise<string> => keys.lend(SCOPE, clock.ms + 10_000, idOf)
  return { service, clock, keys, lend }
}

describe('sealing keys', () => {
  test('one key serves a scope, and another scope has another', async () => {
    const { keys, service, clock, lend } = world()
    const first = await lend()
    expect(await lend()).toBe(first)
    expect(keys.tryLend(SCOPE, idOf)).toEqual({ value: first })
    const others = [
      { kek: { ...KEK, key: 'b' } },
      { kek: { ...KEK, kekId: 'b' } },
      { iss: 'b' },
      { aud: 'b' },
      { type: 'b' },
    ]
    for (const other of others) {
      // The last one that was asked for differs in this alone.
      expect(keys.tryLend(SCOPE, idOf)).toEqual({ value: first })
      expect(keys.tryLend({ ...SCOPE, ...other }, idOf)).toBeUndefined()
      expect(await keys.lend({ ...SCOPE, ...other }, clock.ms + 1000, idOf)).not.toBe(first)
    }
    expect(service.calls).toHaveLength(6)
    expect(nth(service.calls, 0).context).toEqual({
      'sealgate:v': '1',
      'sealgate:iss': 'shipping-service',
      'sealgate:aud': 'gateway',
      'sealgate:type': 'OrderShipped',
    })
  })

  test('no key is used more often than allowed, however many ask at once', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 7 }),
        fc.integer({ min: 1, max: 60 }),
        async (maxUses, asks) => {
          const { lend } = world({ maxUses })
          const uses = new Map<string, number>()
          for (const id of await Promise.all(Array.from({ length: asks }, lend)))
            uses.set(id, (uses.get(id) ?? 0) + 1)
          expect(Math.max(...uses.values())).toBeLessThanOrEqual(maxUses)
          expect([...uses.values()].reduce((sum, count) => sum + count)).toBe(asks)
        },
      ),
      { numRuns: 60 },
    )
  })

  test('a use that throws counts: it may have sealed', async () => {
    const { keys, clock, lend } = world({ maxUses: 2, prefetchAt: 2 })
    const first = await lend()
    const thrown = new RangeError('after sealing')
    await expect(
      keys.lend(SCOPE, clock.ms + 1, () => {
        throw thrown
      }),
    ).rejects.toBe(thrown)
    expect(await lend()).not.toBe(first)
  })

  test('the first call is shared by all that wait for it', async () => {
    const { service, lend } = world()
    const wait = gate()
    service.before = () => wait.promise
    const asked = Array.from({ length: 20 }, lend)
    wait.resolve()
    expect(new Set(await Promise.all(asked)).size).toBe(1)
    expect(service.calls).toHaveLength(1)
  })

  test('the next key is fetched before the old one runs out, and sending does not wait for a slow service', async () => {
    const { keys, service, clock, lend } = world({ maxAgeMs: 60_000 })
    const first = await lend()
    const wait = gate()
    service.before = () => wait.promise
    clock.ms += 50_000
    expect(keys.tryLend(SCOPE, idOf)).toEqual({ value: first })
    expect(keys.tryLend(SCOPE, idOf)).toEqual({ value: first })
    expect(service.calls).toHaveLength(2)
    wait.resolve()
    await new Promise((resolve) => setImmediate(resolve))
    clock.ms += 9_999
    expect(keys.tryLend(SCOPE, idOf)).toEqual({ value: first })
    clock.ms += 1
    const next = keys.tryLend(SCOPE, idOf)
    expect(next?.value).not.toBe(first)
    expect(next).toBeDefined()
    expect(isWiped(nth(service.given, 0))).toBe(true)
  })

  test('sealing goes on while a valid key lasts, and fails when it has expired: never an expired key', async () => {
    const { keys, service, clock, lend } = world({ maxAgeMs: 60_000 })
    const first = await lend()
    service.before = () => Promise.reject(unavailable())
    for (let second = 0; second < 60; second++) {
      expect(keys.tryLend(SCOPE, idOf)).toEqual({ value: first })
      await new Promise((resolve) => setImmediate(resolve))
      expect(keys.tryLend(SCOPE, idOf)).toEqual({ value: first })
      await new Promise((resolve) => setImmediate(resolve))
      clock.ms += 1000
    }
    // From 50 s on, one attempt a second, not one an event.
    expect(service.calls.length).toBe(11)
    expect(keys.tryLend(SCOPE, idOf)).toBeUndefined()
    await expect(lend()).rejects.toThrow(Outage)
    expect(isWiped(nth(service.given, 0))).toBe(true)
    service.before = () => Promise.resolve()
    expect(await lend()).not.toBe(first)
  })

  test('counts say what was at hand, who had to wait, what was called and failed, and how old the keys are', async () => {
    const { keys, service, clock, lend } = world({ maxAgeMs: 60_000 })
    await Promise.all([lend(), lend(), lend()])
    expect(keys.counts()).toEqual({ calls: 1, hits: 0, waits: 3, failures: 0, alive: 1, oldestAgeMs: 0 })
    keys.tryLend(SCOPE, idOf)
    await lend()
    clock.ms += 50_000
    keys.tryLend(SCOPE, idOf)
    await new Promise((resolve) => setImmediate(resolve))
    const ahead = { calls: 2, hits: 3, waits: 3, failures: 0, alive: 2, oldestAgeMs: 50_000 }
    expect(keys.counts()).toEqual(ahead)
    service.before = () => Promise.reject(unavailable())
    clock.ms += 60_000
    expect(keys.tryLend(SCOPE, idOf)).toBeUndefined()
    await expect(lend()).rejects.toThrow(Outage)
    const failed = { calls: 3, hits: 3, waits: 4, failures: 1, alive: 0, oldestAgeMs: 0 }
    expect(keys.counts()).toEqual(failed)
  })

  test('a hung service holds a sender no longer than its deadline', async () => {
    const { keys, service, clock } = world()
    const wait = gate()
    service.before = () => wait.promise
    await expect(keys.lend(SCOPE, clock.ms + 20, idOf)).rejects.toMatchObject({ code: 'deadline' })
    wait.resolve()
  })

  test('a clock that goes back gives no key more life', async () => {
    const { keys, clock, lend } = world()
    await lend()
    clock.ms -= 1
    expect(keys.tryLend(SCOPE, idOf)).toBeUndefined()
  })

  test('unused keys are wiped when their time is over, and one new key serves their scope again', async () => {
    vi.useFakeTimers()
    try {
      const { service, clock, lend } = world()
      await lend()
      clock.ms += 3_600_000
      await vi.advanceTimersByTimeAsync(3_600_000)
      expect(isWiped(nth(service.given, 0))).toBe(true)
      expect(vi.getTimerCount()).toBe(0)
      service.before = () => (service.calls.length > 2 ? Promise.reject(unavailable()) : Promise.resolve())
      await lend()
      await lend()
      expect(service.calls).toHaveLength(2)
    } finally {
      vi.useRealTimers()
    }
  })

  test('scopes beyond the bound push out the oldest, wiped', async () => {
    const { keys, service, clock } = world({ maxScopes: 2 })
    for (const type of ['a', 'b', 'c']) await keys.lend({ ...SCOPE, type }, clock.ms + 1000, idOf)
    expect(service.given.map(isWiped)).toEqual([true, false, false])
  })

  test('a key that comes for a scope pushed out meanwhile, or after the end, is wiped unused', async () => {
    const { keys, service, clock } = world({ maxScopes: 1 })
    const held = gate()
    service.before = () => (service.calls.length === 1 ? held.promise : Promise.resolve())
    const lend = (type: string): Promise<string> => keys.lend({ ...SCOPE, type }, clock.ms + 1000, idOf)
    const first = lend('a')
    const other = await lend('b')
    held.resolve()
    const again = await first
    // In the order in which they came: b’s, a’s that was too late, and a’s own, which pushed b’s out.
    expect(service.given.map(isWiped)).toEqual([true, true, false])
    expect(again).not.toBe(other)
    const late = gate()
    service.before = () => late.promise
    const refused = expect(lend('c')).rejects.toThrow(TypeError)
    keys.close()
    late.resolve()
    await refused
    expect(service.given.map(isWiped)).toEqual([true, true, true, true])
  })

  test('bounds beyond those of the wire format are refused', () => {
    expect(() => world({ maxUses: 2 ** 32 + 1 })).toThrow(TypeError)
    expect(() => world({ maxUses: NaN })).toThrow(TypeError)
    expect(() => world({ maxAgeMs: 24 * 3_600_000 + 1 })).toThrow(TypeError)
  })
})
