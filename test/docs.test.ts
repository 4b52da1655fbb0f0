/** The snippets of docs/client.md, run: what the page shows must work as it stands. */
import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { promisify } from 'node:util'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import type { KafkaBatch, OpenedEvent } from '../lib/client/opener.ts'
import { createSealer, type SealedBatch } from '../lib/client/sealer.ts'
import { exportPrivateJwk, generateKeyPair } from '../lib/envelope/crypto.ts'
import { ED25519 } from '../lib/envelope/suite.ts'
import type { Log } from '../lib/local/log.ts'
import { openLog } from '../lib/local/log-open.ts'
import { directoryOf, KEK, kekRow, MemoryKeyService, producer } from './client/shop.ts'

const run = promisify(execFile)
const root = join(import.meta.dirname, '..')

/** What the page holds under a mark `<!-- kind: name -->`, block by block. */
function blocks(page: string, kind: string, name: string): string[] {
  const mark = new RegExp(`<!-- ${kind}: ${name} -->\\s*\`\`\`\\w+\\n([^]*?)\`\`\``, 'g')
  return [...page.matchAll(mark)].map(([, block]) => block ?? '')
}

/** A module of the blocks, one after the other, that imports the package from its sources. */
function moduleOf(code: readonly string[], parameters: string): string {
  const joined = code
    .join('\n')
    .replaceAll("'sealgate'", `'${pathToFileURL(join(root, 'lib/client/sealgate.ts')).href}'`)
  const imports = joined.match(/^import [^]*?from '.*'$/gm) ?? []
  const body = joined.replace(/^import [^]*?from '.*'$/gm, '')
  return `${imports.join('\n')}\nexport async function page({ ${parameters} }) {\n${body}\n}\n`
}

describe('docs/client.md', () => {
  let folder: string
  let page: string
  let log: Log

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'sealgate-docs-'))
    page = await readFile(join(root, 'docs', 'client.md'), 'utf8')
    log = await openLog(join(folder, 'log'))
  })

  afterAll(async () => {
    await log.close()
    await rm(folder, { recursive: true, force: true })
  })

  /** Runs the blocks with what the page takes for given. */
  async function runBlocks(name: string, given: Readonly<Record<string, unknown>>): Promise<void> {
    const path = join(folder, `${name}.mjs`)
    await writeFile(path, moduleOf(blocks(page, 'snippet', name), Object.keys(given).join(', ')))
    const module: unknown = await import(path)
    if (typeof module !== 'object' || module === null || !('page' in module)) throw new Error('no page')
    if (typeof module.page !== 'function') throw new Error('no page')
    await Reflect.apply(module.page, undefined, [given])
  }

  it('shows in its first example what that prints', async () => {
    const [code] = blocks(page, 'snippet', 'try')
    const path = join(folder, 'try.mjs')
    const source = pathToFileURL(join(root, 'lib/client/sealgate.ts')).href
    await writeFile(path, (code ?? '').replace("'sealgate'", `'${source}'`))
    const { stdout } = await run(process.execPath, [path], { timeout: 20_000 })
    expect(stdout).toBe(blocks(page, 'output', 'try').join(''))
  })

  it('makes keys with KMS as it says', async () => {
    const secretText = JSON.stringify(exportPrivateJwk(generateKeyPair(ED25519).privateKey))
    await runBlocks('kms', { secretText })
  })

  it('sends and reads with a client of the shape of kafkajs', async () => {
    const shipping = producer('shipping-service')
    const gateway = producer('gateway-eu')
    const keyService = new MemoryKeyService()
    const kek = KEK
    const directory = directoryOf([shipping, gateway], [kekRow(['shipping-service', 'gateway-eu'])])
    // The page is run with the machine's clock, which these keys are not made for.
    for (const { row } of [shipping, gateway]) Object.assign(row, { notBefore: 0, notAfter: 2 ** 40 })
    await log.createTopic('orders', 3)
    const sent: SealedBatch[] = []
    const kafka = {
      admin: {
        fetchTopicMetadata: async ({ topics: [topic] }: { topics: string[] }) => {
          const partitions = await log.endOffsets(topic ?? '')
          return { topics: [{ partitions }] }
        },
      },
      producer: {
        send: async (batch: SealedBatch) => {
          sent.push(batch)
          await append(log, batch)
        },
      },
    }
    // What a gateway would have put out for the consumer.
    const outputs = createSealer({
      ...{ iss: 'gateway-eu', audience: 'analytics', signer: gateway.signer, kek, keyService, partitions: 1 },
      deliver: (batch) => append(log, batch),
    })
    await log.createTopic('orders.analytics', 1)
    await outputs.send('orders.analytics', { source: '/x', type: 'shipped', data: { total: 1 } })
    await append(log, {
      topic: 'orders.analytics',
      messages: [{ partition: 0, key: null, value: Buffer.from('noise'), headers: {} }],
    })
    const handled: OpenedEvent[] = []
    const refused: unknown[][] = []
    const consumer = {
      run: async ({ eachBatch }: { eachBatch: (payload: { batch: KafkaBatch }) => Promise<void> }) =>
        eachBatch({ batch: await batchOf(log, 'orders.analytics') }),
    }
    const printed: unknown[] = []
    await runBlocks('kafka', {
      ...kafka,
      ...{ consumer, signer: shipping.signer, kek, keyService, directory },
      handle: (event: OpenedEvent) => handled.push(event),
      reportRefused: (...what: unknown[]) => refused.push(what),
      console: { log: (line: unknown) => printed.push(line) },
    })
    expect(sent.flatMap(({ messages }) => messages).map(({ key }) => key?.toString())).toEqual(
      expect.arrayContaining(['A-1', 'A-2', 'A-3', 'A-4']),
    )
    expect(handled.map(({ iss, data }) => ({ iss, data }))).toEqual([
      { iss: 'gateway-eu', data: { total: 1 } },
    ])
    expect(refused.map(([offset, code]) => [offset, code])).toEqual([['1', 'malformed']])
    expect(`${printed.join('\n')}\n`).toBe(blocks(page, 'output', 'kafka').join(''))
  })
})

/** What a kafkajs producer does, on the embedded log. */
async function append(log: Log, { topic, messages }: SealedBatch): Promise<void> {
  await log.append(
    messages.map(({ partition, key, value, headers }) => ({
      ...{ topic, partition, key, value },
      headers: Object.entries(headers).map(([name, text]) => ({ name, value: Buffer.from(text) })),
    })),
  )
}

/** What kafkajs gives to `eachBatch`. */
async function batchOf(log: Log, topic: string): Promise<KafkaBatch> {
  const { records } = await log.read(topic, 0, 0n)
  const messages = records.map(({ key, value, timestamp, offset, headers }) => ({
    ...{ key, value, timestamp: String(timestamp), offset: String(offset) },
    headers: Object.fromEntries(headers.map(({ name, value: bytes }) => [name, bytes])),
  }))
  return { topic, partition: 0, messages }
}
