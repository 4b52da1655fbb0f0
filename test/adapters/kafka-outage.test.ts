/** What an error of kafkajs becomes: an outage that says what to do, and nothing of what was being written. */
import kafkajs from 'kafkajs'
import { describe, expect, it } from 'vitest'
import { kafkaOutage } from '../../lib/adapters/kafka-outage.ts'

const CANARY = 'canary-91ce'
const operation = { name: 'commit of orders-3', topics: ['orders'], group: 'g', transactionalId: 't' }

describe('an error that no broker sent', () => {
  it.each([
    ['Node’s', () => Object.assign(new TypeError(`Received '${CANARY}'`), { code: 'ERR_INVALID_ARG_TYPE' })],
    ['kafkajs’s', () => new kafkajs.KafkaJSNonRetriableError(`Invalid message: {"key":"${CANARY}"}`)],
    ['one that kafkajs has wrapped', () => wrapped(new RangeError(CANARY))],
  ])('is told by its kind, and not by its words: %s', (_, error) => {
    const outage = kafkaOutage(error(), operation)
    expect(outage.code).toBe('sink-unavailable')
    expect(outage.message).toMatch(/^commit of orders-3: the client failed \([^\n]+\)\. It is tried again\.$/)
    expect(outage.message).not.toContain(CANARY)
  })

  it('says of a connection that is not made what to look at', () => {
    const error = Object.assign(new Error('connect ECONNREFUSED 127.0.0.1:1'), { code: 'ECONNREFUSED' })
    expect(kafkaOutage(error, operation).message).toContain('no broker can be reached (ECONNREFUSED)')
  })
})

const wrapped = (cause: Error): Error =>
  Object.assign(new kafkajs.KafkaJSNonRetriableError(cause.message), { cause })
