import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { secretsManager } from '../../lib/adapters/secrets-manager.ts'
import { Outage } from '../../lib/errors.ts'
import { type SecretsEndpoint, startSecretsEndpoint } from '../secrets-endpoint.ts'

const ARN = 'arn:aws:secretsmanager:eu-central-1:111122223333:secret:AmazonMSK_gate-AbCdEf'
const clock = { now: () => Date.now() }
let endpoint: SecretsEndpoint
beforeAll(async () => {
  endpoint = await startSecretsEndpoint()
})
afterAll(() => endpoint.end())

const outageOf = async (deadline = Date.now() + 5000): Promise<Outage> => {
  const error = await secretsManager(clock)
    .read(ARN, deadline)
    .catch((reason: unknown) => reason)
  if (error instanceof Outage) return error
  throw new Error('no outage', { cause: error })
}

describe('Secrets Manager', () => {
  it('gives the current value and its version', async () => {
    endpoint.set(ARN, { value: '{"username":"gate"}' })
    const first = await secretsManager(clock).read(ARN, Date.now() + 5000)
    expect(Buffer.from(first.value).toString()).toBe('{"username":"gate"}')
    endpoint.set(ARN, { value: '{}' })
    const second = await secretsManager(clock).read(ARN, Date.now() + 5000)
    expect(second.version).not.toBe(first.version)
  })

  it.each([
    ['ResourceNotFoundException', /there is no such secret/],
    ['AccessDeniedException', /Allow secretsmanager:GetSecretValue/],
    ['InternalServiceError', /is tried again/],
  ])(
    'is an outage that says what to do after %s, once and without the service’s words',
    async (error, advice) => {
      endpoint.set(ARN, { error })
      const before = endpoint.read.length
      const outage = await outageOf()
      expect(outage.code).toBe('secret-unavailable')
      expect(outage.message).toMatch(advice)
      expect(outage.message).not.toContain('planted')
      expect(endpoint.read.length - before).toBe(1)
    },
  )

  it('keeps its deadline', async () => {
    endpoint.set(ARN, { value: '{}' })
    expect((await outageOf(Date.now() - 1)).code).toBe('secret-unavailable')
  })
})
