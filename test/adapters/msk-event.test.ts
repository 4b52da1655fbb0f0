import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { SourceSlice, Stop } from '../../lib/admission/slice.ts'
import { answer, slicesOf, toMskEvent } from '../../lib/adapters/msk-event.ts'
import { Outage } from '../../lib/errors.ts'
import type { SourceRecord } from '../../lib/ports.ts'

const ORIGIN = {
  eventSourceArn:
    'arn:aws:kafka:us-east-1:0123456789019:cluster/SalesCluster/abcd1234-abcd-cafe-abab-9876543210ab-4',
  bootstrapServers: 'b-2.demo-cluster-1.a1bcde.c1.kafka.us-east-1.amazonaws.com:9092',
}

/** The record of AWS's documentation, as JSON text, since the order of its fields counts. */
const DOCUMENTED_RECORD =
  '{"topic":"mytopic","partition":0,"offset":15,"timestamp":1545084650987,"timestampType":"CREATE_TIME","key":"cmVjb3JkS2V5",' +
  '"value":"eyJrZXkiOiJ2YWx1ZSJ9","headers":[{"headerKey":[104,101,97,100,101,114,86,97,108,117,101]}]}'
const DOCUMENTED = `{"eventSource":"aws:kafka","eventSourceArn":"${ORIGIN.eventSourceArn}","bootstrapServers":"${ORIGIN.bootstrapServers}","records":{"mytopic-0":[${DOCUMENTED_RECORD}]}}`

const bytes = (text: string): Uint8Array => new TextEncoder().encode(text)

const parsed = (text: string): Record<string, unknown> => {
  const value: unknown = JSON.parse(text)
  return Object.fromEntries(Object.entries(value ?? {}))
}

/** An event whose one record is the documented one with other fields. */
const eventWith = (fields: Record<string, unknown>, name = 'mytopic-0'): unknown => ({
  ...parsed(DOCUMENTED),
  records: { [name]: [{ ...parsed(DOCUMENTED_RECORD), ...fields }] },
})

const onlyRecord = (event: unknown): SourceRecord => {
  const [slice, ...others] = slicesOf(event)
  expect(others).toEqual([])
  expect(slice!.records).toHaveLength(1)
  return slice!.records[0]!
}

const outageOf = (event: unknown): Outage => {
  try {
    slicesOf(event)
  } catch (error) {
    expect(error).toBeInstanceOf(Outage)
    if (error instanceof Outage) return error
  }
  throw new Error('it was taken')
}

const anyBytes = fc.option(fc.uint8Array({ maxLength: 50 }))
const anyRecord: fc.Arbitrary<SourceRecord> = fc.record({
  topic: fc.constantFrom('orders', 'orders-1', 'orders-1-2', '__proto__', 'a.b_c-'),
  partition: fc.nat(20),
  offset: fc.maxSafeNat().map(BigInt),
  timestamp: fc.maxSafeInteger(),
  timestampType: fc.constantFrom('CreateTime', 'LogAppendTime'),
  key: anyBytes,
  value: anyBytes,
  headers: fc.array(
    fc.record({
      name: fc.oneof(fc.string({ unit: 'binary' }), fc.constantFrom('__proto__', '0', '')),
      value: anyBytes,
    }),
    { maxLength: 4 },
  ),
})

const placeOf = ({ topic, partition, offset }: SourceRecord): string => `${topic}/${partition}/${offset}`
const anyRecords = fc.uniqueArray(anyRecord, { selector: placeOf, maxLength: 30 })

describe('a Lambda Kafka event', () => {
  it('is read as AWS documents it', () => {
    const slices = slicesOf(JSON.parse(DOCUMENTED))
    expect(slices).toEqual([
      {
        topic: 'mytopic',
        partition: 0,
        records: [
          {
            topic: 'mytopic',
            partition: 0,
            offset: 15n,
            timestamp: 1545084650987,
            timestampType: 'CreateTime',
            key: bytes('recordKey'),
            value: bytes('{"key":"value"}'),
            headers: [{ name: 'headerKey', value: bytes('headerValue') }],
          },
        ],
      },
    ])
  })

  it('is written byte for byte as AWS documents it', () => {
    const records = slicesOf(JSON.parse(DOCUMENTED)).flatMap((slice) => slice.records)
    expect(JSON.stringify(toMskEvent(records, ORIGIN))).toBe(DOCUMENTED)
    expect(JSON.stringify(toMskEvent(records, { ...ORIGIN, selfManaged: true }))).toBe(
      `{"eventSource":"SelfManagedKafka","bootstrapServers":"${ORIGIN.bootstrapServers}","records":{"mytopic-0":[${DOCUMENTED_RECORD}]}}`,
    )
  })

  it('gives back every record, by partition and in offset order, whatever order they were written in', () => {
    fc.assert(
      fc.property(anyRecords, fc.boolean(), (records, selfManaged) => {
        const text = JSON.stringify(toMskEvent(records, { ...ORIGIN, selfManaged }))
        const slices = slicesOf(JSON.parse(text))
        const expected = Map.groupBy(records, ({ topic, partition }) => `${topic}/${partition}`)
        expect(slices).toEqual(
          [...expected.values()].map((group) => ({
            topic: group[0]!.topic,
            partition: group[0]!.partition,
            records: group.sort((one, other) => (one.offset < other.offset ? -1 : 1)),
          })),
        )
      }),
      { numRuns: 300 },
    )
  })

  it('is refused as an outage, and in no other way, whatever it is', () => {
    fc.assert(
      fc.property(
        fc.oneof(
          fc.jsonValue(),
          fc.record({ eventSource: fc.constant('aws:kafka'), records: fc.jsonValue() }),
        ),
        (event) => {
          try {
            slicesOf(event)
          } catch (error) {
            expect(error).toBeInstanceOf(Outage)
          }
        },
      ),
    )
  })

  it('never drops a record when one field of one record is replaced by anything: it is read, or it is an outage', () => {
    const field = fc.constantFrom(
      'topic',
      'partition',
      'offset',
      'timestampType',
      'key',
      'value',
      'headers',
      'timestamp',
    )
    fc.assert(
      fc.property(field, fc.jsonValue(), (name, value) => {
        try {
          expect(slicesOf(eventWith({ [name]: value })).flatMap((slice) => slice.records)).toHaveLength(1)
        } catch (error) {
          expect(error).toBeInstanceOf(Outage)
        }
      }),
      { numRuns: 500 },
    )
  })

  it('without records gives no slices', () => {
    expect(slicesOf({ ...parsed(DOCUMENTED), records: {} })).toEqual([])
    expect(slicesOf({ ...parsed(DOCUMENTED), records: { 'mytopic-0': [] } })).toEqual([])
  })

  it.each([
    ['an event that is no object', 'text'],
    ['null', null],
    ['another source', { ...parsed(DOCUMENTED), eventSource: 'aws:sqs' }],
    ['records missing', { ...parsed(DOCUMENTED), records: undefined }],
    ['records as a list', { ...parsed(DOCUMENTED), records: [] }],
    ['a partition that is no list', { ...parsed(DOCUMENTED), records: { 'mytopic-0': {} } }],
    ['a record that is null', { ...parsed(DOCUMENTED), records: { 'mytopic-0': [null] } }],
    ['a topic that Kafka has not', eventWith({ topic: 'my topic' }, 'my topic-0')],
    ['another topic than its list', eventWith({ topic: 'yours' })],
    ['another partition than its list', eventWith({ partition: 1 })],
    ['a partition as text', eventWith({ partition: '0' })],
    ['an offset as text', eventWith({ offset: '15' })],
    ['an offset below 0', eventWith({ offset: -1 })],
    ['an offset that JSON does not carry exactly', eventWith({ offset: 2 ** 53 })],
    ['an offset with a fraction', eventWith({ offset: 1.5 })],
    ['a timestamp as text', eventWith({ timestamp: '2018-12-17' })],
    ['an unknown timestamp type', eventWith({ timestampType: 'NO_TIMESTAMP_TYPE' })],
    ['base64 without padding', eventWith({ value: 'eyJrZXkiOiJ2YWx1ZSJ' })],
    ['base64url', eventWith({ value: '-_-_' })],
    ['base64 with a line break', eventWith({ key: 'cmVj\nb3JkS2V5' })],
    ['base64 with bits that no encoder sets', eventWith({ key: 'AB==' })],
    ['a value that is a number', eventWith({ value: 5 })],
    ['headers that are an object', eventWith({ headers: { headerKey: [1] } })],
    ['a header with two names', eventWith({ headers: [{ a: [1], b: [2] }] })],
    ['a header without a name', eventWith({ headers: [{}] })],
    ['a header value in base64', eventWith({ headers: [{ headerKey: 'aGVhZGVy' }] })],
    ['a header byte above 255', eventWith({ headers: [{ headerKey: [256] }] })],
    ['a header byte below -128', eventWith({ headers: [{ headerKey: [-129] }] })],
    ['a header byte with a fraction', eventWith({ headers: [{ headerKey: [0.5] }] })],
    [
      'a record that a schema registry has decoded',
      eventWith({ valueSchemaMetadata: { dataFormat: 'JSON' } }),
    ],
  ])('with %s is an outage that says where', (_, event) => {
    const outage = outageOf(event)
    expect(outage.code).toBe('unexpected')
    expect(outage.message).toMatch(/^Lambda event: (the event|eventSource|records)[^]*[^.]\. [A-Z][^]*\.$/)
  })

  it('never shows what a record holds in its errors', () => {
    const event = eventWith({ value: 'c2VjcmV0LXBheWxvYWQ*', key: 'c2VjcmV0LWtleQ==' })
    expect(outageOf(event).message).not.toMatch(/c2Vj|secret/)
  })

  it('takes an absent or null key or value for none, and an empty one for no bytes', () => {
    for (const none of [undefined, null]) {
      expect(onlyRecord(eventWith({ key: none, value: none }))).toMatchObject({ key: null, value: null })
    }
    expect(onlyRecord(eventWith({ key: '', value: '' }))).toMatchObject({
      key: new Uint8Array(),
      value: new Uint8Array(),
    })
  })

  it('takes header bytes signed and unsigned, null values, absent headers, and names as they come', () => {
    const headers: unknown = JSON.parse('[{"a":[-128,-1,0,127]},{"a":[128,255]},{"__proto__":null},{"":[]}]')
    expect(onlyRecord(eventWith({ headers })).headers).toEqual([
      { name: 'a', value: Uint8Array.of(128, 255, 0, 127) },
      { name: 'a', value: Uint8Array.of(128, 255) },
      { name: '__proto__', value: null },
      { name: '', value: new Uint8Array() },
    ])
    expect(onlyRecord(eventWith({ headers: undefined })).headers).toEqual([])
  })

  it('writes header bytes as signed numbers', () => {
    const record = {
      ...onlyRecord(JSON.parse(DOCUMENTED)),
      headers: [{ name: 'a', value: Uint8Array.of(0, 127, 128, 255) }],
    }
    expect(JSON.stringify(toMskEvent([record], ORIGIN))).toContain('"headers":[{"a":[0,127,-128,-1]}]')
  })

  it('takes whatever timestamp a producer may have set', () => {
    for (const timestamp of [-1, -(2 ** 63), 2 ** 63]) {
      expect(onlyRecord(eventWith({ timestamp })).timestamp).toBe(timestamp)
    }
    expect(onlyRecord(eventWith({ timestampType: 'LOG_APPEND_TIME' })).timestampType).toBe('LogAppendTime')
  })

  it('ignores fields that AWS may add', () => {
    expect(onlyRecord(eventWith({ leaderEpoch: 3, valueSchemaMetadata: null })).offset).toBe(15n)
  })

  it("finds topics that look like other topics' partitions", () => {
    expect(onlyRecord(eventWith({ topic: 'mytopic-0', partition: 1 }, 'mytopic-0-1'))).toMatchObject({
      topic: 'mytopic-0',
      partition: 1,
    })
  })

  it('keeps an identical redelivery once and refuses a different record at the same offset', () => {
    const record = parsed(DOCUMENTED_RECORD)
    const twice = (other: unknown): unknown => ({
      ...parsed(DOCUMENTED),
      records: { 'mytopic-0': [record, { ...record, offset: 16 }, other] },
    })
    expect(slicesOf(twice(record)).flatMap((slice) => slice.records.map(({ offset }) => offset))).toEqual([
      15n,
      16n,
    ])
    expect(outageOf(twice({ ...record, value: '' })).message).toContain('two different records at offset 15')
  })

  it('refuses to write an offset that JSON does not carry exactly', () => {
    const record = { ...onlyRecord(JSON.parse(DOCUMENTED)), offset: 2n ** 53n }
    expect(() => toMskEvent([record], ORIGIN)).toThrow(RangeError)
  })
})

describe('the answer to Lambda', () => {
  const record = onlyRecord(JSON.parse(DOCUMENTED))
  const sliceOf = (topic: string, partition: number, ...offsets: bigint[]): SourceSlice => ({
    topic,
    partition,
    records: offsets.map((offset) => ({ ...record, topic, partition, offset })),
  })
  const slices = [
    sliceOf('topic', 0, 122n, 123n, 125n),
    sliceOf('topic', 1, 7n),
    sliceOf('topic-0', 2, 9n, 10n),
  ]
  const stopAt = (topic: string, partition: number, offset: bigint): Stop => ({
    topic,
    partition,
    offset,
    outage: new Outage('key-service-unavailable', 'The key service gave no answer.'),
  })

  it('is nothing where nothing stopped, and an empty list in partial mode', () => {
    expect(answer([], 'throw', slices)).toBeUndefined()
    expect(answer([], 'partial', slices)).toEqual({ batchItemFailures: [] })
  })

  it('throws one error that names every stop and keeps the outages', () => {
    const stops = [stopAt('topic', 0, 123n), stopAt('topic-0', 2, 9n)]
    try {
      answer(stops, 'throw', slices)
    } catch (error) {
      expect(error).toBeInstanceOf(AggregateError)
      expect(error).toMatchObject({ errors: stops.map(({ outage }) => outage), cause: stops[0]!.outage })
      expect(String(error)).toContain('topic-0 at offset 123: key-service-unavailable')
      expect(String(error)).toContain('topic-0-2 at offset 9: key-service-unavailable')
      return
    }
    throw new Error('it did not throw')
  })

  it('names every undecided record in partial mode, since Lambda retries just those it is told', () => {
    expect(answer([stopAt('topic', 0, 123n), stopAt('topic-0', 2, 9n)], 'partial', slices)).toEqual({
      batchItemFailures: [
        { itemIdentifier: { partition: 'topic-0', offset: 123 } },
        { itemIdentifier: { partition: 'topic-0', offset: 125 } },
        { itemIdentifier: { partition: 'topic-0-2', offset: 9 } },
        { itemIdentifier: { partition: 'topic-0-2', offset: 10 } },
      ],
    })
  })

  it('throws in partial mode too where a stop has no record of the event: it must not read as success', () => {
    expect(() => answer([stopAt('topic', 1, 8n)], 'partial', slices)).toThrow(AggregateError)
    expect(() => answer([stopAt('other', 0, 0n)], 'partial', slices)).toThrow(AggregateError)
  })
})
