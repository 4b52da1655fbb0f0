/**
 * Logs and metrics of a Lambda function, by Powertools for AWS Lambda: lines of JSON on its standard output, metrics as
 * EMF. What may be told is listed here, field by field (docs/monitoring/README.md); whole events, records and errors are
 * never handed on, since Powertools writes all that it is given.
 */
import { Logger } from '@aws-lambda-powertools/logger'
import { MetricUnit, Metrics } from '@aws-lambda-powertools/metrics'
import { type Committed, type Observer } from '../admission/observer.ts'
import { type GateKeyCounts, outageOf, type Stop } from '../admission/slice.ts'
import { ConfigError, Outage, type OutageCode, type RejectionCode } from '../errors.ts'
import type { DataKeyCounts } from '../keys/data-keys.ts'
import type { RotationRow } from '../keys/rotation-status.ts'
import type { Clock } from '../ports.ts'
import { causesOf, reasonOf } from './error-report.ts'
import { flushTraces } from './tracing.ts'

export type LambdaContext = Parameters<Logger['addContext']>[0]

export interface LambdaTelemetry {
  readonly observer: Observer
  /**
   * Does an invocation's work: what is logged meanwhile bears its id, and what was traced is sent before it ends. Rejects with
   * what the work does where that is ours, else with an `Outage` that has its cause, and not its words.
   */
  invocation<T>(context: LambdaContext, work: () => Promise<T>): Promise<T>
  /** The same for the gate: at the end, however it ends, what was counted is written too. */
  gateInvocation<T>(
    context: LambdaContext,
    work: () => Promise<T>,
    keyCounts: () => GateKeyCounts | undefined,
  ): Promise<T>
  /** An invocation that found no answer, and says so to whoever asked. */
  failed(outage: Outage): void
  /** What a run of the rotations did, and what is due. */
  rotations(
    rows: readonly RotationRow[],
    done: readonly { readonly name: string; readonly step: string }[],
  ): void
}

/** CloudWatch's namespace of all our metrics. */
export const METRICS_NAMESPACE = 'sealgate'

/** How long traces may take to be sent: within what handlers keep in hand before Lambda's deadline. */
const FLUSH_MS = 300

/** What lines and metrics bear as `service` where the deployment has no name of its own. */
const DEFAULT_SERVICE = 'sealgate'

/** @param name tells deployments apart (`POWERTOOLS_SERVICE_NAME`), in every line and as a dimension of every metric. */
export function lambdaTelemetry(name: string | undefined, clock: Clock): LambdaTelemetry {
  const service = name === undefined || name === '' ? DEFAULT_SERVICE : name
  const logger = new Logger({ serviceName: service })
  const metrics = new Metrics({ namespace: METRICS_NAMESPACE, serviceName: service, logger: SILENT })
  let counted = new Counted()
  let keysBefore: GateKeyCounts | undefined

  const stopped = ({ topic, partition, offset, outage }: Stop): void => {
    counted.stopped(outage.code)
    logger.error('slice stopped', { topic, partition, offset: String(offset), ...outageFields(outage) })
  }

  const observer: Observer = {
    slice: async (_, work) => {
      const startedAt = clock.now()
      const stop = await work()
      counted.durationsMs.push(Math.max(0, clock.now() - startedAt))
      if (stop !== undefined) stopped(stop)
      return stop
    },
    committed: (transaction) => {
      counted.committed(transaction)
      const { topic, partition, rejected } = transaction
      if (rejected.size > 0)
        logger.warn('records rejected', { topic, partition, rejected: Object.fromEntries(rejected) })
    },
  }

  const write = (keys: GateKeyCounts | undefined): void => {
    const { admitted, rejected, outages, entries, durationsMs, agesMs } = counted
    counted = new Counted()
    const count = (name: string, value: number): void => void metrics.addMetric(name, MetricUnit.Count, value)
    const time = (name: string, ms: number): void => void metrics.addMetric(name, MetricUnit.Milliseconds, ms)
    count('records.admitted', admitted)
    count('records.rejected', sumOf(rejected))
    count('slices.outage', sumOf(outages))
    count('audit.entries', entries)
    for (const ms of durationsMs) time('slice.duration', ms)
    for (const ms of agesMs) time('records.age', ms)
    for (const [side, now, before] of sidesOf(keys, keysBefore)) {
      const name = `data-keys.${side}`
      for (const what of ['calls', 'hits', 'waits', 'failures'] as const)
        count(`${name}.${what}`, grown(now, before, what))
      count(`${name}.alive`, now.alive)
      time(`${name}.age`, now.oldestAgeMs)
    }
    keysBefore = keys
    metrics.publishStoredMetrics()
    byCode('records.rejected', rejected)
    byCode('slices.outage', outages)
  }

  const byCode = (name: string, counts: ReadonlyMap<string, number>): void => {
    for (const [code, value] of counts)
      metrics.singleMetric().addDimension('code', code).addMetric(name, MetricUnit.Count, value)
  }

  const failed = (outage: Outage): void => logger.error('invocation failed', outageFields(outage))

  const invocation = async <T>(context: LambdaContext, work: () => Promise<T>): Promise<T> => {
    logger.addContext(context)
    try {
      return await work()
    } finally {
      await flushTraces(FLUSH_MS)
    }
  }

  return {
    observer,
    invocation: (context, work) =>
      invocation(context, async () => {
        try {
          return await work()
        } catch (error) {
          failed(outageOf(error))
          throw ours(error)
        }
      }),
    gateInvocation: (context, work, keyCounts) =>
      invocation(context, async () => {
        try {
          return await work()
        } catch (error) {
          // A slice's stop has been told; what else ends an invocation has not.
          if (counted.outages.size === 0) {
            const outage = outageOf(error)
            counted.stopped(outage.code)
            failed(outage)
          }
          throw ours(error)
        } finally {
          try {
            write(keyCounts())
          } catch {
            // Numbers are lost; what was decided stands.
          }
        }
      }),
    failed,
    rotations: (rows, done) => {
      for (const { name, step } of done) logger.info('rotation step', { rotation: name, step })
      const late = rows.filter(({ overdue }) => overdue)
      for (const { name, kind, state, dueAt } of late)
        logger.warn('rotation overdue', { rotation: name, kind, state, dueAt })
      metrics.addMetric('rotation.overdue', MetricUnit.Count, late.length)
      metrics.publishStoredMetrics()
    },
  }
}

/** Our own errors as they are; of any other only its kind, since Lambda's runtime logs what an invocation fails with. */
function ours(error: unknown): Error {
  if (error instanceof ConfigError) return error
  const isStops = error instanceof AggregateError && error.errors.every((each) => each instanceof Outage)
  return isStops ? error : outageOf(error)
}

const outageFields = (outage: Outage): Record<string, unknown> => ({
  code: outage.code,
  reason: reasonOf(outage),
  causes: causesOf(outage),
})

/** What has been counted since the last writing. */
class Counted {
  admitted = 0
  entries = 0
  readonly rejected = new Map<RejectionCode, number>()
  readonly outages = new Map<OutageCode, number>()
  readonly durationsMs: number[] = []
  readonly agesMs: number[] = []

  committed({ admitted, rejected, entries, ageMs }: Committed): void {
    this.admitted += admitted
    this.entries += entries
    for (const [code, count] of rejected) this.rejected.set(code, (this.rejected.get(code) ?? 0) + count)
    if (ageMs !== undefined) this.agesMs.push(ageMs)
  }

  stopped(code: OutageCode): void {
    this.outages.set(code, (this.outages.get(code) ?? 0) + 1)
  }
}

const sumOf = (counts: ReadonlyMap<string, number>): number =>
  [...counts.values()].reduce((sum, count) => sum + count, 0)

type Side = readonly ['opening' | 'sealing', DataKeyCounts, DataKeyCounts | undefined]

const sidesOf = (now: GateKeyCounts | undefined, before: GateKeyCounts | undefined): readonly Side[] =>
  now === undefined
    ? []
    : [
        ['opening', now.opening, before?.opening],
        ['sealing', now.sealing, before?.sealing],
      ]

/** Since the last writing; a gate that was opened anew counts from nought. */
function grown(
  now: DataKeyCounts,
  before: DataKeyCounts | undefined,
  what: 'calls' | 'hits' | 'waits' | 'failures',
): number {
  const was = before?.[what] ?? 0
  return now[what] >= was ? now[what] - was : now[what]
}

/** Powertools' own remarks, such as that there was nothing to publish, are not ours to log. */
const SILENT = {
  trace: () => undefined,
  debug: () => undefined,
  info: () => undefined,
  warn: () => undefined,
  error: () => undefined,
}
