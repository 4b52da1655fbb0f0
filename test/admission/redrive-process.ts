/** An operator in a process of its own, to be killed: takes the folder of a shop, and redrives all that is in quarantine. */
import { redriven, REFUND_CONTRACT } from './redrive-shop.ts'
import { ORDER_CONTRACT, openShop } from '../shop.ts'

const [folder = ''] = process.argv.slice(2)
const shop = await openShop([ORDER_CONTRACT, REFUND_CONTRACT], folder)
process.stdout.write('.')
const { stops } = await redriven(
  shop,
  {},
  {
    change: (parts) => ({
      ...parts,
      sink: {
        partitionsOf: (topic, deadline) => parts.sink.partitionsOf(topic, deadline),
        open: async (source, deadline) => {
          const session = await parts.sink.open(source, deadline)
          return {
            position: session.position,
            // Many transactions, so that there is something between them to die at.
            maxBatchBytes: 12_000,
            maxStateBytes: session.maxStateBytes,
            commit: async (...call) => {
              process.stdout.write('.')
              await session.commit(...call)
              process.stdout.write('.')
            },
            close: () => session.close(),
          }
        },
      },
    }),
  },
)
await shop.stack.close()
process.exitCode = stops.length
