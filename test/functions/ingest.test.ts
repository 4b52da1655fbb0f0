import { afterEach, describe, expect, it } from 'vitest'
import { readFileSync } from 'node:fs'
import type { Handler, MSKEvent, SelfManagedKafkaEvent } from 'aws-lambda'
import { ingestHandler } from '../../functions/ingest-handler.ts'
import { toMskEvent } from '../../lib/adapters/msk-event.ts'
import { createIngest } from '../../lib/admission/slice.ts'
import { ConfigError, Outage } from '../../lib/errors.ts'
import { invokeOnce } from '../../lib/local/invocation.ts'
import type { SourceRecord } from '../../lib/ports.ts'
import { createGate, openGate, SOFTWARE } from '../../lib/runtime.ts'
import { readSettings } from '../../lib/settings.ts'
import { openShop, sentOrders, type Shop } from '../shop.ts'

const ORIGIN = {
  eventSourceArn: 'arn:aws:kafka:eu-west-1:000000000000:cluster/test',
  bootstrapServers: 'b-1:9098',
}

let shop: Shop | undefined
afterEach(async () => {
  await shop?.close()
  shop = undefined
})

async function orders(count: number): Promise<SourceRecord[]> {
  shop = await openShop()
  return sentOrders(shop, count)
}

describe('the ingest function', () => {
  it('runs on the stack that its environment names, as another process would', async () => {
    const records = await orders(12)
    const handler = ingestHandler(() =>
      openGate(readSettings({ SEALGATE_LOCAL: shop?.folder, PATH: '/bin' })),
    )
    const asLambdaTypes: Handler<MSKEvent | SelfManagedKafkaEvent> = handler
    expect(asLambdaTypes).toBe(handler)
    expect(await invokeOnce(handler, toMskEvent(records, ORIGIN), { timeoutMs: 20_000 })).toBeNull()
    expect(
      await invokeOnce(handler, toMskEvent(records, { ...ORIGIN, selfManaged: true }), { timeoutMs: 20_000 }),
    ).toBeNull()
    expect(await shop?.records('orders.analytics')).toHaveLength(12)
  })

  it('throws by default when a record could not be decided, and names the undecided only when set to', async () => {
    const records = await orders(6)
    const parts = shop?.stack.gateParts()
    if (parts === undefined) throw new Error('no shop')
    const broken = {
      ...parts,
      sink: { ...parts.sink, open: () => Promise.reject(new Outage('sink-unavailable', 'down')) },
    }
    const event = toMskEvent(records, ORIGIN)
    await expect(
      invokeOnce(
        ingestHandler(() => Promise.resolve(createGate(createIngest(broken), 'throw'))),
        event,
        { timeoutMs: 20_000 },
      ),
    ).rejects.toThrow('sink-unavailable')
    const answer = await invokeOnce(
      ingestHandler(() => Promise.resolve(createGate(createIngest(broken), 'partial'))),
      event,
      { timeoutMs: 20_000 },
    )
    const failures = records.map(({ partition, offset }) => ({
      itemIdentifier: { partition: `orders-${partition}`, offset: Number(offset) },
    }))
    expect(answer).toEqual({ batchItemFailures: expect.arrayContaining(failures) })
    const whole = await invokeOnce(
      ingestHandler(() => Promise.resolve(createGate(createIngest(parts), 'partial'))),
      event,
      { timeoutMs: 20_000 },
    )
    expect(whole).toEqual({ batchItemFailures: [] })
  })

  it('opens its gate anew after an opening that failed', async () => {
    const records = await orders(2)
    let attempts = 0
    const handler = ingestHandler(() => {
      attempts += 1
      if (attempts === 1) return Promise.reject(new Outage('directory-unavailable', 'not yet'))
      return openGate(readSettings({ SEALGATE_LOCAL: shop?.folder }))
    })
    const event = toMskEvent(records, ORIGIN)
    await expect(invokeOnce(handler, event, { timeoutMs: 20_000 })).rejects.toThrow('not yet')
    await invokeOnce(handler, event, { timeoutMs: 20_000 })
    await invokeOnce(handler, event, { timeoutMs: 20_000 })
    expect(attempts).toBe(2)
  })

  it('goes on after the process that owns its stack has been started anew', async () => {
    const records = await orders(4)
    const handler = ingestHandler(() => openGate(readSettings({ SEALGATE_LOCAL: shop?.folder })))
    const event = toMskEvent(records, ORIGIN)
    await invokeOnce(handler, event, { timeoutMs: 20_000 })
    shop = await shop?.reopen()
    await expect(
      invokeOnce(handler, toMskEvent(records.slice(0, 1), ORIGIN), { timeoutMs: 20_000 }),
    ).rejects.toThrow('sink-unavailable')
    await invokeOnce(handler, event, { timeoutMs: 20_000 })
    expect(await shop?.records('orders.analytics')).toHaveLength(4)
  })

  it('names every fault of its environment at once, unknown settings among them', () => {
    let faults: readonly string[] = []
    try {
      readSettings({ SEALGATE_FAILURE_MODE: 'maybe', SEALGATE_LOCALE: 'x' })
    } catch (error) {
      if (error instanceof ConfigError) faults = error.faults.map(({ where }) => where)
    }
    expect(faults).toEqual(['SEALGATE_LOCALE', 'SEALGATE_LOCAL', 'SEALGATE_FAILURE_MODE'])
  })

  it("signs the audit with the package's own version", () => {
    const { name, version }: { name: string; version: string } = JSON.parse(
      readFileSync(new URL('../../package.json', import.meta.url), 'utf8'),
    )
    expect(SOFTWARE).toBe(`${name}/${version}`)
  })
})
