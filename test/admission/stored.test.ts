/**
 * What released versions have left in Kafka (stored-VERSION.json, never to be changed): this one reads it, goes on from it,
 * and writes what that one can read again, so that both an upgrade and the way back lose nothing (docs/recovery.md).
 */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { StoredPosition } from '../../lib/adapters/kafka-position.ts'
import { encodeState, parseState } from '../../lib/admission/position.ts'
import { ReplayState } from '../../lib/admission/replay.ts'
import { encodeControlState, parseControlState } from '../../lib/audit/control-chain.ts'
import { parseSegment } from '../../lib/audit/segment.ts'
import { verifyAudit } from '../../lib/audit/verification.ts'
import { compareBytes } from '../../lib/cbor.ts'
import { importPublicKey, thumbprint } from '../../lib/envelope/crypto.ts'
import { ED25519 } from '../../lib/envelope/suite.ts'
import { newSigner, sourceOf, Stream } from '../audit/fixtures.ts'

interface Stored {
  /** The position of orders/0: five records decided, in two slices, two of them refused. */
  readonly next: string
  readonly state: string
  /** The same as Kafka has it, in the offsets of the shadow group. */
  readonly group: readonly { readonly group: string; readonly offset: string; readonly metadata: string }[]
  /** The state of a control chain. */
  readonly control: string
  /** Keys and values of the audit's records. */
  readonly audit: readonly (readonly [string, string])[]
  readonly signingKey: { readonly kty: 'OKP'; readonly crv: 'Ed25519'; readonly x: string }
}

const LIMITS = { maxSessions: 64, newDataKeysPerMinute: 60 }
const MAX_BYTES = 24_000
const bytesOf = (hex: string): Buffer => Buffer.from(hex, 'hex')

describe.each(['0.1.0'])('what version %s has stored', (version) => {
  const file = join(import.meta.dirname, `stored-${version}.json`)
  const stored: Stored = JSON.parse(readFileSync(file, 'utf8'))
  const state = bytesOf(stored.state)

  it('is read, position and replay windows, and written again as it was', () => {
    const lane = parseState(state, LIMITS, MAX_BYTES)
    expect([lane.head.sequence, lane.homes, lane.control.count]).toEqual([2, { audit: 0, quarantine: 0 }, 0n])
    expect(Buffer.from(encodeState(lane)).equals(state)).toBe(true)
    const control = parseControlState(bytesOf(stored.control))
    expect([control.head.sequence, control.home]).toEqual([7, 2])
    expect(Buffer.from(encodeControlState(control)).equals(bytesOf(stored.control))).toBe(true)
  })

  it('is read as Kafka has it', () => {
    const [main] = stored.group.map(({ offset, metadata }) => ({ offset: BigInt(offset), metadata }))
    if (main === undefined) throw new Error('nothing is stored')
    const source = { topic: 'orders', partition: 0 }
    const { position } = StoredPosition.parse(stored.group[0]?.group ?? '', source, main, [])
    expect([position.next, Buffer.from(position.state).toString('hex')]).toEqual([5n, stored.state])
  })

  it('is an audit that verifies, and that this version goes on with, up to the head of the position', async () => {
    const old = importPublicKey(ED25519, stored.signingKey)
    const now = newSigner()
    const keyOf = (kid: Uint8Array) =>
      [old, now.publicKey].find((key) => compareBytes(thumbprint(key), kid) === 0)
    const stream = new Stream(now)
    for (const [key, value] of stored.audit) stream.put(key, bytesOf(value))
    const { head } = parseState(state, LIMITS, MAX_BYTES)
    const last = parseSegment(bytesOf(stored.audit.at(-1)?.[1] ?? ''))
    expect(Buffer.from(head.hash).equals(last?.hash ?? Buffer.alloc(0))).toBe(true)
    const heads = new Map([['orders/0', head]])
    const before = await verifyAudit(sourceOf([stream.records], heads), { keyOf })
    expect(before).toMatchObject({ verified: true, entries: 5, segments: 2, breaks: [] })
    stream.heads.set('orders/0', head)
    await stream.slice(1, { gap: 5, from: 5n, next: 6n, deployment: 'shop' })
    const after = await verifyAudit(sourceOf([stream.records], stream.heads), { keyOf })
    expect(after.breaks).toEqual([])
    expect(after).toMatchObject({ verified: true, entries: 6, segments: 3 })
  })

  it('is refused where it is of a version to come, and never taken for a fresh start', () => {
    // The version stands first in each: an integer of one byte.
    const later = (bytes: Uint8Array): Buffer => {
      const changed = Buffer.from(bytes)
      changed[1] = (changed[1] ?? 0) + 1
      return changed
    }
    const damaged = expect.objectContaining({ code: 'position-damaged' })
    expect(() => parseState(later(state), LIMITS, MAX_BYTES)).toThrow(damaged)
    expect(() => parseControlState(later(bytesOf(stored.control)))).toThrow(damaged)
    const replay = parseState(state, LIMITS, MAX_BYTES).replay.encode()
    expect(() => ReplayState.parse(later(replay), LIMITS, MAX_BYTES)).toThrow(damaged)
  })
})
