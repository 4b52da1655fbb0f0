/** `GET /metrics` on 127.0.0.1, for Prometheus on the same machine. It tells no secret, and takes no input but a path. */
import { createServer } from 'node:http'
import type { PrometheusMetrics } from '../lib/adapters/prometheus.ts'
import { listenAt } from '../lib/local/listening.ts'

export interface MetricsEndpoint {
  readonly url: string
  close(): Promise<void>
}

const HOST = '127.0.0.1'
const MAX_CONNECTIONS = 16
const REQUEST_MS = 10_000

/** Listens at a port; 0: any that is free. `ConfigError` where it is taken. */
export async function startMetricsEndpoint(
  port: number,
  metrics: Pick<PrometheusMetrics, 'contentType' | 'text'>,
): Promise<MetricsEndpoint> {
  const server = createServer({ requestTimeout: REQUEST_MS, maxHeaderSize: 8192 }, (request, response) => {
    const isThere = request.url === '/metrics'
    const isAllowed = request.method === 'GET' || request.method === 'HEAD'
    if (!isThere || !isAllowed) {
      response.writeHead(isThere ? 405 : 404, isThere ? { Allow: 'GET, HEAD' } : {}).end()
      return
    }
    metrics.text().then(
      (text) => response.writeHead(200, { 'Content-Type': metrics.contentType }).end(text),
      () => response.writeHead(500).end(),
    )
  })
  server.maxConnections = MAX_CONNECTIONS
  const subject = `${HOST}:${port}`
  const fix = 'Name another port, or 0 for any.'
  const listening = await listenAt(server, HOST, port, { where: '--metrics-port', subject, fix })
  return { url: `http://${HOST}:${listening.port}/metrics`, close: () => listening.end() }
}
