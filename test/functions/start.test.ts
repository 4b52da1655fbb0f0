/** What Lambda does before any invocation: it loads the module, in a process that has the function's environment. */
import { spawnSync } from 'node:child_process'
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { exportPublicJwk, generateKeyPair } from '../../lib/envelope/crypto.ts'
import { ED25519 } from '../../lib/envelope/suite.ts'

let folder = ''
let roots = ''
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'start-'))
  roots = join(folder, 'roots.json')
  await writeFile(roots, JSON.stringify(exportPublicJwk(generateKeyPair(ED25519).publicKey)))
})
afterAll(() => rm(folder, { recursive: true }))

/** What the module exports, or what it threw. */
function load(
  name: 'ingest' | 'keys',
  environment: Record<string, string>,
): { exports: string; error: string } {
  const { href } = pathToFileURL(join(import.meta.dirname, `../../functions/${name}.ts`))
  const script = `
    const told = await import(${JSON.stringify(href)}).then(
      (module) => ({ exports: Object.entries(module).map(([name, it]) => typeof it + ' ' + name).join(), error: '' }),
      (error) => ({ exports: '', error: error.name + '\\n' + error.message }),
    )
    console.log(JSON.stringify(told))`
  const child = spawnSync(process.execPath, ['--input-type=module', '--eval', script], {
    encoding: 'utf8',
    env: { PATH: process.env['PATH'], ...environment },
    timeout: 20_000,
  })
  expect(child.stderr).toBe('')
  const told: { exports: string; error: string } = JSON.parse(child.stdout)
  return told
}

/** The variables that an error names, one to a line. */
const named = (error: string): string[] => error.split('\n').map((line) => line.slice(0, line.indexOf(':')))

describe('a function that is set up wrongly', () => {
  it('does not load as ingest, and names every fault of its environment', () => {
    const { error } = load('ingest', {
      SEALGATE_NAME: 'gate',
      SEALGATE_CHANNELS: 'orders=orders',
      SEALGATE_CONTRACTS: join(folder, 'none.json'),
      SEALGATE_DIRECTORY: join(folder, 'directory.jws'),
      SEALGATE_ROOTS: roots,
      SEALGATE_KEK_ID: 'gate',
      SEALGATE_SIGNING_KEY: 'alias/gate',
      SEALGATE_MAX_SESSIONS: 'many',
      SEALGATE_CHANELS: 'orders=orders',
      NODE_TLS_REJECT_UNAUTHORIZED: '0',
    })
    const [name, ...faults] = error.split('\n')
    expect(name).toBe('ConfigError')
    expect(named(faults.join('\n'))).toEqual(
      expect.arrayContaining([
        ...['NODE_TLS_REJECT_UNAUTHORIZED', 'SEALGATE_CHANELS', 'SEALGATE_CONTRACTS', 'SEALGATE_DEPLOYMENT'],
        ...['SEALGATE_KAFKA_BROKERS', 'SEALGATE_MAX_SESSIONS', 'SEALGATE_SIGNING_KEY'],
      ]),
    )
  })

  it('does not load as keys, and names every fault of its environment', () => {
    const { error } = load('keys', { SEALGATE_ROOTS: join(folder, 'none.json'), SEALGATE_NAME: 'gate' })
    const [name, ...faults] = error.split('\n')
    expect(name).toBe('ConfigError')
    expect(named(faults.join('\n'))).toEqual(['SEALGATE_NAME', 'SEALGATE_DIRECTORY', 'SEALGATE_ROOTS'])
  })
})

describe('a function that is set up rightly', () => {
  it.each([
    ['ingest', () => ({ SEALGATE_LOCAL: join(folder, 'not-yet-there') })],
    ['keys', () => ({ SEALGATE_ROOTS: roots, SEALGATE_DIRECTORY: join(folder, 'not-yet-there.jws') })],
  ] as const)('loads as %s, with its handler, and asks for nothing yet', (name, environment) => {
    expect(load(name, environment())).toEqual({ exports: 'function handler', error: '' })
  })
})
