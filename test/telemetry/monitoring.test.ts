/** docs/monitoring against the code: what its rules and its dashboard ask for is told, and all that is told stands there. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { Ajv2020 } from 'ajv/dist/2020.js'
import { beforeAll, describe, expect, it } from 'vitest'
import { parse } from 'yaml'
import { prometheusMetrics } from '../../lib/adapters/prometheus.ts'

const ROOT = join(import.meta.dirname, '../..')
const read = (path: string): string => readFileSync(join(ROOT, path), 'utf8')
const MONITORING = read('docs/monitoring/README.md')
const RULES: { groups: { rules: { alert?: string; record?: string; expr: string }[] }[] } = parse(
  read('docs/monitoring/prometheus-rules.yml'),
)
const rules = RULES.groups.flatMap((group) => group.rules)

interface Panel {
  readonly id: number
  readonly title: string
  readonly gridPos: { readonly x: number; readonly y: number; readonly w: number; readonly h: number }
  readonly targets: readonly { readonly expr: string }[]
}
const dashboard: { panels: readonly Panel[]; templating: { list: readonly { query: string }[] } } =
  JSON.parse(read('docs/monitoring/grafana-dashboard.json'))
const expressions = [
  ...rules.map(({ expr }) => expr),
  ...dashboard.panels.flatMap(({ targets }) => targets.map(({ expr }) => expr)),
  ...dashboard.templating.list.map(({ query }) => query),
]

/** Names of metrics as Prometheus stores them. */
let told: Set<string>
beforeAll(async () => {
  const metrics = prometheusMetrics(
    {
      keyCounts: () => undefined,
      waiting: () => Promise.resolve([{ topic: 'orders', partition: 0, records: 0 }]),
      overdue: () => Promise.resolve(0),
    },
    { now: () => 0 },
  )
  const samples = (await metrics.text()).split('\n').filter((line) => /^[a-z]/.test(line))
  told = new Set(samples.map((line) => line.split(/[{ ]/)[0] ?? ''))
})

const metricsIn = (text: string): string[] => text.match(/\bsealgate_[a-z_]+/g) ?? []

describe('what is asked of Prometheus', () => {
  it('is told by the gate, or recorded by a rule', () => {
    const recorded = rules.flatMap(({ record }) => record ?? [])
    for (const name of expressions.flatMap(metricsIn)) expect(told, name).toContain(name)
    for (const name of expressions.flatMap((text) => text.match(/\bsealgate:[a-z0-9_:]+/g) ?? []))
      expect(recorded, name).toContain(name)
    expect(expressions.length).toBeGreaterThan(25)
  })

  it('leaves nothing out that is told, and all of it stands in the documents', () => {
    const bases = [...told].map((name) => name.replace(/_(bucket|sum|count)$/, ''))
    const asked = new Set(
      expressions.flatMap(metricsIn).map((name) => name.replace(/_(bucket|sum|count)$/, '')),
    )
    for (const name of new Set(bases)) {
      expect(asked, name).toContain(name)
      expect(MONITORING, name).toContain(`\`${name}\``)
    }
    for (const { alert } of rules)
      if (alert !== undefined) expect(MONITORING, alert).toContain(`\`${alert}\``)
  })
})

interface Alarm {
  readonly AlarmName: string
  readonly MetricName: string
  readonly Dimensions: readonly { readonly Name: string; readonly Value: string }[]
  readonly Statistic: string
  readonly Period: number
  readonly EvaluationPeriods: number
  readonly ComparisonOperator: string
  readonly Threshold: number
  readonly TreatMissingData: string
}

/** As its row in the documents has it. */
function rowOf(alarm: Alarm): string {
  const dimension = (name: string): string | undefined =>
    alarm.Dimensions.find(({ Name }) => Name === name)?.Value.replace(/^sealgate-example-/, '')
  const [of, by] = [dimension('FunctionName'), dimension('code')]
  const over = alarm.ComparisonOperator === 'GreaterThanThreshold' ? 'over' : 'not over'
  const times = `${alarm.EvaluationPeriods} times ${alarm.Period / 60} minutes`
  const cells = [
    `\`${alarm.AlarmName.replace('sealgate-example-', '')}\``,
    `\`${alarm.MetricName}\`${of === undefined ? '' : ` of \`${of}\``}${by === undefined ? '' : ` by \`${by}\``}`,
    `${alarm.Statistic.toLowerCase()} ${over} ${alarm.Threshold}, ${times}`,
    alarm.TreatMissingData === 'breaching' ? 'an alarm' : 'well',
  ]
  return `|${cells.join('|')}|`
}

describe('the alarms of the deployment', () => {
  const template: { Resources: Record<string, { Type: string; Properties: Alarm }> } = parse(
    read('template.yaml'),
    // Tags of CloudFormation are left as the texts that they stand before.
    { logLevel: 'error' },
  )
  const alarms = Object.values(template.Resources)
    .filter(({ Type }) => Type === 'AWS::CloudWatch::Alarm')
    .map(({ Properties }) => Properties)

  it('stand in the documents with what each is made of, and when it fires, and no others do', () => {
    expect(alarms.length).toBeGreaterThan(10)
    const rows = MONITORING.split('\n').map((line) => line.replaceAll(/\s*\|\s*/g, '|'))
    for (const alarm of alarms) expect(rows).toContain(rowOf(alarm))
    expect(rows.filter((row) => / times \d+ minutes\|/.test(row))).toHaveLength(alarms.length)
  })

  it('are made of metrics that the functions write', () => {
    const table = MONITORING.slice(0, MONITORING.indexOf('The [deployment]'))
    const own = alarms.filter(({ MetricName }) => MetricName.includes('.'))
    expect(own.length).toBeGreaterThan(3)
    for (const { MetricName } of own) expect(table).toContain(`\`${MetricName}\``)
  })
})

describe('the dashboard', () => {
  const ajv = new Ajv2020({ allErrors: true, strictTypes: false, strictTuples: false })
  const validate = ajv.compile(JSON.parse(read('test/telemetry/grafana-dashboard.schema.json')))

  it('is one by its schema, which refuses another', () => {
    expect(validate(dashboard), JSON.stringify(validate.errors)).toBe(true)
    const [panel] = dashboard.panels
    expect(validate({ ...dashboard, panels: [{ ...panel, title: '' }] })).toBe(false)
    expect(validate({ ...dashboard, panels: [{ ...panel, gridPos: { ...panel!.gridPos, x: 24 } }] })).toBe(
      false,
    )
    expect(validate({ ...dashboard, panelz: [] })).toBe(false)
  })

  it('has each panel in a place and under a number of its own', () => {
    const cells = new Set<string>()
    for (const { title, gridPos } of dashboard.panels) {
      expect(gridPos.x + gridPos.w, title).toBeLessThanOrEqual(24)
      for (let x = gridPos.x; x < gridPos.x + gridPos.w; x++)
        for (let y = gridPos.y; y < gridPos.y + gridPos.h; y++) {
          expect(cells, title).not.toContain(`${x}/${y}`)
          cells.add(`${x}/${y}`)
        }
    }
    expect(new Set(dashboard.panels.map(({ id }) => id)).size).toBe(dashboard.panels.length)
  })
})
