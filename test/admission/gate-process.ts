/** A gate in a process of its own, to be killed: takes the folder of a shop, and brings all orders to their end. */
import { toMskEvent } from '../../lib/adapters/msk-event.ts'
import { openShop } from '../shop.ts'

const [folder = '', sliceSize = '5'] = process.argv.slice(2)
const shop = await openShop(undefined, folder)
const gate = shop.gate()
const records = await shop.records('orders')
process.stdout.write('ready\n')
for (let start = 0; start < records.length; start += Number(sliceSize)) {
  const event = toMskEvent(records.slice(start, start + Number(sliceSize)), {
    eventSourceArn: 'arn',
    bootstrapServers: 'b',
  })
  await gate.handle(JSON.parse(JSON.stringify(event)), Date.now() + 20_000)
  process.stdout.write('.\n')
}
await gate.close()
await shop.stack.close()
