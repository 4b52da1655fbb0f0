import { readdirSync, readFileSync } from 'node:fs'
import { describe, expect, it } from 'vitest'
import { runGroup } from '../../lib/admission/conformance.ts'
import { parseVectorFile } from '../../lib/admission/vector-file.ts'
import { ConfigError } from '../../lib/errors.ts'

const VECTORS = new URL('../vectors/', import.meta.url)
const files = readdirSync(VECTORS).filter((file) => file.endsWith('.json'))
const textOf = (file: string): string => readFileSync(new URL(file, VECTORS), 'utf8')

describe('the whole of admission', () => {
  it.each(files)('decides every vector of %s as it expects', async (file) => {
    const result = await runGroup(parseVectorFile(file, textOf(file)))
    expect(result.differences).toEqual([])
    expect(result.passed).toBe((textOf(file).match(/"expect":/g) ?? []).length)
  })

  it('says where an outcome is not what a vector expects: code, content and outage', async () => {
    const text = textOf('single.json')
    const swapped = text
      .replace('"expect": "admitted"', '"expect": "replayed"')
      .replace('"number": 735', '"number": 736')
    expect(swapped).not.toBe(text)
    const { failed, differences } = await runGroup(parseVectorFile('single.json', swapped))
    expect(failed).toBe(2)
    expect(differences.map(({ vector }) => vector)).toEqual(['single/ed25519', 'single/esp256'])
    expect(differences[0]?.got).toMatch(/^admitted /)
  })

  it('reads numbers beyond 2^53 exactly', async () => {
    const text = textOf('single.json')
    const number = /"number": (\d{16,})/.exec(text)?.[1] ?? ''
    const other = String(BigInt(number) + 1n)
    expect((await runGroup(parseVectorFile('single.json', text.replace(number, other)))).failed).toBe(1)
  })

  it('names every fault of a file that is no vector file', () => {
    expect(() => parseVectorFile('x.json', '{')).toThrow(ConfigError)
    const text = JSON.stringify({
      group: 1,
      gateway: {},
      directory: { signingKeys: 3 },
      contracts: [],
      unwraps: [],
      vectors: [{ name: 'a', value: 'XYZ' }],
    })
    let faults: readonly { where: string }[] = []
    try {
      parseVectorFile('x.json', text)
    } catch (error) {
      if (error instanceof ConfigError) faults = error.faults
    }
    expect(faults.map(({ where }) => where)).toEqual(
      expect.arrayContaining([
        'x.json group',
        'x.json gateway.audience',
        'x.json directory.signingKeys',
        'x.json vectors[0].value',
      ]),
    )
  })
})
