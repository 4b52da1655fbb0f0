/** What befalls a load in a soak. Each takes its time, and ends with all as it was. */
import { type RealStack, withAdmin } from '../stack/stack.ts'
import { restartBroker, whole } from './at-work.ts'
import type { Disk } from './disk.ts'
import { areSettled, homeOf, OFFSETS, rotateLeaders, TRANSACTIONS } from './leaders.ts'
import { type Load, TEN_MINUTES_MS } from './load.ts'
import type { Network } from './network.ts'
import { RIGHTS, shrink, takeAway } from './refusals.ts'

/** Numbers from 0 to below 1. */
export type Random = () => number
export type Fault = (load: Load, random: Random) => Promise<void>

/** A cluster, what lies between it and the handlers, and the disk of one of its brokers. */
export interface Site {
  readonly stack: RealStack
  readonly network: Network
  readonly disk: Disk
  readonly diskOf: number
}

/** A full disk ends its broker at the next write: by then. */
const DISK_MS = 15_000
/** The shortest times for an event: less than any takes, up to hardly enough. */
const SHORT_MS = 600

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

/** All of them, by name. */
export function faultsOn(site: Site): Record<string, Fault> {
  return { ...handlerFaults, ...networkFaults(site.network), ...clusterFaults(site) }
}

const handlerFaults: Record<string, Fault> = {
  'handler killed': (load) => {
    load.handler.signal('SIGKILL')
    return Promise.resolve()
  },
  'handler frozen': async (load, random) => {
    const { handler } = load
    handler.signal('SIGSTOP')
    await sleep(500 + random() * 2500)
    handler.signal('SIGCONT')
  },
  'two handlers': (load, random) => load.rival(1 + Math.floor(random() * 5)),
  "handler's clock ahead": (load, random) => load.withClock(TEN_MINUTES_MS, 2000 + random() * 3000),
  "handler's clock behind": (load, random) => load.withClock(-TEN_MINUTES_MS, 2000 + random() * 2000),
  'short deadlines': (load, random) =>
    load.withTime(() => Math.floor(random() * SHORT_MS), 2000 + random() * 3000),
}

const networkFaults = (network: Network): Record<string, Fault> => ({
  'network slow': async (_, random) => {
    network.slow(20 + random() * 280)
    await sleep(1000 + random() * 3000)
    network.slow(0)
  },
  'network cut': async (_, random) => {
    network.cut()
    await sleep(1000 + random() * 3000)
    network.mend()
  },
})

function clusterFaults({ stack, disk, diskOf }: Site): Record<string, Fault> {
  const { connection } = stack
  const killHome = async (internal: string, name: string, random: Random): Promise<void> => {
    const { leader } = await withAdmin(connection, (admin) => homeOf(admin, internal, name))
    await restartBroker(stack, 'SIGKILL', random() * 3000, leader)
  }
  const refuse = async (refusal: () => Promise<() => Promise<void>>, random: Random): Promise<void> => {
    const allow = await refusal()
    await sleep(500 + random() * 2500)
    await allow()
  }
  return {
    'leaders moved': async ({ arena: { topics } }) => {
      const all = [...topics, OFFSETS, TRANSACTIONS]
      await withAdmin(connection, async (admin) => {
        await rotateLeaders(admin, all)
        const until = Date.now() + 20_000
        while (!(await areSettled(admin, all)) && Date.now() < until) await sleep(200)
      })
    },
    'group coordinator killed': (_, random) => killHome(OFFSETS, 'test.shadow.v1', random),
    'transaction coordinator killed': ({ arena: { transactionalIds } }, random) =>
      killHome(TRANSACTIONS, transactionalIds[0] ?? '', random),
    'broker restarted': (_, random) => restartBroker(stack, 'SIGTERM', 0, 1 + Math.floor(random() * 3)),
    'broker frozen': async (_, random) => {
      const pid = stack.brokers.get(1 + Math.floor(random() * 3))?.pid
      if (pid === undefined) throw new Error('a broker has ended by itself')
      process.kill(pid, 'SIGSTOP')
      await sleep(500 + random() * 4000)
      process.kill(pid, 'SIGCONT')
      await whole(stack)
    },
    'disk full': async (_, random) => {
      await disk.fill()
      const until = Date.now() + DISK_MS
      while (stack.brokers.get(diskOf)?.pid !== undefined && Date.now() < until) await sleep(100)
      await sleep(random() * 3000)
      await disk.free()
      await restartBroker(stack, 'SIGKILL', 0, diskOf)
    },
    'right taken away': (_, random) => {
      const rights = Object.values(RIGHTS)
      const entry = rights[Math.floor(random() * rights.length)] ?? RIGHTS.outputs
      return refuse(() => takeAway(connection, entry), random)
    },
    'message too large': ({ arena: { topics } }, random) =>
      refuse(() => shrink(connection, topics.find((topic) => topic.includes('fulfilment')) ?? ''), random),
  }
}
