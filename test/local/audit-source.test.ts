import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, test, vi } from 'vitest'
import { encodeState, NO_CONTROL } from '../../lib/admission/position.ts'
import { ReplayState } from '../../lib/admission/replay.ts'
import { type AuditRecord, verifyAudit } from '../../lib/audit/verification.ts'
import { auditSource } from '../../lib/local/audit-source.ts'
import { polledLog } from '../../lib/local/poller.ts'
import type { ReadableSource } from '../../lib/local/poller-lane.ts'
import { openLog } from '../../lib/local/log-open.ts'
import { createLocalPositions } from '../../lib/local/log-sink.ts'
import type { Log } from '../../lib/local/log.ts'
import { newSigner, Stream, there } from '../audit/fixtures.ts'

const gate = newSigner()
const orders = { topic: 'orders', partition: 0 }
const unused = { topic: 'orders', partition: 1 }
const stream = new Stream(gate)
let folder: string
let log: Log

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'sg-audit-source-'))
  log = await openLog(folder)
  await log.createTopic('orders', 2)
  await log.createTopic('audit', 2)
  await stream.slice(2_000)
  await stream.slice(3_000)
  await log.append(
    stream.records.map(({ key, value }) => ({ topic: 'audit', partition: 1, key, value, headers: [] })),
  )
  const replay = new ReplayState({ maxSessions: 64, newDataKeysPerMinute: 60 }, 1_000)
  const state = encodeState({
    head: there(stream.heads.get('orders/0')),
    homes: { audit: 1, quarantine: 0 },
    control: NO_CONTROL,
    replay,
  })
  await createLocalPositions(log, { deployment: 'test' }).init(
    orders,
    { next: 5_000n, state },
    Date.now() + 5_000,
  )
})

afterEach(() => vi.restoreAllMocks())
afterAll(async () => {
  await log.close()
  await rm(folder, { recursive: true })
})

const verify = (topic: string, records: ReadableSource = polledLog(log)) => {
  const positions = createLocalPositions(log, { deployment: 'test' })
  const source = auditSource(records, topic, {
    positions,
    sources: [orders, unused],
    auditTopic: topic,
    deadline: Date.now() + 5_000,
  })
  return verifyAudit(source, { keyOf: () => gate.publicKey })
}

describe('the audit of the embedded log', () => {
  test('is read whole, over many reads, and held against the heads in the positions', async () => {
    expect(await verify('audit')).toMatchObject({
      verified: true,
      headsKnown: true,
      entries: 5_000,
      segments: 2,
    })
  })

  test('shows a tail that is not there', async () => {
    await log.createTopic('emptied', 1)
    expect((await verify('emptied')).breaks).toMatchObject([
      { kind: 'cut at the end', topic: 'orders', partition: 0 },
    ])
  })

  test('is an outage where a transaction that may hide the tail does not end', async () => {
    await log.createTopic('hidden', 1)
    const records = polledLog(log)
    const begun = Date.now()
    let asked = 0
    vi.spyOn(Date, 'now').mockImplementation(() => begun + 1_000 * asked)
    const verifying = verify('hidden', {
      ...records,
      writtenEnd: async (place) => (await records.writtenEnd(place)) + 1n,
      fetch: (...call) => {
        asked += 1
        return records.fetch(...call)
      },
    })
    await expect(verifying).rejects.toMatchObject({ name: 'Outage', code: 'sink-unavailable' })
    expect(asked).toBeGreaterThan(30)
  })

  test('is an outage where the topic is not there', async () => {
    await expect(verify('nowhere')).rejects.toMatchObject({ name: 'Outage', code: 'sink-denied' })
  })

  test('ends where the topic ended when reading began', async () => {
    await log.createTopic('growing', 1)
    const message = { topic: 'growing', partition: 0, key: null, value: Buffer.from('x'), headers: [] }
    await log.append([message])
    const seen: AuditRecord[] = []
    for await (const record of auditSource(polledLog(log), 'growing').read(0)) {
      seen.push(record)
      await log.append([message])
    }
    expect(seen).toHaveLength(1)
  })
})
