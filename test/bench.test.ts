import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import { describe, expect, test } from 'vitest'

const bench = (...args: string[]): { status: number | null; stdout: string; stderr: string } =>
  spawnSync(process.execPath, [join(import.meta.dirname, '../bench/main.ts'), ...args], {
    encoding: 'utf8',
    timeout: 60_000,
  })

interface Row {
  readonly case: string
  readonly eventsPerSecond: number
  readonly floorRatio: number
  readonly peers: Readonly<Record<string, number>>
}

describe('npm run bench', () => {
  test('admission --json prints nothing but its rows: batch and single, each beside its floor and the peers', () => {
    const { stdout, status } = bench('admission', '--json', '--quick')
    expect(status).toBe(0)
    const { rows }: { rows: Row[] } = JSON.parse(stdout)
    expect(rows.map((row) => row.case)).toEqual(['batch', 'single'])
    for (const row of rows) {
      expect(row.eventsPerSecond).toBeGreaterThan(0)
      // Of so few rounds the floor may come out slower than the whole; the upper bound only tells that it is a ratio.
      expect(row.floorRatio).toBeGreaterThan(0)
      expect(row.floorRatio).toBeLessThan(20)
      for (const ratio of Object.values(row.peers)) expect(ratio).toBeGreaterThan(0)
    }
  }, 60_000)

  test('data-keys --json goes through a quick, a slow, a failing and a returned key service', () => {
    const { stdout, status } = bench('data-keys', '--json', '--quick')
    expect(status).toBe(0)
    const result: Record<string, { sent: number; refused: number }> & { admitted: number; rejected: number } =
      JSON.parse(stdout)
    const stretches = ['quick', 'slow', 'down', 'back'].map((name) => result[name])
    const sent = stretches.reduce((sum, stretch) => sum + (stretch?.sent ?? 0), 0)
    // The first call of each producer is in none of them.
    expect(result.admitted).toBe(sent + 20 * 20)
    expect(result.rejected).toBe(0)
    expect(result['down']?.refused).toBeGreaterThan(0)
  }, 60_000)

  test('telemetry --json compares slices that nobody looks at with those that are told of, and prints nothing else', () => {
    const { stdout, status } = bench('telemetry', '--json', '--quick')
    expect(status).toBe(0)
    const { rows }: { rows: { arm: string; microseconds: { median: number } }[] } = JSON.parse(stdout)
    expect(rows).toHaveLength(3)
    for (const { microseconds } of rows) expect(microseconds.median).toBeGreaterThan(0)
  }, 60_000)

  test('names the benchmarks that there are where one is asked for that is not, with exit code 2', () => {
    const { stdout, stderr, status } = bench('admision')
    expect(status).toBe(2)
    expect(stdout).toBe('')
    expect(stderr).toContain('no benchmark called admision')
    expect(stderr).toContain('admission, sealing, cold-start, contracts, stages')
  })
})
