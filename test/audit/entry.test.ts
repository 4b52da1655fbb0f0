import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import {
  encodeEntry,
  type Entry,
  isVerifiedCode,
  MAX_CLAIMED_LENGTH,
  parseEntry,
  placeOf,
  recordKey,
} from '../../lib/audit/entry.ts'
import { digest } from '../../lib/envelope/crypto.ts'
import { REJECTION_CODES } from '../../lib/errors.ts'
import { admitted, policy, there } from './fixtures.ts'

const json = (entry: Entry): unknown => JSON.parse(encodeEntry(entry).toString())

const claims = { iss: 'mallory', kid: Buffer.from([251, 255]), id: '1', source: '/x', type: 't' }

const rejected = (change: Partial<Extract<Entry, { kind: 'event.rejected' }>> = {}): Entry => ({
  kind: 'event.rejected',
  timeMs: 1_795_000_000_000,
  topic: 'orders',
  partition: 3,
  offset: 7n,
  policy,
  trace: null,
  code: 'signature-invalid',
  digest: Buffer.alloc(32, 1),
  event: claims,
  ...change,
})

const control: Entry = {
  kind: 'directory.loaded',
  timeMs: 1_795_000_000_000,
  topic: '_control',
  partition: 0,
  offset: 0n,
  policy,
  principal: null,
  resource: 'directory:42',
  success: true,
}

const text = fc.string({ unit: 'binary', maxLength: 300 })
const hash = fc.uint8Array({ minLength: 32, maxLength: 32 })
const fields = {
  timeMs: fc.integer({ min: 0, max: 4e12 }),
  topic: fc.stringMatching(/^[a-zA-Z0-9._-]{1,20}$/),
  partition: fc.nat(),
  offset: fc.bigInt({ min: 0n, max: 2n ** 63n - 1n }),
  policy: fc.record({ bundle: hash, directory: fc.nat() }),
}
const event = fc.record({
  iss: text,
  kid: fc.uint8Array({ minLength: 1, maxLength: 64 }),
  id: text,
  source: text,
  type: text,
})
const entries: fc.Arbitrary<Entry> = fc.oneof(
  fc.record({
    kind: fc.constant('event.admitted' as const),
    ...fields,
    digest: hash,
    event,
    outputs: fc.array(fc.record({ channel: text, consumer: text }), { maxLength: 3 }),
    trace: fc.constantFrom(
      null,
      '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
      'no trace',
      '<script>',
    ),
  }),
  fc.record({
    kind: fc.constant('event.rejected' as const),
    ...fields,
    code: fc.constantFrom(...REJECTION_CODES),
    digest: fc.option(hash),
    event: fc.option(event),
    trace: fc.constant(null),
  }),
  fc.record({
    kind: fc.constantFrom('key.rotated' as const, 'directory.loaded' as const),
    ...fields,
    principal: fc.option(text),
    resource: text,
    success: fc.boolean(),
  }),
)

describe('entries', () => {
  test('an admitted event has the fields of audit.md §1, in order, and nothing else', () => {
    expect(encodeEntry(admitted(1841n)).toString()).toBe(
      '{"timestamp":"2026-11-18T11:06:40.123Z","event_type":"event.admitted","principal":"User:shipping-service"' +
        ',"result":"success","source_ip":null,"resource":"topic:orders","operation":"Write","record":"orders/0/1841"' +
        ',"code":null,"event":{"id":"id-1841","source":"/shipping","type":"com.example.order.shipped.v1","kid":"azE"' +
        `,"digest":"sha256:${digest(Buffer.from('orders 1841')).toString('hex')}"},"claimed":null` +
        ',"outputs":[{"channel":"orders.notifications","consumer":"notifications"}]' +
        `,"policy":{"bundle":"sha256:${policy.bundle.toString('hex')}","directory":42}` +
        ',"trace":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}',
    )
  })

  test('a field that is not on the list stays out, wherever it is planted', () => {
    const secret = 'CANARY'
    const entry = admitted(1n)
    if (entry.kind !== 'event.admitted') throw new Error('not admitted')
    const planted = {
      ...entry,
      payload: secret,
      event: { ...entry.event, subject: secret },
      outputs: entry.outputs.map((output) => ({ ...output, value: secret })),
      policy: { ...policy, key: secret },
    }
    expect(encodeEntry(planted).toString()).not.toContain(secret)
    expect(parseEntry(encodeEntry(planted))).toBeDefined()
  })

  test('what a record claims before its signature is verified stands under claimed, and names no principal', () => {
    for (const code of REJECTION_CODES) {
      const entry = json(rejected({ code }))
      if (isVerifiedCode(code))
        expect(entry).toMatchObject({ principal: 'User:mallory', claimed: null, code })
      else expect(entry).toMatchObject({ principal: null, claimed: { iss: 'mallory', kid: '-_8' }, code })
    }
    expect(REJECTION_CODES.filter(isVerifiedCode)).toEqual([
      'audience-mismatch',
      'time-invalid',
      'type-unknown',
      'not-authorised',
      'replayed',
      'over-limit',
      'undecryptable',
      'schema-invalid',
    ])
  })

  test('claimed texts are cut, never through the middle of a character', () => {
    for (const filler of ['x', '😀', 'x😀']) {
      const long = filler.repeat(600)
      const { claimed } = json(
        rejected({ event: { ...claims, iss: long, id: long, source: long, type: long } }),
      ) as {
        claimed: Record<string, string>
      }
      for (const name of ['iss', 'id', 'source', 'type']) {
        expect(there(claimed[name]).length).toBeLessThanOrEqual(MAX_CLAIMED_LENGTH)
        expect(there(claimed[name]).isWellFormed()).toBe(true)
        expect(there(claimed[name]).endsWith('…')).toBe(true)
      }
    }
  })

  test('a record that did not parse is recorded by its place, code and digest alone', () => {
    expect(json(rejected({ code: 'malformed', event: null }))).toMatchObject({
      principal: null,
      claimed: null,
      event: { digest: `sha256:${'01'.repeat(32)}` },
      record: 'orders/3/7',
    })
    expect(json(rejected({ code: 'value-missing', event: null, digest: null }))).toMatchObject({
      event: { digest: null },
    })
  })

  test('a traceparent that is none is left out', () => {
    const good = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'
    const bad = [
      '',
      'x',
      good.toUpperCase(),
      `ff${good.slice(2)}`,
      `${good}-`,
      good.replace('0af7651916cd43dd8448eb211c80319c', '0'.repeat(32)),
      `${good}\n`,
    ]
    expect(json(rejected({ trace: good }))).toMatchObject({ trace: good })
    for (const trace of bad) expect(json(rejected({ trace }))).toMatchObject({ trace: null })
  })

  test('a control entry names who did what to what', () => {
    expect(
      json({ ...control, kind: 'key.rotated', principal: 'User:alice', resource: 'key:k1', success: false }),
    ).toMatchObject({
      event_type: 'key.rotated',
      principal: 'User:alice',
      resource: 'key:k1',
      result: 'failure',
      record: '_control/0/0',
    })
  })

  test('every entry reads back as the same bytes, whatever its texts are', () => {
    fc.assert(
      fc.property(entries, (entry) => {
        const bytes = encodeEntry(entry)
        const parsed = parseEntry(bytes)
        expect(parsed).toBeDefined()
        expect(encodeEntry(there(parsed))).toEqual(bytes)
        expect(parsed).toMatchObject({ kind: entry.kind, timeMs: entry.timeMs, offset: entry.offset })
      }),
      { numRuns: 300 },
    )
  })

  test('only what encodeEntry writes is an entry', () => {
    const bytes = encodeEntry(admitted(1n)).toString()
    const others = [
      '',
      'null',
      '[]',
      '{}',
      '['.repeat(200_000),
      bytes.replace('{', '{ '),
      `${bytes} `,
      bytes.replace('"code":null,', '"code":null,"code":null,'),
      bytes.replace('{', '{"__proto__":{"record":"orders/0/1"},'),
      bytes.replace('"result":"success"', '"result":"failure"'),
      bytes.replace('event.admitted', 'event.unknown'),
      bytes.replace('orders/0/1', 'orders/0/01'),
    ]
    for (const other of others) expect(parseEntry(Buffer.from(other))).toBeUndefined()
  })

  test('bytes that are no entry never make an exception', () => {
    const valid = encodeEntry(rejected())
    fc.assert(
      fc.property(fc.nat(valid.length - 1), fc.nat(255), (index, byte) => {
        const changed = Buffer.from(valid)
        changed[index] = byte
        const parsed = parseEntry(changed)
        if (parsed !== undefined) expect(encodeEntry(parsed)).toEqual(changed)
      }),
      { numRuns: 2_000 },
    )
  })

  test('a record’s key is read back only as it is written', () => {
    expect(placeOf(recordKey('a.b-c_D', 2, 2n ** 62n))).toEqual({
      topic: 'a.b-c_D',
      partition: 2,
      offset: 2n ** 62n,
    })
    for (const key of [
      '',
      'a/1',
      'a/1/2/3',
      'a/01/2',
      'a/1/-2',
      '/1/2',
      'a b/1/2',
      'a/1/2\n',
      `${'x'.repeat(250)}/1/2`,
    ])
      expect(placeOf(key)).toBeUndefined()
  })
})
