/** What the handler's process holds after each of many events: what it remembers must not grow with them. */
import { setTimeout } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { KafkaWorld } from './kafka-world.ts'
import type { Result, Setting } from './measure.ts'

const PARTITIONS = 4
const SLICE = 250

interface MemoryRow {
  readonly events: number
  /** After a full collection, bytes: JavaScript's objects, and what they hold outside its heap. */
  readonly heap: number
  readonly external: number
  /** Resident set of the process, bytes. */
  readonly rss: number
  /** Handled since the row before, sealing not counted. */
  readonly eventsPerSecond: number
}

/** A million events through one process. */
export async function kafkaMemory({ quick }: Setting): Promise<Result> {
  const total = quick ? 10_000 : 1_000_000
  const step = total / 10
  const collect = collector()
  const world = await KafkaWorld.open((line) => console.error(`kafka: ${line}`))
  try {
    const site = await world.site(PARTITIONS)
    const gate = await world.gate(site)
    const rows: MemoryRow[] = []
    let busyMs = 0
    for (let events = SLICE * PARTITIONS; events <= total; events += SLICE * PARTITIONS) {
      const event = await site.nextEvent(SLICE)
      const start = performance.now()
      await gate(event)
      busyMs += performance.now() - start
      if (events % step !== 0) continue
      await collect()
      const { heapUsed: heap, external, rss } = process.memoryUsage()
      rows.push({ events, heap, external, rss, eventsPerSecond: Math.round((step * 1000) / busyMs) })
      busyMs = 0
      console.error(`kafka-memory: ${events} events`)
    }
    await world.checkNothingQuarantined(site)
    const first = rows[0]
    const last = rows.at(-1)
    const growthPerEvent =
      first === undefined || last === undefined
        ? Number.NaN
        : (last.heap + last.external - first.heap - first.external) / (last.events - first.events)
    const mega = (bytes: number): string => (bytes / 1e6).toFixed(1)
    return {
      table: [
        ['events', 'heap, MB', 'external, MB', 'resident, MB', 'events/s'],
        ...rows.map((row) => [
          ...[String(row.events), mega(row.heap), mega(row.external), mega(row.rss)],
          String(row.eventsPerSecond),
        ]),
        [`growth: ${growthPerEvent.toFixed(2)} bytes an event`],
      ],
      data: { rows, growthPerEvent },
    }
  } finally {
    await world.close()
  }
}

/** Node's own way to ask for full collections, without a flag on its command line. */
function collector(): () => Promise<void> {
  setFlagsFromString('--expose-gc')
  const gc: unknown = runInNewContext('gc')
  if (!isAction(gc)) throw new TypeError('no way to collect garbage')
  return async () => {
    gc()
    // Buffers that nobody holds any more are handed back beside us.
    await setTimeout(200)
    gc()
  }
}

const isAction = (value: unknown): value is () => void => typeof value === 'function'
