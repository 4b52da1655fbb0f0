import { describe, expect, it } from 'vitest'
import { type Copy, Renewable } from '../../lib/adapters/renewable.ts'

/** Something good for 100 s, fresh for 80, at a clock that stands still until it is moved. */
class World {
  now = 1_000_000
  reads = 0
  next: string | Error = 'a'
  readonly kept: Renewable<string> = new Renewable(
    () => {
      this.reads++
      return this.next instanceof Error ? Promise.reject(this.next) : Promise.resolve(this.copy(this.next))
    },
    { now: () => this.now },
  )

  copy(value: string): Copy<string> {
    return { value, version: value, freshUntil: this.now + 80_000, goodUntil: this.now + 100_000 }
  }

  current(): Promise<string> {
    return this.kept.current(this.now + 1000)
  }
}

describe('what is read from elsewhere', () => {
  it('is read once while it is fresh, and by many at once', async () => {
    const world = new World()
    expect(await Promise.all([world.current(), world.current()])).toEqual(['a', 'a'])
    world.now += 79_999
    world.next = 'b'
    expect([await world.current(), world.reads]).toEqual(['a', 1])
    world.now += 1
    expect([await world.current(), world.reads]).toEqual(['b', 2])
  })

  it('is told at once as it was last, and read again meanwhile where it is no longer fresh', async () => {
    const world = new World()
    const glance = (): string | undefined => world.kept.glance(world.now + 1000)
    expect(glance()).toBeUndefined()
    await world.current()
    expect([glance(), world.reads]).toEqual(['a', 1])
    world.now += 80_000
    world.next = 'b'
    expect([glance(), glance(), world.reads]).toEqual(['a', 'a', 2])
    await world.current()
    expect([glance(), world.reads]).toEqual(['b', 2])
    world.now += 80_000
    world.next = new Error('away')
    expect(glance()).toBe('b')
    await new Promise((resolve) => setImmediate(resolve))
    expect([glance(), world.reads]).toEqual(['b', 3])
  })

  it('serves on while no other can be had, until it is no good any more', async () => {
    const world = new World()
    await world.current()
    world.next = new Error('away')
    world.now += 85_000
    expect([await world.current(), await world.current(), world.reads]).toEqual(['a', 'a', 2])
    world.now += 10_000
    expect([await world.current(), world.reads]).toEqual(['a', 3])
    world.now += 5000
    await expect(world.current()).rejects.toThrow('away')
  })

  it('is read anew where the clock was set back', async () => {
    const world = new World()
    await world.current()
    world.now -= 3_600_000
    world.next = 'b'
    expect(await world.current()).toBe('b')
  })

  it('is read once more after a refusal, and not again and again', async () => {
    const world = new World()
    await world.current()
    expect([await world.kept.isRenewed('a', 0), world.reads]).toEqual([false, 1])
    world.now += 5000
    expect([await world.kept.isRenewed('a', 0), world.reads]).toEqual([false, 2])
    expect([await world.kept.isRenewed('a', 0), world.reads]).toEqual([false, 2])
    world.now += 5000
    world.next = 'b'
    expect([await world.kept.isRenewed('a', 0), world.reads]).toEqual([true, 3])
    expect([await world.kept.isRenewed('a', 0), world.reads]).toEqual([true, 3])
    world.now += 5000
    world.next = new Error('away')
    expect(await world.kept.isRenewed('b', 0)).toBe(false)
  })
})
