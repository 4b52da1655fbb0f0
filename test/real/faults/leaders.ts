/** Who leads which partition of a cluster, and moving that (Kafka's own rules for coordinators). */
import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import type { Admin, PartitionMetadata } from 'kafkajs'
import type { Connection } from '../stack/stack.ts'

export const OFFSETS = '__consumer_offsets'
export const TRANSACTIONS = '__transaction_state'

/** The controller moves leaders to where they are preferred once a second. */
export const QUICK_REBALANCE: readonly string[] = [
  'auto.leader.rebalance.enable=true',
  'leader.imbalance.check.interval.seconds=1',
  'leader.imbalance.per.broker.percentage=0',
]

/** The partition of an internal topic that a group or a transactional id belongs to. */
export async function homeOf(admin: Admin, internal: string, name: string): Promise<PartitionMetadata> {
  const partitions = await partitionsOf(admin, internal)
  const home = partitions.find(({ partitionId }) => partitionId === hashOf(name) % partitions.length)
  if (home === undefined) throw new Error(`${internal} is not there yet`)
  return home
}

export async function partitionsOf(admin: Admin, topic: string): Promise<PartitionMetadata[]> {
  const { topics } = await admin.fetchTopicMetadata({ topics: [topic] })
  return topics[0]?.partitions ?? []
}

/** Java's hash of a string, as brokers take it. */
function hashOf(name: string): number {
  let hash = 0
  for (let index = 0; index < name.length; index++) hash = (Math.imul(31, hash) + name.charCodeAt(index)) | 0
  return Math.abs(hash)
}

/** Gives a partition these replicas, the preferred leader first. */
export async function assign(
  admin: Admin,
  topic: string,
  partition: number,
  replicas: number[],
): Promise<void> {
  const topics = [{ topic, partitionAssignment: [{ partition, replicas }] }]
  await admin.alterPartitionReassignments({ topics, timeout: 5000 })
}

/** Makes another broker the preferred leader of every partition of these topics. */
export async function rotateLeaders(admin: Admin, topics: readonly string[]): Promise<number> {
  const described = await admin.fetchTopicMetadata({ topics: [...topics] })
  const moves = described.topics.map(({ name, partitions }) => ({
    topic: name,
    partitionAssignment: partitions.map(({ partitionId, replicas }) => {
      const [first, ...others] = replicas
      return { partition: partitionId, replicas: first === undefined ? others : [...others, first] }
    }),
  }))
  await admin.alterPartitionReassignments({ topics: moves, timeout: 5000 })
  return moves.reduce((sum, { partitionAssignment }) => sum + partitionAssignment.length, 0)
}

/**
 * Takes every partition of these topics from the broker that leads it, which becomes a follower. Resolves to how many,
 * once each has all its replicas; needs no controller that moves leaders by itself.
 */
export async function moveLeaders(admin: Admin, topics: readonly string[]): Promise<number> {
  const { topics: before } = await admin.fetchTopicMetadata({ topics: [...topics] })
  const given = (replicasOf: (partition: PartitionMetadata) => number[]) =>
    before.map(({ name, partitions }) => ({
      topic: name,
      partitionAssignment: partitions.map((one) => ({
        partition: one.partitionId,
        replicas: replicasOf(one),
      })),
    }))
  const others = ({ leader, replicas }: PartitionMetadata): number[] => replicas.filter((id) => id !== leader)
  for (const replicasOf of [others, (one: PartitionMetadata) => [...others(one), one.leader]]) {
    await admin.alterPartitionReassignments({ topics: given(replicasOf), timeout: 5000 })
    const until = Date.now() + 60_000
    const wanted = new Map(
      before.flatMap(({ name, partitions }) =>
        partitions.map((one) => [
          `${name}-${one.partitionId}`,
          { old: one.leader, replicas: replicasOf(one) },
        ]),
      ),
    )
    const isDone = async (): Promise<boolean> => {
      const now = await admin.fetchTopicMetadata({ topics: [...topics] })
      return now.topics.every(({ name, partitions }) =>
        partitions.every(({ partitionId, leader, isr }) => {
          const { old = 0, replicas = [] } = wanted.get(`${name}-${partitionId}`) ?? {}
          return leader > 0 && leader !== old && isr.length === replicas.length
        }),
      )
    }
    while (!(await isDone())) {
      if (Date.now() > until) throw new Error('the leaders were not moved')
      await new Promise((resolve) => setTimeout(resolve, 100))
    }
  }
  return before.flatMap(({ partitions }) => partitions).length
}

/** The broker that leads the controllers' quorum, as they note it themselves. */
export async function controllerOf(connection: Connection): Promise<number> {
  const path = join(connection.certificates, '1', 'data', '__cluster_metadata-0', 'quorum-state')
  const { leaderId }: { leaderId: number } = JSON.parse(await readFile(path, 'utf8'))
  return leaderId
}

/** Whether every partition is led by the broker that is preferred, and has all its replicas. */
export async function areSettled(admin: Admin, topics: readonly string[]): Promise<boolean> {
  const described = await admin.fetchTopicMetadata({ topics: [...topics] })
  return described.topics
    .flatMap(({ partitions }) => partitions)
    .every(({ leader, replicas, isr }) => leader === replicas[0] && isr.length === replicas.length)
}
