/** A gateway that seals for the consumer `fulfilment`, with its directory, its KMS and what its records look like. */
import { mkdtemp, rm } from 'node:fs/promises'
import { createServer } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { documentFile } from '../../../lib/adapters/document-file.ts'
import { createSealer } from '../../../lib/client/sealer.ts'
import type { SealerOptions } from '../../../lib/client/sealer-options.ts'
import { generateKeyPair, type PrivateKey, publicKeyOf, thumbprint } from '../../../lib/envelope/crypto.ts'
import { ED25519 } from '../../../lib/envelope/suite.ts'
import type { DirectoryDraft } from '../../../lib/keys/directory-draft.ts'
import { publishChange, publishFirst, type PublisherOptions } from '../../../lib/keys/directory-publisher.ts'
import { localSigner } from '../../../lib/keys/signer.ts'
import { openLocalKeyService } from '../../../lib/local/key-service.ts'
import { localKeyPort } from '../../../lib/local/key-service-port.ts'
import type { KeyService, SourceRecord } from '../../../lib/ports.ts'
import { ORDER_TYPE } from '../../shop.ts'
import { startKmsEndpoint } from '../../../lib/local/kms-endpoint.ts'
import { type Environment, serveKeys } from './world.ts'

export const clock = { now: () => Date.now() }
const soon = (): number => Date.now() + 10_000
export const seconds = (): number => Math.floor(Date.now() / 1000)

/** What is to be done when a test is over, the last first. */
export type Ending = (() => Promise<unknown>)[]

export const KEK = { kekId: 'gateway-2026', provider: 'local' }

/** All of it in a temporary folder. */
export async function openWorld(ending: Ending) {
  const folder = await mkdtemp(join(tmpdir(), 'python-world-'))
  ending.push(() => rm(folder, { recursive: true }))
  const root = generateKeyPair(ED25519)
  const store = documentFile({ path: join(folder, 'directory.jws'), outage: 'directory-unavailable', clock })
  const publisher: PublisherOptions = {
    ...{ store, roots: [root.publicKey], root: localSigner(root.privateKey), clock },
    leaving: new Set(['gateway-eu', 'other']),
  }
  await publishFirst(publisher, soon())
  const keys = await openLocalKeyService(folder, clock)
  const { arn } = await keys.createKey()
  const kms = await startKmsEndpoint(keys, 'fulfilment')
  ending.push(() => kms.end())
  const change = (work: (draft: DirectoryDraft) => void) => publishChange(publisher, work, soon())
  const enrol = async (iss: string, suite = ED25519, published = true): Promise<PrivateKey> => {
    const { publicKey: key, privateKey } = generateKeyPair(suite)
    const times = { notBefore: seconds() - 1000, notAfter: seconds() + 1000 }
    if (published) await change((draft) => draft.enrol({ iss, key, state: 'active', ...times }))
    return privateKey
  }
  const sealed = async (privateKey: PrivateKey, count: number, options: Partial<SealerOptions> = {}) => {
    const keyService = localKeyPort(keys, options.clock ?? clock)
    const sealer = createSealer({
      ...{ iss: 'gateway-eu', audience: 'fulfilment', signer: localSigner(privateKey), partitions: 3 },
      ...{ kek: { ...KEK, key: arn }, keyService, ...options },
    })
    const { messages } = await sealer.seal(
      'orders.fulfilment',
      Array.from({ length: count }, (_, index) => ({
        ...{
          source: '/shop',
          type: ORDER_TYPE,
          key: 'A',
          data: { index, name: 'Zoë' },
          subject: 'ü',
          extensions: { iss: 'x' },
        },
      })),
    )
    await sealer.close()
    return messages.map(({ headers, ...message }) => ({
      ...message,
      headers: Object.entries(headers).map(([name, text]) => ({ name, value: Buffer.from(text) })),
    }))
  }
  const serve = async () => {
    const endpoint = await serveKeys({ source: store, roots: publisher.roots })
    ending.push(() => endpoint.end())
    return endpoint
  }
  const env = (keysUrl: string, kmsUrl = kms.url): Environment => ({
    ...{ TOPIC: 'orders.fulfilment', ISSUER: 'gateway-eu', AUDIENCE: 'fulfilment', KEYS_URL: keysUrl },
    ...{ KEK_NAME: KEK.kekId, KEK_ARN: arn, KMS_ENDPOINT: kmsUrl },
  })
  return { keys, arn, store, publisher, kms, change, enrol, sealed, serve, env }
}

export type Sealed = Pick<SourceRecord, 'partition' | 'key' | 'value' | 'headers'>

export const kidOf = (key: PrivateKey): string => thumbprint(publicKeyOf(key)).toString('base64url')

/** As Kafka gives records: at the broker's time, one offset after the other. */
export const recordsOf = (messages: readonly Sealed[], change: Partial<SourceRecord> = {}): SourceRecord[] =>
  messages.map((message, index) => ({
    topic: 'orders.fulfilment',
    offset: BigInt(index),
    timestamp: Date.now(),
    timestampType: 'LogAppendTime',
    ...message,
    ...change,
  }))

/** A server that gives everybody the same answer. */
export async function serveAnswer(
  ending: Ending,
  status: number,
  body: string,
  headers = {},
): Promise<string> {
  const server = createServer((_, response) => response.writeHead(status, headers).end(body))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  ending.push(async () => {
    server.closeAllConnections()
    await new Promise((resolve) => server.close(resolve))
  })
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('no port')
  return `http://127.0.0.1:${address.port}`
}

/** Wraps nothing: what it hands out no KMS unwraps. */
export const lying: KeyService = {
  generate: () => Promise.resolve({ dataKey: Buffer.alloc(32, 7), wrapped: Buffer.alloc(184, 9) }),
  unwrap: () => Promise.reject(new Error('never asked')),
}
