/** A KMS endpoint on 127.0.0.1 with an embedded key service behind it: what the AWS SDK of a real function talks to. */
import { createServer } from 'node:http'
import { type LocalKeyService } from '../../lib/local/key-service.ts'

export interface KmsEndpoint {
  readonly url: string
  /** Actions asked for, in order. */
  readonly asked: readonly string[]
  end(): Promise<void>
}

/** Every caller is `principal`. */
export async function startKmsEndpoint(keys: LocalKeyService, principal: string): Promise<KmsEndpoint> {
  const asked: string[] = []
  const answer = (action: string, body: Record<string, unknown>): object => {
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
  const server = createServer((request, response) => {
    const parts: Buffer[] = []
    request.on('data', (part: Buffer) => parts.push(part))
    request.on('end', () => {
      const action = String(request.headers['x-amz-target']).replace('TrentService.', '')
      asked.push(action)
      const send = (status: number, content: object): void => {
        response
          .writeHead(status, { 'content-type': 'application/x-amz-json-1.1' })
          .end(JSON.stringify(content))
      }
      try {
        send(200, answer(action, JSON.parse(Buffer.concat(parts).toString())))
      } catch (error) {
        send(400, { __type: error instanceof Error ? error.name : 'InternalFailure', message: 'refused' })
      }
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  const port = address !== null && typeof address === 'object' ? address.port : 0
  return {
    url: `http://127.0.0.1:${port}`,
    asked,
    end: async () => {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

const base64 = (bytes: Uint8Array): string => Buffer.from(bytes).toString('base64')
