import { describe, expect, test, vi } from 'vitest'
import { Outage, Rejection } from '../../lib/errors.ts'
import { shieldKeyService, type ShieldOptions } from '../../lib/keys/key-service-shield.ts'
import { fakeKeyService, gate, isWiped, KEK, manualClock, unavailable } from './fixtures.ts'

const CONTEXT = { 'sealgate:v': '1' }

function world(options: Partial<ShieldOptions> = {}) {
  const service = fakeKeyService()
  const clock = manualClock()
  const slept: number[] = []
  const sleep = (ms: number): Promise<void> => {
    slept.push(ms)
    clock.ms += ms
    return Promise.resolve()
  }
  const shield = shieldKeyService(service, { clock, random: () => 0.5, sleep, ...options })
  const generate = (kek = KEK): Promise<unknown> => shield.generate(kek, CONTEXT, clock.ms + 60_000)
  return { service, clock, slept, shield, generate }
}

const denied = (): Outage => new Outage('key-service-denied', 'no')

describe('shielded key service', () => {
  test('a busy service is asked again after growing waits with jitter, three times at most', async () => {
    const { service, slept, generate } = world()
    let left = 2
    service.before = () => (left-- > 0 ? Promise.reject(unavailable()) : Promise.resolve())
    await generate()
    expect(service.calls).toHaveLength(3)
    expect(slept).toEqual([25, 50])
    left = 10
    await expect(generate()).rejects.toMatchObject({ code: 'key-service-unavailable' })
    expect(service.calls).toHaveLength(6)
  })

  test('a definite no and a refusal are answers: they are not asked for twice', async () => {
    const { service, shield, clock, generate } = world()
    await expect(shield.unwrap(KEK, Buffer.alloc(9), CONTEXT, clock.ms + 1000)).rejects.toThrow(Rejection)
    service.before = () => Promise.reject(denied())
    await expect(generate()).rejects.toMatchObject({ code: 'key-service-denied' })
    expect(service.calls).toHaveLength(2)
  })

  test('each attempt ends after its own time, and a key that comes late is wiped', async () => {
    const { service, generate, clock } = world({ attemptMs: 15, maxAttempts: 2 })
    const wait = gate()
    service.before = () => wait.promise
    await expect(generate()).rejects.toMatchObject({ code: 'key-service-unavailable' })
    expect(service.calls.map((call) => call.deadline - clock.ms).every((left) => left <= 15)).toBe(true)
    wait.resolve()
    await vi.waitFor(() => expect(service.given).toHaveLength(2))
    expect(service.given.every(isWiped)).toBe(true)
  })

  test('the breaker opens after five failures in a row, lets one call try after a while, and closes when that works', async () => {
    const { service, clock, generate } = world({ maxAttempts: 1 })
    service.before = () => Promise.reject(unavailable())
    for (let call = 0; call < 8; call++) await expect(generate()).rejects.toThrow(Outage)
    expect(service.calls).toHaveLength(5)
    clock.ms += 5000
    const wait = gate()
    service.before = () => wait.promise
    const probe = generate()
    await expect(generate()).rejects.toThrow('no call is made')
    expect(service.calls).toHaveLength(6)
    wait.resolve()
    await probe
    await generate()
    expect(service.calls).toHaveLength(7)
  })

  test('one answer closes what failures had begun to open', async () => {
    const { service, generate } = world({ maxAttempts: 1 })
    for (let round = 0; round < 2; round++) {
      service.before = () => Promise.reject(unavailable())
      for (let call = 0; call < 4; call++) await expect(generate()).rejects.toThrow(Outage)
      service.before = () => Promise.resolve()
      await generate()
    }
    expect(service.calls).toHaveLength(10)
  })

  test('a probe that fails opens the breaker again', async () => {
    const { service, clock, generate } = world({ maxAttempts: 1 })
    service.before = () => Promise.reject(unavailable())
    for (let call = 0; call < 5; call++) await expect(generate()).rejects.toThrow(Outage)
    clock.ms += 5000
    for (let call = 0; call < 3; call++) await expect(generate()).rejects.toThrow(Outage)
    expect(service.calls).toHaveLength(6)
  })

  test('one producer’s broken KEK does not cut off the others', async () => {
    const { service, generate } = world({ maxAttempts: 1 })
    service.before = () => Promise.reject(unavailable())
    for (let call = 0; call < 6; call++) await expect(generate()).rejects.toThrow(Outage)
    service.before = () => Promise.resolve()
    await generate({ ...KEK, key: 'kek-2' })
    await expect(generate()).rejects.toThrow('no call is made')
  })

  test('refusals and callers without time do not open the breaker', async () => {
    const { service, shield, clock, generate } = world({ maxAttempts: 1 })
    service.before = () => Promise.reject(denied())
    for (let call = 0; call < 8; call++) await expect(generate()).rejects.toThrow(Outage)
    service.before = () => {
      clock.ms += 10
      return Promise.reject(unavailable())
    }
    for (let call = 0; call < 8; call++)
      await expect(shield.generate(KEK, CONTEXT, clock.ms + 5)).rejects.toMatchObject({ code: 'deadline' })
    expect(service.calls).toHaveLength(16)
  })

  test('calls keep under the quota: they wait for it, and fail where that cannot end in time', async () => {
    const { service, slept, clock, shield, generate } = world({ callsPerSecond: 10 })
    for (let call = 0; call < 10; call++) await generate()
    expect(slept).toEqual([])
    await generate()
    expect(slept).toEqual([100])
    await expect(shield.generate(KEK, CONTEXT, clock.ms + 50)).rejects.toThrow('limit of calls')
    expect(service.calls).toHaveLength(11)
    clock.ms += 3_600_000
    for (let call = 0; call < 10; call++) await generate()
    expect(slept).toEqual([100])
  })

  test('waiting callers stand in a line: together they keep the rate', async () => {
    const waits: number[] = []
    const { generate } = world({
      callsPerSecond: 10,
      sleep: (ms) => (waits.push(Math.round(ms)), Promise.resolve()),
    })
    await Promise.all(Array.from({ length: 13 }, () => generate()))
    expect(waits).toEqual([100, 200, 300])
  })

  test('without time left no call is made', async () => {
    const { service, shield, clock } = world()
    await expect(shield.generate(KEK, CONTEXT, clock.ms)).rejects.toMatchObject({ code: 'deadline' })
    expect(service.calls).toHaveLength(0)
  })
})
