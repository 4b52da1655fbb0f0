/** Kafka's users, whose passwords are replaced again and again on a real broker while events go through. */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { AclEntry } from 'kafkajs'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { ingestHandler } from '../../functions/ingest-handler.ts'
import { createKafkaSink } from '../../lib/adapters/kafka.ts'
import { createKafkaAppender, type KafkaAppender } from '../../lib/adapters/kafka-appender.ts'
import type { KafkaSinkSettings } from '../../lib/adapters/kafka-settings.ts'
import { createKafkaSource, type KafkaSource } from '../../lib/adapters/kafka-source.ts'
import { kafkaUsers } from '../../lib/adapters/kafka-users.ts'
import type { SealedBatch } from '../../lib/client/sealer-options.ts'
import { publicKeyOf } from '../../lib/envelope/crypto.ts'
import type { RotationPolicy } from '../../lib/keys/rotation.ts'
import { readLogin, type ScramLogin } from '../../lib/keys/rotation-state.ts'
import type { RotationPorts } from '../../lib/keys/rotation-steps.ts'
import { type Poller, startPoller } from '../../lib/local/poller.ts'
import { readLocalRoot } from '../../lib/local/root.ts'
import type { Message } from '../../lib/ports.ts'
import { openRotations } from '../../lib/rotation-runtime.ts'
import { dying, mortalRun } from './dying-rotator.ts'
import type { Emulator } from './emulators/emulator.ts'
import { MOTO_MS, startMoto } from './emulators/moto.ts'
import { isTaken, newPrincipal } from './scram-users.ts'
import { orders, RealShop, totals, upTo } from './shop.ts'
import { gateRights, prefixed, producerRights } from './stack/rights.ts'
import { DEPLOYMENT } from './stack/stack.ts'
import { Cluster, connection, settings, soon, unique } from './world.ts'

const clock = { now: () => Date.now() }
const cluster = new Cluster()
/** Of the administrator: who changes passwords. */
const admin = settings({}, 'admin')
const users = kafkaUsers(admin, clock)
afterAll(() => cluster.end())

const recordsOf = ({ topic, messages }: SealedBatch): Message[] =>
  messages.map(({ headers, ...message }) => ({
    ...{ topic, ...message },
    headers: Object.entries(headers).map(([name, value]) => ({ name, value: Buffer.from(value) })),
  }))

describe('a password', () => {
  it('is set for a new user, and set anew; the last one alone is good', async () => {
    const username = `user,=${unique()}`
    await users.setPassword({ username, password: 'planted-one' }, soon())
    await users.logIn({ username, password: 'planted-one' }, undefined, soon())
    await users.setPassword({ username, password: 'planted-two' }, soon())
    await users.logIn({ username, password: 'planted-two' }, undefined, soon())
    const begun = Date.now()
    const refused = await users
      .logIn({ username, password: 'planted-one' }, undefined, begun + 4000)
      .catch((reason: unknown) => reason)
    expect(refused).toMatchObject({
      code: 'sink-denied',
      message: expect.stringMatching(/does not take its password, or not yet/),
    })
    expect(String(refused)).not.toContain('planted')
    expect(Date.now() - begun).toBeLessThan(8000)
  })

  it('is set by nobody without the right to', async () => {
    const operator = kafkaUsers(settings({}, 'operator'), clock)
    const setting = operator.setPassword({ username: 'gate', password: 'planted' }, soon())
    const message: unknown = expect.stringMatching(/Allow us Alter on the cluster/)
    await expect(setting).rejects.toMatchObject({ code: 'sink-denied', message })
  })
})

describe('rotation under load', () => {
  const TURNS = 10
  /** What clients are set to, and the waits that follow from it. */
  const SECRET_MAX_AGE_MS = 300
  const WAITS = '{ directoryGrace: 1s, secretHold: 1s, eventLife: 1s, margin: 1s, retention: 1d }'
  let moto: Emulator
  let real: RealShop
  let source: KafkaSource
  let poller: Poller
  let ports: RotationPorts
  let policies: ReadonlyMap<string, RotationPolicy>
  const appenders: KafkaAppender[] = []
  const failures: unknown[] = []
  const ending: (() => unknown)[] = []

  beforeAll(async () => {
    moto = await startMoto()
    real = await RealShop.open({ 'message.timestamp.type': 'LogAppendTime' })
    const suffix = unique()
    const pair = (name: string): readonly [string, string] => [`${name}-a.${suffix}`, `${name}-b.${suffix}`]
    const pointers = {
      gate: await newPrincipal(cluster, pair('gate'), gateAcl()),
      shop: await newPrincipal(cluster, pair('shop'), producerRights([prefixed('source.')])),
    }
    const { folder } = real.shop
    const brokers = connection.listeners['MANY'] ?? ''
    const rows = Object.entries(pointers).map(([name, { pointer, secrets }]) => {
      const where = `users: ['${secrets.join("', '")}'], brokers: ['${brokers}']`
      return `  ${name}: { kind: scram, pointer: '${pointer}', ${where} }\n`
    })
    const policyFile = join(folder, 'rotation.yaml')
    await writeFile(policyFile, `rotations:\n${rows.join('')}waits: ${WAITS}\n`)
    const { directoryPath, root } = await readLocalRoot(join(folder, 'keys'))
    const rotations = openRotations(
      {
        directory: { kind: 'file', path: directoryPath },
        ...{ roots: [publicKeyOf(root)], rootKey: { key: root }, kafka: () => admin },
      },
      policyFile,
      clock,
    )
    policies = new Map(rotations.policies.map((policy) => [policy.rotation.name, policy]))
    ports = await rotations.ports(soon())

    const sink = createKafkaSink(renewed(pointers.gate.pointer), clock)
    ending.push(() => sink.close())
    const gate = real.gate((parts) => ({ ...parts, sink }))
    source = createKafkaSource(settings({}, 'poller'))
    ending.push(() => source.close())
    const handle = ingestHandler(() => Promise.resolve(gate))
    poller = await startPoller({
      source,
      group: `poller.${unique()}`,
      topics: [real.source],
      handler: handle,
      options: { batchSize: 100, batchingWindowMs: 10, backoffMs: { initial: 10, max: 50 } },
    })
    ending.unshift(() => poller.stop())
    shopPointer = pointers.shop.pointer
  }, MOTO_MS + 60_000)
  afterAll(async () => {
    for (const end of ending) await end()
    await Promise.all(appenders.map((appender) => appender.close()))
    await real.end()
    await moto.end()
  })

  let shopPointer = ''

  /** The rights of the gate, for its topics of this test. */
  const gateAcl = (): AclEntry[] => {
    const outputs = [
      prefixed('output.'),
      prefixed(`${DEPLOYMENT}.audit`),
      prefixed(`${DEPLOYMENT}.quarantine`),
    ]
    return gateRights({ deployment: DEPLOYMENT, sources: [prefixed('source.')], outputs })
  }

  /** As whom the pointer says, where brokers want to know again every second. */
  const renewed = (pointer: string): KafkaSinkSettings =>
    settings({
      brokers: [connection.listeners['RENEWED']],
      sasl: { mechanism: 'scram-sha-512', secret: pointer },
      secretMaxAgeMs: SECRET_MAX_AGE_MS,
    })

  function newAppender(): KafkaAppender {
    const appender = createKafkaAppender(renewed(shopPointer), clock)
    appenders.push(appender)
    return appender
  }

  const told = async (secret: string): Promise<ScramLogin> =>
    readLogin((await ports.secrets.read(secret, soon())).value, secret)

  /** Rotates once; of every four turns one is of rotators that die, one of two at once. Gives how often one died. */
  async function turn(name: string, index: number): Promise<number> {
    const policy = policies.get(name)
    if (policy?.rotation.kind !== 'scram') throw new TypeError(`${name} is no SCRAM user`)
    const { pointer, users: secrets } = policy.rotation
    const before = await told(pointer)
    const logins = await Promise.all(secrets.map(told))
    const idle = logins.find(({ username }) => username !== before.username)
    if (idle === undefined) throw new Error('nobody is idle')
    for (let deaths = 0; ;) {
      const isMoved = (await told(pointer)).username !== before.username
      const isDeadly = index % 4 === 1 && deaths < 8
      const plans = await Promise.all(
        Array.from({ length: index % 4 === 2 ? 2 : 1 }, () =>
          mortalRun(
            { ...policy, now: !isMoved },
            isDeadly ? dying(ports, 1 + Math.floor(Math.random() * 14)) : ports,
          ),
        ),
      )
      deaths += plans.filter((plan) => plan === undefined).length
      const wait = plans.flatMap((plan) => plan?.steps ?? []).find((step) => step.do === 'wait')
      const after = await told(pointer)
      if (after.username !== before.username && plans.every((plan) => plan !== undefined)) {
        expect(after.username).toBe(idle.username)
        expect(after.password).not.toBe(idle.password)
        // The one before is good until his turn, the idle one's old password is not any more.
        if (index < 3)
          expect(await Promise.all([after, before, idle].map(isTaken))).toEqual([true, true, false])
        return deaths
      }
      if (wait !== undefined) await sleep(Math.max(0, wait.until * 1000 - Date.now()))
    }
  }

  it('loses no send and no invocation for want of a password', { timeout: 150_000 }, async () => {
    const begun = Date.now()
    let isOver = false
    let sent = 0
    let opened = 0
    const load = async (pauseMs: number, next: () => KafkaAppender): Promise<void> => {
      let appender = next()
      const sealer = await real.sealer({ deliver: (batch) => appender.append(recordsOf(batch)) })
      while (!isOver) {
        sent += 4
        const batch = orders(sent - 4, sent)
        await sealer.send('orders', batch).catch((error: unknown) => failures.push(error))
        await sleep(pauseMs)
        appender = next()
      }
    }
    const steady = newAppender()
    const loads = Promise.all([
      load(20, () => steady),
      load(100, () => {
        opened++
        void appenders.splice(1).map((appender) => appender.close())
        return newAppender()
      }),
    ])
    loads.catch(() => undefined)
    let deaths = 0
    try {
      await Promise.all(
        ['gate', 'shop'].map(async (name) => {
          for (let index = 0; index < TURNS; index++) deaths += await turn(name, index)
        }),
      )
    } finally {
      isOver = true
      await loads
    }
    expect(await poller.drained(30_000)).toBe(true)
    const { failures: invocations, lastError } = poller.stats()
    expect([failures, invocations, lastError]).toEqual([[], 0, undefined])
    const plain = await real.cluster.readCommitted(real.topicOf('orders.analytics'), 'consumer')
    expect(totals(plain)).toEqual(upTo(sent))
    expect(await real.cluster.readCommitted(real.quarantine)).toEqual([])
    expect(await real.verify()).toMatchObject({ verified: true, headsKnown: true, entries: sent })
    expect(deaths).toBeGreaterThan(0)
    const seconds = Math.round((Date.now() - begun) / 1000)
    process.stdout.write(
      `rotation: ${2 * TURNS} of SCRAM users; ${deaths} rotators died; ${sent} events in ${seconds} s, ${opened} producers logged in\n`,
    )
  })
})
