import { describe, expect, it } from 'vitest'
import { createOpener } from '../../lib/client/opener.ts'
import { createSealer } from '../../lib/client/sealer.ts'
import { received, shop, START, there } from './shop.ts'

describe('sealing and opening', () => {
  it('gives a consumer what the producer sealed', async () => {
    const { sealing, opening } = shop()
    const sealer = createSealer(sealing)
    const opener = createOpener(opening)
    const { topic, messages } = await sealer.seal('orders', {
      id: 'A-1',
      source: '/shipping',
      type: 'com.example.order.shipped.v1',
      time: '2026-09-21T00:00:00Z',
      subject: 'order/1',
      data: { orderId: 'A-1', note: 'grüße' },
      key: 'A-1',
      extensions: { correlationid: 'c-1' },
      traceparent: '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01',
    })
    const message = there(messages[0])
    expect(topic).toBe('orders')
    expect(message.headers['traceparent']).toMatch(/^00-/)
    const opened = await opener.open({ topic, partition: message.partition, message: received(message) })
    if (!opened.opened) throw new Error(opened.reason)
    expect(opened.event).toMatchObject({
      id: 'A-1',
      source: '/shipping',
      type: 'com.example.order.shipped.v1',
      time: '2026-09-21T00:00:00Z',
      subject: 'order/1',
      datacontenttype: 'application/json',
      data: { orderId: 'A-1', note: 'grüße' },
      extensions: { correlationid: 'c-1' },
      iss: 'shipping-service',
      aud: 'gate',
      iat: START / 1000,
      exp: START / 1000 + 3600,
      number: 0n,
      session: Buffer.from(sealer.session).toString('hex'),
    })
    expect(Buffer.from(opened.payload).toString()).toBe('{"orderId":"A-1","note":"grüße"}')
    await sealer.close()
    opener.close()
  })
})
