/** A Secrets Manager endpoint with stages on 127.0.0.1, for the AWS SDK of the code under test. */
import { randomUUID } from 'node:crypto'
import { type AwsAnswer, awsError } from '../lib/local/aws-endpoint.ts'
import { serveSecretsManager } from './secrets-endpoint.ts'

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

function answer(secret: Secret, action: string, asked: Readonly<Record<string, unknown>>): AwsAnswer {
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
      if (found === undefined) return awsError('ResourceNotFoundException')
      return [200, { VersionId: version, SecretString: found.value, CreatedDate: found.created / 1000 }]
    }
    case 'PutSecretValue': {
      const version = String(asked['ClientRequestToken'])
      const value = String(asked['SecretString'])
      const known = versions.get(version)
      if (version.length < 32 || version.length > 64 || Buffer.byteLength(value) > 65_536)
        return awsError('InvalidParameterException')
      if (known !== undefined && known.value !== value) return awsError('ResourceExistsException')
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
        return awsError('InvalidParameterException')
      label(String(stage), String(to))
      return [200, {}]
    }
    default:
      return awsError('UnknownOperationException')
  }
}

/** Points this process's environment at it, credentials included. */
export async function startStagedSecrets(): Promise<StagedSecretsEndpoint> {
  const secrets = new Map<string, Secret>()
  const { end } = await serveSecretsManager((action, asked) => {
    const secret = secrets.get(String(asked['SecretId']))
    return secret === undefined ? awsError('ResourceNotFoundException') : answer(secret, action, asked)
  })
  return {
    put: (arn, value) => {
      const version = randomUUID()
      const versions = new Map([[version, { value, created: Date.now() }]])
      secrets.set(arn, { versions, labels: new Map([['AWSCURRENT', version]]) })
    },
    unlabel: (arn, stage) => void secrets.get(arn)?.labels.delete(stage),
    end,
  }
}
