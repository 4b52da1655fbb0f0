/** Where the time of the whole handler on real Kafka goes: a CPU profile of this process, by stage. */
import { KafkaWorld } from './kafka-world.ts'
import type { Result, Setting } from './measure.ts'
import { profileShares, type Stages } from './stages.ts'

const SLICES = [100, 1000]
const PARTITIONS = 4

const STAGES: Stages = [
  ["the event's JSON, base64, headers", ['invocation.ts invokeJson', 'msk-event.ts slicesOf']],
  ['parse, verify, authorise', ['admit.ts examine']],
  ['replay, data key, decrypt', ['admit.ts decide', 'admit.ts wantedKeys', 'data-keys.ts prepare']],
  ["JSON and schema, the input's", ['schema.ts check']],
  ["treatments, JSON and schema, the output's", ['admit.ts treat']],
  ['seal and sign outputs', ['route.ts outputOf', 'seal.ts prove', 'seal.ts proveTogether']],
  [
    'audit entries, segment, position',
    ['route.ts entryOf', 'segment.ts closeSegment', 'position.ts encodeState'],
  ],
  ['Kafka: Produce request', ['kafka-produce.ts encodeProduce']],
  [
    'Kafka: the rest of kafkajs',
    [
      ...[
        'kafka-holder.ts commit',
        'connection.js send',
        'connection.js sendRequest',
        'connection.js processData',
      ],
      ...['sendMessages.js createProducerRequests', 'request.js module.exports'],
    ],
  ],
  ['TLS, sockets', [' writeBuffer', ' readStart', 'stream_base_commons onStreamRead', 'net _write']],
  ['garbage collection', [' (garbage collector)']],
  ['the rest', ['slice.ts decideAll', 'transaction.ts commit', 'task_queues runMicrotasks']],
  ['waiting for the broker', [' (idle)']],
]

export async function kafkaStages({ quick }: Setting): Promise<Result> {
  const invocations = (slice: number): number => (quick ? 2 : 40_000 / (slice * PARTITIONS))
  const world = await KafkaWorld.open((line) => console.error(`kafka: ${line}`))
  try {
    const columns: { slice: number; shares: ReadonlyMap<string, number> }[] = []
    const site = await world.site(PARTITIONS)
    const gate = await world.gate(site)
    for (const slice of SLICES) {
      const events: string[] = []
      for (let count = 0; count < 2 * invocations(slice); count++) events.push(await site.nextEvent(slice))
      const run = async (some: readonly string[]): Promise<void> => {
        for (const event of some) await gate(event)
      }
      const half = invocations(slice)
      await run(events.slice(0, half))
      columns.push({ slice, shares: await profileShares(STAGES, () => run(events.slice(half))) })
    }
    await world.checkNothingQuarantined(site)
    const rows = STAGES.map(([stage]) => ({
      stage,
      shares: columns.map(({ slice, shares }) => ({ slice, share: shares.get(stage) ?? 0 })),
    }))
    const percent = (share: number): string => `${(share * 100).toFixed(1)} %`
    return {
      table: [
        ['stage', ...SLICES.map((slice) => `slices of ${slice}`)],
        ...rows.map(({ stage, shares }) => [stage, ...shares.map(({ share }) => percent(share))]),
      ],
      data: { rows },
    }
  } finally {
    await world.close()
  }
}
