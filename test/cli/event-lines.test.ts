import { describe, expect, it } from 'vitest'
import {
  BadLine,
  type LineDefaults,
  type LineEvent,
  MAX_LINE_BYTES,
  readEvent,
  readLines,
} from '../../cli/event-lines.ts'

/** What a line came to. */
interface ReadLine {
  readonly line: number
  readonly event?: LineEvent
  readonly fault?: string
}

const NO_DEFAULTS: LineDefaults = { type: undefined, source: undefined, key: undefined }

/** Reads a text in chunks of so many bytes. */
async function read(
  text: string | Uint8Array,
  { chunk = 7, ...defaults }: Partial<LineDefaults> & { readonly chunk?: number } = {},
): Promise<ReadLine[]> {
  const all: ReadLine[] = []
  for await (const lines of readLines(chunksOf(Buffer.from(text), chunk)))
    for (const { number, bytes } of lines)
      all.push({ line: number, ...outcome(bytes, { ...NO_DEFAULTS, ...defaults }) })
  return all
}

function outcome(bytes: Uint8Array | undefined, defaults: LineDefaults): Omit<ReadLine, 'line'> {
  if (bytes === undefined) return { fault: 'too long' }
  try {
    return { event: readEvent(bytes, defaults) }
  } catch (error) {
    if (error instanceof BadLine) return { fault: error.message }
    throw error
  }
}

async function* chunksOf(bytes: Buffer, size: number): AsyncGenerator<Uint8Array> {
  for (let start = 0; start < bytes.length; start += size) {
    await Promise.resolve()
    yield bytes.subarray(start, start + size)
  }
}

const data = (line: ReadLine | undefined): string | undefined =>
  line?.event?.dataBytes && Buffer.from(line.event.dataBytes).toString()
const fault = (line: ReadLine | undefined): string | undefined => line?.fault
/** The attributes alone. */
function event(line: ReadLine | undefined): unknown {
  return JSON.parse(JSON.stringify({ ...line?.event, dataBytes: undefined }))
}

const NEITHER =
  'It is neither a CloudEvent (specversion, type, source, data) nor an envelope (eventType, timestamp, payload).'
const NOT_UTF8 = 'It is not UTF-8, or begins with a byte order mark.'

const CLOUD = { specversion: '1.0', id: 'A-1', source: '/shop', type: 'com.example.order.v1' }
const cloud = (more: Record<string, unknown>): string => JSON.stringify({ ...CLOUD, ...more })

describe('events as lines of JSON', () => {
  it('are CloudEvents with their attributes, extensions and partitionkey', async () => {
    const [line, ...more] = await read(
      cloud({
        time: '2026-11-22T09:15:00Z',
        subject: 's',
        partitionkey: 'c7',
        retries: 3,
        dry: true,
        gone: null,
        data: {},
      }),
    )
    expect(more).toEqual([])
    expect(event(line)).toEqual({
      ...{ id: 'A-1', source: '/shop', type: 'com.example.order.v1' },
      time: '2026-11-22T09:15:00Z',
      subject: 's',
      key: 'c7',
      extensions: { partitionkey: 'c7', retries: '3', dry: 'true' },
    })
  })

  it('keep the payload as it stands, digit by digit and blank by blank, wherever data stands', async () => {
    const payload = '{ "n": 12345678901234567890, "price" : 1.10, "t":"\\u00e9 \\" } ,", "a":[1e400,[]] }'
    const lines = await read(
      [
        `{"data":${payload},"specversion":"1.0","type":"t","source":"/s"}`,
        `{"type":"t","source":"/s", "data" : ${payload} }`,
        '{"type":"t","source":"/s","data":1.10}',
        '{"type":"t","source":"/s","data":"text"}',
        '{"type":"t","source":"/s","data":null}',
      ].join('\r\n'),
      { chunk: 1 },
    )
    expect(lines.map(data)).toEqual([payload, payload, '1.10', '"text"', 'null'])
  })

  it('are payloads of a given type, or envelopes', async () => {
    const [plain] = await read('\n\n  {"specversion":1.0,"total":1.10} \n', { type: 'com.example.cart.v1' })
    expect([plain?.line, event(plain), data(plain)]).toEqual([
      3,
      { type: 'com.example.cart.v1', key: null },
      '{"specversion":1.0,"total":1.10}',
    ])
    const envelopes = await read(
      '{"eventType":"t.v1","timestamp":"2026-11-22T09:15:00Z","payload":{"n":1.10}}\n' +
        '{"payload":[],"eventType":"t.v1","timestamp":1732266900000}\n{"eventType":"t.v1","payload":7}',
    )
    expect(envelopes.map(event)).toEqual([
      { type: 't.v1', time: '2026-11-22T09:15:00Z', key: null },
      { type: 't.v1', time: '2024-11-22T09:15:00.000Z', key: null },
      { type: 't.v1', key: null },
    ])
    expect(envelopes.map(data)).toEqual(['{"n":1.10}', '[]', '7'])
  })

  it('hold other content types: bytes in base64, and texts', async () => {
    const lines = await read(
      [
        cloud({ datacontenttype: 'application/avro', data_base64: 'AAEC/w==' }),
        cloud({ datacontenttype: 'text/plain', data: 'häuser' }),
        cloud({ datacontenttype: 'application/vnd.x+json', data: 'text' }),
        cloud({ datacontenttype: 'application/json; charset=utf-8', data: 'text' }),
        cloud({ data_base64: 'AAEC/w' }),
        cloud({ data_base64: 'AA==', data: 1 }),
      ].join('\n'),
    )
    expect(lines.slice(0, 4).map(data)).toEqual(['\u0000\u0001\u0002\ufffd', 'häuser', '"text"', '"text"'])
    expect(lines.slice(4).map(fault)).toEqual([
      'Its data_base64 is not base64.',
      'It has no data, or data and data_base64 both.',
    ])
  })

  it('that are wrong are named with their line, and the others are read all the same', async () => {
    const deep = `{"type":"t","source":"/s","data":${'['.repeat(100_000)}${']'.repeat(100_000)}}`
    const lines = await read(
      [
        '{"type":',
        cloud({ data: 1 }),
        '[1]',
        '{"type":"t","type":"u","data":1}',
        '{"type":"t","\\u0074ype":"u","data":1}',
        cloud({ id: 7, data: 1 }),
        cloud({ subject: {}, data: 1 }),
        cloud({}),
        cloud({ specversion: '0.3', data: 1 }),
        '{"specversion":"1.0","data":1}',
        '{"eventType":"t","payload":1,"extra":{}}',
        '{"eventType":"t","payload":1,"timestamp":"yesterday"}',
        '{"total":1}',
        '{"__proto__":{"type":"t"},"data":1}',
        deep,
      ].join('\n'),
    )
    expect(lines.map((line) => [line.line, fault(line)])).toEqual([
      [1, 'It is not JSON.'],
      [2, undefined],
      [3, 'It is JSON, but no object.'],
      [4, 'It holds a name twice.'],
      [5, 'It holds a name twice.'],
      [6, 'Its id is no text.'],
      [7, 'Its subject is no text.'],
      [8, 'It has no data, or data and data_base64 both.'],
      [9, 'Its specversion is not 1.0.'],
      [10, 'It has no type.'],
      [11, 'A member beside the payload is no text, number or boolean (extra).'],
      [12, 'Its timestamp is no time.'],
      [13, NEITHER],
      [14, NEITHER],
      [15, undefined],
    ])
  })

  it('have a time of RFC 3339, in CloudEvents and envelopes alike', async () => {
    const sound = ['2026-11-22T09:15:00Z', '2024-02-29t23:59:60.123456789+14:00', '0000-01-01T00:00:00-00:00']
    const wrong = [
      ...['yesterday', '2026-11-22', '2026-11-22 09:15:00Z', '2026-11-22T09:15:00', '2026-02-29T00:00:00Z'],
      ...[
        '2026-04-31T00:00:00Z',
        '2026-11-22T24:00:00Z',
        '2026-13-01T00:00:00Z',
        '2026-11-22T09:15:00+0100',
        '',
      ],
    ]
    const faultsOf = async (line: (time: string) => string, times: string[]): Promise<unknown[]> =>
      (await read(times.map(line).join('\n'))).map(fault)
    const cloudEvent = (time: string): string => JSON.stringify({ type: 't', time, data: 1 })
    const envelope = (timestamp: string): string => JSON.stringify({ eventType: 't', timestamp, payload: 1 })
    for (const line of [cloudEvent, envelope])
      expect(await faultsOf(line, sound)).toEqual(sound.map(() => undefined))
    expect(await faultsOf(cloudEvent, wrong)).toEqual(wrong.map(() => 'Its time is no time of RFC 3339.'))
    expect(await faultsOf(envelope, wrong)).toEqual(wrong.map(() => 'Its timestamp is no time.'))
    const number = (ms: string): string => `{"eventType":"t","timestamp":${ms},"payload":1}`
    expect(await faultsOf(number, ['253402300799999', '253402300800000'])).toEqual([
      undefined,
      'Its timestamp is no time.',
    ])
  })

  it('are UTF-8 without a byte order mark', async () => {
    const lines = await read(Buffer.from('\ufeff{"type":"t","data":1}\n{"type":"\xff","data":1}', 'latin1'))
    expect(lines.map(fault)).toEqual([NOT_UTF8, NOT_UTF8])
    expect((await read('\ufeff{"type":"t","data":1}')).map(fault)).toEqual([NOT_UTF8])
  })

  it('that are too long are skipped without being kept', async () => {
    const good = '{"type":"t","data":1}'
    const long = 'x'.repeat(MAX_LINE_BYTES)
    const lines = await read(`${good}\n"${long}"\n${good}\n${long}y`, { chunk: 1_000_000 })
    expect(lines.map(fault)).toEqual([undefined, 'too long', undefined, 'too long'])
  })
})
