/**
 * A function in an execution environment of its own: AWS's runtime client in a process, as on nodejs24.x, and before it
 * Lambda's Runtime API on 127.0.0.1 (`/2018-06-01/runtime/…`). The process ends with us: without the API it has no work.
 */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { existsSync } from 'node:fs'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import { join } from 'node:path'
import { promisify } from 'node:util'

const run = promisify(execFile)
/** A package of its own, kept away from the root's: it takes a minute to compile. */
const CLIENT = join(import.meta.dirname, 'lambda')
/** What is started in a function's folder. */
export const RUNTIME_CLIENT: string = join(CLIENT, 'node_modules/aws-lambda-ric/index.mjs')
const INSTALL_MS = 600_000
/** The longest that the first start takes, the installation included. */
export const RUNTIME_MS: number = INSTALL_MS + 60_000

const RUNTIME = '/2018-06-01/runtime'
/** Lambda itself gives ten seconds; a machine may be busy. */
const INIT_MS = 30_000
const MAX_LOG = 1_000_000

export interface FunctionOptions {
  /** The package, unzipped: what lies at `/var/task`. */
  readonly folder: string
  /** The variables of its configuration, and credentials. */
  readonly environment: Readonly<Record<string, string>>
  /** The function's name. Default `sealgate-test-ingest`. */
  readonly name?: string
  /** Default `index.handler`. */
  readonly handler?: string
  /** The function's time-out; the process is killed then, as on Lambda. Default 60 s. */
  readonly timeoutMs?: number
}

/** What Lambda gets to know of something that failed. */
export interface FunctionError {
  readonly errorType: string
  readonly errorMessage: string
}

type Outcome = { readonly answer: unknown } | { readonly error: FunctionError }

export type Invocation = Outcome & {
  /** From handing the event over to the end of the answer. */
  readonly milliseconds: number
}

export interface RunningFunction {
  /** From the start of the process to its first question for an event. */
  readonly initMilliseconds: number
  /** What it has written to its standard outputs. */
  log(): string
  /** Hands one event over, as JSON: the next when that is answered. */
  invoke(eventJson: string): Promise<Invocation>
  end(): Promise<void>
}

/** The function did not come to ask for its first event. */
export class InitError extends Error {
  override readonly name = 'InitError'
  readonly error: FunctionError

  constructor(error: FunctionError) {
    super(`${error.errorType}: ${error.errorMessage}`)
    this.error = error
  }
}

/** Installs AWS's runtime client by its own lock file, where it is not there yet. */
export async function installRuntimeClient(): Promise<void> {
  if (existsSync(join(CLIENT, 'node_modules/aws-lambda-ric/rapid-client.node'))) return
  try {
    await run('npm', ['ci', '--no-audit', '--no-fund'], { cwd: CLIENT, timeout: INSTALL_MS })
  } catch (cause) {
    throw new Error('aws-lambda-ric was not built: it needs cmake, make, g++, xz and Python 3', { cause })
  }
}

/** Starts a function. Rejects with `InitError` where it fails before its first event; then nothing is left running. */
export async function startFunction(options: FunctionOptions): Promise<RunningFunction> {
  await installRuntimeClient()
  const environment = new ExecutionEnvironment(options)
  try {
    const initMilliseconds = await environment.start()
    return {
      initMilliseconds,
      log: () => environment.log,
      invoke: (eventJson) => environment.invoke(eventJson),
      end: () => environment.end(),
    }
  } catch (error) {
    await environment.end()
    throw error
  }
}

interface Pending {
  readonly id: string
  readonly settle: (outcome: Outcome) => void
}

class ExecutionEnvironment {
  readonly #options: FunctionOptions
  readonly #server: Server
  readonly #ready = Promise.withResolvers<undefined>()
  #process: ChildProcess | undefined
  /** The runtime client's question for an event, while there is none. */
  #asking: ServerResponse | undefined
  #wake: (() => void) | undefined
  #pending: Pending | undefined
  /** Why it takes no more events. */
  #end: FunctionError | undefined
  log = ''

  constructor(options: FunctionOptions) {
    this.#options = options
    this.#server = createServer((request, response) => {
      this.#serve(request, response).catch(() => response.destroy())
    })
  }

  async start(): Promise<number> {
    await new Promise<void>((resolve) => this.#server.listen(0, '127.0.0.1', resolve))
    const address = this.#server.address()
    const port = address !== null && typeof address === 'object' ? address.port : 0
    const timer = setTimeout(() => this.#fail('Sandbox.Timedout', 'The init phase timed out.'), INIT_MS)
    const start = performance.now()
    const child = spawn(process.execPath, [RUNTIME_CLIENT], {
      cwd: this.#options.folder,
      env: this.#environment(`127.0.0.1:${port}`),
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    this.#process = child
    for (const stream of [child.stdout, child.stderr])
      stream.setEncoding('utf8').on('data', (text: string) => {
        if (this.log.length < MAX_LOG) this.log += text
      })
    child.once('exit', (status, signal) => {
      const how = signal === null ? `exit status ${status}` : `signal: ${signal}`
      this.#fail('Runtime.ExitError', `Runtime exited with error: ${how}`)
    })
    try {
      await this.#ready.promise
      return performance.now() - start
    } finally {
      clearTimeout(timer)
    }
  }

  async invoke(eventJson: string): Promise<Invocation> {
    const { timeoutMs = TIMEOUT_MS, name = NAME } = this.#options
    const asking = await this.#asked()
    const id = randomUUID()
    const done = Promise.withResolvers<Outcome>()
    this.#pending = { id, settle: done.resolve }
    const timer = setTimeout(() => {
      this.#fail('Sandbox.Timedout', `Task timed out after ${(timeoutMs / 1000).toFixed(2)} seconds`)
      this.#process?.kill('SIGKILL')
    }, timeoutMs)
    const start = performance.now()
    asking
      .writeHead(200, {
        'content-type': 'application/json',
        'lambda-runtime-aws-request-id': id,
        'lambda-runtime-deadline-ms': String(Date.now() + timeoutMs),
        'lambda-runtime-invoked-function-arn': `arn:aws:lambda:${REGION}:111122223333:function:${name}`,
        'lambda-runtime-trace-id': 'Root=1-00000000-000000000000000000000000;Sampled=0',
      })
      .end(eventJson)
    try {
      const result = await done.promise
      return { ...result, milliseconds: performance.now() - start }
    } finally {
      clearTimeout(timer)
    }
  }

  async end(): Promise<void> {
    const child = this.#process
    if (child !== undefined && child.exitCode === null && child.signalCode === null) {
      const ended = new Promise((resolve) => child.once('exit', resolve))
      child.kill('SIGKILL')
      await ended
    }
    this.#server.closeAllConnections()
    await new Promise((resolve) => this.#server.close(resolve))
  }

  /** Lambda's own variables; those of the configuration do not replace them. */
  #environment(api: string): Record<string, string> {
    const { folder, environment, name = NAME, handler = 'index.handler' } = this.#options
    return {
      PATH: process.env['PATH'] ?? '',
      AWS_REGION: REGION,
      ...environment,
      AWS_DEFAULT_REGION: REGION,
      AWS_EXECUTION_ENV: 'AWS_Lambda_nodejs24.x',
      AWS_LAMBDA_FUNCTION_MEMORY_SIZE: '1024',
      AWS_LAMBDA_FUNCTION_NAME: name,
      AWS_LAMBDA_FUNCTION_VERSION: '$LATEST',
      AWS_LAMBDA_INITIALIZATION_TYPE: 'on-demand',
      AWS_LAMBDA_LOG_GROUP_NAME: `/aws/lambda/${name}`,
      AWS_LAMBDA_LOG_STREAM_NAME: '2026/11/22/[$LATEST]0',
      AWS_LAMBDA_RUNTIME_API: api,
      LAMBDA_TASK_ROOT: folder,
      TZ: ':UTC',
      _HANDLER: handler,
    }
  }

  async #serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const what = `${request.method ?? ''} ${request.url ?? ''}`
    if (what === `GET ${RUNTIME}/invocation/next`) {
      this.#asking = response
      this.#ready.resolve(undefined)
      this.#wake?.()
      return
    }
    const body: unknown = JSON.parse(await textOf(request))
    const [, id, kind] = /^POST .*\/invocation\/([^/]+)\/(response|error)$/.exec(what) ?? []
    const pending = this.#pending
    if (what === `POST ${RUNTIME}/init/error`) this.#ready.reject(new InitError(errorOf(body)))
    else if (pending !== undefined && id === pending.id) {
      this.#pending = undefined
      pending.settle(kind === 'response' ? { answer: body } : { error: errorOf(body) })
    } else {
      response.writeHead(400, { 'content-type': 'application/json' }).end('{"errorType":"InvalidRequestID"}')
      return
    }
    response.writeHead(202, { 'content-type': 'application/json' }).end('{"status":"OK"}')
  }

  /** Its question for an event, which it asks once it has sent its last answer. */
  async #asked(): Promise<ServerResponse> {
    if (this.#pending !== undefined) throw new Error('an environment takes one event at a time')
    if (this.#asking === undefined && this.#end === undefined)
      await new Promise<void>((resolve) => {
        this.#wake = resolve
      })
    const asking = this.#asking
    this.#asking = undefined
    if (this.#end !== undefined || asking === undefined) throw new InitError(this.#end ?? UNKNOWN)
    return asking
  }

  /** Whatever waits for the process learns that it waits in vain. */
  #fail(errorType: string, errorMessage: string): void {
    const error = { errorType, errorMessage }
    this.#end ??= error
    this.#ready.reject(new InitError(error))
    this.#pending?.settle({ error })
    this.#pending = undefined
    this.#wake?.()
  }
}

const REGION = 'eu-west-1'
const NAME = 'sealgate-test-ingest'
const TIMEOUT_MS = 60_000
const UNKNOWN: FunctionError = { errorType: 'Runtime.Unknown', errorMessage: 'It does not ask for an event.' }

async function textOf(request: IncomingMessage): Promise<string> {
  const parts: Buffer[] = []
  for await (const part of request) if (part instanceof Buffer) parts.push(part)
  return Buffer.concat(parts).toString()
}

function errorOf(body: unknown): FunctionError {
  const text = (name: string): string => {
    const found: unknown = typeof body === 'object' && body !== null ? Reflect.get(body, name) : undefined
    return typeof found === 'string' ? found : ''
  }
  return { errorType: text('errorType'), errorMessage: text('errorMessage') }
}
