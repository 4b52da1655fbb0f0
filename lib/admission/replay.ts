/**
 * What a source partition remembers between records (sealed-event.md §6): the numbers seen of each live session, the
 * highest judging time, and the counts behind `over-limit`. It is committed with the partition's position, so it is kept
 * small and encoded by hand (exactly-once.md §2).
 */
import { Buffer } from 'node:buffer'
import { CborError, CborReader, CborWriter, MAJOR } from '../cbor.ts'
import { Outage, Rejection } from '../errors.ts'
import type { Claims } from '../envelope/format.ts'
import {
  affords,
  type DataKeysSeen,
  knownBytes,
  minuteOf,
  NO_DATA_KEYS,
  parseKnown,
  withKey,
} from './data-key-budget.ts'
import { ISSUER_HASH_BYTES, issuerKey, SESSION_HASH_BYTES, sessionKey, typeKey } from './short-names.ts'
import { ALL_SEEN, isSeen, isTooOld, marked, type Window } from './window.ts'

/** Settable bounds of step 9. */
export interface IssuerLimits {
  /** Live sessions per issuer and partition: 64, at most 1,024. */
  readonly maxSessions: number
  /** New data keys per issuer, partition and minute of judging time: 60. */
  readonly newDataKeysPerMinute: number
}

/** One event's claim on its partition's memory. */
export interface Claimant {
  readonly claims: Pick<Claims, 'iss' | 'session' | 'number' | 'exp'>
  /** The event type: `perSecond` is a contract's. */
  readonly type: string
  readonly perSecond: number | undefined
  /** Whether the ciphertext is within the contract's `maxBytes`. */
  readonly fits: boolean
  /** Its data key (`nameOf`), where that would cost a call of the key service. */
  readonly askedKey: string | undefined
}

/** What steps 8 and 9 say: nothing, or why the record is refused; and whether it marks its number. */
export interface Ruling {
  readonly rejection: Rejection | undefined
  readonly marks: boolean
}

interface Issuer {
  readonly windows: Map<string, Window>
  /** By hash of the event type, in the second of `ReplayState.time`. */
  readonly rates: Map<string, number>
  readonly dataKeys: DataKeysSeen
}

const newIssuer = (): Issuer => ({ windows: new Map(), rates: new Map(), dataKeys: NO_DATA_KEYS })

const FORMAT_VERSION = 2
/** Upper bounds of what each costs in `encode`; of data keys, whatever room there is. */
const BASE_BYTES = 48
const ISSUER_BYTES = 36
const WINDOW_BYTES = 40
const RATE_BYTES = 16

const OK: Ruling = { rejection: undefined, marks: true }

/** What is asked, and told, of a partition's memory in steps 8 and 9. */
export type Memory = Pick<ReplayState, 'judge' | 'decide'>

/** Asked with `judge`, which changes nothing, and told with `decide` once a record's verdict stands. */
export class ReplayState {
  /** Highest judging time of any record decided here, seconds. */
  time: number
  /** Numbers that left a window without having come, since `takeUnseen`. */
  #unseen = 0n
  readonly #issuers: Map<string, Issuer>
  readonly #limits: IssuerLimits
  readonly #maxBytes: number

  /** @param maxBytes what `encode` may come to at most: beyond it new sessions are `over-limit` */
  constructor(limits: IssuerLimits, maxBytes: number, time = 0, issuers: Map<string, Issuer> = new Map()) {
    this.time = time
    this.#limits = limits
    this.#maxBytes = maxBytes
    this.#issuers = issuers
  }

  /** A copy for asking ahead: what `decide` does to it leaves this one as it is. */
  fork(): ReplayState {
    const issuers = new Map<string, Issuer>()
    for (const [name, issuer] of this.#issuers) {
      issuers.set(name, { ...issuer, windows: new Map(issuer.windows), rates: new Map(issuer.rates) })
    }
    return new ReplayState(this.#limits, this.#maxBytes, this.time, issuers)
  }

  /** Steps 8 and 9 at judging time `t` ≥ `time`. */
  judge(event: Claimant, t: number): Ruling {
    const issuer = this.#issuerOf(event, t)
    const window = liveWindow(issuer, event, t)
    if (window !== undefined && isSeen(window, event.claims.number))
      return refuse('replayed', 'this number has been seen, or is too old to tell', false)
    if (window === undefined) {
      const full = this.#roomForSession(issuer, t)
      if (full !== undefined) return full
    } else if (this.#addsRate(issuer, event, t) && this.#bytes(t) + RATE_BYTES > this.#maxBytes) {
      return refuse('over-limit', 'no room to count another event type in this second', true)
    }
    if (!event.fits) return refuse('over-limit', 'the payload is longer than the contract allows', true)
    if (event.perSecond !== undefined && this.#rate(issuer, event, t) >= event.perSecond)
      return refuse(
        'over-limit',
        `the issuer has sent ${event.perSecond} events of this type in this second`,
        true,
      )
    const { newDataKeysPerMinute: most } = this.#limits
    const { dataKeys = NO_DATA_KEYS } = issuer ?? {}
    if (event.askedKey !== undefined && !affords(dataKeys, event.askedKey, t, most))
      return refuse('over-limit', `the issuer has named ${most} new data keys in this minute`, true)
    return OK
  }

  /** A record of judging time `t` is decided; where it passed step 7, with what `judge` said of it. */
  decide(t: number, event?: Claimant, ruling?: Ruling): void {
    if (t > this.time) {
      this.time = t
      for (const issuer of this.#issuers.values()) issuer.rates.clear()
    }
    if (event === undefined || ruling?.marks !== true) return
    const name = issuerKey(event.claims.iss)
    let issuer = this.#issuerOf(event, t) ?? newIssuer()
    if (ruling.rejection === undefined) {
      if (event.askedKey !== undefined)
        issuer = { ...issuer, dataKeys: withKey(issuer.dataKeys, event.askedKey, t) }
      if (event.perSecond !== undefined)
        issuer.rates.set(typeKey(event.type), this.#rate(issuer, event, t) + 1)
    }
    this.#issuers.set(name, issuer)
    this.#mark(issuer, event, t)
  }

  /**
   * This memory for events that come back from quarantine. Whether they have been let in before is not for it to say (the
   * audit does); but their numbers are marked, so that no copy gets in after them. Time, rates and data keys stay as they
   * are: what is redriven takes nothing away from what comes in meanwhile.
   */
  redriving(): Memory {
    return {
      judge: (event) => this.#judgeRedriven(event),
      decide: (_, event, ruling) => {
        if (event !== undefined && ruling?.rejection === undefined) this.#markRedriven(event)
      },
    }
  }

  #judgeRedriven(event: Claimant): Ruling {
    if (!event.fits) return refuse('over-limit', 'the payload is longer than the contract allows', false)
    const issuer = this.#issuerOf(event, this.time)
    if (this.#isPast(event) || liveWindow(issuer, event, this.time) !== undefined) return OK
    return this.#roomForSession(issuer, this.time) ?? OK
  }

  #markRedriven(event: Claimant): void {
    if (this.#isPast(event)) return
    const name = issuerKey(event.claims.iss)
    const issuer = this.#issuerOf(event, this.time) ?? newIssuer()
    const window = liveWindow(issuer, event, this.time)
    // Further below, every copy is refused as too old to tell.
    if (window !== undefined && isTooOld(window, event.claims.number)) return
    this.#issuers.set(name, issuer)
    this.#mark(issuer, event, this.time)
  }

  /** Whether every copy would be refused as expired. */
  #isPast({ claims }: Claimant): boolean {
    return claims.exp < this.time
  }

  /** Why there is no room for another live session, where there is none. */
  #roomForSession(issuer: Issuer | undefined, t: number): Ruling | undefined {
    if (liveWindows(issuer, t) >= this.#limits.maxSessions)
      return refuse('over-limit', `the issuer has ${this.#limits.maxSessions} live sessions here`, false)
    if (this.#bytes(t) + ISSUER_BYTES + WINDOW_BYTES + RATE_BYTES > this.#maxBytes)
      return refuse('over-limit', 'no room to remember another session of this partition', false)
    return undefined
  }

  /** Numbers that left a window unseen since the last call; for the segment that closes. */
  takeUnseen(): bigint {
    const unseen = this.#unseen
    this.#unseen = 0n
    return unseen
  }

  /** Forgets what `time` has passed, and writes the rest: `[version, time, issuers]`, names as hashes. */
  encode(): Uint8Array {
    this.#forget()
    let room = Math.max(0, this.#maxBytes - this.#bytes(this.time))
    const writer = new CborWriter(256)
    writer.head(MAJOR.array, 3)
    writer.integer(FORMAT_VERSION)
    writer.integer(this.time)
    writer.head(MAJOR.array, this.#issuers.size)
    for (const [name, issuer] of this.#issuers) {
      const known = knownBytes(issuer.dataKeys, room)
      room -= known.length
      writer.head(MAJOR.array, 6)
      writer.byteString(Buffer.from(name, 'latin1'))
      writer.integer(issuer.dataKeys.minute)
      writer.integer(issuer.dataKeys.spent)
      writer.byteString(known)
      writer.head(MAJOR.array, issuer.windows.size)
      for (const [session, window] of issuer.windows) {
        const sparse = window.seen !== ALL_SEEN
        writer.head(MAJOR.array, sparse ? 4 : 3)
        writer.byteString(Buffer.from(session, 'latin1'))
        writer.integer(window.highest)
        // The exp lies at most a life and the clocks' difference beyond `time`: shorter as the difference.
        writer.integer(window.exp - this.time)
        if (sparse) writer.integer(window.seen)
      }
      writer.head(MAJOR.array, issuer.rates.size)
      for (const [type, count] of issuer.rates) {
        writer.head(MAJOR.array, 2)
        writer.byteString(Buffer.from(type, 'latin1'))
        writer.integer(count)
      }
    }
    return writer.finish()
  }

  /** Reads what `encode` wrote; anything else is `Outage('position-damaged')`, never a fresh start. */
  static parse(bytes: Uint8Array, limits: IssuerLimits, maxBytes: number): ReplayState {
    try {
      return parseState(new CborReader(bytes), limits, maxBytes)
    } catch (cause) {
      if (!(cause instanceof CborError)) throw cause
      throw new Outage(
        'position-damaged',
        'the replay windows in the position do not parse: see `sealgate position show`',
        { cause },
      )
    }
  }

  #mark(issuer: Issuer, event: Claimant, t: number): void {
    const { session, number, exp, iss } = event.claims
    const name = sessionKey(iss, session)
    const window = liveWindow(issuer, event, t)
    const { after, unseen } = marked(window, number, Number(exp))
    issuer.windows.set(name, after)
    this.#unseen += unseen
  }

  #rate(issuer: Issuer | undefined, event: Claimant, t: number): number {
    return t > this.time ? 0 : (issuer?.rates.get(typeKey(event.type)) ?? 0)
  }

  #addsRate(issuer: Issuer | undefined, event: Claimant, t: number): boolean {
    return event.perSecond !== undefined && this.#rate(issuer, event, t) === 0
  }

  /** What `encode` would come to at most at judging time `t`, but for data keys, whenever it last forgot. */
  #bytes(t: number): number {
    let bytes = BASE_BYTES
    for (const issuer of this.#issuers.values()) {
      if (this.#isIdle(issuer, t)) continue
      const rates = t > this.time ? 0 : issuer.rates.size
      bytes += ISSUER_BYTES + liveWindows(issuer, t) * WINDOW_BYTES + rates * RATE_BYTES
    }
    return bytes
  }

  /** What is remembered of an event's issuer at `t`: of an idle one nothing, whether or not `encode` has come to forget it. */
  #issuerOf(event: Claimant, t: number): Issuer | undefined {
    const issuer = this.#issuers.get(issuerKey(event.claims.iss))
    if (issuer === undefined || liveWindow(issuer, event, t) !== undefined) return issuer
    return this.#isIdle(issuer, t) ? undefined : issuer
  }

  #isIdle(issuer: Issuer, t: number): boolean {
    const counts = t > this.time ? 0 : issuer.rates.size
    return counts === 0 && issuer.dataKeys.minute < minuteOf(t) && liveWindows(issuer, t) === 0
  }

  #forget(): void {
    for (const [name, issuer] of this.#issuers) {
      for (const [session, window] of issuer.windows)
        if (window.exp < this.time) issuer.windows.delete(session)
      if (this.#isIdle(issuer, this.time)) this.#issuers.delete(name)
    }
  }
}

function refuse(code: 'replayed' | 'over-limit', reason: string, marks: boolean): Ruling {
  return { rejection: new Rejection(code, reason), marks }
}

/** A session is forgotten when t has passed the latest exp marked in it, and only then. */
function liveWindow(issuer: Issuer | undefined, event: Claimant, t: number): Window | undefined {
  const window = issuer?.windows.get(sessionKey(event.claims.iss, event.claims.session))
  return window === undefined || window.exp < t ? undefined : window
}

function liveWindows(issuer: Issuer | undefined, t: number): number {
  let live = 0
  if (issuer !== undefined) for (const window of issuer.windows.values()) if (window.exp >= t) live++
  return live
}

function parseState(reader: CborReader, limits: IssuerLimits, maxBytes: number): ReplayState {
  expectArray(reader, 3)
  if (reader.uint() !== FORMAT_VERSION) throw new CborError('another version')
  const time = reader.count()
  const issuers = new Map<string, Issuer>()
  for (let left = reader.array(); left > 0; left--) {
    expectArray(reader, 6)
    const name = hashOf(reader, ISSUER_HASH_BYTES)
    const dataKeys = {
      minute: reader.count(),
      spent: reader.count(),
      known: parseKnown(reader.byteString()),
    }
    const windows = new Map<string, Window>()
    for (let more = reader.array(); more > 0; more--) {
      const fields = reader.array()
      if (fields !== 3 && fields !== 4) throw new CborError('a window of another shape')
      const session = hashOf(reader, SESSION_HASH_BYTES)
      const highest = BigInt(reader.uint())
      const exp = time + reader.count()
      windows.set(session, { highest, exp, seen: fields === 3 ? ALL_SEEN : BigInt(reader.uint()) })
    }
    const rates = new Map<string, number>()
    for (let more = reader.array(); more > 0; more--) {
      expectArray(reader, 2)
      rates.set(hashOf(reader, ISSUER_HASH_BYTES), reader.count())
    }
    issuers.set(name, { windows, rates, dataKeys })
  }
  reader.end()
  return new ReplayState(limits, maxBytes, time, issuers)
}

function expectArray(reader: CborReader, length: number): void {
  if (reader.array() !== length) throw new CborError('an array of another length')
}

function hashOf(reader: CborReader, length: number): string {
  const bytes = reader.byteString()
  if (bytes.length !== length) throw new CborError('a hash of another size')
  return Buffer.from(bytes).toString('latin1')
}
