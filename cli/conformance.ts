/** `sealgate conformance DIR`: the vectors of a folder, whoever made them, through the whole of admission. */
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Command } from 'commander'
import { type GroupResult, runGroup } from '../lib/admission/conformance.ts'
import { parseVectorFile, type VectorGroup } from '../lib/admission/vector-file.ts'
import { ConfigError, type Fault } from '../lib/errors.ts'
import { EXIT, paint, table } from './io.ts'
import type { Terminal } from './terminal.ts'

/** Adds `conformance` to the program. */
export function addConformanceCommand(program: Command, terminal: Terminal): void {
  program
    .command('conformance')
    .description('run the conformance vectors of a folder through the whole of admission')
    .argument('<dir>', 'folder of vector files (.json), in the format of test/vectors/README.md')
    .option('--json', 'print {"passed":n,"failed":n,"differences":[{"vector","expected","got"}…]}')
    .addHelpText('after', '\nExample:\n  sealgate conformance test/vectors\n\nExit status 1: differences.')
    .action((folder: string, options: { json?: true }) => conformance(terminal, folder, options))
}

async function conformance(terminal: Terminal, folder: string, options: { json?: true }): Promise<void> {
  const groups = await readVectors(folder)
  const results: GroupResult[] = []
  for (const group of groups) {
    terminal.progress?.(`${group.group}: ${group.vectors.length} vectors`)
    results.push(await runGroup(group))
  }
  const passed = sum(results, (result) => result.passed)
  const failed = sum(results, (result) => result.failed)
  const differences = results.flatMap((result) => result.differences)
  if (options.json) terminal.write(JSON.stringify({ passed, failed, differences }))
  else {
    const rows = results.map((result) => [result.group, String(result.passed), String(result.failed)])
    for (const line of table([['GROUP', 'PASSED', 'FAILED'], ...rows])) terminal.write(line)
    for (const { vector, expected, got } of differences)
      terminal.write(
        `\n${paint(terminal.colours.out, 'red', vector)}\n  expected  ${expected}\n  got       ${got}`,
      )
    const colour = failed === 0 ? 'green' : 'red'
    terminal.write(paint(terminal.colours.out, colour, `\n${passed} passed, ${failed} failed`))
  }
  terminal.exit(failed === 0 ? EXIT.ok : EXIT.found)
}

/** Every vector file of a folder, by name. Throws `ConfigError` with the faults of all of them. */
async function readVectors(folder: string): Promise<readonly VectorGroup[]> {
  const names = await namesIn(folder)
  const faults: Fault[] = []
  const groups: VectorGroup[] = []
  for (const name of names) {
    const file = join(folder, name)
    try {
      const text = new TextDecoder('utf-8', { fatal: true }).decode(await readFile(file))
      groups.push(parseVectorFile(file, text))
    } catch (error) {
      if (error instanceof ConfigError) faults.push(...error.faults)
      else faults.push(unreadable(file, error))
    }
  }
  if (faults.length === 0 && groups.every(({ vectors }) => vectors.length === 0))
    faults.push({
      where: folder,
      what: 'Its files hold no vector, so nothing would be shown.',
      fix: 'Name a folder of vectors.',
    })
  if (faults.length > 0) throw new ConfigError(faults)
  return groups
}

async function namesIn(folder: string): Promise<readonly string[]> {
  const names = await readdir(folder).catch((error: unknown) => {
    throw new ConfigError([unreadable(folder, error)])
  })
  const vectors = names.filter((name) => name.endsWith('.json')).sort()
  if (vectors.length > 0) return vectors
  throw new ConfigError([
    { where: folder, what: 'There is no vector file here.', fix: 'Name a folder of .json vector files.' },
  ])
}

function unreadable(where: string, error: unknown): Fault {
  const reason = error instanceof Error ? ('code' in error ? String(error.code) : error.message) : 'unknown'
  return {
    where,
    what: `It cannot be read as vectors (${reason}).`,
    fix: 'The format is in test/vectors/README.md.',
  }
}

function sum<T>(items: readonly T[], of: (item: T) => number): number {
  return items.reduce((total, item) => total + of(item), 0)
}
