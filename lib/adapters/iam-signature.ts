/** Signing a token for MSK IAM. In a module of its own: who authenticates otherwise need not wait for what it imports. */
import { fromNodeProviderChain } from '@aws-sdk/credential-providers'
import { generateAuthTokenFromCredentialsProvider } from 'aws-msk-iam-sasl-signer-js'
import type { Outage } from '../errors.ts'
import { byDeadline } from '../keys/deadline.ts'
import type { Clock } from '../ports.ts'

/**
 * A presigned request by the credentials that the AWS SDK finds (environment, role, …), and when it ends, in milliseconds
 * since 1970. Rejects with what `late` gives where none are found in time.
 */
export async function iamSignature(
  region: string,
  {
    deadline,
    clock,
    late,
  }: { readonly deadline: number; readonly clock: Clock; readonly late: () => Outage },
): Promise<{ readonly token: string; readonly goodUntil: number }> {
  const found = fromNodeProviderChain({ clientConfig: { region } })()
  const { expiration, ...credentials } = await byDeadline(found, deadline, clock, late)
  // Told when they expire, the signer would write a life in fractions of a second, which AWS refuses.
  const awsCredentialsProvider = () => Promise.resolve(credentials)
  const { token, expiryTime } = await generateAuthTokenFromCredentialsProvider({
    region,
    awsCredentialsProvider,
  })
  return { token, goodUntil: Math.min(expiryTime, expiration?.getTime() ?? Infinity) }
}
