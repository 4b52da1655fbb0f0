/** What the sink does where there is no broker, or none that answers. Real brokers: test/real. */
import { createServer, type Server, type Socket } from 'node:net'
import { afterEach, describe, expect, it } from 'vitest'
import { createKafkaSink, type KafkaSink } from '../../lib/adapters/kafka.ts'
import { kafkaOutage } from '../../lib/adapters/kafka-outage.ts'
import { repairKafkajs } from '../../lib/adapters/kafka-repairs.ts'
import { readKafkaSettings } from '../../lib/adapters/kafka-settings.ts'
import { Outage } from '../../lib/errors.ts'

const clock = { now: () => Date.now() }
const SOURCE = { topic: 'orders', partition: 0 }

const servers: Server[] = []
const sockets = new Set<Socket>()
const sinks: KafkaSink[] = []
afterEach(async () => {
  await Promise.all(sinks.splice(0).map((sink) => sink.close()))
  for (const socket of sockets) socket.destroy()
  sockets.clear()
  for (const server of servers.splice(0)) await new Promise((resolve) => server.close(resolve))
})

/** A port that takes connections and does with them as told. */
async function listen(onConnection: (socket: Socket) => void): Promise<string> {
  const server = createServer((socket) => {
    sockets.add(socket)
    socket.on('error', () => undefined)
    onConnection(socket)
  })
  servers.push(server)
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('no port')
  return `127.0.0.1:${address.port}`
}

const sinkTo = (brokers: readonly string[], changes: object = {}): KafkaSink => {
  const raw = { brokers, deployment: 'test', insecurePlaintext: true, openTimeoutMs: 500, ...changes }
  const sink = createKafkaSink(readKafkaSettings(raw), clock)
  sinks.push(sink)
  return sink
}

const outageOf = async (promise: Promise<unknown>): Promise<Outage> => {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  )
  if (error instanceof Outage) return error
  throw new Error('no outage', { cause: error })
}

describe('a Kafka sink without a broker', () => {
  it('says that nobody listens, soon, and asks again only now and then', async () => {
    let connections = 0
    const broker = await listen((socket) => {
      connections++
      socket.destroy()
    })
    const started = Date.now()
    const open = await outageOf(sinkTo([broker]).open(SOURCE, Date.now() + 60_000))
    expect(Date.now() - started).toBeLessThan(10_000)
    expect([open.code, open.message]).toEqual([
      'sink-unavailable',
      expect.stringMatching(/^opening of orders-0: no broker can be reached .*Check brokers/),
    ])
    expect(open.cause).toBeInstanceOf(Error)
    expect(connections).toBeLessThan(12)
    const count = await outageOf(sinkTo(['127.0.0.1:1']).partitionsOf('orders', Date.now() + 60_000))
    expect([count.code, count.message]).toEqual(['sink-unavailable', expect.stringContaining('ECONNREFUSED')])
  })

  it('keeps the deadline with a broker that never answers, and says what was waited for', async () => {
    const broker = await listen(() => undefined)
    for (const sink of [
      sinkTo([broker], { openTimeoutMs: 10_000 }),
      sinkTo([broker], { openTimeoutMs: 300 }),
    ]) {
      const started = Date.now()
      const outage = await outageOf(sink.open(SOURCE, started + 600))
      expect(Date.now() - started).toBeLessThan(5000)
      expect(['deadline', 'sink-unavailable']).toContain(outage.code)
    }
  })

  it('fails at once where a port speaks no TLS', async () => {
    const broker = await listen((socket) => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n'))
    const started = Date.now()
    const sink = sinkTo([broker], { insecurePlaintext: undefined, openTimeoutMs: 20_000 })
    const outage = await outageOf(sink.open(SOURCE, started + 60_000))
    expect(Date.now() - started).toBeLessThan(10_000)
    expect([outage.code, outage.message]).toEqual(['sink-denied', expect.stringContaining('TLS listener')])
  })

  it('asks nobody after it was closed', async () => {
    const sink = sinkTo(['127.0.0.1:1'])
    await sink.close()
    expect((await outageOf(sink.partitionsOf('orders', Date.now() + 1000))).message).toContain('closed')
  })
})

describe('repairs of kafkajs', () => {
  it('are for one version alone', () => {
    expect(() => repairKafkajs('2.2.5')).toThrow(/made for 2\.2\.4 alone/)
    expect(() => repairKafkajs()).not.toThrow()
  })
})

describe('what Kafka’s errors become', () => {
  const operation = { name: 'commit of orders-0', topics: ['a', 'b'], group: 'g', transactionalId: 't' }
  const protocol = (type: string, message = type): Error => Object.assign(new Error(message), { type })
  const wrapped = (error: Error): Error =>
    new Error('wrapped', { cause: new Error('again', { cause: error }) })

  it.each([
    ['INVALID_PRODUCER_EPOCH', 'fenced'],
    ['INVALID_PRODUCER_ID_MAPPING', 'fenced'],
    ['TOPIC_AUTHORIZATION_FAILED', 'sink-denied'],
    ['GROUP_AUTHORIZATION_FAILED', 'sink-denied'],
    ['TRANSACTIONAL_ID_AUTHORIZATION_FAILED', 'sink-denied'],
    ['UNKNOWN_TOPIC_OR_PARTITION', 'sink-denied'],
    ['MESSAGE_TOO_LARGE', 'sink-denied'],
    ['SASL_AUTHENTICATION_FAILED', 'sink-denied'],
    ['NOT_ENOUGH_REPLICAS', 'sink-unavailable'],
    ['UNKNOWN', 'sink-unavailable'],
  ])('%s is %s, however deep it is wrapped', (type, code) => {
    for (const error of [protocol(type), wrapped(protocol(type))]) {
      const outage = kafkaOutage(error, operation)
      expect([outage.code, outage.cause]).toEqual([code, error])
      expect(outage.message).toMatch(/^commit of orders-0: .+\.$/)
    }
  })

  it('PRODUCER_FENCED is fenced, though kafkajs does not know its number', () => {
    const error = protocol('KAFKAJS_UNKNOWN_ERROR_CODE', 'Unknown error code 90')
    expect(kafkaOutage(error, operation).code).toBe('fenced')
    expect(kafkaOutage(protocol('KAFKAJS_UNKNOWN_ERROR_CODE', 'Unknown error code 91'), operation).code).toBe(
      'sink-unavailable',
    )
  })

  it('what a broker says of itself stays one line that can be printed', () => {
    const told = Object.assign(new Error(`no\n\u001b[2J${'x'.repeat(1000)}`), {
      type: 'SASL_AUTHENTICATION_FAILED',
    })
    const { message } = kafkaOutage(told, operation)
    expect(message).toMatch(/^[ -~]{1,500}$/)
    expect(message).toContain('no [2Jxxx')
  })

  it('an outage stays itself, and anything else is one', () => {
    const outage = new Outage('deadline', 'late')
    expect(kafkaOutage(outage, operation)).toBe(outage)
    const away = new Outage('secret-unavailable', 'away', { cause: new Error('ECONNREFUSED') })
    expect(kafkaOutage(new Error('of kafkajs', { cause: away }), operation)).toBe(away)
    for (const thing of [undefined, 'text', new TypeError('x')])
      expect(kafkaOutage(thing, operation).code).toBe('sink-unavailable')
  })
})
