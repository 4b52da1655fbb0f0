/** The gateway's signing key, and a producer's, replaced again and again on real Kafka while events go through. */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Consumer } from 'kafkajs'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { ingestHandler } from '../../functions/ingest-handler.ts'
import { createKafkaSource, type KafkaSource } from '../../lib/adapters/kafka-source.ts'
import { isSegment, parseSegment } from '../../lib/audit/segment.ts'
import { createOpener, type Opener } from '../../lib/client/opener.ts'
import type { Sealer } from '../../lib/client/sealer.ts'
import { publicKeyOf } from '../../lib/envelope/crypto.ts'
import { ED25519 } from '../../lib/envelope/suite.ts'
import type { Directory } from '../../lib/keys/directory.ts'
import { publishChange } from '../../lib/keys/directory-publisher.ts'
import { createDirectory } from '../../lib/keys/directory-reader.ts'
import type { RotationPolicy } from '../../lib/keys/rotation.ts'
import { readDocument } from '../../lib/keys/rotation-state.ts'
import type { RotationPorts } from '../../lib/keys/rotation-steps.ts'
import { newSigningSecret, openSecretSigner, readSigningSecret } from '../../lib/keys/signing-secret.ts'
import { type Poller, startPoller } from '../../lib/local/poller.ts'
import { readLocalRoot } from '../../lib/local/root.ts'
import { LOCAL_GATEWAY, LOCAL_SIGNING_SECRET } from '../../lib/local/stack.ts'
import type { Signer } from '../../lib/ports.ts'
import { openLocalRotations } from '../../lib/rotation-runtime.ts'
import { dying, mortalRun } from './dying-rotator.ts'
import { orders, RealShop, upTo } from './shop.ts'
import { client, settings, soon, text, unique } from './world.ts'

const TURNS = 20
const PRODUCER = 'shop-web'
const PRODUCER_SECRET = 'signing-shop-web'
/** What all here are set to, and the waits that follow from it. */
const DIRECTORY = { maxAgeMs: 200, graceMs: 1000, retryMs: 100 }
const SECRET = { maxAgeMs: 100, holdMs: 1000 }
const POLICY = `rotations:
  gateway: { kind: signing-key, iss: ${LOCAL_GATEWAY}, secret: ${LOCAL_SIGNING_SECRET}, period: 90d }
  producer: { kind: signing-key, iss: ${PRODUCER}, secret: ${PRODUCER_SECRET}, period: 90d }
waits: { directoryGrace: 1s, secretHold: 1s, eventLife: 5s, margin: 1s, retention: 365d }
`
const clock = { now: () => Date.now() }

let real: RealShop
let source: KafkaSource
let policies: ReadonlyMap<string, RotationPolicy>
let ports: RotationPorts
let poller: Poller
let consumer: Consumer | undefined
const openers: Opener[] = []
const sealers: Sealer[] = []

beforeAll(async () => {
  real = await RealShop.open({ 'message.timestamp.type': 'LogAppendTime' })
  const { folder } = real.shop
  const policyFile = join(folder, 'rotation.yaml')
  await writeFile(policyFile, POLICY)
  const { directoryPath, root } = await readLocalRoot(join(folder, 'keys'))
  const trust = {
    directory: { kind: 'file', path: directoryPath } as const,
    ...{ roots: [publicKeyOf(root)], rootKey: { key: root } },
  }
  const rotations = await openLocalRotations(folder, trust, policyFile, clock)
  policies = new Map(rotations.policies.map((policy) => [policy.rotation.name, policy]))
  ports = await rotations.ports(soon())
  await enrolProducer()
  const signer = (secret: string): Promise<Signer> =>
    openSecretSigner({ secrets: ports.secrets, secret, clock, ...SECRET }, soon())
  const gatewaySigner = await signer(LOCAL_SIGNING_SECRET)
  const gate = real.gate((parts) => ({ ...parts, directory: ownDirectory(), signer: gatewaySigner }))
  source = createKafkaSource(settings({}, 'poller'))
  poller = await startPoller({
    source,
    group: `poller.${unique()}`,
    topics: [real.source],
    handler: ingestHandler(() => Promise.resolve(gate)),
    options: { batchSize: 100, batchingWindowMs: 10, backoffMs: { initial: 10, max: 50 } },
  })
  sealers.push(await real.sealer({ signer: await signer(PRODUCER_SECRET) }), await real.sealer())
})
afterAll(async () => {
  await consumer?.disconnect()
  await poller.stop()
  for (const opener of openers) opener.close()
  await source.close()
  await real.end()
})

/** A copy of its own, as each process has one. */
const ownDirectory = (): Directory => createDirectory({ ...real.shop.stack.directory, clock, ...DIRECTORY })

/** Gives the producer a key in a secret, beside the one that it has. */
async function enrolProducer(): Promise<void> {
  const value = newSigningSecret(ED25519)
  const key = publicKeyOf(readSigningSecret(value, PRODUCER_SECRET))
  const notBefore = Math.floor(Date.now() / 1000) - 10
  await publishChange(
    ports.directory,
    (draft) => draft.enrol({ iss: PRODUCER, key, state: 'active', notBefore, notAfter: notBefore + 100_000 }),
    soon(),
  )
  await ports.secrets.stage(PRODUCER_SECRET, value, 'AWSCURRENT', '0'.repeat(32), soon())
}

/** Rotates once, and gives how often a rotator died over it. Of every three turns one is of rotators that die, one of two at once. */
async function turn(name: string, index: number): Promise<number> {
  const policy = policies.get(name)
  if (policy?.rotation.kind !== 'signing-key') throw new TypeError(`${name} is no signing key`)
  const { secret } = policy.rotation
  const version = async (): Promise<string> => (await ports.secrets.read(secret, soon())).version
  const before = await version()
  for (let deaths = 0; ;) {
    const asked = { ...policy, now: (await version()) === before }
    const isDeadly = index % 3 === 1 && deaths < 8
    const runs = index % 3 === 2 ? 2 : 1
    const plans = await Promise.all(
      Array.from({ length: runs }, () =>
        mortalRun(asked, isDeadly ? dying(ports, 1 + Math.floor(Math.random() * 12)) : ports),
      ),
    )
    deaths += plans.filter((plan) => plan === undefined).length
    const wait = plans.flatMap((plan) => plan?.steps ?? []).find((step) => step.do === 'wait')
    if (wait !== undefined) await sleep(Math.max(0, wait.until * 1000 - Date.now()))
    else if (plans.every((plan) => plan !== undefined) && (await version()) !== before) return deaths
  }
}

/** Reads with two consumers' directories, of which each opens all. */
async function consume(opened: readonly Set<string>[], refused: string[]): Promise<void> {
  const fulfilment = real.shop.stack.consumer('fulfilment')
  while (openers.length < opened.length)
    openers.push(
      createOpener({
        ...{ audience: 'fulfilment', issuers: [LOCAL_GATEWAY], keyService: fulfilment.keyService },
        ...{ directory: ownDirectory(), timestampType: 'LogAppendTime' },
        channelOf: () => 'orders.fulfilment',
      }),
    )
  consumer = client('consumer').consumer({ groupId: `consumer.${unique()}`, maxWaitTimeInMs: 100 })
  await consumer.connect()
  await consumer.subscribe({ topics: [real.topicOf('orders.fulfilment')], fromBeginning: true })
  await consumer.run({
    eachBatch: async ({ batch }) => {
      for (const [index, opener] of openers.entries())
        for (const one of await opener.openBatch(batch))
          if (one.opened) opened[index]?.add(JSON.parse(text(one.payload)).orderId)
          else refused.push(`${one.code}: ${one.reason}`)
    },
  })
}

it('refuses no event, at the gate or after it, and the audit holds', { timeout: 300_000 }, async () => {
  const begun = Date.now()
  const opened = [new Set<string>(), new Set<string>()]
  const refused: string[] = []
  await consume(opened, refused)
  let isOver = false
  let sent = 0
  const loads = sealers.map(async (sealer) => {
    while (!isOver) {
      sent += 4
      await sealer.send('orders', orders(sent - 4, sent))
      await sleep(20)
    }
  })
  const failure = Promise.all(loads).then(() => undefined)
  failure.catch(() => undefined)

  let [producerTurns, deaths] = [0, 0]
  // By the key that is current: once the gate's copy of the one before is too old, until events that were sent since are through.
  const passes = async (): Promise<void> => {
    await sleep(SECRET.maxAgeMs + 10)
    const before = sent
    const come = (): unknown => [refused, opened.every(({ size }) => size > before)]
    await expect.poll(come, { timeout: 60_000 }).toEqual([[], true])
  }
  const rotateGateway = async (): Promise<void> => {
    await passes()
    for (let index = 0; index < TURNS; index++) {
      deaths += await turn('gateway', index)
      await passes()
    }
    isOver = true
  }
  const rotateProducer = async (): Promise<void> => {
    for (; !isOver; producerTurns++) deaths += await turn('producer', producerTurns + 1)
  }
  try {
    await Promise.all([rotateGateway(), rotateProducer()])
  } finally {
    isOver = true
    await failure
  }
  const passed = await poller.drained(30_000)
  for (let tries = 0; tries < 1200 && opened.some(({ size }) => size < sent); tries++) await sleep(50)

  expect([passed, refused]).toEqual([true, []])
  expect(opened.map(({ size }) => size)).toEqual([sent, sent])
  expect(await real.cluster.readCommitted(real.quarantine)).toEqual([])
  const audit = await real.cluster.readCommitted(real.audit, 'consumer')
  const signers = audit.flatMap(({ value }) =>
    value !== null && isSegment(value) ? [Buffer.from(parseSegment(value)?.kid ?? []).toString('hex')] : [],
  )
  expect(new Set(signers).size).toBe(TURNS + 1)
  expect(await real.verify()).toMatchObject({ verified: true, headsKnown: true, entries: sent })
  const { signingKeys } = await readDocument(ports, soon())
  const states = (iss: string): string[] =>
    signingKeys.filter((row) => row.iss === iss).map(({ state }) => state)
  expect(states(LOCAL_GATEWAY).sort()).toEqual(['active', ...upTo(TURNS).map(() => 'deactivated')])
  expect(producerTurns).toBeGreaterThan(TURNS / 2)
  expect(deaths).toBeGreaterThan(0)
  const seconds = Math.round((Date.now() - begun) / 1000)
  process.stdout.write(
    `rotation: gateway ${TURNS} times, producer ${producerTurns}; ${deaths} rotators died; ${sent} events in ${seconds} s, ${poller.stats().failures} invocations again\n`,
  )
})
