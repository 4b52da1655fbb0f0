/** bin/sealgate.js: which Node it takes, which program it starts, and that it ends as that does. */
import { spawn } from 'node:child_process'
import { copyFile, mkdir, mkdtemp, rm, symlink, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'

let folder: string

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'sealgate-bin-'))
  await mkdir(join(folder, 'bin'))
  await copyFile(join(import.meta.dirname, '..', 'bin', 'sealgate.js'), join(folder, 'bin', 'sealgate.js'))
  await writeFile(join(folder, 'package.json'), '{"type":"module"}')
  // Makes the Node that loads it say that it is an old one; what it starts is not told to load it.
  const old =
    "Object.defineProperty(process, 'versions', { value: { ...process.versions, node: '20.20.2' } })"
  await writeFile(join(folder, 'old.cjs'), old)
})

afterEach(async () => {
  await rm(folder, { recursive: true, force: true })
})

async function put(path: string, content: string): Promise<void> {
  await mkdir(dirname(join(folder, path)), { recursive: true })
  await writeFile(join(folder, path), content)
}

interface Ended {
  readonly code: number | null
  readonly signal: NodeJS.Signals | null
  readonly output: string
}

/** Runs the command to its end; sends it `signal` once it has printed `ready`. */
function command(
  args: readonly string[],
  { old = false, signal }: { old?: boolean; signal?: NodeJS.Signals } = {},
) {
  return new Promise<Ended>((resolve, reject) => {
    const flags = old ? ['--require', join(folder, 'old.cjs')] : []
    const child = spawn(process.execPath, [...flags, join(folder, 'bin', 'sealgate.js'), ...args], {
      stdio: ['ignore', 'pipe', 'pipe'],
      timeout: 10_000,
      killSignal: 'SIGKILL',
    })
    let output = ''
    const hear = (chunk: Buffer): void => {
      output += chunk.toString()
      if (signal !== undefined && output.includes('ready')) child.kill(signal)
    }
    child.stdout.on('data', hear)
    child.stderr.on('data', hear)
    child.on('error', reject)
    child.on('close', (code, endedBy) => resolve({ code, signal: endedBy, output }))
  })
}

const SAYS = "console.log('compiled', process.argv.slice(2).join(' '))\nprocess.exitCode = 7\n"
const SAYS_TYPED = SAYS.replace('compiled', 'source').concat('export const typed: number = 1\n')

const bringNode = async (): Promise<void> => {
  await mkdir(join(folder, 'node_modules', 'node', 'bin'), { recursive: true })
  await symlink(process.execPath, join(folder, 'node_modules', 'node', 'bin', 'node'))
}

describe('the sealgate command', () => {
  it('runs what is compiled in an installed package', async () => {
    await put('dist/cli/main.js', SAYS)
    expect(await command(['a', 'b c'])).toMatchObject({ code: 7, output: 'compiled a b c\n' })
  })

  it('runs the sources in a checkout, even beside a build', async () => {
    await put('dist/cli/main.js', SAYS)
    await put('cli/main.ts', SAYS_TYPED)
    const { code, output } = await command(['x'])
    expect(code).toBe(7)
    expect(output).toContain('source x\n')
  })

  it('starts the Node of the checkout where its own is too old, and ends as that does', async () => {
    await put('cli/main.ts', SAYS_TYPED)
    await bringNode()
    const { code, output } = await command(['--flag', 'x y'], { old: true })
    expect(code).toBe(7)
    expect(output).toContain('source --flag x y\n')
  })

  it('says which Node is needed where there is none, with exit code 2', async () => {
    await put('dist/cli/main.js', SAYS)
    const installed = await command([], { old: true })
    expect(installed).toMatchObject({ code: 2 })
    expect(installed.output).toContain('needs Node 22.18 or later; this is 20.20.2. Install Node 24.')
    await put('cli/main.ts', SAYS_TYPED)
    expect((await command([], { old: true })).output).toContain('or run npm ci')
  })

  it('passes signals on, and the end by a signal back', async () => {
    await bringNode()
    await put('cli/main.ts', "console.log('ready')\nsetInterval(() => undefined, 1000)\n")
    expect(await command([], { old: true, signal: 'SIGTERM' })).toMatchObject({
      code: null,
      signal: 'SIGTERM',
    })
    await put(
      'cli/main.ts',
      "setInterval(() => undefined, 1000)\nprocess.on('SIGINT', () => process.exit(5))\nconsole.log('ready')\n",
    )
    expect(await command([], { old: true, signal: 'SIGINT' })).toMatchObject({ code: 5, signal: null })
  })
})
