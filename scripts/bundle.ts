/** Bundles of the Lambda functions, as they are deployed and as tests run them: ES modules, minified, with no node_modules beside them. */
import { readdirSync, statSync } from 'node:fs'
import { mkdir, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { build } from 'esbuild'

const ROOT = join(import.meta.dirname, '..')

/**
 * Writes `<folder>/index.mjs`, and beside it what it loads only when it needs it (the AWS SDK's clients). Source maps go
 * to `maps`: they are not deployed. Resolves to the bundle's size in bytes.
 */
export async function bundleFunction(name: string, folder: string, maps?: string): Promise<number> {
  const { outputFiles, metafile } = await build({
    entryPoints: { index: join(ROOT, 'functions', `${name}.ts`) },
    outdir: folder,
    outExtension: { '.js': '.mjs' },
    chunkNames: '[hash]',
    bundle: true,
    // Dynamic imports stay files of their own: a cold start reads what it runs and no more.
    splitting: true,
    metafile: true,
    // The AWS SDK has both. Only of ES modules is what nobody uses left out, and only they can be split off.
    mainFields: ['module', 'main'],
    minify: true,
    sourcemap: maps === undefined ? false : 'external',
    sourcesContent: false,
    platform: 'node',
    format: 'esm',
    target: 'node24',
    // CommonJS dependencies within an ES module ask for Node's own modules.
    banner: {
      js: "import { createRequire } from 'node:module';const require = createRequire(import.meta.url);",
    },
    write: false,
    logLevel: 'error',
    legalComments: 'none',
  })
  const lost = Object.entries(metafile.inputs).flatMap(([file, { imports }]) =>
    imports
      .filter(({ kind, path }) => kind === 'dynamic-import' && metafile.inputs[path]?.format === 'cjs')
      .map(({ path }) => `${file} imports ${path}`),
  )
  // esbuild gives them none but a default export, unlike Node: the names would be undefined at the first use.
  if (lost.length > 0)
    throw new Error(`CommonJS cannot be split off (import it statically): ${lost.join(', ')}`)
  await mkdir(folder, { recursive: true })
  if (maps !== undefined) await mkdir(maps, { recursive: true })
  for (const { path, contents } of outputFiles) {
    const isMap = path.endsWith('.map')
    if (isMap && maps === undefined) continue
    await writeFile(isMap ? join(maps ?? '', path.slice(folder.length + 1)) : path, contents)
  }
  return sizeOf(folder)
}

/** All files of a folder, in bytes. */
export function sizeOf(folder: string): number {
  return readdirSync(folder, { recursive: true, encoding: 'utf8' })
    .map((file) => statSync(join(folder, file)))
    .filter((file) => file.isFile())
    .reduce((sum, { size }) => sum + size, 0)
}
