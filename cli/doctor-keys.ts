/** What `sealgate doctor` looks at of the key directory, the signing key and the key service. */
import { gateSigner } from '../lib/adapters/directory-signer.ts'
import { openDocument } from '../lib/adapters/document-place.ts'
import { kmsKeyService } from '../lib/adapters/kms.ts'
import { directoryVerdicts, keyVerdicts } from '../lib/doctor/access-verdicts.ts'
import { type Check, fail, ok, type Verdict } from '../lib/doctor/finding.ts'
import { random, verify, wipe } from '../lib/envelope/crypto.ts'
import { encryptionContext } from '../lib/keys/data-keys.ts'
import { createDirectory } from '../lib/keys/directory-reader.ts'
import type { DirectorySnapshot } from '../lib/keys/directory.ts'
import type { Clock, KeyService } from '../lib/ports.ts'
import { once } from './patient.ts'
import type { GateSettings } from './settings.ts'

export function keyChecks(gate: GateSettings, clock: Clock): readonly Check[] {
  const { cluster } = gate
  const snapshotOf = once(async (deadline): Promise<DirectorySnapshot> => {
    const source = openDocument(cluster.directory, { outage: 'directory-unavailable', clock })
    return (await createDirectory({ source, roots: cluster.roots, clock }).snapshot(deadline)).snapshot
  })
  const issuers = [...new Set(cluster.contracts.all.flatMap(({ publish }) => [...publish.keys()]))]
  return [
    {
      name: 'directory',
      look: async (deadline) => directoryVerdicts(await snapshotOf(deadline), issuers, clock.now()),
    },
    {
      name: 'keys',
      look: async (deadline) => {
        const { signingKeys } = await snapshotOf(deadline)
        const known = signingKeys.filter(({ iss }) => iss === cluster.name || issuers.includes(iss))
        return keyVerdicts(known, clock.now())
      },
    },
    {
      name: 'signing-key',
      look: async (deadline) => signingKey(gate, await snapshotOf(deadline), clock, deadline),
    },
    {
      name: 'key-service',
      look: async (deadline) => keyService(gate, await snapshotOf(deadline), clock, deadline),
    },
  ]
}

/** The directory's public key must be that of the private one: else whoever reads would refuse what the gate signs. */
async function signingKey(
  { cluster: { name, signing } }: GateSettings,
  snapshot: DirectorySnapshot,
  clock: Clock,
  deadline: number,
): Promise<readonly Verdict[]> {
  const signer = await gateSigner({ name, signing, snapshot, clock }, deadline)
  // No COSE structure begins so: this signature is good for nothing else.
  const probe = Buffer.concat([Buffer.from('sealgate doctor '), random(32)])
  const row = snapshot.signingKey(signer.kid)
  if (row !== undefined && verify(row.key, probe, await signer.sign(probe, deadline)))
    return [ok(`It signs, and the directory's ${row.kidText} verifies it.`)]
  return [
    fail(
      'What it signs, the key that the directory has for it does not verify.',
      'Set the key that was enrolled, or enrol this one.',
    ),
  ]
}

async function keyService(
  { cluster: { name, kekId }, keyServiceFolder }: GateSettings,
  snapshot: DirectorySnapshot,
  clock: Clock,
  deadline: number,
): Promise<readonly Verdict[]> {
  const kek = snapshot.kek(kekId, name)
  if (kek === undefined)
    return [
      fail(
        `The directory has no KEK ${kekId} for ${name}.`,
        'Correct SEALGATE_KEK_ID, or add it (sealgate keys kek add).',
      ),
    ]
  const service = await keyServiceAt(keyServiceFolder, name, clock)
  const context = encryptionContext({ iss: name, aud: name, type: 'sealgate.doctor' })
  const { dataKey } = await service.generate(kek, context, deadline)
  wipe(dataKey)
  return [ok(`It makes data keys under ${kekId}.`)]
}

async function keyServiceAt(folder: string | undefined, name: string, clock: Clock): Promise<KeyService> {
  if (folder === undefined) return kmsKeyService({ clock })
  const { openLocalKeyService } = await import('../lib/local/key-service.ts')
  const { localKeyPort } = await import('../lib/local/key-service-port.ts')
  return localKeyPort(await openLocalKeyService(folder, clock), clock, name)
}
