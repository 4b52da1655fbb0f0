import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { bytesKey, KEY_STATES, type KeyState, maySign } from '../../lib/keys/directory.ts'
import { KEK, kekRow, signingRow, snapshotOf } from './fixtures.ts'

describe('what a key may sign', () => {
  const [notBefore, notAfter, compromise] = [1000, 2000, 1500]
  /** Each state at: before, first second, just before and at the compromise time, last second, after. */
  const times = [999, 1000, 1499, 1500, 2000, 2001]
  const table: Record<KeyState, { without: string; compromised: string }> = {
    'pre-activation': { without: '------', compromised: '------' },
    active: { without: '-yyyy-', compromised: '-yy---' },
    suspended: { without: '------', compromised: '------' },
    deactivated: { without: '-yyyy-', compromised: '-yy---' },
    compromised: { without: '------', compromised: '-yy---' },
  }

  test.each(KEY_STATES)('state %s at every time, with and without a compromise time', (state) => {
    const judge = (compromisedAt: number | null): string =>
      times
        .map((t) => (maySign(signingRow({ state, notBefore, notAfter, compromisedAt }), t) ? 'y' : '-'))
        .join('')
    expect(judge(null)).toBe(table[state].without)
    expect(judge(compromise)).toBe(table[state].compromised)
  })
})

describe('a snapshot', () => {
  test('finds a key by its kid, and only by the whole of it', () => {
    const row = signingRow()
    const snapshot = snapshotOf([], [row])
    expect(snapshot.signingKey(Uint8Array.from(row.kid))).toBe(row)
    expect(snapshot.signingKey(row.kid.subarray(1))).toBeUndefined()
    expect(snapshot.signingKey(Buffer.from('__proto__'))).toBeUndefined()
  })

  test('gives a KEK only to the issuers that may use it', () => {
    const snapshot = snapshotOf([kekRow(['a', 'b'])])
    expect(snapshot.kek(Buffer.from(KEK.kekId), 'a')).toMatchObject(KEK)
    expect(snapshot.kek(KEK.kekId, 'b')).toMatchObject(KEK)
    expect(snapshot.kek(KEK.kekId, 'c')).toBeUndefined()
    expect(snapshot.kek('other', 'a')).toBeUndefined()
  })

  test('takes a KEK’s name for a name: an address in a record finds nothing', () => {
    const snapshot = snapshotOf([kekRow(['a'])])
    expect(snapshot.kek(KEK.key, 'a')).toBeUndefined()
  })

  test('keeps two names apart that differ in any byte, text or not', () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 4 }), fc.uint8Array({ maxLength: 4 }), (a, b) => {
        expect(bytesKey(a) === bytesKey(b)).toBe(Buffer.compare(a, b) === 0)
      }),
    )
  })
})
