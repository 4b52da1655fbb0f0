/** Where AWS is, as its SDKs are told: AWS_ENDPOINT_URL for every service, AWS_ENDPOINT_URL_<SERVICE> for one before it. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest'
import { iamToken } from '../../lib/adapters/bearer-token.ts'
import { documentPlace, openDocument } from '../../lib/adapters/document-place.ts'
import { kmsKeyService, kmsPublicKey } from '../../lib/adapters/kms.ts'
import { kmsKeyMaterial } from '../../lib/adapters/kms-rotation.ts'
import { describeMsk } from '../../lib/adapters/msk-cluster.ts'
import { secretsManager, stagedSecretsManager } from '../../lib/adapters/secrets-manager.ts'
import { setEnvironment } from '../secrets-endpoint.ts'

const clock = { now: () => Date.now() }
const soon = (): number => Date.now() + 10_000
const arn = (service: string, rest: string): string => `arn:aws:${service}:eu-west-1:111122223333:${rest}`
const KEY = arn('kms', 'key/1234abcd-12ab-34cd-56ef-1234567890ab')
const SECRET = arn('secretsmanager', 'secret:name-AbCdEf')
const document = (place: string) =>
  openDocument(documentPlace(place), { outage: 'directory-unavailable', clock }).read(undefined, soon())

/** Each of our clients of AWS, at one call; the variable that is its service's own; what the service is asked. */
const CLIENTS: readonly (readonly [string, string, () => Promise<unknown>, RegExp])[] = [
  [
    'keys of envelopes in KMS',
    'KMS',
    () => kmsKeyService({ clock }).generate({ kekId: 'k', provider: 'aws-kms', key: KEY }, CONTEXT, soon()),
    /^POST \/ TrentService\.GenerateDataKey/,
  ],
  ['signing keys in KMS', 'KMS', () => kmsPublicKey(KEY, { clock }, soon()), /TrentService\.GetPublicKey$/],
  [
    'rotation of KMS keys',
    'KMS',
    () => kmsKeyMaterial(clock).describe(KEY, soon()),
    /^POST \/ TrentService\./,
  ],
  [
    'secrets',
    'SECRETS_MANAGER',
    () => secretsManager(clock).read(SECRET, soon()),
    /secretsmanager\.GetSecretValue$/,
  ],
  [
    'secrets with stages',
    'SECRETS_MANAGER',
    () => stagedSecretsManager(clock).find(SECRET, 'AWSPENDING', soon()),
    /secretsmanager\.GetSecretValue$/,
  ],
  ['documents in a secret', 'SECRETS_MANAGER', () => document(SECRET), /secretsmanager\.GetSecretValue$/],
  [
    'documents in S3',
    'S3',
    () => document('s3://bucket-name/directory.jws'),
    /^GET \/bucket-name\/directory\.jws/,
  ],
  [
    'the control plane of MSK',
    'KAFKA',
    () => describeMsk(arn('kafka', 'cluster/shop/1-2'), Date.now(), soon()),
    /^GET \/api\/v2\/clusters\//,
  ],
  [
    'the role that signs for MSK IAM',
    'STS',
    () => iamToken('eu-west-1', clock).current(soon()),
    /^POST \/ Action=AssumeRoleWithWebIdentity/,
  ],
]
const CONTEXT = { 'sealgate:v': '1', 'sealgate:iss': 'a', 'sealgate:aud': 'b' }

interface Endpoint {
  readonly url: string
  readonly asked: string[]
  end(): Promise<void>
}

/** Refuses everything, and remembers what. */
async function startEndpoint(): Promise<Endpoint> {
  const asked: string[] = []
  const server = createServer((request, response) => {
    const parts: Buffer[] = []
    request.on('data', (part: Buffer) => parts.push(part))
    request.on('end', () => {
      const { method = '', url = '', headers } = request
      const body = Buffer.concat(parts).toString()
      const action = String(headers['x-amz-target'] ?? /Action=\w+/.exec(body)?.[0] ?? '')
      asked.push(`${method} ${url} ${action}`.trim())
      response.writeHead(400, { 'content-type': 'application/x-amz-json-1.1' }).end('{"__type":"Refused"}')
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  const port = address !== null && typeof address === 'object' ? address.port : 0
  const end = async (): Promise<void> => {
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
  }
  return { url: `http://127.0.0.1:${port}`, asked, end }
}

const folder = mkdtempSync(join(tmpdir(), 'aws-endpoints-'))
const tokenFile = join(folder, 'token')
let everything: Endpoint
let own: Endpoint
let restore = (): void => undefined
beforeAll(async () => {
  writeFileSync(tokenFile, 'planted-token')
  everything = await startEndpoint()
  own = await startEndpoint()
})
afterEach(() => {
  restore()
  everything.asked.length = 0
  own.asked.length = 0
})
afterAll(async () => {
  await everything.end()
  await own.end()
  rmSync(folder, { recursive: true })
})

/** Credentials are at hand, but for STS, which is asked for them. */
const credentials = (service: string): Record<string, string | undefined> =>
  service === 'STS'
    ? {
        AWS_ACCESS_KEY_ID: undefined,
        AWS_SECRET_ACCESS_KEY: undefined,
        AWS_PROFILE: undefined,
        AWS_EC2_METADATA_DISABLED: 'true',
        AWS_WEB_IDENTITY_TOKEN_FILE: tokenFile,
        AWS_ROLE_ARN: 'arn:aws:iam::111122223333:role/gate',
      }
    : { AWS_ACCESS_KEY_ID: 'AKIDEXAMPLE', AWS_SECRET_ACCESS_KEY: 'planted-aws-secret' }

describe('an endpoint of AWS from the environment', () => {
  it.each(CLIENTS)(
    'serves %s by AWS_ENDPOINT_URL, or by AWS_ENDPOINT_URL_%s',
    async (_, service, call, what) => {
      const variable = `AWS_ENDPOINT_URL_${service}`
      const settings = { AWS_ENDPOINT_URL: everything.url, AWS_REGION: 'eu-west-1', ...credentials(service) }
      restore = setEnvironment({ ...settings, [variable]: undefined })
      await expect(call()).rejects.toThrow()
      expect(everything.asked[0]).toMatch(what)
      const before = everything.asked.length
      restore()
      restore = setEnvironment({ ...settings, [variable]: own.url })
      await expect(call()).rejects.toThrow()
      expect(own.asked[0]).toMatch(what)
      expect(everything.asked).toHaveLength(before)
    },
  )
})
