/** The clocks that the doctor compares ours with. */
import { createServer, type Server } from 'node:http'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { clockAddress, readNewestTime, serviceTime } from '../../cli/doctor-clock.ts'
import { clockVerdicts } from '../../lib/doctor/access-verdicts.ts'
import { Outage } from '../../lib/errors.ts'
import type { RecordReader, SourceRecord } from '../../lib/ports.ts'

describe('a service', () => {
  let server: Server
  let address: string
  let headers: Record<string, string>
  beforeEach(async () => {
    server = createServer((_, response) => {
      response.sendDate = false
      response.writeHead(403, headers).end()
    })
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    const bound = server.address()
    address = `http://127.0.0.1:${typeof bound === 'object' ? bound?.port : ''}/`
  })
  afterEach(() => new Promise((resolve) => server.close(resolve)))

  it.each([
    [0, 'ok'],
    [60_000, 'fail'],
    [-60_000, 'fail'],
  ])('whose answer is %d ms from our clock', async (awayMs, status) => {
    const clock = { now: () => Date.now() }
    headers = { date: new Date(Date.now() - awayMs).toUTCString() }
    const { aheadMs, exactMs } = await serviceTime(address, clock, clock.now() + 5000)
    expect(Math.abs(aheadMs - awayMs)).toBeLessThan(exactMs + 1000)
    expect(clockVerdicts(aheadMs, exactMs, 'AWS')[0]?.status).toBe(status)
  })

  it('that tells no time, or is not there, is an outage', async () => {
    const clock = { now: () => Date.now() }
    headers = {}
    await expect(serviceTime(address, clock, clock.now() + 5000)).rejects.toBeInstanceOf(Outage)
    await expect(serviceTime('http://127.0.0.1:1/', clock, clock.now() + 5000)).rejects.toBeInstanceOf(Outage)
  })

  it('is KMS in the region of an ARN, or where the SDK is told that it is', () => {
    const arn = 'arn:aws:kms:eu-west-1:123456789012:key/k'
    expect(clockAddress(arn, {})).toBe('https://kms.eu-west-1.amazonaws.com/')
    expect(clockAddress(arn.replace('aws', 'aws-cn'), {})).toBe('https://kms.eu-west-1.amazonaws.com.cn/')
    expect(clockAddress(arn, { AWS_ENDPOINT_URL: 'http://a', AWS_ENDPOINT_URL_KMS: 'http://b' })).toBe(
      'http://b',
    )
  })
})

describe('the brokers', () => {
  const record = (timestamp: number, timestampType: SourceRecord['timestampType']): SourceRecord => ({
    ...{ topic: 't', partition: 0, offset: 0n, timestamp, timestampType },
    ...{ key: null, value: null, headers: [] },
  })
  const reader = (records: readonly SourceRecord[]): RecordReader => ({
    partitions: () => Promise.resolve(1),
    offsets: () => Promise.resolve({ first: 0n, end: BigInt(records.length) }),
    writtenEnd: () => Promise.resolve(BigInt(records.length)),
    fetch: () => Promise.resolve({ records, next: BigInt(records.length), end: BigInt(records.length) }),
  })
  const clock = { now: () => 0 }

  it('tell their time by the newest record that they have stamped, and by no other', async () => {
    const records = [record(5, 'LogAppendTime'), record(9, 'CreateTime'), record(7, 'LogAppendTime')]
    expect(await readNewestTime(reader(records), ['t'], 1, clock)).toBe(7)
    expect(await readNewestTime(reader([record(9, 'CreateTime')]), ['t'], 1, clock)).toBeUndefined()
    expect(await readNewestTime(reader([]), ['t'], 1, clock)).toBeUndefined()
  })
})
