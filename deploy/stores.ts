/** What keeps keys, credentials and the key directory, where the stack makes it: all of it outlives the stack. */
import { arnOf, IDS, roleId, serviceName } from './functions.ts'
import { KMS_KEY_ARN } from '../lib/adapters/kms-rotation.ts'
import { administration, givenKeks } from './keks.ts'
import { CREATE, directoryBucket, type Given, type Stage } from './stage.ts'
import {
  allow,
  attribute,
  policyDocument,
  ref,
  type Resource,
  type Resources,
  RETAINED,
  type Statement,
  type Values,
} from './template.ts'

/** Long enough that nobody guesses it, and without what shells and JAAS files need escaped. */
const PASSWORD = { PasswordLength: 48, ExcludePunctuation: true, GenerateStringKey: 'password' } as const

export function storesOf(stage: Stage): Resources {
  return {
    ...(stage.directory === CREATE ? bucket(stage) : {}),
    ...(stage.signingKey === CREATE ? { [IDS.signingKey]: signingKey(stage) } : {}),
    ...(stage.secretsKey === CREATE ? { [IDS.secretsKey]: secretsKey(stage) } : {}),
    ...kafkaUsers(stage),
  }
}

/** A user for each function: what `rotate` may, the gate may not. */
function kafkaUsers(stage: Stage): Resources {
  const { secret, rotateSecret, arn } = stage.cluster
  const users: readonly (readonly [Given | undefined, string, string])[] = [
    [secret, IDS.kafkaSecret, serviceName(stage)],
    [rotateSecret, IDS.rotateSecret, `${serviceName(stage)}.rotate`],
  ]
  const created = users.filter(([given]) => given === CREATE)
  if (created.length === 0) return {}
  const secrets = Object.fromEntries(created.map(([, id, user]) => [id, kafkaSecret(stage, user)]))
  if (arn === undefined) return secrets
  return {
    ...secrets,
    // Without it the secrets, which stay, would log in nowhere.
    KafkaUser: {
      Type: 'AWS::MSK::BatchScramSecret',
      ...RETAINED,
      Properties: { ClusterArn: arn, SecretArnList: created.map(([, id]) => ref(id)) },
    },
  }
}

function bucket(stage: Stage): Resources {
  const arn = attribute(IDS.bucket, 'Arn')
  const insecure: Statement = {
    Effect: 'Deny',
    Principal: '*',
    Action: ['s3:*'],
    Resource: [arn, { 'Fn::Sub': `\${${IDS.bucket}.Arn}/*` }],
    Condition: { Bool: { 'aws:SecureTransport': 'false' } },
  }
  return {
    [IDS.bucket]: {
      Type: 'AWS::S3::Bucket',
      ...RETAINED,
      Properties: {
        BucketName: directoryBucket(stage),
        // The directory is public by its nature; what counts is who may write it, and every version of it is kept.
        BucketEncryption: {
          ServerSideEncryptionConfiguration: [{ ServerSideEncryptionByDefault: { SSEAlgorithm: 'AES256' } }],
        },
        OwnershipControls: { Rules: [{ ObjectOwnership: 'BucketOwnerEnforced' }] },
        PublicAccessBlockConfiguration: {
          BlockPublicAcls: true,
          BlockPublicPolicy: true,
          IgnorePublicAcls: true,
          RestrictPublicBuckets: true,
        },
        VersioningConfiguration: { Status: 'Enabled' },
      },
    },
    DirectoryBucketPolicy: {
      Type: 'AWS::S3::BucketPolicy',
      ...RETAINED,
      Properties: { Bucket: ref(IDS.bucket), PolicyDocument: policyDocument([insecure]) },
    },
  }
}

const signingKey = (stage: Stage): Resource => ({
  Type: 'AWS::KMS::Key',
  ...RETAINED,
  Properties: {
    Description: `${serviceName(stage)}: ${stage.gateway} signs`,
    KeySpec: 'ECC_NIST_EDWARDS25519',
    KeyUsage: 'SIGN_VERIFY',
    PendingWindowInDays: 30,
    KeyPolicy: policyDocument([administration(stage), ...signers(stage)]),
  },
})

function signers(stage: Stage): readonly Statement[] {
  const roles = [roleId('ingest'), ...(stage.lifecycleAudit === 'kafka' ? [roleId('rotate')] : [])]
  const gate = {
    ...allow(['kms:Sign'], '*'),
    Principal: { AWS: roles.map((role) => attribute(role, 'Arn')) },
  }
  const { enroller } = stage
  const proof = enroller && {
    ...allow(['kms:GetPublicKey', 'kms:Sign'], '*'),
    Principal: { AWS: enroller },
  }
  return [gate, ...(proof ? [proof] : [])]
}

const secretsKey = (stage: Stage): Resource => ({
  Type: 'AWS::KMS::Key',
  ...RETAINED,
  Properties: {
    Description: `${serviceName(stage)}: secrets`,
    EnableKeyRotation: true,
    PendingWindowInDays: 30,
    KeyPolicy: policyDocument([administration(stage), ...secretsUsers(stage)]),
  },
})

function secretsUsers({ account, region }: Stage): readonly Statement[] {
  const services = { StringEquals: { 'kms:ViaService': `secretsmanager.${region}.amazonaws.com` } }
  const Principal = { AWS: `arn:aws:iam::${account}:root` }
  return [
    // Whoever may read a secret by IAM reads it through Secrets Manager, and nobody reads anything beside it.
    { ...allow(['kms:Decrypt', 'kms:GenerateDataKey'], '*', services), Principal },
    { ...allow(['kms:CreateGrant'], '*', { Bool: { 'kms:GrantIsForAWSResource': 'true' } }), Principal },
  ]
}

/** What belongs into the policies of keys that are there already, by their ARNs: to be put there by hand. */
export function givenKeyPolicies(stage: Stage): Values {
  const root = {
    ...allow(['kms:GetPublicKey', 'kms:Sign'], '*'),
    Principal: { AWS: attribute(roleId('rotate'), 'Arn') },
  }
  const keys: readonly (readonly [Given, readonly Statement[]])[] = [
    ...givenKeks(stage),
    [stage.signingKey, signers(stage)],
    [stage.rootKey, [root]],
    [stage.secretsKey, secretsUsers(stage)],
  ]
  const given = keys.filter(([arn]) => KMS_KEY_ARN.test(arn))
  return Object.fromEntries(
    Array.from(
      Map.groupBy(given, ([arn]) => arn),
      ([arn, rows]) => [arn, policyDocument(rows.flatMap(([, statements]) => statements))],
    ),
  )
}

const kafkaSecret = (stage: Stage, username: string): Resource => ({
  Type: 'AWS::SecretsManager::Secret',
  ...RETAINED,
  Properties: {
    // MSK takes no other names, and no secret under the account's own key.
    Name: stage.cluster.arn === undefined ? `${username}/kafka` : `AmazonMSK_${username}`,
    KmsKeyId: arnOf(stage.secretsKey, IDS.secretsKey),
    GenerateSecretString: {
      SecretStringTemplate: JSON.stringify({ username }),
      ...PASSWORD,
    },
  },
})
