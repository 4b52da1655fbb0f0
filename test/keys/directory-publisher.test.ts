import { mkdtemp, readdir, readFile, rm, stat, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { documentFile } from '../../lib/adapters/document-file.ts'
import { generateKeyPair } from '../../lib/envelope/crypto.ts'
import { ED25519 } from '../../lib/envelope/suite.ts'
import { ConfigError, Outage } from '../../lib/errors.ts'
import type { DirectoryDraft } from '../../lib/keys/directory-draft.ts'
import { publishChange, publishFirst, type PublisherOptions } from '../../lib/keys/directory-publisher.ts'
import { parseDirectory } from '../../lib/keys/directory-document.ts'
import { localSigner } from '../../lib/keys/signer.ts'
import type { Clock, DocumentStore } from '../../lib/ports.ts'

const clock: Clock = { now: () => Date.now() }
const soon = (): number => Date.now() + 10_000
const root = generateKeyPair(ED25519)
let folder = ''
let path = ''
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'directory-'))
  path = join(folder, 'directory.jws')
})
afterEach(() => rm(folder, { recursive: true }))

const fileStore = (): DocumentStore => documentFile({ path, outage: 'directory-unavailable', clock })
const options = (store: DocumentStore = fileStore()): PublisherOptions => ({
  store,
  roots: [root.publicKey],
  root: localSigner(root.privateKey),
  clock,
})

const enrolling =
  (iss: string) =>
  (draft: DirectoryDraft): void => {
    const now = Math.floor(Date.now() / 1000)
    const { publicKey } = generateKeyPair(ED25519)
    draft.enrol({ iss, key: publicKey, state: 'active', notBefore: now, notAfter: now + 100 })
  }

const issuersNow = async (): Promise<string[]> =>
  parseDirectory(await readFile(path), [root.publicKey]).document.signingKeys.map(({ iss }) => iss)

describe('publishing a directory', () => {
  it('makes the first version once, and then only changes it', async () => {
    await expect(publishChange(options(), enrolling('shop'), soon())).rejects.toThrow(ConfigError)
    expect(await publishFirst(options(), soon())).toMatchObject({ version: 1, signingKeys: [] })
    await expect(publishFirst(options(), soon())).rejects.toThrow('There is one already.')
    const { before, document } = await publishChange(options(), enrolling('shop'), soon())
    expect([before.version, document.version]).toEqual([1, 2])
    expect(await issuersNow()).toEqual(['shop'])
    expect(await readdir(folder)).toEqual(['directory.jws'])
  })

  it('loses nothing of many who publish at the same time', async () => {
    await publishFirst(options(), soon())
    const names = Array.from({ length: 6 }, (_, index) => `iss-${index}`)
    await Promise.all(names.map((iss) => publishChange(options(), enrolling(iss), soon())))
    expect((await issuersNow()).toSorted()).toEqual(names)
    expect(parseDirectory(await readFile(path), [root.publicKey]).document.version).toBe(7)
  })

  it('drafts anew where another was first, and gives up after some times, with nothing written', async () => {
    await publishFirst(options(), soon())
    let drafts = 0
    const lost: PublisherOptions = options({ ...fileStore(), write: () => Promise.resolve('changed') })
    const publishing = publishChange(lost, (draft) => enrolling(`iss-${drafts++}`)(draft), soon())
    await expect(publishing).rejects.toThrow(Outage)
    expect(drafts).toBe(8)
    expect(await issuersNow()).toEqual([])
  })

  it('writes nothing that no gate would read: by another root, or over what another root signed', async () => {
    const other = generateKeyPair(ED25519)
    const foreign = { ...options(), root: localSigner(other.privateKey) }
    await expect(publishFirst(foreign, soon())).rejects.toThrow(ConfigError)
    expect(await readdir(folder)).toEqual([])
    await publishFirst({ ...foreign, roots: [other.publicKey] }, soon())
    const theirs = await readFile(path)
    await expect(publishChange(options(), enrolling('shop'), soon())).rejects.toThrow('pinned root')
    expect(await readFile(path)).toEqual(theirs)
  })

  it('writes nothing of a draft with a fault', async () => {
    await publishFirst(options(), soon())
    const before = await readFile(path)
    const faulty = (draft: DirectoryDraft): void => {
      enrolling('shop')(draft)
      draft.suspend('nobody')
    }
    await expect(publishChange(options(), faulty, soon())).rejects.toThrow(ConfigError)
    expect(await readFile(path)).toEqual(before)
  })
})

describe('a directory in a file', () => {
  it('stays as readable as it was', async () => {
    await publishFirst(options(), soon())
    expect((await stat(path)).mode & 0o777).toBe(0o644)
    await rm(path)
    await writeFile(path, 'x', { mode: 0o600 })
    const found = await fileStore().find(soon())
    expect(await fileStore().write(Buffer.from('y'), found?.etag, soon())).toBe('written')
    expect((await stat(path)).mode & 0o777).toBe(0o600)
  })

  it('is nothing, not an error, only where there is no file', async () => {
    expect(await fileStore().find(soon())).toBeUndefined()
    const unreadable = documentFile({ path: folder, outage: 'directory-unavailable', clock })
    await expect(unreadable.find(soon())).rejects.toThrow(Outage)
  })

  it('names the lock of one who died at writing it, and leaves it alone', async () => {
    await writeFile(`${path}.lock`, '')
    const writing = publishFirst(options(), Date.now() + 200)
    await expect(writing).rejects.toThrow(`remove ${path}.lock`)
    expect(await readdir(folder)).toEqual(['directory.jws.lock'])
  })
})
