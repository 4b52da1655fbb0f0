/** A server of ours on a port of this machine: where it cannot be had, that is told as a setting's fault. */
import type { Server } from 'node:http'
import { codeOf, ConfigError } from '../errors.ts'

export interface Listening {
  /** The one that was asked for; a free one where that was 0. */
  readonly port: number
  /** Open connections are cut. */
  end(): Promise<void>
}

/**
 * Rejects with `ConfigError` where it cannot listen there.
 * @param told `where` and `fix` of that fault; `subject` begins its sentence
 */
export async function listenAt(
  server: Server,
  host: string,
  port: number,
  { subject, ...place }: { readonly where: string; readonly subject: string; readonly fix: string },
): Promise<Listening> {
  await new Promise<void>((resolve, reject) => {
    // Also after it listens, when a connection may fail: that client tries again.
    server.on('error', (error) => {
      reject(new ConfigError([{ ...place, what: `${subject} cannot be listened at (${codeOf(error)}).` }]))
    })
    server.listen(port, host, resolve)
  })
  const address = server.address()
  return {
    port: address !== null && typeof address === 'object' ? address.port : port,
    end: () =>
      new Promise((resolve) => {
        server.close(() => {
          resolve()
        })
        server.closeAllConnections()
      }),
  }
}
