/**
 * A layer as AWS Distro for OpenTelemetry is one: it is loaded before the function, has a copy of OpenTelemetry's API of its
 * own, and registers a provider there. The function's bundle has another copy, and must find it.
 */
import { execFile } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { build, type BuildOptions } from 'esbuild'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { toMskEvent } from '../../lib/adapters/msk-event.ts'
import { ORDER_TYPE, openShop, type Shop } from '../shop.ts'

const run = promisify(execFile)
const ROOT = join(import.meta.dirname, '../..')
const BANNER = `import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);`

const LAYER = `
import { context, trace } from '@opentelemetry/api'
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks'
import { BasicTracerProvider, BatchSpanProcessor } from '@opentelemetry/sdk-trace-base'
const sent = []
const exporter = {
  export: (spans, done) => { sent.push(...spans.map(({ name }) => name)); done({ code: 0 }) },
  shutdown: () => Promise.resolve(),
}
trace.setGlobalTracerProvider(new BasicTracerProvider({ spanProcessors: [new BatchSpanProcessor(exporter)] }))
context.setGlobalContextManager(new AsyncLocalStorageContextManager().enable())
globalThis.sent = sent
`

/** What Lambda does: load the function, call it, freeze. Only what was sent by then counts. */
const CALL = `
import { readFileSync } from 'node:fs'
const { handler } = await import(process.argv[2])
const context = { awsRequestId: '1', functionName: 'ingest', getRemainingTimeInMillis: () => 20000 }
await handler(JSON.parse(readFileSync(process.argv[3], 'utf8')), context)
console.log('SENT ' + JSON.stringify(globalThis.sent ?? null))
process.exit(0)
`

let folder: string
let shop: Shop
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'sealgate-layer-'))
  shop = await openShop()
  const common: BuildOptions = {
    bundle: true,
    minify: true,
    platform: 'node',
    format: 'esm',
    target: 'node22',
    banner: { js: BANNER },
    logLevel: 'error',
  }
  await build({
    ...common,
    entryPoints: [join(ROOT, 'functions/ingest.ts')],
    outfile: join(folder, 'function.mjs'),
  })
  for (const version of ['as it is', '1.10.0', '1.8.0'])
    await build({
      ...common,
      stdin: { contents: LAYER, resolveDir: ROOT, loader: 'js' },
      outfile: join(folder, `layer ${version}.mjs`),
      plugins:
        version === 'as it is'
          ? []
          : [
              {
                name: 'version',
                setup: ({ onLoad }) => {
                  onLoad({ filter: /@opentelemetry\/api\/build\/[a-z]+\/version\.js$/ }, () => ({
                    contents: `exports.VERSION = '${version}'`,
                  }))
                },
              },
            ],
    })
  await writeFile(join(folder, 'call.mjs'), CALL)
  const sealer = shop.sealer('shop-web')
  const data = { orderId: '1', total: 1, customer: { id: 'c' } }
  await sealer.send('orders', { type: ORDER_TYPE, source: '/shop/web', key: 'k', data })
  await sealer.close()
  const origin = {
    eventSourceArn: 'arn:aws:kafka:eu-west-1:000000000000:cluster/t',
    bootstrapServers: 'b:9098',
  }
  await writeFile(
    join(folder, 'event.json'),
    JSON.stringify(toMskEvent(await shop.records('orders'), origin)),
  )
})
afterAll(async () => {
  await shop.close()
  await rm(folder, { recursive: true, force: true })
})

/** The spans that were sent before the invocation ended; null where there was no layer. */
async function sentWith(layer: string | undefined): Promise<readonly string[] | null> {
  const preload = layer === undefined ? [] : ['--import', join(folder, `layer ${layer}.mjs`)]
  const { stdout } = await run(
    process.execPath,
    [...preload, join(folder, 'call.mjs'), join(folder, 'function.mjs'), join(folder, 'event.json')],
    { env: { PATH: process.env['PATH'], SEALGATE_LOCAL: shop.folder }, timeout: 30_000 },
  )
  const line = stdout.split('\n').find((one) => one.startsWith('SENT '))
  return JSON.parse(line?.slice(5) ?? '"nothing"')
}

describe('a layer with OpenTelemetry in it', () => {
  it('is sent the spans of a bundled function before its invocation ends', async () => {
    expect(await sentWith('as it is')).toEqual(expect.arrayContaining(['process orders', 'open orders']))
  })

  it('is found where its API is newer than ours, and is why ours stays old', async () => {
    const { dependencies } = JSON.parse(await readFile(join(ROOT, 'package.json'), 'utf8'))
    expect(dependencies['@opentelemetry/api']).toMatch(/^1\.9\.\d+$/)
    expect(await sentWith('1.10.0')).toContain('process orders')
    expect(await sentWith('1.8.0')).toEqual([])
  })

  it('need not be there', async () => {
    expect(await sentWith(undefined)).toBeNull()
  })
})
