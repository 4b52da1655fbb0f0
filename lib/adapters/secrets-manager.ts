/** AWS Secrets Manager as `SecretStore`. The SDK itself never tries again here. */
import type { SecretsManagerClient } from '@aws-sdk/client-secrets-manager'
import { Outage } from '../errors.ts'
import type { Clock, SecretStore } from '../ports.ts'

/** A secret's whole ARN: a name alone would be looked for in whatever account and region we run in. */
export const SECRET_ARN: RegExp =
  /^arn:aws[a-z-]{0,20}:secretsmanager:[a-z0-9-]{1,30}:[0-9]{12}:secret:[A-Za-z0-9/_+=.@-]{1,519}$/

/** Loaded at the first call: who keeps secrets elsewhere need not wait for the SDK. */
const sdk = () => import('@aws-sdk/client-secrets-manager')

/** Reads `AWSCURRENT` of secrets by their ARNs, each in its ARN's region. Every rejection is `Outage('secret-unavailable')`. */
export function secretsManager(clock: Clock): SecretStore {
  const clients = new Map<string | undefined, SecretsManagerClient>()
  return {
    async read(arn, deadline) {
      try {
        const { GetSecretValueCommand, SecretsManagerClient: Client } = await sdk()
        const region = arn.split(':', 4)[3]
        const client = clients.get(region) ?? new Client({ maxAttempts: 1, ...(region && { region }) })
        clients.set(region, client)
        const left = Math.max(0, Math.min(deadline - clock.now(), 2 ** 31 - 1))
        const answer = await client.send(new GetSecretValueCommand({ SecretId: arn }), {
          abortSignal: AbortSignal.timeout(left),
        })
        const { SecretString: text, SecretBinary: binary, VersionId: version } = answer
        const value = text === undefined ? binary : Buffer.from(text)
        if (value === undefined || version === undefined) throw new TypeError('no value')
        return { value, version }
      } catch (error) {
        throw new Outage('secret-unavailable', `${arn}: ${adviceOn(error)}`, { cause: error })
      }
    },
  }
}

/** By the error's name alone: a message of the service may quote what it was sent. */
function adviceOn(error: unknown): string {
  const name = error instanceof Error ? error.name : 'unknown error'
  switch (name) {
    case 'AccessDeniedException':
      return `we may not read this secret (${name}). Allow secretsmanager:GetSecretValue on it, and kms:Decrypt on its key.`
    case 'ResourceNotFoundException':
      return `there is no such secret, or none that is current (${name}). Correct the ARN, or give it a value.`
    case 'CredentialsProviderError':
      return `there are no AWS credentials to read it with (${name}). Give the function a role, or set AWS_PROFILE.`
    default:
      return `this secret cannot be read (${name}). Check the network to Secrets Manager; it is tried again.`
  }
}
