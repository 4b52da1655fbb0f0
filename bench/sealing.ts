/** Sealing by the library's own call: a batch of 128 events, one event, beside the peers. */
import { createSealer, type Sealer } from '../lib/client/sealer.ts'
import { generateKeyPair, random } from '../lib/envelope/crypto.ts'
import { ED25519, ESP256, type SignatureSuite } from '../lib/envelope/suite.ts'
import { localSigner } from '../lib/keys/signer.ts'
import { type Arm, measure, type Result, rounded, type Setting, spreadText } from './measure.ts'
import { CHANNEL, eventOf, GATEWAY, ISSUER, SLICE, WRAPPED_BYTES } from './world.ts'

const EVENTS = Array.from({ length: SLICE }, (_, index) => eventOf(index, 1024))

export async function sealing({ peers: load, effort }: Setting): Promise<Result> {
  const peers = await load()
  const sealers = [newSealer(ED25519), newSealer(ED25519), newSealer(ESP256)] as const
  const [batch, single, p256] = sealers
  const arms = [
    batchArm('batch', batch),
    singleArm('single', single),
    singleArm('single P-256', p256),
    ...peers.map((peer) => peer.sealing),
  ]
  const timings = await measure(arms, effort)
  await Promise.all(sealers.map((sealer) => sealer.close()))
  const cases = ['batch', 'single', 'single P-256'].map((name) => ({
    name,
    microseconds: timings.microseconds(name),
    eventsPerSecond: Math.round(timings.eventsPerSecond(name).median),
    peers: peers.map((peer) => ({ name: peer.name, ratio: timings.ratio(peer.name, name) })),
  }))
  return {
    table: [
      ['case', 'events/s', 'µs', ...peers.map(({ name }) => `× ${name}`)],
      ...cases.map((one) => [
        one.name,
        String(one.eventsPerSecond),
        one.microseconds.median.toFixed(1),
        ...one.peers.map(({ ratio }) => spreadText(ratio, 1)),
      ]),
    ],
    data: {
      rows: cases.map(({ name, eventsPerSecond, peers: beside }) => ({
        case: name,
        eventsPerSecond,
        peers: Object.fromEntries(beside.map((peer) => [peer.name, rounded(peer.ratio.median)])),
      })),
    },
  }
}

/** A sealer whose key service is a random generator: its one call is made before anything is measured. */
function newSealer(suite: SignatureSuite): Sealer {
  return createSealer({
    iss: ISSUER,
    audience: GATEWAY,
    signer: localSigner(generateKeyPair(suite).privateKey),
    kek: { kekId: 'shop-2026', provider: 'bench', key: 'bench' },
    keyService: {
      generate: () => Promise.resolve({ dataKey: random(32), wrapped: random(WRAPPED_BYTES) }),
      unwrap: () => Promise.reject(new TypeError('nobody asks')),
    },
    partitions: 1,
  })
}

const batchArm = (name: string, sealer: Sealer): Arm => ({
  name,
  events: SLICE,
  run: () => sealer.seal(CHANNEL, EVENTS),
})

const singleArm = (name: string, sealer: Sealer): Arm => ({
  name,
  events: SLICE,
  run: async () => {
    for (const event of EVENTS) await sealer.seal(CHANNEL, event)
  },
})
