/** What telling costs: slices through the whole of `createIngest`, with nobody looking on and with somebody. */
import { setImmediate } from 'node:timers/promises'
import { context, trace } from '@opentelemetry/api'
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks'
import { BasicTracerProvider, BatchSpanProcessor, InMemorySpanExporter } from '@opentelemetry/sdk-trace-base'
import { type LambdaTelemetry, lambdaTelemetry } from '../lib/adapters/lambda-telemetry.ts'
import { tracedSink, tracingObserver } from '../lib/adapters/tracing.ts'
import { firstPosition } from '../lib/admission/position.ts'
import { type Observer, observers } from '../lib/admission/observer.ts'
import { createIngest, type Ingest, type IngestParts } from '../lib/admission/slice.ts'
import { ED25519 } from '../lib/envelope/suite.ts'
import { createSealingKeys } from '../lib/keys/sealing-keys.ts'
import type { Sink, SourceRecord } from '../lib/ports.ts'
import { sealedCase } from './admission.ts'
import { type Arm, type Result, type Setting, spreadOf, spreadText } from './measure.ts'
import { CHANNEL, GATEWAY, SLICE, type World } from './world.ts'

const ALONE = 'nobody looks on'
const LAMBDA = 'Lambda, without a provider'
const TRACED = 'Lambda, with a provider'

export async function telemetry({ quick }: Setting): Promise<Result> {
  const { world, slices } = await sealedCase({ suite: ED25519, perSignature: SLICE, bytes: 1024 })
  const told = lambdaTelemetry('bench', world.gate())
  const invoked: Around = (context, work, keyCounts) => told.gateInvocation(context, work, keyCounts)
  const exporter = new InMemorySpanExporter()
  const provider = new BasicTracerProvider({ spanProcessors: [new BatchSpanProcessor(exporter)] })
  const manager = new AsyncLocalStorageContextManager().enable()
  const arms = [
    { name: ALONE, around: plain },
    { name: LAMBDA, observer: observers([tracingObserver, told.observer]), around: invoked },
    {
      name: TRACED,
      observer: observers([tracingObserver, told.observer]),
      around: invoked,
      before: () => {
        exporter.reset()
        trace.setGlobalTracerProvider(provider)
        context.setGlobalContextManager(manager)
      },
    },
  ].map((looked) => armOf(looked, world, slices.map(withTraces)))
  const write = process.stdout.write.bind(process.stdout)
  // Lines are made and thrown away: what a pipe costs is the machine's affair.
  process.stdout.write = () => true
  const timings = await processorTime(arms, quick ? 5 : 600).finally(() => {
    process.stdout.write = write
  })
  await provider.shutdown()
  const alone = timings.get(ALONE) ?? []
  const rows = [...timings].map(([arm, each]) => ({
    arm,
    microseconds: spreadOf(each),
    more: spreadOf(each.map((microseconds, round) => microseconds - (alone[round] ?? Number.NaN))),
  }))
  const share = (more: number): string => `${((100 * more) / spreadOf(alone).median).toFixed(1)} %`
  return {
    table: [
      ['arm', `µs of processor, ${SLICE} events`, 'more, µs', 'more'],
      ...rows.map(({ arm, microseconds, more }) => [
        ...[arm, spreadText(microseconds, 0), spreadText(more, 0), share(more.median)],
      ]),
    ],
    data: { events: SLICE, rows },
  }
}

/**
 * Microseconds of processor time of each run, arm after arm: what telling costs is smaller than what a shared machine does
 * to the wall's clock.
 */
async function processorTime(arms: readonly Arm[], rounds: number): Promise<ReadonlyMap<string, number[]>> {
  const rows = new Map(arms.map(({ name }) => [name, new Array<number>()]))
  for (let round = -rounds / 4; round < rounds; round++)
    for (const { name, run } of arms) {
      const before = process.cpuUsage()
      await run()
      await setImmediate()
      const { user, system } = process.cpuUsage(before)
      if (round >= 0) rows.get(name)?.push(user + system)
    }
  return rows
}

type Around = LambdaTelemetry['gateInvocation']
const plain: Around = (_, work) => work()
const CONTEXT = {
  ...{ invokedFunctionArn: 'arn', coldStart: false, awsRequestId: '1', memoryLimitInMB: '1024' },
  ...{ functionName: 'ingest', functionVersion: '1', tenantId: undefined },
}

interface Looked {
  readonly name: string
  readonly observer?: Observer
  readonly around: Around
  readonly before?: () => void
}

/** A slice with each run, as an invocation of its own; after the last a new gate, which remembers nothing. */
function armOf(
  { name, observer, around, before }: Looked,
  world: World,
  slices: readonly SourceRecord[][],
): Arm {
  let ingest: Ingest | undefined
  let next = 0
  return {
    name,
    events: SLICE,
    run: async () => {
      if (next === slices.length) [ingest, next] = [undefined, 0]
      const gate = (ingest ??= createIngest(partsOf(world, observer)))
      const records = slices[next++] ?? []
      before?.()
      try {
        const work = () => gate.ingest([{ topic: CHANNEL, partition: 0, records }], Number.MAX_SAFE_INTEGER)
        const stops = await around(CONTEXT, work, () => gate.keyCounts())
        if (stops.length > 0) throw new TypeError(`a slice stopped: ${stops[0]?.outage.message ?? ''}`)
      } finally {
        trace.disable()
        context.disable()
      }
    },
  }
}

function partsOf(world: World, observer: Observer | undefined): IngestParts {
  const gate = world.gate()
  const { directory, contracts, dataKeys, pseudonyms } = gate
  const clock = { now: () => gate.now() }
  const keyService = {
    generate: () => Promise.reject(new TypeError('no output is sealed')),
    unwrap: () => Promise.reject(new TypeError('no output is sealed')),
  }
  return {
    settings: {
      ...{ name: GATEWAY, deployment: 'bench', epoch: 1, software: 'bench', maxValueBytes: 1_048_576 },
      limits: { maxSessions: 64, newDataKeysPerMinute: 60 },
      outlet: {
        auditTopic: 'audit',
        quarantineTopic: 'quarantine',
        kekId: 'shop-2026',
        topicOf: (name) => name,
      },
      reserveMs: 0,
      channelOf: (topic) => gate.channelOf(topic),
    },
    ...{ clock, dataKeys, signer: world.signer },
    sink: tracedSink(MEMORY),
    directory: { snapshot: () => Promise.resolve(directory), onKeksChanged: () => undefined },
    contracts: () => Promise.resolve(contracts),
    pseudonyms: () => Promise.resolve({ ...pseudonyms, domains: [] }),
    newSealingKeys: () => createSealingKeys({ keyService, clock }),
    ...(observer !== undefined && { observer }),
  }
}

/** Takes every transaction, and keeps none. */
const MEMORY: Sink = {
  partitionsOf: () => Promise.resolve(4),
  open: () =>
    Promise.resolve({
      ...{ position: firstPosition(0n), maxBatchBytes: 900_000, maxStateBytes: 65_536 },
      commit: () => Promise.resolve(),
      close: () => Promise.resolve(),
    }),
}

const withTraces = (slice: readonly SourceRecord[]): SourceRecord[] =>
  slice.map((record) => {
    const parent = record.offset.toString(16).padStart(16, 'a')
    const value = Buffer.from(`00-0af7651916cd43dd8448eb211c80319c-${parent}-01`)
    return { ...record, headers: [...record.headers, { name: 'traceparent', value }] }
  })
