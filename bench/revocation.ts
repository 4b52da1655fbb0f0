/** How long a stolen key is still taken after `sealgate keys revoke`, in a gate as it is set up: the worst moment for it. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { readContracts } from '../lib/adapters/contract-files.ts'
import { buildBundle } from '../lib/contract/bundle.ts'
import { checkContracts } from '../lib/contract/load.ts'
import { openGateway } from '../test/real/stack/gateway.ts'
import { startStack } from '../test/real/stack/stack.ts'
import { steal } from '../test/real/theft.ts'
import { type Result, rounded, type Setting } from './measure.ts'

const PARTITIONS = 4
const CONTRACTS = fileURLToPath(new URL('../contracts', import.meta.url))

/** One revocation on a broker of its own; a quick one where gates read the directory every 2 s. */
export async function revocation({ quick }: Setting): Promise<Result> {
  const folder = await mkdtemp(join(tmpdir(), 'sealgate-bench-'))
  const broker = await startStack({ say: (line) => console.error(`revocation: ${line}`) })
  try {
    const { files } = checkContracts(await readContracts(CONTRACTS))
    const gateway = await openGateway(broker.connection, folder, buildBundle(files), PARTITIONS)
    try {
      const theft = await steal(gateway, {
        partitions: PARTITIONS,
        withinMs: 120_000,
        ...(quick && { maxAgeMs: 2000 }),
      })
      const count = (kind: string): number =>
        theft.decisions.filter(({ entry }) => entry.kind === kind).length
      const data = {
        refusedAfterSeconds: rounded(theft.refusedMs / 1000),
        commandSeconds: rounded(theft.commandMs / 1000),
        admitted: count('event.admitted'),
        refused: count('event.rejected'),
      }
      const table = [Object.keys(data), Object.values(data).map(String)]
      return { table, data }
    } finally {
      await gateway.close()
    }
  } finally {
    await broker.stop()
    await rm(folder, { recursive: true, force: true })
  }
}
