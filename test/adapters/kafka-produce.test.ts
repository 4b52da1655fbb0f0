/** Produce requests of our own making, byte for byte those of kafkajs wherever it can make them. */
import fc from 'fast-check'
import protocol, { type ProduceOptions } from 'kafkajs/src/protocol/requests/index.js'
import { afterEach, describe, expect, it, vi } from 'vitest'
import { repairProduce } from '../../lib/adapters/kafka-produce.ts'
import { topicMessages } from '../../lib/adapters/kafka-wire.ts'
import type { Header, Message } from '../../lib/ports.ts'

const NOW = 1_790_000_000_123
const theirs = protocol.requests.Produce.protocol({ version: 7 })
repairProduce()
const ours = protocol.requests.Produce.protocol({ version: 7 })

afterEach(() => {
  vi.useRealTimers()
})

type Encode = typeof theirs

async function bytesOf(encode: Encode, options: ProduceOptions): Promise<Buffer> {
  vi.useFakeTimers({ now: NOW, toFake: ['Date'] })
  return Buffer.from((await encode(options).request.encode()).buffer)
}

const session = {
  acks: -1,
  timeout: 30_000,
  transactionalId: 'shop.orders.3',
  producerId: { toString: () => '9007199254740993' },
  producerEpoch: 7,
}

/** A request with the messages of each topic-partition together, as kafkajs brings them to its encoder. */
function requestOf(
  messages: readonly Message[],
  form: (ofTopic: readonly Message[]) => readonly object[],
  more: Partial<ProduceOptions> = {},
): ProduceOptions {
  const topicData = Array.from(
    Map.groupBy(messages, ({ topic }) => topic),
    ([topic, ofTopic]) => ({
      topic,
      partitions: Array.from(
        Map.groupBy(ofTopic, ({ partition }) => partition),
        ([partition, ofPartition]) => ({ partition, firstSequence: 41, messages: form(ofPartition) }),
      ),
    }),
  )
  return { ...session, ...more, topicData }
}

const wired = (messages: readonly Message[]): readonly object[] =>
  topicMessages(messages).flatMap((one) => one.messages)

/** As kafkajs asks for it: buffers, and an object of headers. */
const plain = (messages: readonly Message[]): readonly object[] =>
  messages.map(({ key, value, headers }) => ({
    key: key && Buffer.from(key),
    value: value && Buffer.from(value),
    headers: Object.fromEntries(headers.map((header) => [header.name, Buffer.from(header.value ?? [])])),
  }))

const anyBytes = (maxLength: number): fc.Arbitrary<Uint8Array> =>
  fc.oneof(
    fc.uint8Array({ maxLength: 20 }),
    fc.integer({ min: 0, max: maxLength }).map((length) => new Uint8Array(length).fill(length)),
  )

/** Names that an object keeps in their order. */
const anyName = fc
  .string({ unit: 'grapheme', maxLength: 80 })
  .filter((name) => !/^\d+$/.test(name) && name !== '__proto__')

const anyMessage = (headers: fc.Arbitrary<readonly Header[]>): fc.Arbitrary<Message> =>
  fc.record({
    topic: fc.constantFrom('orders', 'shop.audit'),
    partition: fc.integer({ min: 0, max: 3 }),
    key: fc.option(anyBytes(300)),
    value: fc.option(anyBytes(20_000)),
    headers,
  })

const tellable: fc.Arbitrary<readonly Header[]> = fc.uniqueArray(
  fc.record({ name: anyName, value: anyBytes(200) }),
  { maxLength: 6, selector: ({ name }) => name },
)

describe('a Produce request', () => {
  it('is byte for byte that of kafkajs, in and out of a transaction', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(anyMessage(tellable), { minLength: 1, maxLength: 30 }),
        fc.constantFrom<Partial<ProduceOptions>>(
          {},
          { transactionalId: undefined, producerId: { toString: () => '-1' }, producerEpoch: 0 },
        ),
        async (messages, more) => {
          const made = await bytesOf(ours, requestOf(messages, wired, more))
          expect(made.equals(await bytesOf(theirs, requestOf(messages, plain, more)))).toBe(true)
        },
      ),
      { numRuns: 150 },
    )
  })

  it.each([63, 64, 8191, 8192, 1_048_575, 1_048_576])('is so at a value of %d bytes too', async (length) => {
    const value = new Uint8Array(length).fill(7)
    const message = { topic: 'orders', partition: 0, key: null, value, headers: [] }
    const made = await bytesOf(ours, requestOf([message], wired))
    expect(made.equals(await bytesOf(theirs, requestOf([message], plain)))).toBe(true)
  })

  it('is so with so many records that their numbers need more bytes', async () => {
    const messages = Array.from({ length: 9000 }, (_, index) => ({
      topic: 'orders',
      partition: 0,
      key: null,
      value: Buffer.from(String(index)),
      headers: [],
    }))
    const made = await bytesOf(ours, requestOf(messages, wired))
    expect(made.equals(await bytesOf(theirs, requestOf(messages, plain)))).toBe(true)
  })

  it('keeps headers as they come: order, repeats, numbers, `__proto__`, null beside empty', async () => {
    const names = ['b', '2', 'a', '1', 'a', '__proto__', 'b', '']
    const headers = names.map((name, index) => ({
      name,
      value: index % 3 === 0 ? null : Buffer.alloc((index % 3) - 1, 7),
    }))
    const message = { topic: 'orders', partition: 0, key: null, value: Buffer.of(9), headers }
    const made = await bytesOf(ours, requestOf([message], wired))
    // Length, attributes, time, offset, no key, one byte of value; then eight headers of short lengths, zigzag.
    const expected = [16]
    for (const { name, value } of headers)
      expected.push(
        name.length * 2,
        ...Buffer.from(name),
        value === null ? 1 : value.length * 2,
        ...(value ?? []),
      )
    const record = [(6 + expected.length) * 2, 0, 0, 0, 1, 2, 9, ...expected]
    expect([...made.subarray(-record.length)]).toEqual(record)
  })

  it('is left to kafkajs where another made the messages', async () => {
    const message = { topic: 'orders', partition: 0, key: Buffer.of(1), value: Buffer.of(2), headers: [] }
    const made = await bytesOf(ours, requestOf([message], plain))
    expect(made.equals(await bytesOf(theirs, requestOf([message], plain)))).toBe(true)
  })

  it('is not made at all of our messages by kafkajs alone: it would write them empty', async () => {
    const message = { topic: 'orders', partition: 0, key: null, value: Buffer.of(2), headers: [] }
    await expect(bytesOf(theirs, requestOf([message], wired))).rejects.toThrow('not repaired')
  })
})
