/**
 * `node scripts/sizing.ts`: the tables of docs/sizing.md, computed from what was measured and from prices. To size with
 * your own: change them here.
 */
import { pathToFileURL } from 'node:url'

/** Seconds. The first is of docs/exactly-once.md, with 5 ms between function and brokers; the second of docs/performance.md. */
const TRANSACTION = 0.14
const EVENT = 0.000262
/** What a signature in KMS is taken to last: not measured here. */
const SIGNATURE = 0.01

/** US dollars, US East (N. Virginia), as listed in November 2026. */
const GB_SECOND = 0.0000133334
const MILLION_REQUESTS = 0.2
const TEN_THOUSAND_SIGNATURES = 0.15
const GB_MONTH_OF_DISK = 0.1
const GB_OF_LOGS = 0.5
/** Lambda's unit: 1,769 MB are a whole processor. */
const GB = 1769 / 1024

/** Bytes of an event of 1 KiB, sealed again for a consumer; and of its audit entry, by docs/performance.md. */
const OUTPUT = 2000
const ENTRY = 700
const REPLICAS = 3
/** Bytes in the log of an invocation where all is well: our line of metrics, which is 1,490, and Lambda's own. */
const LOGGED = 2000

interface Shape {
  /** Events in a transaction. */
  readonly slice: number
  /** Sealed output partitions that they go to. */
  readonly outputs: number
}

const SHAPES: readonly Shape[] = [
  { slice: 1, outputs: 1 },
  { slice: 10, outputs: 1 },
  { slice: 100, outputs: 1 },
  { slice: 500, outputs: 1 },
  { slice: 500, outputs: 4 },
]

/** One signature for each sealed output partition, one for the audit's segment. */
const signatures = ({ outputs }: Shape): number => outputs + 1

/** Of one transaction of one source partition. */
export function cost(shape: Shape, key: 'kms' | 'secret') {
  const { slice } = shape
  const signing = key === 'kms' ? signatures(shape) * SIGNATURE : 0
  const seconds = TRANSACTION + signing + slice * EVENT
  const transactions = 1_000_000 / slice
  const lambda = transactions * (seconds * GB * GB_SECOND + MILLION_REQUESTS / 1_000_000)
  const kms = key === 'kms' ? (transactions * signatures(shape) * TEN_THOUSAND_SIGNATURES) / 10_000 : 0
  const logs = (transactions * LOGGED * GB_OF_LOGS) / 1e9
  return { seconds, perSecond: slice / seconds, lambda, kms, logs }
}

/** For a million events a day, each with so many consumers, when the audit has been kept for a year and the rest for a week. */
export function disk(consumers: number) {
  const perDay = 1_000_000 * REPLICAS
  const gigabytes = (perDay * (ENTRY * 365 + (consumers + 1) * OUTPUT * 7)) / 1e9
  return { gigabytes, dollars: gigabytes * GB_MONTH_OF_DISK }
}

const dollars = (value: number): string => `$${value < 1 ? value.toFixed(3) : value.toFixed(2)}`
const whole = (value: number): string => Math.round(value).toLocaleString('en-GB')

/** The tables, in Markdown, without the padding that a formatter adds. */
export function tables(): string[] {
  const head = [
    '| events in a transaction | sealed output partitions | time, ms | events/s of a partition | Lambda, a million events | KMS signatures, a million events | logs, a million events | key in a secret: Lambda alone |',
    '| --- | --- | --- | --- | --- | --- | --- | --- |',
  ]
  const rows = SHAPES.map((shape) => {
    const kms = cost(shape, 'kms')
    const secret = cost(shape, 'secret')
    const cells = [
      ...[whole(shape.slice), whole(shape.outputs), whole(kms.seconds * 1000), whole(kms.perSecond)],
      ...[dollars(kms.lambda), dollars(kms.kms), dollars(kms.logs), dollars(secret.lambda)],
    ]
    return `| ${cells.join(' | ')} |`
  })
  const storage = [1, 3].map((consumers) => {
    const { gigabytes, dollars: price } = disk(consumers)
    return `| ${consumers} | ${whole(gigabytes)} GB | ${dollars(price)} |`
  })
  return [
    ...head,
    ...rows,
    '',
    '| consumers of an event | on the brokers’ disks | a month |',
    '| --- | --- | --- |',
    ...storage,
  ]
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href)
  process.stdout.write(`${tables().join('\n')}\n`)
