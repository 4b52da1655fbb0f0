/** AWS Secrets Manager as `SecretStore`. The SDK itself never tries again here. */
import type { SecretsManagerClient } from '@aws-sdk/client-secrets-manager'
import { Outage } from '../errors.ts'
import type { Clock, SecretStage, SecretStore, StagedSecrets } from '../ports.ts'
import { clientsByRegion } from './aws-clients.ts'
import { signalUntil } from './aws-signal.ts'

/** A secret's whole ARN: a name alone would be looked for in whatever account and region we run in. */
export const SECRET_ARN: RegExp =
  /^arn:aws[a-z-]{0,20}:secretsmanager:[a-z0-9-]{1,30}:[0-9]{12}:secret:[A-Za-z0-9/_+=.@-]{1,519}$/

/** Loaded at the first call: who keeps secrets elsewhere need not wait for the SDK. */
const sdk = () => import('@aws-sdk/client-secrets-manager')

/** Reads `AWSCURRENT` of secrets by their ARNs, each in its ARN's region. Every rejection is `Outage('secret-unavailable')`. */
export function secretsManager(clock: Clock): SecretStore {
  const clients = new Clients(clock)
  return {
    async read(arn, deadline) {
      try {
        const { value, version } = await clients.value(arn, 'AWSCURRENT', deadline)
        return { value, version }
      } catch (error) {
        throw outageOf(arn, error, 'GetSecretValue')
      }
    },
  }
}

/** The same with all stages. A version whose stages somebody took away gets `AWSPENDING` again when it is staged anew. */
export function stagedSecretsManager(clock: Clock): StagedSecrets {
  const [clients, current] = [new Clients(clock), secretsManager(clock)]
  return {
    read: (arn, deadline) => current.read(arn, deadline),
    async find(arn, stage, deadline) {
      try {
        const { createdAt, ...found } = await clients.value(arn, stage, deadline)
        // Taken for long ago, waits that are counted from it would be over.
        if (createdAt === undefined) throw new TypeError('no time')
        return { ...found, createdAt }
      } catch (error) {
        // The rotation of Secrets Manager puts the stage on a version that has no value yet: none, either.
        if (nameOf(error) === 'ResourceNotFoundException') return undefined
        throw outageOf(arn, error, 'GetSecretValue')
      }
    },
    async stage(arn, value, stage, token, deadline) {
      const { PutSecretValueCommand } = await sdk()
      const command = new PutSecretValueCommand({
        SecretId: arn,
        ClientRequestToken: token,
        SecretString: Buffer.from(value).toString(),
        VersionStages: [stage],
      })
      try {
        await (await clients.of(arn)).send(command, clients.until(deadline))
        return 'staged'
      } catch (error) {
        if (nameOf(error) !== 'ResourceExistsException') throw outageOf(arn, error, 'PutSecretValue')
      }
      if (stage === 'AWSPENDING') await restage(clients, arn, token, deadline)
      return 'taken'
    },
    async promote(arn, version, from, deadline) {
      try {
        const { UpdateSecretVersionStageCommand } = await sdk()
        const current = (await clients.value(arn, 'AWSCURRENT', deadline)).version
        if (current === version) return 'promoted'
        if (current !== from) return 'changed'
        // Refused by Secrets Manager where `from` has lost the stage meanwhile.
        const command = new UpdateSecretVersionStageCommand({
          ...{ SecretId: arn, VersionStage: 'AWSCURRENT' },
          ...{ MoveToVersionId: version, RemoveFromVersionId: from },
        })
        await (await clients.of(arn)).send(command, clients.until(deadline))
        return 'promoted'
      } catch (error) {
        if (nameOf(error) === 'InvalidParameterException') return 'changed'
        throw outageOf(arn, error, 'UpdateSecretVersionStage')
      }
    },
  }
}

/** A rotation that somebody cancelled leaves a version of our id without stages: nothing could be staged in its place. */
async function restage(clients: Clients, arn: string, version: string, deadline: number): Promise<void> {
  try {
    const { DescribeSecretCommand, UpdateSecretVersionStageCommand } = await sdk()
    const client = await clients.of(arn)
    const described = await client.send(new DescribeSecretCommand({ SecretId: arn }), clients.until(deadline))
    const stages = described.VersionIdsToStages ?? {}
    if (Object.hasOwn(stages, version) && (stages[version]?.length ?? 0) > 0) return
    const pending = Object.keys(stages).find((one) => stages[one]?.includes('AWSPENDING'))
    const command = new UpdateSecretVersionStageCommand({
      ...{ SecretId: arn, VersionStage: 'AWSPENDING', MoveToVersionId: version },
      ...(pending !== undefined && { RemoveFromVersionId: pending }),
    })
    await client.send(command, clients.until(deadline))
  } catch (error) {
    throw outageOf(arn, error, 'UpdateSecretVersionStage')
  }
}

class Clients {
  readonly #clock: Clock
  readonly of: (arn: string) => Promise<SecretsManagerClient> = clientsByRegion(
    async (settings) => new (await sdk()).SecretsManagerClient(settings),
  )

  constructor(clock: Clock) {
    this.#clock = clock
  }

  until(deadline: number): { readonly abortSignal: AbortSignal } {
    return { abortSignal: signalUntil(deadline, this.#clock) }
  }

  async value(
    arn: string,
    stage: SecretStage,
    deadline: number,
  ): Promise<{
    readonly value: Uint8Array
    readonly version: string
    readonly createdAt: number | undefined
  }> {
    const { GetSecretValueCommand } = await sdk()
    const command = new GetSecretValueCommand({ SecretId: arn, VersionStage: stage })
    const answer = await (await this.of(arn)).send(command, this.until(deadline))
    const { SecretString: text, SecretBinary: binary, VersionId: version, CreatedDate: created } = answer
    const value = text === undefined ? binary : Buffer.from(text)
    if (value === undefined || version === undefined) throw new TypeError('no value')
    return { value, version, createdAt: created?.getTime() }
  }
}

const nameOf = (error: unknown): string => (error instanceof Error ? error.name : 'unknown error')

const outageOf = (arn: string, error: unknown, right: string): Outage =>
  new Outage('secret-unavailable', `${arn}: ${adviceOn(nameOf(error), right)}`, { cause: error })

/** By the error's name alone: a message of the service may quote what it was sent. */
function adviceOn(name: string, right: string): string {
  switch (name) {
    case 'AccessDeniedException':
      return `we may not use this secret (${name}). Allow secretsmanager:${right} on it, and kms:Decrypt and kms:GenerateDataKey on its key.`
    case 'ResourceNotFoundException':
      return `there is no such secret, or none that is current (${name}). Correct the ARN, or give it a value.`
    case 'CredentialsProviderError':
      return `there are no AWS credentials to read it with (${name}). Give the function a role, or set AWS_PROFILE.`
    default:
      return `this secret cannot be read (${name}). Check the network to Secrets Manager; it is tried again.`
  }
}
