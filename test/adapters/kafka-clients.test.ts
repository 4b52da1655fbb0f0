import { Kafka } from 'kafkajs'
import { describe, expect, it } from 'vitest'
import { disconnect } from '../../lib/adapters/kafka-clients.ts'

describe('a client that is given up', () => {
  it('is ended once what it is doing is over, since kafkajs never ends a connection that is made meanwhile', async () => {
    const admin = new Kafka({ brokers: ['127.0.0.1:1'] }).admin()
    const happened: string[] = []
    admin.disconnect = () => {
      happened.push('ended')
      return Promise.resolve()
    }
    const connecting = Promise.withResolvers<undefined>()
    const gone = disconnect(admin, connecting.promise)
    await new Promise((resolve) => setTimeout(resolve, 20))
    happened.push('connected')
    connecting.reject(new Error('refused'))
    await gone
    expect(happened).toEqual(['connected', 'ended'])
  })
})
