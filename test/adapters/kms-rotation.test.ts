/**
 * Rotation of KMS keys through the real SDK, against an endpoint on 127.0.0.1 that answers as AWS documents it, with the
 * embedded key service's keys behind it. The same suite on emulators, which keep little of it: test/real/emulators.test.ts.
 */
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll } from 'vitest'
import { kmsKeyMaterial } from '../../lib/adapters/kms-rotation.ts'
import { KeyServiceError, type LocalKeyService, openLocalKeyService } from '../../lib/local/key-service.ts'
import { keyMaterialContract } from '../contract-suites/key-material.ts'
import { setEnvironment } from '../secrets-endpoint.ts'

const clock = { now: () => Date.now() }
const DAY_SECONDS = 86_400
/** As small as AWS allows it to be asked for, so that pages are turned. */
const PAGE = 10

/** What KMS knows of the rotation of keys. */
class Rotations {
  readonly #keys: LocalKeyService
  readonly #schedules = new Map<string, { readonly days: number; readonly since: number }>()
  readonly #past = new Map<string, object[]>()

  constructor(keys: LocalKeyService) {
    this.#keys = keys
  }

  async answer(action: string, body: Readonly<Record<string, unknown>>): Promise<object> {
    const { keyId: key, spec, state } = this.#keys.describeKey(String(body['KeyId']))
    if (spec !== 'SYMMETRIC_DEFAULT') throw new KeyServiceError('UnsupportedOperationException', 'asymmetric')
    const past = this.#past.get(key) ?? []
    switch (action) {
      case 'GetKeyRotationStatus': {
        const schedule = this.#schedules.get(key)
        if (schedule === undefined) return { KeyId: key, KeyRotationEnabled: false }
        const { days, since } = schedule
        const NextRotationDate = since + days * DAY_SECONDS
        return { KeyId: key, KeyRotationEnabled: true, RotationPeriodInDays: days, NextRotationDate }
      }
      case 'ListKeyRotations': {
        const from = Number(body['Marker'] ?? 0)
        const Truncated = from + PAGE < past.length
        const Rotations = past.slice(from, from + PAGE)
        return { Rotations, Truncated, ...(Truncated && { NextMarker: String(from + PAGE) }) }
      }
      case 'EnableKeyRotation': {
        const { RotationPeriodInDays: days = 365 } = body
        if (typeof days !== 'number' || days < 90 || days > 2560)
          throw new KeyServiceError('ValidationException', 'a period has 90 to 2,560 days')
        if (state !== 'Enabled') throw new KeyServiceError('DisabledException', 'not enabled')
        this.#schedules.set(key, { days, since: Date.now() / 1000 })
        return {}
      }
      case 'RotateKeyOnDemand': {
        await this.#keys.rotateKeyOnDemand(key)
        this.#past.set(key, [...past, { RotationDate: Date.now() / 1000, RotationType: 'ON_DEMAND' }])
        return { KeyId: key }
      }
      default:
        throw new KeyServiceError('UnsupportedOperationException', action)
    }
  }
}

const ends: (() => Promise<void>)[] = []
afterAll(async () => {
  for (const end of ends) await end()
})

keyMaterialContract('The KMS adapter', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'sealgate-'))
  const keys = await openLocalKeyService(folder, clock)
  const rotations = new Rotations(keys)
  const server = createServer((request, response) => {
    const parts: Buffer[] = []
    request.on('data', (part: Buffer) => parts.push(part))
    request.on('end', () => {
      const action = String(request.headers['x-amz-target']).replace('TrentService.', '')
      const send = (status: number, content: object): void => {
        response
          .writeHead(status, { 'content-type': 'application/x-amz-json-1.1' })
          .end(JSON.stringify(content))
      }
      rotations.answer(action, JSON.parse(Buffer.concat(parts).toString())).then(
        (content) => send(200, content),
        (error: unknown) =>
          send(400, { __type: error instanceof Error ? error.name : 'InternalFailure', message: 'refused' }),
      )
    })
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const address = server.address()
  const port = address !== null && typeof address === 'object' ? address.port : 0
  const restore = setEnvironment({
    AWS_ENDPOINT_URL_KMS: `http://127.0.0.1:${port}`,
    AWS_ACCESS_KEY_ID: 'AKIDEXAMPLE',
    AWS_SECRET_ACCESS_KEY: 'planted-aws-secret',
  })
  ends.push(async () => {
    restore()
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
    await rm(folder, { recursive: true, force: true })
  })
  return {
    material: kmsKeyMaterial(clock),
    makeKey: async () => (await keys.createKey()).arn,
    makeSigningKey: async () => (await keys.createKey({ spec: 'ECC_NIST_P256' })).arn,
    disable: (key) => keys.disableKey(key),
  }
})
