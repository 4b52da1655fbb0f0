/** A fresh cluster is made ready by what `sealgate setup print` prints; the demo runs on it, and `sealgate doctor` says what is wrong. */
import { mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import kafkajs from 'kafkajs'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { demoOffers } from '../../demo/offers.ts'
import { Progress } from '../../demo/progress.ts'
import { PARTITIONS, runOn } from '../../demo/run.ts'
import { readContracts } from '../../lib/adapters/contract-files.ts'
import { buildBundle, loadBundle } from '../../lib/contract/bundle.ts'
import { checkContracts } from '../../lib/contract/load.ts'
import { readerRights } from '../../lib/cluster-needs.ts'
import { setupCommands } from '../../lib/setup-commands.ts'
import { processTerminal } from '../../cli/terminal.ts'
import { readKafkaSettings } from '../../lib/adapters/kafka-settings.ts'
import { surveyKafka } from '../../lib/adapters/kafka-survey.ts'
import { sealgate } from '../cli/terminal.ts'
import { type Gateway, openGateway } from './stack/gateway.ts'
import { clientConfig, type RealStack, startStack, withAdmin } from './stack/stack.ts'
import { runScript } from './stack/tools.ts'

const CONTRACTS = fileURLToPath(new URL('../../contracts', import.meta.url))
const EVENTS = 200

interface Row {
  readonly name: string
  readonly status: string
  readonly message: string
  readonly fix: string
}

let stack: RealStack
let gateway: Gateway
let folder: string
/** The gate's settings, and those of an administrator who may see everything. */
let gate: string
let observer: string

beforeAll(async () => {
  const { files } = checkContracts(await readContracts(CONTRACTS))
  const bundle = buildBundle(files)
  folder = await mkdtemp(join(tmpdir(), 'sealgate-setup-'))
  stack = await startStack({ brokers: 3, rights: 'none' })
  const { connection } = stack
  gateway = await openGateway(connection, folder, bundle, PARTITIONS, async (settings) => {
    const { all } = loadBundle(bundle)
    const issuers = all.flatMap(({ publish }) => [...publish.keys()])
    const consumers = all.flatMap(({ routes }) => routes.map(({ consumer }) => consumer))
    const who = (names: readonly string[], user: string): string[] =>
      [...new Set(names)].flatMap((name) => ['--principal', `${name}=User:${user}`])
    const args = ['setup', 'print', '--settings', settings, '--partitions', String(PARTITIONS)]
    const names = [
      ...who(issuers, 'producer'),
      ...who(consumers, 'consumer'),
      ...who(['observer'], 'consumer'),
    ]
    const { out, err, status } = await sealgate([...args, ...names])
    expect([err, status]).toEqual(['', undefined])
    await runScript(out, folder, connection)
  })
  const text = await readFile(gateway.settingsFile, 'utf8')
  const settingsOf = async (user: 'gate' | 'consumer'): Promise<string> => {
    const path = join(dirname(gateway.settingsFile), `${user}.yaml`)
    const password = join(folder, `${user}.password`)
    await writeFile(password, connection.passwords[user], { mode: 0o600 })
    await writeFile(
      path,
      text.replace('username: operator', `username: ${user}`).replace('operator.password', password),
      {
        mode: 0o600,
      },
    )
    return path
  }
  gate = await settingsOf('gate')
  observer = await settingsOf('consumer')
}, 180_000)

afterAll(async () => {
  await gateway.close()
  await stack.stop()
  await rm(folder, { recursive: true, force: true })
})

async function rows(
  ...args: string[]
): Promise<{ readonly checks: readonly Row[]; readonly status: number | undefined }> {
  const { out, status } = await sealgate([
    'doctor',
    '--json',
    '--settings',
    gate,
    '--observer',
    observer,
    ...args,
  ])
  const { checks }: { checks: Row[] } = JSON.parse(out)
  return { checks, status }
}
const red = ({ checks }: Awaited<ReturnType<typeof rows>>): string[] =>
  checks
    .filter(({ status, name }) => status !== 'ok' && status !== 'skip' && name !== 'certificate-expiry')
    .map(({ name, message }) => `${name}: ${message}`)

describe('a cluster that was made ready by what setup prints', () => {
  it('has the demo running with least rights', async () => {
    const outcome = await runOn(
      gateway,
      { expected: EVENTS, isSound: true, offers: (known) => demoOffers(known, EVENTS) },
      new Progress(processTerminal(), true),
    )
    expect(outcome.problems).toEqual([])
    expect(outcome.events.admitted).toBe(EVENTS)
  })

  it('is found without fault', async () => {
    expect(red(await rows())).toEqual([])
  })

  it('is red for the authentication with another password, which is no outage', async () => {
    const other = join(dirname(gate), 'other.yaml')
    const password = join(folder, 'other.password')
    await writeFile(password, 'twelve-or-more-but-wrong', { mode: 0o600 })
    const text = await readFile(gate, 'utf8')
    await writeFile(other, text.replace(/passwordFile: .*/, `passwordFile: ${password}`), { mode: 0o600 })
    const { out, status } = await sealgate(['doctor', '--json', '--settings', other])
    const { checks }: { checks: Row[] } = JSON.parse(out)
    expect(status).toBe(1)
    for (const name of ['brokers', 'authentication'])
      expect(checks.find((row) => row.name === name)).toMatchObject({ status: 'fail' })
    expect(out).not.toContain('but-wrong')
  })

  it('has users as the page makes them, whose passwords stand in no command line', async () => {
    const page = await readFile(join(import.meta.dirname, '../../docs/setup.md'), 'utf8')
    const [, block = ''] = /```sh\n(umask[^]*?)```/.exec(page) ?? []
    const script = block
      .replace('--bootstrap-server …', `--bootstrap-server ${stack.connection.brokers.join(',')}`)
      // Here the tools run after the script, and read it then.
      .replace('rm user.properties', '')
    await runScript(script, folder, stack.connection)
    const password = await readFile(join(folder, 'sealgate.password'), 'utf8')
    expect(password).toMatch(/^[0-9a-f]{48}$/)
    const settings = readKafkaSettings({
      ...{ brokers: stack.connection.brokers, deployment: 'test', ssl: { ca: stack.connection.ca } },
      sasl: { mechanism: 'scram-sha-512', username: 'sealgate', password },
    })
    // Brokers learn of a user from the controller a moment later.
    await vi.waitFor(
      async () => {
        const survey = await surveyKafka(settings, { now: () => Date.now() }, Date.now() + 20_000)
        await survey.close()
      },
      { timeout: 20_000 },
    )
  })

  it('keeps a consumer out of the groups of one whose name begins as its own', async () => {
    const nobody = { topics: [], gate: [], poller: [], operator: [], rotator: [], observer: [] }
    const users = { reports: 'consumer', 'reports.eu': 'poller' } as const
    const consumers = new Map(Object.keys(users).map((name) => [name, readerRights(`${name}.`, [])]))
    const script = setupCommands(
      { ...nobody, producers: new Map(), consumers },
      {
        ...{ brokers: stack.connection.brokers.join(','), commandConfig: 'admin.properties', partitions: 1 },
        principals: (name) => `User:${name === 'reports.eu' ? users[name] : users.reports}`,
      },
    )
    await runScript(script, folder, stack.connection)
    const maySee = async (user: 'consumer' | 'poller', group: string): Promise<boolean> => {
      const admin = new kafkajs.Kafka(clientConfig(stack.connection, user)).admin()
      try {
        await admin.connect()
        await admin.describeGroups([group])
        return true
      } catch (error) {
        if (error instanceof Error && 'type' in error && error.type === 'GROUP_AUTHORIZATION_FAILED')
          return false
        throw error
      } finally {
        await admin.disconnect()
      }
    }
    await expect.poll(() => maySee('poller', 'reports.eu.a'), { timeout: 20_000 }).toBe(true)
    await expect.poll(() => maySee('consumer', 'reports.eu.a'), { timeout: 20_000 }).toBe(false)
    // Another coordinator may learn of it later.
    await expect.poll(() => maySee('consumer', 'reports.a'), { timeout: 20_000 }).toBe(true)
    expect(await maySee('poller', 'reports.a')).toBe(false)
  })

  it('is red for the audit topic when somebody shortens its retention', async () => {
    const { TOPIC } = kafkajs.ConfigResourceTypes
    const configEntries = [{ name: 'retention.ms', value: '86400000' }]
    const resources = [{ type: TOPIC, name: 'test.audit', configEntries }]
    await withAdmin(stack.connection, (admin) => admin.alterConfigs({ validateOnly: false, resources }))
    await expect
      .poll(async () => red(await rows()), { timeout: 20_000 })
      .toContain('audit-topic: test.audit: retention.ms=86400000.')
  })

  it('is red for the rights when one is taken away', async () => {
    const filter = {
      resourceType: kafkajs.AclResourceTypes.TOPIC,
      resourceName: 'test.audit',
      resourcePatternType: kafkajs.ResourcePatternTypes.LITERAL,
      principal: 'User:gate',
      host: '*',
      operation: kafkajs.AclOperationTypes.WRITE,
      permissionType: kafkajs.AclPermissionTypes.ALLOW,
    }
    await withAdmin(stack.connection, (admin) => admin.deleteAcls({ filters: [filter] }))
    await expect
      .poll(async () => red(await rows()), { timeout: 20_000 })
      .toContain('acls: The gate may not Write topic test.audit.')
  })
})
