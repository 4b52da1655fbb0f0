/**
 * docker-compose.yml without Docker: its certificate by its own command, Kafka with its own settings, turned into properties
 * as Kafka's image does it (docker/README.md of apache/kafka), and the world of events/ by its very command; all at free
 * ports of 127.0.0.1.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { parse } from 'yaml'
import { Broker, classPathOf, freePorts, runTool } from './stack/broker.ts'

const run = promisify(execFile)
const ROOT = join(import.meta.dirname, '../..')
export const COMPOSE_PASSWORD = 'planted-password'
const READY_MS = 60_000

export interface Service {
  readonly image: string
  readonly command?: readonly string[]
  readonly environment?: Readonly<Record<string, string>>
  readonly ports?: readonly string[]
  readonly depends_on?: Readonly<Record<string, unknown>>
  readonly healthcheck?: { readonly test: readonly string[] }
}

/** The services of docker-compose.yml, interpolated as Compose does it. */
export async function composeServices(): Promise<Readonly<Record<string, Service>>> {
  const text = await readFile(join(ROOT, 'docker-compose.yml'), 'utf8')
  // $$ is a dollar.
  const filled = text
    .replace(/\$\{SEALGATE_KAFKA_PASSWORD(:\?[^}]*)?\}/g, COMPOSE_PASSWORD)
    .replaceAll('$$', '$')
  return parse(filled).services
}

export interface ComposeBroker {
  /** `127.0.0.1:port` of the listener for this machine. */
  readonly address: string
  /** PEM file of its authority. */
  readonly ca: string
  /** A text of docker-compose.yml with the places that it names as they are here. */
  here(text: string): string
  end(): Promise<void>
}

/** Makes the broker's certificate in a folder, which is there. */
export async function makeCertificate(folder: string, password: string = COMPOSE_PASSWORD): Promise<void> {
  const [script = ''] = (await composeServices())['certificate']?.command ?? []
  await run('sh', ['-ec', script.replaceAll('/certificates', folder)], {
    // Java's quickest start: keytool is called three times.
    env: {
      PATH: process.env['PATH'] ?? '',
      PASSWORD: password,
      JAVA_TOOL_OPTIONS: '-XX:TieredStopAtLevel=1 -XX:+UseSerialGC',
    },
    timeout: 30_000,
  })
}

/** Starts it in a folder, which is there. */
export async function startComposeBroker(folder: string): Promise<ComposeBroker> {
  const services = await composeServices()
  const inFolder = (text: string): string => text.replaceAll('/certificates', folder)
  await makeCertificate(folder)
  const known = ['9091', '9093', '9094', '4566']
  const ports = await freePorts(known.length)
  const here = (text: string): string =>
    known
      .reduce(
        (all, port, index) => all.replaceAll(new RegExp(`([:/])${port}\\b`, 'g'), `$1${ports[index] ?? 0}`),
        inFolder(text),
      )
      .replaceAll('://:', '://127.0.0.1:')
      .replaceAll(/\b(kafka|world|0\.0\.0\.0)(?=:\d)/g, '127.0.0.1')
  const properties = Object.entries(services['kafka']?.environment ?? {}).map(
    ([name, value]) =>
      `${name
        .replace(/^KAFKA_/, '')
        .toLowerCase()
        .replaceAll('_', '.')}=${here(value)}`,
  )
  const home = join(folder, 'home')
  await mkdir(home)
  const file = join(home, 'server.properties')
  await writeFile(file, [...properties, `log.dirs=${join(home, 'data')}`, ''].join('\n'), { mode: 0o600 })
  const classPath = await classPathOf('4.3.1', () => undefined)
  await runTool(home, classPath, 'kafka.tools.StorageTool', [
    ...['format', '--cluster-id=4L6g3nShT-eMCtK--X86sw', '--config', file],
  ])
  const broker = new Broker({ folder: home, classPath, properties: file, heap: '256m', java: [] })
  await broker.start()
  return {
    address: here('127.0.0.1:9094'),
    ca: join(folder, 'ca.pem'),
    here,
    end: () => broker.stop(),
  }
}

export interface LocalWorld {
  /** What SAM is given: template.yaml, env.json and the function's package. */
  readonly folder: string
  /** Whatever it has printed. */
  output(): string
  /** By `topic/partition/offset`: the verdicts that it has printed. */
  verdicts(): ReadonlyMap<string, string>
  /** As `docker compose down` ends it; resolves to its exit status. */
  end(): Promise<number | null>
}

/** Bundles the function into a folder as docs/local.md says, where that is not done yet. */
export async function bundleLocalWorld(folder: string): Promise<void> {
  await run(process.execPath, ['scripts/local-world.ts', 'bundle', '--folder', folder], {
    cwd: ROOT,
    timeout: READY_MS,
  })
}

/** The world by the service's command and environment; resolves when its health check would succeed. */
export async function startLocalWorld(
  broker: Pick<ComposeBroker, 'here'>,
  folder: string,
  change: { readonly environment?: Readonly<Record<string, string>> } = {},
): Promise<LocalWorld> {
  const { command = [], environment = {} } = (await composeServices())['world'] ?? {}
  const here = (text: string): string => broker.here(text.replace(/(?<==)\/local$/, folder))
  const [, ...args] = command.map(here)
  // The container's node_modules are those of the machine that Docker is on: none of their native code may be needed.
  const child = spawn(process.execPath, ['--no-addons', ...args], {
    cwd: ROOT,
    env: {
      PATH: process.env['PATH'] ?? '',
      ...Object.fromEntries(Object.entries(environment).map(([name, value]) => [name, here(value)])),
      ...change.environment,
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  // Should we die first, it goes with us.
  const orphan = (): void => void child.kill('SIGKILL')
  process.once('exit', orphan)
  const ended = new Promise<number | null>((resolve) => child.once('exit', resolve))
  void ended.then(() => process.off('exit', orphan))
  let output = ''
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding('utf8').on('data', (text: string) => (output += text))
  try {
    await ready(child, () => output)
  } catch (error) {
    child.kill('SIGKILL')
    throw error
  }
  return {
    folder,
    output: () => output,
    verdicts: () =>
      new Map(
        [...output.matchAll(/^(\S+\/\d+\/\d+) {2}(\S+)$/gm)].map(([, place = '', verdict = '']) => [
          place,
          verdict,
        ]),
      ),
    end: () => {
      child.kill('SIGTERM')
      return ended
    },
  }
}

async function ready(child: ChildProcess, output: () => string): Promise<void> {
  const until = Date.now() + READY_MS
  while (!output().includes('is for sam local invoke')) {
    if (child.exitCode !== null || Date.now() > until)
      throw new Error(`the world did not come (${child.exitCode ?? 'late'}): ${output()}`)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

/** The function's variables as SAM makes them: those of the template, with what env.json says instead. */
export async function samVariables(folder: string): Promise<Readonly<Record<string, string>>> {
  const template = parse(await readFile(join(folder, 'template.yaml'), 'utf8'))
  const { IngestFunction: given } = JSON.parse(await readFile(join(folder, 'env.json'), 'utf8'))
  const variables: Record<string, string> = template.Resources.IngestFunction.Properties.Environment.Variables
  return Object.fromEntries(Object.entries(variables).map(([name, value]) => [name, given[name] ?? value]))
}
