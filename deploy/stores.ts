/** What keeps keys, credentials and the key directory, where the stack makes it: all of it outlives the stack. */
import { arnOf, IDS, roleId, serviceName } from './functions.ts'
import { administration } from './keks.ts'
import { CREATE, directoryBucket, type Stage } from './stage.ts'
import {
  allow,
  attribute,
  policyDocument,
  ref,
  type Resource,
  type Resources,
  RETAINED,
  type Statement,
} from './template.ts'

/** Long enough that nobody guesses it, and without what shells and JAAS files need escaped. */
const PASSWORD = { PasswordLength: 48, ExcludePunctuation: true, GenerateStringKey: 'password' } as const

export function storesOf(stage: Stage): Resources {
  const { secret, authentication, arn } = stage.cluster
  return {
    ...(stage.directory === CREATE ? bucket(stage) : {}),
    ...(stage.signingKey === CREATE ? { [IDS.signingKey]: signingKey(stage) } : {}),
    ...(stage.secretsKey === CREATE ? { [IDS.secretsKey]: secretsKey(stage) } : {}),
    ...(authentication === 'scram' && secret === CREATE
      ? {
          [IDS.kafkaSecret]: kafkaSecret(stage),
          // Without it the secret, which stays, would log in nowhere.
          KafkaUser: {
            Type: 'AWS::MSK::BatchScramSecret',
            ...RETAINED,
            Properties: { ClusterArn: arn, SecretArnList: [ref(IDS.kafkaSecret)] },
          },
        }
      : {}),
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

function signingKey(stage: Stage): Resource {
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
  return {
    Type: 'AWS::KMS::Key',
    ...RETAINED,
    Properties: {
      Description: `${serviceName(stage)}: ${stage.gateway} signs`,
      KeySpec: 'ECC_NIST_EDWARDS25519',
      KeyUsage: 'SIGN_VERIFY',
      PendingWindowInDays: 30,
      KeyPolicy: policyDocument([administration(stage), gate, ...(proof ? [proof] : [])]),
    },
  }
}

function secretsKey(stage: Stage): Resource {
  const services = { StringEquals: { 'kms:ViaService': `secretsmanager.${stage.region}.amazonaws.com` } }
  const account = { AWS: `arn:aws:iam::${stage.account}:root` }
  return {
    Type: 'AWS::KMS::Key',
    ...RETAINED,
    Properties: {
      Description: `${serviceName(stage)}: secrets`,
      EnableKeyRotation: true,
      PendingWindowInDays: 30,
      KeyPolicy: policyDocument([
        administration(stage),
        // Whoever may read a secret by IAM reads it through Secrets Manager, and nobody reads anything beside it.
        { ...allow(['kms:Decrypt', 'kms:GenerateDataKey'], '*', services), Principal: account },
        {
          ...allow(['kms:CreateGrant'], '*', { Bool: { 'kms:GrantIsForAWSResource': 'true' } }),
          Principal: account,
        },
      ]),
    },
  }
}

const kafkaSecret = (stage: Stage): Resource => ({
  Type: 'AWS::SecretsManager::Secret',
  ...RETAINED,
  Properties: {
    // MSK takes no other names, and no secret under the account's own key.
    Name: `AmazonMSK_${serviceName(stage)}`,
    KmsKeyId: arnOf(stage.secretsKey, IDS.secretsKey),
    GenerateSecretString: {
      SecretStringTemplate: JSON.stringify({ username: serviceName(stage) }),
      ...PASSWORD,
    },
  },
})
