/** The commands on a real cluster, each as a person types it: settings in sealgate.yaml, secrets in files. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { createKafkaSource } from '../../lib/adapters/kafka-source.ts'
import { ingestHandler } from '../../functions/ingest-handler.ts'
import { openLocalKeyService } from '../../lib/local/key-service.ts'
import { type Poller, startPoller } from '../../lib/local/poller.ts'
import { type Around, type Ran, sealgate } from '../cli/terminal.ts'
import { ORDER_TYPE } from '../shop.ts'
import { startKmsEndpoint } from '../../lib/local/kms-endpoint.ts'
import { PARTITIONS, RealShop } from './shop.ts'
import type { Principal } from './stack/rights.ts'
import { writeCommandSettings } from './stack/settings.ts'
import { DEPLOYMENT } from './stack/stack.ts'
import { client, connection, settings, unique } from './world.ts'

let real: RealShop
let folder: string
let poller: Poller
const ending: (() => Promise<unknown>)[] = []

const order = (id: string, total: string): string =>
  `{"orderId":"${id}","total":${total},"customer":{"id":"c1","email":"a@example.com"}}`

/** Settings for a principal, in a folder of their own. */
async function settingsFor(principal: Principal, change = (text: string): string => text): Promise<string> {
  const { shop, source, topicOf } = real
  const file = await writeCommandSettings(join(folder, unique()), {
    ...{ connection, principal, stack: shop.stack, stackFolder: shop.folder },
    sources: new Map([['orders', source]]),
    outputs: new Map(shop.stack.outputs.map((channel) => [channel, topicOf(channel)])),
    ...{ auditTopic: real.audit, quarantineTopic: real.quarantine },
  })
  await writeFile(file, change(await readFile(file, 'utf8')))
  return file
}

let operator: string
const at = (args: string[], around?: Around): Promise<Ran> =>
  sealgate([...args, '--settings', operator], around)

/** Until what was sent is decided, and all of it is to be read: a commit is answered before its transaction's end is written. */
const decided = async (): Promise<void> => {
  expect(await poller.drained(20_000), String(poller.stats().lastError)).toBe(true)
  const { shop, audit, quarantine, topicOf } = real
  const reader = createKafkaSource(settings({}, 'admin'))
  try {
    for (const topic of [audit, quarantine, ...shop.stack.outputs.map(topicOf)])
      for (let partition = 0; partition < PARTITIONS; partition++) {
        const place = { topic, partition }
        const isOpen = async (): Promise<boolean> =>
          (await reader.offsets(place)).end < (await reader.writtenEnd(place))
        await expect.poll(isOpen, { timeout: 20_000 }).toBe(false)
      }
  } finally {
    await reader.close()
  }
}

beforeAll(async () => {
  real = await RealShop.open()
  folder = await mkdtemp(join(tmpdir(), 'sealgate-cli-real-'))
  operator = await settingsFor('operator')
  const source = createKafkaSource(settings({}, 'poller'))
  const gate = real.gate()
  poller = await startPoller({
    source,
    group: `poller.${unique()}`,
    topics: [real.source],
    handler: ingestHandler(() => Promise.resolve(gate)),
    options: { batchSize: 50, batchingWindowMs: 10 },
  })
  ending.push(
    () => poller.stop(),
    () => source.close(),
  )
  const lines = [order('A-1', '1.10'), order('A-2', '12345678901234567890'), '{"orderId":7}', 'no json']
  const sent = await at(['send', '-', '--type', ORDER_TYPE, '--key', '/customer/id'], {
    input: lines.join('\n'),
  })
  expect([sent.status, sent.err]).toEqual([1, expect.stringContaining('standard input:4: It is not JSON')])
  expect(sent.out).toContain('3 events sent, 1 line skipped.')
}, 60_000)

afterAll(async () => {
  for (const end of ending) await end()
  await real.end()
  await rm(folder, { recursive: true, force: true })
})

describe('on a cluster', () => {
  it('tail shows what each consumer may see, in the source text of its numbers', async () => {
    await decided()
    const sealed = await at(['tail', 'orders.fulfilment', '--json'])
    expect([sealed.err, sealed.status]).toEqual(['', 0])
    expect(sealed.out.split('\n')).toHaveLength(2)
    expect(sealed.out).toContain('"total":1.10')
    expect(sealed.out).toContain('"total":12345678901234567890')
    expect(sealed.out).toContain(`"topic":"${real.topicOf('orders.fulfilment')}"`)
    const plain = await at(['tail', 'orders.analytics', '--from-beginning'])
    expect(plain.out).toMatch(/"id":"p1:/)
    expect(plain.out).not.toContain('a@example.com')
    const ingress = await at(['tail', 'orders'])
    expect([ingress.status, ingress.err]).toEqual([2, expect.stringContaining('only the gate reads it')])
  })

  it('tail never shows what was not committed', async () => {
    const producer = client('gate').producer({
      transactionalId: `${DEPLOYMENT}.${unique()}`,
      maxInFlightRequests: 1,
    })
    await producer.connect()
    const transaction = await producer.transaction()
    await transaction.send({
      topic: real.topicOf('orders.analytics'),
      messages: [{ partition: 0, value: '{"never":true}', headers: { ce_type: 'never' } }],
    })
    await transaction.abort()
    await producer.disconnect()
    const { out, status } = await at(['tail', 'orders.analytics'])
    expect(status).toBe(0)
    expect(out).not.toContain('never')
  })

  it('tail follows until it is told to stop, and goes on where its group stood', async () => {
    const group = `operator.${unique()}`
    const first = await at(['tail', 'orders.fulfilment', '--group', group, '--max', '1', '--json'])
    expect(first.out.split('\n')).toHaveLength(1)
    const end = new AbortController()
    const lines: string[] = []
    const following = at(['tail', 'orders.fulfilment', '--group', group, '--follow', '--json'], {
      stop: end.signal,
      onLine: (line) => {
        lines.push(line)
        if (line.includes('A-3')) end.abort()
      },
    })
    await at(['send', '-', '--type', ORDER_TYPE], { input: order('A-3', '3') })
    expect((await following).status).toBe(0)
    expect(lines).toHaveLength(2)
    expect(first.out + lines.join('')).toMatch(/(?=.*A-1)(?=.*A-2)(?=.*A-3)/)
    expect((await at(['tail', 'orders.fulfilment', '--group', group])).out).toBe('')
  })

  it('quarantine lists and shows what was refused', async () => {
    await decided()
    const list = await at(['quarantine', 'list'])
    expect(list.out).toMatch(/schema-invalid +source\.orders\.\S+\/\d\/\d+\n\n1 refused: 1 schema-invalid$/)
    const [place = ''] = list.out.split(' ')
    const shown = await at(['quarantine', 'show', place])
    expect(shown.out).toContain(`Refused: schema-invalid. It was ${real.source}/`)
    const source = /source\.orders\.\S+/.exec(list.out)?.[0] ?? ''
    expect((await at(['quarantine', 'show', source, '--json'])).status).toBe(0)
    const inspected = await at(['inspect', source])
    expect(inspected.out).toContain(ORDER_TYPE)
    expect((await at(['open', source])).err).toContain('schema-invalid')
  })

  it('audit verifies with the heads in the positions, and says so where it may not see them', async () => {
    await decided()
    const verified = await at(['audit', 'verify', '--json'])
    expect([verified.err, verified.status]).toEqual(['', 0])
    expect(JSON.parse(verified.out)).toMatchObject({ verified: true, headsKnown: true, entries: 4 })
    const consumer = await settingsFor('consumer')
    const unseen = await sealgate(['audit', 'verify', '--settings', consumer])
    expect(unseen.status).toBe(0)
    expect(unseen.err).toMatch(/^The heads in the positions may not be read: .*source\.orders/)
    expect(unseen.out).toContain('segments cut from the end would not show')
    const nameless = await settingsFor('operator', (text) =>
      text.replace(/^(name|directory|roots):.*\n/gm, ''),
    )
    const unnamed = await sealgate(['audit', 'verify', '--settings', nameless])
    expect([unnamed.status, unnamed.err.split('\n')]).toEqual([
      2,
      ['name', 'directory', 'roots'].map((name) =>
        expect.stringContaining(`${nameless}: ${name}: It is not set.`),
      ),
    ])
    const found = await sealgate(['audit', 'search', '--code', 'schema-invalid', '--settings', nameless])
    expect([found.err, found.status]).toEqual(['', 0])
    expect(found.out).toContain('1 of 4 entries found')
  })

  it('asks AWS KMS where the settings name no other key service', async () => {
    await decided()
    const keys = await openLocalKeyService(join(real.shop.folder, 'keys'), { now: () => Date.now() })
    const kms = await startKmsEndpoint(keys, 'fulfilment')
    vi.stubEnv('AWS_ENDPOINT_URL_KMS', kms.url)
    vi.stubEnv('AWS_ACCESS_KEY_ID', 'test')
    vi.stubEnv('AWS_SECRET_ACCESS_KEY', 'test')
    try {
      const onAws = await settingsFor('operator', (text) => text.replace(/^keyService:.*\n/m, ''))
      const { out, err, status } = await sealgate([
        'tail',
        'orders.fulfilment',
        '--max',
        '2',
        '--settings',
        onAws,
      ])
      expect([err, status]).toEqual(['', 0])
      expect(out).toContain('A-2')
      expect(kms.asked).toContain('Decrypt')
    } finally {
      vi.unstubAllEnvs()
      await kms.end()
    }
  })

  it('send refuses lines that it has no key or no topic for, and checks by the contracts where that is asked for', async () => {
    const keyless = await settingsFor('operator', (text) => text.replace(/^signingKeys:\n( .*\n)*/m, ''))
    const sent = await sealgate(['send', '-', '--type', ORDER_TYPE, '--settings', keyless], {
      input: order('x', '1'),
    })
    expect([sent.status, sent.err]).toEqual([1, expect.stringContaining('names no key of shop-web')])
    const elsewhere = await settingsFor('operator', (text) =>
      text.replace(`${real.source}: orders`, `${real.source}: payments`),
    )
    const unnamed = await sealgate(['send', '-', '--type', ORDER_TYPE, '--settings', elsewhere], {
      input: order('x', '1'),
    })
    expect([unnamed.status, unnamed.err]).toEqual([
      1,
      expect.stringContaining('No topic is named for its channel orders.'),
    ])
    const checked = await at(['send', '-', '--type', ORDER_TYPE, '--check'], { input: '{"orderId":7}' })
    expect([checked.status, checked.out]).toEqual([1, '0 events sent, 1 line skipped.'])
  })
})

describe('what goes wrong on a cluster', () => {
  it.each([
    ['a broker that nobody runs', ['--brokers', '127.0.0.1:1'], {}, 'no broker can be reached'],
    ['a wrong password', [], { SEALGATE_KAFKA_SASL_PASSWORD: 'wrong' }, 'the broker refuses our credentials'],
    [
      'a topic that is not there',
      [],
      { SEALGATE_QUARANTINE_TOPIC: `${DEPLOYMENT}.quarantine.none` },
      'a topic',
    ],
    ['a topic that is not ours to read', [], { SEALGATE_QUARANTINE_TOPIC: 'secret' }, 'a topic of secret'],
  ])('%s is told in one line, soon, with status 3', async (_, flags, env, message) => {
    const begun = Date.now()
    const ran = await at(['quarantine', 'list', ...flags], { env })
    expect(Date.now() - begun).toBeLessThan(15_000)
    expect([ran.status, ran.out, ran.err.split('\n')]).toEqual([3, '', [expect.stringContaining(message)]])
    expect(ran.err).not.toContain(connection.passwords.operator)
  })
})
