/** The sink as a function carries it: one bundled file, with no node_modules beside it. */
import { execFile } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { build } from 'esbuild'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Cluster, rawSettings, text, unique } from './world.ts'

const run = promisify(execFile)
const cluster = new Cluster()
let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'sealgate-bundle-'))
})
afterAll(async () => {
  await rm(folder, { recursive: true })
  await cluster.end()
})

const ENTRY = `
import { readFileSync } from 'node:fs'
import { createKafkaSink } from './lib/adapters/kafka.ts'
import { readKafkaSettings } from './lib/adapters/kafka-settings.ts'
const { settings, refused, source, output } = JSON.parse(readFileSync(0, 'utf8'))
const clock = { now: () => Date.now() }
const soon = () => Date.now() + 20000
const say = {}
process.on('warning', (warning) => (say.warning = warning.name))
const sink = createKafkaSink(readKafkaSettings(settings), clock)
await sink.init(source, { next: 0n, state: new Uint8Array() }, soon())
const session = await sink.open(source, soon())
const message = { topic: output, partition: 0, key: null, value: Buffer.from('x'), headers: [{ name: 'null', value: null }] }
await session.commit([message], { next: 1n, state: new Uint8Array() }, soon())
await session.close()
await sink.close()
const other = createKafkaSink(readKafkaSettings(refused), clock)
say.refused = await other.open(source, soon()).catch((error) => error.message)
await other.close()
console.log(JSON.stringify(say))
`

describe('a bundle of the sink, outside the checkout', () => {
  it('commits on a real broker with every repair of kafkajs in force', async () => {
    const outfile = join(folder, 'index.mjs')
    await build({
      stdin: { contents: ENTRY, resolveDir: join(import.meta.dirname, '../..'), loader: 'ts' },
      outfile,
      bundle: true,
      minify: true,
      platform: 'node',
      format: 'esm',
      target: 'node22',
      // What serverless-esbuild's users write too: kafkajs is CommonJS, and requires Node's own modules.
      banner: {
        js: "import { createRequire } from 'node:module';const require = createRequire(import.meta.url);",
      },
      logLevel: 'error',
    })
    const suffix = unique()
    const source = { topic: `source.${suffix}`, partition: 0 }
    const output = `output.${suffix}`
    await cluster.createTopic(source.topic, 1)
    await cluster.createTopic(output, 1)
    const input = join(folder, 'input.json')
    const told = { settings: rawSettings(), refused: rawSettings({}, 'consumer'), source, output }
    await writeFile(input, JSON.stringify(told), { mode: 0o600 })
    const { stdout } = await run('sh', ['-c', 'exec "$0" "$1" < "$2"', process.execPath, outfile, input], {
      cwd: folder,
      timeout: 40_000,
    })
    // K11 by its message, K7 by no warning, K13 by the null.
    expect(JSON.parse(stdout)).toEqual({ refused: expect.stringContaining('transactional id test.source.') })
    const [record] = await cluster.readCommitted(output)
    expect(record && text(record.value)).toBe('x')
    expect(record?.headers).toEqual([{ name: 'null', value: null }])
  })
})
