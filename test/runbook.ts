/** Runbooks of the documents, followed by copy and paste: their blocks as they stand, one after the other in one shell's state. */
import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'

const ROOT = join(import.meta.dirname, '..')
const STATE = '.shell-state'

/** The shell blocks of a section: from its heading to the next of no lower level. */
export async function blocksOf(page: string, heading: string): Promise<string[]> {
  const text = await readFile(join(ROOT, page), 'utf8')
  const from = text.indexOf(`\n${heading}\n`)
  if (from === -1) throw new Error(`${page} has no ${heading}`)
  const level = heading.indexOf(' ')
  const rest = text.slice(from + heading.length + 1)
  const end = rest.search(new RegExp(`\n#{1,${level}} `))
  const section = end === -1 ? rest : rest.slice(0, end)
  return [...section.matchAll(/^( *)```sh\n([^]*?)^ *```/gm)].map(([, indent = '', block = '']) =>
    block.replaceAll(new RegExp(`^${indent}`, 'gm'), ''),
  )
}

export interface Ended {
  readonly status: number | null
  readonly out: string
  readonly err: string
}

/**
 * Runs lines in a folder with what those before have exported or set; ends at the first that fails. `npx sealgate` is
 * the checkout's.
 */
export async function runBlock(
  folder: string,
  block: string,
  env: Readonly<Record<string, string>> = {},
): Promise<Ended> {
  const state = join(folder, STATE)
  if (!existsSync(state)) await writeFile(state, '', { mode: 0o600 })
  const lines = block.replaceAll('npx sealgate', `"${process.execPath}" "${ROOT}/bin/sealgate.js"`)
  // In this order: what a line that fails has set is kept too, as in the shell of a person.
  const script = `set -a -e -o pipefail\n. ./${STATE}\ntrap 'export -p > ./${STATE}' EXIT\n${lines}`
  const child = spawn('/bin/bash', ['-c', script], {
    cwd: folder,
    env: { PATH: process.env['PATH'], HOME: process.env['HOME'], NO_COLOR: '1', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: 60_000,
    killSignal: 'SIGKILL',
  })
  const texts = { out: '', err: '' }
  child.stdout.on('data', (chunk: Buffer) => (texts.out += chunk.toString()))
  child.stderr.on('data', (chunk: Buffer) => (texts.err += chunk.toString()))
  const status = await new Promise<number | null>((resolve, reject) => {
    child.on('error', reject)
    child.on('close', resolve)
  })
  return { status, ...texts }
}
