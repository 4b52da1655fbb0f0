import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { runGroup } from '../../lib/admission/conformance.ts'
import { parseVectorFile } from '../../lib/admission/vector-file.ts'
import { makeEvents } from '../../scripts/events.ts'
import { sealgate } from './terminal.ts'

const EVENTS = join(import.meta.dirname, '..', '..', 'events')
const made = makeEvents()

interface Answer {
  readonly answer?: unknown
  readonly error?: { readonly errorType: string; readonly errorMessage: string }
  readonly records: readonly { readonly place: string; readonly verdict: string }[]
}

async function invoke(name: string, env: Record<string, string> = {}): Promise<Answer & { status?: number }> {
  const { out, status } = await sealgate(
    ['invoke', 'ingest', '-e', join(EVENTS, name), '--world', join(EVENTS, 'world.json'), '--json'],
    { env },
  )
  const answer: Answer = JSON.parse(out)
  return { ...answer, ...(status !== undefined && { status }) }
}

describe('events/', () => {
  it.each([...made.keys()])('holds %s as the script makes it', async (name) => {
    expect(await readFile(join(EVENTS, name), 'utf8')).toBe(made.get(name))
  })

  it('holds a world whose vectors come out as expected, one after the other', async () => {
    const { failed, passed } = await runGroup(parseVectorFile('world.json', made.get('world.json') ?? ''))
    expect({ failed, passed }).toEqual({ failed: 0, passed: 47 })
  })

  it('has events that the function decides as the vectors say', async () => {
    const { vectors } = parseVectorFile('world.json', made.get('world.json') ?? '')
    const expected = vectors
      .filter(({ expect: verdict }) => verdict !== 'outage')
      .map(({ record, expect: verdict }) => [`${record.topic}/${record.partition}/${record.offset}`, verdict])
    const { answer, records, status } = await invoke('msk-mixed.json')
    expect(new Map(records.map(({ place, verdict }) => [place, verdict]))).toEqual(
      new Map(expected.map(([place = '', verdict = '']) => [place, verdict])),
    )
    expect({ answer, status }).toEqual({ answer: null, status: 0 })
  })

  it('has one that stops at an outage: the handler throws, or answers with what is left', async () => {
    const thrown = await invoke('msk-outage.json')
    expect(thrown.error?.errorMessage).toContain('shop.orders-3 at offset 1035: key-service-unavailable')
    expect(thrown.records).toEqual([{ place: 'shop.orders/3/1000', verdict: 'admitted' }])
    expect(thrown.status).toBe(1)
    const partial = await invoke('msk-outage.json', { SEALGATE_FAILURE_MODE: 'partial' })
    expect(partial.answer).toEqual({
      batchItemFailures: [{ itemIdentifier: { partition: 'shop.orders-3', offset: 1035 } }],
    })
    expect(partial.status).toBe(0)
  })

  it('finds the world beside the event by itself', async () => {
    const { out, err, status } = await sealgate(['invoke', 'ingest', '-e', join(EVENTS, 'self-managed.json')])
    expect({ out, status }).toEqual({ out: 'null', status: 0 })
    expect(err).toContain(`Decided in the world of ${join(EVENTS, 'world.json')}.`)
  })

  it('is refused on a stack of other topics, with the world that it belongs to', async () => {
    const folder = await mkdtemp(join(tmpdir(), 'sealgate-events-'))
    try {
      const contracts = join(EVENTS, '..', 'contracts')
      const env = { SEALGATE_LOCAL: folder }
      const stop = new AbortController()
      await sealgate(['local', 'start', '--contracts', contracts], {
        env,
        stop: stop.signal,
        onLine: () => {
          stop.abort()
        },
      })
      const args = ['invoke', 'ingest', '-e', join(EVENTS, 'msk-single.json')]
      const refused = await sealgate(args, { env })
      expect(refused.err).toContain(`The stack in ${folder} has no such topic.`)
      expect(refused.err).toContain(`--world ${join(EVENTS, 'world.json')}.`)
      expect(refused.status).toBe(2)
      const world = await sealgate([...args, '--world', join(EVENTS, 'world.json')], { env })
      expect(world.status).toBe(0)
    } finally {
      await rm(folder, { recursive: true, force: true })
    }
  })

  it('refuses settings that it does not know, and an event that is no JSON', async () => {
    const args = ['invoke', 'ingest', '-e', join(EVENTS, 'msk-single.json')]
    const unknown = await sealgate(args, { env: { SEALGATE_LOCAAL: 'x' } })
    expect(unknown.err).toContain('fault SEALGATE_LOCAAL: No setting has this name.')
    const noJson = await sealgate(['invoke', 'ingest', '-e', '-'], { input: 'x' })
    expect(noJson.err).toContain('It is no JSON.')
    expect([unknown.status, noJson.status]).toEqual([2, 2])
  })
})
