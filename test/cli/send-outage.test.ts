/** What `send` says where it is cut short. */
import { afterEach, describe, expect, it } from 'vitest'
import { OpenLines } from '../../cli/open-lines.ts'
import { ORDER_TYPE, openShop, type Shop } from '../shop.ts'
import { type Ran, sealgate } from './terminal.ts'

let shop: Shop | undefined
afterEach(async () => {
  await shop?.close()
  shop = undefined
})

const order = (id: number): string => `{"orderId":"A-${id}","total":${id},"customer":{"id":"c${id}"}}\n`

/** Three orders, and three more when the stack has gone. */
async function cutShort(...flags: string[]): Promise<Ran> {
  shop = await openShop()
  const { folder, stack } = shop
  async function* input(): AsyncGenerator<Uint8Array> {
    yield Buffer.from([1, 2, 3].map(order).join(''))
    await stack.close()
    yield Buffer.from(`no json\n${[5, 6, 7].map(order).join('')}`)
    yield Buffer.from(order(8))
  }
  return sealgate(['send', '-', '--type', ORDER_TYPE, ...flags], {
    input: input(),
    env: { SEALGATE_LOCAL: folder },
  })
}

describe('send, when what it sends to has gone', () => {
  it('ends with 3, and says how many were sent and of which lines that is not known', async () => {
    const { status, out, err } = await cutShort()
    expect([status, out]).toEqual([3, '3 events sent, 1 line skipped.'])
    expect(err).toMatch(
      /^fault standard input:4: .*\nunreachable .*\(sink-unavailable\)\nNot known to be sent: lines 5-7\. No line after 7 was read\.$/,
    )
  })

  it('says so as data', async () => {
    const { status, out } = await cutShort('--json')
    expect(status).toBe(3)
    expect(JSON.parse(out)).toMatchObject({
      ...{ sent: 3, skipped: 1 },
      outage: { code: 'sink-unavailable' },
      unsent: { lines: [[5, 7]], after: 7 },
    })
  })
})

describe('lines that are open', () => {
  it('are told as stretches, and not without end', () => {
    const lines = new OpenLines()
    for (let line = 1; line <= 100; line++) lines.add(line)
    for (const line of [1, 4, 5, 100]) lines.close(line)
    expect([lines.text(), lines.last]).toEqual(['lines 2-3, 6-99', 100])
    for (let line = 2; line < 100; line += 2) lines.close(line)
    expect(lines.text()).toMatch(/^lines 3, 7, 9, .*, 43, and 28 more stretches \(--json has all\)$/)
  })
})
