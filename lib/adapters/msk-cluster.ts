/** What MSK tells of a cluster that no broker does. */
import type { MskFacts } from '../doctor/place-verdicts.ts'
import { Outage } from '../errors.ts'
import { oneLine } from './kafka-outage.ts'

/** By `kafka:DescribeClusterV2`, which one needs a right to. Rejects with `Outage`. */
export async function describeMsk(arn: string, now: number, deadline: number): Promise<MskFacts> {
  const { DescribeClusterV2Command, KafkaClient } = await import('@aws-sdk/client-kafka')
  const region = arn.split(':', 4)[3] ?? ''
  const client = new KafkaClient({ maxAttempts: 2, region })
  try {
    const abortSignal = AbortSignal.timeout(Math.max(0, deadline - now))
    const { ClusterInfo } = await client.send(new DescribeClusterV2Command({ ClusterArn: arn }), {
      abortSignal,
    })
    const { Provisioned: provisioned, ClusterType: kind } = ClusterInfo ?? {}
    const { EncryptionAtRest: disks, EncryptionInTransit: transit } = provisioned?.EncryptionInfo ?? {}
    const access = provisioned?.BrokerNodeGroupInfo?.ConnectivityInfo?.PublicAccess?.Type
    return {
      isServerless: kind === 'SERVERLESS',
      diskKey: disks?.DataVolumeKMSKeyId ?? null,
      clientBroker: transit?.ClientBroker ?? null,
      isEncryptedBetweenBrokers: transit?.InCluster ?? false,
      allowsNobodies: provisioned?.ClientAuthentication?.Unauthenticated?.Enabled ?? false,
      isPublic: access !== undefined && access !== 'DISABLED',
    }
  } catch (cause) {
    const why = cause instanceof Error ? oneLine(cause.name) : 'unknown'
    const reason = `MSK does not tell of the cluster (${why}). Allow kafka:DescribeClusterV2 on it`
    throw new Outage('sink-unavailable', reason, { cause })
  } finally {
    client.destroy()
  }
}
