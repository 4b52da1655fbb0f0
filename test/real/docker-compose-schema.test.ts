/**
 * docker-compose.yml by Compose's own loader, as `docker compose config` reads it: the specification's schema, interpolation,
 * and that what it names is there. Built from ./compose by Go, which has its modules by go.sum.
 */
import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { parse, stringify } from 'yaml'

interface Service {
  readonly command: readonly string[] | null
  readonly environment?: Readonly<Record<string, string>>
  readonly image?: string
  readonly ports?: readonly { readonly host_ip?: string; readonly published?: string }[]
}

const FILE = join(import.meta.dirname, '../../docker-compose.yml')
const TEXT = readFileSync(FILE, 'utf8')
const PASSWORD = 'planted-password'
/** Downloads the modules the first time. */
const BUILD_MS = 120_000
let folder: string
let loader: string

beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), 'sealgate-compose-'))
  loader = join(folder, 'loader')
  const options = { cwd: join(import.meta.dirname, 'compose'), timeout: BUILD_MS }
  try {
    execFileSync('go', ['build', '-o', loader, '.'], options)
  } catch (cause) {
    throw new Error('the loader was not built: it needs Go 1.24 or later', { cause })
  }
}, BUILD_MS)
afterAll(() => {
  rmSync(folder, { recursive: true, force: true })
})

/** What Compose makes of a file with these variables, or what it says against it. */
function load(file: string, environment: Readonly<Record<string, string>>): { services: object } | string {
  const options = { env: environment, encoding: 'utf8', timeout: 10_000 } as const
  const { status, stdout, stderr } = spawnSync(loader, [file], options)
  return status === 0 ? JSON.parse(stdout) : stderr
}

/** What Compose says of the file with something else in its services. */
function edited(edit: (services: Record<string, Record<string, unknown>>) => void): string {
  const project = parse(TEXT)
  edit(project.services)
  const file = join(folder, 'docker-compose.yml')
  writeFileSync(file, stringify(project))
  const said = load(file, { SEALGATE_KAFKA_PASSWORD: PASSWORD })
  return typeof said === 'string' ? said : 'nothing'
}

describe('docker-compose.yml, by Compose itself', () => {
  it('is valid, keeps what it publishes to this machine, and has the password where it is asked for', () => {
    const project = load(FILE, { SEALGATE_KAFKA_PASSWORD: PASSWORD })
    if (typeof project === 'string') throw new Error(project)
    const services: Record<string, Service> = { ...project.services }
    expect(project).toMatchObject({ name: 'sealgate', networks: { default: { name: 'sealgate_default' } } })
    for (const { image, ports = [] } of Object.values(services)) {
      expect(image).toMatch(/:\d/)
      for (const port of ports) expect(port.host_ip).toBe('127.0.0.1')
    }
    expect(services['certificate']?.environment?.['PASSWORD']).toBe(PASSWORD)
    // The shell's own variable, and not Compose's.
    expect(services['certificate']?.command?.[0]).toContain('-storepass "$PASSWORD"')
    expect(services['kafka']?.environment?.['KAFKA_SSL_KEYSTORE_PASSWORD']).toBe(PASSWORD)
  })

  it('is refused without a password, and says what to set', () => {
    for (const environment of [{}, { SEALGATE_KAFKA_PASSWORD: '' }])
      expect(load(FILE, environment)).toContain('SEALGATE_KAFKA_PASSWORD is missing a value: Set a password')
  })

  it('would be refused with a misspelt key, a service that is not there, or a value of another kind', () => {
    expect(edited(() => undefined)).toBe('nothing')
    for (const [change, said] of [
      [{ depend_on: ['certificate'] }, 'services.kafka.depend_on'],
      [{ depends_on: ['certificates'] }, 'service "kafka" depends on undefined service "certificates"'],
      [{ depends_on: { certificate: { condition: 'done' } } }, 'services.kafka.depends_on'],
      [{ ports: ['127.0.0.1:9094:kafka'] }, 'Invalid containerPort: kafka'],
      [{ volumes: ['certificates:/certificates'] }, 'refers to undefined volume certificates'],
    ] as const)
      expect(edited((services) => Object.assign(services['kafka'] ?? {}, change))).toContain(said)
  })
})
