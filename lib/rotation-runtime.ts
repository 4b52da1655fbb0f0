/** Wires what rotates: settings, the policy file, and the ports on AWS or on an embedded stack (docs/rotation.md). */
import { readFileSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { isAuthorityKey, openIssuer } from './adapters/certificate-issuer.ts'
import { type DocumentPlace, openDocumentStore, placeName } from './adapters/document-place.ts'
import type { KafkaConnectionSettings } from './adapters/kafka-settings.ts'
import { kafkaUsers } from './adapters/kafka-users.ts'
import { KMS_KEY_ARN, kmsKeyMaterial } from './adapters/kms-rotation.ts'
import { MSK_CLUSTER_ARN, MSK_SECRET_ARN, mskUsers } from './adapters/msk-users.ts'
import { rootSigner } from './adapters/root-signer.ts'
import { SECRET_ARN, stagedSecretsManager } from './adapters/secrets-manager.ts'
import { certificateLife, type PublicKey } from './envelope/crypto.ts'
import { type Environment, Reader } from './environment.ts'
import { codeOf, ConfigError, type Fault, Outage } from './errors.ts'
import { BROKER_SETTINGS, readBrokers } from './kafka-environment.ts'
import { readClientCertificate } from './keys/client-certificate.ts'
import type { Rotation, RotationPolicy } from './keys/rotation.ts'
import {
  readRotationPolicy,
  type RotationEntry,
  type RotationPolicies,
  secretsOf,
} from './keys/rotation-policy.ts'
import type { RotationView } from './keys/rotation-state.ts'
import type { RotationPorts, ScramUsers } from './keys/rotation-steps.ts'
import { LOCAL_GATEWAY, LOCAL_SIGNING_SECRET } from './local/stack.ts'
import { localStagedSecrets, openLocalSecrets } from './local/secrets.ts'
import type { Clock, SecretStore } from './ports.ts'
import {
  CONTROL_NAMES,
  type ControlSettings,
  readControl,
  readTrust,
  type SigningSettings,
} from './settings.ts'

/** What the function that rotates is told. */
export interface RotationSettings {
  readonly directory: DocumentPlace
  readonly roots: readonly PublicKey[]
  readonly rootKey: SigningSettings
  readonly kafka: () => KafkaConnectionSettings | undefined
  /** Where it is told what was done; undefined where the settings say by name that it is not audited. */
  readonly control: ControlSettings | undefined
  /** The policy file's path. */
  readonly policy: string
}

const KNOWN = [
  ...['SEALGATE_DIRECTORY', 'SEALGATE_DIRECTORY_CA', 'SEALGATE_ROOTS'],
  ...['SEALGATE_ROOT_KEY', 'SEALGATE_ROTATION'],
  ...new Set([...BROKER_SETTINGS, ...CONTROL_NAMES]),
]

/** Throws `ConfigError` with every fault. */
export function readRotationSettings(environment: Environment): RotationSettings {
  const reader = new Reader(environment)
  reader.refuseUnverified()
  reader.refuseUnknown(KNOWN)
  const trust = readTrust(reader)
  const arn = reader.text('SEALGATE_ROOT_KEY', 'Set the ARN of the KMS key that signs the directory.')
  if (arn !== '' && !KMS_KEY_ARN.test(arn))
    reader.fault('SEALGATE_ROOT_KEY', 'It is no ARN of a KMS key.', 'Set it whole, not an alias.')
  const policy = reader.text('SEALGATE_ROTATION', 'Name the rotation policy file (docs/rotation.md).')
  const control = readControl(reader, environment)
  const isOnKafka = BROKER_SETTINGS.some((name) => reader.optional(name) !== undefined)
  const kafka = control?.kafka ?? (isOnKafka ? readBrokers(reader) : undefined)
  if (reader.faults.length > 0) throw new ConfigError(reader.faults)
  return { ...trust, rootKey: { arn, kid: undefined }, kafka: () => kafka, control, policy }
}

/** All rotations of a place, ready to be looked at and, with a root, carried out. */
export interface Rotations {
  readonly policies: readonly RotationPolicy[]
  readonly view: RotationView
  /** Where there is no root to sign with: throws `TypeError`. */
  ports(deadline: number): Promise<RotationPorts>
}

/** Where the directory is, and what signs it; undefined where it is only looked at. */
export interface RotationTrust {
  readonly directory: DocumentPlace
  readonly roots: readonly PublicKey[]
  readonly rootKey: SigningSettings | undefined
  /** How to reach the brokers whose users are rotated, where any are. Throws `ConfigError`. */
  readonly kafka?: () => KafkaConnectionSettings | undefined
}

/** Those of a policy file, in AWS Secrets Manager and KMS. Throws `ConfigError` with every fault. */
export function openRotations(trust: RotationTrust, policyFile: string, clock: Clock): Rotations {
  const policies = readPolicyFile(policyFile)
  const faults = policies.entries.flatMap(({ rotation }) =>
    elsewhereFaults(rotation, `${policyFile}: rotations.${rotation.name}`),
  )
  if (faults.length > 0) throw new ConfigError(faults)
  const more = { secrets: stagedSecretsManager(clock), keyMaterial: kmsKeyMaterial(clock) }
  const rotations = rotationsOf(policies, trust, dirname(resolve(policyFile)), clock, more)
  if (!policies.entries.some(({ rotation }) => rotation.kind === 'scram')) return rotations
  const ports = async (deadline: number): Promise<RotationPorts> => {
    const users = usersOf(trust.kafka?.(), policyFile, clock)
    return { ...(await rotations.ports(deadline)), users }
  }
  return { ...rotations, ports }
}

/** What of a rotation is not to be found on AWS by the name that it has. */
function elsewhereFaults(rotation: Rotation, where: string): Fault[] {
  const faults: Fault[] = []
  const fault = (what: string, fix: string): void => void faults.push({ where, what, fix })
  for (const secret of secretsOf(rotation))
    if (!SECRET_ARN.test(secret)) fault('Its secret is no ARN of Secrets Manager.', 'Set it whole.')
  if (rotation.kind === 'kms-key' && !KMS_KEY_ARN.test(rotation.key))
    fault('Its key is no ARN of a KMS key.', 'Set it whole, not an alias.')
  if (rotation.kind === 'client-certificate' && !isAuthorityKey(rotation.authorityKey))
    fault('Its authorityKey is no key.', 'Set file:PATH, or the ARN of a secret or of a KMS key.')
  if (rotation.kind !== 'scram' || rotation.msk === undefined) return faults
  if (!MSK_CLUSTER_ARN.test(rotation.msk)) fault('Its msk is no ARN of an MSK cluster.', 'Set it whole.')
  if (!rotation.users.every((secret) => MSK_SECRET_ARN.test(secret)))
    fault('MSK takes no users from secrets of such names.', 'Give them names that begin with AmazonMSK_.')
  return faults
}

function usersOf(kafka: KafkaConnectionSettings | undefined, policyFile: string, clock: Clock): ScramUsers {
  const where = `${policyFile}: rotations`
  if (kafka === undefined) {
    const fix = 'Set SEALGATE_KAFKA_BROKERS (kafka.brokers) and how we log in there (docs/rotation.md).'
    throw new ConfigError([{ where, what: 'Whose users are to be rotated is not known.', fix }])
  }
  if (kafka.tls === undefined)
    throw new ConfigError([{ where, what: 'A password would be shown to the network.', fix: 'Use TLS.' }])
  return { ...kafkaUsers(kafka, clock), ...mskUsers(clock) }
}

/** Those of an embedded stack: its policy file's, or the gateway's signing key and the directory. */
export async function openLocalRotations(
  folder: string,
  trust: RotationTrust,
  policyFile: string | undefined,
  clock: Clock,
): Promise<Rotations> {
  const policies =
    policyFile === undefined ? readRotationPolicy(LOCAL_POLICY, 'local') : readPolicyFile(policyFile)
  const elsewhere = policies.entries.filter(
    ({ rotation: { kind } }) => kind === 'kms-key' || kind === 'scram' || kind === 'client-certificate',
  )
  if (elsewhere.length > 0)
    throw new ConfigError(
      elsewhere.map(({ rotation }) => ({
        where: `${policyFile ?? ''}: rotations.${rotation.name}`,
        what: 'An embedded stack has no keys in KMS, and no users or clients of Kafka.',
        fix: 'Leave it out.',
      })),
    )
  const secrets = localStagedSecrets(await openLocalSecrets(join(folder, 'secrets'), clock), clock)
  return rotationsOf(policies, trust, dirname(resolve(policyFile ?? '.')), clock, { secrets })
}

const LOCAL_POLICY = `rotations:
  gateway: { kind: signing-key, iss: ${LOCAL_GATEWAY}, secret: ${LOCAL_SIGNING_SECRET} }
  directory: { kind: directory }
`

function readPolicyFile(path: string): RotationPolicies {
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (error) {
    const fix = 'Name a rotation policy (docs/rotation.md).'
    throw new ConfigError([{ where: path, what: `It cannot be read (${codeOf(error)}).`, fix }])
  }
  return readRotationPolicy(text, path)
}

function rotationsOf(
  { entries, waits }: RotationPolicies,
  { directory, roots, rootKey, kafka }: RotationTrust,
  folder: string,
  clock: Clock,
  more: Pick<RotationView, 'secrets' | 'keyMaterial'>,
): Rotations {
  const store = openDocumentStore(directory, { outage: 'directory-unavailable', clock })
  const entryOf = new Map(entries.map((entry) => [entry.rotation, entry]))
  const view: RotationView = {
    ...{ ...more, clock, directory: { store, roots } },
    issuerOf: (rotation) => openIssuer(rotation, { folder, secrets: more.secrets, kafka, clock }),
    watch: (rotation, deadline) => watched(entryOf.get(rotation), folder, more.secrets, deadline),
  }
  return {
    policies: entries.map(({ rotation }) => ({ rotation, waits })),
    view,
    ports: async (deadline) => {
      if (rootKey === undefined) throw new TypeError(`${placeName(directory)}: no root to sign with`)
      const root = await rootSigner(rootKey, roots, clock, deadline)
      return { ...view, directory: { store, roots, root, clock } }
    },
  }
}

/** Certificates are due to be replaced so long before they end. */
const CERTIFICATE_DAYS = 30
const DAY_MS = 86_400_000

async function watched(
  entry: RotationEntry | undefined,
  folder: string,
  secrets: SecretStore,
  deadline: number,
): ReturnType<NonNullable<RotationView['watch']>> {
  const { since, period, file, rotation } = entry ?? {}
  if (rotation !== undefined && 'secret' in rotation) {
    const { value } = await secrets.read(rotation.secret, deadline)
    return untilEnd(Buffer.from(readClientCertificate(value, rotation.secret).certificate))
  }
  if (file === undefined) {
    const dueAt = since === undefined || period === undefined ? null : (since + period) * 1000
    return { rotatedAt: since === undefined ? null : since * 1000, dueAt }
  }
  try {
    return untilEnd(await readFile(resolve(folder, file)))
  } catch (cause) {
    throw new Outage('secret-unavailable', `${file} cannot be read as a certificate: name a PEM file`, {
      cause,
    })
  }
}

function untilEnd(pem: Uint8Array) {
  const { from, until } = certificateLife(pem)
  return { rotatedAt: from, dueAt: until - CERTIFICATE_DAYS * DAY_MS, endsAt: until }
}
