/** docs/monitoring by Prometheus' own tool: rules, their tests, the dashboard's expressions, and what the gate serves. */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { prometheusMetrics } from '../../lib/adapters/prometheus.ts'
import { findPromtool, PROMTOOL_MS } from './monitoring/promtool.ts'

const ROOT = join(import.meta.dirname, '../..')
const RULES = join(ROOT, 'docs/monitoring/prometheus-rules.yml')
const TESTS = join(ROOT, 'test/real/monitoring/prometheus-rules.test.yml')
const DASHBOARD: { panels: { targets: { expr: string }[] }[] } = JSON.parse(
  readFileSync(join(ROOT, 'docs/monitoring/grafana-dashboard.json'), 'utf8'),
)

let folder: string
let tool: string
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'sealgate-promtool-'))
  tool = findPromtool()
}, PROMTOOL_MS)
afterAll(() => {
  rmSync(folder, { recursive: true, force: true })
})

function promtool(
  args: readonly string[],
  input = '',
): { readonly status: number | null; readonly said: string } {
  const { status, stdout, stderr } = spawnSync(tool, args, { input, encoding: 'utf8', timeout: 20_000 })
  return { status, said: `${stdout}${stderr}` }
}

function written(name: string, text: string): string {
  const path = join(folder, name)
  writeFileSync(path, text)
  return path
}

describe('promtool', () => {
  it('takes the rules, and each alert fires when it should and no sooner', () => {
    expect(promtool(['check', 'rules', RULES])).toMatchObject({ status: 0 })
    expect(promtool(['test', 'rules', TESTS])).toMatchObject({ status: 0 })
  })

  it('finds rules that have been weakened', () => {
    const rules = readFileSync(RULES, 'utf8')
    for (const [whole, weak] of [
      ['ratio_rate15m > 0.01', 'ratio_rate15m > 0.5'],
      ['unexpected|position-missing|position-damaged', 'unexpected'],
      ['sealgate_rotation_overdue > 0', 'sealgate_rotation_overdue > 5'],
    ] as const) {
      expect(rules).toContain(whole)
      const weakened = written('weak.yml', rules.replace(whole, weak))
      const tests = readFileSync(TESTS, 'utf8').replace(/^rule_files: .*$/m, `rule_files: [${weakened}]`)
      expect(promtool(['test', 'rules', written('weak.test.yml', tests)])).toMatchObject({ status: 1 })
    }
  })

  it('can read every expression of the dashboard', () => {
    const expressions = DASHBOARD.panels.flatMap(({ targets }) => targets.map(({ expr }) => expr))
    const rules = expressions.map((expr, index) => ({
      record: `panel:expression:${index}`,
      // What Grafana puts there itself.
      expr: expr.replaceAll('$__rate_interval', '1m').replaceAll('$instance', '.*'),
    }))
    const text = JSON.stringify({ groups: [{ name: 'dashboard', rules }] })
    expect(text).not.toContain('$')
    expect(promtool(['check', 'rules', written('dashboard.json', text)])).toMatchObject({ status: 0 })
    const broken = text.replace('sum by', 'sum bye')
    expect(promtool(['check', 'rules', written('broken.json', broken)])).toMatchObject({ status: 1 })
  })

  it('finds nothing wrong with what the gate serves', async () => {
    const metrics = prometheusMetrics(
      {
        keyCounts: () => undefined,
        waiting: () => Promise.resolve([{ topic: 'orders', partition: 0, records: 7 }]),
        overdue: () => Promise.resolve(0),
      },
      { now: () => 0 },
    )
    expect(promtool(['check', 'metrics'], await metrics.text())).toEqual({ status: 0, said: '' })
    expect(promtool(['check', 'metrics'], '# TYPE x counter\nx 1\n').status).not.toBe(0)
  })
})
