/** One broker of Apache Kafka: its jars from Maven Central, its process, which never outlives ours. */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir, open, readFile, rename, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)
const KAFKA = join(import.meta.dirname, 'kafka')
/** Ignored by git; what is in it may be deleted at any time. */
const CACHE = join(import.meta.dirname, '../../../.cache/kafka')

export type KafkaVersion = '4.3.1' | '3.9.1'

/** The class path of a version, with its tools or without, fetched by Maven where its own repository does not have it yet. */
export async function classPathOf(
  version: KafkaVersion,
  say: (line: string) => void,
  tools?: 'tools',
): Promise<string> {
  const path = join(CACHE, `${version}${tools === undefined ? '' : '.tools'}.classpath`)
  if (existsSync(path)) {
    const known = await readFile(path, 'utf8')
    if (known.split(':').every((jar) => existsSync(jar))) return known
  }
  say(`fetching Apache Kafka ${version} from Maven Central`)
  await mkdir(CACHE, { recursive: true })
  const fresh = `${path}.${process.pid}`
  await run(
    'mvn',
    [
      ...['-q', '-B', '-f', join(KAFKA, 'pom.xml'), '-P', tools === undefined ? version : `${version},tools`],
      ...['dependency:build-classpath', '-DincludeScope=runtime', `-Dmdep.outputFile=${fresh}`],
    ],
    { timeout: 600_000 },
  )
  await rename(fresh, path)
  return readFile(path, 'utf8')
}

/** Runs one of Kafka's own tools. Its arguments go by a file: a command line can be read by everybody. */
export async function runTool(
  folder: string,
  classPath: string,
  main: string,
  args: readonly string[],
): Promise<string> {
  const file = await argumentFile(folder, main, ['-cp', classPath, main, ...args])
  const { stdout } = await run('java', [`@${file}`], { timeout: 120_000 })
  return stdout
}

export interface BrokerOptions {
  readonly folder: string
  readonly classPath: string
  readonly properties: string
  /** Its heap, as `-Xmx` takes it. */
  readonly heap: string
  /** Java's own arguments besides. */
  readonly java: readonly string[]
}

export class Broker {
  readonly #options: BrokerOptions
  #process: ChildProcess | undefined

  constructor(options: BrokerOptions) {
    this.#options = options
  }

  get logPath(): string {
    return join(this.#options.folder, 'broker.log')
  }

  /** The process as the operating system knows it, while it runs: for signals. */
  get pid(): number | undefined {
    return this.#process?.pid
  }

  async start(): Promise<void> {
    const { folder, classPath, properties, heap, java } = this.#options
    const args = [
      ...[`-Xmx${heap}`, '-Djava.net.preferIPv4Stack=true', ...java],
      ...[`-Dlog4j2.configurationFile=${join(KAFKA, 'log4j2.xml')}`],
      ...[`-Dlog4j.configuration=file:${join(KAFKA, 'log4j.properties')}`],
      ...['-cp', classPath, 'kafka.Kafka', properties],
    ]
    const file = await argumentFile(folder, 'broker', args)
    const log = await open(this.logPath, 'a', 0o600)
    try {
      const child = spawnTied('java', [`@${file}`], log.fd)
      this.#process = child
      child.once('exit', () => {
        child.stdio[3]?.destroy()
        if (this.#process === child) this.#process = undefined
      })
    } finally {
      await log.close()
    }
  }

  /** Ends it at once, as a crash does, or in order by SIGTERM. */
  async stop(signal: 'SIGKILL' | 'SIGTERM' = 'SIGKILL'): Promise<void> {
    const child = this.#process
    if (child === undefined) return
    const ended = new Promise((resolve) => child.once('exit', resolve))
    child.kill(signal)
    const timer = setTimeout(() => child.kill('SIGKILL'), 20_000)
    await ended
    clearTimeout(timer)
  }
}

/**
 * A program that never outlives us: beside it a watcher waits for the end of a pipe that only we hold, and when we die,
 * however that is, kills it. Its process id is that of the child.
 */
export function spawnTied(program: string, args: readonly string[], output: number | 'ignore'): ChildProcess {
  const script = '(read -r _ <&3; kill -9 $$ 2>/dev/null) & exec 3<&-; exec "$@"'
  return spawn('sh', ['-c', script, 'sh', program, ...args], { stdio: ['ignore', output, output, 'pipe'] })
}

async function argumentFile(folder: string, name: string, args: readonly string[]): Promise<string> {
  const path = join(folder, `${name}.args`)
  const quoted = args.map((arg) => `"${arg.replaceAll('\\', '\\\\').replaceAll('"', '\\"')}"`)
  await writeFile(path, `${quoted.join('\n')}\n`, { mode: 0o600 })
  return path
}

/** Ports on 127.0.0.1 that nobody holds just now, all different. */
export async function freePorts(count: number): Promise<number[]> {
  const servers = await Promise.all(
    Array.from({ length: count }, async () => {
      const server = createServer()
      await new Promise<void>((resolve, reject) => {
        server.once('error', reject)
        server.listen(0, '127.0.0.1', resolve)
      })
      return server
    }),
  )
  const ports = servers.map((server) => {
    const address = server.address()
    if (address === null || typeof address === 'string') throw new Error('no port')
    return address.port
  })
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))))
  return ports
}
