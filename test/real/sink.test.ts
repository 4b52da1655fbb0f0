import { createKafkaSink, type KafkaSink } from '../../lib/adapters/kafka.ts'
import { type SinkWorld, sinkContract } from '../contract-suites/sink.ts'
import { Cluster, connection, settings } from './world.ts'
import { DEPLOYMENT } from './stack/stack.ts'

const clock = { now: () => Date.now() }

const makeWorld = (): Promise<SinkWorld> => {
  const cluster = new Cluster()
  const sinks: KafkaSink[] = []
  const makeSink = (): KafkaSink => {
    const sink = createKafkaSink(settings(), clock)
    sinks.push(sink)
    return sink
  }
  return Promise.resolve({
    makeSink: () => Promise.resolve(makeSink()),
    createTopic: (topic, partitions) => cluster.createTopic(topic, partitions),
    makePositions: () => Promise.resolve(makeSink()),
    damagePosition: async ({ topic, partition }) => {
      // What every tool that resets offsets leaves behind: an offset without metadata.
      const admin = await cluster.admin()
      await admin.setOffsets({
        groupId: `${DEPLOYMENT}.shadow.v1`,
        topic,
        partitions: [{ partition, offset: '5' }],
      })
    },
    produce: async (message) => {
      await cluster.produce([message])
    },
    readCommitted: (topic) => cluster.readCommitted(topic),
    end: async () => {
      await Promise.all(sinks.map((sink) => sink.close()))
      await cluster.end()
    },
  })
}

sinkContract(`Kafka ${connection.version}`, makeWorld)
