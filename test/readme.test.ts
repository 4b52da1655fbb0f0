/** Every command that README.md shows, run as a reader would; a command that is not run here fails the test. */
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'

const ROOT = join(import.meta.dirname, '..')
const folder = mkdtempSync(join(tmpdir(), 'sealgate-readme-'))
const commands = [...readFileSync(join(ROOT, 'README.md'), 'utf8').matchAll(/```sh\n([^]*?)```/g)].flatMap(
  ([, block]) => (block ?? '').trim().split('\n'),
)

let stack: ChildProcess | undefined
afterAll(() => {
  stack?.kill('SIGKILL')
  rmSync(folder, { recursive: true, force: true })
})

interface Run {
  readonly code: number | null
  readonly output: string
}

/** Runs a shell line in the checkout, with this Node as `node` and `sealgate` as npx would find it. */
function run(line: string, until?: string): Promise<Run> {
  const shell = line
    .replaceAll('npx sealgate', `"${process.execPath}" bin/sealgate.js`)
    .replaceAll(/^npm start( --)?/g, `"${process.execPath}" demo/main.ts`)
  const child = spawn('/bin/sh', ['-c', until === undefined ? shell : `exec ${shell}`], {
    cwd: ROOT,
    env: { ...process.env, SEALGATE_LOCAL: join(folder, 'stack'), NO_COLOR: '1' },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  return new Promise((resolve, reject) => {
    let output = ''
    const bound = setTimeout(() => {
      child.kill('SIGKILL')
      reject(new Error(`${line} did not end in time: ${output}`))
    }, 60_000)
    const done = (code: number | null): void => {
      clearTimeout(bound)
      resolve({ code, output })
    }
    const read = (chunk: Buffer): void => {
      output += chunk.toString()
      if (until === undefined || !output.includes(until)) return
      stack = child
      done(0)
    }
    child.stdout.on('data', read)
    child.stderr.on('data', read)
    child.on('exit', done)
  })
}

const mine = join(folder, 'my.ndjson')
const event = {
  specversion: '1.0',
  id: '1',
  source: '/fulfilment',
  type: 'com.example.order.fulfilled.v1',
  data: { orderId: 'A-1', fulfilledAt: '2026-11-22T10:00:00Z', items: 2 },
}
writeFileSync(mine, `${JSON.stringify(event)}\n`)

/** What is run for a command where it is not the command itself, and what its output says. */
const RUNS: Readonly<
  Record<string, { readonly line?: string; readonly until?: string; readonly says: string }>
> = {
  // Whole in the CI run, which begins with npm ci and ends with npm start; here with fewer events.
  'npm ci && npm start': {
    line: 'npm start -- --events 600',
    says: 'Every number above was counted in the log, and they agree.',
  },
  'npm start -- --input my.ndjson --contracts contracts': {
    line: `npm start -- --input ${mine} --contracts contracts`,
    says: 'com.example.order.fulfilled.v1',
  },
  'npx sealgate local start': { until: 'Ctrl-C stops it.', says: 'is running' },
  // This very run.
  'npm ci && npm test': { line: 'true', says: '' },
}

describe('README.md', () => {
  it.each(commands)(
    '%s',
    async (command) => {
      const told = RUNS[command]
      if (told === undefined)
        expect(command).toMatch(/npx sealgate (send|tail|quarantine|audit|contracts|conformance) /)
      const { code, output } = await run(told?.line ?? command, told?.until)
      expect(output).toContain(told?.says ?? '')
      expect(code, output).toBe(0)
    },
    90_000,
  )

  it('shows the commands of this test, and the stack it starts stops when told', async () => {
    for (const command of Object.keys(RUNS)) expect(commands).toContain(command)
    const child = stack
    if (child === undefined) throw new Error('no stack was started')
    const ended = new Promise<number | null>((resolve) => child.on('exit', resolve))
    child.kill('SIGINT')
    expect(await ended).toBe(0)
  })
})
