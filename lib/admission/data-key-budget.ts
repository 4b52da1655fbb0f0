/**
 * What an issuer's new data keys have cost a source partition in a minute (sealed-event.md §5 step 9), so that a key is new
 * to a partition once, whichever process it comes to next.
 */
import { Buffer } from 'node:buffer'
import { CborError } from '../cbor.ts'
import { DATA_KEY_HASH_BYTES, dataKeyKey } from './short-names.ts'

export interface DataKeysSeen {
  /** Of judging time, since 1970. */
  readonly minute: number
  /** What asking for them has cost in that minute. */
  readonly spent: number
  /** Hashes of those let through, the latest last: a help that may be forgotten, and never in the way of a session. */
  readonly known: ReadonlySet<string>
}

export const NO_DATA_KEYS: DataKeysSeen = { minute: 0, spent: 0, known: new Set() }

/** One asked for again, by a process that does not have it at hand, costs 1: free, it would be a way around the budget. */
const NEW_KEY_COST = 16
/** Beyond it the one that came first is forgotten. */
const MAX_KNOWN = 128

/** The minute of a judging time in seconds. */
export const minuteOf = (t: number): number => Math.floor(t / 60)

/** Whether this key may be asked for at `t`, where so many new ones are allowed a minute. */
export function affords(seen: DataKeysSeen, askedKey: string, t: number, newKeysPerMinute: number): boolean {
  return spentInMinute(seen, t) + costOf(seen, askedKey) <= newKeysPerMinute * NEW_KEY_COST
}

/** Once this key has been let through: it is the latest, and paid for. */
export function withKey(seen: DataKeysSeen, askedKey: string, t: number): DataKeysSeen {
  const spent = spentInMinute(seen, t) + costOf(seen, askedKey)
  const known = new Set(seen.known)
  const name = dataKeyKey(askedKey)
  known.delete(name)
  known.add(name)
  for (const first of known) {
    if (known.size <= MAX_KNOWN) break
    known.delete(first)
  }
  return { minute: minuteOf(t), spent, known }
}

/** The hashes of the latest keys, as many as fit, one after the other; `parseKnown` reads them. */
export function knownBytes({ known }: DataKeysSeen, room: number): Uint8Array {
  const atMost = Math.floor(room / DATA_KEY_HASH_BYTES)
  const names = atMost === 0 ? [] : [...known].slice(-atMost)
  return Buffer.from(names.join(''), 'latin1')
}

/** Throws `CborError` for anything that `knownBytes` does not write. */
export function parseKnown(bytes: Uint8Array): ReadonlySet<string> {
  const hashes = Buffer.from(bytes).toString('latin1')
  if (hashes.length % DATA_KEY_HASH_BYTES !== 0) throw new CborError('hashes of another size')
  const known = new Set<string>()
  for (let at = 0; at < hashes.length; at += DATA_KEY_HASH_BYTES)
    known.add(hashes.slice(at, at + DATA_KEY_HASH_BYTES))
  return known
}

function spentInMinute({ minute, spent }: DataKeysSeen, t: number): number {
  return minute === minuteOf(t) ? spent : 0
}

function costOf({ known }: DataKeysSeen, askedKey: string): number {
  return known.has(dataKeyKey(askedKey)) ? 1 : NEW_KEY_COST
}
