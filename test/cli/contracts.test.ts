import { mkdir, mkdtemp, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Command } from 'commander'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { addContractsCommands } from '../../cli/contracts.ts'
import type { Io } from '../../cli/io.ts'
import { loadBundle } from '../../lib/contract/bundle.ts'

const GOOD = `contract: sealgate/1
type: com.example.order.placed.v1
description: OrderPlaced. An order.
owner: team-orders
channel: orders
publish: { checkout: { sources: [/shop] } }
schema:
  type: object
  required: [id]
  properties: { id: { type: string }, card: { type: string, x-classification: sensitive } }
consume:
  billing: { purpose: bill, to: billing.orders, treatments: { /id: pass, /card: { mask: { show: 4 } } } }
`

interface Result {
  readonly out: string
  readonly err: string
  readonly status: number
}

async function sealgate(...args: string[]): Promise<Result> {
  let [out, err, status] = ['', '', 0]
  const io: Io = {
    write: (text) => void (out += `${text}\n`),
    warn: (text) => void (err += `${text}\n`),
    colours: { out: false, err: false },
    exit: (code) => void (status = code),
  }
  const program = new Command('sealgate')
  addContractsCommands(program, io)
  await program.parseAsync(['contracts', ...args], { from: 'user' })
  return { out, err, status }
}

describe('sealgate contracts', () => {
  let folder = ''
  beforeEach(async () => {
    folder = await mkdtemp(join(tmpdir(), 'sealgate-contracts-'))
    await writeFile(join(folder, 'order.yaml'), GOOD)
  })
  afterEach(async () => {
    await rm(folder, { recursive: true })
  })

  test('check says that all is well', async () => {
    expect(await sealgate('check', folder)).toEqual({
      out: 'ok 1 contract, 0 warnings\n',
      err: '',
      status: 0,
    })
    expect(JSON.parse((await sealgate('check', folder, '--json')).out)).toEqual({
      contracts: 1,
      faults: [],
      warnings: [],
    })
  })

  test('check names every fault of every file with its line, and ends with 2', async () => {
    await writeFile(join(folder, 'a.yml'), GOOD.replace('/id: pass', '/idd: pass').replace('owner:', 'ownr:'))
    await writeFile(join(folder, 'b.yaml'), 'contract: [')
    const { out, err, status } = await sealgate('check', folder)
    expect({ out, status }).toEqual({ out: '', status: 2 })
    expect(err).toContain(`fault ${join(folder, 'a.yml')}:4: Unknown field "ownr".`)
    expect(err).toContain(`fault ${join(folder, 'a.yml')}:12: The schema has no field /idd.`)
    expect(err).toContain(`fault ${join(folder, 'b.yaml')}:`)
    const json = await sealgate('check', folder, '--json')
    expect(json.status).toBe(2)
    expect(JSON.parse(json.out)).toMatchObject({
      faults: expect.arrayContaining([
        expect.objectContaining({ line: 4, where: join(folder, 'a.yml') }),
      ]) as unknown,
    })
  })

  test('check shows warnings, and ends with 0', async () => {
    await writeFile(join(folder, 'order.yaml'), GOOD.replace(', /card: { mask: { show: 4 } }', ''))
    const { out, err, status } = await sealgate('check', folder)
    expect(err).toMatch(/^warning .*order\.yaml:11: No consumer's treatments speak of \/card/)
    expect({ out, status }).toEqual({ out: 'ok 1 contract, 1 warning\n', status: 0 })
  })

  test('a folder that is not there, that has no contracts, or a file that is no text, is bad input', async () => {
    await mkdir(join(folder, 'empty'))
    for (const name of ['missing', 'empty']) {
      for (const command of [
        ['check', join(folder, name)],
        ['build', join(folder, name), '--out', join(folder, 'out')],
        ['show', 'x', '--dir', join(folder, name)],
      ]) {
        const { err, status } = await sealgate(...command)
        expect(status).toBe(2)
        expect(err).toContain(join(folder, name))
      }
    }
    await writeFile(join(folder, 'z.yaml'), Uint8Array.of(0xff, 0xfe))
    expect((await sealgate('check', folder)).err).toContain('not UTF-8')
  })

  test('build writes a bundle that loads, and says its digest', async () => {
    const out = join(folder, 'bundle.json')
    const result = await sealgate('build', folder, '--out', out, '--json')
    const contracts = loadBundle(await readFile(out))
    expect(contracts.find('orders', 'com.example.order.placed.v1')?.routes).toHaveLength(1)
    expect(JSON.parse(result.out)).toMatchObject({
      contracts: 1,
      digest: Buffer.from(contracts.digest).toString('hex'),
    })
    expect((await sealgate('build', folder, '--out', out)).out).toContain('1 contract')
  })

  test('build writes nothing where there is a fault, or no place for it', async () => {
    await writeFile(join(folder, 'b.yaml'), GOOD)
    const out = join(folder, 'bundle.json')
    expect((await sealgate('build', folder, '--out', out)).status).toBe(2)
    await expect(readFile(out)).rejects.toThrow()
    await rm(join(folder, 'b.yaml'))
    const { err, status } = await sealgate('build', folder, '--out', join(folder, 'no', 'where.json'))
    expect(status).toBe(2)
    expect(err).toContain('cannot be written (ENOENT)')
  })

  test('show prints who may publish and who sees what', async () => {
    const { out, status } = await sealgate('show', 'OrderPlaced', '--dir', folder)
    expect(status).toBe(0)
    expect(out).toContain('checkout for /shop')
    expect(out).toMatch(/billing +bill +sealed on billing\.orders/)
    expect(out).toMatch(/\/card +sensitive +mask, last 4/)
  })

  test('show prints the schema that each consumer gets, as JSON', async () => {
    const { out } = await sealgate('show', 'com.example.order.placed.v1', '--dir', folder, '--json')
    expect(JSON.parse(out)).toMatchObject([
      {
        type: 'com.example.order.placed.v1',
        publish: { checkout: ['/shop'] },
        fields: [
          { field: '/id', treatments: { billing: 'pass' } },
          { field: '/card', classification: 'sensitive', treatments: { billing: 'mask, last 4' } },
        ],
        consume: [{ consumer: 'billing', derivedSchema: { required: ['id'], additionalProperties: false } }],
      },
    ])
  })

  test('show of a type that is not there names those that are', async () => {
    const { err, status } = await sealgate('show', 'com.example.nothing', '--dir', folder)
    expect(status).toBe(2)
    expect(err).toContain('There are: com.example.order.placed.v1.')
    expect(JSON.parse((await sealgate('show', 'nothing', '--dir', folder, '--json')).out)).toHaveProperty(
      'faults',
    )
  })
})
