import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Command } from 'commander'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { addAuditCommands, type OpenAudit } from '../../cli/audit.ts'
import { encodeEntry } from '../../lib/audit/entry.ts'
import {
  exportPrivateJwk,
  exportPublicJwk,
  generateKeyPair,
  type PublicKey,
} from '../../lib/envelope/crypto.ts'
import { ED25519, ESP256 } from '../../lib/envelope/suite.ts'
import { Outage } from '../../lib/errors.ts'
import { admitted, newSigner, policy, type Rec, sourceOf, Stream, there } from '../audit/fixtures.ts'

const gate = newSigner()
const second = newSigner(ESP256)
let stream: Stream
let folder: string

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'sg-audit-'))
  stream = new Stream(gate)
  await stream.slice(3)
  await stream.slice(2, { topic: 'payments', partition: 7, unseen: 4 })
  await stream.slice(1)
})

afterAll(() => rm(folder, { recursive: true }))

interface Ran {
  out: string
  err: string
  code: number | undefined
  closed: number
}

interface World {
  records?: readonly Rec[]
  heads?: boolean
  keys?: ReadonlyMap<string, PublicKey>
  open?: OpenAudit
  showsProgress?: boolean
}

async function run(args: string[], world: World = {}): Promise<Ran> {
  const ran: Ran = { out: '', err: '', code: undefined, closed: 0 }
  const { records = stream.records, heads = true, showsProgress = false } = world
  const keys = world.keys ?? new Map([[Buffer.from(gate.kid).toString('base64url'), gate.publicKey]])
  const open: OpenAudit =
    world.open ??
    (() =>
      Promise.resolve({
        source: sourceOf([records], heads ? stream.heads : undefined),
        keys,
        close: () => {
          ran.closed += 1
          return Promise.resolve()
        },
      }))
  const program = new Command().exitOverride()
  const io = {
    write: (text: string) => void (ran.out += `${text}\n`),
    warn: (text: string) => void (ran.err += `${text}\n`),
    exit: (code: number) => void (ran.code = code),
    colours: { out: false, err: false },
    ...(showsProgress ? { progress: (text: string) => void (ran.err += text) } : {}),
  }
  addAuditCommands(program, io, open)
  await program.parseAsync(['audit', ...args], { from: 'user' })
  return ran
}

describe('sealgate audit verify', () => {
  test('prints the ranges and the verdict of a good audit, and exits 0', async () => {
    const { out, err, code, closed } = await run(['verify'])
    expect(out).toBe(
      [
        'SOURCE      OFFSETS  ENTRIES  SEGMENTS  BREAKS',
        'orders/0    [0, 4)   4        2         0',
        'payments/7  [0, 2)   2        1         0',
        '',
        '6 entries in 3 segments hold.',
        '4 events that producers numbered never came.',
        'Verified: complete and unaltered.',
        '',
      ].join('\n'),
    )
    expect({ err, code, closed }).toEqual({ err: '', code: 0, closed: 1 })
  })

  test('prints every break with its place and kind, and exits 1', async () => {
    const { out, code } = await run(['verify'], { records: stream.records.slice(1, -1) })
    expect(code).toBe(1)
    expect(out).toContain('NOT VERIFIED: 2 breaks.')
    expect(out).toContain('  missing: orders/0 [0, 3) at audit 0/2: 1 of the 3 entries of segment 1\n')
    expect(out).toContain(
      '  cut at the end: orders/0 [3, …): the position names segment 2; the chain ends at 1\n',
    )
  })

  test('gives the same as JSON', async () => {
    const { out, code } = await run(['verify', '--json'], { records: stream.records.slice(1) })
    expect(code).toBe(1)
    expect(JSON.parse(out)).toMatchObject({
      verified: false,
      headsKnown: true,
      entries: 3,
      segments: 2,
      breaks: [{ kind: 'missing', topic: 'orders', partition: 0, from: 0, next: 3, at: { auditOffset: 2 } }],
    })
  })

  test('says where it could not see a cut, and where nothing was there', async () => {
    expect((await run(['verify'], { heads: false })).out).toContain(
      'segments cut from the end would not show',
    )
    const empty = await run(['verify'], { records: [], heads: false })
    expect(empty.out).toContain('Nothing is there to verify.')
    expect(empty.out).not.toContain('Verified')
  })

  test('trusts the keys it is given instead of those it has', async () => {
    const right = join(folder, 'gate.jwk')
    const set = join(folder, 'set.json')
    await writeFile(right, JSON.stringify(exportPublicJwk(gate.publicKey)))
    await writeFile(
      set,
      JSON.stringify({
        keys: [exportPublicJwk(second.publicKey), { ...exportPublicJwk(newSigner().publicKey), kid: 'azE' }],
      }),
    )
    expect((await run(['verify', '--key', right], { keys: new Map() })).code).toBe(0)
    const { out, code } = await run(['verify', '--key', set])
    expect(code).toBe(1)
    expect(out).toContain('signed by an unknown key: orders/0')
    expect((await run(['verify', '--key', set, '--key', right])).code).toBe(0)
  })

  test('names every fault of what it is given at once, and exits 2 with nothing printed', async () => {
    const bad = join(folder, 'private.jwk')
    await writeFile(bad, JSON.stringify(exportPrivateJwk(generateKeyPair(ED25519).privateKey)))
    const none = join(folder, 'none.jwk')
    const ran = await run([
      'verify',
      '--from',
      'yesterday',
      '--to',
      '2026-13-01',
      '--key',
      bad,
      '--key',
      none,
    ])
    expect(ran).toMatchObject({ out: '', code: 2 })
    for (const where of [
      '--from',
      '--to',
      'private.jwk: Not a public key: a private key stands there.',
      'none.jwk: Not a readable',
    ])
      expect(ran.err).toContain(where)
    expect((await run(['verify'], { keys: new Map() })).code).toBe(2)
  })

  test('takes a span of time', async () => {
    const late = await run(['verify', '--json', '--from', '2026-11-18T11:07:00Z'])
    expect(JSON.parse(late.out)).toMatchObject({ verified: true, segments: 1, entries: 1 })
  })

  test('exits 3 where the audit cannot be reached', async () => {
    const open: OpenAudit = () => Promise.reject(new Outage('sink-unavailable', 'no broker'))
    expect(await run(['verify'], { open })).toMatchObject({
      out: '',
      code: 3,
      err: 'unreachable no broker (sink-unavailable)\n',
    })
  })

  test('shows progress only on a terminal', async () => {
    expect((await run(['verify'], { showsProgress: true })).err).toContain('9 records verified')
    expect((await run(['verify'])).err).toBe('')
  })
})

describe('sealgate audit search', () => {
  test('prints an entry a line, then the totals', async () => {
    const { out, code } = await run([
      'search',
      '--record',
      'orders/0',
      '--type',
      'com.example.*',
      '--limit',
      '1',
    ])
    expect(code).toBe(0)
    expect(out).toBe(
      [
        '2026-11-18T11:06:40.123Z  orders/0/0  event.admitted  User:shipping-service  com.example.order.shipped.v1 id-0',
        '',
        '4 of 6 entries found, 1 shown.',
        'By type:',
        '         4  event.admitted',
        'By principal, where proven:',
        '         4  User:shipping-service',
        '',
      ].join('\n'),
    )
  })

  test('gives entries and totals as JSON, a line each', async () => {
    const { out } = await run(['search', '--json', '--record', 'payments'])
    const lines = out.trimEnd().split('\n')
    expect(lines).toHaveLength(3)
    expect(JSON.parse(there(lines[0]))).toMatchObject({
      audit: '0/4',
      entry: { record: 'payments/7/0', result: 'success' },
    })
    expect(JSON.parse(there(lines[2]))).toMatchObject({
      totals: { found: 2, searched: 6, byType: { 'event.admitted': 2 } },
    })
  })

  test('lets no text of a producer reach the terminal as a command or turn letters round', async () => {
    const iss = 'a\u001b[31mred\u202e\nnext'
    const entry = encodeEntry({
      kind: 'event.rejected',
      timeMs: 0,
      topic: 'orders',
      partition: 0,
      offset: 0n,
      policy,
      trace: null,
      code: 'replayed',
      digest: null,
      event: { iss, kid: Buffer.from('k'), id: iss, source: iss, type: iss },
    })
    const { out } = await run(['search'], { records: [{ offset: 0n, key: null, value: entry }] })
    expect(out).toContain('a\\u{1b}[31mred\\u{202e} next')
    expect(out).not.toMatch(/\u001b|\u202e|\nnext/)
  })

  test('points to verify where records are no entries', async () => {
    const { out } = await run(['search'], {
      records: [{ offset: 0n, key: null, value: encodeEntry(admitted(0n)).subarray(1) }],
    })
    expect(out).toContain('1 records are no entries: run sealgate audit verify.')
  })

  test('names every fault of what it is asked at once, and exits 2', async () => {
    const ran = await run(['search', '--code', 'nonsense', '--since', '1', '--until', 'x', '--limit', '-1'])
    expect(ran).toMatchObject({ out: '', code: 2 })
    for (const flag of ['--code', '--since', '--until', '--limit']) expect(ran.err).toContain(flag)
  })
})
