/** Clocks that this one is compared with. */
import { Outage } from '../lib/errors.ts'
import type { Clock, RecordReader } from '../lib/ports.ts'

/** KMS's own address for an ARN of something in AWS, or the one that the AWS SDK is told. */
export function clockAddress(
  arn: string,
  { AWS_ENDPOINT_URL_KMS: kms, AWS_ENDPOINT_URL: all }: Readonly<Record<string, string | undefined>>,
): string {
  const [, partition, , region = ''] = arn.split(':')
  const suffix = partition === 'aws-cn' ? 'amazonaws.com.cn' : 'amazonaws.com'
  return kms ?? all ?? `https://kms.${region}.${suffix}/`
}

/** How far this clock is ahead of AWS's, by the Date of an answer of KMS: to whoever asks, with no credentials. Rejects with `Outage`. */
export async function serviceTime(
  endpoint: string,
  clock: Clock,
  deadline: number,
): Promise<{ readonly aheadMs: number; readonly exactMs: number }> {
  const before = clock.now()
  try {
    const signal = AbortSignal.timeout(Math.max(0, deadline - before))
    const { headers } = await fetch(endpoint, { method: 'HEAD', redirect: 'manual', signal })
    const after = clock.now()
    const there = Date.parse(headers.get('date') ?? '')
    if (Number.isNaN(there)) throw new TypeError('no Date')
    // A Date is of whole seconds, cut off.
    const exactMs = (after - before) / 2 + 500
    return { aheadMs: (before + after) / 2 - (there + 500), exactMs }
  } catch (cause) {
    throw new Outage('key-service-unavailable', `${endpoint} does not answer with a time`, { cause })
  }
}

/** Of so many partitions the end is looked at, and so many offsets before it: some may be markers. */
const PARTITIONS = 16
const LAST = 5n

/** The brokers' time of the newest record in topics; undefined where there is none that they have stamped. */
export async function readNewestTime(
  reader: RecordReader,
  topics: readonly string[],
  deadline: number,
  clock: Clock,
): Promise<number | undefined> {
  let newest: number | undefined
  let looked = 0
  for (const topic of topics) {
    const partitions = await reader.partitions(topic)
    for (let partition = 0; partition < partitions && looked < PARTITIONS; partition++) {
      if (clock.now() >= deadline) return newest
      looked += 1
      const { first, end } = await reader.offsets({ topic, partition })
      const from = end - LAST > first ? end - LAST : first
      if (from >= end) continue
      const { records } = await reader.fetch({ topic, partition }, from, {
        maxBytes: 1_048_576,
        maxRecords: 10,
      })
      for (const { timestamp, timestampType } of records)
        if (timestampType === 'LogAppendTime' && timestamp > (newest ?? 0)) newest = timestamp
    }
  }
  return newest
}
