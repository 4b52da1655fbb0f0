import { generateKeyPairSync } from 'node:crypto'
import { chmod, mkdtemp, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { isAuthorityKey, openIssuer } from '../../lib/adapters/certificate-issuer.ts'
import { exportPrivateJwk, generateKeyPair, importPkcs8, readCertificate } from '../../lib/envelope/crypto.ts'
import { ESP256 } from '../../lib/envelope/suite.ts'
import { ConfigError } from '../../lib/errors.ts'
import type { CertificateIssuer } from '../../lib/keys/client-certificate.ts'
import type { ClientCertificateRotation } from '../../lib/keys/rotation.ts'
import { selfSigned } from '../self-signed.ts'

const ARN = 'arn:aws:secretsmanager:eu-west-1:111122223333:secret:ca-key-AbCdEf'
const ca = selfSigned()
let folder = ''
let secret = ''
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'issuer-'))
  await writeFile(join(folder, 'ca.pem'), ca.cert)
  await writeFile(join(folder, 'ca.key'), ca.key, { mode: 0o600 })
})
afterEach(() => rm(folder, { recursive: true }))

function issuerBy(changes: Partial<ClientCertificateRotation> = {}): CertificateIssuer {
  const rotation: ClientCertificateRotation = {
    ...{ kind: 'client-certificate', name: 'gate', secret: 's', subject: 'CN=gate', brokers: undefined },
    ...{ authority: 'ca.pem', authorityKey: 'file:ca.key', duration: 100, renewBefore: 10, ...changes },
  }
  const read = (name: string) =>
    Promise.resolve({ value: Buffer.from(name === ARN ? secret : ''), version: '1' })
  return openIssuer(rotation, {
    folder,
    secrets: { read },
    kafka: undefined,
    clock: { now: () => Date.now() },
  })
}
const issued = (issuer: CertificateIssuer): Promise<string> => {
  const { publicKey: key } = generateKeyPair(ESP256)
  return issuer.issue({ subject: 'CN=gate', key, until: Date.now() + 60_000 }, Date.now() + 1000)
}
const faultOf = async (work: () => unknown): Promise<string> => {
  try {
    await work()
  } catch (error) {
    if (error instanceof ConfigError) return error.message
    throw error
  }
  throw new Error('no fault')
}

describe('the authority of a policy', () => {
  it('has its key in a file beside the policy, or in a secret, as PEM or JWK, and knows its own', async () => {
    const issuer = issuerBy()
    expect(issuer.hasIssued(await issued(issuer))).toBe(true)
    expect(issuer.hasIssued(selfSigned().cert)).toBe(false)
    for (secret of [ca.key, JSON.stringify(exportPrivateJwk(importPkcs8(ca.key)))])
      expect(readCertificate(await issued(issuerBy({ authorityKey: ARN }))).subject).toBe('CN=gate')
  })

  it('keeps a key to itself that lies in the file of its certificate', async () => {
    await writeFile(join(folder, 'both.pem'), `${ca.key}${ca.cert}`, { mode: 0o600 })
    const pem = await issued(issuerBy({ authority: 'both.pem', authorityKey: 'file:both.pem' }))
    expect([pem.match(/BEGIN CERTIFICATE/g)?.length, pem.includes('PRIVATE')]).toEqual([2, false])
  })

  it('does not take a key that others can read, or none', async () => {
    await chmod(join(folder, 'ca.key'), 0o640)
    expect(await faultOf(() => issued(issuerBy()))).toBe(
      `${join(folder, 'ca.key')}: Others can read it. chmod 600 ${join(folder, 'ca.key')}`,
    )
    const none = issuerBy({ authorityKey: 'file:none.key' })
    expect(await faultOf(() => issued(none))).toContain('none.key: It cannot be read (ENOENT).')
  })

  it('says what keys it can use, and quotes none', async () => {
    const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 })
    const rsa = privateKey.export({ format: 'pem', type: 'pkcs8' }).toString()
    for (secret of [rsa, '-----BEGIN PRIVATE KEY-----\nplanted-secret']) {
      const said = await faultOf(() => issued(issuerBy({ authorityKey: ARN })))
      expect(said).toBe(
        'rotations.gate: The key of its authority cannot be used here. Use one of P-256 or Ed25519, not encrypted, or one in KMS.',
      )
    }
    secret = 'planted-secret'
    expect(await faultOf(() => issued(issuerBy({ authorityKey: ARN })))).not.toContain('planted')
    expect(
      ['file:x', ARN, 'arn:aws:kms:eu-west-1:111122223333:alias/x', 'ca.key', ''].map(isAuthorityKey),
    ).toEqual([...[true, true, false, false, false]])
  })

  it('is a certificate that may sign others', async () => {
    expect(await faultOf(() => issuerBy({ authority: 'none.pem' }))).toContain('It cannot be read (ENOENT).')
    await writeFile(join(folder, 'leaf.pem'), await issued(issuerBy()))
    for (const authority of ['leaf.pem', 'ca.key'])
      expect(await faultOf(() => issuerBy({ authority }))).toContain('It is no certificate of an authority.')
  })

  it('uses nothing before it is known which brokers must take it', async () => {
    const issuer = issuerBy({ brokers: ['b:9094'] })
    expect(await faultOf(() => issuer.logIn({ certificate: '', privateKey: '' }, Date.now()))).toContain(
      'rotations.gate: Which brokers must take its certificate is not known. Set SEALGATE_KAFKA_BROKERS',
    )
  })
})
