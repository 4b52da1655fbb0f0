import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { openShop, type Shop } from '../shop.ts'
import { sealgate } from './terminal.ts'

let shop: Shop
beforeAll(async () => {
  shop = await openShop()
  await shop.log.createTopic('later', 1, { timestampType: 'LogAppendTime', maxMessageBytes: 1_048_576 })
  await shop.log.append(
    ['a', 'b'].map((value) => ({
      ...{ topic: 'later', partition: 0, key: null, value: Buffer.from(value), headers: [] },
    })),
  )
})
afterAll(() => shop.close())

const position = (...args: string[]) => sealgate(['position', ...args, '--folder', shop.folder])

describe('sealgate position on a stack', () => {
  it('shows each partition of a topic, or one, as a table', async () => {
    expect(await position('show', 'orders')).toEqual({
      out: 'PARTITION  NEXT\n0          0\n1          0',
      err: '',
      status: 0,
    })
    expect((await position('show', 'orders', '--partition', '1')).out).toBe('PARTITION  NEXT\n1          0')
  })

  it('makes a first position where it is told, once', async () => {
    expect(await position('show', 'later')).toMatchObject({ out: expect.stringContaining('none'), status: 1 })
    expect((await position('init', 'later', '--at', '3')).status).toBe(2)
    expect(await position('init', 'later', '--at', 'latest')).toMatchObject({ status: 0, err: '' })
    expect((await position('show', 'later')).out).toBe('PARTITION  NEXT\n0          2')
    const again = await position('init', 'later')
    expect([again.status, again.err]).toEqual([2, expect.stringContaining('a position already')])
  })

  it('renews what is there, and restores what was damaged, each partition by itself', async () => {
    const { log } = shop
    expect((await position('renew', 'orders')).out).toMatch(/0 +0 +young\n1 +0 +young$/)
    const lost = { group: 'local.shadow.v1', topic: 'orders', next: 0n, metadata: new Uint8Array() }
    await log.commitGroup([{ ...lost, partition: 1 }])
    const restored = await position('restore', 'orders', '--by', 'ann')
    expect([restored.status, restored.out.split('\n')]).toEqual([
      2,
      [
        expect.stringContaining('NEXT'),
        expect.stringMatching(/0 +0 +good/),
        expect.stringMatching(/1 +none +refused/),
      ],
    ])
    expect(restored.err).toContain('holds no segment')
  })

  it('refuses a topic, partition or start that is none, and a stack beside a cluster', async () => {
    expect((await position('show', 'nothing')).status).toBe(2)
    expect((await position('show', 'orders', '--partition', '2')).err).toContain('has 2 partitions')
    expect((await position('init', 'orders', '--at', 'now')).err).toContain('earliest, latest or an offset')
    const env = { SEALGATE_LOCAL: shop.folder, SEALGATE_KAFKA_BROKERS: 'b-1:9096' }
    const both = await sealgate(['position', 'show', 'orders'], { env })
    expect([both.status, both.err]).toEqual([2, expect.stringContaining('beside')])
  })
})
