/** What the sink makes of a broker that refuses, stalls or forgets. Each error says what to do, and nothing is half done. */
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createServer } from 'node:tls'
import kafkajs from 'kafkajs'
import { afterAll, afterEach, beforeAll, describe, expect, inject, it } from 'vitest'
import { createKafkaSink, type KafkaSink } from '../../lib/adapters/kafka.ts'
import { KafkaAccess } from '../../lib/adapters/kafka-access.ts'
import { connectCluster, disconnectCluster } from '../../lib/adapters/kafka-connection.ts'
import { askMetadata } from '../../lib/adapters/kafka-questions.ts'
import { Outage } from '../../lib/errors.ts'
import type { Header, Message, Position, SinkSession, TopicPartition } from '../../lib/ports.ts'
import { batchBytes } from '../../lib/ports.ts'
import { issue, makeAuthority } from './stack/certificates.ts'
import { named, prefixed, type Principal, right } from './stack/rights.ts'
import { DEPLOYMENT } from './stack/stack.ts'
import { bytes, Cluster, connection, settings, soon, text, unique } from './world.ts'

const { AclOperationTypes: OPERATION, AclResourceTypes: RESOURCE, AclPermissionTypes } = kafkajs

const cluster = new Cluster()
const sinks: KafkaSink[] = []
const sessions: SinkSession[] = []

const sinkOf = (changes: object = {}, principal: Principal = 'gate'): KafkaSink => {
  const sink = createKafkaSink(settings(changes, principal), { now: () => Date.now() })
  sinks.push(sink)
  return sink
}

const opened = async (sink: KafkaSink, source: TopicPartition, deadline = soon()): Promise<SinkSession> => {
  const session = await sink.open(source, deadline)
  sessions.push(session)
  return session
}

afterEach(async () => {
  await Promise.all(sessions.splice(0).map((session) => session.close()))
  await Promise.all(sinks.splice(0).map((sink) => sink.close()))
})
afterAll(() => cluster.end())

const outageOf = async (promise: Promise<unknown>): Promise<Outage> => {
  const error = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  )
  if (error instanceof Outage) return error
  throw new Error('no outage', { cause: error })
}

const at = (next: bigint, state = ''): Position => ({ next, state: bytes(state) })

const message = (topic: string, value: string | Uint8Array, headers: readonly Header[] = []): Message => ({
  topic,
  partition: 0,
  key: null,
  value: typeof value === 'string' ? bytes(value) : value,
  headers,
})

/** A source with a position at 0, and an output. */
async function topics(
  config: Record<string, string> = {},
): Promise<{ source: TopicPartition; output: string }> {
  const suffix = unique()
  const source = { topic: `source.${suffix}`, partition: 0 }
  const output = `output.${suffix}`
  await cluster.createTopic(source.topic, 1)
  await cluster.createTopic(output, 1, config)
  await sinkOf().init(source, at(0n), soon())
  return { source, output }
}

const seen = async (topic: string): Promise<string[]> =>
  (await cluster.readCommitted(topic)).map(({ value }) => text(value))

/** The controller answers for rights; each broker goes by them a moment later. Until all of them let the gate write, or none. */
async function untilMayWrite(topic: string, isSo: boolean): Promise<void> {
  const own = settings()
  const connecting = connectCluster(new KafkaAccess(own, { now: () => Date.now() }), own.brokers, soon())
  try {
    const view = await connecting
    await view.refreshMetadata()
    for (const nodeId of view.getNodeIds()) {
      const broker = await view.findBroker({ nodeId })
      const mayWrite = async (): Promise<boolean | undefined> =>
        (await askMetadata(broker, [topic])).topics.get(topic)?.allowed.has('Write')
      await expect.poll(mayWrite, { timeout: 10_000 }).toBe(isSo)
    }
  } finally {
    await disconnectCluster(connecting)
  }
}

/** At once: no storm of attempts against a broker that has given its answer. */
async function soonDenied(promise: Promise<unknown>, what: RegExp): Promise<void> {
  const started = Date.now()
  const outage = await outageOf(promise)
  expect([outage.code, outage.message]).toEqual(['sink-denied', expect.stringMatching(what)])
  expect(outage.message).not.toContain('\n')
  for (const password of Object.values(connection.passwords)) expect(outage.message).not.toContain(password)
  expect(Date.now() - started).toBeLessThan(5000)
}

describe('a broker that refuses us', () => {
  const source = { topic: 'source.any', partition: 0 }

  it.each([
    ['a wrong password', 'scram-sha-512', 'gate', /refuses our credentials/],
    ['an unknown user', 'scram-sha-512', 'nobody', /refuses our credentials/],
    ['a mechanism that it does not offer', 'plain', 'gate', /does not offer this SASL mechanism/],
  ])('names what to correct for %s', async (_, mechanism, username, says) => {
    const sasl = { mechanism, username, password: 'planted' }
    await soonDenied(sinkOf({ sasl }).open(source, soon()), says)
    await soonDenied(sinkOf({ sasl }).partitionsOf('output.any', soon()), says)
  })

  it('names the right that is missing: transactional id, group, source, output', async () => {
    const { source: usual, output } = await topics()
    await soonDenied(
      sinkOf({}, 'consumer').init(usual, at(0n), soon()),
      /refuses us the group test\.shadow\.v1\. Allow Read/,
    )
    const half = `half.${unique()}`
    const admin = await cluster.admin()
    const reads = right('gate', RESOURCE.GROUP, prefixed(`${half}.shadow.`), OPERATION.READ)
    await admin.createAcls({ acl: [reads] })
    await soonDenied(
      sinkOf({ deployment: half }).open(usual, soon()),
      new RegExp(`refuses us the transactional id ${half.replaceAll('.', '\\.')}\\.source`),
    )
    const writes = right('gate', RESOURCE.TRANSACTIONAL_ID, prefixed(`${half}.`), OPERATION.WRITE)
    await admin.createAcls({ acl: [writes] })
    const hidden = `hidden.${unique()}`
    await cluster.createTopic(hidden, 1)
    await soonDenied(
      sinkOf({ deployment: half }).open({ topic: hidden, partition: 0 }, soon()),
      /refuses us a topic of hidden\..+ Allow Read on the source/,
    )
    const session = await opened(sinkOf(), usual)
    await soonDenied(
      session.commit([message(output, 'no'), message(hidden, 'no')], at(1n), soon()),
      /commit of source.+ refuses us a topic of output\..+, hidden\..+Write on the others/,
    )
    expect(await seen(output)).toEqual([])
    expect((await sinkOf().show(usual, soon()))?.next).toBe(0n)
  })

  it('names the topic that is not there', async () => {
    const { source: usual } = await topics()
    const session = await opened(sinkOf(), usual)
    await soonDenied(
      session.commit([message('output.not.there', 'x')], at(1n), soon()),
      /a topic or partition of output\.not\.there is not there\. Create it/,
    )
    await soonDenied(sinkOf().open({ topic: 'source.not.there', partition: 0 }, soon()), /source\.not\.there/)
  })

  it('stops a right taken away in mid-run, and goes on where it stood when it is given back', async () => {
    const { source: usual, output } = await topics()
    const own = `other.${unique()}`
    await cluster.createTopic(own, 1)
    const admin = await cluster.admin()
    const writes = right('gate', RESOURCE.TOPIC, named(own), OPERATION.WRITE)
    await admin.createAcls({ acl: [writes] })
    await untilMayWrite(own, true)
    const session = await opened(sinkOf(), usual)
    await session.commit([message(own, 'a'), message(output, 'a')], at(1n), soon())
    await admin.deleteAcls({ filters: [{ ...writes, permissionType: AclPermissionTypes.ALLOW }] })
    await untilMayWrite(own, false)
    const outage = await outageOf(session.commit([message(own, 'b'), message(output, 'b')], at(2n), soon()))
    expect(outage.code).toBe('sink-denied')
    await admin.createAcls({ acl: [writes] })
    await untilMayWrite(own, true)
    const again = await opened(sinkOf(), usual)
    expect(again.position.next).toBe(1n)
    await again.commit([message(own, 'b'), message(output, 'b')], at(2n), soon())
    expect([await seen(own), await seen(output)]).toEqual([
      ['a', 'b'],
      ['a', 'b'],
    ])
  })
})

describe('TLS', () => {
  const source = { topic: 'source.any', partition: 0 }
  let folder: string
  let ca: string
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), 'sealgate-tls-'))
    const authority = await makeAuthority(folder, { name: 'elsewhere', names: ['DNS:elsewhere.example'] })
    ca = authority.ca
  })
  afterAll(() => rm(folder, { recursive: true }))

  /** A port that shows a certificate and says nothing. */
  async function shows(pem: string, work: (broker: string) => Promise<void>): Promise<void> {
    const both = await readFile(pem, 'utf8')
    const server = createServer({ key: both, cert: both }, (socket) => socket.destroy())
    server.on('tlsClientError', () => undefined)
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    try {
      const address = server.address()
      await work(`127.0.0.1:${typeof address === 'object' && address !== null ? address.port : 0}`)
    } finally {
      await new Promise((resolve) => server.close(resolve))
    }
  }

  it('refuses a broker whose authority is not ours', async () => {
    await soonDenied(sinkOf({ ssl: { ca } }).open(source, soon()), /Set ssl\.ca to it/)
    await soonDenied(sinkOf({ ssl: undefined }).open(source, soon()), /Set ssl\.ca to it/)
  })

  it('refuses a certificate of another host', () =>
    shows(join(folder, 'elsewhere.pem'), (broker) =>
      soonDenied(sinkOf({ brokers: [broker], ssl: { ca } }).open(source, soon()), /another host's/),
    ))

  it('refuses a certificate that has expired', async () => {
    const expired = await issue(folder, { name: 'expired', names: ['IP:127.0.0.1'], days: -1 })
    await shows(expired, (broker) =>
      soonDenied(sinkOf({ brokers: [broker], ssl: { ca } }).open(source, soon()), /has expired\. Renew/),
    )
  })
})

describe('large messages', () => {
  it('are taken up to the topic’s own limit, and beyond it the error names place, bytes and setting', async () => {
    const limit = 300_000
    const { source, output } = await topics({ 'max.message.bytes': String(limit) })
    const session = await opened(sinkOf(), source)
    // 61 bytes of batch header, then what batchBytes counts at most.
    const room = limit - 61 - batchBytes(message(output, ''))
    await session.commit([message(output, new Uint8Array(room))], at(1n), soon())
    const large = message(output, new Uint8Array(limit))
    await soonDenied(
      session.commit([large], at(2n), soon()),
      /the largest being 300030 bytes for output\..+-0\. Raise its max\.message\.bytes/,
    )
    const again = await opened(sinkOf(), source)
    expect(again.position.next).toBe(1n)
  })
})

describe('messages', () => {
  it('keep their headers: repeated, null, empty, named like numbers', async () => {
    const { source, output } = await topics()
    const session = await opened(sinkOf(), source)
    const headers = [
      { name: 'b', value: bytes('1') },
      { name: '7', value: null },
      { name: 'b', value: new Uint8Array() },
      { name: 'a', value: bytes('3') },
    ]
    await session.commit([message(output, 'x', headers)], at(1n), soon())
    const [record] = await cluster.readCommitted(output)
    const plain = (record?.headers ?? []).map(({ name, value }) => [name, value && text(value)])
    // kafkajs's consumer puts headers of one name together, and numbers first.
    expect(plain).toEqual([
      ['7', null],
      ['b', '1'],
      ['b', ''],
      ['a', '3'],
    ])
  })
})

describe('the position', () => {
  it('writes the parts that change, and no others', async () => {
    const { source } = await topics()
    const session = await opened(sinkOf(), source)
    const state = new Uint8Array(7000)
    await session.commit([], { next: 1n, state }, soon())
    await session.commit([], { next: 2n, state: state.with(0, 1) }, soon())
    await session.commit([], { next: 3n, state: state.with(6999, 1) }, soon())
    // A commit has its answer before every part shows it; who opens the position waits for that.
    await opened(sinkOf(), source)
    const admin = await cluster.admin()
    const offsets = await Promise.all(
      ['', '.1', '.2'].map(async (part) => {
        const groupId = `${DEPLOYMENT}.shadow.v1${part}`
        const [found] = await admin.fetchOffsets({ groupId, topics: [source.topic] })
        return found?.partitions[0]?.offset
      }),
    )
    expect(offsets).toEqual(['3', '1', '3'])
  })

  it('is damaged when its parts are of different commits', async () => {
    const { source } = await topics()
    const session = await opened(sinkOf(), source)
    await session.commit([], { next: 1n, state: new Uint8Array(7000) }, soon())
    await session.close()
    const admin = await cluster.admin()
    const groupId = `${DEPLOYMENT}.shadow.v1.2`
    await admin.setOffsets({ groupId, topic: source.topic, partitions: [{ partition: 0, offset: '1' }] })
    const sink = sinkOf()
    expect((await outageOf(sink.open(source, soon()))).code).toBe('position-damaged')
    expect((await outageOf(sink.show(source, soon()))).code).toBe('position-damaged')
  })

  it('is shown whole while a gate commits, without disturbing it', async () => {
    const { source } = await topics()
    const session = await opened(sinkOf(), source)
    await session.commit([], { next: 1n, state: new Uint8Array(20_000) }, soon())
    const shows = sinkOf()
    const shown: bigint[] = []
    const work = new AbortController()
    const watch = (async () => {
      while (!work.signal.aborted) {
        const position = await shows.show(source, soon())
        // Of one commit: none of it is from another. At first it may still be the empty one.
        expect(new Set(position?.state).size).toBeLessThanOrEqual(1)
        shown.push(position?.next ?? -1n)
      }
    })()
    watch.catch(() => work.abort())
    // A fast broker takes thirty before the position has been shown a few times.
    const isShort = (): boolean => shown.length < 5 && !work.signal.aborted
    for (let next = 2n; next <= 30n || (isShort() && next <= 300n); next++)
      await session.commit([], { next, state: new Uint8Array(20_000).fill(Number(next)) }, soon())
    work.abort()
    await watch
    expect(shown.length).toBeGreaterThan(3)
    expect(shown).toEqual(shown.toSorted((a, b) => Number(a - b)))
  })
})

describe('a session that was idle for long', () => {
  it('goes on with a new connection where nobody has moved the position, though somebody had opened it', async () => {
    const { source, output } = await topics()
    const session = await opened(sinkOf({ maxIdleMs: 300 }), source)
    await session.commit([message(output, 'a')], at(1n), soon())
    // Whoever opens it fences the session's first connection.
    await opened(sinkOf(), source)
    await new Promise((resolve) => setTimeout(resolve, 400))
    await session.commit([message(output, 'b')], at(2n, 'x'), soon())
    await session.commit([message(output, 'c')], at(3n, 'y'), soon())
    expect(await seen(output)).toEqual(['a', 'b', 'c'])
  })

  it('is fenced where somebody has', async () => {
    const { source, output } = await topics()
    const idle = await opened(sinkOf({ maxIdleMs: 300 }), source)
    const other = await opened(sinkOf(), source)
    await other.commit([message(output, 'other')], at(1n), soon())
    await new Promise((resolve) => setTimeout(resolve, 400))
    expect((await outageOf(idle.commit([message(output, 'idle')], at(1n), soon()))).code).toBe('fenced')
    expect(await seen(output)).toEqual(['other'])
  })
})

describe('a broker that stalls', () => {
  it('does not hold a commit beyond its deadline; what was in doubt is all or nothing, and the next holder sees which', async () => {
    const { source, output } = await topics()
    const session = await opened(sinkOf(), source)
    await session.commit([message(output, 'a')], at(1n), soon())
    const pids = inject('brokerPids')
    const signal = (name: 'SIGSTOP' | 'SIGCONT'): void => {
      for (const pid of pids) process.kill(pid, name)
    }
    const started = Date.now()
    try {
      signal('SIGSTOP')
      // Each of its threads has to notice.
      await new Promise((resolve) => setTimeout(resolve, 200))
      const outage = await outageOf(session.commit([message(output, 'b')], at(2n), Date.now() + 1000))
      expect(outage.code).toBe('deadline')
      const open = await outageOf(sinkOf().open(source, Date.now() + 1000))
      expect(open.code).toBe('deadline')
      expect(Date.now() - started).toBeLessThan(8000)
    } finally {
      signal('SIGCONT')
    }
    // For a moment more brokers may find themselves without replicas, or without each other: then as a function is called again.
    const until = Date.now() + 40_000
    const reopened = async (): Promise<SinkSession> => {
      for (;;)
        try {
          return await opened(sinkOf(), source)
        } catch (error) {
          const mayPass = error instanceof Outage && ['sink-unavailable', 'fenced'].includes(error.code)
          if (!mayPass || Date.now() > until) throw error
          await new Promise((resolve) => setTimeout(resolve, 100))
        }
    }
    const doubtful = (await reopened()).position.next
    for (;;) {
      const again = await reopened()
      if (again.position.next > doubtful) break
      const done = again.commit([message(output, 'c')], at(doubtful + 1n), soon()).then(
        () => true,
        () => false,
      )
      if (await done) break
      expect(Date.now()).toBeLessThan(until)
    }
    expect(await seen(output)).toEqual(doubtful === 2n ? ['a', 'b', 'c'] : ['a', 'c'])
  }, 90_000)
})
