/** What `sealgate doctor` is to look at. */
import type { KafkaConnectionSettings, KafkaSinkSettings } from '../lib/adapters/kafka-settings.ts'
import type { Deployment } from '../lib/cluster-needs.ts'
import type { Clock } from '../lib/ports.ts'
import type { GateSettings } from './settings.ts'

/** A deployment and its cluster: that much is known before there are keys. */
export interface DeploymentOnCluster extends Omit<Deployment, 'deployment'> {
  readonly kafka: KafkaSinkSettings
}

/** What a user has named for the doctor to look at. */
export interface Patient {
  /** Undefined where its settings cannot be used. */
  readonly gate: GateSettings | undefined
  /** Undefined where not even that much can be read. */
  readonly deployment: DeploymentOnCluster | undefined
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
