import { cp, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { sealgate } from './terminal.ts'

const VECTORS = fileURLToPath(new URL('../vectors/', import.meta.url))

describe('sealgate conformance', () => {
  let folder: string
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'sealgate-vectors-'))
  })
  afterEach(() => rm(folder, { recursive: true }))

  it('runs every vector of a folder and counts them by group', async () => {
    const { out, err, status } = await sealgate(['conformance', VECTORS])
    expect(out).toMatch(/^GROUP +PASSED +FAILED\nbatch +12 +0\n/)
    expect(out).toContain('\n119 passed, 0 failed')
    expect({ err, status }).toEqual({ err: '', status: 0 })
  })

  it('names each difference with what was expected and got, and exits 1', async () => {
    const text = await readFile(join(VECTORS, 'headers.json'), 'utf8')
    await writeFile(join(folder, 'h.json'), text.replace('"expect": "hint-mismatch"', '"expect": "replayed"'))
    const plain = await sealgate(['conformance', folder])
    expect(plain.out).toContain('headers/ce-type-differs\n  expected  replayed\n  got       hint-mismatch')
    expect(plain.status).toBe(1)
    const { out, status } = await sealgate(['conformance', folder, '--json'])
    expect(JSON.parse(out)).toEqual({
      passed: 3,
      failed: 1,
      differences: [{ vector: 'headers/ce-type-differs', expected: 'replayed', got: 'hint-mismatch' }],
    })
    expect(status).toBe(1)
  })

  it('prints nothing but the three fields as JSON', async () => {
    const { out } = await sealgate(['conformance', VECTORS, '--json'])
    expect(out).toBe('{"passed":119,"failed":0,"differences":[]}')
  })

  it('names every file that is none, all at once, runs nothing, and exits 2', async () => {
    await cp(join(VECTORS, 'single.json'), join(folder, 'single.json'))
    await writeFile(join(folder, 'a.json'), '{')
    await writeFile(join(folder, 'b.json'), Buffer.of(0xff))
    await writeFile(join(folder, 'c.json'), '{"group":"c"}')
    const { out, err, status } = await sealgate(['conformance', folder])
    for (const name of ['a.json', 'b.json', 'c.json']) expect(err).toContain(join(folder, name))
    expect({ out, status }).toEqual({ out: '', status: 2 })
  })

  it('refuses files that hold no vector: nothing passed', async () => {
    const world: object = JSON.parse(await readFile(join(VECTORS, 'single.json'), 'utf8'))
    await writeFile(join(folder, 'none.json'), JSON.stringify({ ...world, vectors: [] }))
    const { out, err, status } = await sealgate(['conformance', folder])
    expect(err).toContain(`fault ${folder}: Its files hold no vector`)
    expect({ out, status }).toEqual({ out: '', status: 2 })
  })

  it.each([
    ['no vector file', ''],
    ['no folder', '/nowhere'],
  ])('refuses a place with %s', async (_, below) => {
    const { err, status } = await sealgate(['conformance', join(folder, below)])
    expect(err).toContain(`fault ${join(folder, below).replace(/\/$/, '')}`)
    expect(err).not.toContain('\n')
    expect(status).toBe(2)
  })
})
