/** S3 and Secrets Manager on 127.0.0.1, as much of them as a document needs, for the AWS SDK of the code under test. */
import { createHash } from 'node:crypto'
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http'
import { setEnvironment } from '../secrets-endpoint.ts'

export interface Endpoint {
  /** The next request is answered so; undefined lets it hang. */
  failNext(answer: { readonly status: number; readonly name: string } | undefined): void
  /** Takes the environment back too. */
  end(): Promise<void>
}

type Answer = { readonly status: number; readonly body: string; readonly headers?: Record<string, string> }
type Respond = (request: IncomingMessage, body: Buffer) => Answer

/** Points this process's environment at it, credentials included. */
async function serve(variable: string, respond: Respond, fault: (name: string) => string): Promise<Endpoint> {
  let next: { answer: { status: number; name: string } | undefined } | undefined
  const server = createServer((request, response: ServerResponse) => {
    const parts: Buffer[] = []
    request.on('data', (part: Buffer) => parts.push(part))
    request.on('end', () => {
      const fails = next
      next = undefined
      if (fails !== undefined && fails.answer === undefined) return
      const { status, body, headers }: Answer =
        fails?.answer === undefined
          ? respond(request, Buffer.concat(parts))
          : { status: fails.answer.status, body: fault(fails.answer.name) }
      response.writeHead(status, { ...headers, 'x-amzn-requestid': 'test' }).end(body)
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  const port = address !== null && typeof address === 'object' ? address.port : 0
  const restore = setEnvironment({
    [variable]: `http://127.0.0.1:${port}`,
    AWS_ACCESS_KEY_ID: 'AKIDEXAMPLE',
    AWS_SECRET_ACCESS_KEY: 'planted-aws-secret',
    AWS_REGION: 'eu-west-1',
  })
  return {
    failNext: (answer) => {
      next = { answer }
    },
    end: async () => {
      restore()
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

const xml = (code: string): string =>
  `<?xml version="1.0"?><Error><Code>${code}</Code><Message>planted-message</Message></Error>`

/** Conditional reads and writes of objects (RFC 9110 §13.1), in any bucket. */
export function startS3(): Promise<Endpoint> {
  const objects = new Map<string, Buffer>()
  const etagOf = (content: Buffer): string => `"${createHash('md5').update(content).digest('hex')}"`
  const respond: Respond = ({ method, url = '', headers }, body) => {
    const path = url.replace(/\?.*$/, '')
    const found = objects.get(path)
    const etag = found && etagOf(found)
    if (method === 'GET') {
      if (found === undefined || etag === undefined) return { status: 404, body: xml('NoSuchKey') }
      if (headers['if-none-match'] === etag) return { status: 304, body: '', headers: { etag } }
      return { status: 200, body: found.toString(), headers: { etag } }
    }
    const { 'if-match': match, 'if-none-match': none } = headers
    if (match !== undefined && etag === undefined) return { status: 404, body: xml('NoSuchKey') }
    if ((match !== undefined && match !== etag) || (none === '*' && found !== undefined))
      return { status: 412, body: xml('PreconditionFailed') }
    objects.set(path, body)
    return { status: 200, body: '', headers: { etag: etagOf(body) } }
  }
  return serve('AWS_ENDPOINT_URL_S3', respond, xml)
}

/** Secrets by their ARNs; each is there, and has no value until one is put. */
export function startSecrets(): Promise<Endpoint> {
  const secrets = new Map<string, { current: string; versions: Map<string, string> }>()
  const refuse = (name: string): string => JSON.stringify({ __type: name, message: 'planted-message' })
  const respond: Respond = ({ headers }, body) => {
    const asked: Record<string, unknown> = JSON.parse(body.toString())
    const arn = String(asked['SecretId'])
    const secret = secrets.get(arn) ?? { current: '', versions: new Map<string, string>() }
    if (headers['x-amz-target'] === 'secretsmanager.GetSecretValue') {
      const value = secret.versions.get(secret.current)
      if (value === undefined) return { status: 400, body: refuse('ResourceNotFoundException') }
      return {
        status: 200,
        body: JSON.stringify({ ARN: arn, VersionId: secret.current, SecretString: value }),
      }
    }
    if (headers['x-amz-target'] === 'secretsmanager.UpdateSecretVersionStage') {
      secret.current = String(asked['MoveToVersionId'])
      return { status: 200, body: '{}' }
    }
    const version = String(asked['ClientRequestToken'])
    const value = String(asked['SecretString'])
    if (version.length < 32 || version.length > 64)
      return { status: 400, body: refuse('InvalidParameterException') }
    const known = secret.versions.get(version)
    if (known !== undefined && known !== value)
      return { status: 400, body: refuse('ResourceExistsException') }
    if (known === undefined) {
      secret.versions.set(version, value)
      secret.current = version
      secrets.set(arn, secret)
    }
    return { status: 200, body: JSON.stringify({ ARN: arn, VersionId: version }) }
  }
  return serve('AWS_ENDPOINT_URL_SECRETS_MANAGER', respond, refuse)
}
