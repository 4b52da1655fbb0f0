/** Compiles the package into dist/: JavaScript with declarations. A build that fails leaves no dist/ to be packed. */
import { spawnSync } from 'node:child_process'
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = join(import.meta.dirname, '..')
const dist = join(root, 'dist')
const tsc = fileURLToPath(import.meta.resolve('typescript/bin/tsc'))

rmSync(dist, { recursive: true, force: true })
const build = spawnSync(process.execPath, [tsc, '-p', join(root, 'tsconfig.build.json')], {
  stdio: 'inherit',
})
if (build.status !== 0) {
  rmSync(dist, { recursive: true, force: true })
  process.exitCode = 1
}
