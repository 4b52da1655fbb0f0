/** The network between a handler and its brokers: a listener of each that is reached by a proxy alone. */
import { appendFile, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { freePorts } from '../stack/broker.ts'
import type { RealStack } from '../stack/stack.ts'
import { whole } from './at-work.ts'
import { Proxy } from './proxy.ts'

export class Network {
  readonly #proxies: readonly Proxy[]

  private constructor(proxies: readonly Proxy[]) {
    this.#proxies = proxies
  }

  /** Gives every broker such a listener, and starts it anew. Whoever goes by the usual ones is not concerned. */
  static async before(stack: RealStack): Promise<Network> {
    const { ports, proxies } = await draw(stack.brokers.size)
    const network = new Network(proxies)
    for (const [index, [id, broker]] of [...stack.brokers].entries()) {
      await broker.stop('SIGTERM')
      const home = join(stack.connection.certificates, String(id))
      await addListener(home, ports[index] ?? 0, network.#proxies[index]?.port ?? 0)
      await broker.start()
      await whole(stack)
    }
    return network
  }

  /** As a client is told them. */
  get brokers(): readonly string[] {
    return this.#proxies.map(({ port }) => `127.0.0.1:${port}`)
  }

  /** Nothing passes, and nobody is told. */
  cut(): void {
    for (const proxy of this.#proxies) proxy.cut()
  }

  mend(): void {
    for (const proxy of this.#proxies) proxy.mend()
  }

  /** From now on all that passes takes so much longer, each way. */
  slow(byMs: number): void {
    for (const proxy of this.#proxies) proxy.slow(byMs)
  }

  async close(): Promise<void> {
    await Promise.all(this.#proxies.map((proxy) => proxy.close()))
  }
}

/** Free ports, and a proxy before each. */
async function draw(count: number): Promise<{ ports: readonly number[]; proxies: readonly Proxy[] }> {
  for (;;) {
    const ports = await freePorts(count)
    const proxies = await Promise.all(ports.map((port) => Proxy.open(port)))
    // Proxies may get what was let go.
    if (!proxies.some(({ port }) => ports.includes(port))) return { ports, proxies }
    await Promise.all(proxies.map((proxy) => proxy.close()))
  }
}

/** The last of a name counts. */
async function addListener(home: string, port: number, advertised: number): Promise<void> {
  const path = join(home, 'server.properties')
  const lines = (await readFile(path, 'utf8')).split('\n')
  const valueOf = (name: string): string =>
    lines.find((line) => line.startsWith(`${name}=`))?.slice(name.length + 1) ?? ''
  const login = 'org.apache.kafka.common.security.scram.ScramLoginModule required;'
  const added = [
    `listeners=${valueOf('listeners')},PROXIED://127.0.0.1:${port}`,
    `advertised.listeners=${valueOf('advertised.listeners')},PROXIED://127.0.0.1:${advertised}`,
    `listener.security.protocol.map=${valueOf('listener.security.protocol.map')},PROXIED:SASL_SSL`,
    `listener.name.proxied.scram-sha-512.sasl.jaas.config=${login}`,
  ]
  await appendFile(path, `${added.join('\n')}\n`)
}
