/** Sending no faster than the contracts' limits allow. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Pace, type Paced, untilNextSecond } from '../../cli/pace.ts'
import { ORDER_CONTRACT, ORDER_TYPE } from '../shop.ts'
import { type Around, type Ran, sealgate } from './terminal.ts'

const paced = (fields: Partial<Paced> = {}): Paced => ({
  ...{ iss: 'shop', type: 't', channel: 'c', partition: 0, perSecond: 2 },
  ...fields,
})

describe('the pace', () => {
  it('lets so many a second go of each issuer, type, channel and partition', () => {
    const pace = new Pace()
    const going = (now: number, event: Paced): number => {
      pace.begin(now)
      const count = [1, 2, 3].filter(() => pace.allows(event)).length
      pace.appended(now)
      return count
    }
    expect([going(1000, paced()), going(1999, paced()), going(2000, paced())]).toEqual([2, 0, 2])
    const others = [{ iss: 'x' }, { type: 'u' }, { channel: 'd' }, { partition: 1 }]
    expect(others.map((other) => going(2000, paced(other)))).toEqual([2, 2, 2, 2])
    expect(going(2000, paced({ perSecond: undefined }))).toBe(3)
  })

  it('counts a round for the second that it ended in too, since the log may have had it in either', () => {
    const pace = new Pace()
    pace.begin(1999)
    expect([pace.allows(paced()), pace.allows(paced())]).toEqual([true, true])
    pace.appended(2001)
    pace.begin(2002)
    expect(pace.allows(paced())).toBe(false)
    pace.begin(3000)
    expect(pace.allows(paced())).toBe(true)
  })

  it('goes on once the next second has begun', () => {
    expect([2000, 2400, 2999].map((now) => now + untilNextSecond(now))).toEqual([3001, 3001, 3001])
  })
})

describe('sealgate send', () => {
  let folder: string
  let started: Promise<Ran>
  const stop = new AbortController()
  const at = (args: string[], around: Around = {}): Promise<Ran> =>
    sealgate([...args, '--folder', join(folder, 'stack')], around)

  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'sealgate-pace-'))
    const contract = ORDER_CONTRACT.replace('maxBytes: 65536', 'maxBytes: 65536, perSecond: 10')
    await writeFile(join(folder, 'order.yaml'), contract)
    const ready = Promise.withResolvers<string>()
    started = at(['local', 'start', '--contracts', folder, '--partitions', '2', '--json'], {
      stop: stop.signal,
      onLine: ready.resolve,
    })
    await Promise.race([ready.promise, started])
  })

  afterAll(async () => {
    stop.abort()
    await started
    await rm(folder, { recursive: true, force: true })
  })

  it('waits where the contract takes no more in this second, says so, and nothing is refused', async () => {
    const order = '{"orderId":"A","customer":{"id":"c"},"total":1}\n'
    const { out, err, status } = await at(['send', '-', '--type', ORDER_TYPE], { input: order.repeat(45) })
    expect({ out, status }).toEqual({ out: '45 events sent.', status: 0 })
    expect(err).toBe(
      `Waits for limits.perSecond of the contract for "${ORDER_TYPE}": 10 events a second in each partition.`,
    )
    let found = ''
    for (let tries = 0; tries < 100 && found.split('\n').length < 45; tries++) {
      await sleep(50)
      found = (await at(['tail', 'orders.fulfilment', '--json'])).out
    }
    expect(found.split('\n')).toHaveLength(45)
    expect((await at(['quarantine', 'list', '--json'])).out).toBe('{"totals":{"found":0,"byCode":{}}}')
  })

  it('counts lines that are refused as skipped alone, whatever their type, and shows no type whole', async () => {
    const long = 'x'.repeat(5000)
    const typed = (type: string): string => `{"specversion":"1.0","type":"${type}","source":"/s","data":1}\n`
    const input = typed(long) + typed('y'.repeat(500))
    const { out, err } = await at(['send', '-', '--json'], { input })
    expect(JSON.parse(out)).toMatchObject({ sent: 1, skipped: 1, unknownType: 1 })
    expect(err).toContain(`No contract is for "${'y'.repeat(80)}…".`)
    expect(err).not.toMatch(/x{100}|y{100}/)
    const checked = await at(['send', '-', '--check'], { input })
    expect(checked.out).toBe('0 events sent, 2 lines skipped.')
    expect(checked.err).toContain(
      ':2: No contract for this event type on this channel. Correct the type, or ',
    )
    expect(checked.err).not.toContain('It went to')
  })
})
