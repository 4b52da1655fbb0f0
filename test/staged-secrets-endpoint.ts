/** A Secrets Manager endpoint with stages on 127.0.0.1, for the AWS SDK of the code under test. */
import { randomUUID } from 'node:crypto'
import { createServer } from 'node:http'
import { setEnvironment } from './secrets-endpoint.ts'

export interface StagedSecretsEndpoint {
  /** Gives a secret its first value. */
  put(arn: string, value: string): void
  /** As who cancels a rotation. */
  unlabel(arn: string, stage: string): void
  /** Takes the environment back too. */
  end(): Promise<void>
}

interface Secret {
  readonly versions: Map<string, { readonly value: string; readonly created: number }>
  /** By stage: the version. */
  readonly labels: Map<string, string>
}

type Answer = readonly [status: number, body: object]

const refuse = (name: string): Answer => [400, { __type: name, message: 'planted-message' }]

function answer(secret: Secret, action: string, asked: Readonly<Record<string, unknown>>): Answer {
  const { versions, labels } = secret
  const label = (stage: string, version: string): void => {
    const before = labels.get(stage)
    if (stage === 'AWSCURRENT' && before !== undefined) labels.set('AWSPREVIOUS', before)
    labels.set(stage, version)
  }
  switch (action) {
    case 'GetSecretValue': {
      const { VersionStage: stage = 'AWSCURRENT' } = asked
      const version = labels.get(String(stage))
      const found = versions.get(version ?? '')
      if (found === undefined) return refuse('ResourceNotFoundException')
      return [200, { VersionId: version, SecretString: found.value, CreatedDate: found.created / 1000 }]
    }
    case 'PutSecretValue': {
      const version = String(asked['ClientRequestToken'])
      const value = String(asked['SecretString'])
      const known = versions.get(version)
      if (version.length < 32 || version.length > 64 || Buffer.byteLength(value) > 65_536)
        return refuse('InvalidParameterException')
      if (known !== undefined && known.value !== value) return refuse('ResourceExistsException')
      if (known === undefined) {
        versions.set(version, { value, created: Date.now() })
        const stages: unknown = asked['VersionStages'] ?? ['AWSCURRENT']
        if (Array.isArray(stages)) for (const stage of stages) label(String(stage), version)
      }
      return [200, { VersionId: version }]
    }
    case 'DescribeSecret': {
      const stages = Object.fromEntries(
        [...versions.keys()].map((version) => [
          version,
          [...labels].flatMap(([stage, one]) => (one === version ? [stage] : [])),
        ]),
      )
      return [200, { VersionIdsToStages: stages }]
    }
    case 'UpdateSecretVersionStage': {
      const { VersionStage: stage, MoveToVersionId: to, RemoveFromVersionId: from } = asked
      if (!versions.has(String(to)) || labels.get(String(stage)) !== from)
        return refuse('InvalidParameterException')
      label(String(stage), String(to))
      return [200, {}]
    }
    default:
      return refuse('UnknownOperationException')
  }
}

/** Points this process's environment at it, credentials included. */
export async function startStagedSecrets(): Promise<StagedSecretsEndpoint> {
  const secrets = new Map<string, Secret>()
  const server = createServer((request, response) => {
    const parts: Buffer[] = []
    request.on('data', (part: Buffer) => parts.push(part))
    request.on('end', () => {
      const asked: Record<string, unknown> = JSON.parse(Buffer.concat(parts).toString())
      const secret = secrets.get(String(asked['SecretId']))
      const action = String(request.headers['x-amz-target']).replace('secretsmanager.', '')
      const [status, body] =
        secret === undefined ? refuse('ResourceNotFoundException') : answer(secret, action, asked)
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
    put: (arn, value) => {
      const version = randomUUID()
      const versions = new Map([[version, { value, created: Date.now() }]])
      secrets.set(arn, { versions, labels: new Map([['AWSCURRENT', version]]) })
    },
    unlabel: (arn, stage) => void secrets.get(arn)?.labels.delete(stage),
    end: async () => {
      restore()
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}
