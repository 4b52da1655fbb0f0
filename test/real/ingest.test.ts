/** The whole chain on real Kafka: sealer → producer → Kafka → handler's path → Kafka → read_committed reader and audit. */
import { afterEach, describe, expect, it } from 'vitest'
import { toMskEvent } from '../../lib/adapters/msk-event.ts'
import { createOpener } from '../../lib/client/opener.ts'
import { createDirectory } from '../../lib/keys/directory-reader.ts'
import type { Message, SourceRecord } from '../../lib/ports.ts'
import type { Gate } from '../../lib/runtime.ts'
import { orders, RealShop, totals, upTo } from './shop.ts'
import { bytes, soon, text } from './world.ts'

const ORIGIN = {
  eventSourceArn: 'arn:aws:kafka:eu-west-1:000000000000:cluster/test',
  bootstrapServers: 'b-1:9098',
}
let real: RealShop
afterEach(() => real.end())

const handle = (gate: Gate, records: readonly SourceRecord[]): Promise<unknown> =>
  gate.handle(JSON.parse(JSON.stringify(toMskEvent(records, ORIGIN))), soon())

describe('the ingest gate on real Kafka', () => {
  it('brings sealed events through to what each consumer may see, once each, with an audit that verifies', async () => {
    real = await RealShop.open()
    const sealer = await real.sealer()
    await sealer.send('orders', orders(0, 120))
    const stranger: Message = {
      ...{ topic: real.source, partition: 1, key: null, value: bytes('plain text') },
      headers: [{ name: 'null', value: null }],
    }
    await real.cluster.produce([stranger], 'producer')
    const records = await real.cluster.readCommitted(real.source, 'poller')
    expect(records).toHaveLength(121)
    const gate = real.gate()
    await handle(gate, records)

    const plain = await real.cluster.readCommitted(real.topicOf('orders.analytics'), 'consumer')
    expect(totals(plain)).toEqual(upTo(120))
    const sealed = await real.cluster.readCommitted(real.topicOf('orders.fulfilment'), 'consumer')
    const fulfilment = real.shop.stack.consumer('fulfilment')
    const opener = createOpener({
      audience: 'fulfilment',
      issuers: 'any-in-directory',
      directory: createDirectory({ ...fulfilment.directory, clock: real.shop.stack.clock }),
      keyService: fulfilment.keyService,
      channelOf: () => 'orders.fulfilment',
    })
    const opened = await Promise.all(
      sealed.map(async ({ topic, partition, offset, timestamp, key, value, headers }) =>
        opener.open({
          topic,
          partition,
          message: {
            key,
            value,
            timestamp: String(timestamp),
            offset: String(offset),
            headers: Object.fromEntries(headers.map((one) => [one.name, one.value ?? undefined])),
          },
        }),
      ),
    )
    const ids = opened.map((one) => (one.opened ? JSON.parse(text(one.payload)).orderId : one.code))
    expect(ids.sort()).toEqual(
      upTo(120)
        .map((id) => `A-${id}`)
        .sort(),
    )
    opener.close()

    const quarantined = await real.cluster.readCommitted(real.quarantine, 'consumer')
    expect(quarantined.map(({ value }) => text(value))).toEqual(['plain text'])
    const headers = new Map(quarantined[0]?.headers.map(({ name, value }) => [name, value && text(value)]))
    expect([headers.get('null'), headers.get('sealgate-code')]).toEqual([null, 'malformed'])

    const report = await real.verify()
    expect([report.verified, report.headsKnown, report.entries]).toEqual([true, true, 121])
  })

  it('changes nothing when everything comes again, to the same gate and to a new one', async () => {
    real = await RealShop.open()
    const sealer = await real.sealer()
    await sealer.send('orders', orders(0, 30))
    const first = await real.cluster.readCommitted(real.source, 'poller')
    const gate = real.gate()
    await handle(gate, first)
    await handle(gate, first)
    await sealer.send('orders', orders(30, 60))
    const all = await real.cluster.readCommitted(real.source, 'poller')
    const other = real.gate()
    await handle(other, all)
    await handle(gate, all)
    const plain = await real.cluster.readCommitted(real.topicOf('orders.analytics'), 'consumer')
    expect(totals(plain)).toEqual(upTo(60))
    expect(await real.cluster.readCommitted(real.quarantine)).toEqual([])
    const report = await real.verify()
    expect([report.verified, report.entries]).toEqual([true, 60])
  })

  it('loses and doubles nothing where two gates take the same records at the same time', async () => {
    real = await RealShop.open()
    const sealer = await real.sealer()
    const gates = [real.gate(), real.gate()]
    const COUNT = 200
    await sealer.send('orders', orders(0, COUNT))
    const records = await real.cluster.readCommitted(real.source, 'poller')
    // Lambda would call again where an invocation fails; both go on until one of them has nothing left to do.
    const work = gates.map(async (gate) => {
      for (let at = 20; at <= COUNT; at += 20) {
        for (let attempt = 0; attempt < 20; attempt++) {
          const done = await handle(gate, records.slice(0, at)).then(
            () => true,
            () => false,
          )
          if (done) break
        }
      }
    })
    await Promise.all(work)
    await handle(real.gate(), records)
    const plain = await real.cluster.readCommitted(real.topicOf('orders.analytics'), 'consumer')
    expect(totals(plain)).toEqual(upTo(COUNT))
    const report = await real.verify()
    expect([report.verified, report.entries]).toEqual([true, COUNT])
  })
})
