/** Names as a position keeps them (exactly-once.md §2): short hashes, which nobody can choose so that two of them collide. */
import { Buffer } from 'node:buffer'
import { compareBytes } from '../cbor.ts'
import { digest } from '../envelope/crypto.ts'

export const ISSUER_HASH_BYTES = 8
export const SESSION_HASH_BYTES = 10
export const DATA_KEY_HASH_BYTES = 8

export const issuerKey = (iss: string): string => issuers.of(iss)
export const typeKey = (type: string): string => types.of(type)
/** @param name of a data key, as `nameOf` gives it */
export const dataKeyKey = (name: string): string => dataKeys.of(name)

export function sessionKey(iss: string, session: Uint8Array): string {
  if (iss !== last.iss || compareBytes(session, last.session) !== 0) {
    const name = `${Buffer.from(session.buffer, session.byteOffset, session.length).toString('latin1')}:${iss}`
    last = { iss, session: new Uint8Array(session), key: sessions.of(name) }
  }
  return last.key
}

class Hashes {
  readonly #prefix: string
  readonly #bytes: number
  readonly #known = new Map<string, string>()

  constructor(prefix: string, bytes: number) {
    this.#prefix = prefix
    this.#bytes = bytes
  }

  of(name: string): string {
    const known = this.#known.get(name)
    if (known !== undefined) return known
    const hash = digest(Buffer.from(this.#prefix + name)).toString('latin1', 0, this.#bytes)
    if (this.#known.size >= MAX_HASHES) this.#known.clear()
    this.#known.set(name, hash)
    return hash
  }
}

const MAX_HASHES = 4096
const issuers = new Hashes('iss:', ISSUER_HASH_BYTES)
const types = new Hashes('type:', ISSUER_HASH_BYTES)
const sessions = new Hashes('session:', SESSION_HASH_BYTES)
const dataKeys = new Hashes('data-key:', DATA_KEY_HASH_BYTES)

/** The session that was asked for last: it is asked for five times an event, and mostly the next event's too. */
let last = { iss: '', session: new Uint8Array(), key: '' }
