/** The runbooks of docs/rotation.md, command by command as they stand there, while events go through an embedded stack. */
import { generateKeyPairSync } from 'node:crypto'
import { copyFile, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { ingestHandler } from '../../functions/ingest-handler.ts'
import type { IngestParts } from '../../lib/admission/slice.ts'
import { createOpener } from '../../lib/client/opener.ts'
import type { Sealer } from '../../lib/client/sealer.ts'
import { exportPublicJwk, type PrivateKey, type PublicKey } from '../../lib/envelope/crypto.ts'
import { createDataKeys } from '../../lib/keys/data-keys.ts'
import type { Directory } from '../../lib/keys/directory.ts'
import { type DirectoryDocument, parseDirectory, sealDirectory } from '../../lib/keys/directory-document.ts'
import { createDirectory } from '../../lib/keys/directory-reader.ts'
import { shieldKeyService } from '../../lib/keys/key-service-shield.ts'
import { localSigner } from '../../lib/keys/signer.ts'
import { openSecretSigner } from '../../lib/keys/signing-secret.ts'
import { openLocalKeyService } from '../../lib/local/key-service.ts'
import { localKeyPort } from '../../lib/local/key-service-port.ts'
import { polledLog, type Poller, startPoller } from '../../lib/local/poller.ts'
import { openLocalSecrets } from '../../lib/local/secrets.ts'
import { LOCAL_GATEWAY, LOCAL_SIGNING_SECRET } from '../../lib/local/stack.ts'
import { privateKeyOf, rootsOf } from '../../lib/settings.ts'
import { blocksOf, type Ended, runBlock } from '../runbook.ts'
import { openShop, ORDER_TYPE, type Shop } from '../shop.ts'

const clock = { now: () => Date.now() }
const soon = (): number => Date.now() + 5000
/** Copies that gates and consumers keep here: days are seconds, and a busy machine is no outage. */
const YOUNG = { maxAgeMs: 100, graceMs: 3000, readMs: 2500, retryMs: 50 }

let folder = ''
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'root-'))
})
afterEach(() => rm(folder, { recursive: true }))

const ok = async (block: string, env: Readonly<Record<string, string>> = {}): Promise<Ended> => {
  const ended = await runBlock(folder, block, env)
  expect([ended.status, ended.err]).toEqual([0, ''])
  return ended
}
const pinned = async (file: string): Promise<PublicKey[]> => rootsOf(await readFile(join(folder, file)))

/** The stack of a runbook, its gate, a producer and a consumer. */
class Scene {
  readonly shop: Shop
  readonly path: string
  readonly #sealer: Sealer
  readonly #pollers: Poller[] = []

  constructor(shop: Shop) {
    this.shop = shop
    this.path = join(shop.folder, 'keys', 'directory.jws')
    this.#sealer = shop.sealer('shop-web')
  }

  copyBy(roots: readonly PublicKey[] = this.shop.stack.directory.roots): Directory {
    return createDirectory({ source: this.shop.stack.directory.source, roots, clock, ...YOUNG })
  }

  async start(parts: Partial<IngestParts> = {}): Promise<Poller> {
    const gate = this.shop.gate((usual) => ({ ...usual, directory: this.copyBy(), ...parts }))
    const poller = await startPoller({
      ...{ source: polledLog(this.shop.log), group: 'gate', topics: ['orders'] },
      handler: ingestHandler(() => Promise.resolve(gate)),
      options: { batchSize: 50, batchingWindowMs: 10, backoffMs: { initial: 10, max: 50 } },
    })
    this.#pollers.push(poller)
    return poller
  }

  async send(from: number, count: number, sealer = this.#sealer, channel = 'orders'): Promise<void> {
    await sealer.send(
      channel,
      Array.from({ length: count }, (_, index) => ({
        ...{ type: ORDER_TYPE, source: '/shop/web', key: `c${index}` },
        data: { orderId: `A-${from + index}`, total: from + index, customer: { id: 'c' } },
      })),
    )
  }

  /** How many were sent. */
  async sendUntil(signal: AbortSignal): Promise<number> {
    for (let sent = 0; ; sent += 5) {
      if (signal.aborted) return sent
      await this.send(sent, 5)
      await sleep(20)
    }
  }

  /** What a consumer makes of all that came out: undefined for what it opened, else the code. */
  async opened(roots?: readonly PublicKey[]): Promise<(string | undefined)[]> {
    const { audience, keyService } = this.shop.stack.consumer('fulfilment')
    const opener = createOpener({
      ...{ audience, keyService, issuers: [LOCAL_GATEWAY], directory: this.copyBy(roots) },
      timestampType: 'LogAppendTime',
    })
    const codes = []
    const records = await this.shop.records('orders.fulfilment')
    for (const { topic, partition, key, value, offset, timestamp } of records) {
      const message = { key, value, offset: String(offset), timestamp: String(timestamp) }
      const one = await opener.open({ topic, partition, message })
      codes.push(one.opened ? undefined : one.code)
    }
    opener.close()
    return codes
  }

  async end(): Promise<void> {
    await Promise.all(this.#pollers.splice(0).map((poller) => poller.stop()))
    await this.#sealer.close()
    await this.shop.close()
  }
}

let scene: Scene
const onStack = (): void => {
  beforeEach(async () => {
    scene = new Scene(await openShop())
  })
  afterEach(() => scene.end())
}

describe('a leaked gateway key', { timeout: 60_000 }, () => {
  onStack()

  it('is refused from its time on, and the gate goes on with another', async () => {
    const [which = '', revoke = '', rotate = '', look = '', ...more] = await blocksOf(
      'docs/rotation.md',
      '### A leaked gateway key',
    )
    expect(more).toEqual([])
    await writeFile(
      join(folder, 'rotation.yaml'),
      `rotations: { gateway: { kind: signing-key, iss: ${LOCAL_GATEWAY}, secret: ${LOCAL_SIGNING_SECRET} } }
waits: { directoryGrace: 1s, secretHold: 1s, eventLife: 1s, margin: 1s, retention: 1d }
`,
    )
    const store = await openLocalSecrets(join(scene.shop.folder, 'secrets'), clock)
    const secret = { secrets: store, secret: LOCAL_SIGNING_SECRET, clock, maxAgeMs: 100, holdMs: 1000 }
    const signer = await openSecretSigner(secret, soon())
    const poller = await scene.start({ signer })
    await scene.send(0, 5)
    expect(await poller.drained(10_000)).toBe(true)
    await poller.stop()
    const fine = [0, 1, 2, 3, 4].map(() => undefined)
    expect(await scene.opened()).toEqual(fine)

    const env = { SEALGATE_LOCAL: scene.shop.folder }
    // What was signed a second before counts.
    await sleep(1100)
    expect((await ok(which.replace('gateway-eu', LOCAL_GATEWAY), env)).out).toContain('active')
    expect((await ok(revoke, env)).out).toContain('compromised')
    const thief = scene.shop.sealer(LOCAL_GATEWAY, { audience: 'fulfilment' })
    await scene.send(90, 1, thief, 'orders.fulfilment')
    await thief.close()
    await scene.send(5, 5)
    expect((await ok(rotate, env)).out).toMatch(/gateway: nothing to do; due 20\S+\n$/)
    const again = await scene.start({ signer })
    expect(await again.drained(10_000)).toBe(true)
    const codes = await scene.opened()
    expect(codes.filter((code) => code !== undefined)).toEqual(['key-not-valid'])
    expect(codes).toHaveLength(11)
    expect(await scene.shop.codes()).toEqual([])
    expect((await ok(look, env)).out).toMatch(/5 {2}User:shop-web[^]*Verified: complete and unaltered/)
  })
})

describe('a lost KMS key', { timeout: 60_000 }, () => {
  onStack()

  it('stops the gate before anything is lost; given up, it costs what was not read yet, and that is listed', async () => {
    const [which = '', replace = '', list = '', ...more] = await blocksOf(
      'docs/rotation.md',
      '### A lost KMS key',
    )
    expect(more).toEqual([])
    const { kek } = scene.shop.stack.producer('shop-web')
    const service = await openLocalKeyService(join(scene.shop.folder, 'keys'), clock)
    const keyService = shieldKeyService(localKeyPort(service, clock, LOCAL_GATEWAY), {
      ...{ clock, random: Math.random },
    })
    const poller = await scene.start({ dataKeys: createDataKeys({ keyService, clock }) })
    const stops = async (): Promise<void> => {
      const { records } = poller.stats()
      for (let tries = 0; tries < 100 && poller.stats().lastError === undefined; tries++) await sleep(20)
      await sleep(200)
      expect(poller.stats().records).toBe(records)
      expect(String(poller.stats().lastError)).toContain('key-service-denied')
    }
    await service.disableKey(kek.key)
    await scene.send(0, 5)
    await stops()
    await service.enableKey(kek.key)
    expect(await poller.drained(20_000)).toBe(true)
    expect(await scene.opened()).toHaveLength(5)

    await service.scheduleKeyDeletion(kek.key)
    const other = scene.shop.sealer('shop-web')
    await scene.send(5, 5, other)
    await other.close()
    await stops()
    const env = { SEALGATE_LOCAL: scene.shop.folder }
    const known = (await ok(which, env)).out
    expect(known).toContain(`by KEK ${kek.kekId}`)
    expect(known).toMatch(new RegExp(`\n${kek.kekId} +shop-web `))
    expect((await ok(replace.replace('orders-2026', kek.kekId), env)).out).toMatch(
      /\+ KEK orders-2027 of shop-web[^]*Would publish[^]*Published version/,
    )
    expect(await poller.drained(20_000)).toBe(true)
    expect(await scene.shop.codes()).toEqual([5, 6, 7, 8, 9].map(() => 'undecryptable'))
    expect((await ok(list, env)).out).toMatch(/undecryptable[^]*5 [^]*shop-web/)
    // What had come out stays readable.
    expect(await scene.opened()).toEqual([0, 1, 2, 3, 4].map(() => undefined))
  })
})

const [inKms = '', inFile = '', pinBoth = '', publish = '', newAlone = '', look = ''] = await blocksOf(
  'docs/rotation.md',
  '### The root',
)
describe('the root on an embedded stack', { timeout: 60_000 }, () => {
  onStack()
  beforeEach(async () => {
    const { shop, path } = scene
    await writeFile(
      join(folder, 'roots.json'),
      JSON.stringify(shop.stack.directory.roots.map(exportPublicJwk)),
    )
    const rootKey = `file:${join(shop.folder, 'keys', 'root.json')}`
    const places = `SEALGATE_DIRECTORY=${path}\nSEALGATE_ROOTS=roots.json\nSEALGATE_ROOT_KEY=${rootKey}`
    await ok(`${places}\nSEALGATE_LIFECYCLE_AUDIT=none`)
  })

  it('never stops who pins both, stops who pins the wrong one, and lets no lower version in', async () => {
    await ok(inFile)
    const before = await pinned('roots.json')
    await ok(pinBoth)
    const both = await pinned('roots-both.json')
    const after = await pinned('root-2.json')
    expect(both.map(exportPublicJwk)).toEqual([...before, ...after].map(exportPublicJwk))
    const poller = await scene.start({ directory: scene.copyBy(both) })
    // The new root alone does not do yet.
    expect((await runBlock(folder, newAlone)).status).toBe(1)
    await expect(scene.copyBy(after).snapshot(soon())).rejects.toMatchObject({
      code: 'directory-unavailable',
    })
    await ok('SEALGATE_ROOTS=roots-both.json')

    const ending = new AbortController()
    const load = scene.sendUntil(ending.signal)
    const old = scene.copyBy(before)
    try {
      await sleep(300)
      const { snapshot } = await old.snapshot(soon())
      expect((await ok(publish)).out).toContain(`Published version ${snapshot.version + 1} at `)
      await sleep(YOUNG.graceMs + 500)
      await ok(newAlone)
    } finally {
      ending.abort()
    }
    const sent = await load
    expect(await poller.drained(20_000)).toBe(true)
    expect(poller.stats()).toMatchObject({ failures: 0, records: sent })
    expect(await scene.shop.codes()).toEqual([])
    const fine = Array.from({ length: sent }, () => undefined)
    expect([await scene.opened(both), await scene.opened(after)]).toEqual([fine, fine])

    // Who pins the old one alone: a copy that he had is too old by now, and nothing is decided.
    for (const copy of [old, scene.copyBy(before)])
      await expect(copy.snapshot(soon())).rejects.toMatchObject({
        code: 'directory-unavailable',
        message: expect.stringContaining('not signed by a pinned root'),
      })
    await poller.stop()
    const left = await scene.start({ directory: scene.copyBy(before) })
    await scene.send(sent, 5)
    await expect.poll(() => left.stats().failures, { timeout: 10_000 }).toBeGreaterThan(0)
    expect(left.stats()).toMatchObject({ records: 0 })
    await left.stop()
    const late = await scene.start({ directory: scene.copyBy(after) })
    expect(await late.drained(20_000)).toBe(true)
    expect(await scene.shop.codes()).toEqual([])
    expect(await scene.opened(after)).toHaveLength(sent + 5)
    expect((await ok(look)).out).toContain('shop-web')

    // A lower version by the new root; and the stack goes on with that in the place of its own.
    const [root] = after
    if (root === undefined) throw new Error('no root')
    const copy = scene.copyBy([root])
    const { snapshot } = await copy.snapshot(soon())
    const bytes = await readFile(scene.path)
    const document: DirectoryDocument = parseDirectory(bytes, [root]).document
    const key: PrivateKey = privateKeyOf(await readFile(join(folder, 'root-2.jwk')))
    const lower = { ...document, version: document.version - 1 }
    await writeFile(scene.path, await sealDirectory(lower, localSigner(key), soon()))
    await sleep(YOUNG.graceMs + 100)
    await expect(copy.snapshot(soon())).rejects.toMatchObject({
      code: 'directory-unavailable',
      message: expect.stringContaining(
        `version ${lower.version} is older than version ${snapshot.version}, which was here before`,
      ),
    })
    await writeFile(scene.path, bytes)
    expect((await copy.snapshot(soon())).snapshot.version).toBe(snapshot.version)
    await copyFile(join(folder, 'root-2.jwk'), join(scene.shop.folder, 'keys', 'root.json'))
    scene = new Scene(await scene.shop.reopen())
    expect(scene.shop.stack.directory.roots.map(exportPublicJwk)).toEqual([exportPublicJwk(root)])
  })
})

describe('the root on files', { timeout: 60_000 }, () => {
  it('follows a directory that was made as docs/keys.md does it, with the new root in KMS', async () => {
    const first = (await blocksOf('docs/keys.md', '## Commands'))[0] ?? ''
    expect(first).toContain('directory init')
    await ok(first)
    const { publicKey } = generateKeyPairSync('ec', { namedCurve: 'P-256' })
    const ARN = 'arn:aws:kms:eu-west-1:111122223333:key/12345678-1234-1234-1234-123456789012'
    const spki = publicKey.export({ format: 'der', type: 'spki' }).toString('base64')
    // What the AWS command line prints for these two.
    await ok(
      `aws() { case "$2" in create-key) echo ${ARN};; get-public-key) echo ${spki};; esac; }\n${inKms}`,
    )
    expect((await pinned('root-2.json')).map(exportPublicJwk)).toMatchObject([
      { kty: 'EC', crv: 'P-256', x: publicKey.export({ format: 'jwk' }).x },
    ])
    expect((await ok(pinBoth)).out).toContain('is signed by a pinned root')
    expect((await ok('echo $ROOT $SEALGATE_ROOTS')).out).toBe(`${ARN} roots-both.json\n`)
  })
})
