/** What `sealgate doctor` is to look at. */
import type { KafkaConnectionSettings } from '../lib/adapters/kafka-settings.ts'
import type { Clock } from '../lib/ports.ts'
import type { GateSettings } from './settings.ts'

/** What a user has named for the doctor to look at. */
export interface Patient {
  readonly gate: GateSettings
  /** As whom settings of topics and brokers are looked at; undefined: as the gate. */
  readonly observer: KafkaConnectionSettings | undefined
  /** Of MSK. */
  readonly cluster: string | undefined
  readonly disks: readonly string[]
  readonly template: string | undefined
  readonly clock: Clock
  /** Where the AWS SDK is told of endpoints. */
  readonly environment: Readonly<Record<string, string | undefined>>
  /** The version of Node. */
  readonly node: string
}

/** Asked once, by whichever check is first. */
export function once<T>(ask: (deadline: number) => Promise<T>): (deadline: number) => Promise<T> {
  let asked: Promise<T> | undefined
  return (deadline) => (asked ??= ask(deadline))
}
