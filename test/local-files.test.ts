/** Files for running it locally: what env.local.json sets is what `sam local invoke` hands over. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { parse } from 'yaml'

const read = (name: string): string => readFileSync(join(import.meta.dirname, '..', name), 'utf8')

it('env.local.json sets variables that the template has, and the one that docs/local.md tells to add', () => {
  const { Resources: resources } = parse(read('template.yaml'))
  const functions: Record<string, Record<string, string>> = JSON.parse(read('env.local.json'))
  expect(Object.keys(functions)).toEqual(['IngestFunction'])
  for (const [name, variables] of Object.entries(functions)) {
    const known = Object.keys(resources[name].Properties.Environment.Variables)
    expect(Object.keys(variables).filter((variable) => !known.includes(variable))).toEqual([
      'AWS_ENDPOINT_URL',
    ])
  }
  expect(read('docs/local.md')).toContain("AWS_ENDPOINT_URL: ''")
})
