/** A service of AWS on 127.0.0.1 that speaks JSON 1.1, for the SDK of the code under test. */
import { createServer } from 'node:http'

/** With any status but 200 the body is an error: `{ __type, message }`. */
export type AwsAnswer = readonly [status: number, body: object]

export interface AwsEndpoint {
  readonly url: string
  end(): Promise<void>
}

export const awsError = (name: string, message = 'planted-message'): AwsAnswer => [
  400,
  { __type: name, message },
]

/** `answer` is told the action without its service's prefix. What it throws is an error of that name. */
export async function serveAws(
  answer: (action: string, asked: Readonly<Record<string, unknown>>) => AwsAnswer,
): Promise<AwsEndpoint> {
  const answerOf = (action: string, text: string): AwsAnswer => {
    try {
      return answer(action, JSON.parse(text))
    } catch (error) {
      return awsError(error instanceof Error ? error.name : 'InternalFailure', 'refused')
    }
  }
  const server = createServer((request, response) => {
    const parts: Buffer[] = []
    request.on('data', (part: Buffer) => parts.push(part))
    request.on('end', () => {
      const action = String(request.headers['x-amz-target']).replace(/^.*\./, '')
      const [status, body] = answerOf(action, Buffer.concat(parts).toString())
      response.writeHead(status, { 'content-type': 'application/x-amz-json-1.1' }).end(JSON.stringify(body))
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  const port = address !== null && typeof address === 'object' ? address.port : 0
  return {
    url: `http://127.0.0.1:${port}`,
    end: async () => {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}
