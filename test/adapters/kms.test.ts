/** The KMS adapter through the real SDK, against a KMS endpoint on 127.0.0.1 with the embedded key service behind it. */
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer, type Server } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, beforeAll, describe, expect, test } from 'vitest'
import { kmsKeyService, type KmsOptions, kmsSigner, rawEcdsa } from '../../lib/adapters/kms.ts'
import { importPublicKey, verify } from '../../lib/envelope/crypto.ts'
import { ED25519, ESP256 } from '../../lib/envelope/suite.ts'
import type { Kek } from '../../lib/ports.ts'
import { KeyServiceError, type LocalKeyService, openLocalKeyService } from '../../lib/local/key-service.ts'
import { keyServiceContract } from '../contract-suites/key-service.ts'

const clock = { now: () => Date.now() }
const soon = (): number => Date.now() + 5000

/** r‖s as KMS gives it: a DER sequence of two integers. */
function derEcdsa(raw: Uint8Array): Buffer {
  const integer = (part: Uint8Array): Buffer => {
    const start = Math.min(part.findIndex((byte) => byte !== 0) >>> 0, part.length - 1)
    const digits = Buffer.from(part.subarray(start))
    const positive = (digits[0] ?? 0) >= 0x80 ? Buffer.concat([Buffer.alloc(1), digits]) : digits
    return Buffer.concat([Buffer.from([2, positive.length]), positive])
  }
  const body = Buffer.concat([integer(raw.subarray(0, 32)), integer(raw.subarray(32))])
  return Buffer.concat([Buffer.from([0x30, body.length]), body])
}

interface Endpoint {
  readonly keys: LocalKeyService
  readonly options: KmsOptions
  /** Answers instead of the key service, once set. */
  instead: ((action: string) => { status: number; body: unknown } | 'hang' | undefined) | undefined
  readonly asked: { action: string; body: Record<string, unknown> }[]
  end(): Promise<void>
}

async function startEndpoint(): Promise<Endpoint> {
  const folder = await mkdtemp(join(tmpdir(), 'sealgate-'))
  const keys = await openLocalKeyService(folder, clock)
  const bytes = (value: unknown): Buffer => Buffer.from(String(value), 'base64')
  const answer = (action: string, body: Record<string, unknown>): unknown => {
    const keyId = String(body['KeyId'])
    const context = Object.fromEntries(
      Object.entries(body['EncryptionContext'] ?? {}).map(([name, value]) => [name, String(value)]),
    )
    const echo = { KeyId: keys.describeKey(keyId).arn }
    switch (action) {
      case 'GenerateDataKey': {
        const { plaintext, ciphertext } = keys.generateDataKey(keyId, context)
        return {
          ...echo,
          Plaintext: Buffer.from(plaintext).toString('base64'),
          CiphertextBlob: Buffer.from(ciphertext).toString('base64'),
        }
      }
      case 'Decrypt':
        return {
          ...echo,
          Plaintext: Buffer.from(keys.decrypt(keyId, bytes(body['CiphertextBlob']), context)).toString(
            'base64',
          ),
        }
      case 'Sign': {
        const raw = keys.sign(keyId, bytes(body['Message']))
        return {
          ...echo,
          Signature: (body['SigningAlgorithm'] === 'ECDSA_SHA_256'
            ? derEcdsa(raw)
            : Buffer.from(raw)
          ).toString('base64'),
        }
      }
      default:
        throw new KeyServiceError('UnsupportedOperationException', action)
    }
  }
  const server: Server = createServer((request, response) => {
    const parts: Buffer[] = []
    request.on('data', (part: Buffer) => parts.push(part))
    request.on('end', () => {
      const action = String(request.headers['x-amz-target']).replace('TrentService.', '')
      const body: Record<string, unknown> = JSON.parse(Buffer.concat(parts).toString())
      endpoint.asked.push({ action, body })
      const instead = endpoint.instead?.(action)
      if (instead === 'hang') return
      const send = (status: number, content: unknown): void => {
        response
          .writeHead(status, { 'content-type': 'application/x-amz-json-1.1' })
          .end(JSON.stringify(content))
      }
      if (instead !== undefined) {
        send(instead.status, instead.body)
        return
      }
      try {
        send(200, answer(action, body))
      } catch (error) {
        send(400, { __type: error instanceof Error ? error.name : 'InternalFailure', message: 'refused' })
      }
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  const port = address !== null && typeof address === 'object' ? address.port : 0
  const endpoint: Endpoint = {
    keys,
    options: {
      clock,
      endpoint: `http://127.0.0.1:${port}`,
      region: 'eu-central-1',
      credentials: { accessKeyId: 'test', secretAccessKey: 'test' },
    },
    instead: undefined,
    asked: [],
    async end() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
      await rm(folder, { recursive: true, force: true })
    },
  }
  return endpoint
}

keyServiceContract('The KMS adapter', async () => {
  const { keys, options, end } = await startEndpoint()
  return {
    service: kmsKeyService(options),
    makeKek: async () => ({ kekId: 'k', provider: 'aws-kms', key: (await keys.createKey()).arn }),
    makeSigningKek: async () => {
      const { arn: key } = await keys.createKey({ spec: 'ECC_NIST_P256' })
      return { kekId: 'k', provider: 'aws-kms', key }
    },
    encrypt: (kek, plaintext, context) => Promise.resolve(keys.encrypt(kek.key, plaintext, context)),
    disable: (kek) => keys.disableKey(kek.key),
    enable: (kek) => keys.enableKey(kek.key),
    scheduleDeletion: (kek) => keys.scheduleKeyDeletion(kek.key),
    rotate: (kek) => keys.rotateKeyOnDemand(kek.key),
    end,
  }
})

describe('the KMS adapter', () => {
  let kms: Endpoint
  let kek: Kek
  beforeAll(async () => {
    kms = await startEndpoint()
    kek = { kekId: 'orders', provider: 'aws-kms', key: (await kms.keys.createKey()).arn }
  })
  afterEach(() => {
    kms.instead = undefined
    kms.asked.length = 0
  })
  afterAll(() => kms.end())

  test('always names the key, for a 256-bit data key and for unwrapping', async () => {
    const service = kmsKeyService(kms.options)
    const { wrapped } = await service.generate(kek, { a: 'b' }, soon())
    await service.unwrap(kek, wrapped, { a: 'b' }, soon())
    expect(kms.asked.map(({ body }) => [body['KeyId'], body['EncryptionContext']])).toEqual([
      [kek.key, { a: 'b' }],
      [kek.key, { a: 'b' }],
    ])
    expect(kms.asked[0]?.body).toMatchObject({ KeySpec: 'AES_256' })
  })

  test.each([
    ['ThrottlingException', 400, 'key-service-unavailable'],
    ['LimitExceededException', 400, 'key-service-unavailable'],
    ['KMSInternalException', 500, 'key-service-unavailable'],
    ['DependencyTimeoutException', 503, 'key-service-unavailable'],
    ['KeyUnavailableException', 500, 'key-service-unavailable'],
    ['SomethingNew', 400, 'key-service-unavailable'],
    ['AccessDeniedException', 400, 'key-service-denied'],
    ['DisabledException', 400, 'key-service-denied'],
    ['NotFoundException', 400, 'key-service-denied'],
    ['KMSInvalidStateException', 400, 'key-service-denied'],
    ['ValidationException', 400, 'key-service-denied'],
  ])('%s is an outage for both calls, asked for once', async (name, status, code) => {
    kms.instead = () => ({ status, body: { __type: name, message: 'refused' } })
    const service = kmsKeyService(kms.options)
    const outage = { name: 'Outage', code }
    await expect(service.generate(kek, {}, soon())).rejects.toMatchObject(outage)
    await expect(service.unwrap(kek, Buffer.alloc(184), {}, soon())).rejects.toMatchObject(outage)
    expect(kms.asked).toHaveLength(2)
  })

  test.each(['InvalidCiphertextException', 'IncorrectKeyException'])(
    '%s is the only kind of definite no',
    async (name) => {
      kms.instead = () => ({ status: 400, body: { __type: name, message: 'refused' } })
      const service = kmsKeyService(kms.options)
      await expect(service.unwrap(kek, Buffer.alloc(184), {}, soon())).rejects.toMatchObject({
        code: 'undecryptable',
      })
      await expect(service.generate(kek, {}, soon())).rejects.toMatchObject({ name: 'Outage' })
    },
  )

  test.each([
    [
      'by another key',
      {
        KeyId: 'arn:aws:kms:eu-central-1:1:key/other',
        Plaintext: Buffer.alloc(32).toString('base64'),
        CiphertextBlob: 'AAAA',
      },
    ],
    ['without a key', { Plaintext: Buffer.alloc(32).toString('base64'), CiphertextBlob: 'AAAA' }],
    ['empty', {}],
  ])('an answer %s is not believed', async (_, body) => {
    kms.instead = () => ({ status: 200, body })
    const service = kmsKeyService(kms.options)
    await expect(service.generate(kek, {}, soon())).rejects.toMatchObject({ name: 'Outage' })
    await expect(service.unwrap(kek, Buffer.alloc(184), {}, soon())).rejects.toMatchObject({ name: 'Outage' })
  })

  test('a generated key of another length is not believed', async () => {
    kms.instead = () => ({
      status: 200,
      body: { KeyId: kek.key, Plaintext: Buffer.alloc(16).toString('base64'), CiphertextBlob: 'AAAA' },
    })
    await expect(kmsKeyService(kms.options).generate(kek, {}, soon())).rejects.toMatchObject({
      code: 'unexpected',
    })
  })

  test('a hung endpoint is given up at the deadline', async () => {
    kms.instead = () => 'hang'
    const asked = kmsKeyService(kms.options).unwrap(kek, Buffer.alloc(184), {}, Date.now() + 100)
    await expect(asked).rejects.toMatchObject({ code: 'key-service-unavailable' })
  })

  test('an endpoint that is not there is an outage', async () => {
    const service = kmsKeyService({ ...kms.options, endpoint: 'http://127.0.0.1:1' })
    await expect(service.generate(kek, {}, soon())).rejects.toMatchObject({ code: 'key-service-unavailable' })
  })

  test.each([
    ['ECC_NIST_EDWARDS25519', ED25519],
    ['ECC_NIST_P256', ESP256],
  ] as const)('signs 64 bytes that verify (%s)', async (spec, suite) => {
    const { arn } = await kms.keys.createKey({ spec })
    const key = importPublicKey(suite, kms.keys.getPublicKey(arn))
    const signer = kmsSigner({ keyId: arn, kid: Buffer.from('kid'), alg: suite.cose }, kms.options)
    for (let message = 0; message < 20; message++) {
      const bytes = Buffer.from(`message ${message}`)
      expect(verify(key, bytes, await signer.sign(bytes, soon()))).toBe(true)
    }
    expect(kms.asked[0]?.body).toMatchObject({ MessageType: 'RAW' })
  })

  test('a message over 4,096 bytes is signed by its digest, or with Ed25519 not at all', async () => {
    const sign = (spec: 'ECC_NIST_EDWARDS25519' | 'ECC_NIST_P256', alg: number) => async () => {
      const { arn } = await kms.keys.createKey({ spec })
      return kmsSigner({ keyId: arn, kid: Buffer.from('kid'), alg }, kms.options).sign(
        Buffer.alloc(4097),
        soon(),
      )
    }
    await sign('ECC_NIST_P256', -9)()
    expect(kms.asked[0]?.body).toMatchObject({ MessageType: 'DIGEST', SigningAlgorithm: 'ECDSA_SHA_256' })
    expect(Buffer.from(String(kms.asked[0]?.body['Message']), 'base64')).toHaveLength(32)
    await expect(sign('ECC_NIST_EDWARDS25519', -19)()).rejects.toThrow('send a batch')
    expect(kms.asked).toHaveLength(1)
  })

  test('a signature of another form is an outage', async () => {
    const { arn } = await kms.keys.createKey({ spec: 'ECC_NIST_P256' })
    const signer = kmsSigner({ keyId: arn, kid: Buffer.from('kid'), alg: -9 }, kms.options)
    for (const signature of [undefined, '', 'MAA=', Buffer.alloc(64).toString('base64')]) {
      kms.instead = () => ({ status: 200, body: { Signature: signature } })
      await expect(signer.sign(Buffer.alloc(1), soon())).rejects.toMatchObject({ code: 'signer-unavailable' })
    }
  })
})

describe('r‖s from DER', () => {
  test('short and long integers come out at 32 bytes each', () => {
    const raw = new Uint8Array(64)
    raw[31] = 1
    raw.fill(0xff, 32)
    expect(rawEcdsa(derEcdsa(raw))).toEqual(raw)
  })

  test.each([
    '',
    '30',
    '3000',
    '3006020101020101ff',
    '300602010102010',
    '3006030101020101',
    '30060202010102',
    '3003020101',
  ])('anything else is refused: %s', (hex) => {
    expect(rawEcdsa(Buffer.from(hex, 'hex'))).toBeUndefined()
  })
})
