/** The directory's root replaced by its runbook (docs/rotation.md), command by command, while events go through. */
import { generateKeyPairSync } from 'node:crypto'
import { copyFile, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { ingestHandler } from '../../functions/ingest-handler.ts'
import { createOpener } from '../../lib/client/opener.ts'
import type { Sealer } from '../../lib/client/sealer.ts'
import { exportPublicJwk, type PrivateKey, type PublicKey } from '../../lib/envelope/crypto.ts'
import type { Directory } from '../../lib/keys/directory.ts'
import { type DirectoryDocument, parseDirectory, sealDirectory } from '../../lib/keys/directory-document.ts'
import { createDirectory } from '../../lib/keys/directory-reader.ts'
import { localSigner } from '../../lib/keys/signer.ts'
import { polledLog, type Poller, startPoller } from '../../lib/local/poller.ts'
import { LOCAL_GATEWAY } from '../../lib/local/stack.ts'
import { privateKeyOf, rootsOf } from '../../lib/settings.ts'
import { blocksOf, type Ended, runBlock } from '../runbook.ts'
import { openShop, ORDER_TYPE, type Shop } from '../shop.ts'

const clock = { now: () => Date.now() }
const soon = (): number => Date.now() + 5000
/** Copies that gates and consumers keep here: seconds are fractions. */
const YOUNG = { maxAgeMs: 100, graceMs: 500, readMs: 400, retryMs: 50 }

let folder = ''
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'root-'))
})
afterEach(() => rm(folder, { recursive: true }))

const [inKms = '', inFile = '', pinBoth = '', publish = '', newAlone = '', look = ''] = await blocksOf(
  'docs/rotation.md',
  '### The root',
)
const ok = async (block: string, env: Readonly<Record<string, string>> = {}): Promise<Ended> => {
  const ended = await runBlock(folder, block, env)
  expect([ended.status, ended.err]).toEqual([0, ''])
  return ended
}
const pinned = async (file: string): Promise<PublicKey[]> => rootsOf(await readFile(join(folder, file)))

describe('the runbook of the root on an embedded stack', { timeout: 60_000 }, () => {
  let shop: Shop
  let path = ''
  let sealer: Sealer
  const pollers: Poller[] = []
  beforeEach(async () => {
    shop = await openShop()
    sealer = shop.sealer('shop-web')
    path = join(shop.folder, 'keys', 'directory.jws')
    await writeFile(
      join(folder, 'roots.json'),
      JSON.stringify(shop.stack.directory.roots.map(exportPublicJwk)),
    )
    const rootKey = `file:${join(shop.folder, 'keys', 'root.json')}`
    await ok(
      `SEALGATE_DIRECTORY=${path}
SEALGATE_ROOTS=roots.json
SEALGATE_ROOT_KEY=${rootKey}
SEALGATE_LIFECYCLE_AUDIT=none`,
    )
  })
  afterEach(async () => {
    await Promise.all(pollers.splice(0).map((poller) => poller.stop()))
    await sealer.close()
    await shop.close()
  })

  const copyBy = (roots: readonly PublicKey[]): Directory =>
    createDirectory({ source: shop.stack.directory.source, roots, clock, ...YOUNG })
  const gateBy = async (roots: readonly PublicKey[]): Promise<Poller> => {
    const gate = shop.gate((parts) => ({ ...parts, directory: copyBy(roots) }))
    const poller = await startPoller({
      ...{ source: polledLog(shop.log), group: 'gate', topics: ['orders'] },
      handler: ingestHandler(() => Promise.resolve(gate)),
      options: { batchSize: 50, batchingWindowMs: 10, backoffMs: { initial: 10, max: 50 } },
    })
    pollers.push(poller)
    return poller
  }
  const send = (from: number, count: number): Promise<void> =>
    sealer.send(
      'orders',
      Array.from({ length: count }, (_, index) => ({
        ...{ type: ORDER_TYPE, source: '/shop/web', key: `c${index}` },
        data: { orderId: `A-${from + index}`, total: from + index, customer: { id: 'c' } },
      })),
    )
  /** How many were sent. */
  const sendUntil = async (signal: AbortSignal): Promise<number> => {
    for (let sent = 0; ; sent += 5) {
      if (signal.aborted) return sent
      await send(sent, 5)
      await sleep(20)
    }
  }
  const opened = async (roots: readonly PublicKey[]): Promise<(string | undefined)[]> => {
    const { audience, keyService } = shop.stack.consumer('fulfilment')
    const opener = createOpener({
      ...{ audience, keyService, issuers: [LOCAL_GATEWAY], directory: copyBy(roots) },
    })
    const codes = []
    for (const { topic, partition, key, value, offset, timestamp } of await shop.records(
      'orders.fulfilment',
    )) {
      const message = { key, value, offset: String(offset), timestamp: String(timestamp) }
      const one = await opener.open({ topic, partition, message })
      codes.push(one.opened ? undefined : one.code)
    }
    opener.close()
    return codes
  }

  it('never stops a gate or consumer that pins both, and stops those that pin one of them where it is not that', async () => {
    await ok(inFile)
    const before = await pinned('roots.json')
    await ok(pinBoth)
    const both = await pinned('roots-both.json')
    const after = await pinned('root-2.json')
    expect(both.map(exportPublicJwk)).toEqual([...before, ...after].map(exportPublicJwk))
    const poller = await gateBy(both)
    // The new root alone does not do yet.
    expect((await runBlock(folder, newAlone)).status).toBe(1)
    await expect(copyBy(after).snapshot(soon())).rejects.toMatchObject({ code: 'directory-unavailable' })
    await ok('SEALGATE_ROOTS=roots-both.json')

    const ending = new AbortController()
    const load = sendUntil(ending.signal)
    const old = copyBy(before)
    try {
      await sleep(300)
      const { snapshot } = await old.snapshot(soon())
      expect((await ok(publish)).out).toContain(`Published version ${snapshot.version + 1} at `)
      await sleep(1000)
      await ok(newAlone)
    } finally {
      ending.abort()
    }
    const sent = await load
    expect(await poller.drained(20_000)).toBe(true)
    expect(poller.stats()).toMatchObject({ failures: 0, records: sent })
    expect(await shop.codes()).toEqual([])
    const fine = Array.from({ length: sent }, () => undefined)
    expect([await opened(both), await opened(after)]).toEqual([fine, fine])

    // Who pins the old one alone: a copy that he had is too old by now, and nothing is decided.
    for (const copy of [old, copyBy(before)])
      await expect(copy.snapshot(soon())).rejects.toMatchObject({
        code: 'directory-unavailable',
        message: expect.stringContaining('not signed by a pinned root'),
      })
    await poller.stop()
    const left = await gateBy(before)
    await send(sent, 5)
    await sleep(500)
    expect(left.stats()).toMatchObject({ records: 0 })
    expect(left.stats().failures).toBeGreaterThan(0)
    await left.stop()
    const late = await gateBy(after)
    expect(await late.drained(20_000)).toBe(true)
    expect(await shop.codes()).toEqual([])
    expect(await opened(after)).toHaveLength(sent + 5)
    expect((await ok(look)).out).toContain('shop-web')
  })

  it('refuses a lower version by the new root, and the stack goes on with it in the place of its own', async () => {
    for (const block of [inFile, pinBoth, publish, newAlone]) await ok(block)
    const [root] = await pinned('root-2.json')
    if (root === undefined) throw new Error('no root')
    const copy = copyBy([root])
    const { snapshot } = await copy.snapshot(soon())
    const bytes = await readFile(path)
    const document: DirectoryDocument = parseDirectory(bytes, [root]).document
    const key: PrivateKey = privateKeyOf(await readFile(join(folder, 'root-2.jwk')))
    const lower = { ...document, version: document.version - 1 }
    await writeFile(path, await sealDirectory(lower, localSigner(key), soon()))
    await sleep(YOUNG.graceMs + 100)
    await expect(copy.snapshot(soon())).rejects.toMatchObject({
      code: 'directory-unavailable',
      message: expect.stringContaining(
        `version ${lower.version} is older than version ${snapshot.version}, which was here before`,
      ),
    })
    await writeFile(path, bytes)
    expect((await copy.snapshot(soon())).snapshot.version).toBe(snapshot.version)
    await copyFile(join(folder, 'root-2.jwk'), join(shop.folder, 'keys', 'root.json'))
    shop = await shop.reopen()
    expect(shop.stack.directory.roots.map(exportPublicJwk)).toEqual([exportPublicJwk(root)])
  })
})

describe('the runbook of the root on files', { timeout: 60_000 }, () => {
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
