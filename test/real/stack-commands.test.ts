/** `npm run stack`: the demo on a real cluster, and the commands that it prints, typed as they stand there. */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import { promisify } from 'node:util'
import { afterAll, expect, it } from 'vitest'

const run = promisify(execFile)
const ROOT = join(import.meta.dirname, '../..')
let child: ChildProcess | undefined
afterAll(() => child?.kill('SIGKILL'))

it('runs the demo with the numbers of npm start, stays, and works by the commands that it prints', async () => {
  const started = spawn(
    process.execPath,
    ['test/real/stack/main.ts', '--demo', '--events', '400', '--json', '--keep'],
    { cwd: ROOT, stdio: ['ignore', 'pipe', 'inherit'], env: { ...process.env, NO_COLOR: '1' } },
  )
  child = started
  const ended = new Promise((resolve) => started.once('close', resolve))
  const lines: string[] = []
  const printed = new Promise<void>((resolve, reject) => {
    createInterface({ input: started.stdout }).on('line', (line) => {
      lines.push(line)
      if (line.startsWith('Ctrl-C')) resolve()
    })
    started.once('close', () => reject(new Error('it has ended by itself')))
  })
  await printed

  const summary = JSON.parse(lines[0] ?? '')
  expect(summary).toMatchObject({ problems: [], admitted: 400, events: { sealed: 400, admitted: 400 } })
  expect(summary.audit).toMatchObject({ verified: true, entries: summary.sent })
  expect(summary.attacks).toHaveLength(16)
  for (const { sent, expected, ended: how } of summary.attacks) expect(how).toEqual({ [expected]: sent })
  expect(
    summary.tampering.map((one: { found: boolean; kinds: string[] }) => [one.found, ...one.kinds]),
  ).toEqual([
    [true, 'altered'],
    [true, 'missing'],
    [true, 'reordered'],
    [true, 'cut at the end'],
    [true, 'signed by an unknown key'],
  ])

  const commands = lines.filter((line) => line.includes('npx sealgate')).map((line) => line.trim())
  expect(commands).toHaveLength(4)
  const outputs = []
  for (const command of commands)
    outputs.push((await run('bash', ['-c', command], { cwd: ROOT, timeout: 20_000 })).stdout)
  const [sent, tailed, listed, verified] = outputs
  expect(sent).toBe('1 event sent.\n')
  expect(tailed).toMatch(/^\S+Z {2}output\.notifications\.orders\/\d\/\d+ {2}com\.example\.order\./)
  expect(listed).toContain(`${summary.sent - 400} refused: `)
  expect(verified).toContain('Verified: complete and unaltered.')
  expect(verified).not.toContain('not known here')

  const settings = /--settings (\S+)/.exec(commands[0] ?? '')?.[1] ?? ''
  expect(existsSync(settings)).toBe(true)
  started.kill('SIGINT')
  expect(await ended).toBe(0)
  expect(existsSync(dirname(settings))).toBe(false)
}, 120_000)
