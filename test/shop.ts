/** A small shop on an embedded stack in a temporary folder, for tests that need the whole path. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { deliverTo } from '../cli/delivery.ts'
import { createIngest } from '../lib/admission/slice.ts'
import { createSealer, type Sealer } from '../lib/client/sealer.ts'
import type { SealerOptions } from '../lib/client/sealer-options.ts'
import { buildBundle } from '../lib/contract/bundle.ts'
import { checkContracts } from '../lib/contract/load.ts'
import type { IngestParts } from '../lib/admission/slice.ts'
import type { Log } from '../lib/local/log.ts'
import { openStack, QUARANTINE_TOPIC, type Stack } from '../lib/local/stack.ts'
import type { SourceRecord } from '../lib/ports.ts'
import { createGate, type Gate } from '../lib/runtime.ts'

export const ORDER_TYPE = 'com.example.order.placed.v1'

export const ORDER_CONTRACT = `
contract: sealgate/1
type: ${ORDER_TYPE}
description: A customer has placed an order.
owner: team-shop
channel: orders
publish:
  shop-web: { sources: [/shop/web] }
classification: restricted
limits: { maxBytes: 65536 }
schema:
  type: object
  required: [orderId, customer, total]
  additionalProperties: false
  properties:
    orderId: { type: string }
    total: { type: number }
    customer:
      type: object
      x-classification: personal
      required: [id]
      properties:
        id: { type: string }
        email: { type: string }
consume:
  fulfilment:
    purpose: fulfil-orders
    to: orders.fulfilment
    form: sealed
    treatments: { /orderId: pass, /total: pass, /customer/id: pass }
  analytics:
    purpose: reporting
    to: orders.analytics
    form: plain
    treatments: { /total: pass, /customer/id: { pseudonym: analytics } }
`

export interface Shop {
  readonly folder: string
  readonly stack: Stack
  readonly log: Log
  /** A sealer of an issuer that delivers into the log. */
  sealer(iss: string, options?: Partial<SealerOptions>): Sealer
  gate(change?: (parts: IngestParts) => IngestParts): Gate
  /** Everything committed in a topic, by partition and offset. */
  records(topic: string): Promise<SourceRecord[]>
  /** What a consumer, the quarantine and the audit have got: values as text where they are JSON. */
  codes(): Promise<string[]>
  /** Closes the stack and opens it again, as a new process would. */
  reopen(): Promise<Shop>
  close(): Promise<void>
}

export async function openShop(
  contracts: readonly string[] = [ORDER_CONTRACT],
  folder: string = mkdtempSync(join(tmpdir(), 'shop-')),
  partitions = 2,
): Promise<Shop> {
  const checked = checkContracts(contracts.map((text, index) => ({ file: `contract-${index}.yaml`, text })))
  if (checked.faults.length > 0) throw new Error(JSON.stringify(checked.faults))
  const stack = await openStack({ folder, bundle: buildBundle(checked.files), partitions, software: 'test' })
  const { log } = stack
  const records = async (topic: string): Promise<SourceRecord[]> => {
    const all: SourceRecord[] = []
    const { length } = await log.endOffsets(topic)
    for (let partition = 0; partition < length; partition++) {
      for (let from = 0n; ;) {
        const { records: some, next, end } = await log.read(topic, partition, from)
        all.push(...some)
        from = next
        if (some.length === 0 || from >= end) break
      }
    }
    return all
  }
  return {
    folder,
    stack,
    log,
    sealer: (iss, options = {}) =>
      createSealer({
        ...stack.producer(iss),
        partitions: async (topic) => (await log.endOffsets(topic)).length,
        deliver: deliverTo(log),
        ...options,
      }),
    gate: (change = (parts) => parts) => createGate(createIngest(change(stack.gateParts())), 'throw'),
    records,
    codes: async () => {
      const quarantined = await records(QUARANTINE_TOPIC)
      return quarantined.map(({ headers }) =>
        Buffer.from(headers.findLast(({ name }) => name === 'sealgate-code')?.value ?? []).toString(),
      )
    },
    reopen: async () => {
      await stack.close()
      return openShop(contracts, folder, partitions)
    },
    close: async () => {
      await stack.close()
      rmSync(folder, { recursive: true, force: true })
    },
  }
}

/** Sends so many orders, each with what `event` adds to it, and gives all that then stand in the topic. */
export async function sentOrders(shop: Shop, count: number, event: object = {}): Promise<SourceRecord[]> {
  const sealer = shop.sealer('shop-web')
  await sealer.send(
    'orders',
    Array.from({ length: count }, (_, id) => ({
      type: ORDER_TYPE,
      source: '/shop/web',
      key: `k${id}`,
      data: { orderId: `${id}`, total: 1, customer: { id: 'c' } },
      ...event,
    })),
  )
  await sealer.close()
  return shop.records('orders')
}
