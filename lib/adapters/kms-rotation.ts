/** Rotation of symmetric keys in AWS KMS, by their ARNs. */
import type { KMSClient } from '@aws-sdk/client-kms'
import { Outage } from '../errors.ts'
import type { KeyMaterial } from '../keys/rotation-state.ts'
import type { Clock } from '../ports.ts'
import { clientsByRegion } from './aws-clients.ts'
import { signalUntil } from './aws-signal.ts'
import { kmsOutage } from './kms.ts'

/** A key's whole ARN: an alias may be moved meanwhile. */
export const KMS_KEY_ARN: RegExp =
  /^arn:aws[a-z-]{0,20}:kms:[a-z0-9-]{1,30}:[0-9]{12}:key\/[A-Za-z0-9-]{1,100}$/

/** KMS's own bound of rotations on demand, a key. */
const MAX_ON_DEMAND = 25
/** KMS's own period where none is told. */
const USUAL_DAYS = 365
/** KMS gives a hundred at a time, and has no more of a key than these. */
const MAX_PAGES = 20

const sdk = () => import('@aws-sdk/client-kms')

/** Every rejection is an `Outage`. */
export function kmsKeyMaterial(clock: Clock): KeyMaterial {
  const clientOf = clientsByRegion(async (settings) => new (await sdk()).KMSClient(settings))
  const until = (deadline: number) => ({ abortSignal: signalUntil(deadline, clock) })
  const tried = async <T>(key: string, ask: (client: KMSClient) => Promise<T>): Promise<T> => {
    try {
      return await ask(await clientOf(key))
    } catch (error) {
      throw kmsOutage(error, { kekId: key, provider: 'aws-kms', key })
    }
  }
  const pastOf = async (client: KMSClient, key: string, deadline: number) => {
    const { ListKeyRotationsCommand } = await sdk()
    const found: { readonly at: number; readonly isOnDemand: boolean }[] = []
    let marker: string | undefined
    for (let page = 0; page < MAX_PAGES; page++) {
      const command = new ListKeyRotationsCommand({
        KeyId: key,
        ...(marker !== undefined && { Marker: marker }),
      })
      const { Rotations = [], Truncated, NextMarker } = await client.send(command, until(deadline))
      for (const { RotationDate: date, RotationType: type } of Rotations)
        if (date !== undefined) found.push({ at: date.getTime(), isOnDemand: type === 'ON_DEMAND' })
      if (Truncated !== true || NextMarker === undefined) return found
      marker = NextMarker
    }
    throw new Outage('unexpected', `KMS lists the rotations of ${key} without end`)
  }
  return {
    describe: (key, deadline) =>
      tried(key, async (client) => {
        const { GetKeyRotationStatusCommand } = await sdk()
        const status = await client.send(new GetKeyRotationStatusCommand({ KeyId: key }), until(deadline))
        const past = await pastOf(client, key, deadline)
        const isEnabled = status.KeyRotationEnabled === true
        return {
          // Switched on again and again it would begin anew each time, and never rotate.
          periodDays: isEnabled ? (status.RotationPeriodInDays ?? USUAL_DAYS) : undefined,
          rotatedAt: past.length === 0 ? null : Math.max(...past.map(({ at }) => at)),
          dueAt: isEnabled ? (status.NextRotationDate?.getTime() ?? null) : null,
          onDemandLeft: Math.max(0, MAX_ON_DEMAND - past.filter(({ isOnDemand }) => isOnDemand).length),
        }
      }),
    enableRotation: (key, days, deadline) =>
      tried(key, async (client) => {
        const { EnableKeyRotationCommand } = await sdk()
        const command = new EnableKeyRotationCommand({ KeyId: key, RotationPeriodInDays: days })
        await client.send(command, until(deadline))
      }),
    rotateOnDemand: (key, deadline) =>
      tried(key, async (client) => {
        const { RotateKeyOnDemandCommand } = await sdk()
        await client.send(new RotateKeyOnDemandCommand({ KeyId: key }), until(deadline))
      }),
  }
}
