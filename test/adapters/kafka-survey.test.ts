/** A survey of brokers that are none: what does not answer is not taken for one that refuses. */
import { createServer, type Server, type Socket } from 'node:net'
import { afterEach, describe, expect, it } from 'vitest'
import { readKafkaSettings } from '../../lib/adapters/kafka-settings.ts'
import { admitsAnybody } from '../../lib/adapters/kafka-survey.ts'

const clock = { now: () => Date.now() }
const opened: { readonly server: Server; readonly sockets: Set<Socket> }[] = []

afterEach(async () => {
  for (const { server, sockets } of opened.splice(0)) {
    for (const socket of sockets) socket.destroy()
    await new Promise((resolve) => server.close(resolve))
  }
})

/** A listener that takes connections, and does this with what is sent. */
async function listener(onData: (socket: Socket) => void): Promise<string> {
  const sockets = new Set<Socket>()
  const server = createServer((socket) => {
    sockets.add(socket)
    socket.on('error', () => undefined)
    socket.on('data', () => onData(socket))
  })
  opened.push({ server, sockets })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  return `127.0.0.1:${typeof address === 'object' ? address?.port : ''}`
}

const ask = (...brokers: string[]): Promise<boolean> =>
  admitsAnybody(
    readKafkaSettings({
      ...{ brokers, deployment: 'shop', insecurePlaintext: true },
      requestTimeoutMs: 1000,
    }),
    clock,
    Date.now() + 4000,
  )

describe('whether brokers answer somebody who shows nothing', () => {
  it('is no where they hang up', async () => {
    expect(await ask(await listener((socket) => socket.destroy()))).toBe(false)
  })

  it('is what those say that are there, whichever is named first', async () => {
    const refusing = await listener((socket) => socket.destroy())
    expect(await ask('127.0.0.1:1', refusing)).toBe(false)
    expect(await ask(refusing, '127.0.0.1:1')).toBe(false)
    await expect(ask('127.0.0.1:1')).rejects.toThrow('no broker can be reached (ECONNREFUSED)')
  })

  it.each([
    ['whose size is negative', [0xff, 0xff, 0xff, 0xff]],
    ['of no bytes', [0, 0, 0, 0]],
    ['of 2 GiB', [0x7f, 0xff, 0xff, 0xff]],
  ])('is no where what comes is an answer %s, which does not end the process', async (_, size) => {
    const begun = performance.now()
    expect(await ask(await listener((socket) => socket.write(Buffer.from(size))))).toBe(false)
    expect(performance.now() - begun).toBeLessThan(3000)
  })

  it('is not known where they say nothing at all', async () => {
    await expect(ask(await listener(() => undefined))).rejects.toMatchObject({ name: 'Outage' })
  })
})
