/**
 * Traces by OpenTelemetry's API alone: without a provider (the ADOT layer, or an application's own) every call here does
 * nothing. Spans tell places, counts, names of the key directory and codes; no error's words, which might hold what no
 * trace may (docs/monitoring/README.md).
 */
import {
  type Attributes,
  context,
  createTraceState,
  type Link,
  type Span,
  type SpanContext,
  SpanKind,
  SpanStatusCode,
  trace,
} from '@opentelemetry/api'
import type { Observer } from '../admission/observer.ts'
import { Outage, Rejection } from '../errors.ts'
import type { Kek, KeyService, Sink, SinkSession, SourceRecord, TopicPartition } from '../ports.ts'
import { isTraceparent, type TraceContext, traceContextOf } from '../trace-context.ts'

/** A span for each slice, with links to the contexts that its records came with. */
export const tracingObserver: Observer = {
  slice: (slice, work) => {
    const messaging = { ...placeOf(slice), 'messaging.batch.message_count': slice.records.length }
    return inSpan(`process ${slice.topic}`, SpanKind.CONSUMER, messaging, async (span) => {
      // Most run without a provider: then nobody reads a thousand headers for nothing.
      if (span.isRecording()) span.addLinks(linksOf(slice.records))
      const stop = await work()
      if (stop !== undefined) fail(span, stop.outage)
      return stop
    })
  },
  committed: ({ admitted, rejected, entries }) => {
    const told: Attributes = { 'sealgate.admitted': admitted, 'sealgate.entries': entries }
    for (const [code, count] of rejected) told[`sealgate.rejected.${code}`] = count
    trace.getActiveSpan()?.addEvent('committed', told)
  },
}

/** A span for each call of a key service. Behind the shield, so that each attempt is one. */
export function tracedKeyService(keyService: KeyService): KeyService {
  const call = <T>(name: string, kek: Kek, ask: () => Promise<T>): Promise<T> =>
    inSpan(name, SpanKind.CLIENT, { 'sealgate.kek': kek.kekId, 'sealgate.provider': kek.provider }, ask)
  return {
    generate: (kek, scope, deadline) =>
      call('generate data key', kek, () => keyService.generate(kek, scope, deadline)),
    unwrap: (kek, wrapped, scope, deadline) =>
      call('unwrap data key', kek, () => keyService.unwrap(kek, wrapped, scope, deadline)),
  }
}

/** A span for each taking over of a partition, and for each transaction. */
export function tracedSink(sink: Sink): Sink {
  return {
    partitionsOf: (topic, deadline) => sink.partitionsOf(topic, deadline),
    open: (source, deadline) =>
      inSpan(`open ${source.topic}`, SpanKind.CLIENT, placeOf(source), async () =>
        tracedSession(await sink.open(source, deadline), source),
      ),
  }
}

function tracedSession(session: SinkSession, source: TopicPartition): SinkSession {
  return {
    get position() {
      return session.position
    },
    get maxBatchBytes() {
      return session.maxBatchBytes
    },
    get maxStateBytes() {
      return session.maxStateBytes
    },
    commit: (messages, position, deadline) => {
      const attributes = { ...placeOf(source), 'messaging.batch.message_count': messages.length }
      return inSpan(`commit ${source.topic}`, SpanKind.CLIENT, attributes, () =>
        session.commit(messages, position, deadline),
      )
    },
    close: () => session.close(),
  }
}

/** The trace that the caller is in, to be sent along; undefined where there is none. */
export function activeTrace(): TraceContext | undefined {
  const active = trace.getActiveSpan()?.spanContext()
  if (active === undefined || !trace.isSpanContextValid(active)) return undefined
  const flags = active.traceFlags.toString(16).padStart(2, '0')
  const tracestate = active.traceState?.serialize() ?? ''
  return {
    traceparent: `00-${active.traceId}-${active.spanId}-${flags}`,
    // Longer ones are dropped on the way: W3C asks to carry 512 characters.
    tracestate: tracestate === '' || tracestate.length > 512 ? undefined : tracestate,
  }
}

/**
 * Does `work` within the trace that a record came with: spans begun meanwhile are children of the sender's. Without a
 * trace, or a provider, it is simply done. The trace is the record's header, which no signature covers.
 */
export function continueTrace<T>(from: TraceContext | undefined, work: () => T): T {
  const parent = from === undefined ? undefined : spanContextOf(from)
  if (parent === undefined) return work()
  return context.with(trace.setSpanContext(context.active(), parent), work)
}

/**
 * Has what was traced sent, where the provider can: before Lambda freezes the process. Bounded by `ms`, and never rejects.
 */
export async function flushTraces(ms: number): Promise<void> {
  const registered: unknown = trace.getTracerProvider()
  // The API hands out a stand-in, with the one that was registered behind it.
  const provider: unknown = hasMethod(registered, 'getDelegate') ? registered.getDelegate() : registered
  if (!hasMethod(provider, 'forceFlush')) return
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<void>((resolve) => {
    timer = setTimeout(resolve, ms)
  })
  try {
    await Promise.race([provider.forceFlush(), late])
  } catch {
    // What cannot be sent is lost; the records are not.
  } finally {
    clearTimeout(timer)
  }
}

const hasMethod = <N extends string>(value: unknown, name: N): value is Record<N, () => unknown> =>
  typeof value === 'object' &&
  value !== null &&
  name in value &&
  typeof Reflect.get(value, name) === 'function'

/** Found anew each time: who registers a provider after us is not missed. */
const inSpan = <T>(
  name: string,
  kind: SpanKind,
  attributes: Attributes,
  work: (span: Span) => Promise<T>,
): Promise<T> =>
  trace.getTracer('sealgate').startActiveSpan(name, { kind, attributes }, async (span) => {
    try {
      return await work(span)
    } catch (error) {
      fail(span, error)
      throw error
    } finally {
      span.end()
    }
  })

/** By its code alone. A rejection is an answer: its span has not failed. */
function fail(span: Span, error: unknown): void {
  const isKnown = error instanceof Outage || error instanceof Rejection
  span.setAttribute('error.type', isKnown ? error.code : 'unexpected')
  if (!(error instanceof Rejection)) span.setStatus({ code: SpanStatusCode.ERROR })
}

/** OpenTelemetry's names for messaging. */
const placeOf = ({ topic, partition }: TopicPartition): Attributes => ({
  'messaging.system': 'kafka',
  'messaging.destination.name': topic,
  'messaging.destination.partition.id': String(partition),
})

/** As many as OpenTelemetry's SDKs keep of one span. */
const MAX_LINKS = 128

/** Each context once: a batch often shares one. */
function linksOf(records: readonly SourceRecord[]): Link[] {
  const links = new Map<string, Link>()
  for (const { headers } of records) {
    if (links.size >= MAX_LINKS) break
    const found = traceContextOf(headers)
    const parent = found === undefined ? undefined : spanContextOf(found)
    if (found !== undefined && parent !== undefined) links.set(found.traceparent, { context: parent })
  }
  return [...links.values()]
}

function spanContextOf({ traceparent, tracestate }: TraceContext): SpanContext | undefined {
  if (!isTraceparent(traceparent)) return undefined
  const [, traceId = '', spanId = '', flags = ''] = traceparent.split('-')
  const state = tracestate === undefined ? {} : { traceState: createTraceState(tracestate) }
  return { traceId, spanId, traceFlags: Number.parseInt(flags, 16), isRemote: true, ...state }
}
