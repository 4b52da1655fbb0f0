import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { Outage } from '../../lib/errors.ts'
import { type Claimant, ReplayState } from '../../lib/admission/replay.ts'

const LIMITS = { maxSessions: 4, newDataKeysPerMinute: 3 }
const ROOM = 24_576
const T = 1_790_000_000

const session = (byte: number): Uint8Array => Buffer.alloc(16, byte)

function event(
  number: bigint,
  more: Partial<Claimant> & { iss?: string; session?: Uint8Array; exp?: bigint } = {},
): Claimant {
  const { iss = 'shop', session: id = session(1), exp = BigInt(T + 3600), ...rest } = more
  return {
    claims: { iss, session: id, number, exp },
    type: 'order',
    perSecond: undefined,
    fits: true,
    askedKey: undefined,
    ...rest,
  }
}

/** Judges and decides, as admission does, and says the code. */
function take(state: ReplayState, claimant: Claimant, t = T): string {
  const ruling = state.judge(claimant, t)
  state.decide(t, claimant, ruling)
  return ruling.rejection?.code ?? 'ok'
}

const newState = (limits = LIMITS, room = ROOM): ReplayState => new ReplayState(limits, room)

describe('the replay window', () => {
  it('is what a list of all numbers ever seen would say, for whatever order they come in', () => {
    fc.assert(
      fc.property(fc.array(fc.bigInt({ min: 0n, max: 300n }), { maxLength: 120 }), (numbers) => {
        const state = newState()
        const seen = new Set<bigint>()
        let highest = -1n
        for (const number of numbers) {
          const expected = seen.has(number) || (highest >= 0n && number <= highest - 64n) ? 'replayed' : 'ok'
          expect(take(state, event(number))).toBe(expected)
          if (expected === 'ok') seen.add(number)
          if (number > highest) highest = number
        }
      }),
    )
  })

  it('counts the numbers that left it without having come, each once', () => {
    fc.assert(
      fc.property(fc.array(fc.bigInt({ min: 1n, max: 90n }), { minLength: 1, maxLength: 40 }), (steps) => {
        const state = newState()
        const came = new Set([0n])
        take(state, event(0n))
        let highest = 0n
        for (const step of steps) {
          highest += step
          came.add(highest)
          take(state, event(highest))
        }
        let missing = 0n
        for (let number = 0n; number <= highest - 64n; number++) if (!came.has(number)) missing += 1n
        expect(state.takeUnseen()).toBe(missing)
        expect(state.takeUnseen()).toBe(0n)
      }),
    )
  })

  it('keeps issuers, sessions and their numbers apart', () => {
    const state = newState()
    expect(take(state, event(5n))).toBe('ok')
    expect(take(state, event(5n, { iss: 'other' }))).toBe('ok')
    expect(take(state, event(5n, { session: session(2) }))).toBe('ok')
    expect(take(state, event(5n))).toBe('replayed')
  })

  it('knows a session of one issuer again after the same session of another', () => {
    const state = newState()
    take(state, event(5n))
    take(state, event(5n, { iss: 'other' }))
    take(state, event(5n, { session: session(2) }))
    expect(take(state, event(5n, { iss: 'other' }))).toBe('replayed')
    expect(take(state, event(5n))).toBe('replayed')
  })

  it('holds numbers up to 2^64 − 1', () => {
    const state = newState()
    const last = 2n ** 64n - 1n
    expect(take(state, event(last - 1n))).toBe('ok')
    expect(take(state, event(last))).toBe('ok')
    const again = ReplayState.parse(state.encode(), LIMITS, ROOM)
    expect(take(again, event(last))).toBe('replayed')
    expect(take(again, event(last - 2n))).toBe('ok')
  })

  it('forgets a session only when the judging time has passed the latest exp marked in it', () => {
    const state = newState()
    take(state, event(1n, { exp: BigInt(T + 10) }))
    take(state, event(2n, { exp: BigInt(T + 100) }))
    expect(take(state, event(1n, { exp: BigInt(T + 10) }), T + 100)).toBe('replayed')
    expect(take(state, event(1n, { exp: BigInt(T + 200) }), T + 101)).toBe('ok')
  })

  it('does not mark what a record refused by it claims', () => {
    const state = newState()
    take(state, event(100n))
    expect(take(state, event(3n, { exp: BigInt(T + 9000) }))).toBe('replayed')
    expect(take(state, event(99n))).toBe('ok')
    expect(take(state, event(1000n, { session: session(9) }), T + 3601)).toBe('ok')
  })
})

describe('the limits of step 9', () => {
  it('lets an issuer have so many live sessions, and a refused one makes none', () => {
    const state = newState()
    for (const id of [1, 2, 3, 4]) expect(take(state, event(0n, { session: session(id) }))).toBe('ok')
    expect(take(state, event(0n, { session: session(5) }))).toBe('over-limit')
    expect(take(state, event(0n, { session: session(5), iss: 'other' }))).toBe('ok')
    expect(take(state, event(1n, { session: session(4) }))).toBe('ok')
    expect(take(state, event(0n, { session: session(5), exp: BigInt(T + 9000) }), T + 3601)).toBe('ok')
  })

  it('marks the number of a payload that is too long, so that it cannot be tried again', () => {
    const state = newState()
    expect(take(state, event(7n, { fits: false }))).toBe('over-limit')
    expect(take(state, event(7n))).toBe('replayed')
  })

  it('counts perSecond by judging time, by issuer and type, and refuses nothing of a backlog', () => {
    const state = newState()
    let number = 0n
    const one = (t: number, more: Partial<Claimant> = {}): string =>
      take(state, event(number++, { perSecond: 2, ...more }), t)
    expect([one(T), one(T), one(T), one(T, { type: 'other' }), one(T + 1), one(T + 1), one(T + 1)]).toEqual([
      'ok',
      'ok',
      'over-limit',
      'ok',
      'ok',
      'ok',
      'over-limit',
    ])
  })

  it('counts only what it lets through: a refused record uses up neither perSecond nor new data keys', () => {
    const state = newState()
    let number = 0n
    const one = (more: Partial<Claimant> = {}): string =>
      take(state, event(number, { perSecond: 2, askedKey: `key ${number++}`, ...more }))
    expect([one({ fits: false }), one({ fits: false }), one({ fits: false }), one()]).toEqual([
      'over-limit',
      'over-limit',
      'over-limit',
      'ok',
    ])
    number -= 1n
    expect(one()).toBe('replayed')
    // Two of this type a second, of which one has come.
    expect([one(), one(), one()]).toEqual(['ok', 'over-limit', 'over-limit'])
    // Three new data keys a minute, of which two have come: those over perSecond have cost none.
    const another = { type: 'another', perSecond: 2 }
    expect([one(another), one(another)]).toEqual(['ok', 'over-limit'])
    // Nor has the one over the budget of keys used up the second of its type.
    const atHand = { ...another, askedKey: undefined }
    expect([one(atHand), one(atHand)]).toEqual(['ok', 'over-limit'])
  })

  it('counts new data keys by issuer and minute of judging time', () => {
    const state = newState()
    let number = 0n
    const one = (t: number, askedKey: string | undefined = `key ${number}`): string =>
      take(state, event(number++, { askedKey }), t)
    const atHand = (t: number): string => take(state, event(number++), t)
    expect([one(T), one(T), one(T), one(T), atHand(T), one(T + 60)]).toEqual([
      'ok',
      'ok',
      'ok',
      'over-limit',
      'ok',
      'ok',
    ])
  })

  it('knows a data key again that another process asks for: it is new to a partition once', () => {
    let state = newState()
    let number = 0n
    const one = (askedKey: string, iss = 'shop'): string => take(state, event(number++, { askedKey, iss }))
    const restarted = (): ReplayState => ReplayState.parse(state.encode(), LIMITS, ROOM)
    expect([one('a'), one('b')]).toEqual(['ok', 'ok'])
    for (let process = 0; process < 7; process++) {
      state = restarted()
      expect([one('a'), one('b')]).toEqual(['ok', 'ok'])
    }
    // It does cost a call: sixteen such are as one new key, and then the budget of three is used up.
    expect([one('a'), one('b'), one('c'), one('b')]).toEqual(['ok', 'ok', 'over-limit', 'over-limit'])
    // An issuer's keys are its own.
    expect(one('a', 'other')).toBe('ok')
  })

  it('forgets data keys rather than sessions where there is no room, and the oldest beyond 128', () => {
    const limits = { maxSessions: 1024, newDataKeysPerMinute: 1000 }
    const fill = (state: ReplayState, keys: number): ReplayState => {
      for (let index = 0; index < keys; index++)
        expect(take(state, event(BigInt(index), { askedKey: `key ${index}` }))).toBe('ok')
      return state
    }
    expect(fill(newState(limits), 1000).encode().length).toBeLessThan(128 * 8 + 200)
    const small = fill(newState(limits, 200), 100)
    const bytes = small.encode()
    expect(bytes.length).toBeLessThanOrEqual(200)
    expect(bytes.length).toBeGreaterThan(100)
    const one = { maxSessions: 4, newDataKeysPerMinute: 101 }
    const known = ReplayState.parse(bytes, one, 200)
    expect(take(known, event(200n, { askedKey: 'key 99' }))).toBe('ok')
    expect(take(known, event(201n, { askedKey: 'key 0' }))).toBe('over-limit')
  })

  const wide = { maxSessions: 1024, newDataKeysPerMinute: 60 }
  const sessionOf = (index: number): Uint8Array => Buffer.from(String(index).padStart(16, '0'))

  it('refuses a new session rather than outgrow the position, and lets those that it knows go on', () => {
    const state = newState(wide, 3072)
    const codes = Array.from({ length: 200 }, (_, index) =>
      take(state, event(1000n, { session: sessionOf(index), iss: `shop ${index % 7}` })),
    )
    const accepted = codes.filter((code) => code === 'ok').length
    expect(accepted).toBeGreaterThan(50)
    expect(codes.filter((code) => code === 'over-limit')).toHaveLength(200 - accepted)
    expect(state.encode().length).toBeLessThanOrEqual(3072)
    expect(take(state, event(1001n, { session: sessionOf(0), iss: 'shop 0' }))).toBe('ok')
  })

  it('refuses to count another event type rather than outgrow the position', () => {
    const state = newState(wide, 3072)
    const codes = Array.from({ length: 400 }, (_, index) =>
      take(state, event(BigInt(index), { type: `type ${index}`, perSecond: 5 })),
    )
    expect(codes).toContain('ok')
    expect(codes).toContain('over-limit')
    expect(state.encode().length).toBeLessThanOrEqual(3072)
    // The next second counts anew.
    expect(take(state, event(500n, { type: 'type 399', perSecond: 5 }), T + 1)).toBe('ok')
  })

  it('says the same of a session whether or not it has forgotten others meanwhile', () => {
    const [one, other] = [newState(wide, 3072), newState(wide, 3072)]
    for (const state of [one, other])
      for (let index = 0; index < 90; index++)
        take(state, event(1n, { session: sessionOf(index), exp: BigInt(T + (index < 45 ? 1 : 900)) }))
    other.decide(T + 2)
    other.encode()
    for (let index = 100; index < 200; index++)
      expect(take(one, event(1n, { session: sessionOf(index) }), T + 2)).toBe(
        take(other, event(1n, { session: sessionOf(index) }), T + 2),
      )
  })

  it('says the same of a session whether or not it has forgotten issuers meanwhile', () => {
    const [one, other] = [newState(wide, 3072), newState(wide, 3072)]
    for (const state of [one, other])
      for (let index = 0; index < 30; index++)
        take(state, event(1n, { iss: `shop ${index}`, exp: BigInt(T + 1) }))
    const later = T + 60
    other.decide(later)
    other.encode()
    const codes = (state: ReplayState): string[] =>
      Array.from({ length: 100 }, (_, index) =>
        take(state, event(1n, { session: sessionOf(index), exp: BigInt(T + 900) }), later),
      )
    expect(codes(one)).toEqual(codes(other))
  })

  it('never lets the judging time go back', () => {
    const state = newState()
    state.decide(T)
    state.decide(T - 50)
    expect(state.time).toBe(T)
  })
})

describe('the state on its way through the position', () => {
  const step = fc.record({
    iss: fc.constantFrom('a', 'b', 'c'),
    id: fc.integer({ min: 1, max: 6 }),
    number: fc.bigInt({ min: 0n, max: 200n }),
    life: fc.integer({ min: 1, max: 100 }),
    later: fc.integer({ min: 0, max: 20 }),
    askedKey: fc.option(fc.constantFrom('a', 'b', 'c', 'd', 'e'), { nil: undefined }),
    perSecond: fc.option(fc.integer({ min: 1, max: 3 }), { nil: undefined }),
  })

  it('decides as if it had never been written: after every record or after none', () => {
    fc.assert(
      fc.property(fc.array(step, { minLength: 30, maxLength: 60 }), (steps) => {
        const kept = newState()
        let stored = newState()
        let t = T
        for (const { iss, id, number, life, later, ...more } of steps) {
          t += later
          const claimant = event(number, { iss, session: session(id), exp: BigInt(t + life), ...more })
          stored = ReplayState.parse(stored.encode(), LIMITS, ROOM)
          expect(take(stored, claimant, t)).toBe(take(kept, claimant, t))
        }
      }),
    )
  })

  it('leaves the original alone when a fork is told something', () => {
    const state = newState()
    take(state, event(1n, { perSecond: 1 }))
    const before = Buffer.from(state.encode())
    const fork = state.fork()
    for (let number = 2n; number < 200n; number += 3n)
      take(fork, event(number, { perSecond: 5, askedKey: `key ${number}` }), T + 1)
    expect(Buffer.from(state.encode())).toEqual(before)
  })

  it('is an outage, never a fresh start, when it does not parse', () => {
    const state = newState()
    take(state, event(70n))
    const bytes = Buffer.from(state.encode())
    for (let length = 0; length < bytes.length; length++)
      expect(() => ReplayState.parse(bytes.subarray(0, length), LIMITS, ROOM)).toThrow(Outage)
    expect(() => ReplayState.parse(Buffer.concat([bytes, Buffer.of(0)]), LIMITS, ROOM)).toThrow(Outage)
  })
})
