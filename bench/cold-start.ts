/** What a cold start of functions/ingest loads: the bundle's size, and its import in fresh processes. */
import { spawnSync } from 'node:child_process'
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { gzipSync } from 'node:zlib'
import { build } from 'esbuild'
import { peersInstalled } from './peers.ts'
import { type Result, type Setting, type Spread, spreadOf, spreadText } from './measure.ts'

/** CommonJS dependencies within an ES module ask for `require`. */
const BANNER = `import { createRequire } from 'node:module'; const require = createRequire(import.meta.url);`

export async function coldStart({ quick }: Setting): Promise<Result> {
  const folder = await mkdtemp(join(tmpdir(), 'sealgate-bench-'))
  try {
    const sources = [
      { name: 'functions/ingest', entry: join(import.meta.dirname, '../functions/ingest.ts') },
      { name: 'hello world', entry: await helloWorld(folder) },
      ...(peersInstalled() ? [{ name: '@aws-crypto/client-node', entry: await peerAlone(folder) }] : []),
    ]
    const bundles = []
    for (const [index, { name, entry }] of sources.entries()) {
      const file = join(folder, `${index}.mjs`)
      await bundle(entry, file)
      const bytes = await readFile(file)
      bundles.push({
        name,
        file,
        bytes: bytes.length,
        gzip: gzipSync(bytes).length,
        times: new Array<number>(),
      })
    }
    for (let round = 0; round < (quick ? 3 : 15); round++) {
      for (const { file, times } of bundles) times.push(importMilliseconds(file))
    }
    return resultOf(bundles.map(({ times, ...row }) => ({ ...row, importMs: spreadOf(times) })))
  } finally {
    await rm(folder, { recursive: true, force: true })
  }
}

function resultOf(
  bundles: readonly { name: string; bytes: number; gzip: number; importMs: Spread }[],
): Result {
  return {
    table: [
      ['bundle', 'minified, kB', 'gzip, kB', 'import, ms'],
      ...bundles.map(({ name, bytes, gzip, importMs }) => [
        name,
        (bytes / 1000).toFixed(0),
        (gzip / 1000).toFixed(0),
        spreadText(importMs, 0),
      ]),
    ],
    data: { rows: bundles.map(({ name, bytes, gzip, importMs }) => ({ name, bytes, gzip, importMs })) },
  }
}

async function helloWorld(folder: string): Promise<string> {
  const file = join(folder, 'hello.ts')
  await writeFile(file, `export const handler = async () => 'hello world'\n`)
  return file
}

async function peerAlone(folder: string): Promise<string> {
  const file = join(folder, 'peer.ts')
  const main = join(import.meta.dirname, 'node_modules/@aws-crypto/client-node')
  await writeFile(file, `export * from ${JSON.stringify(main)}\n`)
  return file
}

async function bundle(entry: string, outfile: string): Promise<void> {
  await build({
    entryPoints: [entry],
    outfile,
    bundle: true,
    minify: true,
    platform: 'node',
    target: 'node24',
    format: 'esm',
    banner: { js: BANNER },
    logLevel: 'error',
  })
}

/** In a process of its own, as at a cold start; the process's own start is not counted. */
function importMilliseconds(file: string): number {
  const script = `const start = performance.now(); await import(${JSON.stringify(pathToFileURL(file).href)}); console.log(performance.now() - start)`
  const child = spawnSync(process.execPath, ['--input-type=module', '--eval', script], {
    encoding: 'utf8',
    // The function reads its settings as it is loaded.
    env: { PATH: process.env['PATH'], SEALGATE_LOCAL: 'none' },
    timeout: 60_000,
  })
  if (child.status !== 0) throw new TypeError(`the bundle does not load: ${child.stderr}`)
  return Number(child.stdout)
}
