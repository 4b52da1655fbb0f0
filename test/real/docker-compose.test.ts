/**
 * docker-compose.yml, as far as it goes without Docker: its certificate is made by its own command, and Kafka runs with its
 * own settings, turned into properties as Kafka's image does it (docker/README.md of apache/kafka).
 */
import { execFile } from 'node:child_process'
import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { Kafka, logLevel } from 'kafkajs'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { parse } from 'yaml'
import { Broker, classPathOf, freePorts, runTool } from './stack/broker.ts'

interface Service {
  readonly image: string
  readonly command?: readonly string[]
  readonly environment?: Readonly<Record<string, string>>
  readonly ports?: readonly string[]
  readonly volumes?: readonly string[]
  readonly depends_on?: Readonly<Record<string, unknown>>
}

const run = promisify(execFile)
const PASSWORD = 'planted-password'
let folder: string
let services: Readonly<Record<string, Service>>
let broker: Broker | undefined
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'sealgate-compose-'))
  const text = await readFile(join(import.meta.dirname, '../../docker-compose.yml'), 'utf8')
  // As Compose interpolates: $$ is a dollar.
  const filled = text.replace(/\$\{SEALGATE_KAFKA_PASSWORD(:\?[^}]*)?\}/g, PASSWORD).replaceAll('$$', '$')
  services = parse(filled).services
})
afterAll(async () => {
  await broker?.stop()
  await rm(folder, { recursive: true })
})

it('names images by version, opens ports to this machine alone, and asks for nothing that is not in it', () => {
  for (const { image, ports = [], depends_on: needed = {} } of Object.values(services)) {
    expect(image).toMatch(/:\d+\.\d+\.\d+$/)
    for (const port of ports) expect(port).toMatch(/^127\.0\.0\.1:\d+:\d+$/)
    for (const name of Object.keys(needed)) expect(Object.keys(services)).toContain(name)
  }
  const { KAFKA_LISTENER_SECURITY_PROTOCOL_MAP: map, KAFKA_LISTENERS: listeners } =
    services['kafka']?.environment ?? {}
  expect(map?.split(',').filter((one) => !one.endsWith(':SASL_SSL'))).toEqual(['CONTROLLER:PLAINTEXT'])
  expect(listeners).toMatch(/^CONTROLLER:\/\/127\.0\.0\.1:/)
})

it('has a broker that starts, proves itself by that certificate, and wants a password', async () => {
  const here = (text: string): string => text.replaceAll('/certificates', folder)
  const [script = ''] = services['certificate']?.command ?? []
  await run('sh', ['-ec', here(script)], {
    env: { PATH: process.env['PATH'] ?? '', PASSWORD },
    timeout: 30_000,
  })
  const ports = await freePorts(3)
  const placed = (text: string): string =>
    ['9091', '9093', '9094']
      .reduce((all, port, index) => all.replaceAll(`:${port}`, `:${ports[index] ?? 0}`), here(text))
      .replaceAll('://:', '://127.0.0.1:')
      .replaceAll('://kafka:', '://localhost:')
  const properties = Object.entries(services['kafka']?.environment ?? {}).map(
    ([name, value]) =>
      `${name
        .replace(/^KAFKA_/, '')
        .toLowerCase()
        .replaceAll('_', '.')}=${placed(value)}`,
  )
  const home = join(folder, 'home')
  await mkdir(home)
  const file = join(home, 'server.properties')
  await writeFile(file, [...properties, `log.dirs=${join(home, 'data')}`, ''].join('\n'), { mode: 0o600 })
  const classPath = await classPathOf('4.3.1', () => undefined)
  await runTool(home, classPath, 'kafka.tools.StorageTool', [
    ...['format', '--cluster-id=4L6g3nShT-eMCtK--X86sw', '--config', file],
  ])
  broker = new Broker({ folder: home, classPath, properties: file, heap: '256m', java: [] })
  await broker.start()
  const ca = await readFile(join(folder, 'ca.pem'), 'utf8')
  const topicsAs = async (password: string): Promise<string[]> => {
    const admin = new Kafka({
      brokers: [`127.0.0.1:${ports[2] ?? 0}`],
      ssl: { ca },
      sasl: { mechanism: 'plain', username: 'gate', password },
      logLevel: logLevel.NOTHING,
      retry: { retries: 12, initialRetryTime: 300, maxRetryTime: 2000 },
    }).admin()
    try {
      await admin.connect()
      await admin.createTopics({ topics: [{ topic: 'orders' }] })
      return await admin.listTopics()
    } finally {
      await admin.disconnect()
    }
  }
  expect(await topicsAs(PASSWORD)).toContain('orders')
  await expect(topicsAs('another')).rejects.toThrow(/[Aa]uthentication/)
}, 90_000)
