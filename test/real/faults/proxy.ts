/** A TCP proxy on 127.0.0.1 whose network can be cut, when nothing passes and nobody is told, or slow. */
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net'

export class Proxy {
  readonly #server: Server
  readonly #sockets = new Set<Socket>()
  #isCut = false
  #delayMs = 0

  private constructor(target: number) {
    this.#server = createServer((near) => {
      const far = connect(target, '127.0.0.1')
      this.#add(near, far)
      this.#add(far, near)
    })
  }

  /** Listens on a free port. */
  static async open(target: number): Promise<Proxy> {
    const proxy = new Proxy(target)
    await new Promise<void>((resolve) => proxy.#server.listen(0, '127.0.0.1', resolve))
    return proxy
  }

  get port(): number {
    const address: AddressInfo | string | null = this.#server.address()
    if (address === null || typeof address === 'string') throw new Error('the proxy does not listen')
    return address.port
  }

  /** What is under way stays where it is; new connections are taken and get no answer. */
  cut(): void {
    this.#isCut = true
    for (const socket of this.#sockets) socket.pause()
  }

  mend(): void {
    this.#isCut = false
    for (const socket of this.#sockets) socket.resume()
  }

  /** From now on all that passes takes so much longer, each way. */
  slow(byMs: number): void {
    this.#delayMs = byMs
  }

  async close(): Promise<void> {
    for (const socket of this.#sockets) socket.destroy()
    await new Promise((resolve) => this.#server.close(resolve))
  }

  #add(socket: Socket, other: Socket): void {
    this.#sockets.add(socket)
    let before = Promise.resolve()
    socket.on('data', (chunk) => {
      const due = Date.now() + this.#delayMs
      // What came first goes first, also when the delay gets shorter.
      before = before.then(async () => {
        if (due > Date.now()) await new Promise((resolve) => setTimeout(resolve, due - Date.now()))
        other.write(chunk)
      })
    })
    socket.on('error', () => other.destroy())
    socket.on('close', () => {
      this.#sockets.delete(socket)
      // An end that comes in a cut is told when the network is back, by the other side's own time-out.
      if (!this.#isCut) other.destroy()
    })
    if (this.#isCut) socket.pause()
  }
}
