/** An embedded stack as commands work on it. */
import { createDirectory } from '../lib/keys/directory-reader.ts'
import { ConfigError } from '../lib/errors.ts'
import { createLocalPositions } from '../lib/local/log-sink.ts'
import { polledLog } from '../lib/local/poller.ts'
import { AUDIT_TOPIC, connectStack, LOCAL_GATEWAY, QUARANTINE_TOPIC, type Stack } from '../lib/local/stack.ts'
import { SOFTWARE } from '../lib/runtime.ts'
import { reachStack } from './folder.ts'
import type { World } from './world.ts'

/** The stack in a folder; with `isRunning`, one that another process runs. `ConfigError` or `Outage` where there is none. */
export async function reachWorld(folder: string, isRunning: boolean): Promise<World> {
  return stackWorld(await (isRunning ? connectStack(folder, SOFTWARE) : reachStack(folder)))
}

/** The world of a stack, which `close` closes. */
export function stackWorld(stack: Stack): World {
  const { log, clock, contracts, ingress, outputs } = stack
  const directory = createDirectory({ ...stack.directory, clock })
  const polled = polledLog(log)
  const channels = new Set([...ingress, ...outputs])
  const known = (name: string): string | undefined => (channels.has(name) ? name : undefined)
  return {
    clock,
    records: {
      ...polled,
      partitions: async (topic) => {
        const topics = await log.topics()
        const count = topics.find(({ name }) => name === topic)?.partitions
        if (count !== undefined) return count
        const fix = `There are: ${topics.map(({ name }) => name).join(', ')}.`
        throw new ConfigError([{ where: topic, what: 'There is no such topic.', fix }])
      },
    },
    positions: createLocalPositions(log, { deployment: stack.gateParts().settings.deployment }),
    sources: ingress,
    epoch: 1,
    auditTopic: AUDIT_TOPIC,
    quarantineTopic: QUARANTINE_TOPIC,
    gateKeys: async () => {
      const { snapshot } = await directory.snapshot(clock.now() + CALL_MS)
      const own = snapshot.signingKeys.filter(({ iss }) => iss === LOCAL_GATEWAY)
      return new Map(own.map(({ kidText, key }) => [kidText, key]))
    },
    contracts,
    gateway: LOCAL_GATEWAY,
    directory,
    ingress,
    outputs,
    topicOf: known,
    channelOf: known,
    reconnects: false,
    append: (messages) => log.append(messages),
    producer: (iss) => stack.producer(iss),
    keyServiceOf: (name) => stack.consumer(name).keyService,
    close: () => stack.close(),
  }
}

const CALL_MS = 10_000
