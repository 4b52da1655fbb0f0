/** What a stranger, a producer or the shape of a topic may not do: hold a partition up for ever, or make it costly. */
import { afterEach, describe, expect, it } from 'vitest'
import { toMskEvent } from '../../lib/adapters/msk-event.ts'
import { DataKey, random } from '../../lib/envelope/crypto.ts'
import { parse } from '../../lib/envelope/format.ts'
import { prove, sealBody } from '../../lib/envelope/seal.ts'
import { createDataKeys, encryptionContext } from '../../lib/keys/data-keys.ts'
import { LOCAL_GATEWAY, QUARANTINE_TOPIC } from '../../lib/local/stack.ts'
import type { KeyService, SourceRecord } from '../../lib/ports.ts'
import type { Gate } from '../../lib/runtime.ts'
import { ORDER_TYPE, openShop, type Shop } from '../shop.ts'

const ORIGIN = {
  eventSourceArn: 'arn:aws:kafka:eu-west-1:000000000000:cluster/test',
  bootstrapServers: 'b-1:9098',
}
const ORDER = Buffer.from('{"orderId":"a","total":1,"customer":{"id":"c"}}')

let shop: Shop
afterEach(() => shop.close())

const handle = (gate: Gate, records: readonly SourceRecord[]): Promise<unknown> =>
  gate.handle(JSON.parse(JSON.stringify(toMskEvent(records, ORIGIN))), Date.now() + 20_000)

/** An authorised producer that keeps to none of its library's bounds. */
async function rogue(): Promise<{
  newKey(type: string): Promise<{ key: DataKey; wrapped: Uint8Array }>
  send(
    type: string,
    payload: Buffer,
    recordKey: Buffer | null,
    dataKey: { key: DataKey; wrapped: Uint8Array; kekId?: string },
  ): Promise<void>
}> {
  const { iss, audience, keyService, kek, signer } = shop.stack.producer('shop-web')
  const session = random(16)
  let number = 0n
  const bound = {
    kid: signer.kid,
    alg: signer.alg,
    sign: (bytes: Uint8Array) => signer.sign(bytes, Date.now() + 5000),
  }
  await Promise.resolve()
  return {
    newKey: async (type) => {
      const { dataKey, wrapped } = await keyService.generate(
        kek,
        encryptionContext({ iss, aud: audience, type }),
        Date.now() + 5000,
      )
      return { key: new DataKey(dataKey), wrapped }
    },
    send: async (type, payload, recordKey, { key, wrapped, kekId = kek.kekId }) => {
      const now = BigInt(Math.floor(Date.now() / 1000))
      const ce = new Map([
        ['id', 'x'],
        ['source', '/shop/web'],
        ['type', type],
        ['specversion', '1.0'],
      ])
      const claims = {
        iss,
        aud: audience,
        iat: now,
        exp: now + 3600n,
        contentType: 'application/json',
        ce,
        session,
        number: number++,
      }
      const place = { channel: 'orders', partition: 0, key: recordKey }
      const [value] = await prove(
        [sealBody(claims, place, payload, key, { kekId: Buffer.from(kekId), wrapped })],
        bound,
      )
      await shop.log.append([
        { topic: 'orders', partition: 0, key: recordKey, value: value ?? null, headers: [] },
      ])
    },
  }
}

const contract = (type: string, field: string, consumers: string): string => `
contract: sealgate/1
type: ${type}
owner: team
channel: orders
publish: { shop-web: { sources: [/shop/web] } }
classification: internal
schema: { type: object, additionalProperties: false, properties: { ${field} } }
consume:
${consumers}
`
const IDS = contract(
  't.ids.v1',
  'ids: { type: array, items: { type: string } }',
  '  one: { purpose: p, to: out, form: sealed, treatments: { /ids: { pseudonym: d } } }',
)
const SHARED = contract(
  't.shared.v1',
  'a: { type: string }',
  '  one: { purpose: p, to: out, form: plain, treatments: { /a: pass } }\n  two: { purpose: q, to: out, form: plain, treatments: { /a: pass } }',
)

describe('no record holds its partition up for ever', () => {
  it.each([
    [
      'a long record key beside a treatment that lengthens',
      IDS,
      't.ids.v1',
      { ids: Array.from({ length: 16_000 }, () => 'a') },
      600_000,
    ],
    ['two outputs to one channel that fill it', SHARED, 't.shared.v1', { a: 'x'.repeat(460_000) }, 0],
    ['two outputs with a long record key', SHARED, 't.shared.v1', { a: 'x'.repeat(100_000) }, 600_000],
  ])('%s', async (_what, text, type, payload, keyBytes) => {
    shop = await openShop([text])
    const producer = await rogue()
    const dataKey = await producer.newKey(type)
    const key = keyBytes === 0 ? null : Buffer.alloc(keyBytes, 65)
    await producer.send(type, Buffer.from(JSON.stringify(payload)), key, dataKey)
    await producer.send(type, Buffer.from('{}'), null, dataKey)
    const gate = shop.gate()
    await handle(gate, await shop.records('orders'))
    await gate.close()
    expect(await shop.codes()).toEqual(['over-limit'])
    expect((await shop.records('out')).length).toBeGreaterThan(0)
  })

  it('a record that only compression let onto its topic: named by digest and length, since its bytes fit nowhere', async () => {
    shop = await openShop()
    const gate = shop.gate()
    const value = Buffer.alloc(1_300_000)
    const record: SourceRecord = {
      topic: 'orders',
      partition: 0,
      offset: 0n,
      timestamp: Date.now(),
      timestampType: 'LogAppendTime',
      key: Buffer.from('k'),
      value,
      headers: [],
    }
    await handle(gate, [record])
    await gate.close()
    const [quarantined] = await shop.records(QUARANTINE_TOPIC)
    expect(quarantined?.value).toBeNull()
    const header = (name: string): string =>
      Buffer.from(quarantined?.headers.find((one) => one.name === name)?.value ?? []).toString()
    expect([header('sealgate-code'), header('sealgate-topic'), header('sealgate-offset')]).toEqual([
      'oversize',
      'orders',
      '0',
    ])
    expect(header('sealgate-omitted')).toMatch(/^1300\d{3} bytes; value sha256:[0-9a-f]{64}$/)
  })
})

describe('the gate stays cheap', () => {
  it.each([1, 2, 5])(
    'calls the key service no more than the budget of new data keys, with %i records a key',
    async (perKey) => {
      shop = await openShop()
      const producer = await rogue()
      for (let index = 0; index < 12; index++) {
        const dataKey = await producer.newKey(ORDER_TYPE)
        for (let record = 0; record < perKey; record++) await producer.send(ORDER_TYPE, ORDER, null, dataKey)
      }
      let calls = 0
      const real = shop.stack.consumer(LOCAL_GATEWAY).keyService
      const keyService: KeyService = {
        generate: (...args) => real.generate(...args),
        unwrap: (...args) => {
          calls += 1
          return real.unwrap(...args)
        },
      }
      const gate = shop.gate((parts) => ({
        ...parts,
        settings: { ...parts.settings, limits: { maxSessions: 64, newDataKeysPerMinute: 3 } },
        dataKeys: createDataKeys({ keyService, clock: parts.clock }),
      }))
      await handle(gate, await shop.records('orders'))
      await gate.close()
      // A minute of judging time may end in between. A key is paid for once, however many records name it.
      expect(calls).toBeGreaterThanOrEqual(3)
      expect(calls).toBeLessThanOrEqual(6)
      expect((await shop.codes()).length).toBe((12 - calls) * perKey)
    },
  )

  it('takes nothing off the budget for keys at hand, beside one that is new and one under a KEK that nobody gave', async () => {
    shop = await openShop()
    const producer = await rogue()
    const [first, second] = [await producer.newKey(ORDER_TYPE), await producer.newKey(ORDER_TYPE)]
    const gate = shop.gate((parts) => ({
      ...parts,
      settings: { ...parts.settings, limits: { maxSessions: 64, newDataKeysPerMinute: 1 } },
    }))
    await producer.send(ORDER_TYPE, ORDER, null, first)
    await handle(gate, await shop.records('orders'))
    for (const key of [{ ...first, kekId: 'nobody’s' }, first, second, first])
      await producer.send(ORDER_TYPE, ORDER, null, key)
    await handle(gate, (await shop.records('orders')).slice(1))
    await gate.close()
    // A minute of judging time may end in between: then the second key is let through.
    expect((await shop.codes()).filter((code) => code !== 'over-limit')).toEqual(['undecryptable'])
    expect((await shop.records('orders.analytics')).length).toBeGreaterThanOrEqual(3)
  })

  it('keeps its session, its data keys and its hold of a partition where offsets have gaps, as transactions leave them', async () => {
    shop = await openShop()
    const sealer = shop.sealer('shop-web', {
      deliver: async ({ topic, messages }) => {
        const producer = await shop.log.begin('a-transactional-producer')
        await producer.append(
          messages.map(({ partition, key, value }) => ({ topic, partition, key, value, headers: [] })),
        )
        await producer.commit([])
      },
    })
    let opens = 0
    const gate = shop.gate((parts) => ({
      ...parts,
      sink: {
        partitionsOf: (topic, deadline) => parts.sink.partitionsOf(topic, deadline),
        open: (source, deadline) => {
          opens += 1
          return parts.sink.open(source, deadline)
        },
      },
    }))
    let done = 0
    for (let slice = 0; slice < 12; slice++) {
      await sealer.send('orders', {
        type: ORDER_TYPE,
        source: '/shop/web',
        key: 'k',
        data: { orderId: '1', total: 1, customer: { id: 'c' } },
      })
      const all = await shop.records('orders')
      await handle(gate, all.slice(done))
      // The same again, as Lambda may send it: that takes the partition over anew, and keeps the session.
      if (slice === 5) await handle(gate, all)
      done = all.length
    }
    await sealer.close()
    await gate.close()
    const outputs = (await shop.records('orders.fulfilment')).map(({ value }) => parse(value, 2_000_000).body)
    expect(outputs).toHaveLength(12)
    expect(new Set(outputs.map(({ claims }) => Buffer.from(claims.session).toString('hex'))).size).toBe(1)
    expect(new Set(outputs.map(({ recipient }) => Buffer.from(recipient.wrapped).toString('hex'))).size).toBe(
      1,
    )
    expect(outputs.map(({ claims }) => claims.number)).toEqual(
      Array.from({ length: 12 }, (_, index) => BigInt(index)),
    )
    expect(opens).toBe(2)
  })
})
