import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { stagedSecretsManager } from '../../lib/adapters/secrets-manager.ts'
import { localStagedSecrets, openLocalSecrets } from '../../lib/local/secrets.ts'
import { stagedSecretsContract } from '../contract-suites/staged-secrets.ts'
import { startStagedSecrets } from '../staged-secrets-endpoint.ts'

const clock = { now: () => Date.now() }
let made = 0
const ARN = 'arn:aws:secretsmanager:eu-west-1:111122223333:secret:gate-'

stagedSecretsContract('the embedded store', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'secrets-'))
  const store = await openLocalSecrets(folder, clock)
  return {
    secrets: localStagedSecrets(store, clock),
    newSecret: async (value) => {
      const name = `secret-${made++}`
      await store.put(name, Buffer.from(value))
      return name
    },
    missing: 'missing',
    end: () => rm(folder, { recursive: true }),
  }
})

stagedSecretsContract('AWS Secrets Manager', async () => {
  const endpoint = await startStagedSecrets()
  return {
    secrets: stagedSecretsManager(clock),
    newSecret: (value) => {
      const arn = `${ARN}${made++}`
      endpoint.put(arn, value)
      return Promise.resolve(arn)
    },
    missing: `${ARN}missing`,
    end: () => endpoint.end(),
  }
})

it('takes up a pending version again whose stage somebody took away, instead of being stuck', async () => {
  const endpoint = await startStagedSecrets()
  try {
    const secrets = stagedSecretsManager(clock)
    const arn = `${ARN}cancelled`
    const soon = Date.now() + 10_000
    endpoint.put(arn, 'one')
    await secrets.stage(arn, Buffer.from('two'), 'AWSPENDING', 'a'.repeat(64), soon)
    endpoint.unlabel(arn, 'AWSPENDING')
    expect(await secrets.stage(arn, Buffer.from('three'), 'AWSPENDING', 'a'.repeat(64), soon)).toBe('taken')
    const found = await secrets.find(arn, 'AWSPENDING', soon)
    expect(Buffer.from(found!.value).toString()).toBe('two')
  } finally {
    await endpoint.end()
  }
})
