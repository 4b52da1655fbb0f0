/** events/world.json as KMS and Secrets Manager answer for it, asked by the adapters that the deployed function has. */
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { kmsKeyService } from '../../lib/adapters/kms.ts'
import { secretsManager } from '../../lib/adapters/secrets-manager.ts'
import { parseVectorFile, type World } from '../../lib/admission/vector-file.ts'
import { loadBundle } from '../../lib/contract/bundle.ts'
import { importPublicKey } from '../../lib/envelope/crypto.ts'
import { ED25519 } from '../../lib/envelope/suite.ts'
import { type ParsedDirectory, parseDirectory } from '../../lib/keys/directory-document.ts'
import { kidOf, readSigningSecret } from '../../lib/keys/signing-secret.ts'
import { type AwsEndpoint, serveAws } from '../../lib/local/aws-endpoint.ts'
import { openLocalKeyService } from '../../lib/local/key-service.ts'
import {
  openVectorServices,
  VECTOR_KEK,
  VECTOR_SECRETS,
  type VectorServices,
} from '../../lib/local/vector-services.ts'
import type { Kek } from '../../lib/ports.ts'
import { setEnvironment } from '../secrets-endpoint.ts'

const EVENTS = join(import.meta.dirname, '../../events')
const clock = { now: () => Date.now() }
const soon = (): number => Date.now() + 10_000
const kms = kmsKeyService({ clock })
const secrets = secretsManager(clock)
let folder: string
let world: World
let services: VectorServices
let endpoint: AwsEndpoint
let restore: () => void
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'sealgate-vector-services-'))
  ;({ world } = parseVectorFile('world.json', await readFile(join(EVENTS, 'world.json'), 'utf8')))
  services = await openVectorServices({
    ...{ world, clock, kafkaLogin: { username: 'gate', password: 'planted-password' } },
    keys: await openLocalKeyService(folder, clock),
  })
  endpoint = await serveAws(services.answers)
  restore = setEnvironment({
    AWS_ENDPOINT_URL: endpoint.url,
    AWS_ACCESS_KEY_ID: 'AKIDEXAMPLE',
    AWS_SECRET_ACCESS_KEY: 'planted-aws-secret',
    AWS_REGION: 'eu-west-1',
  })
})
afterAll(async () => {
  restore()
  await endpoint.end()
  await rm(folder, { recursive: true })
})

async function directory(): Promise<ParsedDirectory> {
  const { value } = await secrets.read(VECTOR_SECRETS.directory, soon())
  return parseDirectory(
    value,
    services.roots.map((jwk) => importPublicKey(ED25519, jwk)),
  )
}

async function kekOf(kekId: string, iss: string): Promise<Kek> {
  const kek = (await directory()).snapshot.kek(kekId, iss)
  if (kek === undefined) throw new Error(`no KEK ${kekId} of ${iss}`)
  return kek
}

describe('Secrets Manager', () => {
  it('has a directory of all the vectors’ keys, signed by the root and good for a day, with the gate’s own', async () => {
    const { document, snapshot } = await directory()
    for (const row of world.snapshot.signingKeys)
      expect(snapshot.signingKey(row.kid)).toMatchObject({ iss: row.iss, state: row.state })
    const { value } = await secrets.read(VECTOR_SECRETS.signingKey, soon())
    const own = document.signingKeys.filter(({ iss }) => iss === world.audience)
    expect(own.map(({ kid }) => kid)).toEqual([kidOf(readSigningSecret(value, 'secret'))])
    expect(document.expiresAt * 1000 - Date.now()).toBeGreaterThan(86_000_000)
  })

  it('has the login of Kafka, and nothing that was not made', async () => {
    const { value } = await secrets.read(VECTOR_SECRETS.kafkaLogin, soon())
    expect(JSON.parse(Buffer.from(value).toString())).toEqual({
      username: 'gate',
      password: 'planted-password',
    })
    await expect(secrets.read(`${VECTOR_SECRETS.kafkaLogin}X`, soon())).rejects.toThrow(/ResourceNotFound/)
  })
})

describe('KMS', () => {
  const row = () => {
    const found = world.table.find(({ dek, kekId }) => dek !== undefined && kekId !== '00ff')
    if (found === undefined) throw new Error('no row')
    const { 'sealgate:iss': iss = '' } = found.context
    return { ...found, iss, name: Buffer.from(found.kekId, 'hex').toString() }
  }

  it('opens what the table opens, under its context alone', async () => {
    const { wrapped, context, dek, iss, name } = row()
    const kek = await kekOf(name, iss)
    const opened = await kms.unwrap(kek, Buffer.from(wrapped, 'hex'), context, soon())
    expect(Buffer.from(opened).toString('hex')).toBe(dek)
    const other = { ...context, 'sealgate:type': 'another' }
    await expect(kms.unwrap(kek, Buffer.from(wrapped, 'hex'), other, soon())).rejects.toMatchObject({
      code: 'undecryptable',
    })
  })

  it('does not answer where the table has an outage', async () => {
    const { context, iss, name } = row()
    const wrapped = Buffer.from(world.table.find(({ dek }) => dek === undefined)?.wrapped ?? '', 'hex')
    expect(wrapped.length).toBeGreaterThan(0)
    await expect(kms.unwrap(await kekOf(name, iss), wrapped, context, soon())).rejects.toMatchObject({
      code: 'key-service-unavailable',
    })
  })

  it('makes data keys under the gate’s own KEK, and none under a producer’s', async () => {
    const context = { 'sealgate:iss': world.audience }
    const own = await kekOf(VECTOR_KEK, world.audience)
    const { dataKey, wrapped } = await kms.generate(own, context, soon())
    expect(await kms.unwrap(own, wrapped, context, soon())).toEqual(dataKey)
    const { iss, name } = row()
    await expect(kms.generate(await kekOf(name, iss), context, soon())).rejects.toMatchObject({
      code: 'key-service-denied',
    })
  })
})

it('gives each contract of the world a consumer, and changes nothing else of it', () => {
  const contracts = loadBundle(services.bundle)
  expect(contracts.all).toHaveLength(world.contracts.all.length)
  for (const { type, channel, publish, maxBytes } of world.contracts.all)
    expect(contracts.find(channel, type)).toMatchObject({
      ...{ publish, maxBytes },
      routes: [{ consumer: 'warehouse', channel: `warehouse.${channel}`, form: 'sealed' }],
    })
  expect(services.outputs).toEqual(['warehouse.orders', 'warehouse.refunds'])
})

describe('an endpoint', () => {
  const ask = (body: string, action: string): Promise<Response> =>
    fetch(endpoint.url, { method: 'POST', body, headers: { 'x-amz-target': `TrentService.${action}` } })

  it('answers what it cannot read with an error, and goes on', async () => {
    for (const [body, action] of [
      ['', 'Decrypt'],
      ['[1', 'Decrypt'],
      ['null', 'GetSecretValue'],
      ['{"KeyId":{"__proto__":null}}', 'Decrypt'],
      ['{}', 'CreateKey'],
    ] as const)
      expect((await ask(body, action)).status).toBe(400)
    expect((await ask(JSON.stringify({ SecretId: VECTOR_SECRETS.directory }), 'GetSecretValue')).status).toBe(
      200,
    )
  })

  it('reads no request longer than 1 MiB', async () => {
    await expect(ask(' '.repeat(1_048_577), 'Decrypt')).rejects.toThrow()
  })

  it('names the address that cannot be listened at', async () => {
    const { hostname: host, port } = new URL(endpoint.url)
    await expect(serveAws(services.answers, { host, port: Number(port) })).rejects.toThrow(
      `${host}:${port}: It cannot be listened at (EADDRINUSE).`,
    )
  })
})
