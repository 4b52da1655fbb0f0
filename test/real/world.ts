/** What tests need of the shared cluster: its connection, the sink's settings for it, and clients by principal. */
import { readFileSync } from 'node:fs'
import type { Kafka } from 'kafkajs'
import { inject } from 'vitest'
import { type KafkaSinkSettings, readKafkaSettings } from '../../lib/adapters/kafka-settings.ts'
import { clientOf, RealCluster } from './cluster.ts'
import type { Principal } from './stack/rights.ts'
import { type Connection, DEPLOYMENT } from './stack/stack.ts'

export { bytes, soon, text, unique } from './cluster.ts'

export const connection: Connection = JSON.parse(readFileSync(inject('connectionFile'), 'utf8'))

/** Raw settings of the sink, for a principal; `changes` are raw too. */
export const rawSettings = (changes: object = {}, principal: Principal = 'gate'): object => ({
  brokers: connection.brokers,
  ssl: { ca: connection.ca },
  sasl: { mechanism: 'scram-sha-512', username: principal, password: connection.passwords[principal] },
  deployment: DEPLOYMENT,
  ...changes,
})

export const settings = (changes: object = {}, principal: Principal = 'gate'): KafkaSinkSettings =>
  readKafkaSettings(rawSettings(changes, principal))

export const client = (principal: Principal, to: Connection = connection): Kafka => clientOf(to, principal)

/** The shared cluster, unless told of another. */
export class Cluster extends RealCluster {
  constructor(to: Connection = connection) {
    super(to)
  }
}
