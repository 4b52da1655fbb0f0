/** A Secrets Manager endpoint on 127.0.0.1, for the AWS SDK of the code under test. */
import { createServer } from 'node:http'

export interface SecretsEndpoint {
  /** ARNs that were read, in order. */
  readonly read: readonly string[]
  /** What reading gives: a value, or the name of an error. */
  set(arn: string, secret: { readonly value: string } | { readonly error: string }): void
  /** Takes the environment back too. */
  end(): Promise<void>
}

/** Points this process's environment at it, credentials included. */
export async function startSecretsEndpoint(): Promise<SecretsEndpoint> {
  const secrets = new Map<string, { readonly body: object; readonly status: number }>()
  const read: string[] = []
  let version = 0
  const server = createServer((request, response) => {
    const parts: Buffer[] = []
    request.on('data', (part: Buffer) => parts.push(part))
    request.on('end', () => {
      const arn = String(JSON.parse(Buffer.concat(parts).toString()).SecretId)
      const isRead = request.headers['x-amz-target'] === 'secretsmanager.GetSecretValue'
      if (isRead) read.push(arn)
      const found = isRead ? secrets.get(arn) : undefined
      const { status, body } = found ?? { status: 400, body: { __type: 'ResourceNotFoundException' } }
      response.writeHead(status, { 'content-type': 'application/x-amz-json-1.1' }).end(JSON.stringify(body))
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  const port = address !== null && typeof address === 'object' ? address.port : 0
  const restore = setEnvironment({
    AWS_ENDPOINT_URL_SECRETS_MANAGER: `http://127.0.0.1:${port}`,
    AWS_ACCESS_KEY_ID: 'AKIDEXAMPLE',
    AWS_SECRET_ACCESS_KEY: 'planted-aws-secret',
    AWS_REGION: 'eu-west-1',
  })
  return {
    read,
    set: (arn, secret) => {
      const body =
        'value' in secret
          ? { ARN: arn, Name: 'n', SecretString: secret.value, VersionId: `v${++version}` }
          : { __type: secret.error, message: 'planted-message' }
      secrets.set(arn, { body, status: 'value' in secret ? 200 : 400 })
    },
    end: async () => {
      restore()
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

/** Sets variables, undefined for none, until what it returns is called. */
export function setEnvironment(changes: Readonly<Record<string, string | undefined>>): () => void {
  const before = Object.keys(changes).map((name) => [name, process.env[name]] as const)
  const set = (name: string, value: string | undefined): void => {
    if (value === undefined) Reflect.deleteProperty(process.env, name)
    else process.env[name] = value
  }
  for (const [name, value] of Object.entries(changes)) set(name, value)
  return () => {
    for (const [name, value] of before) set(name, value)
  }
}
