/**
 * The adapters of KMS and Secrets Manager on two emulators of AWS, by the suites that our own services keep in `npm test`.
 * Neither is a judge of AWS: what is listed in emulators/differences.ts, docs/keys.md names.
 */
import { randomUUID } from 'node:crypto'
import {
  CreateKeyCommand,
  type CreateKeyCommandInput,
  DisableKeyCommand,
  EnableKeyCommand,
  EncryptCommand,
  KMSClient,
  RotateKeyOnDemandCommand,
  ScheduleKeyDeletionCommand,
} from '@aws-sdk/client-kms'
import { CreateSecretCommand, SecretsManagerClient } from '@aws-sdk/client-secrets-manager'
import { afterAll, beforeAll, describe } from 'vitest'
import { kmsKeyService, kmsPublicKey, kmsSigner } from '../../lib/adapters/kms.ts'
import { kmsKeyMaterial } from '../../lib/adapters/kms-rotation.ts'
import { stagedSecretsManager } from '../../lib/adapters/secrets-manager.ts'
import { keyMaterialContract } from '../contract-suites/key-material.ts'
import { keyServiceContract } from '../contract-suites/key-service.ts'
import { keySignerContract } from '../contract-suites/key-signer.ts'
import { stagedSecretsContract } from '../contract-suites/staged-secrets.ts'
import { type Differences, MINISTACK, MOTO } from './emulators/differences.ts'
import { EMULATOR_MS, type Emulator } from './emulators/emulator.ts'
import { startMinistack } from './emulators/ministack.ts'
import { startMoto } from './emulators/moto.ts'

const clock = { now: () => Date.now() }

/** What an administrator of keys does, by the SDK; by id, since moto disables no key by its ARN. */
function keyAdministration() {
  const client = new KMSClient({ maxAttempts: 1 })
  const idOf = (key: string): string => key.slice(key.lastIndexOf('/') + 1)
  return {
    make: async (input: CreateKeyCommandInput = {}): Promise<string> =>
      (await client.send(new CreateKeyCommand(input))).KeyMetadata?.Arn ?? '',
    disable: async (key: string): Promise<void> => {
      await client.send(new DisableKeyCommand({ KeyId: idOf(key) }))
    },
    enable: async (key: string): Promise<void> => {
      await client.send(new EnableKeyCommand({ KeyId: idOf(key) }))
    },
    scheduleDeletion: async (key: string): Promise<void> => {
      await client.send(new ScheduleKeyDeletionCommand({ KeyId: idOf(key), PendingWindowInDays: 7 }))
    },
    rotate: async (key: string): Promise<void> => {
      await client.send(new RotateKeyOnDemandCommand({ KeyId: key }))
    },
    encrypt: async (key: string, plaintext: Uint8Array, context: Record<string, string>) => {
      const command = new EncryptCommand({ KeyId: key, Plaintext: plaintext, EncryptionContext: context })
      const { CiphertextBlob: blob } = await client.send(command)
      if (blob === undefined) throw new Error('nothing was encrypted')
      return blob
    },
  }
}

const SIGNING = { KeySpec: 'ECC_NIST_P256', KeyUsage: 'SIGN_VERIFY' } as const

function suitesOf(name: string, start: () => Promise<Emulator>, differences: Differences): void {
  describe(name, () => {
    let emulator: Emulator
    beforeAll(async () => {
      emulator = await start()
    }, EMULATOR_MS)
    afterAll(() => emulator.end())

    keyServiceContract(
      `KMS of ${name}`,
      () => {
        const keys = keyAdministration()
        const kekOf = (key: string) => ({ kekId: 'k', provider: 'aws-kms', key })
        return Promise.resolve({
          service: kmsKeyService({ clock }),
          makeKek: async () => kekOf(await keys.make()),
          makeSigningKek: async () => kekOf(await keys.make(SIGNING)),
          encrypt: (kek, plaintext, context) => keys.encrypt(kek.key, plaintext, { ...context }),
          disable: (kek) => keys.disable(kek.key),
          enable: (kek) => keys.enable(kek.key),
          scheduleDeletion: (kek) => keys.scheduleDeletion(kek.key),
          rotate: (kek) => keys.rotate(kek.key),
          end: () => Promise.resolve(),
        })
      },
      differences.keyService,
    )

    keyMaterialContract(
      `KMS of ${name}`,
      () => {
        const keys = keyAdministration()
        return Promise.resolve({
          material: kmsKeyMaterial(clock),
          makeKey: () => keys.make(),
          makeSigningKey: () => keys.make(SIGNING),
          disable: (key) => keys.disable(key),
        })
      },
      differences.keyMaterial,
    )

    keySignerContract(
      `KMS of ${name}`,
      () => {
        const keys = keyAdministration()
        return Promise.resolve({
          makeKey: (spec) => keys.make(spec === 'SYMMETRIC_DEFAULT' ? {} : { ...SIGNING, KeySpec: spec }),
          signer: (keyId, { cose: alg }) =>
            Promise.resolve(kmsSigner({ keyId, kid: Buffer.from('kid'), alg }, { clock })),
          publicKey: (key) => kmsPublicKey(key, { clock }, Date.now() + 10_000),
          disable: (key) => keys.disable(key),
          scheduleDeletion: (key) => keys.scheduleDeletion(key),
          end: () => Promise.resolve(),
        })
      },
      differences.keySigner,
    )

    stagedSecretsContract(
      `Secrets Manager of ${name}`,
      () => {
        const client = new SecretsManagerClient({ maxAttempts: 1 })
        return Promise.resolve({
          secrets: stagedSecretsManager(clock),
          newSecret: async (value) => {
            const command = new CreateSecretCommand({ Name: `gate-${randomUUID()}`, SecretString: value })
            return (await client.send(command)).ARN ?? ''
          },
          missing: 'arn:aws:secretsmanager:eu-central-1:123456789012:secret:missing-AbCdEf',
          end: () => Promise.resolve(),
        })
      },
      differences.stagedSecrets,
    )
  })
}

suitesOf('moto', startMoto, MOTO)
suitesOf('MiniStack', startMinistack, MINISTACK)
