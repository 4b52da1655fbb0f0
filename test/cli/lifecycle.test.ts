/** What commands that change keys tell the audit: on an embedded stack, and where the audit cannot be told. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { createServer, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { createIngest } from '../../lib/admission/slice.ts'
import { polledLog, startPoller } from '../../lib/local/poller.ts'
import { ingestHandler } from '../../functions/ingest-handler.ts'
import { AUDIT_TOPIC } from '../../lib/local/stack.ts'
import { createGate } from '../../lib/runtime.ts'
import { openShop, ORDER_TYPE, type Shop } from '../shop.ts'
import { type Ran, sealgate } from './terminal.ts'

const ok = async (args: readonly string[]): Promise<string> => {
  const { out, err, status } = await sealgate(args)
  expect({ err, status }).toEqual({ err: '', status: 0 })
  return out
}

describe('on an embedded stack', () => {
  let shop: Shop
  let kid = ''
  const at = (...args: string[]): string[] => [...args, '--folder', shop.folder]
  /** What `audit search` finds: event_type, resource, principal, result. */
  const story = async (...args: string[]): Promise<string[]> => {
    const lines = (await ok(at('audit', 'search', '--json', ...args))).split('\n').slice(0, -1)
    return lines.map((line) => {
      const { event_type: type, resource, principal, result } = JSON.parse(line).entry
      return `${type} ${resource} ${principal} ${result}`
    })
  }
  beforeEach(async () => {
    shop = await openShop()
    kid = JSON.parse((await ok(at('keys', 'list', '--issuer', 'shop-web', '--json'))).split('\n')[0]!).kid
  })
  afterEach(() => shop.close())

  it('shows the story of a key by one command, with who did it as he said, and the audit verifies', async () => {
    const change = (...args: string[]) =>
      ok([...at('keys', ...args, '--leaving', 'shop-web', '--by', 'ann'), '--', kid])
    const suspended = JSON.parse(await change('suspend', '--json'))
    expect(suspended).toMatchObject({ published: true, audited: true })
    await change('resume')
    const revoked = await change('revoke', '--compromised-at', '2026-11-22T09:00:00Z')
    const [touched, next] = revoked.split('\n').slice(-2)
    expect(await story('--resource', `key:${kid}`)).toEqual([
      `key.enrolled key:${kid} null success`,
      `key.suspended key:${kid} User:ann success`,
      `key.resumed key:${kid} User:ann success`,
      `key.revoked key:${kid} User:ann success`,
    ])
    expect(await ok(at('audit', 'search', '--resource', `key:${kid}`))).toContain(
      '\nBy principal, where proven; of what operators did, as they said:\n         3  User:ann',
    )
    expect(await story('--type', 'directory.*')).toEqual([
      `directory.loaded directory:1..${suspended.version - 1} null failure`.replace('1..1', '1'),
      ...[0, 1, 2].map(
        (more) => `directory.published directory:${Number(suspended.version) + more} User:ann success`,
      ),
    ])
    const verified = JSON.parse(await ok(at('audit', 'verify', '--json')))
    expect(verified).toMatchObject({ verified: true, headsKnown: true })
    expect(verified.ranges).toMatchObject([{ topic: '_control', breaks: 0 }])
    // What revoke prints works as it stands.
    expect([touched, next]).toEqual([
      `What it touched: sealgate keys touched --folder ${shop.folder} -- ${kid}`,
      `Its story: sealgate audit search --resource 'key:${kid}' --folder ${shop.folder}`,
    ])
    expect(await ok(touched!.split('sealgate ')[1]!.split(' '))).toContain(`No record that key ${kid} signed`)
  })

  it('names the user of this machine where nobody else is named, and tells nothing of a dry run', async () => {
    await ok(at('directory', 'publish', '--dry-run'))
    expect(await story()).toEqual([])
    await ok(at('directory', 'publish'))
    expect((await story('--type', 'directory.renewed'))[0]).toMatch(
      /^directory\.renewed directory:\d+ User:\S+ success$/,
    )
    expect((await sealgate(at('directory', 'publish', '--by', ' '))).status).toBe(2)
  })

  it('has what a rotation does, in its order; where it cannot be told, the command says so', async () => {
    const done = JSON.parse(await ok(at('rotate', 'gateway', '--now', '--by', 'ann', '--json')))
    expect(done).toMatchObject({ done: [{ step: 'stage-key' }, { step: 'enrol-key' }], audited: true })
    const [staged, ...rest] = (await story()).filter((one) => one.includes('User:ann'))
    expect(staged).toBe('key.staged secret:signing-gateway User:ann success')
    expect(rest).toEqual([
      expect.stringMatching(/^directory\.published directory:\d+ User:ann success$/),
      expect.stringMatching(/^key\.enrolled key:\S+ User:ann success$/),
    ])
    await ok(at('rotate', 'directory', '--now', '--dry-run'))
    const renewed = JSON.parse(await ok(at('rotate', 'directory', '--now', '--by', 'ann', '--json')))
    expect(renewed).toMatchObject({ done: [{ step: 'renew-directory' }], audited: true })
    expect((await story('--type', 'directory.renewed')).length).toBe(1)
    await shop.log.commitGroup([
      { group: 'local.shadow.v1', topic: AUDIT_TOPIC, partition: 0, next: 0n, metadata: new Uint8Array() },
    ])
    const untold = await sealgate(at('rotate', 'directory', '--now'))
    expect([untold.status, untold.err]).toEqual([
      3,
      expect.stringContaining('not audited What was done stands.'),
    ])
  })

  it('goes on after its last segment where its position was damaged, and only then', async () => {
    const restore = (): Promise<Ran> =>
      sealgate(at('position', 'restore', AUDIT_TOPIC, '--by', 'ann', '--json'))
    const nextOf = ({ out }: Ran) => JSON.parse(out).partitions[0]
    await ok(at('directory', 'publish'))
    const before = (await story()).length
    expect(nextOf(await restore())).toEqual({ partition: 0, next: String(before), done: 'good' })
    const broken = { group: 'local.shadow.v1', topic: AUDIT_TOPIC, partition: 0, next: 0n }
    await shop.log.commitGroup([{ ...broken, metadata: new Uint8Array() }])
    const refused = await sealgate(at('directory', 'publish'))
    expect([refused.status, refused.err]).toEqual([3, expect.stringContaining('does not fit together')])
    expect(nextOf(await restore())).toEqual({ partition: 0, next: String(before + 1), done: 'restored' })
    await ok(at('directory', 'publish'))
    expect((await story()).slice(before)).toEqual([
      'position.restored position:_control/0 User:ann success',
      expect.stringMatching(/^directory\.loaded directory:\d+ null failure$/),
      expect.stringMatching(/^directory\.renewed directory:\d+ User:\S+ success$/),
    ])
    expect(JSON.parse(await ok(at('audit', 'verify', '--json')))).toMatchObject({
      verified: true,
      headsKnown: true,
    })
    expect((await sealgate(at('position', 'init', AUDIT_TOPIC))).err).toContain('It has a position already')
  })

  it('misses no version whenever those who publish are killed, two at a time, and is whole', async () => {
    const main = fileURLToPath(new URL('../../cli/main.ts', import.meta.url))
    const path = join(shop.folder, 'keys', 'directory.jws')
    const changedAt = async (): Promise<number> => (await stat(path)).mtimeMs
    // So long after the first of the two has published, from at once to when it has told the audit.
    for (const afterMs of [0, 60, 200, 600]) {
      const before = await changedAt()
      const both = [1, 2].map(() =>
        spawn(process.execPath, [main, ...at('directory', 'publish')], { env: {}, stdio: 'ignore' }),
      )
      const ended = both.map((child) => once(child, 'close'))
      for (const late = Date.now() + 15_000; (await changedAt()) === before && Date.now() < late;)
        await sleep(5)
      await sleep(afterMs)
      for (const child of both) child.kill('SIGKILL')
      await Promise.all(ended)
      // As an operator would, whom the next command tells of it.
      await rm(`${path}.lock`, { force: true })
    }
    const last = JSON.parse(await ok(at('directory', 'publish', '--json')))
    expect(last.version).toBeGreaterThan(5)
    const known = new Set<number>()
    for (const one of await story('--type', 'directory.*')) {
      const [, from = '', to = from] = /directory:(\d+)(?:\.\.(\d+))? /.exec(one) ?? []
      for (let version = Number(from); version <= Number(to); version++) known.add(version)
    }
    expect([...known].sort((a, b) => a - b)).toEqual(
      Array.from({ length: last.version }, (_, index) => index + 1),
    )
    expect(JSON.parse(await ok(at('audit', 'verify', '--json')))).toMatchObject({
      verified: true,
      headsKnown: true,
    })
  }, 60_000)

  it('keys touched tells what a key signed from what only named it, with where it went', async () => {
    const gate = createGate(createIngest(shop.stack.gateParts()), 'throw')
    const poller = await startPoller({
      ...{ source: polledLog(shop.log), group: 'gate', topics: ['orders'] },
      handler: ingestHandler(() => Promise.resolve(gate)),
      options: { batchSize: 50, batchingWindowMs: 10 },
    })
    const sealer = shop.sealer('shop-web')
    const order = (id: number, total: unknown = id) => ({
      ...{ type: ORDER_TYPE, source: '/shop/web', key: 'c1' },
      data: { orderId: `A-${id}`, total, customer: { id: 'c1' } },
    })
    await sealer.send('orders', [order(0), order(1), order(2, 'no number'), order(3)])
    expect(await poller.drained(10_000)).toBe(true)
    const ends = await shop.log.endOffsets('orders')
    const partition = ends.findIndex((end) => end > 0n)
    expect(ends[partition]).toBe(4n)
    const touched = async (...args: string[]) =>
      JSON.parse(await ok(at('keys', 'touched', '--json', kid, ...args)))
    const report = await touched()
    expect(report).toMatchObject({ kid, verified: false, searched: 4, omitted: 0 })
    expect(report.partitions).toMatchObject([
      {
        topic: 'orders',
        partition,
        claimed: null,
        proven: { admitted: 3, coarse: false, ranges: [['0', '4']] },
      },
    ])
    expect(report.partitions[0].proven.rejected).toEqual({ 'schema-invalid': 1 })
    expect(report.channels).toEqual({ 'orders.fulfilment': 3, 'orders.analytics': 3 })
    const { first, last } = report.partitions[0].proven
    expect(Date.parse(first)).toBeLessThanOrEqual(Date.parse(last))
    expect((await touched('--until', '2020-01-01')).partitions).toEqual([])
    const text = await ok(at('keys', 'touched', kid))
    expect(text).toMatch(/orders\/\d {2}3 +1 schema-invalid .* \[0, 4\)\n/)
    expect(text).toContain('Went out to: orders.')
    expect(text).toContain('They are not verified: sealgate audit verify.')
    expect((await sealgate(at('keys', 'touched', 'no kid'))).status).toBe(2)
    await poller.stop()
    await sealer.close()
    await gate.close()
  })
})

describe('on settings', () => {
  let folder = ''
  let down: Server
  const path = (name: string): string => join(folder, name)
  const run = (...args: string[]): Promise<Ran> => sealgate([...args, '--settings', path('sealgate.yaml')])
  const KEYS = 'directory: directory.jws\nroots: roots.json\nrootKey: file:root.jwk\n'

  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'sealgate-lifecycle-'))
    await writeFile(path('roots.json'), await ok(['keys', 'new', path('root.jwk')]))
    await ok(['keys', 'new', path('gate.jwk')])
    await writeFile(path('sealgate.yaml'), KEYS)
    expect((await run('directory', 'init')).status).toBe(0)
    down = createServer((socket) => socket.destroy())
    await new Promise<void>((resolve) => down.listen(0, '127.0.0.1', resolve))
  })
  afterEach(async () => {
    await new Promise((resolve) => down.close(resolve))
    await rm(folder, { recursive: true })
  })

  it('publishes nothing where it is not said how to audit it, names all that is missing, and what says that it is not', async () => {
    const before = await readFile(path('directory.jws'), 'utf8')
    const { err, status } = await run('directory', 'publish')
    expect(status).toBe(2)
    for (const part of ['kafka.brokers', 'deployment', 'name', 'signingKey', 'lifecycleAudit'])
      expect(err).toContain(`${part}: `)
    expect(await readFile(path('directory.jws'), 'utf8')).toBe(before)
    expect((await run('directory', 'publish', '--dry-run')).status).toBe(0)
    await writeFile(path('sealgate.yaml'), `${KEYS}lifecycleAudit: none\n`)
    expect(JSON.parse((await run('directory', 'publish', '--json')).out)).toMatchObject({
      version: 2,
      audited: null,
    })
  })

  it('publishes although Kafka is down: it stands, says that it is not audited, and ends with 3', async () => {
    const address = down.address()
    const port = address !== null && typeof address === 'object' ? address.port : 0
    const kafka = `kafka: { brokers: ['127.0.0.1:${port}'], insecurePlaintext: true, openTimeoutMs: 500 }\n`
    const rest = 'name: gate\ndeployment: test\nsigningKey: file:gate.jwk\n'
    await writeFile(path('sealgate.yaml'), KEYS + rest + kafka)
    const { out, err, status } = await run('directory', 'publish')
    expect(status).toBe(3)
    expect(out).toContain('Published version 2 ')
    expect(err).toMatch(/^not audited Version 2 stands\. .* Whoever changes a key next notes it there\.$/)
    const json = await run('directory', 'publish', '--json')
    expect([json.status, JSON.parse(json.out)]).toMatchObject([
      3,
      { version: 3, published: true, audited: false },
    ])
  })
})
