/** A handler in a process of its own, to be killed or frozen: its parent feeds it with events, and may set a trap. */
import Broker from 'kafkajs/src/broker/index.js'
import { createKafkaSink } from '../../../lib/adapters/kafka.ts'
import { readKafkaSettings } from '../../../lib/adapters/kafka-settings.ts'
import { createIngest, type IngestParts } from '../../../lib/admission/slice.ts'
import { connectStack } from '../../../lib/local/stack.ts'
import type { Sink, SinkSession } from '../../../lib/ports.ts'
import { createGate, type Gate } from '../../../lib/runtime.ts'
import { Points, tell, type Trap } from './trap.ts'

/** What it must know; it comes first. */
export interface HandlerSettings {
  /** Of the embedded stack, for keys and contracts; its owner is another process. */
  readonly folder: string
  /** As `readKafkaSettings` takes them. */
  readonly kafka: object
  readonly deployment: string
  readonly source: string
  readonly audit: string
  readonly quarantine: string
  /** Channel to topic. */
  readonly outputs: Readonly<Record<string, string>>
  /** Smaller than the sink's own, so that a slice is several transactions. */
  readonly maxBatchBytes: number
  readonly reserveMs: number
  /** How far this process's clock is ahead of the others', milliseconds. */
  readonly clockLeadMs: number
}

export type Order =
  | { readonly do: 'open'; readonly settings: HandlerSettings }
  | { readonly do: 'arm'; readonly trap: Trap }
  | { readonly do: 'handle'; readonly event: unknown; readonly deadline: number }
  | { readonly do: 'close' }

const REQUESTS = [
  'connect',
  'metadata',
  'findGroupCoordinator',
  'initProducerId',
  'addPartitionsToTxn',
  'addOffsetsToTxn',
  'txnOffsetCommit',
  'offsetFetch',
  'produce',
  'endTxn',
  'disconnect',
]

const points = new Points()

/** Every request of the path, and which end a transaction comes to. */
function watchRequests(): void {
  for (const name of REQUESTS) {
    const request: unknown = Reflect.get(Broker.prototype, name)
    if (typeof request !== 'function') throw new TypeError(`kafkajs has no request ${name}`)
    const watched = function (this: unknown, ...args: { transactionResult?: boolean }[]): Promise<unknown> {
      const end = args[0]?.transactionResult
      const which = name === 'endTxn' ? (end === true ? '.commit' : '.abort') : ''
      return points.around(`request.${name}${which}`, async () => {
        const answer: unknown = await Reflect.apply(request, this, args)
        return answer
      })
    }
    Reflect.set(Broker.prototype, name, watched)
  }
}

function watchSink(sink: Sink, maxBatchBytes: number): Sink {
  return {
    partitionsOf: (topic, deadline) =>
      points.around('sink.partitionsOf', () => sink.partitionsOf(topic, deadline)),
    open: async (source, deadline) => {
      const session = await points.around('sink.open', () => sink.open(source, deadline))
      return watchSession(session, maxBatchBytes)
    },
  }
}

const watchSession = (session: SinkSession, maxBatchBytes: number): SinkSession => ({
  get position() {
    return session.position
  },
  maxBatchBytes,
  maxStateBytes: session.maxStateBytes,
  commit: (messages, position, deadline) =>
    points.around('session.commit', () => session.commit(messages, position, deadline)),
  close: () => session.close(),
})

function watchParts(parts: IngestParts): IngestParts {
  const { directory, dataKeys, signer } = parts
  return {
    ...parts,
    directory: {
      snapshot: (deadline) => points.around('directory.snapshot', () => directory.snapshot(deadline)),
      onKeksChanged: (listener) => directory.onKeksChanged(listener),
    },
    dataKeys: {
      prepare: (requests, deadline) =>
        points.around('dataKeys.prepare', () => dataKeys.prepare(requests, deadline)),
      holds: (request) => dataKeys.holds(request),
      retain: (snapshot) => dataKeys.retain(snapshot),
      counts: () => dataKeys.counts(),
      close: () => dataKeys.close(),
    },
    signer: {
      kid: signer.kid,
      alg: signer.alg,
      sign: (bytes, deadline) => points.around('signer.sign', () => signer.sign(bytes, deadline)),
    },
    contracts: (deadline) => points.around('contracts', () => parts.contracts(deadline)),
    pseudonyms: (deadline) => points.around('pseudonyms', () => parts.pseudonyms(deadline)),
  }
}

/** All that this process does goes by another clock; Lambda's deadline too, which is a remaining time. */
function leadClock(byMs: number): void {
  const now = Date.now.bind(Date)
  Date.now = () => now() + byMs
}

async function openHandler(settings: HandlerSettings): Promise<{ gate: Gate; end: () => Promise<void> }> {
  const { source, audit, quarantine, outputs } = settings
  const stack = await connectStack(settings.folder, 'test')
  const sink = createKafkaSink(readKafkaSettings(settings.kafka), stack.clock)
  const parts = stack.gateParts()
  const gate = createGate(
    createIngest(
      watchParts({
        ...parts,
        sink: watchSink(sink, settings.maxBatchBytes),
        settings: {
          ...parts.settings,
          deployment: settings.deployment,
          reserveMs: settings.reserveMs,
          outlet: {
            ...parts.settings.outlet,
            auditTopic: audit,
            quarantineTopic: quarantine,
            topicOf: (channel) => outputs[channel] ?? channel,
          },
          channelOf: (topic) => (topic === source ? { name: 'orders', maxLifeSeconds: 86_400 } : undefined),
        },
      }),
    ),
    'throw',
  )
  const end = async (): Promise<void> => {
    await gate.close()
    await sink.close()
    await stack.close()
  }
  return { gate, end }
}

async function handle(gate: Gate, event: unknown, deadline: number): Promise<void> {
  try {
    await points.around('handler', () => gate.handle(event, deadline))
    tell({ is: 'done', passed: points.passed })
  } catch (error) {
    tell({
      is: 'failed',
      message: error instanceof Error ? error.message : 'unknown',
      passed: points.passed,
    })
  }
}

watchRequests()
let leadMs = 0
let handler: Awaited<ReturnType<typeof openHandler>> | undefined

async function obey(order: Order): Promise<void> {
  switch (order.do) {
    case 'open':
      leadMs = order.settings.clockLeadMs
      leadClock(leadMs)
      handler = await openHandler(order.settings)
      tell({ is: 'ready' })
      return
    case 'arm':
      points.arm(order.trap)
      return
    case 'handle':
      if (handler !== undefined) await handle(handler.gate, order.event, order.deadline + leadMs)
      return
    case 'close':
      await handler?.end()
      process.disconnect()
  }
}

// An order that fails ends the process by an unhandled rejection, which its parent takes for what it is.
process.on('message', (order: Order) => void obey(order))
// Nobody is left who would end us. No request lasts longer than this; what holds us then is what nobody has closed.
process.on('disconnect', () =>
  setTimeout(() => {
    console.error(`a handler is held open by ${process.getActiveResourcesInfo().join(', ')}`)
    process.exit(3)
  }, 13_000).unref(),
)
