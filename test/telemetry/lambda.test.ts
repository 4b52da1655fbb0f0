/** What the functions write to CloudWatch: lines of JSON, metrics as EMF, and nothing but what docs/monitoring names. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { context, trace } from '@opentelemetry/api'
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks'
import { BasicTracerProvider, InMemorySpanExporter, SimpleSpanProcessor } from '@opentelemetry/sdk-trace-base'
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest'
import { ingestHandler } from '../../functions/ingest-handler.ts'
import { keysHandler } from '../../functions/keys-handler.ts'
import { rotateHandler } from '../../functions/rotate-handler.ts'
import { type LambdaTelemetry, lambdaTelemetry } from '../../lib/adapters/lambda-telemetry.ts'
import { toMskEvent } from '../../lib/adapters/msk-event.ts'
import { tracedKeyService, tracedSink, tracingObserver } from '../../lib/adapters/tracing.ts'
import { observers } from '../../lib/admission/observer.ts'
import { createIngest, type IngestParts } from '../../lib/admission/slice.ts'
import { Outage } from '../../lib/errors.ts'
import { createDataKeys } from '../../lib/keys/data-keys.ts'
import { createDirectory } from '../../lib/keys/directory-reader.ts'
import type { RotationPorts } from '../../lib/keys/rotation-steps.ts'
import { shieldKeyService } from '../../lib/keys/key-service-shield.ts'
import { invokeOnce } from '../../lib/local/invocation.ts'
import { localStagedSecrets, openLocalSecrets } from '../../lib/local/secrets.ts'
import type { SourceRecord } from '../../lib/ports.ts'
import { createGate } from '../../lib/runtime.ts'
import { openShop, sentOrders, type Shop } from '../shop.ts'

const ORIGIN = {
  eventSourceArn: 'arn:aws:kafka:eu-west-1:000000000000:cluster/test',
  bootstrapServers: 'b-1:9098',
}
const clock = { now: () => Date.now() }
const CONTEXT = {
  ...{ invokedFunctionArn: 'arn', coldStart: true, awsRequestId: '1', memoryLimitInMB: '1024' },
  ...{ functionName: 'ingest', functionVersion: '1', tenantId: undefined },
}
const MONITORING = readFileSync(join(import.meta.dirname, '../../docs/monitoring/README.md'), 'utf8')

const away = () => Promise.reject(new Outage('directory-unavailable', 'it is away'))
const signer = { kid: Buffer.alloc(32), alg: -19, sign: away }

let shop: Shop
let written: string
let telemetry: LambdaTelemetry
beforeEach(async () => {
  shop = await openShop()
  written = ''
  const take = (chunk: string | Uint8Array): boolean => {
    written += typeof chunk === 'string' ? chunk : Buffer.from(chunk).toString()
    return true
  }
  vi.spyOn(process.stdout, 'write').mockImplementation(take)
  vi.spyOn(process.stderr, 'write').mockImplementation(take)
  telemetry = lambdaTelemetry('shop-eu', clock)
})
afterEach(async () => {
  vi.restoreAllMocks()
  vi.unstubAllEnvs()
  await shop.close()
})

interface Line {
  readonly [name: string]: unknown
  readonly _aws?: {
    readonly CloudWatchMetrics: readonly [
      {
        readonly Namespace: string
        readonly Dimensions: readonly string[][]
        readonly Metrics: readonly { readonly Name: string; readonly Unit: string }[]
      },
    ]
  }
}

const lines = (): Line[] =>
  written
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line))
const logs = (): Line[] => lines().filter(({ _aws }) => _aws === undefined)

/** Every value that CloudWatch would take, by name and by code where that is a dimension. */
function metrics(): Record<string, number[]> {
  const found: Record<string, number[]> = {}
  for (const line of lines()) {
    for (const { Dimensions, Metrics, Namespace } of line._aws?.CloudWatchMetrics ?? []) {
      expect(Namespace).toBe('sealgate')
      expect(line['service']).toBe('shop-eu')
      const isCoded = 'code' in line
      expect(Dimensions).toEqual([isCoded ? ['service', 'code'] : ['service']])
      for (const { Name } of Metrics) {
        const name = isCoded ? `${Name} ${String(line['code'])}` : Name
        const values = [line[Name]].flat().map(Number)
        found[name] = [...(found[name] ?? []), ...values]
      }
    }
  }
  return found
}

const sent = (count: number, event: object = {}): Promise<SourceRecord[]> => sentOrders(shop, count, event)

const handlerOf = (change: (parts: IngestParts) => IngestParts = (parts) => parts) => {
  const parts = change({ ...shop.stack.gateParts(), observer: observers([telemetry.observer]) })
  const gate = createGate(createIngest(parts), 'throw')
  return ingestHandler(() => Promise.resolve(gate), telemetry)
}

const invoke = (handler: ReturnType<typeof handlerOf>, records: readonly SourceRecord[]) =>
  invokeOnce(handler, toMskEvent(records, ORIGIN), { timeoutMs: 20_000 })

describe('metrics of the ingest function', () => {
  it('count what was admitted, refused by code and audited, and are nought where nothing new came', async () => {
    const records = await sent(6)
    const forged = records.slice(0, 2).map((record) => ({ ...record, key: Buffer.from('other') }))
    const handler = handlerOf()
    await invoke(handler, [...forged, ...records.slice(2), { ...records[5]!, offset: 99n, value: null }])
    expect(metrics()).toMatchObject({
      'records.admitted': [4],
      'records.rejected': [3],
      'records.rejected signature-invalid': [2],
      'records.rejected value-missing': [1],
      'slices.outage': [0],
      'audit.entries': [7],
      'slice.duration': [expect.any(Number), expect.any(Number)],
      'records.age': [expect.any(Number), expect.any(Number)],
      'data-keys.opening.calls': [1],
      'data-keys.sealing.failures': [0],
    })
    expect(logs().map(({ message, level, rejected }) => ({ message, level, rejected }))).toEqual(
      expect.arrayContaining([
        {
          message: 'records rejected',
          level: 'WARN',
          rejected: expect.objectContaining({ 'signature-invalid': expect.any(Number) }),
        },
      ]),
    )
    written = ''
    await invoke(handler, records.slice(2))
    expect(metrics()).toMatchObject({
      'records.admitted': [0],
      'audit.entries': [0],
      'data-keys.opening.calls': [0],
    })
    expect(Object.keys(metrics()).filter((name) => name.includes(' '))).toEqual([])
  })

  it('count a slice that stopped once, by its code, and the log says where it stands', async () => {
    const records = await sent(2)
    const handler = handlerOf((parts) => ({
      ...parts,
      sink: {
        ...parts.sink,
        open: () => Promise.reject(new Outage('sink-unavailable', 'the broker is away')),
      },
    }))
    await expect(invoke(handler, records)).rejects.toThrow('sink-unavailable')
    const partitions = new Set(records.map(({ partition }) => partition)).size
    expect(metrics()).toMatchObject({
      'slices.outage': [partitions],
      'slices.outage sink-unavailable': [partitions],
      'records.admitted': [0],
    })
    expect(logs()).toHaveLength(partitions)
    expect(logs()[0]).toMatchObject({
      ...{ level: 'ERROR', message: 'slice stopped', service: 'shop-eu', topic: 'orders' },
      ...{
        partition: expect.any(Number),
        offset: '0',
        code: 'sink-unavailable',
        reason: 'the broker is away',
      },
      ...{ function_name: 'ingest', function_request_id: expect.any(String) },
    })
  })

  it('count an invocation that failed before any slice, and an event that is none', async () => {
    const broken = ingestHandler(
      () => Promise.reject(new Outage('directory-unavailable', 'not yet')),
      telemetry,
    )
    await expect(invoke(broken, await sent(1))).rejects.toThrow('not yet')
    expect(metrics()).toMatchObject({ 'slices.outage directory-unavailable': [1] })
    written = ''
    await expect(invokeOnce(handlerOf(), { records: 'none' }, { timeoutMs: 20_000 })).rejects.toThrow()
    expect(metrics()).toMatchObject({ 'slices.outage': [1] })
    expect(logs()).toMatchObject([{ message: 'invocation failed', level: 'ERROR' }])
  })

  it('hold the time of each slice, of more than CloudWatch takes in a line too', async () => {
    const slice = { topic: 'orders', partition: 0, records: [] }
    await telemetry.gateInvocation(
      CONTEXT,
      async () => {
        for (let n = 0; n < 250; n++) await telemetry.observer.slice(slice, () => Promise.resolve(undefined))
      },
      () => undefined,
    )
    expect(metrics()['slice.duration']).toHaveLength(250)
    expect(metrics()['slices.outage']).toEqual([0])
    for (const line of lines())
      for (const { Name } of line._aws?.CloudWatchMetrics[0].Metrics ?? [])
        expect([line[Name]].flat().length).toBeLessThanOrEqual(100)
  })

  it('are written when the invocation fails, and never make it fail', async () => {
    const records = await sent(3)
    const handler = handlerOf((parts) => ({
      ...parts,
      observer: observers([
        {
          slice: () => Promise.reject(new Error('an observer with a fault')),
          committed: () => {
            throw new Error('another')
          },
        },
        telemetry.observer,
      ]),
    }))
    await invoke(handler, records)
    expect(metrics()).toMatchObject({ 'records.admitted': [3] })
    expect(await shop.records('orders.analytics')).toHaveLength(3)
  })

  it('decide nothing where they cannot be written', async () => {
    const broken = (): never => {
      throw new Error('counted wrongly')
    }
    const work = telemetry.gateInvocation(CONTEXT, () => Promise.resolve('decided'), broken)
    expect(await work).toBe('decided')
  })

  it('bear the name of the deployment, or of the project where it has none', async () => {
    for (const name of [undefined, '']) {
      written = ''
      await lambdaTelemetry(name, clock).gateInvocation(
        CONTEXT,
        () => Promise.resolve(),
        () => undefined,
      )
      expect(lines().map(({ service }) => service)).toEqual(['sealgate'])
    }
  })

  it('are all in docs/monitoring, and so is every field of a log line', async () => {
    const records = await sent(3)
    await invoke(handlerOf(), [{ ...records[0]!, value: null }, ...records.slice(1)])
    const failing = handlerOf((parts) => ({
      ...parts,
      sink: { ...parts.sink, open: () => Promise.reject(new Error('unknown')) },
    }))
    await expect(invoke(failing, records)).rejects.toThrow()
    telemetry.rotations(
      [
        {
          name: 'gateway',
          kind: 'signing-key',
          state: 'unknown',
          rotatedAt: null,
          dueAt: null,
          overdue: true,
          reason: 'x',
        },
      ],
      [{ name: 'gateway', step: 'promote' }],
    )
    const names = lines().flatMap(({ _aws }) =>
      (_aws?.CloudWatchMetrics[0].Metrics ?? []).map(({ Name }) => Name),
    )
    expect(names.length).toBeGreaterThan(15)
    for (const name of new Set([...names, ...logs().flatMap(Object.keys)]))
      expect(MONITORING, name).toContain(`\`${name}\``)
    for (const message of new Set(logs().map(({ message }) => String(message))))
      expect(MONITORING, message).toContain(`\`${message}\``)
  })
})

describe('metrics of the rotating function', () => {
  it('count what is overdue, none too, and the log names it', () => {
    const row = {
      kind: 'signing-key',
      state: 'due',
      rotatedAt: null,
      dueAt: '2026-11-01T00:00:00Z',
    } as const
    telemetry.rotations([{ ...row, name: 'a', overdue: false }], [])
    expect(metrics()).toEqual({ 'rotation.overdue': [0] })
    written = ''
    const late = { ...row, name: 'b', overdue: true, reason: 'secret-canary' }
    telemetry.rotations([late, { ...row, name: 'a', overdue: false }], [{ name: 'a', step: 'promote' }])
    expect(metrics()).toEqual({ 'rotation.overdue': [1] })
    expect(logs()).toMatchObject([
      { level: 'INFO', message: 'rotation step', rotation: 'a', step: 'promote' },
      { level: 'WARN', message: 'rotation overdue', rotation: 'b', dueAt: '2026-11-01T00:00:00Z' },
    ])
    expect(written).not.toContain('canary')
  })
})

describe('what the other functions tell', () => {
  it('is of the rotating one what is overdue, also where a rotation cannot be looked at', async () => {
    const store = { read: away, find: away, write: away }
    const ports: RotationPorts = {
      ...{ clock, secrets: localStagedSecrets(await openLocalSecrets(shop.folder, clock), clock) },
      directory: { store, roots: shop.stack.directory.roots, root: signer, clock },
    }
    const waits = { directoryGrace: 1, secretHold: 1, eventLife: 1, margin: 1, retention: 1 }
    const policies = [{ rotation: { kind: 'directory', name: 'directory' }, waits } as const]
    const handler = rotateHandler(
      () => ({ policies, view: ports, ports: () => Promise.resolve(ports) }),
      () => undefined,
      telemetry,
    )
    await expect(invokeOnce(handler, {}, { timeoutMs: 20_000, functionName: 'rotate' })).rejects.toThrow()
    expect(metrics()).toEqual({ 'rotation.overdue': [1] })
    expect(logs()).toMatchObject([
      { message: 'rotation overdue', rotation: 'directory', function_name: 'rotate' },
      { message: 'invocation failed', code: 'unexpected' },
    ])
  })

  it('is of that of public keys why it has no answer', async () => {
    const source = { read: away }
    const handler = keysHandler(
      () => createDirectory({ source, roots: shop.stack.directory.roots, clock }),
      telemetry,
    )
    const request = { rawPath: '/jwks.json', requestContext: { http: { method: 'GET' } }, headers: {} }
    const answer = await invokeOnce(handler, request, { timeoutMs: 20_000, functionName: 'keys' })
    expect(answer).toMatchObject({ statusCode: 503 })
    expect(logs()).toMatchObject([
      { message: 'invocation failed', code: 'directory-unavailable', function_name: 'keys' },
    ])
    expect(metrics()).toEqual({})
  })
})

describe('what is planted as a secret', () => {
  const CANARY = 'canary-7f3a'
  /** Whatever an error can carry its words in. */
  const tellTale = (): Error => {
    const error = new Error(`at (${CANARY}\n    at x (file:///${CANARY}.ts:1:1)`, {
      cause: new TypeError(CANARY, { cause: { secret: CANARY } }),
    })
    error.name = `${CANARY} Error`
    return Object.assign(error, { code: `${CANARY}!`, password: CANARY, payload: Buffer.from(CANARY) })
  }

  it('stands in no log line, no metric and no span, whatever fails and however Powertools is set', async () => {
    vi.stubEnv('POWERTOOLS_LOGGER_LOG_EVENT', 'true')
    vi.stubEnv('POWERTOOLS_LOG_LEVEL', 'TRACE')
    telemetry = lambdaTelemetry('shop-eu', clock)
    const exporter = new InMemorySpanExporter()
    trace.setGlobalTracerProvider(
      new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] }),
    )
    context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable())
    try {
      const records = await sent(4, {
        subject: CANARY,
        extensions: { canary: CANARY },
        traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
        data: { orderId: CANARY, total: 1, customer: { id: CANARY, email: CANARY } },
      })
      const dressed = records.map((record) => ({
        ...record,
        headers: [...record.headers, { name: CANARY, value: Buffer.from(CANARY) }],
      }))
      const plain = { ...records[0]!, offset: 9n, key: Buffer.from(CANARY), value: Buffer.from(CANARY) }
      const seen = observers([tracingObserver, telemetry.observer])
      const told = (change: (parts: IngestParts) => Partial<IngestParts>) =>
        handlerOf((parts) => ({ ...parts, observer: seen, ...change(parts) }))
      await invoke(
        told(() => ({})),
        [...dressed.slice(0, 2), plain],
      )
      const broken = { generate: () => Promise.reject(tellTale()), unwrap: () => Promise.reject(tellTale()) }
      const failing: ((parts: IngestParts) => Partial<IngestParts>)[] = [
        ({ sink }) => ({ sink: tracedSink({ ...sink, open: () => Promise.reject(tellTale()) }) }),
        ({ sink }) => ({
          sink: tracedSink({
            ...sink,
            open: async (source, deadline) => {
              const session = await sink.open(source, deadline)
              const { position, maxBatchBytes, maxStateBytes } = session
              const commit = () => Promise.reject(tellTale())
              return { position, maxBatchBytes, maxStateBytes, commit, close: () => session.close() }
            },
          }),
        }),
        () => ({
          dataKeys: createDataKeys({
            keyService: shieldKeyService(tracedKeyService(broken), { clock, random: Math.random }),
            clock,
          }),
        }),
        () => ({ pseudonyms: () => Promise.reject(tellTale()) }),
        () => ({ signer: { kid: Buffer.alloc(32), alg: -19, sign: () => Promise.reject(tellTale()) } }),
      ]
      for (const change of failing) await expect(invoke(told(change), dressed.slice(2))).rejects.toThrow()
      const unopened = ingestHandler(() => Promise.reject(tellTale()), telemetry)
      await expect(invoke(unopened, dressed)).rejects.toThrow()
    } finally {
      trace.disable()
      context.disable()
    }
    const spans = exporter.getFinishedSpans().map(({ name, attributes, events, links, status }) => ({
      ...{ name, attributes, events, links, status },
    }))
    expect(spans.length).toBeGreaterThan(15)
    expect(lines().length).toBeGreaterThan(15)
    expect(JSON.stringify(spans)).not.toContain(CANARY)
    expect(written).not.toContain(CANARY)
    expect(written).not.toContain(Buffer.from(CANARY).toString('base64').slice(0, 10))
  })

  it('stands in nothing that a function fails with, which Lambda’s runtime logs', async () => {
    const records = await sent(1)
    const gone = { snapshot: () => Promise.reject(tellTale()), onKeksChanged: () => undefined }
    const failures = [
      () =>
        invoke(
          ingestHandler(() => Promise.reject(tellTale()), telemetry),
          records,
        ),
      () =>
        invoke(
          handlerOf((parts) => ({
            ...parts,
            sink: { ...parts.sink, open: () => Promise.reject(tellTale()) },
          })),
          records,
        ),
      () =>
        invokeOnce(
          keysHandler(() => gone, telemetry),
          { rawPath: '/jwks.json', requestContext: { http: { method: 'GET' } } },
          { timeoutMs: 20_000 },
        ),
    ]
    for (const fail of failures) {
      const failed = await fail().catch((error: unknown) => error)
      if (!(failed instanceof Error)) throw new Error('it did not fail')
      expect(failed.message).toContain('that nobody expected')
      // As the runtime writes it.
      const own = Object.fromEntries(Object.entries(failed))
      expect(JSON.stringify([failed.name, failed.message, failed.stack, own])).not.toContain(CANARY)
    }
    expect(written).not.toContain(CANARY)
  })

  it('is told of an error neither by its words nor where these pretend to be its stack', async () => {
    const handler = handlerOf((parts) => ({
      ...parts,
      sink: { ...parts.sink, open: () => Promise.reject(new RangeError(CANARY)) },
    }))
    await expect(invoke(handler, await sent(1))).rejects.toThrow('unexpected')
    const [stopped] = logs()
    expect(stopped).toMatchObject({
      code: 'unexpected',
      causes: [
        { name: 'RangeError', at: expect.arrayContaining([expect.stringContaining('lambda.test.ts:')]) },
      ],
    })
    expect(written).not.toContain(CANARY)
  })
})
