/** A function's place between topics of a real cluster: its package, what it is told, and the services of AWS that it asks. */
import { readFile, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { exportPublicJwk } from '../../lib/envelope/crypto.ts'
import { openLocalKeyService } from '../../lib/local/key-service.ts'
import { openLocalSecrets } from '../../lib/local/secrets.ts'
import { LOCAL_GATEWAY } from '../../lib/local/stack.ts'
import { bundleFunction } from '../../scripts/bundle.ts'
import { type AwsEndpoint, awsError, serveAws } from '../../lib/local/aws-endpoint.ts'
import { startKmsEndpoint } from '../../lib/local/kms-endpoint.ts'
import type { CommandPlace } from './stack/settings.ts'
import { type Connection, DEPLOYMENT } from './stack/stack.ts'

export interface FunctionPlace {
  /** The package as Lambda unzips it: the bundle, and the files that its environment names. */
  readonly folder: string
  readonly environment: Readonly<Record<string, string>>
  /** What Secrets Manager has for it, by the variable that names it. */
  readonly secrets: Readonly<Record<string, string>>
  /** Actions that were asked of KMS and Secrets Manager, in order. */
  asked(): readonly string[]
  end(): Promise<void>
}

/**
 * Writes functions/ingest, bundled as it is deployed, into a folder, which is made; keys and secrets are those of the
 * embedded stack, behind endpoints on 127.0.0.1.
 */
export async function placeIngest(
  folder: string,
  place: Omit<CommandPlace, 'principal'>,
): Promise<FunctionPlace> {
  const { connection, stack, stackFolder } = place
  await bundleFunction('ingest', folder)
  const file = fileIn(folder)
  const principals: { readonly principals: readonly { readonly iss: string; readonly jwk: unknown }[] } =
    JSON.parse(await readFile(join(stackFolder, 'keys', 'principals.json'), 'utf8'))
  const gate = principals.principals.find(({ iss }) => iss === LOCAL_GATEWAY)
  const local = await openLocalSecrets(join(stackFolder, 'secrets'), stack.clock)
  const pseudonyms = await local.read('pseudonyms', stack.clock.now() + 10_000).catch(() => undefined)
  const values: Record<string, string> = {
    SEALGATE_SIGNING_KEY: JSON.stringify(gate?.jwk),
    SEALGATE_KAFKA_SASL_SECRET: JSON.stringify({ username: 'gate', password: connection.passwords.gate }),
    ...(pseudonyms && { SEALGATE_PSEUDONYMS: Buffer.from(pseudonyms.value).toString() }),
  }
  const read: string[] = []
  const secrets = await serveSecrets(values, read)
  const keys = await openLocalKeyService(join(stackFolder, 'keys'), stack.clock)
  const kms = await startKmsEndpoint(keys, LOCAL_GATEWAY)
  const pairs = (map: ReadonlyMap<string, string>, order: (pair: [string, string]) => string): string =>
    Array.from(map, order).join(',')
  return {
    folder,
    environment: {
      SEALGATE_NAME: LOCAL_GATEWAY,
      SEALGATE_CHANNELS: pairs(place.sources, ([channel, topic]) => `${topic}=${channel}`),
      SEALGATE_TOPICS: pairs(place.outputs, ([channel, topic]) => `${channel}=${topic}`),
      SEALGATE_AUDIT_TOPIC: place.auditTopic,
      SEALGATE_QUARANTINE_TOPIC: place.quarantineTopic,
      SEALGATE_CONTRACTS: await file(
        'contracts.json',
        await readFile(join(stackFolder, 'contracts.bundle.json')),
      ),
      SEALGATE_DIRECTORY: join(stackFolder, 'keys', 'directory.jws'),
      SEALGATE_ROOTS: await file('roots.json', JSON.stringify(stack.directory.roots.map(exportPublicJwk))),
      SEALGATE_KEK_ID: stack.gateParts().settings.outlet.kekId,
      ...(await kafkaEnvironment(folder, connection)),
      ...Object.fromEntries(Object.keys(values).map((name) => [name, ARN + name])),
      AWS_ENDPOINT_URL_KMS: kms.url,
      AWS_ENDPOINT_URL_SECRETS_MANAGER: secrets.url,
      AWS_ACCESS_KEY_ID: 'AKIDEXAMPLE',
      AWS_SECRET_ACCESS_KEY: 'planted-aws-secret',
    },
    secrets: values,
    asked: () => [...kms.asked, ...read],
    end: async () => {
      await kms.end()
      await secrets.end()
    },
  }
}

/** Writes files into a function's package, and gives their names. */
export const fileIn =
  (folder: string) =>
  async (name: string, content: string | Uint8Array): Promise<string> => {
    await writeFile(join(folder, name), content, { mode: 0o600 })
    return name
  }

/** The brokers, and whose positions are meant; who we are there is said by `SEALGATE_KAFKA_SASL_SECRET`. */
export const kafkaEnvironment = async (
  folder: string,
  { brokers, ca }: Connection,
): Promise<Record<string, string>> => ({
  SEALGATE_DEPLOYMENT: DEPLOYMENT,
  SEALGATE_KAFKA_BROKERS: brokers.join(','),
  SEALGATE_KAFKA_SSL_CA: await fileIn(folder)('ca.pem', ca),
  SEALGATE_KAFKA_SASL_MECHANISM: 'scram-sha-512',
})

const ARN = 'arn:aws:secretsmanager:eu-west-1:111122223333:secret:'

function serveSecrets(values: Readonly<Record<string, string>>, read: string[]): Promise<AwsEndpoint> {
  return serveAws((action, { SecretId: id }) => {
    read.push(action)
    const name = String(id).slice(ARN.length)
    const value = action === 'GetSecretValue' ? values[name] : undefined
    if (value === undefined) return awsError('ResourceNotFoundException')
    return [200, { ARN: id, Name: name, SecretString: value, VersionId: 'v1' }]
  })
}
