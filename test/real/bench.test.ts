/** `npm run bench -- kafka` and `runtime`: that they run, start and end a broker of their own, and print what was asked for. */
import { spawn } from 'node:child_process'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { installRuntimeClient, RUNTIME_MS } from './runtime-api.ts'

interface Row {
  readonly slice: number
  readonly partitions: number
  readonly eventsPerSecond: number
  readonly p50: number
  readonly p99: number
  readonly ratio: number
}

/** Beside the shared broker, so that this process must go on while it runs. */
async function bench(...args: string[]): Promise<{ status: number | null; stdout: string }> {
  const child = spawn(process.execPath, [join(import.meta.dirname, '../../bench/main.ts'), ...args], {
    stdio: ['ignore', 'pipe', 'ignore'],
    timeout: 90_000,
  })
  let stdout = ''
  child.stdout.setEncoding('utf8').on('data', (text: string) => (stdout += text))
  const status = await new Promise<number | null>((resolve) => child.once('close', resolve))
  return { status, stdout }
}

it('measures slices on a broker of its own beside plain kafkajs, and what TLS costs', async () => {
  const { status, stdout } = await bench('kafka', '--json', '--quick')
  expect(status).toBe(0)
  const { rows, tls }: { rows: Row[]; tls: Record<string, number> } = JSON.parse(stdout)
  expect(rows.map(({ slice, partitions }) => [slice, partitions])).toEqual([
    [1, 1],
    [10, 1],
  ])
  for (const { eventsPerSecond, p50, p99, ratio } of rows) {
    for (const figure of [eventsPerSecond, p50, ratio]) expect(figure).toBeGreaterThan(0)
    expect(p99).toBeGreaterThanOrEqual(p50)
  }
  expect(Object.keys(tls)).toEqual(['plaintext', 'tls', 'costPercent'])
  for (const figure of [tls['plaintext'], tls['tls']]) expect(figure).toBeGreaterThan(0)
}, 100_000)

it(
  'measures the function on AWS’s runtime client beside a hello world, and beside its handler called directly',
  async () => {
    await installRuntimeClient()
    const { status, stdout } = await bench('runtime', '--json', '--quick')
    expect(status).toBe(0)
    interface Ratio {
      readonly ratio: { readonly median: number }
    }
    interface Init extends Ratio {
      readonly keys: Ratio
      readonly rotate: Ratio
    }
    const { init, first, warm }: { init: Init; first: { median: number }; warm: Ratio } = JSON.parse(stdout)
    // How much longer something takes than nothing only a machine of one's own can tell.
    for (const { ratio } of [init, init.keys, init.rotate]) expect(ratio.median).toBeGreaterThan(0)
    expect(first.median).toBeGreaterThan(0)
    expect(warm.ratio.median).toBeGreaterThan(0.1)
  },
  RUNTIME_MS + 100_000,
)
