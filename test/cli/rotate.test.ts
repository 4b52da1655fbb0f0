/** `sealgate rotate` on an embedded stack: the gateway's signing key, replaced while events go through. */
import { mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ingestHandler } from '../../functions/ingest-handler.ts'
import { readContracts } from '../../lib/adapters/contract-files.ts'
import { createSealer } from '../../lib/client/sealer.ts'
import { createOpener } from '../../lib/client/opener.ts'
import { createIngest } from '../../lib/admission/slice.ts'
import { buildBundle } from '../../lib/contract/bundle.ts'
import { checkContracts } from '../../lib/contract/load.ts'
import { createDirectory } from '../../lib/keys/directory-reader.ts'
import { polledLog, type Poller, startPoller } from '../../lib/local/poller.ts'
import { LOCAL_GATEWAY, openStack, type Stack } from '../../lib/local/stack.ts'
import { createGate } from '../../lib/runtime.ts'
import { type Ran, sealgate } from './terminal.ts'

const CONTRACTS = fileURLToPath(new URL('../../contracts', import.meta.url))
const TYPE = 'com.example.order.placed.v1'
const OUTPUT = 'notifications.orders'
const DAY_MS = 86_400_000
/** What gates, consumers and signers of this stack are set to, and all the waits that follow from it. */
const POLICY = `rotations:
  gateway: { kind: signing-key, iss: ${LOCAL_GATEWAY}, secret: signing-gateway, period: 90d }
  directory: { kind: directory }
  root: { kind: directory-root, since: 2026-01-01 }
waits: { directoryGrace: 3s, secretHold: 1s, eventLife: 1s, margin: 1s, retention: 1s }
`

let folder = ''
let policy = ''
let stack: Stack
let poller: Poller
let endGate: () => Promise<void>
const at = (...args: string[]): Promise<Ran> =>
  sealgate(['rotate', ...args, '--folder', join(folder, 'stack'), '--policy', policy])

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'sealgate-rotate-'))
  policy = join(folder, 'rotation.yaml')
  await writeFile(policy, POLICY)
  const { files } = checkContracts(await readContracts(CONTRACTS))
  stack = await openStack({
    ...{ folder: join(folder, 'stack'), bundle: buildBundle(files), partitions: 1, software: 'test' },
    signing: { maxAgeMs: 300, holdMs: 1000 },
  })
  const gate = createGate(createIngest(stack.gateParts()), 'throw')
  poller = await startPoller({
    source: polledLog(stack.log),
    group: 'gate',
    topics: stack.ingress,
    handler: ingestHandler(() => Promise.resolve(gate)),
    options: { batchSize: 100, batchingWindowMs: 20 },
  })
  endGate = () => gate.close()
})

afterAll(async () => {
  await poller.stop()
  await endGate()
  await stack.close()
  await rm(folder, { recursive: true, force: true })
})

/** The gateway's rows of the directory, the newest last. */
async function gatewayRows() {
  const { snapshot } = await createDirectory({ ...stack.directory, clock: stack.clock }).snapshot(
    Date.now() + 5000,
  )
  return snapshot.signingKeys.filter(({ iss }) => iss === LOCAL_GATEWAY)
}

/** Events through the gate to a consumer, until it is told to stop: what became of each. */
async function traffic(isOver: () => boolean): Promise<{ opened: number; refused: string[]; sent: number }> {
  const { log, clock } = stack
  const { iss, audience, signer, kek, keyService } = stack.producer('checkout')
  const sealer = createSealer({
    ...{ iss, audience, signer, kek, keyService, partitions: 1 },
    deliver: async ({ topic, messages }) => {
      await log.append(
        messages.map(({ partition, key, value, headers }) => ({
          ...{ topic, partition, key, value },
          headers: Object.entries(headers).map(([name, text]) => ({ name, value: Buffer.from(text) })),
        })),
      )
    },
  })
  const consumer = stack.consumer('notifications')
  const opener = createOpener({
    ...{ audience: 'notifications', issuers: [LOCAL_GATEWAY], keyService: consumer.keyService },
    directory: createDirectory({ ...consumer.directory, clock, maxAgeMs: 300, graceMs: 1000 }),
  })
  const data = {
    ...{ orderId: 'A-1', placedAt: '2026-11-22T05:00:00Z', customer: { id: 'c7', email: 'a@example.com' } },
    ...{ items: [{ article: 'x', quantity: 1, price: 1.1 }], total: 1.1, currency: 'EUR' },
  }
  const result = { opened: 0, refused: [] as string[], sent: 0 }
  let [next = 0n] = await log.endOffsets(OUTPUT)
  for (let rest = 40; rest > 0;) {
    if (!isOver()) {
      await sealer.send('orders', { id: `e${result.sent++}`, source: '/shop/checkout', type: TYPE, data })
    } else if (result.opened + result.refused.length >= result.sent) break
    else rest--
    await sleep(50)
    const read = await log.read(OUTPUT, 0, next)
    next = read.next
    const messages = read.records.map(({ key, value, timestamp, offset, headers }) => ({
      ...{ key, value, timestamp: String(timestamp), offset: String(offset) },
      headers: Object.fromEntries(headers.map(({ name, value: bytes }) => [name, bytes])),
    }))
    for (const one of await opener.openBatch({ topic: OUTPUT, partition: 0, messages }))
      if (one.opened) result.opened++
      else result.refused.push(`${one.code}: ${one.reason}`)
  }
  await sealer.close()
  return result
}

describe('sealgate rotate', () => {
  it('shows what it would do, and does nothing', async () => {
    const before = await readdir(join(folder, 'stack', 'secrets'))
    const { out, status } = await at('gateway', '--now', '--dry-run')
    expect({ out, status }).toEqual({ out: 'gateway: make a new key pair, pending', status: 0 })
    expect(await readdir(join(folder, 'stack', 'secrets'))).toEqual(before)
    const quiet = await at()
    expect(quiet.out).toMatch(
      /^gateway: nothing to do; due 20\S+Z\ndirectory: nothing to do; due 20\S+Z\nroot: /,
    )
    expect((await at('--dry-run')).out).toBe(quiet.out)
    expect(await gatewayRows()).toHaveLength(1)
  })

  it('replaces the key of a gate that runs: no event is refused for it, and the audit holds', async () => {
    let isOver = false
    const going = traffic(() => isOver)
    await sleep(300)
    const [before] = await gatewayRows()
    const { out, err, status } = await at('gateway', '--now', '--wait')
    expect({ err, status }).toEqual({ err: '', status: 0 })
    expect(out.split('\n').map((line) => line.replaceAll(/20\S+Z|key [\w-]{43}|[0-9a-f]{64}/g, '…'))).toEqual(
      [
        'gateway: make a new key pair, pending',
        'gateway: enrol …',
        'gateway: waits until …, until every gate knows the new key',
        'gateway: make version … of signing-gateway current',
        'gateway: … signs until …',
        'gateway: nothing to do; due …',
      ],
    )
    await sleep(4000)
    isOver = true
    const { opened, refused, sent } = await going
    expect(refused).toEqual([])
    expect(opened).toBe(sent)
    const rows = await gatewayRows()
    expect(rows).toMatchObject([{ state: 'deactivated', kidText: before?.kidText }, { state: 'active' }])
    // Nobody signs with the old key any more: its last second is over.
    expect(rows[0]!.notAfter * 1000).toBeLessThan(Date.now())
    const audit = await sealgate(['audit', 'verify', '--folder', join(folder, 'stack')])
    expect({ err: audit.err, status: audit.status }).toEqual({ err: '', status: 0 })
  })

  it('takes out what nobody needs any more, and says what is due when', async () => {
    await sleep(2500)
    const { out } = await at('--json')
    const report = JSON.parse(out)
    expect(report.done).toEqual([{ name: 'gateway', step: 'destroy-key' }])
    const { out: told, status } = await at('status', '--json')
    const [gateway, directory, root] = JSON.parse(told).rows
    expect(gateway).toMatchObject({ name: 'gateway', kind: 'signing-key', state: 'current', overdue: false })
    expect(Date.parse(gateway.dueAt) - Date.parse(gateway.rotatedAt)).toBe(90 * DAY_MS)
    expect(directory).toMatchObject({ name: 'directory', kind: 'directory', overdue: false })
    expect(root).toEqual({
      ...{ name: 'root', kind: 'directory-root', state: 'current', rotatedAt: '2026-01-01T00:00:00Z' },
      ...{ dueAt: '2027-01-01T00:00:00Z', overdue: false },
    })
    expect(status).toBe(0)
    expect((await at('status')).out).toMatch(
      /^NAME +KIND +STATE +ROTATED +DUE\ngateway +signing-key +current +20/,
    )
  })

  it('gives a gateway whose key was revoked a new one only when it is asked to by name, and then it signs again', async () => {
    const kid = (await gatewayRows()).at(-1)!.kidText
    const revoked = await sealgate([
      ...['keys', 'revoke', kid, '--compromised-at', 'unknown', '--leaving', LOCAL_GATEWAY],
      ...['--folder', join(folder, 'stack')],
    ])
    expect(revoked.status).toBe(0)
    const blocked = await at()
    expect(blocked.status).toBe(1)
    expect(blocked.out).toContain('gateway: blocked.')
    expect((await at('gateway', '--now')).out).toMatch(
      /gateway: enrol key .*\ngateway: waits until 20.*run this again$/,
    )
    // What was asked for goes on by itself.
    expect((await at('--wait')).status).toBe(0)
    await sleep(500)
    let isOver = false
    const going = traffic(() => isOver)
    await sleep(500)
    isOver = true
    const { opened, sent, refused } = await going
    expect(refused).toEqual([])
    expect(opened).toBe(sent)
  })

  it.each([
    [['gate'], 'fault gate: The policy has no such rotation. There are: gateway, directory, root.'],
    [['--now'], 'fault --now: It is for one rotation. Name it: rotate NAME --now.'],
  ])('refuses %j', async (args, message) => {
    expect(await at(...args)).toMatchObject({ status: 2, err: message })
  })

  it('goes on with the others where one fails, and then says what did', async () => {
    const file = join(folder, 'failing.yaml')
    await writeFile(
      file,
      `rotations:
  nobody: { kind: signing-key, iss: nobody, secret: signing-nobody }
  directory: { kind: directory }
`,
    )
    const { out, err, status } = await sealgate([
      ...['rotate', '--policy', file, '--folder', join(folder, 'stack')],
    ])
    expect(out).toMatch(/^directory: nothing to do; due \S+/m)
    expect(err).toMatch(/^nobody failed/m)
    expect(err).toContain('signing-nobody')
    expect(status).toBe(2)
  })

  it('names all that is wrong with a policy', async () => {
    const file = join(folder, 'bad.yaml')
    await writeFile(
      file,
      `rotations:
  a: { kind: signing-key, iss: x, secret: s, period: 1h }
  b: { kind: signing-key, secret: s, periode: 1d }
  c: { kind: skram }
  f: { kind: scram, pointer: s, users: [u], msk: 5, brokers: [], period: 1h }
  d: { kind: kms-key, key: k, period: 36h }
  e: { kind: pseudonym-keys, since: yesterday }
waits: { margin: 5 minutes, patience: 1d }
`,
    )
    const { err, status } = await sealgate([
      ...['rotate', 'status', '--policy', file, '--folder', join(folder, 'stack')],
    ])
    expect(status).toBe(2)
    for (const part of [
      'waits: patience is no field of it.',
      'waits.margin: It is no length of time. Write 90d, 12h, 5m or 30s.',
      'rotations.a.period: A rotation takes',
      'rotations.b: periode is no field of a signing-key.',
      'rotations.b: It has no iss.',
      'rotations.c: It has no kind that is known.',
      'rotations.d.period: KMS rotates by whole days',
      'rotations.f.users: It is no list of two secrets.',
      'rotations.f.msk: It is no text.',
      'rotations.f.brokers: It is no list of texts.',
      'rotations.f.period: A rotation takes',
      'rotations.e.since: It is no date.',
      'rotations: Two have the secret s.',
    ])
      expect(err).toContain(`${file}: ${part}`)
  })
})
