/** What a gate does, as metrics for Prometheus (docs/monitoring/README.md): for one that runs in a process of its own. */
import { Counter, Gauge, Histogram, Registry } from 'prom-client'
import type { Observer } from '../admission/observer.ts'
import type { GateKeyCounts } from '../admission/slice.ts'
import { OUTAGE_CODES, REJECTION_CODES } from '../errors.ts'
import type { Clock, TopicPartition } from '../ports.ts'

export interface PrometheusMetrics {
  readonly observer: Observer
  readonly contentType: string
  /** All metrics, asked for anew. What a source cannot say now is left out. */
  text(): Promise<string>
}

/** What is asked for at each reading. Each must come to an end; what rejects is left out. */
export interface MetricSources {
  readonly keyCounts: () => GateKeyCounts | undefined
  /** Records that wait, of each source partition. */
  readonly waiting: () => Promise<readonly (TopicPartition & { readonly records: number })[]>
  /** Rotations that are late, or cannot be looked at. */
  readonly overdue: () => Promise<number>
}

const SECONDS = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60]
const AGES = [0.1, 0.5, 1, 5, 15, 60, 300, 900, 3600, 21_600, 86_400]
const SIDES = ['opening', 'sealing'] as const

export function prometheusMetrics(sources: MetricSources, clock: Clock): PrometheusMetrics {
  const registry = new Registry()
  const registers = [registry]
  const counter = (name: string, help: string, labelNames: string[] = []): Counter =>
    new Counter({ name, help, labelNames, registers })

  const admitted = counter('sealgate_records_admitted_total', 'Records let in and committed.')
  const rejected = counter('sealgate_records_rejected_total', 'Records quarantined and committed.', ['code'])
  const outages = counter('sealgate_slices_outage_total', 'Slices that stopped before their end.', ['code'])
  const entries = counter('sealgate_audit_entries_total', 'Entries that the audit has gained.')
  const duration = new Histogram({
    ...{ name: 'sealgate_slice_duration_seconds', buckets: SECONDS, registers },
    help: 'One slice from its begin to its commit or its stop.',
  })
  const age = new Histogram({
    ...{ name: 'sealgate_records_age_seconds', buckets: AGES, registers },
    help: "From the broker's time of a transaction's first record to its commit.",
  })
  // A rate needs a series from the first event on, not from the second.
  for (const code of REJECTION_CODES) rejected.inc({ code }, 0)
  for (const code of OUTAGE_CODES) outages.inc({ code }, 0)
  addKeyCounts(sources, registry)
  addAsked(sources, registry)

  const observer: Observer = {
    slice: async (_, work) => {
      const startedAt = clock.now()
      const stop = await work()
      duration.observe(Math.max(0, clock.now() - startedAt) / 1000)
      if (stop !== undefined) outages.inc({ code: stop.outage.code })
      return stop
    },
    committed: (transaction) => {
      admitted.inc(transaction.admitted)
      entries.inc(transaction.entries)
      for (const [code, count] of transaction.rejected) rejected.inc({ code }, count)
      if (transaction.ageMs !== undefined) age.observe(transaction.ageMs / 1000)
    },
  }
  return { observer, contentType: registry.contentType, text: () => registry.metrics() }
}

const KEY_COUNTS = [
  ['calls', 'Questions to the key service.'],
  ['hits', 'Answered by a data key at hand.'],
  ['waits', 'Had to wait for the key service.'],
  ['failures', 'Questions to the key service that ended in an outage.'],
] as const

/** They are counted where data keys are kept, and read from there. */
function addKeyCounts({ keyCounts }: MetricSources, registry: Registry): void {
  const registers = [registry]
  const labelNames = ['side']
  for (const [what, help] of KEY_COUNTS)
    new Counter({
      ...{ name: `sealgate_data_key_${what}_total`, help, labelNames, registers },
      collect() {
        const counts = keyCounts()
        this.reset()
        for (const side of SIDES) this.inc({ side }, counts?.[side][what] ?? 0)
      },
    })
  new Gauge({
    ...{ name: 'sealgate_data_keys', help: 'Data keys at hand.', labelNames, registers },
    collect() {
      const counts = keyCounts()
      for (const side of SIDES) this.set({ side }, counts?.[side].alive ?? 0)
    },
  })
  new Gauge({
    ...{ name: 'sealgate_data_key_age_seconds', help: 'Age of the oldest of them.', labelNames, registers },
    collect() {
      const counts = keyCounts()
      for (const side of SIDES) this.set({ side }, (counts?.[side].oldestAgeMs ?? 0) / 1000)
    },
  })
}

function addAsked({ waiting, overdue }: MetricSources, registry: Registry): void {
  const registers = [registry]
  new Gauge({
    ...{ name: 'sealgate_source_waiting_records', labelNames: ['topic', 'partition'], registers },
    help: 'Records of a source partition that are not decided yet.',
    async collect() {
      this.reset()
      for (const { topic, partition, records } of await orNone(waiting(), []))
        this.set({ topic, partition }, records)
    },
  })
  new Gauge({
    ...{ name: 'sealgate_rotation_overdue', registers },
    help: 'Rotations that are late, or cannot be looked at.',
    async collect() {
      const count = await orNone(overdue(), undefined)
      this.remove()
      if (count !== undefined) this.set(count)
    },
  })
}

async function orNone<T, N>(asked: Promise<T>, none: N): Promise<T | N> {
  try {
    return await asked
  } catch {
    return none
  }
}
