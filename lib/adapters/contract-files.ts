/** Contract files of a folder. */
import { readFile, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { ContractSource } from '../contract/load.ts'
import { codeOf, ConfigError, type Fault } from '../errors.ts'

/**
 * The texts of every `.yaml` and `.yml` in a folder, by name; folders inside it are not looked into.
 * @throws ConfigError where the folder or a file cannot be read, is not UTF-8, or there is none
 */
export async function readContracts(folder: string): Promise<ContractSource[]> {
  const names = await namesIn(folder)
  const faults: Fault[] = []
  const sources: ContractSource[] = []
  for (const name of names) {
    const file = join(folder, name)
    try {
      sources.push({ file, text: new TextDecoder('utf-8', { fatal: true }).decode(await readFile(file)) })
    } catch (error) {
      const isText = error instanceof TypeError
      faults.push({
        where: file,
        what: isText ? 'The file is not UTF-8.' : `The file cannot be read (${codeOf(error)}).`,
        fix: isText ? 'Save it as UTF-8.' : 'Look at its permissions.',
      })
    }
  }
  if (faults.length > 0) throw new ConfigError(faults)
  return sources
}

async function namesIn(folder: string): Promise<string[]> {
  try {
    const entries = await readdir(folder, { withFileTypes: true })
    const names = entries
      .filter((entry) => !entry.isDirectory() && /\.ya?ml$/.test(entry.name))
      .map((entry) => entry.name)
    if (names.length > 0) return names.sort()
  } catch (error) {
    throw new ConfigError([
      {
        where: folder,
        what: `The folder cannot be read (${codeOf(error)}).`,
        fix: 'Name a folder of contract files.',
      },
    ])
  }
  throw new ConfigError([
    { where: folder, what: 'There is no contract file here.', fix: 'Name a folder that holds .yaml files.' },
  ])
}
