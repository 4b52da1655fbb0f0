/**
 * Tests against real Kafka: `npm run test:real`. All of them on one broker of Kafka 4.3; the transaction protocol and the
 * faults again on 3.9, which has the old protocol, and on three brokers. One file runs after the other, on a cluster
 * that they share. `--project kafka-3.9.1` runs one of the three.
 */
import { defineConfig } from 'vitest/config'

const FAULTS = ['sink', 'sink-faults', 'faults/rounds']

/** They need a cluster that is one. */
const THREE = ['three-brokers-repairs']

const pathsOf = (files: readonly string[]): string[] => files.map((file) => `test/real/${file}.test.ts`)

const on = (
  name: 'kafka-4.3.1' | 'kafka-3.9.1' | 'three-brokers',
  files: readonly string[],
  without: readonly string[] = [],
) => ({
  extends: true as const,
  test: {
    name,
    include: pathsOf(files),
    exclude: pathsOf(without),
    globalSetup: ['test/real/stack/setup.ts'],
  },
})

export default defineConfig({
  test: {
    projects: [
      on('kafka-4.3.1', ['**/*'], THREE),
      on('kafka-3.9.1', [...FAULTS, 'faults/conditions', 'faults/broker']),
      on('three-brokers', [...FAULTS, ...THREE]),
    ],
    fileParallelism: false,
    testTimeout: 180_000,
    hookTimeout: 180_000,
    teardownTimeout: 30_000,
  },
})
