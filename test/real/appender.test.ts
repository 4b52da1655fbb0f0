/** Writing outside any transaction: batches that topics take, in order, and where each message came to stand. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createKafkaAppender, type KafkaAppender } from '../../lib/adapters/kafka-appender.ts'
import type { Message } from '../../lib/ports.ts'
import { Cluster, settings, text, unique } from './world.ts'

const cluster = new Cluster()
const topic = `source.appended.${unique()}`
let appender: KafkaAppender
beforeAll(async () => {
  await cluster.createTopic(topic, 2)
  appender = createKafkaAppender(settings({}, 'producer'), { now: () => Date.now() })
})
afterAll(async () => {
  await appender.close()
  await cluster.end()
})

const message = (partition: number, key: string, value: Uint8Array | null = null): Message => ({
  ...{ topic, partition, key: Buffer.from(key), value },
  headers: [{ name: 'h', value: null }],
})

describe('an appender', () => {
  it('keeps the order of more than one batch takes, and says where each message stands', async () => {
    const large = Buffer.alloc(400_000, 'x')
    const names = ['a', 'b', 'c', 'd', 'e']
    const sent = names.map((name, index) => message(index === 3 ? 1 : 0, name, large))
    const places = await appender.append(sent)
    expect(places.map(({ partition, offset }) => `${partition}/${offset}`)).toEqual([
      ...['0/0', '0/1', '0/2', '1/0', '0/3'],
    ])
    expect(await appender.append([])).toEqual([])
    const [place] = await appender.append([message(1, 'f')])
    expect(place).toEqual({ topic, partition: 1, offset: 1n })
    const records = await cluster.readCommitted(topic)
    expect(records.map(({ partition, key }) => `${partition}${text(key)}`)).toEqual([
      '0a',
      '0b',
      '0c',
      '0e',
      '1d',
      '1f',
    ])
  })

  it('says what a broker does not take, and goes on after it', async () => {
    const refused = async (messages: readonly Message[]): Promise<unknown> =>
      appender.append(messages).catch((error: unknown) => error)
    const [before] = await appender.append([message(1, 'i')])
    const tooLarge = message(0, 'g', Buffer.alloc(1_100_000))
    expect(await refused([tooLarge])).toMatchObject({
      code: 'sink-denied',
      message: expect.stringContaining('max.message.bytes'),
    })
    expect(await refused([message(7, 'h')])).toMatchObject({
      code: 'sink-denied',
      message: expect.stringContaining('no partition 7'),
    })
    expect(await refused([{ ...message(0, 'i'), topic: 'output.not.ours' }])).toMatchObject({
      code: 'sink-denied',
    })
    const [place] = await appender.append([message(1, 'j')])
    expect(place?.offset).toBe((before?.offset ?? 0n) + 1n)
  })
})
