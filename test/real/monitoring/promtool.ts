/**
 * Prometheus' `promtool`: the machine's own, or out of Debian's package, which is downloaded and unpacked beneath .cache,
 * once, and not installed.
 */
import { execFileSync, spawnSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readdirSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'

/** How long the first call may take. */
export const PROMTOOL_MS = 120_000

const CACHE = join(import.meta.dirname, '../../../.cache')
const FOLDER = join(CACHE, 'promtool')
const TOOL = join(FOLDER, 'usr/bin/promtool')

/** The tool's path. Throws where it can be had in neither way. */
export function findPromtool(): string {
  if (spawnSync('promtool', ['--version']).status === 0) return 'promtool'
  if (existsSync(TOOL)) return TOOL
  mkdirSync(CACHE, { recursive: true })
  const folder = mkdtempSync(`${FOLDER}-`)
  try {
    // Without lists of packages nothing is found; only root may fetch them.
    if (!download(folder)) {
      spawnSync('apt-get', ['update'], { timeout: PROMTOOL_MS / 2 })
      if (!download(folder))
        throw new Error(
          'promtool is missing, and apt-get cannot download Debian’s prometheus: install Prometheus',
        )
    }
    const [archive = ''] = readdirSync(folder).filter((name) => name.endsWith('.deb'))
    execFileSync('dpkg-deb', ['-x', join(folder, archive), join(folder, 'unpacked')])
    renameSync(join(folder, 'unpacked'), FOLDER)
    return TOOL
  } finally {
    rmSync(folder, { recursive: true, force: true })
  }
}

const download = (folder: string): boolean =>
  spawnSync('apt-get', ['download', 'prometheus'], { cwd: folder, timeout: PROMTOOL_MS / 2 }).status === 0
