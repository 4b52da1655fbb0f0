/**
 * Data keys on the sealing side (keys.md §2, sealed-event.md §4): one per KEK, issuer, audience and event type, bounded
 * by count and age, the next one fetched before the old one runs out.
 */
import { DataKey } from '../envelope/crypto.ts'
import { Outage } from '../errors.ts'
import type { Clock, Kek, KeyService } from '../ports.ts'
import { type DataKeyCounts, encryptionContext } from './data-keys.ts'
import { byDeadline, MAX_TIMER_MS } from './deadline.ts'

/** What one data key serves. A session (one producer's run) is one `SealingKeys`. */
export interface SealingScope {
  readonly kek: Kek
  readonly iss: string
  readonly aud: string
  /** The event type, `ce.type`. */
  readonly type: string
}

/** Seals one event; must be done with the key when it returns. `wrapped` is shared: do not change it. */
export type SealingUse<T> = (key: DataKey, wrapped: Uint8Array) => T

export interface SealingKeys {
  /** Lends a valid key at once, or gives undefined where one must be fetched first. Counts as one use of it. */
  tryLend<T>(scope: SealingScope, use: SealingUse<T>): { readonly value: T } | undefined
  /** Lends a valid key, fetched if need be. Rejects with `Outage` where there is none to be had: never an expired key. */
  lend<T>(scope: SealingScope, deadline: number, use: SealingUse<T>): Promise<T>
  /** `hits` are uses of a key that was at hand, `waits` those that one had to be fetched for. */
  counts(): DataKeyCounts
  /** Drops and wipes everything. */
  close(): void
}

export interface SealingKeyOptions {
  /** Shielded: every call must end. */
  readonly keyService: KeyService
  readonly clock: Clock
  /** Events under one key: by default 2²⁴, at most 2³². */
  readonly maxUses?: number
  /** Counted from the start of the call: by default an hour, at most 24. */
  readonly maxAgeMs?: number
  /** The part of either bound after which the next key is fetched. */
  readonly prefetchAt?: number
  /** After a prefetch that failed, the next one waits this long. */
  readonly prefetchRetryMs?: number
  /** How long a fetch may take, whoever waits for it. */
  readonly fetchMs?: number
  /** Scopes that have a key at hand, the least recently made dropped first. */
  readonly maxScopes?: number
}

/** The wire format's own bounds (sealed-event.md §4); random 96-bit nonces allow no more. */
export const HARD_MAX_USES: number = 2 ** 32
export const HARD_MAX_AGE_MS: number = 24 * 3_600_000

interface LiveKey {
  readonly key: DataKey
  readonly wrapped: Uint8Array
  readonly bornAt: number
  uses: number
}

/** What is at hand for one scope. */
interface Shelf {
  readonly scope: SealingScope
  current: LiveKey | undefined
  next: LiveKey | undefined
  flight: Promise<void> | undefined
  prefetchFrom: number
}

export function createSealingKeys(options: SealingKeyOptions): SealingKeys {
  const { keyService, clock, prefetchAt = 5 / 6, prefetchRetryMs = 1000, fetchMs = 10_000 } = options
  const { maxUses = 2 ** 24, maxAgeMs = 3_600_000, maxScopes = 1000 } = options
  if (!(maxUses >= 1 && maxUses <= HARD_MAX_USES)) throw new TypeError('maxUses must be from 1 to 2³²')
  if (!(maxAgeMs > 0 && maxAgeMs <= HARD_MAX_AGE_MS)) throw new TypeError('maxAgeMs must be at most 24 hours')
  const shelves = new Map<string, Shelf>()
  /** The shelf of the last call: a name costs more than the comparison. */
  let last: Shelf | undefined
  let timer: NodeJS.Timeout | undefined
  let closed = false
  let [calls, hits, waits, failures] = [0, 0, 0, 0]

  const isValid = (live: LiveKey, now: number): boolean =>
    live.uses < maxUses && now >= live.bornAt && now < live.bornAt + maxAgeMs

  const remove = (name: string, shelf: Shelf): void => {
    shelf.current?.key.wipe()
    shelf.next?.key.wipe()
    shelves.delete(name)
    if (last === shelf) last = undefined
  }

  /** Wipes what has expired unused; a key that is in use is replaced, and wiped, by `validKey`. */
  const sweep = (): void => {
    timer = undefined
    const now = clock.now()
    for (const [name, shelf] of shelves) {
      if (validKey(shelf, now) === undefined && shelf.flight === undefined) remove(name, shelf)
    }
    if (shelves.size > 0) sweepLater()
  }

  /** Unref: this alone keeps no process alive. */
  const sweepLater = (): void => {
    timer ??= setTimeout(sweep, Math.min(Math.max(maxAgeMs / 4, 1000), MAX_TIMER_MS)).unref()
  }

  const shelfOf = (scope: SealingScope): Shelf => {
    if (last !== undefined && isSame(last.scope, scope)) return last
    const name = nameOf(scope)
    last = shelves.get(name)
    if (last !== undefined) return last
    const shelf: Shelf = { scope, current: undefined, next: undefined, flight: undefined, prefetchFrom: 0 }
    shelves.set(name, shelf)
    last = shelf
    for (const [oldest, other] of shelves) {
      if (shelves.size <= maxScopes) break
      remove(oldest, other)
    }
    sweepLater()
    return shelf
  }

  /** The key to use now; moves on to the next one where the first is used up. */
  const validKey = (shelf: Shelf, now: number): LiveKey | undefined => {
    while (shelf.current !== undefined && !isValid(shelf.current, now)) {
      shelf.current.key.wipe()
      shelf.current = shelf.next
      shelf.next = undefined
    }
    return shelf.current
  }

  const generate = async (shelf: Shelf): Promise<void> => {
    const bornAt = clock.now()
    const { scope } = shelf
    calls += 1
    const { dataKey, wrapped } = await keyService
      .generate(scope.kek, encryptionContext(scope), bornAt + fetchMs)
      .catch((error: unknown) => {
        failures += 1
        throw error
      })
    const live = { key: new DataKey(dataKey), wrapped: Uint8Array.from(wrapped), bornAt, uses: 0 }
    if (closed || shelves.get(nameOf(scope)) !== shelf) live.key.wipe()
    else if (shelf.current === undefined) shelf.current = live
    else shelf.next = live
  }

  /** One call under way for a scope, whoever asks. */
  const fetch = (shelf: Shelf): Promise<void> => {
    if (shelf.flight !== undefined) return shelf.flight
    const flight = generate(shelf)
    shelf.flight = flight
    const land = (): void => {
      shelf.flight = undefined
    }
    flight.then(land, land)
    return flight
  }

  const prefetch = (shelf: Shelf, live: LiveKey, now: number): void => {
    if (shelf.next !== undefined || shelf.flight !== undefined || now < shelf.prefetchFrom) return
    if (live.uses < maxUses * prefetchAt && now < live.bornAt + maxAgeMs * prefetchAt) return
    // A failure here hurts nobody yet: it is thrown by `lend` once no valid key is left.
    fetch(shelf).catch(() => {
      shelf.prefetchFrom = clock.now() + prefetchRetryMs
    })
  }

  const lendFrom = <T>(shelf: Shelf, use: SealingUse<T>): { readonly value: T } | undefined => {
    if (closed) throw new TypeError('the sealing keys have been closed')
    const now = clock.now()
    const live = validKey(shelf, now)
    if (live === undefined) return undefined
    // Counted first: a use that throws may have sealed already.
    live.uses += 1
    prefetch(shelf, live, now)
    return { value: use(live.key, live.wrapped) }
  }

  return {
    tryLend(scope, use) {
      const lent = lendFrom(shelfOf(scope), use)
      if (lent !== undefined) hits += 1
      return lent
    },

    async lend(scope, deadline, use) {
      for (let waited = false; ; waited = true) {
        const shelf = shelfOf(scope)
        const lent = lendFrom(shelf, use)
        if (lent !== undefined && !waited) hits += 1
        if (lent !== undefined) return lent.value
        if (!waited) waits += 1
        if (clock.now() >= deadline) throw lateOutage()
        await byDeadline(fetch(shelf), deadline, clock, lateOutage)
      }
    },

    counts() {
      const kept = [...shelves.values()].flatMap(({ current, next }) => [current, next])
      const alive = kept.filter((live) => live !== undefined)
      const oldest = Math.min(...alive.map(({ bornAt }) => bornAt))
      const oldestAgeMs = alive.length === 0 ? 0 : Math.max(0, clock.now() - oldest)
      return { calls, hits, waits, failures, alive: alive.length, oldestAgeMs }
    },

    close() {
      closed = true
      clearTimeout(timer)
      for (const [name, shelf] of shelves) remove(name, shelf)
    },
  }
}

function isSame(a: SealingScope, b: SealingScope): boolean {
  return (
    a.type === b.type &&
    a.iss === b.iss &&
    a.aud === b.aud &&
    a.kek.kekId === b.kek.kekId &&
    a.kek.key === b.kek.key
  )
}

/** Lengths first, so that no two scopes have one name. */
function nameOf({ kek, iss, aud, type }: SealingScope): string {
  const lengths = `${kek.kekId.length}:${kek.key.length}:${iss.length}:${aud.length}:`
  return `${lengths}${kek.kekId}${kek.key}${iss}${aud}${type}`
}

const lateOutage = (): Outage => new Outage('deadline', 'no time left to get a data key to seal with')
