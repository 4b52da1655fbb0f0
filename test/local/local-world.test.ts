/** `npm run local-world` before it has a Kafka; with one: test/real/docker-compose.test.ts. */
import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, readdir, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { selfSigned } from '../self-signed.ts'

const ROOT = join(import.meta.dirname, '../..')
let folder: string
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'sealgate-local-world-test-'))
})
afterAll(() => rm(folder, { recursive: true }))

interface Ended {
  readonly status: number
  readonly output: string
}

const localWorld = (args: readonly string[], environment: Record<string, string> = {}): Promise<Ended> =>
  new Promise((resolve) => {
    const child = execFile(
      process.execPath,
      ['scripts/local-world.ts', ...args],
      {
        cwd: ROOT,
        env: { PATH: process.env['PATH'] ?? '', TMPDIR: folder, ...environment },
        timeout: 20_000,
      },
      (_, stdout, stderr) => {
        resolve({ status: child.exitCode ?? -1, output: stdout + stderr })
      },
    )
  })

it('says all that is wrong at once, and ends with 2', async () => {
  const serve = ['serve', '--folder', folder, '--listen', '127.0.0.1:1']
  const { status, output } = await localWorld([...serve, '--world', 'none.json'], {
    SEALGATE_KAFKA_SASL_MECHANISM: 'sasl',
    NODE_TLS_REJECT_UNAUTHORIZED: '0',
  })
  expect(status).toBe(2)
  for (const fault of [
    'NODE_TLS_REJECT_UNAUTHORIZED',
    'There is no bundle. First: npm run local-world -- bundle',
    '--world: none.json cannot be read',
    'SEALGATE_KAFKA_BROKERS',
    'SEALGATE_KAFKA_SASL_MECHANISM',
  ])
    expect(output).toContain(fault)
})

it('bundles the code anew, and leaves what a world has put beside it', async () => {
  const place = join(folder, 'bundled', 'function')
  await mkdir(place, { recursive: true })
  for (const name of ['contracts.json', 'OLD.mjs']) await writeFile(join(place, name), '')
  expect(await localWorld(['bundle', '--folder', join(folder, 'bundled')])).toEqual({ status: 0, output: '' })
  const names = await readdir(place)
  expect(names).toEqual(expect.arrayContaining(['contracts.json', 'index.mjs']))
  expect(names).not.toContain('OLD.mjs')
  await rm(join(folder, 'bundled'), { recursive: true })
})

it('refuses an address that is none, and shows its help', async () => {
  const wrong = await localWorld(['serve', '--listen', '127.0.0.1', '--endpoint', 'ftp://x'])
  expect(wrong.status).toBe(2)
  const { status, output } = await localWorld(['--help'])
  expect(status).toBe(0)
  expect(output).toContain('Exit status: 0')
})

it('waits for a Kafka that does not answer no longer than it is told, ends with 3, and leaves no key behind', async () => {
  const { cert } = selfSigned()
  await mkdir(join(folder, 'function'))
  await writeFile(join(folder, 'function', 'index.mjs'), '')
  await writeFile(join(folder, 'ca.pem'), cert)
  const { status, output } = await localWorld(
    ['serve', '--folder', folder, '--listen', '127.0.0.1:1', '--wait', '1'],
    {
      SEALGATE_KAFKA_BROKERS: '127.0.0.1:1',
      SEALGATE_KAFKA_SSL_CA: join(folder, 'ca.pem'),
      SEALGATE_KAFKA_SASL_MECHANISM: 'plain',
      SEALGATE_KAFKA_SASL_USERNAME: 'gate',
      SEALGATE_KAFKA_SASL_PASSWORD: 'planted-password',
    },
  )
  expect(output).toContain('no broker can be reached (ECONNREFUSED)')
  expect(output).not.toContain('planted-password')
  expect(status).toBe(3)
  // Its key service is in a temporary folder.
  expect((await readdir(folder)).sort()).toEqual(['ca.pem', 'function'])
})
