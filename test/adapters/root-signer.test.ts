/** A root in KMS, on an endpoint of 127.0.0.1 that signs with real keys. */
import { createPublicKey, createPrivateKey, sign } from 'node:crypto'
import { createServer, type Server } from 'node:http'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { kmsPublicKey } from '../../lib/adapters/kms.ts'
import { rootSigner } from '../../lib/adapters/root-signer.ts'
import { exportPrivateJwk, generateKeyPair, thumbprint, verify } from '../../lib/envelope/crypto.ts'
import { ED25519, ESP256 } from '../../lib/envelope/suite.ts'
import { parseDirectory, sealDirectory } from '../../lib/keys/directory-document.ts'
import { DirectoryDraft, EMPTY_DIRECTORY } from '../../lib/keys/directory-draft.ts'
import { setEnvironment } from '../secrets-endpoint.ts'

const clock = { now: () => Date.now() }
const soon = (): number => Date.now() + 10_000
const arnOf = (id: string): string => `arn:aws:kms:eu-central-1:111122223333:key/${id}`
const pairs = { ed: generateKeyPair(ED25519), p256: generateKeyPair(ESP256), next: generateKeyPair(ESP256) }
/** SubjectPublicKeyInfo by ARN. */
const served = new Map<string, Buffer>()
let server: Server
let restore: () => void

beforeAll(async () => {
  const handles = new Map(
    Object.entries(pairs).map(([id, { privateKey }]) => {
      const handle = createPrivateKey({ key: { ...exportPrivateJwk(privateKey) }, format: 'jwk' })
      return [arnOf(id), handle] as const
    }),
  )
  for (const [arn, handle] of handles)
    served.set(arn, createPublicKey(handle).export({ format: 'der', type: 'spki' }))
  server = createServer((request, response) => {
    const parts: Buffer[] = []
    request.on('data', (part: Buffer) => parts.push(part))
    request.on('end', () => {
      const { KeyId, Message }: { KeyId: string; Message?: string } = JSON.parse(
        Buffer.concat(parts).toString(),
      )
      const handle = handles.get(KeyId)
      const spki = served.get(KeyId)
      if (spki === undefined) {
        response.writeHead(400).end(JSON.stringify({ __type: 'NotFoundException', message: 'planted' }))
      } else if (request.headers['x-amz-target'] === 'TrentService.GetPublicKey' || handle === undefined) {
        response.end(JSON.stringify({ KeyId, PublicKey: spki.toString('base64') }))
      } else {
        const signature = sign('sha256', Buffer.from(Message ?? '', 'base64'), handle)
        response.end(JSON.stringify({ KeyId, Signature: signature.toString('base64') }))
      }
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  restore = setEnvironment({
    AWS_ENDPOINT_URL_KMS: `http://127.0.0.1:${address !== null && typeof address === 'object' ? address.port : 0}`,
    AWS_ACCESS_KEY_ID: 'AKIDEXAMPLE',
    AWS_SECRET_ACCESS_KEY: 'planted-aws-secret',
  })
})
afterAll(async () => {
  restore()
  server.closeAllConnections()
  await new Promise((resolve) => server.close(resolve))
})

describe('the public key of a KMS key', () => {
  it('is that key, of both kinds', async () => {
    for (const [id, { publicKey }] of Object.entries(pairs)) {
      const found = await kmsPublicKey(arnOf(id), { clock }, soon())
      expect(thumbprint(found)).toEqual(thumbprint(publicKey))
      expect(found.suite).toBe(publicKey.suite)
    }
  })

  it('is an outage where KMS has none, or one that does not sign here', async () => {
    const whole = served.get(arnOf('p256')) ?? Buffer.alloc(0)
    served.set(arnOf('short'), whole.subarray(0, 60))
    served.set(arnOf('long'), Buffer.concat([whole, Buffer.of(0)]))
    served.set(arnOf('rsa'), Buffer.from('30820122300d06092a864886f70d0101', 'hex'))
    for (const id of ['none', 'short', 'long', 'rsa']) {
      const asking = kmsPublicKey(arnOf(id), { clock }, soon())
      await expect(asking).rejects.toMatchObject({ name: 'Outage', code: 'signer-unavailable' })
      await expect(asking).rejects.not.toThrow('planted')
    }
  })
})

describe('the root of a directory', () => {
  const roots = [pairs.p256.publicKey, pairs.next.publicKey]

  it('signs in KMS as that one of two pinned roots which it is', async () => {
    for (const id of ['p256', 'next'] as const) {
      const signer = await rootSigner({ arn: arnOf(id), kid: undefined }, roots, clock, soon())
      const document = new DirectoryDraft(EMPTY_DIRECTORY).next({ now: 1_795_000_000, life: 60 })
      const bytes = await sealDirectory(document, signer, soon())
      expect(parseDirectory(bytes, [pairs[id].publicKey]).document).toEqual(document)
    }
  })

  it('signs at hand', async () => {
    const { privateKey, publicKey } = pairs.ed
    const signer = await rootSigner({ key: privateKey }, [publicKey], clock, soon())
    expect(verify(publicKey, Buffer.from('x'), await signer.sign(Buffer.from('x'), soon()))).toBe(true)
  })

  it('is refused where it is not pinned, or where KMS could not sign a directory with it', async () => {
    const other = rootSigner({ arn: arnOf('p256'), kid: undefined }, [pairs.next.publicKey], clock, soon())
    await expect(other).rejects.toThrow('none of the pinned roots')
    const local = rootSigner({ key: pairs.ed.privateKey }, roots, clock, soon())
    await expect(local).rejects.toThrow('none of the pinned roots')
    const ed = rootSigner({ arn: arnOf('ed'), kid: undefined }, [pairs.ed.publicKey], clock, soon())
    await expect(ed).rejects.toThrow('ECC_NIST_P256')
  })
})
