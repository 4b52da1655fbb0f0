import { cpSync, mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, describe, expect, it } from 'vitest'
import { toMskEvent } from '../../lib/adapters/msk-event.ts'
import { Outage } from '../../lib/errors.ts'
import { createLocalSink } from '../../lib/local/log-sink.ts'
import { AUDIT_TOPIC, QUARANTINE_TOPIC } from '../../lib/local/stack.ts'
import type { SourceRecord } from '../../lib/ports.ts'
import type { Gate } from '../../lib/runtime.ts'
import { ORDER_CONTRACT, ORDER_TYPE, openShop, type Shop } from '../shop.ts'

const ORIGIN = {
  eventSourceArn: 'arn:aws:kafka:eu-west-1:000000000000:cluster/test',
  bootstrapServers: 'b-1:9098',
}

let shop: Shop
afterEach(() => shop.close())

const order = (id: number): { type: string; source: string; key: string; data: unknown } => ({
  type: ORDER_TYPE,
  source: '/shop/web',
  key: `customer-${id % 7}`,
  data: { orderId: `A-${id}`, total: 19.9, customer: { id: `c${id % 7}`, email: 'a@example.com' } },
})

async function sent(count: number): Promise<SourceRecord[]> {
  const sealer = shop.sealer('shop-web')
  await sealer.send(
    'orders',
    Array.from({ length: count }, (_, index) => order(index)),
  )
  await sealer.close()
  return shop.records('orders')
}

const handle = (gate: Gate, records: readonly SourceRecord[]): Promise<unknown> =>
  gate.handle(JSON.parse(JSON.stringify(toMskEvent(records, ORIGIN))), Date.now() + 20_000)

const text = ({ value }: SourceRecord): string => Buffer.from(value ?? []).toString()
const entries = async (): Promise<string[]> =>
  (await shop.records(AUDIT_TOPIC))
    .filter(
      ({ key }) =>
        Buffer.from(key ?? [])
          .toString()
          .split('/').length === 3,
    )
    .map(text)

describe('a slice', () => {
  it('turns sealed events into what each consumer may see, an audit entry each, and a segment', async () => {
    shop = await openShop()
    const records = await sent(20)
    const gate = shop.gate()
    await handle(gate, records)
    await gate.close()
    const plain = await shop.records('orders.analytics')
    expect(plain).toHaveLength(20)
    expect(JSON.parse(plain.map(text)[0] ?? '')).toEqual({
      total: 19.9,
      customer: { id: expect.stringMatching(/^p1:/) },
    })
    expect(await shop.records('orders.fulfilment')).toHaveLength(20)
    expect(await shop.codes()).toEqual([])
    expect(await entries()).toHaveLength(20)
    // One transaction, and so one segment, for all that comes of a source partition.
    const sources = new Set(records.map(({ partition }) => partition))
    expect(await shop.records(AUDIT_TOPIC)).toHaveLength(20 + sources.size)
  })

  it('changes nothing when records come again: the same batch, an overlapping one, an older one', async () => {
    shop = await openShop()
    const records = await sent(20)
    const gate = shop.gate()
    const half = records.filter(({ offset }) => offset < 5n)
    await handle(gate, half)
    await handle(gate, records)
    const count = (await shop.records(AUDIT_TOPIC)).length
    await handle(gate, records)
    await handle(gate, half)
    await gate.close()
    const other = shop.gate()
    await handle(other, half)
    await handle(other, records)
    await other.close()
    expect(await shop.records('orders.analytics')).toHaveLength(20)
    expect((await shop.records(AUDIT_TOPIC)).length).toBe(count)
    expect(await shop.codes()).toEqual([])
  })

  it('goes on where it stood in a new process: replay windows, audit chain and position', async () => {
    shop = await openShop()
    const first = await sent(10)
    let gate = shop.gate()
    await handle(gate, first)
    await gate.close()
    shop = await shop.reopen()
    const [one] = first
    if (one === undefined) throw new Error('no record')
    const [again] = await shop.log.append([{ ...one, topic: 'orders' }])
    gate = shop.gate()
    const records = await shop.records('orders')
    await handle(
      gate,
      records.filter(({ partition, offset }) => partition === again?.partition && offset >= again.offset),
    )
    await gate.close()
    expect(await shop.codes()).toEqual(['replayed'])
    expect(await shop.records('orders.analytics')).toHaveLength(10)
  })

  it('quarantines the original bytes of a record, with code, place and time, and goes on', async () => {
    shop = await openShop()
    const records = await sent(3)
    const [good] = records
    if (good === undefined) throw new Error('no record')
    const altered = Buffer.from(good.value ?? [])
    altered[altered.length - 1] = (altered[altered.length - 1] ?? 0) ^ 1
    const [place] = await shop.log.append([
      {
        topic: 'orders',
        partition: good.partition,
        key: good.key,
        value: altered,
        headers: [{ name: 'sealgate-code', value: Buffer.from('admitted') }],
      },
    ])
    const after = await sent(3)
    const gate = shop.gate()
    await handle(gate, after)
    await gate.close()
    const [quarantined, ...more] = await shop.records(QUARANTINE_TOPIC)
    expect(more).toEqual([])
    expect(Buffer.from(quarantined?.value ?? []).equals(altered)).toBe(true)
    const header = (name: string): string =>
      Buffer.from(quarantined?.headers.findLast((one) => one.name === name)?.value ?? []).toString()
    expect([
      header('sealgate-code'),
      header('sealgate-topic'),
      header('sealgate-partition'),
      header('sealgate-offset'),
    ]).toEqual(['signature-invalid', 'orders', String(good.partition), String(place?.offset)])
    expect(Number(header('sealgate-timestamp'))).toBeGreaterThan(Date.now() - 60_000)
    expect(await shop.records('orders.analytics')).toHaveLength(6)
  })

  it('stops before a record whose key the key service does not unwrap, and commits what stands before it', async () => {
    shop = await openShop()
    const records = (await sent(10)).filter(({ partition }) => partition === 0)
    let calls = 0
    const gate = shop.gate((parts) => ({
      ...parts,
      dataKeys: {
        ...parts.dataKeys,
        prepare: async (requests, deadline) => {
          const keys = await parts.dataKeys.prepare(requests, deadline)
          return {
            release: () => keys.release(),
            lend: (request, use) => {
              if (calls++ >= 2) throw new Outage('key-service-unavailable', 'no answer')
              return keys.lend(request, use)
            },
          }
        },
      },
    }))
    await expect(handle(gate, records)).rejects.toThrow('key-service-unavailable')
    expect(await entries()).toHaveLength(2)
    calls = -1000
    await handle(gate, records)
    await gate.close()
    expect(await entries()).toHaveLength(records.length)
    expect(await shop.codes()).toEqual([])
  })

  it('leaves no mark of a record whose output could not be sealed: it is admitted when it comes again', async () => {
    shop = await openShop()
    const records = (await sent(6)).filter(({ partition }) => partition === 0)
    let isDown = true
    const gate = shop.gate((parts) => ({
      ...parts,
      newSealingKeys: () => {
        const keys = parts.newSealingKeys()
        const down = (): Outage => new Outage('key-service-unavailable', 'no answer')
        return {
          tryLend: (scope, use) => (isDown ? undefined : keys.tryLend(scope, use)),
          lend: (scope, deadline, use) => (isDown ? Promise.reject(down()) : keys.lend(scope, deadline, use)),
          counts: () => keys.counts(),
          close: () => keys.close(),
        }
      },
    }))
    await expect(handle(gate, records)).rejects.toThrow('key-service-unavailable')
    expect(await entries()).toHaveLength(0)
    isDown = false
    await handle(gate, records)
    await gate.close()
    expect(await shop.codes()).toEqual([])
    expect(await entries()).toHaveLength(records.length)
  })

  it('does not call a kid unknown by a copy of the directory that is no longer fresh', async () => {
    shop = await openShop()
    const records = await sent(2)
    const stale = (fresh: boolean): Gate =>
      shop.gate((parts) => ({
        ...parts,
        directory: {
          onKeksChanged: (listener) => parts.directory.onKeksChanged(listener),
          snapshot: async (deadline) => {
            const { snapshot } = await parts.directory.snapshot(deadline)
            return { fresh, snapshot: { ...snapshot, signingKey: () => undefined } }
          },
        },
      }))
    const gate = stale(false)
    await expect(handle(gate, records)).rejects.toThrow('directory-unavailable')
    await gate.close()
    expect(await entries()).toHaveLength(0)
    const fresh = stale(true)
    await handle(fresh, records)
    await fresh.close()
    expect(await shop.codes()).toEqual(['key-unknown', 'key-unknown'])
  })

  it('stops early with time in hand, having committed what it had decided', async () => {
    shop = await openShop()
    const records = (await sent(40)).filter(({ partition }) => partition === 1)
    let now = Date.now()
    const gate = shop.gate((parts) => ({
      ...parts,
      clock: { now: () => (now += 10) },
      settings: { ...parts.settings, reserveMs: 1000 },
    }))
    const event = toMskEvent(records, ORIGIN)
    await expect(gate.handle(JSON.parse(JSON.stringify(event)), now + 1500)).rejects.toThrow('deadline')
    const decided = (await entries()).length
    expect(decided).toBeGreaterThan(0)
    expect(decided).toBeLessThan(records.length)
    await gate.close()
  })

  it('closes when a target partition is full, and the rest follows in further transactions', async () => {
    shop = await openShop()
    const records = await sent(60)
    const gate = shop.gate((parts) => ({
      ...parts,
      sink: {
        partitionsOf: (topic, deadline) => parts.sink.partitionsOf(topic, deadline),
        open: async (source, deadline) => {
          const session = await parts.sink.open(source, deadline)
          return {
            position: session.position,
            maxStateBytes: session.maxStateBytes,
            maxBatchBytes: 6000,
            commit: (messages, position, until) => session.commit(messages, position, until),
            close: () => session.close(),
          }
        },
      },
    }))
    await handle(gate, records)
    await gate.close()
    expect(await shop.records('orders.analytics')).toHaveLength(60)
    const segments = (await shop.records(AUDIT_TOPIC)).length - 60
    expect(segments).toBeGreaterThan(6)
  })

  it('gives way to a handler that has taken its partition over, and takes it back without failing', async () => {
    shop = await openShop()
    const records = (await sent(30)).filter(({ partition }) => partition === 0)
    const [one, other] = [shop.gate(), shop.gate()]
    await handle(one, records.slice(0, 3))
    await handle(other, records.slice(0, 6))
    await handle(one, records.slice(3, 9))
    await handle(other, records)
    await Promise.all([one.close(), other.close()])
    expect(await entries()).toHaveLength(records.length)
    expect(await shop.codes()).toEqual([])
  })

  it('is an outage for a topic without a channel, and for a partition without a position', async () => {
    shop = await openShop()
    const records = await sent(4)
    const gate = shop.gate((parts) => ({
      ...parts,
      settings: { ...parts.settings, channelOf: () => undefined },
    }))
    await expect(handle(gate, records)).rejects.toThrow('channel-unknown')
    await gate.close()
    const lost = shop.gate((parts) => ({
      ...parts,
      sink: createLocalSink(shop.log, { deployment: 'another' }),
    }))
    await expect(handle(lost, records)).rejects.toThrow('position-missing')
    await lost.close()
    expect(await shop.records(AUDIT_TOPIC)).toEqual([])
  })

  it('rejects what its consumers would get too much of for any batch, rather than wait for ever', async () => {
    const tagged = ORDER_CONTRACT.replace(
      'orderId: { type: string }',
      'orderId: { type: string }\n    tags: { type: array, items: { type: string } }',
    )
      .replace('maxBytes: 65536', 'maxBytes: 1048576')
      .replace('treatments: { /total: pass,', 'treatments: { /tags: { pseudonym: analytics }, /total: pass,')
    shop = await openShop([tagged])
    const sealer = shop.sealer('shop-web')
    const tags = (count: number): string[] => Array.from({ length: count }, (_, index) => String(index))
    const event = (count: number): ReturnType<typeof order> => ({
      ...order(1),
      data: { orderId: 'A', total: 1, tags: tags(count), customer: { id: 'c' } },
    })
    await sealer.send('orders', [event(10), event(30_000), event(11)])
    await sealer.close()
    const gate = shop.gate()
    await handle(gate, await shop.records('orders'))
    await gate.close()
    expect(await shop.codes()).toEqual(['over-limit'])
    expect(await shop.records('orders.analytics')).toHaveLength(2)
  })

  it('decides the same whatever slices its records come in: one by one, all at once, or cut anywhere', async () => {
    shop = await openShop()
    const good = await sent(40)
    const other = shop.sealer('shop-web')
    await other.send('orders', order(100))
    await other.close()
    const copies = good.flatMap((record, index) => {
      const altered = Buffer.from(record.value ?? [])
      altered[index * 7] = (altered[index * 7] ?? 0) ^ 4
      return index % 3 === 0 ? [{ ...record }] : [{ ...record, value: altered }]
    })
    await shop.log.append(
      copies.map(({ topic, partition, key, value, headers }) => ({ topic, partition, key, value, headers })),
    )
    await sent(10)
    const all = await shop.records('orders')
    await shop.stack.close()
    const outcomes: string[][] = []
    for (const size of [1, 7, 33, all.length]) {
      const copy = mkdtempSync(join(tmpdir(), 'shop-copy-'))
      cpSync(shop.folder, copy, { recursive: true, filter: (path) => !path.endsWith('.sock') })
      const same = await openShop(undefined, copy)
      const gate = same.gate()
      for (let start = 0; start < all.length; start += size)
        await handle(gate, all.slice(start, start + size))
      await gate.close()
      const rows = (await same.records(AUDIT_TOPIC)).flatMap(({ key, value }) => {
        if (
          Buffer.from(key ?? [])
            .toString()
            .split('/').length !== 3
        )
          return []
        const { record, code }: { record: string; code: string | null } = JSON.parse(
          Buffer.from(value ?? []).toString(),
        )
        return [`${record} ${code ?? 'admitted'}`]
      })
      outcomes.push(rows.sort())
      await same.close()
    }
    const [first, ...rest] = outcomes
    expect(first).toHaveLength(all.length)
    expect(new Set(first?.map((row) => row.split(' ')[1])).size).toBeGreaterThan(3)
    for (const outcome of rest) expect(outcome).toEqual(first)
    shop = await openShop(undefined, shop.folder)
  })
})
