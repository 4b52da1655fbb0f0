/** Something read from elsewhere that is good for a while: a secret, a token. */
import type { Clock } from '../ports.ts'

/** What to prove something with, and whether what was refused has been replaced. */
export interface Source<T> {
  current(deadline: number): Promise<T>
  /** After a refusal: whether there is another now. Never rejects. */
  isRenewed(refused: T, deadline: number): Promise<boolean>
  /** The last value at once, looked at again meanwhile where it may have changed. Undefined: it does not change of itself. */
  readonly glance?: (deadline: number) => T | undefined
}

export interface Copy<T> {
  readonly value: T
  /** Two copies of one version are the same. */
  readonly version: string
  /** Milliseconds since 1970: from then on another is read, and until `goodUntil` this one serves where none can be. */
  readonly freshUntil: number
  readonly goodUntil: number
}

/** After a refusal nothing is read again that is younger: what refuses for good must not make us ask without end. */
const MIN_AGE_MS = 5000
/** Nor while a copy serves where reading has just failed: who does not answer would make each connection wait. */
const RETRY_MS = 10_000

export class Renewable<T> implements Source<T> {
  readonly #read: (deadline: number) => Promise<Copy<T>>
  readonly #clock: Clock
  #copy: Copy<T> | undefined
  /** Milliseconds since 1970. */
  #readAt = 0
  #failedAt = -Infinity
  #reading: Promise<Copy<T>> | undefined

  constructor(read: (deadline: number) => Promise<Copy<T>>, clock: Clock) {
    this.#read = read
    this.#clock = clock
  }

  /** The value; rejects as reading does where there is none that is good. */
  async current(deadline: number): Promise<T> {
    const copy = this.#copy
    const now = this.#clock.now()
    if (copy !== undefined && now >= this.#readAt && now < copy.freshUntil) return copy.value
    const sinceFailure = now - this.#failedAt
    if (copy !== undefined && now < copy.goodUntil && sinceFailure >= 0 && sinceFailure < RETRY_MS)
      return copy.value
    try {
      return (await this.#renew(deadline)).value
    } catch (error) {
      this.#failedAt = this.#clock.now()
      if (copy === undefined || this.#clock.now() >= copy.goodUntil) throw error
      return copy.value
    }
  }

  readonly glance = (deadline: number): T | undefined => {
    void this.current(deadline).catch(() => undefined)
    return this.last
  }

  /** The last value, however old. */
  get last(): T | undefined {
    return this.#copy?.value
  }

  async isRenewed(refused: T, deadline: number): Promise<boolean> {
    const copy = this.#copy
    if (copy === undefined || copy.value !== refused) return copy !== undefined
    const age = this.#clock.now() - this.#readAt
    if (age >= 0 && age < MIN_AGE_MS) return false
    try {
      return (await this.#renew(deadline)).version !== copy.version
    } catch {
      return false
    }
  }

  #renew(deadline: number): Promise<Copy<T>> {
    this.#reading ??= this.#read(deadline)
      .then((copy) => {
        this.#copy = copy
        this.#readAt = this.#clock.now()
        return copy
      })
      .finally(() => (this.#reading = undefined))
    return this.#reading
  }
}
