/** Files that only their owner may read, replaced whole or not at all. */
import { existsSync } from 'node:fs'
import { mkdir, readFile } from 'node:fs/promises'
import { dirname } from 'node:path'
import { writeWhole } from '../adapters/whole-file.ts'
import { ConfigError } from '../errors.ts'

/** Makes a folder that only its owner may enter. */
export async function makePrivateFolder(path: string): Promise<void> {
  const parent = dirname(path)
  if (parent !== path && !existsSync(parent)) await makePrivateFolder(parent)
  // Each by itself: Node's own `recursive` spins for ever where a file system has no room for folders (/proc).
  await mkdir(path, { mode: 0o700 }).catch((error: unknown) => {
    if (!existsSync(path)) throw error
  })
}

/** Writes `path` so that a crash leaves either the old content or the new. */
export function writePrivateFile(path: string, content: Uint8Array | string): Promise<void> {
  return writeWhole(path, content, 0o600)
}

/** The JSON in a file, or undefined where there is no such file. Throws `ConfigError` where it is no JSON object. */
export async function readPrivateJson(path: string): Promise<Record<string, unknown> | undefined> {
  let text: string
  try {
    text = await readFile(path, 'utf8')
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined
    throw error
  }
  try {
    const value: unknown = JSON.parse(text)
    if (isObject(value)) return value
  } catch {
    // A parser's message may quote what it read, and here that is keys.
  }
  throw damaged(path)
}

/** What to say of a state file that was changed by hand or torn. */
export function damaged(path: string): ConfigError {
  return new ConfigError([
    {
      where: path,
      what: 'It is not what was written there.',
      fix: 'Restore it, or remove the whole local folder and start anew.',
    },
  ])
}

export const isObject = (value: unknown): value is Record<string, unknown> =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
