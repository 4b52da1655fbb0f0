/** Files that are replaced whole or not at all. */
import { open, rename, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { random } from '../envelope/crypto.ts'

/** Writes `path` so that a crash leaves either the old content or the new: temporary file, fsync, rename, fsync. */
export async function writeWhole(path: string, content: Uint8Array | string, mode: number): Promise<void> {
  const draft = join(dirname(path), `.${random(12).toString('hex')}.tmp`)
  try {
    await syncFile(draft, 'wx', mode, content)
    await rename(draft, path)
  } catch (error) {
    await rm(draft, { force: true })
    throw error
  }
  await syncFile(dirname(path), 'r', mode)
}

async function syncFile(
  path: string,
  flags: string,
  mode: number,
  content?: Uint8Array | string,
): Promise<void> {
  const file = await open(path, flags, mode)
  try {
    if (content !== undefined) await file.writeFile(content)
    await file.sync()
  } finally {
    await file.close()
  }
}
