/** What a decision costs among 10 contracts and among 10,000: it should be the same. */
import { authorise } from '../lib/contract/authorise.ts'
import { buildBundle, loadBundle } from '../lib/contract/bundle.ts'
import type { Contracts } from '../lib/contract/contract.ts'
import { ED25519 } from '../lib/envelope/suite.ts'
import { admissionArm } from './admission.ts'
import { type Arm, measure, type Result, type Setting, spreadText } from './measure.ts'
import { CHANNEL, contractFile, ISSUER, makeWorld, sealSlices, SLICE, SOURCE, TYPE } from './world.ts'

const typeOf = (index: number): string => (index === 0 ? TYPE : `com.example.order.event${index}.v1`)

export async function contracts({ effort, quick }: Setting): Promise<Result> {
  const counts = quick ? [10, 100] : [10, 100, 1000, 10_000]
  const arms: Arm[] = []
  const rows: { count: number; loadMs: number }[] = []
  for (const count of counts) {
    const bundle = buildBundle(Array.from({ length: count }, (_, index) => contractFile(typeOf(index))))
    const start = performance.now()
    const table = loadBundle(bundle)
    rows.push({ count, loadMs: performance.now() - start })
    arms.push(lookUpArm(`look up ${count}`, table, count))
    const world = await makeWorld(ED25519, table)
    // The types of an event's neighbours: ten, spread over all contracts.
    const slices = await sealSlices(world, 8 * SLICE, SLICE, 1024, (index) =>
      typeOf((index % 10) * (count / 10)),
    )
    arms.push(admissionArm(`admission ${count}`, world, slices))
  }
  const timings = await measure(arms, effort)
  const first = counts[0] ?? 0
  const cells = rows.map(({ count, loadMs }) => ({
    contracts: count,
    loadMs,
    lookUp: timings.microseconds(`look up ${count}`),
    admission: timings.microseconds(`admission ${count}`),
    ratio: timings.ratio(`admission ${count}`, `admission ${first}`),
  }))
  return {
    table: [
      ['contracts', 'bundle loaded, ms', 'look-up, µs', 'admission, µs', `× that of ${first}`],
      ...cells.map((row) => [
        String(row.contracts),
        row.loadMs.toFixed(0),
        row.lookUp.median.toFixed(2),
        row.admission.median.toFixed(1),
        spreadText(row.ratio),
      ]),
    ],
    data: { rows: cells },
  }
}

function lookUpArm(name: string, table: Contracts, count: number): Arm {
  const types = Array.from({ length: count }, (_, index) => typeOf(index))
  let next = 0
  return {
    name,
    events: SLICE,
    run: () => {
      for (let look = 0; look < SLICE; look++) {
        // A stride that meets all of them: not the same few, and not in the order of the map.
        next = (next + 7919) % count
        authorise(CHANNEL, { iss: ISSUER, type: types[next] ?? '', source: SOURCE }, table)
      }
    },
  }
}
