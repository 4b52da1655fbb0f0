/** A shop whose gate has refused something, and an operator who puts it back. */
import {
  redrive,
  type RedriveOrder,
  type RedriveOutcome,
  type RedriveReport,
} from '../../lib/admission/redrive.ts'
import type { IngestParts } from '../../lib/admission/slice.ts'
import { toMskEvent } from '../../lib/adapters/msk-event.ts'
import { type VerificationReport, verifyAudit } from '../../lib/audit/verification.ts'
import { createDirectory } from '../../lib/keys/directory-reader.ts'
import { auditSource } from '../../lib/local/audit-source.ts'
import { createLocalPositions } from '../../lib/local/log-sink.ts'
import { polledLog } from '../../lib/local/poller.ts'
import { AUDIT_TOPIC } from '../../lib/local/stack.ts'
import type { PositionAdmin, RecordReader, SourceRecord } from '../../lib/ports.ts'
import { ORDER_CONTRACT, ORDER_TYPE, type Shop } from '../shop.ts'

/** A contract of its own on the same channel, for a type that the gate does not know at first. */
export const REFUND_TYPE = 'com.example.order.refunded.v1'
export const REFUND_CONTRACT: string = ORDER_CONTRACT.replaceAll(ORDER_TYPE, REFUND_TYPE)
  .replaceAll('orders.fulfilment', 'refunds.fulfilment')
  .replaceAll('orders.analytics', 'refunds.analytics')

export const refund = (id: number): { type: string; source: string; key: string; data: unknown } => ({
  type: REFUND_TYPE,
  source: '/shop/web',
  key: `customer-${id % 7}`,
  data: { orderId: `A-${id}`, total: id, customer: { id: 'c' } },
})

/** Sends events to `orders`, and gives what then stands there. */
export async function send(
  shop: Shop,
  events: readonly object[],
  lifeSeconds = 86_400,
): Promise<SourceRecord[]> {
  const sealer = shop.sealer('shop-web', { lifeSeconds })
  await sealer.send('orders', events as Parameters<typeof sealer.send>[1])
  await sealer.close()
  return shop.records('orders')
}

export async function handle(
  shop: Shop,
  records?: readonly SourceRecord[],
  change?: (parts: IngestParts) => IngestParts,
): Promise<void> {
  const gate = shop.gate(change)
  const event = toMskEvent(records ?? (await shop.records('orders')), {
    eventSourceArn: 'arn',
    bootstrapServers: 'b',
  })
  await gate.handle(JSON.parse(JSON.stringify(event)), Date.now() + 20_000)
  await gate.close()
}

export interface Redriven extends RedriveReport {
  readonly outcomes: readonly RedriveOutcome[]
  /** How many there are of each `result` and `code`. */
  readonly counts: Readonly<Record<string, number>>
}

export interface Around {
  readonly signal?: AbortSignal
  readonly change?: (parts: IngestParts) => IngestParts
  /** What the reader finds. */
  readonly seen?: (record: SourceRecord) => boolean
  /** How many records it finds at a time, at most. */
  readonly page?: number
  readonly positions?: PositionAdmin
}

export async function redriven(
  shop: Shop,
  order: Partial<RedriveOrder> = {},
  around: Around = {},
): Promise<Redriven> {
  const outcomes: RedriveOutcome[] = []
  const parts = shop.stack.gateParts()
  const { seen = () => true, page: most = Infinity } = around
  const log = polledLog(shop.log)
  const reader: RecordReader = {
    ...log,
    fetch: async (place, from, { maxBytes, maxRecords }) => {
      const page = await log.fetch(place, from, { maxBytes, maxRecords: Math.min(maxRecords, most) })
      return { ...page, records: page.records.filter(seen) }
    },
  }
  const report = await redrive(
    { dryRun: false, acceptExpired: new Set(), by: null, reason: null, ...order },
    {
      ingest: around.change?.(parts) ?? parts,
      reader,
      positions: around.positions ?? createLocalPositions(shop.log, parts.settings),
    },
    { outcome: (outcome) => void outcomes.push(outcome) },
    around.signal ?? new AbortController().signal,
  )
  const counts: Record<string, number> = {}
  for (const { result, code } of outcomes) {
    const name = code === null ? result : `${result} ${code}`
    counts[name] = (counts[name] ?? 0) + 1
  }
  return { ...report, outcomes, counts }
}

/** The totals of a plain output, sorted. */
export async function totals(shop: Shop, channel = 'refunds.analytics'): Promise<number[]> {
  const records = await shop.records(channel)
  return records
    .map(({ value }) => (JSON.parse(Buffer.from(value ?? []).toString()) as { total: number }).total)
    .sort((a, b) => a - b)
}

export async function verified(shop: Shop): Promise<VerificationReport> {
  const { stack, log } = shop
  const directory = createDirectory({ ...stack.directory, clock: stack.clock })
  const deadline = Date.now() + 5000
  const { snapshot } = await directory.snapshot(deadline)
  const sources = [0, 1].map((partition) => ({ topic: 'orders', partition }))
  const positions = createLocalPositions(log, { deployment: 'local' })
  return verifyAudit(
    auditSource(polledLog(log), AUDIT_TOPIC, { positions, sources, auditTopic: AUDIT_TOPIC, deadline }),
    {
      keyOf: (kid) => snapshot.signingKey(kid)?.key,
    },
  )
}
