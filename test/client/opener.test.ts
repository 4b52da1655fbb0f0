import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { EventInput } from '../../lib/client/event.ts'
import {
  createOpener,
  type KafkaMessage,
  type Opened,
  type OpenerOptions,
  type Sighting,
} from '../../lib/client/opener.ts'
import { createSealer } from '../../lib/client/sealer.ts'
import type { SealerOptions } from '../../lib/client/sealer-options.ts'
import { Outage, Rejection } from '../../lib/errors.ts'
import type { Contract, Contracts } from '../../lib/contract/contract.ts'
import type { DirectorySnapshot } from '../../lib/keys/directory.ts'
import {
  areWiped,
  directoryOf,
  eventOf,
  HandClock,
  KEK,
  kekRow,
  MemoryKeyService,
  producer,
  received,
  shop,
  START,
  there,
} from './shop.ts'

const event = (fields: Partial<EventInput> = {}): EventInput => ({
  source: '/shipping',
  type: 'shipped',
  data: { n: 1 },
  partition: 0,
  ...fields,
})

/** What a consumer of partition 0 of `orders` receives. */
async function sealed(sealing: SealerOptions, events: readonly EventInput[]): Promise<KafkaMessage[]> {
  const { messages } = await createSealer(sealing).seal('orders', events)
  return messages.map((message, offset) => received(message, String(offset)))
}

const openOne = (opening: OpenerOptions, message: KafkaMessage): Promise<Opened> =>
  createOpener(opening).open({ topic: 'orders', partition: 0, message })

const codeOf = (opened: Opened | undefined): string => (opened?.opened === false ? opened.code : 'opened')

/** Flips the lowest bit of one byte. */
function flipped(bytes: Uint8Array | null, index: number): Buffer {
  const copy = Buffer.from(there(bytes ?? undefined))
  copy[index] = (copy[index] ?? 0) ^ 1
  return copy
}

describe('options of the opener', () => {
  it('names every unknown option and every wrong value at once', () => {
    const { opening } = shop()
    const wrong = { ...opening, issuers: [], timestamp: 'LogAppendTime', timestampType: 'logAppendTime' }
    const make = (): unknown => Reflect.apply(createOpener, undefined, [wrong])
    expect(make).toThrow(TypeError)
    expect(make).toThrow(/timestamp: unknown option.*\n(.*\n)*issuers must.*\n(.*\n)*timestampType must/)
  })

  it('has no default for whose events count', () => {
    const without = Object.fromEntries(Object.entries(shop().opening).filter(([name]) => name !== 'issuers'))
    expect(() => Reflect.apply(createOpener, undefined, [without]) as unknown).toThrow(/issuers must be/)
  })
})

describe('opening', () => {
  it('gives a consumer what the producer sealed', async () => {
    const { sealing, opening } = shop()
    const sealer = createSealer(sealing)
    const { messages } = await sealer.seal('orders', {
      id: 'A-1',
      source: '/shipping',
      type: 'com.example.order.shipped.v1',
      time: '2026-09-21T00:00:00Z',
      subject: 'order/1',
      dataschema: 'https://example.com/shipped.json',
      data: { orderId: 'A-1', note: 'grüße' },
      key: 'A-1',
      partition: 0,
      extensions: { correlationid: 'c-1' },
      traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
    })
    const message = there(messages[0])
    expect(message.headers['traceparent']).toMatch(/^00-/)
    const opened = await openOne(opening, received(message))
    expect(eventOf(opened)).toEqual({
      id: 'A-1',
      source: '/shipping',
      type: 'com.example.order.shipped.v1',
      specversion: '1.0',
      time: '2026-09-21T00:00:00Z',
      subject: 'order/1',
      dataschema: 'https://example.com/shipped.json',
      datacontenttype: 'application/json',
      data: { orderId: 'A-1', note: 'grüße' },
      extensions: { correlationid: 'c-1' },
      iss: 'shipping-service',
      aud: 'gate',
      iat: START / 1000,
      exp: START / 1000 + 3600,
      number: 0n,
      session: Buffer.from(sealer.session).toString('hex'),
    })
    expect(opened.opened && Buffer.from(opened.payload).toString()).toBe('{"orderId":"A-1","note":"grüße"}')
  })

  it('gives back every event as it was, whatever its texts and data', async () => {
    const { sealing, opening } = shop()
    const sealer = createSealer({ ...sealing, partitions: 1 })
    const opener = createOpener(opening)
    const text = fc.string({ unit: 'grapheme', minLength: 1, maxLength: 50 })
    const input = fc.record(
      {
        ...{ source: text, type: text, id: text, subject: text, data: fc.jsonValue() },
        key: fc.option(fc.uint8Array({ maxLength: 20 })),
        extensions: fc.dictionary(fc.stringMatching(/^x[a-z0-9]{0,19}$/), text, { maxKeys: 5 }),
      },
      { requiredKeys: ['source', 'type', 'data'] },
    )
    await fc.assert(
      fc.asyncProperty(fc.array(input, { minLength: 1, maxLength: 5 }), async (events) => {
        const { topic, messages } = await sealer.seal('orders', events)
        const batch = { topic, partition: 0, messages: messages.map((message) => received(message)) }
        const opened = (await opener.openBatch(batch)).map(eventOf)
        for (const [index, { data, extensions = {}, ...rest }] of events.entries()) {
          const result = there(opened[index])
          const { source, type, id = result.id, subject } = rest
          expect(result).toMatchObject({ source, type, id, subject })
          expect(JSON.stringify(result.data)).toBe(JSON.stringify(data))
          expect({ ...result.extensions }).toEqual({ ...extensions })
        }
      }),
      { numRuns: 60 },
    )
  })

  it('gives other content types as bytes', async () => {
    const { sealing, opening } = shop()
    const text = { datacontenttype: 'text/plain', dataBytes: Buffer.from('hello') }
    const [message] = await sealed(sealing, [{ source: '/shipping', type: 'note', partition: 0, ...text }])
    const opened = await openOne(opening, there(message))
    expect(eventOf(opened)).toMatchObject({ data: undefined, datacontenttype: 'text/plain' })
    expect(opened.opened && Buffer.from(opened.payload).toString()).toBe('hello')
  })

  it('lends extensions no names from a prototype', async () => {
    const { sealing, opening } = shop()
    const [message] = await sealed(sealing, [event({ extensions: { constructor: 'mine' } })])
    const { extensions } = eventOf(await openOne(opening, there(message)))
    expect(extensions['constructor']).toBe('mine')
    expect(extensions['toString']).toBeUndefined()
  })

  it('takes repeated headers as kafkajs gives them', async () => {
    const { sealing, opening } = shop()
    const message = there((await sealed(sealing, [event({ id: 'x' })]))[0])
    const twice = { ...message, headers: { ...message.headers, ce_id: [Buffer.from('x'), Buffer.from('x')] } }
    const foreign = {
      ...message,
      headers: { ...message.headers, note: ['a', Buffer.from('b')], none: undefined },
    }
    expect(codeOf(await openOne(opening, twice))).toBe('hint-mismatch')
    expect(codeOf(await openOne(opening, foreign))).toBe('opened')
    expect(codeOf(await openOne(opening, { ...message, headers: undefined }))).toBe('opened')
  })
})

describe('what is refused, by code', () => {
  it('follows the order of admission', async () => {
    const { sealing, opening, clock, shipping } = shop()
    const message = there((await sealed(sealing, [event({ key: 'k' })]))[0])
    const stranger = producer('stranger')
    const cases: Record<string, () => Promise<Opened>> = {
      'value-missing': () => openOne(opening, { ...message, value: null }),
      oversize: () => openOne({ ...opening, maxValueBytes: 100 }, message),
      malformed: () => openOne(opening, { ...message, value: Buffer.from('{"plain":"json"}') }),
      'hint-mismatch': () => openOne(opening, { ...message, headers: { ce_type: Buffer.from('other') } }),
      'key-unknown': () => openOne({ ...opening, directory: directoryOf([stranger], []) }, message),
      'issuer-mismatch': () => {
        const row = { ...shipping.row, iss: 'another' }
        return openOne({ ...opening, directory: directoryOf([{ ...shipping, row }], []) }, message)
      },
      'key-not-valid': () => {
        const row = { ...shipping.row, state: 'suspended' as const }
        return openOne({ ...opening, directory: directoryOf([{ ...shipping, row }], []) }, message)
      },
      'signature-invalid': () => openOne(opening, { ...message, key: Buffer.from('other') }),
      'audience-mismatch': () => openOne({ ...opening, audience: 'other' }, message),
      'time-invalid': () => {
        const late = new HandClock()
        late.ms = clock.ms + 3601_000
        return openOne({ ...opening, clock: late }, message)
      },
      'not-authorised': () => openOne({ ...opening, issuers: ['gateway'] }, message),
      undecryptable: () => openOne({ ...opening, directory: directoryOf([shipping], []) }, message),
    }
    for (const [code, open] of Object.entries(cases)) expect(codeOf(await open())).toBe(code)
    expect(codeOf(await openOne(opening, message))).toBe('opened')
  })

  it('holds for a record that was moved to another topic or partition', async () => {
    const { sealing, opening } = shop()
    const message = there((await sealed(sealing, [event()]))[0])
    const opener = createOpener({ ...opening, channelOf: (topic) => topic.replace(/^mirror\./, '') })
    const at = async (topic: string, partition: number) =>
      codeOf(await opener.open({ topic, partition, message }))
    expect(await at('mirror.orders', 0)).toBe('opened')
    expect(await at('payments', 0)).toBe('signature-invalid')
    expect(await at('orders', 1)).toBe('signature-invalid')
  })

  it('holds for every altered byte, at no cost at the key service', async () => {
    const { sealing, opening, keyService } = shop()
    const message = there((await sealed(sealing, [event()]))[0])
    const opener = createOpener({ ...opening, issuers: 'any-in-directory' })
    const length = message.value?.length ?? 0
    const messages = Array.from({ length }, (_, index) => ({
      ...message,
      value: flipped(message.value, index),
    }))
    const results = await opener.openBatch({ topic: 'orders', partition: 0, messages })
    expect(results.filter(({ opened }) => opened)).toEqual([])
    expect(keyService.unwrapped).toBe(0)
  })

  it('holds for a KEK that the directory does not give the issuer, without a call', async () => {
    const { sealing, opening, keyService, shipping } = shop()
    const other = producer('other')
    const directory = directoryOf([shipping, other], [kekRow(['shipping-service'])])
    const [message] = await sealed({ ...sealing, iss: 'other', signer: other.signer }, [event()])
    const opener = createOpener({ ...opening, directory, issuers: 'any-in-directory' })
    const opened = await opener.open({ topic: 'orders', partition: 0, message: there(message) })
    expect(codeOf(opened)).toBe('undecryptable')
    expect(keyService.unwrapped).toBe(0)
  })

  it('holds for a payload that is no I-JSON', async () => {
    const { sealing, opening } = shop()
    const twice = {
      source: '/shipping',
      type: 'shipped',
      partition: 0,
      dataBytes: Buffer.from('{"a":1,"a":2}'),
    }
    const [message] = await sealed(sealing, [twice])
    expect(codeOf(await openOne(opening, there(message)))).toBe('schema-invalid')
  })

  it('is judged by the contracts, where there are some', async () => {
    const { sealing, opening } = shop()
    const contract: Contract = {
      type: 'shipped',
      channel: 'orders',
      description: '',
      owner: '',
      classification: 'internal',
      publish: new Map(),
      maxBytes: 1000,
      perSecond: undefined,
      routes: [],
      payload: {
        check: (_type, bytes) => {
          if (Buffer.from(bytes).includes('bad')) throw new Rejection('schema-invalid', 'does not fit')
        },
      },
    }
    const contracts: Contracts = {
      digest: new Uint8Array(32),
      all: [contract],
      find: (channel, type) => (channel === 'orders' && type === 'shipped' ? contract : undefined),
    }
    const messages = await sealed(sealing, [event(), event({ data: 'bad' }), event({ type: 'other' })])
    const opener = createOpener({ ...opening, contracts })
    const opened = await opener.openBatch({ topic: 'orders', partition: 0, messages })
    expect(opened.map(codeOf)).toEqual(['opened', 'schema-invalid', 'type-unknown'])
  })
})

describe('what cannot be decided', () => {
  it('rejects with Outage: no key service, no directory, no channel, a replay store that fails', async () => {
    const { sealing, opening, keyService } = shop()
    const message = there((await sealed(sealing, [event()]))[0])
    const directory = {
      snapshot: () => Promise.reject(new Outage('directory-unavailable', 'too old')),
      onKeksChanged: () => undefined,
    }
    const outage = (code: string): unknown => expect.objectContaining({ name: 'Outage', code })
    await expect(openOne({ ...opening, directory }, message)).rejects.toEqual(outage('directory-unavailable'))
    await expect(openOne({ ...opening, channelOf: () => undefined }, message)).rejects.toEqual(
      outage('channel-unknown'),
    )
    const replay = { remember: () => Promise.reject(new Error('no database')) }
    await expect(openOne({ ...opening, replay }, message)).rejects.toEqual(outage('unexpected'))
    keyService.failure = new Outage('key-service-denied', 'disabled')
    await expect(openOne(opening, message)).rejects.toEqual(outage('key-service-denied'))
    keyService.failure = undefined
    expect(codeOf(await openOne(opening, message))).toBe('opened')
  })

  it('holds up the whole batch, whose good records are opened when it comes again', async () => {
    const { sealing, opening, keyService } = shop()
    const messages = await sealed(sealing, [event(), event({ type: 'other' })])
    const opener = createOpener(opening)
    keyService.failure = new Outage('key-service-denied', 'disabled')
    await expect(opener.openBatch({ topic: 'orders', partition: 0, messages })).rejects.toThrow(Outage)
    keyService.failure = undefined
    const opened = await opener.openBatch({ topic: 'orders', partition: 0, messages })
    expect(opened.map(codeOf)).toEqual(['opened', 'opened'])
  })

  it('waits for the key service no longer than told', async () => {
    const { sealing, opening, keyService } = shop()
    const message = there((await sealed(sealing, [event()]))[0])
    keyService.gate = new Promise(() => undefined)
    const clock = { now: () => START + performance.now() }
    await expect(openOne({ ...opening, clock, timeoutMs: 50 }, message)).rejects.toThrow(Outage)
  })
})

describe('a batch', () => {
  it('costs one call of the key service for each data key, and keeps its order', async () => {
    const { sealing, opening, keyService } = shop()
    const events = Array.from({ length: 300 }, (_, index) =>
      event({ id: `id-${index}`, type: `t${index % 3}` }),
    )
    const messages = await sealed(sealing, events)
    messages.splice(100, 0, { ...there(messages[0]), value: Buffer.from('noise') })
    const opener = createOpener(opening)
    const opened = await opener.openBatch({ topic: 'orders', partition: 0, messages })
    expect(keyService.unwrapped).toBe(3)
    expect(codeOf(opened[100])).toBe('malformed')
    const ids = opened.filter(({ opened }) => opened).map((each) => eventOf(each).id)
    expect(ids).toEqual(events.map(({ id }) => id))
    await opener.openBatch({ topic: 'orders', partition: 0, messages })
    expect(keyService.unwrapped).toBe(3)
  })

  it('may be empty', async () => {
    const opener = createOpener(shop().opening)
    expect(await opener.openBatch({ topic: 'orders', partition: 0, messages: [] })).toEqual([])
  })
})

describe('the judging time', () => {
  it("is the broker's where the broker sets it, and never goes back within a partition", async () => {
    const { sealing, opening } = shop()
    const messages = (await sealed({ ...sealing, lifeSeconds: 60 }, [event(), event(), event()])).map(
      (message, index) => ({ ...message, timestamp: String(START + there([0, 61_000, 0][index])) }),
    )
    const opener = createOpener({ ...opening, timestampType: 'LogAppendTime' })
    const opened = await opener.openBatch({ topic: 'orders', partition: 0, messages })
    expect(opened.map(codeOf)).toEqual(['opened', 'time-invalid', 'time-invalid'])
    const again = await opener.open({ topic: 'orders', partition: 0, message: there(messages[0]) })
    expect(codeOf(again)).toBe('time-invalid')
  })

  it('is not raised by a batch that could not be decided', async () => {
    const { sealing, opening, keyService } = shop()
    const message = there((await sealed({ ...sealing, lifeSeconds: 60 }, [event()]))[0])
    const at = (ms: number) => ({ ...message, timestamp: String(START + ms) })
    const opener = createOpener({ ...opening, timestampType: 'LogAppendTime' })
    keyService.failure = new Outage('key-service-denied', 'disabled')
    const batch = { topic: 'orders', partition: 0, messages: [at(0), at(90_000)] }
    await expect(opener.openBatch(batch)).rejects.toThrow(Outage)
    keyService.failure = undefined
    expect(codeOf(await opener.open({ topic: 'orders', partition: 0, message: at(0) }))).toBe('opened')
  })

  it('is an outage where the broker is more than 300 s ahead, and a fault where it says nothing', async () => {
    const { sealing, opening } = shop()
    const message = there((await sealed(sealing, [event()]))[0])
    const stamped = { ...opening, timestampType: 'LogAppendTime' as const }
    const ahead = { ...message, timestamp: String(START + 300_001) }
    await expect(openOne(stamped, ahead)).rejects.toMatchObject({ code: 'clock-skew' })
    await expect(openOne(stamped, { ...message, timestamp: '' })).rejects.toThrow(TypeError)
  })

  it("is this clock's where the producer set the timestamp", async () => {
    const { sealing, opening } = shop()
    const message = there((await sealed(sealing, [event()]))[0])
    expect(codeOf(await openOne(opening, { ...message, timestamp: '0' }))).toBe('opened')
  })
})

describe('replays', () => {
  /** As a consumer would keep it, beside its own effects. */
  class Seen {
    readonly offsets = new Map<string, string>()
    readonly sightings: Sighting[] = []
    remember(sighting: Sighting): Promise<boolean> {
      const { channel, partition, iss, session, number, offset } = sighting
      this.sightings.push(sighting)
      const name = JSON.stringify([channel, partition, iss, session, String(number)])
      const before = this.offsets.get(name)
      this.offsets.set(name, before ?? offset)
      return Promise.resolve(before === undefined || before === offset)
    }
  }

  it('are found by the store of the caller, which tells redelivery from them', async () => {
    const { sealing, opening, keyService } = shop()
    const replay = new Seen()
    const first = there((await sealed(sealing, [event()]))[0])
    const opener = createOpener({ ...opening, replay })
    const open = async (message: KafkaMessage) =>
      codeOf(await opener.open({ topic: 'orders', partition: 0, message }))
    expect(await open(first)).toBe('opened')
    expect(await open(first)).toBe('opened')
    expect(await open({ ...first, offset: '7' })).toBe('replayed')
    expect(await open({ ...first, value: flipped(first.value, 60) })).not.toBe('opened')
    expect(replay.sightings.length).toBe(3)
    expect(replay.sightings[0]).toMatchObject({
      channel: 'orders',
      iss: 'shipping-service',
      number: 0n,
      offset: '0',
    })
    expect(keyService.unwrapped).toBe(1)
  })

  it('may take a slow store its time over a long batch, each sighting within the bound', async () => {
    const { sealing, opening, clock } = shop()
    const messages = await sealed(
      sealing,
      Array.from({ length: 5 }, () => event()),
    )
    const replay = {
      remember: async () => {
        clock.ms += 900
        await new Promise((resolve) => setTimeout(resolve, 2))
        return true
      },
    }
    const opener = createOpener({ ...opening, replay, timeoutMs: 1000 })
    const opened = await opener.openBatch({ topic: 'orders', partition: 0, messages })
    expect(opened.map(codeOf)).toEqual(messages.map(() => 'opened'))
    const stuck = { remember: () => new Promise<never>(() => undefined) }
    const other = createOpener({ ...opening, replay: stuck, timeoutMs: 50 })
    await expect(other.openBatch({ topic: 'orders', partition: 0, messages })).rejects.toThrow(Outage)
  })

  it('cost no call of the key service', async () => {
    const { sealing, opening, keyService } = shop()
    const [message] = await sealed(sealing, [event()])
    const replay = { remember: () => Promise.resolve(false) }
    expect(codeOf(await openOne({ ...opening, replay }, there(message)))).toBe('replayed')
    expect(keyService.unwrapped).toBe(0)
  })

  it('are opened again without a store', async () => {
    const { sealing, opening } = shop()
    const first = there((await sealed(sealing, [event()]))[0])
    const opener = createOpener(opening)
    const batch = { topic: 'orders', partition: 0, messages: [first, { ...first, offset: '1' }] }
    expect((await opener.openBatch(batch)).map(codeOf)).toEqual(['opened', 'opened'])
  })
})

describe('keys of the opener', () => {
  it('are no use where the key service says no', async () => {
    const { sealing, opening } = shop()
    const [message] = await sealed(sealing, [event()])
    const keyService = new MemoryKeyService()
    expect(codeOf(await openOne({ ...opening, keyService }, there(message)))).toBe('undecryptable')
    expect(keyService.unwrapped).toBe(1)
  })

  it('are asked of the KEK that the directory names', async () => {
    const { sealing, opening, keyService } = shop()
    const messages = await sealed(sealing, [event()])
    await openOne(opening, there(messages[0]))
    expect(keyService.askedKeks).toEqual([KEK.kekId])
  })

  it('are wiped by close, and when they have grown too old', async () => {
    const { sealing, opening, clock } = shop()
    const keyService = new MemoryKeyService()
    const { messages } = await createSealer({ ...sealing, keyService }).seal('orders', event())
    const made = keyService.handed.splice(0)
    const message = received(there(messages[0]))
    const opener = createOpener({ ...opening, keyService })
    await opener.open({ topic: 'orders', partition: 0, message })
    expect(areWiped(keyService.handed)).toBe(false)
    clock.ms += 300_000
    const old = keyService.handed.splice(0)
    await opener.open({ topic: 'orders', partition: 0, message })
    expect(areWiped(old)).toBe(true)
    expect(areWiped(keyService.handed)).toBe(false)
    opener.close()
    expect(areWiped(keyService.handed)).toBe(true)
    expect(areWiped(made)).toBe(false)
    await expect(opener.open({ topic: 'orders', partition: 0, message })).rejects.toThrow('has been closed')
  })

  it('go at once when the directory withdraws their KEK', async () => {
    const { sealing, opening, keyService, shipping } = shop()
    const [message] = await sealed(sealing, [event()])
    keyService.handed.splice(0)
    const listeners: ((snapshot: DirectorySnapshot) => void)[] = []
    const directory = {
      snapshot: opening.directory.snapshot,
      onKeksChanged: (listener: (snapshot: DirectorySnapshot) => void) => {
        listeners.push(listener)
      },
    }
    const opener = createOpener({ ...opening, directory })
    await opener.open({ topic: 'orders', partition: 0, message: there(message) })
    const { snapshot } = await directoryOf([shipping], []).snapshot(0)
    for (const tell of listeners) tell(snapshot)
    expect(areWiped(keyService.handed)).toBe(true)
  })
})
