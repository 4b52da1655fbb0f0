/** docs/sizing.md shows what scripts/sizing.ts computes. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { cost, disk, tables } from '../scripts/sizing.ts'

const pageOf = (name: string): string => readFileSync(join(import.meta.dirname, '../docs', name), 'utf8')
const page = pageOf('sizing.md')
const cells = (line: string): string =>
  line
    .split('|')
    .map((cell) => cell.trim())
    .join('|')

it('has every row of the tables, as computed', () => {
  const shown = new Set(page.split('\n').map(cells))
  const rows = tables().filter((line) => line !== '' && !line.includes('---'))
  expect(rows.length).toBeGreaterThan(7)
  for (const row of rows) expect(shown).toContain(cells(row))
})

it('rests on figures that stand in the pages they are measured in', () => {
  expect(pageOf('exactly-once.md')).toContain('With 140 ms a transaction')
  expect(pageOf('performance.md')).toContain('262 after it')
  expect(pageOf('performance.md')).toContain('a message of 2 KB and a record of 700 bytes')
})

it('counts the metrics that there are', () => {
  const [table = ''] = /\| metric +\| unit[^]*?\n\n/.exec(pageOf('monitoring/README.md')) ?? []
  const names = new Set(
    (table.match(/^\| (`[^|]*)/gm) ?? []).flatMap((cell) => cell.match(/`[a-z.-]+\.[a-z.-]+`/g) ?? []),
  )
  expect(page).toContain(`${names.size}, one for each code that occurs`)
  const alarms = pageOf('monitoring/README.md').match(/ times \d+ minutes +\|/g) ?? []
  expect(page).toMatch(new RegExp(`alarms: ${alarms.length} `))
})

it('computes by the formula of the page', () => {
  const { seconds, perSecond, lambda, kms, logs } = cost({ slice: 100, outputs: 3 }, 'kms')
  expect(seconds).toBeCloseTo(0.14 + 4 * 0.01 + 100 * 0.000262, 9)
  expect(perSecond).toBeCloseTo(100 / seconds, 9)
  expect(lambda).toBeCloseTo(10_000 * (seconds * (1769 / 1024) * 0.0000133334 + 0.0000002), 9)
  expect(kms).toBeCloseTo((10_000 * 4 * 0.15) / 10_000, 9)
  expect(logs).toBeCloseTo((10_000 * 2000 * 0.5) / 1e9, 9)
  expect(disk(1).gigabytes).toBeCloseTo(3 * (0.7 * 365 + 2 * 2 * 7), 6)
})
