import { mkdtemp, rename, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { documentFile } from '../../lib/adapters/document-file.ts'
import { documentStoreContract } from '../contract-suites/document-store.ts'
import { manualClock } from '../keys/fixtures.ts'

let folder: string
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'sealgate-'))
})
afterEach(() => rm(folder, { recursive: true, force: true }))

describe('a document in a file', () => {
  test('is unchanged under its etag, and changes with its content, however fast', async () => {
    const path = join(folder, 'd')
    const clock = manualClock()
    const source = documentFile({ path, outage: 'directory-unavailable', clock })
    await writeFile(path, 'one')
    const first = await source.read(undefined, clock.ms + 1000)
    if (first === 'unchanged') throw new Error('never read before')
    expect(Buffer.from(first.bytes).toString()).toBe('one')
    expect(await source.read(first.etag, clock.ms + 1000)).toBe('unchanged')
    await writeFile(`${path}.new`, 'two')
    await rename(`${path}.new`, path)
    expect(await source.read(first.etag, clock.ms + 1000)).not.toBe('unchanged')
  })

  test('that is missing, too large or asked for too late is the outage that its user named', async () => {
    const path = join(folder, 'd')
    const clock = manualClock()
    const source = documentFile({ path, outage: 'contracts-unavailable', clock, maxBytes: 3 })
    const outage = { name: 'Outage', code: 'contracts-unavailable' }
    await expect(source.read(undefined, clock.ms + 1000)).rejects.toMatchObject(outage)
    await writeFile(path, 'four')
    await expect(source.read(undefined, clock.ms + 1000)).rejects.toThrow('larger')
    await expect(source.read(undefined, clock.ms)).rejects.toMatchObject(outage)
  })
})

documentStoreContract('a file', async () => {
  const root = await mkdtemp(join(tmpdir(), 'sealgate-documents-'))
  let made = 0
  return {
    newPlace: () => {
      const path = join(root, `${made++}.jws`)
      const clock = { now: () => Date.now() }
      return Promise.resolve(() => documentFile({ path, outage: 'directory-unavailable', clock }))
    },
    end: () => rm(root, { recursive: true }),
  }
})
