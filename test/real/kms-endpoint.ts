/** A KMS endpoint on 127.0.0.1 with an embedded key service behind it: what the AWS SDK of a real function talks to. */
import { type LocalKeyService } from '../../lib/local/key-service.ts'
import { serveAws } from '../aws-endpoint.ts'

export interface KmsEndpoint {
  readonly url: string
  /** Actions asked for, in order. */
  readonly asked: readonly string[]
  end(): Promise<void>
}

/** Every caller is `principal`. */
export async function startKmsEndpoint(keys: LocalKeyService, principal: string): Promise<KmsEndpoint> {
  const asked: string[] = []
  const answer = (action: string, body: Readonly<Record<string, unknown>>): object => {
    const keyId = String(body['KeyId'])
    const context = Object.fromEntries(
      Object.entries(body['EncryptionContext'] ?? {}).map(([name, value]) => [name, String(value)]),
    )
    const echo = { KeyId: keys.describeKey(keyId).arn }
    if (action === 'GenerateDataKey') {
      const { plaintext, ciphertext } = keys.generateDataKey(keyId, context, principal)
      return { ...echo, Plaintext: base64(plaintext), CiphertextBlob: base64(ciphertext) }
    }
    if (action !== 'Decrypt') throw new TypeError(`${action} is not expected`)
    const blob = Buffer.from(String(body['CiphertextBlob']), 'base64')
    return { ...echo, Plaintext: base64(keys.decrypt(keyId, blob, context, principal)) }
  }
  const { url, end } = await serveAws((action, body) => {
    asked.push(action)
    return [200, answer(action, body)]
  })
  return { url, asked, end }
}

const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64')
