/** A Secrets Manager endpoint on 127.0.0.1, for the AWS SDK of the code under test. */
import { type AwsAnswer, awsError, serveAws } from '../lib/local/aws-endpoint.ts'

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
  const secrets = new Map<string, AwsAnswer>()
  const read: string[] = []
  let version = 0
  const { end } = await serveSecretsManager((action, { SecretId: id }) => {
    const arn = String(id)
    if (action === 'GetSecretValue') read.push(arn)
    const found = action === 'GetSecretValue' ? secrets.get(arn) : undefined
    return found ?? awsError('ResourceNotFoundException')
  })
  return {
    ...{ read, end },
    set: (arn, secret) => {
      const answer: AwsAnswer =
        'value' in secret
          ? [200, { ARN: arn, Name: 'n', SecretString: secret.value, VersionId: `v${++version}` }]
          : awsError(secret.error)
      secrets.set(arn, answer)
    },
  }
}

/** The same with other answers. */
export async function serveSecretsManager(
  answer: Parameters<typeof serveAws>[0],
): Promise<Pick<SecretsEndpoint, 'end'>> {
  const { url, end } = await serveAws(answer)
  const restore = setEnvironment({
    AWS_ENDPOINT_URL_SECRETS_MANAGER: url,
    AWS_ACCESS_KEY_ID: 'AKIDEXAMPLE',
    AWS_SECRET_ACCESS_KEY: 'planted-aws-secret',
    AWS_REGION: 'eu-west-1',
  })
  return {
    end: async () => {
      restore()
      await end()
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
