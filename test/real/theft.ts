/** A producer's key is stolen, used all the time, and revoked by a command: what becomes of the thief's events, and when. */
import { execFile } from 'node:child_process'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { promisify } from 'node:util'
import { ingestHandler } from '../../functions/ingest-handler.ts'
import { createIngest } from '../../lib/admission/slice.ts'
import type { AdmittedEntry, RejectedEntry } from '../../lib/audit/entry.ts'
import { searchAudit } from '../../lib/audit/search.ts'
import { createSealer } from '../../lib/client/sealer.ts'
import { createDirectory } from '../../lib/keys/directory-reader.ts'
import { auditSource, readToEnd } from '../../lib/local/audit-source.ts'
import { startPoller } from '../../lib/local/poller.ts'
import { createGate } from '../../lib/runtime.ts'
import type { Gateway } from './stack/gateway.ts'

const exec = promisify(execFile)
const ROOT = join(import.meta.dirname, '../..')
const ISSUER = 'fulfilment'
const TYPE = 'com.example.order.fulfilled.v1'
/** Between two of the thief's events. */
const PACE_MS = 50
/** The thief goes on for so long when he is refused. */
const AFTER_MS = 2000

export interface TheftOptions {
  readonly partitions: number
  /** How old a gate's copy of the directory may be; its own where it is undefined. */
  readonly maxAgeMs?: number
  /** How long the first refusal may take after the command. */
  readonly withinMs: number
}

export interface Theft {
  readonly kid: string
  /** From the command's start, milliseconds: until it has ended, and until the first refusal was decided. */
  readonly commandMs: number
  readonly refusedMs: number
  /** What the command printed. */
  readonly printed: string
  /** Milliseconds since 1970: from then on nothing counts, by the broker's time. */
  readonly compromisedAtMs: number
  /** Of every record of the thief: what the broker stamped it with, and what became of it. */
  readonly decisions: readonly { readonly stampedMs: number; readonly entry: AdmittedEntry | RejectedEntry }[]
}

/** The worst moment for it: the gates have just read the directory. Brings its own gate; ends when all is decided. */
export async function steal(gateway: Gateway, options: TheftOptions): Promise<Theft> {
  const { world, settingsFile } = gateway
  const run = async (...args: string[]): Promise<string> => {
    const command = [join(ROOT, 'cli/main.ts'), ...args]
    return (await exec(process.execPath, command, { cwd: ROOT, env: { ...process.env, NO_COLOR: '1' } }))
      .stdout
  }
  const listed = await run('keys', 'list', '--issuer', ISSUER, '--json', '--settings', settingsFile)
  const { kid }: { kid: string } = JSON.parse(listed.split('\n')[0] ?? '')
  const parts = gateway.gateParts()
  const { maxAgeMs } = options
  const young = maxAgeMs !== undefined && {
    directory: createDirectory({ ...gateway.trust, clock: world.clock, maxAgeMs }),
  }
  const gate = createGate(createIngest({ ...parts, ...young }), 'throw')
  const poller = await startPoller({
    ...gateway.polled,
    topics: world.sources,
    handler: ingestHandler(() => Promise.resolve(gate)),
    options: { batchSize: 100, batchingWindowMs: 20 },
  })
  const channel = world.contracts.all.find(({ type }) => type === TYPE)?.channel ?? ''
  const topic = world.topicOf(channel) ?? ''
  const sealer = createSealer({
    ...world.producer(ISSUER),
    ...{ partitions: options.partitions, topicOf: () => topic },
    deliver: async ({ messages }) => {
      await world.append(
        messages.map(({ partition, key, value, headers }) => ({
          ...{ topic, partition, key, value },
          headers: Object.entries(headers).map(([name, text]) => ({ name, value: Buffer.from(text) })),
        })),
      )
    },
  })
  const end = new AbortController()
  let sent = 0
  const thief = (async () => {
    for (let index = 0; !end.signal.aborted; index++) {
      const data = { orderId: `A-${index}`, fulfilledAt: '2026-11-22T10:00:00Z', items: 1 }
      await sealer.send(channel, { type: TYPE, source: '/fulfilment', key: `k${index % 7}`, data })
      sent += 1
      await sleep(PACE_MS)
    }
  })()
  thief.catch(() => undefined)
  try {
    // The command takes whole seconds: until something of an earlier one is admitted.
    await until(20_000, async () =>
      (await decisions(gateway, kid)).some(
        ({ stampedMs }) => stampedMs < Math.floor(Date.now() / 1000) * 1000,
      ),
    )
    const startedMs = Date.now()
    const compromisedAtMs = Math.floor(startedMs / 1000) * 1000
    const at = new Date(compromisedAtMs).toISOString().replace('.000Z', 'Z')
    const flags = ['--compromised-at', at, '--leaving', ISSUER, '--by', 'ann', '--settings', settingsFile]
    const printed = await run('keys', 'revoke', ...flags, '--', kid)
    const commandMs = Date.now() - startedMs
    const isRefused = async (): Promise<boolean> =>
      (await decisions(gateway, kid)).some(({ entry }) => entry.kind === 'event.rejected')
    await until(options.withinMs, isRefused)
    await sleep(AFTER_MS)
    end.abort()
    await thief
    let decided: Theft['decisions'] = []
    await until(20_000, async () => (decided = await decisions(gateway, kid)).length === sent)
    const refused = decided.filter(({ entry }) => entry.kind === 'event.rejected')
    const refusedMs = Math.min(...refused.map(({ entry }) => entry.timeMs)) - startedMs
    return { kid, commandMs, refusedMs, printed, compromisedAtMs, decisions: decided }
  } finally {
    end.abort()
    await poller.stop()
    await sealer.close()
    await gate.close()
  }
}

/** What the audit says of the records of a key, with the time that the broker has stamped each with. */
async function decisions({ world }: Gateway, kid: string): Promise<Theft['decisions']> {
  const entries: (AdmittedEntry | RejectedEntry)[] = []
  await searchAudit(auditSource(world.records, world.auditTopic), {}, ({ entry }) => {
    if (entry.kind !== 'event.admitted' && entry.kind !== 'event.rejected') return
    if (Buffer.from(entry.event?.kid ?? []).toString('base64url') === kid) entries.push(entry)
  })
  const stamps = new Map<string, number>()
  for (const { topic, partition } of entries) {
    if (stamps.has(`${topic}/${partition}/0`)) continue
    const place = { topic, partition }
    for await (const { offset, timestamp } of readToEnd(world.records, place))
      stamps.set(`${topic}/${partition}/${offset}`, timestamp)
  }
  return entries.map((entry) => {
    return { entry, stampedMs: stamps.get(`${entry.topic}/${entry.partition}/${entry.offset}`) ?? Number.NaN }
  })
}

async function until(withinMs: number, isSo: () => Promise<boolean>): Promise<void> {
  for (const end = Date.now() + withinMs; !(await isSo());) {
    if (Date.now() > end) throw new Error(`not so within ${withinMs} ms`)
    await sleep(250)
  }
}
