/** A trace follows an event: producer → gate → consumer, with OpenTelemetry's own SDK and an exporter in memory. */
import { context, type Context, SpanKind, trace } from '@opentelemetry/api'
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks'
import {
  BasicTracerProvider,
  InMemorySpanExporter,
  type ReadableSpan,
  SimpleSpanProcessor,
} from '@opentelemetry/sdk-trace-base'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { toMskEvent } from '../../lib/adapters/msk-event.ts'
import { continueTrace, flushTraces, tracingObserver } from '../../lib/adapters/tracing.ts'
import { createDirectory, createOpener, createSealer, type KafkaMessage } from '../../lib/client/sealgate.ts'
import { deliverTo } from '../../cli/delivery.ts'
import { observers } from '../../lib/admission/observer.ts'
import { parseEntry } from '../../lib/audit/entry.ts'
import { Outage } from '../../lib/errors.ts'
import { AUDIT_TOPIC } from '../../lib/local/stack.ts'
import type { SourceRecord } from '../../lib/ports.ts'
import { traceContextOf } from '../../lib/trace-context.ts'
import { ORDER_TYPE, openShop, type Shop } from '../shop.ts'

const exporter = new InMemorySpanExporter()
const provider = new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] })
const ORIGIN = {
  eventSourceArn: 'arn:aws:kafka:eu-west-1:000000000000:cluster/test',
  bootstrapServers: 'b-1:9098',
}

let shop: Shop
beforeAll(() => {
  trace.setGlobalTracerProvider(provider)
  context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable())
})
afterAll(() => {
  trace.disable()
  context.disable()
})
afterEach(async () => {
  exporter.reset()
  await shop.close()
})

const order = (id: number) => ({
  type: ORDER_TYPE,
  source: '/shop/web',
  key: 'k',
  data: { orderId: `A-${id}`, total: 1, customer: { id: 'c' } },
})

/** Sends so many events, each within a span of its own. */
async function send(count: number): Promise<ReadableSpan[]> {
  const sealer = createSealer({
    ...shop.stack.producer('shop-web'),
    partitions: 2,
    deliver: deliverTo(shop.log),
  })
  for (let id = 0; id < count; id++) {
    await trace.getTracer('shop').startActiveSpan('place order', async (span) => {
      await sealer.send('orders', order(id))
      span.end()
    })
  }
  await sealer.close()
  return spans('place order')
}

const spans = (name: string): ReadableSpan[] =>
  exporter.getFinishedSpans().filter((span) => span.name === name)

const observed = () => shop.gate((parts) => ({ ...parts, observer: observers([tracingObserver]) }))

const handle = (gate: ReturnType<typeof observed>, records: readonly SourceRecord[]): Promise<unknown> =>
  gate.handle(JSON.parse(JSON.stringify(toMskEvent(records, ORIGIN))), Date.now() + 20_000)

const asKafkajs = (record: SourceRecord): KafkaMessage => ({
  key: record.key,
  value: record.value,
  timestamp: String(record.timestamp),
  offset: String(record.offset),
  headers: Object.fromEntries(record.headers.map(({ name, value }) => [name, value])),
})

describe('a trace', () => {
  it('follows an event from its producer through the gate to its consumer', async () => {
    shop = await openShop()
    const [placed] = await send(1)
    const gate = observed()
    await handle(gate, await shop.records('orders'))
    await gate.close()
    const consumer = shop.stack.consumer('fulfilment')
    const clock = { now: () => Date.now() }
    const opener = createOpener({
      audience: consumer.audience,
      issuers: ['sealgate-local'],
      directory: createDirectory({ ...consumer.directory, clock }),
      keyService: consumer.keyService,
    })
    const [output] = await shop.records('orders.fulfilment')
    const opened = await opener.open({
      topic: 'orders.fulfilment',
      partition: output!.partition,
      message: asKafkajs(output!),
    })
    if (!opened.opened) throw new Error(opened.reason)
    continueTrace(opened.trace, () =>
      trace.getTracer('fulfilment').startActiveSpan('pack order', (span) => {
        span.end()
      }),
    )
    opener.close()
    const { traceId, spanId } = placed!.spanContext()
    const [packed] = spans('pack order')
    expect(packed?.spanContext().traceId).toBe(traceId)
    expect(packed?.parentSpanContext?.spanId).toBe(spanId)
    expect(packed?.parentSpanContext?.isRemote).toBe(true)
    const [processed] = spans('process orders')
    expect(processed?.kind).toBe(SpanKind.CONSUMER)
    expect(processed?.links.map((link) => link.context.spanId)).toEqual([spanId])
    const entries = (await shop.records(AUDIT_TOPIC)).flatMap(({ value }) => parseEntry(value!) ?? [])
    expect(entries.map((entry) => ('trace' in entry ? entry.trace : undefined))).toEqual([
      `00-${traceId}-${spanId}-01`,
    ])
  })

  it('has a slice’s calls of the key service and its transaction below the slice', async () => {
    shop = await openShop()
    await send(3)
    exporter.reset()
    const gate = observed()
    await handle(gate, await shop.records('orders'))
    await gate.close()
    const [processed] = spans('process orders')
    const below = exporter
      .getFinishedSpans()
      .filter((span) => span.parentSpanContext?.spanId === processed?.spanContext().spanId)
      .map(({ name }) => name)
    expect(below).toEqual(['open orders', 'unwrap data key', 'generate data key', 'commit orders'])
    expect(processed?.links).toHaveLength(3)
    expect(processed?.events.map(({ name, attributes }) => ({ name, ...attributes }))).toEqual([
      { name: 'committed', 'sealgate.admitted': 3, 'sealgate.entries': 3 },
    ])
  })

  it('names what stopped a slice by its code', async () => {
    shop = await openShop()
    await send(1)
    const gate = shop.gate((parts) => ({
      ...parts,
      observer: observers([tracingObserver]),
      sink: { ...parts.sink, open: () => Promise.reject(new Outage('sink-unavailable', 'down')) },
    }))
    await expect(handle(gate, await shop.records('orders'))).rejects.toThrow('sink-unavailable')
    await gate.close()
    const [processed] = spans('process orders')
    expect(processed?.attributes['error.type']).toBe('sink-unavailable')
    expect(processed?.status.code).toBe(2)
    expect(processed?.status.message).toBeUndefined()
  })

  it('is the event’s own where it brings one, and none where the option says so', async () => {
    shop = await openShop()
    const own = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01'
    const options = { ...shop.stack.producer('shop-web'), partitions: 2 }
    const sealed = await trace.getTracer('shop').startActiveSpan('place order', async (span) => {
      const asked = createSealer(options)
      const none = createSealer({ ...options, trace: () => undefined })
      const batches = [
        await asked.seal('orders', [{ ...order(1), traceparent: own }, order(2)]),
        await none.seal('orders', order(3)),
      ]
      span.end()
      await Promise.all([asked.close(), none.close()])
      return batches.flatMap(({ messages }) => messages.map(({ headers }) => headers['traceparent']))
    })
    const [placed] = spans('place order')
    const { traceId, spanId } = placed!.spanContext()
    expect(sealed).toEqual([own, `00-${traceId}-${spanId}-01`, undefined])
  })

  it('of no valid form is not continued, and one that is changes no verdict', async () => {
    shop = await openShop()
    await send(1)
    const [record] = await shop.records('orders')
    const forged = [
      `00-${'0'.repeat(32)}-b7ad6b7169203331-01`,
      `ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01`,
      `00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0`,
      'x'.repeat(60_000),
    ].map((text) => ({ name: 'traceparent', value: Buffer.from(text) }))
    const gate = observed()
    for (const header of forged) {
      exporter.reset()
      const headers = record!.headers.filter(({ name }) => name !== 'traceparent')
      await handle(gate, [{ ...record!, headers: [header, ...headers] }])
      expect(spans('process orders')[0]?.links).toEqual([])
    }
    await gate.close()
    const [output] = await shop.records('orders.fulfilment')
    expect(output?.headers.map(({ name }) => name)).not.toContain('traceparent')
    for (const { value } of forged) {
      let during: Context | undefined
      continueTrace(
        { traceparent: value.toString(), tracestate: undefined },
        () => (during = context.active()),
      )
      expect(trace.getSpanContext(during!)).toBeUndefined()
    }
  })

  it('goes on with a tracestate as W3C has one, and without one that is too long or no such text', async () => {
    shop = await openShop()
    await send(2)
    const records = await shop.records('orders')
    const parent = Buffer.from('00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01')
    const states = [
      `a=${'b'.repeat(510)}`,
      `a=${'b'.repeat(511)}`,
      'a=b\r\nauthorization: nobody',
      'a=\u0000',
      'a=ü',
      'a=\u001b[31m',
      '',
    ].map((text) => Buffer.from(text))
    const plain = records[0]!.headers.filter(({ name }) => !/^(trace|ce_id)/.test(name))
    const contexts = states.map((value) =>
      traceContextOf([...plain, { name: 'traceparent', value: parent }, { name: 'tracestate', value }]),
    )
    expect(contexts.map((found) => found?.tracestate?.length)).toEqual([512, ...Array(6).fill(undefined)])
    expect(contexts.map((found) => found?.traceparent)).toEqual(Array(7).fill(parent.toString()))
    const gate = observed()
    const dressed = [states[0]!, states[2]!].map((value, index) => ({
      ...records[index]!,
      headers: [...plain, { name: 'traceparent', value: parent }, { name: 'tracestate', value }],
    }))
    await handle(gate, dressed)
    await gate.close()
    const outputs = await shop.records('orders.fulfilment')
    const carried = outputs.flatMap(({ headers }) => headers.filter(({ name }) => name.startsWith('trace')))
    expect(carried.map(({ name, value }) => `${name} ${value?.length ?? 0}`).sort()).toEqual([
      ...['traceparent 55', 'traceparent 55', 'tracestate 512'],
    ])
  })

  it('keeps 128 links of a slice, each context once', async () => {
    shop = await openShop()
    await send(1)
    const [record] = await shop.records('orders')
    const headers = (n: number) => [
      {
        name: 'traceparent',
        value: Buffer.from(
          `00-0af7651916cd43dd8448eb211c80319c-${(n % 400).toString(16).padStart(16, 'a')}-01`,
        ),
      },
    ]
    const records = Array.from({ length: 500 }, (_, n) => ({
      ...record!,
      offset: record!.offset + BigInt(n),
      headers: headers(Math.floor(n / 2)),
    }))
    await tracingObserver.slice({ topic: 'orders', partition: 0, records }, () => Promise.resolve(undefined))
    const [processed] = spans('process orders')
    expect(processed?.links).toHaveLength(128)
    expect(new Set(processed?.links.map((link) => link.context.spanId)).size).toBe(128)
  })

  it('is sent before Lambda freezes the process, and never waited for longer than there is time', async () => {
    shop = await openShop()
    let flushed = 0
    const forced = provider.forceFlush.bind(provider)
    try {
      provider.forceFlush = () => {
        flushed += 1
        return forced()
      }
      await flushTraces(1000)
      expect(flushed).toBe(1)
      provider.forceFlush = () => new Promise(() => undefined)
      const from = performance.now()
      await flushTraces(50)
      expect(performance.now() - from).toBeLessThan(5000)
      provider.forceFlush = () => Promise.reject(new Error('no collector'))
      await flushTraces(1000)
    } finally {
      provider.forceFlush = forced
    }
  })
})
