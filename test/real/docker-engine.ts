/**
 * A stand-in for Docker's engine: as much of its API as `sam local invoke` asks for, on a socket in a folder. A build
 * unpacks what SAM sends. A container is the emulator of Lambda's runtime out of that build (`aws-lambda-rie`), in a process
 * of this machine, with AWS's runtime client in place of the image's, in the folder that is mounted as /var/task.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { chmod, mkdir, readFile } from 'node:fs/promises'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { join } from 'node:path'
import type { Duplex } from 'node:stream'
import { text } from 'node:stream/consumers'
import { pipeline } from 'node:stream/promises'
import { installRuntimeClient, RUNTIME_CLIENT } from './runtime-api.ts'
import { freePorts } from './stack/broker.ts'

const ARCHITECTURE = process.arch === 'arm64' ? 'arm64' : 'x86_64'
const PLATFORM = ARCHITECTURE === 'arm64' ? 'linux/arm64' : 'linux/amd64'
/** What can be pulled: the names that SAM has for the runtime. */
const LAMBDA_IMAGE = /^public\.ecr\.aws\/lambda\/nodejs:24-(x86_64|arm64)$/
const EMULATOR = '/var/rapid/aws-lambda-rie'
const TASK = '/var/task'
const STDOUT = 1
const STDERR = 2

/** What SAM has asked for, by Docker's own names (`POST /containers/create`). */
export interface ContainerRequest {
  readonly Image: string
  readonly Entrypoint: readonly string[]
  readonly Cmd: readonly string[] | null
  readonly WorkingDir: string
  readonly Env: readonly string[]
  readonly HostConfig: {
    readonly Binds: readonly string[]
    readonly Memory: number
    readonly PortBindings: Readonly<
      Record<string, readonly { readonly HostIp: string; readonly HostPort: string }[]>
    >
  }
}

export interface ContainerSeen {
  readonly request: ContainerRequest
  /** The networks that it was put into. */
  readonly networks: readonly string[]
}

export interface DockerEngine {
  /** For DOCKER_HOST. */
  readonly host: string
  readonly containers: readonly ContainerSeen[]
  /** How many of them have not been removed. */
  left(): number
  end(): Promise<void>
}

/**
 * @param folder for its socket, where nobody else may write, and for what is built
 * @param networks those that are there
 */
export async function startDockerEngine(folder: string, networks: readonly string[]): Promise<DockerEngine> {
  await installRuntimeClient()
  const engine = new Engine(folder, networks)
  const socket = join(folder, 'docker.sock')
  await engine.listen(socket)
  return {
    host: `unix://${socket}`,
    containers: engine.seen,
    left: () => engine.left(),
    end: () => engine.end(),
  }
}

class Engine {
  readonly seen: Container[] = []
  readonly #folder: string
  readonly #networks: readonly string[]
  /** By image: the emulator in it. */
  readonly #images = new Map<string, string>()
  readonly #containers = new Map<string, Container>()
  readonly #server: Server

  constructor(folder: string, networks: readonly string[]) {
    this.#folder = folder
    this.#networks = networks
    this.#server = createServer((request, response) => {
      this.#serve(request, response).catch((error: unknown) => {
        answer(response, 500, { message: String(error) })
      })
    })
    this.#server.on('upgrade', (request: IncomingMessage, socket: Duplex) => {
      const [, id = ''] = /\/containers\/([^/]+)\/attach\?/.exec(request.url ?? '') ?? []
      socket.on('error', () => socket.destroy())
      const container = this.#containers.get(id)
      if (container === undefined) socket.end('HTTP/1.1 404 Not Found\r\n\r\n')
      else container.attach(socket)
    })
  }

  async listen(socket: string): Promise<void> {
    this.#server.listen(socket)
    await once(this.#server, 'listening')
  }

  left(): number {
    return this.#containers.size
  }

  async end(): Promise<void> {
    await Promise.all(Array.from(this.#containers.values(), (one) => one.remove()))
    this.#server.closeAllConnections()
    await new Promise((resolve) => this.#server.close(resolve))
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const { pathname, searchParams } = new URL(request.url ?? '/', 'http://docker')
    const what = `${request.method ?? ''} ${decodeURIComponent(pathname.replace(/^\/v1\.\d+/, ''))}`
    const [, kind = '', name = '', verb = ''] =
      /^\w+ \/(\w+)\/(.+?)(?:\/(json|start|connect))?$/.exec(what) ?? []
    if (what === 'GET /_ping') answer(response, 200, 'OK')
    else if (what === 'GET /images/json') answer(response, 200, [])
    else if (what === 'POST /build') await this.#build(request, response, searchParams)
    else if (what === 'POST /containers/create') this.#create(JSON.parse(await text(request)), response)
    else if (kind === 'images' && verb === 'json')
      reply(response, this.#images.has(name) ? found({ Id: name }) : missing(`image: ${name}`))
    else if (kind === 'networks') await this.#network(request, response, name, verb)
    else if (kind === 'containers') await this.#container(response, what, name)
    else answer(response, 501, { message: `${what} is not known here` })
  }

  /** `docker build`, of what SAM makes of the runtime's image: its emulator laid over it. */
  async #build(request: IncomingMessage, response: ServerResponse, options: URLSearchParams): Promise<void> {
    const folder = join(this.#folder, `build-${this.#images.size}`)
    await mkdir(folder, { recursive: true })
    const tar = spawn('tar', ['-x', '-f', '-', '-C', folder], { stdio: ['pipe', 'ignore', 'ignore'] })
    const unpacked = once(tar, 'exit')
    await pipeline(request, tar.stdin)
    await unpacked
    const [, base = ''] = /^FROM (\S+)$/m.exec(await readFile(join(folder, 'Dockerfile'), 'utf8')) ?? []
    if (!LAMBDA_IMAGE.test(base)) answer(response, 200, { error: `${base}: not found` })
    // As of a machine with no emulator of the other processor.
    else if (options.get('platform') !== PLATFORM) answer(response, 200, { error: 'exec format error' })
    else {
      const name = `aws-lambda-rie-${ARCHITECTURE}`
      // As the Dockerfile says.
      const emulator = join(folder, name, name)
      await chmod(emulator, 0o755)
      this.#images.set(options.get('t') ?? '', emulator)
      answer(response, 200, { stream: 'Successfully built' })
    }
  }

  #create(request: ContainerRequest, response: ServerResponse): void {
    const emulator = this.#images.get(request.Image)
    if (emulator === undefined) {
      reply(response, missing(`image: ${request.Image}`))
      return
    }
    const id = randomBytes(32).toString('hex')
    const container = new Container(request, emulator)
    this.#containers.set(id, container)
    this.seen.push(container)
    answer(response, 201, { Id: id, Warnings: [] })
  }

  async #network(
    request: IncomingMessage,
    response: ServerResponse,
    name: string,
    verb: string,
  ): Promise<void> {
    if (!this.#networks.includes(name)) {
      reply(response, missing(`network ${name} not found`))
      return
    }
    if (verb === 'connect') {
      const { Container: id }: { Container: string } = JSON.parse(await text(request))
      this.#containers.get(id)?.networks.push(name)
    }
    reply(response, found({ Id: name, Name: name }))
  }

  async #container(response: ServerResponse, what: string, path: string): Promise<void> {
    const id = path.replace(/\?.*$/, '')
    const container = this.#containers.get(id)
    if (container === undefined) reply(response, missing(`container: ${id}`))
    else if (what.endsWith('/json')) reply(response, found({ Id: id, ...container.state() }))
    else if (what.startsWith('DELETE')) {
      this.#containers.delete(id)
      await container.remove()
      answer(response, 204)
    } else if (what.endsWith('/start')) {
      await container.start()
      answer(response, 204)
    } else answer(response, 501, { message: `${what} is not known here` })
  }
}

class Container {
  readonly request: ContainerRequest
  readonly networks: string[] = []
  readonly #emulator: string
  readonly #log: Buffer[] = []
  readonly #attached = new Set<Duplex>()
  #process: ChildProcess | undefined
  /** When whatever could write to its log has ended. */
  #ended: Promise<unknown> | undefined

  constructor(request: ContainerRequest, emulator: string) {
    this.request = request
    this.#emulator = emulator
  }

  state(): object {
    const running = this.#process?.exitCode === null && this.#process.signalCode === null
    const status = this.#process === undefined ? 'created' : running ? 'running' : 'exited'
    return { State: { Status: status, Running: running }, Config: { Tty: false, Image: this.request.Image } }
  }

  async start(): Promise<void> {
    const { Entrypoint, Cmd, Env, HostConfig } = this.request
    const [program, ...args] = [...Entrypoint, ...(Cmd ?? [])]
    const [published] = HostConfig.PortBindings['8080/tcp'] ?? []
    const [task] = HostConfig.Binds.flatMap((bind) => {
      const [host, inside] = bind.split(':')
      return inside === TASK ? [host] : []
    })
    if (program !== EMULATOR || published === undefined || task === undefined)
      throw new Error('it is no function of Lambda')
    if (published.HostIp !== '127.0.0.1') throw new Error(`it would be open to ${published.HostIp}`)
    const [api = 0] = await freePorts(1)
    const addresses = [
      ...['--runtime-interface-emulator-address', `127.0.0.1:${published.HostPort}`],
      ...['--runtime-api-address', `127.0.0.1:${api}`],
    ]
    const given = Object.fromEntries(Env.map((one) => [one.split('=', 1)[0], one.replace(/^[^=]*=/, '')]))
    const handler = given['AWS_LAMBDA_FUNCTION_HANDLER'] ?? ''
    const client = [process.execPath, RUNTIME_CLIENT, handler]
    const child = spawn(this.#emulator, [...args, ...addresses, ...client], {
      cwd: task,
      // What the image has of itself, and what it was created with.
      env: { PATH: process.env['PATH'] ?? '', LANG: 'en_US.UTF-8', LAMBDA_TASK_ROOT: task, ...given },
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    await once(child, 'spawn')
    this.#process = child
    // Should we die first, it goes with us.
    const orphan = (): void => void child.kill('SIGKILL')
    process.once('exit', orphan)
    this.#ended = once(child, 'close').then(() => {
      process.off('exit', orphan)
      for (const one of this.#attached) one.end()
    })
    child.stdout.on('data', (data: Buffer) => {
      this.#say(STDOUT, data)
    })
    child.stderr.on('data', (data: Buffer) => {
      this.#say(STDERR, data)
    })
  }

  /** Hands over what it has written, and writes. */
  attach(socket: Duplex): void {
    socket.write('HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n')
    for (const frame of this.#log) socket.write(frame)
    this.#attached.add(socket)
  }

  /** The runtime client goes with the emulator, without which it has no work. */
  async remove(): Promise<void> {
    for (const one of this.#attached) one.destroy()
    this.#attached.clear()
    this.#process?.kill('SIGKILL')
    await this.#ended
  }

  /** Docker's frame: the stream, and how long it is. */
  #say(stream: number, data: Buffer): void {
    const head = Buffer.alloc(8)
    head.writeUInt8(stream, 0)
    head.writeUInt32BE(data.length, 4)
    const frame = Buffer.concat([head, data])
    this.#log.push(frame)
    for (const one of this.#attached) one.write(frame)
  }
}

const found = (body: object) => [200, body] as const
const missing = (what: string) => [404, { message: `No such ${what}` }] as const

const reply = (response: ServerResponse, [status, body]: readonly [number, object]): void => {
  answer(response, status, body)
}

function answer(response: ServerResponse, status: number, body?: object | string): void {
  const [type, content] =
    typeof body === 'object' ? ['application/json', `${JSON.stringify(body)}\n`] : ['text/plain', body]
  response.writeHead(status, { 'content-type': type, 'api-version': '1.44' }).end(content)
}
