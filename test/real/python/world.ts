/** What the example in Python (docs/python.md) needs around it: its environment, the function of keys over HTTP, and a KMS. */
import { execFile } from 'node:child_process'
import { createHash } from 'node:crypto'
import { existsSync } from 'node:fs'
import { appendFile, cp, mkdir, mkdtemp, readFile, rename, rm, symlink, writeFile } from 'node:fs/promises'
import { createServer } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { keysHandler } from '../../../functions/keys-handler.ts'
import { createDirectory } from '../../../lib/keys/directory-reader.ts'
import { invokeOnce } from '../../../lib/local/invocation.ts'
import type { LocalConsumer } from '../../../lib/local/stack.ts'
import type { SourceRecord } from '../../../lib/ports.ts'

const ROOT = join(import.meta.dirname, '..', '..', '..')
const EXAMPLE = join(ROOT, 'examples', 'python')

export interface Ran {
  readonly status: number
  readonly stdout: string
  readonly stderr: string
}

export interface Consumed {
  readonly status: number
  /** What the consumer printed, and what it refused: `offset code`. */
  readonly events: readonly Readonly<Record<string, unknown>>[]
  readonly refused: readonly string[]
  readonly committed: number
  readonly stderr: string
}

/** A record that a producer in Python would have sent. */
export interface Produced {
  readonly topic: string
  readonly partition: number
  readonly key: Buffer
  readonly value: Buffer
  readonly headers: readonly { readonly name: string; readonly value: Buffer }[]
}

export type Environment = Readonly<Record<string, string>>

/** The example in a folder of its own, with Kafka and AWS replaced by the modules beside this file. */
export interface PythonExample {
  /** A line of shell, in the example's folder. */
  run(command: string, env?: Environment): Promise<Ran>
  /** What a program's function `judge` says to each text: `good`, or the code of its `Rejection`. */
  judge(program: string, texts: readonly string[]): Promise<unknown>
  /** A block of docs/python.md, by its mark. */
  command(name: string): string
  consume(records: readonly SourceRecord[], env: Environment): Promise<Consumed>
  /** Feeds lines to the producer, or runs the page's own command. */
  produce(lines: readonly string[] | 'as shown', env: Environment): Promise<readonly Produced[]>
  close(): Promise<void>
}

export async function openPythonExample(): Promise<PythonExample> {
  const page = await readFile(join(ROOT, 'docs', 'python.md'), 'utf8')
  const command = (name: string): string => {
    const found = new RegExp(`<!-- command: ${name} -->\\s*\`\`\`sh\\n([^]*?)\`\`\``).exec(page)?.[1]
    if (found === undefined) throw new Error(`docs/python.md has no command ${name}`)
    return found.trim()
  }
  const environment = await makeEnvironment(command('install'))
  const folder = await mkdtemp(join(tmpdir(), 'python-'))
  const home = join(folder, 'examples', 'python')
  await cp(EXAMPLE, home, { recursive: true, filter: (path) => !/\.venv|__pycache__/.test(path) })
  await symlink(join(environment, '.venv'), join(home, '.venv'))
  await symlink(join(ROOT, 'test'), join(folder, 'test'))
  const run = (line: string, env: Environment = {}): Promise<Ran> =>
    shell(line, home, {
      PYTHONPATH: join(import.meta.dirname),
      PYTHONDONTWRITEBYTECODE: '1',
      BOOTSTRAP_SERVERS: 'none',
      ...env,
    })
  let files = 0
  const newFile = (): string => join(folder, `records-${(files += 1)}.jsonl`)
  return {
    run,
    command,
    judge: async (program, texts) => {
      const path = newFile()
      await writeFile(path, JSON.stringify(texts))
      const { stdout, stderr } = await run(`.venv/bin/python - <<'END'\n${program}\n${JUDGING}\nEND`, {
        TEXTS: path,
      })
      if (stderr !== '') throw new Error(stderr)
      return JSON.parse(stdout)
    },
    consume: async (records, env) => {
      const path = newFile()
      await writeFile(path, records.map((record) => `${JSON.stringify(rowOf(record))}\n`).join(''))
      const { status, stdout, stderr } = await run(command('consumer'), {
        ...env,
        GROUP: 'test',
        RECORDS: path,
      })
      const committed = existsSync(`${path}.committed`) ? await readFile(`${path}.committed`, 'utf8') : ''
      return {
        status,
        stderr,
        events: linesOf(stdout).map((line): Record<string, unknown> => JSON.parse(line)),
        refused: [...stderr.matchAll(/^\d+\/(\d+) ([a-z-]+):/gm)].map(
          ([, offset, code]) => `${offset} ${code}`,
        ),
        committed: linesOf(committed).length,
      }
    },
    produce: async (lines, env) => {
      const path = newFile()
      const input = join(folder, 'input')
      if (lines !== 'as shown') await writeFile(input, lines.map((line) => `${line}\n`).join(''))
      const line = lines === 'as shown' ? command('producer') : `.venv/bin/python producer.py < ${input}`
      await appendFile(path, '')
      const { status, stderr } = await run(line, { ...env, RECORDS: path })
      if (status !== 0) throw new Error(stderr)
      return linesOf(await readFile(path, 'utf8')).map((row) => producedOf(JSON.parse(row)))
    },
    close: () => rm(folder, { recursive: true }),
  }
}

const JUDGING = `
import json, os
from sealed_event import Rejection

def code(text):
    try:
        judge(text)
        return "good"
    except Rejection as error:
        return error.code

print(json.dumps([code(text) for text in json.load(open(os.environ["TEXTS"]))]))`

/** Of its packages, where pip has none of them yet. */
const INSTALL_MS = 240_000

/** The page's own commands, once for each list of requirements. */
async function makeEnvironment(install: string): Promise<string> {
  const requirements = await readFile(join(EXAMPLE, 'requirements.txt'))
  const version = await shell('python3 --version', ROOT, {})
  const name = createHash('sha256').update(requirements).update(install).update(version.stdout).digest('hex')
  const made = join(ROOT, '.cache', `python-${name.slice(0, 16)}`)
  if (existsSync(made)) return made
  await mkdir(join(ROOT, '.cache'), { recursive: true })
  const folder = await mkdtemp(join(ROOT, '.cache', 'python-new-'))
  await mkdir(join(folder, 'examples', 'python'), { recursive: true })
  await writeFile(join(folder, 'examples', 'python', 'requirements.txt'), requirements)
  const { status, stdout, stderr } = await shell(`set -e\n${install}`, folder, {}, INSTALL_MS)
  if (status !== 0) throw new Error(`the example's environment could not be made: ${stdout}${stderr}`)
  try {
    await rename(join(folder, 'examples', 'python'), made)
  } catch (error) {
    // Unless another run was first.
    if (!existsSync(made)) throw error
  }
  await rm(folder, { recursive: true })
  return made
}

function shell(line: string, cwd: string, env: Environment, timeout = 55_000): Promise<Ran> {
  return new Promise((resolve, reject) => {
    const options = { cwd, env: { ...process.env, ...env }, timeout }
    execFile('sh', ['-c', line], options, (error, stdout, stderr) => {
      if (error === null) resolve({ status: 0, stdout, stderr })
      else if (typeof error.code === 'number') resolve({ status: error.code, stdout, stderr })
      else reject(new Error(`${line} did not end by itself: ${stderr}`, { cause: error }))
    })
  })
}

const linesOf = (text: string): string[] => text.split('\n').filter((line) => line !== '')

const hex = (bytes: Uint8Array | null): string | null => bytes && Buffer.from(bytes).toString('hex')

const rowOf = (record: SourceRecord): object => ({
  topic: record.topic,
  partition: record.partition,
  offset: Number(record.offset),
  appendTime: record.timestampType === 'LogAppendTime' ? record.timestamp : null,
  key: hex(record.key),
  value: hex(record.value),
  headers: record.headers.map(({ name, value }) => [name, hex(value)]),
})

interface ProducedRow {
  readonly topic: string
  readonly partition: number
  readonly key: string
  readonly value: string
  readonly headers: readonly (readonly [string, string])[]
}

const producedOf = ({ topic, partition, key, value, headers }: ProducedRow): Produced => ({
  topic,
  partition,
  key: Buffer.from(key, 'hex'),
  value: Buffer.from(value, 'hex'),
  headers: headers.map(([name, content]) => ({ name, value: Buffer.from(content, 'hex') })),
})

export interface KeysEndpoint {
  readonly url: string
  /** The paths asked for, in order. */
  readonly asked: readonly string[]
  end(): Promise<void>
}

/** The function of keys behind an HTTP server, as a function URL would be; it has read nothing yet. */
export async function serveKeys({ source, roots }: LocalConsumer['directory']): Promise<KeysEndpoint> {
  const handler = keysHandler(() => createDirectory({ source, roots, clock: { now: () => Date.now() } }))
  const asked: string[] = []
  const server = createServer((request, response) => {
    const { url = '', method = '', headers } = request
    asked.push(url)
    const event = { version: '2.0', rawPath: url, headers, requestContext: { http: { method } } }
    invokeOnce(handler, event, { timeoutMs: 5000 }).then(
      (answer) => {
        const { statusCode, headers: fields, body } = httpAnswer(answer)
        response.writeHead(statusCode, fields).end(body)
      },
      () => response.writeHead(502).end(),
    )
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('no port')
  return {
    url: `http://127.0.0.1:${address.port}`,
    asked,
    end: async () => {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

interface HttpAnswer {
  readonly statusCode: number
  readonly headers: Record<string, string>
  readonly body: string
}

function httpAnswer(answer: unknown): HttpAnswer {
  const isAnswer = (value: unknown): value is HttpAnswer =>
    typeof value === 'object' && value !== null && 'statusCode' in value && 'headers' in value
  if (!isAnswer(answer)) throw new Error('no answer')
  return answer
}
