/** What a data key is found by, for every event. */
import { Buffer } from 'node:buffer'
import type { Kek } from '../ports.ts'
import { bytesKey } from './directory.ts'

/** Names one data key. Two requests that differ in any part never share a key (threats.md 11). */
export interface KeyRequest {
  readonly iss: string
  readonly aud: string
  /** The event type, `ce.type`. */
  readonly type: string
  /** As on the wire. */
  readonly kekId: Uint8Array
  readonly wrapped: Uint8Array
  /** What `DirectorySnapshot.kek(kekId, iss)` gave: without it there is no request. */
  readonly kek: Kek
}

export interface Named {
  readonly request: KeyRequest
  /** `nameOf(request)`. */
  readonly name: string
}

/**
 * A map by request, in the order of setting. Asked for every event, so a few bytes of the wrapped key come first and
 * then a comparison; the whole name, which costs many times that, only where two entries share those bytes. They are
 * tag or ciphertext, so not alike by chance; who makes them alike gets a plain map by name, not a slow one.
 */
export class KeyIndex<T extends Named> {
  readonly #byName = new Map<string, T>()
  readonly #byTail = new Map<number, T>()

  get size(): number {
    return this.#byName.size
  }

  find(request: KeyRequest): T | undefined {
    const first = this.#byTail.get(tailOf(request.wrapped))
    if (first !== undefined && isSameKey(first.request, request)) return first
    const shared = this.#byTail.size < this.#byName.size
    return shared ? this.#byName.get(nameOf(request)) : undefined
  }

  /** Sets an entry that is not there, or moves one that is to the end. */
  set(entry: T): void {
    this.#byName.delete(entry.name)
    this.#byName.set(entry.name, entry)
    const tail = tailOf(entry.request.wrapped)
    const first = this.#byTail.get(tail)
    if (first === undefined || first.name === entry.name) this.#byTail.set(tail, entry)
  }

  delete(entry: T): void {
    this.#byName.delete(entry.name)
    const tail = tailOf(entry.request.wrapped)
    if (this.#byTail.get(tail)?.name === entry.name) this.#byTail.delete(tail)
  }

  clear(): void {
    this.#byName.clear()
    this.#byTail.clear()
  }

  values(): MapIterator<T> {
    return this.#byName.values()
  }
}

/** The last 30 bits: a number that V8 keeps without allocating. */
function tailOf(bytes: Uint8Array): number {
  const end = bytes.length
  const high = ((bytes[end - 4] ?? 0) & 0x3f) << 24
  return high | ((bytes[end - 3] ?? 0) << 16) | ((bytes[end - 2] ?? 0) << 8) | (bytes[end - 1] ?? 0)
}

/** Whether two requests name one data key. */
export function isSameKey(a: KeyRequest, b: KeyRequest): boolean {
  return (
    a.iss === b.iss &&
    a.type === b.type &&
    a.aud === b.aud &&
    Buffer.compare(a.wrapped, b.wrapped) === 0 &&
    Buffer.compare(a.kekId, b.kekId) === 0
  )
}

/** Lengths first, so that no two requests have one name, whatever stands in them. */
export function nameOf({ iss, aud, type, kekId, wrapped }: KeyRequest): string {
  const lengths = `${iss.length}:${aud.length}:${type.length}:${kekId.length}:`
  return `${lengths}${iss}${aud}${type}${bytesKey(kekId)}${bytesKey(wrapped)}`
}
