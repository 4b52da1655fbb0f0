/** A process that may be killed at any time, by the signs of life that it gives on its standard output. */
import { spawn } from 'node:child_process'

/** After so many bytes of its output, and then so many milliseconds. */
export interface KillAfter {
  readonly signs: number
  readonly ms: number
}

/** Runs a script. True where it ended by itself, with 0; false where it was killed. Rejects after `boundMs`. */
export function runMortal(
  script: string,
  {
    args = [],
    env = {},
    boundMs,
  }: { args?: readonly string[]; env?: Record<string, string>; boundMs: number },
  killAfter?: KillAfter,
): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [script, ...args], {
      stdio: ['ignore', 'pipe', 'inherit'],
      env: { ...process.env, ...env },
    })
    const bound = setTimeout(() => {
      child.kill('SIGKILL')
      reject(new Error(`${script} did not end in time`))
    }, boundMs)
    let signs = 0
    child.stdout.on('data', (chunk: Buffer) => {
      signs += chunk.length
      if (killAfter !== undefined && signs >= killAfter.signs)
        setTimeout(() => child.kill('SIGKILL'), killAfter.ms)
    })
    child.on('error', reject)
    child.on('exit', (code) => {
      clearTimeout(bound)
      if (code === 0 || code === null) resolve(code === 0)
      else reject(new Error(`${script} ended with ${code}`))
    })
  })
}
