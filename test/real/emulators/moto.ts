/** moto, an emulator of AWS, as a process of ours: from PyPI where our own folder does not have it yet. */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir, rename, rm } from 'node:fs/promises'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { setEnvironment } from '../../secrets-endpoint.ts'

const run = promisify(execFile)
const VERSION = '5.2.5'
/** Ignored by git; what is in it may be deleted at any time. */
const CACHE = join(import.meta.dirname, '../../../.cache')
const INSTALL_MS = 240_000
const START_MS = 20_000
export const MOTO_MS: number = INSTALL_MS + START_MS

export interface Moto {
  readonly url: string
  /** Takes the environment back too. */
  end(): Promise<void>
}

/** Starts one with nothing in it, and points this process's environment at it, credentials included. */
export async function startMoto(): Promise<Moto> {
  const command = await installed()
  const port = await freePort()
  const url = `http://127.0.0.1:${port}`
  const server = spawn(command, ['-m', 'moto.server', '-H', '127.0.0.1', '-p', String(port)], {
    stdio: 'ignore',
  })
  try {
    await answering(url, server)
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
async function installed(): Promise<string> {
  const folder = join(CACHE, `moto-${VERSION}`)
  const python = (of: string): string => join(of, 'bin', 'python')
  if (existsSync(python(folder))) return python(folder)
  const draft = `${folder}.${process.pid}`
  await mkdir(CACHE, { recursive: true })
  try {
    await run('python3', ['-m', 'venv', draft], { timeout: 60_000 })
    const packages = ['--quiet', '--disable-pip-version-check', `moto[server]==${VERSION}`]
    await run(python(draft), ['-m', 'pip', 'install', ...packages], { timeout: INSTALL_MS })
    await rename(draft, folder)
  } catch (error) {
    await rm(draft, { recursive: true, force: true })
    throw error
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

async function answering(url: string, server: ChildProcess): Promise<void> {
  const end = Date.now() + START_MS
  while (Date.now() < end) {
    await sleep(100)
    if (server.exitCode !== null) throw new Error(`moto ended with status ${server.exitCode}`)
    const answer = await fetch(url, { signal: AbortSignal.timeout(1000) }).catch(() => undefined)
    if (answer !== undefined) return
  }
  throw new Error('moto does not answer')
}

async function stopped(server: ChildProcess): Promise<void> {
  if (server.exitCode !== null || server.signalCode !== null) return
  const ended = new Promise((resolve) => server.on('exit', resolve))
  server.kill('SIGKILL')
  await ended
}
