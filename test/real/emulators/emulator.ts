/** An emulator of AWS written in Python, as a process of ours: from PyPI where our own folder does not have it yet. */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir, rename, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { setEnvironment } from '../../secrets-endpoint.ts'

const run = promisify(execFile)
/** Ignored by git; what is in it may be deleted at any time. */
const CACHE = join(import.meta.dirname, '../../../.cache')
const INSTALL_MS = 240_000
const START_MS = 60_000
/** The longest that a start takes, the installation included. */
export const EMULATOR_MS: number = INSTALL_MS + START_MS

/** Runs a module that ends with us, however we end: a run that is killed leaves no server behind (on Linux). */
const GUARDED = `
import ctypes, runpy, signal, sys
libc = ctypes.CDLL(None)
if hasattr(libc, 'prctl'):
    libc.prctl(1, signal.SIGKILL)
del sys.argv[0]
runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)
`

export interface Emulator {
  readonly url: string
  /** Takes the environment back too. */
  end(): Promise<void>
}

/** What is installed, and how it is started on a port of 127.0.0.1. */
export interface Program {
  readonly name: string
  readonly version: string
  /** Of the package: what is installed with it. */
  readonly extra: string
  readonly module: string
  readonly start: (port: number) => {
    readonly arguments: readonly string[]
    readonly environment: Readonly<Record<string, string>>
  }
}

/** Starts one with nothing in it, and points this process's environment at it, credentials included. */
export async function startEmulator(program: Program): Promise<Emulator> {
  const command = await installed(program)
  const port = await freePort()
  const url = `http://127.0.0.1:${port}`
  const start = program.start(port)
  const server = spawn(command, ['-c', GUARDED, program.module, ...start.arguments], {
    stdio: 'ignore',
    env: { PATH: process.env['PATH'] ?? '', ...start.environment },
  })
  try {
    await answering(program.name, url, server)
  } catch (error) {
    await stopped(server)
    throw error
  }
  const restore = setEnvironment({
    AWS_ENDPOINT_URL: url,
    AWS_ACCESS_KEY_ID: 'AKIDEXAMPLE',
    AWS_SECRET_ACCESS_KEY: 'planted-aws-secret',
    AWS_REGION: 'eu-central-1',
  })
  return {
    url,
    end: async () => {
      restore()
      await stopped(server)
    },
  }
}

/** The Python that has it. A folder that was not finished has another name: it is never used. */
async function installed({ name, version, extra }: Program): Promise<string> {
  const folder = join(CACHE, `${name}-${version}`)
  const python = (of: string): string => join(of, 'bin', 'python')
  if (existsSync(python(folder))) return python(folder)
  const draft = `${folder}.${process.pid}`
  await mkdir(CACHE, { recursive: true })
  try {
    await run('python3', ['-m', 'venv', draft], { timeout: 60_000 })
    const packages = ['--quiet', '--disable-pip-version-check', `${name}[${extra}]==${version}`]
    await run(python(draft), ['-m', 'pip', 'install', ...packages], { timeout: INSTALL_MS })
    await rename(draft, folder)
  } catch (error) {
    await rm(draft, { recursive: true, force: true })
    // Another process was first: its folder is whole.
    if (!existsSync(python(folder))) throw error
  }
  return python(folder)
}

async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve)
  })
  const address = server.address()
  await new Promise((resolve) => server.close(resolve))
  if (address === null || typeof address === 'string') throw new Error('no port')
  return address.port
}

async function answering(name: string, url: string, server: ChildProcess): Promise<void> {
  const end = Date.now() + START_MS
  while (Date.now() < end) {
    await sleep(100)
    if (server.exitCode !== null) throw new Error(`${name} ended with status ${server.exitCode}`)
    const answer = await fetch(url, { signal: AbortSignal.timeout(1000) }).catch(() => undefined)
    if (answer !== undefined) return
  }
  throw new Error(`${name} does not answer`)
}

async function stopped(server: ChildProcess): Promise<void> {
  if (server.exitCode !== null || server.signalCode !== null) return
  const ended = new Promise((resolve) => server.on('exit', resolve))
  server.kill('SIGKILL')
  await ended
}
