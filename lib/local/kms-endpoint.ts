/** An embedded key service as KMS: what the AWS SDK of a function that runs here talks to. */
import { type AwsAnswers, serveAws } from './aws-endpoint.ts'
import type { LocalKeyService } from './key-service.ts'

export interface KmsEndpoint {
  readonly url: string
  /** Actions asked for, in order. */
  readonly asked: readonly string[]
  end(): Promise<void>
}

/** At a port of 127.0.0.1; every caller is `principal`. */
export async function startKmsEndpoint(keys: LocalKeyService, principal: string): Promise<KmsEndpoint> {
  const asked: string[] = []
  const answers = kmsAnswers(keys, principal)
  const endpoint = await serveAws((action, body) => {
    asked.push(action)
    return answers(action, body)
  })
  return { url: endpoint.url, asked, end: () => endpoint.end() }
}

/** Answers GenerateDataKey and Decrypt, as to `principal`. */
export function kmsAnswers(keys: LocalKeyService, principal: string): AwsAnswers {
  return (action, body) => {
    const { key, context, blob } = kmsRequest(body)
    const echo = { KeyId: keys.describeKey(key).arn }
    if (action === 'GenerateDataKey') {
      const { plaintext, ciphertext } = keys.generateDataKey(key, context, principal)
      return [200, { ...echo, Plaintext: base64(plaintext), CiphertextBlob: base64(ciphertext) }]
    }
    if (action !== 'Decrypt') throw new TypeError(`${action} is not expected`)
    return [200, { ...echo, Plaintext: base64(keys.decrypt(key, blob, context, principal)) }]
  }
}

/** What a request names; `blob` is empty where it has no ciphertext. */
export function kmsRequest(body: Readonly<Record<string, unknown>>): {
  readonly key: string
  readonly context: Readonly<Record<string, string>>
  readonly blob: Uint8Array
} {
  const { KeyId: key, EncryptionContext: context, CiphertextBlob: blob } = body
  return {
    key: textOf(key),
    context: Object.fromEntries(Object.entries(context ?? {}).map(([name, value]) => [name, textOf(value)])),
    blob: Buffer.from(textOf(blob), 'base64'),
  }
}

const textOf = (value: unknown): string => (typeof value === 'string' ? value : '')
const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64')
