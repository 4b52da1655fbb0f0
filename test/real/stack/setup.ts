/**
 * Vitest's global set-up: one stack for all files of a project (vitest.real.config.ts). `STACK_KAFKA` and `STACK_BROKERS`
 * choose another than the project's own.
 */
import type { TestProject } from 'vitest/node'
import { everyMechanism } from './mechanisms.ts'
import { startStack } from './stack.ts'

declare module 'vitest' {
  interface ProvidedContext {
    /** Where the connection stands: a file, so that no secret goes through anything else. */
    readonly connectionFile: string
    /** Process ids of the brokers, by id from 1, for signals. */
    readonly brokerPids: readonly number[]
  }
}

export async function setup(project: TestProject): Promise<() => Promise<void>> {
  const { name } = project
  const { STACK_KAFKA: kafka = name === 'kafka-3.9.1' ? '3.9.1' : '4.3.1' } = process.env
  const { STACK_BROKERS: brokers = name === 'three-brokers' ? '3' : '1' } = process.env
  if (kafka !== '4.3.1' && kafka !== '3.9.1') throw new Error(`STACK_KAFKA=${kafka}: use 4.3.1 or 3.9.1`)
  const stack = await startStack({
    version: kafka,
    // Only a single broker takes more listeners.
    ...(brokers === '3' ? { brokers: 3 } : { listeners: (made) => everyMechanism(kafka, made) }),
    say: (line) => process.stdout.write(`${name}: ${line}\n`),
  })
  project.provide('connectionFile', stack.connectionFile)
  project.provide(
    'brokerPids',
    [...stack.brokers.values()].flatMap(({ pid }) => pid ?? []),
  )
  return () => stack.stop()
}
