/** MSK's IAM token, as far as it goes without AWS: what is signed, and by whose credentials. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, afterEach, describe, expect, it } from 'vitest'
import { iamToken } from '../../lib/adapters/bearer-token.ts'
import { setEnvironment } from '../secrets-endpoint.ts'

const NOBODY = {
  AWS_ACCESS_KEY_ID: undefined,
  AWS_SECRET_ACCESS_KEY: undefined,
  AWS_SESSION_TOKEN: undefined,
  AWS_CREDENTIAL_EXPIRATION: undefined,
  AWS_PROFILE: undefined,
  AWS_CONTAINER_CREDENTIALS_RELATIVE_URI: undefined,
  AWS_CONTAINER_CREDENTIALS_FULL_URI: undefined,
  AWS_WEB_IDENTITY_TOKEN_FILE: undefined,
  AWS_EC2_METADATA_DISABLED: 'true',
}
const folder = mkdtempSync(join(tmpdir(), 'iam-'))
let restore = (): void => undefined
afterEach(() => restore())
afterAll(() => rmSync(folder, { recursive: true, force: true }))

const signed = async (region: string): Promise<URL> => {
  const token = await iamToken(region, { now: () => Date.now() }).current(Date.now() + 10_000)
  return new URL(Buffer.from(token, 'base64url').toString())
}

describe('the token for MSK', () => {
  it('is a presigned kafka-cluster:Connect in the cluster’s region, good for 15 minutes', async () => {
    const keys = { AWS_ACCESS_KEY_ID: 'AKIDENVIRONMENT', AWS_SECRET_ACCESS_KEY: 'planted-secret' }
    restore = setEnvironment({ ...NOBODY, ...keys, AWS_SESSION_TOKEN: 'session' })
    const url = await signed('eu-central-1')
    expect([url.protocol, url.host, url.pathname]).toEqual([
      'https:',
      'kafka.eu-central-1.amazonaws.com',
      '/',
    ])
    const query = Object.fromEntries(url.searchParams)
    expect(query).toMatchObject({
      Action: 'kafka-cluster:Connect',
      'X-Amz-Algorithm': 'AWS4-HMAC-SHA256',
      'X-Amz-Expires': '900',
      'X-Amz-SignedHeaders': 'host',
      'X-Amz-Security-Token': 'session',
    })
    const day = new Date().toISOString().slice(0, 10).replaceAll('-', '')
    expect(query['X-Amz-Credential']).toBe(`AKIDENVIRONMENT/${day}/eu-central-1/kafka-cluster/aws4_request`)
    expect(query['X-Amz-Signature']).toMatch(/^[0-9a-f]{64}$/)
    expect(url.href).not.toContain('planted-secret')
  })

  it('is got anew before the credentials that signed it expire, and AWS can read how long it is good', async () => {
    const keys = { AWS_ACCESS_KEY_ID: 'AKIDENVIRONMENT', AWS_SECRET_ACCESS_KEY: 'planted-secret' }
    const AWS_CREDENTIAL_EXPIRATION = new Date(Date.now() + 400_500).toISOString()
    restore = setEnvironment({ ...NOBODY, ...keys, AWS_CREDENTIAL_EXPIRATION })
    expect((await signed('eu-west-1')).searchParams.get('X-Amz-Expires')).toMatch(/^[0-9]+$/)
    let later = 0
    const kept = iamToken('eu-west-1', { now: () => Date.now() + later })
    const first = await kept.current(Date.now() + 10_000)
    later = 310_000
    expect(await kept.current(Date.now() + later + 10_000)).toBe(first)
    later = 325_000
    restore()
    restore = setEnvironment({ ...NOBODY, ...keys, AWS_ACCESS_KEY_ID: 'AKIDNEXT' })
    expect(await kept.current(Date.now() + later + 10_000)).not.toBe(first)
  })

  it('is signed by whomever the SDK’s usual chain finds', async () => {
    const path = join(folder, 'credentials')
    writeFileSync(path, '[gate]\naws_access_key_id=AKIDPROFILE\naws_secret_access_key=x\n')
    restore = setEnvironment({ ...NOBODY, AWS_PROFILE: 'gate', AWS_SHARED_CREDENTIALS_FILE: path })
    expect((await signed('us-east-1')).searchParams.get('X-Amz-Credential')).toMatch(/^AKIDPROFILE\//)
  })

  it('is an outage that says what to do where nobody is found', async () => {
    restore = setEnvironment({
      ...NOBODY,
      AWS_SHARED_CREDENTIALS_FILE: join(folder, 'none'),
      AWS_CONFIG_FILE: join(folder, 'none'),
    })
    await expect(signed('eu-west-1')).rejects.toMatchObject({
      code: 'sink-unavailable',
      message: expect.stringMatching(/no AWS credentials .*Give the function a role/),
    })
  })
})
