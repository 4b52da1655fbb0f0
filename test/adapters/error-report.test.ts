import { describe, expect, it } from 'vitest'
import { causesOf, reasonOf } from '../../lib/adapters/error-report.ts'
import { Outage } from '../../lib/errors.ts'

const CANARY = 'canary-7f3a'
const outage = (cause: unknown): Outage => new Outage('unexpected', 'our own words', { cause })

describe('what is told of an error behind an outage', () => {
  it('is its class, its code and where in the code it came from', () => {
    const refused = Object.assign(new RangeError('no'), { code: 'ECONNREFUSED' })
    const causes = causesOf(outage(new TypeError('failed', { cause: refused })))
    expect(causes.map(({ name, code }) => ({ name, code }))).toEqual([
      { name: 'TypeError', code: undefined },
      { name: 'RangeError', code: 'ECONNREFUSED' },
    ])
    for (const { at } of causes) {
      expect(at.length).toBeGreaterThan(0)
      expect(at.length).toBeLessThanOrEqual(8)
      expect(at[0]).toMatch(/\/error-report\.test\.ts:\d+:\d+$/)
    }
  })

  it('is none of its words, wherever they stand', () => {
    const frame = `\n    at x (file:///${CANARY}.ts:1:1)`
    const changed = new Error(`long enough, and more${frame}`)
    // Written down at the first look.
    expect(changed.stack).toContain(CANARY)
    changed.message = 'b'
    const emptied = new Error(`a${frame}`)
    expect(emptied.stack).toContain(CANARY)
    emptied.message = ''
    const named = new Error(frame)
    named.name = CANARY
    const coded = Object.assign(new Error(CANARY), { code: `${CANARY} ${CANARY}`, [CANARY]: CANARY })
    const stackless = Object.assign(new Error(CANARY), { stack: `${CANARY}${frame}` })
    for (const error of [changed, emptied, named, coded, stackless, new Error(`${frame}${frame}`)]) {
      const causes = causesOf(outage(error))
      expect(causes).toHaveLength(1)
      expect(JSON.stringify(causes)).not.toContain(CANARY)
    }
    expect(causesOf(outage(CANARY))).toEqual([])
    expect(causesOf(outage({ name: CANARY, message: CANARY, stack: frame }))).toEqual([])
  })

  it('is bounded, whatever it is made of', () => {
    let deep = new Error('innermost')
    for (let depth = 0; depth < 1000; depth++) deep = new Error('around', { cause: deep })
    expect(causesOf(outage(deep))).toHaveLength(4)
    const circular = new Error('round')
    circular.cause = circular
    expect(causesOf(outage(circular))).toHaveLength(4)
    const long = new Error('x')
    long.stack = `Error: x\n${`    at ${'a'.repeat(100_000)} (file:///a.ts:1:1)\n`.repeat(100)}`
    const from = performance.now()
    expect(causesOf(outage(long))[0]?.at).toEqual([])
    expect(performance.now() - from).toBeLessThan(1000)
    expect(reasonOf(new Outage('unexpected', 'y'.repeat(10_000)))).toHaveLength(500)
  })
})
