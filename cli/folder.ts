/** Reaches the embedded stack that a command is about. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { InvalidArgumentError, Option } from 'commander'
import { ConfigError, Outage } from '../lib/errors.ts'
import { connectStack, openStack, readBundle, type Stack } from '../lib/local/stack.ts'
import { SOFTWARE } from '../lib/runtime.ts'
import { shellWord } from './io.ts'
import type { Terminal } from './terminal.ts'

/** `--folder`, by default SEALGATE_LOCAL or `.sealgate`. */
export function folderOption({ env }: Terminal): Option {
  const set = env['SEALGATE_LOCAL'] ?? ''
  return new Option('--folder <dir>', 'folder of the embedded stack (or SEALGATE_LOCAL)')
    .default(set === '' ? '.sealgate' : set)
    .argParser((folder: string) => {
      // As a path it would be the current folder.
      if (folder === '') throw new InvalidArgumentError('It is empty: name a folder, or leave it out.')
      return folder
    })
}

/** How a folder is named in what a user is told to type: not at all where it is the default. */
export function folderFlag({ env }: Terminal, folder: string): string {
  const set = env['SEALGATE_LOCAL'] ?? ''
  return folder === (set === '' ? '.sealgate' : set) ? '' : ` --folder ${shellWord(folder)}`
}

/** Runs `use` on a stack that another process runs; `Outage` where none does. */
export async function withRunningStack<T>(folder: string, use: (stack: Stack) => Promise<T>): Promise<T> {
  return closing(await connectStack(folder, SOFTWARE), use)
}

/** Runs `use` on a stack, which this process owns meanwhile where no other does. `ConfigError` where there is none. */
export async function withStack<T>(folder: string, use: (stack: Stack) => Promise<T>): Promise<T> {
  return closing(await reachStack(folder), use)
}

/** As `withStack`; the caller closes it. */
export async function reachStack(folder: string): Promise<Stack> {
  if (!existsSync(join(folder, 'log')))
    throw new ConfigError([
      {
        where: folder,
        what: 'There is no embedded stack here.',
        fix: 'Make one with sealgate local start, or name another with --folder.',
      },
    ])
  try {
    return await connectStack(folder, SOFTWARE)
  } catch (error) {
    if (!(error instanceof Outage) || error.code !== 'sink-unavailable') throw error
    return openStack({ folder, bundle: await readBundle(folder), software: SOFTWARE })
  }
}

async function closing<T>(stack: Stack, use: (stack: Stack) => Promise<T>): Promise<T> {
  try {
    return await use(stack)
  } finally {
    await stack.close()
  }
}
