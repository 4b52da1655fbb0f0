/**
 * The world of a vector file for a function as it is deployed: its key directory signed, its contracts as a bundle, and
 * KMS and Secrets Manager as its table and keys made for this run answer. Nothing of it outlives the process.
 */
import { tableService } from '../admission/conformance.ts'
import type { World } from '../admission/vector-file.ts'
import { buildBundle } from '../contract/bundle.ts'
import { readContractFile } from '../contract/contract-file.ts'
import type { JsonValue } from '../contract/json.ts'
import {
  exportPrivateJwk,
  exportPublicJwk,
  generateKeyPair,
  type PrivateKey,
  type PublicJwk,
  publicKeyOf,
  thumbprint,
} from '../envelope/crypto.ts'
import { ED25519 } from '../envelope/suite.ts'
import { Outage, Rejection } from '../errors.ts'
import { type DirectoryDocument, type KekEntry, sealDirectory } from '../keys/directory-document.ts'
import { localSigner } from '../keys/signer.ts'
import type { Clock } from '../ports.ts'
import { type AwsAnswer, type AwsAnswers, awsError } from './aws-endpoint.ts'
import type { LocalKeyService } from './key-service.ts'
import { kmsAnswers, kmsRequest } from './kms-endpoint.ts'

/** Who gets what the world's gate lets in: the vectors' own contracts name nobody. */
export const VECTOR_CONSUMER = 'warehouse'
/** The KEK under which the world's gate seals. */
export const VECTOR_KEK = 'gateway-local'

const SECRET = 'arn:aws:secretsmanager:local:000000000000:secret:'
/** ARNs of what the function is told to read. */
export const VECTOR_SECRETS: Readonly<Record<'directory' | 'signingKey' | 'kafkaLogin', string>> = {
  directory: `${SECRET}sealgate/directory-AbCdEf`,
  signingKey: `${SECRET}sealgate/signing-AbCdEf`,
  kafkaLogin: `${SECRET}AmazonMSK_gate-AbCdEf`,
}

export interface VectorServices {
  /** For `serveAws`. */
  readonly answers: AwsAnswers
  /** The directory's root, made here. */
  readonly roots: readonly PublicJwk[]
  /** The world's contracts, each with `VECTOR_CONSUMER` as its consumer, and the output channels. */
  readonly bundle: Uint8Array
  readonly outputs: readonly string[]
}

export interface VectorServicesOptions {
  readonly world: World
  /** For the gate's own KEK, which is made in it. */
  readonly keys: LocalKeyService
  /** What Secrets Manager has for Kafka. */
  readonly kafkaLogin: { readonly username: string; readonly password: string }
  readonly clock: Clock
}

export async function openVectorServices(options: VectorServicesOptions): Promise<VectorServices> {
  const { world, keys, kafkaLogin, clock } = options
  const root = generateKeyPair(ED25519).privateKey
  const signingKey = generateKeyPair(ED25519).privateKey
  const { arn } = await keys.createKey()
  const gate = { signingKey, kek: arn, since: secondsOf(clock) }
  const kms = kmsOf(world, kmsAnswers(keys, world.audience))
  const files = contractsOf(world.bundle)
  const secretOf = async (id: unknown): Promise<string | undefined> => {
    if (id === VECTOR_SECRETS.kafkaLogin) return JSON.stringify(kafkaLogin)
    if (id === VECTOR_SECRETS.signingKey) return JSON.stringify(exportPrivateJwk(signingKey))
    if (id !== VECTOR_SECRETS.directory) return undefined
    // Anew for whoever asks: it never grows old.
    const document = directoryOf(world, gate, secondsOf(clock))
    return Buffer.from(await sealDirectory(document, localSigner(root), clock.now() + SIGN_MS)).toString()
  }
  return {
    answers: async (action, asked) => {
      if (action !== 'GetSecretValue') return kms(action, asked)
      const { SecretId: id } = asked
      const value = await secretOf(id)
      if (value === undefined) return awsError('ResourceNotFoundException')
      return [200, { ARN: id, Name: 'local', SecretString: value, VersionId: `v${secondsOf(clock)}` }]
    },
    roots: [exportPublicJwk(publicKeyOf(root))],
    bundle: buildBundle(files),
    outputs: [...new Set(files.map(({ channel }) => outputOf(channel)))],
  }
}

const SIGN_MS = 10_000
const DAY = 86_400
const secondsOf = (clock: Clock): number => Math.floor(clock.now() / 1000)
const outputOf = (channel: string): string => `${VECTOR_CONSUMER}.${channel}`

function contractsOf(bundle: Uint8Array) {
  const { contracts } = JSON.parse(Buffer.from(bundle).toString()) as { contracts: readonly JsonValue[] }
  return contracts.map((contract) => {
    const read = readContractFile(contract)
    if (!('file' in read)) throw new TypeError('a bundle that was not built')
    const to = outputOf(read.file.channel)
    return {
      ...read.file,
      consume: { [VECTOR_CONSUMER]: { purpose: 'try-out', to, treatments: { '': 'pass' } } },
    }
  })
}

/** The key of KMS that stands for a KEK of the table. */
const KEK_ARN = 'arn:aws:kms:local:000000000000:key/vector-'
const arnOf = (kekIdBytes: Uint8Array): string => KEK_ARN + Buffer.from(kekIdBytes).toString('hex')

/** The table's KEKs answer as it says; all others are the embedded key service's. */
function kmsOf(world: World, embedded: AwsAnswers): AwsAnswers {
  const table = tableService(world.table)
  return async (action, asked): Promise<AwsAnswer> => {
    const { key, context, blob } = kmsRequest(asked)
    const kek = world.snapshot.keks.find(({ kekIdBytes }) => arnOf(kekIdBytes) === key)
    if (kek === undefined) return embedded(action, asked)
    // Nobody seals in the vectors' name.
    if (action !== 'Decrypt') return awsError('AccessDeniedException')
    try {
      const dataKey = await table.unwrap(kek, blob, context, Number.MAX_SAFE_INTEGER)
      return [200, { KeyId: key, Plaintext: Buffer.from(dataKey).toString('base64') }]
    } catch (error) {
      if (error instanceof Rejection) return awsError('InvalidCiphertextException')
      if (error instanceof Outage) return [500, { __type: 'KMSInternalException', message: 'no answer' }]
      throw error
    }
  }
}

interface GateKeys {
  readonly signingKey: PrivateKey
  readonly kek: string
  /** Seconds since 1970. */
  readonly since: number
}

function directoryOf(world: World, gate: GateKeys, now: number): DirectoryDocument {
  const { signingKeys, keks } = world.snapshot
  const publicKey = publicKeyOf(gate.signingKey)
  return {
    directory: 'sealgate/1',
    version: now,
    issuedAt: now,
    expiresAt: now + DAY,
    signingKeys: [
      ...signingKeys.map(({ kidText, iss, key, state, notBefore, notAfter, compromisedAt }) => ({
        ...{ kid: kidText, iss, alg: key.suite.name, jwk: exportPublicJwk(key) },
        ...{ state, notBefore, notAfter, compromisedAt },
      })),
      {
        kid: thumbprint(publicKey).toString('base64url'),
        iss: world.audience,
        alg: publicKey.suite.name,
        jwk: exportPublicJwk(publicKey),
        state: 'active',
        notBefore: gate.since - 3600,
        notAfter: now + DAY,
        compromisedAt: null,
      },
    ],
    keks: [
      ...keks.flatMap(({ kekIdBytes, iss }): KekEntry[] => {
        const kekId = Buffer.from(kekIdBytes).toString()
        // A directory names KEKs by text. One that it cannot name nobody may seal under, and its vectors say so too.
        if (!Buffer.from(kekId).equals(kekIdBytes)) return []
        return [{ kekId, provider: 'aws-kms', key: arnOf(kekIdBytes), iss }]
      }),
      { kekId: VECTOR_KEK, provider: 'aws-kms', key: gate.kek, iss: [world.audience] },
    ],
  }
}
