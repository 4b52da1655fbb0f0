import fc from 'fast-check'
import { afterEach, describe, expect, it } from 'vitest'
import { toMskEvent } from '../../lib/adapters/msk-event.ts'
import { REJECTION_CODES, Rejection } from '../../lib/errors.ts'
import { admit, type Gate as AdmissionGate } from '../../lib/admission/admit.ts'
import { ReplayState } from '../../lib/admission/replay.ts'
import { UNDECRYPTABLE } from '../../lib/envelope/seal.ts'
import { ProvenBatches } from '../../lib/envelope/verify.ts'
import { createDataKeys } from '../../lib/keys/data-keys.ts'
import { AUDIT_TOPIC, LOCAL_GATEWAY, QUARANTINE_TOPIC } from '../../lib/local/stack.ts'
import type { KeyService, SourceRecord } from '../../lib/ports.ts'
import type { Gate } from '../../lib/runtime.ts'
import { ORDER_TYPE, openShop, type Shop } from '../shop.ts'

const ORIGIN = {
  eventSourceArn: 'arn:aws:kafka:eu-west-1:000000000000:cluster/test',
  bootstrapServers: 'b-1:9098',
}
/** What must never stand in clear anywhere but in an output that a contract passes it to. */
const CANARY = 'canary-7f3a@example.com'

let shop: Shop
afterEach(() => shop.close())

async function sent(count: number): Promise<SourceRecord[]> {
  const sealer = shop.sealer('shop-web')
  const events = Array.from({ length: count }, (_, id) => ({
    type: ORDER_TYPE,
    source: '/shop/web',
    key: 'k',
    data: { orderId: `A-${id}`, total: 1, customer: { id: 'c', email: CANARY } },
  }))
  await sealer.send('orders', events)
  await sealer.close()
  return shop.records('orders')
}

const handle = (gate: Gate, records: readonly SourceRecord[]): Promise<unknown> =>
  gate.handle(JSON.parse(JSON.stringify(toMskEvent(records, ORIGIN))), Date.now() + 20_000)

/** A gate whose calls of the key service are counted, or answered otherwise. */
function watchedGate(unwrap?: KeyService['unwrap']): { gate: Gate; calls: () => number } {
  let calls = 0
  const real = shop.stack.consumer(LOCAL_GATEWAY).keyService
  const keyService: KeyService = {
    generate: (...args) => real.generate(...args),
    unwrap: (...args) => {
      calls += 1
      return (unwrap ?? real.unwrap.bind(real))(...args)
    },
  }
  return {
    gate: shop.gate((parts) => ({ ...parts, dataKeys: createDataKeys({ keyService, clock: parts.clock }) })),
    calls: () => calls,
  }
}

describe('an attacker', () => {
  it('costs no call of the key service with anything forged or altered', async () => {
    shop = await openShop()
    const [good] = await sent(1)
    const { gate, calls } = watchedGate()
    const original = Buffer.from(good?.value ?? [])
    const flips = fc.sample(fc.nat(original.length * 8 - 1), { numRuns: 300, seed: 7 })
    await shop.log.append(
      flips.map((bit) => {
        const value = Buffer.from(original)
        value[bit >> 3] = (value[bit >> 3] ?? 0) ^ (1 << (bit & 7))
        return {
          topic: 'orders',
          partition: good?.partition ?? 0,
          key: good?.key ?? null,
          value,
          headers: [],
        }
      }),
    )
    const forged = (await shop.records('orders')).slice(1)
    const [first, ...rest] = forged
    if (first === undefined) throw new Error('no record')
    // The position stands before the good record, which this batch leaves out: offsets may have gaps.
    await handle(gate, [first, ...rest])
    await gate.close()
    expect(calls()).toBe(0)
    const codes = await shop.codes()
    expect(codes).toHaveLength(300)
    const early = REJECTION_CODES.slice(0, REJECTION_CODES.indexOf('signature-invalid') + 1)
    expect(codes.filter((code) => !early.some((known) => known === code))).toEqual([])
  })

  it('costs no call by sending again what was good, while the data key is no longer at hand', async () => {
    shop = await openShop()
    const records = await sent(5)
    const first = watchedGate()
    await handle(first.gate, records)
    await first.gate.close()
    expect(first.calls()).toBe(1)
    await shop.log.append(records.map((record) => ({ ...record })))
    const again = (await shop.records('orders')).slice(5)
    const second = watchedGate()
    await handle(second.gate, again)
    await second.gate.close()
    expect(second.calls()).toBe(0)
    expect(await shop.codes()).toEqual(again.map(() => 'replayed'))
  })

  it('learns nothing from the text of a failed decryption: every step gives the same', async () => {
    shop = await openShop()
    const records = (await sent(1)).slice(0, 1)
    const [record] = records
    if (record === undefined) throw new Error('no record')
    const parts = shop.stack.gateParts()
    const real = shop.stack.consumer(LOCAL_GATEWAY).keyService
    const directory = await parts.directory.snapshot(Date.now() + 5000)
    const reasonOf = async (
      unwrap: KeyService['unwrap'],
      change: (gate: AdmissionGate) => AdmissionGate = (gate) => gate,
    ): Promise<string> => {
      const gate: AdmissionGate = {
        audience: LOCAL_GATEWAY,
        maxValueBytes: 1_048_576,
        directory,
        contracts: shop.stack.contracts,
        dataKeys: createDataKeys({
          keyService: { generate: (...args) => real.generate(...args), unwrap },
          clock: parts.clock,
          maxEntries: 0,
        }),
        pseudonyms: await parts.pseudonyms(Date.now() + 5000),
        batches: new ProvenBatches(),
        channelOf: (topic) => parts.settings.channelOf(topic),
        now: () => Date.now(),
      }
      const verdict = await admit(
        record,
        change(gate),
        new ReplayState(parts.settings.limits, 10_000),
        Date.now() + 5000,
      )
      if (verdict.admitted) throw new Error('it was admitted')
      expect(verdict.code).toBe('undecryptable')
      return verdict.reason
    }
    const wrong = Buffer.alloc(32, 1)
    const reasons = [
      await reasonOf(() => Promise.resolve(wrong)),
      await reasonOf(() => Promise.reject(new Rejection('undecryptable', UNDECRYPTABLE))),
      await reasonOf(real.unwrap.bind(real), (gate) => ({
        ...gate,
        directory: { ...directory, snapshot: { ...directory.snapshot, kek: () => undefined } },
      })),
    ]
    expect(new Set(reasons).size).toBe(1)
    // Nobody keeps it: it was wiped when the record was decided.
    expect(wrong).toEqual(Buffer.alloc(32))
  })

  it('finds no payload and no key in audit, quarantine, sealed outputs or errors', async () => {
    shop = await openShop()
    const records = await sent(4)
    const gate = shop.gate()
    await handle(gate, records)
    const [good] = records
    await shop.log.append([
      {
        topic: 'orders',
        partition: 0,
        key: null,
        value: Buffer.from(`{"email":"${CANARY}"`).subarray(0, 10),
        headers: [],
      },
      {
        topic: 'orders',
        partition: good?.partition ?? 0,
        key: Buffer.from('another key'),
        value: good?.value ?? null,
        headers: [],
      },
    ])
    await handle(gate, await shop.records('orders'))
    const failing = shop.gate((parts) => ({
      ...parts,
      sink: { ...parts.sink, open: () => Promise.reject(new Error(`broken: ${CANARY}`)) },
    }))
    const error: unknown = await handle(failing, records).catch((failure: unknown) => failure)
    await gate.close()
    const [visible] = await Promise.all([
      Promise.all(
        [AUDIT_TOPIC, QUARANTINE_TOPIC, 'orders.fulfilment', 'orders.analytics'].map((topic) =>
          shop.records(topic),
        ),
      ),
    ])
    const bytes = Buffer.concat(
      visible
        .flat()
        .flatMap(({ key, value, headers }) => [
          key ?? Buffer.of(),
          value ?? Buffer.of(),
          ...headers.map((header) => header.value ?? Buffer.of()),
        ]),
    )
    expect(bytes.includes(CANARY)).toBe(false)
    expect(bytes.length).toBeGreaterThan(2000)
    // The text that a Lambda log would show holds nothing of an unexpected error's own words.
    expect(error instanceof Error ? error.message : '').toContain('unexpected')
    expect(error instanceof Error ? error.message : CANARY).not.toContain(CANARY)
  })
})
