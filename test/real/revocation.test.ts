/** A stolen key on a real cluster, revoked as a user does it while the thief sends (docs/keys.md). */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { readContracts } from '../../lib/adapters/contract-files.ts'
import { buildBundle } from '../../lib/contract/bundle.ts'
import { checkContracts } from '../../lib/contract/load.ts'
import { type Ran, sealgate } from '../cli/terminal.ts'
import { type Gateway, openGateway } from './stack/gateway.ts'
import { steal, type Theft } from './theft.ts'
import { connection } from './world.ts'

const PARTITIONS = 2
interface TallyJson {
  readonly admitted: number
  readonly rejected: Readonly<Record<string, number>>
  readonly ranges: readonly (readonly [string, string])[]
}
interface PlaceJson {
  readonly topic: string
  readonly partition: number
  readonly proven: TallyJson | null
  readonly claimed: TallyJson | null
}
let folder = ''
let gateway: Gateway
let theft: Theft
const at = (...args: string[]): Promise<Ran> => sealgate([...args, '--settings', gateway.settingsFile])
const ok = async (...args: string[]): Promise<string> => {
  const { out, err, status } = await at(...args)
  expect({ err, status }).toEqual({ err: '', status: 0 })
  return out
}

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'sealgate-revocation-'))
  const { files } = checkContracts(
    await readContracts(fileURLToPath(new URL('../../contracts', import.meta.url))),
  )
  gateway = await openGateway(connection, folder, buildBundle(files), PARTITIONS)
  theft = await steal(gateway, { partitions: PARTITIONS, maxAgeMs: 2000, withinMs: 30_000 })
}, 90_000)
afterAll(async () => {
  await gateway.close()
  await rm(folder, { recursive: true, force: true })
})

const decided = (kind: string) => theft.decisions.filter(({ entry }) => entry.kind === kind)

describe('a key that is revoked while a thief sends with it', () => {
  it('is refused in the running gate as soon as its copy of the directory is new', () => {
    expect(theft.refusedMs).toBeGreaterThan(0)
    expect(theft.refusedMs).toBeLessThan(theft.commandMs + 2000 + 10_000)
  })

  it('is refused with all that the broker has stamped since, and what it stamped before stays', () => {
    const [admitted, refused] = [decided('event.admitted'), decided('event.rejected')]
    expect([admitted.length, refused.length].every((count) => count > 3)).toBe(true)
    for (const { entry } of refused) expect(entry).toMatchObject({ code: 'key-not-valid' })
    const before = theft.decisions.filter(({ stampedMs }) => stampedMs < theft.compromisedAtMs)
    expect(before.length).toBeGreaterThan(0)
    for (const { entry } of before) expect(entry.kind).toBe('event.admitted')
    // From the first refusal on, but for the slice that was at hand in the other partition.
    const first = Math.min(...refused.map(({ entry }) => entry.timeMs))
    const later = admitted.filter(({ entry }) => entry.timeMs > first + 1000)
    expect(later).toEqual([])
    expect(refused.every(({ stampedMs }) => stampedMs >= theft.compromisedAtMs)).toBe(true)
  })

  it('stands in the audit, which verifies: both kinds of decision, and who revoked it', async () => {
    const verified = JSON.parse(await ok('audit', 'verify', '--json'))
    expect(verified).toMatchObject({ verified: true, headsKnown: true })
    expect(verified.ranges.map(({ topic }: { topic: string }) => topic)).toContain('_control')
    const [, story] = theft.printed.trim().split('\n').slice(-2)
    expect(story).toBe(
      `Its story: sealgate audit search --resource 'key:${theft.kid}' --settings ${gateway.settingsFile}`,
    )
    const found = await ok('audit', 'search', '--resource', `key:${theft.kid}`)
    expect(found).toMatch(/key\.enrolled {2}.*\n.*key\.revoked {2}User:ann {2}key:/)
    expect(await ok('audit', 'search', '--code', 'key-not-valid')).toContain(
      `${decided('event.rejected').length} of `,
    )
  })

  it('has touched what keys touched lists: partitions, offsets, and where it went', async () => {
    const touched: { partitions: PlaceJson[]; channels: Record<string, number> } = JSON.parse(
      await ok('keys', 'touched', '--json', theft.kid),
    )
    const sum = (pick: (place: PlaceJson) => number | undefined): number =>
      touched.partitions.reduce((all, place) => all + (pick(place) ?? 0), 0)
    const admitted = decided('event.admitted').length
    expect(sum(({ proven }) => proven?.admitted)).toBe(admitted)
    expect(sum(({ claimed }) => claimed?.rejected['key-not-valid'])).toBe(decided('event.rejected').length)
    for (const { topic, partition, proven, claimed } of touched.partitions)
      for (const [kind, tally] of [
        ['event.admitted', proven] as const,
        ['event.rejected', claimed] as const,
      ]) {
        const own = decided(kind).filter(
          ({ entry }) => entry.topic === topic && entry.partition === partition,
        )
        const offsets = (tally?.ranges ?? []).reduce(
          (all, [from, next]) => all + Number(next) - Number(from),
          0,
        )
        expect(offsets).toBe(own.length)
      }
    expect(Object.values(touched.channels)).toContain(admitted)
  })

  it('of operators and functions that write the control chain at once, none forks it', async () => {
    const before = Number(JSON.parse(await ok('directory', 'show', '--json')).version)
    const all = await Promise.all([1, 2, 3].map((index) => at('directory', 'publish', '--by', `u${index}`)))
    expect(all.map(({ status, err }) => [status, err])).toEqual([0, 1, 2].map(() => [0, '']))
    // A command ends with its commit's answer, a moment before readers see what it has written.
    const areFound = async (): Promise<boolean> => {
      const found = await ok('audit', 'search', '--type', 'directory.renewed', '--json')
      return [1, 2, 3].every((version) => found.includes(`"resource":"directory:${before + version}"`))
    }
    await expect.poll(areFound, { timeout: 20_000 }).toBe(true)
    expect(JSON.parse(await ok('audit', 'verify', '--json'))).toMatchObject({
      verified: true,
      headsKnown: true,
    })
    expect(await ok('position', 'show', gateway.world.auditTopic)).toMatch(/^PARTITION {2}NEXT\n0 {10}\d+$/)
    expect((await at('position', 'init', gateway.world.auditTopic)).status).toBe(2)
  })
})
