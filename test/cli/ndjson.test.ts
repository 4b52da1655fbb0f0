import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { type NdjsonLine, openNdjson, readNdjson } from '../../cli/ndjson.ts'
import { ConfigError } from '../../lib/errors.ts'

/** Reads a text in chunks of so many bytes. */
async function read(
  text: string | Uint8Array,
  options: { type?: string; maxLineBytes?: number; chunk?: number } = {},
): Promise<NdjsonLine[]> {
  const { chunk = 7, ...rest } = options
  const bytes = Buffer.from(text)
  const lines: NdjsonLine[] = []
  for await (const line of readNdjson(chunksOf(bytes, chunk), { name: 'events.ndjson', ...rest }))
    lines.push(line)
  return lines
}

async function* chunksOf(bytes: Buffer, size: number): AsyncGenerator<Uint8Array> {
  for (let start = 0; start < bytes.length; start += size) {
    await Promise.resolve()
    yield bytes.subarray(start, start + size)
  }
}

const data = (line: NdjsonLine | undefined): string | undefined =>
  line !== undefined && 'dataBytes' in line ? Buffer.from(line.dataBytes).toString() : undefined
const event = (line: NdjsonLine | undefined): unknown =>
  line !== undefined && 'event' in line ? line.event : undefined
const fault = (line: NdjsonLine | undefined): string | undefined =>
  line !== undefined && 'fault' in line ? line.fault.what : undefined

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
      ...CLOUD,
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
    const [plain] = await read('\n\n  {"specversion":"1.0","total":1.10} \n', { type: 'com.example.cart.v1' })
    expect([plain?.line, event(plain), data(plain)]).toEqual([
      3,
      { type: 'com.example.cart.v1' },
      '{"specversion":"1.0","total":1.10}',
    ])
    const envelopes = await read(
      '{"eventType":"t.v1","timestamp":"2026-11-22T09:15:00Z","payload":{"n":1.10}}\n' +
        '{"payload":[],"eventType":"t.v1","timestamp":1732266900000}\n{"eventType":"t.v1","payload":7}',
    )
    expect(envelopes.map(event)).toEqual([
      { type: 't.v1', time: '2026-11-22T09:15:00Z' },
      { type: 't.v1', time: '2024-11-22T09:15:00.000Z' },
      { type: 't.v1' },
    ])
    expect(envelopes.map(data)).toEqual(['{"n":1.10}', '[]', '7'])
  })

  it('hold other content types: bytes in base64, and texts', async () => {
    const lines = await read(
      [
        cloud({ datacontenttype: 'application/avro', data_base64: 'AAEC/w==' }),
        cloud({ datacontenttype: 'text/plain', data: 'häuser' }),
        cloud({ datacontenttype: 'application/vnd.x+json', data: 'text' }),
        cloud({ datacontenttype: 'Application/JSON; charset=utf-8', data: 'text' }),
        cloud({ data_base64: 'AAEC/w' }),
        cloud({ data_base64: 'AA==', data: 1 }),
      ].join('\n'),
    )
    expect(lines.slice(0, 4).map(data)).toEqual(['\u0000\u0001\u0002\ufffd', 'häuser', '"text"', '"text"'])
    expect(lines.slice(4).map(fault)).toEqual([
      'data_base64 is not base64.',
      'The event has both data and data_base64.',
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
        '{"eventType":"t","payload":1,"source":"x"}',
        '{"eventType":"t","payload":1,"timestamp":"yesterday"}',
        '{"total":1}',
        '{"__proto__":{"type":"t"},"data":1}',
        deep,
      ].join('\n'),
    )
    expect(lines.map((line) => [line.line, fault(line)])).toEqual([
      [1, 'The line is not JSON.'],
      [2, undefined],
      [3, 'The line is no JSON object.'],
      [4, 'The name "type" stands there twice.'],
      [5, 'The name "type" stands there twice.'],
      [6, 'The attribute "id" is no text.'],
      [7, 'The attribute "subject" is no text.'],
      [8, 'The event has no data.'],
      [9, 'The specversion is "0.3".'],
      [10, 'The event has no type.'],
      [11, 'The envelope has a member "source".'],
      [12, 'timestamp is no time.'],
      [13, 'The line is neither a CloudEvent nor an {eventType, timestamp, payload} envelope.'],
      [14, 'The line is neither a CloudEvent nor an {eventType, timestamp, payload} envelope.'],
      [15, undefined],
    ])
  })

  it('are UTF-8 without a byte order mark', async () => {
    const lines = await read(Buffer.from('\ufeff{"type":"t","data":1}\n{"type":"\xff","data":1}', 'latin1'))
    expect(lines.map(fault)).toEqual(['The line is not UTF-8.', 'The line is not UTF-8.'])
    expect((await read('\ufeff{"type":"t","data":1}')).map(fault)).toEqual([
      'The line begins with a byte order mark.',
    ])
  })

  it('that are too long are skipped without being kept', async () => {
    const good = '{"type":"t","data":1}'
    const lines = await read(`${good}\n"${'x'.repeat(300_000)}"\n${good}\n${'y'.repeat(101)}`, {
      maxLineBytes: 100,
      chunk: 1000,
    })
    expect(lines.map(fault)).toEqual([
      undefined,
      'The line is longer than 100 bytes.',
      undefined,
      'The line is longer than 100 bytes.',
    ])
  })

  it('come from a file, or it is said why not', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'ndjson-'))
    try {
      const path = join(folder, 'events.ndjson')
      writeFileSync(path, `${cloud({ data: 1 })}\n`)
      const lines: NdjsonLine[] = []
      for await (const line of readNdjson(await openNdjson(path), { name: path })) lines.push(line)
      expect(lines.map(data)).toEqual(['1'])
      await expect(openNdjson(folder)).rejects.toThrow(ConfigError)
      await expect(openNdjson(join(folder, 'none'))).rejects.toThrow('ENOENT')
    } finally {
      rmSync(folder, { recursive: true })
    }
  })
})
