/** What `sealgate doctor` looks at without settings of a gate: disks, what MSK tells of a cluster, a template. */
import { isOnEncryptedDisk } from '../lib/adapters/block-device.ts'
import { describeMsk } from '../lib/adapters/msk-cluster.ts'
import { diskVerdicts, type MskFacts, mskVerdicts } from '../lib/doctor/place-verdicts.ts'
import { type Check, orElse } from '../lib/doctor/finding.ts'
import { templateVerdicts } from './doctor-template.ts'
import { once, type Patient } from './patient.ts'

export type Places = Pick<Patient, 'cluster' | 'disks' | 'template' | 'clock'>

/** Of those that were named. */
export function placeChecks(places: Places): readonly Check[] {
  const { cluster, disks, template } = places
  const msk = mskOf(places)
  const checks: Check[] = []
  if (cluster !== undefined)
    checks.push({
      name: 'network-segmentation',
      look: async (deadline) => {
        const facts = await msk(deadline)
        return orElse(facts === undefined ? [] : mskVerdicts(facts), 'MSK lets in nobody from outside.')
      },
    })
  if (cluster !== undefined || disks.length > 0)
    checks.push({
      name: 'encryption-at-rest',
      look: async (deadline) => diskVerdicts(await msk(deadline), await disksSeen(disks), []),
    })
  if (template !== undefined)
    checks.push({ name: 'template', look: () => Promise.resolve(templateVerdicts(template)) })
  return checks
}

/** What MSK tells of the cluster, asked once; undefined where none was named. */
export const mskOf = ({
  cluster,
  clock,
}: Pick<Places, 'cluster' | 'clock'>): ((deadline: number) => Promise<MskFacts | undefined>) =>
  once(async (deadline) => (cluster === undefined ? undefined : describeMsk(cluster, clock.now(), deadline)))

/** By folder, whether it lies on encrypted volumes alone. */
export const disksSeen = (
  disks: readonly string[],
): Promise<readonly { readonly path: string; readonly isEncrypted: boolean }[]> =>
  Promise.all(disks.map(async (path) => ({ path, isEncrypted: await isOnEncryptedDisk(path) })))
