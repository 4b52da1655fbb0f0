import { randomUUID } from 'node:crypto'
import { SecretsManagerClient, UpdateSecretVersionStageCommand } from '@aws-sdk/client-secrets-manager'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { openDocumentStore } from '../../lib/adapters/document-place.ts'
import type { DocumentStore } from '../../lib/ports.ts'
import { documentStoreContract } from '../contract-suites/document-store.ts'
import { type Endpoint, startSecrets } from './document-endpoints.ts'

const clock = { now: () => Date.now() }
const soon = (ms = 10_000): number => Date.now() + ms
const newArn = (): string => `arn:aws:secretsmanager:eu-central-1:111122223333:secret:${randomUUID()}`
const storeAt = (arn: string): DocumentStore =>
  openDocumentStore({ kind: 'secret', arn }, { outage: 'directory-unavailable', clock })

documentStoreContract('a secret', async () => {
  const endpoint = await startSecrets()
  return {
    newPlace: () => {
      const arn = newArn()
      return Promise.resolve(() => storeAt(arn))
    },
    end: () => endpoint.end(),
  }
})

describe('a secret', () => {
  let endpoint: Endpoint
  beforeAll(async () => {
    endpoint = await startSecrets()
  })
  afterAll(() => endpoint.end())

  it.each([
    ['AccessDeniedException', 'Allow secretsmanager:GetSecretValue'],
    ['ResourceNotFoundException', 'there is no such secret'],
    ['InternalServiceError', 'it is tried again'],
  ])('is an outage that says what to do after %s, without the service’s words', async (name, advice) => {
    endpoint.failNext({ status: 400, name })
    const error: unknown = await storeAt(newArn())
      .read(undefined, soon())
      .catch((reason: unknown) => reason)
    expect(error).toMatchObject({ name: 'Outage', code: 'directory-unavailable' })
    expect(String(error)).toContain(advice)
    expect(String(error)).not.toContain('planted')
  })

  it('takes no more than the service does, and says where more can lie', async () => {
    const writing = storeAt(newArn()).write(Buffer.alloc(65_537, 'x'), undefined, soon())
    await expect(writing).rejects.toMatchObject({ name: 'ConfigError' })
    await expect(writing).rejects.toThrow('in S3')
  })

  it('whose label was moved back is an outage that says so, since its successor is there', async () => {
    const arn = newArn()
    await storeAt(arn).write(Buffer.from('one'), undefined, soon())
    const first = (await storeAt(arn).find(soon()))?.etag
    await storeAt(arn).write(Buffer.from('two'), first, soon())
    await new SecretsManagerClient({ region: 'eu-central-1' }).send(
      new UpdateSecretVersionStageCommand({
        ...{ SecretId: arn, VersionStage: 'AWSCURRENT' },
        MoveToVersionId: first,
      }),
    )
    const writing = storeAt(arn).write(Buffer.from('three'), first, soon())
    await expect(writing).rejects.toThrow('AWSCURRENT has been moved back')
  })

  it('does not wait for an answer longer than its deadline', async () => {
    endpoint.failNext(undefined)
    const begun = Date.now()
    await expect(storeAt(newArn()).find(soon(200))).rejects.toThrow('did not answer in time')
    expect(Date.now() - begun).toBeLessThan(5000)
  })
})
