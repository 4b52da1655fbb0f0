/** The stack itself: it never outlives who started it, keeps its secrets, and denies by default. */
import { execFile, spawn } from 'node:child_process'
import { once } from 'node:events'
import { stat } from 'node:fs/promises'
import { createInterface } from 'node:readline'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { describe, expect, inject, it } from 'vitest'
import { client, connection } from './world.ts'

const run = promisify(execFile)

const isAlive = (pid: number): boolean => {
  try {
    process.kill(pid, 0)
    return true
  } catch {
    return false
  }
}

describe('the stack', () => {
  it('keeps its passwords in files of its owner, and out of every command line', async () => {
    expect((await stat(inject('connectionFile'))).mode & 0o777).toBe(0o600)
    const { stdout } = await run('ps', ['-eo', 'args'])
    for (const password of Object.values(connection.passwords)) expect(stdout).not.toContain(password)
  })

  it('lets nobody do what was not granted by name', async () => {
    const producer = client('consumer').producer({ retry: { retries: 0 }, createPartitioner: () => () => 0 })
    await producer.connect()
    const sent = producer.send({ topic: 'output.any', messages: [{ value: 'x' }] })
    await expect(sent).rejects.toThrow(/authorized|not host|permitted/i)
    await producer.disconnect()
  })

  it('kills a broker when the process that started it is killed', async () => {
    // Started as a broker is, with a sleeping program in its place.
    const broker = JSON.stringify(join(import.meta.dirname, 'stack/broker.ts'))
    const script = `import { spawnTied } from ${broker}
      console.log(spawnTied('sleep', ['60'], 'ignore').pid)
      setInterval(() => undefined, 1000)`
    const parent = spawn(process.execPath, ['--input-type=module', '-e', script], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    const lines = createInterface({ input: parent.stdout })
    const [line] = await once(lines, 'line')
    const child = Number(line)
    expect(isAlive(child)).toBe(true)
    parent.kill('SIGKILL')
    const until = Date.now() + 5000
    while (isAlive(child) && Date.now() < until) await new Promise((resolve) => setTimeout(resolve, 50))
    expect(isAlive(child)).toBe(false)
  })
})
