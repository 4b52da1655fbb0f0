import fc from 'fast-check'
import { afterEach, describe, expect, test, vi } from 'vitest'
import { Outage, Rejection } from '../../lib/errors.ts'
import {
  createDataKeys,
  type DataKeyOptions,
  type DataKeys,
  encryptionContext,
  type KeyRequest,
} from '../../lib/keys/data-keys.ts'
import {
  commitmentOf,
  type FakeKeyService,
  fakeKeyService,
  gate,
  isWiped,
  KEK,
  kekRow,
  type ManualClock,
  manualClock,
  nth,
  snapshotOf,
  unavailable,
} from './fixtures.ts'

const SCOPE = { iss: 'shipping-service', aud: 'gateway', type: 'OrderShipped' }

const open: DataKeys[] = []
afterEach(() => {
  for (const keys of open.splice(0)) keys.close()
})

function world(options: Partial<DataKeyOptions> = {}): {
  service: FakeKeyService
  clock: ManualClock
  keys: DataKeys
  request: (changes?: Partial<KeyRequest>) => KeyRequest
  deadline: number
} {
  const service = fakeKeyService()
  const clock = manualClock()
  const keys = createDataKeys({ keyService: service, clock, ...options })
  open.push(keys)
  const request = (changes: Partial<KeyRequest> = {}): KeyRequest => {
    const scope = { ...SCOPE, ...changes }
    const wrapped = changes.wrapped ?? service.wrap(encryptionContext(scope))
    return { ...SCOPE, kekId: Buffer.from(KEK.kekId), kek: KEK, ...changes, wrapped }
  }
  return { service, clock, keys, request, deadline: clock.ms + 10_000 }
}

const same = (request: KeyRequest): KeyRequest => ({
  ...request,
  kekId: Uint8Array.from(request.kekId),
  wrapped: Uint8Array.from(request.wrapped),
})

describe('opening keys', () => {
  test('a slice with one data key in many records costs one call', async () => {
    const { keys, service, request, deadline } = world()
    const one = request()
    const prepared = await keys.prepare(
      Array.from({ length: 1000 }, () => same(one)),
      deadline,
    )
    const commitments = new Set([prepared.lend(one, commitmentOf), prepared.lend(same(one), commitmentOf)])
    expect(commitments.size).toBe(1)
    expect(service.calls).toHaveLength(1)
    prepared.release()
    ;(await keys.prepare([same(one)], deadline)).release()
    expect(service.calls).toHaveLength(1)
    expect(keys.counts()).toMatchObject({ calls: 1, hits: 1, waits: 0, failures: 0, alive: 1 })
  })

  test('slices that want the same key at the same time share one call', async () => {
    const { keys, service, request, deadline } = world()
    const wait = gate()
    service.before = () => wait.promise
    const one = request()
    const slices = [keys.prepare([one], deadline), keys.prepare([same(one)], deadline)] as const
    wait.resolve()
    const [first, second] = await Promise.all(slices)
    expect(first.lend(one, commitmentOf)).toBe(second.lend(one, commitmentOf))
    expect(service.calls).toHaveLength(1)
    expect(keys.counts()).toMatchObject({ calls: 1, waits: 1 })
  })

  test('at most 16 keys of a slice are unwrapped side by side', async () => {
    const { keys, service, request, deadline } = world()
    service.before = () => new Promise((resolve) => setTimeout(resolve, 1))
    const requests = Array.from({ length: 50 }, () => request())
    const prepared = await keys.prepare(requests, deadline)
    for (const one of requests) prepared.lend(one, commitmentOf)
    expect(service.mostRunning).toBe(16)
  })

  test('a ciphertext is never opened under a key of another scope', async () => {
    const { keys, request, deadline } = world()
    const good = request()
    const others: KeyRequest[] = [
      { ...good, iss: 'other' },
      { ...good, aud: 'other' },
      { ...good, type: 'other' },
    ]
    const prepared = await keys.prepare([good, ...others], deadline)
    expect(prepared.lend(good, () => 'opened')).toBe('opened')
    for (const other of others) expect(() => prepared.lend(other, commitmentOf)).toThrow(Rejection)
    // Another KEK id is another key, even where the service would unwrap it.
    const renamed = { ...good, kekId: Buffer.from('other') }
    expect(keys.holds(renamed)).toBe(false)
    expect(() => prepared.lend(renamed, commitmentOf)).toThrow(TypeError)
  })

  test('no two scopes have one name, wherever their parts are cut', async () => {
    const text = fc.string({ maxLength: 6, unit: fc.constantFrom('a', '\0', ':', '1') })
    const cuts = fc.tuple(fc.nat(6), fc.nat(6))
    await fc.assert(
      fc.asyncProperty(text, cuts, cuts, async (whole, ...pairs) => {
        const { keys, service, deadline } = world()
        const scopes = pairs.map(([one, two]) => {
          const [from, to] = [Math.min(one, two), Math.max(one, two)]
          return { iss: whole.slice(0, from), aud: whole.slice(from, to), type: whole.slice(to) }
        })
        const [a, b] = [nth(scopes, 0), nth(scopes, 1)]
        const wrapped = service.wrap(encryptionContext(a))
        const requests = [a, b].map((scope) => ({
          ...scope,
          wrapped,
          kek: KEK,
          kekId: Buffer.from(KEK.kekId),
        }))
        const prepared = await keys.prepare(requests, deadline)
        expect(prepared.lend(nth(requests, 0), () => 1)).toBe(1)
        const other = (): number => prepared.lend(nth(requests, 1), () => 1)
        if (a.iss === b.iss && a.aud === b.aud) expect(other()).toBe(1)
        else expect(other).toThrow(Rejection)
        keys.close()
      }),
      { numRuns: 300 },
    )
  })

  test('KEK id and wrapped bytes cut elsewhere are another key', async () => {
    const { keys, deadline } = world()
    const base = { ...SCOPE, kek: KEK }
    await keys.prepare([{ ...base, kekId: Buffer.from('ab'), wrapped: Buffer.from('c') }], deadline)
    expect(keys.holds({ ...base, kekId: Buffer.from('ab'), wrapped: Buffer.from('c') })).toBe(true)
    expect(keys.holds({ ...base, kekId: Buffer.from('a'), wrapped: Buffer.from('bc') })).toBe(false)
  })

  test('keys that end in the same bytes are found all the same, and dropped one by one', async () => {
    const { keys, request, deadline } = world({ maxEntries: 3 })
    const tail = Buffer.alloc(8, 9)
    const many = [0, 1, 2, 3, 4].map((index) =>
      request({ wrapped: Buffer.concat([Buffer.from([index]), tail]) }),
    )
    const prepared = await keys.prepare(many, deadline)
    for (const one of many) expect(() => prepared.lend(one, commitmentOf)).toThrow(Rejection)
    expect(many.map((one) => keys.holds(one))).toEqual([false, false, true, true, true])
    ;(await keys.prepare([nth(many, 2), request()], deadline)).release()
    expect(many.map((one) => keys.holds(one))).toEqual([false, false, true, false, true])
  })

  test('a key that two slices waited for is wiped when both are done with it', async () => {
    const { keys, service, request, deadline } = world({ maxEntries: 1 })
    const wait = gate()
    service.before = () => wait.promise
    const one = request()
    const preparing = [keys.prepare([one], deadline), keys.prepare([one], deadline)] as const
    wait.resolve()
    const [first, second] = await Promise.all(preparing)
    first.release()
    ;(await keys.prepare([request()], deadline)).release()
    expect(keys.holds(one)).toBe(false)
    expect(second.lend(one, () => 1)).toBe(1)
    second.release()
    expect(isWiped(nth(service.given, 0))).toBe(true)
  })

  test('a slice that came too late asks for nothing, and can let go of it', async () => {
    const { keys, service, clock, request } = world()
    const [one, other] = [request(), request()]
    const late = await keys.prepare([one], clock.ms)
    expect(() => late.lend(one, commitmentOf)).toThrow(Outage)
    late.release()
    expect(service.calls).toHaveLength(0)
    const both = await keys.prepare([one, other], clock.ms + 1000)
    expect(both.lend(one, () => 1)).toBe(1)
    both.release()
    both.release()
  })

  test('a definite no is a rejection, kept for 30 seconds', async () => {
    const { keys, service, clock, request } = world()
    const forged = request({ wrapped: Buffer.alloc(184, 7) })
    const ask = async (): Promise<void> => {
      const prepared = await keys.prepare([forged], clock.ms + 1000)
      expect(() => prepared.lend(forged, commitmentOf)).toThrow(
        expect.objectContaining({ code: 'undecryptable' }),
      )
      prepared.release()
    }
    await ask()
    expect(keys.holds(forged)).toBe(true)
    clock.ms += 29_999
    await ask()
    expect(service.calls).toHaveLength(1)
    clock.ms += 1
    await ask()
    expect(service.calls).toHaveLength(2)
  })

  test('an outage is never kept, and concerns only the requests that needed the call', async () => {
    const { keys, service, request, deadline } = world()
    const [good, bad] = [request(), request()]
    service.before = (_, wrapped) =>
      wrapped !== undefined && Buffer.compare(wrapped, bad.wrapped) === 0
        ? Promise.reject(unavailable())
        : Promise.resolve()
    const prepared = await keys.prepare([bad, good], deadline)
    expect(prepared.lend(good, () => 1)).toBe(1)
    expect(() => prepared.lend(bad, commitmentOf)).toThrow(Outage)
    service.before = () => Promise.resolve()
    const again = await keys.prepare([bad], deadline)
    expect(again.lend(bad, () => 1)).toBe(1)
    expect(keys.counts().failures).toBe(1)
  })

  test('what nobody foresaw is an outage, not a rejection', async () => {
    const { keys, service, request, deadline } = world()
    const one = request()
    service.before = () => Promise.reject(new RangeError('?'))
    const prepared = await keys.prepare([one], deadline)
    expect(() => prepared.lend(one, commitmentOf)).toThrow(
      expect.objectContaining({ name: 'Outage', code: 'unexpected' }),
    )
  })

  test('a hung key service holds a slice no longer than its deadline, and its late key is still wiped in time', async () => {
    const { keys, service, clock, request } = world({ maxEntries: 1 })
    const wait = gate()
    service.before = () => wait.promise
    const one = request()
    const prepared = await keys.prepare([one], clock.ms + 20)
    expect(() => prepared.lend(one, commitmentOf)).toThrow(expect.objectContaining({ code: 'deadline' }))
    wait.resolve()
    await vi.waitFor(() => expect(keys.holds(one)).toBe(true))
    prepared.release()
    ;(await keys.prepare([request()], clock.ms + 1000)).release()
    await vi.waitFor(() => expect(isWiped(nth(service.given, 0))).toBe(true))
  })

  test('an erased key lives no longer than 5 minutes, counted from the start of the call', async () => {
    const { keys, service, clock, request } = world()
    const one = request()
    service.before = () => {
      clock.ms += 1000
      return Promise.resolve()
    }
    ;(await keys.prepare([one], clock.ms + 10_000)).release()
    clock.ms += 298_999
    expect(keys.holds(one)).toBe(true)
    expect(keys.counts().oldestAgeMs).toBe(299_999)
    clock.ms += 1
    expect(keys.holds(one)).toBe(false)
    expect(isWiped(nth(service.given, 0))).toBe(true)
  })

  test('an idle process wipes its keys too', async () => {
    vi.useFakeTimers()
    try {
      const { keys, service, clock, request } = world()
      ;(await keys.prepare([request()], clock.ms + 1000)).release()
      clock.ms += 300_000
      await vi.advanceTimersByTimeAsync(300_000)
      expect(isWiped(nth(service.given, 0))).toBe(true)
      expect(vi.getTimerCount()).toBe(0)
    } finally {
      vi.useRealTimers()
    }
  })

  test('a key that expires during a slice serves it to its end', async () => {
    const { keys, service, clock, request, deadline } = world()
    const one = request()
    const prepared = await keys.prepare([one], deadline)
    clock.ms += 400_000
    expect(keys.holds(one)).toBe(false)
    expect(prepared.lend(one, () => 1)).toBe(1)
    prepared.release()
    expect(isWiped(nth(service.given, 0))).toBe(true)
    expect(() => prepared.lend(one, commitmentOf)).toThrow(TypeError)
  })

  test('a slice with more keys than the cache holds still gets each of them, whatever other slices do', async () => {
    const { keys, service, request, deadline } = world({ maxEntries: 4 })
    const many = (): KeyRequest[] => Array.from({ length: 40 }, () => request())
    const [mine, theirs] = [many(), many()]
    const slices = await Promise.all([keys.prepare(mine, deadline), keys.prepare(theirs, deadline)])
    for (const one of mine) expect(slices[0].lend(one, () => 1)).toBe(1)
    for (const one of theirs) expect(slices[1].lend(one, () => 1)).toBe(1)
    expect(keys.counts().alive).toBe(4)
    for (const slice of slices) slice.release()
    expect(service.given.filter((bytes) => !isWiped(bytes))).toHaveLength(4)
  })

  test('the least recently used key is pushed out first', async () => {
    const { keys, request, deadline } = world({ maxEntries: 2 })
    const [a, b, c] = [request(), request(), request()]
    for (const one of [a, b, a, c]) (await keys.prepare([one], deadline)).release()
    expect([a, b, c].map((one) => keys.holds(one))).toEqual([true, false, true])
  })

  test('a withdrawn KEK drops its data keys at once, under slices too', async () => {
    const { keys, service, request, deadline } = world()
    const other = { kekId: 'stays', provider: 'fake', key: 'kek-2' }
    const [gone, stays] = [request(), request({ kekId: Buffer.from('stays'), kek: other })]
    keys.retain(snapshotOf([kekRow([SCOPE.iss]), kekRow([SCOPE.iss], other)]))
    const prepared = await keys.prepare([gone, stays], deadline)
    keys.retain(snapshotOf([kekRow(['another-issuer']), kekRow([SCOPE.iss], other)]))
    expect(service.given.map(isWiped)).toEqual([true, false])
    expect(() => prepared.lend(gone, commitmentOf)).toThrow(
      expect.objectContaining({ code: 'key-service-denied' }),
    )
    expect(prepared.lend(stays, () => 1)).toBe(1)
    expect([keys.holds(gone), keys.holds(stays)]).toEqual([false, true])
  })

  test('a KEK withdrawn while its key is being unwrapped leaves no key behind', async () => {
    const { keys, service, request, deadline } = world()
    const wait = gate()
    service.before = () => wait.promise
    const one = request()
    const preparing = keys.prepare([one], deadline)
    keys.retain(snapshotOf([]))
    wait.resolve()
    const prepared = await preparing
    expect(() => prepared.lend(one, commitmentOf)).toThrow(Outage)
    expect(keys.holds(one)).toBe(false)
    expect(isWiped(nth(service.given, 0))).toBe(true)
  })

  test('the service is asked with the whole scope as its encryption context', async () => {
    const { keys, service, request, deadline } = world()
    await keys.prepare([request()], deadline)
    expect(nth(service.calls, 0).context).toEqual({
      'sealgate:v': '1',
      'sealgate:iss': SCOPE.iss,
      'sealgate:aud': SCOPE.aud,
      'sealgate:type': SCOPE.type,
    })
  })

  test('a change of the record’s bytes after prepare changes nothing of what is kept', async () => {
    const { keys, request, deadline } = world()
    const one = request()
    const before = same(one)
    await keys.prepare([one], deadline)
    one.wrapped.fill(0)
    expect(keys.holds(before)).toBe(true)
    expect(keys.holds(one)).toBe(false)
  })
})
