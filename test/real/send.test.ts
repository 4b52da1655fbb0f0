/** `sealgate send` while its broker is restarted. */
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { toMskEvent } from '../../lib/adapters/msk-event.ts'
import { createIngest } from '../../lib/admission/slice.ts'
import { buildBundle } from '../../lib/contract/bundle.ts'
import { checkContracts } from '../../lib/contract/load.ts'
import { createGate } from '../../lib/runtime.ts'
import { sealgate } from '../cli/terminal.ts'
import { ORDER_CONTRACT, ORDER_TYPE } from '../shop.ts'
import { RealCluster } from './cluster.ts'
import { restartBroker } from './faults/at-work.ts'
import { totals, upTo } from './shop.ts'
import { type Gateway, openGateway } from './stack/gateway.ts'
import { type RealStack, startStack } from './stack/stack.ts'
import { connection } from './world.ts'

const CHUNKS = 40
const CHUNK = 20
const DOWN_MS = 1500

let folder: string
let stack: RealStack
let gateway: Gateway
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'sealgate-send-'))
  stack = await startStack({ version: connection.version })
  const { files } = checkContracts([{ file: 'order.yaml', text: ORDER_CONTRACT }])
  gateway = await openGateway(stack.connection, folder, buildBundle(files), 2)
}, 120_000)
afterAll(async () => {
  await gateway.close()
  await stack.stop()
  await rm(folder, { recursive: true, force: true })
})

it('tries again until the broker is back, says so, and the gate takes each event once', async () => {
  let restarting: Promise<void> | undefined
  async function* orders(): AsyncGenerator<Uint8Array> {
    for (let chunk = 0; chunk < CHUNKS; chunk++) {
      if (chunk === CHUNKS / 4) restarting = restartBroker(stack, 'SIGKILL', DOWN_MS)
      const lines = Array.from({ length: CHUNK }, (_, index) => {
        const id = chunk * CHUNK + index
        return `{"orderId":"A-${id}","total":${id},"customer":{"id":"c${id % 7}"}}\n`
      })
      yield await Promise.resolve(Buffer.from(lines.join('')))
    }
  }
  const args = [
    'send',
    '-',
    '--type',
    ORDER_TYPE,
    '--key',
    '/customer/id',
    '--settings',
    gateway.settingsFile,
  ]
  const sent = await sealgate(args, { input: orders() })
  await restarting
  expect([sent.status, sent.out]).toEqual([0, `${CHUNKS * CHUNK} events sent.`])
  expect(sent.err).toMatch(/^trying again for 30 s: append to source\.orders: /)

  const cluster = new RealCluster(stack.connection)
  const gate = createGate(createIngest(gateway.gateParts()), 'throw')
  try {
    const event = toMskEvent(await cluster.readCommitted('source.orders'), ORIGIN)
    await gate.handle(JSON.parse(JSON.stringify(event)), Date.now() + 20_000)
    expect(totals(await cluster.readCommitted('output.orders.analytics'))).toEqual(upTo(CHUNKS * CHUNK))
  } finally {
    await gate.close()
    await cluster.end()
  }
}, 120_000)

const ORIGIN = {
  eventSourceArn: 'arn:aws:kafka:eu-west-1:000000000000:cluster/test',
  bootstrapServers: 'b-1:9098',
}
