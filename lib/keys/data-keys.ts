/**
 * Data keys on the opening side (keys.md §2): unwrapped once, kept for a while, lent to a synchronous function, wiped.
 */
import { DataKey } from '../envelope/crypto.ts'
import { UNDECRYPTABLE } from '../envelope/seal.ts'
import { Outage, Rejection } from '../errors.ts'
import type { Clock, EncryptionContext, KeyService } from '../ports.ts'
import { byDeadline, MAX_TIMER_MS } from './deadline.ts'
import type { DirectorySnapshot } from './directory.ts'
import { KeyIndex, type KeyRequest, type Named, nameOf } from './key-request.ts'

export type { KeyRequest } from './key-request.ts'

/** The keys of one slice: what was prepared stays at hand, whatever others do, until `release`. */
export interface PreparedKeys {
  /**
   * Lends the key to `use`, which must be done with it when it returns. Throws `Rejection('undecryptable')` where the
   * key service said a definite no, `Outage` where it could not say or the KEK has been withdrawn since, `TypeError`
   * for a request that was not prepared.
   */
  lend<T>(request: KeyRequest, use: (key: DataKey) => T): T
  /** The slice is over: the keys may be wiped. To be called in a `finally`; a second call does nothing. */
  release(): void
}

/** Counted since the start; `alive` and `oldestAgeMs` are of this moment. Of one process, and of no key's bytes. */
export interface DataKeyCounts {
  /** Questions to the key service; one that was tried again is one. */
  readonly calls: number
  /** Answered by what was at hand. Opening counts each distinct key of a slice once, known refusals too. */
  readonly hits: number
  /** Had to wait for a call: in opening, another slice's. */
  readonly waits: number
  /** Calls that ended in an outage. */
  readonly failures: number
  /** Keys at hand. */
  readonly alive: number
  /** Milliseconds since the oldest of them was asked for; 0 without any. */
  readonly oldestAgeMs: number
}

/** Of several caches together. */
export function sumCounts(counts: Iterable<DataKeyCounts>): DataKeyCounts {
  const sum = { calls: 0, hits: 0, waits: 0, failures: 0, alive: 0, oldestAgeMs: 0 }
  for (const one of counts) {
    sum.calls += one.calls
    sum.hits += one.hits
    sum.waits += one.waits
    sum.failures += one.failures
    sum.alive += one.alive
    sum.oldestAgeMs = Math.max(sum.oldestAgeMs, one.oldestAgeMs)
  }
  return sum
}

export interface DataKeys {
  /** Whether `prepare` would answer this request without a call: known, as a key or as a definite no. */
  holds(request: KeyRequest): boolean
  /**
   * Unwraps a slice's distinct missing keys side by side, at most 16 at a time, each in one call however many slices
   * ask. Never rejects: what went wrong is thrown by `lend`, for the requests that it concerns.
   */
  prepare(requests: Iterable<KeyRequest>, deadline: number): Promise<PreparedKeys>
  /** Drops and wipes at once every key whose KEK is no longer this snapshot's for its issuer. */
  retain(snapshot: DirectorySnapshot): void
  counts(): DataKeyCounts
  /** Drops and wipes everything. */
  close(): void
}

export interface DataKeyOptions {
  /** Shielded: every call must end. */
  readonly keyService: KeyService
  readonly clock: Clock
  /** Keys and refusals kept, the least recently used dropped first. */
  readonly maxEntries?: number
  /** Counted from the start of the call. */
  readonly maxAgeMs?: number
  /** How long a definite no is kept. */
  readonly negativeMs?: number
  /** Calls side by side, for one slice. */
  readonly maxParallel?: number
}

/** What the key service authenticates with a data key (sealed-event.md §4). */
export function encryptionContext(scope: Pick<KeyRequest, 'iss' | 'aud' | 'type'>): EncryptionContext {
  return {
    'sealgate:v': '1',
    'sealgate:iss': scope.iss,
    'sealgate:aud': scope.aud,
    'sealgate:type': scope.type,
  }
}

/** One answer of the key service. */
interface Answer extends Named {
  /** Undefined: a definite no. */
  readonly key: DataKey | undefined
  readonly bornAt: number
  readonly expiresAt: number
  /** Slices that hold it. */
  leases: number
  /** Whether it is still in the cache; if not, it is wiped when the last slice lets go of it. */
  kept: boolean
}

/** A request of a slice, and what came of it. */
interface Slot extends Named {
  outcome: Answer | Outage | undefined
}

/** A call under way. */
interface Flight {
  readonly answer: Promise<Answer>
  /** Slices that wait for it: each has its lease before anything can push the answer out of the cache. */
  readonly takers: { count: number }
}

export function createDataKeys(options: DataKeyOptions): DataKeys {
  const { keyService, clock } = options
  const { maxEntries = 1000, maxAgeMs = 300_000, negativeMs = 30_000, maxParallel = 16 } = options
  /** The least recently prepared first. */
  const answers = new KeyIndex<Answer>()
  const flights = new Map<string, Flight>()
  let directory: DirectorySnapshot | undefined
  let closed = false
  let timer: NodeJS.Timeout | undefined
  let [calls, hits, waits, failures] = [0, 0, 0, 0]

  const withdrawn = ({ kek, kekId, iss }: KeyRequest): boolean => {
    if (directory === undefined) return false
    const now = directory.kek(kekId, iss)
    return now?.key !== kek.key || now.provider !== kek.provider
  }

  const isCurrent = (answer: Answer, now: number): boolean => now >= answer.bornAt && now < answer.expiresAt

  const drop = (answer: Answer): void => {
    answers.delete(answer)
    answer.kept = false
    if (answer.leases === 0) answer.key?.wipe()
  }

  /** An idle process wipes too. Unref: this alone keeps no process alive. */
  const sweepLater = (): void => {
    const next = Math.min(...[...answers.values()].map((answer) => answer.expiresAt))
    timer = setTimeout(sweep, Math.min(Math.max(next - clock.now(), 1000), MAX_TIMER_MS)).unref()
  }

  const sweep = (): void => {
    timer = undefined
    const now = clock.now()
    for (const answer of answers.values()) if (!isCurrent(answer, now)) drop(answer)
    if (answers.size > 0) sweepLater()
  }

  const find = (request: KeyRequest): Answer | undefined => {
    const answer = answers.find(request)
    if (answer === undefined || isCurrent(answer, clock.now())) return answer
    drop(answer)
    return undefined
  }

  const keep = (answer: Answer): Answer => {
    answers.set(answer)
    for (const oldest of answers.values()) {
      if (answers.size <= maxEntries) break
      drop(oldest)
    }
    if (timer === undefined) sweepLater()
    return answer
  }

  const unwrap = async (
    { request, name }: Slot,
    takers: Flight['takers'],
    deadline: number,
  ): Promise<Answer> => {
    const bornAt = clock.now()
    let key: DataKey | undefined
    let livesMs = maxAgeMs
    try {
      calls += 1
      key = new DataKey(
        await keyService.unwrap(request.kek, request.wrapped, encryptionContext(request), deadline),
      )
    } catch (error) {
      if (!(error instanceof Rejection)) {
        failures += 1
        throw error
      }
      livesMs = clock.now() - bornAt + negativeMs
    }
    if (closed || withdrawn(request)) {
      key?.wipe()
      throw closed ? new TypeError('the data keys have been closed') : withdrawnOutage()
    }
    const expiresAt = bornAt + livesMs
    return keep({ request, name, key, bornAt, expiresAt, leases: takers.count, kept: true })
  }

  /** The answer, with a lease on it. */
  const take = (slot: Slot, deadline: number): Promise<Answer> => {
    const known = find(slot.request)
    if (known !== undefined) {
      known.leases += 1
      return Promise.resolve(known)
    }
    const joined = flights.get(slot.name)
    if (joined !== undefined) {
      waits += 1
      joined.takers.count += 1
      return joined.answer
    }
    const takers = { count: 1 }
    const flight = { takers, answer: unwrap(slot, takers, deadline) }
    flights.set(slot.name, flight)
    const land = (): boolean => flights.delete(slot.name)
    flight.answer.then(land, land)
    return flight.answer
  }

  const settle = async (slot: Slot, deadline: number): Promise<void> => {
    if (clock.now() >= deadline) return
    const taken = take(slot, deadline)
    try {
      slot.outcome = await byDeadline(taken, deadline, clock, () => {
        taken.then(letGo, () => undefined)
        return lateOutage()
      })
    } catch (error) {
      slot.outcome =
        error instanceof Outage
          ? error
          : new Outage('unexpected', 'the key service failed in a way nobody foresaw', { cause: error })
    }
  }

  return {
    holds: (request) => find(request) !== undefined,

    async prepare(requests, deadline) {
      const slots = new Slots()
      const missing: Slot[] = []
      for (const request of requests) {
        if (slots.find(request) !== undefined) continue
        const slot = slots.add(request)
        const known = find(slot.request)
        if (known === undefined) {
          missing.push(slot)
          continue
        }
        hits += 1
        answers.set(known)
        known.leases += 1
        slot.outcome = known
      }
      const queue = missing.values()
      const work = async (): Promise<void> => {
        for (const slot of queue) await settle(slot, deadline)
      }
      await Promise.all(Array.from({ length: Math.min(maxParallel, missing.length) }, work))
      return slots
    },

    retain(snapshot) {
      directory = snapshot
      for (const answer of answers.values()) {
        if (!withdrawn(answer.request)) continue
        // No wait for the slices that hold it: `lend` tells them.
        answer.key?.wipe()
        drop(answer)
      }
    },

    counts() {
      const alive = [...answers.values()].filter((answer) => answer.key !== undefined)
      const oldest = Math.min(...alive.map((answer) => answer.bornAt))
      const oldestAgeMs = alive.length === 0 ? 0 : Math.max(0, clock.now() - oldest)
      return { calls, hits, waits, failures, alive: alive.length, oldestAgeMs }
    },

    close() {
      closed = true
      clearTimeout(timer)
      for (const answer of answers.values()) {
        answer.key?.wipe()
        drop(answer)
      }
    },
  }
}

/** The requests of one slice. */
class Slots implements PreparedKeys {
  readonly #slots = new KeyIndex<Slot>()

  find(request: KeyRequest): Slot | undefined {
    return this.#slots.find(request)
  }

  add(request: KeyRequest): Slot {
    const copy = copyOf(request)
    const slot: Slot = { request: copy, name: nameOf(copy), outcome: undefined }
    this.#slots.set(slot)
    return slot
  }

  lend<T>(request: KeyRequest, use: (key: DataKey) => T): T {
    const slot = this.find(request)
    if (slot === undefined) throw new TypeError('a data key was asked for that was not prepared')
    const { outcome } = slot
    if (outcome === undefined) throw lateOutage()
    if (outcome instanceof Outage) throw outcome
    if (outcome.key === undefined) throw new Rejection('undecryptable', UNDECRYPTABLE)
    if (outcome.key.wiped) throw withdrawnOutage()
    return use(outcome.key)
  }

  release(): void {
    for (const { outcome } of this.#slots.values()) {
      if (outcome !== undefined && !(outcome instanceof Outage)) letGo(outcome)
    }
    this.#slots.clear()
  }
}

function letGo(answer: Answer): void {
  answer.leases -= 1
  if (answer.leases === 0 && !answer.kept) answer.key?.wipe()
}

/** What is given are views into records, which would be kept with it. (A Buffer's `slice` is no copy.) */
const copyOf = (request: KeyRequest): KeyRequest => ({
  ...request,
  kekId: Uint8Array.from(request.kekId),
  wrapped: Uint8Array.from(request.wrapped),
})

const lateOutage = (): Outage => new Outage('deadline', 'no time left to unwrap a data key')

const withdrawnOutage = (): Outage =>
  new Outage(
    'key-service-denied',
    'the KEK was withdrawn while its data key was in use: begin the slice anew',
  )
