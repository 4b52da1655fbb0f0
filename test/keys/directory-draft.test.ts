import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import { generateKeyPair, type PrivateKey, type PublicKey, thumbprint } from '../../lib/envelope/crypto.ts'
import { ED25519, ESP256 } from '../../lib/envelope/suite.ts'
import { ConfigError } from '../../lib/errors.ts'
import { DirectoryDraft, EMPTY_DIRECTORY } from '../../lib/keys/directory-draft.ts'
import { maySign } from '../../lib/keys/directory.ts'
import {
  type DirectoryDocument,
  parseDirectory,
  sealDirectory,
  type SigningKeyEntry,
} from '../../lib/keys/directory-document.ts'
import { newChallenge, provePossession, provesPossession } from '../../lib/keys/possession.ts'
import { localSigner } from '../../lib/keys/signer.ts'
import { KEK } from './fixtures.ts'

const NOW = 1_795_000_000
const DAY = 86_400
const root = generateKeyPair(ED25519)

const pair = (): { publicKey: PublicKey; privateKey: PrivateKey } => generateKeyPair(ED25519)

/** What every gate makes of it: signed, read back. */
async function published(document: DirectoryDocument): Promise<ReturnType<typeof parseDirectory>> {
  return parseDirectory(await sealDirectory(document, localSigner(root.privateKey), 1), [root.publicKey])
}

const next = (draft: DirectoryDraft, ...leaving: string[]): DirectoryDocument =>
  draft.next({ now: NOW, life: DAY, leaving: new Set(leaving) })

function faultsOf(work: () => unknown): readonly string[] {
  try {
    work()
  } catch (error) {
    if (error instanceof ConfigError) return error.faults.map(({ where, what }) => `${where}: ${what}`)
    throw error
  }
  return []
}

/** One issuer with so many active keys. */
function enrolled(count = 1): { document: DirectoryDocument; kids: readonly string[] } {
  const draft = new DirectoryDraft(EMPTY_DIRECTORY)
  const kids = Array.from({ length: count }, () =>
    draft.enrol({
      iss: 'shop',
      key: pair().publicKey,
      state: 'active',
      notBefore: NOW,
      notAfter: NOW + 90 * DAY,
    }),
  )
  return { document: next(draft), kids }
}

const entryOf = (document: DirectoryDocument, kid = ''): SigningKeyEntry | undefined =>
  document.signingKeys.find((entry) => entry.kid === kid)

describe('a draft of the next directory', () => {
  it('is the first version of an empty one, and every gate reads what was enrolled', async () => {
    const draft = new DirectoryDraft(EMPTY_DIRECTORY)
    const { publicKey } = generateKeyPair(ESP256)
    const kid = draft.enrol({
      iss: 'shop',
      key: publicKey,
      state: 'active',
      notBefore: NOW,
      notAfter: NOW + DAY,
    })
    draft.grantKek(KEK, 'shop')
    draft.grantKek(KEK, 'stock')
    const { document, snapshot } = await published(next(draft))
    expect(document).toMatchObject({ version: 1, issuedAt: NOW, expiresAt: NOW + DAY })
    expect(kid).toBe(thumbprint(publicKey).toString('base64url'))
    const row = snapshot.signingKey(thumbprint(publicKey))
    expect(row && maySign(row, NOW)).toBe(true)
    expect([
      snapshot.kek(KEK.kekId, 'shop'),
      snapshot.kek(KEK.kekId, 'stock'),
      snapshot.kek(KEK.kekId, 'x'),
    ]).toEqual([expect.objectContaining(KEK), expect.objectContaining(KEK), undefined])
  })

  it('leaves the document before as it was, and every other entry', () => {
    const { document, kids } = enrolled(3)
    const before = structuredClone(document)
    const draft = new DirectoryDraft(document)
    draft.suspend(kids[1] ?? '')
    const after = next(draft)
    expect(document).toEqual(before)
    expect(after.version).toBe(2)
    expect([entryOf(after, kids[0]), entryOf(after, kids[2])]).toEqual([
      entryOf(before, kids[0]),
      entryOf(before, kids[2]),
    ])
    expect(entryOf(after, kids[1])?.state).toBe('suspended')
  })

  it('takes back no signature by suspending and resuming', () => {
    const { document, kids } = enrolled(2)
    const [kid = ''] = kids
    const suspended = new DirectoryDraft(document)
    suspended.suspend(kid)
    const resumed = new DirectoryDraft(next(suspended))
    resumed.resume(kid)
    expect(entryOf(next(resumed), kid)).toEqual(entryOf(document, kid))
    expect(faultsOf(() => new DirectoryDraft(document).resume(kid))).toEqual([])
    const active = new DirectoryDraft(document)
    active.resume(kid)
    expect(faultsOf(() => next(active))).toEqual([`${kid}: It is not suspended but active.`])
  })

  it('lets a retired key sign until then, and no longer', async () => {
    const { document, kids } = enrolled(2)
    const [kid = ''] = kids
    const draft = new DirectoryDraft(document)
    draft.retire(kid, NOW + 100)
    const row = (await published(next(draft))).snapshot.signingKey(Buffer.from(kid, 'base64url'))
    expect(row && [NOW, NOW + 100, NOW + 101].map((t) => maySign(row, t))).toEqual([true, true, false])
  })

  it('never makes a compromised key better: only an earlier time follows a later one', () => {
    const { document, kids } = enrolled(2)
    const [kid = ''] = kids
    const revoke = (from: DirectoryDocument, at: number | null): DirectoryDocument => {
      const draft = new DirectoryDraft(from)
      draft.revoke(kid, at)
      return next(draft)
    }
    const since100 = revoke(document, NOW + 100)
    expect(entryOf(since100, kid)).toMatchObject({ state: 'compromised', compromisedAt: NOW + 100 })
    expect(entryOf(revoke(since100, NOW + 50), kid)?.compromisedAt).toBe(NOW + 50)
    expect(faultsOf(() => revoke(since100, NOW + 101))).toEqual([
      expect.stringContaining('compromised since'),
    ])
    const always = revoke(since100, null)
    expect(entryOf(always, kid)?.compromisedAt).toBe(null)
    expect(faultsOf(() => revoke(always, NOW))).toEqual([expect.stringContaining('from its beginning')])
    const back = new DirectoryDraft(always)
    back.activate(kid)
    expect(faultsOf(() => next(back))).toEqual([expect.stringContaining('cannot become active')])
  })

  it.each(['suspend', 'retire', 'revoke'] as const)(
    'does not %s the last key of an issuer, unless it is named',
    (change) => {
      const { document, kids } = enrolled(1)
      const [kid = ''] = kids
      const changed = (): DirectoryDraft => {
        const draft = new DirectoryDraft(document)
        if (change === 'suspend') draft.suspend(kid)
        else draft[change](kid, NOW)
        return draft
      }
      expect(faultsOf(() => next(changed()))).toEqual(['shop: It would have no key left to sign with.'])
      expect(faultsOf(() => next(changed(), 'another'))).toHaveLength(1)
      expect(next(changed(), 'shop').version).toBe(2)
    },
  )

  it('names every fault at once, and enrols no key twice', () => {
    const { document, kids } = enrolled(1)
    const { publicKey } = pair()
    const draft = new DirectoryDraft(document)
    const times = { state: 'active', notBefore: NOW, notAfter: NOW + DAY } as const
    draft.enrol({ iss: 'shop', key: publicKey, ...times })
    draft.enrol({ iss: 'thief', key: publicKey, ...times })
    draft.enrol({ iss: 'shop', key: pair().publicKey, ...times, notAfter: NOW })
    draft.destroy(kids[0] ?? '')
    draft.suspend('nobody')
    draft.withdrawKek('none')
    draft.grantKek(KEK, 'shop')
    draft.grantKek({ ...KEK, key: 'another' }, 'shop')
    expect(faultsOf(() => next(draft)).map((fault) => fault.replace(/^[^:]*: /, ''))).toEqual([
      'It is enrolled already, for shop.',
      'It would never be valid.',
      'It is active, and cannot become destroyed.',
      'It is no key of this directory.',
      'It is no KEK of this directory.',
      `It is another key, ${KEK.provider} ${KEK.key}.`,
    ])
  })

  it('is refused where the version before comes from the future: one of two clocks is wrong', () => {
    const { document } = enrolled(1)
    const early = { now: NOW - 301, life: DAY }
    expect(faultsOf(() => new DirectoryDraft(document).next(early))).toEqual([
      expect.stringContaining('this clock'),
    ])
    expect(new DirectoryDraft(document).next({ now: NOW - 300, life: DAY }).version).toBe(2)
  })

  it('withdraws a KEK from one issuer, and is rid of it with the last', () => {
    const draft = new DirectoryDraft(EMPTY_DIRECTORY)
    draft.grantKek(KEK, 'shop')
    draft.grantKek(KEK, 'stock')
    draft.withdrawKek(KEK.kekId, 'shop')
    const one = next(draft)
    expect(one.keks).toEqual([{ ...KEK, iss: ['stock'] }])
    const rest = new DirectoryDraft(one)
    rest.withdrawKek(KEK.kekId)
    expect(next(rest).keks).toEqual([])
  })

  it('leaves no issuer that can sign without a KEK to seal under, unless by name', () => {
    const { document } = enrolled(1)
    const granted = new DirectoryDraft(document)
    granted.grantKek(KEK, 'shop')
    const before = next(granted)
    const without = (): DirectoryDraft => {
      const draft = new DirectoryDraft(before)
      draft.withdrawKek(KEK.kekId)
      return draft
    }
    expect(faultsOf(() => next(without()))).toEqual([
      expect.stringContaining('shop: It would have no KEK left to seal under'),
    ])
    expect(without().next({ now: NOW, life: DAY, leaving: new Set(['shop']) }).keks).toEqual([])
    const replaced = without()
    replaced.grantKek({ ...KEK, kekId: 'next', key: 'next' }, 'shop')
    expect(next(replaced).keks).toMatchObject([{ kekId: 'next' }])
    const byHand = new DirectoryDraft(before)
    byHand.take({ ...before, keks: [] })
    expect(faultsOf(() => next(byHand))).toEqual([expect.stringContaining('no KEK left')])
  })

  it('whatever is done in whatever order: a document that gates read, or faults; never an issuer left without a key', async () => {
    const steps = fc.array(
      fc.record({
        change: fc.constantFrom('activate', 'suspend', 'resume', 'retire', 'revoke', 'destroy'),
        key: fc.nat({ max: 2 }),
        at: fc.integer({ min: NOW - DAY, max: NOW + DAY }),
      }),
      { maxLength: 12 },
    )
    const { document: first, kids } = enrolled(3)
    await fc.assert(
      fc.asyncProperty(steps, async (changes) => {
        let document = first
        for (const { change, key, at } of changes) {
          const draft = new DirectoryDraft(document)
          const kid = kids[key] ?? ''
          if (change === 'retire' || change === 'revoke') draft[change](kid, at)
          else if (change === 'activate') draft.activate(kid)
          else if (change === 'suspend') draft.suspend(kid)
          else if (change === 'resume') draft.resume(kid)
          else draft.destroy(kid)
          try {
            document = next(draft)
          } catch (error) {
            expect(error).toBeInstanceOf(ConfigError)
            continue
          }
          expect((await published(document)).document).toEqual(document)
          expect(document.signingKeys.some(({ state }) => state === 'active')).toBe(true)
        }
      }),
      { numRuns: 50 },
    )
  })
})

describe('proof of possession', () => {
  it('holds for its key, its name and its challenge alone', async () => {
    const [mine, other] = [pair(), pair()]
    const challenge = newChallenge()
    const proof = await provePossession(localSigner(mine.privateKey), 'shop', challenge, 1)
    expect(provesPossession(mine.publicKey, 'shop', challenge, proof)).toBe(true)
    expect(provesPossession(mine.publicKey, 'shop2', challenge, proof)).toBe(false)
    expect(provesPossession(mine.publicKey, 'shop', newChallenge(), proof)).toBe(false)
    expect(provesPossession(other.publicKey, 'shop', challenge, proof)).toBe(false)
    expect(provesPossession(mine.publicKey, 'shop', challenge.subarray(1), proof)).toBe(false)
  })
})

describe('what a command does to signatures, by the time at which brokers stamped them', () => {
  const at = NOW + 10
  const until = NOW + 90 * DAY
  /** Before its first second, in it, just before and at the time of the command, its last second, and after. */
  const times = [NOW - 1, NOW, at - 1, at, at + 1, until, until + 1]
  const commands: readonly [string, string, (draft: DirectoryDraft, kid: string) => void][] = [
    ['nothing', '-yyyyy-', () => undefined],
    ['suspend', '-------', (draft, kid) => draft.suspend(kid)],
    ['retire', '-yyy---', (draft, kid) => draft.retire(kid, at)],
    ['revoke since then', '-yy----', (draft, kid) => draft.revoke(kid, at)],
    ['revoke since nobody knows when', '-------', (draft, kid) => draft.revoke(kid, null)],
  ]

  it.each(commands)('%s: %s', async (_, expected, command) => {
    const { document, kids } = enrolled()
    const draft = new DirectoryDraft(document)
    const [kid = ''] = kids
    command(draft, kid)
    const { snapshot } = await published(next(draft, 'shop'))
    const row = snapshot.signingKey(Buffer.from(kid, 'base64url'))
    if (row === undefined) throw new Error('no such key')
    expect(times.map((time) => (maySign(row, time) ? 'y' : '-')).join('')).toBe(expected)
  })

  it('resume brings back all that suspend took away', () => {
    const { document, kids } = enrolled()
    const [kid = ''] = kids
    const suspending = new DirectoryDraft(document)
    suspending.suspend(kid)
    const resuming = new DirectoryDraft(next(suspending, 'shop'))
    resuming.resume(kid)
    expect(entryOf(next(resuming), kid)).toEqual(entryOf(document, kid))
  })
})
