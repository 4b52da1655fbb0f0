/**
 * Services of AWS that speak JSON 1.1 (KMS, Secrets Manager) at one address, for the SDK of a function that runs here. Who
 * asks is not looked at, and there is no TLS: for this machine, or a network of containers.
 */
import { createServer, type IncomingMessage } from 'node:http'
import { listenAt } from './listening.ts'

/** With any status but 200 the body is an error: `{ __type, message }`. */
export type AwsAnswer = readonly [status: number, body: object]

/** Is told the action without its service's prefix. What it throws is an error of that name. */
export type AwsAnswers = (
  action: string,
  asked: Readonly<Record<string, unknown>>,
) => AwsAnswer | Promise<AwsAnswer>

export interface AwsEndpoint {
  readonly url: string
  end(): Promise<void>
}

export const awsError = (name: string, message = 'refused'): AwsAnswer => [400, { __type: name, message }]

/** Longer than any of these services' own. */
const MAX_REQUEST_BYTES = 1_048_576

/** Listens there, by default at a free port of 127.0.0.1. `ConfigError` where that cannot be. */
export async function serveAws(
  answers: AwsAnswers,
  { host, port }: { readonly host: string; readonly port: number } = { host: '127.0.0.1', port: 0 },
): Promise<AwsEndpoint> {
  const server = createServer((request, response) => {
    answerTo(request, answers).then(
      ([status, body]) =>
        response
          .writeHead(status, { 'content-type': 'application/x-amz-json-1.1' })
          .end(JSON.stringify(body)),
      () => response.destroy(),
    )
  })
  const where = `${host}:${port}`
  const fix = 'Name another address of this machine.'
  const listening = await listenAt(server, host, port, { where, subject: 'It', fix })
  return { url: `http://${host}:${listening.port}`, end: () => listening.end() }
}

async function answerTo(request: IncomingMessage, answers: AwsAnswers): Promise<AwsAnswer> {
  const parts: Buffer[] = []
  let bytes = 0
  for await (const part of request) {
    if (!(part instanceof Buffer)) continue
    bytes += part.length
    if (bytes > MAX_REQUEST_BYTES) throw new TypeError('too long')
    parts.push(part)
  }
  const action = String(request.headers['x-amz-target']).replace(/^.*\./, '')
  try {
    return await answers(action, objectOf(JSON.parse(Buffer.concat(parts).toString())))
  } catch (error) {
    // Its message may quote what was asked.
    return awsError(error instanceof Error ? error.name : 'InternalFailure')
  }
}

function objectOf(value: unknown): Readonly<Record<string, unknown>> {
  if (typeof value !== 'object' || value === null) throw new TypeError('no object')
  return Object.fromEntries(Object.entries(value))
}
