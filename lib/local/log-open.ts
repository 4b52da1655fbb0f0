/** Opens an embedded log as its owner: one process at a time, and others of the same user reach it by a socket. */
import { join } from 'node:path'
import type { Clock } from '../ports.ts'
import type { Engine } from './log-engine.ts'
import { openEngine } from './log-engine.ts'
import { lockFolder, privateFolder } from './log-lock.ts'
import { serveLog } from './log-server.ts'

export interface OpenOptions {
  /** What the log's timestamps and waits go by. Default: this machine's. */
  readonly clock?: Clock
}

/**
 * Opens the log in `folder`, making both if they are not there. `ConfigError` where another process runs it, where others
 * may write to the folder, or where the log is damaged. `close` waits for what is under way, then releases the folder.
 */
export async function openLog(folder: string, options: OpenOptions = {}): Promise<Engine> {
  const real = await privateFolder(folder)
  const clock = options.clock ?? { now: () => Date.now() }
  const lock = lockFolder(real)
  try {
    const engine = await openEngine(join(real, 'journal'), clock)
    const server = await serveLog(engine, lock.socket, clock).catch(async (error: unknown) => {
      await engine.close()
      throw error
    })
    const close = async (): Promise<void> => {
      try {
        await engine.close()
      } finally {
        await server.close()
        lock.release()
      }
    }
    let closing: Promise<void> | undefined
    return { ...engine, close: () => (closing ??= close()) }
  } catch (error) {
    lock.release()
    throw error
  }
}
