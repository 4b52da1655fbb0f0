/** What is done to keys, told to the control chain: on the embedded log, with deaths at every place and several who write. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { controlPlaceOf, firstControlPosition, parseControlState } from '../../lib/audit/control-chain.ts'
import { LifecycleAccount, lifecycleLog, type LifecycleStep } from '../../lib/audit/lifecycle.ts'
import { type FoundEntry, searchAudit } from '../../lib/audit/search.ts'
import { type AuditRecord, type AuditSource, verifyAudit } from '../../lib/audit/verification.ts'
import { CborError } from '../../lib/cbor.ts'
import { Outage } from '../../lib/errors.ts'
import { KEY_STATES } from '../../lib/keys/directory.ts'
import type { DirectoryDocument, SigningKeyEntry } from '../../lib/keys/directory-document.ts'
import { EMPTY_DIRECTORY } from '../../lib/keys/directory-draft.ts'
import { type DirectoryMemory, encodeMemory, parseMemory } from '../../lib/keys/directory-memory.ts'
import { auditSource } from '../../lib/local/audit-source.ts'
import type { Log } from '../../lib/local/log.ts'
import { openLog } from '../../lib/local/log-open.ts'
import { createLocalPositions, createLocalSink } from '../../lib/local/log-sink.ts'
import { polledLog } from '../../lib/local/poller.ts'
import type { Sink, SinkSession } from '../../lib/ports.ts'
import { newSigner } from './fixtures.ts'

const AUDIT = 'test.audit'
const settings = { deployment: 'test' }
const clock = { now: () => Date.now() }
const soon = (): number => Date.now() + 10_000
const gate = newSigner()
let folder = ''
let log: Log

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'sealgate-lifecycle-'))
  log = await openLog(folder)
  await log.createTopic(AUDIT, 3)
  await createLocalPositions(log, settings).init(controlPlaceOf(AUDIT), firstControlPosition(), soon())
})
afterEach(async () => {
  await log.close()
  await rm(folder, { recursive: true })
})

const logOn = (sink: Sink = createLocalSink(log, settings)) =>
  lifecycleLog({
    ...{ sink, clock, deployment: 'test', epoch: 1, software: 'test', auditTopic: AUDIT },
    signer: () => Promise.resolve(gate),
  })

/** With the head in the position, as auditors see it. */
const whole = (): AuditSource =>
  auditSource(polledLog(log), AUDIT, {
    ...{ positions: createLocalPositions(log, settings), sources: [], auditTopic: AUDIT },
    deadline: soon(),
  })
const verify = (source = whole()) => verifyAudit(source, { keyOf: () => gate.publicKey })

/** Every entry: kind, what it was done to, who, and the version that shows it. */
async function told(): Promise<string[]> {
  const found: FoundEntry[] = []
  await searchAudit(whole(), {}, (one) => found.push(one))
  return found.map(({ entry }) => {
    if (!('resource' in entry)) throw new Error('a decision')
    const { kind, resource, principal, success, policy } = entry
    return [kind, resource, principal ?? '-', policy.directory, ...(success ? [] : ['failure'])].join(' ')
  })
}

async function recordsOf(source: AuditSource, partition: number): Promise<AuditRecord[]> {
  const records: AuditRecord[] = []
  for await (const record of source.read(partition)) records.push(record)
  return records
}

const row = (kid: string, changes: Partial<SigningKeyEntry> = {}): SigningKeyEntry => ({
  ...{ kid: Buffer.from(kid).toString('base64url'), iss: 'shop', alg: 'Ed25519' },
  jwk: { kty: 'OKP', crv: 'Ed25519', x: '' },
  ...{ state: 'active', notBefore: 0, notAfter: 100, compromisedAt: null },
  ...changes,
})
const version = (
  number: number,
  signingKeys: readonly SigningKeyEntry[],
  keks: DirectoryDocument['keks'] = [],
): DirectoryDocument => ({ ...EMPTY_DIRECTORY, version: number, signingKeys, keks })
const published = (before: DirectoryDocument, document: DirectoryDocument): LifecycleStep => ({
  published: { before, document },
})
const A = `key:${row('a').kid}`
const first = version(1, [row('a')])
const revoked = version(2, [row('a', { state: 'compromised', compromisedAt: 5 })])
const renewed = version(3, revoked.signingKeys)

describe('the control chain', () => {
  it('tells of another version of the number that it was told of', async () => {
    await logOn()([published(EMPTY_DIRECTORY, first)], 'User:ann', soon())
    const forged = version(1, [row('a'), row('evil')])
    const cleaned = version(2, [row('a')])
    await logOn()([published(forged, cleaned)], 'User:ann', soon())
    const evil = `key:${row('evil').kid}`
    expect((await told()).slice(2)).toEqual([
      'directory.loaded directory:1 - 1 failure',
      `key.enrolled ${evil} - 1`,
      'directory.published directory:2 User:ann 2',
      `key.destroyed ${evil} User:ann 2`,
    ])
  })

  it('tells of every version, and of every step of a key, by its name', async () => {
    const kek = (...iss: string[]) => [{ kekId: 'k', provider: 'p', key: 'arn', iss }]
    const versions = [
      EMPTY_DIRECTORY,
      version(1, []),
      version(2, [row('a', { state: 'pre-activation' }), row('b')], kek('shop')),
      version(3, [row('a'), row('b', { state: 'suspended' })], kek('shop', 'stock')),
      version(4, [row('a', { state: 'deactivated' }), row('b')], kek('stock')),
      version(5, [row('a', { state: 'compromised', compromisedAt: 9 }), row('b', { notAfter: 200 })]),
      version(6, [row('a', { state: 'compromised', compromisedAt: 5 }), row('c', { state: 'suspended' })]),
      version(7, [row('a', { state: 'compromised', compromisedAt: 5 }), row('c', { state: 'suspended' })]),
    ]
    for (const [index, document] of versions.entries())
      if (index > 0) await logOn()([published(versions[index - 1]!, document)], 'User:ann', soon())
    const [b, c] = ['b', 'c'].map((kid) => `key:${row(kid).kid}`)
    const by = (number: number, ...all: string[]) => all.map((one) => `${one} User:ann ${number}`)
    expect(await told()).toEqual([
      ...by(1, 'directory.published directory:1'),
      ...by(
        2,
        'directory.published directory:2',
        `key.enrolled ${A}`,
        `key.enrolled ${b}`,
        'key.granted kek:k',
      ),
      ...by(
        3,
        'directory.published directory:3',
        `key.activated ${A}`,
        `key.suspended ${b}`,
        'key.granted kek:k',
      ),
      ...by(
        4,
        'directory.published directory:4',
        `key.retired ${A}`,
        `key.resumed ${b}`,
        'key.withdrawn kek:k',
      ),
      ...by(
        5,
        'directory.published directory:5',
        `key.revoked ${A}`,
        `key.changed ${b}`,
        'key.withdrawn kek:k',
      ),
      ...by(6, 'directory.published directory:6', `key.revoked ${A}`, `key.destroyed ${b}`),
      ...by(6, `key.enrolled ${c}`, `key.suspended ${c}`),
      ...by(7, 'directory.renewed directory:7'),
    ])
    expect(await verify()).toMatchObject({ verified: true, headsKnown: true, segments: 7 })
  })

  it('tells of what a rotation does beside the directory, and of nothing that is of no consequence', async () => {
    const account = new LifecycleAccount(logOn(), 'Function:rotate')
    const signing = { kind: 'signing-key', name: 'g', iss: 'gate', secret: 'signing-g', period: 9 } as const
    const kms = { kind: 'kms-key', name: 'k', key: 'arn:k', period: 9 } as const
    account.add({ taken: { do: 'wait', until: 1, why: '' }, rotation: signing })
    await account.flush(soon())
    expect(await told()).toEqual([])
    account.add({ taken: { do: 'stage-key', after: '' }, rotation: signing })
    const promote = { do: 'promote', secret: 'signing-g', version: '2', from: '1' } as const
    account.add({ taken: promote, rotation: signing })
    account.add({ taken: { do: 'rotate-on-demand' }, rotation: kms })
    await account.flush(soon())
    await account.flush(soon())
    expect(await told()).toEqual([
      'key.staged secret:signing-g Function:rotate 0',
      'key.promoted secret:signing-g Function:rotate 0',
      'key.rotated kms:arn:k Function:rotate 0',
    ])
  })

  it('whoever dies between publishing and telling is noticed by the next, with what can be seen of it', async () => {
    await logOn()([published(EMPTY_DIRECTORY, first)], 'User:ann', soon())
    // Version 2 revokes, and nobody tells.
    await logOn()([published(revoked, renewed)], 'User:bob', soon())
    expect((await told()).slice(2)).toEqual([
      'directory.loaded directory:2 - 2 failure',
      `key.revoked ${A} - 2`,
      'directory.renewed directory:3 User:bob 3',
    ])
    const later = version(9, [])
    await logOn()([published(version(8, []), later)], 'User:bob', soon())
    expect((await told()).slice(5)).toEqual([
      'directory.loaded directory:4..8 - 8 failure',
      `key.destroyed ${A} - 8`,
      'directory.renewed directory:9 User:bob 9',
    ])
    expect((await verify()).verified).toBe(true)
  })

  it('whoever begins it late says what was there before', async () => {
    await logOn()([published(first, revoked)], 'User:ann', soon())
    expect(await told()).toEqual([
      'directory.loaded directory:1 - 1 failure',
      `key.enrolled ${A} - 1`,
      'directory.published directory:2 User:ann 2',
      `key.revoked ${A} User:ann 2`,
    ])
  })

  it('who comes to tell of a version that another has noted already adds who it was', async () => {
    await logOn()([published(EMPTY_DIRECTORY, first)], 'User:ann', soon())
    await logOn()([published(revoked, renewed)], 'Function:rotate', soon())
    await logOn()([published(first, revoked)], 'User:ann', soon())
    expect((await told()).slice(5)).toEqual([
      'directory.published directory:2 User:ann 2',
      `key.revoked ${A} User:ann 2`,
    ])
    // And nothing is noted twice.
    await logOn()([published(renewed, version(4, renewed.signingKeys))], 'User:ann', soon())
    expect((await told()).slice(7)).toEqual(['directory.renewed directory:4 User:ann 4'])
  })

  it('of many who write at once none is lost, and the chain does not fork', async () => {
    const kids = Array.from({ length: 6 }, (_, index) => `k${index}`)
    const before = (index: number) =>
      version(
        index,
        kids.slice(0, index).map((kid) => row(kid)),
      )
    await Promise.all(
      kids.map((_, index) =>
        logOn()([published(before(index), before(index + 1))], `User:u${index}`, soon()),
      ),
    )
    const entries = await told()
    for (const [index, kid] of kids.entries())
      expect(entries).toContain(`key.enrolled key:${row(kid).kid} User:u${index} ${index + 1}`)
    expect(await verify()).toMatchObject({ verified: true, headsKnown: true, entries: entries.length })
  })

  it('dies anywhere in its commit, and goes on whole: nothing is lost, and nothing told twice', async () => {
    const sink = createLocalSink(log, settings)
    let deaths = 0
    const dying = (session: SinkSession, when: 'before' | 'after'): SinkSession => ({
      position: session.position,
      maxBatchBytes: session.maxBatchBytes,
      maxStateBytes: session.maxStateBytes,
      close: () => session.close(),
      commit: async (...call) => {
        deaths += 1
        if (when === 'after') await session.commit(...call)
        throw new Outage('sink-unavailable', 'died')
      },
    })
    const failing: Sink = {
      ...sink,
      open: async (...call) => {
        const session = await sink.open(...call)
        return deaths === 0 ? dying(session, 'before') : deaths === 1 ? dying(session, 'after') : session
      },
    }
    await logOn(failing)([published(EMPTY_DIRECTORY, first)], null, soon())
    expect(deaths).toBe(2)
    expect(await told()).toEqual(['directory.published directory:1 - 1', `key.enrolled ${A} - 1`])
    expect((await verify()).verified).toBe(true)
  })

  it('tells more than a transaction should hold in several; who dies among them leaves a chain that is whole', async () => {
    const many = version(
      1,
      Array.from({ length: 1200 }, (_, index) => row(`a-kid-as-long-as-thumbprints-are-${index}`)),
    )
    const sink = createLocalSink(log, settings)
    let commits = 0
    const mortal: Sink = {
      ...sink,
      open: async (...call) => {
        const session = await sink.open(...call)
        const commit: SinkSession['commit'] = async (...given) => {
          if (++commits === 3) throw new Outage('sink-denied', 'died')
          await session.commit(...given)
        }
        return Object.assign(Object.create(session), { commit })
      },
    }
    const step = published(EMPTY_DIRECTORY, many)
    await expect(logOn(mortal)([step], null, soon())).rejects.toThrow('died')
    expect(await verify()).toMatchObject({ verified: true, entries: 1000 })
    // It counts as told only when all of it is: the next notes it from its beginning.
    await logOn()([published(many, version(2, many.signingKeys))], 'User:ann', soon())
    expect(await verify()).toMatchObject({ verified: true, entries: 2202, segments: 5 })
    const noted = (await told()).slice(1000)
    expect(noted[0]).toBe('directory.loaded directory:1 - 1 failure')
    expect(noted.slice(1, -1).every((one) => one.startsWith('key.enrolled '))).toBe(true)
    expect(noted.at(-1)).toBe('directory.renewed directory:2 User:ann 2')
    // Too many to remember: the next gap says what versions it is, and no more.
    await logOn()([published(version(4, []), version(5, []))], null, soon())
    expect((await told()).slice(2202)).toEqual([
      'directory.loaded directory:3..4 - 4 failure',
      'directory.renewed directory:5 - 5',
    ])
  })

  it('is not begun silently, and a position of another making stops it', async () => {
    const other = lifecycleLog({
      ...{ sink: createLocalSink(log, { deployment: 'other' }), clock, deployment: 'other', epoch: 1 },
      ...{ software: 'test', auditTopic: AUDIT, signer: () => Promise.resolve(gate) },
    })
    const missing = await other([published(EMPTY_DIRECTORY, first)], null, soon()).catch((e: unknown) => e)
    expect(missing).toMatchObject({ code: 'position-missing' })
    expect(String(missing)).toContain(`sealgate position init ${AUDIT}`)
    for (const state of [new Uint8Array(), Buffer.from('85', 'hex'), Buffer.from('8502014100f640', 'hex')])
      expect(() => parseControlState(state)).toThrow('does not parse')
    expect(await told()).toEqual([])
  })

  it('shows what is cut at its end by the head in its position, and what is forged into it', async () => {
    await logOn()([published(EMPTY_DIRECTORY, first)], null, soon())
    await logOn()([published(first, revoked)], null, soon())
    const source = whole()
    const contents = [await recordsOf(source, 0), await recordsOf(source, 1), await recordsOf(source, 2)]
    const home = contents.findIndex((records) => records.length > 0)
    const kept = async function* (partition: number, from: bigint): AsyncGenerator<AuditRecord> {
      const records = await recordsOf(source, partition)
      yield* (partition === home ? records.slice(0, 3) : records).filter(({ offset }) => offset >= from)
    }
    const cut: AuditSource = { ...source, read: (partition) => kept(partition, 0n), readOn: kept }
    const report = await verify(cut)
    expect(report.breaks.map(({ kind, topic }) => [kind, topic])).toEqual([['cut at the end', '_control']])
    const forged = contents[home] ?? []
    const [entry] = forged
    if (entry === undefined || entry.value === null) throw new Error('nothing there')
    const value = Buffer.from(Buffer.from(entry.value).toString().replace('directory:1', 'directory:7'))
    const altered: AuditSource = {
      ...source,
      async *read(partition) {
        await Promise.resolve()
        if (partition === home) yield* [{ ...entry, value }, ...forged.slice(1)]
      },
    }
    expect((await verify(altered)).breaks[0]).toMatchObject({ kind: 'altered', topic: '_control' })
  })
})

describe('an account', () => {
  it('keeps what could not be told until it can be, and is tried once while a run goes on', async () => {
    let calls = 0
    const steps: LifecycleStep[] = []
    const account = new LifecycleAccount((given) => {
      if (++calls < 3) return Promise.reject(new Outage('sink-unavailable', 'Kafka is down'))
      steps.push(...given)
      return Promise.resolve()
    }, null)
    account.add(published(EMPTY_DIRECTORY, first))
    await account.note(soon())
    account.add(published(first, revoked))
    await account.note(soon())
    expect(calls).toBe(1)
    await expect(account.flush(soon())).rejects.toThrow('Kafka is down')
    await account.flush(soon())
    await account.flush(soon())
    expect([calls, steps.length]).toEqual([3, 2])
  })

  it('keeps nothing where lifecycle is not audited', async () => {
    const account = new LifecycleAccount(undefined, null)
    account.add(published(EMPTY_DIRECTORY, first))
    await account.flush(soon())
  })
})

describe('what the chain remembers', () => {
  const count = fc.nat({ max: 2 ** 40 })
  const rows = fc.record({
    keys: fc
      .uniqueArray(
        fc.tuple(
          fc.uint8Array({ minLength: 1, maxLength: 64 }).map((kid) => Buffer.from(kid).toString('base64url')),
          fc.record({
            ...{ state: fc.constantFrom(...KEY_STATES), notBefore: count, notAfter: count },
            compromisedAt: fc.option(count),
          }),
        ),
        { selector: ([kid]) => kid, maxLength: 20 },
      )
      .map((list) => new Map(list)),
    keks: fc
      .uniqueArray(fc.tuple(fc.string(), fc.array(fc.string())), { selector: ([id]) => id, maxLength: 9 })
      .map((list) => new Map(list)),
  })
  const memory: fc.Arbitrary<DirectoryMemory> = fc.record({
    version: count,
    rows: fc.option(rows, { nil: undefined }),
  })

  it('reads back as it was written, within any bound', () => {
    fc.assert(
      fc.property(memory, fc.nat({ max: 2000 }), (one, bound) => {
        expect(parseMemory(encodeMemory(one, Infinity))).toEqual(one)
        const bytes = encodeMemory(one, bound)
        const kept = bytes.length === encodeMemory(one, Infinity).length
        expect(kept || bytes.length < 16).toBe(true)
        expect(parseMemory(bytes)).toEqual(kept ? one : { version: one.version, rows: undefined })
      }),
    )
  })

  it('is refused with any byte too few or too many', () => {
    fc.assert(
      fc.property(memory, (one) => {
        const bytes = encodeMemory(one, Infinity)
        for (let length = 0; length < bytes.length; length++)
          expect(() => parseMemory(bytes.subarray(0, length))).toThrow(CborError)
        expect(() => parseMemory(Buffer.concat([bytes, Buffer.of(0)]))).toThrow(CborError)
      }),
      { numRuns: 20 },
    )
  })
})
