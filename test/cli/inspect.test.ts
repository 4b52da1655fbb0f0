import { readFileSync } from 'node:fs'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { inspect } from '../../cli/inspection.ts'
import { parseRecordInput } from '../../cli/record.ts'
import { parseVectorFile, type Vector } from '../../lib/admission/vector-file.ts'
import { toEventRecord } from '../../lib/adapters/msk-event.ts'
import { ConfigError } from '../../lib/errors.ts'
import { sealgate } from './terminal.ts'

const vectorsOf = (name: string): readonly Vector[] =>
  parseVectorFile(name, readFileSync(new URL(`../vectors/${name}`, import.meta.url), 'utf8')).vectors
const vector = (name: string, of: string): Vector => {
  const found = vectorsOf(of).find((each) => each.name === name)
  if (found === undefined) throw new Error(`no vector ${name}`)
  return found
}
const single = vector('ed25519', 'single.json')
const value = Buffer.from(single.record.value ?? [])
/** Ten minutes after the vectors' own time. */
const around = { nowMs: single.nowMs + 600_000 }

describe('sealgate inspect', () => {
  let folder: string
  let file: string
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'sealgate-inspect-'))
    file = join(folder, 'value')
    await writeFile(file, value)
  })
  afterAll(() => rm(folder, { recursive: true }))

  it('says in words who, what, where and when, and that nothing is verified', async () => {
    const { out, status } = await sealgate(['inspect', file], around)
    expect(out).toContain(`A sealed event, version 1: ${value.length} bytes.\nNothing here is verified`)
    expect(out).toContain('issuer        urn:example:svc:checkout')
    expect(out).toContain('signed with   Ed25519 (COSE -19), kid ')
    expect(out).toContain('type          com.example.order.placed.v1')
    expect(out).toMatch(/expires {7}2026-09-\d\dT\S+Z \(in \d+ \w+\)/)
    expect(out).toContain('proof         of this event alone')
    expect(status).toBe(0)
  })

  it('reads binary, hexadecimal, base64, a record of Lambda, and standard input alike', async () => {
    const expected = JSON.parse((await sealgate(['inspect', file, '--json'], around)).out)
    const forms = [value, value.toString('hex'), value.toString('base64'), `${value.toString('hex')}\n`]
    for (const input of forms) {
      const { out } = await sealgate(['inspect', '--json'], { ...around, input })
      expect(JSON.parse(out)).toEqual(expected)
    }
    const record = JSON.stringify(toEventRecord(single.record))
    const { out } = await sealgate(['inspect', '--json'], { ...around, input: record })
    expect(JSON.parse(out)).toMatchObject({ ...expected, record: { topic: 'shop.orders', partition: 3 } })
  })

  it('tells an event of a batch, its place in it, and where it has expired', async () => {
    const { record, nowMs } = vector('of-5-at-3', 'batch.json')
    const { out } = await sealgate(['inspect'], {
      nowMs: nowMs + 86_400_000,
      input: Buffer.from(record.value ?? []),
    })
    expect(out).toContain('event 4 of a batch of 5: one signature, a path of 3 hashes')
    expect(out).toMatch(/expires {7}\S+ \(\d+ hours ago\)/)
  })

  it.each(
    vectorsOf('malformed.json').filter(
      ({ expect: verdict, record }) => verdict !== 'admitted' && record.value,
    ),
  )(
    'shows why and where $name would be refused, as admission says, and exits 1',
    async ({ record, expect: verdict }) => {
      const { refusal } = inspect({ value: record.value, record: undefined, stored: undefined })
      // The vectors' own limit of 4,096 bytes is not ours.
      if (verdict !== 'oversize' || refusal !== undefined) expect(refusal?.code).toBe(verdict)
      if (refusal === undefined) return
      const { out, status } = await sealgate(['inspect'], { input: Buffer.from(record.value ?? []) })
      expect(out).toMatch(/where {9}in the (body|proof|outer array), /)
      expect(status).toBe(1)
    },
  )

  it('names the part that is at fault', () => {
    const placeOf = (name: string): string | undefined =>
      inspect({ value: vector(name, 'malformed.json').record.value, record: undefined, stored: undefined })
        .refusal?.place
    expect(placeOf('no-kc')).toMatch(/^in the body, bytes 9 to \d+$/)
    expect(placeOf('proof-alg')).toMatch(/^in the proof, bytes \d+ to \d+$/)
    expect(placeOf('trailing-outer')).toMatch(/^in the outer array, near byte \d+ of \d+$/)
  })

  it('sees hints that contradict what is signed', async () => {
    const { record } = vector('ce-type-differs', 'headers.json')
    const { out, status } = await sealgate(['inspect'], { input: JSON.stringify(toEventRecord(record)) })
    expect(out).toContain('hint-mismatch')
    expect(status).toBe(1)
  })

  it('lets nothing through that a terminal obeys', async () => {
    const headers = { 'x\u001b[2J': 'y\u001b]0;z\u0007' }
    const input = JSON.stringify({
      topic: 't',
      partition: 0,
      key: null,
      headers,
      value: value.toString('base64'),
    })
    const { out } = await sealgate(['inspect'], { ...around, input })
    expect(out).toContain('header        x\\u{1b}[2J: y\\u{1b}]0;z\\u{7}')
  })

  it.each([
    [['--hex'], 'xyz', 'It is no hexadecimal.'],
    [['--base64'], '%', 'It is no base64.'],
    [['--hex', '--base64'], '00', 'It cannot be base64 too.'],
    [[], '{', 'It is no JSON.'],
    [[], '{"topic":"t"}', 'It has no topic, or no partition from 0.'],
    [[], '{"topic":"t","partition":0,"value":"%"}', 'Its value is no base64.'],
  ])('refuses %j of %s', async (flags, input, message) => {
    const { err, status } = await sealgate(['inspect', ...flags], { input })
    expect(err).toContain(message)
    expect(status).toBe(2)
  })

  it('takes any bytes without an exception but bad input', () => {
    const mutated = fc
      .tuple(fc.nat(value.length - 1), fc.nat(255))
      .map(([at, byte]) => Buffer.concat([value.subarray(0, at), Buffer.of(byte), value.subarray(at + 1)]))
    fc.assert(
      fc.property(fc.oneof(mutated, fc.uint8Array(), fc.json().map(Buffer.from)), (bytes) => {
        try {
          inspect(parseRecordInput('x', bytes))
        } catch (error) {
          expect(error).toBeInstanceOf(ConfigError)
        }
      }),
      { numRuns: 3000 },
    )
  })
})
