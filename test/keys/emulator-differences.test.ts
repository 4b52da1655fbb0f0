import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { KEY_MATERIAL_CASES } from '../contract-suites/key-material.ts'
import { KEY_SERVICE_CASES } from '../contract-suites/key-service.ts'
import { KEY_SIGNER_CASES } from '../contract-suites/key-signer.ts'
import { STAGED_SECRETS_CASES } from '../contract-suites/staged-secrets.ts'
import { type Differences, MINISTACK, MOTO } from '../real/emulators/differences.ts'

const namesOf = (differences: Differences): string[] =>
  Object.values(differences).flatMap((cases: ReadonlySet<string>) => [...cases])

it('docs/keys.md names where each emulator differs from AWS, and nothing else', () => {
  const text = readFileSync(join(import.meta.dirname, '../../docs/keys.md'), 'utf8')
  const rows = text.split('\n').flatMap((line) => {
    const [, name = '', moto, miniStack] = line.split('|').map((cell) => cell.trim())
    return CASES.has(name) ? [{ name, moto: moto !== 'so', miniStack: miniStack !== 'so' }] : []
  })
  const differing = (of: 'moto' | 'miniStack'): string[] =>
    rows.filter((row) => row[of]).map(({ name }) => name)
  expect(differing('moto').toSorted()).toEqual(namesOf(MOTO).toSorted())
  expect(differing('miniStack').toSorted()).toEqual(namesOf(MINISTACK).toSorted())
  expect(rows.length).toBe(new Set([...namesOf(MOTO), ...namesOf(MINISTACK)]).size)
})

const CASES: ReadonlySet<string> = new Set<string>([
  ...KEY_SERVICE_CASES,
  ...KEY_MATERIAL_CASES,
  ...KEY_SIGNER_CASES,
  ...STAGED_SECRETS_CASES,
])
