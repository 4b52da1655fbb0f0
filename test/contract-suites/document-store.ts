/** What every `DocumentStore` must keep, wherever it writes: above all that of two who write at once one loses. */
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { Outage } from '../../lib/errors.ts'
import type { DocumentStore } from '../../lib/ports.ts'

export interface DocumentWorld {
  /** A place with nothing in it. Each call of what it gives is a store of its own there, as of another process. */
  newPlace(): Promise<() => DocumentStore>
  end(): Promise<void>
}

const soon = (): number => Date.now() + 10_000
const bytes = (text: string): Buffer => Buffer.from(text)
const WRITERS = 8

export function documentStoreContract(name: string, openWorld: () => Promise<DocumentWorld>): void {
  describe(`${name} as DocumentStore`, () => {
    let world: DocumentWorld
    beforeAll(async () => {
      world = await openWorld()
    }, 60_000)
    afterAll(() => world.end())

    const textAt = async (store: DocumentStore): Promise<string | undefined> => {
      const found = await store.find(soon())
      return found && Buffer.from(found.bytes).toString()
    }

    const etagAt = async (store: DocumentStore): Promise<string> => {
      const found = await store.find(soon())
      if (found === undefined) throw new Error('nothing is there')
      return found.etag
    }

    it('finds nothing where nothing was written, and cannot read that', async () => {
      const store = (await world.newPlace())()
      expect(await store.find(soon())).toBeUndefined()
      await expect(store.read(undefined, soon())).rejects.toBeInstanceOf(Outage)
    })

    it('writes a first document once', async () => {
      const open = await world.newPlace()
      expect(await open().write(bytes('one'), undefined, soon())).toBe('written')
      expect(await open().write(bytes('two'), undefined, soon())).toBe('changed')
      expect(await textAt(open())).toBe('one')
    })

    it('calls it unchanged under its etag, and gives what came after', async () => {
      const open = await world.newPlace()
      const [reader, writer] = [open(), open()]
      await writer.write(bytes('one'), undefined, soon())
      const first = await reader.read(undefined, soon())
      if (first === 'unchanged') throw new Error('it was never read')
      expect(Buffer.from(first.bytes).toString()).toBe('one')
      expect(await reader.read(first.etag, soon())).toBe('unchanged')
      expect(await writer.write(bytes('two'), await etagAt(writer), soon())).toBe('written')
      const second = await reader.read(first.etag, soon())
      expect(second !== 'unchanged' && Buffer.from(second.bytes).toString()).toBe('two')
    })

    it('writes nothing over what it has not read', async () => {
      const open = await world.newPlace()
      await open().write(bytes('one'), undefined, soon())
      const old = await etagAt(open())
      await open().write(bytes('two'), old, soon())
      expect(await open().write(bytes('three'), old, soon())).toBe('changed')
      expect(await textAt(open())).toBe('two')
    })

    it('writes nothing where nothing is any more to be replaced', async () => {
      const open = await world.newPlace()
      const elsewhere = (await world.newPlace())()
      await elsewhere.write(bytes('one'), undefined, soon())
      expect(await open().write(bytes('two'), await etagAt(elsewhere), soon())).toBe('changed')
      expect(await textAt(open())).toBeUndefined()
    })

    it.each(['the first', 'the next'])('lets one of many win who write %s at once', async (which) => {
      const open = await world.newPlace()
      if (which === 'the next') await open().write(bytes('before'), undefined, soon())
      const etag = (await open().find(soon()))?.etag
      const outcomes = await Promise.all(
        Array.from({ length: WRITERS }, async (_, writer) => ({
          writer,
          outcome: await open().write(bytes(`by ${writer}`), etag, soon()),
        })),
      )
      const winners = outcomes.filter(({ outcome }) => outcome === 'written')
      expect(winners).toHaveLength(1)
      expect(await textAt(open())).toBe(`by ${winners[0]?.writer}`)
    })

    it('is an outage when no time is left, and has written nothing', async () => {
      const open = await world.newPlace()
      const late = Date.now() - 1
      await expect(open().find(late)).rejects.toBeInstanceOf(Outage)
      await expect(open().read(undefined, late)).rejects.toBeInstanceOf(Outage)
      expect(await textAt(open())).toBeUndefined()
    })
  })
}
