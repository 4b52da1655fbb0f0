import { describe, expect, it } from 'vitest'
import { createSealer } from '../../lib/client/sealer.ts'
import { type EventInput, RefusedEvents } from '../../lib/client/event.ts'
import { createOpener } from '../../lib/client/opener.ts'
import type { SealedBatch, SealedMessage, SealerOptions } from '../../lib/client/sealer-options.ts'
import { Outage, Rejection } from '../../lib/errors.ts'
import { parse } from '../../lib/envelope/format.ts'
import { partitionOf } from '../../lib/envelope/partition.ts'
import { localSigner } from '../../lib/keys/signer.ts'
import { generateKeyPair } from '../../lib/envelope/crypto.ts'
import { ESP256 } from '../../lib/envelope/suite.ts'
import type { Contract, Contracts } from '../../lib/contract/contract.ts'
import { areWiped, eventOf, received, shop, START, there } from './shop.ts'

const event = (fields: Partial<EventInput> = {}): EventInput => ({
  source: '/shipping',
  type: 'shipped',
  data: { n: 1 },
  ...fields,
})

const numberOf = (message: SealedMessage): bigint => parse(message.value, 2 ** 24).body.claims.number
const numbersOf = (messages: readonly SealedMessage[]): number[] => messages.map(numberOf).map(Number)

async function refusalsOf(sealing: SealerOptions, events: unknown): Promise<RefusedEvents> {
  const sealer = createSealer(sealing)
  try {
    // As a JavaScript caller would.
    await Reflect.apply(sealer.seal, sealer, ['orders', events])
  } catch (error) {
    if (error instanceof RefusedEvents) return error
    throw error
  } finally {
    await sealer.close()
  }
  throw new Error('nothing was refused')
}

/** Waits until `done` holds; bounded. */
async function until(done: () => boolean): Promise<void> {
  const end = performance.now() + 5000
  while (!done()) {
    if (performance.now() > end) throw new Error('waited too long')
    await new Promise((resolve) => setTimeout(resolve, 1))
  }
}

/** A broker whose answers are given by hand. */
class HandBroker {
  readonly batches: SealedBatch[] = []
  readonly #answers: { resolve: () => void; reject: (error: Error) => void }[] = []
  readonly deliver = (batch: SealedBatch): Promise<void> => {
    this.batches.push(batch)
    return new Promise((resolve, reject) => this.#answers.push({ resolve, reject }))
  }

  take(): void {
    this.#answers.shift()?.resolve()
  }

  refuse(): void {
    this.#answers.shift()?.reject(new Error('broker said no'))
  }
}

describe('options of the sealer', () => {
  it('names every unknown option and every wrong value at once', () => {
    const { sealing } = shop()
    const wrong = { ...sealing, iss: '', audiance: 'x', lifeSeconds: 86_401, partitions: 0 }
    const make = (): unknown => Reflect.apply(createSealer, undefined, [wrong])
    expect(make).toThrow(TypeError)
    expect(make).toThrow(
      /audiance: unknown option.*\n(.*\n)*iss must be.*\n(.*\n)*partitions must.*\n(.*\n)*lifeSeconds must/,
    )
  })

  it('refuses options that are no object, and names from a prototype', () => {
    expect(() => Reflect.apply(createSealer, undefined, [undefined]) as unknown).toThrow(TypeError)
    const options: unknown = JSON.parse('{"__proto__":1}')
    const make = (): unknown => Reflect.apply(createSealer, undefined, [options])
    expect(() => make()).toThrow(/__proto__: unknown option/)
  })
})

describe('sessions and numbers', () => {
  it('counts the events of each channel and partition from 0 and never twice', async () => {
    const sealer = createSealer(shop().sealing)
    const first = await sealer.seal('orders', [
      event({ partition: 1 }),
      event({ partition: 2 }),
      event({ partition: 1 }),
    ])
    const second = await sealer.seal('orders', event({ partition: 1 }))
    const other = await sealer.seal('payments', event({ partition: 1 }))
    expect(numbersOf(first.messages)).toEqual([0, 0, 1])
    expect(numbersOf(second.messages)).toEqual([2])
    expect(numbersOf(other.messages)).toEqual([0])
    await sealer.close()
  })

  it('makes a new session for each sealer', () => {
    const { sealing } = shop()
    expect(createSealer(sealing).session).not.toEqual(createSealer(sealing).session)
  })

  it('does not give a number again to what could not be signed', async () => {
    const { sealing } = shop()
    let fails = true
    const signer = {
      ...sealing.signer,
      sign: (bytes: Uint8Array, deadline: number) =>
        fails ? Promise.reject(new Outage('signer-unavailable', 'no')) : sealing.signer.sign(bytes, deadline),
    }
    const sealer = createSealer({ ...sealing, signer })
    await expect(sealer.seal('orders', event({ partition: 0 }))).rejects.toThrow(Outage)
    fails = false
    const { messages } = await sealer.seal('orders', event({ partition: 0 }))
    expect(numbersOf(messages)).toEqual([1])
  })
})

describe('partitions', () => {
  it('takes the partition of a key as Kafka does', async () => {
    const sealer = createSealer({ ...shop().sealing, partitions: 7 })
    const keys = Array.from({ length: 50 }, (_, index) => `key-${index}`)
    const { messages } = await sealer.seal(
      'orders',
      keys.map((key) => event({ key })),
    )
    expect(messages.map(({ partition }) => partition)).toEqual(
      keys.map((key) => partitionOf(Buffer.from(key), 7)),
    )
    expect(messages.map(({ key }) => key?.toString())).toEqual(keys)
  })

  it('sends the keyless events of one call to one partition and those of the next to another', async () => {
    const sealer = createSealer(shop().sealing)
    const partitions: number[] = []
    for (let call = 0; call < 4; call++) {
      const { messages } = await sealer.seal('orders', [event(), event(), event()])
      const distinct = new Set(messages.map(({ partition }) => partition))
      expect(distinct.size).toBe(1)
      partitions.push(...distinct)
    }
    expect(new Set(partitions)).toEqual(new Set([0, 1, 2, 3]))
  })

  it('refuses a partition that the topic does not have, and seals nothing of the call', async () => {
    const { sealing, keyService } = shop()
    const refused = await refusalsOf(sealing, [event(), event({ partition: 4 })])
    expect(refused.message).toContain('events[1].partition: is 4, but orders has 4 partitions.')
    expect(keyService.generated).toBe(0)
  })

  it('asks for the number of partitions once in 5 minutes, and again after a failure', async () => {
    const { sealing, clock } = shop()
    const asked: string[] = []
    let fails = true
    const partitions = (topic: string): Promise<number> => {
      asked.push(topic)
      return fails ? Promise.reject(new Error('no broker')) : Promise.resolve(3)
    }
    const sealer = createSealer({ ...sealing, partitions, topicOf: (channel) => `eu.${channel}` })
    await expect(sealer.seal('orders', event())).rejects.toMatchObject({ code: 'sink-unavailable' })
    fails = false
    await Promise.all([sealer.seal('orders', event()), sealer.seal('orders', event())])
    clock.ms += 299_999
    await sealer.seal('orders', event())
    expect(asked).toEqual(['eu.orders', 'eu.orders'])
    clock.ms += 1
    expect((await sealer.seal('orders', event())).topic).toBe('eu.orders')
    expect(asked.length).toBe(3)
  })

  it('calls an answer that is no number of partitions a fault of the program', async () => {
    const sealer = createSealer({ ...shop().sealing, partitions: () => Number.NaN })
    await expect(sealer.seal('orders', event())).rejects.toThrow(TypeError)
  })
})

describe('batches', () => {
  it('signs the events of one partition once, and one event by itself', async () => {
    const { sealing } = shop()
    let signatures = 0
    const signer = {
      ...sealing.signer,
      sign: (bytes: Uint8Array, deadline: number) => {
        signatures += 1
        return sealing.signer.sign(bytes, deadline)
      },
    }
    const sealer = createSealer({ ...sealing, signer })
    const { messages } = await sealer.seal(
      'orders',
      Array.from({ length: 100 }, () => event({ partition: 0 })),
    )
    expect(signatures).toBe(1)
    const sizes = messages.map(({ value }) => parse(value, 2 ** 24).proof.receipt?.treeSize)
    expect(new Set(sizes)).toEqual(new Set([100]))
    const single = there((await sealer.seal('orders', event())).messages[0])
    expect(parse(single.value, 2 ** 24).proof.receipt).toBeUndefined()
  })

  it('keeps the order of the events over several partitions', async () => {
    const { sealing, opening } = shop()
    const sealer = createSealer(sealing)
    const ids = Array.from({ length: 40 }, (_, index) => `id-${index}`)
    const { topic, messages } = await sealer.seal(
      'orders',
      ids.map((id, index) => event({ id, partition: index % 4 })),
    )
    const opener = createOpener(opening)
    const opened = await Promise.all(
      messages.map((message) =>
        opener.open({ topic, partition: message.partition, message: received(message) }),
      ),
    )
    expect(opened.map((each) => eventOf(each).id)).toEqual(ids)
  })

  it('seals with ESP256 too', async () => {
    const signer = localSigner(generateKeyPair(ESP256).privateKey)
    const { messages } = await createSealer({ ...shop().sealing, signer }).seal('orders', event())
    expect(parse(there(messages[0]).value, 2 ** 24).proof.alg).toBe(-9)
  })

  it('resolves to no messages for no events', async () => {
    expect((await createSealer(shop().sealing).seal('orders', [])).messages).toEqual([])
  })
})

describe('sending', () => {
  it('has one delivery under way in a partition, and sends what waits together in the next', async () => {
    const broker = new HandBroker()
    const sealer = createSealer({ ...shop().sealing, deliver: broker.deliver })
    const first = sealer.send('orders', event({ partition: 0 }))
    await until(() => broker.batches.length === 1)
    const others = Array.from({ length: 200 }, () => sealer.send('orders', event({ partition: 0 })))
    await new Promise((resolve) => setTimeout(resolve, 20))
    expect(broker.batches.length).toBe(1)
    broker.take()
    await first
    await until(() => broker.batches.length === 2)
    broker.take()
    await Promise.all(others)
    expect(broker.batches.flatMap(({ messages }) => numbersOf(messages))).toEqual([...Array(201).keys()])
    await sealer.close()
  })

  it('keeps numbers in order while data keys and signatures come in any order', async () => {
    const { sealing } = shop()
    const sent: number[] = []
    const signer = {
      ...sealing.signer,
      sign: async (bytes: Uint8Array, deadline: number) => {
        await new Promise((resolve) => setTimeout(resolve, Math.random() * 3))
        return sealing.signer.sign(bytes, deadline)
      },
    }
    const deliver = (batch: SealedBatch): Promise<void> => {
      sent.push(...numbersOf(batch.messages))
      return Promise.resolve()
    }
    const sealer = createSealer({ ...sealing, signer, deliver, maxUses: 10 })
    const calls: Promise<void>[] = []
    for (let call = 0; call < 100; call++) {
      calls.push(sealer.send('orders', event({ partition: 0, type: `type-${call % 3}` })))
      if (call % 7 === 0) await new Promise((resolve) => setTimeout(resolve, 1))
    }
    await Promise.all(calls)
    expect(sent).toEqual([...Array(100).keys()])
  })

  it('lets no partition wait for another', async () => {
    const broker = new HandBroker()
    const sealer = createSealer({ ...shop().sealing, deliver: broker.deliver })
    const stuck = sealer.send('orders', event({ partition: 0 }))
    await until(() => broker.batches.length === 1)
    const other = sealer.send('orders', event({ partition: 1 }))
    await until(() => broker.batches.length === 2)
    broker.take()
    broker.take()
    await Promise.all([stuck, other])
  })

  it('tells the callers of a delivery that failed, and goes on with the next', async () => {
    const broker = new HandBroker()
    const sealer = createSealer({ ...shop().sealing, deliver: broker.deliver })
    const first = sealer.send('orders', event({ partition: 0 }))
    await until(() => broker.batches.length === 1)
    const second = sealer.send('orders', event({ partition: 0 }))
    broker.refuse()
    await expect(first).rejects.toThrow('broker said no')
    await until(() => broker.batches.length === 2)
    broker.take()
    await second
  })

  it('leaves what was only to be sealed alone when a delivery fails', async () => {
    const broker = new HandBroker()
    const sealer = createSealer({ ...shop().sealing, deliver: broker.deliver })
    const sent = sealer.send('orders', event({ partition: 0 }))
    const { messages } = await sealer.seal('orders', event({ partition: 0 }))
    expect(numbersOf(messages)).toEqual([1])
    expect(broker.batches.map((batch) => numbersOf(batch.messages))).toEqual([[0]])
    broker.refuse()
    await expect(sent).rejects.toThrow('broker said no')
  })

  it('gives Kafka no more at once than a batch may hold', async () => {
    const sizes: number[] = []
    const deliver = ({ messages }: SealedBatch): Promise<void> => {
      sizes.push(messages.reduce((sum, { value }) => sum + value.length, 0))
      return Promise.resolve()
    }
    const sealer = createSealer({ ...shop().sealing, deliver, maxBatchBytes: 100_000 })
    const events = Array.from({ length: 300 }, () => event({ partition: 0, data: 'x'.repeat(1000) }))
    await sealer.send('orders', [...events, event({ partition: 0, data: 'x'.repeat(200_000) })])
    expect(sizes.length).toBeGreaterThan(4)
    expect(sizes.filter((size) => size > 100_000).length).toBe(1)
    // The estimate is close: batches are not far from full.
    expect(there(sizes[0])).toBeGreaterThan(60_000)
  })

  it('refuses more than may wait, before it is sealed', async () => {
    const broker = new HandBroker()
    const sealer = createSealer({ ...shop().sealing, deliver: broker.deliver, maxWaitingBytes: 10_000 })
    const first = sealer.send('orders', event({ partition: 0, data: 'x'.repeat(20_000) }))
    await expect(sealer.send('orders', event({ partition: 1 }))).rejects.toMatchObject({
      code: 'sink-unavailable',
    })
    await until(() => broker.batches.length === 1)
    broker.take()
    await first
    const next = sealer.send('orders', event({ partition: 1 }))
    await until(() => broker.batches.length === 2)
    broker.take()
    await next
  })

  it('is not possible without deliver', async () => {
    await expect(createSealer(shop().sealing).send('orders', event())).rejects.toThrow(TypeError)
  })
})

describe('data keys of the sealer', () => {
  it('serve one event type, and no longer than told', async () => {
    const { sealing, keyService, clock } = shop()
    const sealer = createSealer({ ...sealing, maxAgeMs: 60_000 })
    await sealer.seal('orders', [event(), event(), event({ type: 'other' })])
    expect(keyService.generated).toBe(2)
    clock.ms += 60_000
    await sealer.seal('orders', event())
    expect(keyService.generated).toBe(3)
  })

  it('fail sealing when there is none to be had: nothing goes out', async () => {
    const { sealing, keyService, clock } = shop()
    const broker = new HandBroker()
    const sealer = createSealer({ ...sealing, maxAgeMs: 60_000, deliver: broker.deliver })
    keyService.failure = new Outage('key-service-denied', 'disabled')
    await expect(sealer.send('orders', event())).rejects.toMatchObject({ code: 'key-service-denied' })
    keyService.failure = undefined
    await sealer.seal('orders', event())
    clock.ms += 60_000
    keyService.failure = new Outage('key-service-denied', 'disabled')
    await expect(sealer.seal('orders', event())).rejects.toThrow(Outage)
    expect(broker.batches).toEqual([])
  })

  it('that one type lacks fail the calls with that type and no others', async () => {
    const { sealing, keyService } = shop()
    keyService.failingTypes.add('denied')
    const sealer = createSealer(sealing)
    const [good, bad, worse, last] = await Promise.allSettled([
      sealer.seal('orders', event({ partition: 0 })),
      sealer.seal('orders', event({ partition: 0, type: 'denied' })),
      sealer.seal('orders', [event({ partition: 0 }), event({ partition: 0, type: 'denied' })]),
      sealer.seal('orders', event({ partition: 0 })),
    ])
    expect([good.status, bad.status, worse.status, last.status]).toEqual([
      'fulfilled',
      'rejected',
      'rejected',
      'fulfilled',
    ])
    // The type that lacks a key was asked for once in that group.
    expect(keyService.generated).toBe(2)
  })

  it('are wiped by close, which waits for what is under way', async () => {
    const broker = new HandBroker()
    const { sealing, keyService } = shop()
    const sealer = createSealer({ ...sealing, deliver: broker.deliver })
    const sent = sealer.send('orders', event())
    let isClosed = false
    const closing = sealer.close().then(() => {
      isClosed = true
    })
    await until(() => broker.batches.length === 1)
    expect(isClosed).toBe(false)
    expect(areWiped(keyService.handed)).toBe(false)
    broker.take()
    await Promise.all([sent, closing])
    expect(areWiped(keyService.handed)).toBe(true)
    await expect(sealer.seal('orders', event())).rejects.toThrow('has been closed')
  })

  it('wait for a signer no longer than told', async () => {
    const { sealing } = shop()
    const signer = { ...sealing.signer, sign: () => new Promise<Uint8Array>(() => undefined) }
    const sealer = createSealer({ ...sealing, signer, timeoutMs: 20 })
    await expect(sealer.seal('orders', event())).rejects.toMatchObject({ code: 'signer-unavailable' })
  })

  it('are not used for a signature of another length', async () => {
    const { sealing } = shop()
    const signer = { ...sealing.signer, sign: () => Promise.resolve(new Uint8Array(63)) }
    await expect(createSealer({ ...sealing, signer }).seal('orders', event())).rejects.toThrow(Outage)
  })
})

describe('events that are refused before anything is spent', () => {
  it('are all named, with every fault, and none of the call is sealed', async () => {
    const { sealing, keyService } = shop()
    const cycle: { self?: unknown } = {}
    cycle.self = cycle
    const refused = await refusalsOf(sealing, [
      event(),
      { source: '/shipping', data: 1, extra: true },
      event({ id: '', subject: 'x'.repeat(1025), time: '\ud800' }),
      event({ extensions: { 'Bad-Name': 'x', data: 'x', good: '' } }),
      event({ data: undefined }),
      event({ data: cycle }),
      event({ data: 'half a smile \ud83d' }),
      event({ data: 1n }),
      event({ dataBytes: Buffer.from('1') }),
      event({ datacontenttype: 'text/plain' }),
      { ...event(), key: 5 },
      { ...event(), partition: -1 },
      { ...event(), specversion: '0.3' },
      event({ time: 'yesterday' }),
      null,
      'text',
    ])
    const lines = refused.refusals.map(({ where, code }) => `${where} ${code ?? '-'}`)
    expect(lines).toEqual([
      'events[1].extra -',
      'events[1].type malformed',
      'events[2].id malformed',
      'events[2].time malformed',
      'events[2].subject oversize',
      'events[3].extensions.Bad-Name malformed',
      'events[3].extensions.data malformed',
      'events[3].extensions.good malformed',
      'events[4].data -',
      'events[5].data schema-invalid',
      'events[6].data schema-invalid',
      'events[7].data schema-invalid',
      'events[8].data -',
      'events[9].datacontenttype -',
      'events[10].key -',
      'events[11].partition -',
      'events[12].specversion unsupported',
      'events[13].time malformed',
      'events[14] malformed',
      'events[15] malformed',
    ])
    expect(keyService.generated).toBe(0)
  })

  it('have at most 32 attributes, and a value within the limit', async () => {
    const { sealing } = shop()
    const extensions = Object.fromEntries(Array.from({ length: 29 }, (_, index) => [`x${index}`, 'v']))
    expect((await refusalsOf(sealing, event({ extensions }))).refusals[0]?.code).toBe('oversize')
    const fewer = Object.fromEntries(Object.entries(extensions).slice(1))
    expect((await createSealer(sealing).seal('orders', event({ extensions: fewer }))).messages.length).toBe(1)
    const large = event({ data: 'x'.repeat(1_048_000) })
    expect((await refusalsOf(sealing, large)).message).toMatch(/over the limit of 1048576.*\[oversize\]/)
  })

  it('never makes a value over the limit, whatever the texts', async () => {
    const sealer = createSealer({ ...shop().sealing, maxValueBytes: 100_000 })
    const extensions = Object.fromEntries(
      Array.from({ length: 28 }, (_, index) => [`x${index}`, 'ü'.repeat(512)]),
    )
    const fits = event({ extensions, data: 'x'.repeat(66_000), partition: 0 })
    const { messages } = await sealer.seal(
      'orders',
      Array.from({ length: 300 }, () => fits),
    )
    expect(Math.max(...messages.map(({ value }) => value.length))).toBeLessThanOrEqual(100_000)
  })

  it('names the first twenty in its message and has all in refusals', async () => {
    const refused = await refusalsOf(shop().sealing, Array(50).fill({}))
    expect(refused.refusals.length).toBe(150)
    expect(refused.message.split('\n').length).toBe(22)
    expect(refused.message).toContain('and 130 more')
  })

  it('are those that the contracts would refuse, by code and without the payload', async () => {
    const { sealing } = shop()
    const contract: Contract = {
      type: 'shipped',
      channel: 'orders',
      description: '',
      owner: 'team-shipping',
      classification: 'internal',
      publish: new Map([['shipping-service', new Set(['/shipping'])]]),
      maxBytes: 100,
      perSecond: undefined,
      routes: [],
      payload: {
        check: (_type, bytes) => {
          if (Buffer.from(bytes).includes('secret'))
            throw new Rejection('schema-invalid', 'The payload does not fit.')
        },
      },
    }
    const contracts: Contracts = {
      digest: new Uint8Array(32),
      all: [contract],
      find: (channel, type) => (channel === 'orders' && type === 'shipped' ? contract : undefined),
    }
    const checked = { ...sealing, contracts }
    const refused = await refusalsOf(checked, [
      event({ data: 'fine' }),
      event({ type: 'unknown' }),
      event({ source: '/other' }),
      event({ data: 'x'.repeat(200) }),
      event({ data: 'a secret' }),
    ])
    expect(refused.refusals.map(({ index, code }) => [index, code])).toEqual([
      [1, 'type-unknown'],
      [2, 'not-authorised'],
      [3, 'over-limit'],
      [4, 'schema-invalid'],
    ])
    expect(refused.message).not.toContain('secret')
    const asOther = await refusalsOf({ ...checked, iss: 'other' }, event())
    expect(asOther.refusals[0]?.code).toBe('not-authorised')
  })

  it('names a channel that is none', async () => {
    await expect(createSealer(shop().sealing).seal('', event())).rejects.toThrow(TypeError)
  })
})

describe('what is sealed', () => {
  it('is a copy: changing it afterwards changes nothing', async () => {
    const { sealing, opening, keyService } = shop()
    let open = (): void => undefined
    keyService.gate = new Promise((resolve) => {
      open = resolve
    })
    const dataBytes = Buffer.from('{"n":1}')
    const key = Buffer.from('k')
    const sealer = createSealer(sealing)
    const sealing1 = sealer.seal('orders', { source: '/shipping', type: 'shipped', dataBytes, key })
    dataBytes.fill(0)
    key.fill(0)
    open()
    const { topic, messages } = await sealing1
    const message = there(messages[0])
    expect(message.key?.toString()).toBe('k')
    const opened = await createOpener(opening).open({
      topic,
      partition: message.partition,
      message: received(message),
    })
    expect(eventOf(opened).data).toEqual({ n: 1 })
  })

  it('has an id of its own, hints in its headers, and a life that starts now', async () => {
    const { sealing } = shop()
    const sealer = createSealer({ ...sealing, lifeSeconds: 60 })
    const message = there((await sealer.seal('orders', event())).messages[0])
    expect(message.headers['ce_id']).toMatch(
      /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/,
    )
    expect(message.headers).toEqual({
      'content-type': 'application/vnd.sealgate.event+cbor',
      ce_specversion: '1.0',
      ce_id: message.headers['ce_id'],
      ce_source: '/shipping',
      ce_type: 'shipped',
    })
    const { claims } = parse(message.value, 2 ** 24).body
    expect([claims.iat, claims.exp]).toEqual([BigInt(START / 1000), BigInt(START / 1000 + 60)])
  })
})
