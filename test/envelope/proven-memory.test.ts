/** What a gate keeps of the batches that it has proven, between slices. */
import { setTimeout } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { expect, it } from 'vitest'
import { DataKey, generateKeyPair, random, sign } from '../../lib/envelope/crypto.ts'
import { parse } from '../../lib/envelope/format.ts'
import { prove, sealBody } from '../../lib/envelope/seal.ts'
import { ED25519 } from '../../lib/envelope/suite.ts'
import { ProvenBatches, verify } from '../../lib/envelope/verify.ts'

const PLACE = { channel: 'orders', partition: 0, key: null }
const BOUNDS = { audience: 'gate', time: 1_790_000_000, maxLifeSeconds: 86_400 }
const BATCHES = 300

it('is no more than their own bytes, not the memory that they once stood in', async () => {
  const { privateKey, publicKey } = generateKeyPair(ED25519)
  const dataKey = new DataKey(random(32))
  const signer = {
    kid: Buffer.from('kid-1'),
    alg: ED25519.cose,
    sign: (bytes: Uint8Array) => Promise.resolve(sign(privateKey, bytes)),
  }
  const claims = {
    iss: 'shop',
    aud: 'gate',
    iat: 1_789_999_999n,
    exp: 1_790_003_600n,
    contentType: 'application/json',
    ce: new Map([
      ['id', 'A-1'],
      ['source', '/shop'],
      ['type', 'com.example.order.v1'],
      ['specversion', '1.0'],
    ]),
    session: Buffer.alloc(16, 7),
    number: 1n,
  }
  const recipient = { kekId: Buffer.from('kek-1'), wrapped: Buffer.alloc(184, 9) }
  const batches = new ProvenBatches()
  const proveOne = async (): Promise<void> => {
    const bodies = [1, 2].map(() => sealBody(claims, PLACE, Buffer.from('{}'), dataKey, recipient))
    const [value] = await prove(bodies, signer)
    verify(parse(value ?? null, 1_048_576), PLACE, publicKey, BOUNDS, batches)
    batches.endSlice()
    // The rest of a slice: what it takes from Buffer's pool is given back, if nothing of it is kept.
    Buffer.allocUnsafe(Buffer.poolSize / 3)
    Buffer.allocUnsafe(Buffer.poolSize / 3)
  }
  await proveOne()
  const before = await kept()
  for (let count = 0; count < BATCHES; count++) await proveOne()
  const perBatch = ((await kept()) - before) / BATCHES
  expect(perBatch).toBeLessThan(2000)
})

/** Bytes outside JavaScript's heap that are still held after a full collection. */
async function kept(): Promise<number> {
  setFlagsFromString('--expose-gc')
  const collect: unknown = runInNewContext('gc')
  if (!isAction(collect)) throw new Error('no way to collect garbage')
  collect()
  // What was collected is handed back beside us.
  await setTimeout(100)
  collect()
  return process.memoryUsage().arrayBuffers
}

const isAction = (value: unknown): value is () => void => typeof value === 'function'
