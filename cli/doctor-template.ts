/** What `sealgate doctor` looks at of a compiled template: the code's and its network's needs. */
import { readFileSync } from 'node:fs'
import { parse } from 'yaml'
import { fail, orElse, skip, type Verdict } from '../lib/doctor/finding.ts'
import { networkVerdicts } from '../lib/doctor/template-network.ts'
import { ConfigError } from '../lib/errors.ts'
import { templateFaults } from '../lib/template-faults.ts'

const MAX_TEMPLATE_CHARACTERS = 4_000_000

/** Throws `ConfigError` where the file is no template. */
export function templateVerdicts(path: string | undefined): readonly Verdict[] {
  if (path === undefined) return [skip('No template was given.', 'Give the compiled one by --template FILE.')]
  const fault = (what: string): ConfigError =>
    new ConfigError([{ where: path, what, fix: 'Name a compiled template, in JSON or YAML.' }])
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch {
    throw fault('It cannot be read.')
  }
  if (text.length > MAX_TEMPLATE_CHARACTERS) throw fault('It is larger than a template can be.')
  let template: unknown
  try {
    // Tags of CloudFormation (!Ref, !Sub) are left as the texts that they stand before.
    template = parse(text, { logLevel: 'error' })
  } catch {
    throw fault('It is neither JSON nor YAML.')
  }
  const code = templateFaults(template, path).map(({ where, what, fix }) => fail(`${where}: ${what}`, fix))
  return orElse(
    [...code, ...networkVerdicts(template, path)],
    'Functions, mappings and network fit the code.',
  )
}
