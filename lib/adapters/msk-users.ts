/** Users of an MSK cluster: which secrets it takes them from. What is in a secret it then takes over by itself, within ten minutes. */
import type { KafkaClient } from '@aws-sdk/client-kafka'
import { Outage } from '../errors.ts'
import type { ScramUsers } from '../keys/rotation-steps.ts'
import type { Clock } from '../ports.ts'
import { clientsByRegion } from './aws-clients.ts'
import { signalUntil } from './aws-signal.ts'
import { oneLine } from './kafka-outage.ts'

/** A cluster's whole ARN: its name alone may be another's in another region. */
export const MSK_CLUSTER_ARN: RegExp =
  /^arn:aws[a-z-]{0,20}:kafka:[a-z0-9-]{1,30}:[0-9]{12}:cluster\/[A-Za-z0-9-]{1,64}\/[A-Za-z0-9-]{1,64}$/

/** MSK takes users from secrets of such names alone. */
export const MSK_SECRET_ARN: RegExp = /^arn:[^:]+:secretsmanager:[^:]+:[^:]+:secret:AmazonMSK_/

/** MSK takes so many at a time. */
const BATCH = 10
/** A cluster has up to 1,000, and MSK lists a hundred at a time. */
const MAX_PAGES = 100

const sdk = () => import('@aws-sdk/client-kafka')

/** One that is associated already is left alone: to be told again is an error to MSK. Every rejection is an `Outage`. */
export function mskUsers(clock: Clock): Pick<ScramUsers, 'associate'> {
  const clientOf = clientsByRegion(async (settings) => new (await sdk()).KafkaClient(settings))
  const until = (deadline: number) => ({ abortSignal: signalUntil(deadline, clock) })
  const tried = async <T>(cluster: string, right: string, ask: (client: KafkaClient) => Promise<T>) => {
    try {
      return await ask(await clientOf(cluster))
    } catch (error) {
      if (error instanceof Outage) throw error
      throw outageOf(cluster, error, right)
    }
  }
  const associated = (cluster: string, deadline: number): Promise<ReadonlySet<string>> =>
    tried(cluster, 'ListScramSecrets', async (client) => {
      const { ListScramSecretsCommand } = await sdk()
      const found = new Set<string>()
      let token: string | undefined
      for (let page = 0; page < MAX_PAGES; page++) {
        const command = new ListScramSecretsCommand({
          ClusterArn: cluster,
          ...(token !== undefined && { NextToken: token }),
        })
        const { SecretArnList = [], NextToken } = await client.send(command, until(deadline))
        for (const arn of SecretArnList) found.add(arn)
        if (NextToken === undefined) return found
        token = NextToken
      }
      throw new Outage('unexpected', `MSK lists the secrets of ${cluster} without end`)
    })
  return {
    associate: async (cluster, secrets, deadline) => {
      const known = await associated(cluster, deadline)
      const missing = secrets.filter((arn) => !known.has(arn))
      for (let from = 0; from < missing.length; from += BATCH) {
        const part = missing.slice(from, from + BATCH)
        const failed = await tried(cluster, 'BatchAssociateScramSecret', async (client) => {
          const { BatchAssociateScramSecretCommand } = await sdk()
          const command = new BatchAssociateScramSecretCommand({ ClusterArn: cluster, SecretArnList: part })
          return (await client.send(command, until(deadline))).UnprocessedScramSecrets ?? []
        })
        if (failed.length > 0) throw unprocessed(cluster, failed)
      }
    },
  }
}

interface Unprocessed {
  readonly SecretArn?: string | undefined
  readonly ErrorCode?: string | undefined
  readonly ErrorMessage?: string | undefined
}

function unprocessed(cluster: string, failed: readonly Unprocessed[]): Outage {
  const each = failed.map(({ SecretArn = 'a secret', ErrorCode = 'no code', ErrorMessage = '' }) =>
    oneLine(`${SecretArn} (${ErrorCode}: ${ErrorMessage})`),
  )
  const fix =
    'Its name must begin with AmazonMSK_, its key be one of your own in KMS, and we need kms:CreateGrant on that.'
  return new Outage('sink-denied', `${cluster} did not take ${each.join(', ')}. ${fix}`)
}

/** By the error's name alone: a message of the service may quote what it was sent. */
function outageOf(cluster: string, error: unknown, right: string): Outage {
  const name = error instanceof Error ? error.name : 'unknown error'
  const cause = { cause: error }
  switch (name) {
    case 'ForbiddenException':
    case 'UnauthorizedException':
    case 'AccessDeniedException':
      return new Outage(
        'sink-denied',
        `${cluster}: MSK refuses us (${name}). Allow kafka:${right} on it.`,
        cause,
      )
    case 'NotFoundException':
      return new Outage('sink-denied', `${cluster}: MSK has no such cluster (${name}). Correct msk.`, cause)
    case 'BadRequestException':
      return new Outage(
        'sink-denied',
        `${cluster}: MSK does not do that (${name}). See that SASL/SCRAM is on there.`,
        cause,
      )
    case 'CredentialsProviderError':
      return new Outage(
        'sink-denied',
        `${cluster}: there are no AWS credentials (${name}). Give the function a role, or set AWS_PROFILE.`,
        cause,
      )
    default:
      return new Outage(
        'sink-unavailable',
        `${cluster}: MSK does not answer (${name}). It is tried again.`,
        cause,
      )
  }
}
