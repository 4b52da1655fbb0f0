/**
 * One owner for a log's folder, and where its socket is.
 *
 * Lock files are numbered, the highest counts, and the number never falls: who wants the folder finds the highest
 * released or its owner dead, and makes the next one, which only one of several can. A lock is not removed at its
 * release but marked, since removing it would let a slow starter make an old number again.
 */
import { spawnSync } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { linkSync, lstatSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, realpathSync } from 'node:fs'
import { renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { ConfigError } from '../errors.ts'
import { makePrivateFolder } from './private-file.ts'

/** The longest path of a socket that every system takes: macOS has room for 103 bytes, Linux for 107. */
const MAX_SOCKET_PATH_BYTES = 103
const SHORT_FOLDER = 'sealgate-'
const LOCK_NAME = /^lock\.([1-9][0-9]{0,14})$/

export interface LogOwner {
  readonly pid: number
  /** Tells a process from a later one with the same pid; empty where the system does not say. */
  readonly started: string
  /** The path of its socket. */
  readonly socket: string
  readonly released: boolean
}

export interface LogLock {
  readonly socket: string
  /** Removes the socket and lets go of the folder. */
  release(): void
}

/** Makes the folder if it is not there, and refuses one that others own or may write to: `ConfigError`. Returns its real path. */
export async function privateFolder(path: string): Promise<string> {
  await makePrivateFolder(path)
  const real = realpathSync(path)
  refuseForeign(real, 0o022)
  return real
}

/** Takes a folder (as `privateFolder` gave it) over, or tells who has it: `ConfigError`. */
export function lockFolder(folder: string): LogLock {
  for (;;) {
    const [number, owner] = newestLock(folder)
    if (owner !== undefined && isRunning(owner)) throw inUse(folder, owner)
    const started = processStart(process.pid) ?? ''
    const mine: LogOwner = { pid: process.pid, started, socket: newSocketPath(folder), released: false }
    const path = join(folder, `lock.${number + 1}`)
    // The second look finds a higher number where this process was slow and another's locks came and went meanwhile.
    if (!createLock(folder, path, mine) || newestLock(folder)[0] !== number + 1) {
      // Not the socket in the folder, which may be the winner's by now.
      if (!isInFolder(mine.socket)) removeSocket(mine.socket)
      continue
    }
    if (owner !== undefined) removeSocket(owner.socket)
    for (const name of readdirSync(folder))
      if (isOlder(name, number + 1)) rmSync(join(folder, name), { force: true })
    return {
      socket: mine.socket,
      release: () => {
        removeSocket(mine.socket)
        replaceLock(folder, path, { ...mine, released: true })
      },
    }
  }
}

/** Who runs the log in this folder, if anybody does. */
export function ownerOf(folder: string): LogOwner | undefined {
  const [, owner] = newestLock(folder)
  return owner !== undefined && isRunning(owner) ? owner : undefined
}

/** Refuses a folder that is another user's, or open to others by one of these bits: `ConfigError`. */
export function refuseForeign(folder: string, bits: number): void {
  const stat = lstatSync(folder)
  const mode = stat.mode & 0o777
  if (stat.isDirectory() && stat.uid === process.getuid?.() && (mode & bits) === 0) return
  throw new ConfigError([
    {
      where: folder,
      what: `The embedded log needs a folder that only its user may write to; this one has mode ${mode.toString(8)}.`,
      fix: `Run chmod ${bits === 0o077 ? '700' : 'go-w'} on it as its owner, or name another folder.`,
    },
  ])
}

function newestLock(folder: string): readonly [number, LogOwner | undefined] {
  for (;;) {
    let newest = 0
    for (const name of readdirSync(folder)) newest = Math.max(newest, Number(LOCK_NAME.exec(name)?.[1] ?? 0))
    if (newest === 0) return [0, undefined]
    const path = join(folder, `lock.${newest}`)
    const text = readIfThere(path)
    // Gone between the two: there is a higher one now.
    if (text !== undefined) return [newest, parseOwner(path, text)]
  }
}

function isOlder(name: string, number: number): boolean {
  const lock = LOCK_NAME.exec(name)
  return lock !== null && Number(lock[1]) < number
}

/** Appears with all its content, and only where no such lock is: false where there is one. */
function createLock(folder: string, path: string, owner: LogOwner): boolean {
  const draft = writeDraft(folder, owner)
  try {
    linkSync(draft, path)
    return true
  } catch (error) {
    if (codeOf(error) === 'EEXIST') return false
    throw error
  } finally {
    rmSync(draft)
  }
}

function replaceLock(folder: string, path: string, owner: LogOwner): void {
  renameSync(writeDraft(folder, owner), path)
}

function writeDraft(folder: string, owner: LogOwner): string {
  const draft = join(folder, `draft.${randomBytes(8).toString('hex')}`)
  writeFileSync(draft, JSON.stringify(owner), { mode: 0o600, flag: 'wx' })
  return draft
}

function parseOwner(path: string, text: string): LogOwner {
  const read = parseJson(text)
  if (typeof read === 'object' && read !== null && 'pid' in read && 'started' in read && 'socket' in read) {
    const { pid, started, socket } = read
    const released = 'released' in read && read.released === true
    if (
      Number.isInteger(pid) &&
      typeof pid === 'number' &&
      pid > 0 &&
      typeof started === 'string' &&
      typeof socket === 'string'
    )
      return { pid, started, socket, released }
  }
  throw new ConfigError([
    {
      where: path,
      what: 'This lock cannot be read, so it cannot be told whether another process runs this log.',
      fix: 'Make sure that none does, then remove the file.',
    },
  ])
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** In doubt it is: two owners would damage the log, one too few is only told. */
function isRunning({ pid, started, released }: LogOwner): boolean {
  if (released) return false
  try {
    process.kill(pid, 0)
  } catch (error) {
    if (codeOf(error) === 'ESRCH') return false
  }
  const now = processStart(pid)
  return now === undefined || started === '' || now === started
}

/** When a process started, in whatever way the system says it; 'ended' for one that only waits for its parent. */
function processStart(pid: number): string | undefined {
  const stat = readIfThere(`/proc/${pid}/stat`)
  if (stat !== undefined) {
    // The name, in brackets, may hold anything; the state and, 19 fields on, the start in ticks since boot follow it.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ')
    if (fields[0] === 'Z' || fields[0] === 'X') return 'ended'
    return `${readIfThere('/proc/sys/kernel/random/boot_id')?.trim() ?? ''} ${fields[19] ?? ''}`
  }
  const options = { encoding: 'utf8', timeout: 5000, env: { LC_ALL: 'C' } } as const
  const ps = spawnSync('/bin/ps', ['-o', 'stat=,lstart=', '-p', String(pid)], options)
  const [state = '', ...start] = ps.status === 0 ? ps.stdout.trim().split(/\s+/) : []
  if (state.startsWith('Z')) return 'ended'
  return start.length > 0 ? start.join(' ') : undefined
}

/** In the folder, or where its path is too long for a socket in a new one that only this user may enter. */
function newSocketPath(folder: string): string {
  const path = join(folder, 'run', 'socket')
  if (Buffer.byteLength(path) <= MAX_SOCKET_PATH_BYTES) {
    mkdirSync(dirname(path), { recursive: true, mode: 0o700 })
    refuseForeign(dirname(path), 0o077)
    return path
  }
  const short = join(mkdtempSync(join(tmpdir(), SHORT_FOLDER)), 'socket')
  if (Buffer.byteLength(short) <= MAX_SOCKET_PATH_BYTES) return short
  removeSocket(short)
  throw new ConfigError([
    {
      where: folder,
      what: 'This path is too long for a socket, and so is TMPDIR.',
      fix: 'Name a folder with a shorter path.',
    },
  ])
}

/** Removes a socket that `newSocketPath` named, with its own folder if it has one. */
function removeSocket(path: string): void {
  if (isInFolder(path)) rmSync(path, { force: true })
  else if (basename(dirname(path)).startsWith(SHORT_FOLDER))
    rmSync(dirname(path), { recursive: true, force: true })
}

function isInFolder(socket: string): boolean {
  return basename(dirname(socket)) === 'run'
}

function readIfThere(path: string): string | undefined {
  try {
    return readFileSync(path, 'utf8')
  } catch (error) {
    if (codeOf(error) === 'ENOENT' || codeOf(error) === 'ESRCH') return undefined
    throw error
  }
}

function codeOf(error: unknown): unknown {
  return error instanceof Error && 'code' in error ? error.code : undefined
}

function inUse(folder: string, owner: LogOwner): ConfigError {
  return new ConfigError([
    {
      where: folder,
      what: `Process ${owner.pid} runs the embedded log in this folder.`,
      fix: 'Stop it first, name another folder, or reach the log through it.',
    },
  ])
}
