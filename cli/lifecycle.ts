/** What commands that change keys have to do with the audit: where it is, who did it, and what is said where it failed. */
import { userInfo } from 'node:os'
import { InvalidArgumentError, Option } from 'commander'
import type { OpenedLifecycleLog } from '../lib/adapters/control-cluster.ts'
import { controlPartsOf } from '../lib/admission/control-position.ts'
import { LifecycleAccount, lifecycleLog } from '../lib/audit/lifecycle.ts'
import { ConfigError, Outage } from '../lib/errors.ts'
import { SOFTWARE } from '../lib/runtime.ts'
import type { TrustSettings } from '../lib/settings.ts'
import { reachStack } from './folder.ts'
import { oneLine, paint } from './io.ts'
import type { PlaceSettings } from './place-settings.ts'
import { readControlSettings } from './settings.ts'
import type { Terminal } from './terminal.ts'

/** What is written may take so long, a broker that does not answer included. */
const AUDIT_MS = 15_000
const MAX_NAME = 128

export interface Lifecycle {
  readonly account: LifecycleAccount
  /**
   * Tells the audit what is left to tell. Null where the settings say by name that it is not audited; where it failed, false,
   * and standard error has why.
   *
   * @param what stands although it is not audited
   */
  settle(what: string): Promise<boolean | null>
  close(): Promise<void>
}

/** `--by`. */
export const byOption = (): Option =>
  new Option('--by <name>', 'who does it, for the audit (default: your user here)').argParser(
    (name: string) => {
      if (name.trim() !== '' && name.length <= MAX_NAME) return name
      throw new InvalidArgumentError(`Give 1 to ${MAX_NAME} characters.`)
    },
  )

/** Connects to nothing yet. Throws `ConfigError` with every fault of the settings: before anything is changed. */
export async function openLifecycle(
  terminal: Terminal,
  place: PlaceSettings,
  trust: TrustSettings,
  by: string | undefined,
): Promise<Lifecycle> {
  const opened = 'folder' in place ? stackLog(place.folder) : await clusterLog(terminal, place, trust)
  const name = by ?? user()
  const account = new LifecycleAccount(opened?.log, name === undefined ? null : `User:${name}`)
  return {
    account,
    settle: async (what) => {
      if (opened === undefined) return null
      try {
        await account.flush(terminal.now() + AUDIT_MS)
        return true
      } catch (error) {
        if (!(error instanceof Outage) && !(error instanceof ConfigError)) throw error
        const mark = paint(terminal.colours.err, 'red', 'not audited')
        const next = 'Whoever changes a key next notes it there.'
        terminal.warn(`${mark} ${oneLine(`${what} ${error.message} ${next}`)}`)
        return false
      }
    },
    close: async () => opened?.close(),
  }
}

/** A stack is reached for each writing: another process may own it. */
const stackLog = (folder: string): OpenedLifecycleLog => ({
  log: async (steps, principal, deadline) => {
    const stack = await reachStack(folder)
    try {
      await lifecycleLog(controlPartsOf(stack.gateParts()))(steps, principal, deadline)
    } finally {
      await stack.close()
    }
  },
  close: () => Promise.resolve(),
})

async function clusterLog(
  terminal: Terminal,
  { cluster }: Extract<PlaceSettings, { cluster: unknown }>,
  trust: TrustSettings,
): Promise<OpenedLifecycleLog | undefined> {
  const settings = readControlSettings(cluster)
  if (settings === undefined) return undefined
  // Who works on the embedded stack needs no vendor's code.
  const { openClusterLifecycle } = await import('../lib/adapters/control-cluster.ts')
  return openClusterLifecycle(settings, trust, terminal, SOFTWARE)
}

/** As the system has it, which proves nothing; undefined where it has no name. */
function user(): string | undefined {
  try {
    return userInfo().username.slice(0, MAX_NAME)
  } catch {
    return undefined
  }
}
