import { describe, expect, test } from 'vitest'
import { exportPublicJwk, generateKeyPair, thumbprint } from '../../lib/envelope/crypto.ts'
import { ED25519 } from '../../lib/envelope/suite.ts'
import { Outage } from '../../lib/errors.ts'
import type { DirectoryCopy, DirectorySnapshot } from '../../lib/keys/directory.ts'
import { type DirectoryDocument, sealDirectory } from '../../lib/keys/directory-document.ts'
import { createDirectory, type DirectoryOptions } from '../../lib/keys/directory-reader.ts'
import { localSigner } from '../../lib/keys/signer.ts'
import { fakeSource, gate, manualClock, nth, START_MS } from './fixtures.ts'

const root = generateKeyPair(ED25519)
const pair = generateKeyPair(ED25519)
const START = START_MS / 1000

const seal = (version: number, changes: Partial<DirectoryDocument> = {}): Promise<Uint8Array> =>
  sealDirectory(
    {
      directory: 'sealgate/1',
      version,
      issuedAt: START,
      expiresAt: START + 86_400,
      signingKeys: [
        {
          kid: thumbprint(pair.publicKey).toString('base64url'),
          iss: 'shipping-service',
          alg: 'Ed25519',
          jwk: exportPublicJwk(pair.publicKey),
          state: 'active',
          notBefore: START,
          notAfter: START + 1000,
          compromisedAt: null,
        },
      ],
      keks: [{ kekId: 'k', provider: 'p', key: 'a', iss: ['shipping-service'] }],
      ...changes,
    },
    localSigner(root.privateKey),
    0,
  )

async function world(options: Partial<DirectoryOptions> = {}) {
  const clock = manualClock()
  const source = fakeSource(await seal(1))
  const failures: Outage[] = []
  const directory = createDirectory({
    source,
    roots: [root.publicKey],
    clock,
    onReadFailed: (outage) => failures.push(outage),
    ...options,
  })
  const begin = (): Promise<DirectoryCopy> => directory.snapshot(clock.ms + 10_000)
  const publish = (bytes: Uint8Array): void => {
    source.bytes = bytes
    source.etag = String(Number(source.etag) + 1)
  }
  return { clock, source, failures, directory, begin, publish }
}

const versionOf = ({ snapshot }: DirectoryCopy): number => snapshot.version
const break_ = (): Promise<void> => Promise.reject(new Error('the source is down'))

describe('the directory’s copy', () => {
  test('is trusted by either of two pinned roots, while the root itself is rotated, and by no other number', async () => {
    const next = generateKeyPair(ED25519).publicKey
    for (const roots of [
      [root.publicKey, next],
      [next, root.publicKey],
    ]) {
      const { begin } = await world({ roots })
      expect(versionOf(await begin())).toBe(1)
    }
    for (const roots of [[], [root.publicKey, next, next]])
      await expect(world({ roots })).rejects.toThrow(TypeError)
  })

  test('serves 60 s from the start of its read, then is read anew', async () => {
    const { clock, source, begin, publish } = await world()
    source.before = () => {
      clock.ms += 3000
      return Promise.resolve()
    }
    expect(await begin()).toMatchObject({ fresh: true })
    publish(await seal(2))
    clock.ms += 57_000
    expect(versionOf(await begin())).toBe(1)
    clock.ms += 1
    expect(await begin()).toMatchObject({ fresh: true, snapshot: { version: 2 } })
    expect(source.reads).toBe(2)
  })

  test('an unchanged document is young again without being read', async () => {
    const { clock, source, begin } = await world()
    const first = await begin()
    clock.ms += 60_001
    const second = await begin()
    expect(second).toEqual({ snapshot: first.snapshot, fresh: true })
    clock.ms += 60_000
    await begin()
    expect(source.reads).toBe(2)
    source.before = () => {
      clock.ms += 3000
      return Promise.resolve()
    }
    clock.ms += 1
    await begin()
    clock.ms += 57_001
    await begin()
    expect(source.reads).toBe(4)
  })

  test('slices that begin together share one read', async () => {
    const { source, begin } = await world()
    const wait = gate()
    source.before = () => wait.promise
    const slices = Array.from({ length: 20 }, begin)
    wait.resolve()
    await Promise.all(slices)
    expect(source.reads).toBe(1)
  })

  test('an unknown kid causes no read', async () => {
    const { source, begin } = await world()
    const { snapshot } = await begin()
    for (let forged = 0; forged < 10_000; forged++)
      expect(snapshot.signingKey(Buffer.from(`forged ${forged}`))).toBeUndefined()
    for (let slice = 0; slice < 100; slice++) await begin()
    expect(source.reads).toBe(1)
  })

  test('serves until it is 5 minutes old where reading fails, not fresh, and then everything is an outage', async () => {
    const { clock, source, failures, begin } = await world()
    await begin()
    source.before = break_
    clock.ms += 60_000
    expect(await begin()).toMatchObject({ fresh: true })
    clock.ms += 1
    expect(await begin()).toMatchObject({ fresh: false })
    clock.ms += 239_999
    expect(await begin()).toMatchObject({ fresh: false })
    clock.ms += 1
    await expect(begin()).rejects.toMatchObject({ code: 'directory-unavailable' })
    expect(failures.length).toBe(3)
    source.before = () => Promise.resolve()
    expect(await begin()).toMatchObject({ fresh: true })
  })

  test('while the copy serves, a failing source is asked every 5 s, not by every slice', async () => {
    const { clock, source, begin } = await world()
    await begin()
    source.before = break_
    clock.ms += 100_000
    for (let slice = 0; slice < 100; slice++) {
      await begin()
      clock.ms += 100
    }
    expect(source.reads).toBe(1 + 2)
  })

  test('without any copy, a source that fails is an outage, and the first good read ends it', async () => {
    const { source, begin } = await world()
    source.before = break_
    await expect(begin()).rejects.toThrow(Outage)
    source.before = () => Promise.resolve()
    expect(await begin()).toMatchObject({ fresh: true })
  })

  test('a hung source holds a slice no longer than its deadline, and the copy serves', async () => {
    const { clock, source, directory, begin } = await world()
    const wait = gate()
    source.before = () => wait.promise
    await expect(directory.snapshot(clock.ms + 10)).rejects.toMatchObject({ code: 'directory-unavailable' })
    wait.resolve()
    await begin()
    clock.ms += 100_000
    const hung = gate()
    source.before = () => hung.promise
    expect(await directory.snapshot(clock.ms + 10)).toMatchObject({ fresh: false })
    hung.resolve()
  })

  test('a read that hangs for good is given up, and the next one works', async () => {
    const { source, begin } = await world({ readMs: 15 })
    source.before = () => new Promise(() => undefined)
    await expect(begin()).rejects.toThrow('does not answer')
    source.before = () => Promise.resolve()
    expect(await begin()).toMatchObject({ fresh: true })
  })

  test('a clock that goes back makes no copy younger', async () => {
    const { clock, source, begin } = await world()
    await begin()
    clock.ms -= 1
    await begin()
    expect(source.reads).toBe(2)
  })

  test.each([
    ['a version lower than one seen before', () => seal(1), 'older than version 2'],
    ['the same version with another content', () => seal(2, { keks: [] }), 'two contents'],
    ['a version that has expired', () => seal(3, { issuedAt: START - 2, expiresAt: START - 1 }), 'expired'],
    [
      'a version from the future',
      () => seal(3, { issuedAt: START + 900, expiresAt: START + 90_000 }),
      'issued in the future',
    ],
    ['what no root signed', () => Promise.resolve(Buffer.from('a.b.c')), 'not signed by a pinned root'],
    ['nothing', () => Promise.resolve(Buffer.alloc(0)), 'no compact JWS'],
  ])('%s counts as a failed read', async (_, bytes, reason) => {
    const { clock, failures, begin, publish } = await world()
    publish(await seal(2))
    const good = await begin()
    publish(await bytes())
    clock.ms += 60_001
    expect(await begin()).toEqual({ snapshot: good.snapshot, fresh: false })
    expect(nth(failures, 0).message).toContain(reason)
    clock.ms += 240_000
    await expect(begin()).rejects.toMatchObject({ code: 'directory-unavailable' })
  })

  test('a version that was seen is never followed by a lower one, even if it could not be used', async () => {
    const { clock, begin, publish } = await world()
    await begin()
    publish(await seal(9, { issuedAt: START - 2, expiresAt: START - 1 }))
    clock.ms += 60_001
    await begin()
    publish(await seal(8))
    clock.ms += 60_001
    expect(await begin()).toMatchObject({ fresh: false, snapshot: { version: 1 } })
  })

  test('nor does the copy at hand become young again, once a higher version was seen', async () => {
    const { clock, source, begin, publish } = await world()
    const first = { bytes: source.bytes, etag: source.etag }
    await begin()
    publish(await seal(9, { issuedAt: START + 900, expiresAt: START + 90_000 }))
    clock.ms += 60_001
    await begin()
    Object.assign(source, first)
    clock.ms += 60_001
    expect(await begin()).toMatchObject({ fresh: false, snapshot: { version: 1 } })
    source.etag = 'other, of the same bytes'
    clock.ms += 60_001
    expect(await begin()).toMatchObject({ fresh: false, snapshot: { version: 1 } })
  })

  test('the same version signed again is no rollback', async () => {
    const { clock, begin, publish } = await world()
    await begin()
    publish(Buffer.from(await seal(1)))
    clock.ms += 60_001
    expect(await begin()).toMatchObject({ fresh: true })
  })

  test('a copy that the source calls unchanged expires all the same', async () => {
    const { clock, source, begin, publish } = await world()
    publish(await seal(2, { expiresAt: START + 70 }))
    await begin()
    clock.ms += 70_000
    expect(await begin()).toMatchObject({ fresh: false })
    expect(source.reads).toBe(2)
  })

  test('tells who listens when a KEK was withdrawn, and only when KEKs changed', async () => {
    const { clock, directory, begin, publish } = await world()
    const told: DirectorySnapshot[] = []
    directory.onKeksChanged((snapshot) => told.push(snapshot))
    await begin()
    publish(await seal(2))
    clock.ms += 60_001
    await begin()
    expect(told.map(({ version }) => version)).toEqual([1])
    publish(await seal(3, { keks: [] }))
    clock.ms += 60_001
    await begin()
    expect(told.map(({ version }) => version)).toEqual([1, 3])
    expect(nth(told, 1).kek('k', 'shipping-service')).toBeUndefined()
  })

  test('one or two roots are pinned, no more', async () => {
    for (const count of [0, 3])
      await expect(world({ roots: Array.from({ length: count }, () => root.publicKey) })).rejects.toThrow(
        TypeError,
      )
  })
})
