import fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import {
  type GroupOffset,
  MAX_STATE_BYTES,
  type StoredOffset,
  StoredPosition,
} from '../../lib/adapters/kafka-position.ts'
import { Outage } from '../../lib/errors.ts'
import type { Position } from '../../lib/ports.ts'

const GROUP = 'test.shadow.v1'
const SOURCE = { topic: 'orders', partition: 3 }
const NOW = 1_790_000_000
const DAY = 86_400

/** The groups as Kafka keeps them. */
class Groups {
  readonly #offsets = new Map<string, StoredOffset>()

  write(offsets: readonly GroupOffset[]): this {
    for (const { group, ...offset } of offsets) this.#offsets.set(group, offset)
    return this
  }

  get(part: number): StoredOffset {
    const found = this.#offsets.get(part === 0 ? GROUP : `${GROUP}.${part}`)
    if (found === undefined) throw new Error(`nothing in part ${part}`)
    return found
  }

  read(source = SOURCE, group = GROUP): StoredPosition {
    const main = this.get(0)
    const count = StoredPosition.furtherParts(main, source)
    const further = Array.from({ length: count }, (_, index) => this.get(index + 1))
    return StoredPosition.parse(group, source, main, further)
  }
}

const stateOf = (length: number, seed = 0): Uint8Array =>
  Uint8Array.from({ length }, (_, index) => (index * 31 + seed + (index >> 8)) & 0xff)

const write = (position: Position, before = StoredPosition.none, now = NOW) =>
  before.follow(GROUP, SOURCE, position, now)

const codeOf = (act: () => unknown): string => {
  try {
    act()
    return 'no error'
  } catch (error) {
    return error instanceof Outage ? error.code : String(error)
  }
}

describe('a position in Kafka', () => {
  it('comes back byte for byte, whatever its length, and fits what a broker takes', () => {
    fc.assert(
      fc.property(
        fc.bigInt({ min: 0n, max: 2n ** 63n - 1n }),
        fc.oneof(
          fc.integer({ min: 0, max: MAX_STATE_BYTES }),
          fc.constantFrom(0, 1, 3027, 3028, MAX_STATE_BYTES),
        ),
        (next, length) => {
          const position = { next, state: stateOf(length, Number(next % 251n)) }
          const { offsets, stored } = write(position)
          for (const { metadata } of offsets) expect(metadata.length).toBeLessThanOrEqual(4096)
          expect(offsets.length).toBeLessThanOrEqual(8)
          for (const found of [new Groups().write(offsets).read().position, stored.position])
            expect([found.next, Buffer.compare(found.state, position.state)]).toEqual([next, 0])
        },
      ),
      { numRuns: 100 },
    )
  })

  it('fills every part to the last unit at its greatest length, and takes no byte more', () => {
    const { offsets } = write({ next: 2n ** 63n - 1n, state: stateOf(MAX_STATE_BYTES) })
    expect(offsets.map(({ metadata }) => metadata.length)).toEqual(Array.from({ length: 8 }, () => 4096))
    const longer = { next: 0n, state: new Uint8Array(MAX_STATE_BYTES + 1) }
    expect(codeOf(() => write(longer))).toBe('sink-unavailable')
  })

  it('writes a further part again only where it has changed, or is a day old, or its time cannot be', () => {
    const groupsOf = (offsets: readonly GroupOffset[]): string[] => offsets.map(({ group }) => group)
    const state = stateOf(10_000)
    const first = write({ next: 1n, state })
    expect(groupsOf(first.offsets)).toEqual([GROUP, `${GROUP}.1`, `${GROUP}.2`, `${GROUP}.3`])
    const same = write({ next: 2n, state }, first.stored, NOW + DAY - 1)
    expect(groupsOf(same.offsets)).toEqual([GROUP])
    const changed = state.slice()
    changed[6500] = 255
    const second = write({ next: 3n, state: changed }, same.stored, NOW + 10)
    expect(groupsOf(second.offsets)).toEqual([GROUP, `${GROUP}.2`])
    expect(groupsOf(write({ next: 4n, state: changed }, second.stored, NOW + DAY).offsets)).toEqual([
      GROUP,
      `${GROUP}.1`,
      `${GROUP}.3`,
    ])
    expect(groupsOf(write({ next: 4n, state: changed }, second.stored, NOW - 1).offsets)).toHaveLength(4)
    const groups = new Groups().write(first.offsets).write(same.offsets).write(second.offsets)
    expect(groups.read().position).toEqual({ next: 3n, state: changed })
  })

  it('keeps nothing of a longer one that was there before', () => {
    const long = write({ next: 1n, state: stateOf(20_000) })
    const short = write({ next: 2n, state: stateOf(5) }, long.stored)
    const again = write({ next: 3n, state: stateOf(20_000, 9) }, short.stored)
    const groups = new Groups().write(long.offsets).write(short.offsets)
    expect(groups.read().position).toEqual({ next: 2n, state: stateOf(5) })
    expect(groups.write(again.offsets).read().position).toEqual({ next: 3n, state: stateOf(20_000, 9) })
  })

  it('is damaged when any part, the offset, the group or the source is another’s', () => {
    const old = write({ next: 1n, state: stateOf(10_000) })
    const next = write({ next: 2n, state: stateOf(10_000, 1) }, old.stored)
    const whole = (): Groups => new Groups().write(next.offsets)
    expect(whole().read().position.next).toBe(2n)
    for (const part of old.offsets)
      expect(codeOf(() => whole().write([part]).read())).toBe('position-damaged')
    const moved = { group: GROUP, offset: 1n, metadata: whole().get(0).metadata }
    expect(codeOf(() => whole().write([moved]).read())).toBe('position-damaged')
    expect(codeOf(() => whole().read({ ...SOURCE, partition: 2 }))).toBe('position-damaged')
    expect(codeOf(() => whole().read(SOURCE, 'test.shadow.v2'))).toBe('position-damaged')
    const missing = (): unknown =>
      StoredPosition.parse(GROUP, SOURCE, whole().get(0), [undefined, undefined, undefined])
    expect(codeOf(missing)).toBe('position-damaged')
    expect(codeOf(() => StoredPosition.parse(GROUP, SOURCE, whole().get(0), []))).toBe('position-damaged')
  })

  it('is damaged by every change of a character, and by metadata that is not ours', () => {
    const { offsets } = write({ next: 7n, state: stateOf(40) })
    const [main] = offsets
    if (main === undefined) throw new Error('nothing written')
    const { metadata } = main
    for (let at = 0; at < metadata.length; at++) {
      for (const character of ['A', '_', '=', 'é', '']) {
        const changed = metadata.slice(0, at) + character + metadata.slice(at + 1)
        if (changed === metadata) continue
        const groups = new Groups().write([{ ...main, metadata: changed }])
        // The time that it was written at says nothing about the position.
        const isTime = at >= 3 && at <= 9
        const code = codeOf(() => groups.read())
        if (!isTime || code !== 'no error') expect(code).toBe('position-damaged')
      }
    }
    for (const other of ['', 'barrier', 'AA==', '{}', '9'.repeat(4096)])
      expect(codeOf(() => new Groups().write([{ ...main, metadata: other }]).read())).toBe('position-damaged')
  })
})
