import { randomUUID } from 'node:crypto'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { openDocumentStore } from '../../lib/adapters/document-place.ts'
import type { DocumentStore } from '../../lib/ports.ts'
import { documentStoreContract } from '../contract-suites/document-store.ts'
import { type Endpoint, startS3 } from './document-endpoints.ts'

const clock = { now: () => Date.now() }
const soon = (ms = 10_000): number => Date.now() + ms
const storeAt = (key: string, maxBytes = 1000): DocumentStore =>
  openDocumentStore({ kind: 's3', bucket: 'keys', key }, { outage: 'directory-unavailable', clock, maxBytes })

documentStoreContract('an object in S3', async () => {
  const endpoint = await startS3()
  return {
    newPlace: () => {
      const key = `directory-${randomUUID()}/a b.jws`
      return Promise.resolve(() => storeAt(key))
    },
    end: () => endpoint.end(),
  }
})

describe('an object in S3', () => {
  let endpoint: Endpoint
  beforeAll(async () => {
    endpoint = await startS3()
  })
  afterAll(() => endpoint.end())

  it.each([
    [403, 'AccessDenied', 'Allow s3:GetObject on it, s3:ListBucket on the bucket'],
    [404, 'NoSuchBucket', 'there is no such bucket'],
    [301, 'PermanentRedirect', 'Set AWS_REGION'],
    [503, 'SlowDown', 'it is tried again'],
  ])(
    'is an outage that says what to do after %i %s, without the service’s words',
    async (status, name, advice) => {
      endpoint.failNext({ status, name })
      const reading = storeAt('d').read(undefined, soon())
      await expect(reading).rejects.toMatchObject({ name: 'Outage', code: 'directory-unavailable' })
      endpoint.failNext({ status, name })
      const error: unknown = await storeAt('d')
        .find(soon())
        .catch((reason: unknown) => reason)
      expect(String(error)).toContain(advice)
      expect(String(error)).not.toContain('planted')
    },
  )

  it('takes a write that met another for one that was too late', async () => {
    endpoint.failNext({ status: 409, name: 'ConditionalRequestConflict' })
    expect(await storeAt('conflict').write(Buffer.from('one'), undefined, soon())).toBe('changed')
  })

  it('is an outage after a write whose outcome nobody knows', async () => {
    endpoint.failNext({ status: 500, name: 'InternalError' })
    await expect(storeAt('unknown').write(Buffer.from('one'), undefined, soon())).rejects.toMatchObject({
      name: 'Outage',
    })
  })

  it('is not read past its bound', async () => {
    await storeAt('large').write(Buffer.alloc(1001, 'x'), undefined, soon())
    await expect(storeAt('large').find(soon())).rejects.toThrow('larger than 1000 bytes')
  })

  it('does not wait for an answer longer than its deadline', async () => {
    endpoint.failNext(undefined)
    const begun = Date.now()
    await expect(storeAt('d').find(soon(200))).rejects.toThrow('did not answer in time')
    expect(Date.now() - begun).toBeLessThan(5000)
  })
})
