/** The example in Python (docs/python.md): what it opens, refuses and seals is what the client and the gate do. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { toMskEvent } from '../../lib/adapters/msk-event.ts'
import { createOpener } from '../../lib/client/opener.ts'
import { exportPrivateJwk } from '../../lib/envelope/crypto.ts'
import { parse } from '../../lib/envelope/format.ts'
import { partitionOf } from '../../lib/envelope/partition.ts'
import { ED25519, ESP256 } from '../../lib/envelope/suite.ts'
import { Rejection } from '../../lib/errors.ts'
import { createDirectory } from '../../lib/keys/directory-reader.ts'
import { openLocalKeyService } from '../../lib/local/key-service.ts'
import { localKeyPort } from '../../lib/local/key-service-port.ts'
import { openLocalKeys } from '../../lib/local/root.ts'
import { LOCAL_GATEWAY } from '../../lib/local/stack.ts'
import { openShop, ORDER_TYPE } from '../shop.ts'
import { type KmsEndpoint, startKmsEndpoint } from '../../lib/local/kms-endpoint.ts'
import {
  clock,
  type Ending,
  KEK,
  kidOf,
  lying,
  openWorld,
  recordsOf,
  type Sealed,
  seconds,
  serveAnswer,
} from './python/gateway.ts'
import { openPythonExample, type PythonExample, serveKeys } from './python/world.ts'

let python: PythonExample
beforeAll(async () => {
  python = await openPythonExample()
}, 300_000)
afterAll(() => python.close())

const ending: Ending = []
afterEach(async () => {
  for (const end of ending.splice(0).toReversed()) await end()
})

describe('the opener in Python', () => {
  it('decides every conformance vector as expected, but for what only a gateway decides', async () => {
    const { status, stdout } = await python.run(python.command('vectors'))
    expect(stdout.trim().split('\n')).toEqual([
      'batch.json: 12 as expected, 0 not, 0 left out',
      'binding.json: 7 as expected, 0 not, 0 left out',
      'clock.json: 8 as expected, 0 not, 1 left out',
      'contracts.json: 0 as expected, 0 not, 6 left out',
      'data-key-again.json: 2 as expected, 0 not, 0 left out',
      'data-key.json: 8 as expected, 0 not, 0 left out',
      'headers.json: 4 as expected, 0 not, 0 left out',
      'keys.json: 9 as expected, 0 not, 0 left out',
      'limits.json: 5 as expected, 0 not, 6 left out',
      'malformed.json: 20 as expected, 0 not, 0 left out',
      'replay.json: 11 as expected, 0 not, 4 left out',
      'single.json: 9 as expected, 0 not, 0 left out',
      'time.json: 7 as expected, 0 not, 0 left out',
    ])
    expect(status).toBe(0)
  })

  it.each([
    ['Ed25519', ED25519],
    ['ES256', ESP256],
  ])('opens what the client sealed with %s, alone and in batches, at one request a key', async (_, suite) => {
    const { enrol, sealed, serve, env, kms } = await openWorld(ending)
    const key = await enrol('gateway-eu', suite)
    const messages = [...(await sealed(key, 1)), ...(await sealed(key, 5)), ...(await sealed(key, 8))]
    const { url, asked } = await serve()
    const { status, events, refused, committed } = await python.consume(recordsOf(messages), env(url))
    expect({ status, refused, committed }).toEqual({ status: 0, refused: [], committed: 14 })
    expect(events.map(({ data }) => data)).toEqual(
      [0, 0, 1, 2, 3, 4, 0, 1, 2, 3, 4, 5, 6, 7].map((index) => ({ index, name: 'Zoë' })),
    )
    expect(events[0]).toMatchObject({ iss: 'gateway-eu', source: '/shop', type: ORDER_TYPE, subject: 'ü' })
    expect(asked).toEqual([`/keys/${kidOf(key)}`])
    // Three sealers, so three data keys.
    expect(kms.asked).toEqual(['Decrypt', 'Decrypt', 'Decrypt'])
  })

  it('refuses what was altered, moved, or sealed for somebody else or by somebody else, and goes on', async () => {
    const { enrol, sealed, serve, env } = await openWorld(ending)
    const key = await enrol('gateway-eu')
    const [good] = await sealed(key, 1)
    if (good === undefined) throw new Error('nothing sealed')
    // Its ciphertext ends before its recipient, and its signature with it.
    const inCiphertext = good.value.indexOf(KEK.kekId) - 20
    const cases: readonly (readonly [string, Sealed])[] = [
      ['value-missing', { ...good, value: null }],
      ['malformed', { ...good, value: Buffer.concat([good.value, Buffer.from([0])]) }],
      ['malformed', { ...good, value: Buffer.from('{"orderId":"A-1"}') }],
      ['hint-mismatch', { ...good, headers: [{ name: 'ce_type', value: Buffer.from('other') }] }],
      ['signature-invalid', { ...good, value: altered(good.value, good.value.length - 1) }],
      ['signature-invalid', { ...good, value: altered(good.value, inCiphertext) }],
      ['signature-invalid', { ...good, partition: good.partition + 1 }],
      ['signature-invalid', { ...good, key: Buffer.from('B') }],
      ['signature-invalid', { ...good, key: null }],
      ['audience-mismatch', (await sealed(key, 1, { audience: 'analytics' }))[0] ?? good],
      ['key-unknown', (await sealed(await enrol('gateway-eu', ED25519, false), 1))[0] ?? good],
      ['issuer-mismatch', (await sealed(await enrol('other'), 1))[0] ?? good],
      ['not-authorised', (await sealed(await enrol('other'), 1, { iss: 'other' }))[0] ?? good],
      ['time-invalid', (await sealed(key, 1, { clock: { now: () => Date.now() - 7_200_000 } }))[0] ?? good],
      ['time-invalid', (await sealed(key, 1, { clock: { now: () => Date.now() + 400_000 } }))[0] ?? good],
      ['undecryptable', (await sealed(key, 1, { kek: { ...KEK, key: 'x' }, keyService: lying }))[0] ?? good],
    ]
    const messages = [...cases.map(([, message]) => message), good]
    const { url } = await serve()
    const { status, events, refused, committed } = await python.consume(recordsOf(messages), env(url))
    expect(refused).toEqual(cases.map(([code], index) => `${index} ${code}`))
    expect(events).toHaveLength(1)
    expect({ status, committed }).toEqual({ status: 0, committed: messages.length })
    const moved = await python.consume(recordsOf([good]), { ...env(url), CHANNEL: 'payments' })
    expect(moved.refused).toEqual(['0 signature-invalid'])
  })

  it('judges a key by its state at the time of the broker', async () => {
    const { enrol, sealed, serve, env, change } = await openWorld(ending)
    const key = await enrol('gateway-eu')
    const now = seconds()
    const messages = await sealed(key, 1)
    const kid = kidOf(key)
    const at = async (second: number) => {
      const { url } = await serve()
      const records = recordsOf(messages, { timestamp: second * 1000 })
      const { events, refused } = await python.consume(records, env(url))
      return refused[0] ?? `${events.length} opened`
    }
    expect(await at(now)).toBe('1 opened')
    await change((draft) => draft.suspend(kid))
    expect(await at(now)).toBe('0 key-not-valid')
    await change((draft) => draft.revoke(kid, now - 10))
    expect(await at(now)).toBe('0 key-not-valid')
    expect(await at(now - 10)).toBe('0 key-not-valid')
    expect(await at(now - 11)).toBe('1 opened')
    await change((draft) => draft.revoke(kid, null))
    expect(await at(now - 11)).toBe('0 key-not-valid')
  })

  it('decides nothing where the function of keys or KMS does not answer as it should', async () => {
    const { enrol, sealed, env, serve } = await openWorld(ending)
    const records = recordsOf(await sealed(await enrol('gateway-eu'), 1))
    const { url } = await serve()
    const outages = [
      env('http://127.0.0.1:1'),
      env(await serveAnswer(ending, 503, '{"error":"the key directory cannot be read now"}')),
      env(await serveAnswer(ending, 404, '{"message":"Not Found"}')),
      env(await serveAnswer(ending, 302, '', { location: `${url}/keys/x` })),
      env(await serveAnswer(ending, 200, '{"keys":[]}')),
      env(await serveAnswer(ending, 200, 'x'.repeat(70_000))),
      env(url, 'http://127.0.0.1:1'),
      env(url, await serveAnswer(ending, 400, '{"__type":"AccessDeniedException"}')),
    ]
    for (const outage of outages) {
      const { status, events, refused, committed, stderr } = await python.consume(records, outage)
      expect({ status, events, refused, committed }).toEqual({
        status: 1,
        events: [],
        refused: [],
        committed: 0,
      })
      expect(stderr).toMatch(/^outage: /)
    }
    const definite = env(url, await serveAnswer(ending, 400, '{"__type":"InvalidCiphertextException"}'))
    expect((await python.consume(records, definite)).refused).toEqual(['0 undecryptable'])
    const ahead = recordsOf(records, { timestamp: Date.now() + 400_000 })
    expect((await python.consume(ahead, env(url))).stderr).toMatch(/^outage: the broker's clock/)
    const { status, stderr } = await python.consume(records, { ...env(url), KEYS_URL: 'http://keys.example' })
    expect(status).toBe(1)
    expect(stderr).toContain('must begin with https://')
  })

  it('asks for no more than 60 kids a minute, whatever strangers sign with', async () => {
    const { enrol, sealed, env, serve } = await openWorld(ending)
    const [good] = await sealed(await enrol('gateway-eu'), 1)
    if (good === undefined) throw new Error('nothing sealed')
    const { value } = good
    const at = value.lastIndexOf(Buffer.from('application/vnd.sealgate.proof'))
    const flood = Array.from({ length: 62 }, (_, index) => {
      const other = Buffer.from(value)
      other.writeUInt32BE(index, at - 20)
      return { ...good, value: other }
    })
    const { url, asked } = await serve()
    const { status, refused } = await python.consume(recordsOf(flood), env(url))
    expect(refused).toEqual(Array.from({ length: 60 }, (_, index) => `${index} key-unknown`))
    expect(asked).toHaveLength(60)
    expect(status).toBe(1)
  })

  it('parses as the gate does, whichever byte of a value is another, one too many or missing', async () => {
    const { enrol, sealed } = await openWorld(ending)
    const key = await enrol('gateway-eu')
    const values = [...(await sealed(key, 1)), ...(await sealed(key, 3)).slice(0, 1)].flatMap(({ value }) =>
      [...value.keys()].flatMap((at) => [
        altered(value, at),
        Buffer.concat([value.subarray(0, at), Buffer.from([0xf9]), value.subarray(at)]),
        Buffer.concat([value.subarray(0, at), value.subarray(at + 1)]),
      ]),
    )
    const gate = values.map((value) => {
      try {
        parse(value, 1_048_576)
        return 'good'
      } catch (error) {
        return error instanceof Rejection ? error.code : String(error)
      }
    })
    expect(new Set(gate)).toEqual(new Set(['good', 'malformed', 'unsupported']))
    const program = `
from sealed_event import parse
def judge(text):
    parse(bytes.fromhex(text), 1_048_576)`
    const judged = await python.judge(
      program,
      values.map((value) => value.toString('hex')),
    )
    expect(judged).toEqual(gate)
  })

  it('reads I-JSON and nothing else', async () => {
    const good = ['{"a":1}', 'null', '1e999', '-0.5', '9'.repeat(5000), '"\\ud83d\\ude00"', '{"__proto__":1}']
    const bad = [
      ...['', '{"a":1,"a":2}', '{"a":{"b":1,"b":1}}', 'NaN', '-Infinity', '01', '{}x', "{'a':1}"],
      ...['"\\ud800"', '{"\\udc00":1}', '"\\ufdd0"', '"\\ud83f\\udffe"', '\ufeff{}', '['.repeat(50_000)],
    ]
    const program = `
from opener import read_json
def judge(text):
    read_json(text.encode())`
    expect(await python.judge(program, [...good, ...bad])).toEqual([
      ...good.map(() => 'good'),
      ...bad.map(() => 'schema-invalid'),
    ])
  })
})

describe('the sealer in Python', () => {
  it('seals what the gate admits, and its opener opens what the gate then gives out', async () => {
    const shop = await openShop()
    ending.push(() => shop.close())
    const keyFolder = join(shop.folder, 'keys')
    const keyService = await openLocalKeyService(keyFolder, clock)
    const keys = await openLocalKeys(keyFolder, keyService, clock)
    const kms = async (principal: string): Promise<KmsEndpoint> => {
      const endpoint = await startKmsEndpoint(keyService, principal)
      ending.push(() => endpoint.end())
      return endpoint
    }
    const producing = shop.stack.producer('shop-web')
    const signingKey = join(shop.folder, 'shop-web.jwk')
    await writeFile(signingKey, JSON.stringify(keys.privateJwk('shop-web')), { mode: 0o600 })
    const produced = await python.produce('as shown', {
      ...{ TOPIC: 'orders', ISSUER: 'shop-web', AUDIENCE: producing.audience, PARTITIONS: '2' },
      ...{
        KEK_NAME: producing.kek.kekId,
        KEK_ARN: producing.kek.key,
        KMS_ENDPOINT: (await kms('shop-web')).url,
      },
      ...{ SIGNING_KEY: signingKey, KID: Buffer.from(producing.signer.kid).toString('base64url') },
      ...{ SOURCE: '/shop/web', TYPE: ORDER_TYPE },
    })
    await shop.log.append(produced)
    const records = await shop.records('orders')
    expect(records).toHaveLength(1)
    const gate = shop.gate()
    ending.push(() => gate.close())
    await gate.handle(
      toMskEvent(records, { eventSourceArn: 'arn', bootstrapServers: 'b' }),
      Date.now() + 20_000,
    )
    expect(await shop.codes()).toEqual([])
    const outputs = await shop.records('orders.fulfilment')
    const served = await serveKeys(shop.stack.directory)
    ending.push(() => served.end())
    const gateway = keys.kek(LOCAL_GATEWAY)
    const opened = await python.consume(outputs, {
      ...{ TOPIC: 'orders.fulfilment', ISSUER: LOCAL_GATEWAY, AUDIENCE: 'fulfilment', KEYS_URL: served.url },
      ...{ KEK_NAME: gateway.kekId, KEK_ARN: gateway.key, KMS_ENDPOINT: (await kms('fulfilment')).url },
    })
    expect(opened.stderr).toBe('')
    expect(opened.events.map(({ iss, data }) => ({ iss, data }))).toEqual([
      { iss: LOCAL_GATEWAY, data: { orderId: 'A-1', total: '19.9', customer: { id: 'c-7' } } },
    ])
  })

  it('begins another session in the child of a fork, under another data key', async () => {
    const { stdout, stderr } = await python.run(`.venv/bin/python - <<'END'
import os
from cryptography.hazmat.primitives.asymmetric import ed25519
from sealed_event import Place, parse
from sealer import Sealer

key = ed25519.Ed25519PrivateKey.generate()
made = lambda kek, context: (os.urandom(32), os.urandom(184))
sealer = Sealer(iss="a", audience="b", kid=b"c", key=key, kek=("k", "k"), generate=made)

def seal():
    value, _ = sealer.seal(Place("orders", 0, None), source="/s", type="t", data={})
    body, _ = parse(value, 1_048_576)
    print(body.claims.session.hex(), body.claims.number, body.wrapped.hex()[:8], flush=True)

seal()
seal()
if os.fork() == 0:
    seal()
    os._exit(0)
os.wait()
seal()
END`)
    expect(stderr).toBe('')
    const [one, two, child, three] = stdout.split('\n').map((line) => line.split(' '))
    expect([one?.[1], two?.[1], child?.[1], three?.[1]]).toEqual(['0', '1', '0', '2'])
    for (const part of [0, 2]) {
      expect([two?.[part], three?.[part]]).toEqual([one?.[part], one?.[part]])
      expect(child?.[part]).not.toBe(one?.[part])
    }
  })

  it('signs with P-256 too, numbers what it sends, and chooses partitions as every client does', async () => {
    const { enrol, serve, env, keys, store, publisher, change, arn } = await openWorld(ending)
    const key = await enrol('gateway-eu', ESP256)
    await change((draft) => draft.grantKek({ ...KEK, key: arn }, 'gateway-eu'))
    const folder = await mkdtemp(join(tmpdir(), 'python-key-'))
    ending.push(() => rm(folder, { recursive: true }))
    const path = join(folder, 'key.jwk')
    await writeFile(path, JSON.stringify(exportPrivateJwk(key)), { mode: 0o600 })
    const names = Array.from(
      { length: 40 },
      (_, index) => 'key-ü'.repeat(3).slice(0, index % 14) + String(index),
    )
    const produced = await python.produce(
      names.map((name, index) => `${name} {"index":${index}}`),
      {
        ...env((await serve()).url),
        ...{ SIGNING_KEY: path, KID: kidOf(key), PARTITIONS: '7', SOURCE: '/shop', TYPE: ORDER_TYPE },
      },
    )
    expect(produced.map((record) => record.key.toString())).toEqual(names)
    expect(produced.map(({ partition }) => partition)).toEqual(
      names.map((name) => partitionOf(Buffer.from(name), 7)),
    )
    const opener = createOpener({
      ...{ audience: 'fulfilment', issuers: ['gateway-eu'], keyService: localKeyPort(keys, clock) },
      directory: createDirectory({ source: store, roots: publisher.roots, clock }),
    })
    const numbers = new Map<number, bigint>()
    for (const [index, { topic, partition, headers, ...record }] of produced.entries()) {
      const message = {
        ...{ ...record, timestamp: String(Date.now()), offset: String(index) },
        headers: Object.fromEntries(headers.map(({ name, value }) => [name, value])),
      }
      const opened = await opener.open({ topic, partition, message })
      if (!opened.opened) throw new Error(opened.reason)
      expect(opened.event.data).toEqual({ index })
      const number = numbers.get(partition) ?? 0n
      expect(opened.event.number).toBe(number)
      numbers.set(partition, number + 1n)
    }
    opener.close()
  })
})

/** With one bit changed. */
function altered(value: Uint8Array, at: number): Buffer {
  const other = Buffer.from(value)
  other[at] = (other[at] ?? 0) ^ 1
  return other
}
