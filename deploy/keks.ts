/** Keys under which events lie, and who may do what with them: by the encryption context, in the keys' own policies. */
import type { Contracts } from '../lib/contract/contract.ts'
import { ConfigError, type Fault } from '../lib/errors.ts'
import { arnOf, IDS, roleId } from './functions.ts'
import { CREATE, type Given, type Stage } from './stage.ts'
import {
  allow,
  attribute,
  charactersOf,
  idPart,
  policyDocument,
  RETAINED,
  type Resources,
  type Statement,
  type Value,
  type Values,
} from './template.ts'

export const producerKekId = (producer: string): string => `${idPart(producer)}Kek`

/** What a data key is bound to (sealed-event.md §4); a context with any other name in it is none of ours. */
const CONTEXT_NAMES = ['sealgate:aud', 'sealgate:iss', 'sealgate:type', 'sealgate:v'] as const

/** Whoever seals makes data keys in its own name alone. */
export const generateRight = (key: Value, iss: string): Statement =>
  allow(['kms:GenerateDataKey'], key, context({ iss }))

/** Whoever opens unwraps what is meant for it alone. */
export const decryptRight = (key: Value, scope: { readonly iss: string; readonly aud: string }): Statement =>
  allow(['kms:Decrypt'], key, context(scope))

function context(scope: { readonly iss: string; readonly aud?: string }): Values {
  const { iss, aud } = scope
  return {
    StringEquals: {
      'kms:EncryptionContext:sealgate:iss': iss,
      ...(aud === undefined ? {} : { 'kms:EncryptionContext:sealgate:aud': aud }),
    },
    'ForAllValues:StringEquals': { 'kms:EncryptionContextKeys': CONTEXT_NAMES },
  }
}

/**
 * Who is in the contracts of this stage's channels and would have no key: an event of such a producer stops its partition,
 * since the gate is refused its KEK, and such a consumer can open nothing.
 */
export function peopleFaults(stage: Stage, contracts: Contracts, where: string): readonly Fault[] {
  const channels = new Set(Object.values(stage.channels))
  const here = contracts.all.filter(({ channel }) => channels.has(channel))
  const sealed = here.flatMap(({ routes }) => routes.filter(({ form }) => form === 'sealed'))
  const missing = (list: 'producers' | 'consumers', names: readonly string[]): Fault[] =>
    [...new Set(names)]
      .filter((name) => !Object.hasOwn(stage[list], name))
      .map((name) => ({
        where: `${where}: ${list}`,
        what: `${name} is not in it, and contracts of its channels name it.`,
        fix: 'Add it, with its role.',
      }))
  return [
    ...missing(
      'producers',
      here.flatMap(({ publish }) => [...publish.keys()]),
    ),
    ...missing(
      'consumers',
      sealed.map(({ consumer }) => consumer),
    ),
  ]
}

/** A KEK, whose owner seals under it, and who its readers are. */
interface Kek {
  readonly id: string
  readonly given: Given
  readonly description: string
  readonly statements: readonly Statement[]
}

function keksOf(stage: Stage): readonly Kek[] {
  const { gateway, producers, consumers } = stage
  const gate = attribute(roleId('ingest'), 'Arn')
  const by = (role: Value, statement: Statement): Statement => ({ ...statement, Principal: { AWS: role } })
  return [
    {
      id: IDS.gatewayKek,
      given: stage.kek.key,
      description: `sealgate ${stage.name}: what ${gateway} gives out`,
      statements: [
        by(gate, generateRight('*', gateway)),
        ...Object.entries(consumers).map(([aud, { role }]) =>
          by(role, decryptRight('*', { iss: gateway, aud })),
        ),
      ],
    },
    ...Object.entries(producers).map(([iss, { role, kek }]) => ({
      id: producerKekId(iss),
      given: kek,
      description: `sealgate ${stage.name}: what ${iss} sends`,
      statements: [by(role, generateRight('*', iss)), by(gate, decryptRight('*', { iss, aud: gateway }))],
    })),
  ]
}

/** Of a key's policy, by KMS. */
const MAX_CHARACTERS = 32_768

/** The KEKs that the stack makes, or `ConfigError` where KMS would not take the policy of one. */
export function createdKeks(stage: Stage): Resources {
  const created = keksOf(stage)
    .filter(({ given }) => given === CREATE)
    .map(({ statements, ...kek }) => ({
      ...kek,
      policy: policyDocument([administration(stage), ...statements]),
    }))
  const faults = created
    .filter(({ policy }) => charactersOf(policy) > MAX_CHARACTERS)
    .map(({ id }) => ({
      where: `${stage.name}: ${id}`,
      what: `Its policy is more than the ${MAX_CHARACTERS} characters that KMS takes.`,
      fix: 'Divide the consumers among several deployments.',
    }))
  if (faults.length > 0) throw new ConfigError(faults)
  return Object.fromEntries(
    created.map(({ id, description, policy }) => [
      id,
      {
        Type: 'AWS::KMS::Key',
        ...RETAINED,
        Properties: {
          Description: description,
          EnableKeyRotation: true,
          PendingWindowInDays: 30,
          KeyPolicy: policy,
        },
      },
    ]),
  )
}

/** Those that are there already, by their ARNs, and what their users may do. */
export const givenKeks = (stage: Stage): readonly (readonly [Given, readonly Statement[]])[] =>
  keksOf(stage)
    .filter(({ given }) => given !== CREATE)
    .map(({ given, statements }) => [given, statements])

/**
 * What the account's administrators may do with a key: all but use it, and but grant its use. With `kms:*`, as AWS's
 * default key policy has it, any IAM policy of the account could let somebody decrypt.
 */
export function administration(stage: Stage): Statement {
  const verbs = [
    ...['kms:CancelKeyDeletion', 'kms:CreateAlias', 'kms:DeleteAlias', 'kms:DescribeKey', 'kms:DisableKey'],
    ...['kms:DisableKeyRotation', 'kms:EnableKey', 'kms:EnableKeyRotation', 'kms:GetKeyPolicy'],
    ...['kms:GetKeyRotationStatus', 'kms:GetPublicKey', 'kms:ListGrants', 'kms:ListKeyPolicies'],
    ...['kms:ListKeyRotations', 'kms:ListResourceTags', 'kms:PutKeyPolicy', 'kms:RevokeGrant'],
    ...['kms:RotateKeyOnDemand', 'kms:ScheduleKeyDeletion', 'kms:TagResource', 'kms:UntagResource'],
    ...['kms:UpdateAlias', 'kms:UpdateKeyDescription'],
  ]
  return { ...allow(verbs, '*'), Principal: { AWS: `arn:aws:iam::${stage.account}:root` } }
}

/** Every KEK's ARN by the name of who seals under it, for the outputs. */
export const kekArns = (stage: Stage): Readonly<Record<string, Value>> => ({
  [IDS.gatewayKek]: arnOf(stage.kek.key, IDS.gatewayKek),
  ...Object.fromEntries(
    Object.entries(stage.producers).map(([iss, { kek }]) => [
      producerKekId(iss),
      arnOf(kek, producerKekId(iss)),
    ]),
  ),
})
